//! What sources do with records before they are stored, with real MQTT clients and a real broker: what is left of them, what
//! is counted, and that everything is acknowledged, also what is left out.

use std::fs;
use std::thread;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use serde_json::{Value, json};

use crate::support::daemon::PATIENCE;
use crate::support::{Forebay, Gateway, Mosquitto, eventually, mosquitto_pub, mosquitto_pub_lines};

/// A gateway with a listener whose source has these keys; nothing is delivered.
fn gateway(source: &str) -> Gateway {
    Gateway { source: source.to_owned(), ..Gateway::to("http://127.0.0.1:9") }
}

/// Key, data as text, and tags of what is stored.
fn stored(agent: &Forebay) -> Vec<(String, String, Value)> {
    let output = agent.home().forebay(&["tail", "telemetry", "--json", "--config", "forebay.toml"]);
    assert!(output.status.success(), "tail: {}", String::from_utf8_lossy(&output.stderr));
    let lines = String::from_utf8(output.stdout).expect("JSON is text");
    let records = lines.lines().map(|line| serde_json::from_str::<Value>(line).expect("every line is JSON"));
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    records
        .map(|record| {
            let data = BASE64_STANDARD.decode(text(&record["data"])).expect("base64");
            (text(&record["partition_key"]), String::from_utf8(data).expect("text"), record["tags"].clone())
        })
        .collect()
}

/// The data alone, as JSON; of one partition key and shard, and so in order.
fn stored_json(agent: &Forebay) -> Vec<Value> {
    let records = stored(agent).into_iter();
    records.map(|(_, data, _)| serde_json::from_str(&data).unwrap_or(Value::String(data))).collect()
}

fn refused(agent: &Forebay, source: &str) -> Value {
    agent.status()["sources"][source]["refused"].clone()
}

