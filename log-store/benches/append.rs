//! Synced appends of the log beside a plain `write` and `fdatasync` of the very same bytes in the same pieces; and reading.
//!
//! Both take turns in the same run, because a disk's speed changes by the minute; the ratio is the median of the turns.
//! Run with `cargo bench -p forebay-log-store`. The files lie below the target directory: a real disk, where `/tmp` may
//! not be one. `FOREBAY_BENCH_ROUNDS` sets the number of turns (default 9).

#![expect(clippy::disallowed_methods, reason = "a benchmark measures real time on a real disk")]

use std::{
    fs::{self, File},
    ops::ControlFlow,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use forebay_log_store::{
    Codec, NewRecord, ReadLimit, Refused, SequenceNumber, Start, Store, StoreConfig, Stream, StreamConfig, SystemClock,
    WhenFull,
    inspect::{Dumped, dump},
};

/// What one turn appends, in records' data.
const BYTES_PER_TURN: usize = 24 << 20;
const RECORDS_PER_BATCH: usize = 100;
/// As a source does that goes on while its earlier batches are on their way to the disk.
const BATCHES_IN_FLIGHT: usize = 8;

struct Case {
    record_bytes: usize,
    producers: usize,
}

/// What one turn showed.
struct Turn {
    log: Duration,
    plain: Duration,
    read: Duration,
    payload_bytes: u64,
    written_bytes: u64,
    commits: u64,
}

impl Turn {
    fn ratio(&self) -> f64 {
        self.plain.as_secs_f64() / self.log.as_secs_f64()
    }
}

fn main() {
    // `cargo test --benches` and `cargo bench -- name` pass arguments; there is nothing to choose here.
    let rounds = match std::env::var("FOREBAY_BENCH_ROUNDS") {
        Ok(rounds) => rounds.parse().expect("FOREBAY_BENCH_ROUNDS is a number"),
        Err(_) => 9,
    };
    let scratch = tempfile::tempdir_in(target_dir()).expect("a directory below the target directory");
    println!(
        "{BATCHES_IN_FLIGHT} batches of {RECORDS_PER_BATCH} records in flight per producer, {rounds} turns of {} MiB",
        BYTES_PER_TURN >> 20
    );
    println!(
        "{:>12} {:>9} {:>8} {:>10} {:>9} {:>9} {:>24} {:>16} {:>9}",
        "record bytes",
        "producers",
        "commits",
        "block KiB",
        "log MB/s",
        "plain",
        "ratio (least..most)",
        "written/payload",
        "read MB/s"
    );
    for record_bytes in [300, 100] {
        for producers in [1, 4] {
            let case = Case { record_bytes, producers };
            let turns: Vec<Turn> = (0..rounds).map(|_| turn(&case, scratch.path())).collect();
            report(&case, &turns);
        }
    }
}

fn target_dir() -> PathBuf {
    // The program lies in <target>/<profile>/deps.
    let program = std::env::current_exe().expect("a running program has a path");
    program.ancestors().nth(2).expect("below the target directory").to_owned()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn report(case: &Case, turns: &[Turn]) {
    let of = |figure: &dyn Fn(&Turn) -> f64| median(turns.iter().map(figure).collect());
    let rate = |bytes: u64, time: Duration| bytes as f64 / time.as_secs_f64() / 1e6;
    let ratios: Vec<f64> = turns.iter().map(Turn::ratio).collect();
    let least = ratios.iter().copied().fold(f64::MAX, f64::min);
    let most = ratios.iter().copied().fold(0.0, f64::max);
    println!(
        "{:>12} {:>9} {:>8.0} {:>10.1} {:>9.1} {:>9.1} {:>10.2} ({least:>4.2} .. {most:>4.2}) {:>16.3} {:>9.0}",
        case.record_bytes,
        case.producers,
        of(&|turn| turn.commits as f64),
        of(&|turn| turn.written_bytes as f64 / turn.commits as f64 / 1024.0),
        of(&|turn| rate(turn.payload_bytes, turn.log)),
        of(&|turn| rate(turn.payload_bytes, turn.plain)),
        median(ratios),
        of(&|turn| turn.written_bytes as f64 / turn.payload_bytes as f64),
        of(&|turn| rate(turn.payload_bytes, turn.read)),
    );
}

fn turn(case: &Case, scratch: &Path) -> Turn {
    let dir = scratch.join("log");
    let store = Store::open(StoreConfig::new(&dir), SystemClock::new(), |event| panic!("{event}")).expect("opens");
    let mut config = StreamConfig::new("bench");
    config.rate_limit = None;
    // Random data: what is compared is the writing.
    config.compression = Codec::None;
    let stream = store.stream(config).expect("opens");
    let batches = BYTES_PER_TURN / case.record_bytes / RECORDS_PER_BATCH / case.producers;
    settle(scratch);
    let begun = Instant::now();
    thread::scope(|scope| {
        for producer in 0..case.producers {
            let stream = &stream;
            scope.spawn(move || produce(stream, producer, batches, case.record_bytes));
        }
    });
    let log = begun.elapsed();
    let stats = stream.stats();
    let begun = Instant::now();
    let mut cursor = stream.cursor(Start::Oldest);
    let mut read = 0;
    loop {
        let records = cursor.read(ReadLimit { records: 500, payload_bytes: 1 << 20 }).expect("readable");
        if records.is_empty() {
            break;
        }
        read += records.iter().map(|record| record.payload_bytes()).sum::<u64>();
    }
    let read_took = begun.elapsed();
    assert_eq!(read, stats.payload_bytes);
    store.close();
    let plain = write_plain(&dir, scratch);
    fs::remove_dir_all(&dir).expect("removed");
    Turn {
        log,
        plain,
        read: read_took,
        payload_bytes: stats.payload_bytes,
        written_bytes: stats.written_bytes,
        commits: stats.commits,
    }
}

fn produce(stream: &Stream, producer: usize, batches: usize, record_bytes: usize) {
    let mut random = fastrand::Rng::with_seed(producer as u64);
    let pool: Vec<u8> = std::iter::repeat_with(|| random.u8(..)).take(1 << 20).collect();
    let keys: Vec<String> = (0..20).map(|i| format!("device-{producer}-{i}")).collect();
    let (tell, told) = mpsc::channel::<bool>();
    for sent in 0..batches {
        if sent >= BATCHES_IN_FLIGHT {
            assert!(told.recv().expect("answered"), "taken");
        }
        let mut batch = stream.batch();
        for i in 0..RECORDS_PER_BATCH {
            let at = random.usize(..pool.len() - record_bytes);
            let record = NewRecord::new(&keys[i % keys.len()], &pool[at..at + record_bytes]);
            batch.push(&record).expect("a sound record");
        }
        let tell = tell.clone();
        let done = move |outcome: Result<_, Refused>| tell.send(outcome.is_ok()).expect("awaited");
        stream.append(batch, WhenFull::Wait, Box::new(done));
    }
    for _ in 0..BATCHES_IN_FLIGHT.min(batches) {
        assert!(told.recv().expect("answered"), "taken");
    }
}

/// What the turns before have left to be written must not count here.
fn settle(scratch: &Path) {
    File::open(scratch).and_then(|dir| dir.sync_all()).expect("synced");
}

/// Writes and syncs what the log wrote, in the same pieces, into one file for each segment.
fn write_plain(dir: &Path, scratch: &Path) -> Duration {
    let mut segments: Vec<(Vec<u8>, Vec<usize>)> = Vec::new();
    let show = |dumped| {
        match dumped {
            // The head of a segment is one piece with the control block behind it.
            Dumped::Segment { path, .. } => segments.push((fs::read(path).expect("read"), Vec::new())),
            Dumped::Block { offset, checkpoints: None, .. } => {
                segments.last_mut().expect("of a segment").1.push(usize::try_from(offset).expect("small"));
            }
            _ => {}
        }
        ControlFlow::Continue(())
    };
    dump(dir, "bench", SequenceNumber::ZERO, None, show).expect("readable");
    settle(scratch);
    let begun = Instant::now();
    for (i, (bytes, starts)) in segments.iter().enumerate() {
        let file = File::create_new(scratch.join(format!("plain-{i}"))).expect("created");
        let ends = starts.iter().copied().chain([bytes.len()]);
        let mut at = 0;
        for end in ends {
            file.write_all_at(&bytes[at..end], at as u64).expect("written");
            file.sync_data().expect("synced");
            at = end;
        }
    }
    let took = begun.elapsed();
    for i in 0..segments.len() {
        fs::remove_file(scratch.join(format!("plain-{i}"))).expect("removed");
    }
    took
}
