//! Credentials that are held, and what is to be done with them now. Pure: times are those of a monotonic clock.

use std::time::Duration;

/// Credentials are got anew when a quarter of their life is left, or so much if that is less.
const AHEAD_MAX: Duration = Duration::from_secs(600);

/// So long after a try that failed there is no other, as long as those that are held still hold.
pub(super) const RETRY: Duration = Duration::from_secs(30);

/// How long credentials hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Life {
    got: Duration,
    /// `None`: nobody said that they expire.
    lifetime: Option<Duration>,
    /// When others are to be got.
    renew: Option<Duration>,
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Due {
    /// Use them.
    Nothing,
    /// Use them, but try to get others first.
    Renewal,
    /// They are of no use any more.
    Replacement,
}

impl Life {
    /// `jitter`, from 0 to 1, keeps many gateways from asking in the same moment.
    pub(super) fn new(got: Duration, lifetime: Option<Duration>, jitter: f64) -> Self {
        let renew = lifetime.map(|lifetime| {
            let ahead = (lifetime / 4).min(AHEAD_MAX);
            got + lifetime.saturating_sub(ahead + ahead.mul_f64(jitter.clamp(0.0, 1.0) / 2.0))
        });
        Self { got, lifetime, renew }
    }

    /// What is to be done at `now`; `failed` is when others were last asked for in vain.
    pub(super) fn due(&self, now: Duration, failed: Option<Duration>) -> Due {
        if self.lifetime.is_some_and(|lifetime| now >= self.got + lifetime) {
            return Due::Replacement;
        }
        let is_time = self.renew.is_some_and(|renew| now >= renew);
        let may_try = failed.is_none_or(|failed| now >= failed + RETRY);
        if is_time && may_try { Due::Renewal } else { Due::Nothing }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn they_are_renewed_before_they_expire() {
        let life = Life::new(seconds(100), Some(seconds(3600)), 0.0);
        assert_eq!(life.due(seconds(3099), None), Due::Nothing);
        assert_eq!(life.due(seconds(3100), None), Due::Renewal);
        assert_eq!(life.due(seconds(3110), Some(seconds(3100))), Due::Nothing, "once in a while is enough");
        assert_eq!(life.due(seconds(3130), Some(seconds(3100))), Due::Renewal);
        assert_eq!(life.due(seconds(3700), Some(seconds(3699))), Due::Replacement);
        assert_eq!(Life::new(seconds(1), None, 0.5).due(seconds(1 << 30), None), Due::Nothing);
    }

    proptest! {
        #[test]
        fn there_is_always_time_to_renew_them(lifetime in 1_u64..100_000, jitter in 0.0..1.0) {
            let life = Life::new(seconds(7), Some(seconds(lifetime)), jitter);
            prop_assert_eq!(life.due(seconds(7), None), Due::Nothing);
            let renew = life.renew.expect("they expire");
            prop_assert!(renew < seconds(7 + lifetime) && renew >= seconds(7) + seconds(lifetime) / 2);
            prop_assert_eq!(life.due(renew, None), Due::Renewal);
            prop_assert_eq!(life.due(seconds(7 + lifetime), None), Due::Replacement);
        }
    }
}
