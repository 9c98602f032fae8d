//! Rate limits, of a shard or whatever else: two token buckets, decided without a clock of their own.

use std::time::Duration;

use crate::config::RateLimit;

/// Room for one second's worth; a call larger than that is let through on an empty account, which then has to recover.
#[derive(Debug, Clone)]
pub struct RateLimiter {
    limit: RateLimit,
    records: f64,
    bytes: f64,
    last: Duration,
}

impl RateLimiter {
    /// Full buckets at `now` (any monotonic time).
    #[must_use]
    pub fn new(limit: RateLimit, now: Duration) -> Self {
        Self { limit, records: f64::from(limit.records_per_second), bytes: limit.bytes_per_second as f64, last: now }
    }

    /// Takes this much.
    ///
    /// # Errors
    /// How long to wait before asking again; nothing was taken.
    pub fn admit(&mut self, records: u32, bytes: u64, now: Duration) -> Result<(), Duration> {
        let (record_rate, byte_rate) = (f64::from(self.limit.records_per_second), self.limit.bytes_per_second as f64);
        let passed = now.saturating_sub(self.last).as_secs_f64();
        self.last = self.last.max(now);
        self.records = (self.records + passed * record_rate).min(record_rate);
        self.bytes = (self.bytes + passed * byte_rate).min(byte_rate);
        let (records, bytes) = (f64::from(records), bytes as f64);
        let missing = |has: f64, wants: f64, rate: f64| (wants.min(rate) - has).max(0.0) / rate;
        let wait = missing(self.records, records, record_rate).max(missing(self.bytes, bytes, byte_rate));
        if wait > 1e-9 {
            // A limit of next to nothing must not overflow.
            return Err(Duration::try_from_secs_f64(wait)
                .unwrap_or(Duration::from_secs(3600))
                .max(Duration::from_millis(1)));
        }
        self.records -= records;
        self.bytes -= bytes;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_second_brings_a_seconds_worth() {
        let mut limiter = RateLimiter::new(RateLimit::KINESIS, Duration::ZERO);
        for _ in 0..1000 {
            limiter.admit(1, 100, Duration::ZERO).expect("within the limit");
        }
        let wait = limiter.admit(1, 100, Duration::ZERO).expect_err("the second is used up");
        assert!(wait <= Duration::from_millis(2), "{wait:?}");
        limiter.admit(1, 100, wait).expect("after the wait");
    }

    #[test]
    fn a_call_larger_than_the_bucket_passes_and_is_paid_for() {
        let mut limiter = RateLimiter::new(RateLimit::KINESIS, Duration::ZERO);
        limiter.admit(1, 3_000_000, Duration::ZERO).expect("a full account");
        let wait = limiter.admit(1, 1, Duration::ZERO).expect_err("it is in debt");
        assert!(wait > Duration::from_secs(1), "{wait:?}");
    }

    proptest! {
        #[test]
        fn never_more_than_the_rate_plus_one_burst(calls in proptest::collection::vec((1u32..200, 0u64..5000), 1..200)) {
            let mut limiter = RateLimiter::new(RateLimit::KINESIS, Duration::ZERO);
            let (mut now, mut total) = (Duration::ZERO, 0u64);
            for (records, millis) in calls {
                now += Duration::from_micros(millis * 10);
                if limiter.admit(records, 0, now).is_ok() {
                    total += u64::from(records);
                }
            }
            prop_assert!(total as f64 <= 1000.0 + 1000.0 * now.as_secs_f64() + 1.0);
        }
    }
}
