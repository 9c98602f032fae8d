//! What the log costs a flash disk: bytes that reach the block device per byte of payload, and the processor's time.
//!
//! Bytes come from the counters of the block device that the files lie on, so they are right only on a quiet machine, and need a
//! file system that lies on one block device (no tmpfs, overlay or btrfs). Run with
//! `cargo bench -p forebay-log-store --bench flash`. `FOREBAY_BENCH_DIR` says where the files go (default: below the target
//! directory), `FOREBAY_BENCH_COMMITS` how many commits a case has (default 400).
//!
//! Commits follow each other without a pause: a rate and a commit delay say only how many records each has. Checkpoints are not saved
//! meanwhile.
//!
//! It fails where an aim is missed, or cannot be judged because nothing counts the device's bytes.

#![expect(clippy::disallowed_methods, reason = "a benchmark measures real time on a real disk")]

mod aims;

use std::{
    fs::{self, File},
    io::Read as _,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::mpsc,
    time::{Duration, Instant},
};

use aims::Aims;
use forebay_log_store::{
    Codec, NewRecord, ReadLimit, ShardIndex, Start, Store, StoreConfig, Stream, StreamConfig, SystemClock, WhenFull,
};

const CONSUMER: &str = "bench";
/// So small that a full quota comes soon, with segments of an eighth.
const QUOTA: u64 = 4 << 20;
/// Payload read per second, in megabytes, or else in units of `cat`, is at least this.
const READ_MB_MIN: f64 = 500.0;
const READ_OF_CAT_MIN: f64 = 0.5;
/// One shard of sixteen takes at most so many times its share of the time that all of them take.
const SHARD_TIME_MAX: f64 = 2.0;

#[derive(Clone, Copy)]
enum Data {
    Json,
    Random,
}

struct Case {
    name: &'static str,
    data: Data,
    records_per_commit: usize,
    compression: Codec,
    /// Bytes that reach the device per byte of payload, in recycled files.
    target: Option<f64>,
}

const CASES: [Case; 8] = [
    Case::of("JSON, 1/s", Data::Json, 1, Codec::Zstd, None),
    Case::of("JSON, 10/s, one commit a second", Data::Json, 10, Codec::Zstd, None),
    Case::of("JSON, 100/s, one commit a second", Data::Json, 100, Codec::Zstd, Some(1.5)),
    Case::of("JSON, 10,000/s, every 10 ms", Data::Json, 100, Codec::None, None),
    Case::of("JSON, 10,000/s, every 10 ms", Data::Json, 100, Codec::Lz4, None),
    Case::of("JSON, 10,000/s, every 10 ms", Data::Json, 100, Codec::Zstd, Some(0.45)),
    Case::of("JSON, 10,000/s, every 100 ms", Data::Json, 1000, Codec::Zstd, Some(0.25)),
    Case::of("random, 10,000/s, every 10 ms", Data::Random, 100, Codec::Zstd, Some(1.2)),
];

impl Case {
    const fn of(
        name: &'static str,
        data: Data,
        records_per_commit: usize,
        compression: Codec,
        target: Option<f64>,
    ) -> Self {
        Self { name, data, records_per_commit, compression, target }
    }
}

fn main() -> ExitCode {
    let mut aims = Aims::default();
    let commits = match std::env::var("FOREBAY_BENCH_COMMITS") {
        Ok(commits) => commits.parse().expect("FOREBAY_BENCH_COMMITS is a number"),
        Err(_) => 400,
    };
    let scratch = tempfile::tempdir_in(place()).expect("a directory for the files");
    let device = Device::of(scratch.path());
    match &device {
        Some(device) => println!("{commits} commits each; bytes of {}", device.stat.display()),
        None => println!(
            "{} lies on no block device that counts its bytes: what reaches the device is not told. Set FOREBAY_BENCH_DIR.",
            scratch.path().display()
        ),
    }
    println!(
        "{:>34} {:>6} {:>10} | {:>8} {:>8} | {:>9} {:>9} {:>8} | {:>14}",
        "", "codec", "records", "written", "framing", "device,", "device,", "target", "committer's"
    );
    println!(
        "{:>34} {:>6} {:>10} | {:>8} {:>8} | {:>9} {:>9} {:>8} | {:>14}",
        "per byte of payload", "", "per commit", "", "", "growing", "recycled", "", "us per commit"
    );
    for case in &CASES {
        let growing = write(case, scratch.path(), device.as_ref(), commits, false);
        let recycled = write(case, scratch.path(), device.as_ref(), commits, true);
        let or_none = |figure: Option<f64>| figure.map_or_else(|| "-".to_owned(), |figure| format!("{figure:.2}"));
        if let Some(target) = case.target {
            aims.judge(&format!("{}, bytes at the device", case.name), recycled.device.unwrap_or(f64::NAN), ..=target);
        }
        let target = case.target.map_or_else(String::new, |target| format!("<= {target}"));
        println!(
            "{:>34} {:>6} {:>10} | {:>8.3} {:>8.3} | {:>9} {:>9} {:>8} | {:>14.0}",
            case.name,
            format!("{:?}", case.compression).to_lowercase(),
            case.records_per_commit,
            recycled.written,
            recycled.framing,
            or_none(growing.device),
            or_none(recycled.device),
            target,
            recycled.cpu.as_secs_f64() * 1e6,
        );
    }
    println!();
    println!(
        "{:>34} {:>10} {:>10} {:>24} {:>22}",
        "reading JSON, blocks of 100", "MB/s", "of cat", "target", "one shard of 16"
    );
    for compression in [Codec::None, Codec::Lz4, Codec::Zstd] {
        read(compression, scratch.path(), &mut aims);
    }
    aims.outcome()
}

