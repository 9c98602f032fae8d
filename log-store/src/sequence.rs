//! Sequence numbers: the order and the identity of a record within its stream.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Position of a record in its stream: strictly increasing, assigned at commit, never reused.
///
/// The first record of a stream has number 1, so that [`SequenceNumber::ZERO`] can stand for "before everything" in a
/// checkpoint. Numbers of one shard increase too, with gaps where other shards' records lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct SequenceNumber(pub u64);

impl SequenceNumber {
    /// Before the first record; as a checkpoint: nothing is done yet.
    pub const ZERO: Self = Self(0);

    /// The number after this one.
    #[must_use]
    pub fn next(self) -> Self {
        self.plus(1)
    }

    /// The number `count` places after this one.
    #[must_use]
    pub fn plus(self, count: u64) -> Self {
        Self(self.0.checked_add(count).expect("2^64 records are not reached at any rate a disk can take"))
    }

    /// The number before this one; [`SequenceNumber::ZERO`] has none and stays.
    #[must_use]
    pub fn previous(self) -> Self {
        Self(self.0.saturating_sub(1))
    }
}

impl fmt::Display for SequenceNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
