//! A Kinesis endpoint as boto3 sees it: creates streams, reads back what arrived.

use std::ops::RangeInclusive;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;
use serde_json::Value;

use super::python::python;

const SCRIPT: &str = include_str!("kinesis.py");

/// One endpoint.
pub(crate) struct Kinesis {
    endpoint: String,
}

/// A record that was read back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Received {
    pub(crate) shard: String,
    pub(crate) sequence_number: String,
    pub(crate) partition_key: String,
    pub(crate) data: Vec<u8>,
    /// The hash keys of the shard.
    pub(crate) range: RangeInclusive<u128>,
}

impl Kinesis {
    pub(crate) fn at(endpoint: &str) -> Self {
        Self { endpoint: endpoint.to_owned() }
    }

    /// Creates a stream and waits until it is active.
    #[track_caller]
    pub(crate) fn create_stream(&self, stream: &str, shards: u16) {
        python(SCRIPT, &[&self.endpoint, "create", stream, &shards.to_string()]);
    }

    /// Waits until at least `count` records are in the stream, then reads all: shard by shard, each in its order.
    /// Fewer come back when the time is up; the test judges that.
    #[track_caller]
    pub(crate) fn read(&self, stream: &str, count: usize, within: Duration) -> Vec<Received> {
        #[derive(Deserialize)]
        struct Line {
            shard: String,
            sequence_number: String,
            partition_key: String,
            data: String,
            first: String,
            last: String,
        }
        let (count, within) = (count.to_string(), within.as_secs_f64().to_string());
        let mut records: Vec<Received> = python(SCRIPT, &[&self.endpoint, "read", stream, &count, &within])
            .into_iter()
            .map(|line| {
                let line: Line = serde_json::from_value(line).expect("the script prints these fields");
                let hash_key = |text: &str| text.parse().expect("a hash key");
                Received {
                    range: hash_key(&line.first)..=hash_key(&line.last),
                    shard: line.shard,
                    sequence_number: line.sequence_number,
                    partition_key: line.partition_key,
                    data: BASE64_STANDARD.decode(line.data).expect("the script prints base64"),
                }
            })
            .collect();
        // Stable: the rounds of reading are put together, the order within a shard stays.
        records.sort_by(|a, b| a.shard.cmp(&b.shard));
        records
    }

    /// All shards as the endpoint lists them, in its own words.
    #[track_caller]
    pub(crate) fn shards(&self, stream: &str) -> Vec<Value> {
        python(SCRIPT, &[&self.endpoint, "shards", stream])
    }

    /// One PutRecords request of `KEY=TEXT` records; returns what boto3 made of the answer.
    #[track_caller]
    pub(crate) fn put(&self, stream: &str, read_timeout: Duration, records: &[&str]) -> Value {
        let read_timeout = read_timeout.as_secs_f64().to_string();
        let arguments = [&[self.endpoint.as_str(), "put", stream, read_timeout.as_str()], records].concat();
        python(SCRIPT, &arguments).pop().expect("the script prints one line")
    }
}
