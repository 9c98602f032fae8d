//! The agent is killed again and again while a program writes and logrotate rotates.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use super::{Logs, line, numbers, stored_count, wait_stored};
use crate::support::daemon::PATIENCE;
use crate::support::{Forebay, eventually};

const KILLS: u32 = 20;

#[test]
fn nothing_is_lost_and_nothing_repeated_by_twenty_kills_under_rotation() {
    let logs = Logs::new();
    // Also the rotated files: one may come and be rotated while the agent is away.
    let mut agent = Forebay::start(&logs.configuration("app.log*", "partition-key = \"app\""));
    let (stop, written) = (AtomicBool::new(false), AtomicU64::new(0));
    let written = thread::scope(|scope| {
        let writer = scope.spawn(|| {
            while !stop.load(Relaxed) {
                let next = written.load(Relaxed);
                // Opened each time, so that it is the file of that name.
                logs.append("app.log", (next..next + 50).map(line).collect::<String>());
                written.store(next + 50, Relaxed);
                let pause = Instant::now() + Duration::from_millis(2);
                eventually(PATIENCE, "a moment passes", || Instant::now() >= pause);
            }
            written.load(Relaxed)
        });
        let stops = super::rotation::Stops(&stop);
        for kill in 0..KILLS {
            if kill % 2 == 0 {
                let more = stored_count(&agent) + fastrand::u64(0..2000);
                wait_stored(&agent, more);
            } else {
                let moment = Instant::now() + Duration::from_micros(fastrand::u64(0..400_000));
                eventually(PATIENCE, "the moment comes", || Instant::now() >= moment);
            }
            let compress = if fastrand::bool() { "compress" } else { "compress\ndelaycompress" };
            let rotate = || logs.rotate("app.log", &format!("create 0644\n{compress}"));
            match kill % 4 {
                // While it runs, while it is away, and in the very moment.
                0 => rotate(),
                1 => {
                    agent.kill9();
                    rotate();
                }
                2 => {
                    thread::scope(|scope| {
                        scope.spawn(rotate);
                        agent.kill9();
                    });
                }
                _ => {}
            }
            agent.kill9();
            if kill % 4 == 3 {
                agent.begin_again();
                let moment = Instant::now() + Duration::from_micros(fastrand::u64(0..100_000));
                eventually(PATIENCE, "the moment comes", || Instant::now() >= moment);
                agent.kill9();
            }
            agent.start_again();
        }
        drop(stops);
        writer.join().expect("it writes")
    });
    wait_stored(&agent, written);
    // As they lie in the log, which is how they are delivered.
    super::assert_all_in_order(&numbers(&agent), written);
    println!("{written} lines over {KILLS} kills");
    assert!(agent.terminate().success());
}
