//! sled missing, stale by any number of operations, or corrupt: the log opens, says so, and loses no record.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tempfile::TempDir;

use super::{ByHand, CONSUMER, Opened, close_in_time, copy_dir, drain, open_in_time, store_config, stream_config};
use crate::{
    catalogue::{Catalogue, open_sled},
    clock::manual::ManualClock,
    cursor::Start,
    event::Event,
    record::NewRecord,
    sequence::SequenceNumber,
    store::WhenFull,
};

const RECORDS: u64 = 60 * 5;

/// A finished workload, and its catalogue as it was at many moments.
struct History {
    dir: TempDir,
    /// Relative to the directory.
    catalogues: Vec<PathBuf>,
    /// The checkpoint that certainly rides in a control block.
    in_log: SequenceNumber,
    /// The furthest checkpoint there ever was.
    furthest: SequenceNumber,
}

fn data(number: u64) -> Vec<u8> {
    let mut data = format!("record {number} ").into_bytes();
    data.resize(1000 + (number as usize * 37) % 3000, b'.');
    data
}

fn history() -> History {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let clock = ManualClock::new();
    let store = ByHand::open(store_config(&dir.path().join("log")), Arc::clone(&clock));
    let stream = store.stream(stream_config("telemetry"));
    let mut catalogues = Vec::new();
    for round in 0..60u64 {
        let records: Vec<_> = (1..=5).map(|i| (format!("key-{i}"), data(round * 5 + i))).collect();
        let records: Vec<_> = records.iter().map(|(key, data)| NewRecord::new(key, data)).collect();
        store.append(&stream, &records);
        stream.save_checkpoint(CONSUMER, SequenceNumber(round * 4));
        clock.advance(Duration::from_secs(4));
        store.tick();
        // The first flush comes with the first checkpoint.
        if round % 3 == 1 {
            let copy = PathBuf::from(format!("catalogue-{round}"));
            copy_dir(&dir.path().join("log/catalogue"), &dir.path().join(&copy));
            catalogues.push(copy);
        }
    }
    store.close();
    catalogues.push("log/catalogue".into());
    // The close writes the last one into the log.
    let furthest = SequenceNumber(59 * 4);
    assert!(fs::read_dir(dir.path().join("log/streams/telemetry")).expect("listed").count() > 8);
    History { dir, catalogues, in_log: furthest, furthest }
}

impl History {
    /// A data directory of its own, with this catalogue.
    fn with(&self, catalogue: Option<&Path>) -> TempDir {
        let copy = tempfile::tempdir().expect("a temporary directory");
        copy_dir(&self.dir.path().join("log/streams"), &copy.path().join("streams"));
        if let Some(catalogue) = catalogue {
            copy_dir(&self.dir.path().join(catalogue), &copy.path().join("catalogue"));
        }
        copy
    }

    /// Opens it, finds every record and the checkpoint, goes on, and opens again.
    fn check(&self, dir: &TempDir, what: &str) -> Vec<Event> {
        let opened = open_in_time(store_config(dir.path()), stream_config("telemetry"));
        let Opened { store, stream, events } = opened.unwrap_or_else(|error| panic!("{what}: {error}"));
        let read = drain(stream.cursor(Start::Oldest));
        assert_eq!(read.len() as u64, RECORDS, "{what}");
        for (record, number) in read.iter().zip(1..) {
            assert_eq!(record.sequence_number.0, number, "{what}");
        }
        let mut found: Vec<_> = read.iter().map(|record| record.data.to_vec()).collect();
        let mut sent: Vec<_> = (1..=RECORDS).map(data).collect();
        found.sort();
        sent.sort();
        assert!(found == sent, "{what}: other data");
        let checkpoint = stream.checkpoint(CONSUMER);
        assert!(self.in_log <= checkpoint && checkpoint <= self.furthest, "{what}: checkpoint {checkpoint}");
        let mut batch = stream.batch();
        batch.push(&NewRecord::new("key", b"fresh")).expect("sound");
        let (tell, told) = std::sync::mpsc::channel();
        stream.append(batch, WhenFull::Refuse, Box::new(move |outcome| tell.send(outcome).expect("awaited")));
        let appended = told.recv_timeout(super::DEADLINE).expect("answered").expect("taken");
        assert_eq!(appended.runs[0].first.0, RECORDS + 1, "{what}");
        // Who still holds a stream does not hold the directory.
        close_in_time(store);
        let again = open_in_time(store_config(dir.path()), stream_config("telemetry"));
        let Opened { store, stream, events: told_again } = again.unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!(drain(stream.cursor(Start::Oldest)).len() as u64, RECORDS + 1, "{what}");
        assert_eq!(told_again, [], "{what}: told once");
        drop(stream);
        close_in_time(store);
        events
    }
}

fn is_rebuilt(events: &[Event]) -> bool {
    events.iter().any(|event| matches!(event, Event::CatalogueRebuilt { .. } | Event::CatalogueBehind { .. }))
}

