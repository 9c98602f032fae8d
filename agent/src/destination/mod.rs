//! Destinations: what takes batches out. A family: one file or folder per type, all with a `Config`, `limits`, `accepts`
//! and `send`.
//!
//! A destination encodes parcels of records, sends them once, and says what became of each in the words below. It never sees the
//! log, never retries, and never decides what happens next: the delivery does, and it never sees an HTTP status.

use std::{
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::Arc,
    time::Duration,
};

use forebay_log_store::Record;
use smallvec::SmallVec;

use crate::credentials::KnownTime;

pub mod aws;
mod failure;
pub mod firehose;
pub mod http;
mod kind;
pub mod kinesis;
#[cfg(test)]
pub mod scripted;
mod tally;
mod transport_error;

pub(crate) use failure::RETRY_AFTER_MAX;
pub use failure::{Failure, FailureKind};
pub use kind::{Config, TYPES};

/// What a delivery may know of the connections that a destination makes.
pub use crate::outgoing::WireBytes;

/// Somewhere that records go.
#[derive(Debug)]
pub enum Destination {
    /// A Kinesis data stream.
    Kinesis(Box<kinesis::Kinesis>),
    /// A Firehose stream.
    Firehose(Box<firehose::Firehose>),
    /// An endpoint by Firehose's specification.
    Http(Box<http::Http>),
    /// For tests: answers as it is told.
    #[cfg(test)]
    Scripted(scripted::Scripted),
}

/// Records that travel together as one record of the wire, in their order: the destination takes all of them, or none.
#[derive(Debug, Clone)]
pub struct Parcel {
    /// At least one; more only where [`Limits::parcel_records`] says so.
    pub records: SmallVec<[Arc<Record>; 1]>,
}

/// Where a destination's records come from. With its sequence number, that tells a record from all others.
#[derive(Debug, Clone, Copy)]
pub struct Origin<'a> {
    /// What the gateway is called.
    pub gateway: &'a str,
    /// The gateway's stream.
    pub stream: &'a str,
}

/// What a destination has sent and the other side has taken, as that counts it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sent {
    /// Whether records share records of the wire.
    pub aggregated: bool,
    /// Records of the wire, those included that were taken again.
    pub records: u64,
    /// Their bytes: keys and data, before the request is encoded.
    pub bytes: u64,
    /// The records in them.
    pub payload_records: u64,
    /// Keys and data of those.
    pub payload_bytes: u64,
    /// What will be charged, in the destination's own units.
    pub payload_units: u64,
}

/// Where a record goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Number of its lane: records of one lane may share a parcel, and keep their order. A partition key is of one lane.
    pub lane: u64,
    /// What it takes of a parcel on the wire, in bytes.
    pub bytes: u64,
}

impl Place {
    /// A lane of its partition key's own, and nothing around its bytes.
    #[must_use]
    pub fn of_key(record: &Record) -> Self {
        Self { lane: hash(&record.partition_key), bytes: record.payload_bytes() }
    }
}

/// Stands for a partition key.
pub(crate) fn hash(partition_key: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    partition_key.hash(&mut hasher);
    hasher.finish()
}

/// What a destination takes in one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Parcels of a request.
    pub request_records: usize,
    /// Keys and data of a request, in bytes.
    pub request_bytes: u64,
    /// Records of a parcel. 1: each travels alone.
    pub parcel_records: usize,
    /// What a parcel takes on the wire, in bytes; one record is always taken.
    pub parcel_bytes: u64,
    /// Whether a request that failed is sent again as it was, without newer records, so that the other side knows it again.
    pub keeps_requests: bool,
    /// How long a request may take before the destination gives it up itself.
    pub request_timeout: Duration,
}

/// What became of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It was answered: one entry for each of its parcels, in their order.
    Answered(Vec<RecordOutcome>),
    /// It failed as a whole. Whether any of its records was taken is not known.
    Failed(Failure),
}

/// What became of one parcel of an answered request: of the record of the wire, so of all its records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RecordOutcome {
    /// The destination has it.
    Accepted,
    /// Taken, but by another shard than it was made for, so that a consumer may not see all of it: it is to be sent again
    /// under a newer map of the shards.
    Astray,
    /// Not taken: too much at once. Later it will be.
    Throttled(String),
    /// Not taken, for a reason of the destination's own that may pass.
    Failed(String),
    /// Not taken, and it never will be.
    Rejected(String),
}

