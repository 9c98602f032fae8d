//! The scripted upstream, as boto3 finds it.

use std::io::ErrorKind;
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::http;
use crate::support::upstream::{Accepted, Keep, SentRecord, hash_key};
use crate::support::{Kinesis, Reply, Upstream, eventually};

const PATIENT: Duration = Duration::from_secs(20);
const SHORT: Duration = Duration::from_millis(500);

#[test]
fn remembers_what_it_accepts_in_order() {
    let upstream = Upstream::start();
    let answer = put(&upstream, &["a=1", "b=2", "a=3"]);
    assert_eq!(answer, json!({ "failed": 0, "records": [null, null, null] }));
    put(&upstream, &["c=4"]);

    assert_eq!(texts(&upstream.accepted()), ["a=1", "b=2", "a=3", "c=4"]);
    assert_eq!(upstream.accepted()[3].request, 1);
    assert_eq!(upstream.accepted()[3].stream, "plant");
    let arrived = upstream.arrived();
    assert_eq!((arrived[0].records, arrived[0].bytes), (3, 6));
    assert!(arrived[1].at > arrived[0].at);
}

#[test]
fn refuses_single_records_of_a_request() {
    let upstream = Upstream::start();
    upstream.script([Reply::Throttle(vec![1]), Reply::Fail(vec![0, 2])]);

    let throttled = put(&upstream, &["a=1", "b=2", "c=3"]);
    let code = "ProvisionedThroughputExceededException";
    assert_eq!(throttled, json!({ "failed": 1, "records": [null, code, null] }));
    let failed = put(&upstream, &["d=4", "e=5", "f=6"]);
    assert_eq!(failed, json!({ "failed": 2, "records": ["InternalFailure", null, "InternalFailure"] }));

    assert_eq!(texts(&upstream.accepted()), ["a=1", "c=3", "e=5"]);
}

#[test]
fn fails_whole_requests_in_many_ways_and_takes_nothing() {
    let upstream = Upstream::start();
    let ways = [
        (Reply::server_error(), json!({ "code": "InternalFailure", "status": 500 })),
        (Reply::throttle_all(), json!({ "code": "ProvisionedThroughputExceededException", "status": 400 })),
        (Reply::validation(), json!({ "code": "ValidationException", "status": 400 })),
        (Reply::unauthorised(), json!({ "code": "UnrecognizedClientException", "status": 400 })),
        (Reply::no_such_stream(), json!({ "code": "ResourceNotFoundException", "status": 400 })),
        (Reply::Close, json!({ "error": "ConnectionClosedError" })),
        (Reply::Reset, json!({ "error": "ConnectionClosedError" })),
    ];
    for (reply, seen) in ways {
        upstream.script([reply.clone()]);
        assert_eq!(put(&upstream, &["a=1"]), seen, "{reply:?}");
    }
    // What boto3 makes of these is its own affair, as long as it does not see a success.
    for reply in [Reply::Html { status: 502 }, Reply::Html { status: 200 }, Reply::Empty] {
        upstream.script([reply.clone()]);
        let seen = put(&upstream, &["a=1"]);
        assert!(seen.get("failed").is_none(), "{reply:?}: {seen}");
    }
    assert_eq!(upstream.accepted_count(), 0);
    assert_eq!(upstream.arrived().len(), 10);

    put(&upstream, &["a=1"]);
    assert_eq!(texts(&upstream.accepted()), ["a=1"]);
}

#[test]
fn takes_records_without_the_client_learning_of_it() {
    let upstream = Upstream::start();
    upstream.script([Reply::AcceptThenReset, Reply::AcceptThenHang]);
    assert_eq!(put(&upstream, &["a=1"]), json!({ "error": "ConnectionClosedError" }));
    assert_eq!(put_within(&upstream, SHORT, &["a=2"]), json!({ "error": "ReadTimeoutError" }));
    assert_eq!(texts(&upstream.accepted()), ["a=1", "a=2"]);
}

