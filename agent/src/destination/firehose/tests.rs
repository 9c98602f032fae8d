//! The destination against small servers that answer well and badly.

use std::{future::Future, net::SocketAddr};

use axum::{
    Router,
    body::Bytes,
    http::{HeaderMap, StatusCode},
    response::IntoResponse,
    routing::post,
};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinSet};

use super::*;
use crate::{
    destination::{Failure, FailureKind},
    outgoing,
    sample::plain,
};

fn record(key: &str, data: impl Into<Bytes>) -> Arc<Record> {
    Arc::new(plain(key, data))
}

fn alone(key: &str, data: impl Into<Bytes>) -> Parcel {
    Parcel { records: vec![record(key, data)].into() }
}

async fn destination(endpoint: SocketAddr, config: Config) -> Firehose {
    let config = Config {
        aws: aws::Config {
            region: Some("eu-west-1".into()),
            endpoint: Some(format!("http://{endpoint}")),
            credentials: None,
        },
        outgoing: outgoing::Config { request_timeout: Duration::from_secs(10), ..outgoing::Config::default() },
        stream: Some("lake".into()),
        ..config
    };
    Firehose::open(&config, &Arc::default()).expect("sound settings")
}

/// A server that answers by `answer`, and a destination that asks it.
async fn asking<A: IntoResponse, F: Future<Output = A> + Send + 'static>(
    config: Config,
    answer: impl Fn(HeaderMap, Value) -> F + Clone + Send + Sync + 'static,
) -> (Firehose, JoinSet<()>) {
    let socket = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = socket.local_addr().expect("bound");
    let handler = move |headers: HeaderMap, body: Bytes| {
        let answer = answer(headers, serde_json::from_slice(&body).expect("the request is JSON"));
        async move { answer.await.into_response() }
    };
    let mut server = JoinSet::new();
    server.spawn(async move {
        let _ = axum::serve(socket, Router::new().route("/", post(handler))).await;
    });
    (destination(address, config).await, server)
}

async fn told(answer: Value) -> Outcome {
    let answer = answer.to_string();
    let (destination, _server) = asking(Config::default(), move |_, _| std::future::ready(answer.clone())).await;
    destination.send(&[alone("a", "one"), alone("b", "two")]).await
}

fn failure(outcome: Outcome) -> Failure {
    match outcome {
        Outcome::Failed(failure) => failure,
        Outcome::Answered(records) => panic!("it was answered: {records:?}"),
    }
}

#[tokio::test]
async fn lines_become_one_record_and_are_charged_as_one() {
    let (tell, mut heard) = tokio::sync::mpsc::unbounded_channel();
    let config = Config { aggregation: Aggregation::Lines, ..Config::default() };
    let (destination, _server) = asking(config, move |headers: HeaderMap, body| {
        let _ = tell.send((headers, body));
        std::future::ready(
            json!({ "FailedPutCount": 0, "RequestResponses": [{ "RecordId": "1" }, { "RecordId": "2" }] }).to_string(),
        )
    })
    .await;
    let together = Parcel { records: vec![record("a", "one"), record("b", "two\n"), record("a", "")].into() };
    let outcome = destination.send(&[together, alone("c", "three")]).await;
    assert_eq!(outcome, Outcome::Answered(vec![RecordOutcome::Accepted; 2]));
    let (headers, body) = heard.recv().await.expect("a request");
    assert_eq!(headers["x-amz-target"], "Firehose_20150804.PutRecordBatch");
    assert!(
        headers["authorization"].to_str().expect("text").contains("/eu-west-1/firehose/aws4_request"),
        "{headers:?}"
    );
    let data = |at: usize| BASE64_STANDARD.decode(body["Records"][at]["Data"].as_str().expect("text")).expect("Base64");
    assert_eq!(
        (body["DeliveryStreamName"].as_str(), data(0), data(1)),
        (Some("lake"), b"one\ntwo\n\n".to_vec(), b"three\n".to_vec())
    );
    let sent = destination.sent();
    assert_eq!((sent.records, sent.payload_units, sent.bytes), (2, 2, 15));
}

/// Or `forebay status` would tell of larger or smaller aggregates than there are, while an endpoint refuses some.
#[tokio::test]
async fn only_what_was_taken_is_counted() {
    let config = Config { aggregation: Aggregation::Lines, ..Config::default() };
    let requests = Arc::new(std::sync::atomic::AtomicU32::new(0));
    let (destination, _server) = asking(config, move |_, _| {
        let refused = json!({ "ErrorCode": "ServiceUnavailableException", "ErrorMessage": "slow down" });
        std::future::ready(match requests.fetch_add(1, std::sync::atomic::Ordering::Relaxed) {
            0 => json!({ "FailedPutCount": 1, "RequestResponses": [refused, { "RecordId": "2" }] }).to_string(),
            1 => "not JSON".to_owned(),
            _ => json!({ "FailedPutCount": 0, "RequestResponses": [{ "RecordId": "1" }] }).to_string(),
        })
    })
    .await;
    let together = || Parcel { records: vec![record("a", "one"), record("b", "two\n"), record("a", "")].into() };
    destination.send(&[together(), alone("c", "three")]).await;
    let sent = destination.sent();
    assert_eq!((sent.records, sent.payload_records, sent.payload_units, sent.bytes), (1, 1, 1, 6));
    destination.send(&[together()]).await;
    assert_eq!(destination.sent(), sent);
    destination.send(&[together()]).await;
    let sent = destination.sent();
    assert_eq!((sent.records, sent.payload_records, sent.payload_units, sent.bytes), (2, 4, 2, 15));
}

