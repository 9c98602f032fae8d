//! The timeline: the machine's boots in their order, and when each began, as far as a trusted clock ever told. Pure.
//!
//! Monotonic time means something within one boot alone, wall time only while it can be trusted. Together they are
//! enough: one trusted look at the wall clock says when the boot began, and so when each of its records arrived, those
//! before that look too. `docs/time.md` has the rules in words.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Now, Stamp, Timestamp};

/// The first of January 2026: forebay is younger than that, and so is everything that it keeps. A clock that shows less is
/// not believed, whoever vouches for it.
pub(crate) const PLAUSIBLE_FROM: Timestamp = Timestamp(1_767_225_600_000);
/// A trusted clock may be corrected by so much against what was trusted before. More is a contradiction: an earlier boot
/// would have ended after this one began.
const CORRECTION_MS_MAX: u64 = 24 * 3600 * 1000;
/// Less than this is drift or a leap second, and not worth a change; more is a step of the clock.
const STEP_MS_MIN: u64 = 2000;
/// So many boots are remembered: five a day for seven weeks. Records of older ones are taken for records of no known boot.
const BOOTS_MAX: usize = 256;

/// One boot of the machine. Persisted: never change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Boot {
    /// See [`Clock::boot`](super::Clock::boot).
    id: u32,
    /// Grows from boot to boot.
    number: u32,
    /// It lasted at least so long.
    lasted_ms: u64,
    /// `None` until a clock was trusted in it.
    began: Option<Began>,
}

/// When a boot began, by the trusted looks at the wall clock: the time it showed, less the time since the boot. Persisted:
/// never change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Began {
    /// By the newest look.
    at_ms: u64,
    /// By the look that makes it the earliest. Looks that differ cannot all be right; an age is reckoned with the one that
    /// makes it least.
    earliest_ms: u64,
    latest_ms: u64,
    /// Time since the boot at the first look.
    first_look_ms: u64,
}

/// When a record arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Arrival {
    pub(crate) at: Timestamp,
    /// Whether a trusted clock told it; else it is what an untrusted one showed, within the bounds that are known.
    pub(crate) trusted: bool,
}

/// What one look at a clock taught.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Learnt {
    /// What was known.
    Nothing,
    /// When this boot began.
    Began,
    /// That the clock was set since.
    Stepped {
        /// What it would show if it had not been.
        from: Timestamp,
    },
    /// Nothing: it cannot be right.
    Doubted {
        /// By what was trusted before it is at least this late.
        at_least: Timestamp,
    },
}

/// All boots that are known, in their order; the last is this one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Timeline {
    boots: Vec<Boot>,
}

impl Timeline {
    /// What was recorded, as it is: for looking at a log from outside.
    pub(crate) fn recorded(boots: Vec<Boot>) -> Self {
        let mut timeline = Self::default();
        for boot in boots {
            timeline.take(boot, timeline.boots.len());
        }
        timeline
    }

    /// What was recorded, and behind it the boot in which this process runs.
    pub(crate) fn new(boot: u32, recorded: Vec<Boot>) -> Self {
        let mut timeline = Self::recorded(recorded);
        let this = match timeline.boots.iter().position(|known| known.id == boot) {
            Some(known) => timeline.boots.remove(known),
            None => Boot { id: boot, number: 0, lasted_ms: 0, began: None },
        };
        timeline.boots.push(this);
        timeline.put_last_behind();
        timeline
    }

    /// For the catalogue and for control blocks.
    pub(crate) fn boots(&self) -> &[Boot] {
        &self.boots
    }

    /// Takes over what a log tells of earlier boots, and perhaps of this one; says whether anything was new.
    pub(crate) fn merge(&mut self, recorded: Vec<Boot>) -> bool {
        let before = self.clone();
        for boot in recorded {
            self.take(boot, self.boots.len().saturating_sub(1));
        }
        let surplus = self.boots.len().saturating_sub(BOOTS_MAX);
        self.boots.drain(..surplus);
        self.put_last_behind();
        *self != before
    }

