//! What goes over the wire of the control endpoints, written by one side and read by the other: the API and the command line.
//!
//! Data is base64, because a record holds any bytes. Numbers and texts are what they look like.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use forebay_log_store::{HashKey, Record, SequenceNumber};
use serde::{Deserialize, Serialize};

use crate::delivery::dead_letter::{Selection, Summary, Verb};

/// Most records of one put, as with Kinesis' PutRecords.
pub const PUT_RECORDS_MAX: usize = 500;

/// Largest body of a put: one record of the largest size in base64, and what is around it.
pub const PUT_BODY_BYTES_MAX: usize = 16 << 20;

/// Longest that a read waits for a record.
pub const WAIT_SECONDS_MAX: u64 = 60;

/// `POST /streams/NAME/records`
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Put {
    /// Stored together: all or none.
    pub records: Vec<PutRecord>,
}

/// One record of a put.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PutRecord {
    /// 1 to 256 characters.
    pub partition_key: String,
    /// A decimal number of up to 128 bits, to choose the shard in place of the partition key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub explicit_hash_key: Option<String>,
    /// The bytes, in base64. Either this or `text`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<String>,
    /// The bytes, if they are text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
}

/// Answer to a put: the records are durable.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct PutDone {
    /// One for each record, in their order.
    pub records: Vec<Place>,
}

/// Where a record is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// Such as `shardId-000000000000`.
    pub shard: String,
    /// Within the stream.
    pub sequence_number: u64,
}

/// `GET /streams/NAME/records`
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Read {
    /// In order of their sequence numbers.
    pub records: Vec<ReadRecord>,
    /// What to ask `from` next time.
    pub next: u64,
    /// The number that the stream's next record will get: what is before it was there when this was read.
    pub end: u64,
}

/// One record as it was read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadRecord {
    /// Within the stream.
    pub sequence_number: u64,
    /// Such as `shardId-000000000000`.
    pub shard: String,
    /// When the gateway took it, in milliseconds since 1970 (UTC).
    pub arrival_ms: u64,
    /// That time is what a clock showed that nobody vouched for. Left out unless it is so.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub arrival_untrusted: bool,
    /// As it was put.
    pub partition_key: String,
    /// Such as the reason of a dead letter.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<(String, String)>,
    /// The bytes, in base64.
    pub data: String,
}

/// `GET /streams`
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct StreamNames {
    /// In alphabetical order.
    pub streams: Vec<String>,
}

/// `GET /streams/NAME`, and the answer to every change of a stream
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct StreamShown {
    /// Its name.
    pub name: String,
    /// What it was made with at run time; missing for a stream of the configuration file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settings: Option<serde_json::Value>,
    /// Number of the oldest record.
    pub oldest: u64,
    /// The number that the next record will get.
    pub next: u64,
    /// How many records there are; some numbers may stand for none.
    #[serde(default)]
    pub records: u64,
    /// In order of their numbers; closed ones as long as their records are there.
    pub shards: Vec<ShardShown>,
}

/// One shard.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct ShardShown {
    /// Such as `shardId-000000000000`.
    pub shard: String,
    /// Whether it takes records.
    pub open: bool,
    /// A decimal number of up to 128 bits.
    pub first_hash_key: String,
    /// Inclusive.
    pub last_hash_key: String,
    /// The shards it was split or merged from.
    pub parents: Vec<String>,
    /// Its records have this number or a later one.
    pub starts: u64,
    /// And this number or an earlier one, if it is closed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ends: Option<u64>,
}

/// `POST /streams/NAME/shards`
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum ChangeShards {
    /// One shard becomes two.
    Split {
        /// The shard.
        shard: String,
        /// First hash key of the upper child; without it, the middle of the shard.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        at: Option<String>,
    },
    /// Two neighbours become one.
    Merge {
        /// The shards.
        shards: [String; 2],
    },
    /// So many shards of equal width.
    Count {
        /// How many.
        shards: u32,
    },
}

