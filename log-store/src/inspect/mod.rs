//! Looking at a data directory from outside, and mending what is damaged in it.
//!
//! [`verify`] reads everything through, [`stats`] counts what is there, [`dump`] shows blocks and records. They only read,
//! take no lock, need no catalogue and change nothing, so they work beside a running agent; then the end of the newest
//! segment may look torn, because a block is just being written, and segments may be dropped while they are read, which is
//! no finding. [`repair`] needs the directory for itself.

mod dump;
mod files;
mod repair;
mod stats;
mod verify;
mod walk;

use std::{
    fmt,
    io::{self, ErrorKind},
    ops::RangeInclusive,
    path::{Path, PathBuf},
};

#[cfg(test)]
pub(crate) use self::{dump::dump_on, repair::repair_on, stats::stats_on, verify::verify_on};
pub use self::{
    dump::{Dumped, DumpedBoot, DumpedControl, dump},
    repair::{Mended, RepairReport, repair},
    stats::{CodecStats, ShardCounts, StreamCounts, stats},
    verify::{Depth, FINDINGS_MAX, Report, StreamReport, verify},
};
use crate::{
    disk::Disk,
    error::Error,
    sequence::SequenceNumber,
    stream::{is_stream_name, stream_dir},
};

/// What kind of finding it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FindingKind {
    /// Bytes that are not what was written.
    Damage,
    /// Sequence numbers of which there is nothing at all.
    Gap,
    /// The end of the newest segment: a commit that was not finished, or that is being written at this moment.
    TornTail,
    /// What a failed commit left at the end of an older segment. Nothing in it was acknowledged, and readers ignore it.
    Unfinished,
    /// It cannot be read: of a newer format, or the disk refuses.
    Unreadable,
}

impl FindingKind {
    /// Whether it may cost records.
    #[must_use]
    pub fn is_loss(self) -> bool {
        matches!(self, Self::Damage | Self::Gap | Self::Unreadable)
    }
}

impl fmt::Display for FindingKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Damage => "damage",
            Self::Gap => "gap",
            Self::TornTail => "torn tail",
            Self::Unfinished => "unfinished commit",
            Self::Unreadable => "unreadable",
        })
    }
}

/// A place where something is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Its kind.
    pub kind: FindingKind,
    /// The segment.
    pub file: PathBuf,
    /// Where in it, in bytes.
    pub offset: u64,
    /// What does not fit.
    pub what: String,
    /// The records concerned, as far as it can be told.
    pub records: Option<RangeInclusive<SequenceNumber>>,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} at byte {}: {}", self.kind, self.file.display(), self.offset, self.what)?;
        match &self.records {
            Some(range) => write!(f, " (records {} to {})", range.start(), range.end()),
            None => Ok(()),
        }
    }
}

/// The streams of a data directory, by name; or the one that is wanted, which must be there.
fn stream_names(disk: &dyn Disk, data_dir: &Path, wanted: Option<&str>) -> Result<Vec<String>, Error> {
    let listed = disk.list(&data_dir.join("streams")).map_err(|source| {
        let is_there = !matches!(disk.list(data_dir), Err(error) if error.kind() == ErrorKind::NotFound);
        let source = match source.kind() {
            ErrorKind::NotFound if !is_there => {
                io::Error::new(source.kind(), "it does not exist: no log was ever opened there")
            }
            ErrorKind::NotFound | ErrorKind::NotADirectory => {
                io::Error::new(source.kind(), "it is no data directory: it has no directory `streams`")
            }
            _ => source,
        };
        io_error("read data directory", data_dir, source)
    });
    let mut names = listed?;
    names.retain(|name| is_stream_name(name) && wanted.is_none_or(|wanted| wanted == name));
    // What is no directory is no stream. One that cannot be read is.
    names.retain(|name| {
        let listed = disk.list(&stream_dir(data_dir, name)).map_err(|error| error.kind());
        !matches!(listed, Err(ErrorKind::NotADirectory | ErrorKind::NotFound))
    });
    names.sort();
    match wanted {
        Some(wanted) if names.is_empty() => {
            let source = io::Error::new(ErrorKind::NotFound, "there is no such stream");
            Err(io_error("find stream", &stream_dir(data_dir, wanted), source))
        }
        _ => Ok(names),
    }
}

fn io_error(action: &'static str, path: &Path, source: io::Error) -> Error {
    Error::Io { action, path: path.into(), source }
}
