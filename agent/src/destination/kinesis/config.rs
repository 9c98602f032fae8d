//! How a Kinesis data stream is reached.

use std::{net::IpAddr, path::PathBuf, time::Duration};

use axum::http::Uri;
use serde::Deserialize;

use super::{Aggregation, Compress, Packing, TagName, Tags};
use crate::{
    config::{Problems, duration, size},
    destination::Origin,
    tls::ClientFiles,
};

/// Kinesis' own bounds for the size of a record (`UpdateMaxRecordSize`).
const MAX_RECORD: std::ops::RangeInclusive<u64> = 1 << 10..=10 << 20;

/// Ten units that Kinesis charges: larger ones save nothing more, and a throttled one costs more to send again.
const AGGREGATE_BYTES: u64 = 250_000;

/// What a record of the wire has around an aggregate: its own partition key, and what gzip may add.
const AROUND_AGGREGATE: u64 = 8 << 10;

/// The settings of a `kinesis` destination.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Config {
    /// The stream's name.
    pub stream: Option<String>,
    /// Such as `"eu-west-1"`.
    pub region: Option<String>,
    /// In place of AWS itself, such as `"http://127.0.0.1:4568"`.
    pub endpoint: Option<String>,
    /// Where the credentials come from; left out: `"placeholder"` for an endpoint on loopback, else `"default"`.
    pub credentials: Option<Credentials>,
    /// PEM file with the authorities to trust, in place of the system's.
    pub ca_file: Option<PathBuf>,
    /// The largest record (key and data) that the stream takes. AWS: 1 MiB unless raised, at most 10 MiB.
    #[serde(with = "size")]
    pub max_record: u64,
    /// Whether records share a record of the wire: docs/aggregation.md.
    pub aggregation: Aggregation,
    /// The most data of an aggregate, before it is compressed.
    #[serde(with = "size")]
    pub aggregate_bytes: u64,
    /// What rides with each record of a `kpl` aggregate.
    pub aggregate_tags: Vec<TagName>,
    /// How the data of `lines` is compressed.
    pub compress: Compress,
    /// `kpl`: how often the stream is asked for its shards, beside when something speaks for others.
    #[serde(with = "duration")]
    pub shard_refresh: Duration,
    /// How long to wait for a connection.
    #[serde(with = "duration")]
    pub connect_timeout: Duration,
    /// How long to wait for an answer; after that the request is sent again.
    #[serde(with = "duration")]
    pub request_timeout: Duration,
}

/// Where credentials come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Credentials {
    /// The SDK's chain: environment, profile files, web identity, container, instance metadata.
    Default,
    /// Fixed and worthless ones, for local stand-ins that want any at all. Real ones are then never sent to them.
    Placeholder,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            stream: None,
            region: None,
            endpoint: None,
            credentials: None,
            ca_file: None,
            max_record: 1 << 20,
            aggregation: Aggregation::None,
            aggregate_bytes: AGGREGATE_BYTES,
            aggregate_tags: Vec::new(),
            compress: Compress::None,
            shard_refresh: Duration::from_secs(600),
            connect_timeout: Duration::from_secs(3),
            request_timeout: Duration::from_secs(30),
        }
    }
}

impl Config {
    /// Notes what is missing or cannot be.
    pub fn validate(&self, path: &str, problems: &mut Problems) {
        match &self.stream {
            None => problems.add(format!("{path}.stream"), "is missing: the name of the Kinesis stream"),
            Some(name) if !is_stream_name(name) => problems.add(
                format!("{path}.stream"),
                format!("`{name}` cannot be a Kinesis stream: 1 to 128 characters of a-z A-Z 0-9 _ . -"),
            ),
            Some(_) => {}
        }
        match &self.region {
            None => problems.add(format!("{path}.region"), "is missing: such as \"eu-west-1\""),
            Some(region) if region.is_empty() => problems.add(format!("{path}.region"), "is empty"),
            Some(_) => {}
        }
        if let Some(endpoint) = &self.endpoint
            && host(endpoint).is_none()
        {
            problems.add(
                format!("{path}.endpoint"),
                format!(
                    "`{endpoint}` is no endpoint: an address such as \"https://kinesis.example.com:4567\" is needed"
                ),
            );
        }
        if let Some(ca) = &self.ca_file {
            ClientFiles { ca: Some(ca), ..ClientFiles::default() }.validate(path, problems);
        }
        if !MAX_RECORD.contains(&self.max_record) {
            let (min, max) = (size::show(*MAX_RECORD.start()), size::show(*MAX_RECORD.end()));
            problems.add(format!("{path}.max-record"), format!("must be {min} to {max}"));
        }
        self.validate_aggregation(path, problems);
        for (key, value) in [("connect-timeout", self.connect_timeout), ("request-timeout", self.request_timeout)] {
            if value < Duration::from_millis(100) || value > Duration::from_secs(600) {
                problems.add(format!("{path}.{key}"), "must be 100ms to 10m");
            }
        }
    }

