//! Damage anywhere in a data directory, sled's files included: what the segments still hold is what is served.

use std::{collections::BTreeMap, fs, ops::ControlFlow, path::PathBuf, sync::Arc, time::Duration};

use super::{ByHand, CONSUMER, close_in_time, copy_dir, drain, open_in_time, store_config, stream_config};
use crate::{
    clock::manual::ManualClock,
    cursor::Start,
    inspect::{Depth, Dumped, dump, repair, verify},
    record::{NewRecord, Record},
    sequence::SequenceNumber,
};

fn files(dir: &std::path::Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).expect("listed") {
        let path = entry.expect("listed").path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

/// What the segments alone say.
fn dumped(dir: &std::path::Path) -> BTreeMap<SequenceNumber, Arc<Record>> {
    let mut records = BTreeMap::new();
    let show = |shown| {
        if let Dumped::Record(record) = shown {
            records.insert(record.sequence_number, record);
        }
        ControlFlow::Continue(())
    };
    dump(dir, "telemetry", SequenceNumber::ZERO, None, show).expect("readable");
    records
}

fn hit(random: &mut fastrand::Rng, path: &std::path::Path) {
    let mut bytes = fs::read(path).expect("read");
    if bytes.is_empty() {
        return;
    }
    let at = random.usize(..bytes.len());
    match random.u8(..5) {
        0 | 1 => bytes[at] ^= 1 << random.u8(..8),
        2 | 3 => {
            let end = bytes.len().min(at / 512 * 512 + 512);
            bytes[at / 512 * 512..end].fill(0);
        }
        _ => bytes.truncate(at),
    }
    fs::write(path, bytes).expect("written");
}

#[test]
fn damage_in_any_file_costs_no_sound_record() {
    let sound = tempfile::tempdir().expect("a temporary directory");
    let clock = ManualClock::new();
    let store = ByHand::open(store_config(sound.path()), clock.clone());
    let stream = store.stream(stream_config("telemetry"));
    for round in 0..40u64 {
        let data = vec![b'.'; 700 * (1 + round as usize % 9)];
        let records: Vec<_> = (0..4).map(|i| (format!("key-{i}"), &data)).collect();
        let records: Vec<_> = records.iter().map(|(key, data)| NewRecord::new(key, data)).collect();
        store.append(&stream, &records);
        stream.save_checkpoint(CONSUMER, SequenceNumber(round * 2));
        clock.advance(Duration::from_secs(4));
        store.tick();
    }
    drop(stream);
    store.close();
    assert!(verify(sound.path(), None, Depth::Records).expect("readable").is_sound());
    let written = dumped(sound.path());
    assert_eq!(written.len(), 160);

    for seed in 0..60 {
        let mut random = fastrand::Rng::with_seed(seed);
        let dir = tempfile::tempdir().expect("a temporary directory");
        copy_dir(sound.path(), dir.path());
        let files = files(dir.path());
        for _ in 0..random.usize(1..8) {
            let file = &files[random.usize(..files.len())];
            hit(&mut random, file);
        }
        let expected = dumped(dir.path());
        assert!(expected.len() > 30 && expected.iter().all(|(number, record)| written[number] == *record));
        if seed % 3 == 0 {
            let report = repair(dir.path(), None, false).expect("it is closed");
            assert_eq!(report.left, [], "seed {seed}");
            assert!(verify(dir.path(), None, Depth::Records).expect("readable").is_sound(), "seed {seed}");
        }
        for _ in 0..2 {
            let opened = open_in_time(store_config(dir.path()), stream_config("telemetry"));
            let opened = opened.unwrap_or_else(|error| panic!("seed {seed}: {error}"));
            let served = drain(opened.stream.cursor(Start::Oldest));
            assert!(served.iter().eq(expected.values()), "seed {seed}");
            drop(opened.stream);
            close_in_time(opened.store);
        }
    }
}
