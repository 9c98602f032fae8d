//! A program that is measured: started, ended with its owner, and asked of the kernel what it used.

use std::{
    fs,
    process::{Child, Command},
    thread,
    time::{Duration, Instant},
};

/// How long a start may take.
const PATIENCE: Duration = Duration::from_secs(30);
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// Linux counts processor time for `/proc` in hundredths of a second, on every architecture that we know of.
const TICKS_PER_SECOND: f64 = 100.0;

/// A child that is killed when dropped: what it knows is thrown away with its directory.
pub(crate) struct Process(Child);

impl Process {
    pub(crate) fn start(mut command: Command) -> Self {
        Self(command.spawn().unwrap_or_else(|error| panic!("start {command:?}: {error}")))
    }

    pub(crate) fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself, which was told on its standard error.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What a process has used since its start.
pub(crate) struct Usage {
    pub(crate) cpu: Duration,
    pub(crate) disk_bytes: u64,
    pub(crate) resident_bytes_peak: u64,
}

impl Usage {
    pub(crate) fn of(pid: u32) -> Self {
        let read = |file: &str| {
            let path = format!("/proc/{pid}/{file}");
            fs::read_to_string(&path).unwrap_or_else(|error| panic!("read {path}: {error}"))
        };
        let stat = read("stat");
        // The name before it may contain anything.
        let (_, numbers) = stat.rsplit_once(')').expect("a name in brackets");
        // utime and stime are the 14th and 15th of all, and two are gone.
        let ticks: u64 = numbers.split_whitespace().skip(11).take(2).map(|n| n.parse::<u64>().expect("a number")).sum();
        Self {
            cpu: Duration::from_secs_f64(ticks as f64 / TICKS_PER_SECOND),
            disk_bytes: field(&read("io"), "write_bytes:"),
            resident_bytes_peak: field(&read("status"), "VmHWM:") * 1024,
        }
    }

    /// Since an earlier look; a peak remains one.
    pub(crate) fn since(&self, before: &Self) -> Self {
        Self {
            cpu: self.cpu - before.cpu,
            disk_bytes: self.disk_bytes - before.disk_bytes,
            resident_bytes_peak: self.resident_bytes_peak,
        }
    }
}

fn field(text: &str, name: &str) -> u64 {
    let value = text.lines().find_map(|line| line.strip_prefix(name)).and_then(|rest| rest.split_whitespace().next());
    value.and_then(|number| number.parse().ok()).unwrap_or_else(|| panic!("no {name} in {text}"))
}

/// Waits until `done` holds.
pub(crate) fn eventually(what: &str, done: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < deadline, "within {PATIENCE:?}: {what}");
        thread::park_timeout(LOOK_AGAIN);
    }
}
