//! Records: what is appended, what is read back, and the bytes in between.
//!
//! A record's persisted form is a postcard enum: a new kind of record is a new variant, and old logs stay readable.

use bytes::Bytes;
use compact_str::CompactString;
use serde::{Deserialize, Serialize};

use crate::{clock::Timestamp, hash_key::HashKey, sequence::SequenceNumber, shard::ShardIndex};

/// Longest partition key, in Unicode scalar values (Kinesis: 1 to 256 characters).
pub const PARTITION_KEY_CHARS_MAX: usize = 256;

/// Largest data of one record in bytes (Kinesis `UpdateMaxRecordSize`: up to 10 MiB).
pub const RECORD_BYTES_MAX: usize = 10 * 1024 * 1024;

/// A name and a value that ride with a record, such as the reason of a dead letter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tag {
    /// The tag's name.
    pub name: String,
    /// The tag's value.
    pub value: String,
}

/// A record to be appended.
#[derive(Debug, Clone, Copy)]
pub struct NewRecord<'a> {
    /// Chooses the shard and is what order is kept by: 1 to [`PARTITION_KEY_CHARS_MAX`] characters.
    pub partition_key: &'a str,
    /// Overrides the shard that the partition key would choose.
    pub explicit_hash_key: Option<HashKey>,
    /// Usually none.
    pub tags: &'a [Tag],
    /// Opaque bytes, at most [`RECORD_BYTES_MAX`].
    pub data: &'a [u8],
}

impl<'a> NewRecord<'a> {
    /// A record of a key and data alone.
    #[must_use]
    pub fn new(partition_key: &'a str, data: &'a [u8]) -> Self {
        Self { partition_key, explicit_hash_key: None, tags: &[], data }
    }

    /// What the record counts for in limits and statistics, in bytes: key and data, as in Kinesis.
    #[must_use]
    pub fn payload_bytes(&self) -> u64 {
        (self.partition_key.len() + self.data.len()) as u64
    }

    /// The hash key that places it.
    #[must_use]
    pub fn hash_key(&self) -> HashKey {
        self.explicit_hash_key.unwrap_or_else(|| HashKey::of(self.partition_key))
    }
}

/// A record read back from the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its place in the stream.
    pub sequence_number: SequenceNumber,
    /// The shard it belongs to.
    pub shard: ShardIndex,
    /// When the gateway took it, as well as that is known at the reading. Never runs backwards in what a cursor reads, unless
    /// the log has learnt more of the clocks in between.
    pub arrival: Timestamp,
    /// Whether a trusted clock told that time. Else it is what an untrusted one showed, and may be wrong by decades.
    pub arrival_trusted: bool,
    /// As appended. Most are short enough to need no memory of their own.
    pub partition_key: CompactString,
    /// As appended.
    pub explicit_hash_key: Option<HashKey>,
    /// As appended.
    pub tags: Vec<Tag>,
    /// As appended; a copy, so that one record that is kept does not keep its whole block.
    pub data: Bytes,
}

impl Record {
    /// Key and data in bytes; see [`NewRecord::payload_bytes`].
    #[must_use]
    pub fn payload_bytes(&self) -> u64 {
        (self.partition_key.len() + self.data.len()) as u64
    }
}

/// The persisted form. Persisted: never reorder or change a variant, only add.
#[derive(Serialize, Deserialize)]
pub(crate) enum Encoded<'a> {
    /// By far the most: nothing but key and data.
    Plain {
        partition_key: &'a str,
        #[serde(with = "serde_bytes")]
        data: &'a [u8],
    },
    Full {
        partition_key: &'a str,
        explicit_hash_key: Option<HashKey>,
        tags: Vec<Tag>,
        #[serde(with = "serde_bytes")]
        data: &'a [u8],
    },
}

impl<'a> Encoded<'a> {
    pub(crate) fn of(record: &NewRecord<'a>) -> Self {
        let NewRecord { partition_key, explicit_hash_key, tags, data } = *record;
        if explicit_hash_key.is_none() && tags.is_empty() {
            Self::Plain { partition_key, data }
        } else {
            Self::Full { partition_key, explicit_hash_key, tags: tags.to_vec(), data }
        }
    }

    pub(crate) fn partition_key(&self) -> &'a str {
        match self {
            Self::Plain { partition_key, .. } | Self::Full { partition_key, .. } => partition_key,
        }
    }

    pub(crate) fn hash_key(&self) -> HashKey {
        match self {
            Self::Full { explicit_hash_key: Some(explicit), .. } => *explicit,
            _ => HashKey::of(self.partition_key()),
        }
    }

    /// Key and data in bytes.
    pub(crate) fn payload_bytes(&self) -> u64 {
        match self {
            Self::Plain { partition_key, data } | Self::Full { partition_key, data, .. } => {
                (partition_key.len() + data.len()) as u64
            }
        }
    }

    /// Appends the persisted form to `out`.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        *out = postcard::to_extend(self, std::mem::take(out)).expect("a Vec takes any number of bytes");
    }

    /// Takes one record off the front of `bytes`.
    pub(crate) fn take(bytes: &'a [u8]) -> Result<(Self, &'a [u8]), postcard::Error> {
        postcard::take_from_bytes(bytes)
    }
}
