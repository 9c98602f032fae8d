//! Trouble with a device, as a source goes through it: the same again and again is told once, and pauses grow.

use std::time::Duration;

use tokio::time::Instant;
use tracing::{debug, warn};

use super::{
    SourceContext,
    reconnect::{Reconnect, Trouble},
};

/// What went wrong since the device last worked.
pub(super) struct Retry {
    reconnect: Reconnect,
    /// What was told last.
    told: String,
    /// Since when the device works.
    since: Option<Instant>,
}

impl Retry {
    pub(super) fn new(max_backoff: Duration) -> Self {
        Self { reconnect: Reconnect::new(max_backoff), told: String::new(), since: None }
    }

    /// The device works; the next trouble is a new one.
    pub(super) fn works(&mut self, now: Instant) {
        self.told.clear();
        self.since.get_or_insert(now);
    }

    /// Tells what went wrong, if it is something else than before, and gives the pause until the next attempt.
    pub(super) fn failed(
        &mut self,
        context: &SourceContext,
        trouble: Trouble,
        error: &anyhow::Error,
        now: Instant,
    ) -> Duration {
        let lived = self.since.take().map_or(Duration::ZERO, |since| now.duration_since(since));
        let pause = self.reconnect.pause(trouble, lived, fastrand::f64());
        let (source, error) = (&*context.name, format!("{error:#}"));
        context.stats.failed(&*error);
        if self.told == error {
            debug!(source, error, ?pause, "still no device");
        } else {
            warn!(source, error, ?pause, "no device");
            self.told = error;
        }
        pause
    }
}