#[test]
fn records_of_a_broker_are_filtered_selected_renamed_and_wrapped() {
    let broker = Mosquitto::start("");
    let plant = format!(
        r#"
        [agent]
        gateway-id = "truck-7"
        [sources.plant]
        type = "mqtt"
        broker = "{}"
        client-id = "gateway-7"
        topics = ["plant/#"]
        stream = "telemetry"
        partition-key = "{{json:/device/id}}"
        timestamp = {{ field = "ts", format = "unix-ms" }}
        filter = {{ field = "temp", above = 20 }}
        deduplicate = {{ window = "1h", by = "{{json:/n}}" }}
        select = ["temp", "/device/kind"]
        rename = {{ temp = "temperature" }}
        tags = {{ site = "plant-7" }}
        envelope = true
        "#,
        broker.url(),
    );
    let agent = Forebay::start(&Gateway { more: plant, ..gateway("") }.configuration());
    eventually(PATIENCE, "the source is connected", || agent.status()["sources"]["plant"]["connections"] == 1);
    let line = |n: u32, temp: &str| {
        format!(r#"{{"n":{n},"ts":1795608000250,"temp":{temp},"device":{{"id":"d-1","kind":"pump"}},"debug":[1,2]}}"#)
    };
    let lines = [line(1, "21.50"), line(2, "20"), line(1, "21.50"), line(3, "90"), "temp=22".to_owned()];
    mosquitto_pub_lines(broker.port(), &["-t", "plant/1", "-q", "1"], &(lines.join("\n") + "\n"));

    eventually(PATIENCE, "three records are stored", || agent.status()["sources"]["plant"]["records"] == 3);
    let mut records = stored(&agent);
    records.sort_by(|a, b| (&a.0, &a.1).cmp(&(&b.0, &b.1)));
    let keys: Vec<_> = records.iter().map(|(key, ..)| &**key).collect();
    // Made of the whole record, though `select` leaves the id out; what is no JSON has none.
    assert_eq!(keys, ["d-1", "d-1", "plant/1"]);
    let mut sequences = Vec::new();
    let mut envelopes = Vec::new();
    for (_, data, _) in &records {
        let mut envelope: Value = serde_json::from_str(data).expect("an envelope is JSON");
        sequences.push(envelope["sequence"].as_u64().expect("a number"));
        assert!(envelope["arrived"].as_str().expect("a time").ends_with('Z') && envelope["clock-trusted"].is_boolean());
        for key in ["sequence", "arrived", "clock-trusted"] {
            envelope.as_object_mut().expect("an object").remove(key);
        }
        envelopes.push(envelope);
    }
    let wrapped = |temp: Value| {
        json!({
            "gateway": "truck-7", "source": "plant", "timestamp": "2026-11-25T12:00:00.250Z",
            "tags": { "site": "plant-7", "timestamp": "2026-11-25T12:00:00.250Z" },
            "data": { "temperature": temp, "device": { "kind": "pump" } },
        })
    };
    let unread = json!({
        "gateway": "truck-7", "source": "plant", "tags": { "site": "plant-7", "undecodable": "json" },
        "encoding": "text", "data": "temp=22",
    });
    assert_eq!(envelopes, [wrapped(json!(21.5)), wrapped(json!(90)), unread]);
    assert!(records[0].1.contains(r#""temperature":21.50,"#), "numbers keep their text: {}", records[0].1);
    sequences.sort_unstable();
    assert_eq!(sequences, [sequences[0], sequences[0] + 1, sequences[0] + 2]);
    assert_eq!(records[2].2, json!([["site", "plant-7"], ["undecodable", "json"]]));

    // `no-key`: what is no JSON has nothing to compare, and is no duplicate. The key falls back for it too.
    let counts = json!({ "duplicate": 1, "filtered": 1, "key-fallback": 1, "no-key": 1, "undecodable": 1 });
    assert_eq!(refused(&agent, "plant"), counts);
}

#[test]
fn cbor_becomes_json_and_what_is_left_out_is_acknowledged() {
    let source = "decode = \"cbor\"\non-undecodable = \"drop\"\npartition-key = \"{json:/id}\"\nfilter = { field = \"temp\", exists = true }";
    let gateway = gateway(source);
    let agent = Forebay::start(&gateway.configuration());
    let payloads: [&[u8]; 3] = [
        b"\xa2\x62id\x63d-1\x64temp\xfb\x40\x35\x80\x00\x00\x00\x00\x00",
        b"\xa1\x62id\x63d-1",
        b"\xa2\x62id\x63d-1\x64te",
    ];
    for (index, payload) in payloads.iter().enumerate() {
        let file = agent.home().path().join(format!("payload-{index}"));
        fs::write(&file, payload).expect("written");
        // At QoS 1 it ends well only once it was acknowledged.
        mosquitto_pub(gateway.mqtt, &["-t", "a", "-q", "1", "-f", file.to_str().expect("text")]);
    }
    assert_eq!(stored(&agent), [("d-1".to_owned(), r#"{"id":"d-1","temp":21.5}"#.to_owned(), Value::Null)]);
    assert_eq!(refused(&agent, "devices"), json!({ "filtered": 1, "undecodable": 1 }));
    let told = |line: &str| line.contains("it is not cbor: ") && line.contains("from=topic \"a\", client-id ");
    eventually(PATIENCE, "it is told", || agent.log().lines().any(told));
}

#[test]
fn rows_of_csv_become_records() {
    let source = "decode = { format = \"csv\", numbers = true }\npartition-key = \"{json:/device}\"\nsample = { every = 2, per = \"{json:/device}\" }";
    let gateway = gateway(source);
    let agent = Forebay::start(&gateway.configuration());
    let table = "device,temp\nd-1,21.50\nd-2,7\nd-1,22\nd-1,23\nd-3\n";
    mosquitto_pub(gateway.mqtt, &["-t", "a", "-q", "1", "-m", table]);
    let mut records = stored(&agent);
    records.sort_by(|a, b| (&a.0, &a.1).cmp(&(&b.0, &b.1)));
    let data: Vec<_> = records.iter().map(|(key, data, _)| (&**key, &**data)).collect();
    let expected = [
        ("a", "d-3"),
        ("d-1", r#"{"device":"d-1","temp":21.50}"#),
        ("d-1", r#"{"device":"d-1","temp":23}"#),
        ("d-2", r#"{"device":"d-2","temp":7}"#),
    ];
    assert_eq!(data, expected);
    let counts = json!({ "key-fallback": 1, "no-key": 1, "sampled-out": 1, "undecodable": 1 });
    assert_eq!(refused(&agent, "devices"), counts);
    assert!(agent.log().contains("record 5 in it: it is not csv: "), "{}", agent.log());
}

#[test]
fn edge_sequence_numbers_only_grow_also_when_the_agent_is_killed() {
    let gateway = gateway("envelope = true\npartition-key = \"one\"");
    let mut agent = Forebay::start(&gateway.configuration());
    for round in 0..4 {
        let lines: String = (0..50).map(|number| format!("{number}\n")).collect();
        let port = gateway.mqtt;
        let publisher = thread::spawn(move || mosquitto_pub_lines(port, &["-t", "a", "-q", "1"], &lines));
        publisher.join().expect("all are acknowledged");
        assert_eq!(stored_json(&agent).len(), 50 * (round + 1));
        agent.kill9();
        agent.start_again();
    }
    let numbers: Vec<_> = stored_json(&agent).iter().map(|envelope| envelope["sequence"].as_u64()).collect();
    assert!(numbers.windows(2).all(|pair| pair[0].is_some() && pair[0] < pair[1]), "{numbers:?}");
}

#[test]
fn mistaken_steps_are_all_told_by_check() {
    let source = "decode = \"xml\"\nfilter = { field = \"temp\" }\nselct = [\"a\"]\nrename = { a = \"x\", b = \"x\" }\nenvelope = 1\ndeduplicate = { window = \"0s\" }";
    let home = crate::support::forebay::Home::new(&gateway(source).configuration());
    let output = home.forebay(&["check", "--config", "forebay.toml"]);
    let told = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    assert!(!output.status.success(), "{told}");
    for part in [
        "sources.devices.decode: must be one of `json`",
        "sources.devices.filter: says nothing about the field",
        "sources.devices.selct: unknown key, did you mean `select`?",
        "sources.devices.rename.b: two fields cannot both be called `x`",
        "sources.devices.envelope: must be a boolean",
        "sources.devices.deduplicate.window: must be longer than 0",
    ] {
        assert!(told.contains(part), "{part} in {told}");
    }
}

#[test]
fn a_template_asks_only_for_what_its_source_knows() {
    let gateway = gateway("sample = { every = 2, per = \"{port}\" }");
    let home = crate::support::forebay::Home::new(&gateway.configuration());
    let output = home.forebay(&["check", "--config", "forebay.toml"]);
    let told = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    assert!(told.contains("sources.devices.sample.per: a source of type `mqtt-broker` knows no `port`"), "{told}");
}
