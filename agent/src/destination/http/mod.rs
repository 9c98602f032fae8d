//! Endpoints that take records by the specification for HTTP endpoints of Amazon Data Firehose, as many products do.
//!
//! A request is taken whole or not at all, so it may hold any number of records of a key, in their order. The stream is sent
//! in lanes side by side; each key is of one lane, whose requests leave one behind the other.

mod config;
mod reply;
mod request;
#[cfg(test)]
mod tests;

use std::{
    error::Error,
    sync::Arc,
    time::{Duration, SystemTime},
};

use forebay_log_store::Record;
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::{
    HeaderMap, Method, Request, StatusCode,
    body::Bytes,
    header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderName, HeaderValue, USER_AGENT},
    http::Uri,
};
use hyper_util::client::legacy::Client;

pub use self::config::{Compression, Config};
#[cfg(any(test, fuzzing))]
pub use self::reply::fuzz;
use super::{Failure, FailureKind, Limits, Origin, Outcome, Parcel, Place, RecordOutcome, hash, transport_error};
use crate::{
    config::Problems,
    credentials::KnownTime,
    outgoing::{self, Connector, Outgoing, WireBytes, http_address},
};

/// The specification: 1 to 10,000 records, 64 MiB before it is packed.
const REQUEST_RECORDS: usize = 10_000;
pub(super) const REQUEST_BYTES: u64 = (64 << 20) - (1 << 10);

const ACCESS_KEY: HeaderName = HeaderName::from_static("x-amz-firehose-access-key");
const COMMON_ATTRIBUTES: HeaderName = HeaderName::from_static("x-amz-firehose-common-attributes");
const PROTOCOL_VERSION: HeaderName = HeaderName::from_static("x-amz-firehose-protocol-version");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-amz-firehose-request-id");
const SOURCE_ARN: HeaderName = HeaderName::from_static("x-amz-firehose-source-arn");

/// An endpoint to post records to.
pub struct Http {
    client: Client<Connector, Full<Bytes>>,
    wire: Arc<WireBytes>,
    url: Uri,
    /// The same with each request.
    headers: HeaderMap,
    /// What makes the ids of requests ours.
    origin: String,
    gzip: bool,
    lanes: u16,
    request_timeout: Duration,
}

impl std::fmt::Debug for Http {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Http").field("url", &self.url).finish_non_exhaustive()
    }
}

impl Http {
    /// A client with validated settings. Nothing is sent yet.
    ///
    /// # Errors
    /// A password or the access key cannot be read (any more).
    pub fn open(config: &Config, origin: &Origin<'_>, time: &Arc<KnownTime>) -> anyhow::Result<Self> {
        let outgoing = Outgoing::open(&config.outgoing)?.judged_by(Arc::clone(time) as _);
        let mut problems = Problems::default();
        let access_key = config.access_key("", &mut problems);
        if let Some(problem) = problems.list().first() {
            anyhow::bail!("{}", problem.to_string().trim_start_matches('.'));
        }
        let url = config.url.as_deref().and_then(http_address);
        Ok(Self {
            client: outgoing.client(),
            wire: outgoing.wire_bytes(),
            url: url.ok_or_else(|| anyhow::anyhow!("`url` is no address"))?,
            headers: headers(config, origin, access_key)?,
            origin: format!("{}\0{}", origin.gateway, origin.stream),
            gzip: config.compression == Compression::Gzip,
            lanes: config.lanes,
            request_timeout: config.outgoing.request_timeout,
        })
    }

    pub(super) fn wire_bytes(&self) -> Arc<WireBytes> {
        Arc::clone(&self.wire)
    }

    pub(super) fn limits(&self) -> Limits {
        let lanes = usize::from(self.lanes);
        Limits {
            // One of each lane; all together hold no more records than a request may.
            request_records: lanes,
            request_bytes: REQUEST_BYTES,
            parcel_records: REQUEST_RECORDS / lanes,
            parcel_bytes: REQUEST_BYTES,
            // Its id is that of its records.
            keeps_requests: true,
            request_timeout: self.request_timeout,
        }
    }

