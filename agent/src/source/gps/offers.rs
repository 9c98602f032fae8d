//! Which times of a receiver are offered to the log as the true time. Pure.
//!
//! A receiver may say a wrong time: before its first fix, from its own clock; after 1,024 weeks, when its count of weeks begins anew;
//! and one that plays a recording says whatever was recorded. So the time must be plausible, belong to a fix, and have gone as fast as our
//! own monotonic clock for some epochs. It is offered again now and then, in case that it changes.

use std::{ops::Range, time::Duration};

/// From 2024 to 2063, in milliseconds. A receiver that is 1,024 weeks late says 2007.
pub(super) const PLAUSIBLE: Range<u64> = 1_704_067_200_000..2_966_371_200_000;

/// So many epochs in a row have to agree.
const EPOCHS: u32 = 3;

/// Two epochs agree if the times between them differ by less.
const AGREES_MS: u64 = 500;

const AGAIN_AFTER: Duration = Duration::from_secs(60);

/// What is remembered of the epochs before.
#[derive(Debug, Default)]
pub(super) struct Offers {
    before: Option<(u64, Duration)>,
    agreed: u32,
    offered: Option<Duration>,
}

impl Offers {
    /// Whether the time of a fix is to be offered, which came when a monotonic clock showed `now`.
    pub(super) fn take(&mut self, time: u64, now: Duration) -> bool {
        let agrees = self.before.is_some_and(|(before, then)| {
            let passed = u64::try_from(now.saturating_sub(then).as_millis()).unwrap_or(u64::MAX);
            time > before && (time - before).abs_diff(passed) < AGREES_MS
        });
        self.before = Some((time, now));
        if !agrees {
            self.agreed = 0;
            self.offered = None;
            return false;
        }
        self.agreed = self.agreed.saturating_add(1);
        let is_due = self.offered.is_none_or(|offered| now.saturating_sub(offered) >= AGAIN_AFTER);
        if self.agreed < EPOCHS || !is_due {
            return false;
        }
        self.offered = Some(now);
        true
    }

    /// There was no fix, so the next time is of no known quality.
    pub(super) fn forget(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const T: u64 = 1_795_608_000_000;

    fn offered(epochs: impl IntoIterator<Item = (u64, u64)>) -> Vec<usize> {
        let mut offers = Offers::default();
        let epochs = epochs.into_iter().enumerate();
        let due = epochs.filter(|(_, (time, now))| offers.take(*time, Duration::from_millis(*now)));
        due.map(|(number, _)| number).collect()
    }

    #[test]
    fn a_steady_time_is_offered_and_again_after_a_minute() {
        assert_eq!(offered((0..130).map(|n| (T + n * 1000, n * 1001))), [3, 63, 123]);
    }

    #[test]
    fn a_recording_played_too_fast_or_standing_still_is_not_offered() {
        assert_eq!(offered((0..100).map(|n| (T + n * 1000, n * 50))), [0; 0]);
        assert_eq!(offered((0..100).map(|n| (T, n * 1000))), [0; 0]);
        assert_eq!(offered((0..100).map(|n| (T - n * 1000, n * 1000))), [0; 0]);
    }

    #[test]
    fn a_jump_begins_anew() {
        let jumps = |n| if n < 5 { 0 } else { 3_600_000 };
        assert_eq!(offered((0..10).map(|n| (T + n * 1000 + jumps(n), n * 1000))), [3, 8]);
    }

    #[test]
    fn a_receiver_whose_weeks_rolled_over_is_not_plausible() {
        assert!(PLAUSIBLE.contains(&T));
        assert!(!PLAUSIBLE.contains(&(T - 1024 * 7 * 24 * 3_600_000)) && !PLAUSIBLE.contains(&0));
    }
}
