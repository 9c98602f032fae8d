//! Opening a log and verifying it, as ratios and bounds: `cargo bench -p forebay-log-store --bench open`.
//!
//! - Opening is timed, with its catalogue and without, each time in a fresh process, whose peak memory counts.
//! - `verify` is timed beside `cat` of the same files, in turns; the ratio is the median of the turns. The files are in the
//!   page cache for both, so that reading them costs little and checking them shows.
//!
//! By default the log to open has 1 GiB. `FOREBAY_BENCH_OPEN=10GiB` makes one of 10 GiB, in more than 1,000 segments. It
//! fails if opening it takes 300 ms or 16 MiB of memory, or verifying twice as long as `cat`. All files lie below
//! the target directory and are removed again.

#![expect(clippy::disallowed_methods, reason = "a benchmark measures real time on a real disk")]

mod aims;

use std::{
    env,
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    sync::mpsc,
    time::{Duration, Instant},
};

use aims::Aims;
use forebay_log_store::{
    Codec, NewRecord, Store, StoreConfig, StreamConfig, SystemClock, WhenFull,
    inspect::{Depth, verify},
};

const GIB: u64 = 1 << 30;
const TURNS: usize = 7;
const OPEN_MS_MAX: f64 = 300.0;
const OPEN_MIB_MAX: f64 = 16.0;
/// How much `verify` may cost, in units of `cat`.
const VERIFY_MAX: f64 = 2.0;

fn main() -> ExitCode {
    // What cargo passes is of no interest here.
    if env::args().nth(1).is_some_and(|argument| argument == "open-in-child") {
        open_in_child(Path::new(&env::args().nth(2).expect("a directory")));
        return ExitCode::SUCCESS;
    }
    let large = env::var("FOREBAY_BENCH_OPEN").is_ok_and(|size| size == "10GiB");
    let scratch = tempfile::tempdir_in(target_dir()).expect("a directory below the target directory");
    let mut aims = Aims::default();
    measure_opening(&scratch.path().join("large"), if large { 10 * GIB } else { GIB }, &mut aims);
    measure_verifying(scratch.path(), &mut aims);
    aims.outcome()
}

