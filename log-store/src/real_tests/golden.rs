//! The golden data directories of all format versions: opened for ever, with and without their catalogues.
//!
//! `make_golden` writes it, with every clock fixed; the segments that it writes today must be those of the newest golden
//! directory to the byte, except for those that are compressed: there the libraries may get better. After a change of the format the old directory stays as it is, and a new one is made beside it
//! by running the tests once with `FOREBAY_MAKE_GOLDEN` set to where it shall be.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{ByHand, CONSUMER, Opened, close_in_time, copy_dir, drain, open_in_time, store_config, stream_config};
use crate::{
    catalogue::{Catalogue, open_sled},
    clock::manual::ManualClock,
    config::StreamConfig,
    cursor::Start,
    event::Event,
    hash_key::HashKey,
    inspect::{Depth, repair, verify},
    record::{NewRecord, Record, Tag},
    segment::{Codec, FORMAT_VERSION},
    sequence::SequenceNumber,
    shard::{ShardChange, ShardIndex},
    store::Stream,
};

/// The golden directory of a format version.
fn golden(version: u16) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("golden/format-v{version}"))
}

/// Writes a data directory with something of everything, always the same, and what it holds as text.
fn make_golden(dir: &Path) {
    let clock = ManualClock::new();
    let store = ByHand::open(store_config(&dir.join("data")), clock.clone());
    let telemetry = store.stream(stream_config("telemetry"));
    let mut letters = stream_config("telemetry.dead-letters");
    letters.shards = std::num::NonZeroU32::MIN;
    letters.consumers.clear();
    letters.note = "of telemetry".into();
    let letters = store.stream(letters);
    let packed = |compression| store.stream(StreamConfig { compression, ..stream_config("packed") });
    let key = |i: u64| format!("plant/{}/temperature", i % 5);
    let wide = "schlüssel-".repeat(20);
    for round in 0..13u64 {
        let plain: Vec<_> =
            (0..8).map(|i| (key(i), vec![b'a' + (round as u8 + i as u8) % 26; 1500 + 7 * i as usize])).collect();
        let mut records: Vec<_> = plain.iter().map(|(key, data)| NewRecord::new(key, data)).collect();
        let explicit = HashKey((round as u128) << 125);
        records.push(NewRecord { explicit_hash_key: Some(explicit), ..NewRecord::new(&wide, b"") });
        let position = format!("{{\"file\":{round},\"offset\":{}}}", round * 4096);
        let removed = ("tail//var/log/old.log", if round % 2 == 0 { "" } else { "1" });
        store.append_with_marks(&telemetry, &records, &[("tail//var/log/plant.log", &position), removed]);
        let tags = [
            Tag { name: "reason".into(), value: format!("refused {round} times") },
            Tag { name: "destination".into(), value: "cloud".into() },
        ];
        let all_bytes: Vec<u8> = (0..=255).collect();
        let letter = NewRecord { tags: &tags[..round as usize % 3], ..NewRecord::new("dead", &all_bytes) };
        store.append(&letters, &[letter]);
        let compression = [Codec::None, Codec::Lz4, Codec::Zstd][round as usize % 3];
        let first = format!("file {}", round % 4);
        store.append_with_marks(&packed(compression), &records, &[(&first, &position), ("last", &position)]);
        if round == 6 {
            let split = ShardChange::Split { shard: ShardIndex(0), at: HashKey(1 << 120) };
            telemetry.change_shards(split).expect("within the first shard");
        }
        telemetry.save_checkpoint(CONSUMER, SequenceNumber(round * 9));
        telemetry.save_checkpoint("archive", SequenceNumber(round * 3));
        clock.advance(Duration::from_millis(7001));
        store.tick();
    }
    // Many small blocks at the end.
    for i in 0..60 {
        store.append(&telemetry, &[NewRecord::new(&key(i), format!("late {i}").as_bytes())]);
    }
    // Marks without a record, and behind them records without a mark.
    store.append_with_marks(&letters, &[], &[("alone", "1"), ("removed", "2")]);
    store.append_with_marks(&letters, &[], &[("alone", "3"), ("removed", "")]);
    store.append(&letters, &[NewRecord::new("dead", b"the last letter")]);
    let _ = fs::remove_file(dir.join("data/LOCK"));
    fs::write(dir.join("expected.txt"), described_all(&[packed(Codec::Zstd), telemetry, letters])).expect("written");
    store.close();
}

