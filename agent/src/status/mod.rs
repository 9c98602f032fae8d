//! Status: what the agent tells about itself, in one form for `GET /status`, `forebay status` and the metrics.
//!
//! Plain data, written and read by serde, so that the command line reads what the agent wrote. Counters are since the
//! agent's start unless they say otherwise; times are whole milliseconds since 1970 (UTC). Keys may be added, but none is
//! renamed: scripts read them.

mod metrics;
mod observer;
mod rates;
#[cfg(test)]
mod samples;
mod table;

use std::{collections::BTreeMap, path::PathBuf};

use serde::{Deserialize, Serialize};

pub use metrics::render as render_metrics;
pub use observer::{ObservedDestination, ObservedSource, Observer};
pub use rates::{Meter, Totals};
pub use table::render as render_table;

/// Everything.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Of the program.
    pub version: String,
    /// Of the process.
    pub pid: u32,
    /// Since the agent's start.
    pub uptime_seconds: u64,
    /// Whether the log takes records and every source runs.
    pub healthy: bool,
    /// Why not.
    pub reasons: Vec<String>,
    /// Where the log is.
    pub data_dir: PathBuf,
    /// What is known of the time.
    #[serde(default)]
    pub clock: ClockStatus,
    /// What the log told that a person should hear, by kind.
    pub log_events: BTreeMap<String, u64>,
    /// By name.
    pub sources: BTreeMap<String, SourceStatus>,
    /// By name.
    pub streams: BTreeMap<String, StreamStatus>,
    /// By name; those that have limits.
    #[serde(default)]
    pub links: BTreeMap<String, LinkStatus>,
    /// By name.
    pub destinations: BTreeMap<String, DestinationStatus>,
}

/// What is known of the time.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ClockStatus {
    /// The time now.
    pub now_ms: u64,
    /// Since when it can be trusted; `null` if not since the machine's start.
    pub trusted_since_ms: Option<u64>,
    /// What is wrong with the machine's clock, and what that means.
    pub warning: Option<String>,
}

/// How much, and how fast at the moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Flow {
    /// Number of records.
    pub records: u64,
    /// Their keys and data.
    pub bytes: u64,
    /// Over the last seconds.
    pub records_per_second: f64,
    /// Over the last seconds.
    pub bytes_per_second: f64,
}

/// One source.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct SourceStatus {
    /// Its type.
    pub r#type: String,
    /// Where its records go.
    pub stream: String,
    /// What became durable, and was acknowledged.
    #[serde(flatten)]
    pub stored: Flow,
    /// Open now.
    pub connections: u64,
    /// What was not taken, or not as it came, by reason.
    pub refused: BTreeMap<String, u64>,
    /// The newest.
    pub last_error: Option<ErrorStatus>,
}

/// One stream.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct StreamStatus {
    /// What was committed.
    #[serde(flatten)]
    pub committed: Flow,
    /// Sequence number of the oldest record that is still there.
    pub oldest: u64,
    /// Sequence number that the next record will get.
    pub next: u64,
    /// On disk.
    pub disk_bytes: u64,
    /// The most that it may take of the disk.
    pub quota_bytes: u64,
    /// Records whose arrival times are not certain, because no clock was trusted while the machine ran; by segments.
    #[serde(default)]
    pub untrusted_records: u64,
    /// Number of files.
    pub segments: u64,
    /// Records that were delivered from memory and never written (`durability = "memory-first"`).
    pub unwritten: u64,
    /// Bytes of records that wait in memory for their delivery, and are not acknowledged yet.
    pub held_bytes: u64,
    /// Written to its files and given to the catalogue: records as they are stored, framing, and the catalogue's entries.
    pub written_bytes: u64,
    /// Of those, headers of files and blocks, and saved checkpoints.
    pub framing_bytes: u64,
    /// Of those, the catalogue's entries.
    pub catalogue_bytes: u64,
    /// What wears the flash: `written_bytes` per byte of keys and data. The file system's own writing comes on top.
    pub written_per_payload_byte: Option<f64>,
    /// `written_bytes` in a day, if it goes on as since the start; not told in the first minute.
    pub written_bytes_per_day: Option<u64>,
    /// Writes, each with one sync.
    pub commits: u64,
    /// By shard id.
    pub shards: BTreeMap<String, ShardStatus>,
    /// Records that left by a limit or by damage, since the stream was made.
    pub dropped: Dropped,
    /// Those of them that a destination had not got yet.
    pub lost: Dropped,
    /// Why it takes no records at the moment, if so.
    pub stopped: Option<String>,
}

/// Records by what took them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dropped {
    /// Older than the stream's retention.
    pub retention: u64,
    /// To make room.
    pub quota: u64,
    /// Their bytes were damaged.
    pub damage: u64,
}

/// One shard.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ShardStatus {
    /// What was committed.
    #[serde(flatten)]
    pub committed: Flow,
    /// How often a writer was told to wait by the rate limit.
    pub throttled: u64,
}

