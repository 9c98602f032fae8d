//! `durability = "interval"` and `"memory-first"`: what is acknowledged when, and what a kill takes.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::Duration;

use serde_json::Value;

use crate::support::device::Version;
use crate::support::publisher::{Memory, Progress, Published, Publishing, publish_numbered};
use crate::support::{Forebay, Gateway, Upstream, eventually};

const LONG: Duration = Duration::from_secs(90);

fn gateway(upstream: &Upstream, durability: &str) -> Gateway {
    Gateway { stream: durability.to_owned(), ..Gateway::to(&upstream.endpoint()) }
}

/// Publishes so many numbered messages of 50 devices, through whatever breaks its connections.
fn publish(gateway: &Gateway, count: u64, progress: &Arc<Progress>) -> Published {
    let how = Publishing {
        port: gateway.mqtt,
        version: Version::V311,
        client_id: "logger".to_owned(),
        window: 200,
        memory: Memory::Keeps,
    };
    publish_numbered(&how, count, progress, |number, payload| {
        payload.extend_from_slice(format!("{{\"number\":{number},\"unit\":\"C\"}}").as_bytes());
        format!("plant/{}", number % 50)
    })
}

fn telemetry(agent: &Forebay) -> Value {
    agent.status()["streams"]["telemetry"].clone()
}

/// How many different messages arrived.
fn arrived(upstream: &Upstream) -> u64 {
    upstream.accepted().into_iter().map(|record| record.data).collect::<HashSet<_>>().len() as u64
}

#[test]
fn what_is_delivered_in_time_is_never_written() {
    const MESSAGES: u64 = 10_000;
    let upstream = Upstream::start();
    // Nothing has to wait until it is spilled, so nothing may be written.
    let gateway = gateway(&upstream, "durability = \"memory-first\"\nspill-after = \"10m\"");
    let mut agent = Forebay::start(&gateway.configuration());
    let before = telemetry(&agent)["written_bytes"].as_u64().expect("a number");
    publish(&gateway, MESSAGES, &Arc::default());
    assert_eq!(arrived(&upstream), MESSAGES, "whoever was told that it is stored has been delivered");
    let status = telemetry(&agent);
    assert_eq!((&status["records"], &status["unwritten"]), (&MESSAGES.into(), &MESSAGES.into()));
    // Checkpoints, and numbers that are reserved once.
    let written = status["written_bytes"].as_u64().expect("a number") - before;
    assert!(written < 20_000, "{written} bytes for {MESSAGES} messages: {status}");

    agent.restart();
    publish(&gateway, 10, &Arc::default());
    assert_eq!(upstream.accepted_count(), MESSAGES + 10, "nothing is sent twice after a clean stop");
    assert_eq!(agent.status()["log_events"], serde_json::json!({}), "nothing had to be mended: {}", agent.log());
}

#[test]
fn without_a_connection_everything_goes_to_the_disk_and_survives_a_kill() {
    const MESSAGES: u64 = 3000;
    let upstream = Upstream::start();
    upstream.link_down();
    let gateway = gateway(&upstream, "durability = \"memory-first\"\nspill-after = \"200ms\"\nspill-size = \"64KiB\"");
    let mut agent = Forebay::start(&gateway.configuration());
    publish(&gateway, MESSAGES, &Arc::default());
    assert_eq!(telemetry(&agent)["unwritten"], 0);
    agent.kill9();
    agent.start_again();
    assert_eq!(telemetry(&agent)["dropped"]["damage"], 0, "{}", agent.log());
    upstream.link_up();
    eventually(LONG, "everything arrives", || arrived(&upstream) == MESSAGES);
}

#[test]
fn kills_at_random_moments_lose_nothing_acknowledged_whatever_the_durability() {
    const MESSAGES: u64 = 12_000;
    for durability in [
        "durability = \"interval\"\ncommit-interval = \"100ms\"",
        "durability = \"memory-first\"\nspill-after = \"100ms\"",
    ] {
        let upstream = Upstream::start();
        let gateway = gateway(&upstream, durability);
        let mut agent = Forebay::start(&gateway.configuration());
        let progress = Arc::new(Progress::default());
        thread::scope(|scope| {
            let publisher = scope.spawn(|| publish(&gateway, MESSAGES, &progress));
            for kill in 1..=4 {
                let some = || progress.acknowledged.load(Relaxed) >= kill * MESSAGES / 6;
                eventually(LONG, "some are acknowledged", some);
                // Half of the time nothing is delivered meanwhile.
                if kill % 2 == 0 {
                    upstream.link_up()
                } else {
                    upstream.link_down()
                }
                agent.kill9();
                agent.start_again();
            }
            upstream.link_up();
            assert_eq!(publisher.join().expect("the publisher ends").end, MESSAGES);
        });
        eventually(LONG, "everything arrives", || arrived(&upstream) == MESSAGES);
        assert_eq!(telemetry(&agent)["dropped"]["damage"], 0, "{durability}: {}", agent.log());
    }
}

/// Puts so many records of a thousand bytes, and returns when they are stored or delivered.
fn put(agent: &Forebay, count: usize) {
    let lines = format!("{}\n", "x".repeat(1000)).repeat(count);
    let arguments = ["put", "telemetry", "--key", "k", "--config", "forebay.toml"];
    let put = agent.home().forebay_with_input(&arguments, lines.as_bytes());
    assert!(put.status.success(), "{put:?}");
}

fn backlog(agent: &Forebay) -> u64 {
    agent.status()["destinations"]["cloud"]["backlog_records"].as_u64().expect("a number")
}

/// A kill leaves a million numbers that were reserved and never given.
#[test]
fn after_a_kill_records_are_counted_and_not_their_numbers() {
    let upstream = Upstream::start();
    let memory_first = "durability = \"memory-first\"\nspill-after = \"100ms\"\ncompression = \"none\"";
    let gateway = gateway(&upstream, &format!("{memory_first}\nquota = \"1MiB\"\non-full = \"drop-oldest\""));
    let mut agent = Forebay::start(&gateway.configuration());
    put(&agent, 50);
    eventually(LONG, "all is delivered", || backlog(&agent) == 0);
    agent.restart();
    upstream.link_down();
    put(&agent, 40);
    for (round, expected) in [(1, 40), (2, 70)] {
        assert_eq!(backlog(&agent), expected, "before kill {round}");
        agent.kill9();
        agent.start_again();
        assert_eq!(backlog(&agent), expected, "after kill {round}");
        assert!(telemetry(&agent)["next"].as_u64() > Some(round << 20), "numbers are not given again");
        if round == 1 {
            put(&agent, 30);
        }
    }
    // Three times the quota: what was there goes first.
    put(&agent, 3000);
    let counts = |agent: &Forebay| {
        let stream = telemetry(agent);
        let count = |what: &str| stream[what]["quota"].as_u64().expect("a number");
        (count("dropped"), count("lost"), backlog(agent))
    };
    let (dropped, lost, left) = counts(&agent);
    assert_eq!(lost + left, 3070, "{dropped} dropped");
    assert!((lost..=lost + 50).contains(&dropped) && lost > 2000, "{dropped} dropped, {lost} lost");
    agent.kill9();
    agent.start_again();
    assert_eq!(counts(&agent), (dropped, lost, left));
    let told = agent.status()["log_events"].clone();
    assert!(told["damaged"].is_null() && told["catalogue-rebuilt"].is_null(), "{told}");
}
