//! Synced appends of the log beside a plain `write` and `fdatasync` of the very same bytes in the same pieces; and reading.
//!
//! Both take turns in the same run, each a fraction of a second, because a disk's speed changes by the second; the ratio is
//! the median of the turns' ratios, and the quartiles beside it say how much to believe it.
//! What is measured is commits that follow each other: not the first ones of a turn, nor how its data is made up.
//! Run with `cargo bench -p forebay-log-store`. The files lie below the target directory: a real disk, where `/tmp` may
//! not be one. `FOREBAY_BENCH_ROUNDS` sets the number of turns (default 31). It fails where a median falls below [`RATIO_MIN`], which can be
//! judged on a quiet machine only.

#![expect(clippy::disallowed_methods, reason = "a benchmark measures real time on a real disk")]

mod aims;

use std::{
    fs::{self, File},
    ops::ControlFlow,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{OnceLock, mpsc},
    thread,
    time::{Duration, Instant},
};

use aims::Aims;
use forebay_log_store::{
    Codec, NewRecord, ReadLimit, Refused, SequenceNumber, Start, Store, StoreConfig, Stream, StreamConfig, SystemClock,
    WhenFull,
    inspect::{Dumped, dump},
};

/// The aim: the log's synced appends in units of plain `write` and `fdatasync`.
const RATIO_MIN: f64 = 0.9;
/// What one turn appends, in records' data: it begins at least one segment, as so many bytes always do.
const BYTES_PER_TURN: usize = 16 << 20;
const RECORDS_PER_BATCH: usize = 100;
/// As a source does that goes on while its earlier batches are on their way to the disk.
const BATCHES_IN_FLIGHT: usize = 8;

/// Each producer appends so many batches before the time counts.
const BATCHES_BEFORE: usize = 4 * BATCHES_IN_FLIGHT;

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
    /// Of those, what the times are of.
    counted_bytes: u64,
    written_bytes: u64,
    commits: u64,
}

impl Turn {
    fn ratio(&self) -> f64 {
        self.plain.as_secs_f64() / self.log.as_secs_f64()
    }
}

fn main() -> ExitCode {
    // `cargo test --benches` and `cargo bench -- name` pass arguments; there is nothing to choose here.
    let rounds = match std::env::var("FOREBAY_BENCH_ROUNDS") {
        Ok(rounds) => rounds.parse().expect("FOREBAY_BENCH_ROUNDS is a number"),
        Err(_) => 31,
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
        "ratio (quartiles)",
        "written/payload",
        "read MB/s"
    );
    let mut aims = Aims::default();
    for record_bytes in [300, 100] {
        for producers in [1, 4] {
            let case = Case { record_bytes, producers };
            let turns: Vec<Turn> = (0..rounds).map(|_| turn(&case, scratch.path())).collect();
            let ratio = report(&case, &turns);
            aims.judge(&format!("{record_bytes} bytes, {producers} producers"), ratio, RATIO_MIN..);
        }
    }
    aims.outcome()
}

fn target_dir() -> PathBuf {
    // The program lies in <target>/<profile>/deps.
    let program = std::env::current_exe().expect("a running program has a path");
    program.ancestors().nth(2).expect("below the target directory").to_owned()
}

fn median(values: Vec<f64>) -> f64 {
    quartiles(values)[1]
}

fn quartiles(mut values: Vec<f64>) -> [f64; 3] {
    values.sort_by(f64::total_cmp);
    [1, 2, 3].map(|quarter| values[(values.len() - 1) * quarter / 4])
}

