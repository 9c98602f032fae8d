//! Which records go first after an outage, and which are too old to be sent: `catch-up` and `max-age`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use crate::support::daemon::PATIENCE;
use crate::support::device::Version;
use crate::support::publisher::{Memory, Publishing, publish_numbered};
use crate::support::{Forebay, Gateway, Reply, Upstream, eventually};

const BACKLOG: u64 = 10_000;
const KEYS: u64 = 20;
/// What a leap leaves to be sent first.
const REQUEST: u64 = 50;
const WINDOW: u64 = 500;

/// For all of a backlog in a debug build on a busy machine.
const LONG: Duration = Duration::from_secs(180);

/// Publishes numbers from `from` on, the keys taking turns.
fn publish(gateway: &Gateway, from: u64, count: u64) {
    let how = Publishing {
        port: gateway.mqtt,
        version: Version::V5,
        client_id: format!("device-{from}"),
        window: 200,
        memory: Memory::Keeps,
    };
    publish_numbered(&how, count, &Arc::default(), |number, payload| {
        let number = from + number;
        payload.extend_from_slice(format!("{number:06}").as_bytes());
        format!("plant/{}", number % KEYS)
    });
}

/// The numbers that arrived, in the order in which they did.
fn arrived(upstream: &Upstream) -> Vec<u64> {
    let number = |data: Vec<u8>| String::from_utf8_lossy(&data).parse().expect("these tests publish numbers");
    upstream.accepted().into_iter().map(|record| number(record.data)).collect()
}

fn cloud(agent: &Forebay) -> Value {
    agent.status()["destinations"]["cloud"].clone()
}

/// A backlog has gathered while the endpoint was away. It is back, and takes a request every now and then.
fn behind(catch_up: &str) -> (Upstream, Gateway, Forebay) {
    let upstream = Upstream::start();
    upstream.link_down();
    let destination = format!(
        "catch-up = \"{catch_up}\"\nbatch-records = {REQUEST}\nwindow-records = {WINDOW}\nin-flight = 1\nbatch-age = \"5ms\""
    );
    let gateway = Gateway { destination, ..Gateway::to(&upstream.endpoint()) };
    let agent = Forebay::start(&gateway.configuration());
    publish(&gateway, 0, BACKLOG);
    eventually(PATIENCE, "the outage is noticed", || !cloud(&agent)["down"].is_null());
    upstream.otherwise(|_| Reply::After(Duration::from_millis(100), Box::new(Reply::Accept)));
    upstream.link_up();
    upstream.wait_for(REQUEST, PATIENCE);
    (upstream, gateway, agent)
}

/// Everything arrives once; of each key what lies before the one leap in its order, and what lies behind it too.
fn assert_all_once(arrived: &[u64], count: u64) {
    assert_eq!(arrived.iter().copied().collect::<BTreeSet<_>>(), (0..count).collect());
    assert_eq!(arrived.len() as u64, count, "each once");
    let mut next_of_gap: BTreeMap<u64, u64> = (0..KEYS).map(|key| (key, key)).collect();
    let mut next_of_live = BTreeMap::new();
    for number in arrived {
        let key = number % KEYS;
        if next_of_gap[&key] == *number {
            next_of_gap.insert(key, number + KEYS);
        } else {
            let expected = next_of_live.insert(key, number + KEYS);
            assert!(expected.is_none_or(|next| next == *number), "{number} came, not {expected:?}");
        }
    }
}

#[test]
fn newest_first_sends_what_is_new_before_the_rest_of_a_backlog() {
    let (upstream, gateway, agent) = behind("newest-first");
    // A commit keeps the records of a shard together, so that the very newest number need not be the last one of the log.
    eventually(PATIENCE, "some of the newest arrive", || {
        arrived(&upstream).iter().any(|number| *number >= BACKLOG - WINDOW)
    });
    publish(&gateway, BACKLOG, KEYS);
    let fresh = |upstream: &Upstream| arrived(upstream).iter().filter(|number| **number >= BACKLOG).count() as u64;
    eventually(PATIENCE, "fresh records arrive", || fresh(&upstream) == KEYS);
    let so_far = upstream.accepted_count();
    assert!(so_far < BACKLOG / 2, "{so_far} of {BACKLOG} had arrived before");
    let catch_up = cloud(&agent)["catch_up"].clone();
    assert_eq!(catch_up["gaps"], 1, "{catch_up}");
    let left = catch_up["gap_records"].as_u64().expect("a number");
    assert!(left > BACKLOG / 2 && catch_up["live_records"].as_u64() <= Some(KEYS), "{catch_up}");

    upstream.behave();
    upstream.wait_for(BACKLOG + KEYS, LONG);
    eventually(PATIENCE, "nothing is left", || cloud(&agent)["backlog_records"] == 0);
    assert_all_once(&arrived(&upstream), BACKLOG + KEYS);
    assert_eq!(cloud(&agent)["catch_up"]["gaps"], 0);
}

