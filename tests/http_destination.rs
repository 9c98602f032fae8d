//! Records to an endpoint by Firehose's specification, which refuses whatever that refuses.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use flate2::read::GzDecoder;
use hyper::http::request::Parts;
use serde::Deserialize;
use serde_json::json;

use crate::support::daemon::PATIENCE;
use crate::support::device::Version;
use crate::support::forebay::Home;
use crate::support::receiver::{Answer, Receiver};
use crate::support::{Device, Forebay, eventually, free_port, head_with_devices};

const ACCESS_KEY: &str = "open-sesame";

struct Gateway {
    mqtt: u16,
    home: Home,
}

fn gateway(endpoint: &str, destination: &str) -> Gateway {
    let mqtt = free_port();
    let head = head_with_devices(mqtt);
    let home = Home::new(&format!(
        r#"
        {head}
        [agent]
        gateway-id = "gateway-7"
        [destinations.hub]
        type = "http"
        from = "telemetry"
        url = "{endpoint}/firehose/v1"
        access-key-file = "access.key"
        common-attributes = {{ site = "plant 7" }}
        max-backoff = "200ms"
        {destination}
        "#
    ));
    fs::write(home.path().join("access.key"), format!("{ACCESS_KEY}\n")).expect("a file");
    Gateway { mqtt, home }
}

/// A request that was as it must be.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Good {
    id: String,
    data: Vec<Vec<u8>>,
    packed: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Body {
    request_id: String,
    timestamp: u64,
    records: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    data: String,
}

/// Holds a request against the specification. What it says is an answer for whoever does not keep to it.
fn read(head: &Parts, body: &[u8]) -> Result<Good, (u16, String)> {
    let text = |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let wrong = |what: &str| Err((400, what.to_owned()));
    if head.method != "POST" || head.uri.path() != "/firehose/v1" {
        return wrong("another method or path");
    }
    if text("x-amz-firehose-access-key") != ACCESS_KEY {
        return Err((401, "who are you?".to_owned()));
    }
    if text("content-type") != "application/json" || text("x-amz-firehose-protocol-version") != "1.0" {
        return wrong("another type or version");
    }
    if !text("x-amz-firehose-source-arn").starts_with("arn:") {
        return wrong("no source");
    }
    if text("x-amz-firehose-common-attributes") != r#"{"commonAttributes":{"site":"plant 7"}}"# {
        return wrong("other attributes");
    }
    let packed = text("content-encoding") == "gzip";
    let mut plain = Vec::new();
    if packed {
        GzDecoder::new(body).read_to_end(&mut plain).map_err(|error| (400, error.to_string()))?;
    } else {
        plain = body.to_vec();
    }
    let body: Body = serde_json::from_slice(&plain).map_err(|error| (400, error.to_string()))?;
    if plain.len() > 64 << 20 || !(1..=10_000).contains(&body.records.len()) || body.timestamp < 1_500_000_000_000 {
        return wrong("a limit is broken");
    }
    if body.request_id.is_empty() || body.request_id != text("x-amz-firehose-request-id") {
        return wrong("two ids");
    }
    let data: Result<Vec<Vec<u8>>, _> = body.records.iter().map(|entry| BASE64_STANDARD.decode(&entry.data)).collect();
    Ok(Good { id: body.request_id, data: data.map_err(|error| (400, error.to_string()))?, packed })
}

/// What the endpoint heard, whatever it answered.
#[derive(Default)]
struct Hub {
    heard: Vec<Good>,
    taken: Vec<Good>,
    refused: Vec<String>,
}

/// An endpoint that answers good requests by `answer`, which is told how many it heard; `None`: it takes them.
fn hub(hub: &Arc<Mutex<Hub>>, answer: impl Fn(usize, &Good) -> Option<Answer> + Send + 'static) -> Receiver {
    let hub = Arc::clone(hub);
    Receiver::start(move |head, body| {
        let mut hub = hub.lock().expect("no panic before");
        let good = match read(head, body) {
            Ok(good) => good,
            Err((status, message)) => {
                let id = head.headers.get("x-amz-firehose-request-id").and_then(|id| id.to_str().ok());
                hub.refused.push(message.clone());
                return Answer::json(status, &json!({ "requestId": id, "timestamp": 1, "errorMessage": message }));
            }
        };
        hub.heard.push(good.clone());
        if let Some(answer) = answer(hub.heard.len(), &good) {
            return answer;
        }
        let reply = json!({ "requestId": good.id, "timestamp": 1_578_090_903_599_u64 });
        hub.taken.push(good);
        Answer::json(200, &reply)
    })
}

