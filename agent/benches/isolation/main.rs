//! What eight sick deliveries cost two healthy ones of the same stream: nothing worth mentioning, or this fails.
//!
//! In turns, a gateway delivers everything that four connections publish to two fast upstreams, alone and beside eight
//! deliveries each of which suffers from something else. The healthy ones' throughput beside the sick is to be at least 0.9
//! of what it is without them. Run with `cargo bench -p forebay --bench isolation`; it needs nothing installed.
//! `FOREBAY_BENCH_MESSAGES` sets the number of messages of 100 bytes of a turn (default 1,000,000), `FOREBAY_BENCH_TURNS` how
//! often each of both is measured (default 5).

mod sick;

// Those of the ingest benchmark, and the black-box tests' own.
#[path = "../ingest/gateway.rs"]
mod gateway;
#[allow(dead_code, reason = "a part is enough here")]
#[path = "../../../tests/support/http.rs"]
mod http;
#[path = "../../../tests/support/port.rs"]
mod port;
#[allow(dead_code, reason = "a part is enough here")]
#[path = "../ingest/process.rs"]
mod process;
#[allow(dead_code, reason = "a part is enough here")]
#[path = "../ingest/traffic.rs"]
mod traffic;
#[allow(dead_code, reason = "the other bench asks it for more")]
#[path = "../ingest/upstream.rs"]
mod upstream;

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use gateway::{Gateway, devices, kinesis};
use port::free_port;
use process::Usage;
use sick::Destination;
use traffic::{Payload, TOPICS_PER_CONNECTION, Traffic};
use upstream::Upstream;

const PAYLOAD_BYTES: usize = 100;

/// The healthy ones' throughput beside the sick, in parts of what it is without them.
const SHARE_MIN: f64 = 0.9;

/// What one turn showed.
struct Turn {
    /// Until both healthy ones had delivered everything.
    delivered: Duration,
    usage: Usage,
}

fn main() -> ExitCode {
    let messages = number("FOREBAY_BENCH_MESSAGES", 1_000_000);
    let turns = number("FOREBAY_BENCH_TURNS", 5);
    let traffic = Traffic::new(Payload::Random(PAYLOAD_BYTES), TOPICS_PER_CONNECTION, messages);
    let healthy = [Upstream::start(), Upstream::start()];
    let sick = sick::destinations();
    println!("{messages} messages of {PAYLOAD_BYTES} bytes to two healthy destinations; {turns} turns");
    println!("{:<16} {:>16} {:>9} {:>8}", "", "delivered msg/s", "CPU s/1M", "RSS MiB");
    let (mut alone, mut beside) = (Vec::new(), Vec::new());
    for number in 0..turns {
        // Who begins takes turns, too.
        let order = if number % 2 == 0 { [false, true] } else { [true, false] };
        for with_sick in order {
            let turn = take(&traffic, &healthy, if with_sick { &sick } else { &[] });
            report(if with_sick { "beside eight" } else { "alone" }, &turn, messages);
            if with_sick { beside.push(turn) } else { alone.push(turn) }
        }
    }
    let (alone, beside) = (median(&alone), median(&beside));
    let share = alone.as_secs_f64() / beside.as_secs_f64();
    println!("medians: {alone:.2?} alone, {beside:.2?} beside eight sick ones: {share:.3} of the throughput");
    if share < SHARE_MIN {
        eprintln!(
            "two healthy deliveries have {share:.3} of their throughput beside eight sick ones of the same stream; at \
             least {SHARE_MIN} is promised"
        );
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable)
        .map_or(default, |number| number.parse().unwrap_or_else(|_| panic!("{variable} is a number")))
}

fn take(traffic: &Traffic, healthy: &[Upstream; 2], sick: &[Destination]) -> Turn {
    let mut destinations: Vec<_> =
        healthy.iter().enumerate().map(|(n, to)| Destination::new(&format!("healthy-{n}"), &to.endpoint())).collect();
    destinations.extend_from_slice(sick);
    let mqtt = free_port();
    let tables = destinations.iter().map(|to| kinesis(&to.name, &to.endpoint, ""));
    let gateway = Gateway::start(&(devices(mqtt) + &tables.collect::<String>()));
    let before = Usage::of(gateway.pid());
    let deliveries = healthy.each_ref().map(Upstream::begin);
    let begun = Instant::now();
    traffic.publish(mqtt);
    for delivery in deliveries {
        delivery.wait_for(traffic.messages);
    }
    let turn = Turn { delivered: begun.elapsed(), usage: Usage::of(gateway.pid()).since(&before) };
    // A sick one that took anything, or that nobody tried, shows nothing.
    let status = gateway.status();
    for Destination { name, .. } in sick {
        let told = &status["destinations"][name];
        assert!(told["records"] == 0 && told["requests"].as_u64() > Some(0), "{name} is not sick: {told}");
    }
    turn
}

fn report(name: &str, turn: &Turn, messages: u64) {
    println!(
        "{name:<16} {:>16.0} {:>9.2} {:>8.1}",
        messages as f64 / turn.delivered.as_secs_f64(),
        turn.usage.cpu.as_secs_f64() / messages as f64 * 1e6,
        turn.usage.resident_bytes_peak as f64 / f64::from(1 << 20),
    );
}

fn median(turns: &[Turn]) -> Duration {
    let mut times: Vec<_> = turns.iter().map(|turn| turn.delivered).collect();
    times.sort_unstable();
    times[times.len() / 2]
}
