//! A file of lines of 200 bytes, read into a stream by the `tail` source, beside appending the very same records to the log directly.
//!
//! Both take turns in the same run, because a disk's speed changes by the minute; the ratio is the median of the turns. Run with
//! `cargo bench -p forebay --bench tail`. The data lie below the target directory: a real disk, where `/tmp` may not be one.
//! `FOREBAY_BENCH_ROUNDS` sets the number of turns (default 5). It fails if the source reaches neither of its aims: so many megabytes
//! per second, or that share of what the log itself takes.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{Arc, mpsc},
    time::{Duration, Instant},
};

use forebay::{
    config::Problems,
    ingest::{Ingest, PartitionKeyTemplate},
    source::{self, Config as _, SourceContext, SourceStats, tail},
};
use forebay_log_store::{Codec, NewRecord, Store, StoreConfig, Stream, StreamConfig, SystemClock, WhenFull};
use tokio_util::sync::CancellationToken;

const LINES: usize = 2_000_000;
const LINE_BYTES: usize = 200;
/// As the source's batches are.
const BATCH_BYTES: usize = 512 * 1024;
const BATCHES_IN_FLIGHT: usize = 8;

/// What is aimed at, in MB/s.
const RATE_MIN: f64 = 200.0;
/// Or, where the disk or the processor is slower, this share of the log's own rate in the same run.
const RATIO_MIN: f64 = 0.5;

fn main() -> ExitCode {
    let rounds = match std::env::var("FOREBAY_BENCH_ROUNDS") {
        Ok(rounds) => rounds.parse().expect("FOREBAY_BENCH_ROUNDS is a number"),
        Err(_) => 5,
    };
    let scratch = tempfile::tempdir_in(target_dir()).expect("a directory below the target directory");
    let file = scratch.path().join("app.log");
    write_lines(&file);
    println!("{LINES} lines of {LINE_BYTES} bytes, {rounds} turns");
    println!(
        "{:>12} {:>10} {:>10} {:>24} {:>14}",
        "compression", "tail MB/s", "log MB/s", "ratio (least..most)", "CPU s/GB, tail"
    );
    let mut verdict = ExitCode::SUCCESS;
    for (name, codec) in [("none", Codec::None), ("zstd", Codec::Zstd)] {
        let turns: Vec<_> = (0..rounds)
            .map(|_| {
                let tail = turn(scratch.path(), codec, |stream| tail(stream, &file));
                let log = turn(scratch.path(), codec, |stream| append(stream, &file));
                (tail, log)
            })
            .collect();
        let rate = |took: Duration| (LINES * LINE_BYTES) as f64 / took.as_secs_f64() / 1e6;
        let median = |mut values: Vec<f64>| {
            values.sort_by(f64::total_cmp);
            values[values.len() / 2]
        };
        let mut ratios: Vec<f64> =
            turns.iter().map(|((tail, _), (log, _))| log.as_secs_f64() / tail.as_secs_f64()).collect();
        ratios.sort_by(f64::total_cmp);
        let (reached, ratio) =
            (median(turns.iter().map(|((tail, _), _)| rate(*tail)).collect()), ratios[ratios.len() / 2]);
        println!(
            "{name:>12} {:>10.0} {:>10.0} {:>10.2} ({:>4.2} .. {:>4.2}) {:>14.2}",
            reached,
            median(turns.iter().map(|(_, (log, _))| rate(*log)).collect()),
            ratio,
            ratios[0],
            ratios[ratios.len() - 1],
            median(turns.iter().map(|((_, cpu), _)| cpu.as_secs_f64() / (LINES * LINE_BYTES) as f64 * 1e9).collect()),
        );
        if reached < RATE_MIN && ratio < RATIO_MIN {
            eprintln!(
                "compression {name}: tail is too slow, {reached:.0} MB/s and {ratio:.2} of the log's rate; \
                 the aim is {RATE_MIN} MB/s or {RATIO_MIN}"
            );
            verdict = ExitCode::FAILURE;
        }
    }
    verdict
}

fn target_dir() -> PathBuf {
    // The program lies in <target>/<profile>/deps.
    let program = std::env::current_exe().expect("a running program has a path");
    program.ancestors().nth(2).expect("below the target directory").to_owned()
}

