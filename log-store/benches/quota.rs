//! Many gigabytes through a small quota on a small disk: how much of the disk is taken at any moment, whether the speed stays
//! the same, whether every record is either there or was told as dropped; and what happens when somebody else fills the disk.
//!
//! It wants a file system of its own, such as a tmpfs or a loop device of 400 MiB:
//! `FOREBAY_BENCH_DIR=/mnt/small FOREBAY_BENCH_BYTES=20000000000 cargo bench -p forebay-log-store --bench quota`.
//! Without a directory it uses one below the target directory, whose disk others use too, and leaves out the last part.

#![expect(clippy::disallowed_methods, reason = "a benchmark measures real time on a real disk")]

use std::{
    fs::{self, File},
    ops::RangeInclusive,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use forebay_log_store::{
    Event, MinFree, NewRecord, OnFull, ReadLimit, Refused, SequenceNumber, Start, Store, StoreConfig, Stream,
    StreamConfig, SystemClock, WhenFull,
};

const QUOTA: u64 = 256 << 20;
const MIN_FREE: u64 = 32 << 20;
const RECORD_BYTES: usize = 1000;
const RECORDS_PER_BATCH: usize = 100;
const BATCHES_IN_FLIGHT: usize = 8;
const TENTHS: usize = 10;
const CONSUMER: &str = "cloud";
/// For everything that has to happen by itself.
const PATIENCE: Duration = Duration::from_secs(30);

fn main() {
    let bytes: u64 = match std::env::var("FOREBAY_BENCH_BYTES") {
        Ok(bytes) => bytes.parse().expect("FOREBAY_BENCH_BYTES is a number"),
        Err(_) => 2_000_000_000,
    };
    let own = std::env::var_os("FOREBAY_BENCH_DIR").map(PathBuf::from);
    let dir = match &own {
        Some(dir) => tempfile::tempdir_in(dir),
        None => tempfile::tempdir_in(target_dir()),
    };
    let dir = dir.expect("a directory that can be written");
    quota_run(dir.path(), bytes);
    match own {
        Some(_) => {
            others_fill_the_disk(dir.path(), OnFull::Reject);
            others_fill_the_disk(dir.path(), OnFull::DropOldest);
        }
        None => println!("FOREBAY_BENCH_DIR is not set: the disk is not filled"),
    }
}

fn target_dir() -> PathBuf {
    // The program lies in <target>/<profile>/deps.
    let program = std::env::current_exe().expect("a running program has a path");
    program.ancestors().nth(2).expect("below the target directory").to_owned()
}

fn open(dir: &Path, name: &str, on_full: OnFull, events: &Arc<Mutex<Vec<Event>>>) -> (Store, Stream) {
    let mut config = StoreConfig::new(dir);
    config.min_free = MinFree { bytes: MIN_FREE, percent: 100 };
    let heard = Arc::clone(events);
    let hear = move |event| heard.lock().expect("pushing does not panic").push(event);
    let store = Store::open(config, SystemClock::new(), hear).expect("opens");
    let mut config = StreamConfig::new(name);
    config.quota = QUOTA;
    config.on_full = on_full;
    config.rate_limit = None;
    config.consumers = vec![CONSUMER.into()];
    let stream = store.stream(config).expect("opens");
    (store, stream)
}

/// Free bytes of the disk, as those who may not take root's share see it.
fn free(dir: &Path) -> u64 {
    let told = rustix::fs::statvfs(dir).expect("a file system tells");
    told.f_bavail * told.f_frsize
}

/// Appends numbered records; calls `each` with the number of records behind each batch that was acknowledged.
fn produce(stream: &Stream, records: u64, mut each: impl FnMut(u64) -> bool) {
    let mut random = fastrand::Rng::with_seed(7);
    let pool: Vec<u8> = std::iter::repeat_with(|| random.u8(..)).take(1 << 20).collect();
    let (tell, told) = mpsc::channel::<Result<(), forebay_log_store::Error>>();
    let batches = records / RECORDS_PER_BATCH as u64;
    let mut acknowledged = 0;
    for sent in 0..batches + BATCHES_IN_FLIGHT as u64 {
        if sent >= BATCHES_IN_FLIGHT as u64 {
            told.recv().expect("answered").expect("taken");
            acknowledged += RECORDS_PER_BATCH as u64;
            if !each(acknowledged) {
                return;
            }
        }
        if sent >= batches {
            continue;
        }
        let mut batch = stream.batch();
        for i in 0..RECORDS_PER_BATCH {
            let at = random.usize(..pool.len() - RECORD_BYTES);
            let key = [b'a' + (i % 20) as u8];
            let key = str::from_utf8(&key).expect("a letter");
            batch.push(&NewRecord::new(key, &pool[at..at + RECORD_BYTES])).expect("a sound record");
        }
        let tell = tell.clone();
        let done = move |outcome: Result<_, Refused>| _ = tell.send(outcome.map(drop).map_err(|refused| refused.error));
        stream.append(batch, WhenFull::Wait, Box::new(done));
    }
}

/// A delivery that cannot keep up: reads what it gets hold of, in order.
fn deliver(stream: &Stream, stop: &AtomicBool) -> u64 {
    let mut cursor = stream.cursor(Start::Oldest);
    let (mut read, mut newest) = (0, SequenceNumber::ZERO);
    while !stop.load(Relaxed) {
        let records = cursor.read(ReadLimit { records: 500, payload_bytes: 1 << 20 }).expect("readable");
        for record in &records {
            assert!(record.sequence_number > newest, "out of order");
            newest = record.sequence_number;
        }
        read += records.len() as u64;
        stream.save_checkpoint(CONSUMER, newest);
        thread::sleep(Duration::from_millis(5));
    }
    read
}

fn quota_run(dir: &Path, bytes: u64) {
    let events = Arc::default();
    let data = dir.join("data");
    let before = free(dir);
    let (store, stream) = open(&data, "quota", OnFull::DropOldest, &events);
    let records = bytes / RECORD_BYTES as u64 / RECORDS_PER_BATCH as u64 * RECORDS_PER_BATCH as u64;
    let (least_free, stop) = (AtomicU64::new(u64::MAX), AtomicBool::new(false));
    let mut tenths = Vec::new();
    let delivered = thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Relaxed) {
                least_free.fetch_min(free(dir), Relaxed);
                thread::sleep(Duration::from_millis(1));
            }
        });
        let delivery = scope.spawn(|| deliver(&stream, &stop));
        let mut begun = (Instant::now(), cpu_seconds());
        produce(&stream, records, |acknowledged| {
            if acknowledged * TENTHS as u64 / records > tenths.len() as u64 {
                tenths.push((begun.0.elapsed().as_secs_f64(), cpu_seconds() - begun.1));
                begun = (Instant::now(), cpu_seconds());
            }
            true
        });
        stop.store(true, Relaxed);
        delivery.join().expect("it tells why it cannot go on")
    });

    let stats = stream.stats();
    let taken = before - least_free.load(Relaxed);
    let tenth = bytes as f64 / TENTHS as f64;
    let rates: Vec<f64> = tenths.iter().map(|(took, _)| tenth / took / 1e6).collect();
    // On a machine that does other things too, this is the steadier figure.
    let cpu: Vec<f64> = tenths.iter().map(|(_, cpu)| cpu / tenth * 1e9).collect();
    println!("{} records of {RECORD_BYTES} bytes through a quota of {} MiB", records, QUOTA >> 20);
    println!("  taken of the disk at the most: {:.1} MiB", taken as f64 / f64::from(1 << 20));
    println!("  free at the least: {:.1} MiB", least_free.load(Relaxed) as f64 / f64::from(1 << 20));
    println!("  MB/s by tenths: {}; slowest by median {:.2}", shown(&rates), least(&rates) / median(&rates));
    println!("  CPU seconds per GB by tenths: {}; most by median {:.2}", shown(&cpu), most(&cpu) / median(&cpu));
    println!("  delivered {delivered}, dropped {}, lost {}", stats.dropped.quota, stats.lost.quota);

    let damaged =
        events.lock().expect("pushing does not panic").iter().any(|event| matches!(event, Event::Damaged { .. }));
    assert!(!damaged, "the delivery read what was being dropped");
    let told = dropped(&events.lock().expect("pushing does not panic"), "quota");
    let there = readable(&stream);
    let (first, last) = (*there.start(), *there.end());
    println!("  told as dropped 1 to {}, readable {first} to {last}, appended {records}", first.0 - 1);
    assert_eq!((first.0, last.0), (told.0 + 1, records), "every record is there or was told as dropped");
    assert_eq!((stats.dropped.quota, stats.lost.quota), told, "and counted");
    assert!(taken <= QUOTA + (8 << 20), "{taken} bytes were taken of the disk");
    assert!(least_free.load(Relaxed) >= MIN_FREE, "min-free was crossed");
    store.close();
    fs::remove_dir_all(data).expect("removed");
}

