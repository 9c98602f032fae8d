//! How a store and its streams are kept. Plain data; where it comes from is the caller's business.

use std::{num::NonZeroU32, path::PathBuf, time::Duration};

use crate::segment::Codec;

/// How one data directory is kept.
#[derive(Debug, Clone)]
pub struct StoreConfig {
    /// The data directory; created if it is missing.
    pub dir: PathBuf,
    /// How long a commit waits for company after its first batch came. More company means fewer syncs, and less that
    /// reaches the device (docs/flash.md). From 10 ms on the whole delay is kept unless half a mebibyte waits; below that,
    /// a commit goes ahead when as much waits as the last one had.
    pub commit_delay: Duration,
    /// A segment is sealed once it holds this many bytes (and earlier if the stream's quota is small).
    pub segment_bytes: u64,
    /// A segment is sealed once it is this old, so that retention frees space on a slow stream too.
    pub segment_age: Duration,
    /// Bytes of encoded records that may wait for the committer, per stream.
    pub queue_bytes: usize,
    /// Checkpoints reach the disk at most this often.
    pub checkpoint_interval: Duration,
    /// The most bytes that all files of the data directory may take together; `None` leaves it to the streams' quotas.
    pub max_bytes: Option<u64>,
    /// Space of the data directory's file system that the log never takes.
    pub min_free: MinFree,
}

/// Space of a file system that is left to others: the smaller of the two.
///
/// The log stops growing when so little is free, as if the disk were full. What others took beyond that it does not give
/// back. Zero, and only zero, leaves it to the disk to say that it is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MinFree {
    /// Bytes.
    pub bytes: u64,
    /// Percent of the file system's size.
    pub percent: u8,
}

impl MinFree {
    /// 5 percent, but not more than 256 MiB: enough for the catalogue, and for a system to stay alive.
    pub const DEFAULT: Self = Self { bytes: 256 << 20, percent: 5 };
    /// Nothing is left.
    pub const NONE: Self = Self { bytes: 0, percent: 0 };

    /// In bytes, for a file system of this size.
    #[must_use]
    pub fn of(self, size: u64) -> u64 {
        let percent = u128::from(size) * u128::from(self.percent.min(100)) / 100;
        self.bytes.min(u64::try_from(percent).unwrap_or(u64::MAX))
    }
}

impl StoreConfig {
    /// The defaults for a data directory.
    #[must_use]
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            // A tenth of a typical SD card sync: company is nearly free.
            commit_delay: Duration::from_millis(1),
            segment_bytes: 8 << 20,
            segment_age: Duration::from_secs(600),
            queue_bytes: 4 << 20,
            checkpoint_interval: Duration::from_secs(1),
            max_bytes: None,
            min_free: MinFree::DEFAULT,
        }
    }
}

/// What happens to new records when a stream has no room: under its own quota, or in the data directory, whose limits
/// are [`StoreConfig::max_bytes`], [`StoreConfig::min_free`] and the end of the disk.
///
/// Whatever goes, goes from the oldest segment on. "Delivered" is what every consumer of the stream has finished;
/// without consumers nothing is. An undelivered record only ever goes for its own stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnFull {
    /// What is delivered goes, before its retention is over: under the quota the stream's own; for room in the directory
    /// then also other streams'. When there is none left, new records wait or are refused; nothing undelivered goes.
    Reject,
    /// The stream's own oldest segments go, delivered or not; what was not is counted as lost. Other streams keep theirs.
    DropOldest,
    /// As [`OnFull::Reject`] as long as something is delivered, anywhere; then as [`OnFull::DropOldest`].
    DropDeliveredFirst,
}

/// When a record counts as stored, and its append is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// When it would survive a power cut: every commit is synced.
    Sync,
    /// When the system has it. A power cut, or a disk that fails, takes at most what came within the interval before it; a
    /// killed process takes nothing. Readers see a record once it is synced.
    Interval(Duration),
    /// When it would survive a power cut, or when every consumer is done with it, whichever comes first. Records wait in
    /// memory, and only those that consumers have not finished after `spill_after` are written. What was delivered from
    /// memory is never written, so nobody can read it again. A batch with marks is written at once, and what waits before it.
    MemoryFirst {
        /// How long a record may wait in memory.
        spill_after: Duration,
        /// Bytes of encoded records that may wait in memory; beyond that all of them are written.
        memory_bytes: usize,
    },
}

/// Write limits of one shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateLimit {
    /// Records per second.
    pub records_per_second: u32,
    /// Keys and data in bytes per second.
    pub bytes_per_second: u64,
}

impl RateLimit {
    /// What a Kinesis shard takes: 1,000 records/s and 1 MB/s.
    pub const KINESIS: Self = Self { records_per_second: 1000, bytes_per_second: 1_000_000 };
}

/// How one stream is kept.
#[derive(Debug, Clone)]
pub struct StreamConfig {
    /// 1 to 128 of `a-z A-Z 0-9 _ . -`, as in Kinesis, not beginning with a dot.
    pub name: String,
    /// Number of shards of a new stream; an existing one keeps its own.
    pub shards: NonZeroU32,
    /// How old a record may get.
    pub retention: Duration,
    /// Bytes of disk that the stream may take.
    pub quota: u64,
    /// What to do when there is no room.
    pub on_full: OnFull,
    /// When a record counts as stored.
    pub durability: Durability,
    /// How records are compressed on the disk, each block by itself; what is there already stays as it is.
    pub compression: Codec,
    /// Limits per shard; `None` is no limit. Applied by whoever calls [`Stream::admit`](crate::Stream::admit).
    pub rate_limit: Option<RateLimit>,
    /// Whether records past retention stay until every consumer named below is done with them.
    pub hold_undelivered: bool,
    /// Whether records that every consumer is done with stay until their retention is over, for whoever reads back. If
    /// not, a segment goes as soon as it is sealed and delivered; that of a stream that has become idle is sealed at
    /// [`StoreConfig::segment_age`].
    pub keep_delivered: bool,
    /// The deliveries and applications whose checkpoints count for holding records and for telling a drop from a loss.
    pub consumers: Vec<String>,
    /// Any text. It is kept with the stream and given back by [`Store::note`](crate::Store::note), for who has to open the
    /// stream again and knows only its name.
    pub note: String,
}

impl StreamConfig {
    /// The defaults: one shard, 24 h, 1 GiB, reject, zstd, Kinesis limits, hold, keep.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            shards: NonZeroU32::MIN,
            retention: Duration::from_secs(24 * 3600),
            quota: 1 << 30,
            on_full: OnFull::Reject,
            durability: Durability::Sync,
            compression: Codec::Zstd,
            rate_limit: Some(RateLimit::KINESIS),
            hold_undelivered: true,
            keep_delivered: true,
            consumers: Vec::new(),
            note: String::new(),
        }
    }
}
