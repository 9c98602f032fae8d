//! What an answer of Kinesis means. Pure.

use aws_sdk_kinesis::operation::put_records::{PutRecordsError, PutRecordsOutput};
use aws_smithy_runtime_api::client::interceptors::context::{Error, Output};
use aws_smithy_types::error::ErrorMetadata;
use serde::Deserialize;

use crate::destination::{
    Failure, FailureKind, Outcome, RecordOutcome,
    aws::{Encoding, answer::is_throttling, entries::Text},
    failure::shorten,
};

/// The answer to PutRecords, as far as it matters.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Answer<'a> {
    #[serde(borrow)]
    records: Option<Vec<Entry<'a>>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Entry<'a> {
    #[serde(borrow)]
    sequence_number: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) shard_id: Option<Text<'a>>,
    #[serde(borrow)]
    error_code: Option<Text<'a>>,
    #[serde(borrow)]
    error_message: Option<Text<'a>>,
}

impl<'a> Answer<'a> {
    pub(super) fn records(&self) -> &[Entry<'a>] {
        self.records.as_deref().unwrap_or_default()
    }
}

/// What the SDK says in place of such an answer.
pub(super) fn nothing() -> Output {
    Output::erase(
        PutRecordsOutput::builder().set_records(Some(Vec::new())).build().expect("it has all that it must have"),
    )
}

/// What the SDK says of a refusal in these words.
pub(super) fn refused(words: ErrorMetadata) -> Error {
    Error::erase(PutRecordsError::generic(words))
}

/// What a code means here, if that is not what it means elsewhere: that an endpoint, or a part of it, cannot read CBOR says
/// nothing of a record.
pub(super) fn of_code(code: &str, asked: Encoding) -> Option<FailureKind> {
    (asked == Encoding::Cbor && code.starts_with("SerializationException")).then_some(FailureKind::Misconfigured)
}

/// What else may be the matter where nothing was taken yet.
pub(super) fn hint(code: Option<&str>, asked: Encoding) -> &'static str {
    match (asked, code) {
        (Encoding::Cbor, None | Some("SerializationException" | "UnknownOperationException")) => {
            " (asked in CBOR, which not every endpoint knows: see `encoding`)"
        }
        _ => "",
    }
}

/// What became of a request that was answered in the service's own words.
pub(super) fn answered(answer: &Answer<'_>, sent: usize) -> Outcome {
    let records = answer.records();
    if records.len() != sent {
        let message = format!("the answer speaks of {} records, but {sent} were sent", records.len());
        return Outcome::Failed(Failure { kind: FailureKind::EndpointFailed, message, retry_after: None });
    }
    let outcomes = records.iter().map(|record| match record.error_code.as_deref() {
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
