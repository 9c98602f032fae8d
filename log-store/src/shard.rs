//! Shards: how a stream's hash-key space is divided, and which shard a record belongs to.
//!
//! Pure. Shards are stored with their lineage so that split and merge only ever add to the list.

use std::{fmt, num::NonZeroU32};

use serde::{Deserialize, Serialize};

use crate::hash_key::HashKey;

/// Number of a shard within its stream, in order of creation. Persisted: never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ShardIndex(pub u32);

impl fmt::Display for ShardIndex {
    /// As Kinesis writes shard ids.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "shardId-{:012}", self.0)
    }
}

/// A range of the hash-key space.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shard {
    /// Its number.
    pub index: ShardIndex,
    /// First hash key of the range.
    pub first: HashKey,
    /// Last hash key of the range, inclusive.
    pub last: HashKey,
    /// The shards it was split or merged from: none, one or two.
    pub parents: Vec<ShardIndex>,
    /// Whether it takes records; a split or merged shard is closed and only read.
    pub open: bool,
}

/// All shards of a stream; the open ones cover the whole space without overlap.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardMap {
    shards: Vec<Shard>,
}

impl ShardMap {
    /// `count` shards of equal width.
    #[must_use]
    pub fn uniform(count: NonZeroU32) -> Self {
        let count = count.get();
        // Rounded down; the last shard takes the remainder, as in Kinesis.
        let width = u128::MAX / u128::from(count);
        let shards = (0..count)
            .map(|i| {
                let start = |i: u32| u128::from(i) * width;
                Shard {
                    index: ShardIndex(i),
                    first: HashKey(start(i)),
                    last: HashKey(if i + 1 == count { u128::MAX } else { start(i + 1) - 1 }),
                    parents: Vec::new(),
                    open: true,
                }
            })
            .collect();
        Self { shards }
    }

    /// Every shard, open and closed, in order of creation.
    #[must_use]
    pub fn shards(&self) -> &[Shard] {
        &self.shards
    }

    /// The open shard that holds `key`.
    ///
    /// # Panics
    /// If the open shards leave a gap, which [`ShardMap::is_complete`] tells before a decoded map is used.
    #[must_use]
    pub fn locate(&self, key: HashKey) -> ShardIndex {
        self.shards
            .iter()
            .find(|shard| shard.open && shard.first <= key && key <= shard.last)
            .expect("open shards cover the whole hash-key space")
            .index
    }

    /// Whether the open shards cover the space exactly once. False only for a damaged definition.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        let mut open: Vec<_> = self.shards.iter().filter(|shard| shard.open).collect();
        open.sort_by_key(|shard| shard.first);
        let starts = open.first().is_some_and(|shard| shard.first == HashKey::MIN);
        let ends = open.last().is_some_and(|shard| shard.last == HashKey::MAX);
        starts && ends && open.windows(2).all(|pair| pair[0].last.0.checked_add(1) == Some(pair[1].first.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uniform(count: u32) -> ShardMap {
        ShardMap::uniform(NonZeroU32::new(count).expect("not zero"))
    }

    #[test]
    fn uniform_shards_cover_the_space_once() {
        for count in [1, 2, 3, 7, 64, 1000] {
            let map = uniform(count);
            assert!(map.is_complete(), "{count} shards");
            assert_eq!(map.shards().len(), count as usize);
        }
    }

    #[test]
    fn each_edge_belongs_to_its_shard() {
        let map = uniform(3);
        for shard in map.shards() {
            assert_eq!(map.locate(shard.first), shard.index);
            assert_eq!(map.locate(shard.last), shard.index);
        }
    }

    #[test]
    fn a_gap_or_an_overlap_is_noticed() {
        let mut gap = uniform(2);
        gap.shards[1].first = HashKey(gap.shards[1].first.0 + 1);
        assert!(!gap.is_complete());
        let mut closed = uniform(2);
        closed.shards[0].open = false;
        assert!(!closed.is_complete());
    }
}
