//! What goes out of records, and how large they may be.

use forebay_log_store::HashKey;

use super::*;

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
    let sent = Record { explicit_hash_key: Some(HashKey(u128::MAX)), ..plain("Grüße/1", &b"\x00\xff"[..]) };
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
async fn a_record_over_the_limit_is_told_with_figures() {
    let destination = destination(([127, 0, 0, 1], 1).into()).await;
    let mut large = plain("key", "");
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
    let mut large = plain("key", "");
    large.data = vec![0; (10 << 20) - 3].into();
    destination.accepts(&large).expect("just fits");
    assert!(destination.limits().request_bytes >= large.payload_bytes(), "one such record fits a request");
}
