//! A corpus of damage: every kind, with every state of the catalogue, opened, read, verified, repaired and opened again.
//!
//! Of each kind it is known which records it costs. Everything else must be served; what is lost must be told with its
//! numbers, each once, and counted once, whatever is opened, read or repaired afterwards.

use std::{collections::BTreeSet, path::Path, path::PathBuf};

use super::{
    CatalogueFound, DIR, Simulation, read_all,
    scenarios::{BlockPlace, bytes_of, first_of, ten_blocks},
};
use crate::{
    disk::{Disk, sim::Fault},
    event::Event,
    inspect::{FindingKind, RepairReport, StreamReport, repair_on, stats_on, verify_on},
    segment::file_name,
    sequence::SequenceNumber,
};

/// What a kind of damage costs.
#[derive(Default)]
struct Cost {
    /// Records that are told as lost.
    lost: BTreeSet<u64>,
    /// Records that a torn end takes: nobody can say any more that they were there.
    torn: BTreeSet<u64>,
    /// Whether `verify` finds nothing wrong before the repair but a torn end, or nothing at all.
    is_sound: bool,
}

type Damage = fn(&Simulation, &[BlockPlace]) -> Cost;

fn lost(blocks: &[BlockPlace]) -> Cost {
    let lost = blocks.iter().flat_map(|block| block.first.0..block.end.0).collect();
    Cost { lost, ..Cost::default() }
}

fn flip(sim: &Simulation, path: &Path, at: u64) {
    sim.disk.damage(path, |bytes| bytes[at as usize] ^= 0x08);
}

fn add_file(sim: &Simulation, number: u64, bytes: &[u8]) {
    let file = sim.disk.create(&sim.stream_dir().join(file_name(SequenceNumber(number)))).expect("a free name");
    file.write_at(0, bytes).expect("room");
    file.sync().expect("works");
    sim.disk.sync_dir(&sim.stream_dir()).expect("works");
}

fn swap_names(sim: &Simulation, one: &Path, other: &Path) {
    let aside = sim.stream_dir().join("aside");
    for (from, to) in [(one, aside.as_path()), (other, one), (aside.as_path(), other)] {
        sim.disk.rename(from, to).expect("there");
    }
    sim.disk.sync_dir(&sim.stream_dir()).expect("works");
}

/// Removes the segment that block `at` lies in; says which blocks are gone.
fn remove_segment_of<'a>(sim: &Simulation, blocks: &'a [BlockPlace], at: usize) -> Vec<&'a BlockPlace> {
    sim.disk.remove(&blocks[at].path).expect("there");
    sim.disk.sync_dir(&sim.stream_dir()).expect("works");
    blocks.iter().filter(|block| block.path == blocks[at].path).collect()
}

fn in_segment_of(blocks: &[BlockPlace], at: usize) -> Vec<BlockPlace> {
    blocks.iter().filter(|block| block.path == blocks[at].path).cloned().collect()
}