/// Like a web server's, of which some parts are the same in every line.
fn write_lines(path: &Path) {
    let mut random = fastrand::Rng::with_seed(1);
    let mut file = std::io::BufWriter::new(fs::File::create(path).expect("a file"));
    for number in 0..LINES {
        let mut line = format!(
            "10.0.{}.{} - - [02/Jan/2026:03:04:{:02} +0000] \"GET /api/v1/devices/{:016x}/readings?n={number} HTTP/1.1\" 200 {} \"-\" \"agent/{}\" ",
            random.u8(..),
            random.u8(..),
            number % 60,
            random.u64(..),
            random.u32(100..100_000),
            random.u8(1..20),
        );
        while line.len() < LINE_BYTES - 1 {
            line.push(random.alphanumeric());
        }
        line.truncate(LINE_BYTES - 1);
        line.push('\n');
        file.write_all(line.as_bytes()).expect("written");
    }
    file.into_inner().expect("written").sync_all().expect("synced");
}

/// How long it takes, and how much of the processor.
fn turn(scratch: &Path, codec: Codec, bring: impl FnOnce(&Stream)) -> (Duration, Duration) {
    let dir = scratch.join("log");
    let store = Store::open(StoreConfig::new(&dir), SystemClock::new(), |event| panic!("{event}")).expect("opens");
    let config = StreamConfig { rate_limit: None, compression: codec, quota: 4 << 30, ..StreamConfig::new("bench") };
    let stream = store.stream(config).expect("a stream");
    let (begun, before) = (Instant::now(), cpu());
    bring(&stream);
    let took = (begun.elapsed(), cpu().saturating_sub(before));
    assert_eq!(stream.stats().records, LINES as u64, "every line is stored, once");
    store.close();
    drop(store);
    fs::remove_dir_all(&dir).expect("removed");
    took
}

/// Of the whole process; the kernel counts in hundredths of a second.
fn cpu() -> Duration {
    let stat = fs::read_to_string("/proc/self/stat").expect("Linux");
    let (_, fields) = stat.rsplit_once(") ").expect("the program's name in brackets");
    let ticks: u64 = fields.split(' ').skip(11).take(2).map(|ticks| ticks.parse::<u64>().expect("a number")).sum();
    Duration::from_millis(ticks * 10)
}

fn tail(stream: &Stream, file: &Path) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let mut problems = Problems::default();
    let config = tail::Config { paths: Some(vec![file.display().to_string()]), ..tail::Config::default() };
    let settings = config.validate("sources.bench", &mut problems).expect("right");
    let stop = CancellationToken::new();
    let context = SourceContext {
        name: "bench".into(),
        ingest: Ingest::new(stream.clone(), StoreConfig::new("x").queue_bytes),
        partition_key: PartitionKeyTemplate::parse("{file}").expect("a template"),
        max_record: 1 << 20,
        shaping: Default::default(),
        stats: Arc::new(SourceStats::default()),
        stop: stop.clone(),
    };
    runtime.block_on(async {
        let source = source::Settings::bind(&settings).await.expect("nothing to bind");
        let mut running = Box::pin(source.run(context));
        loop {
            tokio::select! {
                ended = &mut running => panic!("ended: {ended:?}"),
                () = tokio::time::sleep(Duration::from_millis(2)) => {}
            }
            if stream.stats().records == LINES as u64 {
                break;
            }
        }
        stop.cancel();
        running.await.expect("stops");
    });
}

fn append(stream: &Stream, file: &Path) {
    let bytes = fs::read(file).expect("readable");
    let key = file.display().to_string();
    let (done, settled) = mpsc::channel();
    let mut in_flight = 0;
    let mut send = |batch| {
        let done = done.clone();
        stream.append(batch, WhenFull::Wait, Box::new(move |outcome| done.send(outcome.map(drop)).expect("awaited")));
        in_flight += 1;
        if in_flight == BATCHES_IN_FLIGHT {
            settled.recv().expect("settled").expect("stored");
            in_flight -= 1;
        }
    };
    let mut batch = stream.batch();
    for data in bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        batch.push(&NewRecord { partition_key: &key, explicit_hash_key: None, tags: &[], data }).expect("fits");
        if batch.encoded_bytes() >= BATCH_BYTES {
            send(std::mem::replace(&mut batch, stream.batch()));
        }
    }
    send(batch);
    for _ in 0..in_flight {
        settled.recv().expect("settled").expect("stored");
    }
}
