//! A wall clock that is wrong by decades and jumps, under the real binary; the monotonic clock is the machine's own.

use std::fs;
use std::io::Write as _;
use std::net::TcpListener;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;

use crate::support::counterpart::program;
use crate::support::daemon::PATIENCE;
use crate::support::device::Version;
use crate::support::forebay::Home;
use crate::support::truck;
use crate::support::{Device, Forebay, Gateway, Reply, Upstream, eventually};

const YEAR_MS: u64 = 31_557_600_000;

/// The machine's clock, of which nothing in these tests is wrong.
#[expect(clippy::disallowed_methods, reason = "the true time, for comparison")]
fn truth_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis() as u64
}

/// An agent whose wall clock is set by [`set_clock`].
fn start(gateway: &Gateway, offset: &str) -> Forebay {
    let home = Home::new(&gateway.configuration()).through(&[program("faketime").display().to_string()]);
    fs::write(home.path().join("clock"), offset).expect("written");
    let clock = home.path().join("clock").display().to_string();
    let environment = [
        ("FAKETIME_TIMESTAMP_FILE", clock.as_str()),
        // What it shows can be changed while it runs.
        ("FAKETIME_NO_CACHE", "1"),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
    ];
    Forebay::start_in(home, &environment)
}

/// Sets its wall clock off by so much, such as "-40y".
fn set_clock(agent: &Forebay, offset: &str) {
    // Replaced in one step: it is read while it is written.
    let (new, clock) = (agent.home().path().join("clock.new"), agent.home().path().join("clock"));
    fs::write(&new, offset).and_then(|()| fs::rename(&new, &clock)).expect("written");
}

/// All records, as `forebay tail` sees them.
fn records(agent: &Forebay) -> Vec<Value> {
    let path = "/streams/telemetry/records?from=oldest";
    let answer = crate::support::http::get(agent.api(), path).expect("it answers");
    let read: Value = serde_json::from_str(&answer.body).expect("JSON");
    read["records"].as_array().expect("a list").clone()
}

fn arrival_ms(record: &Value) -> u64 {
    record["arrival_ms"].as_u64().expect("a time")
}

/// lafrech/oem_gateway#12, in the real binary.
#[test]
fn records_stored_with_a_clock_of_1986_have_their_true_times_once_it_is_trusted() {
    let upstream = Upstream::start();
    upstream.otherwise(|_| Reply::server_error());
    let mut gateway = Gateway::to(&upstream.endpoint());
    gateway.more = "[clock]\ntrust = \"never\"".into();
    let mut agent = start(&gateway, "-40y");
    let before = truth_ms();
    Device::connect(gateway.mqtt, Version::V311, "device").publish("plant/a", b"one");
    let after = truth_ms();
    let found = records(&agent);
    assert_eq!(found[0]["arrival_untrusted"], true, "{found:?}");
    assert!(arrival_ms(&found[0]) < before - 39 * YEAR_MS, "{found:?}");
    let status = agent.status();
    assert_eq!((&status["clock"]["trusted_since_ms"], &status["healthy"]), (&Value::Null, &true.into()));
    assert!(status["clock"]["warning"].is_string() && status["streams"]["telemetry"]["untrusted_records"] == 1);

    // The clock is set right, and can be trusted; it is the same boot of the machine.
    gateway.more = "[clock]\ntrust = \"always\"".into();
    agent.home().configure(&gateway.configuration());
    set_clock(&agent, "+0");
    agent.restart();
    let is_true = |record: &Value| (before - 100..=after + 100).contains(&arrival_ms(record));
    let found = records(&agent);
    assert!(found[0].get("arrival_untrusted").is_none() && is_true(&found[0]), "{before} to {after}: {found:?}");
    let status = agent.status();
    assert!(status["clock"]["trusted_since_ms"].is_u64() && status["clock"]["warning"].is_null(), "{status}");

    // A trusted clock that jumps by years, and back: told, and nothing expires.
    for (offset, count) in [("+20y", 1u64), ("+0", 2)] {
        set_clock(&agent, offset);
        eventually(PATIENCE, "the step is told", || agent.status()["log_events"]["clock-stepped"] == count);
    }
    let found = records(&agent);
    assert!(found.len() == 1 && is_true(&found[0]), "{found:?}");
    assert_eq!(agent.status()["streams"]["telemetry"]["dropped"]["retention"], 0);
    upstream.behave();
    upstream.wait_for(1, PATIENCE);
}

