//! The time, as well as it is known: by the log, which knows whether a clock can be trusted, or by a server that we believe.
//!
//! What a server says is kept with the monotonic clock, and forgotten with the process. It decides when credentials expire and
//! what requests are signed with, since it is the server that judges both. Certificates are judged by the log's time where
//! that is trusted, and by the server's where it is not.

use std::{
    fmt,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use forebay_log_store::{ClockStatus, Timestamp};
use rustls::{pki_types::UnixTime, time_provider::TimeProvider};

/// See the module.
pub struct KnownTime {
    log: Box<dyn Fn() -> ClockStatus + Send + Sync>,
    told: Mutex<Option<Told>>,
}

/// What a server said, and when.
#[derive(Debug, Clone, Copy)]
struct Told {
    at: Timestamp,
    heard: Instant,
}

impl KnownTime {
    /// What `log` knows, and nothing else yet.
    #[must_use]
    pub fn new(log: impl Fn() -> ClockStatus + Send + Sync + 'static) -> Self {
        Self { log: Box::new(log), told: Mutex::new(None) }
    }

    /// Whether the machine's own clock, or a receiver's, is trusted.
    #[must_use]
    pub fn is_trusted(&self) -> bool {
        (self.log)().trusted_since.is_some()
    }

    /// A server that we believe said that it is `at` at this moment.
    pub fn learn(&self, at: Timestamp) {
        *self.told.lock().unwrap_or_else(PoisonError::into_inner) = Some(Told { at, heard: Instant::now() });
    }

    /// What certificates are judged by.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        let log = (self.log)();
        match (log.trusted_since, self.told()) {
            (None, Some(told)) => told,
            _ => log.now,
        }
    }

    /// Whether it is more than what a clock shows that nobody vouches for.
    #[must_use]
    pub fn is_known(&self) -> bool {
        self.is_trusted() || self.told().is_some()
    }

    /// What a server thinks that it is, as far as we know.
    #[must_use]
    pub fn of_servers(&self) -> SystemTime {
        let at = self.told().unwrap_or_else(|| (self.log)().now);
        UNIX_EPOCH + Duration::from_millis(at.0)
    }

    fn told(&self) -> Option<Timestamp> {
        let told = *self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.map(|Told { at, heard }| {
            Timestamp(at.0.saturating_add(u64::try_from(heard.elapsed().as_millis()).unwrap_or(u64::MAX)))
        })
    }
}

impl fmt::Debug for KnownTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KnownTime").field("now", &self.now()).finish_non_exhaustive()
    }
}

impl TimeProvider for KnownTime {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_millis(self.now().0)))
    }
}

impl Default for KnownTime {
    /// The machine's clock, which nobody vouches for.
    #[expect(clippy::disallowed_methods, reason = "there is no log that could know better")]
    fn default() -> Self {
        Self::new(|| {
            let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            let now = Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX));
            ClockStatus { now, trusted_since: None, doubted: None }
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    };

    use super::*;

    #[test]
    fn what_is_trusted_comes_before_what_was_told_but_not_for_the_server_itself() {
        let trusted = Arc::new(AtomicBool::new(false));
        let known = KnownTime::new({
            let trusted = Arc::clone(&trusted);
            move || {
                let since = trusted.load(Relaxed).then_some(Timestamp(1));
                ClockStatus { now: Timestamp(5_000), trusted_since: since, doubted: None }
            }
        });
        let year_2026 = Timestamp(1_790_000_000_000);
        let of_servers = || known.of_servers().duration_since(UNIX_EPOCH).expect("after 1970").as_millis();
        assert_eq!((known.now(), of_servers(), known.is_known()), (Timestamp(5_000), 5_000, false));
        known.learn(year_2026);
        assert!(known.now() >= year_2026 && of_servers() >= 1_790_000_000_000 && known.is_known());
        trusted.store(true, Relaxed);
        assert!(known.now() == Timestamp(5_000) && of_servers() >= 1_790_000_000_000);
    }
}
