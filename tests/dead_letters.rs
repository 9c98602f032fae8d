//! Records that the endpoint refuses for ever: they end in the dead-letter stream with the reason, and hold up nothing else.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::Value;

use crate::support::daemon::PATIENCE;
use crate::support::device::Version;
use crate::support::{Device, Forebay, Gateway, Reply, Upstream, eventually};

const DEAD_LETTERS: &str = "dead-letter.cloud";

fn tail(agent: &Forebay) -> Vec<Value> {
    let output = agent.home().forebay(&["tail", DEAD_LETTERS, "--json", "--config", "forebay.toml"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    let lines = String::from_utf8(output.stdout).expect("JSON is UTF-8");
    lines.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

#[test]
fn a_record_that_is_refused_for_ever_becomes_a_dead_letter_and_the_rest_goes_on() {
    let upstream = Upstream::start();
    upstream.otherwise(|request| {
        let poisoned = request.records.iter().any(|record| record.data.starts_with(b"poison"));
        if poisoned { Reply::validation() } else { Reply::Accept }
    });
    let gateway = Gateway::to(&upstream.endpoint());
    let mut agent = Forebay::start(&gateway.configuration());
    let mut device = Device::connect(gateway.mqtt, Version::V5, "device");
    let mut owed = Vec::new();
    for number in 0..300 {
        let topic = format!("plant/{}", number % 7);
        if number % 100 == 50 {
            device.publish(&topic, format!("poison {number}").as_bytes());
        } else {
            device.publish(&topic, number.to_string().as_bytes());
            owed.push((topic, number.to_string()));
        }
    }
    upstream.wait_for(owed.len() as u64, PATIENCE);
    let cloud = || agent.status()["destinations"]["cloud"].clone();
    eventually(PATIENCE, "the three are given up", || cloud()["dead_letters"] == 3);
    eventually(PATIENCE, "nothing is left", || cloud()["backlog_records"] == 0);

    let arrived = upstream.accepted();
    assert_eq!(arrived.len(), owed.len(), "nothing was repeated");
    for key in 0..7 {
        let key = format!("plant/{key}");
        let got = arrived.iter().filter(|record| record.partition_key == key).map(|record| record.data.clone());
        let expected = owed.iter().filter(|(topic, _)| *topic == key).map(|(_, text)| text.clone().into_bytes());
        assert!(got.eq(expected), "{key} is not in order");
    }

    // Through the running agent, and in the log of a stopped one.
    let running = tail(&agent);
    let requests = upstream.arrived().len();
    agent.restart();
    eventually(PATIENCE, "the restarted agent answers", || agent.status()["healthy"] == true);
    assert!(agent.terminate().success());
    assert_eq!(tail(&agent), running);
    assert_eq!(upstream.arrived().len(), requests, "a dead letter is not sent again");

    let mut found: Vec<(String, String)> = running
        .iter()
        .map(|letter| {
            assert!(letter["tags"].to_string().contains("ValidationException"), "{letter}");
            let data = BASE64_STANDARD.decode(letter["data"].as_str().expect("base64")).expect("base64");
            let key = letter["partition_key"].as_str().expect("a key").to_owned();
            (key, String::from_utf8(data).expect("text"))
        })
        .collect();
    found.sort();
    let dead = |number: u32| (format!("plant/{}", number % 7), format!("poison {number}"));
    let mut expected = [dead(50), dead(150), dead(250)];
    expected.sort();
    assert_eq!(found, expected);
    assert!(agent.log().contains("dead"), "{}", agent.log());
}
