//! The `mqtt` source against rumqttc doing nothing else: what each receives of a real broker, in turns of one run.
//!
//! A mosquitto gets messages of 100 bytes at QoS 1 from four connections with 200 in flight each, as fast as it acknowledges them. Who
//! receives them is first rumqttc, which acknowledges and forgets them, then the real program, which acknowledges each after
//! its synced commit to a log on this machine's disk, with MQTT 3.1.1 and with 5. "live": while they are published; "held": all at once,
//! because the broker held them for a session. Run with `cargo bench -p forebay --bench mqtt`, after `tests/counterparts/install`.
//! `FOREBAY_BENCH_MESSAGES` sets the number of messages (default 400,000). It fails if forebay receives less than its aim, which is a share
//! of what rumqttc alone receives.

mod client;
mod mosquitto;
mod rumqttc_alone;

#[allow(dead_code, reason = "a part is enough here")]
#[path = "../ingest/gateway.rs"]
mod gateway;
#[allow(dead_code, reason = "a part is enough here")]
#[path = "../ingest/process.rs"]
mod process;
#[allow(dead_code, reason = "a part is enough here")]
#[path = "../ingest/traffic.rs"]
mod traffic;

// The black-box tests' own.
#[allow(dead_code, reason = "a part is enough here")]
#[path = "../../../tests/support/http.rs"]
mod http;
#[path = "../../../tests/support/port.rs"]
mod port;

use std::{process::ExitCode, thread, time::Duration};

use client::Client;
use mosquitto::Mosquitto;
use process::Usage;
use rumqttc_alone::Alone;
use traffic::{CONNECTIONS, IN_FLIGHT, Payload, TOPICS_PER_CONNECTION, Traffic};

const PAYLOAD_BYTES: usize = 100;
const ROUNDS: usize = 3;

/// What is aimed at: this share of the rate of rumqttc alone.
const RATIO_MIN: f64 = 0.7;

/// Who receives.
trait Receiver {
    /// Its process.
    fn pid(&self) -> u32;
    /// Waits until it has received this many; how long that took since it was ready.
    fn wait_for(&self, messages: u64) -> Duration;
}

impl Receiver for Alone {
    fn pid(&self) -> u32 {
        self.pid()
    }

    fn wait_for(&self, messages: u64) -> Duration {
        self.wait_for(messages)
    }
}

/// What one run showed.
struct Run {
    took: Duration,
    cpu: Duration,
}

fn main() -> ExitCode {
    if rumqttc_alone::is_asked_for() {
        rumqttc_alone::receive();
        return ExitCode::SUCCESS;
    }
    let messages = match std::env::var("FOREBAY_BENCH_MESSAGES") {
        Ok(messages) => messages.parse().expect("FOREBAY_BENCH_MESSAGES is a number"),
        Err(_) => 400_000,
    };
    let traffic = Traffic::new(Payload::Random(PAYLOAD_BYTES), TOPICS_PER_CONNECTION, messages);
    println!(
        "{messages} messages of {PAYLOAD_BYTES} bytes, {CONNECTIONS} publishers with {IN_FLIGHT} in flight each, QoS 1"
    );
    println!("{:<28} {:>10} {:>10} {:>8}", "", "messages/s", "CPU s/1M", "ratio");
    let mut verdict = ExitCode::SUCCESS;
    for held in [false, true] {
        let mut runs: [Vec<Run>; 3] = Default::default();
        for _ in 0..ROUNDS {
            let alone = |port| Box::new(Alone::start(port)) as Box<dyn Receiver>;
            runs[0].push(run(&traffic, held, &alone));
            for (version, runs) in ["3.1.1", "5"].into_iter().zip(&mut runs[1..]) {
                let gateway = |port| Box::new(Client::start(port, version)) as Box<dyn Receiver>;
                runs.push(run(&traffic, held, &gateway));
            }
        }
        let middle = runs.map(|mut runs| {
            runs.sort_by_key(|run| run.took);
            runs.swap_remove(ROUNDS / 2)
        });
        let names = ["rumqttc alone, 3.1.1", "forebay, 3.1.1", "forebay, 5"];
        for (name, run) in names.into_iter().zip(&middle) {
            let name = format!("{}: {name}", if held { "held" } else { "live" });
            let ratio = middle[0].took.as_secs_f64() / run.took.as_secs_f64();
            println!(
                "{name:<28} {:>10.0} {:>10.2} {ratio:>8.2}",
                messages as f64 / run.took.as_secs_f64(),
                run.cpu.as_secs_f64() / messages as f64 * 1e6,
            );
            if ratio < RATIO_MIN {
                eprintln!("{name} is too slow: {ratio:.2} of the rate of rumqttc alone; the aim is {RATIO_MIN}");
                verdict = ExitCode::FAILURE;
            }
        }
    }
    println!("\nthe middle one of {ROUNDS} rounds; ratio: of the rate to that of rumqttc alone");
    verdict
}

fn run(traffic: &Traffic, held: bool, start: &dyn Fn(u16) -> Box<dyn Receiver>) -> Run {
    let broker = Mosquitto::start();
    if held {
        broker.hold_for_session();
        traffic.publish(broker.port);
    }
    let receiver = start(broker.port);
    let before = Usage::of(receiver.pid());
    let took = thread::scope(|scope| {
        if !held {
            scope.spawn(|| traffic.publish(broker.port));
        }
        receiver.wait_for(traffic.messages)
    });
    let cpu = Usage::of(receiver.pid()).since(&before).cpu;
    Run { took, cpu }
}
