//! What is in the truck, each at its own pace until it is told to stop: sensors, a receiver, programs that write logs.

use std::fs;
use std::io::Write as _;
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::Device;
use crate::support::device::Version;
use crate::support::truck::epoch;
use crate::tail_source::{Logs, line};

/// What a sensor measures in turn; each has a topic, so each is a key.
pub(super) const CHANNELS: [&str; 10] = [
    "temperature",
    "pressure",
    "humidity",
    "voltage",
    "current",
    "vibration-x",
    "vibration-y",
    "vibration-z",
    "level",
    "speed",
];

/// 2026-11-25T12:00:00Z
const NOON: u64 = 1_795_608_000_000;

/// Something to do at a fixed rate. Who is late catches up.
fn at_pace(period: Duration, stop: &AtomicBool, mut work: impl FnMut(u64)) -> u64 {
    let begun = Instant::now();
    for number in 0.. {
        let due = begun + period * u32::try_from(number).expect("a journey ends");
        pause_until(due);
        if stop.load(Relaxed) {
            return number;
        }
        work(number);
    }
    unreachable!("numbers do not end")
}

#[expect(clippy::disallowed_methods, reason = "equipment has a pace of its own; nothing is waited for")]
fn pause_until(due: Instant) {
    thread::sleep(due.saturating_duration_since(Instant::now()));
}

/// A sensor that publishes at 50 Hz to a broker, at QoS 1; gives how many messages it has published.
pub(super) fn sensor(broker: u16, number: usize, stop: &AtomicBool) -> u64 {
    let mut device = Device::connect(broker, Version::V311, &format!("sensor-{number}"));
    let mut random = fastrand::Rng::with_seed(number as u64);
    at_pace(Duration::from_millis(20), stop, |n| {
        let channel = CHANNELS[n as usize % CHANNELS.len()];
        let at = NOON + n * 20;
        let value = random.i32(2000..2200);
        let payload = format!(
            r#"{{"sensor":"sensor-{number}","channel":"{channel}","n":{n},"ts":{at},"value":{}.{:02},"unit":"SI"}}"#,
            value / 100,
            value % 100
        );
        device.publish(&format!("truck/sensor-{number}/{channel}"), payload.as_bytes());
    })
}

/// A GPS receiver on the network, which reports a position each second; gives how many, and the line: one that ends is a lost fix,
/// which is a record, too.
pub(super) fn receiver(listener: &TcpListener, stop: &AtomicBool) -> (u64, TcpStream) {
    let (mut stream, _) = listener.accept().expect("the agent connects");
    let count = at_pace(Duration::from_secs(1), stop, |n| {
        stream.write_all(epoch(NOON + n * 1000, n as f64).as_bytes()).expect("the agent reads");
    });
    (count, stream)
}

/// A program that writes 20 lines each second to a log, which is rotated by renaming it now and then; gives how many.
pub(super) fn program(logs: &Logs, name: &str, rotate_every: u64, stop: &AtomicBool) -> u64 {
    at_pace(Duration::from_millis(50), stop, |n| {
        if n > 0 && n.is_multiple_of(rotate_every) {
            fs::rename(logs.path(name), logs.path(&format!("{name}.{}", n / rotate_every))).expect("it is ours");
        }
        logs.append(name, line(n));
    })
}
