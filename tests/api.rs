//! The local API over HTTP: who may ask, what is answered, and what is said about a bad request.

use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::forebay::Home;
use crate::support::http::{self, Answer};
use crate::support::{Forebay, free_port, head};

const JSON: [(&str, &str); 1] = [("Content-Type", "application/json")];

fn agent() -> Forebay {
    Forebay::start(&head())
}

#[track_caller]
fn get(agent: &Forebay, path: &str) -> Answer {
    http::get(agent.api(), path).expect("a running agent answers")
}

#[track_caller]
fn put(agent: &Forebay, body: &Value) -> Answer {
    let body = body.to_string();
    http::post(agent.api(), "/streams/telemetry/records", &JSON, body.as_bytes()).expect("a running agent answers")
}

fn json(answer: &Answer) -> Value {
    serde_json::from_str(&answer.body).unwrap_or_else(|error| panic!("{error}: {}", answer.body))
}

#[test]
fn health_status_and_metrics() {
    let agent = agent();
    assert_eq!(get(&agent, "/healthz").body, "{\"healthy\":true,\"reasons\":[]}");
    assert_eq!(agent.status()["streams"]["telemetry"]["records"], 0);
    assert_eq!(put(&agent, &json!({"records": [{"partition_key": "k", "text": "x"}]})).status, 200);
    let metrics = get(&agent, "/metrics").body;
    let line = "forebay_shard_records_total{stream=\"telemetry\",shard=\"shardId-000000000000\"} 1";
    assert!(metrics.lines().any(|found| found == line), "{metrics}");
}

#[test]
fn records_that_were_put_are_read() {
    let agent = agent();
    let answer = put(
        &agent,
        &json!({"records": [
            {"partition_key": "a", "text": "Grüße"},
            {"partition_key": "b", "data": "/wA=", "explicit_hash_key": "0"},
        ]}),
    );
    assert_eq!(answer.status, 200, "{}", answer.body);
    let shard = "shardId-000000000000";
    let places = json!([{"shard": shard, "sequence_number": 1}, {"shard": shard, "sequence_number": 2}]);
    assert_eq!(json(&answer)["records"], places);

    let read = json(&get(&agent, "/streams/telemetry/records?from=oldest"));
    assert_eq!((read["next"].as_u64(), read["end"].as_u64()), (Some(3), Some(3)));
    assert_eq!(read["records"][0]["data"], "R3LDvMOfZQ==");
    assert_eq!(read["records"][1]["data"], "/wA=");
    assert_eq!(read["records"][1]["partition_key"], "b");
    let one = json(&get(&agent, "/streams/telemetry/records?from=1&limit=1"));
    assert_eq!((one["records"].as_array().map(Vec::len), one["next"].as_u64()), (Some(1), Some(2)));
    let none = json(&get(&agent, "/streams/telemetry/records?from=latest"));
    assert_eq!(none, json!({"records": [], "next": 3, "end": 3}));
}

#[test]
fn a_read_waits_for_what_comes() {
    let agent = agent();
    let api = agent.api();
    let begun = Instant::now();
    let waiting = thread::spawn(move || http::get(api, "/streams/telemetry/records?from=latest&wait=8"));
    // Whether the read comes first or the put, the answer is the same; usually it is the read.
    while json(&get(&agent, "/streams/telemetry/records"))["end"] != 2 {
        if begun.elapsed() > Duration::from_millis(200) {
            assert_eq!(put(&agent, &json!({"records": [{"partition_key": "k", "text": "x"}]})).status, 200);
        }
    }
    let answer = waiting.join().expect("no panic").expect("an answer");
    assert_eq!(json(&answer)["records"][0]["data"], "eA==");
    assert!(begun.elapsed() < Duration::from_secs(8), "it did not wait longer than needed");
}