#[tokio::test]
async fn keys_share_lanes_only_where_they_share_records() {
    let lanes = async |config: Config| {
        let destination = destination(([127, 0, 0, 1], 1).into(), config).await;
        let keys = (0..200).map(|key| record(&key.to_string(), "x"));
        let mut lanes: Vec<u64> = keys.map(|record| destination.place(&record).lane).collect();
        lanes.sort_unstable();
        lanes.dedup();
        lanes.len()
    };
    assert_eq!(lanes(Config::default()).await, 200);
    assert_eq!(lanes(Config { aggregation: Aggregation::Lines, ..Config::default() }).await, 4);
}

#[tokio::test]
async fn a_delimiter_counts_where_it_is_added() {
    let config = Config { delimiter: Some("\r\n".into()), ..Config::default() };
    let destination = destination(([127, 0, 0, 1], 1).into(), config).await;
    let most = usize::try_from(RECORD_BYTES).expect("small");
    destination.accepts(&record("a", vec![b'x'; most - 2])).expect("just fits");
    let why = destination.accepts(&record("a", vec![b'x'; most - 1])).expect_err("one byte too many");
    assert!(why.contains("1024001") && why.contains("1024000"), "{why}");
    let mut ends_with_it = vec![b'x'; most];
    ends_with_it[most - 2..].copy_from_slice(b"\r\n");
    destination.accepts(&record("a", ends_with_it)).expect("none is added");
}

#[tokio::test]
async fn partial_failures_are_told_record_by_record() {
    let answer = json!({ "FailedPutCount": 1, "Encrypted": false, "RequestResponses": [
        { "ErrorCode": "ServiceUnavailableException", "ErrorMessage": "Slow down." }, { "RecordId": "1" },
    ]});
    let Outcome::Answered(records) = told(answer).await else { panic!("answered") };
    assert!(matches!(&records[0], RecordOutcome::Throttled(why) if why.contains("Slow down")), "{records:?}");
    assert_eq!(records[1], RecordOutcome::Accepted);
    let answer = json!({ "FailedPutCount": 2, "RequestResponses": [
        { "ErrorCode": "InternalFailure", "ErrorMessage": "oops" }, { "ErrorCode": "InternalFailure" },
    ]});
    let Outcome::Answered(records) = told(answer).await else { panic!("answered") };
    assert!(records.iter().all(|record| matches!(record, RecordOutcome::Failed(_))), "{records:?}");
}

#[tokio::test]
async fn an_answer_that_does_not_add_up_confirms_nothing() {
    let good = json!({ "RecordId": "1" });
    for answer in [
        json!({ "FailedPutCount": 0, "RequestResponses": [good] }),
        json!({ "FailedPutCount": 0, "RequestResponses": [good, good, good] }),
        json!({ "FailedPutCount": 1, "RequestResponses": [good, good] }),
        json!({ "FailedPutCount": 0, "RequestResponses": [good, { "ErrorCode": "InternalFailure" }] }),
        json!({}),
    ] {
        let failure = failure(told(answer.clone()).await);
        assert_eq!(failure.kind, FailureKind::EndpointFailed, "{answer}: {failure}");
    }
    let nameless = json!({ "FailedPutCount": 0, "RequestResponses": [good, {}] });
    let Outcome::Answered(records) = told(nameless).await else { panic!("answered") };
    assert!(matches!(records[..], [RecordOutcome::Accepted, RecordOutcome::Failed(_)]), "{records:?}");
}

#[tokio::test]
async fn errors_of_the_service_are_told_apart() {
    for (status, code, kind) in [
        (500, "ServiceUnavailableException", FailureKind::Throttled),
        (400, "LimitExceededException", FailureKind::Throttled),
        (400, "ResourceNotFoundException", FailureKind::Misconfigured),
        (400, "InvalidSourceException", FailureKind::Misconfigured),
        (400, "InvalidKMSResourceException", FailureKind::Misconfigured),
        (400, "InvalidArgumentException", FailureKind::RequestInvalid),
        (400, "com.amazonaws.firehose#ValidationException", FailureKind::RequestInvalid),
        (400, "AccessDeniedException", FailureKind::CredentialsRefused),
        (413, "RequestEntityTooLargeException", FailureKind::RequestInvalid),
        (500, "InternalFailure", FailureKind::EndpointFailed),
    ] {
        let body = json!({ "__type": code, "message": "said by the test" }).to_string();
        let (destination, _server) = asking(Config::default(), move |_, _| {
            let status = StatusCode::from_u16(status).expect("a status");
            std::future::ready((status, [("content-type", "application/x-amz-json-1.1")], body.clone()))
        })
        .await;
        let failure = failure(destination.send(&[alone("a", "one")]).await);
        assert_eq!(failure.kind, kind, "{status} {code}: {failure}");
        assert!(failure.message.contains("said by the test"), "{failure}");
    }
}
