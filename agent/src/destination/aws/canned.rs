//! For tests and fuzzing: an endpoint of AWS that answers anything, without a socket, and another reading of what it said.

use std::sync::{Arc, Mutex, PoisonError};

use aws_smithy_runtime_api::client::{
    http::{HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector},
    orchestrator::{HttpRequest, HttpResponse},
    result::ConnectorError,
    runtime_components::RuntimeComponents,
};
use aws_smithy_types::body::SdkBody;
use ciborium::Value;
use hyper::{Response, StatusCode, header::HeaderValue};

use super::Encoding;
use crate::destination::{
    Outcome, RecordOutcome,
    failure::{MESSAGE_CHARS_MAX, RETRY_AFTER_MAX},
};

/// More than forebay's own words around what an endpoint says.
const WORDS_MAX: usize = 200;

/// What the endpoint says to each request.
#[derive(Debug, Clone)]
pub(in crate::destination) struct Said {
    /// How the request was written.
    pub(in crate::destination) asked: Encoding,
    pub(in crate::destination) status: u16,
    pub(in crate::destination) headers: Vec<(&'static str, Vec<u8>)>,
    pub(in crate::destination) body: Vec<u8>,
}

impl Said {
    /// What a fuzzer's bytes stand for: the first says how it was asked and what the answer says of itself, the second chooses
    /// the status, and the body follows, behind a line for the headers if they are to be anything.
    pub(in crate::destination) fn of(bytes: &[u8]) -> Option<Self> {
        let [how, status, rest @ ..] = bytes else { return None };
        let asked = if how & 1 == 0 { Encoding::Json } else { Encoding::Cbor };
        let status = [200, 200, 200, 201, 400, 413, 429, 503][usize::from(status % 8)];
        let content_type = |encoding: Encoding| vec![("content-type", encoding.content_type().into())];
        let (headers, body) = match (how >> 1) & 3 {
            0 => (content_type(asked), rest),
            1 => (Vec::new(), rest),
            2 => (content_type(if asked == Encoding::Json { Encoding::Cbor } else { Encoding::Json }), rest),
            _ => {
                let end = rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len());
                let names = ["content-type", "x-amzn-errortype", "retry-after"];
                (names.map(|name| (name, rest[..end].to_vec())).into(), rest.get(end + 1..).unwrap_or_default())
            }
        };
        Some(Self { asked, status, headers, body: body.to_vec() })
    }

    pub(in crate::destination) fn well(asked: Encoding, body: &str) -> Self {
        Self { asked, status: 200, headers: Vec::new(), body: body.into() }
    }

    fn encoding(&self) -> Encoding {
        let content_type = self.headers.iter().find(|(name, _)| *name == "content-type");
        self.asked.of_answer(content_type.and_then(|(_, value)| std::str::from_utf8(value).ok()))
    }

    fn response(&self) -> Result<HttpResponse, ConnectorError> {
        let mut response = Response::new(SdkBody::from(self.body.clone()));
        *response.status_mut() = StatusCode::from_u16(self.status).expect("a status");
        for (name, value) in &self.headers {
            // Nobody can send any other.
            if let Ok(value) = HeaderValue::from_bytes(value) {
                response.headers_mut().insert(*name, value);
            }
        }
        HttpResponse::try_from(response).map_err(|error| ConnectorError::other(error.into(), None))
    }
}

/// An HTTP client for the SDK.
#[derive(Debug, Clone, Default)]
pub(in crate::destination) struct Canned(Arc<Mutex<Vec<Said>>>);

impl Canned {
    /// What it says from now on: one after the other, and the last for ever.
    pub(in crate::destination) fn say(&self, mut answers: Vec<Said>) {
        answers.reverse();
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = answers;
    }
}

impl HttpClient for Canned {
    fn http_connector(&self, _: &HttpConnectorSettings, _: &RuntimeComponents) -> SharedHttpConnector {
        SharedHttpConnector::new(self.clone())
    }
}

impl HttpConnector for Canned {
    fn call(&self, _: HttpRequest) -> HttpConnectorFuture {
        let mut answers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let said = if answers.len() > 1 { answers.pop() } else { answers.last().cloned() };
        HttpConnectorFuture::ready(said.expect("it was told what to say").response())
    }
}

/// Sees that an outcome goes no further than what was said: `list` is what the entries are called, `proof` what each of a record
/// has that was taken.
pub(in crate::destination) fn check(said: &Said, outcome: &Outcome, sent: usize, list: &str, proof: &str) {
    let outcomes = match outcome {
        Outcome::Answered(outcomes) => outcomes,
        Outcome::Failed(failure) => {
            let chars = failure.message.chars().count();
            assert!((1..=MESSAGE_CHARS_MAX + WORDS_MAX).contains(&chars), "{failure}");
            assert!(failure.retry_after.is_none_or(|time| time <= RETRY_AFTER_MAX), "{failure:?}");
            return;
        }
    };
    assert!((200..300).contains(&said.status), "{said:?} is no success: {outcomes:?}");
    assert_eq!(outcomes.len(), sent);
    // What only one of the readings understands, because it is nested too deep for the other one say, cannot be compared.
    let Some(body) = read(&said.body, said.encoding()) else { return };
    let entries = members(&body, list).next().and_then(Value::as_array).expect("it was read");
    assert_eq!(entries.len(), sent, "{body:?}");
    for (outcome, entry) in outcomes.iter().zip(entries) {
        match outcome {
            RecordOutcome::Accepted | RecordOutcome::Astray => {
                assert!(members(entry, proof).any(Value::is_text), "{outcome:?} by {entry:?}");
                assert!(members(entry, "ErrorCode").all(Value::is_null), "{outcome:?} by {entry:?}");
            }
            RecordOutcome::Throttled(why) | RecordOutcome::Failed(why) => {
                assert!((1..=MESSAGE_CHARS_MAX + WORDS_MAX).contains(&why.chars().count()), "{why}");
            }
            RecordOutcome::Rejected(_) => panic!("AWS refuses no record for ever"),
        }
    }
}

/// A body, by another reader than the one that counts.
pub(in crate::destination) fn read(body: &[u8], encoding: Encoding) -> Option<Value> {
    match encoding {
        Encoding::Json => serde_json::from_slice(body).ok(),
        Encoding::Cbor => ciborium::from_reader(body).ok(),
    }
}

/// All that an object says by this name.
pub(in crate::destination) fn members<'a>(object: &'a Value, name: &str) -> impl Iterator<Item = &'a Value> {
    let members = object.as_map().map(Vec::as_slice).unwrap_or_default();
    members.iter().filter(move |(key, _)| key.as_text() == Some(name)).map(|(_, value)| value)
}
