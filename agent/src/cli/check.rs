//! `forebay check`: what a configuration says, or everything that is wrong with it.

use std::fmt::Write as _;

use anyhow::Context as _;
use forebay_log_store::{OnFull, RateLimit, StreamConfig};

use super::{ConfigFile, output::Output};
use crate::{
    config::{self, Config, Problem, duration, key_path, min_free, size, stream::DEAD_LETTER},
    credentials::{KnownTime, certificate::Period},
    delivery::{CatchUp, Ordering},
    disk_room,
    outgoing::Variables,
};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    config: ConfigFile,
}

impl Args {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let config = self.config.load().inspect_err(|error| {
            if let Some(config::Error::Problems { warnings, .. }) = error.downcast_ref() {
                warn(warnings);
            }
        })?;
        let warnings = [config.warnings(), of_certificates(&config)].concat();
        if let Some(problem) = disk_room::problem(&config.store, &config.quotas()) {
            warn(&warnings);
            return Err(config::Error::Problems { problems: vec![problem], warnings })
                .context(format!("accept {}", self.config.config.display()));
        }
        let mut output = Output::new();
        output.text(&describe(&config, &|name| std::env::var(name).ok()))?;
        output.line(&format!("{} is valid", self.config.config.display()))?;
        output.flush()?;
        warn(&warnings);
        Ok(())
    }
}

fn warn(warnings: &[Problem]) {
    for warning in warnings {
        eprintln!("warning: {warning}");
    }
}

/// Which certificates do not hold at this time.
fn of_certificates(config: &Config) -> Vec<Problem> {
    let now = KnownTime::default().now();
    let mut warnings = Vec::new();
    for (name, destination) in &config.destinations {
        for file in destination.settings.client_certificates() {
            let trouble = Period::of_file(&file).map_or_else(Some, |period| period.trouble(now));
            warnings.extend(trouble.map(|trouble| Problem {
                path: key_path("destinations", name),
                message: format!("certificate {} {trouble}", file.display()),
            }));
        }
    }
    warnings
}

/// What the agent would do, stream by stream.
fn describe(config: &Config, variables: Variables<'_>) -> String {
    let mut out = String::new();
    let dir = std::path::absolute(&config.store.dir).unwrap_or_else(|_| config.store.dir.clone());
    let token = if config.api.token.is_some() { ", with token" } else { "" };
    let at_most = config.store.max_bytes.map_or_else(String::new, |bytes| format!("at most {}, ", size::show(bytes)));
    let free = min_free::show(config.store.min_free);
    let _ = writeln!(out, "data directory {}, {at_most}leaves {free} of its disk free", dir.display());
    let _ = writeln!(out, "api on {}{token}\n", config.api.listen);
    // Streams of dead letters only if somebody wrote something about them or reads them.
    let shown = |name: &str| !name.starts_with(DEAD_LETTER) || config.destinations.values().any(|d| d.from == name);
    for (name, stream) in config.streams.iter().filter(|(name, _)| shown(name)) {
        let _ = writeln!(out, "stream {name}: {}", kept(stream));
        for (source, settings) in config.sources.iter().filter(|(_, source)| source.stream == *name) {
            let key = &settings.partition_key_text;
            let _ = writeln!(out, "  from source {source} ({}), partition key {key}", settings.settings.describe());
        }
        for (destination, settings) in config.destinations.iter().filter(|(_, to)| to.from == *name) {
            let order = match settings.delivery.ordering {
                Ordering::Strict => "strict order",
                Ordering::Relaxed => "relaxed order",
            };
            let over = match (&settings.delivery.link, settings.delivery.priority) {
                (None, _) => ", over no link".to_owned(),
                (Some(link), 0) => format!(", over link {link}"),
                (Some(link), priority) => format!(", over link {link} with priority {priority}"),
            };
            let first = match settings.delivery.catch_up {
                CatchUp::OldestFirst => "",
                CatchUp::NewestFirst => ", the newest first where there is a backlog",
                CatchUp::Split => ", a backlog side by side with what is new",
            };
            let age = settings.delivery.max_age.map(duration::show);
            let age = age.map_or_else(String::new, |age| format!(", nothing older than {age}"));
            let (what, travel) = (settings.settings.describe(variables), settings.settings.describe_travel());
            let _ = writeln!(out, "  to destination {destination} ({what})");
            let _ = writeln!(out, "    {order}, {travel}{over}{first}{age}");
        }
        if stream.consumers.is_empty() {
            let _ = writeln!(out, "  to no destination: records stay until their retention is over");
        }
        out.push('\n');
    }
    for (name, link) in &config.links {
        let _ = writeln!(out, "link {name}: {}", link.describe());
    }
    if !config.links.is_empty() {
        out.push('\n');
    }
    out
}

