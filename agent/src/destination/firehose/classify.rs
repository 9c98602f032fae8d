//! What an answer of Firehose means. Pure.

use aws_sdk_firehose::operation::put_record_batch::{PutRecordBatchError, PutRecordBatchOutput};
use aws_smithy_runtime_api::client::interceptors::context::{Error, Output};
use aws_smithy_types::error::ErrorMetadata;
use serde::Deserialize;

use crate::destination::{
    Failure, FailureKind, Outcome, RecordOutcome,
    aws::{answer, entries::Text},
    failure::shorten,
};

/// The answer to PutRecordBatch, as far as it matters.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Answer<'a> {
    failed_put_count: Option<i64>,
    #[serde(borrow)]
    request_responses: Option<Vec<Entry<'a>>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry<'a> {
    #[serde(borrow)]
    record_id: Option<Text<'a>>,
    #[serde(borrow)]
    error_code: Option<Text<'a>>,
    #[serde(borrow)]
    error_message: Option<Text<'a>>,
}

/// What the SDK says in place of such an answer.
pub(super) fn nothing() -> Output {
    let output = PutRecordBatchOutput::builder().failed_put_count(0).set_request_responses(Some(Vec::new()));
    Output::erase(output.build().expect("it has all that it must have"))
}

/// What the SDK says of a refusal in these words.
pub(super) fn refused(words: ErrorMetadata) -> Error {
    Error::erase(PutRecordBatchError::generic(words))
}

/// What became of a request that was answered in the service's own words.
pub(super) fn answered(answer: &Answer<'_>, sent: usize) -> Outcome {
    let records = answer.request_responses.as_deref().unwrap_or_default();
    let failed_put_count = answer.failed_put_count.unwrap_or(0);
    if records.len() != sent {
        return confused(format!("the answer speaks of {} records, but {sent} were sent", records.len()));
    }
    let failed = records.iter().filter(|record| record.error_code.is_some()).count();
    if usize::try_from(failed_put_count) != Ok(failed) {
        return confused(format!("the answer counts {failed_put_count} failures and names {failed}"));
    }
    let outcomes = records.iter().map(|record| match record.error_code.as_deref() {
        Some(code) => {
            let said = record.error_message.as_deref().unwrap_or("no reason given");
            let message = shorten(format!("{code}: {said}"));
            if of_code(code) == Some(FailureKind::Throttled) || answer::is_throttling(code) {
                RecordOutcome::Throttled(message)
            } else {
                RecordOutcome::Failed(message)
            }
        }
        None if record.record_id.as_deref().is_some_and(|id| !id.is_empty()) => RecordOutcome::Accepted,
        None => RecordOutcome::Failed("the answer has neither an id nor an error for it".into()),
    });
    Outcome::Answered(outcomes.collect())
}

fn confused(message: String) -> Outcome {
    Outcome::Failed(Failure { kind: FailureKind::EndpointFailed, message, retry_after: None })
}

/// Codes that mean something else here than at AWS in general.
pub(super) fn of_code(code: &str) -> Option<FailureKind> {
    match code.strip_suffix("Exception").unwrap_or(code) {
        // "If you continue to see the exception, throughput limits for the stream may have been exceeded."
        "ServiceUnavailable" => Some(FailureKind::Throttled),
        "InvalidSource" | "InvalidKMSResource" => Some(FailureKind::Misconfigured),
        _ => None,
    }
}