/// Ten blocks of five records lie in four segments: three, three, three and one.
const KINDS: &[(&str, Damage)] = &[
    ("nothing", |_, _| Cost { is_sound: true, ..Cost::default() }),
    ("half a commit at the end", |sim, blocks| {
        let last = &blocks[9];
        sim.disk.damage(&last.path, |bytes| {
            let half = bytes[last.offset as usize..][..last.bytes as usize / 2].to_vec();
            bytes.extend(half);
        });
        Cost { is_sound: true, ..Cost::default() }
    }),
    ("zeros at the end", |sim, blocks| {
        sim.disk.damage(&blocks[9].path, |bytes| bytes.resize(bytes.len() + 5000, 0));
        Cost { is_sound: true, ..Cost::default() }
    }),
    ("the last block rots", |sim, blocks| {
        flip(sim, &blocks[9].path, blocks[9].offset + 1000);
        // The control block of the clean stop lies behind it, so it is no torn end.
        lost(&blocks[9..])
    }),
    ("the last segment is cut within a block", |sim, blocks| {
        sim.disk.damage(&blocks[9].path, |bytes| bytes.truncate(blocks[9].offset as usize + 30));
        Cost { torn: (46..=50).collect(), is_sound: true, ..Cost::default() }
    }),
    ("a flipped bit in a block's records", |sim, blocks| {
        flip(sim, &blocks[4].path, blocks[4].offset + 1234);
        lost(&blocks[4..5])
    }),
    ("a flipped bit in a block's header", |sim, blocks| {
        flip(sim, &blocks[4].path, blocks[4].offset + 17);
        lost(&blocks[4..5])
    }),
    ("a flipped bit in the length of a segment's last block", |sim, blocks| {
        flip(sim, &blocks[5].path, blocks[5].offset + 9);
        lost(&blocks[5..6])
    }),
    ("a flipped bit in a control block", |sim, blocks| {
        flip(sim, &blocks[3].path, blocks[3].offset - 1);
        Cost::default()
    }),
    ("a flipped bit in a segment's header", |sim, blocks| {
        flip(sim, &blocks[3].path, 20);
        Cost::default()
    }),
    ("a flipped bit in a segment's version", |sim, blocks| {
        flip(sim, &blocks[3].path, 4);
        Cost::default()
    }),
    ("a flipped bit in the newest segment's header", |sim, blocks| {
        flip(sim, &blocks[9].path, 44);
        Cost::default()
    }),
    ("zeroed pages over two blocks", |sim, blocks| {
        let at = blocks[4].offset as usize - 10;
        sim.disk.damage(&blocks[4].path, |bytes| bytes[at / 4096 * 4096..][..8192].fill(0));
        let from = at as u64 / 4096 * 4096;
        let hurt: Vec<_> = in_segment_of(blocks, 4)
            .into_iter()
            .filter(|block| block.offset < from + 8192 && from < block.offset + block.bytes)
            .collect();
        assert!(hurt.len() == 2);
        lost(&hurt)
    }),
    ("a zeroed head: header, control block and first records", |sim, blocks| {
        sim.disk.damage(&blocks[3].path, |bytes| bytes[..4096].fill(0));
        lost(&blocks[3..4])
    }),
    ("a zeroed segment", |sim, blocks| {
        sim.disk.damage(&blocks[3].path, |bytes| bytes.fill(0));
        lost(&in_segment_of(blocks, 3))
    }),
    ("the first segment is zeroed", |sim, blocks| {
        sim.disk.damage(&blocks[0].path, |bytes| bytes.fill(0));
        lost(&in_segment_of(blocks, 0))
    }),
    ("the newest segment is zeroed", |sim, blocks| {
        sim.disk.damage(&blocks[9].path, |bytes| bytes.fill(0));
        Cost { torn: (46..=50).collect(), ..Cost::default() }
    }),
    ("a middle segment is cut within a block", |sim, blocks| {
        sim.disk.damage(&blocks[4].path, |bytes| bytes.truncate(blocks[4].offset as usize + 100));
        lost(&blocks[4..6])
    }),
    ("a middle segment is cut between blocks", |sim, blocks| {
        sim.disk.damage(&blocks[5].path, |bytes| bytes.truncate(blocks[5].offset as usize));
        lost(&blocks[5..6])
    }),
    ("a middle segment is cut within its header", |sim, blocks| {
        sim.disk.damage(&blocks[5].path, |bytes| bytes.truncate(30));
        lost(&in_segment_of(blocks, 5))
    }),
    ("a middle segment is empty", |sim, blocks| {
        sim.disk.damage(&blocks[5].path, Vec::clear);
        lost(&in_segment_of(blocks, 5))
    }),
    ("a middle segment is missing", |sim, blocks| {
        let gone: Vec<_> = remove_segment_of(sim, blocks, 4).into_iter().cloned().collect();
        lost(&gone)
    }),
    ("two middle segments are missing", |sim, blocks| {
        let mut gone = remove_segment_of(sim, blocks, 4);
        gone.extend(remove_segment_of(sim, blocks, 7));
        lost(&gone.into_iter().cloned().collect::<Vec<_>>())
    }),
    ("a copy of a segment within another one's numbers", |sim, blocks| {
        add_file(sim, 7, &bytes_of(sim, &blocks[4].path));
        Cost::default()
    }),
    ("a copy of a segment behind the newest", |sim, blocks| {
        add_file(sim, 1000, &bytes_of(sim, &blocks[4].path));
        Cost::default()
    }),
    ("a middle segment under a wrong name", |sim, blocks| {
        let path = &blocks[4].path;
        let wrong = path.with_file_name(file_name(first_of(path).next().next()));
        sim.disk.rename(path, &wrong).expect("there");
        sim.disk.sync_dir(&sim.stream_dir()).expect("works");
        Cost::default()
    }),
    ("two segments with each other's names", |sim, blocks| {
        swap_names(sim, &blocks[4].path, &blocks[9].path);
        Cost::default()
    }),
    ("a segment under a wrong name, and rubbish under its own", |sim, blocks| {
        let path = &blocks[4].path;
        sim.disk.rename(path, &sim.stream_dir().join(file_name(SequenceNumber(20)))).expect("there");
        sim.disk.sync_dir(&sim.stream_dir()).expect("works");
        add_file(sim, first_of(path).0, &[0; 5000]);
        Cost::default()
    }),
    ("the newest segment under a wrong name", |sim, blocks| {
        sim.disk.rename(&blocks[9].path, &sim.stream_dir().join(file_name(SequenceNumber(7)))).expect("there");
        sim.disk.sync_dir(&sim.stream_dir()).expect("works");
        Cost::default()
    }),
    ("a segment of another stream", |sim, _| {
        let mut other = Simulation::new(70);
        other.clock.advance(std::time::Duration::from_secs(77));
        other.open().expect("an empty disk");
        other.append(3, 100).expect("room");
        add_file(sim, 9, &bytes_of(&other, &other.segments()[0].0));
        Cost::default()
    }),
    ("rubbish with a segment's name within another one's numbers", |sim, _| {
        add_file(sim, 9, &[0x5a; 3000]);
        Cost::default()
    }),
    ("rubbish with a segment's name behind the newest", |sim, _| {
        add_file(sim, 1000, &[0x5a; 3000]);
        Cost::default()
    }),
    ("a head behind the newest that was not finished", |sim, _| {
        add_file(sim, 51, &[0; 300]);
        Cost { is_sound: true, ..Cost::default() }
    }),
    ("all at once", |sim, blocks| {
        flip(sim, &blocks[0].path, 30);
        flip(sim, &blocks[1].path, blocks[1].offset + 1);
        let gone: Vec<_> = remove_segment_of(sim, blocks, 4).into_iter().cloned().collect();
        sim.disk.damage(&blocks[8].path, |bytes| bytes.truncate(blocks[8].offset as usize + 100));
        add_file(sim, 7, &bytes_of(sim, &blocks[9].path));
        add_file(sim, 9, &[0x5a; 3000]);
        sim.disk.damage(&blocks[9].path, |bytes| bytes.extend([7; 99]));
        let mut hurt = vec![blocks[1].clone(), blocks[8].clone()];
        hurt.extend(gone);
        lost(&hurt)
    }),
];

