//! Amazon Data Firehose, or what speaks like it: PutRecordBatch through the official SDK.
//!
//! Firehose has no partition keys, and bills each record as if it had a multiple of 5 KB. So records of different keys may
//! become one of Firehose's: a few lanes are filled side by side, and each key is of one lane, whose parcels leave one behind
//! the other. That keeps the order of a key, and fills aggregates though there are many keys.

mod classify;
mod config;
#[cfg(any(test, fuzzing))]
mod fuzzing;
#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

use aws_sdk_firehose::Client;
use forebay_log_store::Record;

use self::config::RECORD_BYTES;
pub use self::config::{Aggregation, Config};
#[cfg(any(test, fuzzing))]
pub use self::fuzzing::fuzz;
use super::{
    Limits, Outcome, Parcel, Place, RecordOutcome, Sent,
    aws::{self, Encoding, body::Body, entries::Entries},
    hash,
    tally::Tally,
};
use crate::{
    credentials::{Keeper, KnownTime},
    outgoing::{Outgoing, WireBytes},
};

/// PutRecordBatch: 500 records, 4 MiB.
pub(super) const REQUEST_RECORDS: usize = 500;
pub(super) const REQUEST_BYTES: u64 = 4 << 20;

/// Each record is billed as a multiple of this.
const BILLED_BYTES: u64 = 5 << 10;

/// Records of an aggregate; far more than its bytes hold as a rule, and little enough to be told apart when one is refused.
const AGGREGATE_RECORDS: usize = 10_000;

/// A Firehose stream to put records into.
pub struct Firehose {
    client: Client,
    credentials: Keeper,
    wire: Arc<WireBytes>,
    tally: Tally,
    config: Config,
    request_timeout: Duration,
}

impl std::fmt::Debug for Firehose {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Firehose").field("stream", &self.config.stream).finish_non_exhaustive()
    }
}

impl Firehose {
    /// A client with validated settings. Nothing is sent yet.
    ///
    /// # Errors
    /// The proxy's password cannot be read (any more).
    pub fn open(config: &Config, time: &Arc<KnownTime>) -> anyhow::Result<Self> {
        let outgoing = Outgoing::open(&config.outgoing)?.judged_by(Arc::clone(time) as _);
        let (settings, credentials) = aws::sdk_config(&config.aws, &config.outgoing, &outgoing, time);
        Ok(Self {
            client: Client::new(&settings),
            credentials,
            wire: outgoing.wire_bytes(),
            tally: Tally::by_units_of(BILLED_BYTES),
            config: config.clone(),
            request_timeout: config.outgoing.request_timeout,
        })
    }

    pub(super) fn wire_bytes(&self) -> Arc<WireBytes> {
        Arc::clone(&self.wire)
    }

    pub(super) fn sent(&self) -> Sent {
        self.tally.so_far(self.config.aggregation == Aggregation::Lines)
    }

    pub(super) fn limits(&self) -> Limits {
        let (parcel_records, parcel_bytes) = match self.config.aggregation {
            Aggregation::None => (1, RECORD_BYTES),
            Aggregation::Lines => (AGGREGATE_RECORDS, self.config.aggregate_bytes()),
        };
        Limits {
            request_records: REQUEST_RECORDS,
            request_bytes: REQUEST_BYTES,
            parcel_records,
            parcel_bytes,
            keeps_requests: false,
            request_timeout: self.request_timeout,
        }
    }

    pub(super) fn accepts(&self, record: &Record) -> Result<(), String> {
        let bytes = self.bytes_of(record);
        if bytes > RECORD_BYTES {
            return Err(format!("the record has {bytes} bytes with its delimiter; Firehose takes {RECORD_BYTES}"));
        }
        Ok(())
    }

    pub(super) fn place(&self, record: &Record) -> Place {
        let key = hash(&record.partition_key);
        let lane = match self.config.aggregation {
            Aggregation::None => key,
            Aggregation::Lines => key % u64::from(self.config.aggregate_lanes()),
        };
        Place { lane, bytes: self.bytes_of(record) }
    }

    pub(super) async fn send(&self, parcels: &[Parcel]) -> Outcome {
        let stream = self.config.stream.as_deref().unwrap_or_default();
        let payload = parcels.iter().flat_map(|parcel| &parcel.records).map(|record| self.bytes_of(record)).sum();
        let mut body = Body::new(Encoding::Json, ("DeliveryStreamName", stream), parcels.len(), payload);
        let mut sizes = Vec::with_capacity(parcels.len());
        let mut joined = Vec::new();
        for parcel in parcels {
            joined.clear();
            self.join(parcel, &mut joined);
            sizes.push(joined.len() as u64);
            body.push(&joined, &[]);
        }
        let answer = Entries::default();
        let request = self.client.put_record_batch().delivery_stream_name(stream).customize();
        let request = request.mutate_request(body.into_request()).interceptor(answer.taker(
            Encoding::Json,
            classify::nothing,
            classify::refused,
        ));
        let outcome = match request.send().await {
            Ok(_) => match answer.read() {
                Ok(answer) => classify::answered(&answer, parcels.len()),
                Err(failure) => Outcome::Failed(failure),
            },
            Err(error) => {
                let failure = aws::answer::failed(&error, classify::of_code);
                if failure.kind.is_about_credentials() {
                    self.credentials.refused();
                }
                Outcome::Failed(failure)
            }
        };
        if let Outcome::Answered(outcomes) = &outcome {
            for ((_, bytes), parcel) in
                outcomes.iter().zip(sizes).zip(parcels).filter(|((outcome, _), _)| **outcome == RecordOutcome::Accepted)
            {
                self.tally.taken(parcel, bytes);
            }
        }
        outcome
    }

    /// Puts a parcel's records behind each other, each with its delimiter.
    fn join(&self, parcel: &Parcel, joined: &mut Vec<u8>) {
        for record in &parcel.records {
            joined.extend_from_slice(&record.data);
            if self.lacks_delimiter(record) {
                joined.extend_from_slice(self.config.delimiter().as_bytes());
            }
        }
    }

    fn bytes_of(&self, record: &Record) -> u64 {
        let delimiter = if self.lacks_delimiter(record) { self.config.delimiter().len() } else { 0 };
        (record.data.len() + delimiter) as u64
    }

    fn lacks_delimiter(&self, record: &Record) -> bool {
        !record.data.ends_with(self.config.delimiter().as_bytes())
    }
}
