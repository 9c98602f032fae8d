//! Which Kinesis data stream.

use std::{ops::RangeInclusive, time::Duration};

use serde::Deserialize;

use super::{Aggregation, Compress, Packing, TagName, Tags};
use crate::{
    config::{Problems, distinct, duration, size},
    destination::{
        Origin,
        aws::{self, Encoding},
    },
    outgoing::{self, Variables},
};

/// Kinesis' own bounds for the size of a record (`UpdateMaxRecordSize`).
const MAX_RECORD: RangeInclusive<u64> = 1 << 10..=10 << 20;

/// Ten units that Kinesis charges: larger ones save nothing more, and a throttled one costs more to send again.
const AGGREGATE_BYTES: u64 = 250_000;

/// The map of shards is only refreshed in case that nothing else told of a change.
const SHARD_REFRESH: Duration = Duration::from_secs(600);
const SHARD_REFRESHES: RangeInclusive<Duration> = Duration::from_secs(10)..=Duration::from_secs(24 * 3600);

/// What a record of the wire has around an aggregate: its own partition key, and what gzip may add.
const AROUND_AGGREGATE: u64 = 8 << 10;

/// The settings of a `kinesis` destination.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Config {
    /// Where AWS is.
    #[serde(skip)]
    pub aws: aws::Config,
    /// How it is reached.
    #[serde(skip)]
    pub outgoing: outgoing::Config,
    /// The stream's name.
    pub stream: Option<String>,
    /// How PutRecords is written; left out: CBOR to AWS itself, JSON to any other endpoint.
    pub encoding: Option<Encoding>,
    /// The largest record (key and data) that the stream takes. AWS: 1 MiB unless raised, at most 10 MiB.
    #[serde(with = "size")]
    pub max_record: u64,
    /// Whether records share a record of the wire: docs/aggregation.md.
    pub aggregation: Aggregation,
    /// The most data of an aggregate, before it is compressed; left out: 250 kB, or what `max-record` leaves it.
    #[serde(with = "size::option")]
    pub aggregate_bytes: Option<u64>,
    /// What rides with each record of a `kpl` aggregate.
    #[serde(deserialize_with = "distinct::deserialize")]
    pub aggregate_tags: Vec<TagName>,
    /// How the data of `lines` is compressed.
    pub compress: Compress,
    /// `kpl`: how often the stream is asked for its shards, beside when something speaks for others; left out: 10 minutes.
    #[serde(with = "duration::option")]
    pub shard_refresh: Option<Duration>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            aws: aws::Config::default(),
            outgoing: outgoing::Config::default(),
            stream: None,
            encoding: None,
            max_record: 1 << 20,
            aggregation: Aggregation::None,
            aggregate_bytes: None,
            aggregate_tags: Vec::new(),
            compress: Compress::None,
            shard_refresh: None,
        }
    }
}

impl Config {
    /// Notes what is missing or cannot be.
    pub fn validate(&self, path: &str, problems: &mut Problems) {
        match &self.stream {
            None => problems.add(format!("{path}.stream"), "is missing: the name of the Kinesis stream"),
            Some(name) if !is_stream_name(name) => problems.add(
                format!("{path}.stream"),
                format!("`{name}` cannot be a Kinesis stream: 1 to 128 characters of a-z A-Z 0-9 _ . -"),
            ),
            Some(_) => {}
        }
        self.aws.validate(path, problems);
        self.outgoing.validate(path, problems);
        if !MAX_RECORD.contains(&self.max_record) {
            let [min, max, shown] = size::show_beside([*MAX_RECORD.start(), *MAX_RECORD.end(), self.max_record]);
            problems.add(format!("{path}.max-record"), format!("must be {min} to {max}, not {shown}"));
        }
        self.validate_aggregation(path, problems);
    }

    fn validate_aggregation(&self, path: &str, problems: &mut Problems) {
        let (min, max) = (1 << 10, self.max_record.saturating_sub(AROUND_AGGREGATE).max(1 << 10));
        // What is not said follows a small `max-record`, see `packing`.
        if let Some(bytes) = self.aggregate_bytes
            && !(min..=max).contains(&bytes)
        {
            let [min, max, bytes] = size::show_beside([min, max, bytes]);
            let why = format!("must be {min} to {max}, which is what max-record leaves it, not {bytes}");
            problems.add(format!("{path}.aggregate-bytes"), why);
        }
        if self.aggregation != Aggregation::Kpl && !self.aggregate_tags.is_empty() {
            problems
                .add(format!("{path}.aggregate-tags"), "is for aggregation = \"kpl\"; nothing else has room for tags");
        }
        if self.aggregation != Aggregation::Lines && self.compress != Compress::None {
            let why =
                "is for aggregation = \"lines\": other records go as they are, or in a format that is not compressed";
            problems.add(format!("{path}.compress"), why);
        }
        if let Some(refresh) = self.shard_refresh
            && !SHARD_REFRESHES.contains(&refresh)
        {
            let shown = duration::show(refresh);
            problems.add(format!("{path}.shard-refresh"), format!("must be 10s to 24h, not {shown}"));
        }
    }

