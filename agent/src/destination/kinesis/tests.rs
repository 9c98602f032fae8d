//! The destination against small servers that answer well, badly and not at all.

use std::{
    future::Future,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{Router, body::Bytes, http::StatusCode, response::IntoResponse, routing::post};
use forebay_log_store::{HashKey, Record, SequenceNumber, ShardIndex, Timestamp};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

use super::*;
use crate::destination::{Failure, FailureKind, RecordOutcome};

fn record(key: &str, data: &'static [u8]) -> Arc<Record> {
    Arc::new(Record {
        sequence_number: SequenceNumber(1),
        shard: ShardIndex(0),
        arrival: Timestamp(0),
        partition_key: key.into(),
        explicit_hash_key: None,
        tags: Vec::new(),
        data: Bytes::from_static(data),
    })
}

async fn destination(endpoint: SocketAddr) -> Kinesis {
    let config = Config {
        stream: Some("plant".into()),
        region: Some("eu-west-1".into()),
        endpoint: Some(format!("http://{endpoint}")),
        request_timeout: Duration::from_secs(2),
        ..Config::default()
    };
    Kinesis::open(&config).await.expect("sound settings")
}

/// What becomes of two records sent to a server that answers by `answer`.
async fn ask<A: IntoResponse, F: Future<Output = A> + Send + 'static>(
    answer: impl Fn(Value) -> F + Clone + Send + Sync + 'static,
) -> Outcome {
    let socket = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = socket.local_addr().expect("bound");
    let handler = move |body: Bytes| {
        let answer = answer(serde_json::from_slice(&body).expect("the request is JSON"));
        async move { answer.await.into_response() }
    };
    let mut server = JoinSet::new();
    server.spawn(async move { axum::serve(socket, Router::new().route("/", post(handler))).await });
    let records = [record("a", b"\x00\xff one"), record("b", b"two")];
    destination(address).await.send(&records).await
}

/// The same with a server that does what it likes with the connection.
async fn ask_raw<F: Future<Output = ()> + Send + 'static>(serve: impl Fn(TcpStream) -> F + Send + 'static) -> Outcome {
    let socket = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = socket.local_addr().expect("bound");
    let mut server = JoinSet::new();
    server.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((stream, _)) = socket.accept().await {
            connections.spawn(serve(stream));
        }
    });
    destination(address).await.send(&[record("a", b"one")]).await
}

fn failure(outcome: Outcome) -> Failure {
    match outcome {
        Outcome::Failed(failure) => failure,
        Outcome::Answered(records) => panic!("it was answered: {records:?}"),
    }
}

fn aws_error(status: u16, code: &str) -> impl IntoResponse + use<> {
    let body = json!({ "__type": code, "message": "said by the test" }).to_string();
    let status = StatusCode::from_u16(status).expect("a status");
    (status, [("content-type", "application/x-amz-json-1.1")], body)
}

#[tokio::test]
async fn keys_bytes_and_hash_keys_go_through_unchanged() {
    let socket = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = socket.local_addr().expect("bound");
    let (told, mut heard) = tokio::sync::mpsc::unbounded_channel();
    let handler = move |body: Bytes| async move {
        told.send(serde_json::from_slice::<Value>(&body).expect("JSON")).expect("heard");
        json!({ "FailedRecordCount": 0, "Records": [{ "SequenceNumber": "1", "ShardId": "s" }] }).to_string()
    };
    let mut server = JoinSet::new();
    server.spawn(async move { axum::serve(socket, Router::new().route("/", post(handler))).await });
    let mut sent = (*record("Grüße/1", b"\x00\xff")).clone();
    sent.explicit_hash_key = Some(HashKey(u128::MAX));
    let outcome = destination(address).await.send(&[Arc::new(sent)]).await;
    assert_eq!(outcome, Outcome::Answered(vec![RecordOutcome::Accepted]));
    let request = heard.recv().await.expect("a request");
    assert_eq!(request["StreamName"], "plant");
    assert_eq!(
        request["Records"][0],
        json!({
            "Data": "AP8=", "PartitionKey": "Grüße/1",
            "ExplicitHashKey": "340282366920938463463374607431768211455",
        })
    );
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
        (400, "AccessDeniedException", FailureKind::Unauthorised),
        (400, "UnrecognizedClientException", FailureKind::Unauthorised),
        (400, "ExpiredTokenException", FailureKind::Unauthorised),
        (403, "InvalidSignatureException", FailureKind::Unauthorised),
        (403, "SomethingNew", FailureKind::Unauthorised),
        (400, "ResourceNotFoundException", FailureKind::Misconfigured),
        (404, "UnknownOperationException", FailureKind::Misconfigured),
        (400, "ValidationException", FailureKind::Invalid),
        (400, "com.amazonaws.kinesis#InvalidArgumentException", FailureKind::Invalid),
        (400, "SerializationException", FailureKind::Invalid),
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
}

#[tokio::test]
async fn a_reset_connection_is_unreachable() {
    let failure = failure(ask_raw(|stream| async move { drop(stream) }).await);
    assert_eq!(failure.kind, FailureKind::Unreachable, "{failure}");
}

#[tokio::test]
async fn an_answer_that_breaks_off_confirms_nothing() {
    let cut = |mut stream: TcpStream| async move {
        let mut request = [0; 64 << 10];
        let _ = stream.read(&mut request).await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n{\"Fail").await;
    };
    let failure = failure(ask_raw(cut).await);
    assert!(matches!(failure.kind, FailureKind::Unreachable | FailureKind::EndpointFailed), "{failure}");
}

#[tokio::test]
async fn a_hanging_endpoint_is_given_up_in_time() {
    let begun = Instant::now();
    let hang = |mut stream: TcpStream| async move {
        let mut request = [0; 64 << 10];
        while stream.read(&mut request).await.is_ok_and(|n| n > 0) {}
    };
    let failure = failure(ask_raw(hang).await);
    assert_eq!(failure.kind, FailureKind::Unreachable, "{failure}");
    assert!(begun.elapsed() >= Duration::from_secs(2), "given up after {:?}", begun.elapsed());
}

#[tokio::test]
async fn nobody_listening_is_unreachable_and_says_so() {
    let free = TcpListener::bind("127.0.0.1:0").await.expect("a port").local_addr().expect("bound");
    let failure = failure(destination(free).await.send(&[record("a", b"one")]).await);
    assert_eq!(failure.kind, FailureKind::Unreachable);
    assert!(failure.message.to_lowercase().contains("refused"), "{failure}");
}

#[tokio::test]
async fn a_record_over_the_limit_is_told_with_figures() {
    let destination = destination(([127, 0, 0, 1], 1).into()).await;
    let mut large = (*record("key", b"")).clone();
    large.data = vec![0; (1 << 20) - 2].into();
    let why = destination.accepts(&large).expect_err("one byte too many");
    assert!(why.contains("1048577") && why.contains("1048576"), "{why}");
    large.data = vec![0; (1 << 20) - 3].into();
    destination.accepts(&large).expect("just fits");
}
