//! Shards: how a stream's hash-key space is divided, and which shard a record belongs to.
//!
//! Pure. Shards are stored with their lineage so that split and merge only ever add to the list.

use std::{fmt, num::NonZeroU32};

use serde::{Deserialize, Serialize};

use crate::{hash_key::HashKey, sequence::SequenceNumber};

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
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shard {
    /// Its number.
    pub index: ShardIndex,
    /// First hash key of the range.
    pub first: HashKey,
    /// Last hash key of the range, inclusive.
    pub last: HashKey,
    /// The shards it was split or merged from: none, one or two. They may be gone by now, with their records.
    pub parents: Vec<ShardIndex>,
    /// Its records have this number or a later one.
    pub starts: SequenceNumber,
    /// A split or merged shard takes no more records, and has none behind this number; the one before `starts` if it
    /// never had any.
    pub ends: Option<SequenceNumber>,
}

impl Shard {
    /// Whether it takes records; a split or merged shard is closed and only read.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.ends.is_none()
    }

    fn holds(&self, key: HashKey) -> bool {
        self.first <= key && key <= self.last
    }
}

/// A change of a stream's shards. What it closes stays readable, until its last record is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShardChange {
    /// An open shard becomes two.
    Split {
        /// The shard.
        shard: ShardIndex,
        /// First hash key of the upper child: within the shard, and not its first.
        at: HashKey,
    },
    /// Two open shards whose ranges adjoin become one.
    Merge {
        /// The shards, in either order.
        shards: [ShardIndex; 2],
    },
    /// So many open shards of equal width, by splits and merges, as `UpdateShardCount` of Kinesis makes them.
    Count(NonZeroU32),
}

/// Why shards cannot be changed as asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ShardError {
    /// There is no such shard, or none any more.
    #[error("there is no {0}")]
    Unknown(ShardIndex),
    /// It was split or merged before.
    #[error("{0} is closed")]
    Closed(ShardIndex),
    /// The hash key does not divide the shard.
    #[error("hash key {at} does not divide {shard}, which has {first} to {last}")]
    NotInside {
        /// The shard.
        shard: ShardIndex,
        /// What was asked for.
        at: HashKey,
        /// Its first hash key.
        first: HashKey,
        /// Its last one.
        last: HashKey,
    },
    /// Only neighbours can be merged.
    #[error("{0} and {1} do not adjoin")]
    NotAdjacent(ShardIndex, ShardIndex),
    /// A stream has at most [`SHARDS_MAX`] shards, the closed ones whose records it still holds included.
    #[error("a stream has at most {SHARDS_MAX} shards, closed ones included, and would have {0}")]
    TooMany(usize),
}

/// How many shards a stream may have, open and closed together.
pub const SHARDS_MAX: usize = 10_000;

/// All shards of a stream; the open ones cover the whole space without overlap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardMap {
    shards: Vec<Shard>,
}

impl ShardMap {
    /// `count` shards of equal width.
    #[must_use]
    pub fn uniform(count: NonZeroU32) -> Self {
        let shards = (0..count.get())
            .map(|i| Shard {
                index: ShardIndex(i),
                first: HashKey(uniform_start(i, count)),
                last: HashKey(uniform_start(i + 1, count).wrapping_sub(1)),
                parents: Vec::new(),
                starts: SequenceNumber(1),
                ends: None,
            })
            .collect();
        Self { shards }
    }

    pub(crate) fn from_shards(shards: Vec<Shard>) -> Self {
        Self { shards }
    }

    /// Every shard, open and closed, in order of creation.
    #[must_use]
    pub fn shards(&self) -> &[Shard] {
        &self.shards
    }

    /// The shards that take records, in order of their ranges.
    #[must_use]
    pub fn open(&self) -> Vec<&Shard> {
        let mut open: Vec<_> = self.shards.iter().filter(|shard| shard.is_open()).collect();
        open.sort_by_key(|shard| shard.first);
        open
    }

    /// The shard of this number, unless it is gone.
    #[must_use]
    pub fn get(&self, index: ShardIndex) -> Option<&Shard> {
        self.shards.binary_search_by_key(&index, |shard| shard.index).ok().map(|at| &self.shards[at])
    }

