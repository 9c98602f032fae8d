//! Random damage to any of a closed log's files: flipped bits, zeroed sectors, cut ends. Whatever was hit, the log opens,
//! serves every record whose block was not touched, invents nothing, tells each loss once, and comes to an end; with
//! and without a repair before.
//!
//! `FOREBAY_HISTORIES` sets how many, as for the histories.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use proptest::{prelude::*, test_runner::Config};

use super::{
    CatalogueFound, DIR, Simulation,
    damage::{all_files, told},
    histories, read_all,
    scenarios::{BlockPlace, blocks, bytes_of},
};
use crate::{
    disk::Disk as _,
    event::Event,
    inspect::{RepairReport, repair_on, verify_on},
    segment::SegmentHeader,
    sequence::SequenceNumber,
};

const SECTOR: usize = 512;

/// Where in the file is a share of its length, in thousandths.
#[derive(Debug, Clone)]
enum Hit {
    Bit { file: usize, at: usize, bit: u8 },
    Sectors { file: usize, at: usize, count: usize },
    Cut { file: usize, at: usize },
}

fn hit() -> impl Strategy<Value = Hit> {
    // The beginning of a file, where the header and the first control block are, and its end are hit more often.
    let at = prop_oneof![4 => 0usize..1000, 1 => Just(0), 1 => 990usize..1000];
    prop_oneof![
        4 => (0usize..6, at.clone(), 0u8..8).prop_map(|(file, at, bit)| Hit::Bit { file, at, bit }),
        3 => (0usize..6, at.clone(), 1usize..12).prop_map(|(file, at, count)| Hit::Sectors { file, at, count }),
        1 => (0usize..6, at).prop_map(|(file, at)| Hit::Cut { file, at }),
    ]
}

impl Hit {
    fn strike(&self, sim: &Simulation) {
        let segments = sim.segments();
        let (Self::Bit { file, .. } | Self::Sectors { file, .. } | Self::Cut { file, .. }) = self;
        let path = &segments[file % segments.len()].0;
        sim.disk.damage(path, |bytes| {
            let place = |at: usize| at * bytes.len() / 1000;
            match *self {
                Self::Bit { at, bit, .. } if !bytes.is_empty() => {
                    let place = place(at);
                    bytes[place] ^= 1 << bit;
                }
                Self::Bit { .. } => {}
                Self::Sectors { at, count, .. } => {
                    let from = place(at) / SECTOR * SECTOR;
                    let end = bytes.len().min(from + count * SECTOR);
                    bytes[from..end].fill(0);
                }
                Self::Cut { at, .. } => bytes.truncate(place(at)),
            }
        });
    }
}

/// A closed log of one size of records or another. Some of its segments lie in the files of dropped ones, if it goes in
/// circles under a small quota.
fn closed(seed: u64, commits: usize, circles: bool) -> (Simulation, Vec<BlockPlace>) {
    let mut sim = Simulation::new(seed);
    if circles {
        sim.stream_config.quota = 600_000;
    }
    sim.open().expect("an empty disk");
    for _ in 0..if circles { 60 } else { 0 } {
        sim.append(5, 4000).expect("what is delivered makes room");
        sim.save_checkpoint(sim.newest());
    }
    for commit in 0..commits {
        sim.append(1 + commit % 7, [20, 3000, 9000][commit % 3]).expect("room");
    }
    sim.save_checkpoint(SequenceNumber(5));
    sim.tick();
    let blocks = blocks(&sim);
    sim.close();
    (sim, blocks)
}

#[test]
fn a_log_that_goes_in_circles_lies_in_recycled_files() {
    let (sim, _) = closed(1, 5, true);
    let is_recycled = |path: &Path| {
        let file = sim.disk.open_read(path).expect("there");
        SegmentHeader::read(file.as_ref(), path).expect("sound").recycled_bytes > 0
    };
    assert!(sim.segments().iter().filter(|(path, _)| is_recycled(path)).count() > 2);
}

/// The records of blocks of which no byte was changed.
fn untouched(sim: &Simulation, blocks: &[BlockPlace], before: &[(PathBuf, Vec<u8>)]) -> BTreeSet<u64> {
    let mut sound = BTreeSet::new();
    for block in blocks {
        let range = block.offset as usize..(block.offset + block.bytes) as usize;
        let (_, then) = before.iter().find(|(path, _)| *path == block.path).expect("there");
        let now = bytes_of(sim, &block.path);
        if now.get(range.clone()) == Some(&then[range]) {
            sound.extend(block.first.0..block.end.0);
        }
    }
    sound
}

