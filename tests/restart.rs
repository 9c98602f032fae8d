//! What a restart costs: nothing after a clean stop, and never a record, also when the catalogue is gone.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use crate::support::daemon::PATIENCE;
use crate::support::device::Version;
use crate::support::upstream::PutRecords;
use crate::support::{Device, Forebay, Gateway, Reply, Upstream, eventually, mosquitto_pub_lines};

/// What arrived, by partition key, repetitions included.
fn arrived(upstream: &Upstream) -> BTreeMap<String, Vec<String>> {
    let mut arrived: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for record in upstream.accepted() {
        let text = String::from_utf8(record.data).expect("these tests publish text");
        arrived.entry(record.partition_key).or_default().push(text);
    }
    arrived
}

fn numbers(count: u32) -> Vec<String> {
    (1..=count).map(|number| number.to_string()).collect()
}

#[track_caller]
fn publish(gateway: &Gateway, count: u32) {
    mosquitto_pub_lines(gateway.mqtt, &["-q", "1", "-t", "plant/a"], &numbers(count).join("\n"));
}

/// Requests under way are awaited and the checkpoint is saved.
#[test]
fn a_clean_stop_in_the_middle_of_delivering_repeats_nothing() {
    let upstream = Upstream::start();
    upstream.otherwise(|_| Reply::After(Duration::from_millis(20), Box::new(Reply::Accept)));
    let gateway = Gateway::to(&upstream.endpoint());
    let mut agent = Forebay::start(&gateway.configuration());
    let mut device = Device::connect(gateway.mqtt, Version::V311, "taking-turns");
    for number in numbers(60) {
        for key in 0..20 {
            device.publish(&format!("plant/{key}"), number.as_bytes());
        }
    }
    for stop in 1..=3 {
        upstream.wait_for(stop * 200, PATIENCE);
        agent.restart();
    }
    upstream.behave();
    upstream.wait_for(1200, PATIENCE);
    let arrived = arrived(&upstream);
    assert_eq!(arrived.len(), 20);
    for (key, texts) in arrived {
        assert_eq!(texts, numbers(60), "{key}");
    }
    assert_eq!(agent.status()["destinations"]["cloud"]["backlog_records"], 0);
}

/// What went past a record that waits is noted, so that it neither arrives again nor becomes another dead letter.
#[test]
fn a_clean_stop_repeats_nothing_that_went_past_a_record_that_waits() {
    let (upstream, cured) = (Upstream::start(), Arc::new(AtomicBool::new(false)));
    let is_cured = Arc::clone(&cured);
    upstream.otherwise(move |request: &PutRecords| {
        let stuck = |place: &usize| request.records[*place].data == b"stuck" && !is_cured.load(Relaxed);
        Reply::Fail((0..request.records.len()).filter(stuck).collect())
    });
    let gateway = Gateway { destination: "max-record = \"1KiB\"".to_owned(), ..Gateway::to(&upstream.endpoint()) };
    let mut agent = Forebay::start(&gateway.configuration());
    let mut device = Device::connect(gateway.mqtt, Version::V311, "device");
    device.publish("plant/stuck", b"stuck");
    device.publish("plant/large", &[b'x'; 2000]);
    drop(device);
    let cloud = |agent: &Forebay, what: &str| agent.status()["destinations"]["cloud"][what].clone();
    for stop in 0..3 {
        publish(&gateway, 100);
        upstream.wait_for((stop + 1) * 100, PATIENCE);
        eventually(PATIENCE, "all but one is finished", || cloud(&agent, "backlog_records") == 1);
        agent.restart();
        eventually(PATIENCE, "what is noted is passed over", || cloud(&agent, "backlog_records") == 1);
    }
    assert_eq!(cloud(&agent, "dead_letters_open"), 1, "one record, one letter");
    cured.store(true, Relaxed);
    eventually(PATIENCE, "all is finished", || cloud(&agent, "backlog_records") == 0);
    let arrived = arrived(&upstream);
    assert_eq!(arrived["plant/stuck"], ["stuck"]);
    assert_eq!(arrived["plant/a"], [numbers(100), numbers(100), numbers(100)].concat());
}

/// Half of the grace period is for requests under way.
#[test]
fn a_clean_stop_awaits_a_request_that_takes_four_tenths_of_the_grace_period() {
    let upstream = Upstream::start();
    upstream.otherwise(|_| Reply::After(Duration::from_secs(4), Box::new(Reply::Accept)));
    let gateway = Gateway::to(&upstream.endpoint());
    let mut agent = Forebay::start(&gateway.configuration());
    publish(&gateway, 1);
    eventually(PATIENCE, "the request is under way", || !upstream.arrived().is_empty());
    assert!(agent.terminate().success(), "{}", agent.log());
    upstream.behave();
    agent.start_again();
    publish(&gateway, 2);
    eventually(PATIENCE, "all is finished", || agent.status()["destinations"]["cloud"]["backlog_records"] == 0);
    assert_eq!(arrived(&upstream)["plant/a"], [numbers(1), numbers(2)].concat());
}

