//! Ten deliveries of one stream, eight of them sick, each in another way: they cost the two healthy ones and the devices
//! nothing but what the stream's quota gives them, and those that recover deliver what is left.

use std::collections::HashMap;
use std::time::Duration;

use serde_json::Value;

use super::endpoint::upstream;
use super::trial::{Sent, both_ways};
use crate::support::daemon::PATIENCE;
use crate::support::device::Version;
use crate::support::upstream::{Accepted, PutRecords};
use crate::support::{Device, Forebay, Gateway, Reply, eventually, free_port};

/// Deliveries, by what they suffer from, and what status calls it.
const SICK: [(&str, &str); 8] = [
    ("refused", "refused"),
    ("silent", "timed-out"),
    ("unauthorised", "credentials-refused"),
    ("throttled", "throttled"),
    ("failing", "endpoint-failed"),
    ("misconfigured", "misconfigured"),
    ("invalid", "request-invalid"),
    ("clock", "clock"),
];
const HEALTHY: [&str; 2] = ["cloud", "healthy"];

const QUOTA_BYTES: u64 = 4 << 20;
const SEGMENT_BYTES: u64 = 256 << 10;
const RECORD_BYTES: usize = 1000;
const KEYS: u64 = 50;
/// Between two looks: well below the quota.
const RECORDS_AT_ONCE: u64 = 1000;
const ROUNDS: u64 = 12;

const LONG: Duration = Duration::from_secs(60);

fn answer(request: &PutRecords) -> Reply {
    match request.stream.as_str() {
        "silent" => Reply::Hang,
        "unauthorised" => Reply::unauthorised(),
        "throttled" => Reply::throttle_all(),
        "failing" => Reply::Html { status: 502 },
        "misconfigured" => Reply::no_such_stream(),
        "invalid" => Reply::validation(),
        "clock" => Reply::Saying { code: "RequestExpired", message: "the request is an hour old" },
        _ => Reply::Accept,
    }
}

fn delivery(name: &str, stream: &str, endpoint: &str, sent: Sent) -> String {
    // Half as many records are then more than a window and the quota.
    let window = if sent == Sent::Alone { "" } else { "window-bytes = \"1MiB\"" };
    format!(
        "[destinations.{name}]\ntype = \"kinesis\"\nfrom = \"telemetry\"\nstream = \"{stream}\"\nregion = \"eu-west-1\"\n\
         endpoint = \"{endpoint}\"\nmax-backoff = \"500ms\"\nrequest-timeout = \"2s\"\n{}{window}\n",
        sent.settings()
    )
}

fn eight_sick_deliveries_cost_the_two_healthy_ones_and_the_devices_nothing(sent: Sent) {
    let upstream = upstream();
    upstream.otherwise(answer);
    let nobody = format!("http://127.0.0.1:{}", free_port());
    let mut gateway = Gateway::to(&upstream.endpoint());
    gateway.destination = sent.settings().to_owned();
    gateway.log = format!("segment-size = \"{SEGMENT_BYTES}B\"");
    gateway.stream = format!("quota = \"{QUOTA_BYTES}B\"\non-full = \"drop-oldest\"\ncompression = \"none\"");
    gateway.more = SICK
        .iter()
        .map(|(name, _)| delivery(name, name, if *name == "refused" { &nobody } else { &gateway.endpoint }, sent))
        .chain([delivery("healthy", "healthy", &gateway.endpoint, sent)])
        .collect();
    let mut agent = Forebay::start(&gateway.configuration());

    let mut device = Device::connect(gateway.mqtt, Version::V5, "device");
    let rounds = if sent == Sent::Alone { ROUNDS } else { ROUNDS / 2 };
    for round in 0..rounds {
        let numbers = round * RECORDS_AT_ONCE..(round + 1) * RECORDS_AT_ONCE;
        // Acknowledged each: a device is not held up.
        numbers.clone().for_each(|number| device.publish(&key(number), &data(number)));
        let owed = numbers.end;
        eventually(LONG, "the healthy ones deliver all of it", || {
            HEALTHY.iter().all(|name| of(&agent, name)["records"].as_u64() == Some(owed))
        });
        let stream = agent.status()["streams"]["telemetry"].clone();
        assert!(stream["disk_bytes"].as_u64() <= Some(QUOTA_BYTES + SEGMENT_BYTES), "{stream}");
    }
    let told: HashMap<&str, Value> = SICK.iter().map(|(name, _)| (*name, of(&agent, name))).collect();
    for (name, kind) in SICK {
        let told = &told[name];
        assert!(told["failed_requests"][kind].as_u64() >= Some(1) && told["down"]["kind"] == kind, "{name}: {told}");
        assert_eq!((&told["records"], &told["dead_letters"]), (&0.into(), &0.into()), "{name}: {told}");
        assert!(told["backlog_bytes"].as_u64() <= Some(QUOTA_BYTES), "{name}: {told}");
    }
    let status = agent.status();
    assert_eq!(status["healthy"], true, "{status}");
    assert_eq!(status["sources"]["devices"]["refused"], Value::Object(serde_json::Map::new()), "{status}");
    assert!(
        status["streams"]["telemetry"]["lost"]["quota"].as_u64() > Some(0),
        "what the quota took is told: {status}"
    );
    for name in HEALTHY {
        let told = of(&agent, name);
        assert!(told["down"].is_null() && told["last_error"].is_null(), "{name}: {told}");
    }
    let all = rounds * RECORDS_AT_ONCE;
    for stream in [crate::support::gateway::CLOUD_STREAM, "healthy"] {
        assert_eq!(in_order(&upstream.accepted(), stream), all, "{stream} has everything, once");
    }

    // Whoever recovers goes on with what is left.
    upstream.behave();
    let recovering = || SICK.iter().filter(|(name, _)| *name != "refused");
    eventually(PATIENCE, "what is left is delivered", || {
        recovering().all(|(name, _)| of(&agent, name)["backlog_records"] == 0 && of(&agent, name)["down"].is_null())
    });
    for (name, _) in recovering() {
        let arrived = in_order(&upstream.accepted(), name);
        assert!(arrived > 0 && arrived < all, "{name} has {arrived} of {all}");
    }
    assert!(agent.terminate().success());
}

fn of(agent: &Forebay, destination: &str) -> Value {
    agent.status()["destinations"][destination].clone()
}

fn key(number: u64) -> String {
    format!("plant/{}", number % KEYS)
}

fn data(number: u64) -> Vec<u8> {
    format!("{number:>RECORD_BYTES$}").into_bytes()
}

/// How many records a stream has, which are in the order of their keys, each once.
#[track_caller]
fn in_order(accepted: &[Accepted], stream: &str) -> u64 {
    let mut newest = HashMap::new();
    let mut count = 0;
    for record in accepted.iter().filter(|record| record.stream == stream) {
        for (partition_key, bytes) in record.consumed() {
            let text = String::from_utf8_lossy(&bytes);
            let number: u64 = text.trim().parse().expect("a number");
            assert_eq!((&partition_key, &bytes), (&key(number), &data(number)));
            let before = newest.insert(partition_key.clone(), number);
            assert!(before < Some(number), "{number} of {partition_key} came to {stream} behind {before:?}");
            count += 1;
        }
    }
    count
}

both_ways! {
    eight_sick_deliveries_cost_the_two_healthy_ones_and_the_devices_nothing
}
