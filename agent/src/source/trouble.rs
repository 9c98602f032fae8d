//! Trouble of a source: counted, told once per episode, and shown in status.

use std::{fmt, future::Future, time::Duration};

use tokio::time::sleep;
use tracing::warn;

use super::{
    SourceContext,
    reconnect::{Reconnect, Trouble},
};
use crate::{framing::BadFrame, ingest::Origin};

/// The longest pause before a listener is asked for again: whoever frees its address should not wait long for us.
const LISTEN_AGAIN_MAX: Duration = Duration::from_secs(10);

impl SourceContext {
    /// Counts something that was not taken, or not as it came, and tells of it if an episode begins.
    pub(super) fn trouble(&self, reason: &'static str, detail: fmt::Arguments<'_>) {
        if self.stats.refused(reason) {
            warn!(source = &*self.name, reason, "{detail}");
            self.stats.failed(detail.to_string());
        }
    }

    /// The same for something that was no whole frame.
    pub(super) fn bad_frame(&self, bad: BadFrame, named: &[(&'static str, &str)]) {
        self.trouble(bad.reason(), format_args!("{bad}; from {}", Origin::new(&self.name, named)));
    }

    /// What the system gives, which is asked for again until it does; `None` if the source is stopped before.
    pub(super) async fn until_given<T, F: Future<Output = anyhow::Result<T>>>(
        &self,
        reason: &'static str,
        first: anyhow::Result<T>,
        ask: impl Fn() -> F,
    ) -> Option<T> {
        let mut reconnect = Reconnect::new(LISTEN_AGAIN_MAX);
        let mut outcome = first;
        loop {
            match outcome {
                Ok(given) => return Some(given),
                Err(error) => self.trouble(reason, format_args!("{error:#}; it is tried again")),
            }
            let pause = reconnect.pause(Trouble::Passing, Duration::ZERO, 0.5 + fastrand::f64() / 2.0);
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return None,
                () = sleep(pause) => outcome = ask().await,
            }
        }
    }
}