/// One request hangs, as on a dead link, and everything behind it was answered: that is not sent again.
#[test]
fn what_was_answered_is_known_though_a_request_is_given_up_at_the_stop() {
    let upstream = Upstream::start();
    let is_stuck = |request: &PutRecords| request.records.iter().any(|record| record.data == b"stuck");
    upstream.otherwise(move |request| if is_stuck(request) { Reply::Hang } else { Reply::Accept });
    let more = "[agent]\ngrace-period = \"6s\"".to_owned();
    let gateway = Gateway { more, ..Gateway::to(&upstream.endpoint()) };
    let mut agent = Forebay::start(&gateway.configuration());
    // Before the first answer there is one request at a time.
    publish(&gateway, 10);
    upstream.wait_for(10, PATIENCE);
    let requests = upstream.arrived().len();
    mosquitto_pub_lines(gateway.mqtt, &["-q", "1", "-t", "plant/stuck"], "stuck");
    eventually(PATIENCE, "it hangs", || upstream.arrived().len() > requests);
    publish(&gateway, 100);
    upstream.wait_for(110, PATIENCE);
    let backlog = |agent: &Forebay| agent.status()["destinations"]["cloud"]["backlog_records"].clone();
    eventually(PATIENCE, "all but one is finished", || backlog(&agent) == 1);
    let status = agent.terminate();
    assert!(status.success(), "{status}: {}", agent.log());
    upstream.behave();
    agent.start_again();
    eventually(PATIENCE, "all is finished", || backlog(&agent) == 0);
    let arrived = arrived(&upstream);
    let owed = [numbers(10), numbers(100)].concat();
    assert_eq!((&arrived["plant/stuck"][..], &arrived["plant/a"]), (&["stuck".to_owned()][..], &owed));
}

#[test]
fn an_endpoint_that_never_answers_does_not_keep_the_agent_from_stopping() {
    let upstream = Upstream::start();
    upstream.otherwise(|_| Reply::Hang);
    let more = "[agent]\ngrace-period = \"2s\"".to_owned();
    let gateway = Gateway { more, ..Gateway::to(&upstream.endpoint()) };
    let mut agent = Forebay::start(&gateway.configuration());
    publish(&gateway, 100);
    eventually(PATIENCE, "the endpoint hangs", || !upstream.arrived().is_empty());
    let status = agent.terminate();
    assert!(status.success(), "{status}: {}", agent.log());
    upstream.behave();
    agent.start_again();
    upstream.wait_for(100, PATIENCE);
    assert_eq!(arrived(&upstream)["plant/a"], numbers(100));
}

/// Publishes 100 messages of which 50 are delivered, does something to the catalogue while the agent is stopped, and
/// expects the rest to arrive.
#[track_caller]
fn with_another_catalogue(change: impl FnOnce(PathBuf)) -> (Forebay, Upstream) {
    let upstream = Upstream::start();
    let gateway = Gateway::to(&upstream.endpoint());
    let mut agent = Forebay::start(&gateway.configuration());
    publish(&gateway, 50);
    upstream.wait_for(50, PATIENCE);
    upstream.link_down();
    let mut device = Device::connect(gateway.mqtt, Version::V5, "device");
    for number in 51..=100 {
        device.publish("plant/a", number.to_string().as_bytes());
    }
    assert!(agent.terminate().success());

    change(agent.home().path().join("data/catalogue"));
    agent.start_again();
    assert_eq!(agent.status()["log_events"]["catalogue-rebuilt"], 1, "{}", agent.log());
    assert!(agent.log().contains("the catalogue was rebuilt from the segments"), "{}", agent.log());
    upstream.link_up();
    // The log holds the checkpoint too, which a clean stop wrote: nothing is repeated.
    upstream.wait_for(100, PATIENCE);
    assert_eq!(arrived(&upstream)["plant/a"], numbers(100));
    (agent, upstream)
}

#[test]
fn a_catalogue_that_is_gone_is_rebuilt_and_told() {
    let (agent, _upstream) = with_another_catalogue(|catalogue| {
        fs::remove_dir_all(catalogue).expect("it was there");
    });
    assert!(agent.log().contains("it was missing"), "{}", agent.log());
}

#[test]
fn a_catalogue_that_is_garbage_is_set_aside_rebuilt_and_told() {
    let (agent, _upstream) = with_another_catalogue(|catalogue| {
        for entry in fs::read_dir(catalogue).expect("it was there") {
            let path = entry.expect("an entry").path();
            if path.is_file() {
                fs::write(path, b"garbage".repeat(1000)).expect("a file that can be written");
            }
        }
    });
    let set_aside = fs::read_dir(agent.home().path().join("data"))
        .expect("a directory")
        .filter(|entry| {
            entry.as_ref().expect("an entry").file_name().to_string_lossy().starts_with("catalogue.broken-")
        })
        .count();
    assert_eq!(set_aside, 1);
    assert!(agent.log().contains("catalogue.broken-"), "{}", agent.log());
}