/// One destination, and the delivery to it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct DestinationStatus {
    /// Its type.
    pub r#type: String,
    /// The stream whose records it gets.
    pub from: String,
    /// What it took.
    #[serde(flatten)]
    pub delivered: Flow,
    /// Everything up to this sequence number is done.
    pub checkpoint: u64,
    /// Records that it has not finished. Those that it has, ahead of one that waits, are none of them.
    pub backlog_records: u64,
    /// Their share of the stream's bytes on disk, as if all its records had the same size.
    pub backlog_bytes: u64,
    /// Age of the oldest record behind the checkpoint; 0 when there is none.
    pub lag_seconds: f64,
    /// What it has leapt over, and what it sends first.
    #[serde(default)]
    pub catch_up: CatchUpStatus,
    /// Bytes sent on the wire, with everything around the records.
    pub wire_sent_bytes: u64,
    /// Bytes received from it.
    pub wire_received_bytes: u64,
    /// Bytes sent per byte of the keys and data that arrived; none before something arrived.
    pub sent_per_payload_byte: Option<f64>,
    /// Requests under way.
    pub in_flight: u64,
    /// Records held in memory.
    pub window_records: u64,
    /// Their keys and data.
    pub window_bytes: u64,
    /// Whether keeping the order per partition key is what limits the rate: few keys, and a round trip for each record.
    pub limited_by_key_order: bool,
    /// Requests that were sent.
    pub requests: u64,
    /// Requests that failed as a whole, by kind.
    pub failed_requests: BTreeMap<String, u64>,
    /// Records that the destination sent back because they were too many at once.
    pub throttled_records: u64,
    /// Records that the destination sent back for a passing reason of its own.
    pub failed_records: u64,
    /// Records that wait at the moment because every request with one of them fails as a whole, while others are taken.
    #[serde(default)]
    pub failing_records: u64,
    /// Whether nothing more of the stream is read, because what waits behind these fills the window.
    #[serde(default)]
    pub reading_stopped: bool,
    /// Records that were sent again because their aggregate had gone to another shard than it was made for.
    #[serde(default)]
    pub astray_records: u64,
    /// What was sent as the destination counts and charges it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wire: Option<WireStatus>,
    /// Records that the destination will never take; they are in its dead-letter stream.
    pub dead_letters: u64,
    /// Letters that are there: neither replayed nor dropped.
    #[serde(default)]
    pub dead_letters_open: u64,
    /// Letters that were replayed, since the stream was made.
    #[serde(default)]
    pub dead_letters_replayed: u64,
    /// Letters that a person dropped, since the stream was made.
    #[serde(default)]
    pub dead_letters_dropped: u64,
    /// Records that came behind later ones of their key; always 0 with strict ordering.
    pub out_of_order: u64,
    /// Records that were older than `max-age` when they would have been sent, and are not sent any more.
    #[serde(default)]
    pub expired: u64,
    /// Certificates of our own that it uses.
    #[serde(default)]
    pub client_certificates: Vec<CertificateStatus>,
    /// The link whose limits it keeps.
    #[serde(default)]
    pub link: Option<String>,
    /// Which of these limits holds it back at the moment, and until when.
    #[serde(default)]
    pub held: Option<String>,
    /// What keeps it from delivering, if something does.
    pub down: Option<Down>,
    /// The newest.
    pub last_error: Option<ErrorStatus>,
}

/// How far a delivery has caught up: its gaps, which `catch-up` leapt over, and what is live.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct CatchUpStatus {
    /// Gaps that are not filled yet. Always 0 with `oldest-first`, but for those that another setting has left.
    pub gaps: u64,
    /// Records that are left in them.
    pub gap_records: u64,
    /// Age of the oldest of these.
    pub gap_lag_seconds: f64,
    /// Records that are live and not finished; all of them if there is no gap.
    pub live_records: u64,
    /// Age of the oldest of these.
    pub live_lag_seconds: f64,
}

/// Records as the destination sees them: aggregates, where records are aggregated.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct WireStatus {
    /// Whether several records travel as one.
    pub aggregated: bool,
    /// How many were taken, those included that were taken again.
    pub records: u64,
    /// Their keys and data.
    pub bytes: u64,
    /// How many records of ours are in one, on average.
    pub records_each: f64,
    /// `bytes` per byte of our records' keys and data.
    pub bytes_per_payload_byte: f64,
    /// Units that the service charges for what was taken (25 KB at Kinesis, 5 KB at Firehose); an estimate.
    pub payload_units: u64,
}

/// A certificate of our own.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateStatus {
    /// Where it is.
    pub file: PathBuf,
    /// Until when it holds.
    pub expires_ms: Option<u64>,
    /// What a person has to do about it, or why it cannot be read.
    pub trouble: Option<String>,
}

/// One way out of the gateway that has limits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LinkStatus {
    /// Whether its limits hold at the moment.
    pub metered: bool,
    /// Bytes that may pass in a day; `null` if any number may.
    pub budget_bytes: Option<u64>,
    /// Of those, what has passed.
    pub spent_bytes: u64,
}

/// A destination that cannot be delivered to.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Down {
    /// `no-route`, `dns`, `throttled`, ...: docs/links.md has all of them.
    pub kind: String,
    /// For how long.
    pub seconds: u64,
    /// Attempts since.
    pub attempts: u64,
    /// When it is tried again, from now; 0 while an attempt is under way.
    #[serde(default)]
    pub next_attempt_seconds: f64,
}

/// Something that went wrong.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorStatus {
    /// When.
    pub at_ms: u64,
    /// Of a destination: which of the kinds in docs/links.md, if it is one of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// What.
    pub message: String,
}
