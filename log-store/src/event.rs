//! What a person should hear about: the log does not print, it tells.

use std::{fmt, ops::RangeInclusive, path::PathBuf};

use crate::{clock::Timestamp, sequence::SequenceNumber};

/// Why records left the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DropReason {
    /// Older than the stream's retention.
    Retention,
    /// To make room under the stream's quota or on the disk.
    Quota,
    /// Their bytes were damaged.
    Damage,
}

impl fmt::Display for DropReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Retention => "retention",
            Self::Quota => "quota",
            Self::Damage => "damage",
        })
    }
}

/// Something that happened to the log and that nobody asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// The catalogue could not be used; it was set aside and rebuilt from the segments.
    CatalogueRebuilt {
        /// Where the broken one lies now; `None` if there was none.
        set_aside: Option<PathBuf>,
        /// What was wrong with it.
        reason: String,
    },
    /// The catalogue did not take a change; the log goes on, and the next opening rebuilds what is missing.
    CatalogueBehind {
        /// What failed.
        reason: String,
    },
    /// The end of a segment held bytes of an unfinished commit; nothing in them was acknowledged.
    TailTorn {
        /// The stream.
        stream: String,
        /// The segment.
        segment: PathBuf,
        /// Where it was cut.
        offset: u64,
        /// How many bytes were cut.
        bytes: u64,
        /// Where they were kept.
        kept: Option<PathBuf>,
    },
    /// Damaged bytes in the middle of the log; everything around them is served.
    Damaged {
        /// The stream.
        stream: String,
        /// The segment.
        segment: PathBuf,
        /// Where the damage begins.
        offset: u64,
        /// What does not fit.
        what: String,
        /// The records concerned, as far as it can be told.
        records: Option<RangeInclusive<SequenceNumber>>,
    },
    /// Records were dropped.
    Dropped {
        /// The stream.
        stream: String,
        /// Why.
        reason: DropReason,
        /// Their numbers, and with them those of no record.
        records: RangeInclusive<SequenceNumber>,
        /// How many they are.
        count: u64,
        /// How many of them at least one consumer had not finished.
        undelivered: u64,
        /// The limit of the whole data directory that took them, with figures; `None` if it was the stream's own.
        limit: Option<String>,
    },
    /// The file of a dropped segment could not be removed; the next opening tries again.
    NotRemoved {
        /// The file.
        segment: PathBuf,
        /// What the system said.
        reason: String,
    },
    /// The stream has no room and takes no records.
    Full {
        /// The stream.
        stream: String,
        /// Which limit, with figures.
        reason: String,
    },
    /// There is room again.
    RoomAgain {
        /// The stream.
        stream: String,
    },
    /// A write or sync failed; the stream takes no records until it has recovered.
    Poisoned {
        /// The stream.
        stream: String,
        /// The failure.
        reason: String,
    },
    /// A poisoned stream takes records again.
    Recovered {
        /// The stream.
        stream: String,
    },
    /// The configuration asks for another number of shards than the stream has; the stream keeps its own.
    ShardCountKept {
        /// The stream.
        stream: String,
        /// What it has.
        has: usize,
        /// What was asked for.
        asked: u32,
    },
    /// The wall clock can be trusted from now on: arrival times of this boot's records are known, also of those before.
    ClockTrusted {
        /// What it shows.
        wall: Timestamp,
    },
    /// The wall clock was trusted before and can be trusted, but it was set in between. Arrival times follow it; ages are
    /// reckoned so that nothing expires by it.
    ClockStepped {
        /// What it would show had it not been set.
        from: Timestamp,
        /// What it shows.
        to: Timestamp,
    },
    /// The wall clock claims to be right, but cannot be. It is not believed.
    ClockDoubted {
        /// What it shows.
        wall: Timestamp,
        /// By what was trusted before it is at least this late.
        at_least: Timestamp,
    },
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CatalogueRebuilt { set_aside: Some(path), reason } => {
                write!(
                    f,
                    "the catalogue was rebuilt from the segments ({reason}); the broken one is {}",
                    path.display()
                )
            }
            Self::CatalogueRebuilt { set_aside: None, reason } => {
                write!(f, "the catalogue was rebuilt from the segments ({reason})")
            }
            Self::CatalogueBehind { reason } => {
                write!(f, "the catalogue did not take a change: {reason}")
            }
            Self::TailTorn { stream, segment, offset, bytes, kept } => {
                write!(
                    f,
                    "stream `{stream}`: cut {bytes} bytes of an unfinished commit off {} at byte {offset}",
                    segment.display()
                )?;
                kept.as_ref().map_or(Ok(()), |kept| write!(f, ", kept as {}", kept.display()))
            }
            Self::Damaged { stream, segment, offset, what, records } => {
                write!(f, "stream `{stream}`: {} is damaged at byte {offset}: {what}", segment.display())?;
                match records {
                    Some(range) => {
                        write!(f, "; records {} to {} are lost", range.start(), range.end())
                    }
                    None => Ok(()),
                }
            }
            Self::Dropped { stream, reason, records, count, undelivered, limit } => {
                let (first, last) = (records.start(), records.end());
                write!(f, "stream `{stream}`: dropped {count} records ({first} to {last}) by ")?;
                match limit {
                    Some(limit) => f.write_str(limit)?,
                    None => write!(f, "{reason}")?,
                }
                write!(f, "; {undelivered} of them were not delivered")
            }
            Self::NotRemoved { segment, reason } => write!(f, "cannot remove {}: {reason}", segment.display()),
            Self::Full { stream, reason } => write!(f, "stream `{stream}` is full: {reason}"),
            Self::RoomAgain { stream } => write!(f, "stream `{stream}` has room again"),
            Self::Poisoned { stream, reason } => {
                write!(f, "stream `{stream}` takes no records after a disk failure: {reason}")
            }
            Self::Recovered { stream } => write!(f, "stream `{stream}` takes records again"),
            Self::ShardCountKept { stream, has, asked } => {
                write!(f, "stream `{stream}` has {has} shards and keeps them, though {asked} are configured")
            }
            Self::ClockTrusted { wall } => write!(f, "the clock can be trusted: it shows {wall} ms since 1970"),
            Self::ClockStepped { from, to } => {
                write!(f, "the clock was set: it shows {to} ms since 1970 and would have shown {from}")
            }
            Self::ClockDoubted { wall, at_least } => {
                write!(f, "the clock shows {wall} ms since 1970, but it is {at_least} at the least: it is not believed")
            }
        }
    }
}
