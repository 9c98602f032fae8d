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
        }
    }
}

/// What happens to new records when a stream has no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnFull {
    /// New records wait or are refused. What every delivery has finished is freed first; nothing undelivered is dropped.
    Reject,
    /// The oldest segment is dropped, delivered or not; what was not is counted as lost.
    DropOldest,
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
    /// memory is never written, so nobody can read it again.
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
    /// The deliveries and applications whose checkpoints count for holding records and for telling a drop from a loss.
    pub consumers: Vec<String>,
    /// Any text. It is kept with the stream and given back by [`Store::note`](crate::Store::note), for who has to open the
    /// stream again and knows only its name.
    pub note: String,
}

impl StreamConfig {
    /// The defaults: one shard, 24 h, 1 GiB, reject, zstd, Kinesis limits, hold.
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
            consumers: Vec::new(),
            note: String::new(),
        }
    }
}
