//! Requests and answers in CBOR, and whom it is spoken to.

use super::*;

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