#[test]
fn closing_and_resetting_a_connection_are_two_things() {
    let upstream = Upstream::start();
    upstream.script([Reply::Close, Reply::Reset]);
    let address = upstream.endpoint().trim_start_matches("http://").parse().unwrap();
    let body = r#"{"StreamName":"plant","Records":[{"PartitionKey":"a","Data":"MQ=="}]}"#;
    let headers = [
        ("Content-Type", "application/x-amz-json-1.1"),
        ("X-Amz-Target", "Kinesis_20131202.PutRecords"),
        ("Authorization", "AWS4-HMAC-SHA256 of nobody"),
    ];
    let put = || http::post(address, "/", &headers, body.as_bytes());
    assert_eq!(put().unwrap_err().kind(), ErrorKind::UnexpectedEof);
    assert_eq!(put().unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert_eq!(put().unwrap().status, 200);
}

#[test]
fn hangs_until_told_to_behave() {
    let upstream = Upstream::start();
    upstream.otherwise(|_| Reply::Hang);
    assert_eq!(put_within(&upstream, SHORT, &["a=1"]), json!({ "error": "ReadTimeoutError" }));
    thread::scope(|scope| {
        let waiting = scope.spawn(|| put(&upstream, &["a=2"]));
        eventually(PATIENT, "the second request arrives", || upstream.arrived().len() == 2);
        upstream.behave();
        assert_eq!(waiting.join().unwrap(), json!({ "error": "ConnectionClosedError" }));
    });
    assert_eq!(put(&upstream, &["a=3"])["failed"], 0);
    assert_eq!(texts(&upstream.accepted()), ["a=3"]);
}

#[test]
fn cannot_be_reached_while_the_link_is_down() {
    let upstream = Upstream::start();
    put(&upstream, &["a=1"]);
    upstream.link_down();
    assert_eq!(put(&upstream, &["a=2"]), json!({ "error": "EndpointConnectionError" }));
    upstream.link_up();
    put(&upstream, &["a=3"]);
    assert_eq!(texts(&upstream.accepted()), ["a=1", "a=3"]);
}

#[test]
fn decides_by_what_a_request_says_and_may_be_slow() {
    let upstream = Upstream::start();
    upstream.otherwise(|request| {
        let poisoned = |record: &SentRecord| record.data == b"poison";
        let reply = match request.records.iter().position(poisoned) {
            Some(place) => Reply::Fail(vec![place]),
            None => Reply::Accept,
        };
        Reply::After(Duration::from_millis(20), Box::new(reply))
    });
    assert_eq!(put(&upstream, &["a=1", "b=poison"])["records"], json!([null, "InternalFailure"]));
    assert_eq!(texts(&upstream.accepted()), ["a=1"]);
}

#[test]
fn refuses_what_kinesis_refuses() {
    let upstream = Upstream::start();
    let refused = json!({ "code": "ValidationException", "status": 400 });
    let many: Vec<String> = (0..501).map(|number| format!("k={number}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    assert_eq!(put(&upstream, &many), refused);
    assert_eq!(put(&upstream, &many[..500])["failed"], 0);
    let key = "ü".repeat(257);
    assert_eq!(put(&upstream, &[&format!("{key}=1")]), refused);
    assert_eq!(put(&upstream, &[&format!("{}=1", &key[..512])])["failed"], 0);
    assert_eq!(upstream.arrived().len(), 2, "what is refused for its form never reaches a script");
}

#[test]
fn lists_its_shards_and_puts_records_where_they_belong() {
    let upstream = Upstream::start_divided(2);
    let half = u128::MAX / 2;
    put(&upstream, &["a=1", "b=2", "c=3"]);
    let before = upstream.shards().open();
    upstream.shards().split(1);
    upstream.shards().merge(0);
    put(&upstream, &["a=4", "b=5", "c=6"]);

    let listed = Kinesis::at(&upstream.endpoint()).shards("plant");
    let told = |shard: &Value| {
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let number = |value: &Value| value.as_str().map(|id| id.trim_start_matches("shardId-").parse::<u32>().unwrap());
        let (range, numbers) = (&shard["HashKeyRange"], &shard["SequenceNumberRange"]);
        let parents = (number(&shard["ParentShardId"]), number(&shard["AdjacentParentShardId"]));
        let range = [&range["StartingHashKey"], &range["EndingHashKey"]].map(|key| text(key).unwrap().parse().unwrap());
        (number(&shard["ShardId"]).unwrap(), range, parents, numbers["EndingSequenceNumber"].is_null())
    };
    let middle = half + 1 + half / 2;
    let expected = [
        (0, [0, half], (None, None), false),
        (1, [half + 1, u128::MAX], (None, None), false),
        (2, [half + 1, middle], (Some(1), None), false),
        (3, [middle + 1, u128::MAX], (Some(1), None), true),
        (4, [0, middle], (Some(0), Some(2)), true),
    ];
    assert_eq!(listed.iter().map(told).collect::<Vec<_>>(), expected);
    assert_eq!(upstream.listed(), 2, "three on a page");
    for (number, record) in upstream.accepted().iter().enumerate() {
        assert!(record.shard.has(hash_key(&record.partition_key)), "{record:?}");
        let open = if number < 3 { before.clone() } else { upstream.shards().open() };
        assert!(open.contains(&record.shard), "{record:?}");
    }

    upstream.listing(|_| Reply::Listed(vec![]));
    assert_eq!(Kinesis::at(&upstream.endpoint()).shards("plant"), [] as [Value; 0]);
}

#[test]
fn counts_without_keeping() {
    let upstream = Upstream::start_keeping(Keep::CountOnly);
    put(&upstream, &["a=1", "b=2"]);
    upstream.wait_for(2, PATIENT);
    assert_eq!(upstream.accepted(), []);
}

fn put(upstream: &Upstream, records: &[&str]) -> Value {
    put_within(upstream, PATIENT, records)
}

fn put_within(upstream: &Upstream, read_timeout: Duration, records: &[&str]) -> Value {
    Kinesis::at(&upstream.endpoint()).put("plant", read_timeout, records)
}

fn texts(accepted: &[Accepted]) -> Vec<String> {
    let text = |record: &Accepted| format!("{}={}", record.partition_key, String::from_utf8_lossy(&record.data));
    accepted.iter().map(text).collect()
}