    /// Takes a boot over among the first `earlier` ones, or what it adds to what is known of it.
    fn take(&mut self, mut boot: Boot, mut earlier: usize) {
        if let Some(at) = self.boots.iter().position(|known| known.id == boot.id) {
            let known = &mut self.boots[at];
            known.lasted_ms = known.lasted_ms.max(boot.lasted_ms);
            known.began = Began::both(known.began, boot.began);
            // A number that was given without knowing of all boots before is too small, never too large.
            if boot.number <= known.number || at >= earlier {
                known.number = known.number.max(boot.number);
                return;
            }
            boot = Boot { number: boot.number, ..self.boots.remove(at) };
            earlier -= 1;
        }
        let at = self.boots[..earlier].partition_point(|known| known.number < boot.number);
        // Of two boots with one number nobody knows which was first; that needs a catalogue lost twice.
        if at == earlier || self.boots[at].number != boot.number {
            self.boots.insert(at, boot);
        }
    }

    /// Whatever a log tells of is no later than this boot.
    fn put_last_behind(&mut self) {
        if let [.., before, last] = self.boots.as_mut_slice() {
            last.number = last.number.max(before.number.saturating_add(1));
        }
    }

    /// A boot lasted at least until something was written in it; says whether that was new.
    pub(crate) fn saw(&mut self, stamp: Stamp) -> bool {
        let known = self.boots.iter_mut().find(|boot| boot.id == stamp.boot);
        let longer = known.filter(|boot| boot.lasted_ms < stamp.since_boot_ms);
        longer.map(|boot| boot.lasted_ms = stamp.since_boot_ms).is_some()
    }

    /// Takes over what a trusted clock shows. Unless somebody vouches for it, it is compared with the boots before.
    pub(crate) fn learn(&mut self, now: Now, vouched: bool) -> Learnt {
        let since_boot_ms = now.since_boot_ms();
        let at_ms = now.wall.0.saturating_sub(since_boot_ms);
        let Some((this, earlier)) = self.boots.split_last_mut() else { return Learnt::Nothing };
        let known_ms = end_of(earlier, |began| began.earliest_ms).max(this.began.map_or(0, |began| began.earliest_ms));
        let contradicts = at_ms.saturating_add(CORRECTION_MS_MAX) < known_ms;
        if now.wall < PLAUSIBLE_FROM || (contradicts && !vouched) {
            let at_least = known_ms.saturating_add(since_boot_ms).max(PLAUSIBLE_FROM.0);
            return Learnt::Doubted { at_least: Timestamp(at_least) };
        }
        match &mut this.began {
            None => {
                let first_look_ms = since_boot_ms;
                this.began = Some(Began { at_ms, earliest_ms: at_ms, latest_ms: at_ms, first_look_ms });
                Learnt::Began
            }
            Some(began) if began.at_ms.abs_diff(at_ms) < STEP_MS_MIN => Learnt::Nothing,
            Some(began) => {
                let from = Timestamp(began.at_ms.saturating_add(since_boot_ms));
                began.at_ms = at_ms;
                began.earliest_ms = began.earliest_ms.min(at_ms);
                began.latest_ms = began.latest_ms.max(at_ms);
                Learnt::Stepped { from }
            }
        }
    }

    /// Since when the time of this boot is known.
    pub(crate) fn trusted_since(&self) -> Option<Timestamp> {
        let began = self.boots.last()?.began?;
        Some(Timestamp(began.at_ms.saturating_add(began.first_look_ms)))
    }

    /// The time now, as well as it is known.
    pub(crate) fn wall(&self, now: Now) -> Timestamp {
        let began = self.boots.last().and_then(|this| this.began);
        began.map_or(now.wall, |began| Timestamp(began.at_ms.saturating_add(now.since_boot_ms())))
    }

    /// Whether the arrival times of this boot's records are known.
    pub(crate) fn is_trusted(&self, boot: u32) -> bool {
        self.boots.iter().any(|known| known.id == boot && known.began.is_some())
    }

