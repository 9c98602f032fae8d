//! An outage of some minutes: a million records wait, at the cost of neither memory nor speed, and leave as soon as they can.

use std::collections::HashMap;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::daemon::PATIENCE;
use crate::support::device::VERSIONS;
use crate::support::publisher::{Memory, Progress, Publishing, publish_numbered};
use crate::support::upstream::{Keep, PutRecords};
use crate::support::{Forebay, Gateway, Reply, Upstream, alone, eventually};

const RECORDS: u64 = 1_000_000;
const RECORD_BYTES: usize = 100;
const DEVICES: u64 = 4;
const TOPICS_OF_A_DEVICE: u64 = 250;

/// What the agent may need more than when it has nothing to do.
const GROWTH_MAX: u64 = 32 << 20;

const QUARTER: u64 = RECORDS / 4;

/// For a million records in a debug build on a busy machine, each way.
const LONG: Duration = Duration::from_secs(180);

#[test]
fn a_backlog_of_a_million_records_costs_neither_memory_nor_speed() {
    let _alone = alone();
    let upstream = Upstream::start_keeping(Keep::CountOnly);
    let arrivals = Arc::new(Mutex::new(Arrivals::default()));
    let hear = Arc::clone(&arrivals);
    upstream.otherwise(move |request| {
        hear.lock().expect("hearing does not panic").hear(request);
        Reply::Accept
    });
    upstream.link_down();

    // A backlog is what lies on the disk: these messages would take 2 MiB of it.
    let stream = "compression = \"none\"".to_owned();
    let gateway = Gateway { stream, ..Gateway::to(&upstream.endpoint()) };
    let begun = Instant::now();
    let mut agent = Forebay::start(&gateway.configuration());
    let empty_start = begun.elapsed();
    let idle = agent.resident_bytes();
    let quarters = publish_all(gateway.mqtt);
    let peak_while_down = agent.resident_bytes_peak();
    let status = agent.status();
    let cloud = &status["destinations"]["cloud"];
    assert_eq!((&cloud["records"], &cloud["backlog_records"]), (&0.into(), &RECORDS.into()), "{cloud}");
    let disk_bytes = status["streams"]["telemetry"]["disk_bytes"].as_u64().unwrap_or(0);

    // A power cut at this moment does not make the next start long.
    agent.kill9();
    let begun = Instant::now();
    agent.start_again();
    let full_start = begun.elapsed();
    // It has found the endpoint unreachable more than once, so that it waits between its attempts.
    eventually(PATIENCE, "the outage is noticed", || {
        agent.status()["destinations"]["cloud"]["down"]["attempts"].as_u64() >= Some(3)
    });

    let back = Instant::now();
    upstream.link_up();
    eventually(PATIENCE, "something is delivered", || upstream.accepted_count() > 0);
    let first = back.elapsed();
    eventually(LONG, "all of it is delivered", || upstream.accepted_count() >= RECORDS);
    let drained = back.elapsed();
    let peak_while_draining = agent.resident_bytes_peak();

    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    println!("backlog: {RECORDS} records of {RECORD_BYTES} bytes, {:.0} MiB on disk", mib(disk_bytes));
    println!("backlog: records/s acknowledged in each quarter: {quarters:.0?}");
    println!(
        "backlog: memory idle {:.1} MiB, at most {:.1} MiB while it grew, {:.1} MiB while it shrank",
        mib(idle),
        mib(peak_while_down),
        mib(peak_while_draining),
    );
    println!("backlog: start took {empty_start:?} empty, {full_start:?} with it, after a kill");
    println!(
        "backlog: first delivery {first:?} after the link came back, all after {drained:?} ({:.0} records/s)",
        RECORDS as f64 / drained.as_secs_f64(),
    );

    assert!(quarters[3] >= quarters[0] / 2.0, "ingest slows down as the backlog grows: {quarters:?}");
    for peak in [peak_while_down, peak_while_draining] {
        assert!(peak.saturating_sub(idle) < GROWTH_MAX, "memory grew from {idle} to {peak} bytes");
    }
    assert!(full_start < empty_start + Duration::from_secs(1), "start-up grows with the backlog: {full_start:?}");
    assert!(first < Duration::from_secs(1), "the first delivery came {first:?} after the link");
    let arrivals = arrivals.lock().expect("hearing does not panic");
    assert_eq!(arrivals.wrong, None);
    assert_eq!(arrivals.next.values().sum::<u64>(), RECORDS);
}

/// Publishes everything; gives the rate of each quarter, in acknowledged records per second.
fn publish_all(port: u16) -> [f64; 4] {
    let progress: Vec<Arc<Progress>> = (0..DEVICES).map(|_| Arc::default()).collect();
    thread::scope(|scope| {
        for (device, progress) in (0..DEVICES).zip(&progress) {
            let how = Publishing {
                port,
                version: VERSIONS[device as usize % 2],
                client_id: format!("device-{device}"),
                window: 200,
                memory: Memory::Keeps,
            };
            scope.spawn(move || {
                publish_numbered(&how, RECORDS / DEVICES, progress, |number, out| message(device, number, out))
            });
        }
        let mut begun = Instant::now();
        [1, 2, 3, 4].map(|quarter| {
            eventually(LONG, "a quarter of all is acknowledged", || {
                progress.iter().map(|progress| progress.acknowledged.load(Relaxed)).sum::<u64>() >= quarter * QUARTER
            });
            let took = begun.elapsed();
            begun += took;
            QUARTER as f64 / took.as_secs_f64()
        })
    })
}

/// Its place among the messages of its topic, padded.
fn message(device: u64, number: u64, payload: &mut Vec<u8>) -> String {
    let width = RECORD_BYTES;
    payload.extend_from_slice(format!("{:width$}", number / TOPICS_OF_A_DEVICE).as_bytes());
    format!("device-{device}/sensor/{}", number % TOPICS_OF_A_DEVICE)
}

/// What the upstream got, as far as it can be judged without keeping it.
#[derive(Default)]
struct Arrivals {
    /// By partition key: the number that comes next.
    next: HashMap<String, u64>,
    /// The first record that was not the next of its key.
    wrong: Option<String>,
}

impl Arrivals {
    fn hear(&mut self, request: &PutRecords) {
        for record in &request.records {
            let text = String::from_utf8_lossy(&record.data);
            let number = text.trim().parse::<u64>();
            let next = self.next.entry(record.partition_key.clone()).or_default();
            if record.data.len() == RECORD_BYTES && number == Ok(*next) {
                *next += 1;
            } else if self.wrong.is_none() {
                self.wrong = Some(format!("{} came as {text:?} in place of {next}", record.partition_key));
            }
        }
    }
}