fn kept(stream: &StreamConfig) -> String {
    let shards = stream.shards;
    let plural = if shards.get() == 1 { "" } else { "s" };
    let retention = duration::show(stream.retention);
    let quota = size::show(stream.quota);
    let on_full = match stream.on_full {
        OnFull::Reject => "sources wait when it is full",
        OnFull::DropOldest => "the oldest records are dropped when it is full",
        OnFull::DropDeliveredFirst => "delivered records are dropped when it is full, then the oldest",
    };
    let held = if stream.hold_undelivered { "longer if undelivered, " } else { "" };
    let kept = if stream.keep_delivered { "" } else { "only until delivered, " };
    let limit = match stream.rate_limit {
        None => "no rate limit".to_owned(),
        Some(RateLimit { records_per_second, bytes_per_second }) => {
            format!("{records_per_second} records and {} per second and shard", size::show(bytes_per_second))
        }
    };
    format!("{shards} shard{plural}, kept for {retention}, {held}{kept}in {quota}; {on_full}; {limit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_flows_where_is_shown() {
        let config = Config::parse(
            r#"
            data-dir = "/var/lib/forebay"
            [streams.positions]
            [streams.telemetry]
            shards = 2
            rate-limit = "off"
            on-full = "drop-oldest"
            hold-undelivered = false
            [sources.devices]
            type = "mqtt-broker"
            listen = "127.0.0.1:1883"
            stream = "telemetry"
            [links.lte]
            bandwidth = "200kbit/s"
            daily-budget = "50MB"
            when-spent = { only-priority = 5 }
            schedule = ["mon-fri 22:00-06:00", "sat,sun 00:00-24:00"]
            metered-interfaces = ["wwan*"]
            [destinations.cloud]
            type = "kinesis"
            from = "telemetry"
            stream = "plant-telemetry"
            region = "eu-west-1"
            link = "lte"
            priority = 3
            catch-up = "newest-first"
            max-age = "6h"
            "#,
        )
        .expect("a configuration");
        assert_eq!(
            describe(&config, &|_| None),
            "\
data directory /var/lib/forebay, leaves 5% (at most 256.0 MiB) of its disk free
api on 127.0.0.1:4567

stream positions: 1 shard, kept for 24h, longer if undelivered, in 1.0 GiB; sources wait when it is full; \
             1000 records and 976.6 KiB per second and shard
  to no destination: records stay until their retention is over

stream telemetry: 2 shards, kept for 24h, in 1.0 GiB; the oldest records are dropped when it is full; no rate limit
  from source devices (mqtt-broker on 127.0.0.1:1883), partition key {topic}
  to destination cloud (kinesis stream plant-telemetry in eu-west-1)
    strict order, no aggregates, CBOR, over link lte with priority 3, the newest first where there is a backlog, \
             nothing older than 6h

link lte: at most 24.4 KiB/s; 47.7 MiB a day from 00:00, then only priority 5 and higher; \
             only mon-fri 22:00-06:00, sat,sun 00:00-24:00; while the default route leaves by wwan*

"
        );
    }

    #[test]
    fn what_holds_for_a_destination_is_shown_where_nothing_is_said_about_it() {
        let travel = |keys: &str| {
            let text = format!(
                "data-dir = 'd'\n[streams.a]\n[links.lte]\nbandwidth = '2Mbit/s'\n[destinations.c]\nfrom = 'a'\n{keys}"
            );
            let config = Config::parse(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
            let shown = describe(&config, &|_| None);
            shown.lines().find_map(|line| line.strip_prefix("    ")).expect("a line").to_owned()
        };
        let kinesis = "type = 'kinesis'\nstream = 's'\nregion = 'eu-west-1'\n";
        let firehose = kinesis.replace("kinesis", "firehose");
        let http = "type = 'http'\nurl = 'http://127.0.0.1:1'\n";
        for (kind, keys, shown) in [
            (kinesis, "", "strict order, no aggregates, CBOR, over no link"),
            (kinesis, "endpoint = 'http://127.0.0.1:1'", "strict order, no aggregates, JSON, over no link"),
            (
                kinesis,
                "aggregation = 'kpl'\nordering = 'relaxed'\nlink = 'lte'",
                "relaxed order, kpl aggregates of at most 244.1 KiB, CBOR, over link lte",
            ),
            (
                kinesis,
                "aggregation = 'lines'\ncompress = 'gzip'\naggregate-bytes = '64KiB'\nencoding = 'json'",
                "strict order, lines of at most 64.0 KiB, with gzip, JSON, over no link",
            ),
            (&firehose, "", "strict order, no aggregates, JSON, over no link"),
            (
                &firehose,
                "aggregation = 'lines'",
                "strict order, lines of at most 128.0 KiB in 4 lanes, JSON, over no link",
            ),
            (http, "", "strict order, 8 lanes, JSON with gzip, over no link"),
            (http, "compression = 'none'\nlanes = 2", "strict order, 2 lanes, JSON, over no link"),
        ] {
            assert_eq!(travel(&format!("{kind}{keys}")), shown, "{keys}");
        }
    }
}
