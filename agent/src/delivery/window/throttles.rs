//! How fast the lanes go that the destination throttles, each at its own rate: a little faster with every parcel that is
//! taken, a good deal slower with every one that is not. So a hot shard is neither hammered nor left idle, and no other
//! lane waits for it. What was throttled however slow it went is as fast as before once a parcel is taken.
//! Only where records share parcels: else a lane is a key, and each record has its own backoff. Pure.

use std::{collections::HashMap, hash::BuildHasherDefault, time::Duration};

use super::lanes::AsItIs;

/// A rate that was too much becomes this share of it.
const SLOWER: f64 = 0.7;

/// What a parcel that was taken adds to the rate, as a share of its bytes.
const FASTER: f64 = 0.05;

/// What a lane is given after its first parcel that was throttled: that parcel again in this time.
const FIRST_WAIT: Duration = Duration::from_millis(250);

/// No parcel waits for longer for the sake of a rate, whatever is configured.
const WAIT_MAX: Duration = Duration::from_secs(5);

/// A lane whose parcels would have to wait for less than this is not held back any more.
const WAIT_MIN: Duration = Duration::from_millis(5);

/// A lane that might have gone for so long, and did not, is forgotten.
const IDLE: Duration = WAIT_MAX;

/// With fewer lanes than this, nobody looks for idle ones.
const SWEEP_MIN: usize = 1000;

#[derive(Debug)]
pub(super) struct Throttles {
    /// No parcel waits for longer.
    wait_max: Duration,
    lanes: HashMap<u64, Throttle, BuildHasherDefault<AsItIs>>,
    /// How many were not idle when that was looked at last.
    swept: usize,
}

#[derive(Debug)]
struct Throttle {
    bytes_per_second: f64,
    /// Nothing leaves before this.
    not_before: Duration,
    /// Since a parcel was throttled, and none taken.
    row: Option<Row>,
}

/// Parcels that were throttled with none taken in between.
#[derive(Debug)]
struct Row {
    /// The rate after the first of them.
    bytes_per_second: f64,
    /// When the newest was.
    newest: Duration,
    /// Whether one had waited as long as any may: then it was not the rate that was too much.
    whatever_rate: bool,
}

impl Throttle {
    fn is_idle(&self, now: Duration) -> bool {
        now > self.not_before + IDLE
    }

    fn wait(&self, bytes: u64, wait_max: Duration) -> Duration {
        Duration::try_from_secs_f64(bytes as f64 / self.bytes_per_second).unwrap_or(wait_max).min(wait_max)
    }
}

impl Throttles {
    /// No parcel is to wait for longer than `max_backoff`.
    pub(super) fn new(max_backoff: Duration) -> Self {
        Self { wait_max: max_backoff.min(WAIT_MAX), lanes: HashMap::default(), swept: 0 }
    }

    /// A parcel of so many bytes is to leave: until when it has to wait, if so. Else its share of the rate is used.
    pub(super) fn pass(&mut self, lane: u64, bytes: u64, now: Duration) -> Option<Duration> {
        let throttle = self.lanes.get_mut(&lane)?;
        if now < throttle.not_before {
            return Some(throttle.not_before);
        }
        if throttle.is_idle(now) {
            self.lanes.remove(&lane);
            return None;
        }
        throttle.not_before = now + throttle.wait(bytes, self.wait_max);
        None
    }

    /// A parcel that left at `sent` was taken.
    pub(super) fn accepted(&mut self, lane: u64, bytes: u64, sent: Duration) {
        let Some(throttle) = self.lanes.get_mut(&lane) else { return };
        if let Some(row) = throttle.row.take_if(|row| row.newest <= sent)
            && row.whatever_rate
        {
            throttle.bytes_per_second = row.bytes_per_second;
            throttle.not_before = sent;
        }
        throttle.bytes_per_second += bytes as f64 * FASTER;
        let wait = throttle.wait(bytes, self.wait_max);
        throttle.not_before = throttle.not_before.max(sent + wait);
        if wait < WAIT_MIN {
            self.lanes.remove(&lane);
        }
    }

