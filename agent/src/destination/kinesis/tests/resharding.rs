//! Aggregates of a stream whose shards change.

use forebay_log_store::HashKey;

use super::*;

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
    let with =
        |key: &str, hash_key: u128| Arc::new(Record { explicit_hash_key: Some(HashKey(hash_key)), ..plain(key, "x") });
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
