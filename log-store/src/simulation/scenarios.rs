//! Named scenarios: one thing goes wrong at a time, and what is lost, told and counted is known to the record.
//!
//! Damage is looked at from both sides: what the running log serves and tells, and what `inspect` finds in the files.

use std::{
    ops::RangeInclusive,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{CONSUMER, CatalogueFound, DIR, Simulation, read_all};
use crate::{
    catalogue::Catalogue,
    clock::{Clock, Timestamp},
    config::OnFull,
    disk::{Disk, sim::Fault},
    error::Error,
    event::{DropReason, Event},
    inspect::{Dumped, Finding, FindingKind, StreamReport, dump_on, verify_on},
    marks::Marks,
    record::NewRecord,
    segment::{
        BLOCK_HEADER_BYTES, FORMAT_VERSION, Found, SegmentHeader, SegmentReader, file_name, parse_file_name, salt,
    },
    sequence::SequenceNumber,
};

/// A block of a segment, as the file has it.
#[derive(Debug, Clone)]
pub(super) struct BlockPlace {
    pub(super) path: PathBuf,
    pub(super) offset: u64,
    pub(super) bytes: u64,
    pub(super) first: SequenceNumber,
    pub(super) end: SequenceNumber,
}

impl BlockPlace {
    pub(super) fn numbers(&self) -> RangeInclusive<SequenceNumber> {
        self.first..=self.end.previous()
    }
}

fn open(seed: u64) -> Simulation {
    let mut sim = Simulation::new(seed);
    sim.open().expect("an empty disk");
    sim
}

/// All blocks of records, in order.
pub(super) fn blocks(sim: &Simulation) -> Vec<BlockPlace> {
    sim.segments().iter().flat_map(|(path, len)| blocks_of(sim, path, *len)).collect()
}

pub(super) fn blocks_of(sim: &Simulation, path: &Path, len: u64) -> Vec<BlockPlace> {
    let mut places = Vec::new();
    let file = sim.disk.open_read(path).expect("there");
    let header = SegmentHeader::read(file.as_ref(), path).expect("sound");
    let mut reader = SegmentReader::new(file, salt(header.definition.id, header.first), header.encoded_len());
    loop {
        match reader.next(len).expect("readable") {
            Found::End => return places,
            Found::Damaged { .. } if header.is_leftover(len) => {}
            Found::Damaged { .. } => panic!("{} is damaged already", path.display()),
            Found::Block { offset, header } if header.records > 0 => places.push(BlockPlace {
                path: path.into(),
                offset,
                bytes: header.total_bytes() - u64::from(header.padding),
                first: header.first,
                end: header.end(),
            }),
            Found::Block { .. } => {}
        }
    }
}

/// The first sequence number in a segment's name.
pub(super) fn first_of(path: &Path) -> SequenceNumber {
    let name = path.file_name().and_then(|name| name.to_str());
    name.and_then(parse_file_name).expect("a segment's name")
}

pub(super) fn numbers(sim: &Simulation) -> Vec<u64> {
    read_all(sim.stream(), 7).iter().map(|record| record.sequence_number.0).collect()
}

pub(super) fn damaged(events: &[Event]) -> Vec<(PathBuf, u64, Option<RangeInclusive<SequenceNumber>>)> {
    let damaged = events.iter().filter_map(|event| match event {
        Event::Damaged { segment, offset, records, .. } => Some((segment.clone(), *offset, records.clone())),
        _ => None,
    });
    damaged.collect()
}

/// Everything told, but that the catalogue was rebuilt.
fn told_of_segments(sim: &Simulation) -> Vec<Event> {
    let mut events = sim.take_events();
    events.retain(|event| !matches!(event, Event::CatalogueRebuilt { .. }));
    events
}

pub(super) fn verified(sim: &Simulation) -> StreamReport {
    let report = verify_on(&sim.disk, Path::new(DIR), None).expect("a data directory");
    report.streams.into_iter().next().expect("one stream")
}

pub(super) fn losses(report: &StreamReport) -> Vec<&Finding> {
    report.findings.iter().filter(|finding| finding.kind.is_loss()).collect()
}

/// Forgets records of the model that the disk took away.
fn forget(sim: &mut Simulation, records: &RangeInclusive<SequenceNumber>) {
    sim.acknowledged.retain(|number, _| !records.contains(number));
}

fn power_cut_and_open(sim: &mut Simulation, catalogue: CatalogueFound) {
    sim.power_cut(catalogue);
    sim.open().expect("it opens");
}

#[test]
fn a_torn_tail_is_cut_kept_and_told_once() {
    let mut sim = open(1);
    for _ in 0..3 {
        sim.append(4, 200).expect("room");
    }
    let before = numbers(&sim);
    let last = blocks(&sim).pop().expect("three blocks");
    sim.close();
    // Half a block of an unfinished commit.
    sim.disk.damage(&last.path, |bytes| {
        let half: Vec<u8> = bytes[last.offset as usize..][..last.bytes as usize / 2].to_vec();
        bytes.extend(half);
    });
    let length = sim.segments()[0].1;
    let found = verified(&sim);
    assert!(found.is_sound() && found.records == 12, "{found:?}");
    let [Finding { kind: FindingKind::TornTail, offset, .. }] = found.findings.as_slice() else { panic!("{found:?}") };
    assert_eq!(*offset, last.offset + last.bytes);
    sim.take_events();

    sim.open().expect("it opens");
    let events = sim.take_events();
    let kept = last.path.with_extension("torn");
    let torn = Event::TailTorn {
        stream: "telemetry".into(),
        segment: last.path.clone(),
        offset: last.offset + last.bytes,
        bytes: last.bytes / 2,
        kept: Some(kept.clone()),
    };
    assert_eq!(events, [torn]);
    assert_eq!(numbers(&sim), before);
    let files = sim.disk.files();
    assert!(files.contains(&(kept.clone(), last.bytes / 2)) && files.contains(&(last.path, length - last.bytes / 2)));
    sim.append(1, 10).expect("it goes on");
    sim.check();
    power_cut_and_open(&mut sim, CatalogueFound::Lost);
    sim.check();
    assert_eq!(told_of_segments(&sim), [], "told once");
    assert_eq!(verified(&sim).leftovers, [kept]);
}

/// Ten commits of five records in a few segments, of which the consumer has finished the first twelve records.
pub(super) fn ten_blocks(seed: u64) -> (Simulation, Vec<BlockPlace>) {
    let mut sim = open(seed);
    for _ in 0..10 {
        sim.append(5, 4000).expect("room");
    }
    sim.save_checkpoint(SequenceNumber(12));
    sim.tick();
    let blocks = blocks(&sim);
    assert!(sim.segments().len() > 2 && blocks.len() == 10);
    (sim, blocks)
}

#[test]
fn a_damaged_block_costs_itself_alone() {
    // In each class of bytes of a block: magic, kind, length, number, checksums; first, middle and last of the payload.
    let header: [usize; 8] = [0, 3, 4, 8, 16, 26, 57, 63];
    for at in header.into_iter().map(Some).chain([None]) {
        for reopen in [false, true] {
            let (mut sim, blocks) = ten_blocks(2);
            // The third has records 11 to 15: 11 and 12 are delivered.
            let hurt = &blocks[2];
            let offsets = match at {
                Some(at) => vec![at],
                None => vec![BLOCK_HEADER_BYTES, hurt.bytes as usize / 2, hurt.bytes as usize - 1],
            };
            for in_block in offsets {
                if reopen {
                    sim.close();
                }
                sim.disk.damage(&hurt.path, |bytes| bytes[hurt.offset as usize + in_block] ^= 0x10);
                if reopen {
                    sim.kv = Default::default();
                    sim.open().expect("it opens");
                }
                sim.take_events();
                let expected: Vec<u64> = (1..=50).filter(|number| !(11..=15).contains(number)).collect();
                assert_eq!(numbers(&sim), expected, "byte {in_block}");
                assert_eq!(numbers(&sim), expected, "byte {in_block}");
                let told = damaged(&sim.take_events());
                assert_eq!(told, [(hurt.path.clone(), hurt.offset, Some(hurt.numbers()))], "byte {in_block}");
                let stats = sim.stream().stats();
                assert_eq!((stats.dropped.damage, stats.lost.damage), (5, 3), "byte {in_block}");
                let found = verified(&sim);
                let [one] = losses(&found)[..] else { panic!("{found:?}") };
                assert_eq!((&one.file, one.offset, &one.records), (&hurt.path, hurt.offset, &Some(hurt.numbers())));
                assert_eq!((one.kind, found.records), (FindingKind::Damage, 45));
                // Undo.
                sim.disk.damage(&hurt.path, |bytes| bytes[hurt.offset as usize + in_block] ^= 0x10);
                assert!(verified(&sim).is_sound());
                if at.is_none() {
                    (sim, _) = ten_blocks(2);
                }
            }
        }
    }
}

#[test]
fn two_damaged_blocks_side_by_side_are_two() {
    let (sim, blocks) = ten_blocks(3);
    let place = blocks.windows(2).position(|pair| pair[0].path == pair[1].path).expect("two of one segment");
    for hurt in &blocks[place..place + 2] {
        sim.disk.damage(&hurt.path, |bytes| bytes[(hurt.offset + hurt.bytes) as usize - 1] ^= 1);
    }
    assert_eq!(numbers(&sim).len(), 40);
    let expected: Vec<_> =
        blocks[place..place + 2].iter().map(|b| (b.path.clone(), b.offset, Some(b.numbers()))).collect();
    assert_eq!(damaged(&sim.take_events()), expected);
    let found = verified(&sim);
    let losses: Vec<_> = losses(&found).iter().map(|f| (f.file.clone(), f.offset, f.records.clone())).collect();
    assert_eq!(losses, expected);
}

#[test]
fn a_missing_middle_segment_costs_its_records() {
    for catalogue in [CatalogueFound::Newest, CatalogueFound::Lost] {
        let (mut sim, _) = ten_blocks(4);
        sim.close();
        let segments = sim.segments();
        let (gone, behind) = (&segments[1].0, &segments[2].0);
        let lost = first_of(gone)..=first_of(behind).previous();
        sim.disk.remove(gone).expect("there");
        sim.disk.sync_dir(&sim.stream_dir()).expect("there");
        power_cut_and_open(&mut sim, catalogue);
        sim.take_events();
        let expected: Vec<u64> = (1..=50).filter(|number| !lost.contains(&SequenceNumber(*number))).collect();
        assert_eq!(numbers(&sim), expected);
        let told = damaged(&sim.take_events());
        assert!(matches!(told.as_slice(), [(_, _, Some(records))] if *records == lost), "{told:?}");
        let undelivered = lost.end().0 - lost.start().0.max(13) + 1;
        assert_eq!(sim.stream().stats().lost.damage, undelivered);
        let found = verified(&sim);
        let [one] = losses(&found)[..] else { panic!("{found:?}") };
        assert_eq!((one.kind, one.records.clone()), (FindingKind::Gap, Some(lost.clone())));
        forget(&mut sim, &lost);
        sim.append(1, 10).expect("it goes on");
        sim.check();
    }
}

#[test]
fn a_truncated_middle_segment_costs_its_end() {
    for catalogue in [CatalogueFound::Newest, CatalogueFound::Lost] {
        // In the middle of a block, and between two.
        for into_block in [0, 100] {
            let (mut sim, blocks) = ten_blocks(5);
            sim.close();
            let hurt = blocks.windows(2).filter(|pair| pair[0].path != pair[1].path).nth(1).expect("a third segment");
            let hurt = &hurt[0];
            sim.disk.damage(&hurt.path, |bytes| bytes.truncate((hurt.offset + into_block) as usize));
            power_cut_and_open(&mut sim, catalogue);
            sim.take_events();
            let lost = hurt.numbers();
            assert_eq!(numbers(&sim).len(), 45);
            let told = damaged(&sim.take_events());
            assert_eq!(told, [(hurt.path.clone(), hurt.offset, Some(lost.clone()))]);
            assert_eq!(sim.stream().stats().lost.damage, if lost.start().0 > 12 { 5 } else { lost.end().0 - 12 });
            let found = verified(&sim);
            let [one] = losses(&found)[..] else { panic!("{found:?}") };
            assert_eq!((&one.file, one.offset, one.records.clone()), (&hurt.path, hurt.offset, Some(lost.clone())));
            forget(&mut sim, &lost);
            sim.check();
        }
    }
}

#[test]
fn a_damaged_segment_header_costs_no_record() {
    for catalogue in [CatalogueFound::Newest, CatalogueFound::Lost] {
        for segment in [0, 1] {
            for at in [0, 4, 8, 20, 44, 53, 60] {
                let (mut sim, _) = ten_blocks(6);
                sim.close();
                let path = sim.segments()[segment].0.clone();
                sim.disk.damage(&path, |bytes| bytes[at] ^= 0x01);
                // A version of 0 is as damaged as any other wrong byte.
                power_cut_and_open(&mut sim, catalogue);
                sim.check();
                let found = verified(&sim);
                let [one] = losses(&found)[..] else { panic!("byte {at}: {found:?}") };
                assert_eq!((&one.file, one.offset, &one.records), (&path, 0, &None), "byte {at}");
                assert_eq!(found.records, 50);
            }
        }
    }
}

#[test]
fn a_damaged_segment_header_is_told_once_by_whoever_reads_there() {
    for (segment, at) in [(0, 20), (1, 20), (1, 4), (3, 44)] {
        let (mut sim, _) = ten_blocks(6);
        sim.close();
        let path = sim.segments()[segment].0.clone();
        sim.disk.damage(&path, |bytes| bytes[at] ^= 0x01);
        power_cut_and_open(&mut sim, CatalogueFound::Newest);
        sim.take_events();
        for _ in 0..2 {
            assert_eq!(numbers(&sim), (1..=50).collect::<Vec<_>>());
        }
        assert_eq!(damaged(&sim.take_events()), [(path, 0, None)]);
        assert_eq!(sim.stream().stats().dropped.damage, 0);
    }
}

#[test]
fn a_segment_of_another_place_or_stream_is_set_aside() {
    let foreign = |sim: &Simulation, number: u64| sim.stream_dir().join(file_name(SequenceNumber(number)));
    for catalogue in [CatalogueFound::Newest, CatalogueFound::Lost] {
        for number in [7, 1000] {
            let mut other = Simulation::new(70);
            other.clock.advance(Duration::from_secs(77));
            other.open().expect("an empty disk");
            other.append(3, 100).expect("room");
            let from_other = bytes_of(&other, &other.segments()[0].0);
            let (mut sim, _) = ten_blocks(7);
            let own = bytes_of(&sim, &sim.segments()[1].0);
            for bytes in [own, from_other] {
                sim.close();
                let path = foreign(&sim, number);
                let file = sim.disk.create(&path).expect("a free name");
                file.write_at(0, &bytes).expect("room");
                file.sync().expect("works");
                sim.disk.sync_dir(&sim.stream_dir()).expect("works");
                let found = verified(&sim);
                if number == 7 {
                    assert!(losses(&found).iter().any(|finding| finding.file == path), "{found:?}");
                }
                power_cut_and_open(&mut sim, catalogue);
                sim.check();
                let told = damaged(&sim.take_events());
                let kept = path.with_extension("broken");
                assert!(told.contains(&(kept.clone(), 0, None)), "{told:?}");
                assert_eq!(numbers(&sim).len(), sim.acknowledged.len());
                assert!(sim.disk.files().iter().any(|(path, _)| *path == kept));
                assert!(verified(&sim).is_sound());
                assert_eq!(verified(&sim).leftovers, std::slice::from_ref(&kept));
                sim.append(1, 10).expect("it goes on");
                sim.check();
                sim.disk.remove(&kept).expect("there");
            }
        }
    }
}

pub(super) fn bytes_of(sim: &Simulation, path: &Path) -> Vec<u8> {
    let file = sim.disk.open_read(path).expect("there");
    let mut bytes = vec![0; file.len().expect("known") as usize];
    file.read_at(0, &mut bytes).expect("readable");
    bytes
}

#[test]
fn a_full_disk_tears_nothing_and_passes() {
    for seed in 0..50 {
        let mut sim = open(seed);
        sim.append(3, 500).expect("room");
        let used = sim.disk.used();
        sim.disk.set_capacity(Some(used + 20 * seed));
        for _ in 0..5 {
            let refused = sim.append(4, 500).expect_err("no room");
            assert!(matches!(refused.error, Error::Full { .. }), "{refused}");
            assert_eq!(refused.batch.len(), 4, "given back whole");
            assert!(sim.stream().stats().stopped.is_some());
        }
        sim.check();
        assert_eq!(sim.disk.used(), used, "nothing of the block remains");
        sim.disk.set_capacity(None);
        sim.append(4, 500).expect("room again");
        assert_eq!(sim.stream().stats().stopped, None);
        sim.check();
        let events = sim.take_events();
        assert!(matches!(events.as_slice(), [Event::Full { .. }, Event::RoomAgain { .. }]), "{events:?}");
        assert_eq!(verified(&sim).findings, []);
        power_cut_and_open(&mut sim, CatalogueFound::Lost);
        sim.check();
        assert_eq!(told_of_segments(&sim), [], "nothing torn is found");
    }
}

/// Fills the stream until it refuses; returns how many commits it took.
fn fill(sim: &mut Simulation) -> usize {
    for commits in 0..1000 {
        match sim.append(5, 4000) {
            Ok(_) => {}
            Err(refused) => {
                assert!(matches!(refused.error, Error::Full { .. }), "{refused}");
                return commits;
            }
        }
    }
    panic!("it never got full")
}

#[test]
fn a_full_quota_that_rejects_frees_what_is_delivered_and_nothing_else() {
    let mut sim = Simulation::new(9);
    sim.stream_config.quota = 600_000;
    sim.open().expect("an empty disk");
    assert!(fill(&mut sim) > 20);
    assert!(sim.stream().stats().disk_bytes <= 600_000);
    sim.check();
    assert_eq!(sim.stream().stats().oldest, SequenceNumber(1), "nothing undelivered goes");
    // One segment's worth is done: room for about that much.
    let segments = sim.segments();
    let second = first_of(&segments[1].0);
    sim.save_checkpoint(second.previous().previous());
    assert!(sim.append(5, 4000).is_err(), "its last record is not done");
    sim.save_checkpoint(second.previous());
    sim.take_events();
    assert!(fill(&mut sim) > 1);
    assert_eq!(sim.stream().stats().oldest, second);
    let events = sim.take_events();
    let [
        Event::Dropped { reason: DropReason::Quota, records, undelivered: 0, .. },
        Event::RoomAgain { .. },
        Event::Full { .. },
    ] = events.as_slice()
    else {
        panic!("{events:?}")
    };
    assert_eq!(*records, SequenceNumber(1)..=second.previous());
    let stats = sim.stream().stats();
    assert_eq!((stats.dropped.quota, stats.lost.total()), (second.0 - 1, 0));
    sim.check();
    // Everything is done: the segment being written goes too.
    sim.save_checkpoint(sim.newest());
    assert!(fill(&mut sim) > 20);
    sim.check();
}

#[test]
fn a_full_quota_that_drops_the_oldest_counts_and_tells_and_keeps_its_bound() {
    let mut sim = Simulation::new(10);
    let quota = 600_000;
    sim.stream_config.quota = quota;
    sim.stream_config.on_full = OnFull::DropOldest;
    sim.open().expect("an empty disk");
    let mut most = 0;
    for round in 0..200u64 {
        sim.append(5, 4000).expect("there is always room");
        most = most.max(sim.disk.used());
        if round == 100 {
            sim.save_checkpoint(SequenceNumber(450));
        }
    }
    assert!(most <= quota + quota / 8, "{most}");
    let stats = sim.stream().stats();
    assert!(stats.disk_bytes <= quota && stats.oldest > SequenceNumber(700));
    let mut next = SequenceNumber(1);
    let mut lost = 0;
    for event in sim.take_events() {
        let Event::Dropped { reason: DropReason::Quota, records, undelivered, .. } = event else { panic!("{event:?}") };
        assert_eq!(*records.start(), next, "each range once");
        next = records.end().next();
        lost += undelivered;
    }
    assert_eq!((next, stats.dropped.quota, stats.lost.quota), (stats.oldest, stats.oldest.0 - 1, lost));
    assert!(lost > 0 && lost < stats.dropped.quota, "the delivered ones are no loss: {lost}");
    sim.check();
    // The counts survive, with and without the catalogue.
    for catalogue in [CatalogueFound::Newest, CatalogueFound::Lost] {
        sim.close();
        sim.power_cut(catalogue);
        sim.open().expect("it opens");
        let again = sim.stream().stats();
        assert_eq!((again.dropped.quota, again.lost.quota), (stats.dropped.quota, stats.lost.quota), "{catalogue:?}");
    }
}

#[test]
fn an_idle_stream_gives_its_last_segment_back_and_numbers_on() {
    let mut sim = open(11);
    sim.append(5, 100).expect("room");
    sim.save_checkpoint(SequenceNumber(3));
    sim.clock.advance(Duration::from_secs(1001));
    sim.tick();
    assert_eq!(numbers(&sim), [1, 2, 3, 4, 5], "held for the consumer");
    sim.save_checkpoint(SequenceNumber(5));
    sim.take_events();
    sim.tick();
    assert_eq!(numbers(&sim), Vec::<u64>::new());
    let events = sim.take_events();
    assert!(
        matches!(events.as_slice(), [Event::Dropped { reason: DropReason::Retention, undelivered: 0, .. }]),
        "{events:?}"
    );
    assert!(sim.stream().stats().disk_bytes < 1000, "an empty segment");
    power_cut_and_open(&mut sim, CatalogueFound::Lost);
    let appended = sim.append(1, 10).expect("room");
    assert_eq!(appended.runs[0].first, SequenceNumber(6));
    sim.check();
}

#[test]
fn a_clock_set_forward_expires_nothing_and_set_back_does_not_run_backwards() {
    let mut sim = Simulation::new(12);
    sim.stream_config.consumers.clear();
    sim.open().expect("an empty disk");
    sim.append(5, 100).expect("room");
    let wall = sim.clock.now().wall.0;
    sim.clock.set_wall(Timestamp(wall + 50 * 31_557_600_000));
    sim.tick();
    sim.append(5, 100).expect("room");
    assert_eq!(numbers(&sim).len(), 10);
    sim.clock.set_wall(Timestamp(5));
    sim.append(5, 100).expect("room");
    power_cut_and_open(&mut sim, CatalogueFound::Newest);
    sim.append(5, 100).expect("room");
    sim.tick();
    // `check` compares arrival times too.
    sim.check();
    assert_eq!(numbers(&sim).len(), 20);
    // By the monotonic clock it is all past in the end.
    sim.clock.advance(Duration::from_secs(1001));
    sim.tick();
    assert_eq!(numbers(&sim).len(), 0);
}

#[test]
fn a_failed_sync_stops_the_stream_until_it_has_recovered() {
    for seed in 0..30 {
        let mut sim = open(seed);
        sim.append(3, 300).expect("room");
        // A commit is a write and a sync.
        sim.disk.set_fault(Some(Fault::Fails { at: sim.disk.operations() + 2 }));
        let refused = sim.append(3, 300).expect_err("the sync fails");
        assert!(matches!(refused.error, Error::Poisoned { .. }), "{refused}");
        sim.disk.set_fault(None);
        for _ in 0..3 {
            let refused = sim.append(2, 10).expect_err("refused until it has recovered");
            assert!(matches!(refused.error, Error::Poisoned { .. }), "{refused}");
        }
        assert_eq!(numbers(&sim), [1, 2, 3], "nothing that is not durable is served");
        sim.tick();
        let events = sim.take_events();
        assert!(matches!(events.as_slice(), [Event::Poisoned { .. }, Event::Recovered { .. }]), "{events:?}");
        assert_eq!(sim.append(3, 300).expect("recovered").runs.iter().map(|run| run.first.0).min(), Some(4));
        assert_eq!(numbers(&sim), [1, 2, 3, 4, 5, 6]);
        let found = verified(&sim);
        assert!(found.is_sound() && found.records == 6, "{found:?}");
        power_cut_and_open(&mut sim, CatalogueFound::Lost);
        sim.check();
        assert_eq!(numbers(&sim), [1, 2, 3, 4, 5, 6]);
        assert_eq!(damaged(&sim.take_events()), []);
    }
}

#[test]
fn a_catalogue_that_fails_at_run_time_costs_nothing() {
    let mut sim = open(13);
    sim.append(5, 4000).expect("room");
    sim.kv.fail();
    for round in 0..30u64 {
        sim.append(5, 4000).expect("room");
        sim.save_checkpoint(SequenceNumber(round * 5));
        sim.clock.advance(Duration::from_secs(20));
        sim.tick();
    }
    let events = sim.take_events();
    assert!(matches!(events.as_slice(), [Event::CatalogueBehind { .. }]), "told once: {events:?}");
    sim.check();
    let checkpoint = sim.stream().checkpoint(CONSUMER);
    power_cut_and_open(&mut sim, CatalogueFound::Newest);
    // The checkpoint was not older than the control blocks' interval.
    assert!(sim.stream().checkpoint(CONSUMER).0 + 5 >= checkpoint.0);
    sim.check();
    assert_eq!(verified(&sim).findings, []);
}

#[test]
fn verify_and_dump_see_what_readers_see() {
    let (sim, places) = ten_blocks(14);
    let found = verified(&sim);
    assert_eq!((found.records, found.blocks), (50, 10));
    assert_eq!((found.first, found.last), (Some(SequenceNumber(1)), Some(SequenceNumber(50))));
    assert_eq!(found.segments as usize, sim.segments().len());
    assert_eq!(found.bytes, sim.stream().stats().disk_bytes);
    assert_eq!(found.payload_bytes, Some(sim.stream().stats().payload_bytes));
    assert_eq!((found.format, found.shards.len()), (Some(FORMAT_VERSION), 3));

    let all = read_all(sim.stream(), 100);
    for from in [0u64, 1, 13, 26, 50, 51] {
        for limit in [None, Some(0), Some(1), Some(7)] {
            let (mut records, mut blocks) = (Vec::new(), Vec::new());
            let show = |dumped| {
                match dumped {
                    Dumped::Record(record) => records.push(record),
                    Dumped::Block { offset, control: None, .. } => blocks.push(offset),
                    _ => {}
                }
                std::ops::ControlFlow::Continue(())
            };
            dump_on(&sim.disk, Path::new(DIR), "telemetry", SequenceNumber(from), limit, show).expect("readable");
            let wanted = all.iter().filter(|record| record.sequence_number.0 >= from);
            let wanted: Vec<_> = wanted.take(limit.map_or(usize::MAX, |limit| limit as usize)).cloned().collect();
            assert_eq!(records, wanted, "from {from}, limit {limit:?}");
            if let (0, None) = (from, limit) {
                assert_eq!(blocks, places.iter().map(|place| place.offset).collect::<Vec<_>>());
            }
        }
    }
}

#[test]
fn an_index_entry_that_points_into_nowhere_costs_nothing() {
    // Two blocks at the end are gone, with the catalogue; what comes in their place begins elsewhere than the second of
    // them, of which the catalogue gets an entry.
    let mut sim = open(15);
    for _ in 0..5 {
        sim.append(2, 5000).expect("room");
    }
    let places = blocks(&sim);
    assert_eq!(sim.segments().len(), 1);
    sim.close();
    sim.disk.damage(&places[3].path, |bytes| bytes.truncate(places[3].offset as usize));
    sim.power_cut(CatalogueFound::Lost);
    sim.open().expect("it opens");
    sim.acknowledged.retain(|number, _| *number < places[3].first);
    // One block with the numbers of both, and more.
    let again = sim.append(6, 3000).expect("room");
    assert!(again.runs.iter().any(|run| run.first == places[3].first));
    assert!(sim.newest() > places[4].first);
    let catalogue = Catalogue::new(Box::new(sim.kv.clone())).expect("works").expect("today's version");
    let (number, segment, offset) = (places[4].first, first_of(&places[4].path), places[4].offset);
    catalogue.put_index("telemetry", number, segment, offset, &Marks::default());
    sim.take_events();
    sim.check();
    for number in 1..=sim.newest().0 {
        let mut cursor = sim.stream().cursor(crate::Start::At(SequenceNumber(number)));
        let limit = crate::ReadLimit { records: 1, payload_bytes: 1 };
        assert_eq!(cursor.read(limit).expect("readable")[0].sequence_number.0, number);
    }
    assert_eq!(damaged(&sim.take_events()), []);
    power_cut_and_open(&mut sim, CatalogueFound::Newest);
    sim.check();
    assert_eq!(sim.take_events(), []);
}

#[test]
fn a_catalogue_of_another_life_of_the_stream_is_not_followed() {
    let (mut sim, _) = ten_blocks(16);
    sim.save_checkpoint(SequenceNumber(50));
    sim.close();
    // Another log of the same name, under the catalogue of the first.
    let mut other = Simulation::new(17);
    other.clock.advance(Duration::from_secs(3));
    other.open().expect("an empty disk");
    for _ in 0..8 {
        other.append(4, 5000).expect("room");
    }
    other.save_checkpoint(SequenceNumber(5));
    other.close();
    other.kv = sim.kv.clone();
    other.open().expect("it opens");
    assert!(matches!(other.take_events().as_slice(), [Event::CatalogueRebuilt { set_aside: None, .. }]));
    other.check();
    assert_eq!(other.stream().checkpoint(CONSUMER), SequenceNumber(5));
    assert_eq!(numbers(&other).len(), 32);
}

#[test]
fn a_full_disk_at_opening_costs_neither_the_catalogue_nor_the_opening() {
    let (mut sim, _) = ten_blocks(18);
    sim.save_checkpoint(SequenceNumber(30));
    sim.close();
    sim.disk.create_dir(&Path::new(DIR).join("catalogue")).expect("room");
    sim.has_room_for_catalogue = false;
    sim.open().expect("it opens");
    assert_eq!(numbers(&sim).len(), 50);
    assert_eq!(sim.stream().checkpoint(CONSUMER), SequenceNumber(30), "the control block has it too");
    sim.append(4, 5000).expect("room");
    sim.save_checkpoint(SequenceNumber(35));
    sim.tick();
    let events = sim.take_events();
    let [Event::CatalogueBehind { reason }] = events.as_slice() else { panic!("told once: {events:?}") };
    assert!(reason.contains("no space left"), "{reason}");
    sim.close();
    assert!(!sim.disk.list(Path::new(DIR)).expect("there").iter().any(|name| name.contains("broken")));

    sim.has_room_for_catalogue = true;
    sim.open().expect("it opens");
    sim.check();
    assert_eq!(sim.take_events(), []);
    assert_eq!(numbers(&sim).len(), 54);
    assert_eq!(sim.stream().checkpoint(CONSUMER), SequenceNumber(35));
}

/// It once waited for room that could never come, and everything behind it waited too.
#[test]
fn a_batch_larger_than_the_quota_is_refused_and_the_next_one_passes() {
    let mut sim = Simulation::new(1);
    sim.stream_config.quota = 200_000;
    sim.open().expect("an empty disk");
    let refused = sim.append(5, 50_000).expect_err("more than the quota at once").error;
    assert!(matches!(&refused, Error::Full { reason, .. } if reason.contains("more than its quota")), "{refused}");
    let mut batch = sim.stream().batch();
    let large = vec![0; 50_001];
    let refused = batch.push(&NewRecord::new("k", &large)).expect_err("more than a quarter of the quota");
    assert!(matches!(refused, Error::RecordTooLarge { bytes: 50_001, max: 50_000 }), "{refused}");
    sim.append(1, 10).expect("there is room for a small one");
    sim.check();
}

#[test]
fn a_dump_shows_all_that_a_control_block_holds() {
    let (mut sim, blocks) = ten_blocks(19);
    sim.disk.damage(&blocks[4].path, |bytes| bytes[blocks[4].offset as usize + 100] ^= 1);
    assert_eq!(numbers(&sim).len(), 45);
    forget(&mut sim, &blocks[4].numbers());
    sim.close();
    let mut newest = None;
    let show = |dumped| {
        if let Dumped::Block { control: Some(control), .. } = dumped {
            newest = Some(control);
        }
        std::ops::ControlFlow::Continue(())
    };
    dump_on(&sim.disk, Path::new(DIR), "telemetry", SequenceNumber(46), None, show).expect("readable");
    let control = newest.expect("one of the clean stop");
    assert_eq!(control.checkpoints[CONSUMER], SequenceNumber(12));
    assert_eq!((control.dropped.damage, control.lost.damage), (5, 5));
    assert_eq!((control.gaps, control.reserved), (vec![blocks[4].numbers()], SequenceNumber::ZERO));
    assert!(control.oldest <= SequenceNumber(1) && control.boots.iter().all(|boot| boot.id == sim.clock.boot()));
}
