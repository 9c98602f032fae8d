//! What comes by socket, over HTTP, from programs and through a pipe: against the real programs that send it.

mod exec;
mod http;
mod socket;
mod stdin;

use std::path::Path;
use std::time::Duration;

use base64::Engine as _;
use serde_json::Value;

use crate::support::{Forebay, eventually, head};

/// For what takes no longer than a commit, on a machine that is busy with a build beside the tests.
const SOON: Duration = Duration::from_secs(20);

/// An agent's configuration with this table, as `[sources.ear]`, and more tables behind it.
fn configuration(source: &str) -> String {
    format!("{}[sources.ear]\nstream = \"telemetry\"\n{source}\n", head())
}

#[track_caller]
fn agent(source: &str) -> Forebay {
    Forebay::start(&configuration(source))
}

/// Partition key and data of every record, in order.
#[track_caller]
fn stored(agent: &Forebay) -> Vec<(String, Vec<u8>)> {
    let tail = agent.home().forebay(&["tail", "telemetry", "--json", "--config", "forebay.toml"]);
    assert!(tail.status.success(), "{}", String::from_utf8_lossy(&tail.stderr));
    let text = String::from_utf8(tail.stdout).expect("JSON is UTF-8");
    let record = |line: &str| {
        let record: Value = serde_json::from_str(line).expect("a line of JSON");
        let data = base64::prelude::BASE64_STANDARD.decode(record["data"].as_str().expect("data")).expect("base64");
        (record["partition_key"].as_str().expect("a key").to_owned(), data)
    };
    text.lines().map(record).collect()
}

/// The data of every record, as text.
#[track_caller]
fn texts(agent: &Forebay) -> Vec<String> {
    stored(agent).into_iter().map(|(_, data)| String::from_utf8_lossy(&data).into_owned()).collect()
}

/// Waits until so many records are stored.
#[track_caller]
fn until_stored(agent: &Forebay, records: u64) {
    eventually(SOON, &format!("{records} records are stored"), || records_of(agent) >= records);
}

fn records_of(agent: &Forebay) -> u64 {
    agent.status()["sources"]["ear"]["records"].as_u64().expect("a number")
}

/// How often something was refused for this reason.
#[track_caller]
fn refused(agent: &Forebay, reason: &str) -> u64 {
    agent.status()["sources"]["ear"]["refused"][reason].as_u64().unwrap_or(0)
}

#[track_caller]
fn until_refused(agent: &Forebay, reason: &str, times: u64) {
    eventually(SOON, &format!("{reason} is counted {times} times"), || refused(agent, reason) >= times);
}

/// A self-signed certificate for 127.0.0.1 and its key, as files `NAME.pem` and `NAME.key`.
fn certificate(dir: &Path, name: &str) {
    let key = rcgen::KeyPair::generate().expect("a key");
    let params = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).expect("a name");
    let certificate = params.self_signed(&key).expect("a certificate");
    std::fs::write(dir.join(format!("{name}.pem")), certificate.pem()).expect("written");
    std::fs::write(dir.join(format!("{name}.key")), key.serialize_pem()).expect("written");
}
