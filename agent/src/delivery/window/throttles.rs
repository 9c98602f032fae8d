//! How fast the lanes go that the destination throttles, each at its own rate: a little faster with every parcel that is
//! taken, a good deal slower with every one that is not. So a hot shard is neither hammered nor left idle, and no other
//! lane waits for it. Only where records share parcels: else a lane is a key, and each record has its own backoff. Pure.

use std::{collections::HashMap, hash::BuildHasherDefault, time::Duration};

use super::lanes::AsItIs;

/// A rate that was too much becomes this share of it.
const SLOWER: f64 = 0.7;

/// What a parcel that was taken adds to the rate, as a share of its bytes.
const FASTER: f64 = 0.05;

/// What a lane is given after its first parcel that was throttled: that parcel again in this time.
const FIRST_WAIT: Duration = Duration::from_millis(250);

/// No parcel waits for longer.
const WAIT_MAX: Duration = Duration::from_secs(5);

/// A lane whose parcels would have to wait for less than this is not held back any more.
const WAIT_MIN: Duration = Duration::from_millis(5);

#[derive(Debug, Default)]
pub(super) struct Throttles {
    lanes: HashMap<u64, Throttle, BuildHasherDefault<AsItIs>>,
}

#[derive(Debug)]
struct Throttle {
    bytes_per_second: f64,
    /// Nothing leaves before this.
    not_before: Duration,
}

impl Throttle {
    fn wait(&self, bytes: u64) -> Duration {
        Duration::try_from_secs_f64(bytes as f64 / self.bytes_per_second).unwrap_or(WAIT_MAX).min(WAIT_MAX)
    }
}

impl Throttles {
    /// A parcel of so many bytes is to leave: until when it has to wait, if so. Else its share of the rate is used.
    pub(super) fn pass(&mut self, lane: u64, bytes: u64, now: Duration) -> Option<Duration> {
        let throttle = self.lanes.get_mut(&lane)?;
        if now < throttle.not_before {
            return Some(throttle.not_before);
        }
        throttle.not_before = now + throttle.wait(bytes);
        None
    }

    /// A parcel that left at `sent` was taken.
    pub(super) fn accepted(&mut self, lane: u64, bytes: u64, sent: Duration) {
        let Some(throttle) = self.lanes.get_mut(&lane) else { return };
        throttle.bytes_per_second += bytes as f64 * FASTER;
        let wait = throttle.wait(bytes);
        throttle.not_before = throttle.not_before.max(sent + wait);
        if wait < WAIT_MIN {
            self.lanes.remove(&lane);
        }
    }

    /// A parcel was too much. Returns when it may leave again.
    pub(super) fn throttled(&mut self, lane: u64, bytes: u64, now: Duration) -> Duration {
        let first = bytes.max(1) as f64 / FIRST_WAIT.as_secs_f64() / SLOWER;
        let throttle =
            self.lanes.entry(lane).or_insert(Throttle { bytes_per_second: first, not_before: Duration::ZERO });
        throttle.bytes_per_second = (throttle.bytes_per_second * SLOWER).max(bytes as f64 / WAIT_MAX.as_secs_f64());
        throttle.not_before = now + throttle.wait(bytes);
        throttle.not_before
    }

    /// Forgets all of them.
    pub(super) fn clear(&mut self) {
        self.lanes.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LATENCY: Duration = Duration::from_millis(30);

    /// A shard as Kinesis has them: so many bytes a second, of which a second's worth may come at once. A lane that always
    /// has parcels of `parcel` bytes: how many bytes it takes in a minute, and which share of the parcels it throttles.
    fn minute(limit: f64, parcel: u64) -> (f64, f64) {
        let (mut throttles, mut now) = (Throttles::default(), Duration::ZERO);
        let (mut tokens, mut filled) = (limit, Duration::ZERO);
        let (mut taken, mut refused, mut sent) = (0.0, 0.0, 0.0);
        while now < Duration::from_secs(60) {
            if let Some(until) = throttles.pass(7, parcel, now) {
                now = until;
                continue;
            }
            let left = now;
            now += LATENCY;
            tokens = (tokens + limit * (now - filled).as_secs_f64()).min(limit);
            filled = now;
            sent += 1.0;
            if tokens >= parcel as f64 {
                tokens -= parcel as f64;
                taken += parcel as f64;
                throttles.accepted(7, parcel, left);
            } else {
                refused += 1.0;
                now = throttles.throttled(7, parcel, now);
            }
        }
        (taken / 60.0 / limit, refused / sent)
    }

    #[test]
    fn a_hot_shard_is_used_and_not_hammered() {
        for parcel in [100_000, 250_000, 500_000, 900_000] {
            let (used, refused) = minute(1e6, parcel);
            assert!(used > 0.75, "{parcel}: {used:.2} of the shard's limit used");
            assert!(refused < 0.2, "{parcel}: {refused:.2} of the parcels throttled");
        }
    }

    #[test]
    fn a_lane_that_is_never_throttled_never_waits() {
        let mut throttles = Throttles::default();
        throttles.throttled(1, 1000, Duration::ZERO);
        assert_eq!(throttles.pass(2, 1000, Duration::ZERO), None);
        assert!(throttles.pass(1, 1000, Duration::ZERO).is_some());
    }

    #[test]
    fn what_was_throttled_once_goes_at_full_speed_again() {
        let mut throttles = Throttles::default();
        let mut now = throttles.throttled(1, 1000, Duration::ZERO);
        for _ in 0..4000 {
            now = throttles.pass(1, 1000, now).unwrap_or(now + LATENCY);
            throttles.accepted(1, 1000, now);
        }
        assert!(throttles.lanes.is_empty());
    }
}
