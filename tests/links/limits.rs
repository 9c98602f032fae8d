//! Cap, budget and schedule, with what passes counted between forebay and the endpoint.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;

use super::counting_relay::CountingRelay;
use crate::support::daemon::PATIENCE;
use crate::support::device::Version;
use crate::support::{Device, Forebay, Gateway, Upstream, eventually};

/// What an idle link has saved up at the most.
const SAVED: Duration = Duration::from_secs(1);

/// A gateway whose only destination leaves over a link with these limits.
fn gateway(endpoint: &str, link: &str) -> Gateway {
    Gateway {
        destination: "link = \"lte\"".to_owned(),
        more: format!("[links.lte]\ntime-zone = \"utc\"\n{link}"),
        ..Gateway::to(endpoint)
    }
}

/// Records of a thousand bytes, with random data that no compression makes less.
fn publish(gateway: &Gateway, records: usize) {
    let mut device = Device::connect(gateway.mqtt, Version::V311, "device");
    let mut rng = fastrand::Rng::new();
    for number in 0..records {
        let data: Vec<u8> = std::iter::repeat_with(|| rng.u8(..)).take(1000).collect();
        device.publish(&format!("plant/{number}"), &data);
    }
}

fn cloud(agent: &Forebay) -> Value {
    agent.status()["destinations"]["cloud"].clone()
}

#[track_caller]
fn wait_until_held(agent: &Forebay, words: &str) {
    eventually(PATIENCE, &format!("status says: {words}"), || {
        cloud(agent)["held"].as_str().is_some_and(|held| held.contains(words))
    });
}

/// A time of day in UTC, so many minutes from now.
#[expect(clippy::disallowed_methods, reason = "what a schedule goes by")]
fn time_of_day(minutes_from_now: u64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs() / 60;
    let minute = (now + minutes_from_now) % (24 * 60);
    format!("{:02}:{:02}", minute / 60, minute % 60)
}

#[test]
fn a_cap_is_kept_and_used() {
    let upstream = Upstream::start();
    let relay = CountingRelay::to(&upstream.endpoint());
    let gateway = gateway(&relay.endpoint(), "bandwidth = \"400kbit/s\"");
    let agent = Forebay::start(&gateway.configuration());
    publish(&gateway, 1000);
    upstream.wait_for(1000, Duration::from_secs(120));
    let passed = relay.passed();
    let (first, last) = (passed[0].at, passed[passed.len() - 1].at);
    let elapsed = (last - first).as_secs_f64();
    assert!(elapsed > 20.0, "some 1.5 MB at 50 kB/s took {elapsed} s");
    // From the beginning of the first request to that of the last: the bytes of the last are paid for only afterwards.
    let one_request = 2.0 * 50_000.0;
    let bytes = relay.bytes() as f64;
    // While the machine stalls, nothing can be used; an idle link has saved up a second of it at the most.
    let lost = relay.stalls(first, last).into_iter().map(|stall| stall.saturating_sub(SAVED).as_secs_f64());
    let usable = elapsed - lost.sum::<f64>();
    let (rate, used) = (bytes / elapsed, bytes / usable);
    assert!(bytes <= 1.05 * 50_000.0 * elapsed + one_request, "{rate} bytes/s");
    assert!(bytes >= 0.95 * 50_000.0 * usable - one_request, "{used} bytes/s while the machine ran");
    assert_eq!(agent.status()["links"]["lte"]["metered"], true);
}

#[test]
fn a_spent_budget_stays_spent_over_a_kill_and_what_waits_is_not_lost() {
    let upstream = Upstream::start();
    let relay = CountingRelay::to(&upstream.endpoint());
    let link = format!("daily-budget = \"500KB\"\nreset = \"{}\"", time_of_day(12 * 60));
    let gateway = gateway(&relay.endpoint(), &link);
    let mut agent = Forebay::start(&gateway.configuration());
    publish(&gateway, 1000);
    wait_until_held(&agent, "budget of the day spent");
    eventually(PATIENCE, "nothing is under way", || cloud(&agent)["in_flight"] == 0);
    let bytes = relay.bytes();
    assert!((475_000..=525_000).contains(&bytes), "{bytes}");
    let spent = agent.status()["links"]["lte"]["spent_bytes"].as_u64().expect("it is told");
    assert!((475_000..=525_000).contains(&spent), "{spent}");
    let file = agent.home().path().join("data/link-budgets");
    eventually(PATIENCE, "it is written down", || {
        let text = std::fs::read_to_string(&file).unwrap_or_default();
        let written: Value = serde_json::from_str(&text).unwrap_or_default();
        written["links"]["lte"]["bytes"].as_u64() >= Some(spent)
    });
    agent.kill9();
    agent.start_again();
    wait_until_held(&agent, "budget of the day spent");
    let bytes = relay.bytes();
    assert!(bytes <= 525_000, "{bytes}");
    // Without the limit, all the rest arrives.
    assert!(agent.terminate().success());
    let free = Gateway { destination: String::new(), more: String::new(), ..gateway };
    agent.home().configure(&free.configuration());
    agent.start_again();
    eventually(PATIENCE, "everything is delivered", || cloud(&agent)["backlog_records"] == 0);
    assert!(upstream.accepted_count() >= 1000);
}

#[test]
fn outside_its_schedule_nothing_passes_and_inside_everything() {
    let upstream = Upstream::start();
    let relay = CountingRelay::to(&upstream.endpoint());
    let closed = format!("schedule = [\"{}-{}\"]\n[clock]\ntrust = \"always\"", time_of_day(120), time_of_day(180));
    let gateway = gateway(&relay.endpoint(), &closed);
    let mut agent = Forebay::start(&gateway.configuration());
    publish(&gateway, 10);
    wait_until_held(&agent, "outside the schedule until");
    assert!(cloud(&agent)["down"].is_null(), "it is not the endpoint's fault");
    assert_eq!((relay.bytes(), upstream.accepted_count()), (0, 0));
    assert!(agent.terminate().success());
    let open = format!("schedule = [\"{}-{}\"]", time_of_day(24 * 60 - 60), time_of_day(120));
    let open = Gateway { more: gateway.more.replace(closed.lines().next().expect("a line"), &open), ..gateway };
    agent.home().configure(&open.configuration());
    agent.start_again();
    upstream.wait_for(10, PATIENCE);
}
