//! Durable ingest over the embedded listener, and delivery, with the real program on this machine's disk.
//!
//! Four connections publish at QoS 1 with 200 messages in flight each: to a listener that stores nothing, which shows
//! what the machine and this generator give at best, then to a gateway without a destination, then to one that delivers to
//! a fast upstream. Run with `cargo bench -p forebay --bench ingest`, after `tests/counterparts/install`. The data lies below the
//! target directory: a real disk, where `/tmp` may not be one. `FOREBAY_BENCH_MESSAGES` sets the number of messages of 100
//! bytes (default 1,000,000; there are two fifths as many of 1,000 bytes). These figures are for people; what `deliveries`
//! shows after them is judged, and the program fails where something is missed. `FOREBAY_BENCH_ONLY=deliveries` leaves the
//! first part out. Any other text, such as `Backlog, relaxed, 4 keys`, chooses the rows of the second whose names contain it.

mod ceiling;
mod deliveries;
mod gateway;
mod kinesalite;
mod process;
mod traffic;
mod upstream;
mod yardstick;

#[allow(dead_code, reason = "a part is enough here")]
#[path = "../mqtt/mosquitto.rs"]
mod mosquitto;
#[path = "../mqtt/rumqttc_alone.rs"]
mod rumqttc_alone;

// The black-box tests' own.
#[allow(dead_code, reason = "a part is enough here")]
#[path = "../../../tests/support/http.rs"]
mod http;
#[path = "../../../tests/support/port.rs"]
mod port;

use std::{process::ExitCode, time::Duration};

use gateway::{Gateway, devices, kinesis};
use port::free_port;
use process::Usage;
use traffic::{CONNECTIONS, IN_FLIGHT, Payload, TOPICS_PER_CONNECTION, Traffic};
use upstream::Upstream;

/// What one run showed.
struct Run {
    name: &'static str,
    messages: u64,
    acknowledged: Duration,
    usage: Usage,
    /// Only of a gateway.
    stored: Option<Stored>,
    delivered: Option<Delivered>,
}

struct Stored {
    commits: u64,
    payload_bytes: u64,
    written_bytes: u64,
    /// Of the whole process, as the kernel counts them: whole pages, the catalogue and checkpoints too.
    disk_bytes: u64,
}

struct Delivered {
    took: Duration,
    requests: u64,
}

