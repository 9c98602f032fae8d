//! What it means when a request to AWS fails, whichever of its services was asked. Pure.

use std::error::Error;

use aws_credential_types::provider::error::CredentialsError;
use aws_smithy_runtime_api::client::{orchestrator::HttpResponse, result::SdkError};
use aws_smithy_types::error::{display::DisplayErrorContext, metadata::ProvideErrorMetadata};

use crate::{
    causes::causes,
    destination::{
        Failure, FailureKind,
        failure::{MESSAGE_CHARS_MAX, retry_after, shorten},
        transport_error,
    },
};

/// Why a request failed as a whole. `own` knows the codes that mean something else at this service than elsewhere.
pub(in crate::destination) fn failed<E: Error + ProvideErrorMetadata + 'static>(
    error: &SdkError<E, HttpResponse>,
    own: impl Fn(&str) -> Option<FailureKind>,
) -> Failure {
    let response = error.raw_response();
    let retry_after = retry_after(response.and_then(|response| response.headers().get("retry-after")));
    let status = response.map(|response| response.status().as_u16());
    let body = response.and_then(|response| response.body().bytes()).unwrap_or_default();
    let (kind, message) = match error {
        SdkError::ServiceError(answer) => match answer.err().code() {
            Some(code) => {
                let said = answer.err().message().unwrap_or("no reason given");
                let kind = own(code).unwrap_or_else(|| of_code(code, said, status));
                (kind, format!("{code}: {said}"))
            }
            None => (of_status(status), no_answer(status, body)),
        },
        // An answer that breaks off is no answer either, but for another reason.
        SdkError::ResponseError(_) => match transport_error::known_kind(error) {
            Some(kind) => (kind, transport_error::message(error)),
            None => (FailureKind::EndpointFailed, no_answer(status, body)),
        },
        SdkError::TimeoutError(_) => (FailureKind::TimedOut, "no answer in time".to_owned()),
        other if is_about_credentials(other) => of_credentials(other),
        SdkError::DispatchFailure(_) => (transport_error::kind(error), transport_error::message(error)),
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
        "ExpiredToken" => FailureKind::CredentialsExpired,
        "MissingAuthenticationToken" => FailureKind::CredentialsMissing,
        "AccessDenied"
        | "UnrecognizedClient"
        | "InvalidSignature"
        | "SignatureDoesNotMatch"
        | "IncompleteSignature"
        | "InvalidClientTokenId"
        | "NotAuthorized"
        | "OptInRequired"
        | "KMSAccessDenied"
        | "KMSOptInRequired" => FailureKind::CredentialsRefused,
        "ResourceNotFound" | "UnknownOperation" | "InvalidAction" | "KMSNotFound" | "KMSDisabled"
        | "KMSInvalidState" | "ResourceInUse" => FailureKind::Misconfigured,
        "Validation" | "ValidationError" | "InvalidArgument" | "Serialization" | "InvalidParameterValue" => {
            FailureKind::RequestInvalid
        }
        _ => match status {
            Some(401 | 403) => FailureKind::CredentialsRefused,
            Some(404) => FailureKind::Misconfigured,
            Some(413) => FailureKind::RequestInvalid,
            Some(429) => FailureKind::Throttled,
            _ => FailureKind::EndpointFailed,
        },
    }
}

/// An answer that is none may come from something in between. What it says of the request's size or number holds all the
/// same; that it does not know or want us does not: so speaks a captive portal, too.
fn of_status(status: Option<u16>) -> FailureKind {
    match status {
        Some(413) => FailureKind::RequestInvalid,
        Some(429) => FailureKind::Throttled,
        _ => FailureKind::EndpointFailed,
    }
}

/// Whether a refused signature is one of another time: "Signature expired: 20200101T000000Z is now earlier than ..." and
/// "Signature not yet current: ...". The SDK measures the difference by such an answer, and signs the next request right.
fn is_about_time(said: &str) -> bool {
    said.contains("Signature expired") || said.contains("Signature not yet current")
}

/// Whether a code says that it was too much at once.
pub(in crate::destination) fn is_throttling(code: &str) -> bool {
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
pub(super) fn no_answer(status: Option<u16>, body: &[u8]) -> String {
    let text = String::from_utf8_lossy(&body[..body.len().min(MESSAGE_CHARS_MAX)]);
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let status = status.map_or("with nothing".to_owned(), |status| status.to_string());
    match text.as_str() {
        "" => format!("the endpoint answered {status} and nothing that AWS says"),
        text => format!("the endpoint answered {status} and nothing that AWS says, but: {text}"),
    }
}

fn is_about_credentials(error: &(dyn Error + 'static)) -> bool {
    causes(error).any(|cause| cause.is::<CredentialsError>())
}

/// No credentials: there are none, or whoever gives them cannot be reached.
fn of_credentials(error: &(dyn Error + 'static)) -> (FailureKind, String) {
    let message = format!("no credentials: {}", transport_error::message(error));
    let asked_in_vain = causes(error).any(|cause| {
        matches!(cause.downcast_ref(), Some(CredentialsError::ProviderError(_) | CredentialsError::Unhandled(_)))
    });
    let kind = if asked_in_vain { transport_error::known_kind(error) } else { None };
    (kind.unwrap_or(FailureKind::CredentialsMissing), message)
}
