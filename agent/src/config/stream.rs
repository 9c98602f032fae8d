//! `[streams.NAME]`: how a stream is kept, in Kinesis' own terms.

use std::{num::NonZeroU32, ops::RangeInclusive, time::Duration};

use forebay_log_store::{Codec, Durability, OnFull, RateLimit, StreamConfig};
use serde::Deserialize;
use toml::{Table, Value};

use super::{Problems, duration, key_path, reader, size};

/// Kinesis' limits of retention: 24 hours to a year.
const RETENTION_MIN: Duration = Duration::from_secs(24 * 3600);
const RETENTION_MAX: Duration = Duration::from_secs(8760 * 3600);
/// Each open shard costs a rate limiter, counters and a line in status; nobody needs more on one gateway.
const SHARDS_MAX: u32 = 1000;
/// Below this, not even one commit of small records and its successor fit.
const QUOTA_MIN: u64 = 1 << 20;

/// What a power cut may take with `interval`: more than a minute is no log any more, less than a millisecond is `sync`.
const COMMIT_INTERVAL: Duration = Duration::from_secs(1);
const COMMIT_INTERVALS: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_secs(60);
/// How long a device waits for its acknowledgement with `memory-first` while there is no connection.
const SPILL_AFTER: Duration = Duration::from_secs(5);
const SPILL_AFTERS: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(600);
const SPILL_SIZE: u64 = 4 << 20;
const SPILL_SIZES: RangeInclusive<u64> = 64 << 10..=1 << 30;

/// What stands in front of a destination's name in the name of the stream of its dead letters.
pub const DEAD_LETTER: &str = "dead-letter.";

