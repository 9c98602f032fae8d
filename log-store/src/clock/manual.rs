//! A clock that tests set. It also knows the true time, which nothing but tests may ask for.

use std::{
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use super::{Clock, Now, Timestamp, Trust};

/// How long before the first look each boot began.
const SINCE_BOOT: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(crate) struct ManualClock(Mutex<State>);

#[derive(Debug)]
struct State {
    now: Now,
    boot: u32,
    trust: Trust,
    truth: Timestamp,
}

impl ManualClock {
    /// A wall clock that is right, but of which nobody says so.
    pub(crate) fn new() -> Arc<Self> {
        let truth = Timestamp(1_800_000_000_000);
        let now = Now { wall: truth, since_boot: SINCE_BOOT };
        Arc::new(Self(Mutex::new(State { now, boot: 1, trust: Trust::Unknown, truth })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("unpoisoned")
    }

    pub(crate) fn truth(&self) -> Timestamp {
        self.state().truth
    }

    /// Time goes by.
    pub(crate) fn advance(&self, by: Duration) {
        let mut state = self.state();
        state.now.since_boot += by;
        state.now.wall.0 += by.as_millis() as u64;
        state.truth.0 += by.as_millis() as u64;
    }

    /// The wall clock is set; as after `date -s`, nothing is known of it then.
    pub(crate) fn set_wall(&self, wall: Timestamp) {
        let mut state = self.state();
        state.now.wall = wall;
        state.trust = Trust::Unknown;
    }

    /// From now on this is said of the wall clock.
    pub(crate) fn set_trust(&self, trust: Trust) {
        self.state().trust = trust;
    }

    /// NTP answers.
    pub(crate) fn synchronise(&self) {
        self.set_wall(self.truth());
        self.set_trust(Trust::Synchronised);
    }

    /// The machine is off for so long and starts again, with whatever the wall clock shows then.
    pub(crate) fn reboot(&self, off: Duration, wall: Timestamp) {
        let mut state = self.state();
        state.truth.0 += (off + SINCE_BOOT).as_millis() as u64;
        state.now = Now { wall, since_boot: SINCE_BOOT };
        state.boot += 1;
        state.trust = Trust::Unknown;
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Now {
        self.state().now
    }

    fn boot(&self) -> u32 {
        self.state().boot
    }

    fn trust(&self) -> Trust {
        self.state().trust
    }
}