#[test]
fn the_same_records_are_the_same_request_also_after_a_kill() {
    let seen = Arc::new(Mutex::new(Hub::default()));
    let takes = Arc::new(Mutex::new(false));
    let endpoint = hub(&seen, {
        let takes = Arc::clone(&takes);
        move |nth, good| {
            if *takes.lock().expect("no panic") {
                return None;
            }
            let sorry = json!({ "requestId": good.id, "timestamp": 1, "errorMessage": "not now" });
            Some(match nth % 4 {
                0 => Answer::Hangup,
                1 => Answer::json(503, &sorry),
                2 => Answer::json(200, &json!({ "requestId": "another", "timestamp": 1 })),
                _ => Answer::of(200, "text/html", "<html>Welcome</html>"),
            })
        }
    });
    let gateway = gateway(&endpoint.endpoint(), "");
    let mut agent = Forebay::start_in(gateway.home, &[]);
    Device::connect(gateway.mqtt, Version::V5, "device").publish("plant/a", b"only one");
    let heard = || seen.lock().expect("no panic").heard.len();
    eventually(PATIENCE, "it was refused in every way", || heard() >= 5);
    agent.kill9();
    let before = heard();
    agent.start_again();
    eventually(PATIENCE, "it comes again after the kill", || heard() > before + 1);
    *takes.lock().expect("no panic") = true;
    eventually(PATIENCE, "it was taken", || agent.status()["destinations"]["hub"]["records"] == 1);
    let seen = seen.lock().expect("no panic");
    let first = &seen.heard[0];
    assert!(first.packed && first.data == [b"only one".to_vec()], "{first:?}");
    assert!(seen.heard.iter().all(|good| good == first), "{:?}", seen.heard);
    assert_eq!(seen.refused, Vec::<String>::new());
}

#[test]
fn keys_keep_their_order_and_an_id_stands_for_its_records() {
    const KEYS: usize = 20;
    const EACH: usize = 50;
    let seen = Arc::new(Mutex::new(Hub::default()));
    // It takes the records and says so to nobody, now and then.
    let endpoint = {
        let silent = Arc::clone(&seen);
        let inner = Arc::new(Mutex::new(Hub::default()));
        hub(&inner, move |nth, good| {
            let mut hub = silent.lock().expect("no panic");
            match nth % 5 {
                2 => Some(Answer::of(502, "text/plain", "somebody in between")),
                4 => {
                    hub.taken.push(good.clone());
                    Some(Answer::Hangup)
                }
                _ => {
                    hub.taken.push(good.clone());
                    None
                }
            }
        })
    };
    let gateway = gateway(&endpoint.endpoint(), "compression = 'none'\nlanes = 4");
    let mut agent = Forebay::start_in(gateway.home, &[]);
    let mut device = Device::connect(gateway.mqtt, Version::V311, "device");
    for number in 0..EACH {
        if number == EACH / 2 {
            agent.kill9();
            agent.start_again();
            device = Device::connect(gateway.mqtt, Version::V311, "device");
        }
        for key in 0..KEYS {
            device.publish(&format!("plant/{key}"), format!("{key} {number}").as_bytes());
        }
    }
    eventually(PATIENCE, "the backlog is gone", || agent.status()["destinations"]["hub"]["backlog_records"] == 0);
    let seen = seen.lock().expect("no panic");
    // An id stands for the same records, always.
    let mut by_id: BTreeMap<&str, &Good> = BTreeMap::new();
    for good in &seen.taken {
        assert_eq!(*by_id.entry(&good.id).or_insert(good), good);
    }
    // The first time that each record came is in the order of its key.
    let mut numbers: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for text in seen.taken.iter().flat_map(|good| &good.data) {
        let (key, number) = std::str::from_utf8(text).expect("text").split_once(' ').expect("two words");
        let (of_key, number) = (numbers.entry(key.to_owned()).or_default(), number.parse().expect("a number"));
        if !of_key.contains(&number) {
            of_key.push(number);
        }
    }
    assert_eq!(numbers.len(), KEYS);
    for (key, numbers) in numbers {
        assert_eq!(numbers, (0..EACH).collect::<Vec<_>>(), "key {key}");
    }
}

#[test]
fn a_receiver_that_drops_known_ids_has_each_record_once() {
    const KEYS: usize = 20;
    const EACH: usize = 50;
    let seen = Arc::new(Mutex::new(Hub::default()));
    let endpoint = hub(&Arc::new(Mutex::new(Hub::default())), {
        let seen = Arc::clone(&seen);
        move |nth, good| {
            seen.lock().expect("no panic").taken.push(good.clone());
            (nth % 3 == 1).then_some(Answer::Hangup)
        }
    });
    let gateway = gateway(&endpoint.endpoint(), "lanes = 4");
    let agent = Forebay::start_in(gateway.home, &[]);
    let mut device = Device::connect(gateway.mqtt, Version::V311, "device");
    for number in 0..EACH {
        for key in 0..KEYS {
            device.publish(&format!("plant/{key}"), format!("{key} {number}").as_bytes());
        }
    }
    eventually(PATIENCE, "the backlog is gone", || agent.status()["destinations"]["hub"]["backlog_records"] == 0);
    let taken = &seen.lock().expect("no panic").taken;
    let by_id: BTreeMap<&str, &Good> = taken.iter().map(|good| (&*good.id, good)).collect();
    assert!(by_id.len() < taken.len(), "something came again");
    let mut texts: Vec<_> = by_id.values().flat_map(|good| &good.data).collect();
    texts.sort_unstable();
    let count = texts.len();
    texts.dedup();
    assert_eq!((count, texts.len()), (KEYS * EACH, KEYS * EACH));
}