fn target_dir() -> PathBuf {
    // The program lies in <target>/<profile>/deps.
    let program = env::current_exe().expect("a running program has a path");
    program.ancestors().nth(2).expect("below the target directory").to_owned()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn stream_config(compression: Codec) -> StreamConfig {
    let mut config = StreamConfig { compression, quota: 64 * GIB, ..StreamConfig::new("bench") };
    config.rate_limit = None;
    config
}

/// Fills a log; says how many segments it has.
fn fill(dir: &Path, bytes: u64, compression: Codec, record: impl Fn(&mut fastrand::Rng) -> Vec<u8>) -> usize {
    let store = Store::open(StoreConfig::new(dir), SystemClock::new(), |event| panic!("{event}")).expect("opens");
    let stream = store.stream(stream_config(compression)).expect("opens");
    let mut random = fastrand::Rng::with_seed(1);
    let (tell, told) = mpsc::channel();
    let mut under_way = 0;
    while stream.stats().disk_bytes < bytes {
        let mut batch = stream.batch();
        let mut batch_bytes = 0;
        while batch_bytes < 512 << 10 {
            let data = record(&mut random);
            batch_bytes += data.len();
            batch.push(&NewRecord::new(&format!("device-{}", random.u8(..20)), &data)).expect("a sound record");
        }
        let tell = tell.clone();
        let done = move |outcome: Result<_, _>| tell.send(outcome.is_ok()).expect("awaited");
        stream.append(batch, WhenFull::Wait, Box::new(done));
        under_way += 1;
        if under_way > 4 {
            assert!(told.recv().expect("answered"), "taken");
            under_way -= 1;
        }
    }
    for _ in 0..under_way {
        assert!(told.recv().expect("answered"), "taken");
    }
    stream.stats().segments
}

fn noise(bytes: usize) -> impl Fn(&mut fastrand::Rng) -> Vec<u8> {
    move |random| {
        let mut data = vec![0; bytes];
        random.fill(&mut data);
        data
    }
}

/// A record as a sensor sends it.
fn json(random: &mut fastrand::Rng) -> Vec<u8> {
    let (device, at) = (random.u8(..20), random.u64(1_800_000_000..1_800_900_000));
    let (t, h) = (random.u32(150..300), random.u32(200..900));
    format!(
        "{{\"device\":\"greenhouse-{device}\",\"time\":{at},\"temperature\":{}.{},\"humidity\":{}.{},\"battery\":3.{}}}",
        t / 10,
        t % 10,
        h / 10,
        h % 10,
        random.u8(..99)
    )
    .into_bytes()
}

fn measure_opening(dir: &Path, bytes: u64, aims: &mut Aims) {
    let segments = fill(dir, bytes, Codec::None, noise(128 << 10));
    println!("opening {} GiB in {segments} segments, median of {TURNS} processes:", bytes / GIB);
    for (what, catalogue) in [("with its catalogue", true), ("without", false)] {
        let mut took = Vec::new();
        let mut peak = 0;
        for _ in 0..TURNS {
            if !catalogue {
                fs::remove_dir_all(dir.join("catalogue")).expect("removed");
            }
            let child = Command::new(env::current_exe().expect("a path")).arg("open-in-child").arg(dir).output();
            let output = child.expect("started");
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            let said = String::from_utf8(output.stdout).expect("text");
            let (ms, kib) = said.trim().split_once(' ').expect("two figures");
            took.push(ms.parse::<f64>().expect("a number"));
            peak = peak.max(kib.parse::<u64>().expect("a number"));
        }
        let took = median(took);
        let peak = peak as f64 / 1024.0;
        println!("  {what:<20} {took:>8.1} ms, peak memory {peak:>5.1} MiB");
        aims.judge(&format!("milliseconds of opening {what}"), took, ..=OPEN_MS_MAX);
        aims.judge(&format!("MiB of memory when opening {what}"), peak, ..=OPEN_MIB_MAX);
    }
    fs::remove_dir_all(dir).expect("removed");
}

/// Prints how long opening took, in milliseconds, and the peak of the process's memory, in KiB.
fn open_in_child(dir: &Path) {
    let begun = Instant::now();
    let store = Store::open(StoreConfig::new(dir), SystemClock::new(), |_| {}).expect("opens");
    let stream = store.stream(stream_config(Codec::None)).expect("opens");
    let took = begun.elapsed();
    assert!(stream.stats().segments > 1);
    let status = fs::read_to_string("/proc/self/status").expect("read");
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("it has a peak");
    println!("{} {}", took.as_secs_f64() * 1e3, peak.trim().trim_end_matches(" kB"));
}

fn measure_verifying(scratch: &Path, aims: &mut Aims) {
    println!("verifying, median of {TURNS} turns, in units of `cat` of the same files:");
    type Record = Box<dyn Fn(&mut fastrand::Rng) -> Vec<u8>>;
    let cases: [(&str, u64, Codec, Record); 2] = [
        ("1 GiB of noise", GIB, Codec::None, Box::new(noise(300))),
        ("64 MiB of zstd", GIB / 16, Codec::Zstd, Box::new(json)),
    ];
    for (what, bytes, compression, record) in cases {
        let dir = scratch.join("log");
        fill(&dir, bytes, compression, record);
        let files = segments(&dir);
        let (mut cat_took, mut checksums, mut records) = (Vec::new(), Vec::new(), Vec::new());
        // One turn more than is counted: the first fills the page cache.
        for turn in 0..=TURNS {
            let figures = [cat(&files), timed(&dir, Depth::Checksums), timed(&dir, Depth::Records)];
            if turn > 0 {
                cat_took.push(figures[0].as_secs_f64());
                checksums.push(figures[1].as_secs_f64() / figures[0].as_secs_f64());
                records.push(figures[2].as_secs_f64() / figures[0].as_secs_f64());
            }
        }
        let (ratio, deep) = (median(checksums), median(records));
        println!("  {what:<20} cat {:>6.3} s, verify {ratio:.2}, deep {deep:.2}", median(cat_took));
        aims.judge(&format!("verifying {what}, in units of cat"), ratio, ..=VERIFY_MAX);
        fs::remove_dir_all(&dir).expect("removed");
    }
}

fn segments(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir.join("streams/bench")).expect("listed");
    let mut files: Vec<_> = entries.map(|entry| entry.expect("listed").path()).collect();
    files.sort();
    files
}

fn cat(files: &[PathBuf]) -> Duration {
    let begun = Instant::now();
    let nowhere = File::create("/dev/null").expect("there");
    assert!(Command::new("cat").args(files).stdout(nowhere).status().expect("started").success());
    begun.elapsed()
}

fn timed(dir: &Path, depth: Depth) -> Duration {
    let begun = Instant::now();
    assert!(verify(dir, None, depth).expect("readable").is_sound());
    begun.elapsed()
}
