//! Answers: JSON for whoever asked, and for us what is to be counted.

use forebay_log_store::{Appended, Error};
use http_body_util::Full;
use hyper::{
    Response, StatusCode,
    body::Bytes,
    header::{ALLOW, CONTENT_TYPE, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE},
};
use serde::Serialize;

use super::split::{Place, Wrong};
use crate::source::Unfit;

/// When to come again while a rate limit holds, in seconds.
const SOON: u64 = 1;

/// When to come again while the log has no room, in seconds.
const LATER: u64 = 5;

/// Why a request is not answered with success.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) code: StatusCode,
    /// What it is counted as.
    pub(super) reason: &'static str,
    pub(super) body: RefusalBody,
    pub(super) retry_after_secs: Option<u64>,
}

/// What its body says.
#[derive(Debug, Serialize)]
pub(super) struct RefusalBody {
    error: String,
    /// In a body of lines: the one that is wrong, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<usize>,
    /// In another body of several records: the one that is wrong, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    record: Option<usize>,
}

impl Refusal {
    pub(super) fn new(code: StatusCode, reason: &'static str, error: impl Into<String>) -> Self {
        let body = RefusalBody { error: error.into(), line: None, record: None };
        Self { code, reason, body, retry_after_secs: None }
    }

    pub(super) fn rate_limited() -> Self {
        let message = "the rate limit of the source or of its stream leaves no room for this";
        let refusal = Self::new(StatusCode::TOO_MANY_REQUESTS, "rate-limited", message);
        Self { retry_after_secs: Some(SOON), ..refusal }
    }

    pub(super) fn not_stored(why: impl Into<String>) -> Self {
        let refusal = Self::new(StatusCode::SERVICE_UNAVAILABLE, "not-stored", why);
        Self { retry_after_secs: Some(LATER), ..refusal }
    }

    pub(super) fn of_log(error: &Error) -> Self {
        match error {
            Error::RecordTooLarge { .. } => Self::new(StatusCode::PAYLOAD_TOO_LARGE, "oversize", error.to_string()),
            Error::BadPartitionKey { .. } => Self::new(StatusCode::BAD_REQUEST, "not-storable", error.to_string()),
            _ => Self::not_stored(error.to_string()),
        }
    }

    /// Of a record of a body. The place is where its payload stands; what was decoded to several says which of these it is.
    pub(super) fn of_record(unfit: &Unfit, place: Option<Place>) -> Self {
        let refusal = match unfit {
            Unfit::Oversize { .. } => Self::new(StatusCode::PAYLOAD_TOO_LARGE, unfit.reason(), unfit.to_string()),
            Unfit::Undecodable(_) => Self::new(StatusCode::BAD_REQUEST, unfit.reason(), unfit.to_string()),
            Unfit::NotStorable(error) => Self::of_log(error),
        };
        refusal.at(place)
    }

    fn at(mut self, place: Option<Place>) -> Self {
        match place {
            Some(Place::Line(line)) => self.body.line = Some(line),
            Some(Place::Record(record)) => self.body.record = Some(record),
            None => {}
        }
        self
    }

    /// What is wrong, for the agent's own log.
    pub(super) fn message(&self) -> String {
        let RefusalBody { error, line, record } = &self.body;
        let place = line.map(|line| format!("line {line}: "));
        let place = place.or_else(|| record.map(|record| format!("record {record}: ")));
        place.unwrap_or_default() + error
    }

    pub(super) fn into_response(self, schemes: &[&'static str]) -> Response<Full<Bytes>> {
        let mut response = json(self.code, &self.body);
        let headers = response.headers_mut();
        if self.code == StatusCode::METHOD_NOT_ALLOWED {
            headers.insert(ALLOW, HeaderValue::from_static("POST"));
        }
        if self.code == StatusCode::UNAUTHORIZED {
            for scheme in schemes {
                headers.append(WWW_AUTHENTICATE, HeaderValue::from_static(scheme));
            }
        }
        if let Some(seconds) = self.retry_after_secs {
            headers.insert(RETRY_AFTER, seconds.into());
        }
        response
    }
}

impl From<Wrong> for Refusal {
    fn from(Wrong { place, message, too_large }: Wrong) -> Self {
        let (code, reason) = if too_large {
            (StatusCode::PAYLOAD_TOO_LARGE, "oversize")
        } else {
            (StatusCode::BAD_REQUEST, "malformed")
        };
        Self::new(code, reason, message).at(place)
    }
}

/// What was stored.
#[derive(Debug, Serialize)]
struct Stored {
    records: u64,
    /// Where: records of one shard, numbered one after the other.
    stored: Vec<Run>,
}

#[derive(Debug, Serialize)]
struct Run {
    shard: String,
    first_sequence_number: u64,
    last_sequence_number: u64,
}

/// The answer to a request whose records are durable.
pub(super) fn stored(appended: &Appended) -> Response<Full<Bytes>> {
    let runs = appended.runs.iter().filter(|run| run.records > 0);
    let stored: Vec<_> = runs
        .clone()
        .map(|run| Run {
            shard: run.shard.to_string(),
            first_sequence_number: run.first.0,
            last_sequence_number: run.first.0 + u64::from(run.records) - 1,
        })
        .collect();
    let records = runs.map(|run| u64::from(run.records)).sum();
    json(StatusCode::OK, &Stored { records, stored })
}

fn json(code: StatusCode, body: &impl Serialize) -> Response<Full<Bytes>> {
    let text = serde_json::to_vec(body).expect("numbers and texts are JSON");
    let mut response = Response::new(Full::from([text, b"\n".to_vec()].concat()));
    *response.status_mut() = code;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