/// The stream that takes what `destination` will never accept.
#[must_use]
pub fn dead_letter_stream(destination: &str) -> String {
    format!("{DEAD_LETTER}{destination}")
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub(super) struct Config {
    shards: Option<u32>,
    #[serde(with = "duration::option")]
    retention: Option<Duration>,
    #[serde(with = "size::option")]
    quota: Option<u64>,
    on_full: Option<FullPolicy>,
    compression: Option<Compression>,
    durability: Option<HowDurable>,
    #[serde(with = "duration::option")]
    commit_interval: Option<Duration>,
    #[serde(with = "duration::option")]
    spill_after: Option<Duration>,
    #[serde(with = "size::option")]
    spill_size: Option<u64>,
    /// `"kinesis"`, `"off"` or a table; read by hand, so that a mistake in it gets a message that helps.
    rate_limit: Option<Value>,
    hold_undelivered: Option<bool>,
    keep_delivered: Option<bool>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum FullPolicy {
    Reject,
    DropOldest,
    DropDeliveredFirst,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum HowDurable {
    #[default]
    Sync,
    Interval,
    MemoryFirst,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Compression {
    None,
    Lz4,
    Zstd,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Limits {
    records_per_second: Option<u32>,
    #[serde(default, with = "size::option")]
    bytes_per_second: Option<u64>,
}

/// What a stream is when its table says nothing: the log's own defaults, or those for dead letters.
#[must_use]
pub fn defaults(name: &str) -> StreamConfig {
    let mut stream = StreamConfig::new(name);
    if name.starts_with(DEAD_LETTER) {
        // Somebody has to look at dead letters, which takes its time; so they stay long, but in little room. And they
        // must never block the delivery that puts them there, so the oldest go, and no rate limit applies.
        stream.retention = RETENTION_MAX;
        stream.quota = 64 << 20;
        stream.on_full = OnFull::DropOldest;
        stream.rate_limit = None;
    }
    stream
}

/// Reads the stream `name` from its table.
pub fn read(name: &str, table: Table, problems: &mut Problems) -> StreamConfig {
    let path = key_path("streams", name);
    if !is_stream_name(name) {
        problems
            .add(&path, "a stream's name has 1 to 128 characters of a-z A-Z 0-9 _ . - and does not begin with a dot");
    }
    let config: Config = reader::read(table, &path, &[], problems).unwrap_or_default();
    let mut stream = defaults(name);
    if let Some(shards) = config.shards {
        match NonZeroU32::new(shards).filter(|shards| shards.get() <= SHARDS_MAX) {
            Some(shards) => stream.shards = shards,
            None => problems.add(format!("{path}.shards"), format!("must be 1 to {SHARDS_MAX}, not {shards}")),
        }
    }
    if let Some(retention) = config.retention {
        if !(RETENTION_MIN..=RETENTION_MAX).contains(&retention) {
            let shown = duration::show(retention);
            problems.add(format!("{path}.retention"), format!("must be 24h to 8760h (a year), not {shown}"));
        }
        stream.retention = retention;
    }
    if let Some(quota) = config.quota {
        if quota < QUOTA_MIN {
            let [min, shown] = size::show_beside([QUOTA_MIN, quota]);
            problems.add(format!("{path}.quota"), format!("must be {min} or more, not {shown}"));
        }
        stream.quota = quota;
    }
    if let Some(policy) = config.on_full {
        stream.on_full = match policy {
            FullPolicy::Reject => OnFull::Reject,
            FullPolicy::DropOldest => OnFull::DropOldest,
            FullPolicy::DropDeliveredFirst => OnFull::DropDeliveredFirst,
        };
    }
    if let Some(compression) = config.compression {
        stream.compression = match compression {
            Compression::None => Codec::None,
            Compression::Lz4 => Codec::Lz4,
            Compression::Zstd => Codec::Zstd,
        };
    }
    stream.durability = durability(&config, &path, problems);
    if let Some(value) = config.rate_limit {
        stream.rate_limit = rate_limit(value, &format!("{path}.rate-limit"), problems);
    }
    stream.hold_undelivered = config.hold_undelivered.unwrap_or(stream.hold_undelivered);
    stream.keep_delivered = config.keep_delivered.unwrap_or(stream.keep_delivered);
    stream
}

/// The durability, and the keys that belong to it; one that belongs to another is a mistake.
fn durability(config: &Config, path: &str, problems: &mut Problems) -> Durability {
    let how = config.durability.unwrap_or_default();
    let mut only_with = |key: &str, given: bool, wanted: HowDurable, name: &str| {
        if given && how != wanted {
            problems.add(format!("{path}.{key}"), format!("counts only with durability = \"{name}\""));
        }
    };
    only_with("commit-interval", config.commit_interval.is_some(), HowDurable::Interval, "interval");
    only_with("spill-after", config.spill_after.is_some(), HowDurable::MemoryFirst, "memory-first");
    only_with("spill-size", config.spill_size.is_some(), HowDurable::MemoryFirst, "memory-first");
    match how {
        HowDurable::Sync => Durability::Sync,
        HowDurable::Interval => {
            let interval = config.commit_interval.unwrap_or(COMMIT_INTERVAL);
            if !COMMIT_INTERVALS.contains(&interval) {
                let shown = duration::show(interval);
                problems.add(format!("{path}.commit-interval"), format!("must be 1ms to 1m, not {shown}"));
            }
            Durability::Interval(interval)
        }
        HowDurable::MemoryFirst => {
            let spill_after = config.spill_after.unwrap_or(SPILL_AFTER);
            if !SPILL_AFTERS.contains(&spill_after) {
                let shown = duration::show(spill_after);
                problems.add(format!("{path}.spill-after"), format!("must be 100ms to 10m, not {shown}"));
            }
            let memory = config.spill_size.unwrap_or(SPILL_SIZE);
            if !SPILL_SIZES.contains(&memory) {
                let [_, _, shown] = size::show_beside([*SPILL_SIZES.start(), *SPILL_SIZES.end(), memory]);
                problems.add(format!("{path}.spill-size"), format!("must be 64KiB to 1GiB, not {shown}"));
            }
            Durability::MemoryFirst { spill_after, memory_bytes: usize::try_from(memory).unwrap_or(usize::MAX) }
        }
    }
}

/// Reads a rate limit, which may also be a word.
pub fn rate_limit(value: Value, path: &str, problems: &mut Problems) -> Option<RateLimit> {
    let table = match value {
        Value::String(text) if text == "kinesis" => return Some(RateLimit::KINESIS),
        Value::String(text) if text == "off" => return None,
        Value::Table(table) => table,
        other => {
            problems.add(
                path,
                format!(
                    "must be \"kinesis\" (1,000 records and 1 MB per second and shard), \"off\", or a table such as \
                     {{ records-per-second = 1000, bytes-per-second = \"1MB\" }}, not {other}"
                ),
            );
            return None;
        }
    };
    let known = problems.list().len();
    let limits: Limits = reader::read(table, path, &[], problems)?;
    if problems.list().len() > known {
        return None;
    }
    for (key, missing, zero) in [
        ("records-per-second", limits.records_per_second.is_none(), limits.records_per_second == Some(0)),
        ("bytes-per-second", limits.bytes_per_second.is_none(), limits.bytes_per_second == Some(0)),
    ] {
        if missing {
            problems.add(format!("{path}.{key}"), "missing; a table sets both limits");
        } else if zero {
            problems.add(format!("{path}.{key}"), "must not be 0: nothing would ever be taken");
        }
    }
    Some(RateLimit { records_per_second: limits.records_per_second?, bytes_per_second: limits.bytes_per_second? })
}

/// Whether a stream may have this name. The log's own rule, asked here so that it is told together with everything else.
#[must_use]
pub fn is_stream_name(name: &str) -> bool {
    (1..=128).contains(&name.len())
        && !name.starts_with('.')
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream_of(text: &str) -> (StreamConfig, Vec<String>) {
        let mut problems = Problems::default();
        let stream = read("telemetry", text.parse().expect("TOML"), &mut problems);
        (stream, problems.list().iter().map(ToString::to_string).collect())
    }

    #[test]
    fn an_empty_table_is_a_stream_as_in_kinesis() {
        let (stream, problems) = stream_of("");
        assert_eq!(problems, [""; 0]);
        assert_eq!(stream.shards.get(), 1);
        assert_eq!(stream.retention, RETENTION_MIN);
        assert_eq!(stream.rate_limit, Some(RateLimit::KINESIS));
        assert!(stream.hold_undelivered);
    }

    #[test]
    fn a_durability_has_its_own_keys() {
        let durability = |text: &str| {
            let (stream, problems) = stream_of(text);
            assert_eq!(problems, [""; 0], "{text}");
            stream.durability
        };
        assert_eq!(durability(""), Durability::Sync);
        assert_eq!(durability("durability = \"interval\""), Durability::Interval(Duration::from_secs(1)));
        assert_eq!(
            durability("durability = \"memory-first\"\nspill-after = \"2s\"\nspill-size = \"1MiB\""),
            Durability::MemoryFirst { spill_after: Duration::from_secs(2), memory_bytes: 1 << 20 }
        );
        for (text, problem) in [
            ("spill-after = \"2s\"", "streams.telemetry.spill-after: counts only with durability = \"memory-first\""),
            (
                "commit-interval = \"2s\"",
                "streams.telemetry.commit-interval: counts only with durability = \"interval\"",
            ),
            (
                "durability = \"interval\"\ncommit-interval = \"1h\"",
                "streams.telemetry.commit-interval: must be 1ms to 1m, not 1h",
            ),
            (
                "durability = \"memory-first\"\nspill-size = \"1KiB\"",
                "streams.telemetry.spill-size: must be 64KiB to 1GiB, not 1.0 KiB",
            ),
        ] {
            assert_eq!(stream_of(text).1, [problem], "{text}");
        }
        assert!(stream_of("durability = \"never\"").1[0].starts_with("streams.telemetry.durability: must be "));
    }

    #[test]
    fn rate_limits_are_words_or_a_table() {
        assert_eq!(stream_of(r#"rate-limit = "kinesis""#).0.rate_limit, Some(RateLimit::KINESIS));
        assert_eq!(stream_of(r#"rate-limit = "off""#).0.rate_limit, None);
        let (stream, problems) = stream_of(r#"rate-limit = { records-per-second = 10, bytes-per-second = "1MB" }"#);
        assert_eq!(stream.rate_limit, Some(RateLimit { records_per_second: 10, bytes_per_second: 1_000_000 }));
        assert_eq!(problems, [""; 0]);
    }

    #[test]
    fn mistakes_in_a_rate_limit_are_told_at_their_place() {
        for (text, problem) in [
            (
                "rate-limit = 5",
                "streams.telemetry.rate-limit: must be \"kinesis\" (1,000 records and 1 MB per second and shard), \
                 \"off\", or a table such as { records-per-second = 1000, bytes-per-second = \"1MB\" }, not 5",
            ),
            (
                "rate-limit = { records-per-second = 5 }",
                "streams.telemetry.rate-limit.bytes-per-second: missing; a table sets both limits",
            ),
            (
                "rate-limit = { records-per-second = 0, bytes-per-second = \"1MB\" }",
                "streams.telemetry.rate-limit.records-per-second: must not be 0: nothing would ever be taken",
            ),
            (
                "rate-limit = { record-per-second = 5, bytes-per-second = \"1MB\" }",
                "streams.telemetry.rate-limit.record-per-second: unknown key, did you mean `records-per-second`?",
            ),
        ] {
            assert_eq!(stream_of(text).1, [problem]);
        }
    }

    #[test]
    fn limits_are_held() {
        let (_, problems) = stream_of("shards = 0\nretention = \"1h\"\nquota = \"10KiB\"");
        assert_eq!(
            problems,
            [
                "streams.telemetry.shards: must be 1 to 1000, not 0",
                "streams.telemetry.retention: must be 24h to 8760h (a year), not 1h",
                "streams.telemetry.quota: must be 1.0 MiB or more, not 10.0 KiB",
            ]
        );
    }

    #[test]
    fn dead_letters_stay_long_and_never_block() {
        let stream = defaults("dead-letter.cloud");
        assert_eq!(stream.on_full, OnFull::DropOldest);
        assert_eq!(stream.retention, RETENTION_MAX);
    }
}
