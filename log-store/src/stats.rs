//! What a stream tells about itself: counters since the store was opened unless said otherwise.

use std::collections::BTreeMap;

use crate::{sequence::SequenceNumber, shard::ShardIndex};

/// A snapshot of one stream.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StreamStats {
    /// Oldest record that is still there; equals `next` when there is none.
    pub oldest: SequenceNumber,
    /// The number that the next record will get.
    pub next: SequenceNumber,
    /// Bytes that the stream takes on disk.
    pub disk_bytes: u64,
    /// Records of boots in which no clock was trusted, so that their arrival times are not certain; counted by segments.
    pub untrusted_records: u64,
    /// Number of segment files.
    pub segments: usize,
    /// Records committed.
    pub records: u64,
    /// Keys and data committed, in bytes.
    pub payload_bytes: u64,
    /// Records that were delivered from memory and never written; see [`Durability`](crate::Durability).
    pub unwritten: u64,
    /// Bytes of encoded records that wait in memory.
    pub held_bytes: usize,
    /// Bytes written to segments, for [`StreamStats::payload_bytes`].
    pub written_bytes: u64,
    /// Of those, headers of segments and blocks, and control blocks.
    pub framing_bytes: u64,
    /// Keys and values given to the catalogue. What sled writes of its own comes on top.
    pub catalogue_bytes: u64,
    /// Blocks written, each with one sync.
    pub commits: u64,
    /// Committed records and payload bytes per shard.
    pub shards: BTreeMap<ShardIndex, ShardStats>,
    /// Dropped records by reason, since the stream was made (a lost catalogue may lose this count).
    pub dropped: DropCounts,
    /// Of those, the ones that a consumer had not finished.
    pub lost: DropCounts,
    /// Each consumer's checkpoint.
    pub checkpoints: BTreeMap<String, SequenceNumber>,
    /// Why it takes no records at the moment, if so.
    pub stopped: Option<String>,
}

/// A snapshot of one shard.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ShardStats {
    /// Records committed.
    pub records: u64,
    /// Keys and data committed, in bytes.
    pub payload_bytes: u64,
    /// How often a writer was told to wait by the rate limit.
    pub throttled: u64,
}

/// Numbers of records by [`DropReason`](crate::DropReason).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct DropCounts {
    /// Past retention.
    pub retention: u64,
    /// Dropped for room.
    pub quota: u64,
    /// Damaged.
    pub damage: u64,
}

impl DropCounts {
    /// All together.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.retention + self.quota + self.damage
    }
}

/// What a stream has dropped so far. Persisted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub(crate) struct DropTotals {
    /// Everything before this is gone.
    pub(crate) oldest: SequenceNumber,
    pub(crate) dropped: DropCounts,
    pub(crate) lost: DropCounts,
}

impl DropTotals {
    /// The newer of two memories of one stream: its counts only ever grow.
    pub(crate) fn newest(self, other: Self) -> Self {
        Self {
            oldest: self.oldest.max(other.oldest),
            dropped: self.dropped.newest(other.dropped),
            lost: self.lost.newest(other.lost),
        }
    }
}

impl DropCounts {
    fn newest(self, other: Self) -> Self {
        Self {
            retention: self.retention.max(other.retention),
            quota: self.quota.max(other.quota),
            damage: self.damage.max(other.damage),
        }
    }
}
