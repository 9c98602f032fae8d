//! Destinations: what takes batches out. A family: one file or folder per type, all with a `Config`, `limits`, `accepts`
//! and `send`.
//!
//! A destination encodes parcels of records, sends them once, and says what became of each in the words below. It never sees the
//! log, never retries, and never decides what happens next: the delivery does, and it never sees an HTTP status.

use std::{fmt, sync::Arc, time::Duration};

use forebay_log_store::Record;

mod kind;
pub mod kinesis;
#[cfg(test)]
pub mod scripted;

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

/// Why a request failed as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What the delivery goes by.
    pub kind: FailureKind,
    /// For a person; of bounded length.
    pub message: String,
    /// How long the endpoint asked us to stay away.
    pub retry_after: Option<Duration>,
}

/// Kinds of failure, each of which a delivery or a person treats in its own way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FailureKind {
    /// No answer: no route, no name, refused, TLS, timeout.
    Unreachable,
    /// The endpoint does not take our credentials, or there are none.
    Unauthorised,
    /// Too much at once.
    Throttled,
    /// It answered that it cannot at the moment, or with something that is no answer at all.
    EndpointFailed,
    /// What was asked for is not there: a person has to set something right, here or there.
    Misconfigured,
    /// The endpoint finds fault with the request itself: with at least one of its records.
    Invalid,
    /// Our clock is wrong, by what the endpoint says of the request's date or by its certificate.
    Clock,
}

impl FailureKind {
    /// All of them, in the order of [`FailureKind::index`].
    pub const ALL: [Self; 7] = [
        Self::Unreachable,
        Self::Unauthorised,
        Self::Throttled,
        Self::EndpointFailed,
        Self::Misconfigured,
        Self::Invalid,
        Self::Clock,
    ];

    /// Its place in [`FailureKind::ALL`], for counters.
    #[must_use]
    pub fn index(self) -> usize {
        self as usize
    }

    /// As it is written in status and logs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::Unauthorised => "unauthorised",
            Self::Throttled => "throttled",
            Self::EndpointFailed => "endpoint-failed",
            Self::Misconfigured => "misconfigured",
            Self::Invalid => "invalid",
            Self::Clock => "clock",
        }
    }
}

impl fmt::Display for FailureKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kind, self.message)
    }
}

impl Destination {
    /// The destination of these settings, which were validated. Nothing is sent yet.
    ///
    /// # Errors
    /// A file that the settings name cannot be read (any more).
    pub async fn open(config: &Config) -> anyhow::Result<Self> {
        Ok(match config {
            Config::Kinesis(config) => Self::Kinesis(kinesis::Kinesis::open(config).await?),
        })
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
