//! Kinesis Data Streams, or whatever speaks like them: PutRecords through the official SDK.
//!
//! Partition keys, explicit hash keys and bytes go through unchanged.

mod classify;
mod config;
#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

use aws_sdk_kinesis::{Client, primitives::Blob, types::PutRecordsRequestEntry};
use forebay_log_store::{PARTITION_KEY_CHARS_MAX, Record};

pub use self::config::Config;
use super::{Limits, Outcome, Parcel, aws};
use crate::{
    credentials::{Keeper, KnownTime},
    outgoing::{Outgoing, WireBytes},
};

/// PutRecords: 1 to 500 records, 10 MiB with their partition keys (service model of 2025).
const REQUEST_RECORDS: usize = 500;
const REQUEST_BYTES: u64 = 10 << 20;

/// A stream to put records into.
pub struct Kinesis {
    client: Client,
    credentials: Keeper,
    wire: Arc<WireBytes>,
    stream: String,
    max_record: u64,
    request_timeout: Duration,
}

impl std::fmt::Debug for Kinesis {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kinesis").field("stream", &self.stream).finish_non_exhaustive()
    }
}

impl Kinesis {
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
            stream: config.stream.clone().unwrap_or_default(),
            max_record: config.max_record,
            request_timeout: config.outgoing.request_timeout,
        })
    }

    pub(super) fn wire_bytes(&self) -> Arc<WireBytes> {
        Arc::clone(&self.wire)
    }

    pub(super) fn limits(&self) -> Limits {
        Limits {
            request_records: REQUEST_RECORDS,
            request_bytes: REQUEST_BYTES,
            parcel_records: 1,
            parcel_bytes: self.max_record,
            request_timeout: self.request_timeout,
        }
    }

    pub(super) fn accepts(&self, record: &Record) -> Result<(), String> {
        let bytes = record.payload_bytes();
        if bytes > self.max_record {
            return Err(format!(
                "the record has {bytes} bytes with its key; the destination takes {}",
                self.max_record
            ));
        }
        let chars = record.partition_key.chars().count();
        if !(1..=PARTITION_KEY_CHARS_MAX).contains(&chars) {
            return Err(format!(
                "its partition key has {chars} characters; 1 to {PARTITION_KEY_CHARS_MAX} are allowed"
            ));
        }
        Ok(())
    }

    pub(super) async fn send(&self, parcels: &[Parcel]) -> Outcome {
        let entries = parcels.iter().flat_map(|parcel| &parcel.records).map(|record| entry(record)).collect();
        match self.client.put_records().stream_name(&self.stream).set_records(Some(entries)).send().await {
            Ok(output) => classify::answered(&output, parcels.len()),
            Err(error) => {
                let failure = classify::failed(&error);
                if failure.kind.is_about_credentials() {
                    self.credentials.refused();
                }
                Outcome::Failed(failure)
            }
        }
    }
}

fn entry(record: &Record) -> PutRecordsRequestEntry {
    PutRecordsRequestEntry::builder()
        .data(Blob::new(record.data.to_vec()))
        .partition_key(&*record.partition_key)
        .set_explicit_hash_key(record.explicit_hash_key.map(|key| key.to_string()))
        .build()
        .expect("data and partition key are set")
}
