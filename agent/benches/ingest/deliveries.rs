//! From MQTT publishers through the log to a fast responder, and a backlog drained: each for relaxed order, and for strict
//! order with aggregation, with few keys and with many. Judged: processor time, memory and bytes have to stay under what
//! they are meant to be.

use std::time::{Duration, Instant};

use crate::{
    gateway::{Gateway, devices, kinesis},
    port::free_port,
    process::{self, Usage},
    traffic::{CONNECTIONS, Payload, TOPICS_PER_CONNECTION, Traffic},
    upstream::Upstream,
    yardstick::{self, Yardstick},
};

/// Half of what Fluent Bit needs (README), in seconds per million, of the machine where it was measured: see `yardstick.rs`.
const CPU_MAX: [(usize, f64); 2] = [(100, 3.5), (1000, 6.6)];
const MEMORY_ABOVE_IDLE_MAX: u64 = 32 << 20;
/// Bytes sent per byte of keys and data.
const WIRE_MAX: f64 = 1.1;
const WIRE_COMPRESSED_MAX: f64 = 0.4;

/// As to AWS itself.
const CBOR: &str = "encoding = \"cbor\"";
const RELAXED: &str = "ordering = \"relaxed\"";
const AGGREGATED: &str = "aggregation = \"kpl\"";
const LINES: &str = "aggregation = \"lines\"\ncompress = \"gzip\"";

#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    /// The endpoint answers all the time.
    Live,
    /// It does not until everything is stored.
    Backlog,
}

/// What one delivery showed.
struct Shown {
    stored: Duration,
    delivered: Duration,
    cpu_per_million: f64,
    above_idle: u64,
    wire: f64,
    /// Bytes sent, those of HTTP included, per byte of keys and data.
    sent: f64,
    records_each: f64,
    /// Records of the wire in a request.
    request: f64,
}

/// Prints a table of the rows whose names contain this; returns what was missed, as sentences.
pub(crate) fn run(upstream: &Upstream, messages: u64, rows: &str) -> Vec<String> {
    let (mut missed, mut cpu) = (Vec::new(), Vec::new());
    let yardstick = Yardstick::take(messages / 5);
    println!(
        "\nrumqttc alone receives {:.0} messages/s of 100 bytes and needs {:.2} CPU s per million: {:.2} of what it needs where \
         the aims come from",
        yardstick.messages_per_second,
        yardstick.cpu_per_million,
        yardstick.to_there(),
    );
    let before = yardstick::seconds_here();
    for (payload_bytes, cpu_max) in CPU_MAX {
        println!(
            "\n{payload_bytes} bytes; responder alone takes {:.0} records/s in requests of 500",
            upstream.alone(payload_bytes, 500)
        );
        println!(
            "{:<10} {:<14} {:>5} {:>9} {:>10} {:>12} {:>9} {:>10} {:>10} {:>10} {:>12} {:>12}",
            "",
            "",
            "keys",
            "messages",
            "stored/s",
            "delivered/s",
            "CPU s/1M",
            "MiB above",
            "wire/bytes",
            "sent/bytes",
            "rec/wire rec",
            "wire rec/req"
        );
        for kind in [Kind::Live, Kind::Backlog] {
            let messages = match (kind, payload_bytes) {
                (_, 100) => messages,
                (Kind::Live, _) => messages * 2 / 5,
                (Kind::Backlog, _) => messages * 3 / 10,
            };
            for (name, settings) in [("relaxed", RELAXED), ("strict, kpl", AGGREGATED)] {
                for topics in [1, TOPICS_PER_CONNECTION] {
                    let keys = topics * CONNECTIONS;
                    let what = format!("{kind:?}, {name}, {keys} keys, {payload_bytes} bytes");
                    if !what.contains(rows) {
                        continue;
                    }
                    let traffic = Traffic::new(Payload::Random(payload_bytes), topics, messages);
                    let shown = deliver(upstream, &traffic, settings, kind);
                    report(&format!("{kind:?}"), name, keys, messages, &shown);
                    cpu.push((what.clone(), shown.cpu_per_million, cpu_max));
                    if shown.above_idle > MEMORY_ABOVE_IDLE_MAX {
                        let mib = shown.above_idle >> 20;
                        missed.push(format!("{what}: {mib} MiB above idle, and not at most 32"));
                    }
                    if settings == AGGREGATED && shown.sent > WIRE_MAX {
                        let sent = shown.sent;
                        missed.push(format!("{what}: {sent:.3} bytes sent per byte, and not at most {WIRE_MAX}"));
                    }
                }
            }
        }
    }
    let with_json = "JSON in gzip".contains(rows);
    assert!(
        with_json || !cpu.is_empty(),
        "`{rows}` is in the name of no row, such as `Live, strict, kpl, 4 keys, 100 bytes`"
    );
    // Rows lie between the two.
    let allowed = yardstick::allowed((before + yardstick::seconds_here()) / 2.0);
    for (what, cpu, max) in cpu {
        let judged = cpu / allowed;
        if judged > max {
            missed.push(format!(
                "{what}: {cpu:.2} s of CPU per million, which count as {judged:.2} s, and not at most {max}"
            ));
        }
    }
    if !with_json {
        return missed;
    }
    let traffic = Traffic::new(Payload::Json, TOPICS_PER_CONNECTION, messages / 5);
    let shown = deliver(upstream, &traffic, LINES, Kind::Live);
    println!("\nJSON of sensors");
    report("Live", "strict, gzip", TOPICS_PER_CONNECTION * CONNECTIONS, traffic.messages, &shown);
    if shown.sent > WIRE_COMPRESSED_MAX {
        let sent = shown.sent;
        missed.push(format!("JSON in gzip: {sent:.3} bytes sent per byte, and not at most {WIRE_COMPRESSED_MAX}"));
    }
    missed
}