    /// The open shard that holds `key`.
    ///
    /// # Panics
    /// If the open shards leave a gap, which [`ShardMap::is_complete`] tells before a decoded map is used.
    #[must_use]
    pub fn locate(&self, key: HashKey) -> ShardIndex {
        self.shards
            .iter()
            .find(|shard| shard.is_open() && shard.holds(key))
            .expect("open shards cover the whole hash-key space")
            .index
    }

    /// The open shard, if there is only one: every key belongs to it.
    pub(crate) fn only(&self) -> Option<ShardIndex> {
        let mut open = self.shards.iter().filter(|shard| shard.is_open());
        let first = open.next()?;
        open.next().is_none().then_some(first.index)
    }

    /// Whether the open shards cover the space exactly once, and the numbers of all increase. False only for a damaged
    /// definition.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        let open = self.open();
        let starts = open.first().is_some_and(|shard| shard.first == HashKey::MIN);
        let ends = open.last().is_some_and(|shard| shard.last == HashKey::MAX);
        starts
            && ends
            && open.windows(2).all(|pair| pair[0].last.0.checked_add(1) == Some(pair[1].first.0))
            && self.shards.windows(2).all(|pair| pair[0].index < pair[1].index)
    }

    /// The shards after `change`; the next record gets the number `next`.
    ///
    /// # Errors
    /// [`ShardError`]; what was asked for cannot be done.
    pub fn changed(&self, change: ShardChange, next: SequenceNumber) -> Result<Self, ShardError> {
        let mut map = self.clone();
        match change {
            ShardChange::Split { shard, at } => map.split(shard, at, next)?,
            ShardChange::Merge { shards: [one, other] } => _ = map.merge(one, other, next)?,
            ShardChange::Count(count) => map.divide(count, next)?,
        }
        if map.shards.len() > SHARDS_MAX {
            return Err(ShardError::TooMany(map.shards.len()));
        }
        Ok(map)
    }

    /// The shards without those closed ones whose records are all before `oldest`; `None` if there are none of those.
    pub(crate) fn without_gone(&self, oldest: SequenceNumber) -> Option<Self> {
        let stays = |shard: &&Shard| shard.ends.is_none_or(|ends| ends >= oldest);
        let shards: Vec<Shard> = self.shards.iter().filter(stays).cloned().collect();
        (shards.len() < self.shards.len()).then_some(Self { shards })
    }

    /// Everything before this number has been dropped, or the parents of every shard would be there.
    pub(crate) fn oldest(&self) -> SequenceNumber {
        let is_orphan = |shard: &&Shard| shard.parents.iter().any(|parent| self.get(*parent).is_none());
        self.shards.iter().filter(is_orphan).map(|shard| shard.starts).max().unwrap_or_default()
    }

    fn split(&mut self, index: ShardIndex, at: HashKey, next: SequenceNumber) -> Result<(), ShardError> {
        let shard = self.an_open(index)?;
        let (first, last) = (shard.first, shard.last);
        if at <= first || at > last {
            return Err(ShardError::NotInside { shard: index, at, first, last });
        }
        self.close(index, next);
        self.add(first, HashKey(at.0 - 1), vec![index], next);
        self.add(at, last, vec![index], next);
        Ok(())
    }

    fn merge(&mut self, one: ShardIndex, other: ShardIndex, next: SequenceNumber) -> Result<ShardIndex, ShardError> {
        let (a, b) = (self.an_open(one)?, self.an_open(other)?);
        let (low, high) = if a.first < b.first { (a, b) } else { (b, a) };
        if low.last.0.checked_add(1) != Some(high.first.0) {
            return Err(ShardError::NotAdjacent(one, other));
        }
        let (first, last) = (low.first, high.last);
        self.close(one, next);
        self.close(other, next);
        Ok(self.add(first, last, vec![one, other], next))
    }

    /// Cuts at every edge that is missing, then joins what lies between two of them.
    fn divide(&mut self, count: NonZeroU32, next: SequenceNumber) -> Result<(), ShardError> {
        if count.get() as usize > SHARDS_MAX {
            return Err(ShardError::TooMany(count.get() as usize));
        }
        let starts: Vec<HashKey> = (0..count.get()).map(|i| HashKey(uniform_start(i, count))).collect();
        for &start in &starts {
            let shard = self.locate(start);
            if self.an_open(shard)?.first != start {
                self.split(shard, start, next)?;
            }
        }
        let open: Vec<(HashKey, ShardIndex)> = self.open().iter().map(|shard| (shard.first, shard.index)).collect();
        let mut joined = open[0].1;
        for &(first, index) in &open[1..] {
            joined = match starts.binary_search(&first) {
                Ok(_) => index,
                Err(_) => self.merge(joined, index, next)?,
            };
        }
        Ok(())
    }

    fn an_open(&self, index: ShardIndex) -> Result<&Shard, ShardError> {
        match self.get(index) {
            Some(shard) if shard.is_open() => Ok(shard),
            Some(_) => Err(ShardError::Closed(index)),
            None => Err(ShardError::Unknown(index)),
        }
    }

    fn close(&mut self, index: ShardIndex, next: SequenceNumber) {
        let shard = self.shards.iter_mut().find(|shard| shard.index == index).expect("it was looked up");
        shard.ends = Some(next.previous());
    }

    fn add(&mut self, first: HashKey, last: HashKey, parents: Vec<ShardIndex>, starts: SequenceNumber) -> ShardIndex {
        // The newest shard is always open, so it is never gone and its number never given again.
        let index = ShardIndex(self.shards.last().expect("never empty").index.0 + 1);
        self.shards.push(Shard { index, first, last, parents, starts, ends: None });
        index
    }
}

