//! What can go wrong, one variant for each thing that a caller does differently.

use std::{io, path::PathBuf};

use crate::{
    batch::Batch,
    marks::{MARK_NAME_BYTES_MAX, MARK_VALUE_BYTES_MAX, MARKS_MAX},
    sequence::SequenceNumber,
    shard::{ShardError, ShardIndex},
};

/// An error of the log.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The disk refused; the message names the action and the path.
    #[error("{action} {}: {source}", path.display())]
    Io {
        /// Verb and object, such as `open segment`.
        action: &'static str,
        /// What it was done to.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another process has the data directory open.
    #[error("data directory {} is in use by another process", path.display())]
    InUse {
        /// The data directory.
        path: PathBuf,
    },
    /// The data was written by a newer version of forebay.
    #[error("{} has format version {found}, but this program reads up to {known}: use a newer forebay", path.display())]
    NewerFormat {
        /// The file.
        path: PathBuf,
        /// The version in the file.
        found: u16,
        /// The newest version that this program knows.
        known: u16,
    },
    /// Stored bytes are not what was written.
    #[error("{} is damaged at byte {offset}: {what}", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// Where, in bytes from the start of the file.
        offset: u64,
        /// What does not fit.
        what: String,
    },
    /// A partition key must have 1 to 256 characters.
    #[error("a partition key has 1 to 256 characters, not {chars}")]
    BadPartitionKey {
        /// Its length in characters.
        chars: usize,
    },
    /// The record's data is over the limit.
    #[error("a record holds at most {max} bytes, not {bytes}")]
    RecordTooLarge {
        /// Its size in bytes.
        bytes: usize,
        /// The limit in bytes.
        max: usize,
    },
    /// A mark's name has 1 to 256 bytes.
    #[error("a mark's name has 1 to {MARK_NAME_BYTES_MAX} bytes, not {bytes}")]
    BadMarkName {
        /// Its length in bytes.
        bytes: usize,
    },
    /// A mark's value is over the limit.
    #[error("a mark holds at most {MARK_VALUE_BYTES_MAX} bytes, not {bytes}")]
    MarkTooLarge {
        /// Its size in bytes.
        bytes: usize,
    },
    /// The stream would have too many marks, or they would take too much together.
    #[error(
        "stream `{stream}` would have {count} marks of {bytes} bytes; it takes {MARKS_MAX} marks of {bytes_max} bytes together"
    )]
    TooManyMarks {
        /// The stream.
        stream: String,
        /// How many there would be.
        count: usize,
        /// Their names and values in bytes.
        bytes: usize,
        /// The limit in bytes.
        bytes_max: usize,
    },
    /// A stream name has 1 to 128 of `a-z A-Z 0-9 _ . -`.
    #[error("stream name `{name}` must have 1 to 128 characters of a-z A-Z 0-9 _ . - and not begin with a dot")]
    BadStreamName {
        /// The name.
        name: String,
    },
    /// There is no room under the stream's quota, in the data directory or on the disk, and nothing that may go for it.
    #[error("stream `{stream}` is full: {reason}")]
    Full {
        /// The stream.
        stream: String,
        /// Which limit, with figures.
        reason: String,
    },
    /// A write or sync failed earlier; the stream takes no records until it has recovered.
    #[error("stream `{stream}` takes no records after a disk failure: {reason}")]
    Poisoned {
        /// The stream.
        stream: String,
        /// The failure.
        reason: String,
    },
    /// The shards cannot be changed like this.
    #[error("stream `{stream}`: {error}")]
    Shards {
        /// The stream.
        stream: String,
        /// Why.
        error: Box<ShardError>,
    },
    /// The store was closed.
    #[error("the log is closed")]
    Closed,
}

/// A batch that was not stored, given back so that it can be offered again.
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
pub struct Refused {
    /// Why.
    pub error: Error,
    /// The batch, untouched.
    pub batch: Batch,
}

/// What a commit did to a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Appended {
    /// For each shard that the batch touched, in the order of [`Batch::load`]: where its records are. That is in one piece,
    /// unless the stream's shards were changed while the batch was waiting.
    pub runs: Vec<AppendedRun>,
}

/// Where records of a batch are: numbered one after the other from `first`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AppendedRun {
    /// The shard that [`Batch::push`] gave.
    pub of: ShardIndex,
    /// The shard they are in; another one if the stream's shards were changed meanwhile.
    pub shard: ShardIndex,
    /// Number of the first of them.
    pub first: SequenceNumber,
    /// How many there are.
    pub records: u32,
}

impl Appended {
    /// Where each record is, in the order of [`Batch::push`], given the shards which that returned.
    #[must_use]
    pub fn places(&self, pushed: &[ShardIndex]) -> Vec<(ShardIndex, SequenceNumber)> {
        let mut left = self.runs.clone();
        let next = |shard: &ShardIndex| {
            let run = left.iter_mut().find(|run| run.of == *shard && run.records > 0)?;
            let place = (run.shard, run.first);
            (run.first, run.records) = (run.first.next(), run.records - 1);
            Some(place)
        };
        pushed.iter().filter_map(next).collect()
    }
}
