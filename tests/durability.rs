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
