//! What systemd is told, when it started us and gave us its socket: ready, stopping, and that we are alive.
//!
//! Alive means that the log's committer is: an agent that answers but stores nothing should be started again.

use std::{sync::Arc, time::Duration};

use forebay_log_store::Store;
use sd_notify::NotifyState;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

/// Without a watchdog, only stopping is waited for.
const NEVER: Duration = Duration::from_secs(365 * 24 * 3600);

/// Tells that everything has begun.
pub fn ready() {
    tell(&[NotifyState::Ready]);
}

/// Tells when stopping begins, and that we are alive until `end`.
///
/// # Errors
/// None.
pub async fn watch(store: Arc<Store>, stopping: CancellationToken, end: CancellationToken) -> anyhow::Result<()> {
    // Twice as often as is demanded, as systemd's manual recommends.
    let every = sd_notify::watchdog_enabled().map_or(NEVER, |limit| limit / 2);
    let mut beat = tokio::time::interval(every.max(Duration::from_millis(1)));
    let mut told = false;
    loop {
        tokio::select! {
            () = end.cancelled() => return Ok(()),
            () = stopping.cancelled(), if !told => {
                told = true;
                info!("stopping");
                tell(&[NotifyState::Stopping]);
            }
            _ = beat.tick() => {
                if store.is_alive() {
                    tell(&[NotifyState::Watchdog]);
                } else {
                    error!("the log's committer has ended, which is a defect of forebay; the watchdog is left to act");
                }
            }
        }
    }
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        warn!(%error, "the service manager could not be told");
    }
}
