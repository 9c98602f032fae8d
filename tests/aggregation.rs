//! Aggregates against real servers, read back by the library that others read them with: nothing is lost, order per key
//! holds, and every record is where a consumer looks for it, also while shards are split.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::Duration;

use serde_json::Value;

use crate::support::daemon::PATIENCE;
use crate::support::device::Version;
use crate::support::gateway::CLOUD_STREAM;
use crate::support::publisher::{Memory, Progress, Publishing, publish_numbered};
use crate::support::python::python_with;
use crate::support::{Forebay, Gateway, Kinesalite, Kinesis, KinesisLocal, Moto, eventually};

const SCRIPT: &str = include_str!("support/aggregates.py");

/// What is delivered at least before each split, and after them.
const MESSAGES: u64 = 2000;

/// Deaggregated in pure Python, on a busy machine.
const LONG: Duration = Duration::from_secs(120);

#[test]
fn four_keys_arrive_in_order_at_kinesalite_while_shards_are_split() {
    let server = Kinesalite::start();
    let shards = arrive_in_order(Gateway::to(&server.endpoint()), &server.kinesis(), 4, "", Splits::UnderLoad);
    assert!(shards.len() > 2, "records went to the shards that came of the split, too: {shards:?}");
}

const TAGS: &str = "aggregate-tags = [\"sequence-number\", \"arrival\", \"id\"]";

#[test]
fn four_keys_arrive_in_order_in_cbor_at_kinesis_local_while_shards_are_split() {
    let server = KinesisLocal::start();
    let (gateway, cbor) = (Gateway::to(&server.endpoint()), "encoding = \"cbor\"");
    let shards = arrive_in_order(gateway, &server.kinesis(), 4, cbor, Splits::UnderLoad);
    assert!(shards.len() > 2, "records went to the shards that came of the split, too: {shards:?}");
}

#[test]
fn many_keys_with_tags_arrive_in_order_at_moto() {
    let server = Moto::start();
    arrive_in_order(Gateway::to(&server.endpoint()), &server.kinesis(), 300, TAGS, Splits::None);
}

/// Moto lists the shards that came of a split, and lets the split one take everything: no list of it is right any more, and
/// aggregates for new shards go astray once they are known. Nothing may wait for that to change.
#[test]
fn many_keys_with_tags_arrive_in_order_at_moto_while_shards_are_split() {
    let server = Moto::start();
    let kinesis = server.kinesis();
    let more = format!("shard-refresh = \"10s\"\n{TAGS}");
    let taken = arrive_in_order(Gateway::to(&server.endpoint()), &kinesis, 300, &more, Splits::InNameOnly);
    let closed = |shard: &Value| shard["SequenceNumberRange"].get("EndingSequenceNumber").is_some();
    let listed = kinesis.shards(CLOUD_STREAM);
    assert_eq!(listed.iter().map(closed).collect::<Vec<_>>(), [true, true, false, false, false, false]);
    let closed: BTreeSet<_> =
        listed.iter().filter(|shard| closed(shard)).map(|shard| shard["ShardId"].to_string()).collect();
    assert_eq!(taken, closed, "if moto does as AWS by now, this is no more than what kinesalite shows");
}

/// What becomes of the shards meanwhile.
enum Splits {
    None,
    /// Both are split.
    UnderLoad,
    /// The same, and they go on taking all that was theirs.
    InNameOnly,
}

