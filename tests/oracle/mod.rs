//! The oracle: acknowledged is an obligation.
//!
//! Devices publish at full rate and keep book of what was acknowledged, the agent is killed without notice again and again,
//! and the endpoint misbehaves in every way that it knows. When the faults stop, the books are compared with what the
//! endpoint accepted. Where and when things go wrong follows from a seed, which is printed; `FOREBAY_ORACLE_SEED` sets it.

mod faults;

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use fastrand::Rng;

use crate::support::daemon::PATIENCE;
use crate::support::device::VERSIONS;
use crate::support::judge::{self, Judge};
use crate::support::publisher::{Memory, Progress, Publishing, publish_numbered};
use crate::support::{Device, Forebay, Gateway, Upstream, eventually};
use faults::Faults;

const KILLS: u32 = 20;
const DEVICES: u64 = 4;

/// For the devices to get their last acknowledgements, and then for the backlog to be delivered.
const LONG: Duration = Duration::from_secs(120);

#[test]
fn acknowledged_is_delivered_whatever_is_killed_and_whatever_fails() {
    let _alone = crate::support::alone();
    let seed =
        std::env::var("FOREBAY_ORACLE_SEED").map_or_else(|_| fresh_seed(), |seed| seed.parse().expect("a number"));
    println!("oracle: FOREBAY_ORACLE_SEED={seed}");
    let mut random = Rng::with_seed(seed);

    let upstream = Upstream::start();
    let faults = Faults::begin(&upstream, random.fork());
    let gateway = Gateway {
        // Small segments, so that some hundred are begun, finished and removed meanwhile.
        log: "segment-size = \"512KiB\"\ncheckpoint-interval = \"200ms\"".to_owned(),
        destination: "max-backoff = \"500ms\"".to_owned(),
        ..Gateway::to(&upstream.endpoint())
    };
    let begun = Instant::now();
    let mut agent = Forebay::start(&gateway.configuration());
    let progress: Vec<Arc<Progress>> = (0..DEVICES).map(|_| Arc::default()).collect();

    let books = thread::scope(|scope| {
        let devices: Vec<_> = (0..DEVICES)
            .zip(&progress)
            .map(|(device, progress)| {
                let how = Publishing {
                    port: gateway.mqtt,
                    version: VERSIONS[device as usize % 2],
                    client_id: format!("device-{device}"),
                    window: 200,
                    memory: if device == DEVICES - 1 { Memory::Forgets } else { Memory::Keeps },
                };
                scope.spawn(move || publish_numbered(&how, u64::MAX, progress, |n, out| judge::message(device, n, out)))
            })
            .collect();

        let acknowledged = || progress.iter().map(|progress| progress.acknowledged.load(Relaxed)).sum::<u64>();
        for kill in 1..=KILLS {
            faults.change_link(&upstream, &mut random);
            if random.bool() {
                // In the middle of the work.
                let more = acknowledged() + random.u64(0..12_000);
                eventually(LONG, "some more is acknowledged", || acknowledged() >= more);
            } else {
                // At any moment, be it in the middle of starting.
                let moment = Instant::now() + Duration::from_micros(random.u64(0..800_000));
                eventually(PATIENCE, "the moment comes", || Instant::now() >= moment);
            }
            agent.kill9();
            agent.begin_again();
            if kill % 5 == 0 {
                println!(
                    "oracle: {kill} kills, {} acknowledged, {} accepted",
                    acknowledged(),
                    upstream.accepted_count()
                );
            }
        }
        agent.wait_until_ready();
        let more = acknowledged() + 5000;
        eventually(LONG, "it works after the last kill", || acknowledged() >= more);

        faults.end(&upstream);
        for progress in &progress {
            progress.stop.store(true, Relaxed);
        }
        devices.into_iter().map(|device| device.join().expect("a device tells why it gave up")).collect::<Vec<_>>()
    });
    let (published, breaks) =
        (books.iter().map(|book| book.end).sum::<u64>(), books.iter().map(|book| book.breaks).sum::<u32>());
    println!("oracle: {published} published over {breaks} broken connections in {:?}", begun.elapsed());
    assert!(breaks >= KILLS, "the devices hardly noticed the kills");

    let mut judge = Judge::new(&books);
    let drained = Instant::now();
    eventually(LONG, "everything acknowledged arrives", || judge.hear(&upstream) == 0);
    Device::connect(gateway.mqtt, VERSIONS[0], "fresh").publish("fresh", b"fresh");
    eventually(PATIENCE, "a fresh message arrives", || judge.hear(&upstream) == 0 && judge.fresh == 1);

    println!(
        "oracle: {} owed, all accepted {:?} after the faults ended; {} duplicates; {} forgotten by their device, of which \
         {} arrived; out of order 0; {}",
        judge.owed,
        drained.elapsed(),
        judge.duplicates,
        judge.forgotten,
        judge.forgotten_arrived,
        faults.told(),
    );
    let status = agent.status();
    let lost = &status["streams"]["telemetry"]["lost"];
    assert!(lost.as_object().is_some_and(|lost| lost.values().all(|count| count == 0)), "{lost}");
    let cloud = &status["destinations"]["cloud"];
    assert_eq!((&cloud["dead_letters"], &cloud["out_of_order"]), (&0.into(), &0.into()), "{cloud}");
    assert!(agent.terminate().success());
}

#[expect(clippy::disallowed_methods, reason = "any number will do")]
fn fresh_seed() -> u64 {
    // Another one each time: there are more histories than one run can try.
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_nanos() as u64)
}