/// Gives the median of the ratios.
fn report(case: &Case, turns: &[Turn]) -> f64 {
    let of = |figure: &dyn Fn(&Turn) -> f64| median(turns.iter().map(figure).collect());
    let rate = |bytes: u64, time: Duration| bytes as f64 / time.as_secs_f64() / 1e6;
    let [least, ratio, most] = quartiles(turns.iter().map(Turn::ratio).collect());
    println!(
        "{:>12} {:>9} {:>8.0} {:>10.1} {:>9.1} {:>9.1} {:>10.2} ({least:>4.2} .. {most:>4.2}) {:>16.3} {:>9.0}",
        case.record_bytes,
        case.producers,
        of(&|turn| turn.commits as f64),
        of(&|turn| turn.written_bytes as f64 / turn.commits as f64 / 1024.0),
        of(&|turn| rate(turn.counted_bytes, turn.log)),
        of(&|turn| rate(turn.counted_bytes, turn.plain)),
        ratio,
        of(&|turn| turn.written_bytes as f64 / turn.payload_bytes as f64),
        of(&|turn| rate(turn.payload_bytes, turn.read)),
    );
    ratio
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
    let pools: Vec<Pool> = (0..case.producers).map(Pool::new).collect();
    settle(scratch);
    let begin = OnceLock::new();
    thread::scope(|scope| {
        for pool in &pools {
            let (stream, begin) = (&stream, &begin);
            scope.spawn(move || produce(stream, pool, batches, case.record_bytes, begin));
        }
    });
    let ended = Instant::now();
    let Begin { at, next } = begin.into_inner().expect("every turn is longer than that");
    let log = ended - at;
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
    let plain = write_plain(&dir, scratch, next);
    fs::remove_dir_all(&dir).expect("removed");
    Turn {
        log,
        plain,
        read: read_took,
        payload_bytes: stats.payload_bytes,
        counted_bytes: stats.payload_bytes / stats.records * (stats.next.0 - next.0),
        written_bytes: stats.written_bytes,
        commits: stats.commits,
    }
}

/// What a producer makes its records of; to make that is no work of the log.
struct Pool {
    seed: u64,
    data: Vec<u8>,
    keys: Vec<String>,
}

impl Pool {
    fn new(producer: usize) -> Self {
        let seed = producer as u64;
        let mut random = fastrand::Rng::with_seed(seed);
        let data = std::iter::repeat_with(|| random.u8(..)).take(1 << 20).collect();
        Self { seed, data, keys: (0..20).map(|i| format!("device-{producer}-{i}")).collect() }
    }
}

/// Where the time begins to count: the first commit of a turn waits for company that cannot come any faster, and commits
/// follow each other from then on.
struct Begin {
    at: Instant,
    /// The first record that counts.
    next: SequenceNumber,
}

fn produce(stream: &Stream, pool: &Pool, batches: usize, record_bytes: usize, begin: &OnceLock<Begin>) {
    let mut random = fastrand::Rng::with_seed(pool.seed);
    let Pool { data, keys, .. } = pool;
    let (tell, told) = mpsc::channel::<bool>();
    for sent in 0..batches {
        if sent == BATCHES_BEFORE {
            begin.get_or_init(|| Begin { at: Instant::now(), next: stream.stats().next });
        }
        if sent >= BATCHES_IN_FLIGHT {
            assert!(told.recv().expect("answered"), "taken");
        }
        let mut batch = stream.batch();
        for i in 0..RECORDS_PER_BATCH {
            let at = random.usize(..data.len() - record_bytes);
            let record = NewRecord::new(&keys[i % keys.len()], &data[at..at + record_bytes]);
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

/// Writes and syncs what the log wrote, in the same pieces, into one file for each segment; the time counts from the record
/// `next` on.
fn write_plain(dir: &Path, scratch: &Path, next: SequenceNumber) -> Duration {
    let mut segments: Vec<(Vec<u8>, Vec<usize>)> = Vec::new();
    let mut counts_from = None;
    let show = |dumped| {
        match dumped {
            // The head of a segment is one piece with the control block behind it.
            Dumped::Segment { path, .. } => segments.push((fs::read(path).expect("read"), Vec::new())),
            Dumped::Block { offset, first, control: None, .. } => {
                let at = (segments.len() - 1, usize::try_from(offset).expect("small"));
                counts_from = counts_from.or((first >= next).then_some(at));
                segments.last_mut().expect("of a segment").1.push(usize::try_from(offset).expect("small"));
            }
            _ => {}
        }
        ControlFlow::Continue(())
    };
    dump(dir, "bench", SequenceNumber::ZERO, None, show).expect("readable");
    settle(scratch);
    let mut begun = Instant::now();
    for (i, (bytes, starts)) in segments.iter().enumerate() {
        let file = File::create_new(scratch.join(format!("plain-{i}"))).expect("created");
        let ends = starts.iter().copied().chain([bytes.len()]);
        let mut at = 0;
        for end in ends {
            if Some((i, at)) == counts_from {
                begun = Instant::now();
            }
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
