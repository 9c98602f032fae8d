//! Rates: records and bytes per second over the last seconds, from counters that only grow. Pure.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// Long enough to smooth group commits and batches, short enough that a stop is seen.
const WINDOW: Duration = Duration::from_secs(5);

/// Counters of one thing at one time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Number of records.
    pub records: u64,
    /// Their keys and data.
    pub bytes: u64,
}

/// Watches the counters of one thing.
#[derive(Debug, Clone, Default)]
pub struct Meter {
    /// Oldest first; at most one is older than the window, so that the window is covered.
    samples: VecDeque<(Instant, Totals)>,
}

impl Meter {
    /// Notes the counters as they are now.
    pub fn sample(&mut self, now: Instant, totals: Totals) {
        self.samples.push_back((now, totals));
        while self.samples.get(1).is_some_and(|(at, _)| now.duration_since(*at) >= WINDOW) {
            self.samples.pop_front();
        }
    }

    /// Records and bytes per second between the oldest and the newest sample; 0 with fewer than two.
    #[must_use]
    pub fn per_second(&self) -> (f64, f64) {
        let (Some((from, old)), Some((to, new))) = (self.samples.front(), self.samples.back()) else {
            return (0.0, 0.0);
        };
        let seconds = to.duration_since(*from).as_secs_f64();
        if seconds == 0.0 {
            return (0.0, 0.0);
        }
        let per_second = |old: u64, new: u64| new.saturating_sub(old) as f64 / seconds;
        (per_second(old.records, new.records), per_second(old.bytes, new.bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meter(samples: &[(u64, u64)]) -> Meter {
        let start = Instant::now();
        let mut meter = Meter::default();
        for (seconds, records) in samples {
            let totals = Totals { records: *records, bytes: records * 100 };
            meter.sample(start + Duration::from_secs(*seconds), totals);
        }
        meter
    }

    #[test]
    fn nothing_is_known_from_one_sample() {
        assert_eq!(meter(&[]).per_second(), (0.0, 0.0));
        assert_eq!(meter(&[(0, 1000)]).per_second(), (0.0, 0.0));
        assert_eq!(meter(&[(0, 1000), (0, 2000)]).per_second(), (0.0, 0.0));
    }

    #[test]
    fn the_rate_is_that_of_the_last_seconds() {
        assert_eq!(meter(&[(0, 0), (1, 10), (2, 20)]).per_second(), (10.0, 1000.0));
        // A burst long ago no longer counts.
        assert_eq!(meter(&[(0, 0), (1, 1000), (2, 1000), (3, 1000), (6, 1000), (7, 1005)]).per_second(), (1.0, 100.0));
    }

    #[test]
    fn a_stop_is_seen() {
        let samples: Vec<_> = (0..20).map(|second| (second, (second * 10).min(50))).collect();
        assert_eq!(meter(&samples).per_second(), (0.0, 0.0));
    }

    #[test]
    fn memory_is_bounded() {
        let samples: Vec<_> = (0..1000).map(|second| (second, second)).collect();
        assert!(meter(&samples).samples.len() <= 7);
    }
}
