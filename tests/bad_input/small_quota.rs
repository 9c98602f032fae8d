//! Limits on a small disk: what forebay takes of it at any moment, and that every record is either there or was told as
//! dropped.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use crate::support::device::Version;
use crate::support::forebay::Home;
use crate::support::publisher::{Memory, Progress, Publishing, publish_numbered};
use crate::support::{Forebay, Gateway, SmallDisk, Upstream, eventually};

const DISK_BYTES: u64 = 32 << 20;
const QUOTA: u64 = 8 << 20;
const MIN_FREE: u64 = 8 << 20;
/// What a quota of 8 MiB makes of a segment.
const SEGMENT_BYTES: u64 = 1 << 20;
/// sled takes half a mebibyte for a new catalogue, and as much again now and then.
const CATALOGUE_BYTES: u64 = 2 << 20;

/// 1,000 bytes each: many times the quota.
const MESSAGES: u64 = 60_000;

const LONG: Duration = Duration::from_secs(90);

struct SmallGateway {
    disk: SmallDisk,
    upstream: Upstream,
    agent: Forebay,
    how: Publishing,
}

/// An agent on a small disk whose link is down.
fn gateway(stream: &str, on_disk: impl FnOnce(&SmallDisk)) -> SmallGateway {
    let (upstream, disk) = (Upstream::start(), SmallDisk::new(DISK_BYTES));
    upstream.link_down();
    let data_dir = disk.mount_point().join("data").display().to_string();
    let log = format!("segment-size = \"1MiB\"\nmin-free = {MIN_FREE}");
    // A message takes the disk that its length says.
    let stream = format!("compression = \"none\"\n{stream}");
    let gateway = Gateway { data_dir, log, stream, ..Gateway::to(&upstream.endpoint()) };
    let agent = Forebay::start_in(Home::new(&gateway.configuration()).through(&disk.enter()), &[]);
    on_disk(&disk);
    let how = Publishing {
        port: gateway.mqtt,
        version: Version::V311,
        client_id: "logger".to_owned(),
        window: 200,
        memory: Memory::Keeps,
    };
    SmallGateway { disk, upstream, agent, how }
}

/// Publishes everything; gives the least that was free meanwhile.
fn publish(gateway: &SmallGateway) -> u64 {
    let (least_free, published) = (AtomicU64::new(u64::MAX), AtomicBool::new(false));
    thread::scope(|scope| {
        scope.spawn(|| {
            while !published.load(Relaxed) {
                least_free.fetch_min(gateway.disk.free_bytes(), Relaxed);
                thread::yield_now();
            }
        });
        let progress = Arc::new(Progress::default());
        let end = publish_numbered(&gateway.how, MESSAGES, &progress, message).end;
        published.store(true, Relaxed);
        assert_eq!(end, MESSAGES);
    });
    least_free.into_inner()
}

fn message(number: u64, payload: &mut Vec<u8>) -> String {
    payload.extend_from_slice(format!("{number:1000}").as_bytes());
    format!("plant/{}", number % 50)
}

/// The log tells each range of dropped records once, without a gap, and in few lines; gives the number of the last.
#[track_caller]
fn told_as_dropped(agent: &Forebay, limit: Option<&str>) -> u64 {
    let dropped =
        |log: &str| log.lines().filter(|line| line.contains("records were dropped")).map(str::to_owned).collect();
    let field = |line: &str, name: &str| {
        let (_, rest) = line.split_once(&format!(" {name}=")).expect("the field is told");
        rest.split_whitespace().next().expect("a value").parse::<u64>().expect("a number")
    };
    // All but the first in sums, some seconds later.
    let mut told: Vec<String> = Vec::new();
    eventually(LONG, "all is told", || {
        told = dropped(&agent.log());
        let oldest = agent.status()["streams"]["telemetry"]["oldest"].as_u64().expect("a number");
        told.last().is_some_and(|line| field(line, "last") + 1 == oldest)
    });
    let mut last = 0;
    for line in &told {
        assert_eq!(field(line, "first"), last + 1, "{line}");
        last = field(line, "last");
        assert_eq!(line.contains("min-free"), limit == Some("min-free"), "{line}");
    }
    assert!(told.len() <= 6, "one episode: {told:?}");
    last
}

/// Everything that is still there arrives, and that is everything that was not told as dropped.
#[track_caller]
fn the_rest_arrives(gateway: &SmallGateway, dropped: u64) {
    let telemetry = gateway.agent.status()["streams"]["telemetry"].clone();
    assert_eq!((&telemetry["oldest"], &telemetry["next"]), (&(dropped + 1).into(), &(MESSAGES + 1).into()));
    assert_eq!((&telemetry["dropped"]["quota"], &telemetry["lost"]["quota"]), (&dropped.into(), &dropped.into()));
    gateway.upstream.link_up();
    eventually(LONG, "what is left arrives", || {
        gateway.agent.status()["destinations"]["cloud"]["checkpoint"].as_u64() == Some(MESSAGES)
    });
    let accepted = gateway.upstream.accepted();
    let arrived = accepted.iter().map(|record| str::from_utf8(&record.data).expect("digits").trim().parse());
    let arrived: BTreeSet<u64> = arrived.map(|number| number.expect("a number")).collect();
    // And some more: what the delivery held in memory when it was dropped.
    let rest = MESSAGES - dropped;
    assert!(arrived.len() as u64 >= rest, "{} of {rest}", arrived.len());
    // One device publishes in order; only within a commit the messages lie by shards.
    let newest = MESSAGES - rest / 2..MESSAGES;
    assert_eq!(newest.filter(|number| !arrived.contains(number)).collect::<Vec<_>>(), [0; 0]);
}

#[test]
fn a_quota_holds_at_every_moment_and_what_it_takes_is_told() {
    let mut before = 0;
    let gateway = gateway(&format!("quota = {QUOTA}\non-full = \"drop-oldest\""), |disk| before = disk.free_bytes());
    let least_free = publish(&gateway);
    let taken = before - least_free;
    assert!(taken > QUOTA * 3 / 4, "the quota is used: {taken}");
    assert!(taken <= QUOTA + SEGMENT_BYTES + CATALOGUE_BYTES, "{taken} bytes were taken");
    let dropped = told_as_dropped(&gateway.agent, None);
    assert!((MESSAGES - QUOTA / 1000..MESSAGES - QUOTA / 2000).contains(&dropped), "{dropped}");
    the_rest_arrives(&gateway, dropped);
}

#[test]
fn min_free_holds_though_the_quota_allows_more_and_others_take_their_part() {
    // Somebody takes 10 MiB; what is left above min-free is 14 MiB.
    let gateway = gateway("on-full = \"drop-delivered-first\"", |disk| disk.put_ballast(10 << 20));
    let least_free = publish(&gateway);
    assert!(least_free >= MIN_FREE, "{least_free} bytes were free");
    assert!(least_free < MIN_FREE + (2 << 20), "and the rest is used: {least_free} bytes were free");
    let dropped = told_as_dropped(&gateway.agent, Some("min-free"));
    assert!(dropped > MESSAGES / 2, "{dropped}");
    the_rest_arrives(&gateway, dropped);
}
