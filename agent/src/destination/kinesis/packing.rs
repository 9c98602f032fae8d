//! How records become records of the wire: each alone, as lines, or as an aggregate of the Kinesis Producer Library.

use std::{
    collections::hash_map::DefaultHasher,
    hash::{Hash as _, Hasher as _},
};

use forebay_log_store::{HashKey, Record};
use serde::Deserialize;

use super::{
    kpl::{self, hash_key},
    lines,
    shards::Shards,
    tags::Tags,
};
use crate::destination::{Parcel, Place};

/// More in one record help nobody, and a consumer has to hold them.
const RECORDS_MAX: usize = 10_000;

/// How records share a record of the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Aggregation {
    /// They do not.
    #[default]
    None,
    /// Records of one key, as lines.
    Lines,
    /// Records of one shard, in the format of the Kinesis Producer Library.
    Kpl,
}

/// How a record of the wire is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Compress {
    /// It is not.
    #[default]
    None,
    /// As one gzip member.
    Gzip,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Packing {
    pub(super) aggregation: Aggregation,
    pub(super) gzip: bool,
    pub(super) tags: Tags,
    /// Data of an aggregate, before it is compressed.
    pub(super) aggregate_bytes: u64,
    /// Key and data of a record of the wire.
    pub(super) max_record: u64,
}

/// A record of the wire.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Packed {
    pub(super) data: Vec<u8>,
    pub(super) partition_key: Box<str>,
    pub(super) explicit_hash_key: Option<HashKey>,
    /// The shard that has to take it, or nobody sees all of its records.
    pub(super) shard: Option<String>,
}

impl Packed {
    /// What Kinesis counts.
    pub(super) fn bytes(&self) -> u64 {
        (self.data.len() + self.partition_key.len()) as u64
    }
}

impl Packing {
    /// Records of a parcel, and what they may take.
    pub(super) fn limits(&self) -> (usize, u64) {
        match self.aggregation {
            Aggregation::None => (1, self.max_record),
            Aggregation::Lines => (RECORDS_MAX, self.aggregate_bytes),
            Aggregation::Kpl => (RECORDS_MAX, self.aggregate_bytes - kpl::AROUND),
        }
    }

    /// Why this record cannot go, for what stands around its bytes.
    pub(super) fn accepts(&self, record: &Record) -> Result<(), String> {
        let lines = || lines::bytes_max(record) - u64::from(record.data.ends_with(b"\n"));
        let data = match self.aggregation {
            Aggregation::Lines if self.gzip => lines::gzip_bytes_max(lines()),
            Aggregation::Lines => lines(),
            Aggregation::None | Aggregation::Kpl => record.data.len() as u64,
        };
        let bytes = data + record.partition_key.len() as u64;
        if bytes > self.max_record {
            return Err(format!(
                "the record has {bytes} bytes with its key; the destination takes {}",
                self.max_record
            ));
        }
        Ok(())
    }

    pub(super) fn place(&self, record: &Record, shards: Option<&Shards>) -> Place {
        match self.aggregation {
            Aggregation::None => Place::of_key(record),
            Aggregation::Lines => Place { bytes: lines::bytes_max(record), ..Place::of_key(record) },
            Aggregation::Kpl => {
                let key = hash_key(record);
                let lane = shards.map_or_else(|| hashed(key), |shards| shards.of(key).lane);
                Place { lane, bytes: kpl::bytes_max(record, &self.tags) }
            }
        }
    }

    pub(super) fn pack(&self, parcel: &Parcel, shards: Option<&Shards>) -> Packed {
        let first = &parcel.records[0];
        let data = match self.aggregation {
            Aggregation::Lines => lines::encode(&parcel.records, self.gzip),
            Aggregation::Kpl if self.worth_an_aggregate(parcel) => kpl::encode(&parcel.records, &self.tags),
            Aggregation::None | Aggregation::Kpl => first.data.to_vec(),
        };
        // Who reads an aggregate of several hash keys skips those that are not of its shard.
        let own = || hash_key(first);
        let shard = shards
            .filter(|_| self.aggregation == Aggregation::Kpl && parcel.records.len() > 1)
            .filter(|_| parcel.records.iter().any(|record| hash_key(record) != own()))
            .map(|shards| shards.of(own()).id.clone());
        Packed { data, partition_key: first.partition_key.clone(), explicit_hash_key: first.explicit_hash_key, shard }
    }

    /// A record alone is sent as it is, unless tags ride with it and there is room for them.
    fn worth_an_aggregate(&self, parcel: &Parcel) -> bool {
        let [record] = &parcel.records[..] else { return true };
        let bytes = kpl::AROUND + kpl::bytes_max(record, &self.tags) + record.partition_key.len() as u64;
        !self.tags.are_none() && bytes <= self.max_record
    }
}

fn hashed(key: HashKey) -> u64 {
    let mut hasher = DefaultHasher::new();
    key.0.hash(&mut hasher);
    hasher.finish()
}
