//! A truck on a journey: a GPS receiver at 1 Hz, Modbus registers at 10 Hz, eight MQTT sensors at 50 Hz through a broker, and two
//! log files that are rotated; forwarded over a link that is cut again and again to a real Kinesis server. Everything arrives,
//! in order per key; what it costs is told, and what it costs in memory and in bytes written is bounded.
//!
//! The tests go for some seconds. This makes the figures of the README:
//!
//! ```sh
//! FOREBAY_TRUCK_SECONDS=600 cargo test --release -p forebay --test e2e truck -- --nocapture
//! ```
//!
//! `FOREBAY_TRUCK_LOG` is put into the section `[log]`, such as `preset = "flash-saver"`.

mod equipment;
mod judge;

use std::fs;
use std::net::TcpListener;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::daemon::PATIENCE;
use crate::support::gateway::CLOUD_STREAM;
use crate::support::link::Link;
use crate::support::{Forebay, Kinesalite, ModbusServer, Mosquitto, eventually, free_port};
use crate::tail_source::Logs;

const SENSORS: usize = 8;
/// Memory that the agent may take at most: twice what it took when this was written.
const MEMORY_MAX: u64 = 64 << 20;

/// Bytes that may be written to the log for each byte of keys and data.
const WRITTEN_PER_BYTE_MAX: f64 = 1.0;

const PROGRAMS: [&str; 2] = ["engine.log", "gateway.log"];

/// Shares of the journey during which the link is cut.
const OUTAGES: [(f64, f64); 3] = [(0.15, 0.35), (0.50, 0.52), (0.60, 0.80)];

/// What was put in.
pub(crate) struct Load {
    /// Messages of each sensor.
    sensors: Vec<u64>,
    positions: u64,
    polls: u64,
    /// Lines of each log, with its path.
    lines: Vec<(String, u64)>,
}

#[test]
fn a_journey_arrives_whole_over_a_link_that_is_cut() {
    let _alone = crate::support::alone();
    let seconds = std::env::var("FOREBAY_TRUCK_SECONDS")
        .map_or(15.0, |seconds| seconds.parse().expect("FOREBAY_TRUCK_SECONDS is a number"));
    let journey = Duration::from_secs_f64(seconds);

    let cloud = Kinesalite::start();
    cloud.kinesis().create_stream(CLOUD_STREAM, 2);
    let mut link = Link::to(cloud.port());
    let broker = Mosquitto::start("");
    let mut registers = ModbusServer::tcp();
    let receiver = TcpListener::bind("127.0.0.1:0").expect("a port");
    let logs = Logs::new();
    let gps = receiver.local_addr().expect("it listens").port();
    let agent = Forebay::start(&configuration(link.port(), broker.port(), registers.port(), gps, &logs));
    eventually(PATIENCE, "it hears the broker and the registers", || {
        ["sensors", "engine"].iter().all(|source| agent.status()["sources"][source]["connections"] == 1)
    });

    let stop = AtomicBool::new(false);
    let (begun, before) = (Instant::now(), Cost::of(&agent));
    let (load, _line) = thread::scope(|scope| {
        let stop = &stop;
        // The equipment stops when the test fails, too.
        let ends = Ends(stop);
        let (broker, logs, receiver) = (broker.port(), &logs, &receiver);
        let sensors: Vec<_> =
            (0..SENSORS).map(|number| scope.spawn(move || equipment::sensor(broker, number, stop))).collect();
        let receiver = scope.spawn(move || equipment::receiver(receiver, stop));
        // Three files of each in all.
        let rotate_every = ((seconds * 20.0 / 3.0) as u64).max(1);
        let programs: Vec<_> = PROGRAMS
            .iter()
            .map(|name| scope.spawn(move || equipment::program(logs, name, rotate_every, stop)))
            .collect();

        let at = |share: f64| {
            let due = journey.mul_f64(share);
            eventually(journey + PATIENCE, "the journey goes on", || begun.elapsed() >= due);
        };
        for (cut, mended) in OUTAGES {
            at(cut);
            link.down();
            at(mended);
            link.up();
        }
        at(1.0);
        drop(ends);
        let sensors = sensors.into_iter().map(|sensor| sensor.join().expect("it publishes")).collect();
        let lines = PROGRAMS
            .iter()
            .zip(programs)
            .map(|(name, program)| (logs.path(name).display().to_string(), program.join().expect("it writes")))
            .collect();
        let (positions, line) = receiver.join().expect("it reports");
        let mut load = Load { sensors, positions, polls: 0, lines };
        // Whatever is asked after this gets no answer.
        registers.kill9();
        wait_stored(&agent, "sensors", load.sensors.iter().sum());
        wait_stored(&agent, "position", load.positions);
        wait_stored(&agent, "logs", load.lines.iter().map(|(_, lines)| lines).sum());
        eventually(PATIENCE, "the registers are gone", || agent.status()["sources"]["engine"]["connections"] == 0);
        load.polls = agent.status()["sources"]["engine"]["records"].as_u64().expect("a number");
        (load, line)
    });
    let drive = begun.elapsed();
    let cost = Cost::of(&agent);
    let backlog = |agent: &Forebay| agent.status()["destinations"]["cloud"]["backlog_records"].as_u64();
    eventually(journey + 4 * PATIENCE, "everything is forwarded", || backlog(&agent) == Some(0));
    let forwarded = begun.elapsed();

    let status = agent.status();
    let stream = &status["streams"]["telemetry"];
    let stored = stream["next"].as_u64().expect("a number") - 1;
    let received = cloud.kinesis().read(CLOUD_STREAM, usize::try_from(stored).expect("it fits memory"), 4 * PATIENCE);
    let verdict = judge::judge(&load, &received);
    assert!(load.polls as f64 > seconds * 5.0, "{} polls in {seconds} s", load.polls);
    assert_eq!(status["destinations"]["cloud"]["dead_letters"], 0, "{status}");
    for (name, source) in status["sources"].as_object().expect("sources") {
        let refused = source["refused"].as_object().expect("reasons");
        // Those that were killed at the end have their say.
        let of_the_end = name == "engine" || name == "position";
        assert!(refused.is_empty() || of_the_end, "{name}: {refused:?}");
    }

    let per_byte = stream["written_per_payload_byte"].as_f64().expect("a number");
    let payload = stream["written_bytes"].as_f64().expect("a number") / per_byte;
    println!(
        "truck: {seconds} s; {} messages, {} positions, {} polls, {} lines: {stored} records of {:.0} bytes of keys and data, {:.0}/s\n\
         truck: all arrived, in order, {} repeated; {:.1} s after the end of the journey\n\
         truck: CPU {:.2} % of one core; memory {:.1} MiB at most, {:.1} MiB at the end\n\
         truck: written per byte of keys and data {per_byte:.2} to the log, {:.2} to the device (as the kernel counts it)",
        load.sensors.iter().sum::<u64>(),
        load.positions,
        load.polls,
        load.lines.iter().map(|(_, lines)| lines).sum::<u64>(),
        payload / stored as f64,
        stored as f64 / seconds,
        verdict.repeated,
        (forwarded - journey).as_secs_f64(),
        (cost.cpu - before.cpu).as_secs_f64() / drive.as_secs_f64() * 100.0,
        mebibytes(agent.resident_bytes_peak()),
        mebibytes(agent.resident_bytes()),
        (cost.device_bytes - before.device_bytes) as f64 / payload,
    );
    let memory = agent.resident_bytes_peak();
    assert!(memory <= MEMORY_MAX, "{:.1} MiB of memory", mebibytes(memory));
    assert!(per_byte < WRITTEN_PER_BYTE_MAX, "{per_byte:.2} bytes are written for each byte of keys and data");
}

