//! What a source counts, for status and metrics.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant, SystemTime},
};

/// What is refused again within this time belongs to the same episode, and is counted but not logged.
const EPISODE_QUIET: Duration = Duration::from_secs(60);

/// A source's counters, since the agent's start.
#[derive(Debug, Default)]
pub struct SourceStats {
    /// Connections open now (an MQTT client source has 0 or 1).
    pub connections: AtomicU64,
    /// Records that are durable.
    pub records: AtomicU64,
    /// Their keys and data in bytes.
    pub bytes: AtomicU64,
    /// What was not taken, or not as it came, by reason.
    refused: Mutex<BTreeMap<&'static str, Refusals>>,
    last_error: Mutex<Option<LastError>>,
}

/// What was refused for one reason.
#[derive(Debug)]
struct Refusals {
    count: u64,
    newest: Instant,
}

/// The newest thing that went wrong.
#[derive(Debug, Clone)]
pub struct LastError {
    /// When.
    pub at: SystemTime,
    /// What, as a sentence fragment.
    pub message: String,
}

impl SourceStats {
    /// Counts records that became durable.
    pub fn stored(&self, records: u64, bytes: u64) {
        self.records.fetch_add(records, Relaxed);
        self.bytes.fetch_add(bytes, Relaxed);
    }

    /// Counts something that was not taken, or not as it came: `"oversize"`, `"key-shortened"`, `"malformed"`, ...
    ///
    /// Whether it begins an episode, so that the caller tells of it once and not a thousand times a second: it is the
    /// first for this reason, or the first after a quiet minute.
    pub fn refused(&self, reason: &'static str) -> bool {
        self.refused_many(reason, 1)
    }

    /// The same for so many at once, as when somebody else has counted them.
    pub fn refused_many(&self, reason: &'static str, many: u64) -> bool {
        let now = Instant::now();
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        let refusals = refused.entry(reason).or_insert(Refusals { count: 0, newest: now });
        let begins = refusals.count == 0 || now.duration_since(refusals.newest) >= EPISODE_QUIET;
        *refusals = Refusals { count: refusals.count + many, newest: now };
        begins
    }

    /// Remembers an error for status. Logging it is the caller's business.
    #[expect(clippy::disallowed_methods, reason = "for a person, who compares it with the machine's clock")]
    pub fn failed(&self, message: impl Into<String>) {
        let error = LastError { at: SystemTime::now(), message: message.into() };
        *self.last_error.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
    }

    /// Everything refused so far, by reason.
    #[must_use]
    pub fn refusals(&self) -> BTreeMap<&'static str, u64> {
        let refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        refused.iter().map(|(reason, refusals)| (*reason, refusals.count)).collect()
    }

    /// The newest error.
    #[must_use]
    pub fn last_error(&self) -> Option<LastError> {
        self.last_error.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_episode_is_told_once() {
        let stats = SourceStats::default();
        assert_eq!([stats.refused("a"), stats.refused("a"), stats.refused("b")], [true, false, true]);
        assert_eq!(stats.refusals(), [("a", 2), ("b", 1)].into());
    }
}