    /// How records of this origin become records of the wire.
    pub(super) fn packing(&self, origin: &Origin<'_>) -> Packing {
        Packing {
            aggregation: self.aggregation,
            gzip: self.compress == Compress::Gzip,
            tags: Tags::new(&self.aggregate_tags, origin.gateway, origin.stream),
            aggregate_bytes: self.most_in_aggregate(),
            max_record: self.max_record,
        }
    }

    /// The most data of an aggregate, where there are any.
    fn most_in_aggregate(&self) -> u64 {
        let bytes = self.aggregate_bytes.unwrap_or(AGGREGATE_BYTES);
        bytes.min(self.max_record.saturating_sub(AROUND_AGGREGATE)).max(256)
    }

    /// How PutRecords is written.
    pub(super) fn encoding(&self) -> Encoding {
        let known = || if self.aws.endpoint.is_none() { Encoding::Cbor } else { Encoding::Json };
        self.encoding.unwrap_or_else(known)
    }

    /// How often the stream is asked for its shards.
    pub(super) fn shard_refresh(&self) -> Duration {
        self.shard_refresh.unwrap_or(SHARD_REFRESH)
    }

    /// Keys that are without effect, and why.
    pub(in crate::destination) fn warnings(&self) -> Vec<(&'static str, String)> {
        let mut warnings = Vec::new();
        if self.aggregation == Aggregation::None && self.aggregate_bytes.is_some() {
            warnings.push(("aggregate-bytes", "without effect: aggregation = \"none\" makes no aggregates".to_owned()));
        }
        if self.aggregation != Aggregation::Kpl && self.shard_refresh.is_some() {
            let why = "without effect: shards are asked for only with aggregation = \"kpl\"".to_owned();
            warnings.push(("shard-refresh", why));
        }
        warnings
    }

    /// What it is, and by which way it is reached in this environment, in a few words.
    #[must_use]
    pub fn describe(&self, variables: Variables<'_>) -> String {
        let stream = self.stream.as_deref().unwrap_or_default();
        let way = self.outgoing.describe(&self.aws.address("kinesis"), variables);
        format!("kinesis stream {stream} {}{way}", self.aws.describe())
    }

    /// How records travel, also where nothing was said about it.
    #[must_use]
    pub fn describe_travel(&self) -> String {
        let most = size::show(self.most_in_aggregate());
        let aggregates = match (self.aggregation, self.compress) {
            (Aggregation::None, _) => "no aggregates".to_owned(),
            (Aggregation::Kpl, _) => format!("kpl aggregates of at most {most}"),
            (Aggregation::Lines, Compress::None) => format!("lines of at most {most}"),
            (Aggregation::Lines, Compress::Gzip) => format!("lines of at most {most}, with gzip"),
        };
        format!("{aggregates}, {}", self.encoding())
    }
}

fn is_stream_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    (1..=128).contains(&name.len()) && name.bytes().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config::key_path, destination};

    #[test]
    fn a_tag_is_asked_for_once() {
        let problems_of = |tags: &str| {
            let text = format!("stream = 's'\nregion = 'r'\naggregation = 'kpl'\naggregate-tags = {tags}");
            let mut problems = Problems::default();
            let table = toml::from_str(&text).expect("TOML");
            destination::Config::read("kinesis", table, "destinations.cloud", &[], &mut problems).expect("a table");
            problems.list().iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(problems_of("['id', 'arrival', 'own', 'sequence-number']"), [""; 0]);
        assert_eq!(
            problems_of("['id', 'arrival', 'id', 'id']"),
            [
                "destinations.cloud.aggregate-tags[2]: `id` is there already",
                "destinations.cloud.aggregate-tags[3]: `id` is there already"
            ]
        );
        // All at once with what is no tag.
        let told = problems_of("['id', 'arival', 'id', 7, 'arrival', 'own', 'arrival']");
        let told: Vec<_> = told.iter().filter_map(|told| told.split_once(": ")).map(|(path, _)| path).collect();
        let places = [1, 2, 3, 6].map(|place| format!("destinations.cloud.aggregate-tags[{place}]"));
        assert_eq!(told, places);
    }

    #[test]
    fn every_mistake_is_told() {
        let text = "stream = 'no good'\nendpoint = 'example.com'\nmax-record = '11MiB'\nrequest-timeout = '1h'";
        let (table, path) = (toml::from_str(text).expect("TOML"), key_path("destinations", "cloud"));
        let mut problems = Problems::default();
        destination::Config::read("kinesis", table, &path, &[], &mut problems).expect("a table");
        assert_eq!(problems.list().len(), 5, "{problems:#?}");
    }
}
