//! Marks: named values that are committed with records, and stand or fall with them.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use super::{CatalogueFound, DIR, Simulation};
use crate::{
    config::{Durability, StreamConfig},
    disk::{Disk, sim::Fault},
    error::{Error, Refused},
    inspect::{repair_on, stats_on, verify_on},
    marks::MARKS_MAX,
    record::NewRecord,
    segment::{BLOCK_HEADER_BYTES, BlockHeader, BlockKind, Found, SegmentHeader, SegmentReader, salt},
    shard::ShardChange,
    store::WhenFull,
};

/// What the batch that ends with this record sets: one mark always, others now and then, which are also removed.
pub(super) fn of_batch(issued: u64) -> Vec<(String, Vec<u8>)> {
    let value = issued.to_string().into_bytes();
    let mut marks = vec![("position".to_owned(), value.clone())];
    if issued.is_multiple_of(3) {
        let removed = issued.is_multiple_of(2);
        marks.push((format!("file {}", issued % 7), if removed { Vec::new() } else { value }));
    }
    marks
}

pub(super) fn apply(marks: &mut BTreeMap<String, Vec<u8>>, changes: Vec<(String, Vec<u8>)>) {
    marks.extend(changes);
    marks.retain(|_, value| !value.is_empty());
}

impl Simulation {
    /// Sets a mark without a record.
    pub(super) fn set_mark(&mut self, name: &str, value: &[u8]) -> Result<(), Refused> {
        let mut batch = self.stream().batch();
        batch.set_mark(name, value).expect("a sound mark");
        let told = Arc::new(Mutex::new(None));
        let tell = Arc::clone(&told);
        let done = Box::new(move |outcome| *tell.lock().expect("unpoisoned") = Some(outcome));
        self.stream().append(batch, WhenFull::Refuse, done);
        self.commit_queued();
        let outcome = told.lock().expect("unpoisoned").take().expect("every append is answered");
        let marks = vec![(name.to_owned(), value.to_vec())];
        match &outcome {
            Ok(appended) => {
                assert_eq!(appended.runs, []);
                apply(&mut self.marks, marks);
            }
            Err(Refused { error: Error::Full { .. } | Error::TooManyMarks { .. }, .. }) => {}
            Err(_) => self.marks_in_doubt = marks,
        }
        outcome.map(drop)
    }

    /// The marks are those of the newest batches that survived: of the one in doubt exactly if its records did.
    pub(super) fn judge_marks(&mut self, has_survived: bool) {
        let in_doubt = std::mem::take(&mut self.marks_in_doubt);
        let mut with = self.marks.clone();
        apply(&mut with, in_doubt);
        let found: BTreeMap<_, _> = self.stream().marks("").into_iter().collect();
        let survived = has_survived || self.in_doubt.is_empty() && found == with;
        let expected = if survived { with } else { std::mem::take(&mut self.marks) };
        assert_eq!(found, expected, "the marks; the commit in doubt has survived: {has_survived}");
        for (name, value) in &found {
            assert_eq!(self.stream().mark(name).as_ref(), Some(value));
        }
        self.marks = found;
    }
}

const CATALOGUES: [CatalogueFound; 4] =
    [CatalogueFound::Newest, CatalogueFound::Stale(0), CatalogueFound::Stale(5), CatalogueFound::Lost];

fn opened() -> Simulation {
    let mut sim = Simulation::new(11);
    sim.with_marks = true;
    sim.open().expect("an empty disk");
    sim
}

fn power_cut(sim: &mut Simulation, catalogue: CatalogueFound) {
    sim.power_cut(catalogue);
    sim.open().expect("it opens");
}

fn position(sim: &Simulation) -> Option<String> {
    sim.stream().mark("position").map(|value| String::from_utf8(value).expect("digits"))
}