impl Destination {
    /// The destination of these settings, which were validated. Nothing is sent yet.
    ///
    /// # Errors
    /// A file that the settings name cannot be read (any more).
    pub fn open(config: &Config, origin: &Origin<'_>, time: &Arc<KnownTime>) -> anyhow::Result<Self> {
        config.open(origin, time)
    }

    /// What it takes in one request.
    #[must_use]
    pub fn limits(&self) -> Limits {
        match self {
            Self::Kinesis(kinesis) => kinesis.limits(),
            Self::Firehose(firehose) => firehose.limits(),
            Self::Http(http) => http.limits(),
            #[cfg(test)]
            Self::Scripted(scripted) => scripted.limits(),
        }
    }

    /// Whether it can ever take this record, as far as can be told without asking.
    ///
    /// # Errors
    /// Why not, with figures.
    pub fn accepts(&self, record: &Record) -> Result<(), String> {
        match self {
            Self::Kinesis(kinesis) => kinesis.accepts(record),
            Self::Firehose(firehose) => firehose.accepts(record),
            Self::Http(http) => http.accepts(record),
            #[cfg(test)]
            Self::Scripted(scripted) => scripted.accepts(record),
        }
    }

    /// What passed its sockets until now; nothing for one that has none.
    #[must_use]
    pub fn wire_bytes(&self) -> Option<Arc<WireBytes>> {
        match self {
            Self::Kinesis(kinesis) => Some(kinesis.wire_bytes()),
            Self::Firehose(firehose) => Some(firehose.wire_bytes()),
            Self::Http(http) => Some(http.wire_bytes()),
            #[cfg(test)]
            Self::Scripted(_) => None,
        }
    }

    /// Whether data is a third more on the wire than it is here.
    #[must_use]
    pub fn writes_base64(&self) -> bool {
        match self {
            Self::Kinesis(kinesis) => kinesis.writes_base64(),
            Self::Firehose(_) | Self::Http(_) => true,
            #[cfg(test)]
            Self::Scripted(_) => false,
        }
    }

    /// Where this record goes, in which lane.
    ///
    /// # Errors
    /// Why it can never be taken, as far as can be told without asking.
    pub fn place(&self, record: &Record) -> Result<Place, String> {
        self.accepts(record)?;
        Ok(match self {
            Self::Kinesis(kinesis) => kinesis.place(record),
            Self::Firehose(firehose) => firehose.place(record),
            Self::Http(http) => http.place(record),
            #[cfg(test)]
            Self::Scripted(_) => Place::of_key(record),
        })
    }

    /// Waits until there is a new map of the destination's shards; for ever where it has none. It is not asked for while it is
    /// `closed`, which tells when to look again.
    pub async fn map_changed(&self, closed: impl Fn() -> Option<Duration>) {
        match self {
            Self::Kinesis(kinesis) => kinesis.map_changed(closed).await,
            Self::Firehose(_) | Self::Http(_) => std::future::pending().await,
            #[cfg(test)]
            Self::Scripted(_) => std::future::pending().await,
        }
    }

    /// What was taken of it so far, where that is counted.
    #[must_use]
    pub fn sent(&self) -> Option<Sent> {
        match self {
            Self::Kinesis(kinesis) => Some(kinesis.sent()),
            Self::Firehose(firehose) => Some(firehose.sent()),
            Self::Http(_) => None,
            #[cfg(test)]
            Self::Scripted(_) => None,
        }
    }

    /// The newest map counts from now on. Nothing may be under way.
    pub fn take_map(&self) {
        match self {
            Self::Kinesis(kinesis) => kinesis.take_map(),
            Self::Firehose(_) | Self::Http(_) => {}
            #[cfg(test)]
            Self::Scripted(_) => {}
        }
    }

    /// Sends one request and waits for what becomes of it, at most about [`Limits::request_timeout`].
    ///
    /// # Cancel safety
    /// Dropped before it returns, nobody knows what became of the records.
    pub async fn send(&self, parcels: &[Parcel]) -> Outcome {
        match self {
            Self::Kinesis(kinesis) => kinesis.send(parcels).await,
            Self::Firehose(firehose) => firehose.send(parcels).await,
            Self::Http(http) => http.send(parcels).await,
            #[cfg(test)]
            Self::Scripted(scripted) => scripted.send(parcels).await,
        }
    }
}
