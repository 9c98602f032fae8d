//! The destination against small servers that answer well and badly.

use std::{collections::BTreeMap, future::Future};

use axum::{
    Router,
    response::{IntoResponse, Redirect},
    routing::post,
};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use forebay_log_store::SequenceNumber;
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinSet};

use super::*;
use crate::sample::plain;

const ORIGIN: Origin<'static> = Origin { gateway: "gateway 7", stream: "telemetry" };

fn parcel(number: u64, key: &str, data: impl Into<Bytes>) -> Parcel {
    let record = Record { sequence_number: SequenceNumber(number), ..plain(key, data) };
    Parcel { records: vec![Arc::new(record)].into() }
}

/// A server that answers by `answer`, and a destination that asks it.
async fn asking<A: IntoResponse, F: Future<Output = A> + Send + 'static>(
    config: Config,
    answer: impl Fn(HeaderMap, Bytes) -> F + Clone + Send + Sync + 'static,
) -> (Http, JoinSet<()>) {
    let socket = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = socket.local_addr().expect("bound");
    let handler = move |headers: HeaderMap, body: Bytes| {
        let answer = answer(headers, body);
        async move { answer.await.into_response() }
    };
    let mut server = JoinSet::new();
    server.spawn(async move {
        let _ = axum::serve(socket, Router::new().route("/in", post(handler))).await;
    });
    let outgoing = outgoing::Config { request_timeout: Duration::from_secs(10), ..outgoing::Config::default() };
    let config = Config { url: Some(format!("http://{address}/in")), outgoing, ..config };
    (Http::open(&config, &ORIGIN, &Arc::default()).expect("sound settings"), server)
}

fn reply(headers: &HeaderMap) -> ([(&'static str, &'static str); 1], String) {
    let id = headers["x-amz-firehose-request-id"].to_str().expect("text");
    ([("content-type", "application/json")], json!({ "requestId": id, "timestamp": 1 }).to_string())
}

fn failure(outcome: Outcome) -> Failure {
    match outcome {
        Outcome::Failed(failure) => failure,
        Outcome::Answered(records) => panic!("it was answered: {records:?}"),
    }
}

#[tokio::test]
async fn a_request_is_as_the_specification_says() {
    let key = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(key.path(), "sesame\n").expect("written");
    let (tell, mut heard) = tokio::sync::mpsc::unbounded_channel();
    let config = Config {
        compression: Compression::None,
        access_key_file: Some(key.path().into()),
        common_attributes: BTreeMap::from([("site".to_owned(), "plant 7".to_owned())]),
        ..Config::default()
    };
    let (destination, _server) = asking(config, move |headers: HeaderMap, body| {
        let _ = tell.send((headers.clone(), body));
        std::future::ready(reply(&headers))
    })
    .await;
    let parcels = [parcel(1, "a", "one"), parcel(2, "b", "two")];
    for _ in 0..2 {
        assert_eq!(destination.send(&parcels).await, Outcome::Answered(vec![RecordOutcome::Accepted; 2]));
    }
    let (headers, body) = heard.recv().await.expect("a request");
    let body: Value = serde_json::from_slice(&body).expect("JSON");
    let header = |name: &str| headers[name].to_str().expect("text").to_owned();
    assert_eq!(header("x-amz-firehose-protocol-version"), "1.0");
    assert_eq!(header("x-amz-firehose-access-key"), "sesame");
    assert_eq!(
        header("x-amz-firehose-source-arn"),
        "arn:forebay:firehose:gateway-7:000000000000:deliverystream/telemetry"
    );
    assert_eq!(header("content-type"), "application/json");
    let attributes: Value = serde_json::from_str(&header("x-amz-firehose-common-attributes")).expect("JSON");
    assert_eq!(attributes, json!({ "commonAttributes": { "site": "plant 7" } }));
    assert_eq!(body["requestId"], header("x-amz-firehose-request-id"));
    assert_eq!(
        body["records"],
        json!([{ "data": BASE64_STANDARD.encode("one") }, { "data": BASE64_STANDARD.encode("two") }])
    );
    let (again, _) = heard.recv().await.expect("another request");
    assert_eq!(again["x-amz-firehose-request-id"], headers["x-amz-firehose-request-id"]);
    assert!(!format!("{destination:?}").contains("sesame"));
}

#[tokio::test]
async fn redirects_are_told_and_not_followed() {
    let (destination, _server) =
        asking(Config::default(), |_, _| std::future::ready(Redirect::temporary("http://elsewhere.invalid/"))).await;
    let failure = failure(destination.send(&[parcel(1, "a", "one")]).await);
    assert_eq!(failure.kind, FailureKind::EndpointFailed, "{failure}");
    assert!(failure.message.contains("elsewhere.invalid"), "{failure}");
}

#[tokio::test]
async fn a_reply_without_end_is_none() {
    let (destination, _server) = asking(Config::default(), |_, _| {
        std::future::ready(([("content-type", "application/json")], "x".repeat(reply::BYTES_MAX + 1)))
    })
    .await;
    let failure = failure(destination.send(&[parcel(1, "a", "one")]).await);
    assert!(failure.kind == FailureKind::EndpointFailed && failure.message.contains("more than"), "{failure}");
}

#[tokio::test]
async fn what_is_too_large_is_invalid_and_who_is_busy_is_left_alone() {
    let two = [parcel(1, "a", "one"), parcel(2, "b", "two")];
    for (status, kind) in
        [(413, FailureKind::RequestInvalid), (429, FailureKind::Throttled), (503, FailureKind::EndpointFailed)]
    {
        let (destination, _server) = asking(Config::default(), move |_, _| {
            std::future::ready((StatusCode::from_u16(status).expect("a status"), [("retry-after", "7")], ""))
        })
        .await;
        // Also of a single record: whoever answers so may do it to all of them, and only others that are taken show that it is not so.
        for parcels in [&two[..], &two[..1]] {
            let failure = failure(destination.send(parcels).await);
            assert_eq!((failure.kind, failure.retry_after), (kind, Some(Duration::from_secs(7))), "{failure}");
        }
    }
}
