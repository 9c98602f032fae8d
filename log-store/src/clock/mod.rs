//! Time, passed in so that simulations decide it: the clock, what it says, and what is made of it.
//!
//! `docs/time.md` says in words what is done without a clock that can be trusted, and what with one.

mod keeper;
#[cfg(test)]
pub(crate) mod manual;
mod system;
mod timeline;

use std::{fmt, time::Duration};

use serde::{Deserialize, Serialize};

pub use self::system::{SystemClock, TrustRule};
pub(crate) use self::{
    keeper::{Pass, TimeKeeper},
    timeline::{Arrival, Boot, Timeline},
};

/// Wall time in milliseconds since 1970-01-01 UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Timestamp(pub u64);

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One look at the clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// The wall clock, which may be wrong.
    pub wall: Timestamp,
    /// Time since the machine's boot; only ever goes forward, and means nothing across boots.
    pub since_boot: Duration,
}

impl Now {
    pub(crate) fn since_boot_ms(&self) -> u64 {
        u64::try_from(self.since_boot.as_millis()).unwrap_or(u64::MAX)
    }
}

/// When something was written, as far as the clocks knew. Persisted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Stamp {
    /// Which boot of the machine: see [`Clock::boot`].
    pub(crate) boot: u32,
    pub(crate) since_boot_ms: u64,
    pub(crate) wall_ms: u64,
}

impl Stamp {
    pub(crate) fn new(boot: u32, now: Now) -> Self {
        Self { boot, since_boot_ms: now.since_boot_ms(), wall_ms: now.wall.0 }
    }
}

/// Where the log gets its time from.
pub trait Clock: Send + Sync + 'static {
    /// The time now.
    fn now(&self) -> Now;
    /// What tells one boot of the machine from another. Two openings in the same boot must get the same number, or ages
    /// would be overestimated.
    fn boot(&self) -> u32;
    /// Whether the wall clock can be trusted at this moment, as far as this clock can tell. It is asked at the opening and
    /// at every [`StoreConfig::checkpoint_interval`](crate::StoreConfig::checkpoint_interval), and followed by
    /// [`Clock::now`]. By default nothing is known.
    fn trust(&self) -> Trust {
        Trust::Unknown
    }
}

/// What is known of the wall clock's truth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trust {
    /// Nothing.
    Unknown,
    /// Something keeps it right, as NTP does. Believed, unless it contradicts by more than a day what was trusted before.
    Synchronised,
    /// A person vouches for it, because it has a battery, say. Believed, unless it shows a time before forebay was made.
    Vouched,
}

/// What a store knows of the time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClockStatus {
    /// The wall time now: since the clock was trusted, by that time and the monotonic clock.
    pub now: Timestamp,
    /// Since when the time is known; `None` if the wall clock was not trusted since the machine's boot.
    pub trusted_since: Option<Timestamp>,
    /// The clock claims to be right, but by what was trusted before it is at least this late: it is not believed.
    pub doubted: Option<Timestamp>,
}