    pub(super) fn accepts(&self, record: &Record) -> Result<(), String> {
        let bytes = request::bytes_of(record.data.len());
        if bytes > REQUEST_BYTES {
            return Err(format!("the record takes {bytes} bytes of a request, which has {REQUEST_BYTES}"));
        }
        Ok(())
    }

    pub(super) fn place(&self, record: &Record) -> Place {
        Place { lane: hash(&record.partition_key) % u64::from(self.lanes), bytes: request::bytes_of(record.data.len()) }
    }

    pub(super) async fn send(&self, parcels: &[Parcel]) -> Outcome {
        let id = request::id(&self.origin, parcels);
        match tokio::time::timeout(self.request_timeout, self.post(&id, parcels)).await {
            Ok(Ok(())) => Outcome::Answered(vec![RecordOutcome::Accepted; parcels.len()]),
            Ok(Err(failure)) => Outcome::Failed(failure),
            Err(_) => Outcome::Failed(failed(FailureKind::TimedOut, "no answer in time".to_owned())),
        }
    }

    async fn post(&self, id: &str, parcels: &[Parcel]) -> Result<(), Failure> {
        let body = {
            let (id, parcels, gzip, now) = (id.to_owned(), parcels.to_vec(), self.gzip, now_ms());
            // Megabytes are packed where nobody else waits for it.
            tokio::task::spawn_blocking(move || request::body(&id, now, &parcels, gzip))
        };
        let body = body.await.map_err(|panic| failed(FailureKind::EndpointFailed, panic.to_string()))?;
        let body = body.map_err(|error| failed(FailureKind::EndpointFailed, format!("cannot pack it: {error}")))?;
        let mut request = Request::new(Full::from(body));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.url.clone();
        *request.headers_mut() = self.headers.clone();
        let value = HeaderValue::from_str(id).expect("hexadecimal digits are a sound value");
        request.headers_mut().insert(REQUEST_ID, value);

        let unreachable =
            |error: &(dyn Error + 'static)| failed(transport_error::kind(error), transport_error::message(error));
        let response = outgoing::ask(&self.client, request).await.map_err(|error| unreachable(&error))?;
        let (head, body) = response.into_parts();
        let body = match Limited::new(body, reply::BYTES_MAX).collect().await {
            Ok(body) => body.to_bytes(),
            Err(error) if error.is::<LengthLimitError>() => return Err(reply::too_long()),
            // What it says of the size holds, whether it can be read or not.
            Err(_) if head.status == StatusCode::PAYLOAD_TOO_LARGE => Bytes::new(),
            Err(error) => return Err(unreachable(&*error)),
        };
        reply::read(id, head.status, &head.headers, &body)
    }
}

/// What each request says of itself.
fn headers(config: &Config, origin: &Origin<'_>, access_key: Option<HeaderValue>) -> anyhow::Result<HeaderMap> {
    let arn = config.source_arn.clone().unwrap_or_else(|| {
        let plain = |name: &str| name.replace(|c: char| !c.is_ascii_alphanumeric() && !"_.-".contains(c), "-");
        let (gateway, stream) = (plain(origin.gateway), plain(origin.stream));
        format!("arn:forebay:firehose:{gateway}:000000000000:deliverystream/{stream}")
    });
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(USER_AGENT, HeaderValue::from_static(concat!("forebay/", env!("CARGO_PKG_VERSION"))));
    headers.insert(PROTOCOL_VERSION, HeaderValue::from_static("1.0"));
    headers.insert(SOURCE_ARN, HeaderValue::from_str(&arn)?);
    if config.compression == Compression::Gzip {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    if !config.common_attributes.is_empty() {
        let attributes = serde_json::json!({ "commonAttributes": config.common_attributes }).to_string();
        headers.insert(COMMON_ATTRIBUTES, HeaderValue::from_bytes(attributes.as_bytes())?);
    }
    if let Some(key) = access_key {
        headers.insert(ACCESS_KEY, key);
    }
    Ok(headers)
}

fn failed(kind: FailureKind, message: String) -> Failure {
    Failure { kind, message, retry_after: None }
}

#[expect(clippy::disallowed_methods, reason = "the receiver is told when the request was made, by our clock")]
fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
