//! How fast one connection may send: what came over its limit is paid for by not reading for a while. Pure.

use std::time::Duration;

use forebay_log_store::{RateLimit, RateLimiter};

/// One connection's limit, and what it owes. Times are since the connection began.
pub(super) struct Pace {
    limiter: RateLimiter,
    packets: u32,
    bytes: u64,
}

impl Pace {
    pub(super) fn new(limit: RateLimit) -> Self {
        Self { limiter: RateLimiter::new(limit, Duration::ZERO), packets: 0, bytes: 0 }
    }

    /// This much came.
    pub(super) fn on_read(&mut self, packets: u32, bytes: u64) {
        self.packets = self.packets.saturating_add(packets);
        self.bytes = self.bytes.saturating_add(bytes);
    }

    /// How long not to read, if what came is not paid for yet.
    pub(super) fn wait(&mut self, now: Duration) -> Option<Duration> {
        if self.packets == 0 && self.bytes == 0 {
            return None;
        }
        match self.limiter.admit(self.packets, self.bytes, now) {
            Ok(()) => {
                (self.packets, self.bytes) = (0, 0);
                None
            }
            Err(wait) => Some(wait),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_read_at_its_limit() {
        let mut pace = Pace::new(RateLimit { records_per_second: 10, bytes_per_second: 1000 });
        assert_eq!(pace.wait(Duration::ZERO), None);
        let (mut now, mut packets) = (Duration::ZERO, 0);
        while now < Duration::from_secs(20) {
            match pace.wait(now) {
                Some(wait) => now += wait,
                None => {
                    // What one read brings may be more than a second's worth.
                    pace.on_read(30, 600);
                    packets += 30;
                }
            }
        }
        assert!((190..=260).contains(&packets), "{packets} packets in 20 s");
    }

    #[test]
    fn whoever_keeps_to_it_never_waits() {
        let mut pace = Pace::new(RateLimit { records_per_second: 10, bytes_per_second: 1000 });
        for tenth in 0..1000 {
            pace.on_read(1, 100);
            assert_eq!(pace.wait(Duration::from_millis(tenth * 101)), None);
        }
    }
}
