//! logrotate really rotates, under a program that writes.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, SystemTime};

use super::{Logs, assert_all_in_order, line, numbers, refused, stored_count, wait_stored};
use crate::support::daemon::PATIENCE;
use crate::support::{Forebay, eventually};

const ROTATIONS: u64 = 12;

/// A program that writes numbered lines, until it is told to stop; gives how many.
fn write(file: impl Fn() -> File, again: &AtomicBool, stop: &AtomicBool, written: &AtomicU64, gate: &Mutex<()>) -> u64 {
    let mut log = file();
    while !stop.load(Relaxed) {
        let _open = gate.lock().expect("nobody panics with it");
        if again.swap(false, Relaxed) {
            log = file();
        }
        let next = written.load(Relaxed);
        // Lines and halves of lines.
        let (first, second) = (line(next), line(next + 1));
        let (half, rest) = second.split_at(second.len() / 2);
        log.write_all((first + half).as_bytes()).expect("written");
        log.write_all(rest.as_bytes()).expect("written");
        written.store(next + 2, Relaxed);
        drop(_open);
        thread::yield_now();
    }
    written.load(Relaxed)
}

/// Stops the program, also when the test fails.
pub(super) struct Stops<'a>(pub(super) &'a AtomicBool);

impl Drop for Stops<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

/// Rotates while the program writes. `pauses`: it does not while logrotate works.
fn rotate_under_a_writer(directives: &str, pauses: bool) {
    let logs = Logs::new();
    let agent = Forebay::start(&logs.configuration("app.log", ""));
    let path = logs.path("app.log");
    let open = || OpenOptions::new().append(true).create(true).open(&path).expect("a file");
    let (again, stop, written, gate) =
        (AtomicBool::new(false), AtomicBool::new(false), AtomicU64::new(0), Mutex::new(()));
    let written = thread::scope(|scope| {
        let writer = scope.spawn(|| write(open, &again, &stop, &written, &gate));
        let stops = Stops(&stop);
        for _ in 0..ROTATIONS {
            let more = stored_count(&agent) + fastrand::u64(100..2000);
            wait_stored(&agent, more);
            let paused = pauses.then(|| gate.lock().expect("nobody panics with it"));
            logs.rotate("app.log", directives);
            drop(paused);
            // As the signal in `postrotate` does.
            again.store(!pauses, Relaxed);
            let more = written.load(Relaxed) + 4;
            eventually(PATIENCE, "more is written", || written.load(Relaxed) >= more);
            // The new file has to be seen before it is rotated in its turn.
            wait_stored(&agent, more);
        }
        drop(stops);
        writer.join().expect("it writes")
    });
    wait_stored(&agent, written);
    assert_all_in_order(&numbers(&agent), written);
    for reason in ["vanished", "truncated", "oversize", "unreadable"] {
        assert_eq!(refused(&agent, reason), 0, "{reason}: {}", agent.log());
    }
}

#[test]
fn files_renamed_and_created_anew() {
    rotate_under_a_writer("create 0644", false);
}

#[test]
fn files_renamed_and_compressed_later() {
    rotate_under_a_writer("create 0644\ncompress\ndelaycompress", false);
}

#[test]
fn files_copied_and_truncated() {
    // logrotate itself loses what is written between its copy and its truncation.
    rotate_under_a_writer("copytruncate", true);
}

#[test]
fn files_copied_truncated_and_compressed() {
    rotate_under_a_writer("copytruncate\ncompress", true);
}

#[test]
fn what_was_not_read_before_a_file_was_compressed_is_read_from_the_compressed_one() {
    let logs = Logs::new();
    let mut agent = Forebay::start(&logs.configuration("app.log", ""));
    logs.append("app.log", (0..1000).map(line).collect::<String>());
    wait_stored(&agent, 1000);
    assert!(agent.terminate().success());
    logs.append("app.log", (1000..2000).map(line).collect::<String>());
    logs.rotate("app.log", "create 0644\ncompress");
    assert!(!logs.path("app.log.1").exists() && logs.path("app.log.1.gz").exists());
    logs.append("app.log", (2000..3000).map(line).collect::<String>());
    agent.start_again();
    wait_stored(&agent, 3000);
    assert_all_in_order(&numbers(&agent), 3000);
}

fn lines(numbers: Range<u64>) -> String {
    numbers.map(line).collect()
}

/// Order holds also over rotations that nobody saw: those of what was read before, and of what is found at the first start.
#[test]
fn files_rotated_more_than_once_while_it_is_away() {
    let logs = Logs::new();
    let rename = |from, to| fs::rename(logs.path(from), logs.path(to)).expect("renamed");
    let rotate = || {
        rename("app.log.1", "app.log.2");
        rename("app.log", "app.log.1");
    };
    logs.append("app.log.1", lines(0..30_000));
    logs.append("app.log", lines(30_000..60_000));
    let mut agent = Forebay::start(&logs.configuration("app.log*", "partition-key = \"app\"\nstart = \"beginning\""));
    wait_stored(&agent, 60_000);
    agent.kill9();
    logs.append("app.log", lines(60_000..90_000));
    rotate();
    logs.append("app.log", lines(90_000..120_000));
    rename("app.log.2", "app.log.3");
    rotate();
    logs.append("app.log", lines(120_000..120_100));
    agent.start_again();
    wait_stored(&agent, 120_100);
    assert_all_in_order(&numbers(&agent), 120_100);
}

/// Of a file that waits for its turn it is not known whether the next one is a copy. That must not cost a look at all files for each.
#[test]
fn many_rotated_files_are_read_one_after_the_other_without_a_pause() {
    let logs = Logs::new();
    for number in 0..12 {
        let name = if number == 11 { "app.log".to_owned() } else { format!("app.log.{}", 11 - number) };
        logs.append(&name, lines(number * 50..(number + 1) * 50));
        let written = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000 + 3600 * number);
        File::options()
            .append(true)
            .open(logs.path(&name))
            .and_then(|file| file.set_modified(written))
            .expect("a time");
    }
    let configuration = logs.configuration("app.log*", "partition-key = \"app\"\nstart = \"beginning\"");
    let never = configuration.replace("poll-interval = \"1s\"", "poll-interval = \"1h\"");
    assert_ne!(never, configuration);
    let agent = Forebay::start(&never);
    wait_stored(&agent, 600);
    assert_all_in_order(&numbers(&agent), 600);
}