fn shown(figures: &[f64]) -> String {
    figures.iter().map(|figure| format!("{figure:.3}").chars().take(5).collect()).collect::<Vec<String>>().join(" ")
}

fn least(figures: &[f64]) -> f64 {
    figures.iter().copied().fold(f64::MAX, f64::min)
}

fn most(figures: &[f64]) -> f64 {
    figures.iter().copied().fold(0.0, f64::max)
}

fn median(figures: &[f64]) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

/// What this process has computed so far, in hundredths of a second.
fn cpu_seconds() -> f64 {
    let stat = fs::read_to_string("/proc/self/stat").expect("Linux tells");
    // Behind the name, which may hold anything: user and system time are the fields 14 and 15.
    let (_, fields) = stat.rsplit_once(')').expect("a name in parentheses");
    let ticks =
        fields.split_whitespace().skip(11).take(2).map(|ticks| ticks.parse::<u64>().expect("a number of ticks"));
    ticks.sum::<u64>() as f64 / 100.0
}

/// How many records were dropped of a stream, without a gap from the first on, and how many of them were undelivered.
fn dropped(events: &[Event], name: &str) -> (u64, u64) {
    let (mut end, mut lost) = (0, 0);
    for event in events {
        if let Event::Dropped { stream, records, undelivered, .. } = event
            && stream == name
        {
            assert_eq!(records.start().0, end + 1, "each range once, in order");
            end = records.end().0;
            lost += undelivered;
        }
    }
    (end, lost)
}

