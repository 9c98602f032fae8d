//! Waiting for a condition with a deadline, the only way in which a test waits.

use std::thread;
use std::time::{Duration, Instant};

/// How often a condition is looked at: often enough not to be noticed, seldom enough to leave the processor to what is
/// being waited for.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Returns once the condition holds; panics, naming what was waited for, when it still does not at the deadline.
#[track_caller]
pub(crate) fn eventually(within: Duration, what: &str, mut condition: impl FnMut() -> bool) {
    eventually_some(within, what, || condition().then_some(()));
}

/// As [`eventually`], for a condition that yields something.
#[track_caller]
pub(crate) fn eventually_some<T>(within: Duration, what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + within;
    loop {
        // The time is taken before the look, so that a slow look which began in time still counts.
        let late = Instant::now() >= deadline;
        if let Some(found) = condition() {
            return found;
        }
        assert!(!late, "not within {within:?}: {what}");
        pause();
    }
}

#[expect(clippy::disallowed_methods, reason = "polling a condition is all it is for")]
fn pause() {
    thread::sleep(LOOK_EVERY);
}