const CATALOGUES: [CatalogueFound; 3] = [CatalogueFound::Newest, CatalogueFound::Stale(1), CatalogueFound::Lost];

impl Cost {
    /// What it costs where the catalogue tells what was there at the clean stop.
    fn known_to(mut self, catalogue: CatalogueFound) -> Self {
        if !matches!(catalogue, CatalogueFound::Lost) {
            self.lost.append(&mut self.torn);
        }
        self
    }
}

fn damaged(seed: u64, damage: Damage) -> (Simulation, Cost) {
    let (mut sim, blocks) = ten_blocks(seed);
    assert_eq!(in_segment_of(&blocks, 4).len(), 3);
    sim.close();
    let cost = damage(&sim, &blocks);
    sim.acknowledged.retain(|number, _| !cost.lost.contains(&number.0) && !cost.torn.contains(&number.0));
    (sim, cost)
}

fn open(sim: &mut Simulation, catalogue: CatalogueFound) {
    sim.power_cut(catalogue);
    sim.open().expect("it opens");
}

fn numbers(sim: &Simulation) -> Vec<u64> {
    read_all(sim.stream(), 7).iter().map(|record| record.sequence_number.0).collect()
}

/// The records that were told as damaged, in the order in which they were told.
pub(super) fn told(sim: &Simulation) -> Vec<u64> {
    let events = sim.take_events();
    let ranges = events.into_iter().filter_map(|event| match event {
        Event::Damaged { records, .. } => records,
        _ => None,
    });
    ranges.flat_map(|range| range.start().0..=range.end().0).collect()
}

