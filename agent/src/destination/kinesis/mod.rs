//! Kinesis Data Streams, or whatever speaks like them: PutRecords through the official SDK.
//!
//! The SDK signs, encodes and sends, once; its own retries are off, because the delivery decides. Partition keys, explicit
//! hash keys and bytes go through unchanged, each record alone or several as one ([docs/aggregation.md]).

mod classify;
mod config;
mod kpl;
mod lines;
mod map;
mod packing;
mod shards;
mod survey;
mod tags;
mod tally;
#[cfg(test)]
mod tests;

use std::fs;

use anyhow::Context as _;
use aws_config::{
    BehaviorVersion, Region, default_provider::credentials::DefaultCredentialsChain, imds,
    provider_config::ProviderConfig, retry::RetryConfig, stalled_stream_protection::StalledStreamProtectionConfig,
    timeout::TimeoutConfig,
};
use aws_sdk_kinesis::{
    Client,
    config::{Credentials as Keys, SharedCredentialsProvider, SharedHttpClient},
    primitives::Blob,
    types::PutRecordsRequestEntry,
};
use aws_smithy_http_client::{
    Builder as HttpClientBuilder,
    tls::{Provider, TlsContext, TrustStore, rustls_provider::CryptoMode},
};
use forebay_log_store::{PARTITION_KEY_CHARS_MAX, Record};

pub use self::{
    config::{Config, Credentials},
    packing::{Aggregation, Compress},
    tags::TagName,
};
use self::{
    map::ShardMap,
    packing::{Packed, Packing},
    tags::Tags,
    tally::Tally,
};
use super::{Limits, Origin, Outcome, Parcel, Place, RecordOutcome, Sent};

/// PutRecords: 1 to 500 records, 10 MiB with their partition keys (service model of 2025).
const REQUEST_RECORDS: usize = 500;
const REQUEST_BYTES: u64 = 10 << 20;

/// A stream to put records into.
pub struct Kinesis {
    client: Client,
    stream: String,
    packing: Packing,
    /// Only where aggregates go by it.
    map: Option<ShardMap>,
    tally: Tally,
    request_timeout: std::time::Duration,
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
    /// The CA file cannot be read (any more).
    pub async fn open(config: &Config, origin: &Origin<'_>) -> anyhow::Result<Self> {
        let region = Region::new(config.region.clone().unwrap_or_default());
        let http = http_client(config)?;
        let mut settings = aws_sdk_kinesis::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(region.clone())
            .http_client(http.clone())
            .retry_config(RetryConfig::disabled())
            // The request timeout is the whole truth; an answer is small.
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
            .timeout_config(
                TimeoutConfig::builder()
                    .connect_timeout(config.connect_timeout)
                    .operation_timeout(config.request_timeout)
                    .build(),
            )
            .credentials_provider(credentials(config, region, http).await);
        if let Some(endpoint) = &config.endpoint {
            settings = settings.endpoint_url(endpoint);
        }
        let (client, stream) = (Client::from_conf(settings.build()), config.stream.clone().unwrap_or_default());
        let by_shard = config.aggregation == Aggregation::Kpl;
        Ok(Self {
            map: by_shard.then(|| ShardMap::new(client.clone(), stream.clone(), config.shard_refresh)),
            client,
            stream,
            packing: config.packing(origin),
            tally: Tally::default(),
            request_timeout: config.request_timeout,
        })
    }

    pub(super) fn limits(&self) -> Limits {
        let (parcel_records, parcel_bytes) = self.packing.limits();
        Limits {
            request_records: REQUEST_RECORDS,
            request_bytes: REQUEST_BYTES,
            parcel_records,
            parcel_bytes,
            request_timeout: self.request_timeout,
        }
    }

    pub(super) fn accepts(&self, record: &Record) -> Result<(), String> {
        self.packing.accepts(record)?;
        let chars = record.partition_key.chars().count();
        if !(1..=PARTITION_KEY_CHARS_MAX).contains(&chars) {
            return Err(format!(
                "its partition key has {chars} characters; 1 to {PARTITION_KEY_CHARS_MAX} are allowed"
            ));
        }
        Ok(())
    }

    pub(super) fn place(&self, record: &Record) -> Place {
        self.packing.place(record, self.map.as_ref().and_then(ShardMap::current).as_deref())
    }

    pub(super) async fn map_changed(&self) {
        match &self.map {
            Some(map) => map.changed().await,
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
        let (mut entries, mut expected) = (Vec::with_capacity(parcels.len()), Vec::with_capacity(parcels.len()));
        for parcel in parcels {
            let packed = self.packing.pack(parcel, shards.as_deref());
            self.tally.sent(parcel, &packed);
            expected.push((packed.bytes(), packed.shard.clone()));
            entries.push(entry(packed));
        }
        match self.client.put_records().stream_name(&self.stream).set_records(Some(entries)).send().await {
            Ok(output) => {
                let mut outcome = classify::answered(&output, parcels.len());
                if let Outcome::Answered(outcomes) = &mut outcome {
                    let shards = output.records.iter().map(|record| record.shard_id.as_deref());
                    for ((outcome, (bytes, shard)), taken_by) in outcomes.iter_mut().zip(expected).zip(shards) {
                        self.look_at(outcome, bytes, shard.as_deref(), taken_by);
                    }
                }
                outcome
            }
            Err(error) => Outcome::Failed(classify::failed(&error)),
        }
    }

    /// What an answer says beside its words: which shard took a record of `bytes`, and which one was to.
    fn look_at(&self, outcome: &mut RecordOutcome, bytes: u64, shard: Option<&str>, taken_by: Option<&str>) {
        match outcome {
            RecordOutcome::Accepted => {
                self.tally.taken(bytes);
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

fn entry(packed: Packed) -> PutRecordsRequestEntry {
    PutRecordsRequestEntry::builder()
        .data(Blob::new(packed.data))
        .partition_key(packed.partition_key)
        .set_explicit_hash_key(packed.explicit_hash_key.map(|key| key.to_string()))
        .build()
        .expect("data and partition key are set")
}

fn http_client(config: &Config) -> anyhow::Result<SharedHttpClient> {
    let builder = HttpClientBuilder::new().tls_provider(Provider::Rustls(CryptoMode::Ring));
    let Some(ca) = &config.ca_file else { return Ok(builder.build_https()) };
    let pem = fs::read(ca).with_context(|| format!("read {}", ca.display()))?;
    let trust = TrustStore::empty().with_pem_certificate(pem);
    let context = TlsContext::builder().with_trust_store(trust).build();
    Ok(builder.tls_context(context.with_context(|| format!("trust {}", ca.display()))?).build_https())
}

async fn credentials(config: &Config, region: Region, http: SharedHttpClient) -> SharedCredentialsProvider {
    match config.credentials() {
        Credentials::Placeholder => {
            SharedCredentialsProvider::new(Keys::new("placeholder", "placeholder", None, None, "forebay"))
        }
        Credentials::Default => {
            let surroundings = ProviderConfig::default().with_region(Some(region.clone())).with_http_client(http);
            // A gateway is seldom an EC2 instance: asking for its metadata once, briefly, is enough to know.
            let imds = imds::Client::builder().configure(&surroundings).max_attempts(1);
            let imds = imds.connect_timeout(std::time::Duration::from_secs(1)).build();
            let chain = DefaultCredentialsChain::builder().configure(surroundings).region(region).imds_client(imds);
            SharedCredentialsProvider::new(chain.build().await)
        }
    }
}