/// The blocks of the newest segment: where each is, and what its header says.
fn newest_blocks(sim: &Simulation) -> (std::path::PathBuf, Vec<(u64, BlockHeader)>) {
    let (path, len) = sim.segments().pop().expect("a segment");
    let file = sim.disk.open_read(&path).expect("there");
    let header = SegmentHeader::read(file.as_ref(), &path).expect("sound");
    let salt = salt(header.definition.id, header.first);
    let mut reader = SegmentReader::new(file, salt, header.encoded_len());
    let mut blocks = Vec::new();
    while let Found::Block { offset, header } = reader.next(len).expect("readable") {
        blocks.push((offset, header));
    }
    (path, blocks)
}

#[test]
fn a_mark_outlives_the_segments_of_its_records() {
    for catalogue in CATALOGUES {
        let mut sim = opened();
        sim.set_mark("once", b"1").expect("room");
        for _ in 0..40 {
            sim.append(5, 9000).expect("room");
            sim.save_checkpoint(sim.newest());
            sim.clock.advance(Duration::from_secs(150));
            sim.tick();
        }
        assert!(sim.stream().stats().oldest.0 > 100, "its segment is gone");
        power_cut(&mut sim, catalogue);
        sim.check();
        assert_eq!(sim.stream().mark("once").as_deref(), Some(&b"1"[..]));
        assert_eq!(position(&sim).as_deref(), Some("200"));
    }
}

#[test]
fn a_damaged_head_of_the_newest_segment_takes_no_mark() {
    for catalogue in CATALOGUES {
        for with_repair in [false, true] {
            let mut sim = opened();
            sim.set_mark("once", b"1").expect("room");
            for _ in 0..9 {
                sim.append(5, 9000).expect("room");
            }
            let (path, blocks) = newest_blocks(&sim);
            assert!(sim.segments().len() > 2 && blocks[0].1.kind == BlockKind::Control);
            sim.power_cut(catalogue);
            let at = blocks[0].0 as usize + BLOCK_HEADER_BYTES + 1;
            sim.disk.damage(&path, |bytes| bytes[at] ^= 1);
            if with_repair {
                repair_on(&sim.disk, std::path::Path::new(DIR), None, false).expect("closed");
            }
            sim.open().expect("it opens");
            sim.check();
            // From now on it does not rely on the segments before it.
            sim.clock.advance(Duration::from_secs(20));
            sim.tick();
            for (path, _) in sim.segments().iter().filter(|(other, _)| *other != path) {
                sim.disk.damage(path, |bytes| bytes.fill(0));
            }
            let marks = sim.stream().marks("");
            power_cut(&mut sim, CatalogueFound::Lost);
            assert_eq!(sim.stream().marks(""), marks);
        }
    }
}

#[test]
fn where_a_block_is_damaged_the_newest_sound_one_counts() {
    for catalogue in CATALOGUES {
        for (damaged, expected) in [(1, "24"), (3, "24"), (4, "18")] {
            let mut sim = opened();
            for _ in 0..4 {
                sim.append(6, 2000).expect("room");
            }
            let (path, blocks) = newest_blocks(&sim);
            assert_eq!((blocks.len(), sim.segments().len()), (5, 1));
            sim.power_cut(catalogue);
            let at = blocks[damaged].0 as usize + 200;
            sim.disk.damage(&path, |bytes| bytes[at] ^= 1);
            sim.open().expect("it opens");
            assert_eq!(position(&sim).as_deref(), Some(expected), "block {damaged}, {catalogue:?}");
        }
    }
}

