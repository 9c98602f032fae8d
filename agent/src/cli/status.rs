//! `forebay status`: what the running agent does.

use std::{
    io::IsTerminal as _,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use super::{ConfigFile, block_on, client::ApiAddress, output::Output};
use crate::status::{Status, render_table};

/// Puts the cursor to the upper left and clears the terminal.
const CLEAR: &str = "\x1b[H\x1b[2J";

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    config: ConfigFile,
    #[command(flatten)]
    api: ApiAddress,
    /// Print JSON, for scripts
    #[arg(long)]
    json: bool,
    /// Ask again every second, until Ctrl-C
    #[arg(long)]
    watch: bool,
}

impl Args {
    pub(super) fn run(self) -> anyhow::Result<()> {
        block_on(async {
            let client = self.api.client(&self.config)?;
            let clears = self.watch && !self.json && std::io::stdout().is_terminal();
            let mut output = Output::new();
            loop {
                let status: Status = client.get("/status").await?;
                if clears {
                    output.text(CLEAR)?;
                }
                if self.json {
                    output.line(&serde_json::to_string(&status)?)?;
                } else {
                    output.text(&render_table(&status, now_ms()))?;
                }
                output.flush()?;
                if !self.watch {
                    return Ok(());
                }
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        })
    }
}

#[expect(clippy::disallowed_methods, reason = "to show how old an error is, which has the machine's time too")]
fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