pub(super) fn all_files(sim: &Simulation) -> Vec<(PathBuf, Vec<u8>)> {
    sim.disk.files().into_iter().map(|(path, _)| (path.clone(), bytes_of(sim, &path))).collect()
}

fn verified(sim: &Simulation) -> StreamReport {
    let before = all_files(sim);
    let report = verify_on(&sim.disk, Path::new(DIR), None).expect("a data directory");
    assert!(all_files(sim) == before, "verify only reads");
    report.streams.into_iter().next().expect("one stream")
}

fn repaired(sim: &Simulation, dry_run: bool) -> RepairReport {
    repair_on(&sim.disk, Path::new(DIR), None, dry_run).expect("it is closed")
}

/// Reads everything twice: what is sound is served, what is lost was told once, and before it is told it is not counted.
fn read_and_judge(sim: &mut Simulation, cost: &Cost, already_told: bool) {
    let sound: Vec<u64> =
        (1..=50).filter(|number| !cost.lost.contains(number) && !cost.torn.contains(number)).collect();
    assert_eq!(numbers(sim), sound);
    assert_eq!(numbers(sim), sound);
    sim.check();
    let mut once = told(sim);
    once.sort_unstable();
    let expected: Vec<u64> = if already_told { Vec::new() } else { cost.lost.iter().copied().collect() };
    assert_eq!(once, expected, "told once");
    let stats = sim.stream().stats();
    assert_eq!(stats.dropped.damage, cost.lost.len() as u64);
    // Of those the consumer had finished twelve.
    assert_eq!(stats.lost.damage, cost.lost.range(13..).count() as u64);
}

fn each(mut test: impl FnMut(Damage, CatalogueFound)) {
    for (what, damage) in KINDS {
        for catalogue in CATALOGUES {
            println!("{what}, catalogue {catalogue:?}");
            test(*damage, catalogue);
        }
    }
}

#[test]
fn whatever_is_damaged_the_rest_is_served_and_the_loss_told_once_for_ever() {
    each(|damage, catalogue| {
        let (mut sim, cost) = damaged(90, damage);
        let cost = cost.known_to(catalogue);
        sim.take_events();
        open(&mut sim, catalogue);
        read_and_judge(&mut sim, &cost, false);
        // A clean stop and a start; a power cut after the next tick; and the catalogue lost.
        sim.close();
        open(&mut sim, CatalogueFound::Newest);
        read_and_judge(&mut sim, &cost, true);
        sim.tick();
        open(&mut sim, CatalogueFound::Newest);
        read_and_judge(&mut sim, &cost, true);
        sim.close();
        open(&mut sim, CatalogueFound::Lost);
        read_and_judge(&mut sim, &cost, true);
        // And it goes on.
        sim.append(3, 100).expect("room");
        sim.check();
    });
}

#[test]
fn verify_finds_all_damage_and_nothing_else() {
    each(|damage, catalogue| {
        let (mut sim, cost) = damaged(91, damage);
        let found = verified(&sim);
        assert_eq!(found.is_sound(), cost.is_sound, "{found:?}");
        let mut lost: Vec<u64> = Vec::new();
        for finding in found.findings.iter().filter(|finding| finding.kind != FindingKind::TornTail) {
            lost.extend(finding.records.iter().flat_map(|range| range.start().0..=range.end().0));
            assert!(finding.file.starts_with(sim.stream_dir()));
        }
        lost.sort_unstable();
        assert_eq!(lost, cost.lost.iter().copied().collect::<Vec<_>>(), "{found:?}");
        // What is under a wrong name is there all the same.
        assert_eq!(found.records as usize, 50 - cost.lost.len() - cost.torn.len());
        // It finds the same beside a running log, and nothing that opening has not told too.
        open(&mut sim, catalogue);
        numbers(&sim);
        let beside = verified(&sim);
        assert_eq!(beside.records as usize, 50 - cost.lost.len() - cost.torn.len());
    });
}

