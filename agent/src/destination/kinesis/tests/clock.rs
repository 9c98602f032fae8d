//! Signatures of another time: they are told as such, and the next one is of the endpoint's time.

use std::time::SystemTime;

use aws_smithy_types::date_time::{DateTime, Format};

use super::*;

#[expect(clippy::disallowed_methods, reason = "the endpoint's clock differs from the machine's, which the SDK reads")]
/// awslabs/amazon-kinesis-producer#222 and awslabs/aws-sdk-rust#1033: signatures of another day, and no correction.
#[tokio::test]
async fn a_wrong_clock_is_told_and_the_next_request_is_signed_with_the_endpoints_time() {
    const DAY: Duration = Duration::from_secs(24 * 3600);
    for (ahead, behind) in [(10 * DAY, Duration::ZERO), (Duration::ZERO, 3650 * DAY), (Duration::ZERO, 10 * DAY)] {
        let socket = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = socket.local_addr().expect("bound");
        // The endpoint's clock is right, and ours is behind or ahead.
        let handler = move |headers: HeaderMap| async move {
            let now = SystemTime::now() + ahead - behind;
            let signed = headers["x-amz-date"].to_str().expect("text");
            let date = format!("{}-{}-{}", &signed[..4], &signed[4..6], &signed[6..8]);
            let time = format!("{}:{}:{}", &signed[9..11], &signed[11..13], &signed[13..15]);
            let signed_at = humantime::parse_rfc3339(&format!("{date}T{time}Z")).expect("a time");
            let apart = signed_at.duration_since(now).unwrap_or_else(|error| error.duration());
            let said_date = [("date", DateTime::from(now).fmt(Format::HttpDate).expect("a date"))];
            if apart > Duration::from_secs(300) {
                let message = format!("Signature expired: {signed} is now earlier than something ({now:?} - 5 min.)");
                let body = json!({ "__type": "InvalidSignatureException", "message": message }).to_string();
                return (StatusCode::BAD_REQUEST, said_date, body);
            }
            let body = json!({ "FailedRecordCount": 0, "Records": [{ "SequenceNumber": "1", "ShardId": "s" }] });
            (StatusCode::OK, said_date, body.to_string())
        };
        let mut server = JoinSet::new();
        server.spawn(async move { axum::serve(socket, Router::new().route("/", post(handler))).await });
        let destination = destination(address).await;
        let refused = failure(destination.send(&[parcel("a", b"one")]).await);
        assert_eq!(refused.kind, FailureKind::Clock, "{refused}");
        assert!(refused.message.contains("Signature expired"), "{refused}");
        for _ in 0..2 {
            let outcome = destination.send(&[parcel("a", b"one")]).await;
            assert_eq!(outcome, Outcome::Answered(vec![RecordOutcome::Accepted]));
        }
    }
}

#[tokio::test]
async fn only_a_signature_of_another_time_is_about_the_clock() {
    for (code, said, kind) in [
        ("InvalidSignatureException", "Signature not yet current: it is", FailureKind::Clock),
        ("SignatureDoesNotMatch", "Signature expired: it is", FailureKind::Clock),
        ("RequestTimeTooSkewed", "The difference is too large", FailureKind::Clock),
        (
            "InvalidSignatureException",
            "The request signature we calculated does not match",
            FailureKind::CredentialsRefused,
        ),
        (
            "ExpiredTokenException",
            "The security token included in the request is expired",
            FailureKind::CredentialsExpired,
        ),
    ] {
        let answer = move || async move {
            let body = json!({ "__type": code, "message": said }).to_string();
            (StatusCode::BAD_REQUEST, [("content-type", "application/x-amz-json-1.1")], body)
        };
        let failure = failure(ask(move |_| answer()).await);
        assert_eq!(failure.kind, kind, "{code}: {failure}");
    }
}
