//! How much is asked of the link at once: bytes in a request and requests in flight, within what is configured.
//!
//! A request that is too large for a slow link never gets through before its timeout, however often it is sent; so what
//! takes long makes requests smaller, and what is answered quickly lets them grow again. Pure.

use std::time::Duration;

/// What a record's encoding adds to its bytes, roughly: names, quotes, and the endpoint's answer.
pub(crate) const RECORD_OVERHEAD: u64 = 128;

/// The first request of all: sent in seconds even at 100 kbit/s, and four doublings from the largest.
const FIRST_BYTES: u64 = 128 * 1024;

/// Smaller requests would be headers for the most part.
const BYTES_MIN: u64 = 2 * 1024;

/// A failure that took longer than this was no refusal, but a link that carries little or nothing.
const SLOW: Duration = Duration::from_secs(2);

#[derive(Debug)]
pub(super) struct Pace {
    /// Bytes of a request, each record with its [`RECORD_OVERHEAD`].
    pub(super) bytes: u64,
    /// Requests in flight.
    pub(super) requests: usize,
    bytes_max: u64,
    requests_max: usize,
    timeout: Duration,
    /// How long an answer takes, smoothed.
    pub(super) typical: Duration,
}

impl Pace {
    pub(super) fn new(bytes_max: u64, requests_max: usize, timeout: Duration) -> Self {
        let bytes = FIRST_BYTES.min(bytes_max);
        Self { bytes, requests: 1, bytes_max, requests_max, timeout, typical: Duration::ZERO }
    }

    /// A request of `bytes` was answered after `took`.
    pub(super) fn answered(&mut self, bytes: u64, took: Duration) {
        self.typical = (self.typical * 7 + took) / 8;
        if took > self.timeout / 2 {
            self.bytes = (bytes / 2).max(BYTES_MIN).min(self.bytes);
            self.requests = (self.requests / 2).max(1);
        } else if took <= self.timeout / 8 {
            // Both together quadruple at the most what is under way, so that this growth alone times nothing out.
            self.requests = (self.requests + 1).min(self.requests_max);
            // Only a request that used what it was given shows that more would do.
            if bytes > self.bytes / 2 {
                self.bytes = (self.bytes * 2).min(self.bytes_max);
            }
        }
    }

    /// A request of `bytes` got no answer within `took`.
    pub(super) fn unanswered(&mut self, bytes: u64, took: Duration) {
        if took >= SLOW.min(self.timeout / 2) {
            self.bytes = (bytes / 2).max(BYTES_MIN).min(self.bytes);
            self.requests = 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(30);
    const MIB: u64 = 1 << 20;

    /// What a link of so many bytes per second makes of a pace, with every request as large as it may be.
    fn on_a_link(bytes_per_second: u64, rounds: usize) -> (Pace, usize) {
        let mut pace = Pace::new(2 * MIB, 8, TIMEOUT);
        let mut failed_at_last = 0;
        for _ in 0..rounds {
            let (bytes, requests) = (pace.bytes, pace.requests as u64);
            let took = Duration::from_secs_f64((bytes * requests) as f64 / bytes_per_second as f64);
            failed_at_last = 0;
            for _ in 0..requests {
                if took > TIMEOUT {
                    pace.unanswered(bytes, TIMEOUT);
                    failed_at_last += 1;
                } else {
                    pace.answered(bytes, took);
                }
            }
        }
        (pace, failed_at_last)
    }

    #[test]
    fn a_fast_link_is_used_fully_after_a_few_answers() {
        let (pace, failed) = on_a_link(100 * MIB, 5);
        assert_eq!((pace.bytes, pace.requests, failed), (2 * MIB, 8, 0));
    }

    #[test]
    fn a_slow_link_gets_requests_that_it_can_carry() {
        for bytes_per_second in [500, 2_500, 12_500, 125_000, 1_000_000] {
            let (pace, failed) = on_a_link(bytes_per_second, 100);
            assert_eq!(failed, 0, "{bytes_per_second} bytes/s: {pace:?}");
        }
    }

    #[test]
    fn an_endpoint_that_refuses_at_once_makes_no_request_smaller() {
        let (mut pace, _) = on_a_link(100 * MIB, 5);
        pace.unanswered(2 * MIB, Duration::from_millis(5));
        assert_eq!((pace.bytes, pace.requests), (2 * MIB, 8));
    }
}