fn main() -> ExitCode {
    if ceiling::is_asked_for() {
        ceiling::listen();
    }
    if rumqttc_alone::is_asked_for() {
        rumqttc_alone::receive();
        return ExitCode::SUCCESS;
    }
    let messages = match std::env::var("FOREBAY_BENCH_MESSAGES") {
        Ok(messages) => messages.parse().expect("FOREBAY_BENCH_MESSAGES is a number"),
        Err(_) => 1_000_000,
    };
    let upstream = Upstream::start();
    let only = std::env::var("FOREBAY_BENCH_ONLY").ok().filter(|only| !only.is_empty());
    if only.is_none() {
        ingest(&upstream, messages);
    }
    let rows = only.filter(|only| only != "deliveries").unwrap_or_default();
    let missed = deliveries::run(&upstream, messages, &rows);
    for sentence in &missed {
        eprintln!("missed: {sentence}");
    }
    if missed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn ingest(upstream: &Upstream, messages: u64) {
    println!(
        "{CONNECTIONS} connections, {IN_FLIGHT} messages in flight and {TOPICS_PER_CONNECTION} topics each, QoS 1"
    );
    for (payload_bytes, messages) in [(100, messages), (1000, messages * 2 / 5)] {
        println!("\n{messages} messages of {payload_bytes} bytes");
        println!(
            "{:<22} {:>9} {:>8} {:>11} {:>11} {:>9} {:>8} {:>11} {:>14} {:>13}",
            "",
            "acked/s",
            "ceiling",
            "delivered/s",
            "rec/request",
            "CPU s/1M",
            "RSS MiB",
            "commits",
            "written/bytes*",
            "disk/bytes*",
        );
        let traffic = Traffic::new(Payload::Random(payload_bytes), TOPICS_PER_CONNECTION, messages);
        let ceiling = acknowledge_only(&traffic);
        report(&ceiling, &ceiling);
        report(&store(&traffic, None), &ceiling);
        report(&store(&traffic, Some(upstream)), &ceiling);
    }
    println!("\n* per byte of data and partition keys; commits are synced writes; RSS is the peak");
}

/// The same traffic to somebody who stores nothing.
fn acknowledge_only(traffic: &Traffic) -> Run {
    let listener = ceiling::start();
    let before = Usage::of(listener.pid());
    let acknowledged = traffic.publish(listener.port);
    let usage = Usage::of(listener.pid()).since(&before);
    Run {
        name: "acknowledged unstored",
        messages: traffic.messages,
        acknowledged,
        usage,
        stored: None,
        delivered: None,
    }
}

fn store(traffic: &Traffic, upstream: Option<&Upstream>) -> Run {
    let mqtt = free_port();
    let destination = upstream.map(|upstream| kinesis("cloud", &upstream.endpoint(), ""));
    let gateway = Gateway::start(&(devices(mqtt) + &destination.unwrap_or_default()));
    let before = Usage::of(gateway.pid());
    let delivery = upstream.map(Upstream::begin);
    let acknowledged = traffic.publish(mqtt);
    let took = delivery.map(|delivery| delivery.wait_for(traffic.messages));
    let usage = Usage::of(gateway.pid()).since(&before);
    let status = gateway.status();
    let number = |pointer: &str| {
        let value = status.pointer(pointer).and_then(serde_json::Value::as_u64);
        value.unwrap_or_else(|| panic!("{pointer} is a number in {status:#}"))
    };
    assert_eq!(number("/streams/telemetry/records"), traffic.messages, "what was acknowledged is stored, once");
    let stored = Stored {
        commits: number("/streams/telemetry/commits"),
        payload_bytes: number("/streams/telemetry/bytes"),
        written_bytes: number("/streams/telemetry/written_bytes"),
        disk_bytes: usage.disk_bytes,
    };
    let delivered = took.map(|took| Delivered { took, requests: number("/destinations/cloud/requests") });
    let name = if delivered.is_some() { "stored, delivered" } else { "stored" };
    Run { name, messages: traffic.messages, acknowledged, usage, stored: Some(stored), delivered }
}

fn report(run: &Run, ceiling: &Run) {
    let per_second = |took: Duration| run.messages as f64 / took.as_secs_f64();
    let none = || "-".to_owned();
    let delivered = |figure: &dyn Fn(&Delivered) -> f64| run.delivered.as_ref().map(figure).map(|f| format!("{f:.0}"));
    let stored = |figure: &dyn Fn(&Stored) -> String| run.stored.as_ref().map_or_else(none, figure);
    println!(
        "{:<22} {:>9.0} {:>8.2} {:>11} {:>11} {:>9.2} {:>8.1} {:>11} {:>14} {:>13}",
        run.name,
        per_second(run.acknowledged),
        ceiling.acknowledged.as_secs_f64() / run.acknowledged.as_secs_f64(),
        delivered(&|delivered| per_second(delivered.took)).unwrap_or_else(none),
        delivered(&|delivered| run.messages as f64 / delivered.requests as f64).unwrap_or_else(none),
        run.usage.cpu.as_secs_f64() / run.messages as f64 * 1e6,
        run.usage.resident_bytes_peak as f64 / f64::from(1 << 20),
        stored(&|stored| stored.commits.to_string()),
        stored(&|stored| format!("{:.3}", stored.written_bytes as f64 / stored.payload_bytes as f64)),
        stored(&|stored| format!("{:.3}", stored.disk_bytes as f64 / stored.payload_bytes as f64)),
    );
}
