//! Room on a real disk: what was dropped takes none, whoever still reads in it, and reading there is no damage.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::Path,
    sync::{Arc, Mutex, mpsc},
    time::Duration,
};

use super::{DEADLINE, store_config, stream_config, watched_disk::WatchedDisk};
use crate::{
    catalogue::open_sled,
    clock::manual::ManualClock,
    config::{MinFree, OnFull},
    cursor::{Cursor, ReadLimit, Start},
    event::Event,
    inspect::verify_on,
    record::NewRecord,
    sequence::SequenceNumber,
    store::{Parts, Store, Stream, WhenFull},
};

const LARGE: usize = 200_000;
const ONE: ReadLimit = ReadLimit { records: 1, payload_bytes: 1 };

struct Dropping {
    disk: WatchedDisk,
    parts: Parts,
    stream: Stream,
    events: Arc<Mutex<Vec<Event>>>,
}

/// A stream of 1 MiB that drops its oldest.
fn dropping(dir: &Path) -> Dropping {
    let mut store = store_config(dir);
    store.min_free = MinFree::NONE;
    let events = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&events);
    let hear = Arc::new(move |event| heard.lock().expect("unpoisoned").push(event));
    let disk = WatchedDisk::default();
    let parts = Parts::open(&store, Arc::new(disk.clone()), &open_sled, ManualClock::new(), hear).expect("opens");
    let mut stream = stream_config("telemetry");
    stream.quota = 1 << 20;
    stream.on_full = OnFull::DropOldest;
    let stream = parts.stream(&store, stream).expect("opens");
    Dropping { disk, parts, stream, events }
}

impl Dropping {
    fn append(&self, count: usize, bytes: usize) {
        for _ in 0..count {
            let mut batch = self.stream.batch();
            batch.push(&NewRecord::new("key", &vec![7; bytes])).expect("a sound record");
            self.stream.append(batch, WhenFull::Refuse, Box::new(|outcome| drop(outcome.expect("room"))));
            self.parts.writers.lock().expect("unpoisoned").commit_queued(&self.parts.queue);
        }
    }
}

/// Bytes that removed files below `dir` still take, because this process has them open.
fn held_by_removed_files(dir: &Path) -> u64 {
    let open = fs::read_dir("/proc/self/fd").expect("Linux tells").filter_map(|entry| Some(entry.ok()?.path()));
    let removed = open.filter(|fd| {
        fs::read_link(fd).is_ok_and(|file| file.starts_with(dir) && file.to_string_lossy().ends_with("(deleted)"))
    });
    removed.filter_map(|fd| Some(fs::metadata(fd).ok()?.blocks() * 512)).sum()
}

#[test]
fn a_reader_that_stands_still_holds_no_room_of_what_was_dropped() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let log = dropping(dir.path());
    log.append(100, 5000);
    let mut cursors: Vec<Cursor> = (0..3).map(|i| log.stream.cursor(Start::At(SequenceNumber(1 + 20 * i)))).collect();
    for cursor in &mut cursors {
        assert_eq!(cursor.read(ONE).expect("readable").len(), 1);
    }
    log.append(400, 5000);
    let oldest = log.stream.stats().oldest;
    assert!(oldest > SequenceNumber(100), "{oldest}");
    assert_eq!(held_by_removed_files(dir.path()), 0);
    // They go on at the oldest record that is there.
    for cursor in &mut cursors {
        let mut next = cursor.read(ONE).expect("readable").remove(0).sequence_number;
        while next < oldest {
            // What was decoded before it was dropped.
            next = cursor.read(ONE).expect("readable").remove(0).sequence_number;
        }
        assert_eq!(next, oldest);
    }
    let events = log.events.lock().expect("unpoisoned");
    assert!(events.iter().all(|event| matches!(event, Event::Dropped { .. })), "{events:?}");
}

#[test]
fn who_waits_for_room_gets_it_long_before_the_next_tick() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let clock = ManualClock::new();
    let mut config = store_config(dir.path());
    config.checkpoint_interval = Duration::from_secs(600);
    let store = Store::open(config, clock.clone(), |_| {}).expect("opens");
    let mut config = stream_config("telemetry");
    config.quota = 1 << 20;
    config.consumers.clear();
    let retention = config.retention;
    let stream = store.stream(config).expect("opens");
    let append = |when_full| {
        let mut batch = stream.batch();
        batch.push(&NewRecord::new("key", &[7; LARGE])).expect("a sound record");
        let (tell, told) = mpsc::channel();
        stream.append(batch, when_full, Box::new(move |outcome| _ = tell.send(outcome.is_ok())));
        told
    };
    let in_time = |told: mpsc::Receiver<bool>| told.recv_timeout(DEADLINE).expect("answered");
    while in_time(append(WhenFull::Refuse)) {}
    let waiting = append(WhenFull::Wait);
    // Refused behind it, so it was looked at too, and nothing wakes the committer any more.
    assert!(!in_time(append(WhenFull::Refuse)));
    clock.advance(retention * 2);
    assert!(in_time(waiting));
    store.close();
}

#[test]
fn reading_what_is_being_dropped_is_no_damage() {
    for reads in 0..12 {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let log = Arc::new(dropping(dir.path()));
        // A block of more than is read at once: its header may be read before it goes, and its payload after.
        log.append(12, LARGE);
        let mut cursor = log.stream.cursor(Start::Oldest);
        let dropping = Arc::clone(&log);
        log.disk.before_read.set(reads, move || dropping.append(30, LARGE));
        let mut read = Vec::new();
        while log.disk.before_read.is_set() || read.last() != Some(&SequenceNumber(42)) {
            let records = cursor.read(ONE).expect("readable");
            assert!(!records.is_empty(), "the newest record is there");
            read.extend(records.into_iter().map(|record| record.sequence_number));
        }
        assert!(read.is_sorted() && log.stream.stats().oldest > SequenceNumber(30), "{read:?}");
        let events = log.events.lock().expect("unpoisoned");
        assert!(events.iter().all(|event| matches!(event, Event::Dropped { .. })), "after {reads} reads: {events:?}");
        assert_eq!(log.stream.stats().dropped.damage, 0);
    }
}

#[test]
fn verifying_what_is_being_dropped_finds_no_damage() {
    for reads in 0..40 {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let log = Arc::new(dropping(dir.path()));
        log.append(12, LARGE);
        let dropping = Arc::clone(&log);
        log.disk.before_read.set(reads, move || dropping.append(30, LARGE));
        let report = verify_on(&log.disk, dir.path(), None).expect("a data directory");
        assert!(report.is_sound(), "after {reads} reads: {:?}", report.streams[0].findings);
        log.disk.before_read.set(0, || {});
    }
}