/// The records that are there: all from the first to the last.
fn readable(stream: &Stream) -> RangeInclusive<SequenceNumber> {
    let mut cursor = stream.cursor(Start::Oldest);
    let mut there: Option<RangeInclusive<SequenceNumber>> = None;
    loop {
        let records = cursor.read(ReadLimit { records: 1000, payload_bytes: 4 << 20 }).expect("readable");
        let Some(last) = records.last().map(|record| record.sequence_number) else {
            return there.expect("the newest records are there");
        };
        let first = there.as_ref().map_or(records[0].sequence_number, |there| *there.start());
        let before = there.map_or(records[0].sequence_number.0 - 1, |there| there.end().0);
        assert_eq!(last.0 - before, records.len() as u64, "no record is missing in between");
        there = Some(first..=last);
    }
}

/// Somebody else takes the disk while records come, and gives it back.
fn others_fill_the_disk(dir: &Path, on_full: OnFull) {
    let events = Arc::default();
    let data = dir.join("data");
    let (store, stream) = open(&data, "shared", on_full, &events);
    let (stop, acknowledged) = (AtomicBool::new(false), AtomicU64::new(0));
    let wait_until = |what: &str, is_so: &dyn Fn() -> bool| {
        let begun = Instant::now();
        while !is_so() {
            assert!(begun.elapsed() < PATIENCE, "{what}, {on_full:?}: {:?}", stream.stats());
            thread::sleep(Duration::from_millis(5));
        }
    };
    thread::scope(|scope| {
        scope.spawn(|| {
            // Slow enough that it does not meet its quota by itself.
            produce(&stream, u64::MAX / 2, |records| {
                acknowledged.store(records, Relaxed);
                thread::sleep(Duration::from_millis(2));
                !stop.load(Relaxed)
            });
        });
        let goes_on = || {
            let before = acknowledged.load(Relaxed);
            wait_until("records are taken", &|| acknowledged.load(Relaxed) > before + 5000);
        };
        goes_on();
        let ballast = dir.join("ballast");
        let file = File::create(&ballast).expect("a new file");
        let room = free(dir) - MIN_FREE / 2;
        rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, room).expect("there is so much room");
        drop(file);
        let taken = stream.stats().disk_bytes;
        if on_full == OnFull::Reject {
            wait_until("it waits", &|| stream.stats().stopped.is_some());
            let reason = stream.stats().stopped.expect("it waits");
            println!("somebody fills the disk, {on_full:?}: waits: {reason}");
            assert!(reason.contains("min-free"), "{reason}");
        } else {
            wait_until("it drops", &|| stream.stats().dropped.quota > 0);
            goes_on();
            println!("somebody fills the disk, {on_full:?}: goes on, dropped {}", stream.stats().dropped.quota);
        }
        let least = free(dir);
        assert!(least + (10 << 20) > MIN_FREE / 2, "{least} bytes are left");
        assert!(stream.stats().disk_bytes <= taken + (8 << 20), "it does not grow");
        fs::remove_file(&ballast).expect("it was put there");
        let begun = Instant::now();
        wait_until("it has room again", &|| stream.stats().stopped.is_none());
        goes_on();
        println!("  they go: takes records again after {:.1} s", begun.elapsed().as_secs_f64());
        stop.store(true, Relaxed);
    });
    // What was still under way when the producer ended is committed by this.
    store.close();
    let stats = stream.stats();
    let told = dropped(&events.lock().expect("pushing does not panic"), "shared");
    assert_eq!((stats.dropped.quota, stats.lost.quota), told);
    let there = readable(&stream);
    assert_eq!((there.start().0, there.end().0), (told.0 + 1, stats.next.0 - 1));
    fs::remove_dir_all(data).expect("removed");
}
