//! Memory while a backlog is written, held and drained: resident bytes at every step.
//!
//! `cargo bench -p forebay-log-store --bench backlog`; `FOREBAY_BENCH_RECORDS` sets how many (default 10,000,000, of 100 bytes
//! each: 1.1 GB of disk below the target directory, or below `FOREBAY_BENCH_DIR`).

#![expect(clippy::disallowed_methods, reason = "a benchmark looks at the real process")]

use std::{fs, path::PathBuf, sync::mpsc};

use forebay_log_store::{
    NewRecord, ReadLimit, Refused, SequenceNumber, Start, Store, StoreConfig, Stream, StreamConfig, SystemClock,
    WhenFull,
};

const RECORD_BYTES: usize = 100;
const RECORDS_PER_BATCH: u64 = 100;
const BATCHES_IN_FLIGHT: u64 = 8;
const STEPS: u64 = 10;
const CONSUMER: &str = "cloud";
/// What may come and go: the queue, a block, the catalogue's cache.
const FLAT_BYTES: u64 = 8 << 20;

fn main() {
    let records: u64 = match std::env::var("FOREBAY_BENCH_RECORDS") {
        Ok(records) => records.parse().expect("FOREBAY_BENCH_RECORDS is a number"),
        Err(_) => 10_000_000,
    };
    let dir = std::env::var_os("FOREBAY_BENCH_DIR").map_or_else(target_dir, PathBuf::from);
    let dir = tempfile::tempdir_in(dir).expect("a directory that can be written");
    let store = Store::open(StoreConfig::new(dir.path()), SystemClock::new(), |event| println!("  {event}"));
    let store = store.expect("opens");
    let mut config = StreamConfig::new("backlog");
    config.quota = 64 << 30;
    config.rate_limit = None;
    config.keep_delivered = false;
    config.consumers = vec![CONSUMER.into()];
    let stream = store.stream(config.clone()).expect("opens");

    // What is made once, and stays: threads, buffers, the catalogue's cache.
    let warm_up = records / STEPS / 10;
    write(&stream, warm_up);
    let mut cursor = stream.cursor(Start::Oldest);
    drain(&stream, &mut cursor, warm_up);
    let mut sizes = vec![tell("warmed up")];
    for step in 1..=STEPS {
        write(&stream, records / STEPS);
        sizes.push(tell(&format!("{} written", step * records / STEPS)));
    }
    let stats = stream.stats();
    println!("  {} segments, {} MB", stats.segments, stats.disk_bytes / 1_000_000);
    drop(cursor);
    drop(stream);
    store.close();
    drop(store);
    // Held over a restart.
    let store = Store::open(StoreConfig::new(dir.path()), SystemClock::new(), |_| {}).expect("opens");
    let stream = store.stream(config).expect("opens");
    sizes.push(tell("opened again"));
    let mut cursor = stream.cursor(Start::After(stream.checkpoint(CONSUMER)));
    for step in 1..=STEPS {
        drain(&stream, &mut cursor, records / STEPS);
        sizes.push(tell(&format!("{} drained", step * records / STEPS)));
    }
    assert_eq!(stream.checkpoint(CONSUMER).next(), stream.stats().next, "everything was drained");
    let (least, most) = (sizes.iter().min().expect("some"), sizes.iter().max().expect("some"));
    println!("from {:.1} to {:.1} MiB", mib(*least), mib(*most));
    assert!(most - sizes[0] <= FLAT_BYTES, "grew by more than {} bytes", FLAT_BYTES);
}

fn target_dir() -> PathBuf {
    // The program lies in <target>/<profile>/deps.
    let program = std::env::current_exe().expect("a running program has a path");
    program.ancestors().nth(2).expect("below the target directory").to_owned()
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// Resident bytes of this process.
fn tell(what: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("Linux tells");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a line of the status");
    let kib: u64 = line.trim().trim_end_matches(" kB").trim().parse().expect("a number of kB");
    println!("{what:>20}: {:.1} MiB", mib(kib << 10));
    kib << 10
}

fn write(stream: &Stream, records: u64) {
    let (tell, told) = mpsc::channel::<bool>();
    let batches = records / RECORDS_PER_BATCH;
    for sent in 0..batches {
        if sent >= BATCHES_IN_FLIGHT {
            assert!(told.recv().expect("answered"), "taken");
        }
        let mut batch = stream.batch();
        for i in 0..RECORDS_PER_BATCH {
            let data = format!("{:0width$}", sent * RECORDS_PER_BATCH + i, width = RECORD_BYTES);
            let key = format!("device-{}", i % 20);
            batch.push(&NewRecord::new(&key, data.as_bytes())).expect("a sound record");
        }
        let tell = tell.clone();
        let done = move |outcome: Result<_, Refused>| tell.send(outcome.is_ok()).expect("awaited");
        stream.append(batch, WhenFull::Wait, Box::new(done));
    }
    for _ in 0..BATCHES_IN_FLIGHT.min(batches) {
        assert!(told.recv().expect("answered"), "taken");
    }
}

fn drain(stream: &Stream, cursor: &mut forebay_log_store::Cursor, records: u64) {
    let mut read = 0;
    let mut newest = SequenceNumber::ZERO;
    while read < records {
        let limit =
            ReadLimit { records: usize::try_from(records - read).expect("small").min(500), payload_bytes: 1 << 20 };
        let found = cursor.read(limit).expect("readable");
        newest = found.last().expect("not at the end").sequence_number;
        read += found.len() as u64;
        stream.save_checkpoint(CONSUMER, newest);
    }
    assert!(newest > SequenceNumber::ZERO);
}
