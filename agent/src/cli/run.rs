//! `forebay run`: the agent, in the foreground.

use std::process;

use anyhow::Context as _;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::ConfigFile;
use crate::{agent, logging};

/// As a shell reports a process that SIGTERM ended.
const EXIT_AT_ONCE: i32 = 128 + 15;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    config: ConfigFile,
}

impl Args {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let config = self.config.load()?;
        logging::init(config.agent.log_level);
        info!(version = env!("CARGO_PKG_VERSION"), config = %self.config.config.display(), "forebay starts");
        let runtime = tokio::runtime::Runtime::new().context("start a runtime")?;
        let outcome = runtime.block_on(async {
            let stop = CancellationToken::new();
            let signals = Signals::new()?;
            tokio::select! {
                outcome = agent::run(config, stop.clone()) => outcome,
                () = signals.obey(stop) => process::exit(EXIT_AT_ONCE),
            }
        });
        // A thread that is stuck in the disk must not keep the process from ending.
        runtime.shutdown_background();
        outcome
    }
}

/// What asks us to stop. SIGHUP too: the terminal is gone.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    fn new() -> anyhow::Result<Self> {
        let listen = |kind| signal(kind).context("listen for signals");
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            hang_up: listen(SignalKind::hangup())?,
        })
    }

    /// The first signal cancels `stop`; returns upon the second.
    async fn obey(mut self, stop: CancellationToken) {
        self.next().await;
        stop.cancel();
        self.next().await;
        warn!("asked again: ending at once");
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
            _ = self.hang_up.recv() => {}
        }
    }
}