/// `GET /dead-letters`
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct DeadLetters {
    /// Every destination, in alphabetical order, with what it would not take.
    pub destinations: Vec<Summary>,
}

/// `POST /dead-letters/DESTINATION/settle`
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SettleLetters {
    /// What is to be done.
    pub verb: Verb,
    /// With which letters.
    pub which: Selection,
}

/// It was done.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Done {}

/// Why a request was not answered.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Refusal {
    /// A sentence fragment.
    pub error: String,
    /// The part of the request that is at fault, such as `records[3].data`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
}

impl PutRecord {
    /// A record of these bytes.
    #[must_use]
    pub fn new(partition_key: impl Into<String>, data: &[u8]) -> Self {
        Self { partition_key: partition_key.into(), data: Some(STANDARD.encode(data)), ..Self::default() }
    }

    /// Its bytes.
    ///
    /// # Errors
    /// The field that is at fault, and why.
    pub fn bytes(&self) -> Result<Vec<u8>, (&'static str, String)> {
        match (&self.data, &self.text) {
            (Some(data), None) => STANDARD.decode(data).map_err(|error| ("data", format!("is not base64: {error}"))),
            (None, Some(text)) => Ok(text.clone().into_bytes()),
            (Some(_), Some(_)) => Err(("text", "give either this or `data`, not both".to_owned())),
            (None, None) => Err(("data", "missing; give this or `text`".to_owned())),
        }
    }

    /// The hash key that overrides the partition key's.
    ///
    /// # Errors
    /// The field that is at fault, and why.
    pub fn hash_key(&self) -> Result<Option<HashKey>, (&'static str, String)> {
        let Some(text) = &self.explicit_hash_key else { return Ok(None) };
        let number =
            text.parse().map_err(|_| ("explicit_hash_key", format!("`{text}` is not a number of 128 bits")))?;
        Ok(Some(HashKey(number)))
    }
}

impl ReadRecord {
    /// Its bytes.
    ///
    /// # Errors
    /// It is not base64, so that it does not come from us.
    pub fn bytes(&self) -> anyhow::Result<Vec<u8>> {
        STANDARD.decode(&self.data).map_err(|error| anyhow::anyhow!("read record {}: {error}", self.sequence_number))
    }
}

impl From<&Record> for ReadRecord {
    fn from(record: &Record) -> Self {
        let SequenceNumber(sequence_number) = record.sequence_number;
        Self {
            sequence_number,
            shard: record.shard.to_string(),
            arrival_ms: record.arrival.0,
            arrival_untrusted: !record.arrival_trusted,
            partition_key: record.partition_key.to_string(),
            tags: record.tags.iter().map(|tag| (tag.name.clone(), tag.value.clone())).collect(),
            data: STANDARD.encode(&record.data),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_back_as_they_were() {
        for bytes in [&b""[..], b"text", &[0, 255, 10]] {
            assert_eq!(PutRecord::new("k", bytes).bytes().as_deref(), Ok(bytes));
        }
        let text = PutRecord { text: Some("Grüße".into()), ..PutRecord::default() };
        assert_eq!(text.bytes().as_deref(), Ok("Grüße".as_bytes()));
    }

    #[test]
    fn what_is_at_fault_is_named() {
        let neither = PutRecord::default();
        assert_eq!(neither.bytes().map_err(|(field, _)| field), Err("data"));
        let both = PutRecord { data: Some(String::new()), text: Some(String::new()), ..PutRecord::default() };
        assert_eq!(both.bytes().map_err(|(field, _)| field), Err("text"));
        let broken = PutRecord { data: Some("?".into()), ..PutRecord::default() };
        assert_eq!(broken.bytes().map_err(|(field, _)| field), Err("data"));
        let hash = PutRecord { explicit_hash_key: Some("-1".into()), ..PutRecord::default() };
        assert_eq!(hash.hash_key(), Err(("explicit_hash_key", "`-1` is not a number of 128 bits".into())));
    }
}
