//! Kinesis Data Streams, or whatever speaks like them: PutRecords through the official SDK.
//!
//! Partition keys, explicit hash keys and bytes go through unchanged, each record alone or several as one (docs/aggregation.md).

mod classify;
mod config;
#[cfg(any(test, fuzzing))]
mod fuzzing;
mod kpl;
mod lines;
mod map;
mod md5s;
mod packing;
mod shards;
mod survey;
mod tags;
#[cfg(test)]
mod tests;

use std::{borrow::Cow, sync::Arc, time::Duration};

use aws_sdk_kinesis::{Client, error::ProvideErrorMetadata as _};
use forebay_log_store::{PARTITION_KEY_CHARS_MAX, Record};

#[cfg(any(test, fuzzing))]
pub use self::fuzzing::{fuzz_list_shards, fuzz_put_records};
pub use self::{
    config::Config,
    packing::{Aggregation, Compress},
    tags::TagName,
};
use self::{map::ShardMap, packing::Packing, tags::Tags};
use super::{
    Limits, Origin, Outcome, Parcel, Place, RecordOutcome, Sent,
    aws::{self, Encoding, body::Body, buffers, entries::Entries},
    tally::Tally,
};
use crate::{
    credentials::{Keeper, KnownTime},
    outgoing::{Outgoing, WireBytes},
};

/// Kinesis charges PutRecords by units of 25 KB of each record.
const PAYLOAD_UNIT: u64 = 25_000;

/// PutRecords: 1 to 500 records, 10 MiB with their partition keys (service model of 2025).
pub(super) const REQUEST_RECORDS: usize = 500;
pub(super) const REQUEST_BYTES: u64 = 10 << 20;

/// A stream to put records into.
pub struct Kinesis {
    client: Client,
    credentials: Keeper,
    wire: Arc<WireBytes>,
    stream: String,
    encoding: Encoding,
    packing: Packing,
    /// Only where aggregates go by it.
    map: Option<ShardMap>,
    tally: Tally,
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
    pub fn open(config: &Config, origin: &Origin<'_>, time: &Arc<KnownTime>) -> anyhow::Result<Self> {
        let outgoing = Outgoing::open(&config.outgoing)?.judged_by(Arc::clone(time) as _);
        let (settings, credentials) = aws::sdk_config(&config.aws, &config.outgoing, &outgoing, time);
        let (client, stream) = (Client::new(&settings), config.stream.clone().unwrap_or_default());
        let by_shard = config.aggregation == Aggregation::Kpl;
        Ok(Self {
            map: by_shard.then(|| ShardMap::new(client.clone(), stream.clone(), config.shard_refresh())),
            client,
            credentials,
            wire: outgoing.wire_bytes(),
            stream,
            encoding: config.encoding(),
            packing: config.packing(origin),
            tally: Tally::by_units_of(PAYLOAD_UNIT),
            request_timeout: config.outgoing.request_timeout,
        })
    }

    pub(super) fn wire_bytes(&self) -> Arc<WireBytes> {
        Arc::clone(&self.wire)
    }

    pub(super) fn writes_base64(&self) -> bool {
        self.encoding == Encoding::Json
    }

    pub(super) fn limits(&self) -> Limits {
        let (parcel_records, parcel_bytes) = self.packing.limits();
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
        self.packing.accepts(record)?;
        let key = &*record.partition_key;
        if key.is_empty() || (key.len() > PARTITION_KEY_CHARS_MAX && key.chars().count() > PARTITION_KEY_CHARS_MAX) {
            let chars = key.chars().count();
            return Err(format!(
                "its partition key has {chars} characters; 1 to {PARTITION_KEY_CHARS_MAX} are allowed"
            ));
        }
        Ok(())
    }

    pub(super) fn place(&self, record: &Record) -> Place {
        self.packing.place(record, self.map.as_ref().and_then(ShardMap::current).as_deref())
    }

    pub(super) async fn map_changed(&self, closed: impl Fn() -> Option<Duration>) {
        match &self.map {
            Some(map) => map.changed(closed).await,
            None => std::future::pending().await,
        }
    }

    pub(super) fn take_map(&self) {
        if let Some(map) = &self.map {
            map.take();
        }
    }

    pub(super) fn sent(&self) -> Sent {
        self.tally.so_far(self.packing.aggregation != Aggregation::None)
    }

    pub(super) async fn send(&self, parcels: &[Parcel]) -> Outcome {
        let shards = self.map.as_ref().and_then(ShardMap::current);
        let payload = parcels.iter().flat_map(|parcel| &parcel.records).map(|record| record.payload_bytes()).sum();
        let mut body = Body::new(self.encoding, ("StreamName", &self.stream), parcels.len(), payload);
        let mut expected = Vec::with_capacity(parcels.len());
        let packed = parcels.chunks(md5s::LANES).flat_map(|few| self.packing.pack(few, shards.as_deref()));
        for (parcel, packed) in parcels.iter().zip(packed) {
            expected.push((parcel, packed.bytes(), packed.shard));
            let key = ("PartitionKey", packed.partition_key);
            match packed.explicit_hash_key {
                None => body.push(&packed.data, &[key]),
                Some(hash_key) => body.push(&packed.data, &[key, ("ExplicitHashKey", &hash_key.to_string())]),
            }
            if let Cow::Owned(aggregate) = packed.data {
                buffers::give_back(aggregate);
            }
        }
        let answer = Entries::default();
        let request = self.client.put_records().stream_name(&self.stream).customize();
        let request = request.mutate_request(body.into_request()).interceptor(answer.taker(
            self.encoding,
            classify::nothing,
            classify::refused,
        ));
        match request.send().await {
            Ok(_) => {
                let answer: classify::Answer<'_> = match answer.read() {
                    Ok(answer) => answer,
                    Err(failure) => return Outcome::Failed(failure),
                };
                if let Some(map) = &self.map {
                    map.heard();
                }
                let mut outcome = classify::answered(&answer, parcels.len());
                if let Outcome::Answered(outcomes) = &mut outcome {
                    let shards = answer.records().iter().map(|record| record.shard_id.as_deref());
                    for ((outcome, (parcel, bytes, shard)), taken_by) in outcomes.iter_mut().zip(expected).zip(shards) {
                        if *outcome == RecordOutcome::Accepted {
                            self.tally.taken(parcel, bytes);
                        }
                        self.look_at(outcome, shard, taken_by);
                    }
                }
                outcome
            }
            Err(error) => {
                let mut failure = aws::answer::failed(&error, |code| classify::of_code(code, self.encoding));
                let code = error.as_service_error().and_then(|error| error.code());
                if error.raw_response().is_some() && self.tally.so_far(false).records == 0 {
                    failure.message.push_str(classify::hint(code, self.encoding));
                }
                if failure.kind.is_about_credentials() {
                    self.credentials.refused();
                }
                Outcome::Failed(failure)
            }
        }
    }

    /// What an answer says beside its words: which shard took a record, and which one was to.
    fn look_at(&self, outcome: &mut RecordOutcome, shard: Option<&str>, taken_by: Option<&str>) {
        match outcome {
            RecordOutcome::Accepted => {
                if let Some(map) = &self.map
                    && shard.is_some()
                    && shard != taken_by
                {
                    *outcome = RecordOutcome::Astray;
                    map.went_astray();
                }
            }
            RecordOutcome::Throttled(_) => {
                if let Some(map) = &self.map {
                    map.doubt();
                }
            }
            _ => {}
        }
    }
}
