//! What a store and all its streams know of the time: the clock, and the timeline behind one lock.

use std::{
    sync::{
        Arc, PoisonError, RwLock, RwLockReadGuard,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use super::{Arrival, Boot, Clock, ClockStatus, Now, Stamp, Timeline, Timestamp, Trust, timeline::Learnt};
use crate::event::Event;

/// Keeps the time for a store.
pub(crate) struct TimeKeeper {
    clock: Arc<dyn Clock>,
    boot: u32,
    known: RwLock<Known>,
    /// Grows with every change of the timeline that is worth writing down.
    changes: AtomicU64,
}

struct Known {
    timeline: Timeline,
    /// What contradicts the clock, if it is not believed.
    doubted: Option<Timestamp>,
}

impl TimeKeeper {
    pub(crate) fn new(clock: Arc<dyn Clock>, recorded: Vec<Boot>) -> Self {
        let boot = clock.boot();
        let timeline = Timeline::new(boot, recorded);
        Self { clock, boot, known: RwLock::new(Known { timeline, doubted: None }), changes: AtomicU64::new(1) }
    }

    fn known(&self) -> RwLockReadGuard<'_, Known> {
        // What is changed under the lock is whole at every step.
        self.known.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn change<T>(&self, change: impl FnOnce(&mut Known) -> T, is_news: impl FnOnce(&T) -> bool) -> T {
        let outcome = change(&mut self.known.write().unwrap_or_else(PoisonError::into_inner));
        if is_news(&outcome) {
            self.changes.fetch_add(1, Ordering::Release);
        }
        outcome
    }

    /// What all boots are known by, and which change of it this is.
    pub(crate) fn boots(&self) -> (u64, Vec<Boot>) {
        // A change between the two is written again, and never missed.
        let changes = self.changes();
        (changes, self.known().timeline.boots().to_vec())
    }

    pub(crate) fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    /// Takes over what a stream's log tells: boots, and times at which something was written.
    pub(crate) fn merge(&self, recorded: Vec<Boot>, stamps: impl Iterator<Item = Stamp>) -> bool {
        let merge = |known: &mut Known| {
            let merged = known.timeline.merge(recorded);
            stamps.fold(merged, |news, stamp| known.timeline.saw(stamp) | news)
        };
        self.change(merge, |news| *news)
    }

    /// Asks the clock whether it can be trusted, and learns from it if so. What there is to tell, is told once.
    pub(crate) fn look(&self) -> Option<Event> {
        match self.clock.trust() {
            Trust::Unknown => {
                self.change(|known| known.doubted = None, |()| false);
                None
            }
            Trust::Synchronised => self.learn(self.clock.now(), false),
            Trust::Vouched => self.learn(self.clock.now(), true),
        }
    }

    /// Learns from a clock that can be trusted.
    pub(crate) fn learn(&self, now: Now, vouched: bool) -> Option<Event> {
        let learn = |known: &mut Known| {
            let learnt = known.timeline.learn(now, vouched);
            let at_least = if let Learnt::Doubted { at_least } = learnt { Some(at_least) } else { None };
            let told_before = known.doubted.is_some();
            known.doubted = at_least;
            (learnt, told_before)
        };
        let is_news = |(learnt, _): &(Learnt, bool)| matches!(learnt, Learnt::Began | Learnt::Stepped { .. });
        match self.change(learn, is_news) {
            (Learnt::Began, _) => Some(Event::ClockTrusted { wall: now.wall }),
            (Learnt::Stepped { from }, _) => Some(Event::ClockStepped { from, to: now.wall }),
            (Learnt::Doubted { at_least }, false) => Some(Event::ClockDoubted { wall: now.wall, at_least }),
            (Learnt::Doubted { .. }, true) | (Learnt::Nothing, _) => None,
        }
    }

    /// Learns from somebody beside the machine's clock, unless that one is believed: two that differ by seconds would be
    /// followed in turns. `Err` is how late it is at least, if that contradicts.
    pub(crate) fn offer(&self, wall: Timestamp) -> Result<Option<Event>, Timestamp> {
        if self.clock.trust() != Trust::Unknown && self.known().doubted.is_none() {
            return Ok(None);
        }
        let now = Now { wall, ..self.clock.now() };
        // What was said of the machine's clock stays said.
        let is_news = |learnt: &Learnt| matches!(learnt, Learnt::Began | Learnt::Stepped { .. });
        match self.change(|known| known.timeline.learn(now, false), is_news) {
            Learnt::Began => Ok(Some(Event::ClockTrusted { wall })),
            Learnt::Stepped { from } => Ok(Some(Event::ClockStepped { from, to: wall })),
            Learnt::Nothing => Ok(None),
            Learnt::Doubted { at_least } => Err(at_least),
        }
    }

    pub(crate) fn status(&self) -> ClockStatus {
        let now = self.clock.now();
        let known = self.known();
        let timeline = &known.timeline;
        ClockStatus { now: timeline.wall(now), trusted_since: timeline.trusted_since(), doubted: known.doubted }
    }

    /// For something that is written now, behind what was written at the wall time `before_ms`: an untrusted wall clock
    /// never makes it earlier than that.
    pub(crate) fn stamp(&self, now: Now, before_ms: u64) -> Stamp {
        let known = self.known();
        let wall = match known.timeline.trusted_since() {
            Some(_) => known.timeline.wall(now),
            None => now.wall.max(Timestamp(before_ms)),
        };
        Stamp::new(self.boot, Now { wall, ..now })
    }

    /// See [`Timeline::age_at_least`].
    pub(crate) fn age_at_least(&self, stamp: Stamp) -> Duration {
        self.known().timeline.age_at_least(stamp, self.clock.now())
    }

    /// See [`Timeline::arrival`].
    pub(crate) fn arrival(&self, stamp: Stamp) -> Arrival {
        self.known().timeline.arrival(stamp)
    }

    /// Whether the arrival times of a boot's records are known.
    pub(crate) fn is_trusted(&self, boot: u32) -> bool {
        self.known().timeline.is_trusted(boot)
    }

    /// A look at the timeline and at the clock, for many questions at once.
    pub(crate) fn ages<T>(&self, ask: impl FnOnce(&Timeline, Now) -> T) -> T {
        ask(&self.known().timeline, self.clock.now())
    }

    /// This boot lasted until now.
    pub(crate) fn close(&self) {
        let now = Stamp::new(self.boot, self.clock.now());
        self.change(|known| _ = known.timeline.saw(now), |()| false);
    }
}

/// One pass through a stream: its arrival times do not run backwards, as long as nothing new is learnt of the clocks.
#[derive(Debug, Default)]
pub(crate) struct Pass {
    changes: u64,
    newest: Timestamp,
}

impl Pass {
    /// The arrival of the block that comes next, when so many changes of the timeline are known.
    pub(crate) fn next(&mut self, arrival: Arrival, changes: u64) -> Arrival {
        if self.changes != changes {
            *self = Self { changes, newest: Timestamp(0) };
        }
        self.newest = self.newest.max(arrival.at);
        Arrival { at: self.newest, ..arrival }
    }
}
