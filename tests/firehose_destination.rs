//! Records to Firehose: to moto's, and to a strict one that refuses parts of requests.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use hyper::http::request::Parts;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::support::daemon::PATIENCE;
use crate::support::device::Version;
use crate::support::receiver::{Answer, Receiver};
use crate::support::{Device, Forebay, Moto, eventually, free_port, head_with_devices, python, signature};

const SCRIPT: &str = include_str!("support/firehose.py");
const STREAM: &str = "plant-lake";

struct Gateway {
    mqtt: u16,
    configuration: String,
}

fn gateway(endpoint: &str, destination: &str) -> Gateway {
    let mqtt = free_port();
    let head = head_with_devices(mqtt);
    let configuration = format!(
        r#"
        {head}
        [destinations.lake]
        type = "firehose"
        from = "telemetry"
        stream = "{STREAM}"
        region = "eu-west-1"
        endpoint = "{endpoint}"
        max-backoff = "200ms"
        {destination}
        "#
    );
    Gateway { mqtt, configuration }
}

#[test]
fn moto_writes_lines_into_its_bucket() {
    let moto = Moto::start();
    python(SCRIPT, &[&moto.endpoint(), "create", STREAM, "lake"]);
    let gateway = gateway(&moto.endpoint(), "aggregation = 'lines'");
    let _agent = Forebay::start(&gateway.configuration);
    let mut device = Device::connect(gateway.mqtt, Version::V5, "device");
    let owed: Vec<String> = (0..100).map(|number| json!({ "number": number }).to_string()).collect();
    for (number, text) in owed.iter().enumerate() {
        device.publish(&format!("plant/{}", number % 20), text.as_bytes());
    }
    let mut arrived = Vec::new();
    eventually(PATIENCE, "all lines are in the bucket", || {
        arrived = python(SCRIPT, &[&moto.endpoint(), "read", "lake"])
            .iter()
            .map(|object| BASE64_STANDARD.decode(object["data"].as_str().expect("text")).expect("Base64"))
            .flat_map(|object| String::from_utf8(object).expect("text").lines().map(str::to_owned).collect::<Vec<_>>())
            .collect();
        arrived.len() >= owed.len()
    });
    arrived.sort_unstable();
    let mut owed = owed;
    owed.sort_unstable();
    assert_eq!(arrived, owed);
}