#[test]
fn what_is_too_large_by_itself_is_set_aside_and_the_rest_flows() {
    let seen = Arc::new(Mutex::new(Hub::default()));
    let endpoint = hub(&seen, |_, good| {
        let bytes: usize = good.data.iter().map(Vec::len).sum();
        (bytes > 1000).then(|| Answer::of(413, "text/html", "<html>nginx</html>"))
    });
    let gateway = gateway(&endpoint.endpoint(), "lanes = 1");
    let agent = Forebay::start_in(gateway.home, &[]);
    let mut device = Device::connect(gateway.mqtt, Version::V5, "device");
    for number in 0..40 {
        device.publish("plant/a", format!("{number:0100}").as_bytes());
        if number == 20 {
            device.publish("plant/b", &[b'x'; 2000]);
        }
    }
    eventually(PATIENCE, "all but one arrived", || {
        let hub = agent.status()["destinations"]["hub"].clone();
        hub["records"] == 40 && hub["dead_letters"] == 1
    });
    let taken: Vec<Vec<u8>> = seen.lock().expect("no panic").taken.iter().flat_map(|good| good.data.clone()).collect();
    assert_eq!(taken, (0..40).map(|number| format!("{number:0100}").into_bytes()).collect::<Vec<_>>());
}

#[test]
fn what_refuses_everything_as_too_large_buries_nothing() {
    const EACH: usize = 30;
    let seen = Arc::new(Mutex::new(Hub::default()));
    let is_portal = Arc::new(AtomicBool::new(true));
    let endpoint = hub(&seen, {
        let is_portal = Arc::clone(&is_portal);
        move |_, _| is_portal.load(Ordering::Relaxed).then(|| Answer::of(413, "text/html", "<html>nginx</html>"))
    });
    let gateway = gateway(&endpoint.endpoint(), "lanes = 2");
    let agent = Forebay::start_in(gateway.home, &[]);
    let mut device = Device::connect(gateway.mqtt, Version::V5, "device");
    for number in 0..EACH {
        for key in ["a", "b", "c"] {
            device.publish(&format!("plant/{key}"), format!("{key} {number}").as_bytes());
        }
    }
    // Enough for each record of the window to have been alone in some request.
    eventually(PATIENCE, "it refuses again and again", || {
        agent.status()["destinations"]["hub"]["failed_requests"]["request-invalid"].as_u64() >= Some(20)
    });
    assert_eq!(agent.status()["destinations"]["hub"]["dead_letters"], 0);
    is_portal.store(false, Ordering::Relaxed);
    eventually(PATIENCE, "all arrived", || agent.status()["destinations"]["hub"]["records"] == 3 * EACH);
    assert_eq!(agent.status()["destinations"]["hub"]["dead_letters"], 0);
    let taken: Vec<Vec<u8>> = seen.lock().expect("no panic").taken.iter().flat_map(|good| good.data.clone()).collect();
    for key in ["a", "b", "c"] {
        let of_key: Vec<_> = taken.iter().filter(|data| data.starts_with(key.as_bytes())).cloned().collect();
        assert_eq!(of_key, (0..EACH).map(|number| format!("{key} {number}").into_bytes()).collect::<Vec<_>>());
    }
}

#[test]
fn a_wrong_access_key_is_told_and_never_shown() {
    let seen = Arc::new(Mutex::new(Hub::default()));
    let endpoint = hub(&seen, |_, _| None);
    let gateway = gateway(&endpoint.endpoint(), "");
    fs::write(gateway.home.path().join("access.key"), "open-barley\n").expect("a file");
    let mut agent = Forebay::start_in(gateway.home, &[]);
    Device::connect(gateway.mqtt, Version::V5, "device").publish("plant/a", b"one");
    eventually(PATIENCE, "it is told", || {
        agent.status()["destinations"]["hub"]["failed_requests"]["credentials-refused"].as_u64() >= Some(1)
    });
    assert!(!agent.log().contains("open-barley") && !agent.status().to_string().contains("open-barley"));
    fs::write(agent.home().path().join("access.key"), format!("{ACCESS_KEY}\n")).expect("a file");
    agent.restart();
    eventually(PATIENCE, "it is taken", || agent.status()["destinations"]["hub"]["records"] == 1);
}
