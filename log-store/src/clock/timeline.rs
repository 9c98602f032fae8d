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

impl Boot {
    /// See [`Clock::boot`](super::Clock::boot).
    pub(crate) fn id(&self) -> u32 {
        self.id
    }

    /// Grows from boot to boot.
    pub(crate) fn number(&self) -> u32 {
        self.number
    }

    /// It lasted at least so long.
    pub(crate) fn lasted(&self) -> Duration {
        Duration::from_millis(self.lasted_ms)
    }

    /// By the newest trusted look at the wall clock.
    pub(crate) fn began(&self) -> Option<Timestamp> {
        self.began.map(|began| Timestamp(began.at_ms))
    }
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
            let is_taken = self.boots[..earlier].iter().any(|known| known.number == boot.number);
            let known = &mut self.boots[at];
            known.lasted_ms = known.lasted_ms.max(boot.lasted_ms);
            known.began = Began::both(known.began, boot.began);
            // A number that was given without knowing of all boots before is too small, never too large. One that a later
            // boot was given meanwhile moves nothing.
            if boot.number <= known.number || (at < earlier && is_taken) {
                return;
            }
            if at >= earlier {
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const YEAR_MS: u64 = 31_557_600_000;
    const TRUTH_MS: u64 = 1_800_000_000_000;

    fn now(wall_ms: u64, since_boot_ms: u64) -> Now {
        Now { wall: Timestamp(wall_ms), since_boot: Duration::from_millis(since_boot_ms) }
    }

    fn stamp(boot: u32, since_boot_ms: u64, wall_ms: u64) -> Stamp {
        Stamp { boot, since_boot_ms, wall_ms }
    }

    fn arrival(timeline: &Timeline, stamp: Stamp) -> (u64, bool) {
        let Arrival { at, trusted } = timeline.arrival(stamp);
        (at.0, trusted)
    }

    /// The machine starts again; what was known was written down.
    fn reboot(timeline: &Timeline, boot: u32) -> Timeline {
        Timeline::new(boot, timeline.boots().to_vec())
    }

    #[test]
    fn one_trusted_look_tells_all_arrivals_of_its_boot() {
        let mut timeline = Timeline::new(7, Vec::new());
        let early = stamp(7, 5_000, 3_000);
        assert_eq!(arrival(&timeline, early), (3_000, false), "the wall clock shows 1970");
        assert_eq!(timeline.learn(now(TRUTH_MS + 60_000, 60_000), false), Learnt::Began);
        assert_eq!(arrival(&timeline, early), (TRUTH_MS + 5_000, true));
        assert_eq!(timeline.trusted_since(), Some(Timestamp(TRUTH_MS + 60_000)));
        // Also when the wall clock is set afterwards.
        assert_eq!(timeline.wall(now(17, 70_000)), Timestamp(TRUTH_MS + 70_000));
        // And in a later boot.
        let timeline = reboot(&timeline, 8);
        assert_eq!(arrival(&timeline, early), (TRUTH_MS + 5_000, true));
        assert_eq!(timeline.trusted_since(), None);
    }

    #[test]
    fn an_untrusted_arrival_lies_between_the_trusted_ones_around_it() {
        let mut timeline = Timeline::new(1, Vec::new());
        timeline.learn(now(TRUTH_MS, 0), false);
        timeline.saw(stamp(1, 10_000, 0));
        let mut timeline = reboot(&timeline, 2);
        let (past, future) = (stamp(2, 4_000, 0), stamp(2, 5_000, TRUTH_MS + YEAR_MS));
        assert_eq!(arrival(&timeline, past), (TRUTH_MS + 14_000, false), "not before the boot before had ended");
        assert_eq!(arrival(&timeline, future), (TRUTH_MS + YEAR_MS, false));
        timeline.saw(future);
        timeline = reboot(&timeline, 3);
        timeline.learn(now(TRUTH_MS + 90_000, 20_000), false);
        assert_eq!(arrival(&timeline, past), (TRUTH_MS + 14_000, false));
        assert_eq!(arrival(&timeline, future), (TRUTH_MS + 70_000, false), "not after the next boot began");
        assert_eq!(arrival(&timeline, stamp(99, 1, u64::MAX)), (TRUTH_MS, false), "what is unknown was before");
    }

    #[test]
    fn a_jump_of_the_wall_clock_ages_nothing() {
        let mut timeline = Timeline::new(1, Vec::new());
        let age = |timeline: &Timeline, boot, now| timeline.age_at_least(stamp(boot, 1_000, 1), now).as_millis();
        assert_eq!(age(&timeline, 1, now(TRUTH_MS, 6_000)), 5_000);
        timeline.learn(now(TRUTH_MS, 6_000), false);
        timeline.saw(stamp(1, 9_000, 1));
        let timeline = reboot(&timeline, 2);
        // An untrusted clock 50 years ahead: what boot 1 lasted, and what this one lasts, is all that is certain.
        assert_eq!(age(&timeline, 1, now(TRUTH_MS + 50 * YEAR_MS, 3_000)), 8_000 + 3_000);
        assert_eq!(age(&timeline, 99, now(TRUTH_MS + 50 * YEAR_MS, 3_000)), 3_000);
    }

    #[test]
    fn with_both_clocks_trusted_the_age_is_exact() {
        let mut timeline = Timeline::new(1, Vec::new());
        timeline.learn(now(TRUTH_MS, 6_000), false);
        let mut timeline = reboot(&reboot(&timeline, 2), 3);
        timeline.learn(now(TRUTH_MS + YEAR_MS, 4_000), false);
        let later = now(3, 10_000);
        let age = timeline.age_at_least(stamp(1, 5_000, 0), later).as_millis();
        assert_eq!(u64::try_from(age).expect("small"), YEAR_MS + 6_000 + 1_000);
        // Of the boot between, it is known that it had ended when this one began.
        assert_eq!(timeline.age_at_least(stamp(2, 5_000, 0), later).as_millis(), 10_000);
    }

    #[test]
    fn a_boot_without_a_clock_ages_by_the_next_one_with_one() {
        let mut timeline = reboot(&Timeline::new(1, Vec::new()), 2);
        timeline.learn(now(TRUTH_MS, 0), false);
        let mut timeline = reboot(&timeline, 3);
        timeline.learn(now(TRUTH_MS + YEAR_MS, 0), false);
        let age = timeline.age_at_least(stamp(1, 5_000, 0), now(0, 7_000)).as_millis();
        assert_eq!(u64::try_from(age).expect("small"), YEAR_MS + 7_000);
    }

    #[test]
    fn a_trusted_clock_that_is_set_by_years_expires_nothing() {
        for jump in [YEAR_MS, 20 * YEAR_MS] {
            let mut timeline = Timeline::new(1, Vec::new());
            timeline.learn(now(TRUTH_MS, 0), false);
            let mut timeline = reboot(&timeline, 2);
            timeline.learn(now(TRUTH_MS + 60_000, 0), false);
            let from = Timestamp(TRUTH_MS + 61_000);
            assert_eq!(timeline.learn(now(TRUTH_MS + jump, 1_000), false), Learnt::Stepped { from });
            let age = |timeline: &Timeline, boot| timeline.age_at_least(stamp(boot, 0, 0), now(0, 2_000)).as_millis();
            assert_eq!((age(&timeline, 1), age(&timeline, 2)), (62_000, 2_000));
            // Nor after it was corrected, nor in the next boot.
            assert!(matches!(timeline.learn(now(TRUTH_MS + 62_000, 2_000), false), Learnt::Stepped { .. }));
            assert_eq!((age(&timeline, 1), age(&timeline, 2)), (62_000, 2_000));
            let mut timeline = reboot(&timeline, 3);
            timeline.learn(now(TRUTH_MS + 100_000, 0), false);
            assert!(age(&timeline, 1) == 102_000 && age(&timeline, 2) <= 42_000);
        }
    }

    #[test]
    fn nonsense_is_not_believed_whoever_claims_it() {
        let mut timeline = Timeline::new(1, Vec::new());
        for vouched in [false, true] {
            let learnt = timeline.learn(now(PLAUSIBLE_FROM.0 - 1, 5_000), vouched);
            assert_eq!(learnt, Learnt::Doubted { at_least: PLAUSIBLE_FROM });
        }
        timeline.learn(now(TRUTH_MS, 0), false);
        timeline.saw(stamp(1, 60_000, 0));
        let mut timeline = reboot(&timeline, 2);
        let day = CORRECTION_MS_MAX;
        let at_least = Timestamp(TRUTH_MS + 60_000 + 5_000);
        let before = timeline.clone();
        assert_eq!(timeline.learn(now(at_least.0 - day - 1, 5_000), false), Learnt::Doubted { at_least });
        assert_eq!(timeline, before);
        assert_eq!(timeline.learn(now(at_least.0 - day, 5_000), false), Learnt::Began, "a correction by a day");
        // Whoever vouches for the clock overrules what was trusted before; an age only gets less by it.
        let mut timeline = reboot(&before, 3);
        assert_eq!(timeline.learn(now(at_least.0 - 2 * day, 5_000), true), Learnt::Began);
        assert_eq!(timeline.age_at_least(stamp(1, 0, 0), now(0, 5_000)).as_millis(), 65_000);
        assert_eq!(arrival(&timeline, stamp(1, 9, 0)), (at_least.0 - 2 * day - 5_000, true), "not after the next");
    }

    #[test]
    fn drift_and_leap_seconds_are_no_steps() {
        let mut timeline = Timeline::new(1, Vec::new());
        timeline.learn(now(TRUTH_MS, 0), false);
        assert_eq!(timeline.learn(now(TRUTH_MS + 60_000 + 1_999, 60_000), false), Learnt::Nothing);
        assert_eq!(timeline.learn(now(TRUTH_MS + 60_000 - 1_000, 60_000), false), Learnt::Nothing);
        assert_eq!(arrival(&timeline, stamp(1, 5, 0)), (TRUTH_MS + 5, true));
    }

    #[test]
    fn boots_keep_their_order_when_the_catalogue_was_behind() {
        // Boot 2 was noted in a stream only; the catalogue gave its number to boot 3.
        let one = Timeline::new(1, Vec::new());
        let two = reboot(&one, 2);
        let mut three = reboot(&one, 3);
        assert!(three.merge(two.boots().to_vec()));
        assert!(!three.merge(two.boots().to_vec()), "nothing new");
        let order = |timeline: &Timeline| timeline.boots().iter().map(|boot| boot.id).collect::<Vec<_>>();
        assert_eq!(order(&three), [1, 2, 3]);
        // The catalogue is lost, and the streams' tables come in any order.
        let mut tables =
            [one.boots(), three.boots(), two.boots(), Timeline::new(3, Vec::new()).boots()].map(<[_]>::to_vec);
        for _ in 0..4 {
            tables.rotate_left(1);
            assert_eq!(order(&Timeline::recorded(tables.concat())), [1, 2, 3]);
            assert_eq!(order(&Timeline::new(4, tables.concat())), [1, 2, 3, 4]);
        }
    }

    #[test]
    fn the_table_is_bounded() {
        let mut timeline = Timeline::new(0, Vec::new());
        for boot in 1..1000 {
            timeline = reboot(&timeline, boot);
            timeline.merge(Vec::new());
        }
        assert_eq!((timeline.boots().len(), timeline.boots()[0].id), (BOOTS_MAX, 1000 - BOOTS_MAX as u32));
        let bytes = postcard::to_allocvec(timeline.boots()).expect("serialisable").len();
        assert!(bytes < 8192, "{bytes}");
    }

    /// One boot of a made-up history.
    #[derive(Debug, Clone)]
    struct Lived {
        off_ms: u64,
        lasted_ms: u64,
        wall_ms: u64,
        /// When a clock was trusted, in percent of its length.
        trusted_at: Option<u64>,
        /// Whether its end was noted.
        noted: bool,
    }

    fn lived() -> impl Strategy<Value = Lived> {
        let day = 24 * 3600 * 1000u64;
        (0..40 * day, 1_000..3 * day, 0..100 * YEAR_MS, prop::option::of(0..=100u64), any::<bool>()).prop_map(
            |(off_ms, lasted_ms, wall_ms, trusted_at, noted)| Lived { off_ms, lasted_ms, wall_ms, trusted_at, noted },
        )
    }

    proptest! {
        #[test]
        fn ages_are_never_too_high_and_exact_where_they_can_be(
            history in prop::collection::vec(lived(), 1..12),
            lost_before in prop::option::of(0..12usize),
        ) {
            let mut truth_ms = TRUTH_MS;
            let mut timeline = Timeline::default();
            let (mut written, mut wall_ms) = (Vec::new(), 0);
            for (i, lived) in history.iter().enumerate() {
                let boot = i as u32 + 1;
                truth_ms += lived.off_ms;
                let recorded = if lost_before == Some(i) { Vec::new() } else { timeline.boots().to_vec() };
                timeline = Timeline::new(boot, recorded);
                let trusted_ms = lived.trusted_at.map(|percent| lived.lasted_ms * percent / 100);
                if let Some(at_ms) = trusted_ms {
                    timeline.learn(now(truth_ms + at_ms, at_ms), false);
                }
                for part in 0..=4 {
                    let since_ms = lived.lasted_ms * part / 4;
                    // As the writer stamps: an untrusted clock never goes behind what was written before.
                    wall_ms = match trusted_ms.filter(|at_ms| *at_ms <= since_ms) {
                        Some(_) => truth_ms + since_ms,
                        None => wall_ms.max(lived.wall_ms + since_ms),
                    };
                    written.push((stamp(boot, since_ms, wall_ms), truth_ms + since_ms));
                }
                if lived.noted || i == history.len() - 1 {
                    timeline.saw(stamp(boot, lived.lasted_ms, 0));
                }
                truth_ms += lived.lasted_ms;
            }
            let last = history.last().expect("at least one");
            let now = now(last.wall_ms, last.lasted_ms);
            let last_boot = history.len() as u32;
            let mut before = 0;
            for (stamp, at_ms) in written {
                let age = timeline.age_at_least(stamp, now).as_millis() as u64;
                prop_assert!(age <= truth_ms - at_ms, "{stamp:?} is {} old, not {age}", truth_ms - at_ms);
                if stamp.boot == last_boot || (timeline.is_trusted(stamp.boot) && timeline.is_trusted(last_boot)) {
                    prop_assert_eq!(age, truth_ms - at_ms);
                }
                let (arrived_ms, trusted) = arrival(&timeline, stamp);
                prop_assert_eq!(trusted, timeline.is_trusted(stamp.boot));
                if trusted {
                    prop_assert_eq!(arrived_ms, at_ms);
                }
                if history.iter().all(|lived| lived.noted) && lost_before.is_none() {
                    prop_assert!(before <= arrived_ms, "{arrived_ms} behind {before}");
                    before = arrived_ms;
                }
            }
        }
    }
}