#[test]
fn looking_from_outside_finds_them_and_a_repair_keeps_them() {
    let mut sim = opened();
    for _ in 0..9 {
        sim.append(5, 9000).expect("room");
        sim.set_mark("alone", b"12").expect("room");
    }
    let marks = sim.stream().marks("");
    let (path, len) = sim.segments()[1].clone();
    sim.close();
    let seen = |sim: &Simulation| {
        let report = verify_on(&sim.disk, std::path::Path::new(DIR), None).expect("readable");
        let stats = stats_on(&sim.disk, std::path::Path::new(DIR), None).expect("readable");
        let seen: Vec<_> = report.streams[0].marks.clone().into_iter().collect();
        assert_eq!(stats[0].marks, seen.len() as u64);
        (seen, report.streams[0].findings.len())
    };
    assert_eq!(seen(&sim), (marks.clone(), 0));
    sim.disk.damage(&path, |bytes| bytes[len as usize / 2] ^= 1);
    assert_eq!(seen(&sim), (marks.clone(), 1));
    let report = repair_on(&sim.disk, std::path::Path::new(DIR), None, false).expect("closed");
    assert_eq!(report.mended.len(), 1);
    assert_eq!(seen(&sim), (marks.clone(), 0));
    sim.open().expect("it opens");
    assert_eq!(sim.stream().marks(""), marks);
}

#[test]
fn marks_without_records_do_not_grow_the_log() {
    for at in [None, Some(300), Some(1501), Some(2999)] {
        let mut sim = Simulation::new(3);
        sim.open().expect("an empty disk");
        if let Some(at) = at {
            sim.disk.set_fault(Some(Fault::PowerCut { at }));
        }
        for i in 0..1500u64 {
            if sim.set_mark(&format!("file {}", i % 3), &[i as u8; 300]).is_err() {
                break;
            }
        }
        assert!(sim.disk_bytes() < 3 * (64 << 10), "{}", sim.disk_bytes());
        for catalogue in CATALOGUES {
            power_cut(&mut sim, catalogue);
            sim.check();
        }
        sim.append(3, 10).expect("room");
        sim.check();
    }
}

#[test]
fn a_second_life_of_a_name_has_no_marks() {
    for catalogue in CATALOGUES {
        let mut sim = opened();
        for _ in 0..9 {
            sim.append(5, 9000).expect("room");
        }
        let old = sim.stream().clone();
        sim.delete().expect("works");
        assert_eq!(old.marks(""), []);
        power_cut(&mut sim, catalogue);
        assert_eq!(sim.stream().marks(""), []);
    }
}

#[test]
fn a_batch_with_marks_does_not_wait_in_memory() {
    let mut sim = opened();
    sim.stream_config.durability =
        Durability::MemoryFirst { spill_after: Duration::from_secs(1000), memory_bytes: 1 << 20 };
    sim.reconfigure();
    let mut batch = sim.stream().batch();
    batch.push(&NewRecord::new("key", b"held")).expect("sound");
    sim.stream().append(batch, WhenFull::Refuse, Box::new(|_| {}));
    sim.commit_queued();
    assert!(sim.stream().stats().held_bytes > 0);
    let mut batch = sim.stream().batch();
    batch.push(&NewRecord::new("key", b"with a mark")).expect("sound");
    batch.set_mark("position", b"7").expect("sound");
    sim.stream().append(batch, WhenFull::Refuse, Box::new(|outcome| assert!(outcome.is_ok())));
    sim.commit_queued();
    assert_eq!(sim.stream().stats().held_bytes, 0);
    assert_eq!(position(&sim).as_deref(), Some("7"));
    power_cut(&mut sim, CatalogueFound::Lost);
    let found: Vec<_> = super::read_all(sim.stream(), 3).into_iter().map(|record| record.data.clone()).collect();
    assert_eq!(found, [&b"held"[..], b"with a mark"]);
    assert_eq!(position(&sim).as_deref(), Some("7"));
}

#[test]
fn a_mark_is_seen_when_it_is_synced() {
    let mut sim = opened();
    sim.stream_config.durability = Durability::Interval(Duration::from_secs(1));
    sim.reconfigure();
    sim.append(3, 10).expect("room");
    assert_eq!(position(&sim), None);
    // A segment's head has only what is synced, and what was written before it is.
    sim.append(3, 60_000).expect("room");
    assert_eq!(position(&sim).as_deref(), Some("3"));
    sim.clock.advance(Duration::from_secs(2));
    sim.do_due();
    assert_eq!(position(&sim).as_deref(), Some("6"));
}

