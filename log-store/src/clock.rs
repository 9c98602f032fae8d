//! Time, passed in so that simulations decide it. The only module that reads the real clocks.

#![expect(clippy::disallowed_methods, reason = "this is where the real clocks, and what /proc tells of them, are read")]

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};

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
        let since_boot_ms = u64::try_from(now.since_boot.as_millis()).unwrap_or(u64::MAX);
        Self { boot, since_boot_ms, wall_ms: now.wall.0 }
    }

    /// How old it is at the least, by monotonic time alone: a wall clock that jumps must not age a record.
    ///
    /// Of an earlier boot it is only certain that it is older than this boot.
    pub(crate) fn age_at_least(&self, boot: u32, now: Now) -> Duration {
        if self.boot == boot {
            now.since_boot.saturating_sub(Duration::from_millis(self.since_boot_ms))
        } else {
            now.since_boot
        }
    }
}

/// Where the log gets its time from.
pub trait Clock: Send + Sync + 'static {
    /// The time now.
    fn now(&self) -> Now;
    /// What tells one boot of the machine from another. Two openings in the same boot must get the same number, or ages
    /// would be overestimated.
    fn boot(&self) -> u32;
}

/// The machine's clocks.
#[derive(Debug)]
pub struct SystemClock {
    started: Instant,
    since_boot_at_start: Duration,
}

impl SystemClock {
    /// Reads `/proc/uptime` once; later readings come from the monotonic clock.
    #[must_use]
    pub fn new() -> Arc<Self> {
        let since_boot_at_start = std::fs::read_to_string("/proc/uptime")
            .ok()
            .and_then(|text| text.split_whitespace().next()?.parse::<f64>().ok())
            .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
            .unwrap_or_default();
        Arc::new(Self { started: Instant::now(), since_boot_at_start })
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Now {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Now {
            wall: Timestamp(u64::try_from(wall.as_millis()).unwrap_or(u64::MAX)),
            since_boot: self.since_boot_at_start + self.started.elapsed(),
        }
    }

    fn boot(&self) -> u32 {
        // Without the id (not Linux) every process counts as a boot; its uptime then begins with the process too.
        let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id");
        crc32fast::hash(id.unwrap_or_else(|_| format!("{:?}", self.started)).as_bytes())
    }
}

#[cfg(test)]
pub(crate) mod manual {
    //! A clock that tests set.

    use std::sync::Mutex;

    use super::*;

    #[derive(Debug)]
    pub(crate) struct ManualClock(Mutex<(Now, u32)>);

    impl ManualClock {
        pub(crate) fn new() -> Arc<Self> {
            let now = Now { wall: Timestamp(1_800_000_000_000), since_boot: Duration::from_secs(10) };
            Arc::new(Self(Mutex::new((now, 1))))
        }

        /// Both clocks go on.
        pub(crate) fn advance(&self, by: Duration) {
            let mut state = self.0.lock().expect("unpoisoned");
            state.0.since_boot += by;
            state.0.wall.0 += by.as_millis() as u64;
        }

        /// The wall clock is set.
        pub(crate) fn set_wall(&self, wall: Timestamp) {
            self.0.lock().expect("unpoisoned").0.wall = wall;
        }

        /// The machine starts again.
        pub(crate) fn reboot(&self) {
            let mut state = self.0.lock().expect("unpoisoned");
            state.0.since_boot = Duration::from_secs(10);
            state.1 += 1;
        }
    }

    impl Clock for ManualClock {
        fn now(&self) -> Now {
            self.0.lock().expect("unpoisoned").0
        }

        fn boot(&self) -> u32 {
            self.0.lock().expect("unpoisoned").1
        }
    }

    #[test]
    fn a_jump_of_the_wall_clock_ages_nothing() {
        let clock = ManualClock::new();
        let stamp = Stamp::new(1, clock.now());
        clock.set_wall(Timestamp(4_000_000_000_000));
        clock.advance(Duration::from_secs(5));
        assert_eq!(stamp.age_at_least(1, clock.now()), Duration::from_secs(5));
        clock.reboot();
        assert_eq!(stamp.age_at_least(2, clock.now()), Duration::from_secs(10));
    }
}
