//! How long to wait before the next attempt to connect. Pure: randomness and durations come from the caller.

use std::time::Duration;

/// The first pause is at most this long.
const FIRST: Duration = Duration::from_millis(500);

/// A connection that lived this long was a good one: the next trouble is a new trouble.
pub(super) const STABLE: Duration = Duration::from_secs(10);

/// Why there is no connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trouble {
    /// The device or broker cannot be reached, the connection broke, or the log could not take what came.
    Passing,
    /// We are not wanted: wrong password, certificate, client id or topics, or no permission. A person has to act.
    Refused,
}

/// Decides the pauses.
#[derive(Debug)]
pub(super) struct Reconnect {
    longest: Duration,
    attempts: u32,
}

impl Reconnect {
    pub(super) fn new(longest: Duration) -> Self {
        Self { longest, attempts: 0 }
    }

    /// The pause after a connection that lived for `lived`; `random` is between 0 and 1.
    pub(super) fn pause(&mut self, trouble: Trouble, lived: Duration, random: f64) -> Duration {
        if lived >= STABLE {
            self.attempts = 0;
        }
        match trouble {
            Trouble::Refused => self.longest.div_f64(2.0) + self.longest.mul_f64(random / 2.0),
            Trouble::Passing => {
                let bound = FIRST.saturating_mul(1 << self.attempts.min(20)).min(self.longest);
                self.attempts = self.attempts.saturating_add(1);
                bound.mul_f64(random)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LONGEST: Duration = Duration::from_secs(30);

    #[test]
    fn pauses_grow_to_the_longest_and_end_after_a_good_connection() {
        let mut reconnect = Reconnect::new(LONGEST);
        let mut pause = |lived| reconnect.pause(Trouble::Passing, lived, 1.0);
        let pauses: Vec<_> = (0..9).map(|_| pause(Duration::ZERO).as_millis()).collect();
        assert_eq!(pauses, [500, 1000, 2000, 4000, 8000, 16000, 30000, 30000, 30000]);
        assert_eq!(pause(Duration::from_secs(60)), FIRST);
    }

    #[test]
    fn a_refusal_is_tried_again_slowly() {
        let mut reconnect = Reconnect::new(LONGEST);
        assert_eq!(reconnect.pause(Trouble::Refused, Duration::ZERO, 0.0), LONGEST / 2);
        assert_eq!(reconnect.pause(Trouble::Refused, Duration::ZERO, 1.0), LONGEST);
    }

    proptest! {
        #[test]
        fn no_pause_is_longer_than_the_longest(random in 0.0..1.0_f64, attempts in 0..10_000_u32) {
            let mut reconnect = Reconnect { longest: LONGEST, attempts };
            prop_assert!(reconnect.pause(Trouble::Passing, Duration::ZERO, random) <= LONGEST);
            prop_assert!(reconnect.pause(Trouble::Refused, Duration::ZERO, random) <= LONGEST);
        }
    }
}
