//! `forebay demo`: see [`crate::demo`].

use super::block_on;
use crate::demo;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    demo: demo::Args,
}

impl Args {
    pub(super) fn run(self) -> anyhow::Result<()> {
        block_on(demo::run(self.demo))
    }
}