fn judge(sim: &mut Simulation, sound: &BTreeSet<u64>, catalogue: CatalogueFound) {
    sim.power_cut(catalogue);
    sim.open().expect("it opens");
    let read = read_all(sim.stream(), 5);
    for record in &read {
        let known = sim.acknowledged.get(&record.sequence_number).expect("nothing is invented");
        assert!(known.is(record), "record {} is another", record.sequence_number);
    }
    let served: BTreeSet<u64> = read.iter().map(|record| record.sequence_number.0).collect();
    let missing: Vec<_> = sound.difference(&served).collect();
    assert!(missing.is_empty(), "sound, but not served: {missing:?}");
    let events = sim.take_events();
    let is_new = events.iter().any(|event| matches!(event, Event::CatalogueRebuilt { .. }));
    sim.events.lock().expect("unpoisoned").extend(events);
    let mut told = told(sim);
    told.sort_unstable();
    assert!(told.windows(2).all(|pair| pair[0] < pair[1]), "told twice: {told:?}");
    // Behind the last record a torn end may have taken some, of which nobody can tell.
    let last = served.last().copied().unwrap_or(0);
    let told: BTreeSet<u64> = told.into_iter().collect();
    assert!(told.is_disjoint(&served), "told as lost, and served");
    for number in 1..last {
        // A missing beginning cannot be told from what was dropped by right.
        let is_known =
            served.contains(&number) || told.contains(&number) || served.first().is_some_and(|first| number < *first);
        assert!(is_known, "{number} is lost, and not told; {is_new}");
    }
    assert_eq!(sim.stream().stats().dropped.damage, told.len() as u64);
    sim.close();
    sim.power_cut(CatalogueFound::Newest);
    sim.open().expect("it opens");
    assert_eq!(read_all(sim.stream(), 5).len(), served.len());
    assert!(super::damage::told(sim).is_empty(), "told again after a restart");
    assert_eq!(sim.stream().stats().dropped.damage, told.len() as u64);
    sim.close();
}

fn try_case(seed: u64, (commits, circles): (usize, bool), hits: &[Hit], catalogue: CatalogueFound, repair: bool) {
    let (mut sim, blocks) = closed(seed, commits, circles);
    let before = all_files(&sim);
    for hit in hits {
        hit.strike(&sim);
    }
    let sound = untouched(&sim, &blocks, &before);
    let verify = |sim: &Simulation| verify_on(&sim.disk, Path::new(DIR), None).expect("readable").streams.remove(0);
    let found = verify(&sim);
    // Without any sound header only the catalogue knows whose the blocks are.
    let is_known = found.format.is_some();
    if !is_known && matches!(catalogue, CatalogueFound::Lost) {
        sim.power_cut(catalogue);
        sim.open().expect("it opens");
        assert_eq!(read_all(sim.stream(), 5), [], "nothing is invented");
        return;
    }
    assert!(!is_known || found.records >= sound.len() as u64);
    if repair {
        let run = || repair_on(&sim.disk, Path::new(DIR), None, false).expect("it is closed");
        let done = run();
        let after = all_files(&sim);
        if is_known {
            assert_eq!((verify(&sim).findings.as_slice(), done.left.as_slice()), ([].as_slice(), [].as_slice()));
            assert_eq!(verify(&sim).records, found.records);
            assert_eq!(run(), RepairReport::default());
        }
        assert!(all_files(&sim) == after, "a second run changes nothing");
    }
    judge(&mut sim, &sound, catalogue);
}

proptest! {
    #![proptest_config(Config { cases: histories::histories() / 2, max_shrink_iters: 2000, ..Config::default() })]

    #[test]
    fn any_bits_sectors_and_ends_may_be_gone_and_the_rest_is_served(
        seed in 0u64..1000,
        commits in (1usize..30, any::<bool>()),
        hits in prop::collection::vec(hit(), 1..7),
        catalogue in histories::catalogue(),
        repair in any::<bool>(),
    ) {
        try_case(seed, commits, &hits, catalogue, repair);
    }
}
