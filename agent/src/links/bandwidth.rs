//! A cap on bytes per second. Pure.
//!
//! A request leaves as soon as what left before it is paid for, however large it is itself; how large requests become is
//! kept in proportion elsewhere ([`request_bytes`]). So the cap is kept over seconds, not over milliseconds.

use std::time::Duration;

/// What an idle link has saved up at the most: a late wake-up costs nothing, and a pause brings no flood.
pub(super) const SAVED: Duration = Duration::from_secs(1);

/// What a request under a cap has at the most: as much as passes in this time.
const REQUEST: Duration = Duration::from_secs(1);

/// Smaller requests would be headers for the most part.
const REQUEST_BYTES_MIN: u64 = 4 << 10;

#[derive(Debug, Clone)]
pub(super) struct Bandwidth {
    bytes_per_second: f64,
    /// When everything that left is paid for, in seconds of the link's clock.
    paid_at: f64,
}

impl Bandwidth {
    pub(super) fn new(bytes_per_second: u64) -> Self {
        // Zero was refused by the configuration.
        Self { bytes_per_second: bytes_per_second.max(1) as f64, paid_at: 0.0 }
    }

    /// How long the next request has to wait.
    pub(super) fn wait(&self, now: Duration) -> Option<Duration> {
        let wait = self.paid_at - now.as_secs_f64();
        // No timer is finer than this.
        (wait > 0.000_5).then(|| Duration::try_from_secs_f64(wait).unwrap_or(Duration::MAX))
    }

    pub(super) fn sent(&mut self, bytes: u64, now: Duration) {
        self.paid_at = self.paid_at.max(now.as_secs_f64() - SAVED.as_secs_f64()) + bytes as f64 / self.bytes_per_second;
    }

    /// There were more bytes than was thought, or fewer.
    pub(super) fn correct(&mut self, bytes: i64) {
        self.paid_at += bytes as f64 / self.bytes_per_second;
    }
}

/// How large requests may be under a cap, so that it is kept over seconds.
pub(super) fn request_bytes(bytes_per_second: u64) -> u64 {
    bytes_per_second.saturating_mul(REQUEST.as_secs()).max(REQUEST_BYTES_MIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn bytes_are_paid_for_before_the_next_ones_leave() {
        let mut cap = Bandwidth::new(1000);
        assert_eq!(cap.wait(SECOND), None);
        cap.sent(3000, SECOND);
        assert_eq!(cap.wait(SECOND), Some(2 * SECOND), "a second was saved up");
        cap.correct(-500);
        assert_eq!(cap.wait(SECOND), Some(Duration::from_millis(1500)));
        cap.correct(1000);
        assert_eq!(cap.wait(3 * SECOND), Some(Duration::from_millis(500)));
        assert_eq!(cap.wait(4 * SECOND), None);
    }

    #[test]
    fn a_pause_brings_no_flood() {
        let mut cap = Bandwidth::new(1000);
        let night = Duration::from_secs(30_000);
        let mut sent = 0;
        while cap.wait(night).is_none() {
            cap.sent(100, night);
            sent += 100;
        }
        assert!(sent <= 1100, "{sent}");
    }
}
