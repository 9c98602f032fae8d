//! Answers of the service, and of whoever answers in its place: what they say of a request and of its records.

use super::*;

fn aws_error(status: u16, code: &str) -> impl IntoResponse + use<> {
    let body = json!({ "__type": code, "message": "said by the test" }).to_string();
    let status = StatusCode::from_u16(status).expect("a status");
    (status, [("content-type", "application/x-amz-json-1.1")], body)
}

#[tokio::test]
async fn partial_failures_are_told_record_by_record() {
    let outcome = ask(|_| async {
        json!({ "FailedRecordCount": 2, "Records": [
            { "ErrorCode": "ProvisionedThroughputExceededException", "ErrorMessage": "slow down" },
            { "ErrorCode": "InternalFailure", "ErrorMessage": "oops" },
        ]})
        .to_string()
    })
    .await;
    let Outcome::Answered(records) = outcome else { panic!("{outcome:?}") };
    assert!(matches!(&records[0], RecordOutcome::Throttled(why) if why.contains("slow down")), "{records:?}");
    assert!(matches!(&records[1], RecordOutcome::Failed(why) if why.contains("oops")), "{records:?}");
}

#[tokio::test]
async fn an_answer_about_another_number_of_records_confirms_none() {
    let one = || async { json!({ "FailedRecordCount": 0, "Records": [{ "SequenceNumber": "1" }] }).to_string() };
    let failure = failure(ask(move |_| one()).await);
    assert_eq!(failure.kind, FailureKind::EndpointFailed);
    assert!(failure.message.contains("1 records, but 2 were sent"), "{failure}");
}

#[tokio::test]
async fn errors_of_the_service_are_told_apart() {
    for (status, code, kind) in [
        (400, "ProvisionedThroughputExceededException", FailureKind::Throttled),
        (400, "ThrottlingException", FailureKind::Throttled),
        (400, "LimitExceededException", FailureKind::Throttled),
        (400, "AccessDeniedException", FailureKind::CredentialsRefused),
        (400, "UnrecognizedClientException", FailureKind::CredentialsRefused),
        (400, "ExpiredTokenException", FailureKind::CredentialsExpired),
        (403, "InvalidSignatureException", FailureKind::CredentialsRefused),
        (403, "MissingAuthenticationTokenException", FailureKind::CredentialsMissing),
        (403, "SomethingNew", FailureKind::CredentialsRefused),
        (400, "ResourceNotFoundException", FailureKind::Misconfigured),
        (404, "UnknownOperationException", FailureKind::Misconfigured),
        (400, "ValidationException", FailureKind::RequestInvalid),
        (400, "com.amazonaws.kinesis#InvalidArgumentException", FailureKind::RequestInvalid),
        (400, "SerializationException", FailureKind::RequestInvalid),
        (500, "InternalFailureException", FailureKind::EndpointFailed),
        (503, "ServiceUnavailable", FailureKind::EndpointFailed),
    ] {
        let failure = failure(ask(move |_| async move { aws_error(status, code) }).await);
        assert_eq!(failure.kind, kind, "{status} {code}: {failure}");
        assert!(failure.message.contains("said by the test"), "{failure}");
    }
}

#[tokio::test]
async fn a_captive_portal_is_recognised() {
    for status in [200, 302, 403, 404, 502] {
        let page = "<html><title>Welcome to the truck stop</title>".repeat(1000);
        let answer = move || {
            let page = page.clone();
            async move { (StatusCode::from_u16(status).expect("a status"), [("content-type", "text/html")], page) }
        };
        let failure = failure(ask(move |_| answer()).await);
        assert_eq!(failure.kind, FailureKind::EndpointFailed, "{status}: {failure}");
        assert!(failure.message.contains("truck stop") && failure.message.len() < 600, "{status}: {failure}");
    }
}

#[tokio::test]
async fn empty_and_broken_answers_confirm_nothing() {
    for body in ["", "{", "null", "[]", "{}", "{\"Records\":7}"] {
        let failure = failure(ask(move |_| async move { body }).await);
        assert_eq!(failure.kind, FailureKind::EndpointFailed, "{body}: {failure}");
    }
}

#[tokio::test]
async fn retry_after_is_passed_on() {
    let busy = || async { (StatusCode::SERVICE_UNAVAILABLE, [("retry-after", "7")], "busy") };
    let failure = failure(ask(move |_| busy()).await);
    assert_eq!((failure.kind, failure.retry_after), (FailureKind::EndpointFailed, Some(Duration::from_secs(7))));
    // A page in between may say it with any status.
    let wait = || async { ([("retry-after", "7")], "<html>please wait</html>") };
    let failure = self::failure(ask(move |_| wait()).await);
    assert_eq!((failure.kind, failure.retry_after), (FailureKind::EndpointFailed, Some(Duration::from_secs(7))));
}