/// What the strict endpoint has taken.
#[derive(Default)]
struct Lake {
    requests: usize,
    records: Vec<Vec<u8>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct Request {
    delivery_stream_name: String,
    records: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct Entry {
    data: String,
}

/// What Firehose refuses, this refuses; of the rest it takes what `takes` says for the nth record of the nth request.
fn strict(lake: Arc<Mutex<Lake>>, takes: impl Fn(usize, usize) -> Option<&'static str> + Send + 'static) -> Receiver {
    Receiver::start(move |head, body| {
        let mut lake = lake.lock().expect("no panic before");
        lake.requests += 1;
        let request = match read(head, body) {
            Ok(request) => request,
            Err((code, message)) => return aws(400, &json!({ "__type": code, "message": message })),
        };
        // Now and then the whole of it is too much.
        if lake.requests % 7 == 3 {
            return aws(500, &json!({ "__type": "ServiceUnavailableException", "message": "Slow down." }));
        }
        let mut failed = 0;
        let responses: Vec<Value> = request
            .into_iter()
            .enumerate()
            .map(|(at, data)| match takes(lake.requests, at) {
                None => {
                    lake.records.push(data);
                    json!({ "RecordId": format!("id-{}", lake.records.len()) })
                }
                Some(code) => {
                    failed += 1;
                    json!({ "ErrorCode": code, "ErrorMessage": "as the test asked for" })
                }
            })
            .collect();
        aws(200, &json!({ "FailedPutCount": failed, "Encrypted": false, "RequestResponses": responses }))
    })
}

fn aws(status: u16, body: &Value) -> Answer {
    Answer::of(status, "application/x-amz-json-1.1", body.to_string())
}

fn read(head: &Parts, body: &[u8]) -> Result<Vec<Vec<u8>>, (&'static str, String)> {
    if head.headers.get("x-amz-target").is_none_or(|target| target != "Firehose_20150804.PutRecordBatch") {
        return Err(("UnknownOperationException", "another operation".to_owned()));
    }
    signature::check(&head.headers, body, "firehose").map_err(|why| ("InvalidSignatureException", why))?;
    let request: Request =
        serde_json::from_slice(body).map_err(|error| ("SerializationException", error.to_string()))?;
    if request.delivery_stream_name != STREAM {
        return Err(("ResourceNotFoundException", request.delivery_stream_name));
    }
    let data: Result<Vec<Vec<u8>>, _> =
        request.records.iter().map(|entry| BASE64_STANDARD.decode(&entry.data)).collect();
    let data = data.map_err(|error| ("SerializationException", error.to_string()))?;
    let total: usize = data.iter().map(Vec::len).sum();
    if !(1..=500).contains(&data.len()) || total > 4 << 20 || data.iter().any(|data| data.len() > 1_024_000) {
        return Err(("InvalidArgumentException", format!("{} records of {total} bytes", data.len())));
    }
    Ok(data)
}

#[test]
fn aggregates_keep_the_order_of_keys_whatever_is_refused() {
    const KEYS: usize = 30;
    const EACH: usize = 40;
    let lake = Arc::new(Mutex::new(Lake::default()));
    let endpoint = strict(Arc::clone(&lake), |request, at| match (request * 31 + at * 7) % 5 {
        0 => Some("ServiceUnavailableException"),
        1 => Some("InternalFailure"),
        _ => None,
    });
    let gateway = gateway(&endpoint.endpoint(), "aggregation = 'lines'\naggregate-bytes = '2KiB'\naggregate-lanes = 6");
    let agent = Forebay::start(&gateway.configuration);
    let mut device = Device::connect(gateway.mqtt, Version::V311, "device");
    for number in 0..EACH {
        for key in 0..KEYS {
            device.publish(&format!("plant/{key}"), format!("{key} {number}").as_bytes());
        }
    }
    eventually(PATIENCE, "everything has arrived", || agent.status()["destinations"]["lake"]["records"] == KEYS * EACH);
    let lake = lake.lock().expect("no panic");
    let text = String::from_utf8(lake.records.concat()).expect("text");
    let mut numbers: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for line in text.lines() {
        let (key, number) = line.split_once(' ').expect("two words");
        numbers.entry(key).or_default().push(number.parse().expect("a number"));
    }
    assert_eq!(numbers.len(), KEYS);
    for (key, numbers) in numbers {
        assert_eq!(numbers, (0..EACH).collect::<Vec<_>>(), "key {key}");
    }
    assert!(lake.records.len() < KEYS * EACH / 2, "{} records of the wire", lake.records.len());
    let status = agent.status();
    assert_eq!(status["destinations"]["lake"]["dead_letters"], 0, "{status}");
    // Each of them is less than 5 KB.
    assert_eq!(status["destinations"]["lake"]["wire"]["payload_units"], lake.records.len(), "{status}");
}

#[test]
fn what_firehose_never_takes_is_set_aside() {
    let lake = Arc::new(Mutex::new(Lake::default()));
    let endpoint = strict(Arc::clone(&lake), |_, _| None);
    let gateway = gateway(&endpoint.endpoint(), "delimiter = \"\\n\"");
    let agent = Forebay::start(&gateway.configuration);
    let mut device = Device::connect(gateway.mqtt, Version::V5, "device");
    device.publish("plant/a", b"before");
    device.publish("plant/a", &vec![b'x'; 1_024_000]);
    device.publish("plant/a", b"after");
    eventually(PATIENCE, "two arrived and one is set aside", || {
        let lake = agent.status()["destinations"]["lake"].clone();
        lake["records"] == 2 && lake["dead_letters"] == 1
    });
    assert_eq!(lake.lock().expect("no panic").records, [b"before\n".to_vec(), b"after\n".to_vec()]);
}
