//! A disk without room: devices are held back, what was acknowledged stays, and things go on by themselves.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::daemon::PATIENCE;
use crate::support::device::Version;
use crate::support::forebay::Home;
use crate::support::http;
use crate::support::publisher::{Memory, Progress, Publishing, publish_numbered};
use crate::support::{Forebay, Gateway, SmallDisk, Upstream, eventually};

const DISK_BYTES: u64 = 24 << 20;

/// 1,000 bytes each: more than the disk holds.
const MESSAGES: u64 = 40_000;

/// For writing or delivering all of it.
const LONG: Duration = Duration::from_secs(90);

/// How long nothing may happen before a device counts as held back.
const STILL: Duration = Duration::from_secs(1);

fn telemetry(agent: &Forebay) -> Value {
    agent.status()["streams"]["telemetry"].clone()
}

#[track_caller]
fn wait_until_full(agent: &Forebay, progress: &Progress) -> u64 {
    eventually(LONG, "the stream is full", || {
        telemetry(agent)["stopped"].as_str().is_some_and(|reason| reason.contains("disk"))
    });
    let (mut since, mut count) = (Instant::now(), 0);
    eventually(LONG, "the device is held back", || {
        let now = progress.acknowledged.load(Relaxed);
        if now != count {
            (since, count) = (Instant::now(), now);
        }
        since.elapsed() >= STILL
    });
    count
}

#[test]
fn a_full_disk_holds_devices_back_until_there_is_room() {
    let (upstream, disk) = (Upstream::start(), SmallDisk::new(DISK_BYTES));
    upstream.link_down();
    let data_dir = disk.mount_point().join("data").display().to_string();
    let log = "segment-size = \"1MiB\"".to_owned();
    // A message takes the disk that its length says.
    let stream = "compression = \"none\"".to_owned();
    let gateway = Gateway { data_dir, log, stream, ..Gateway::to(&upstream.endpoint()) };
    let mut agent = Forebay::start_in(Home::new(&gateway.configuration()).through(&disk.enter()), &[]);
    disk.put_ballast(DISK_BYTES / 2);

    let progress = Arc::new(Progress::default());
    let how = Publishing {
        port: gateway.mqtt,
        version: Version::V311,
        client_id: "logger".to_owned(),
        window: 200,
        memory: Memory::Keeps,
    };
    thread::scope(|scope| {
        let publisher = scope.spawn(|| publish_numbered(&how, MESSAGES, &progress, message));

        // Somebody else filled the disk.
        let first = wait_until_full(&agent, &progress);
        assert!((1000..MESSAGES / 2).contains(&first), "{first} messages on half a disk");
        assert!(agent.log().contains("stream is full"), "{}", agent.log());
        let status = agent.status();
        assert_eq!((&status["healthy"], &status["sources"]["devices"]["connections"]), (&false.into(), &1.into()));

        // Nobody has to start anything again when it is gone.
        disk.drop_ballast();
        eventually(LONG, "the device goes on", || progress.acknowledged.load(Relaxed) > first + 1000);
        assert!(agent.log().contains("stream has room again"), "{}", agent.log());

        // Now it is our own records that fill it.
        let second = wait_until_full(&agent, &progress);
        assert!((first + 1000..MESSAGES).contains(&second), "{second} messages on the whole disk");

        // An agent that is killed now starts on the full disk, or nothing would ever make room again.
        agent.kill9();
        assert!(disk.free_bytes() < 2 << 20, "{} bytes are free", disk.free_bytes());
        agent.begin_again();
        eventually(PATIENCE, "it answers", || {
            http::get(agent.api(), "/status").is_ok_and(|answer| answer.status == 200)
        });

        // What is delivered makes room.
        upstream.link_up();
        let published = publisher.join().expect("the publisher tells why it cannot go on");
        assert_eq!(published.end, MESSAGES);
    });
    eventually(LONG, "everything arrives", || arrived_in_order(&upstream) == MESSAGES);
    let lost = &telemetry(&agent)["lost"];
    assert!(lost.as_object().is_some_and(|lost| lost.values().all(|count| count == 0)), "{lost}");
    agent.wait_until_ready();
}

fn message(number: u64, payload: &mut Vec<u8>) -> String {
    payload.extend_from_slice(format!("{number:1000}").as_bytes());
    format!("plant/{}", number % 50)
}

/// How many different messages arrived; panics if a key's were not in order.
#[track_caller]
fn arrived_in_order(upstream: &Upstream) -> u64 {
    let mut newest: HashMap<String, u64> = HashMap::new();
    let mut seen = vec![false; usize::try_from(MESSAGES).expect("a few thousand")];
    for record in upstream.accepted() {
        let text = String::from_utf8(record.data).expect("digits");
        let number: u64 = text.trim().parse().expect("a number");
        let place = &mut seen[usize::try_from(number).expect("a few thousand")];
        if *place {
            continue;
        }
        *place = true;
        assert_eq!(record.partition_key, format!("plant/{}", number % 50));
        let before = newest.insert(record.partition_key, number);
        assert!(before.is_none_or(|before| before < number), "{number} came behind {before:?}");
    }
    seen.into_iter().filter(|seen| *seen).count() as u64
}