#[test]
fn of_batches_in_one_commit_the_later_one_counts() {
    let mut sim = opened();
    for value in [&b"1"[..], b"2", b"3"] {
        let mut batch = sim.stream().batch();
        batch.push(&NewRecord::new("key", b"data")).expect("sound");
        batch.set_mark("position", value).expect("sound");
        batch.set_mark("gone", if value == b"3" { b"" } else { value }).expect("sound");
        sim.stream().append(batch, WhenFull::Refuse, Box::new(|outcome| assert!(outcome.is_ok())));
    }
    sim.commit_queued();
    assert_eq!(sim.stream().stats().commits, 1);
    for catalogue in CATALOGUES {
        assert_eq!(sim.stream().marks(""), [("position".to_owned(), b"3".to_vec())]);
        power_cut(&mut sim, catalogue);
    }
}

#[test]
fn marks_in_the_catalogue_of_commits_that_are_gone_are_not_believed_at_the_next_opening_either() {
    let mut sim = opened();
    let place = |sim: &Simulation| sim.running.as_ref().expect("open").0.around.catalogue.newest_place("telemetry");
    // Some entries of the index in one segment.
    let mut places = Vec::new();
    while places.len() < 4 {
        sim.append(1, 4000).expect("room");
        let before = places.len();
        places.extend(place(&sim).filter(|place| places.last() != Some(place)));
        if places.len() > before && before == 2 {
            sim.set_mark("late", b"1").expect("room");
        }
    }
    let (path, blocks) = newest_blocks(&sim);
    let (lost, ..) = places[2];
    let (at, _) = blocks.iter().find(|(_, header)| header.first == lost).expect("in this segment");
    sim.close();
    sim.disk.open(&path).and_then(|file| file.truncate(*at)).expect("shorter");
    for _ in 0..3 {
        sim.open().expect("it opens");
        assert_eq!(position(&sim), Some((lost.0 - 1).to_string()));
        assert_eq!(sim.stream().mark("late"), None);
        sim.power_cut(CatalogueFound::Newest);
    }
}

#[test]
fn a_batch_that_was_routed_anew_keeps_its_marks() {
    let mut sim = opened();
    let split = |sim: &mut Simulation| {
        sim.change_shards(|_| ShardChange::Count(std::num::NonZeroU32::MIN)).expect("room");
    };
    sim.append_across(6, 10, split).expect("room");
    assert_eq!(position(&sim).as_deref(), Some("6"));
    sim.check_running();
}

#[test]
fn too_many_marks_are_refused_and_others_are_not() {
    let mut sim = Simulation::new(11);
    sim.with_marks = true;
    sim.store_config.segment_bytes = 64 << 20;
    sim.stream_config.quota = 1 << 30;
    sim.open().expect("an empty disk");
    let mut batch = sim.stream().batch();
    for i in 0..MARKS_MAX {
        batch.set_mark(&format!("{i}"), b"1").expect("sound");
    }
    sim.stream().append(batch, WhenFull::Refuse, Box::new(|outcome| assert!(outcome.is_ok())));
    sim.commit_queued();
    assert_eq!(sim.stream().marks("").len(), MARKS_MAX);
    let refused = sim.set_mark("one more", b"1");
    assert!(matches!(refused, Err(Refused { error: Error::TooManyMarks { count: 10_001, .. }, .. })), "{refused:?}");
    sim.set_mark("77", b"changed").expect("as many as before");
    sim.set_mark("77", b"").expect("fewer");
    sim.set_mark("one more", b"1").expect("now there is room");

    // They take no more than a part of a small quota; what is over it already may become less.
    sim.stream_config = StreamConfig { quota: 1 << 20, ..sim.stream_config.clone() };
    sim.reconfigure();
    let refused = sim.set_mark("another", b"1");
    assert!(
        matches!(refused, Err(Refused { error: Error::TooManyMarks { bytes_max: 16_384, .. }, .. })),
        "{refused:?}"
    );
    sim.set_mark("78", b"").expect("fewer");
}
