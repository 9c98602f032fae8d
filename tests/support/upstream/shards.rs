//! The shards of every stream of the upstream: each has a range of the hash-key space, and they are split and merged as a test
//! tells.

use std::sync::{Arc, Mutex, MutexGuard};

use md5::{Digest as _, Md5};

/// A shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Shard {
    pub(crate) id: Arc<str>,
    /// Its range of hash keys.
    pub(crate) first: u128,
    pub(crate) last: u128,
    /// What it came of: one that was split, or two that were merged.
    pub(crate) parents: [Option<Arc<str>>; 2],
    pub(crate) is_open: bool,
}

impl Shard {
    pub(crate) fn new(number: usize, first: u128, last: u128, parents: [Option<Arc<str>>; 2]) -> Self {
        Self { id: format!("shardId-{number:012}").into(), first, last, parents, is_open: true }
    }

    pub(crate) fn has(&self, hash_key: u128) -> bool {
        (self.first..=self.last).contains(&hash_key)
    }
}

/// Where a partition key belongs.
pub(crate) fn hash_key(partition_key: &str) -> u128 {
    u128::from_be_bytes(Md5::digest(partition_key).into())
}

/// All of them, closed ones too, by number. A handle: a script may have one and change them while it answers.
#[derive(Clone)]
pub(crate) struct Shards(Arc<Mutex<Vec<Shard>>>);

impl Shards {
    /// Open ones of the same size.
    pub(crate) fn new(count: usize) -> Self {
        let size = (u128::MAX / count as u128).saturating_add(u128::from(count.is_power_of_two()));
        let shard = |number: usize| {
            let first = number as u128 * size;
            let last = if number + 1 == count { u128::MAX } else { first + size - 1 };
            Shard::new(number, first, last, [None, None])
        };
        Self(Arc::new(Mutex::new((0..count).map(shard).collect())))
    }

    /// All, in the order in which they were made.
    pub(crate) fn all(&self) -> Vec<Shard> {
        self.lock().clone()
    }

    /// Those that take records, in the order of their ranges.
    pub(crate) fn open(&self) -> Vec<Shard> {
        let mut open: Vec<_> = self.lock().iter().filter(|shard| shard.is_open).cloned().collect();
        open.sort_by_key(|shard| shard.first);
        open
    }

    /// Splits the `nth` open one in the middle.
    pub(crate) fn split(&self, nth: usize) {
        let parent = &self.open()[nth];
        let middle = parent.first + (parent.last - parent.first) / 2;
        self.replace([Some(parent), None], &[(parent.first, middle), (middle + 1, parent.last)]);
    }

    /// Makes one of the `nth` open one and the next.
    pub(crate) fn merge(&self, nth: usize) {
        let [left, right] = &self.open()[nth..nth + 2] else { panic!("there is no shard behind the last one") };
        self.replace([Some(left), Some(right)], &[(left.first, right.last)]);
    }

    fn replace(&self, closed: [Option<&Shard>; 2], ranges: &[(u128, u128)]) {
        let mut shards = self.lock();
        let parents = closed.map(|shard| shard.map(|shard| Arc::clone(&shard.id)));
        for shard in shards.iter_mut().filter(|shard| parents.contains(&Some(Arc::clone(&shard.id)))) {
            shard.is_open = false;
        }
        for (first, last) in ranges {
            let shard = Shard::new(shards.len(), *first, *last, parents.clone());
            shards.push(shard);
        }
    }

    /// The one that takes this.
    pub(super) fn of(&self, partition_key: &str, explicit_hash_key: Option<&str>) -> Shard {
        let shards = self.lock();
        if let [only] = &shards[..] {
            return only.clone();
        }
        let hash_key = explicit_hash_key
            .map_or_else(|| hash_key(partition_key), |key| key.parse().expect("it was held against the limits"));
        let takes = |shard: &&Shard| shard.is_open && shard.has(hash_key);
        shards.iter().find(takes).expect("they divide the whole space").clone()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Shard>> {
        self.0.lock().expect("a test does not split or merge what is not there")
    }
}