#[test]
fn every_repair_is_complete_the_first_time_and_loses_nothing_that_was_sound() {
    each(|damage, catalogue| {
        let (mut sim, cost) = damaged(92, damage);
        let before = all_files(&sim);
        let promised = repaired(&sim, true);
        let without_lock: Vec<_> = all_files(&sim).into_iter().filter(|(path, _)| !path.ends_with("LOCK")).collect();
        let before: Vec<_> = before.into_iter().filter(|(path, _)| !path.ends_with("LOCK")).collect();
        assert!(without_lock == before, "a dry run changes nothing");
        let done = repaired(&sim, false);
        assert_eq!(done, promised);
        assert_eq!(done.left, []);
        let lost: BTreeSet<u64> =
            done.mended.iter().flat_map(|m| &m.lost).flat_map(|range| range.start().0..=range.end().0).collect();
        assert_eq!(lost, cost.lost);
        // Of every file that is not as it was, what it was is still there.
        let after = all_files(&sim);
        for (path, bytes) in &before {
            let kept = after.iter().any(|(_, now)| now == bytes);
            let cut = after.iter().any(|(now, cut)| now == path && bytes.starts_with(cut));
            assert!(kept || cut, "{}", path.display());
        }
        let found = verified(&sim);
        assert_eq!((found.findings.as_slice(), found.lost_before as usize), ([].as_slice(), cost.lost.len()));
        assert_eq!(found.records as usize, 50 - cost.lost.len() - cost.torn.len());
        let again = repaired(&sim, false);
        assert_eq!(again, RepairReport::default());
        assert!(all_files(&sim) == after, "a second run changes nothing");
        let counts = stats_on(&sim.disk, Path::new(DIR), None).expect("readable").remove(0);
        assert_eq!((counts.records, counts.findings), (found.records, 0));
        assert_eq!(counts.shards.values().map(|shard| shard.records).sum::<u64>(), counts.records);

        let cost = cost.known_to(catalogue);
        sim.take_events();
        open(&mut sim, catalogue);
        read_and_judge(&mut sim, &cost, false);
        sim.close();
        open(&mut sim, CatalogueFound::Newest);
        read_and_judge(&mut sim, &cost, true);
        sim.append(3, 100).expect("room");
        sim.check();
    });
}

#[test]
fn what_was_told_before_a_repair_is_not_told_after_it() {
    each(|damage, catalogue| {
        let (mut sim, cost) = damaged(93, damage);
        let cost = cost.known_to(catalogue);
        sim.take_events();
        open(&mut sim, catalogue);
        read_and_judge(&mut sim, &cost, false);
        sim.close();
        repaired(&sim, false);
        assert_eq!(verified(&sim).findings, []);
        assert_eq!(repaired(&sim, false), RepairReport::default());
        for catalogue in CATALOGUES {
            open(&mut sim, catalogue);
            read_and_judge(&mut sim, &cost, true);
            sim.close();
        }
    });
}

#[test]
fn a_power_cut_at_any_moment_of_a_repair_costs_nothing() {
    for (what, damage) in KINDS {
        for at in 1.. {
            let (mut sim, cost) = damaged(94 + at, *damage);
            let cost = cost.known_to(CatalogueFound::Newest);
            sim.disk.set_fault(Some(Fault::PowerCut { at: sim.disk.operations() + at }));
            let cut_short = repair_on(&sim.disk, Path::new(DIR), None, false).is_err();
            // Whether it went at all is decided by the disk; the catalogue is what it was.
            sim.power_cut(CatalogueFound::Newest);
            if at % 2 == 0 {
                repaired(&sim, false);
                assert_eq!(verified(&sim).findings, [], "{what}, operation {at}");
                assert_eq!(repaired(&sim, false), RepairReport::default());
            }
            sim.take_events();
            sim.open().expect("it opens");
            println!("{what}, operation {at}");
            read_and_judge(&mut sim, &cost, false);
            if !cut_short {
                break;
            }
        }
    }
}

/// The finding is damage, and says what it can.
fn unsound(sim: &Simulation) -> StreamReport {
    let found = verified(sim);
    assert!(!found.is_sound(), "{found:?}");
    assert!(found.findings.iter().any(|finding| finding.kind == FindingKind::Damage), "{found:?}");
    found
}

