//! `forebay log`: looks into the files of a log, without changing them.

mod dump;
mod verify;

/// What to do with the files.
#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Read every block of every stream and say what is damaged
    Verify(verify::Args),
    /// Print blocks and records as they lie in the files
    Dump(dump::Args),
}

impl Command {
    pub(super) fn run(self) -> anyhow::Result<()> {
        match self {
            Self::Verify(args) => args.run(),
            Self::Dump(args) => args.run(),
        }
    }
}