fn described_all(streams: &[Stream]) -> String {
    streams.iter().map(described).collect()
}

/// One line for each record, and what is known of the stream.
fn described(stream: &Stream) -> String {
    let mut text = format!("stream {}\n", stream.name());
    for shard in stream.shards().shards() {
        let _ = writeln!(text, "shard {} {} {} {}", shard.index, shard.first, shard.last, shard.is_open());
    }
    for (consumer, done) in stream.stats().checkpoints {
        let _ = writeln!(text, "checkpoint {consumer} {done}");
    }
    for (name, value) in stream.marks("") {
        let _ = writeln!(text, "mark {name} {}", String::from_utf8_lossy(&value));
    }
    for record in drain(stream.cursor(Start::Oldest)) {
        let Record { sequence_number, shard, arrival, partition_key, explicit_hash_key, tags, data, .. } = &*record;
        let hash_key = explicit_hash_key.map_or("-".into(), |key| key.to_string());
        let tags: Vec<_> = tags.iter().map(|tag| format!("{}={}", tag.name, tag.value)).collect();
        let start: String = data.iter().take(12).map(|byte| format!("{byte:02x}")).collect();
        let _ = writeln!(
            text,
            "{sequence_number} {shard} {arrival} {partition_key} {hash_key} [{}] {} bytes {start} crc {:08x}",
            tags.join(", "),
            data.len(),
            crc32fast::hash(data)
        );
    }
    text
}

/// Opens a copy of the golden directory; says what it holds, and what was told.
fn opened_copy(golden: &Path, catalogue: bool) -> (String, Vec<Event>) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    copy_dir(&golden.join("data"), dir.path());
    if !catalogue {
        fs::remove_dir_all(dir.path().join("catalogue")).expect("removed");
    }
    let mut letters = stream_config("telemetry.dead-letters");
    letters.shards = std::num::NonZeroU32::MIN;
    letters.note = "of telemetry".into();
    let opened = open_in_time(store_config(dir.path()), stream_config("telemetry")).expect("opens");
    let Opened { store, stream, events } = opened;
    let has_packed = store.stream_names().expect("listed").iter().any(|name| name == "packed");
    let packed = has_packed.then(|| store.stream(stream_config("packed")).expect("opens"));
    let letters = store.stream(letters).expect("opens");
    let text = described_all(&packed.into_iter().chain([stream, letters]).collect::<Vec<_>>());
    close_in_time(store);
    (text, events)
}

/// The golden directory of today's version; until it is kept, one that is made now.
fn newest() -> (PathBuf, Option<tempfile::TempDir>) {
    let kept = golden(FORMAT_VERSION);
    if kept.exists() {
        return (kept, None);
    }
    let made = tempfile::tempdir().expect("a temporary directory");
    make_golden(made.path());
    (made.path().to_owned(), Some(made))
}

/// Opens, reads and verifies a golden directory.
fn check_golden(golden: &Path, version: u16, streams: usize) {
    let expected = fs::read_to_string(golden.join("expected.txt")).expect("read");
    assert!(expected.lines().count() > 115);
    let (text, events) = opened_copy(golden, true);
    assert_eq!(text, expected);
    assert_eq!(events, []);
    let (text, events) = opened_copy(golden, false);
    // Checkpoints are those of the last control block, which the clean stop wrote.
    assert_eq!(text, expected);
    assert!(matches!(events.as_slice(), [Event::CatalogueRebuilt { set_aside: None, .. }]), "{events:?}");
    let report = verify(&golden.join("data"), None, Depth::Records).expect("readable");
    assert!(report.is_sound() && report.streams.iter().all(|stream| stream.findings.is_empty()), "{report:?}");
    let formats: Vec<_> = report.streams.iter().map(|stream| stream.format).collect();
    assert_eq!(formats, vec![Some(version); streams]);
    let telemetry = report.streams.iter().find(|stream| stream.name == "telemetry").expect("there");
    assert!(telemetry.segments > 2 && telemetry.control_blocks > 3);
}

#[test]
fn every_golden_directory_reads_as_it_was_written() {
    if let Ok(to) = std::env::var("FOREBAY_MAKE_GOLDEN") {
        make_golden(Path::new(&to));
    }
    check_golden(&golden(1), 1, 2);
    check_golden(&golden(2), 2, 3);
    check_golden(&newest().0, FORMAT_VERSION, 3);
}