#[test]
fn a_kill_in_the_middle_of_catching_up_loses_nothing_and_repeats_little() {
    let (upstream, gateway, mut agent) = behind("newest-first");
    publish(&gateway, BACKLOG, KEYS);
    // So much was finished beyond the checkpoint, or in the gap.
    upstream.wait_for(BACKLOG * 2 / 5, LONG);
    agent.kill9();
    let before = upstream.accepted_count();
    agent.start_again();
    publish(&gateway, BACKLOG + KEYS, KEYS);
    upstream.behave();
    let count = BACKLOG + 2 * KEYS;
    eventually(LONG, "all of it arrives", || {
        arrived(&upstream).into_iter().collect::<BTreeSet<_>>() == (0..count).collect()
    });
    eventually(PATIENCE, "nothing is left", || cloud(&agent)["backlog_records"] == 0);
    let repeated = upstream.accepted_count() - count;
    println!("catch-up: {before} records had arrived before the kill, {repeated} came again");
    // A window, and what passes until what was finished is on the disk: a second or two of 500 records.
    assert!(repeated <= WINDOW + 1500, "{repeated} of {before} came again");
}

#[test]
fn a_clean_stop_in_the_middle_of_catching_up_repeats_nothing() {
    let (upstream, _gateway, mut agent) = behind("newest-first");
    for stop in 1..=3 {
        upstream.wait_for(stop * 1000, PATIENCE);
        agent.restart();
    }
    upstream.behave();
    eventually(LONG, "nothing is left", || cloud(&agent)["backlog_records"] == 0);
    assert_eq!(arrived(&upstream).into_iter().collect::<BTreeSet<_>>(), (0..BACKLOG).collect());
    assert_eq!(upstream.accepted_count(), BACKLOG, "each once");
}

#[test]
fn split_gives_both_about_half_of_the_link() {
    let (upstream, gateway, agent) = behind("split");
    publish(&gateway, BACKLOG, WINDOW);
    eventually(PATIENCE, "the live ones arrive", || {
        arrived(&upstream).iter().filter(|number| **number >= BACKLOG).count() as u64 == WINDOW
    });
    let so_far = arrived(&upstream);
    let is_live = |number: &u64| *number >= BACKLOG;
    let (first, last) = (so_far.iter().position(is_live), so_far.iter().rposition(is_live));
    let between = &so_far[first.expect("arrived")..last.expect("arrived")];
    let live = between.iter().filter(|number| is_live(number)).count() as f64 / between.len() as f64;
    assert!((0.35..0.75).contains(&live), "{live:.2} of {} were live", between.len());
    upstream.behave();
    upstream.wait_for(BACKLOG + WINDOW, LONG);
    eventually(PATIENCE, "nothing is left", || cloud(&agent)["backlog_records"] == 0);
    assert_all_once(&arrived(&upstream), BACKLOG + WINDOW);
}

#[test]
fn what_is_older_than_max_age_is_counted_and_told_and_what_is_fresh_arrives() {
    let upstream = Upstream::start();
    upstream.link_down();
    let destination = format!("max-age = \"2s\"\nwindow-records = {WINDOW}");
    let gateway = Gateway { destination, ..Gateway::to(&upstream.endpoint()) };
    let mut agent = Forebay::start(&gateway.configuration());
    // More than a window holds, and nothing of it leaves.
    let old = 4 * WINDOW;
    publish(&gateway, 0, old);
    eventually(PATIENCE, "all of it expires while the endpoint is away", || cloud(&agent)["expired"] == old);
    assert_eq!((&cloud(&agent)["backlog_records"], &cloud(&agent)["checkpoint"]), (&0.into(), &old.into()));
    eventually(PATIENCE, "it is told", || agent.log().contains("records were older than max-age"));
    let told: Vec<_> =
        agent.log().lines().filter(|line| line.contains("older than max-age")).map(str::to_owned).collect();
    assert!(
        told[0].contains("first=1") && told.last().is_some_and(|line| line.contains(&format!("last={old}"))),
        "{told:?}"
    );

    // A restart changes nothing of that.
    publish(&gateway, old, old);
    agent.kill9();
    agent.start_again();
    eventually(PATIENCE, "the old ones are passed", || cloud(&agent)["backlog_records"] == 0);
    upstream.link_up();
    publish(&gateway, 2 * old, KEYS);
    upstream.wait_for(KEYS, PATIENCE);
    let arrived: BTreeSet<_> = arrived(&upstream).into_iter().collect();
    assert_eq!(arrived, (2 * old..2 * old + KEYS).collect());
    assert_eq!(upstream.accepted_count(), KEYS);
    assert!(cloud(&agent)["expired"].as_u64() > Some(0));
}
