//! One record at which the endpoint breaks: it answers every request that has it with a failure of its own. All records share
//! one shard, so that they travel in the same aggregates.

use std::collections::HashMap;
use std::time::Duration;

use super::trial::cloud;
use crate::support::daemon::PATIENCE;
use crate::support::device::VERSIONS;
use crate::support::upstream::{Accepted, PutRecords};
use crate::support::{Device, Forebay, Gateway, Reply, Upstream, eventually};

const KEYS: u32 = 4;

/// What the endpoint breaks at.
const FAULT: &[u8] = b"the record at fault";

/// For the record to be found: some twenty attempts, half a second apart at most.
const LONG: Duration = Duration::from_secs(90);

fn breaks_at(request: &PutRecords) -> bool {
    request.records.iter().any(|record| record.data.windows(FAULT.len()).any(|bytes| bytes == FAULT))
}

/// What a consumer gets, by partition key.
fn taken(upstream: &Upstream) -> HashMap<String, Vec<String>> {
    let mut taken = HashMap::<_, Vec<_>>::new();
    for (key, data) in upstream.accepted().iter().flat_map(Accepted::consumed) {
        taken.entry(key).or_default().push(String::from_utf8(data).expect("text"));
    }
    taken
}

#[test]
fn a_record_at_which_the_endpoint_breaks_holds_up_only_its_key() {
    let upstream = Upstream::start();
    let destination = "aggregation = \"kpl\"\nmax-backoff = \"500ms\"\nconnect-timeout = \"1s\"".to_owned();
    let gateway = Gateway { destination, ..Gateway::to(&upstream.endpoint()) };
    let mut agent = Forebay::start(&gateway.configuration());
    let mut device = Device::connect(gateway.mqtt, VERSIONS[0], "device");
    let mut published = HashMap::<String, Vec<String>>::new();
    let mut publish = |key: u32, data: String| {
        let key = format!("key-{key}");
        device.publish(&key, data.as_bytes());
        published.entry(key).or_default().push(data);
    };
    // The map of the shards is known.
    publish(0, "first".to_owned());
    eventually(PATIENCE, "the first one passes", || cloud(&agent)["backlog_records"] == 0);

    // They gather while the endpoint is away, and then leave together.
    upstream.link_down();
    for number in 0..40 {
        let fault = number == 21;
        publish(number % KEYS, if fault { String::from_utf8_lossy(FAULT).into_owned() } else { number.to_string() });
    }
    upstream.otherwise(|request| if breaks_at(request) { Reply::server_error() } else { Reply::Accept });
    upstream.link_up();
    let before_fault = |records: &[String]| -> Vec<String> {
        records.iter().take_while(|data| data.as_bytes() != FAULT).cloned().collect()
    };
    let passes = |published: &HashMap<String, Vec<String>>| -> HashMap<String, Vec<String>> {
        published.iter().map(|(key, records)| (key.clone(), before_fault(records))).collect()
    };
    let expected = passes(&published);
    eventually(LONG, "all pass that need not wait for it", || taken(&upstream) == expected);

    // What comes in now passes, too; what is of its key waits.
    let mut publish = |key: u32, data: String| {
        let key = format!("key-{key}");
        device.publish(&key, data.as_bytes());
        published.entry(key).or_default().push(data);
    };
    (0..40).for_each(|number| publish(number % KEYS, format!("later {number}")));
    let expected = passes(&published);
    eventually(LONG, "what comes later passes", || taken(&upstream) == expected);
    let waits = |published: &HashMap<String, Vec<String>>| -> usize {
        published.values().map(|records| records.len() - before_fault(records).len()).sum()
    };
    let backlog = || cloud(&agent)["backlog_records"].as_u64();
    eventually(PATIENCE, "the backlog is what was not taken", || backlog() == Some(waits(&published) as u64));
    let told = || {
        let cloud = cloud(&agent);
        cloud["failing_records"] == 1 && cloud["last_error"]["kind"] == "endpoint-failed"
    };
    eventually(PATIENCE, "status tells of it", told);
    let status = cloud(&agent);
    assert!(status["failed_requests"]["endpoint-failed"].as_u64() >= Some(4), "{status}");
    let tried = || cloud(&agent)["failed_requests"]["endpoint-failed"].as_u64();
    let before = tried();
    eventually(PATIENCE, "it is tried again", || tried() > before);
    assert!(cloud(&agent)["down"].is_null(), "the endpoint takes everything else: {}", cloud(&agent));

    upstream.behave();
    eventually(LONG, "it arrives", || cloud(&agent)["backlog_records"] == 0);
    assert_eq!(taken(&upstream), published, "each once, in the order of its key");
    let status = cloud(&agent);
    assert_eq!((&status["failing_records"], &status["dead_letters"]), (&0.into(), &0.into()), "{status}");
    assert!(agent.terminate().success());
}

/// One key's records wait for the first of them, until they fill the window.
#[test]
fn it_is_told_that_reading_stops_and_that_it_goes_on() {
    let upstream = Upstream::start();
    let destination =
        "window-records = 100\nbatch-records = 50\nmax-backoff = \"500ms\"\nconnect-timeout = \"1s\"".to_owned();
    let gateway = Gateway { destination, ..Gateway::to(&upstream.endpoint()) };
    let mut agent = Forebay::start(&gateway.configuration());
    let mut device = Device::connect(gateway.mqtt, VERSIONS[0], "device");
    upstream.otherwise(|request| if breaks_at(request) { Reply::server_error() } else { Reply::Accept });
    device.publish("key-0", FAULT);
    // Others show that it is this record.
    let failing = || cloud(&agent)["failing_records"] == 1;
    let mut others = 0;
    eventually(LONG, "it is found", || {
        device.publish("key-1", others.to_string().as_bytes());
        others += 1;
        failing()
    });
    assert_eq!(cloud(&agent)["reading_stopped"], false);
    (0..200).for_each(|number| device.publish("key-0", number.to_string().as_bytes()));
    eventually(LONG, "status tells of it", || cloud(&agent)["reading_stopped"] == true);
    let file = agent.home().configuration_file().display().to_string();
    let output = agent.home().forebay(&["status", "--config", &file]);
    let shown = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(shown.contains("no more is read"), "{shown}");
    let told = |what: &str| agent.log().matches(what).count();
    assert_eq!((told("no more records are read"), told("records are read again")), (1, 0), "{}", agent.log());

    upstream.behave();
    eventually(LONG, "it goes on", || cloud(&agent)["backlog_records"] == 0);
    assert_eq!(cloud(&agent)["reading_stopped"], false);
    assert_eq!((told("no more records are read"), told("records are read again")), (1, 1), "{}", agent.log());
    assert!(agent.terminate().success());
}
