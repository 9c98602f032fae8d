//! Destinations: what takes batches out. A family: one file or folder per type, all with a `Config`, `limits`, `accepts`
//! and `send`.
//!
//! A destination encodes parcels of records, sends them once, and says what became of each in the words below. It never sees the
//! log, never retries, and never decides what happens next: the delivery does, and it never sees an HTTP status.

use std::{sync::Arc, time::Duration};

use forebay_log_store::Record;

use crate::{credentials::KnownTime, outgoing::WireBytes};

pub mod aws;
mod failure;
mod kind;
pub mod kinesis;
#[cfg(test)]
pub mod scripted;
mod transport_error;

pub use failure::{Failure, FailureKind};
pub use kind::{Config, TYPES};

/// Somewhere that records go.
#[derive(Debug)]
pub enum Destination {
    /// A Kinesis data stream.
    Kinesis(kinesis::Kinesis),
    /// For tests: answers as it is told.
    #[cfg(test)]
    Scripted(scripted::Scripted),
}

/// Records that travel together as one record of the wire, in their order: the destination takes all of them, or none.
#[derive(Debug, Clone)]
pub struct Parcel {
    /// At least one; more only where [`Limits::parcel_records`] says so.
    pub records: Vec<Arc<Record>>,
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
    pub fn open(config: &Config, time: &Arc<KnownTime>) -> anyhow::Result<Self> {
        config.open(time)
    }

    /// What it takes in one request.
    #[must_use]
    pub fn limits(&self) -> Limits {
        match self {
            Self::Kinesis(kinesis) => kinesis.limits(),
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
            #[cfg(test)]
            Self::Scripted(scripted) => scripted.accepts(record),
        }
    }

    /// What passed its sockets until now; nothing for one that has none.
    #[must_use]
    pub fn wire_bytes(&self) -> Option<Arc<WireBytes>> {
        match self {
            Self::Kinesis(kinesis) => Some(kinesis.wire_bytes()),
            #[cfg(test)]
            Self::Scripted(_) => None,
        }
    }

    /// Sends one request and waits for what becomes of it, at most about [`Limits::request_timeout`].
    ///
    /// # Cancel safety
    /// Dropped before it returns, nobody knows what became of the records.
    pub async fn send(&self, parcels: &[Parcel]) -> Outcome {
        match self {
            Self::Kinesis(kinesis) => kinesis.send(parcels).await,
            #[cfg(test)]
            Self::Scripted(scripted) => scripted.send(parcels).await,
        }
    }
}
