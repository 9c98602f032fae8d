//! What an answer, or the lack of one, means. Pure.

use std::{error::Error, time::Duration};

use aws_sdk_kinesis::{
    error::{DisplayErrorContext, ProvideErrorMetadata, SdkError},
    operation::put_records::{PutRecordsError, PutRecordsOutput},
};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;

use crate::destination::{Failure, FailureKind, Outcome, RecordOutcome};

/// A whole page of HTML helps nobody.
const MESSAGE_CHARS_MAX: usize = 400;
/// An endpoint that wants to be left alone for longer is asked again all the same.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(300);

/// What became of a request that was answered in the service's own words.
pub(super) fn answered(output: &PutRecordsOutput, sent: usize) -> Outcome {
    if output.records.len() != sent {
        let message = format!("the answer speaks of {} records, but {sent} were sent", output.records.len());
        return Outcome::Failed(Failure { kind: FailureKind::EndpointFailed, message, retry_after: None });
    }
    let outcomes = output.records.iter().map(|record| match record.error_code.as_deref() {
        Some(code) => {
            let message = shorten(format!("{code}: {}", record.error_message.as_deref().unwrap_or("no reason given")));
            // These two are all that Kinesis knows; what others may invent passes, or is found out by asking again.
            if is_throttling(code) { RecordOutcome::Throttled(message) } else { RecordOutcome::Failed(message) }
        }
        None if record.sequence_number.is_some() => RecordOutcome::Accepted,
        None => RecordOutcome::Failed("the answer has neither a sequence number nor an error for it".into()),
    });
    Outcome::Answered(outcomes.collect())
}

/// Why a request failed as a whole.
pub(super) fn failed(error: &SdkError<PutRecordsError, HttpResponse>) -> Failure {
    let response = error.raw_response();
    let retry_after = response
        .and_then(|response| response.headers().get("retry-after"))
        .and_then(|seconds| seconds.trim().parse().ok())
        .map(|seconds| Duration::from_secs(seconds).min(RETRY_AFTER_MAX));
    let status = response.map(|response| response.status().as_u16());
    let (kind, message) = match error {
        SdkError::ServiceError(answer) => match answer.err().code() {
            Some(code) => {
                let said = answer.err().message().unwrap_or("no reason given");
                (of_code(code, said, status), format!("{code}: {said}"))
            }
            None => (of_status(status), no_answer(status, response)),
        },
        SdkError::ResponseError(_) => (FailureKind::EndpointFailed, no_answer(status, response)),
        SdkError::TimeoutError(_) => (FailureKind::Unreachable, "no answer in time".to_owned()),
        other if is_about_credentials(other) => {
            (FailureKind::Unauthorised, format!("no credentials: {}", innermost(other)))
        }
        SdkError::DispatchFailure(_) if is_from_the_future(error) => (
            FailureKind::Clock,
            format!("the endpoint's certificate is not valid yet by our clock: {}", innermost(error)),
        ),
        SdkError::DispatchFailure(_) => (FailureKind::Unreachable, innermost(error)),
        // A request that cannot even be made: an endpoint or a region that is no name, say.
        other => (FailureKind::Misconfigured, format!("{}", DisplayErrorContext(other))),
    };
    Failure { kind, message: shorten(message), retry_after }
}