#[test]
fn a_bad_request_is_told_what_is_wrong_and_where() {
    let agent = agent();
    let many: Vec<_> = (0..501).map(|_| json!({"partition_key": "k", "text": ""})).collect();
    for (body, field) in [
        (json!({}), "."),
        (json!({"records": []}), "records"),
        (json!({"records": many}), "records"),
        (json!({"records": [{"partition_key": "k"}]}), "records[0].data"),
        (json!({"records": [{"partition_key": "k", "text": "", "data": ""}]}), "records[0].text"),
        (json!({"records": [{"partition_key": "k", "data": "%"}]}), "records[0].data"),
        (json!({"records": [{"partition_key": "", "text": ""}]}), "records[0]"),
        (
            json!({"records": [{"partition_key": "k", "text": "", "explicit_hash_key": "x"}]}),
            "records[0].explicit_hash_key",
        ),
        (json!({"records": [{"partition_key": "k", "txt": ""}]}), "records[0].txt"),
    ] {
        let answer = put(&agent, &body);
        assert_eq!((answer.status, &json(&answer)["field"]), (400, &json!(field)), "{}", answer.body);
        assert!(json(&answer)["error"].as_str().is_some_and(|error| !error.is_empty()));
    }
    for (path, status, said) in [
        ("/nowhere", 404, "there is nothing at /nowhere"),
        ("/streams/telemetri/records", 404, "there is only `telemetry`"),
        ("/streams/telemetry/records?from=now", 400, "a sequence number, not `now`"),
        ("/streams/telemetry/records?limit=0", 400, "must be 1 to 10000"),
        ("/streams/telemetry/records?shard=5", 400, "has no shard 5"),
        ("/streams/telemetry/records?x=5", 400, "unknown"),
    ] {
        let answer = get(&agent, path);
        assert_eq!(answer.status, status, "{path}: {}", answer.body);
        assert!(json(&answer)["error"].as_str().is_some_and(|error| error.contains(said)), "{}", answer.body);
    }
    let large = http::post(agent.api(), "/streams/telemetry/records", &JSON, &vec![b' '; (16 << 20) + 1]);
    // It may close the connection on a client that goes on sending.
    assert!(large.is_err() || large.is_ok_and(|answer| answer.status == 413));
    assert_eq!(agent.status()["streams"]["telemetry"]["records"], 0, "nothing of all this was stored");
}

#[test]
fn web_pages_cannot_ask_in_the_name_of_a_browser() {
    let agent = agent();
    let path = "/streams/telemetry/records";
    let body = b"{\"records\":[{\"partition_key\":\"k\",\"text\":\"x\"}]}";
    for content_type in ["text/plain", "application/x-www-form-urlencoded"] {
        let answer = http::post(agent.api(), path, &[("Content-Type", content_type)], body).expect("an answer");
        assert_eq!(answer.status, 415, "{}", answer.body);
    }
    let answer = http::send(agent.api(), "GET", "/status", &[("Host", "evil.example:4567")], b"").expect("an answer");
    assert_eq!(answer.status, 403, "{}", answer.body);
}

#[test]
fn off_loopback_the_token_is_demanded() {
    let port = free_port();
    let home = Home::new(&format!("data-dir = \"data\"\n[api]\nlisten = \"0.0.0.0:{port}\"\n"));
    let output = home.forebay(&["check", "--config", "forebay.toml"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(78) && said.contains("api.token-file: missing"), "{said}");

    std::fs::write(home.path().join("token"), "s3cret\n").expect("a temporary directory takes a file");
    home.configure(&format!("data-dir = \"data\"\n[api]\nlisten = \"0.0.0.0:{port}\"\ntoken-file = \"token\"\n"));
    let agent = Forebay::start_in(home, &[]);
    let ask = |token: Option<&str>| {
        let token = token.map(|token| format!("Bearer {token}"));
        let headers: Vec<_> = token.iter().map(|token| ("Authorization", token.as_str())).collect();
        http::send(agent.api(), "GET", "/status", &headers, b"").expect("an answer").status
    };
    // From loopback too, once there is one.
    assert_eq!((ask(None), ask(Some("wrong")), ask(Some("s3cret"))), (401, 401, 200));
    assert_eq!(get(&agent, "/healthz").body, "{\"healthy\":true}", "whether it is well, anybody may know");
    // The command line finds the token in the configuration.
    let output = agent.home().forebay(&["status", "--config", "forebay.toml"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(!agent.log().contains("s3cret"));
}
