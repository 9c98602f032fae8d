//! Several threads append while several read: no gap, no duplicate, order kept, and nothing seen before it is durable.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, atomic::Ordering, mpsc},
    thread,
    time::{Duration, Instant},
};

use super::{DEADLINE, store_config, stream_config, watched_disk::WatchedDisk};
use crate::{
    catalogue::open_sled,
    clock::manual::ManualClock,
    committer::{self, Pace},
    cursor::{Cursor, ReadLimit, Start},
    queue::Queue,
    record::{NewRecord, Record},
    sequence::SequenceNumber,
    store::{Parts, Stream, WhenFull},
};

const PRODUCERS: usize = 4;
const BATCHES: usize = 120;
const PER_BATCH: usize = 10;
const TOTAL: usize = PRODUCERS * BATCHES * PER_BATCH;

/// Keeps three batches in flight; returns the numbers that it was told, by data.
fn produce(stream: &Stream, producer: usize) -> BTreeMap<String, SequenceNumber> {
    let (tell, told) = mpsc::channel();
    let mut numbers = BTreeMap::new();
    let mut in_flight = 0;
    let mut take = |in_flight: &mut usize| {
        let (names, appended): (Vec<(_, String)>, crate::Appended) =
            told.recv_timeout(DEADLINE).expect("every append is answered");
        let mut next: BTreeMap<_, _> = appended.runs.iter().map(|run| (run.shard, run.first)).collect();
        for (shard, name) in names {
            let number = next.get_mut(&shard).expect("its shard");
            numbers.insert(name, *number);
            *number = number.next();
        }
        *in_flight -= 1;
    };
    for batch_number in 0..BATCHES {
        let mut batch = stream.batch();
        let mut names = Vec::new();
        for i in 0..PER_BATCH {
            let key = format!("producer {producer} key {}", i % 3);
            let data = format!("{producer}/{}", batch_number * PER_BATCH + i);
            let shard = batch.push(&NewRecord::new(&key, data.as_bytes())).expect("sound");
            names.push((shard, data));
        }
        let tell = tell.clone();
        let done = move |outcome: Result<_, crate::Refused>| {
            tell.send((names, outcome.unwrap_or_else(|refused| panic!("{refused}")))).expect("awaited");
        };
        stream.append(batch, WhenFull::Wait, Box::new(done));
        in_flight += 1;
        if in_flight == 3 {
            take(&mut in_flight);
        }
    }
    while in_flight > 0 {
        take(&mut in_flight);
    }
    numbers
}

/// Reads until it has `count` records, or for a shard until `end` is behind it; checks that each was durable.
fn consume(mut cursor: Cursor, disk: &WatchedDisk, is_done: impl Fn(&Cursor, usize) -> bool) -> Vec<Arc<Record>> {
    let mut all: Vec<Arc<Record>> = Vec::new();
    let deadline = Instant::now() + DEADLINE;
    while !is_done(&cursor, all.len()) {
        let some = cursor.read(ReadLimit { records: 17, payload_bytes: 1 << 20 }).expect("readable");
        let durable_end = disk.counts.durable_end.load(Ordering::SeqCst);
        for record in some {
            assert!(record.sequence_number.0 < durable_end, "{} was seen before its sync", record.sequence_number);
            all.push(record);
        }
        assert!(Instant::now() < deadline, "{} of the records came", all.len());
        thread::yield_now();
    }
    all
}

struct CloseOnDrop(Arc<Queue>);

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        self.0.close();
    }
}

#[test]
fn readers_beside_writers_see_everything_once_in_order_and_durable() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let disk = WatchedDisk { sync_takes: Duration::from_micros(300), ..WatchedDisk::default() };
    let config = store_config(dir.path());
    let events = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&events);
    let parts = Parts::open(
        &config,
        Arc::new(disk.clone()),
        &open_sled,
        ManualClock::new(),
        Arc::new(move |event| heard.lock().expect("unpoisoned").push(event)),
    )
    .expect("opens");
    let stream = parts.stream(&config, stream_config("telemetry")).expect("opens");
    let finished = SequenceNumber(TOTAL as u64);
    thread::scope(|scope| {
        let (writers, queue) = (Arc::clone(&parts.writers), Arc::clone(&parts.queue));
        let pace = Pace { commit_delay: Duration::ZERO, tick: Duration::from_millis(5) };
        parts.around.answers.gather();
        let answers = parts.around.answers.clone();
        scope.spawn(move || answers.tell_all());
        scope.spawn(move || committer::run(&writers, &queue, pace));
        // Whatever fails below, the threads above end.
        let _closing = CloseOnDrop(Arc::clone(&parts.queue));
        let producers: Vec<_> = (0..PRODUCERS)
            .map(|producer| {
                let stream = stream.clone();
                scope.spawn(move || produce(&stream, producer))
            })
            .collect();
        let whole: Vec<_> = (0..2)
            .map(|_| (stream.cursor(Start::Oldest), disk.clone()))
            .map(|(cursor, disk)| scope.spawn(move || consume(cursor, &disk, |_, count| count == TOTAL)))
            .collect();
        let shards = stream.shards();
        let by_shard: Vec<_> = shards
            .shards()
            .iter()
            .map(|shard| (stream.shard_cursor(shard.index, Start::Oldest), disk.clone()))
            .map(|(cursor, disk)| scope.spawn(move || consume(cursor, &disk, |cursor, _| cursor.position() > finished)))
            .collect();

        let mut acknowledged = BTreeMap::new();
        for producer in producers {
            acknowledged.extend(producer.join().expect("no panic"));
        }
        let reads: Vec<Vec<Arc<Record>>> = whole.into_iter().map(|reader| reader.join().expect("no panic")).collect();
        let mut of_shards: Vec<Arc<Record>> =
            by_shard.into_iter().flat_map(|reader| reader.join().expect("no panic")).collect();

        assert_eq!(acknowledged.len(), TOTAL);
        for read in &reads {
            assert!(read.iter().map(|record| record.sequence_number.0).eq(1..=TOTAL as u64), "no gap, no duplicate");
            let mut newest: BTreeMap<&str, usize> = BTreeMap::new();
            for record in read {
                let data = str::from_utf8(&record.data).expect("as appended");
                assert_eq!(acknowledged[data], record.sequence_number);
                let (_, count) = data.split_once('/').expect("as appended");
                let count: usize = count.parse().expect("as appended");
                if let Some(before) = newest.insert(&record.partition_key, count) {
                    assert!(before < count, "order of {}", record.partition_key);
                }
            }
        }
        of_shards.sort_by_key(|record| record.sequence_number);
        assert!(of_shards == reads[0], "the shards together are the stream");
    });
    assert_eq!(*events.lock().expect("unpoisoned"), []);
}
