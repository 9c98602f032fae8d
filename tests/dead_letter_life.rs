//! The life of dead letters: given up with a reason while the rest flows, listed, shown, kept over a restart, replayed to their
//! own destination once the cause is gone, and dropped; and their quota.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::Value;

use crate::support::daemon::PATIENCE;
use crate::support::device::Version;
use crate::support::upstream::PutRecords;
use crate::support::{Device, Forebay, Gateway, Reply, Upstream, eventually, http};

const BAD_KEY: &str = "plant/bad-key";
const POISON: &[u8] = b"poison";
const LARGE: &[u8] = &[b'x'; 2000];

/// An upstream that finds fault with some records until it is cured.
fn sickly() -> (Upstream, Arc<AtomicBool>) {
    let (upstream, cured) = (Upstream::start(), Arc::new(AtomicBool::new(false)));
    let is_cured = Arc::clone(&cured);
    upstream.otherwise(move |request: &PutRecords| {
        let bad = |data: &[u8], key: &str| data == POISON || key == BAD_KEY;
        let refused = request.records.iter().any(|record| bad(&record.data, &record.partition_key));
        if refused && !is_cured.load(Relaxed) { Reply::validation() } else { Reply::Accept }
    });
    (upstream, cured)
}

fn dead_letter(agent: &Forebay, arguments: &[&str]) -> (bool, String) {
    let arguments = [&["dead-letter", "--config", "forebay.toml"], arguments].concat();
    let output = agent.home().forebay(&arguments);
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    (output.status.success(), format!("{out}{err}"))
}

#[track_caller]
fn json(agent: &Forebay, arguments: &[&str]) -> Value {
    let (done, said) = dead_letter(agent, &[&["--json"], arguments].concat());
    assert!(done, "{said}");
    serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}"))
}

fn cloud(agent: &Forebay) -> Value {
    agent.status()["destinations"]["cloud"].clone()
}

/// Publishes 60 records of 7 keys, of which three are at fault.
fn publish(gateway: &Gateway) {
    let mut device = Device::connect(gateway.mqtt, Version::V5, "device");
    for number in 0..60_u32 {
        let topic = format!("plant/{}", number % 7);
        match number {
            20 => device.publish(&topic, LARGE),
            30 => device.publish(&topic, POISON),
            40 => device.publish(BAD_KEY, b"40"),
            _ => device.publish(&topic, number.to_string().as_bytes()),
        }
    }
}

fn count(upstream: &Upstream, data: &[u8]) -> usize {
    upstream.accepted().iter().filter(|record| record.data == data).count()
}