/// wazuh/wazuh#12923: a delay was computed with the wall clock, became negative, and nothing was sent any more.
#[test]
fn a_clock_set_back_stalls_neither_delivery_nor_sources() {
    let upstream = Upstream::start();
    let gateway = Gateway { destination: "max-backoff = \"500ms\"".into(), ..Gateway::to(&upstream.endpoint()) };
    let agent = start(&gateway, "+0");
    let mut device = Device::connect(gateway.mqtt, Version::V311, "device");
    for (round, offset) in ["-10y", "+10y", "-30y"].iter().enumerate() {
        // In the middle of an outage with its backoff.
        upstream.otherwise(|_| Reply::server_error());
        device.publish("plant/a", format!("{round} before").as_bytes());
        let asked = upstream.arrived().len();
        eventually(PATIENCE, "it was tried twice", || upstream.arrived().len() >= asked + 2);
        set_clock(&agent, offset);
        device.publish("plant/a", format!("{round} after").as_bytes());
        upstream.behave();
        upstream.wait_for(2 * round as u64 + 2, Duration::from_secs(20));
    }
    let texts: Vec<_> = upstream.accepted().into_iter().map(|record| record.data).collect();
    assert_eq!(texts, [&b"0 before"[..], b"0 after", b"1 before", b"1 after", b"2 before", b"2 after"]);
}

/// A receiver beside a clock of 1986: once it has a fix, the arrival times are true, those of before too.
#[test]
fn a_gps_receiver_makes_arrival_times_true_while_the_clock_is_wrong() {
    let upstream = Upstream::start();
    upstream.otherwise(|_| Reply::server_error());
    let mut gateway = Gateway::to(&upstream.endpoint());
    let receiver = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = receiver.local_addr().expect("one");
    gateway.more = format!(
        "[clock]\ntrust = \"never\"\n[sources.truck]\ntype = \"gps\"\nreceiver = \"tcp://{address}\"\nstream = \"telemetry\""
    );
    let agent = start(&gateway, "-40y");
    let before = truth_ms();
    Device::connect(gateway.mqtt, Version::V311, "device").publish("plant/a", b"one");
    let after = truth_ms();
    assert_eq!(records(&agent)[0]["arrival_untrusted"], true);

    let (mut stream, _) = receiver.accept().expect("it connects");
    let mut speak = |unix_ms: u64| stream.write_all(truck::epoch(unix_ms, 0.0).as_bytes()).expect("it reads");
    let trusted = || agent.status()["clock"]["trusted_since_ms"].is_u64();
    let refused = |reason: &str| agent.status()["sources"]["truck"]["refused"][reason].as_u64().unwrap_or(0);
    // Its count of weeks has rolled over: it is not believed.
    let mut spoken = truth_ms();
    eventually(PATIENCE, "times that cannot be are counted", || {
        if truth_ms() >= spoken + 500 {
            spoken = truth_ms();
            speak(spoken - 1024 * 7 * 24 * 3_600_000);
        }
        refused("time-implausible") >= 6
    });
    assert!(!trusted());
    eventually(PATIENCE, "the time is known", || {
        if truth_ms() >= spoken + 500 {
            spoken = truth_ms();
            speak(spoken);
        }
        trusted()
    });
    let found = records(&agent);
    let is_true = |record: &Value| (before - 1000..=after + 1000).contains(&arrival_ms(record));
    assert!(found[0].get("arrival_untrusted").is_none() && is_true(&found[0]), "{before} to {after}: {found:?}");
    assert_eq!(agent.status()["log_events"]["clock-trusted"], 1);
    assert!(found.iter().all(|record| record.get("arrival_untrusted").is_none()), "{found:?}");
}