#[test]
fn a_log_without_a_sound_header_is_not_said_to_be_sound_and_its_records_are_counted() {
    // Of the only segment, in its fixed part, its id and its definition; and of all.
    for only in [true, false] {
        for at in [30, 42, 58] {
            let (mut sim, blocks) = ten_blocks(95);
            sim.close();
            let firsts: BTreeSet<_> = blocks.iter().map(|block| block.path.clone()).collect();
            for path in firsts.iter().skip(1).filter(|_| only) {
                sim.disk.remove(path).expect("there");
            }
            for (path, _) in sim.segments() {
                flip(&sim, &path, at);
            }
            let found = unsound(&sim);
            assert_eq!(found.records, if only { 15 } else { 50 }, "byte {at}: {found:?}");
            // Only the catalogue knows what the stream was.
            let before = all_files(&sim).len();
            let done = repaired(&sim, false);
            assert!(done.mended.is_empty() && done.left.len() == sim.segments().len(), "{done:?}");
            assert!(all_files(&sim).len() <= before + 1, "but the lock");
            sim.open().expect("it opens");
            assert_eq!(numbers(&sim).len(), found.records as usize);
        }
    }
}

#[test]
fn a_zeroed_only_segment_is_not_said_to_be_sound() {
    let (mut sim, blocks) = ten_blocks(96);
    sim.close();
    for (path, _) in sim.segments() {
        sim.disk.damage(&path, |bytes| bytes.fill(0));
    }
    assert_eq!(unsound(&sim).findings.len(), 4);
    assert_eq!(repaired(&sim, true).left.len(), 4);
    // A file that is no longer than a head was perhaps never used.
    for (path, _) in sim.segments() {
        sim.disk.damage(&path, |bytes| bytes.truncate(if path == blocks[9].path { 200 } else { 0 }));
    }
    assert!(verified(&sim).is_sound());
}

#[test]
fn segments_that_have_each_others_names_all_get_their_own_again() {
    let (mut sim, blocks) = ten_blocks(97);
    sim.close();
    let before = all_files(&sim);
    // In a circle, all of them: also the catalogue is of no help then.
    let paths: Vec<_> = sim.segments().into_iter().map(|(path, _)| path).collect();
    for pair in paths.windows(2) {
        swap_names(&sim, &pair[0], &pair[1]);
    }
    assert!(paths.iter().all(|path| bytes_of(&sim, path) != before.iter().find(|(p, _)| p == path).expect("there").1));
    let found = verified(&sim);
    assert_eq!((found.is_sound(), found.records, found.findings.len()), (false, 50, 4), "{found:?}");
    assert!(found.findings.iter().all(|f| f.what.contains("wrong name") && f.records.is_none()), "{found:?}");
    let done = repaired(&sim, false);
    assert!(done.mended.len() == 4 && done.mended.iter().all(|mended| mended.kept.is_none()), "{done:?}");
    let without_lock: Vec<_> = all_files(&sim).into_iter().filter(|(path, _)| !path.ends_with("LOCK")).collect();
    assert!(without_lock == before.into_iter().filter(|(path, _)| !path.ends_with("LOCK")).collect::<Vec<_>>());
    assert!(verified(&sim).findings.is_empty() && blocks.len() == 10);
}

#[test]
fn a_stream_that_may_not_be_read_is_not_left_out() {
    let (mut sim, _) = ten_blocks(98);
    sim.close();
    sim.disk.forbid(Some(&sim.stream_dir()));
    let found = verified(&sim);
    let [finding] = found.findings.as_slice() else { panic!("{found:?}") };
    assert_eq!((found.is_sound(), finding.kind, &finding.file), (false, FindingKind::Unreadable, &sim.stream_dir()));
    assert_eq!(stats_on(&sim.disk, Path::new(DIR), None).expect("readable")[0].findings, 1);
    assert_eq!(repaired(&sim, false), RepairReport { left: vec![finding.clone()], ..RepairReport::default() });
    sim.disk.forbid(None);
    assert!(verified(&sim).is_sound());
}