#[test]
fn what_is_refused_is_listed_with_reasons_and_arrives_once_after_the_cause_is_gone() {
    let ((upstream, cured), depot) = (sickly(), Upstream::start());
    let more = format!(
        "[destinations.depot]\ntype = \"kinesis\"\nfrom = \"telemetry\"\nstream = \"depot\"\nregion = \"eu-west-1\"\n\
         endpoint = \"{}\"",
        depot.endpoint()
    );
    let mut gateway =
        Gateway { more, destination: "max-record = \"1KiB\"".to_owned(), ..Gateway::to(&upstream.endpoint()) };
    let mut agent = Forebay::start(&gateway.configuration());
    publish(&gateway);
    upstream.wait_for(57, PATIENCE);
    depot.wait_for(60, PATIENCE);
    eventually(PATIENCE, "three are given up", || cloud(&agent)["dead_letters_open"] == 3);

    let all = json(&agent, &["list"]);
    assert_eq!(
        (&all["destinations"][0]["letters"], &all["destinations"][1]["letters"]),
        (&3.into(), &0.into()),
        "{all}"
    );
    let reasons = all["destinations"][0]["reasons"].as_object().expect("reasons");
    assert!(
        reasons.keys().any(|reason| reason == "the record has # bytes with its key; the destination takes #"),
        "{all}"
    );
    let listed = json(&agent, &["list", "cloud"]);
    let letters = listed["letters"].as_array().expect("letters");
    let letter = |what: &str| {
        let found = letters.iter().find(|letter| letter["reason"].as_str().is_some_and(|reason| reason.contains(what)));
        found.unwrap_or_else(|| panic!("no letter with {what}: {listed}"))
    };
    let number = |letter: &Value| letter["number"].as_u64().expect("a number");
    assert_eq!(letters.len(), 3);
    assert_eq!(letter("takes 1024")["attempts"], 0);
    assert!(letter("takes 1024").get("first_attempt_ms").is_none(), "{listed}");
    let bad_key = letters.iter().find(|letter| letter["partition_key"] == BAD_KEY).expect("with the bad key");
    assert!(bad_key["reason"].as_str().expect("text").contains("ValidationException"), "{listed}");
    assert!(bad_key["first_attempt_ms"].as_u64() <= bad_key["last_attempt_ms"].as_u64(), "{bad_key}");
    assert_eq!((&bad_key["stream"], bad_key["sequence_number"].is_u64()), (&"telemetry".into(), true));
    let paged = json(&agent, &["list", "cloud", "-n", "2"]);
    assert_eq!((paged["letters"].as_array().expect("letters").len(), &paged["next"]), (2, &3.into()), "{paged}");

    let (done, shown) = dead_letter(&agent, &["show", "cloud", &number(bad_key).to_string()]);
    assert!(done && shown.contains("plant/bad-key") && shown.ends_with("\n40\n"), "{shown}");
    let large = json(&agent, &["show", "cloud", &number(letter("takes 1024")).to_string()]);
    assert_eq!(BASE64_STANDARD.decode(large["data"].as_str().expect("base64")).expect("base64"), LARGE);
    let metrics = http::get(agent.api(), "/metrics").expect("metrics").body;
    assert!(metrics.contains("forebay_destination_dead_letters_open{destination=\"cloud\"} 3"), "{metrics}");

    // What is not cured comes back as the letter it was.
    let replayed = json(&agent, &["replay", "cloud", &number(bad_key).to_string()]);
    assert_eq!(replayed["letters"], 1);
    // It is given up again when something else shows that the endpoint takes anything.
    Device::connect(gateway.mqtt, Version::V5, "another").publish("plant/0", b"60");
    eventually(PATIENCE, "it is refused once more", || json(&agent, &["list", "cloud"])["letters"][2]["replays"] == 1);
    let back = &json(&agent, &["list", "cloud"])["letters"][2];
    assert_eq!(
        (&back["sequence_number"], &back["stream"]),
        (&bad_key["sequence_number"], &bad_key["stream"]),
        "{back}"
    );
    assert!(back["attempts"].as_u64() > bad_key["attempts"].as_u64(), "{back}");

    // They are there without the agent too, and after a restart with other settings.
    assert!(agent.terminate().success());
    let left = json(&agent, &["list", "cloud"]);
    assert_eq!(left["letters"].as_array().expect("letters").len(), 3, "{left}");
    gateway.destination = "max-record = \"1MiB\"".to_owned();
    agent.home().configure(&gateway.configuration());
    cured.store(true, Relaxed);
    agent.start_again();
    // A reason is given as the sum of all shows it.
    let summed = json(&agent, &["list"])["destinations"][0]["reasons"].clone();
    let takes = summed.as_object().and_then(|reasons| reasons.keys().find(|reason| reason.contains("takes #")));
    assert_eq!(json(&agent, &["replay", "cloud", "--reason", takes.expect("a reason")])["letters"], 1);
    for of_it in [&["replay"][..], &["drop"], &["drop", "--yes"]] {
        let (done, said) = dead_letter(&agent, &[of_it, &["cloud", "--reason", "takes 1025"]].concat());
        assert!(!done && said.contains("no open letter of `cloud` has a reason with `takes 1025`"), "{said}");
    }
    let (done, said) = dead_letter(&agent, &["replay", "cloud"]);
    assert!(!done && ["NUMBER", "--reason", "--all"].iter().all(|choice| said.contains(choice)), "{said}");
    let (done, said) = dead_letter(&agent, &["replay", "cloud", "1", "--all"]);
    assert!(!done && said.contains("cannot be used with"), "{said}");
    let (done, said) = dead_letter(&agent, &["replay", "cloud", "--all"]);
    assert!(done && said.starts_with("replayed 2 letters of "), "{said}");
    upstream.wait_for(61, PATIENCE);
    eventually(PATIENCE, "nothing is left to deliver", || {
        let destinations = agent.status()["destinations"].clone();
        ["cloud", "depot"].iter().all(|name| destinations[*name]["backlog_records"] == 0)
    });
    for data in [LARGE, POISON, b"40"] {
        assert_eq!((count(&upstream, data), count(&depot, data)), (1, 1));
    }
    assert_eq!((upstream.accepted().len(), depot.accepted().len()), (61, 61), "each once, and the depot got no replay");
    assert_eq!(json(&agent, &["list", "cloud"])["letters"].as_array().map(Vec::len), Some(0));
    let status = cloud(&agent);
    assert_eq!((&status["dead_letters_open"], &status["dead_letters_replayed"]), (&0.into(), &4.into()), "{status}");
}

