//! Warnings: what can be done, but is hardly meant. None of it keeps a gateway from coming up.

use forebay_log_store::Durability;

use super::{Config, Problem, duration, key_path};
use crate::delivery::{self, CatchUp};

impl Config {
    /// What can be done, but is hardly meant: keys without effect, or with none that anybody wants.
    #[must_use]
    pub fn warnings(&self) -> Vec<Problem> {
        let of_sources = self.sources.iter().flat_map(|(name, source)| {
            let path = key_path("sources", name);
            source.settings.warnings().into_iter().map(move |warning| at(&path, warning))
        });
        let of_destinations = self.destinations.keys().flat_map(|name| self.of_destination(name));
        self.of_streams().chain(of_sources).chain(self.of_links()).chain(of_destinations).collect()
    }

    fn of_streams(&self) -> impl Iterator<Item = Problem> {
        self.streams.iter().filter_map(|(name, stream)| match stream.durability {
            Durability::MemoryFirst { spill_after, .. } if stream.consumers.is_empty() => Some(Problem {
                path: format!("{}.durability", key_path("streams", name)),
                message: format!(
                    "\"memory-first\" without a destination that takes from the stream only delays: every record waits for \
                     {} and is then written all the same",
                    duration::show(spill_after)
                ),
            }),
            _ => None,
        })
    }

    fn of_links(&self) -> impl Iterator<Item = Problem> {
        let nobody_uses =
            |name: &&String| !self.destinations.values().any(|to| to.delivery.link.as_ref() == Some(*name));
        self.links.keys().filter(nobody_uses).map(|name| Problem {
            path: key_path("links", name),
            message: format!("no destination says `link = \"{name}\"`: it limits nothing"),
        })
    }

    fn of_destination(&self, name: &str) -> Vec<Problem> {
        let destination = &self.destinations[name];
        let (delivery, stream) = (&destination.delivery, &self.streams[&destination.from]);
        let mut warnings = destination.settings.warnings();
        let (most, why) = destination.settings.request_records();
        // A leap to what is new goes by it, too.
        let only_of_requests = delivery.catch_up == CatchUp::OldestFirst;
        let is_default = delivery.batch_records == delivery::Config::default().batch_records;
        if delivery.batch_records > most && only_of_requests && !is_default {
            warnings.push(("batch-records", format!("without effect above {most}: {why}")));
        }
        // A stream that holds what is undelivered lets it get older than its retention.
        if let Some(age) = delivery.max_age
            && age > stream.retention
            && !stream.hold_undelivered
        {
            let (retention, from) = (duration::show(stream.retention), &destination.from);
            let why = format!(
                "longer than stream `{from}` keeps what is undelivered (retention {retention}, hold-undelivered = false): \
                 only what is in memory by then gets as old"
            );
            warnings.push(("max-age", why));
        }
        let path = key_path("destinations", name);
        warnings.into_iter().map(|warning| at(&path, warning)).collect()
    }
}

fn at(path: &str, (key, message): (&'static str, String)) -> Problem {
    Problem { path: key_path(path, key), message }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A gateway with one destination, and these keys in its stream and its destination.
    fn warnings(stream: &str, destination: &str) -> Vec<String> {
        let text = format!(
            "data-dir = \"data\"\n[streams.telemetry]\n{stream}\n[destinations.cloud]\nfrom = \"telemetry\"\n{destination}"
        );
        let config = Config::parse(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
        config.warnings().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_is_without_effect_is_told_by_its_key() {
        const KINESIS: &str = "type = \"kinesis\"\nstream = \"s\"\nregion = \"eu-west-1\"\n";
        const FIREHOSE: &str = "type = \"firehose\"\nstream = \"s\"\nregion = \"eu-west-1\"\n";
        const HTTP: &str = "type = \"http\"\nurl = \"http://127.0.0.1:1/\"\n";
        const CARELESS: &str = "hold-undelivered = false";
        let no_aggregates = "without effect: aggregation = \"none\" makes no aggregates";
        let no_shards = "without effect: shards are asked for only with aggregation = \"kpl\"";
        let too_old = "longer than stream `telemetry` keeps what is undelivered (retention 24h, hold-undelivered = false): \
                       only what is in memory by then gets as old";
        for (stream, kind, keys, expected) in [
            ("", KINESIS, "", vec![]),
            ("", HTTP, "", vec![]),
            (
                "",
                KINESIS,
                "batch-records = 501",
                vec![("batch-records", "without effect above 500: PutRecords takes no more")],
            ),
            ("", KINESIS, "batch-records = 500", vec![]),
            (
                "",
                FIREHOSE,
                "batch-records = 1000",
                vec![("batch-records", "without effect above 500: PutRecordBatch takes no more")],
            ),
            (
                "",
                HTTP,
                "batch-records = 9",
                vec![(
                    "batch-records",
                    "without effect above 8: all records of one of the `lanes` count as one; `batch-bytes` makes requests \
                     smaller",
                )],
            ),
            ("", HTTP, "batch-records = 9\nlanes = 9", vec![]),
            ("", HTTP, "batch-records = 9\ncatch-up = \"split\"", vec![]),
            (
                "",
                KINESIS,
                "aggregate-bytes = \"250kB\"\nshard-refresh = \"10m\"",
                vec![("aggregate-bytes", no_aggregates), ("shard-refresh", no_shards)],
            ),
            (
                "",
                KINESIS,
                "aggregation = \"lines\"\naggregate-bytes = \"9kB\"\nshard-refresh = \"10m\"",
                vec![("shard-refresh", no_shards)],
            ),
            ("", KINESIS, "aggregation = \"kpl\"\naggregate-bytes = \"9kB\"\nshard-refresh = \"10m\"", vec![]),
            (
                "",
                FIREHOSE,
                "aggregate-bytes = \"9kB\"\naggregate-lanes = 4",
                vec![("aggregate-bytes", no_aggregates), ("aggregate-lanes", no_aggregates)],
            ),
            ("", FIREHOSE, "aggregation = \"lines\"\naggregate-bytes = \"9kB\"\naggregate-lanes = 4", vec![]),
            (CARELESS, KINESIS, "max-age = \"25h\"", vec![("max-age", too_old)]),
            (CARELESS, KINESIS, "max-age = \"24h\"", vec![]),
            ("", KINESIS, "max-age = \"25h\"", vec![]),
        ] {
            let expected: Vec<_> =
                expected.into_iter().map(|(key, why)| format!("destinations.cloud.{key}: {why}")).collect();
            assert_eq!(warnings(stream, &format!("{kind}{keys}")), expected, "{keys}");
        }
    }
}
