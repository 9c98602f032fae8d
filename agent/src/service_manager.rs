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
    beat_until(every, || store.is_alive(), stopping, end, |state| tell(&[state])).await;
    Ok(())
}

async fn beat_until(
    every: Duration,
    is_alive: impl Fn() -> bool,
    stopping: CancellationToken,
    end: CancellationToken,
    mut tell: impl FnMut(NotifyState<'static>),
) {
    let mut beat = tokio::time::interval(every.max(Duration::from_millis(1)));
    let mut told = false;
    loop {
        tokio::select! {
            // Where stopping takes no time, its end is there as soon as its beginning, which is to be told all the same.
            biased;
            () = stopping.cancelled(), if !told => {
                told = true;
                info!("stopping");
                tell(NotifyState::Stopping);
            }
            () = end.cancelled() => return,
            _ = beat.tick() => {
                if is_alive() {
                    tell(NotifyState::Watchdog);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn stopping_is_told_however_little_time_it_takes() {
        for _ in 0..20 {
            let (stopping, end, mut told) = (CancellationToken::new(), CancellationToken::new(), Vec::new());
            stopping.cancel();
            end.cancel();
            beat_until(NEVER, || true, stopping, end, |state| told.push(state)).await;
            assert!(matches!(told[..], [NotifyState::Stopping]), "{told:?}");
        }
    }
}
