//! A number of bytes for each day. Pure.
//!
//! While the time is not known, a day is 24 hours of the monotonic clock, and what was spent before goes on counting: a
//! gateway that starts anew every hour without a clock has one budget for all of it, not one each.

use std::time::Duration;

use forebay_log_store::Timestamp;
use serde::{Deserialize, Serialize};

use super::{
    calendar::{TimeOfDay, WallTime, Zone},
    policy::Moment,
};

const DAY: Duration = Duration::from_secs(24 * 3600);

/// Smaller requests would be headers for the most part.
pub(super) const REQUEST_BYTES_MIN: u64 = 4 << 10;

/// What is written to be kept over a restart lies ahead of what is spent by this share of the budget, so that after a kill
/// a budget has lost that much, and gained none. It is written again when half of that is used up: some two hundred small
/// writes a day.
const AHEAD: u64 = 100;

/// What is kept over a restart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Spent {
    /// Which day, by a clock that was trusted; none if there never was one.
    pub(crate) day: Option<i64>,
    /// In that day.
    pub(crate) bytes: u64,
}

#[derive(Debug, Clone)]
pub(super) struct Budget {
    bytes: u64,
    reset: TimeOfDay,
    zone: Zone,
    spent: Spent,
    /// What a restart would go on from.
    kept: Spent,
    /// Since when it is counted, by the monotonic clock.
    began: Duration,
}

impl Budget {
    /// `spent` is what a run before has left behind.
    pub(super) fn new(bytes: u64, reset: TimeOfDay, zone: Zone, spent: Spent) -> Self {
        Self { bytes, reset, zone, spent, kept: spent, began: Duration::ZERO }
    }

    /// Begins the next day, if there is one.
    pub(super) fn look(&mut self, now: Moment) {
        let over = match now.wall.map(|wall| WallTime::of(wall, self.zone).day(self.reset)) {
            Some(today) => {
                // A clock that is set back does not give the day's bytes a second time.
                let before = self.spent.day.replace(today);
                before.is_some_and(|before| before < today)
            }
            None => now.since.saturating_sub(self.began) >= DAY,
        };
        if over {
            self.spent.bytes = 0;
            self.began = now.since;
        }
    }

    /// Whether there is enough left for so many bytes. More than a whole day's budget at once may leave as the day's first.
    pub(super) fn has(&self, bytes: u64) -> bool {
        self.spent.bytes.saturating_add(bytes) <= self.bytes || (self.spent.bytes == 0 && self.bytes > 0)
    }

    pub(super) fn take(&mut self, bytes: u64) {
        self.spent.bytes = self.spent.bytes.saturating_add(bytes);
    }

    pub(super) fn correct(&mut self, bytes: i64) {
        self.spent.bytes = self.spent.bytes.saturating_add_signed(bytes);
    }

    pub(super) fn spent(&self) -> Spent {
        self.spent
    }

    /// What is to be kept, so that a kill gives nothing back.
    pub(super) fn to_keep(&self) -> Spent {
        Spent { bytes: self.spent.bytes.saturating_add(self.bytes / AHEAD), ..self.spent }
    }

    /// Whether that is to be written now: too little of what is kept is left, or by far too much.
    pub(super) fn is_to_be_kept(&self) -> bool {
        let ahead = self.bytes / AHEAD;
        let least = self.spent.bytes.saturating_add(ahead / 2);
        self.spent.day != self.kept.day || self.kept.bytes < least || self.kept.bytes > least.saturating_add(ahead * 2)
    }

    /// A restart would go on from this now.
    pub(super) fn keep(&mut self, kept: Spent) {
        self.kept = kept;
    }

    pub(super) fn of_bytes(&self) -> u64 {
        self.bytes
    }

    /// When the next day begins: on the wall, if that is known.
    pub(super) fn ends(&self, now: Moment) -> (Option<WallTime>, Duration) {
        let by_clock = (self.began + DAY).saturating_sub(now.since);
        let on_wall = |wall: Timestamp| WallTime::of(wall, self.zone).next(self.reset);
        (now.wall.map(on_wall), by_clock)
    }
}

/// How large requests may be under a budget: hardly anything of it is left over for want of a smaller one, and what a
/// dozen under way turn out to be more than was thought does not count.
pub(super) fn request_bytes(bytes_per_day: u64) -> u64 {
    (bytes_per_day / 400).max(REQUEST_BYTES_MIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u64 = 3600;

    /// So many hours after the start, at which it was Monday, 00:00.
    fn at(hours: u64, trusted: bool) -> Moment {
        let wall = Timestamp((4 * 24 + hours) * HOUR * 1000);
        Moment { since: Duration::from_secs(hours * HOUR), wall: trusted.then_some(wall) }
    }

    fn budget(spent: Spent) -> Budget {
        Budget::new(1000, TimeOfDay::parse("06:00").expect("a time"), Zone::Utc, spent)
    }

    #[test]
    fn each_day_has_its_bytes() {
        let mut budget = budget(Spent::default());
        budget.look(at(0, true));
        budget.take(900);
        assert!(budget.has(100) && !budget.has(101));
        budget.look(at(5, true));
        assert!(!budget.has(101), "the day begins at six");
        assert_eq!(budget.ends(at(5, true)).0.expect("known").to_string(), "mon 06:00");
        budget.look(at(6, true));
        assert!(budget.has(1000));
        assert!(budget.has(5000), "or it would never leave");
        budget.take(5000);
        assert!(!budget.has(0));
    }

    #[test]
    fn what_is_kept_lies_ahead_of_what_is_spent() {
        let mut budget = budget(Spent::default());
        let mut writes = 0;
        for _ in 0..1000 {
            budget.take(1);
            if budget.is_to_be_kept() {
                budget.keep(budget.to_keep());
                writes += 1;
            }
            let ahead = budget.kept.bytes - budget.spent.bytes;
            assert!((5..=10).contains(&ahead), "{ahead}");
        }
        assert!(writes <= 200, "{writes}");
        // They never got out.
        budget.correct(-40);
        assert!(budget.is_to_be_kept());
        budget.keep(budget.to_keep());
        budget.look(at(6, true));
        assert!(budget.is_to_be_kept(), "another day");
    }

    #[test]
    fn without_a_clock_a_day_is_twenty_four_hours() {
        let mut budget = budget(Spent { day: Some(3), bytes: 900 });
        budget.look(at(1, false));
        assert!(!budget.has(101), "what was spent before counts");
        budget.look(at(23, false));
        assert!(!budget.has(101));
        budget.look(at(24, false));
        assert!(budget.has(1000));
        budget.take(1000);
        // Now the time is known, and it is another day than when the clock was trusted last.
        budget.look(at(25, true));
        assert!(budget.has(1000));
    }

    #[test]
    fn the_first_trusted_time_begins_no_day_and_one_that_goes_back_neither() {
        let mut budget = budget(Spent::default());
        budget.take(900);
        budget.look(at(30, true));
        assert!(!budget.has(101), "it may be the same day");
        budget.look(at(3, true));
        assert!(!budget.has(101));
    }
}