    /// When a record with this stamp arrived.
    ///
    /// In the order of a stream the answers do not run backwards, as far as the boots' lengths are known: a trusted time is
    /// not later than the beginning of the next boot that is known; an untrusted one lies between those around it.
    pub(crate) fn arrival(&self, stamp: Stamp) -> Arrival {
        let at = self.boots.iter().position(|boot| boot.id == stamp.boot);
        // What is not known any more was before everything that is.
        let (earlier, later) = at.map_or((&[][..], &self.boots[..]), |at| (&self.boots[..at], &self.boots[at + 1..]));
        let ceiling_ms = later.iter().filter_map(|boot| boot.began).map(|began| began.at_ms).min().unwrap_or(u64::MAX);
        let began = at.and_then(|at| self.boots[at].began);
        let at_ms = match began {
            Some(began) => began.at_ms.saturating_add(stamp.since_boot_ms),
            None => match end_of(earlier, |began| began.at_ms) {
                0 => stamp.wall_ms,
                floor_ms => stamp.wall_ms.max(floor_ms.saturating_add(stamp.since_boot_ms)),
            },
        };
        Arrival { at: Timestamp(at_ms.min(ceiling_ms)), trusted: began.is_some() }
    }

    /// How old what has this stamp is at the least. Never more than its true age, as long as of each boot one of the
    /// trusted looks at a clock was right; and exactly that, if its boot and this one had such looks.
    pub(crate) fn age_at_least(&self, stamp: Stamp, now: Now) -> Duration {
        let now_ms = now.since_boot_ms();
        let Some(at) = self.boots.iter().position(|boot| boot.id == stamp.boot) else {
            // Of a boot of which nothing is known, it is only certain that it was before this one.
            return now.since_boot;
        };
        let this = self.boots.len() - 1;
        if at == this {
            return Duration::from_millis(now_ms.saturating_sub(stamp.since_boot_ms));
        }
        let boot = &self.boots[at];
        let mut age_ms = boot.lasted_ms.saturating_sub(stamp.since_boot_ms);
        // How far the age at some moment is ahead of the wall time then, at the least.
        let mut ahead = boot.began.map(|began| -i128::from(began.latest_ms) - i128::from(stamp.since_boot_ms));
        for (i, later) in self.boots.iter().enumerate().skip(at + 1) {
            if let Some(began) = later.began {
                let by_wall = ahead.map_or(0, |ahead| (ahead + i128::from(began.earliest_ms)).max(0));
                age_ms = age_ms.max(u64::try_from(by_wall).unwrap_or(u64::MAX));
                let here = i128::from(age_ms) - i128::from(began.latest_ms);
                ahead = Some(ahead.map_or(here, |ahead| ahead.max(here)));
            }
            age_ms = age_ms.saturating_add(if i == this { now_ms } else { later.lasted_ms });
        }
        Duration::from_millis(age_ms)
    }
}

impl Began {
    /// What two records of the same boot's beginning tell together; the first is the newer.
    fn both(newer: Option<Self>, older: Option<Self>) -> Option<Self> {
        let (Some(newer), Some(older)) = (newer, older) else { return newer.or(older) };
        Some(Self {
            at_ms: newer.at_ms,
            earliest_ms: newer.earliest_ms.min(older.earliest_ms),
            latest_ms: newer.latest_ms.max(older.latest_ms),
            first_look_ms: newer.first_look_ms.min(older.first_look_ms),
        })
    }
}

/// The wall time at which the last of these boots had not ended yet, in milliseconds; 0 if that is not known.
fn end_of(boots: &[Boot], began_ms: impl Fn(Began) -> u64) -> u64 {
    boots.iter().fold(0, |end_ms: u64, boot| match boot.began.map_or(end_ms, |began| began_ms(began).max(end_ms)) {
        0 => 0,
        begun_ms => begun_ms.saturating_add(boot.lasted_ms),
    })
}
