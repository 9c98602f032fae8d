//! Streams and shards that change while the agent runs.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::device::Version;
use crate::support::http;
use crate::support::publisher::{Memory, Progress, Publishing, publish_numbered};
use crate::support::{Forebay, Gateway, Upstream, eventually, free_port};

fn agent(streams: &str) -> Forebay {
    Forebay::start(&format!("data-dir = \"data\"\n[api]\nlisten = \"127.0.0.1:{}\"\n{streams}", free_port()))
}

/// What `forebay stream …` prints. It must succeed.
#[track_caller]
fn stream(agent: &Forebay, arguments: &[&str]) -> String {
    let (success, said) = try_stream(agent, arguments);
    assert!(success, "{arguments:?}: {said}");
    said
}

fn try_stream(agent: &Forebay, arguments: &[&str]) -> (bool, String) {
    // As README has it: behind everything else.
    let output = agent.home().forebay(&[&["stream"], arguments, &["--config", "forebay.toml"]].concat());
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&said).into_owned())
}

#[track_caller]
fn shown(agent: &Forebay, name: &str) -> Value {
    serde_json::from_str(&stream(agent, &["--json", "show", name])).expect("JSON")
}

fn open_shards(shown: &Value) -> usize {
    shown["shards"].as_array().expect("a list").iter().filter(|shard| shard["open"] == true).count()
}

#[test]
fn shards_change_under_load_and_every_key_keeps_its_order() {
    const MESSAGES: u64 = 20_000;
    let upstream = Upstream::start();
    let gateway = Gateway::to(&upstream.endpoint());
    let mut agent = Forebay::start(&gateway.configuration());
    let progress = Arc::new(Progress::default());
    let how = Publishing {
        port: gateway.mqtt,
        version: Version::V5,
        client_id: "logger".to_owned(),
        window: 200,
        memory: Memory::Keeps,
    };
    let message = |number: u64, payload: &mut Vec<u8>| {
        payload.extend_from_slice(format!("{number}").as_bytes());
        format!("plant/{}", number % 50)
    };
    thread::scope(|scope| {
        let publisher = scope.spawn(|| publish_numbered(&how, MESSAGES, &progress, message));
        for (share, count) in [(1, "5"), (2, "1"), (3, "3"), (4, "2")] {
            let some = || progress.acknowledged.load(Relaxed) >= share * MESSAGES / 6;
            eventually(Duration::from_secs(90), "some are acknowledged", some);
            stream(&agent, &["scale", "telemetry", count]);
        }
        assert_eq!(publisher.join().expect("the publisher ends").end, MESSAGES);
    });
    upstream.wait_for(MESSAGES, Duration::from_secs(90));
    let mut next: HashMap<String, u64> = (0..50).map(|key| (format!("plant/{key}"), key)).collect();
    for record in upstream.accepted() {
        let number: u64 = String::from_utf8_lossy(&record.data).parse().expect("a number");
        let next = next.get_mut(&record.partition_key).expect("a known key");
        assert_eq!(number, *next, "of {}", record.partition_key);
        *next += 50;
    }
    let before = shown(&agent, "telemetry");
    assert_eq!(open_shards(&before), 2);
    // Records are in every generation of shards, and what is closed says where it ends.
    let closed: Vec<_> = before["shards"].as_array().expect("a list").iter().filter(|s| s["open"] == false).collect();
    assert!(closed.iter().filter(|shard| shard["ends"].as_u64() >= shard["starts"].as_u64()).count() >= 8, "{before}");
    agent.restart();
    assert_eq!(shown(&agent, "telemetry"), before, "all is there again");
}

#[test]
fn a_stream_is_made_used_set_and_deleted_while_the_agent_runs() {
    let mut agent = agent("[streams.telemetry]\n");
    let said = stream(&agent, &["create", "video", "shards=2", "retention=48h", "rate-limit=off"]);
    assert!(said.starts_with("stream video: made at run time, "), "{said}");
    assert_eq!(stream(&agent, &["list"]), "telemetry\nvideo\n");
    let put = agent.home().forebay(&["put", "video", "--key", "k", "--data", "x", "--config", "forebay.toml"]);
    assert!(put.status.success(), "{}", String::from_utf8_lossy(&put.stderr));
    stream(&agent, &["set", "video", "retention=72h"]);
    let (success, said) = try_stream(&agent, &["set", "video", "quota=4PiB"]);
    assert!(!success && said.contains("but the disk of"), "{said}");
    assert_eq!(agent.status()["streams"]["video"]["records"], 1);

    agent.kill9();
    agent.start_again();
    let video = shown(&agent, "video");
    assert_eq!((&video["settings"]["retention"], &video["next"]), (&json!("72h"), &json!(2)));
    let (success, said) = try_stream(&agent, &["delete", "video"]);
    assert!(!success && said.contains("1 records would go with it"), "{said}");
    assert_eq!(stream(&agent, &["delete", "video", "--yes"]), "deleted video\n");
    assert_eq!(stream(&agent, &["list"]), "telemetry\n");
    let gone = http::get(agent.api(), "/streams/video/records").expect("a running agent answers");
    assert_eq!(gone.status, 404, "{}", gone.body);
    assert!(agent.status()["streams"]["video"].is_null());
    agent.restart();
    assert_eq!(stream(&agent, &["list"]), "telemetry\n");
}

#[test]
fn what_cannot_be_done_is_said() {
    let agent = agent("[streams.telemetry]\n");
    for (arguments, expected) in [
        (&["delete", "telemetry", "--yes"][..], "stands in the configuration file: change it there"),
        (&["delete", "telemetry"], "stands in the configuration file: change it there"),
        (&["create", "video", "quota=4PiB"], "streams: the quotas add up to 4.0 PiB (video 4.0 PiB, telemetry 1.0 GiB"),
        (&["set", "telemetry", "retention=48h"], "stands in the configuration file: change it there"),
        (&["create", "telemetry"], "there is a stream `telemetry` already"),
        (&["create", "video", "retention=1h"], "streams.video.retention: must be 24h to 8760h (a year), not 1h"),
        (&["create", "video", "retentoin=48h"], "streams.video.retentoin: unknown key, did you mean `retention`?"),
        (&["show", "video"], "there is no stream `video`; there is only `telemetry`"),
        (&["split", "telemetry", "7"], "there is no shardId-000000000007"),
        (&["split", "telemetry", "first"], "split.shard: a shard is `shardId-` and a number"),
        (&["split", "telemetry", "0", "--at", "0"], "hash key 0 does not divide shardId-000000000000"),
        (&["merge", "telemetry", "0", "0"], "shardId-000000000000 and shardId-000000000000 do not adjoin"),
        (&["scale", "telemetry", "0"], "a stream has at least one shard"),
        (&["scale", "telemetry", "20000"], "a stream has at most 10000 shards"),
    ] {
        let (success, said) = try_stream(&agent, arguments);
        assert!(!success && said.contains(expected), "{arguments:?}: {said}");
    }
    stream(&agent, &["split", "telemetry", "0"]);
    let (_, said) = try_stream(&agent, &["split", "telemetry", "shardId-000000000000"]);
    assert!(said.contains("shardId-000000000000 is closed"), "{said}");
    assert_eq!(open_shards(&shown(&agent, "telemetry")), 2);
}
