//! How records are put into parcels, and which shards there are.

use super::*;

/// How records are put into parcels.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Parcels {
    Single,
    OfKey,
    OfShard,
}

/// The number of each shard and where its range of the hash space ends.
pub(super) type Shards = Vec<(u32, u8)>;

/// The shard of a partition key.
pub(super) fn shard_of(shards: &Shards, key: &str) -> u32 {
    let at = hash(key) as u8;
    shards.iter().find(|(_, last)| at <= *last).expect("the last one ends at the end").0
}

impl Parcels {
    pub(super) fn place(self, map: &Option<Shards>, record: &Record) -> Place {
        match (self, map) {
            (Self::Single, _) => Place::of_key(record),
            (Self::OfShard, Some(map)) => {
                Place { lane: shard_of(map, &record.partition_key).into(), bytes: record.payload_bytes() + 3 }
            }
            _ => Place { bytes: record.payload_bytes() + 3, ..Place::of_key(record) },
        }
    }
}