    /// A parcel was too much. Returns when it may leave again.
    pub(super) fn throttled(&mut self, lane: u64, bytes: u64, now: Duration) -> Duration {
        if self.lanes.len() >= SWEEP_MIN.max(self.swept * 2) {
            self.lanes.retain(|_, throttle| !throttle.is_idle(now));
            self.swept = self.lanes.len();
        }
        let wait_max = self.wait_max;
        let first = bytes.max(1) as f64 / FIRST_WAIT.as_secs_f64() / SLOWER;
        let throttle = self.lanes.entry(lane).or_insert(Throttle {
            bytes_per_second: first,
            not_before: Duration::ZERO,
            row: None,
        });
        let slowest = bytes as f64 / wait_max.as_secs_f64();
        let whatever_rate = throttle.bytes_per_second <= slowest;
        throttle.bytes_per_second = (throttle.bytes_per_second * SLOWER).max(slowest);
        let bytes_per_second = throttle.bytes_per_second;
        let row = throttle.row.get_or_insert(Row { bytes_per_second, newest: now, whatever_rate });
        row.newest = now;
        row.whatever_rate |= whatever_rate;
        throttle.not_before = now + throttle.wait(bytes, wait_max);
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
        let (mut throttles, mut now) = (Throttles::new(WAIT_MAX), Duration::ZERO);
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
        let mut throttles = Throttles::new(WAIT_MAX);
        throttles.throttled(1, 1000, Duration::ZERO);
        assert_eq!(throttles.pass(2, 1000, Duration::ZERO), None);
        assert!(throttles.pass(1, 1000, Duration::ZERO).is_some());
    }

    /// However often it is throttled: it is the destination's limit that may end at any time.
    #[test]
    fn no_parcel_waits_for_longer_than_the_longest_backoff() {
        for (max_backoff, longest) in [(500, 500), (30_000, 5000)] {
            let mut throttles = Throttles::new(Duration::from_millis(max_backoff));
            let waits = (0..50).map(|_| throttles.throttled(1, 1000, Duration::ZERO));
            assert_eq!(waits.max(), Some(Duration::from_millis(longest)));
            assert!(throttles.pass(1, 1_000_000, WAIT_MAX).is_none());
            assert_eq!(throttles.pass(1, 1, WAIT_MAX), Some(WAIT_MAX + Duration::from_millis(longest)));
        }
    }

    #[test]
    fn a_shard_that_takes_parcels_again_gets_them_as_fast_as_before() {
        let (mut throttles, mut now) = (Throttles::new(WAIT_MAX), Duration::ZERO);
        let first = throttles.throttled(1, 1000, now);
        now = first;
        for _ in 0..100 {
            assert_eq!(throttles.pass(1, 1000, now), None);
            now = throttles.throttled(1, 1000, now);
        }
        // One that was under way when others were throttled says nothing about what came of that.
        throttles.accepted(1, 1000, Duration::ZERO);
        assert_eq!(throttles.pass(1, 1000, now), None);
        throttles.accepted(1, 1000, now);
        assert!(throttles.pass(1, 1000, now).is_some_and(|until| until - now <= first));
    }

    #[test]
    fn a_lane_that_does_nothing_is_forgotten() {
        let mut throttles = Throttles::new(WAIT_MAX);
        // One after the other, and never again: as keys come and go.
        for lane in 0..100_000 {
            throttles.throttled(lane, 1000, Duration::from_millis(10 * lane));
        }
        assert!(throttles.lanes.len() <= 2 * SWEEP_MIN, "{}", throttles.lanes.len());
        let until = throttles.throttled(7, 1000, Duration::from_secs(2000));
        assert_eq!(throttles.pass(7, 1000, until + IDLE + LATENCY), None);
        assert!(!throttles.lanes.contains_key(&7));
    }

    #[test]
    fn lanes_that_are_all_throttled_are_all_remembered() {
        let mut throttles = Throttles::new(WAIT_MAX);
        for lane in 0..5000 {
            throttles.throttled(lane, 1000, Duration::ZERO);
        }
        assert!((0..5000).all(|lane| throttles.pass(lane, 1000, Duration::ZERO).is_some()));
    }

    #[test]
    fn what_was_throttled_once_goes_at_full_speed_again() {
        let mut throttles = Throttles::new(WAIT_MAX);
        let mut now = throttles.throttled(1, 1000, Duration::ZERO);
        for _ in 0..4000 {
            now = throttles.pass(1, 1000, now).unwrap_or(now + LATENCY);
            throttles.accepted(1, 1000, now);
        }
        assert!(throttles.lanes.is_empty());
    }
}
