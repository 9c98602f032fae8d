//! Watches the ends of our own certificates: told at the start and once a day, a month ahead and after.

use std::{path::PathBuf, sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use super::{
    certificate::{Period, Standing},
    time::KnownTime,
};

const EVERY: Duration = Duration::from_secs(24 * 3600);

/// Watches the certificates that destinations use, until `stop` is cancelled.
///
/// # Errors
/// None: a file that cannot be read is told, and read again.
pub async fn run(
    certificates: Vec<(String, PathBuf)>,
    time: Arc<KnownTime>,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let mut every_day = tokio::time::interval(EVERY);
    loop {
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            _ = every_day.tick() => certificates.iter().for_each(|(of, file)| look(of, file.clone(), &time)),
        }
    }
}

fn look(destination: &str, file: PathBuf, time: &KnownTime) {
    let (shown, now) = (file.display(), time.now());
    // Who does not know the time does not know this either, but may be right.
    let doubt = if time.is_known() { "" } else { ", by a clock that nobody vouches for" };
    match Period::of_file(&file) {
        Err(error) => error!(destination, error, "cannot read our own certificate"),
        Ok(period) => {
            let Some(trouble) = period.trouble(now) else { return };
            match period.standing(now) {
                Standing::Expiring => warn!(destination, "certificate {shown} {trouble}{doubt}"),
                _ => error!(destination, "certificate {shown} {trouble}{doubt}"),
            }
        }
    }
}
