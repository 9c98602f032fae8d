//! Segments made of dropped ones' files: what is left in them is never served, never told, and counted as taken.

use std::{
    ops::ControlFlow,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use super::{
    CatalogueFound, DIR, Simulation,
    scenarios::{blocks_of, numbers, verified},
};
use crate::{
    config::Durability,
    cursor::{ReadLimit, Start},
    disk::Disk as _,
    event::Event,
    inspect::{Dumped, dump_on},
    segment::SegmentHeader,
    sequence::SequenceNumber,
};

fn recycled_bytes(sim: &Simulation, path: &Path) -> u64 {
    let file = sim.disk.open_read(path).expect("there");
    SegmentHeader::read(file.as_ref(), path).expect("sound").recycled_bytes.into()
}

/// Lets everything written so far expire, and writes until its newest segment is a recycled one with some blocks.
fn recycle(sim: &mut Simulation) {
    sim.save_checkpoint(sim.newest());
    sim.clock.advance(Duration::from_secs(1001));
    sim.append(5, 4000).expect("room");
    sim.tick();
    for _ in 0..40 {
        sim.append(5, 4000).expect("room");
        let (path, len) = sim.segments().pop().expect("one is being written");
        // Two blocks of old bytes follow.
        if recycled_bytes(sim, &path) > 0 && blocks_of(sim, &path, len).len() == 1 {
            return;
        }
    }
    panic!("no file was recycled");
}

/// Some full segments, and a recycled one with one block of five records at its head.
fn recycled() -> Simulation {
    recycled_of(1)
}

fn recycled_of(segment_bytes: u64) -> Simulation {
    let mut sim = Simulation::new(3);
    sim.store_config.segment_bytes = segment_bytes;
    sim.open().expect("an empty disk");
    for _ in 0..30 {
        sim.append(5, 4000).expect("room");
    }
    recycle(&mut sim);
    sim.take_events();
    sim
}

#[test]
fn what_is_left_in_a_recycled_file_is_neither_served_nor_told() {
    for catalogue in [CatalogueFound::Newest, CatalogueFound::Lost] {
        let mut sim = recycled();
        let (path, len) = sim.segments().pop().expect("one is being written");
        assert_eq!(len, recycled_bytes(&sim, &path), "the file has not grown");
        assert_eq!(sim.stream().stats().disk_bytes, sim.disk_bytes());
        let before = numbers(&sim);
        assert_eq!(verified(&sim).findings, [], "beside a running agent");
        sim.power_cut(catalogue);
        assert_eq!(verified(&sim).findings, [], "after a power cut");
        sim.open().expect("it opens");
        assert_eq!(numbers(&sim), before);
        let told = sim.take_events();
        assert!(told.iter().all(|event| matches!(event, Event::CatalogueRebuilt { .. })), "{told:?}");
        assert!(sim.disk.files().iter().all(|(path, _)| path.extension().is_none_or(|ext| ext != "torn")));
        assert_eq!(sim.stream().stats().disk_bytes, sim.disk_bytes());
        sim.append(5, 4000).expect("room");
        sim.check();
    }
}

#[test]
fn a_torn_commit_in_a_recycled_file_is_told() {
    let mut sim = recycled();
    let (path, len) = sim.segments().pop().expect("one is being written");
    sim.append(5, 4000).expect("room");
    let torn = blocks_of(&sim, &path, len).pop().expect("two blocks");
    sim.disk.damage(&path, |bytes| bytes[(torn.offset + torn.bytes) as usize - 1] ^= 1);
    sim.acknowledged.retain(|number, _| !torn.numbers().contains(number));
    tells_of_a_torn_end_at(&mut sim, torn.offset);
}

#[track_caller]
fn tells_of_a_torn_end_at(sim: &mut Simulation, wanted: u64) {
    sim.power_cut(CatalogueFound::Newest);
    sim.open().expect("it opens");
    let mut told = sim.take_events();
    // Of a block with an index entry the catalogue proves that its first record was there.
    told.retain(|event| !matches!(event, Event::Damaged { .. }));
    assert!(
        matches!(told.as_slice(), [Event::TailTorn { offset, kept: Some(_), .. }] if *offset == wanted),
        "{told:?}"
    );
}

#[test]
fn what_was_never_synced_in_a_recycled_file_is_told() {
    let mut sim = recycled();
    let (path, len) = sim.segments().pop().expect("one is being written");
    sim.stream_config.durability = Durability::Interval(Duration::from_secs(10));
    sim.reconfigure();
    sim.append(5, 4000).expect("room");
    sim.append(5, 4000).expect("room");
    let blocks = blocks_of(&sim, &path, len);
    let [_, torn, behind] = &blocks[..] else { panic!("{blocks:?}") };
    // The first of the two never reached the disk, header and all; the other one did.
    sim.disk.damage(&path, |bytes| bytes[torn.offset as usize..behind.offset as usize].fill(7));
    tells_of_a_torn_end_at(&mut sim, torn.offset);
}

#[test]
fn a_reader_whose_segment_is_recycled_under_its_hands_goes_on_behind_it_and_tells_nothing() {
    // More than is read at a time.
    let sim = recycled_of(400_000);
    let mut cursor = sim.stream().cursor(Start::Oldest);
    let five = ReadLimit { records: 5, payload_bytes: 1 << 20 };
    assert_eq!(cursor.read(five).expect("readable").len(), 5);
    let disk = sim.disk.clone();
    let shared = Arc::new(Mutex::new(sim));
    let in_hook = Arc::clone(&shared);
    // The reader has looked where to read, and reads when another segment is in the file.
    disk.before_next_read(move || {
        let mut sim = in_hook.lock().expect("unpoisoned");
        recycle(&mut sim);
        (0..15).for_each(|_| _ = sim.append(5, 4000).expect("room"));
    });
    let mut numbers = Vec::new();
    while let Some(record) = cursor.read(five).expect("readable").pop() {
        numbers.push(record.sequence_number);
    }
    let sim = shared.lock().expect("unpoisoned");
    assert!(numbers.is_sorted() && numbers.last() == Some(&sim.newest()));
    let told = sim.take_events();
    assert!(matches!(told.as_slice(), [Event::Dropped { .. }]), "{told:?}");
    assert_eq!(sim.stream().stats().dropped.damage, 0);
}

#[test]
fn dump_beside_a_running_agent_takes_no_recycled_file_for_damage() {
    // More than is read at a time.
    let mut sim = recycled_of(400_000);
    let disk = sim.disk.clone();
    let (mut records, mut findings) = (0, Vec::new());
    let show = |dumped| {
        match dumped {
            Dumped::Finding(finding) => findings.push(finding),
            Dumped::Record(_) => {
                records += 1;
                if records == 1 {
                    recycle(&mut sim);
                    (0..15).for_each(|_| _ = sim.append(5, 4000).expect("room"));
                }
            }
            _ => {}
        }
        ControlFlow::Continue(())
    };
    dump_on(&disk, Path::new(DIR), "telemetry", SequenceNumber::ZERO, None, show).expect("readable");
    assert_eq!(findings, []);
    assert!(records > 5);
}

#[test]
fn under_a_full_quota_what_is_delivered_makes_the_next_segment() {
    let mut sim = Simulation::new(4);
    sim.stream_config.quota = 600_000;
    sim.open().expect("an empty disk");
    for _ in 0..100 {
        sim.append(5, 4000).expect("what is delivered goes");
        sim.save_checkpoint(sim.newest());
        sim.note_recycled();
        let stats = sim.stream().stats();
        assert_eq!(stats.disk_bytes, sim.disk_bytes());
        assert!(stats.disk_bytes <= 600_000, "{}", stats.disk_bytes);
    }
    assert!(sim.recycled);
    sim.check();
}
