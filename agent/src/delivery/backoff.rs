//! Backoff: how long to wait after the n-th failure in a row. Exponential, with full jitter. Pure.

use std::time::Duration;

use fastrand::Rng;

/// A range of waiting times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Backoff {
    /// The longest wait after the first failure; it doubles with every further one.
    pub(super) base: Duration,
    /// The longest wait of all.
    pub(super) max: Duration,
}

impl Backoff {
    /// A wait anywhere between nothing and what `failures` in a row allow.
    ///
    /// From nothing, because gateways that lost the same endpoint at the same time should not come back at the same time.
    pub(super) fn delay(self, failures: u32, rng: &mut Rng) -> Duration {
        self.ceiling(failures).mul_f64(rng.f64())
    }

    /// The longest wait that these allow.
    pub(super) fn ceiling(self, failures: u32) -> Duration {
        let doublings = failures.saturating_sub(1).min(20);
        self.base.saturating_mul(1 << doublings).min(self.max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BACKOFF: Backoff = Backoff { base: Duration::from_millis(100), max: Duration::from_secs(30) };

    #[test]
    fn the_ceiling_doubles_up_to_the_maximum() {
        let ceilings = [0, 1, 2, 3, 9, 10, u32::MAX].map(|failures| BACKOFF.ceiling(failures).as_millis());
        assert_eq!(ceilings, [100, 100, 200, 400, 25_600, 30_000, 30_000]);
    }

    #[test]
    fn the_whole_range_is_used_and_never_left() {
        let mut rng = Rng::with_seed(7);
        let delays: Vec<_> = (0..1000).map(|_| BACKOFF.delay(4, &mut rng).as_millis()).collect();
        assert!(delays.iter().all(|delay| *delay <= 800));
        assert!(delays.iter().any(|delay| *delay < 80) && delays.iter().any(|delay| *delay > 720));
    }
}
