//! The destination against small servers that answer well, badly and not at all.

use std::{
    fs,
    future::Future,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use aws_smithy_types::date_time::{DateTime, Format};
use axum::{
    Router,
    body::Bytes,
    http::{HeaderMap, StatusCode},
    response::IntoResponse,
    routing::post,
};
use forebay_log_store::{HashKey, Record};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

use super::*;
use crate::destination::{Failure, FailureKind, RecordOutcome};
use crate::{outgoing, sample::plain};

fn record(key: &str, data: &'static [u8]) -> Arc<Record> {
    Arc::new(plain(key, data))
}

const ORIGIN: Origin<'static> = Origin { gateway: "truck-7", stream: "telemetry" };

fn parcel(key: &str, data: &'static [u8]) -> Parcel {
    Parcel { records: vec![record(key, data)].into() }
}

fn config(endpoint: SocketAddr) -> Config {
    Config {
        stream: Some("plant".into()),
        aws: aws::Config {
            region: Some("eu-west-1".into()),
            endpoint: Some(format!("http://{endpoint}")),
            credentials: None,
        },
        outgoing: outgoing::Config { request_timeout: Duration::from_secs(2), ..outgoing::Config::default() },
        ..Config::default()
    }
}

/// What becomes of two records sent in CBOR to a server that answers like this, and what it was sent.
async fn ask_in_cbor(
    status: u16,
    headers: &'static [(&'static str, &'static str)],
    answer: Vec<u8>,
) -> (Outcome, ciborium::Value) {
    let socket = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = socket.local_addr().expect("bound");
    let (told, mut heard) = tokio::sync::mpsc::unbounded_channel();
    let handler = move |asked: HeaderMap, body: Bytes| async move {
        assert_eq!(asked["content-type"], "application/x-amz-cbor-1.1");
        assert_eq!(asked["x-amz-target"], "Kinesis_20131202.PutRecords");
        told.send(ciborium::from_reader(&body[..]).expect("CBOR")).expect("heard");
        let response = axum::http::Response::builder().status(status);
        let response = headers.iter().fold(response, |response, (name, value)| response.header(*name, *value));
        response.body(axum::body::Body::from(answer)).expect("a response")
    };
    let mut server = JoinSet::new();
    server.spawn(async move { axum::serve(socket, Router::new().route("/", post(handler))).await });
    let config = Config { encoding: Some(Encoding::Cbor), ..config(address) };
    let destination = Kinesis::open(&config, &ORIGIN, &Arc::default()).expect("sound settings");
    let outcome = destination.send(&[parcel("Grüße/1", b"\x00\xff"), parcel("b", b"two")]).await;
    (outcome, heard.recv().await.expect("a request"))
}

const CBOR: &[(&str, &str)] = &[("content-type", "application/x-amz-cbor-1.1")];
const JSON: &[(&str, &str)] = &[("content-type", "application/x-amz-json-1.1")];

fn cbor(value: Value) -> Vec<u8> {
    let mut written = Vec::new();
    ciborium::into_writer(&value, &mut written).expect("memory");
    written
}

async fn destination(endpoint: SocketAddr) -> Kinesis {
    Kinesis::open(&config(endpoint), &ORIGIN, &Arc::default()).expect("sound settings")
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
    let parcels = [parcel("a", b"\x00\xff one"), parcel("b", b"two")];
    destination(address).await.send(&parcels).await
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
    destination(address).await.send(&[parcel("a", b"one")]).await
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
    let outcome = destination(address).await.send(&[Parcel { records: vec![Arc::new(sent)].into() }]).await;
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
async fn cbor_goes_out_and_is_understood() {
    let answer = json!({"FailedRecordCount": 1, "EncryptionType": "NONE", "Records": [
        {"SequenceNumber": "49", "ShardId": "s"},
        {"ErrorCode": "ProvisionedThroughputExceededException", "ErrorMessage": "slow \"down\"", "ShardId": null},
    ]});
    let (outcome, sent) = ask_in_cbor(200, CBOR, cbor(answer)).await;
    let throttled = "ProvisionedThroughputExceededException: slow \"down\"".to_owned();
    let expected = Outcome::Answered(vec![RecordOutcome::Accepted, RecordOutcome::Throttled(throttled)]);
    assert_eq!(outcome, expected);
    let text = |text: &str| ciborium::Value::Text(text.to_owned());
    let record = |data: &[u8], key: &str| {
        let data = (text("Data"), ciborium::Value::Bytes(data.to_vec()));
        ciborium::Value::Map(vec![data, (text("PartitionKey"), text(key))])
    };
    let records = ciborium::Value::Array(vec![record(b"\x00\xff", "Grüße/1"), record(b"two", "b")]);
    assert_eq!(sent, ciborium::Value::Map(vec![(text("StreamName"), text("plant")), (text("Records"), records)]));

    // Maps and lists without their length in front, as services in Java write them.
    let mut answer = b"\xbf\x67Records\x9f".to_vec();
    answer.extend_from_slice(
        b"\xbf\x6eSequenceNumber\x6249\x67ShardId\x61s\xff\xbf\x67ShardId\x61s\x6eSequenceNumber\x6250\xff",
    );
    answer.extend_from_slice(b"\xff\x71FailedRecordCount\x00\xff");
    let (outcome, _) = ask_in_cbor(200, CBOR, answer).await;
    assert_eq!(outcome, Outcome::Answered(vec![RecordOutcome::Accepted, RecordOutcome::Accepted]));
}

#[tokio::test]
async fn whoever_is_asked_in_cbor_may_answer_in_json() {
    let answer = json!({"FailedRecordCount": 0, "Records": [{"SequenceNumber": "1"}, {"SequenceNumber": "2"}]});
    let taken = Outcome::Answered(vec![RecordOutcome::Accepted, RecordOutcome::Accepted]);
    assert_eq!(ask_in_cbor(200, JSON, answer.to_string().into_bytes()).await.0, taken);
    const LOUD: &[(&str, &str)] = &[("content-type", "Application/X-AMZ-CBOR-1.1; charset=utf-8")];
    for as_asked in [&[][..], LOUD] {
        assert_eq!(ask_in_cbor(200, as_asked, cbor(answer.clone())).await.0, taken, "{as_asked:?}");
    }
}

#[tokio::test]
async fn refusals_in_cbor_are_told_apart_like_those_in_json() {
    const HEADER: &[(&str, &str)] = &[
        ("content-type", "application/x-amz-cbor-1.1"),
        ("x-amzn-errortype", "ResourceNotFoundException:http://internal.amazon.com/coral/"),
    ];
    let refusal = json!({"__type": "com.amazonaws.kinesis#ResourceNotFoundException", "message": "no stream"});
    let both = json!({"code": "ResourceNotFoundException", "Message": "no stream", "message": null});
    for (headers, body) in [
        (JSON, refusal.to_string().into_bytes()),
        (CBOR, cbor(refusal.clone())),
        (CBOR, cbor(both)),
        (HEADER, cbor(json!({"message": "no stream"}))),
    ] {
        let failure = failure(ask_in_cbor(400, headers, body).await.0);
        assert_eq!(failure.kind, FailureKind::Misconfigured, "{headers:?}: {failure:?}");
        assert_eq!(failure.message, "ResourceNotFoundException: no stream");
    }
}

/// Moto answers with a page, others in words of their own.
#[tokio::test]
async fn an_endpoint_that_does_not_know_cbor_is_told_as_such_and_no_record_is_at_fault() {
    let words = json!({"__type": "SerializationException", "message": "could not parse"});
    for (status, body, kind) in [
        (400, words.to_string(), FailureKind::Misconfigured),
        (500, "<!doctype html>".to_owned(), FailureKind::EndpointFailed),
        (415, String::new(), FailureKind::EndpointFailed),
    ] {
        let failure = failure(ask_in_cbor(status, JSON, body.into_bytes()).await.0);
        assert_eq!(failure.kind, kind, "{failure:?}");
        assert!(failure.message.contains("CBOR"), "{failure:?}");
    }
    let throttled = json!({"__type": "LimitExceededException", "message": "slower"}).to_string();
    assert!(!failure(ask_in_cbor(400, JSON, throttled.into_bytes()).await.0).message.contains("CBOR"));
}

#[tokio::test]
async fn what_is_no_answer_in_cbor_confirms_nothing() {
    let whole = cbor(json!({"FailedRecordCount": 0, "Records": [{"SequenceNumber": "1"}, {"SequenceNumber": "2"}]}));
    let more = [&whole[..], b"<html>"].concat();
    for body in (0..whole.len()).map(|length| &whole[..length]).chain([&more[..]]) {
        let failure = failure(ask_in_cbor(200, CBOR, body.to_vec()).await.0);
        assert_eq!(failure.kind, FailureKind::EndpointFailed, "{} bytes: {failure:?}", body.len());
    }
    const HTML: &[(&str, &str)] = &[("content-type", "text/html")];
    for (status, headers, body) in [(200, HTML, &b"<h1>hotel</h1>"[..]), (502, CBOR, b"\xff\xff")] {
        let failure = failure(ask_in_cbor(status, headers, body.to_vec()).await.0);
        assert_eq!(failure.kind, FailureKind::EndpointFailed, "{failure:?}");
    }
}

#[test]
fn aws_is_spoken_to_in_cbor_and_everybody_else_in_json_unless_told_otherwise() {
    let elsewhere = config(SocketAddr::from(([127, 0, 0, 1], 4567)));
    let at_aws = Config { aws: aws::Config { endpoint: None, ..elsewhere.aws.clone() }, ..elsewhere.clone() };
    assert_eq!((at_aws.encoding(), elsewhere.encoding()), (Encoding::Cbor, Encoding::Json));
    let told = Config { encoding: Some(Encoding::Json), ..at_aws };
    assert_eq!(told.encoding(), Encoding::Json);
}

#[tokio::test]
async fn a_third_more_is_on_the_wire_only_where_data_is_text() {
    for (encoding, in_base64) in [(Encoding::Cbor, false), (Encoding::Json, true)] {
        let config = Config { encoding: Some(encoding), ..config(SocketAddr::from(([127, 0, 0, 1], 4567))) };
        let destination = Kinesis::open(&config, &ORIGIN, &Arc::default()).expect("sound settings");
        assert_eq!(destination.writes_base64(), in_base64);
    }
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

/// What becomes of a request to an endpoint whose certificate is for `name` and has been signed in one year and ends in
/// another, when it is trusted, or somebody else instead.
async fn ask_with_certificate(name: &str, years: [i32; 2], trusted: bool) -> Failure {
    let make = |issuer: &str| {
        let key = rcgen::KeyPair::generate().expect("a key");
        let mut params = rcgen::CertificateParams::new(vec![name.to_owned()]).expect("sound parameters");
        params.distinguished_name.push(rcgen::DnType::CommonName, issuer);
        [params.not_before, params.not_after] = years.map(|year| rcgen::date_time_ymd(year, 1, 1));
        (params.self_signed(&key).expect("signed"), key)
    };
    let (certificate, key) = make("the plant");
    let ca = tempfile::NamedTempFile::new().expect("a temporary file");
    let trusts = if trusted { certificate.pem() } else { make("somebody else").0.pem() };
    fs::write(ca.path(), trusts).expect("written");
    let key = rustls::pki_types::PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
    let tls = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(vec![certificate.der().clone()], key));
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(tls.expect("sound")));
    let socket = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = socket.local_addr().expect("bound").port();
    let mut server = JoinSet::new();
    server.spawn(async move {
        while let Ok((stream, _)) = socket.accept().await {
            let _ = acceptor.accept(stream).await;
        }
    });
    let config = Config {
        stream: Some("plant".into()),
        aws: aws::Config {
            region: Some("eu-west-1".into()),
            endpoint: Some(format!("https://localhost:{port}")),
            credentials: None,
        },
        outgoing: outgoing::Config { ca_file: Some(ca.path().into()), ..outgoing::Config::default() },
        ..Config::default()
    };
    let destination = Kinesis::open(&config, &ORIGIN, &Arc::default()).expect("sound settings");
    failure(destination.send(&[parcel("a", b"one")]).await)
}

/// Waziup/WaziGate#20: seven days late, and the endpoint's certificate was not valid yet.
#[tokio::test]
async fn a_certificate_that_is_refused_says_why() {
    for (name, years, trusted, kind, words) in [
        ("localhost", [2090, 2091], true, FailureKind::Clock, "not valid yet by our clock"),
        ("localhost", [2010, 2011], true, FailureKind::TlsExpired, "expired by our clock"),
        ("portal.example", [2010, 2091], true, FailureKind::TlsWrongHost, "localhost"),
        ("localhost", [2010, 2091], false, FailureKind::TlsUnknownAuthority, ""),
    ] {
        let failure = ask_with_certificate(name, years, trusted).await;
        assert_eq!(failure.kind, kind, "{failure}");
        assert!(failure.message.contains(words), "{failure}");
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

#[tokio::test]
async fn a_connection_that_ends_is_told_as_such() {
    let failure = failure(ask_raw(|stream| async move { drop(stream) }).await);
    assert_eq!(failure.kind, FailureKind::Disconnected, "{failure}");
}

#[tokio::test]
async fn an_answer_that_breaks_off_confirms_nothing() {
    let cut = |mut stream: TcpStream| async move {
        let mut request = [0; 64 << 10];
        let _ = stream.read(&mut request).await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n{\"Fail").await;
    };
    let failure = failure(ask_raw(cut).await);
    assert_eq!(failure.kind, FailureKind::Disconnected, "{failure}");
}

#[tokio::test]
async fn a_hanging_endpoint_is_given_up_in_time() {
    let begun = Instant::now();
    let hang = |mut stream: TcpStream| async move {
        let mut request = [0; 64 << 10];
        while stream.read(&mut request).await.is_ok_and(|n| n > 0) {}
    };
    let failure = failure(ask_raw(hang).await);
    assert_eq!(failure.kind, FailureKind::TimedOut, "{failure}");
    assert!(begun.elapsed() >= Duration::from_secs(2), "given up after {:?}", begun.elapsed());
}

#[tokio::test]
async fn nobody_listening_is_told() {
    let free = TcpListener::bind("127.0.0.1:0").await.expect("a port").local_addr().expect("bound");
    let failure = failure(destination(free).await.send(&[parcel("a", b"one")]).await);
    assert_eq!(failure.kind, FailureKind::Refused);
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

#[tokio::test]
async fn a_stream_that_takes_ten_mebibytes_gets_them() {
    let mut config = config(([127, 0, 0, 1], 1).into());
    config.max_record = 10 << 20;
    let destination = Kinesis::open(&config, &ORIGIN, &Arc::default()).expect("sound settings");
    let mut large = (*record("key", b"")).clone();
    large.data = vec![0; (10 << 20) - 3].into();
    destination.accepts(&large).expect("just fits");
    assert!(destination.limits().request_bytes >= large.payload_bytes(), "one such record fits a request");
}

/// A stream whose only shard is split: what still goes to the old one is noticed, and the new ones are asked for.
#[tokio::test]
async fn an_aggregate_in_the_wrong_shard_is_astray_and_the_shards_are_asked_for_again() {
    let socket = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = socket.local_addr().expect("bound");
    let split = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let is_split = Arc::clone(&split);
    let handler = move |headers: HeaderMap, _: Bytes| {
        let is_split = is_split.load(std::sync::atomic::Ordering::Relaxed);
        async move {
            let shard = |id: &str, first: u128, last: u128, ends: Option<&str>| {
                json!({
                    "ShardId": id,
                    "HashKeyRange": { "StartingHashKey": first.to_string(), "EndingHashKey": last.to_string() },
                    "SequenceNumberRange": { "StartingSequenceNumber": "1", "EndingSequenceNumber": ends },
                })
            };
            let half = u128::MAX / 2;
            let lists = headers["x-amz-target"].to_str().expect("text").ends_with("ListShards");
            match (lists, is_split) {
                (true, false) => json!({ "Shards": [shard("old", 0, u128::MAX, None)] }),
                (true, true) => json!({ "Shards": [
                    shard("old", 0, u128::MAX, Some("9")), shard("low", 0, half, None), shard("high", half + 1, u128::MAX, None),
                ]}),
                (false, false) => json!({ "Records": [{ "SequenceNumber": "1", "ShardId": "old" }] }),
                (false, true) => json!({ "Records": [{ "SequenceNumber": "1", "ShardId": "low" }] }),
            }
            .to_string()
        }
    };
    let mut server = JoinSet::new();
    server.spawn(async move { axum::serve(socket, Router::new().route("/", post(handler))).await });
    let config = Config { aggregation: Aggregation::Kpl, ..config(address) };
    let destination = Kinesis::open(&config, &ORIGIN, &Arc::default()).expect("sound settings");
    let with = |key: &str, hash_key: u128| {
        let record = (*record(key, b"x")).clone();
        Arc::new(Record { explicit_hash_key: Some(HashKey(hash_key)), ..record })
    };
    let aggregate = [Parcel { records: vec![with("a", 1), with("b", u128::MAX)].into() }];
    let lane = |key: u128| destination.place(&with("k", key)).lane;

    assert_ne!(lane(1), lane(u128::MAX), "nothing is known yet");
    let (looks, wire) = (std::cell::Cell::new(0), destination.wire_bytes());
    let closed = || {
        looks.set(looks.get() + 1);
        assert_eq!(wire.sent(), 0, "it asks although the way out is closed");
        (looks.get() <= 3).then_some(Duration::from_millis(1))
    };
    destination.map_changed(closed).await;
    assert_eq!(looks.get(), 4);
    destination.take_map();
    assert_eq!(lane(1), lane(u128::MAX), "one shard");
    assert_eq!(destination.send(&aggregate).await, Outcome::Answered(vec![RecordOutcome::Accepted]));

    split.store(true, std::sync::atomic::Ordering::Relaxed);
    assert_eq!(destination.send(&aggregate).await, Outcome::Answered(vec![RecordOutcome::Astray]));
    destination.map_changed(|| None).await;
    destination.take_map();
    assert_ne!(lane(1), lane(u128::MAX), "two shards");
    assert_eq!(destination.send(&[parcel("a", b"one")]).await, Outcome::Answered(vec![RecordOutcome::Accepted]));
    let sent = destination.sent();
    assert_eq!((sent.records, sent.payload_records, sent.payload_units), (3, 5, 3));
}