fn deliver(upstream: &Upstream, traffic: &Traffic, settings: &str, kind: Kind) -> Shown {
    upstream.set_open(kind == Kind::Live);
    let mqtt = free_port();
    let gateway =
        Gateway::start(&(devices(mqtt) + &kinesis("cloud", &upstream.endpoint(), &format!("{CBOR}\n{settings}"))));
    let before = Usage::of(gateway.pid());
    let begun = Instant::now();
    let stored = traffic.publish(mqtt);
    let begun = if kind == Kind::Live { begun } else { Instant::now() };
    upstream.set_open(true);
    let number = |pointer: &str| {
        let status = gateway.status();
        let value = status.pointer(pointer).and_then(serde_json::Value::as_f64);
        value.unwrap_or_else(|| panic!("{pointer} is a number in {status:#}"))
    };
    process::eventually("everything is delivered", || number("/destinations/cloud/records") >= traffic.messages as f64);
    let delivered = begun.elapsed();
    let usage = Usage::of(gateway.pid()).since(&before);
    let records_each = number("/destinations/cloud/wire/records_each");
    Shown {
        stored,
        delivered,
        cpu_per_million: usage.cpu.as_secs_f64() / traffic.messages as f64 * 1e6,
        above_idle: usage.resident_bytes_peak.saturating_sub(before.resident_bytes_peak),
        wire: number("/destinations/cloud/wire/bytes_per_payload_byte"),
        sent: number("/destinations/cloud/sent_per_payload_byte"),
        records_each,
        request: traffic.messages as f64 / records_each / number("/destinations/cloud/requests"),
    }
}

fn report(kind: &str, name: &str, keys: usize, messages: u64, shown: &Shown) {
    let per_second = |took: Duration| messages as f64 / took.as_secs_f64();
    println!(
        "{kind:<10} {name:<14} {keys:>5} {messages:>9} {:>10.0} {:>12.0} {:>9.2} {:>10.1} {:>10.3} {:>10.3} {:>12.1} {:>12.1}",
        per_second(shown.stored),
        per_second(shown.delivered),
        shown.cpu_per_million,
        shown.above_idle as f64 / f64::from(1 << 20),
        shown.wire,
        shown.sent,
        shown.records_each,
        shown.request,
    );
}