fn of_code(code: &str, said: &str, status: Option<u16>) -> FailureKind {
    // The codes that the service model and the common errors of AWS have, with or without "Exception" at the end.
    match code.strip_suffix("Exception").unwrap_or(code) {
        _ if is_throttling(code) => FailureKind::Throttled,
        "RequestTimeTooSkewed" | "RequestExpired" | "RequestInTheFuture" => FailureKind::Clock,
        "InvalidSignature" | "SignatureDoesNotMatch" if is_about_time(said) => FailureKind::Clock,
        "AccessDenied"
        | "UnrecognizedClient"
        | "InvalidSignature"
        | "SignatureDoesNotMatch"
        | "ExpiredToken"
        | "IncompleteSignature"
        | "MissingAuthenticationToken"
        | "InvalidClientTokenId"
        | "NotAuthorized"
        | "OptInRequired"
        | "KMSAccessDenied"
        | "KMSOptInRequired" => FailureKind::Unauthorised,
        "ResourceNotFound" | "UnknownOperation" | "InvalidAction" | "KMSNotFound" | "KMSDisabled"
        | "KMSInvalidState" | "ResourceInUse" => FailureKind::Misconfigured,
        "Validation" | "ValidationError" | "InvalidArgument" | "Serialization" | "InvalidParameterValue" => {
            FailureKind::Invalid
        }
        _ => match status {
            Some(401 | 403) => FailureKind::Unauthorised,
            Some(404) => FailureKind::Misconfigured,
            Some(413) => FailureKind::Invalid,
            Some(429) => FailureKind::Throttled,
            _ => FailureKind::EndpointFailed,
        },
    }
}

/// An answer that is none may come from something in between. What it says of the request's size or number holds all the
/// same; that it does not know or want us does not: so speaks a captive portal, too.
fn of_status(status: Option<u16>) -> FailureKind {
    match status {
        Some(413) => FailureKind::Invalid,
        Some(429) => FailureKind::Throttled,
        _ => FailureKind::EndpointFailed,
    }
}

/// Whether a refused signature is one of another time: "Signature expired: 20200101T000000Z is now earlier than ..." and
/// "Signature not yet current: ...". The SDK measures the difference by such an answer, and signs the next request right.
fn is_about_time(said: &str) -> bool {
    said.contains("Signature expired") || said.contains("Signature not yet current")
}

fn is_throttling(code: &str) -> bool {
    matches!(
        code.strip_suffix("Exception").unwrap_or(code),
        "ProvisionedThroughputExceeded"
            | "Throttling"
            | "ThrottledRequest"
            | "LimitExceeded"
            | "KMSThrottling"
            | "RequestLimitExceeded"
            | "TooManyRequests"
            | "SlowDown"
    )
}

/// For an answer that is none: what it looks like, so that a person recognises the captive portal.
fn no_answer(status: Option<u16>, response: Option<&HttpResponse>) -> String {
    let body = response.and_then(|response| response.body().bytes()).unwrap_or_default();
    let text = String::from_utf8_lossy(&body[..body.len().min(MESSAGE_CHARS_MAX)]);
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let status = status.map_or("with nothing".to_owned(), |status| status.to_string());
    match text.as_str() {
        "" => format!("the endpoint answered {status} and no Kinesis answer"),
        text => format!("the endpoint answered {status} and no Kinesis answer, but: {text}"),
    }
}

fn is_about_credentials(error: &(dyn Error + 'static)) -> bool {
    chain(error).any(|cause| cause.is::<aws_credential_types::provider::error::CredentialsError>())
}

/// Whether the endpoint's certificate was refused because it is not valid yet. One that has expired may as well be the
/// endpoint's fault.
fn is_from_the_future(error: &(dyn Error + 'static)) -> bool {
    use rustls::CertificateError::{NotValidYet, NotValidYetContext};
    chain(error)
        .filter_map(of_tls)
        .any(|refused| matches!(refused, rustls::Error::InvalidCertificate(NotValidYet | NotValidYetContext { .. })))
}

/// An error of TLS, also inside I/O errors: what they hold is not their source.
fn of_tls<'a>(mut cause: &'a (dyn Error + 'static)) -> Option<&'a rustls::Error> {
    while let Some(io) = cause.downcast_ref::<std::io::Error>() {
        cause = io.get_ref()?;
    }
    cause.downcast_ref()
}

/// The root of the trouble says most: `Connection refused`, not `dispatch failure`.
fn innermost(error: &(dyn Error + 'static)) -> String {
    chain(error).last().map(ToString::to_string).unwrap_or_default()
}

fn chain<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |error: &&'a (dyn Error + 'static)| (*error).source())
}

fn shorten(message: String) -> String {
    match message.char_indices().nth(MESSAGE_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &message[..end]),
        None => message,
    }
}
