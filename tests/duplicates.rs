//! What is delivered twice: how much a kill may repeat, and that the consumers in examples/ are rid of it.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

use crate::support::daemon::PATIENCE;
use crate::support::device::Version;
use crate::support::upstream::Accepted;
use crate::support::{Device, Forebay, Gateway, Reply, Upstream, eventually, python};

const EXAMPLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/consumers");

#[track_caller]
fn publish(gateway: &Gateway, numbers: impl IntoIterator<Item = u32>) {
    let mut device = Device::connect(gateway.mqtt, Version::V5, "device");
    for number in numbers {
        device.publish(&format!("plant/{}", number % 50), format!("{{\"n\":{number}}}").as_bytes());
    }
}

/// What was taken and never answered for may be sent again, and nothing that was answered for: its checkpoint had been written.
#[test]
fn a_kill_repeats_at_most_a_window() {
    const WINDOW: u64 = 100;
    let upstream = Upstream::start();
    let gateway = Gateway {
        destination: format!("window-records = {WINDOW}"),
        log: "checkpoint-interval = \"10ms\"".to_owned(),
        ..Gateway::to(&upstream.endpoint())
    };
    let mut agent = Forebay::start(&gateway.configuration());
    publish(&gateway, 0..500);
    upstream.wait_for(500, PATIENCE);
    let written = || agent.status()["destinations"]["cloud"]["checkpoint"].as_u64();
    eventually(PATIENCE, "the checkpoint is at the end", || written() == Some(500));
    // Longer than the interval in which it is written.
    let begun = std::time::Instant::now();
    eventually(PATIENCE, "the checkpoint is on the disk", || begun.elapsed() > Duration::from_millis(500));

    upstream.otherwise(|_| Reply::AcceptThenHang);
    publish(&gateway, 500..1000);
    eventually(PATIENCE, "requests are taken and not answered", || upstream.accepted_count() > 500);
    agent.kill9();
    let taken = upstream.accepted_count() - 500;
    upstream.behave();
    agent.start_again();
    upstream.wait_for(1000 + taken, PATIENCE);
    eventually(PATIENCE, "nothing is left", || agent.status()["destinations"]["cloud"]["backlog_records"] == 0);
    let all = upstream.accepted();
    let different: BTreeSet<_> = all.iter().map(|record| record.data.clone()).collect();
    assert_eq!(different.len(), 1000);
    let repeated = all.len() - different.len();
    assert!(repeated as u64 == taken && taken <= WINDOW, "{repeated} repeated, {taken} were taken without an answer");
}

/// Deliveries with repetitions, as any destination gets them: answers are lost again and again.
fn with_repetitions() -> Vec<Accepted> {
    let upstream = Upstream::start();
    let mut number = 0;
    upstream.otherwise(move |_| {
        number += 1;
        if number % 2 == 1 { Reply::AcceptThenReset } else { Reply::Accept }
    });
    let gateway = Gateway {
        source: "envelope = true".to_owned(),
        destination: "batch-records = 20".to_owned(),
        more: "[agent]\ngateway-id = \"truck-7\"".to_owned(),
        ..Gateway::to(&upstream.endpoint())
    };
    let agent = Forebay::start(&gateway.configuration());
    publish(&gateway, 0..200);
    eventually(PATIENCE, "all is delivered", || {
        let cloud = agent.status()["destinations"]["cloud"].clone();
        cloud["checkpoint"] == 200
    });
    let accepted = upstream.accepted();
    assert!(accepted.len() > 200, "something was repeated");
    accepted
}

/// The numbers that were published, as they came out at the end.
fn numbers(found: &[Value]) -> Vec<u64> {
    let mut numbers: Vec<_> = found.iter().map(|data| data["n"].as_u64().expect("a number")).collect();
    numbers.sort_unstable();
    numbers
}

#[test]
fn the_example_consumers_take_each_record_once() {
    let accepted = with_repetitions();
    let expected: Vec<u64> = (0..200).collect();
    let dir = tempfile::tempdir().expect("a directory");

    // As Lambda brings them, batch by batch, each in an invocation of its own.
    let record = |(place, record): (usize, &Accepted)| {
        let data = BASE64_STANDARD.encode(&record.data);
        json!({ "kinesis": { "sequenceNumber": place.to_string(), "partitionKey": record.partition_key, "data": data } })
    };
    let records: Vec<_> = accepted.iter().enumerate().map(record).collect();
    let events: Vec<_> = records.chunks(30).map(|records| json!({ "Records": records })).collect();
    let (file, database) = (dir.path().join("events.json"), dir.path().join("results.db"));
    fs::write(&file, serde_json::to_vec(&events).expect("JSON")).expect("written");
    let script = r#"
import json, sys
sys.path.insert(0, sys.argv[1])
import lambda_function
new = 0
for event in json.load(open(sys.argv[2])):
    done = lambda_function.handler(event, None, lambda_function.SqliteResults(sys.argv[3]))
    assert done["batchItemFailures"] == [], done
    new += done["new"]
results = lambda_function.SqliteResults(sys.argv[3]).database.execute("SELECT result FROM results")
print(json.dumps({"new": new, "results": [json.loads(row[0]) for row in results]}))
broken = {"Records": [{"kinesis": {"sequenceNumber": "9", "data": "e30="}}]}
done = lambda_function.handler(broken, None, lambda_function.SqliteResults(sys.argv[3]))
print(json.dumps(done["batchItemFailures"]))
"#;
    let path = |path: &Path| path.display().to_string();
    let printed = python(script, &[EXAMPLES, &path(&file), &path(&database)]);
    let results = printed[0]["results"].as_array().expect("a list");
    assert_eq!((numbers(results), &printed[0]["new"]), (expected.clone(), &200.into()));
    assert_eq!(printed[1], json!([{ "itemIdentifier": "9" }]));

    // As a table.
    let script = r#"
import json, sqlite3, sys
database = sqlite3.connect(":memory:")
database.execute("CREATE TABLE arrivals (gateway TEXT, source TEXT, sequence BIGINT, arrived TEXT, data TEXT)")
for envelope in json.load(open(sys.argv[2])):
    row = [envelope[key] for key in ("gateway", "source", "sequence", "arrived")] + [json.dumps(envelope["data"])]
    database.execute("INSERT INTO arrivals VALUES (?, ?, ?, ?, ?)", row)
database.executescript(open(sys.argv[1] + "/deduplicate.sql").read())
for table in ("arrivals", "readings", "distinct_arrivals"):
    print(json.dumps([json.loads(row[0]) for row in database.execute(f"SELECT data FROM {table}")]))
"#;
    let envelopes: Vec<Value> =
        accepted.iter().map(|record| serde_json::from_slice(&record.data).expect("an envelope")).collect();
    assert!(envelopes.iter().all(|envelope| envelope["gateway"] == "truck-7"), "{envelopes:?}");
    fs::write(&file, serde_json::to_vec(&envelopes).expect("JSON")).expect("written");
    let tables = python(script, &[EXAMPLES, &path(&file)]);
    let rows = |table: usize| numbers(tables[table].as_array().expect("a list"));
    assert_eq!(rows(0).len(), accepted.len());
    assert_eq!((rows(1), rows(2)), (expected.clone(), expected));
}