fn place() -> PathBuf {
    match std::env::var_os("FOREBAY_BENCH_DIR") {
        Some(dir) => dir.into(),
        // The program lies in <target>/<profile>/deps.
        None => {
            let program = std::env::current_exe().expect("a running program has a path");
            program.ancestors().nth(2).expect("below the target directory").to_owned()
        }
    }
}

/// The block device that a directory lies on.
struct Device {
    stat: PathBuf,
    dir: PathBuf,
}

impl Device {
    fn of(dir: &Path) -> Option<Self> {
        let dev = fs::metadata(dir).expect("it is there").dev();
        let major = ((dev >> 8) & 0xfff) | ((dev >> 32) & !0xfff);
        let minor = (dev & 0xff) | ((dev >> 12) & !0xff);
        let stat = PathBuf::from(format!("/sys/dev/block/{major}:{minor}/stat"));
        stat.exists().then(|| Self { stat, dir: dir.to_owned() })
    }

    fn written_bytes(&self) -> u64 {
        // What was written before must not come later.
        File::open(&self.dir).and_then(|dir| dir.sync_all()).expect("synced");
        let stat = fs::read_to_string(&self.stat).expect("readable");
        let sectors: u64 = stat.split_whitespace().nth(6).and_then(|field| field.parse().ok()).expect("seventh field");
        sectors * 512
    }
}

/// Per byte of payload.
struct Written {
    written: f64,
    framing: f64,
    device: Option<f64>,
    /// Per commit.
    cpu: Duration,
}

fn write(case: &Case, scratch: &Path, device: Option<&Device>, commits: usize, recycled: bool) -> Written {
    let mut log = Log::open(&scratch.join("log"), case.compression, 1, if recycled { QUOTA } else { 1 << 30 });
    if recycled {
        // Every file is one that was written before, once records go for the quota.
        while log.stream.stats().oldest.0 == 1 {
            log.commit(Data::Random, 50);
        }
    }
    let (before, cpu) = (log.stream.stats(), log.committer_time());
    let on_device = device.map(Device::written_bytes);
    for _ in 0..commits {
        log.commit(case.data, case.records_per_commit);
    }
    let on_device = device.zip(on_device).map(|(device, before)| device.written_bytes() - before);
    let (after, cpu) = (log.stream.stats(), log.committer_time() - cpu);
    let payload = (after.payload_bytes - before.payload_bytes) as f64;
    log.close();
    Written {
        written: (after.written_bytes - before.written_bytes) as f64 / payload,
        framing: (after.framing_bytes - before.framing_bytes) as f64 / payload,
        device: on_device.map(|bytes| bytes as f64 / payload),
        cpu: cpu / u32::try_from(commits).expect("not that many"),
    }
}

/// Payload per second, beside the bytes per second of `cat` of the same files, and what one shard of sixteen takes where blocks have one shard each.
fn read(compression: Codec, scratch: &Path, aims: &mut Aims) {
    let dir = scratch.join("log");
    let mut log = Log::open(&dir, compression, 1, 1 << 30);
    (0..2000).for_each(|_| log.commit(Data::Json, 100));
    let (payload, stored) = (log.stream.stats().payload_bytes as f64, log.stream.stats().written_bytes as f64);
    let all = best(|| drain(&log.stream, None));
    let mut buffer = vec![0; 128 << 10];
    let cat = best(|| {
        for entry in fs::read_dir(dir.join("streams/bench")).expect("listed") {
            let mut file = File::open(entry.expect("listed").path()).expect("opened");
            while file.read(&mut buffer).expect("readable") > 0 {}
        }
    });
    log.close();
    let mut log = Log::open(&dir, compression, 16, 1 << 30);
    (0..2000).for_each(|i| log.commit_of_one_device(i % 40, 100));
    let of_sixteen = best(|| drain(&log.stream, None));
    let records = |shard: &ShardIndex| log.stream.stats().shards.get(shard).map_or(0, |shard| shard.records);
    let shard = (0..16).map(ShardIndex).max_by_key(records).expect("sixteen");
    let share = records(&shard) as f64 / log.stream.stats().records as f64;
    let one = best(|| drain(&log.stream, Some(shard)));
    log.close();
    let name = format!("{compression:?}").to_lowercase();
    let megabytes = payload / all.as_secs_f64() / 1e6;
    let of_cat = payload / all.as_secs_f64() / (stored / cat.as_secs_f64());
    let of_all = one.as_secs_f64() / of_sixteen.as_secs_f64();
    println!(
        "{name:>34} {megabytes:>10.0} {of_cat:>10.2} {:>24} {:>22}",
        format!(">= {READ_MB_MIN} MB/s or {READ_OF_CAT_MIN}"),
        format!("{of_all:.2} (has {share:.2})"),
    );
    let read = f64::max(megabytes / READ_MB_MIN, of_cat / READ_OF_CAT_MIN);
    aims.judge(&format!("reading {name}, in units of {READ_MB_MIN} MB/s or of {READ_OF_CAT_MIN} of cat"), read, 1.0..);
    aims.judge(&format!("one shard of sixteen, {name}, in units of its share"), of_all / share, ..=SHARD_TIME_MAX);
}