/// Where shard `i` of `count` equal ones begins; 0, having wrapped, behind the last. All are as wide as 2^128 / `count`
/// rounded down, and the last one takes the remainder, as in Kinesis.
fn uniform_start(i: u32, count: NonZeroU32) -> u128 {
    let divisor = u128::from(count.get());
    let width = (u128::MAX / divisor).wrapping_add(u128::from(u128::MAX % divisor == divisor - 1));
    if i == count.get() { 0 } else { u128::from(i).wrapping_mul(width) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NEXT: SequenceNumber = SequenceNumber(100);

    fn count(count: u32) -> NonZeroU32 {
        NonZeroU32::new(count).expect("not zero")
    }

    fn uniform(shards: u32) -> ShardMap {
        ShardMap::uniform(count(shards))
    }

    #[test]
    fn a_map_tells_from_parents_that_are_gone_what_was_dropped() {
        let split = |map: ShardMap, shard, at, next| {
            let change = ShardChange::Split { shard: ShardIndex(shard), at: HashKey(at) };
            map.changed(change, SequenceNumber(next)).expect("it can be split")
        };
        let map = split(split(uniform(2), 0, 7, 10), 1, u128::MAX - 7, 20);
        assert_eq!(map.oldest(), SequenceNumber::ZERO);
        let map = map.without_gone(SequenceNumber(15)).expect("shard 0 ends before");
        assert_eq!(map.oldest(), SequenceNumber(10));
        let map = map.without_gone(SequenceNumber(25)).expect("shard 1 ends before");
        assert_eq!(map.oldest(), SequenceNumber(20));
    }

    fn split(shard: u32, at: u128) -> ShardChange {
        ShardChange::Split { shard: ShardIndex(shard), at: HashKey(at) }
    }

    fn merge(one: u32, other: u32) -> ShardChange {
        ShardChange::Merge { shards: [ShardIndex(one), ShardIndex(other)] }
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
    fn uniform_shards_have_the_ranges_of_kinesis() {
        // Its API reference shows these for streams of one, two and three shards.
        let last = |shards: u32| uniform(shards).shards()[0].last.to_string();
        assert_eq!(last(1), "340282366920938463463374607431768211455");
        assert_eq!(last(2), "170141183460469231731687303715884105727");
        assert_eq!(last(3), "113427455640312821154458202477256070484");
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
        closed.shards[0].ends = Some(NEXT);
        assert!(!closed.is_complete());
        let mut twice = uniform(2);
        twice.shards[1].index = ShardIndex(0);
        assert!(!twice.is_complete());
    }

    #[test]
    fn a_split_closes_the_parent_and_opens_two_children() {
        let map = uniform(2).changed(split(0, 1 << 100), NEXT).expect("inside");
        assert!(map.is_complete());
        let parent = &map.shards()[0];
        assert_eq!((parent.ends, parent.is_open()), (Some(SequenceNumber(99)), false));
        let children: Vec<_> = map.shards()[2..].iter().map(|shard| (shard.index.0, shard.first.0)).collect();
        assert_eq!(children, [(2, 0), (3, 1 << 100)]);
        for child in &map.shards()[2..] {
            assert_eq!((child.parents.as_slice(), child.starts), (&[ShardIndex(0)][..], NEXT));
        }
    }

    #[test]
    fn a_merge_closes_two_neighbours() {
        for change in [merge(1, 2), merge(2, 1)] {
            let map = uniform(3).changed(change, NEXT).expect("neighbours");
            assert!(map.is_complete());
            let child = &map.shards()[3];
            assert_eq!((child.first, child.last), (uniform(3).shards()[1].first, HashKey::MAX));
            assert_eq!(child.parents.len(), 2);
            assert_eq!(map.open().len(), 2);
        }
    }

    #[test]
    fn what_cannot_be_changed_is_said() {
        let map = uniform(3).changed(merge(0, 1), NEXT).expect("neighbours");
        assert_eq!(map.changed(split(0, 5), NEXT), Err(ShardError::Closed(ShardIndex(0))));
        assert_eq!(map.changed(split(9, 5), NEXT), Err(ShardError::Unknown(ShardIndex(9))));
        assert_eq!(map.changed(merge(2, 2), NEXT), Err(ShardError::NotAdjacent(ShardIndex(2), ShardIndex(2))));
        assert_eq!(uniform(3).changed(merge(0, 2), NEXT), Err(ShardError::NotAdjacent(ShardIndex(0), ShardIndex(2))));
        for at in [0, u128::MAX] {
            let error = uniform(2).changed(split(0, at), NEXT).expect_err("not inside");
            assert!(matches!(error, ShardError::NotInside { .. }), "{error}");
        }
        assert!(matches!(map.changed(ShardChange::Count(count(10_001)), NEXT), Err(ShardError::TooMany(10_001))));
    }

    #[test]
    fn a_doubled_count_needs_only_splits_and_a_halved_one_only_merges() {
        let doubled = uniform(2).changed(ShardChange::Count(count(4)), NEXT).expect("possible");
        assert_eq!((doubled.open().len(), doubled.shards().len()), (4, 6));
        let halved = doubled.changed(ShardChange::Count(count(2)), NEXT).expect("possible");
        assert_eq!((halved.open().len(), halved.shards().len()), (2, 8));
        assert_eq!(halved.changed(ShardChange::Count(count(2)), NEXT), Ok(halved.clone()), "nothing to do");
    }

    #[test]
    fn closed_shards_go_with_their_last_record() {
        let map = uniform(1).changed(split(0, 1 << 100), NEXT).expect("inside");
        assert_eq!(map.without_gone(SequenceNumber(99)), None);
        let left = map.without_gone(NEXT).expect("one is gone");
        assert_eq!(left.shards().iter().map(|shard| shard.index.0).collect::<Vec<_>>(), [1, 2]);
        let again = left.changed(split(2, 1 << 120), NEXT).expect("inside");
        assert_eq!(again.shards().last().expect("some").index, ShardIndex(4), "numbers go on");
    }

    proptest! {
        #[test]
        fn any_changes_leave_the_space_covered_once(
            changes in prop::collection::vec((0u8..3, any::<u128>(), 1u32..20), 1..20),
        ) {
            let mut map = uniform(3);
            let mut next = SequenceNumber(1);
            for (kind, key, number) in changes {
                next = next.plus(u64::from(number));
                let open = map.open();
                let at = open.iter().position(|shard| shard.holds(HashKey(key))).expect("covered");
                let change = match kind {
                    0 => ShardChange::Split { shard: open[at].index, at: HashKey(key) },
                    1 => ShardChange::Merge { shards: [open[at].index, open[(at + 1) % open.len()].index] },
                    _ => ShardChange::Count(count(number)),
                };
                let Ok(changed) = map.changed(change, next) else { continue };
                prop_assert!(changed.is_complete());
                if let ShardChange::Count(count) = change {
                    let ranges = |map: &ShardMap| map.open().iter().map(|s| (s.first, s.last)).collect::<Vec<_>>();
                    prop_assert_eq!(ranges(&changed), ranges(&ShardMap::uniform(count)));
                }
                // Every shard that is new has parents, whose ranges together hold its own.
                for child in &changed.shards()[map.shards().len()..] {
                    let parents: Vec<_> = child.parents.iter().map(|parent| changed.get(*parent).expect("there")).collect();
                    prop_assert!(parents.iter().all(|parent| !parent.is_open()));
                    prop_assert!(parents.iter().any(|parent| parent.holds(child.first)));
                    prop_assert!(parents.iter().any(|parent| parent.holds(child.last)));
                }
                map = changed;
            }
        }
    }
}