#[test]
fn a_log_of_version_1_goes_on_in_segments_of_today() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    copy_dir(&golden(1).join("data"), dir.path());
    let store = ByHand::open(store_config(dir.path()), ManualClock::new());
    let stream = store.stream(stream_config("telemetry"));
    let before = drain(stream.cursor(Start::Oldest));
    store.append(&stream, &[NewRecord::new("new", &[7; 1000])]);
    let all = drain(stream.cursor(Start::Oldest));
    assert_eq!((&all[..before.len()], all.len()), (&before[..], before.len() + 1));
    store.close();
    let report = verify(dir.path(), None, Depth::Records).expect("readable");
    let telemetry = report.streams.iter().find(|stream| stream.name == "telemetry").expect("there");
    assert_eq!((telemetry.format, telemetry.findings.as_slice()), (Some(FORMAT_VERSION), &[][..]));
    // No older program takes the compressed block for damage: it refuses the segment, and the catalogue, by name.
    let kv = open_sled(&dir.path().join("catalogue")).expect("opens");
    assert_eq!(kv.get(b"format").expect("readable"), Some(vec![3]));
}

#[test]
fn a_damaged_log_of_version_1_is_mended_and_opens_with_its_old_catalogue() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    copy_dir(&golden(1).join("data"), dir.path());
    let path = dir.path().join("streams/telemetry/00000000000000000046.seg");
    let mut bytes = fs::read(&path).expect("read");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&path, &bytes).expect("written");
    let found = verify(dir.path(), Some("telemetry"), Depth::Records).expect("readable");
    let lost = found.streams[0].findings[0].records.clone().expect("its block is known");
    assert_eq!(repair(dir.path(), None, false).expect("closed").mended[0].lost, std::slice::from_ref(&lost));
    let found = verify(dir.path(), None, Depth::Records).expect("readable");
    assert!(found.streams.iter().all(|stream| stream.findings.is_empty()), "{found:?}");
    let opened = open_in_time(store_config(dir.path()), stream_config("telemetry")).expect("opens");
    let whole = fs::read_to_string(golden(1).join("expected.txt")).expect("read");
    let is_lost = |line: &&str| {
        let number = line.split(' ').next().and_then(|number| number.parse().ok().map(SequenceNumber));
        number.is_some_and(|number| lost.contains(&number))
    };
    let of_stream = whole.split("stream telemetry.dead-letters").next().expect("a first part");
    let expected: Vec<_> = of_stream.lines().filter(|line| !is_lost(line)).collect();
    assert_eq!(described(&opened.stream).lines().collect::<Vec<_>>(), expected);
    assert!(expected.len() < of_stream.lines().count());
    drop(opened.stream);
    close_in_time(opened.store);
}

#[test]
fn what_is_written_today_is_the_golden_format() {
    let made = tempfile::tempdir().expect("a temporary directory");
    make_golden(made.path());
    let segments = |dir: &Path| {
        let mut found = Vec::new();
        for stream in ["telemetry", "telemetry.dead-letters"] {
            for entry in fs::read_dir(dir.join("data/streams").join(stream)).expect("listed") {
                let path = entry.expect("listed").path();
                let bytes = fs::read(&path).expect("read");
                found.push((stream, path.file_name().expect("a file").to_owned(), bytes));
            }
        }
        found.sort();
        found
    };
    let (golden, _made) = newest();
    let (made_now, golden_ones) = (segments(made.path()), segments(&golden));
    for (now, then) in made_now.iter().zip(&golden_ones) {
        assert_eq!((now.0, &now.1), (then.0, &then.1));
        assert!(now.2 == then.2, "{}/{} has other bytes", now.0, now.1.display());
    }
    assert_eq!(made_now.len(), golden_ones.len());
    let expected = |dir: &Path| fs::read_to_string(dir.join("expected.txt")).expect("read");
    assert_eq!(expected(made.path()), expected(&golden));
    // sled's files are its own business; what stands in them is ours. Sizes of compressed segments are not.
    let entries = |dir: &Path| {
        let copy = tempfile::tempdir().expect("a temporary directory");
        copy_dir(&dir.join("data/catalogue"), copy.path());
        let kv = open_sled(copy.path()).expect("opens");
        let mut entries = kv.scan(b"").expect("readable");
        assert!(!Catalogue::new(kv).expect("readable").expect("a known version").is_new);
        entries.retain(|(key, _)| !key[1..].starts_with(b"/packed"));
        entries
    };
    assert!(entries(made.path()) == entries(&golden), "the catalogue has other entries");
}