fn best(mut act: impl FnMut()) -> Duration {
    let time = |act: &mut dyn FnMut()| {
        let begun = Instant::now();
        act();
        begun.elapsed()
    };
    (0..5).map(|_| time(&mut act)).min().expect("five")
}

fn drain(stream: &Stream, shard: Option<ShardIndex>) {
    let mut cursor = match shard {
        Some(shard) => stream.shard_cursor(shard, Start::Oldest),
        None => stream.cursor(Start::Oldest),
    };
    while !cursor.read(ReadLimit { records: 500, payload_bytes: 1 << 20 }).expect("readable").is_empty() {}
}

/// A new log with one stream, and records for it.
struct Log {
    dir: PathBuf,
    store: Store,
    stream: Stream,
    random: fastrand::Rng,
    time_ms: u64,
}

impl Log {
    fn open(dir: &Path, compression: Codec, shards: u32, quota: u64) -> Self {
        let mut config = StoreConfig::new(dir);
        config.commit_delay = Duration::ZERO;
        config.checkpoint_interval = Duration::from_secs(3600);
        let store = Store::open(config, SystemClock::new(), |_| {}).expect("opens");
        let mut config = StreamConfig::new("bench");
        config.shards = shards.try_into().expect("not zero");
        config.quota = quota;
        config.compression = compression;
        config.consumers = vec![CONSUMER.into()];
        config.rate_limit = None;
        let stream = store.stream(config).expect("opens");
        Self { dir: dir.to_owned(), store, stream, random: fastrand::Rng::with_seed(1), time_ms: 1_764_000_000_000 }
    }

    fn record(&mut self, data: Data, device: u32) -> (String, Vec<u8>) {
        let random = &mut self.random;
        self.time_ms += random.u64(1..10);
        let data = match data {
            Data::Json => format!(
                "{{\"device\":\"greenhouse-{device:02}\",\"time\":{},\"temperature\":{:.2},\"humidity\":{:.1},\
                 \"pressure\":{:.1},\"battery\":{:.3},\"position\":[{:.6},{:.6}]}}",
                self.time_ms,
                20.0 + random.f64() * 5.0,
                40.0 + random.f64() * 20.0,
                1000.0 + random.f64() * 30.0,
                3.0 + random.f64() * 1.2,
                52.5 + random.f64() * 0.01,
                13.4 + random.f64() * 0.01,
            )
            .into_bytes(),
            Data::Random => std::iter::repeat_with(|| random.u8(..)).take(157).collect(),
        };
        (format!("greenhouse-{device:02}"), data)
    }

    fn commit(&mut self, data: Data, records: usize) {
        let records: Vec<_> = (0..records).map(|i| self.record(data, i as u32 % 20)).collect();
        self.append(&records);
    }

    fn commit_of_one_device(&mut self, device: u32, records: usize) {
        let records: Vec<_> = (0..records).map(|_| self.record(Data::Json, device)).collect();
        self.append(&records);
    }

    /// One commit, delivered at once.
    fn append(&mut self, records: &[(String, Vec<u8>)]) {
        let mut batch = self.stream.batch();
        for (key, data) in records {
            batch.push(&NewRecord::new(key, data)).expect("a sound record");
        }
        let (tell, told) = mpsc::channel();
        self.stream.append(
            batch,
            WhenFull::Wait,
            Box::new(move |outcome| tell.send(outcome.is_ok()).expect("awaited")),
        );
        assert!(told.recv().expect("answered"), "taken");
        let next = self.stream.stats().next;
        self.stream.save_checkpoint(CONSUMER, next.previous());
    }

    /// What the committer's threads have spent on a processor so far.
    fn committer_time(&self) -> Duration {
        let mut nanos = 0;
        for task in fs::read_dir("/proc/self/task").expect("Linux") {
            let task = task.expect("listed").path();
            if fs::read_to_string(task.join("comm")).is_ok_and(|name| name.trim() == "committer") {
                let times = fs::read_to_string(task.join("schedstat")).unwrap_or_default();
                nanos += times.split_whitespace().next().and_then(|nanos| nanos.parse().ok()).unwrap_or(0);
            }
        }
        Duration::from_nanos(nanos)
    }

    fn close(self) {
        self.store.close();
        fs::remove_dir_all(&self.dir).expect("removed");
    }
}