/// Ends the equipment.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

#[track_caller]
fn wait_stored(agent: &Forebay, source: &str, records: u64) {
    let count = || agent.status()["sources"][source]["records"].as_u64();
    eventually(2 * PATIENCE, &format!("{source} has stored {records}"), || count() >= Some(records));
    assert_eq!(count(), Some(records), "{source}");
}

fn configuration(cloud: u16, broker: u16, registers: u16, gps: u16, logs: &Logs) -> String {
    let log = std::env::var("FOREBAY_TRUCK_LOG").unwrap_or_default();
    format!(
        r#"
        data-dir = "data"
        [api]
        listen = "127.0.0.1:{api}"
        [log]
        {log}
        [streams.telemetry]
        shards = 2
        [sources.position]
        type = "gps"
        receiver = "tcp://127.0.0.1:{gps}"
        stream = "telemetry"
        timeout = "10m"
        [sources.engine]
        type = "modbus-tcp"
        server = "127.0.0.1:{registers}"
        stream = "telemetry"
        interval = "100ms"
        envelope = true
        registers = [
          {{ name = "voltage", address = 0, type = "f32" }},
          {{ name = "torque", address = 2, type = "i32", word-order = "little" }},
          {{ name = "speed", address = 4, type = "u16", scale = 0.1 }},
          {{ name = "hours", address = 10, type = "f64" }},
        ]
        [sources.sensors]
        type = "mqtt"
        broker = "mqtt://127.0.0.1:{broker}"
        client-id = "truck-7"
        topics = ["truck/#"]
        stream = "telemetry"
        partition-key = "{{topic}}"
        [sources.logs]
        type = "tail"
        paths = ["{logs}"]
        stream = "telemetry"
        [destinations.cloud]
        type = "kinesis"
        from = "telemetry"
        stream = "{CLOUD_STREAM}"
        region = "eu-west-1"
        endpoint = "http://127.0.0.1:{cloud}"
        max-backoff = "5s"
        "#,
        api = free_port(),
        logs = logs.path("*.log").display(),
    )
}

/// What the agent has used since it was started.
struct Cost {
    cpu: Duration,
    device_bytes: u64,
}

impl Cost {
    fn of(agent: &Forebay) -> Self {
        let read = |file: &str| fs::read_to_string(format!("/proc/{}/{file}", agent.pid())).expect("it runs");
        let stat = read("stat");
        let (_, fields) = stat.rsplit_once(") ").expect("the program's name in brackets");
        let ticks: u64 = fields.split(' ').skip(11).take(2).map(|ticks| ticks.parse::<u64>().expect("a number")).sum();
        let io = read("io");
        let device_bytes = io.lines().find_map(|line| line.strip_prefix("write_bytes: ")).expect("the kernel counts");
        // A tick is a hundredth of a second on every Linux that there is.
        Self { cpu: Duration::from_millis(ticks * 10), device_bytes: device_bytes.parse().expect("a number") }
    }
}

fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// A member of a record, which is JSON.
fn member(record: &Value, pointer: &str) -> Value {
    record.pointer(pointer).cloned().unwrap_or_else(|| panic!("{pointer} in {record}"))
}
