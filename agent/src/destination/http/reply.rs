//! What a reply means, by the specification for HTTP endpoints of Firehose. Pure.

use hyper::{
    HeaderMap, StatusCode,
    header::{CONTENT_ENCODING, CONTENT_TYPE, LOCATION, RETRY_AFTER},
};
use serde::Deserialize;

use crate::destination::{
    Failure, FailureKind,
    failure::{retry_after, shorten},
};

/// A longer reply is none.
pub(super) const BYTES_MAX: usize = 1 << 20;

/// What the endpoint says.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Reply {
    request_id: String,
    #[expect(dead_code, reason = "a reply without one is none")]
    timestamp: u64,
    error_message: Option<String>,
}

/// Whether a reply says that all records of a request are taken.
///
/// # Errors
/// Why not.
pub(super) fn read(id: &str, status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Result<(), Failure> {
    let wait = retry_after(headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()));
    let failed = |kind, message: String| Failure { kind, message: shorten(message), retry_after: wait };
    let reply = sound(id, headers, body);
    if status == StatusCode::OK {
        return match reply {
            Ok(_) => Ok(()),
            Err(fault) => {
                Err(failed(FailureKind::EndpointFailed, format!("its reply is none: {fault}{}", shown(body))))
            }
        };
    }
    let said = match &reply {
        Ok(reply) => format!(": {}", reply.error_message.as_deref().unwrap_or("no reason given")),
        Err(_) => shown(body),
    };
    let kind = match (status.as_u16(), reply.is_ok()) {
        // Whoever is in between may say these, and they hold all the same. Who says so of a single record may say it of all:
        // only the delivery, which sees whether others are taken, judges it.
        (413, _) => FailureKind::RequestInvalid,
        (429, _) => FailureKind::Throttled,
        (401 | 403, _) => FailureKind::CredentialsRefused,
        // These are only believed of somebody who has read the request.
        (400 | 422, true) => FailureKind::RequestInvalid,
        (404 | 410, true) => FailureKind::Misconfigured,
        (300..=399, _) => {
            let to = headers.get(LOCATION).and_then(|to| to.to_str().ok()).unwrap_or("nowhere");
            let message = format!("it answers {status} and sends us to {to}, where records are not sent unasked");
            return Err(failed(FailureKind::EndpointFailed, message));
        }
        _ => FailureKind::EndpointFailed,
    };
    Err(failed(kind, format!("it answers {status}{said}")))
}

/// A reply as it is to be.
fn sound(id: &str, headers: &HeaderMap, body: &[u8]) -> Result<Reply, String> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let kind = text(CONTENT_TYPE).unwrap_or("nothing");
    let essence = kind.split(';').next().unwrap_or_default().trim();
    if !essence.eq_ignore_ascii_case("application/json") {
        return Err(format!("its content type is {kind}, not application/json"));
    }
    if let Some(encoding) = text(CONTENT_ENCODING).filter(|encoding| !encoding.eq_ignore_ascii_case("identity")) {
        return Err(format!("its content encoding is {encoding}, where none is allowed"));
    }
    let reply: Reply = serde_json::from_slice(body).map_err(|error| format!("it is no JSON of its kind ({error})"))?;
    if reply.request_id != id {
        return Err(format!("it is about request {}, not {id}", shorten(reply.request_id)));
    }
    Ok(reply)
}

/// How a body begins, so that a person recognises a captive portal.
fn shown(body: &[u8]) -> String {
    const BEGINNING: usize = 120;
    let text = String::from_utf8_lossy(&body[..body.len().min(BEGINNING)]);
    let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if words.is_empty() { String::new() } else { format!(": {words}") }
}

/// For what comes instead of a reply that is too long.
pub(super) fn too_long() -> Failure {
    let message = format!("its reply has more than {BYTES_MAX} bytes");
    Failure { kind: FailureKind::EndpointFailed, message, retry_after: None }
}

