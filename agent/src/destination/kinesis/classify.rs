//! What an answer of Kinesis means. Pure.

use aws_sdk_kinesis::operation::put_records::PutRecordsOutput;

use crate::destination::{
    Failure, FailureKind, Outcome, RecordOutcome,
    aws::answer::{is_throttling, shorten},
};

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