/// Returns the shards in which records are.
#[track_caller]
fn arrive_in_order(gateway: Gateway, kinesis: &Kinesis, keys: u64, more: &str, splits: Splits) -> BTreeSet<String> {
    kinesis.create_stream(CLOUD_STREAM, 2);
    // Small ones, so that there are many when a shard is split.
    let destination = format!("aggregation = \"kpl\"\naggregate-bytes = \"4KiB\"\nbatch-age = \"20ms\"\n{more}");
    let gateway = Gateway { destination, ..gateway };
    let agent = Forebay::start(&gateway.configuration());
    let progress = Arc::new(Progress::default());
    let publishing = Publishing {
        port: gateway.mqtt,
        version: Version::V311,
        client_id: "device".to_owned(),
        // Slow, so that shards are split while records come.
        window: 4,
        memory: Memory::Keeps,
    };
    let publisher = thread::spawn({
        let progress = Arc::clone(&progress);
        move || {
            publish_numbered(&publishing, u64::MAX, &progress, |number, payload| {
                payload.extend_from_slice(number.to_string().as_bytes());
                format!("key/{}", number % keys)
            })
        }
    });
    let delivered = || agent.status()["destinations"]["cloud"]["records"].as_u64().expect("a count");
    for shard in [0, 1] {
        let before = delivered();
        eventually(LONG, "records are delivered", || delivered() >= before + MESSAGES);
        if matches!(splits, Splits::UnderLoad | Splits::InNameOnly) {
            let shard = format!("shardId-{shard:012}");
            python_with("kpl-python", SCRIPT, &[&gateway.endpoint, "split", CLOUD_STREAM, &shard]);
        }
    }
    let astray = || agent.status()["destinations"]["cloud"]["astray_records"].as_u64().expect("a count");
    if matches!(splits, Splits::InNameOnly) {
        eventually(LONG, "the new shards are known, and records for them go elsewhere", || astray() > 0);
    }
    let before = delivered();
    eventually(LONG, "records are delivered behind that", || delivered() >= before + MESSAGES);
    progress.stop.store(true, Relaxed);
    let messages = publisher.join().expect("published").end;
    eventually(LONG, "everything is delivered", || delivered() >= messages);

    let arguments = [gateway.endpoint.as_str(), "read", CLOUD_STREAM, &messages.to_string(), "60"];
    let read = python_with("kpl-python", SCRIPT, &arguments);
    assert!(read.iter().any(|record| record["aggregated"] == true), "nothing was aggregated");
    if more.ends_with(TAGS) {
        ids_tell_records_apart(&read);
    }
    // Shard by shard, the older ones first: a key's records in the order in which a consumer gets them.
    let mut numbers = BTreeMap::<u64, Vec<u64>>::new();
    for record in read.iter().filter(|record| record["inside"] == true) {
        let number: u64 = record["data"].as_str().expect("text").parse().expect("a number");
        assert_eq!(record["partition_key"], format!("key/{}", number % keys));
        let seen = numbers.entry(number % keys).or_default();
        if !seen.contains(&number) {
            seen.push(number);
        }
    }
    for (key, seen) in &numbers {
        let expected: Vec<_> = (0..messages).filter(|number| number % keys == *key).collect();
        assert!(*seen == expected, "key {key}: {} of {} seen, or not in their order", seen.len(), expected.len());
    }
    assert_eq!(numbers.len() as u64, keys);
    let (outside, astray) = (read.iter().filter(|record| record["inside"] == false).count() as u64, astray());
    assert!(astray >= outside, "{outside} records are where nobody looks, {astray} were sent again");
    read.iter().map(|record| record["shard"].to_string()).collect()
}

/// Whoever drops what has an id that was there already drops copies, and only those.
#[track_caller]
fn ids_tell_records_apart(read: &[Value]) {
    let mut known = BTreeMap::new();
    for record in read {
        let id = record["id"].as_str().unwrap_or_else(|| panic!("without an id: {record}"));
        let first = known.entry(id).or_insert(&record["data"]);
        assert_eq!(*first, &record["data"], "{id}");
    }
    let different: BTreeSet<_> = read.iter().map(|record| record["data"].as_str()).collect();
    assert_eq!(known.len(), different.len(), "copies have the same id");
}

#[test]
fn lines_are_joined_by_key_compressed_and_told_in_status() {
    let server = Kinesalite::start();
    let kinesis = server.kinesis();
    kinesis.create_stream(CLOUD_STREAM, 1);
    let gateway = Gateway {
        destination: "aggregation = \"lines\"\ncompress = \"gzip\"".to_owned(),
        ..Gateway::to(&server.endpoint())
    };
    let agent = Forebay::start(&gateway.configuration());
    let publishing = Publishing {
        port: gateway.mqtt,
        version: Version::V5,
        client_id: "device".to_owned(),
        window: 1000,
        memory: Memory::Keeps,
    };
    publish_numbered(&publishing, 5000, &Arc::new(Progress::default()), |number, payload| {
        payload.extend_from_slice(format!("{{\"sensor\":\"boiler\",\"n\":{number},\"celsius\":21.5}}").as_bytes());
        format!("key/{}", number % 2)
    });
    let cloud = || agent.status()["destinations"]["cloud"].clone();
    eventually(PATIENCE, "everything is delivered", || cloud()["records"] == 5000);
    let mut lines = BTreeMap::<String, Vec<u64>>::new();
    for record in kinesis.read(CLOUD_STREAM, 1, PATIENCE) {
        let mut text = String::new();
        flate2::read::GzDecoder::new(&record.data[..]).read_to_string(&mut text).expect("gzip of text");
        let numbers = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON")["n"].as_u64());
        lines.entry(record.partition_key).or_default().extend(numbers.map(|number| number.expect("a number")));
    }
    for key in 0..2 {
        let expected: Vec<_> = (0..5000).filter(|number| number % 2 == key).collect();
        assert_eq!(lines[&format!("key/{key}")], expected);
    }
    let wire = &cloud()["wire"];
    assert!(wire["records_each"].as_f64().expect("a number") > 10.0, "{wire}");
    assert!(wire["bytes_per_payload_byte"].as_f64().expect("a number") < 0.4, "{wire}");
    let table = agent.home().forebay(&["status", "--config", "forebay.toml"]);
    let table = String::from_utf8(table.stdout).expect("text");
    assert!(table.contains(" aggregates of ") && table.contains("payload units"), "{table}");
}