/// For fuzzing: the first bytes choose the status and what the reply says of itself, behind which it follows.
#[cfg(any(test, fuzzing))]
pub fn fuzz(bytes: &[u8]) {
    use hyper::header::HeaderValue;

    const WORDS_MAX: usize = crate::destination::failure::MESSAGE_CHARS_MAX + 1;
    let [status, how, rest @ ..] = bytes else { return };
    let status = [200, 200, 200, 202, 302, 400, 401, 404, 413, 422, 429, 500][usize::from(status % 12)];
    let status = StatusCode::from_u16(status).expect("a status");
    let mut headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("application/json"))]);
    let mut body = rest;
    if how % 2 == 1 {
        let end = rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len());
        body = rest.get(end + 1..).unwrap_or_default();
        let name = [CONTENT_TYPE, CONTENT_ENCODING, LOCATION, RETRY_AFTER][usize::from(how / 2 % 4)].clone();
        if let Ok(value) = HeaderValue::from_bytes(&rest[..end]) {
            headers.insert(name, value);
        }
    }
    match read("the-id", status, &headers, body) {
        Err(failure) => {
            assert!((1..=WORDS_MAX).contains(&failure.message.chars().count()), "{failure}");
            assert!(failure.retry_after.is_none_or(|time| time <= crate::destination::RETRY_AFTER_MAX), "{failure:?}");
        }
        Ok(()) => {
            assert_eq!(status, StatusCode::OK);
            // What is nested too deep for this reader cannot be compared.
            let Ok(reply) = serde_json::from_slice::<serde_json::Value>(body) else { return };
            assert_eq!(reply["requestId"], "the-id");
            assert!(reply["timestamp"].is_u64(), "{reply}");
        }
    }
}

#[cfg(test)]
mod tests {
    use hyper::http::HeaderValue;

    use super::*;

    fn ask(status: u16, kind: &'static str, body: &str) -> Result<(), Failure> {
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(kind))]);
        read("the-id", StatusCode::from_u16(status).expect("a status"), &headers, body.as_bytes())
    }

    const JSON: &str = "application/json";
    const GOOD: &str = r#"{"requestId":"the-id","timestamp":1578090903599}"#;

    #[test]
    fn only_what_is_wholly_right_confirms_anything() {
        ask(200, JSON, GOOD).expect("right");
        ask(200, "Application/JSON; charset=utf-8", GOOD).expect("right");
        for (kind, body, words) in [
            ("text/html", GOOD, "content type is text/html"),
            ("application/jsonp", GOOD, "content type"),
            (JSON, r#"{"requestId":"another","timestamp":1}"#, "about request another"),
            (JSON, r#"{"requestId":"the-id"}"#, "timestamp"),
            (JSON, r#"{"requestId":"the-id","timestamp":"now"}"#, "no JSON of its kind"),
            (JSON, "", "no JSON of its kind"),
            (JSON, "[]", "no JSON of its kind"),
        ] {
            let failure = ask(200, kind, body).expect_err("not right");
            assert_eq!(failure.kind, FailureKind::EndpointFailed, "{body}");
            assert!(failure.message.contains(words), "{body}: {failure}");
        }
        let encoded = HeaderMap::from_iter([
            (CONTENT_TYPE, HeaderValue::from_static(JSON)),
            (CONTENT_ENCODING, HeaderValue::from_static("gzip")),
        ]);
        read("the-id", StatusCode::OK, &encoded, GOOD.as_bytes()).expect_err("encoded");
    }

    #[test]
    fn refusals_are_told_apart() {
        let sorry = r#"{"requestId":"the-id","timestamp":1,"errorMessage":"sorry"}"#;
        for (status, kind, body, expected) in [
            (413, "text/html", "<html>", FailureKind::RequestInvalid),
            (429, "text/plain", "", FailureKind::Throttled),
            (401, JSON, sorry, FailureKind::CredentialsRefused),
            (403, "text/html", "", FailureKind::CredentialsRefused),
            (400, JSON, sorry, FailureKind::RequestInvalid),
            (400, "text/html", "<html>", FailureKind::EndpointFailed),
            (404, JSON, sorry, FailureKind::Misconfigured),
            (404, "text/html", "<html>", FailureKind::EndpointFailed),
            (302, "text/html", "<html>", FailureKind::EndpointFailed),
            (201, JSON, GOOD, FailureKind::EndpointFailed),
            (500, JSON, sorry, FailureKind::EndpointFailed),
        ] {
            let failure = ask(status, kind, body).expect_err("a refusal");
            assert_eq!(failure.kind, expected, "{status} {kind}");
            assert_eq!(failure.message.contains("sorry"), body == sorry, "{failure}");
        }
    }
}