/// Whether what was there is kept for a look.
fn is_set_aside(events: &[Event]) -> bool {
    let kept = |event: &Event| matches!(event, Event::CatalogueRebuilt { set_aside: Some(path), .. } if path.is_dir());
    events.iter().any(kept)
}

#[test]
fn a_missing_or_empty_catalogue_is_rebuilt_and_told() {
    let history = history();
    let gone = history.with(None);
    assert!(is_rebuilt(&history.check(&gone, "missing")));
    let empty = history.with(None);
    fs::create_dir(empty.path().join("catalogue")).expect("mkdir");
    assert!(is_rebuilt(&history.check(&empty, "an empty directory")));
    let file = history.with(None);
    fs::write(file.path().join("catalogue"), b"not a directory").expect("written");
    assert!(is_rebuilt(&history.check(&file, "a file")));
}

#[test]
fn a_stale_catalogue_costs_nothing() {
    let history = history();
    assert!(history.catalogues.len() > 15);
    for catalogue in &history.catalogues {
        let dir = history.with(Some(catalogue));
        let events = history.check(&dir, &catalogue.display().to_string());
        assert_eq!(events, [], "{}: usable, only old", catalogue.display());
    }
}

/// The files of a catalogue, with paths relative to it.
fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).expect("listed") {
        let entry = entry.expect("listed");
        let name = PathBuf::from(entry.file_name());
        match entry.file_type().expect("known").is_dir() {
            true => found.extend(files(&entry.path()).into_iter().map(|inner| name.join(inner))),
            false => found.push(name),
        }
    }
    found.sort();
    found
}

/// Whether a catalogue can be opened and holds what is its own, by its own means.
fn is_usable(catalogue: &Path) -> bool {
    let copy = tempfile::tempdir().expect("a temporary directory");
    copy_dir(catalogue, &copy.path().join("catalogue"));
    let opened = open_sled(&copy.path().join("catalogue")).and_then(Catalogue::new);
    opened.is_ok_and(|catalogue| {
        catalogue.is_ok_and(|catalogue| {
            let reads = catalogue.stream("telemetry").is_ok()
                && catalogue.segments("telemetry").is_ok()
                && catalogue.checkpoints("telemetry").is_ok()
                && catalogue.drops("telemetry").is_ok();
            !catalogue.is_new && reads
        })
    })
}

fn damage_each(history: &History, what: &str, damage: impl Fn(&mut Vec<u8>) -> bool) -> usize {
    let newest = history.catalogues.last().expect("some");
    let mut unusable = 0;
    for file in files(&history.dir.path().join(newest)) {
        let dir = history.with(Some(newest));
        let path = dir.path().join("catalogue").join(&file);
        let mut bytes = fs::read(&path).expect("read");
        if !damage(&mut bytes) {
            continue;
        }
        fs::write(&path, bytes).expect("written");
        let usable = is_usable(&dir.path().join("catalogue"));
        let what = format!("{what}: {}", file.display());
        let events = history.check(&dir, &what);
        assert!(usable || is_set_aside(&events), "{what}: not told: {events:?}");
        unusable += usize::from(!usable);
    }
    unusable
}

#[test]
fn a_truncated_catalogue_is_survived() {
    let history = history();
    let mut unusable = 0;
    for percent in [0usize, 1, 30, 60, 90, 99] {
        unusable += damage_each(&history, &format!("cut to {percent} %"), |bytes| {
            let len = bytes.len() * percent / 100;
            let shorter = len < bytes.len();
            bytes.truncate(len);
            shorter
        });
    }
    assert!(unusable > 0, "the damage does something");
}

#[test]
fn a_catalogue_of_garbage_is_survived() {
    let history = history();
    let mut unusable = 0;
    for seed in 0..4 {
        unusable += damage_each(&history, &format!("garbage {seed}"), |bytes| {
            let mut random = fastrand::Rng::with_seed(seed);
            bytes.fill_with(|| random.u8(..));
            !bytes.is_empty()
        });
    }
    assert!(unusable > 0, "the damage does something");
}

#[test]
fn flipped_bytes_in_a_catalogue_are_survived() {
    let history = history();
    let mut unusable = 0;
    for seed in 0..40 {
        unusable += damage_each(&history, &format!("flip {seed}"), |bytes| {
            let mut random = fastrand::Rng::with_seed(seed);
            // Most of a sled file is padding; what is not zero is what matters.
            let live: Vec<_> = (0..bytes.len()).filter(|at| bytes[*at] != 0).collect();
            let Some(at) = random.choice(&live) else { return false };
            bytes[*at] ^= random.u8(1..);
            true
        });
    }
    assert!(unusable > 0, "the damage does something");
}

#[test]
fn a_catalogue_without_one_of_its_files_is_survived() {
    let history = history();
    let newest = history.catalogues.last().expect("some");
    for file in files(&history.dir.path().join(newest)) {
        let dir = history.with(Some(newest));
        fs::remove_file(dir.path().join("catalogue").join(&file)).expect("removed");
        let usable = is_usable(&dir.path().join("catalogue"));
        let events = history.check(&dir, &format!("without {}", file.display()));
        assert!(usable || is_rebuilt(&events), "{}: not told", file.display());
    }
}
