//! `forebay log`: looks into the files of a log, and mends them.
//!
//! All but `repair` only read, and work beside a running agent. Exit codes: 0, all is sound; 3, something is damaged or
//! missing and stays so; 1, the command could not do its work; 2, the command line is wrong; 78, the configuration is.

mod dump;
mod repair;
mod stats;
mod verify;

use std::ops::RangeInclusive;

use forebay_log_store::SequenceNumber;

/// The command has done its work and has said what is wrong with the log: nothing is left to print.
#[derive(Debug, thiserror::Error)]
#[error("find the log sound")]
pub(super) struct Unsound;

impl Unsound {
    /// As grep, diff and fsck do, with a code of its own.
    pub(super) const EXIT: u8 = 3;
}

/// What to do with the files.
#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Read every block of every stream and say what is damaged
    #[command(
        after_help = "Exit codes: 0 all is sound, 3 something is damaged or missing, 1 it could not be looked at."
    )]
    Verify(verify::Args),
    /// Take out what is damaged, while the agent is stopped; what is changed is kept beside it
    #[command(after_help = "Exit codes: 0 all is sound now, 3 something is left that cannot be mended, 1 it failed.")]
    Repair(repair::Args),
    /// Print blocks and records as they lie in the files
    Dump(dump::Args),
    /// Count what the files hold: records, bytes, sizes, shards
    Stats(stats::Args),
}

impl Command {
    pub(super) fn run(self) -> anyhow::Result<()> {
        match self {
            Self::Verify(args) => args.run(),
            Self::Repair(args) => args.run(),
            Self::Dump(args) => args.run(),
            Self::Stats(args) => args.run(),
        }
    }
}

fn count_of(range: &RangeInclusive<SequenceNumber>) -> u64 {
    (range.end().0 + 1).saturating_sub(range.start().0)
}

fn pair(range: &RangeInclusive<SequenceNumber>) -> [u64; 2] {
    [range.start().0, range.end().0]
}

/// `1 record`, `2 records`.
fn counted(count: u64, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}