#[test]
fn a_replay_survives_a_kill_and_a_drop_wants_to_be_meant() {
    let (upstream, cured) = sickly();
    let gateway = Gateway::to(&upstream.endpoint());
    let mut agent = Forebay::start(&gateway.configuration());
    publish(&gateway);
    upstream.wait_for(58, PATIENCE);
    eventually(PATIENCE, "two are given up", || cloud(&agent)["dead_letters_open"] == 2);
    let first = json(&agent, &["list", "cloud"])["letters"][0].clone();
    let reason = first["reason"].as_str().expect("text").to_owned();

    upstream.link_down();
    cured.store(true, Relaxed);
    let number = first["number"].to_string();
    assert_eq!(json(&agent, &["replay", "cloud", &number])["letters"], 1);
    agent.kill9();
    agent.start_again();
    let (done, said) = dead_letter(&agent, &["replay", "cloud", &number]);
    assert!(!done && said.contains(&format!("there is no open letter {number}")), "{said}");
    upstream.link_up();
    upstream.wait_for(59, PATIENCE);

    let (done, said) = dead_letter(&agent, &["drop", "cloud", "--reason", &reason]);
    assert!(!done && said.contains("1 letter of ") && said.contains("--yes"), "{said}");
    assert_eq!(cloud(&agent)["dead_letters_open"], 1, "it was not meant");
    assert_eq!(json(&agent, &["drop", "cloud", "--all", "--yes"])["letters"], 1);
    assert_eq!(cloud(&agent)["dead_letters_dropped"], 1);
    assert!(agent.log().contains("dead letters were dropped, as was asked for"), "{}", agent.log());
    let (done, said) = dead_letter(&agent, &["list", "clod"]);
    assert!(!done && said.contains("there is no destination `clod`"), "{said}");

    // Without the agent as well; a window may be sent again after the kill, but the letter is one of it once at the most.
    assert!(agent.terminate().success());
    let (done, said) = dead_letter(&agent, &["list"]);
    assert!(done && said.contains("cloud: no letters; 1 replayed before; 1 dropped before"), "{said}");
    let (done, said) = dead_letter(&agent, &["replay", "cloud", "--all"]);
    assert!(done && said == "replayed 0 letters of 0 B together\n", "{said}");
}

#[test]
fn letters_beyond_their_quota_are_counted_as_lost_and_told_and_the_rest_flows() {
    let upstream = Upstream::start();
    let more = "[streams.\"dead-letter.cloud\"]\nquota = \"1MiB\"\ncompression = \"none\"".to_owned();
    let gateway =
        Gateway { more, destination: "max-record = \"1KiB\"".to_owned(), ..Gateway::to(&upstream.endpoint()) };
    let agent = Forebay::start(&gateway.configuration());
    let mut device = Device::connect(gateway.mqtt, Version::V5, "device");
    for number in 0..400_u32 {
        device.publish("plant/large", &vec![b'x'; 5000]);
        device.publish("plant/small", number.to_string().as_bytes());
    }
    upstream.wait_for(400, PATIENCE);
    eventually(PATIENCE, "all are given up", || cloud(&agent)["dead_letters"] == 400);
    let status = agent.status();
    let lost = status["streams"]["dead-letter.cloud"]["lost"]["quota"].as_u64().expect("a number");
    let open = status["destinations"]["cloud"]["dead_letters_open"].as_u64().expect("a number");
    assert!(lost > 0 && open > 0, "{status}");
    assert_eq!(lost + open, 400, "{status}");
    assert!(agent.log().contains("records were dropped that had not been delivered"), "{}", agent.log());
    assert_eq!(json(&agent, &["list"])["destinations"][0]["letters"], open);
}
