//! A durable, sharded, append-only record log for small machines.
//!
//! It keeps records on a gateway's own disk with the semantics of Kinesis: streams with shards over the hash-key space,
//! sequence numbers, retention, checkpoints. It is made for SD cards that wear out, power that is cut without warning,
//! and clocks that are wrong until somebody sets them.
//!
//! ```text
//!  Batch ──► queue ──► committer ──► segment files ──► Cursor ──► Record
//!                      (one thread,   (the truth)       (any number, whole stream or one shard)
//!                       one sync per       │
//!                       group commit)      └──► catalogue (sled: an index, rebuilt when it is lost)
//! ```
//!
//! # What it is not
//! It is no network service, no database with queries, and no multi-process store: one process opens a data directory,
//! and knows nothing of MQTT or AWS. It is synchronous; whoever is not bridges with [`Done`] and [`Stream::on_commit`].
//! It prints nothing: what a person should hear comes as an [`Event`].
//!
//! # Promises
//! 1. A batch whose [`Done`] got [`Appended`] survives a power cut, whole, and is there exactly once. So do its marks, which
//!    are there if and only if its records are: see [`Batch::set_mark`].
//! 2. Records of a shard keep the order in which their batches were appended. Numbers are never used again.
//! 3. A cursor never sees what is not durable yet.
//! 4. Nothing is dropped silently: what retention, quota or damage took is counted by reason and told with its range.
//! 5. Damage costs the blocks it hits and nothing around them. A lost or broken catalogue costs no record.
//! 6. After a failed write or sync a stream takes no records until it has recovered; a full disk is no such failure.
//! 7. No record expires by a wrong wall clock. Arrival times of a boot are known once its clock was trusted for a moment.
//! 8. Memory and the time to open do not grow with the backlog.
//!
//! `docs/format.md` has the bytes and what is assumed of the disk, `docs/time.md` the rules of time.
//!
//! # Durability
//! An append is answered once its block was written and synced with `fdatasync`, together with all others that came
//! within [`StoreConfig::commit_delay`]: it then survives a power cut if the disk keeps what it has confirmed. What was
//! not answered is, after a power cut, there whole or not at all. Checkpoints reach the disk within
//! [`StoreConfig::checkpoint_interval`]; a power cut may take them back that far, so consumers may see records again.
//!
//! # Threads
//! A [`Store`] has two threads: the committer writes all its streams, the other one calls each [`Done`]. All handles may be used from any thread; a
//! [`Cursor`] belongs to one at a time, and any number of cursors read beside the writer without waiting for it.
//! [`Done`], the callbacks of [`Stream::on_commit`] and the receiver of [`Event`]s are called on the log's threads: they must
//! be quick, and must not call the store. [`Stream::append`] blocks only while [`StoreConfig::queue_bytes`] are waiting.
//!
//! # Errors
//! [`Error`] has one variant for each thing that a caller does differently, and messages that name the path. [`Refused`]
//! gives the batch back. Damage is never an error, neither at opening nor when reading: it is an [`Event`], and
//! [`inspect`] looks into it and mends it. A disk that fails stops the stream it failed for, until the log could go on in a
//! new file, which it tries by itself; a full disk only makes records wait or be refused.
//!
//! # Limits
//! - A partition key has 1 to [`PARTITION_KEY_CHARS_MAX`] characters, a record's data at most [`RECORD_BYTES_MAX`] bytes, and a
//!   record takes at most a quarter of its stream's quota.
//! - A mark's name has 1 to [`MARK_NAME_BYTES_MAX`] bytes, its value at most [`MARK_VALUE_BYTES_MAX`]; a stream has at most
//!   [`MARKS_MAX`] marks of [`MARKS_BYTES_MAX`] together, or 1/8 of a segment.
//! - One process at a time opens a data directory, on a file system whose `flock` keeps others away. Unix only.
//! - Memory: the queue of each stream, a commit's block, and some 200 KiB for each cursor, or the largest block it meets.
//! - The catalogue is an index: losing it costs reading some segments' headers, and what a consumer did since the last
//!   control block is delivered again.
//!
//! # Example
//! ```
//! use std::sync::mpsc;
//!
//! use forebay_log_store::{
//!     NewRecord, ReadLimit, Start, Store, StoreConfig, StreamConfig, SystemClock, WhenFull,
//! };
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let dir = tempfile::tempdir()?;
//! let store = Store::open(StoreConfig::new(dir.path()), SystemClock::new(), |event| eprintln!("{event}"))?;
//! let stream = store.stream(StreamConfig::new("telemetry"))?;
//!
//! // Append, and wait until it is durable.
//! let mut batch = stream.batch();
//! batch.push(&NewRecord::new("greenhouse/3", b"21.5"))?;
//! let (tell, told) = mpsc::channel();
//! stream.append(batch, WhenFull::Wait, Box::new(move |outcome| tell.send(outcome).expect("awaited below")));
//! let appended = told.recv()??;
//!
//! // Read it back, and say that it is done with.
//! let mut cursor = stream.cursor(Start::After(stream.checkpoint("cloud")));
//! let records = cursor.read(ReadLimit { records: 100, payload_bytes: 1 << 20 })?;
//! assert_eq!(records[0].sequence_number, appended.runs[0].first);
//! assert_eq!(&records[0].data[..], b"21.5");
//! stream.save_checkpoint("cloud", records[0].sequence_number);
//! # Ok(())
//! # }
//! ```

// Tests damage files and wait for threads on purpose.
#![cfg_attr(test, allow(clippy::disallowed_methods))]

mod answers;
mod batch;
mod catalogue;
mod clock;
mod committer;
mod config;
mod cursor;
mod disk;
mod error;
mod event;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod gaps;
mod hash_key;
pub mod inspect;
mod marks;
mod queue;
mod rate;
#[cfg(test)]
mod real_tests;
mod record;
mod room;
mod segment;
mod sequence;
mod shard;
#[cfg(test)]
mod simulation;
mod stats;
mod store;
mod stream;

pub use batch::{Batch, Load};
pub use clock::{Clock, ClockStatus, Now, SystemClock, Timestamp, Trust, TrustRule};
pub use config::{Durability, MinFree, OnFull, RateLimit, StoreConfig, StreamConfig};
pub use cursor::{Cursor, ReadLimit, Start};
pub use error::{Appended, AppendedRun, Error, Refused};
pub use event::{DropReason, Event};
pub use hash_key::HashKey;
pub use marks::{MARK_NAME_BYTES_MAX, MARK_VALUE_BYTES_MAX, MARKS_BYTES_MAX, MARKS_MAX};
pub use rate::RateLimiter;
pub use record::{NewRecord, PARTITION_KEY_CHARS_MAX, RECORD_BYTES_MAX, Record, Tag};
pub use segment::Codec;
pub use sequence::SequenceNumber;
pub use shard::{SHARDS_MAX, Shard, ShardChange, ShardError, ShardIndex, ShardMap};
pub use stats::{DropCounts, ShardStats, StreamStats};
pub use store::{Done, Store, Stream, WhenFull};
