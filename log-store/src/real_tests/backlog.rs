//! A large backlog: what opening it and reading in its middle touch does not grow with it.

use std::{
    fs,
    sync::{Arc, atomic::Ordering},
};

use super::{ByHand, CONSUMER, drain, store_config, stream_config, watched_disk::WatchedDisk};
use crate::{
    clock::manual::ManualClock,
    config::StoreConfig,
    cursor::{ReadLimit, Start},
    inspect::{Depth, verify},
    record::NewRecord,
    sequence::SequenceNumber,
};

const GIB: u64 = 1 << 30;
const RECORD_BYTES: usize = 8 << 10;
const RECORDS_PER_BLOCK: u64 = 32;

#[test]
fn opening_a_gibibyte_reads_a_few_hundred_kibibytes() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let disk = WatchedDisk::default();
    let open = || ByHand::open_on(Arc::new(disk.clone()), StoreConfig::new(dir.path()), ManualClock::new());
    let mut config = stream_config("telemetry");
    config.quota = 2 * GIB;
    let store = open();
    let stream = store.stream(config.clone());
    let mut random = fastrand::Rng::with_seed(1);
    let data: Vec<u8> = std::iter::repeat_with(|| random.u8(..)).take(RECORD_BYTES).collect();
    let keys: Vec<String> = (0..RECORDS_PER_BLOCK).map(|i| format!("key-{i}")).collect();
    let records: Vec<_> = keys.iter().map(|key| NewRecord::new(key, &data)).collect();
    while stream.stats().disk_bytes < GIB {
        store.append(&stream, &records);
    }
    stream.save_checkpoint(CONSUMER, SequenceNumber(1000));
    store.close();
    let next = stream.stats().next;
    drop(stream);

    for catalogue in [true, false] {
        if !catalogue {
            fs::remove_dir_all(dir.path().join("catalogue")).expect("removed");
        }
        disk.take_bytes_read();
        disk.counts.opened.store(0, Ordering::SeqCst);
        let store = if catalogue {
            open()
        } else {
            let events = Arc::new(|_| {});
            let config = StoreConfig::new(dir.path());
            let disk = Arc::new(disk.clone());
            let parts = crate::store::Parts::open(&config, disk, &super::open_sled, ManualClock::new(), events);
            ByHand { parts: parts.expect("opens"), config }
        };
        let stream = store.stream(config.clone());
        let (read, segments) = (disk.take_bytes_read(), stream.stats().segments as u64);
        assert_eq!(stream.stats().next, next);
        assert_eq!(stream.checkpoint(CONSUMER), SequenceNumber(1000));
        assert!(segments > 120);
        // With it: the last segment behind its newest index entry, and nothing of the others. Without: the last one
        // whole, and a header of each.
        let most = if catalogue { 1536 << 10 } else { (9 << 20) + segments * 1024 };
        assert!(read <= most, "catalogue {catalogue}: {read} bytes read");
        assert!(disk.counts.opened.load(Ordering::SeqCst) <= 3 * segments);

        // A cursor in the middle finds its place by the index.
        if catalogue {
            let middle = SequenceNumber(next.0 / 2);
            let mut cursor = stream.cursor(Start::At(middle));
            let record = &cursor.read(ReadLimit { records: 1, payload_bytes: 1 }).expect("readable")[0];
            assert_eq!(record.sequence_number, middle);
            let read = disk.take_bytes_read();
            assert!(read <= 3 << 20, "{read} bytes read for one record");
        }
        store.close();
    }
    let report = verify(dir.path(), None, Depth::Records).expect("readable");
    assert!(report.is_sound() && report.streams[0].records == next.0 - 1, "{report:?}");
}

#[test]
fn a_log_of_hundreds_of_segments_keeps_a_handful_of_files_open() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let disk = WatchedDisk::default();
    let open = || ByHand::open_on(Arc::new(disk.clone()), store_config(dir.path()), ManualClock::new());
    let store = open();
    let stream = store.stream(stream_config("telemetry"));
    let mut random = fastrand::Rng::with_seed(1);
    let data: Vec<u8> = std::iter::repeat_with(|| random.u8(..)).take(60_000).collect();
    while stream.stats().segments < 300 {
        store.append(&stream, &[NewRecord::new("key", &data)]);
    }
    store.close();
    drop(stream);
    let store = open();
    let stream = store.stream(stream_config("telemetry"));
    assert_eq!(drain(stream.cursor(Start::Oldest)).len(), drain(stream.cursor(Start::Oldest)).len());
    let report = verify(dir.path(), None, Depth::Records).expect("readable");
    assert!(report.is_sound() && report.streams[0].segments >= 300);
    store.close();
    let most = disk.counts.open_most.load(Ordering::SeqCst);
    assert!(most <= 8, "{most} files open at once");
}
