//! Tells the same kind of trouble once in a while instead of once per device and second. Pure but for its lock.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// One line per kind and this long.
const PAUSE: Duration = Duration::from_secs(10);

/// Remembers what was told when. Counters are exact all the same; this is only about log lines.
#[derive(Default)]
pub(super) struct Sparingly(Mutex<HashMap<&'static str, Told>>);

struct Told {
    at: Instant,
    left_out: u64,
}

impl Sparingly {
    /// Whether to tell of this kind now: then gives how many were left out since the last one that was told.
    pub(super) fn tell(&self, kind: &'static str, now: Instant) -> Option<u64> {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(told) = told.get_mut(kind) else {
            told.insert(kind, Told { at: now, left_out: 0 });
            return Some(0);
        };
        if now.duration_since(told.at) < PAUSE {
            told.left_out += 1;
            return None;
        }
        told.at = now;
        Some(std::mem::take(&mut told.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_is_told_once_per_pause_with_what_was_left_out() {
        let (sparingly, now) = (Sparingly::default(), Instant::now());
        assert_eq!(sparingly.tell("malformed", now), Some(0));
        assert_eq!(sparingly.tell("credentials", now), Some(0));
        assert_eq!(sparingly.tell("malformed", now + PAUSE / 2), None);
        assert_eq!(sparingly.tell("malformed", now + PAUSE / 2), None);
        assert_eq!(sparingly.tell("malformed", now + PAUSE), Some(2));
        assert_eq!(sparingly.tell("malformed", now + PAUSE + PAUSE), Some(0));
    }
}
