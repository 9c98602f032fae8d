//! When a program is started again. Pure: randomness and durations come from the caller.

use std::time::Duration;

use super::config::{Restart, Settings};
use crate::source::reconnect::{Reconnect, Trouble};

/// Decides what follows the end of a program.
#[derive(Debug)]
pub(super) struct Schedule {
    restart: Restart,
    interval: Option<Duration>,
    pauses: Reconnect,
}

/// What follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// It is started after this pause.
    After(Duration),
    /// It is not started again.
    Never,
}

impl Schedule {
    pub(super) fn new(settings: &Settings) -> Self {
        let Settings { restart, interval, max_backoff, .. } = settings;
        Self { restart: *restart, interval: *interval, pauses: Reconnect::new(*max_backoff) }
    }

    /// After a program that lived for `lived` and ended with `success` or not; `random` is between 0 and 1.
    pub(super) fn next(&mut self, success: bool, lived: Duration, random: f64) -> Next {
        if let Some(interval) = self.interval {
            return Next::After(interval.saturating_sub(lived));
        }
        match (self.restart, success) {
            (Restart::Always, _) | (Restart::OnFailure, false) => {
                // Never at once: a program that ends as soon as it begins would take the whole processor.
                Next::After(self.pauses.pause(Trouble::Passing, lived, 0.5 + random / 2.0))
            }
            (Restart::OnFailure, true) | (Restart::Never, _) => Next::Never,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(restart: Restart, interval: Option<Duration>) -> Schedule {
        Schedule { restart, interval, pauses: Reconnect::new(Duration::from_secs(2)) }
    }

    #[test]
    fn pauses_grow_while_a_program_fails_at_once() {
        let mut always = schedule(Restart::Always, None);
        let mut after = |lived| match always.next(true, lived, 1.0) {
            Next::After(pause) => pause.as_millis(),
            Next::Never => panic!("it is to be started again"),
        };
        assert_eq!([(); 4].map(|()| after(Duration::ZERO)), [500, 1000, 2000, 2000]);
        assert_eq!(after(Duration::from_secs(3600)), 500);
        assert_eq!(always.next(true, Duration::from_secs(3600), 0.0), Next::After(Duration::from_millis(250)));
    }

    #[test]
    fn success_may_be_the_end() {
        let mut on_failure = schedule(Restart::OnFailure, None);
        assert!(matches!(on_failure.next(false, Duration::ZERO, 0.5), Next::After(_)));
        assert_eq!(on_failure.next(true, Duration::ZERO, 0.5), Next::Never);
        assert_eq!(schedule(Restart::Never, None).next(false, Duration::ZERO, 0.5), Next::Never);
    }

    #[test]
    fn an_interval_is_from_start_to_start() {
        let mut every = schedule(Restart::Never, Some(Duration::from_secs(10)));
        assert_eq!(every.next(false, Duration::from_secs(3), 0.5), Next::After(Duration::from_secs(7)));
        assert_eq!(every.next(true, Duration::from_secs(13), 0.5), Next::After(Duration::ZERO));
    }
}