    fn validate_aggregation(&self, path: &str, problems: &mut Problems) {
        let (min, max) = (1 << 10, self.max_record.saturating_sub(AROUND_AGGREGATE).max(1 << 10));
        // What is not said follows a small `max-record`, see `packing`.
        if self.aggregate_bytes != AGGREGATE_BYTES && !(min..=max).contains(&self.aggregate_bytes) {
            let (min, max) = (size::show(min), size::show(max));
            let why = format!("must be {min} to {max}, which is what max-record leaves it");
            problems.add(format!("{path}.aggregate-bytes"), why);
        }
        if self.aggregation != Aggregation::Kpl && !self.aggregate_tags.is_empty() {
            problems
                .add(format!("{path}.aggregate-tags"), "is for aggregation = \"kpl\"; nothing else has room for tags");
        }
        if self.aggregation != Aggregation::Lines && self.compress != Compress::None {
            let why =
                "is for aggregation = \"lines\": other records go as they are, or in a format that is not compressed";
            problems.add(format!("{path}.compress"), why);
        }
        if self.shard_refresh < Duration::from_secs(10) || self.shard_refresh > Duration::from_secs(24 * 3600) {
            problems.add(format!("{path}.shard-refresh"), "must be 10s to 24h");
        }
    }

    /// How records of this origin become records of the wire.
    pub(super) fn packing(&self, origin: &Origin<'_>) -> Packing {
        Packing {
            aggregation: self.aggregation,
            gzip: self.compress == Compress::Gzip,
            tags: Tags::new(&self.aggregate_tags, origin.gateway, origin.stream),
            aggregate_bytes: self.aggregate_bytes.min(self.max_record.saturating_sub(AROUND_AGGREGATE)).max(256),
            max_record: self.max_record,
        }
    }

    /// What it is, in a few words.
    #[must_use]
    pub fn describe(&self) -> String {
        let stream = self.stream.as_deref().unwrap_or_default();
        let region = self.region.as_deref().unwrap_or_default();
        match &self.endpoint {
            Some(endpoint) => format!("kinesis stream {stream} at {endpoint}"),
            None => format!("kinesis stream {stream} in {region}"),
        }
    }

    /// Where credentials come from, when nothing was said about it.
    pub(super) fn credentials(&self) -> Credentials {
        self.credentials.unwrap_or_else(|| {
            let local = self.endpoint.as_deref().and_then(host).is_some_and(|host| is_loopback(&host));
            if local { Credentials::Placeholder } else { Credentials::Default }
        })
    }
}

fn is_stream_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    (1..=128).contains(&name.len()) && name.bytes().all(allowed)
}

/// The host of an `http` or `https` address.
fn host(endpoint: &str) -> Option<String> {
    let uri: Uri = endpoint.parse().ok()?;
    let http = matches!(uri.scheme_str(), Some("http" | "https"));
    uri.host().filter(|host| http && !host.is_empty()).map(str::to_owned)
}

fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || bare.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::reader;

    fn read(text: &str) -> (Config, Vec<String>) {
        let mut problems = Problems::default();
        let table = toml::from_str(text).expect("TOML");
        let config: Config = reader::read(table, "destinations.cloud", &[], &mut problems).expect("a table");
        config.validate("destinations.cloud", &mut problems);
        (config, problems.list().iter().map(ToString::to_string).collect())
    }

    #[test]
    fn real_credentials_are_never_sent_to_a_local_stand_in() {
        let with =
            |endpoint: &str| read(&format!("stream = 's'\nregion = 'r'\nendpoint = '{endpoint}'")).0.credentials();
        for local in ["http://127.0.0.1:4568", "http://localhost:4568", "http://[::1]:4568"] {
            assert_eq!(with(local), Credentials::Placeholder, "{local}");
        }
        assert_eq!(with("https://kinesis.example.com"), Credentials::Default);
        assert_eq!(read("stream = 's'\nregion = 'r'").0.credentials(), Credentials::Default);
        let asked = read("stream = 's'\nregion = 'r'\nendpoint = 'http://127.0.0.1:1'\ncredentials = 'default'");
        assert_eq!(asked.0.credentials(), Credentials::Default);
    }

    #[test]
    fn every_mistake_is_told() {
        let (_, problems) =
            read("stream = 'no good'\nendpoint = 'example.com'\nmax-record = '11MiB'\nrequest-timeout = '1h'");
        assert_eq!(problems.len(), 5, "{problems:#?}");
    }
}
