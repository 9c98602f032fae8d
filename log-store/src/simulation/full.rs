//! A disk without room, in every place where room can be missing: who gives way, what is told, and that nothing else is lost.

use std::{path::Path, sync::mpsc, time::Duration};

use super::{CONSUMER, CatalogueFound, DIR, Simulation, read_all};
use crate::{
    config::{MinFree, OnFull, StreamConfig},
    disk::{Disk, sim::Fault},
    error::{Appended, Error},
    event::{DropReason, Event},
    record::NewRecord,
    sequence::SequenceNumber,
    store::{Stream, WhenFull},
};

const POLICIES: [OnFull; 3] = [OnFull::Reject, OnFull::DropDeliveredFirst, OnFull::DropOldest];

/// Another stream of the same store, outside the model.
pub(super) fn other_stream(sim: &Simulation, name: &str, consumers: &[&str]) -> Stream {
    let config = StreamConfig {
        name: name.into(),
        on_full: OnFull::Reject,
        consumers: consumers.iter().map(|name| (*name).to_owned()).collect(),
        ..sim.stream_config.clone()
    };
    let (parts, _) = sim.running.as_ref().expect("open");
    parts.stream(&sim.store_config, config).expect("a sound name")
}

fn append_to(sim: &Simulation, stream: &Stream, bytes: usize) -> Result<Appended, Error> {
    let mut batch = stream.batch();
    batch.push(&NewRecord::new("key", &vec![b'.'; bytes])).expect("a sound record");
    let (tell, told) = mpsc::channel();
    stream.append(batch, WhenFull::Refuse, Box::new(move |outcome| tell.send(outcome).expect("awaited")));
    let (parts, _) = sim.running.as_ref().expect("open");
    parts.writers.lock().expect("unpoisoned").commit_queued(&parts.queue);
    told.try_recv().expect("answered").map_err(|refused| refused.error)
}

/// Appends until it is refused; the reason.
fn fill(sim: &mut Simulation) -> String {
    for _ in 0..1000 {
        match sim.append(1, 20_000).map_err(|refused| refused.error) {
            Ok(_) => {}
            Err(Error::Full { reason, .. }) => return reason,
            Err(error) => panic!("{error}"),
        }
    }
    panic!("it never got full")
}

/// Which records of which stream were dropped, how many of them undelivered, and by which limit.
fn drops(sim: &Simulation) -> Vec<(String, u64, u64, Option<String>)> {
    let events = sim.take_events().into_iter();
    let drops = events.filter_map(|event| match event {
        Event::Dropped { stream, reason: DropReason::Quota, records, undelivered, limit, .. } => {
            Some((stream, records.end().0 + 1 - records.start().0, undelivered, limit))
        }
        _ => None,
    });
    drops.collect()
}

fn dropped_of(drops: &[(String, u64, u64, Option<String>)], name: &str) -> (u64, u64) {
    let of = drops.iter().filter(|(stream, ..)| stream == name);
    of.fold((0, 0), |(dropped, lost), (_, records, undelivered, _)| (dropped + records, lost + undelivered))
}

/// A stream under test beside one whose first half is delivered, in a directory of 1 MB that both have filled.
fn crowded(seed: u64, on_full: OnFull, consumers: &[&str]) -> (Simulation, Stream) {
    let mut sim = Simulation::new(seed);
    sim.store_config.max_bytes = Some(1_000_000);
    sim.stream_config.on_full = on_full;
    sim.stream_config.consumers = consumers.iter().map(|name| (*name).to_owned()).collect();
    sim.open().expect("an empty disk");
    let other = other_stream(&sim, "history", &[CONSUMER]);
    for _ in 0..24 {
        append_to(&sim, &other, 20_000).expect("room");
    }
    other.save_checkpoint(CONSUMER, SequenceNumber(12));
    for _ in 0..24 {
        sim.append(1, 20_000).expect("room");
    }
    assert_eq!(drops(&sim), []);
    (sim, other)
}

#[test]
fn rejecting_takes_what_is_delivered_anywhere_and_nothing_else() {
    let (mut sim, other) = crowded(1, OnFull::Reject, &[CONSUMER]);
    sim.save_checkpoint(SequenceNumber(6));
    let reason = fill(&mut sim);
    assert!(reason.contains("max-bytes") && reason.contains("1000000"), "{reason}");
    let drops = drops(&sim);
    assert_eq!(drops[0].0, "telemetry", "its own goes first");
    assert!(drops.iter().all(|(.., undelivered, limit)| {
        *undelivered == 0 && limit.as_ref().is_some_and(|limit| limit.contains("max-bytes"))
    }));
    // By whole segments of three records.
    assert_eq!((dropped_of(&drops, "telemetry"), dropped_of(&drops, "history")), ((6, 0), (12, 0)));
    assert_eq!(other.stats().oldest, SequenceNumber(13));
    sim.check();
    assert!(sim.disk.used() <= 1_000_000, "{}", sim.disk.used());
    // As soon as anybody delivers something, it goes on.
    other.save_checkpoint(CONSUMER, SequenceNumber(15));
    sim.append(1, 20_000).expect("room");
    let events = sim.take_events();
    assert!(
        matches!(events.as_slice(), [Event::Dropped { undelivered: 0, .. }, Event::RoomAgain { .. }]),
        "{events:?}"
    );
}

#[test]
fn dropping_what_is_delivered_first_spares_its_own_until_nothing_else_is_left() {
    let (mut sim, other) = crowded(2, OnFull::DropDeliveredFirst, &[CONSUMER]);
    sim.save_checkpoint(SequenceNumber(6));
    // As much as is delivered: six records of its own, and twelve of the other.
    for _ in 0..18 {
        sim.append(1, 20_000).expect("room");
    }
    let first = drops(&sim);
    assert_eq!((dropped_of(&first, "telemetry"), dropped_of(&first, "history")), ((6, 0), (12, 0)));
    for _ in 0..30 {
        sim.append(1, 20_000).expect("room");
    }
    let (dropped, lost) = dropped_of(&drops(&sim), "telemetry");
    assert!((27..=33).contains(&dropped) && lost == dropped, "{dropped}, {lost}");
    assert_eq!(other.stats().oldest, SequenceNumber(13), "what is undelivered goes for nobody else");
    assert!(sim.disk.used() <= 1_000_000, "{}", sim.disk.used());
    sim.check();
}

#[test]
fn dropping_the_oldest_leaves_others_alone() {
    let (mut sim, other) = crowded(3, OnFull::DropOldest, &[CONSUMER]);
    sim.save_checkpoint(SequenceNumber(6));
    for _ in 0..30 {
        sim.append(1, 20_000).expect("room");
    }
    let drops = drops(&sim);
    let (dropped, lost) = dropped_of(&drops, "telemetry");
    assert!((27..=33).contains(&dropped) && lost == dropped - 6, "{dropped}, {lost}");
    assert_eq!((dropped_of(&drops, "history"), other.stats().oldest), ((0, 0), SequenceNumber(1)));
    assert!(sim.disk.used() <= 1_000_000, "{}", sim.disk.used());
    sim.check();
}

#[test]
fn without_a_consumer_nothing_counts_as_delivered() {
    for on_full in POLICIES {
        let (mut sim, other) = crowded(4, on_full, &[]);
        // What is delivered of the other stream makes room for about as much.
        for _ in 0..9 {
            sim.append(1, 20_000).expect("room");
        }
        let (own, of_other) = (sim.stream().stats().oldest, other.stats().oldest);
        match on_full {
            OnFull::DropOldest => assert!(own > SequenceNumber(6) && of_other == SequenceNumber(1)),
            _ => assert!(own == SequenceNumber(1) && of_other > SequenceNumber(6)),
        }
        if on_full == OnFull::Reject {
            fill(&mut sim);
            assert_eq!(sim.stream().stats().oldest, SequenceNumber(1), "it waits for its retention");
            sim.clock.advance(Duration::from_secs(1001));
            sim.tick();
            sim.append(1, 20_000).expect("room");
        }
    }
}

#[test]
fn what_is_in_the_directory_besides_records_counts() {
    let mut sim = Simulation::new(5);
    sim.store_config.max_bytes = Some(1_000_000);
    sim.open().expect("an empty disk");
    let filled = |sim: &mut Simulation| {
        fill(sim);
        let used = sim.disk.used();
        assert!((970_000..=1_000_000).contains(&used), "{used}");
        let records = sim.stream().stats().next.0 - sim.stream().stats().oldest.0;
        sim.save_checkpoint(sim.newest());
        records
    };
    let alone = filled(&mut sim);
    // A stream that nobody has configured, say.
    let dir = Path::new(DIR).join("streams/forgotten");
    sim.disk.create_dir(&dir).expect("room");
    sim.append(1, 20_000).expect("what is delivered goes");
    sim.disk.create(&dir.join("00000000000000000001.seg")).expect("new").write_at(0, &[1; 400_000]).expect("room");
    sim.clock.advance(Duration::from_secs(61));
    let beside = filled(&mut sim);
    assert!((alone * 5 / 10..alone * 7 / 10).contains(&beside), "{beside} of {alone}");
    // After a restart it is the same: nothing begins at zero.
    sim.close();
    sim.open().expect("opens");
    assert_eq!(filled(&mut sim), beside);
}

#[test]
fn what_a_stream_takes_is_known_exactly_after_any_restart() {
    for (seed, catalogue) in
        [CatalogueFound::Newest, CatalogueFound::Stale(3), CatalogueFound::Lost].into_iter().enumerate()
    {
        let mut sim = Simulation::new(seed as u64);
        sim.stream_config.quota = 600_000;
        sim.open().expect("an empty disk");
        for round in 0..3 {
            fill(&mut sim);
            let taken: u64 = sim.segments().iter().map(|(_, bytes)| bytes).sum();
            assert_eq!(sim.stream().stats().disk_bytes, taken);
            assert!((550_000..=600_000).contains(&taken), "{taken}");
            sim.power_cut(catalogue);
            sim.open().expect("opens");
            assert_eq!(sim.stream().stats().disk_bytes, taken, "round {round}, {catalogue:?}");
            assert!(sim.append(1, 20_000).is_err(), "it is as full as before");
            sim.check();
            sim.save_checkpoint(sim.newest());
        }
    }
}

#[test]
fn a_segment_that_could_not_be_removed_counts_and_goes_at_the_next_opening() {
    let mut sim = Simulation::new(14);
    sim.stream_config.quota = 600_000;
    sim.open().expect("an empty disk");
    fill(&mut sim);
    sim.save_checkpoint(sim.newest());
    let files = sim.segments();
    let before = files.len();
    // What the next commit does first is to remove the oldest.
    sim.disk.set_fault(Some(Fault::Fails { at: sim.disk.operations() + 1 }));
    sim.append(1, 20_000).expect("room all the same");
    assert!(sim.take_events().iter().any(|event| matches!(event, Event::NotRemoved { .. })));
    assert_eq!(sim.segments().len(), before, "one is left over");
    assert_eq!(sim.segments()[0], files[0], "whole, since it may be all that tells where the numbers go on");
    let oldest = sim.stream().stats().oldest;
    sim.close();
    sim.open().expect("opens");
    assert_eq!((sim.segments().len(), sim.stream().stats().oldest), (before - 1, oldest));
    sim.check();
}

#[test]
fn a_catalogue_without_room_costs_nothing_and_is_whole_after_the_next_opening() {
    for on_full in POLICIES {
        let mut sim = Simulation::new(15);
        sim.stream_config.on_full = on_full;
        sim.stream_config.quota = 600_000;
        sim.open().expect("an empty disk");
        sim.append(5, 4000).expect("room");
        sim.kv.fail();
        for round in 0..60u64 {
            sim.append(5, 4000).expect("room is made");
            sim.save_checkpoint(SequenceNumber(round * 5));
            sim.clock.advance(Duration::from_secs(3));
            sim.tick();
        }
        let behind = |event: &Event| matches!(event, Event::CatalogueBehind { .. });
        assert_eq!(sim.take_events().into_iter().filter(behind).count(), 1);
        let before = sim.stream().stats();
        sim.power_cut(CatalogueFound::Newest);
        sim.open().expect("opens");
        sim.check();
        let after = sim.stream().stats();
        assert_eq!((after.oldest, after.next), (before.oldest, before.next));
        // Less, since no file is longer than what it holds after an opening.
        assert!(after.disk_bytes <= before.disk_bytes);
        // It knows every segment again, and takes what comes.
        let (parts, _) = sim.running.as_ref().expect("open");
        let known = parts.around.catalogue.segments("telemetry").expect("it answers");
        assert_eq!(known.len() + 1, sim.segments().len());
        sim.append(5, 4000).expect("room");
        sim.tick();
        assert_eq!(sim.take_events().into_iter().filter(behind).count(), 0);
    }
}

#[test]
fn torn_copies_go_before_any_record() {
    let mut sim = Simulation::new(6);
    sim.open().expect("an empty disk");
    sim.append(1, 20_000).expect("room");
    sim.close();
    let (path, len) = sim.segments().remove(0);
    sim.disk.damage(&path, |bytes| bytes.extend(vec![7; 100_000]));
    sim.store_config.max_bytes = Some(len + 120_000);
    sim.open().expect("opens");
    let torn = path.with_extension("torn");
    assert!(sim.disk.files().contains(&(torn.clone(), 100_000)));
    sim.take_events();
    sim.append(4, 20_000).expect("the copy makes room");
    assert!(!sim.disk.files().iter().any(|(path, _)| *path == torn));
    assert_eq!(sim.take_events(), []);
    sim.check();
}

#[test]
fn a_torn_copy_goes_with_its_segment() {
    let mut sim = Simulation::new(7);
    sim.open().expect("an empty disk");
    sim.append(1, 20_000).expect("room");
    sim.close();
    let (path, _) = sim.segments().remove(0);
    sim.disk.damage(&path, |bytes| bytes.extend(vec![7; 1000]));
    sim.open().expect("opens");
    let is_there = |sim: &Simulation| sim.disk.files().iter().any(|(file, _)| *file == path.with_extension("torn"));
    assert!(is_there(&sim));
    sim.save_checkpoint(sim.newest());
    sim.clock.advance(Duration::from_secs(1001));
    sim.tick();
    assert_eq!(sim.stream().stats().oldest, SequenceNumber(2));
    sim.close();
    sim.open().expect("opens");
    assert!(!is_there(&sim), "nobody would ever remove it");
}

/// It was once refused: what had to go was counted before retention made room, and looked for again afterwards.
#[test]
fn what_retention_frees_for_a_commit_is_not_asked_for_twice() {
    let mut sim = Simulation::new(13);
    sim.stream_config.quota = 600_000;
    sim.open().expect("an empty disk");
    fill(&mut sim);
    sim.save_checkpoint(sim.newest());
    sim.clock.advance(Duration::from_secs(1001));
    for _ in 0..20 {
        sim.append(1, 20_000).expect("everything before is past its retention");
    }
    let dropped = sim.stream().stats().dropped;
    assert!(dropped.retention > 20 && dropped.quota == 0, "{dropped:?}");
    sim.check();
}

/// A disk of 4 MB that is shared with somebody else, of which 1 MB is to stay free.
fn shared(seed: u64, on_full: OnFull) -> Simulation {
    let mut sim = Simulation::new(seed);
    sim.disk.set_capacity(Some(SHARED_BYTES));
    sim.store_config.min_free = MinFree { bytes: MIN_FREE, percent: 100 };
    sim.stream_config.on_full = on_full;
    sim.open().expect("an empty disk");
    sim
}

const SHARED_BYTES: u64 = 4_000_000;
const MIN_FREE: u64 = 1_000_000;

#[test]
fn min_free_is_never_taken_and_ingest_goes_on_by_itself() {
    let mut sim = shared(8, OnFull::Reject);
    let reason = fill(&mut sim);
    assert!(reason.contains("min-free") && reason.contains("1000000"), "{reason}");
    assert!(sim.disk.free() >= MIN_FREE && sim.disk.free() < MIN_FREE + 100_000, "{}", sim.disk.free());
    for _ in 0..5 {
        sim.tick();
        assert!(sim.append(1, 20_000).is_err());
    }
    let events = sim.take_events();
    assert!(matches!(events.as_slice(), [Event::Full { .. }]), "told once: {events:?}");
    assert_eq!(sim.stream().stats().oldest, SequenceNumber(1));
    // Somebody else had 500 kB, and gives them back bit by bit.
    sim.check_running();
    let mut taken = 0;
    sim.disk.set_capacity(Some(SHARED_BYTES + 500_000));
    for others in (0..=500_000u64).rev().step_by(5000) {
        sim.disk.set_others(others);
        sim.tick();
        taken += u64::from(sim.append(1, 20_000).is_ok());
        assert!(sim.disk.free() >= MIN_FREE, "{}", sim.disk.free());
    }
    assert!((15..=25).contains(&taken), "{taken}");
    let events = sim.take_events();
    assert!((1..=24).contains(&events.len()), "an episode for every few bytes: {events:?}");
    sim.check();
}

#[test]
fn who_drops_keeps_min_free_too() {
    for on_full in [OnFull::DropDeliveredFirst, OnFull::DropOldest] {
        let mut sim = shared(9, on_full);
        for _ in 0..400 {
            sim.append(1, 20_000).expect("there is always room");
            sim.tick();
            assert!(sim.disk.free() >= MIN_FREE, "{}", sim.disk.free());
        }
        assert!(sim.disk.used() > SHARED_BYTES - MIN_FREE - 250_000, "and uses the rest: {}", sim.disk.used());
        let drops = drops(&sim);
        assert!(drops.iter().all(|(.., limit)| limit.as_ref().is_some_and(|limit| limit.contains("min-free"))));
        assert_eq!(dropped_of(&drops, "telemetry").0, sim.stream().stats().oldest.0 - 1);
        sim.check();
    }
}

#[test]
fn when_others_fill_the_disk_a_block_does_not_cost_a_segment() {
    let mut sim = shared(10, OnFull::DropOldest);
    for _ in 0..100 {
        sim.append(1, 20_000).expect("room");
    }
    let (used, segments) = (sim.disk.used(), sim.segments().len());
    // Somebody takes everything up to the last 300 kB, and whatever the log frees.
    for round in 0..200 {
        sim.disk.set_others(SHARED_BYTES - sim.disk.used() - 300_000);
        sim.append(1, 2000).expect("what is dropped may be written again");
        sim.tick();
        assert!(sim.disk.used() <= used + 100_000, "round {round}: {}", sim.disk.used());
    }
    let left = sim.segments().len();
    assert!(left + 10 > segments, "{segments} segments, {left} left for 400 kB of records");
    sim.check();
    // They go, and it grows again.
    sim.disk.set_others(0);
    sim.tick();
    for _ in 0..20 {
        sim.append(1, 20_000).expect("room");
    }
    sim.check();
}

/// For every number of bytes that may be left: the disk gets full in the middle of a block, of a roll, of a control block, and
/// then the power goes.
#[test]
fn a_disk_that_gets_full_anywhere_costs_nothing_that_was_acknowledged() {
    for on_full in POLICIES {
        for room in (0..90_000).step_by(997).chain(0..40) {
            let mut sim = Simulation::new(room);
            sim.stream_config.on_full = on_full;
            sim.open().expect("an empty disk");
            for _ in 0..5 {
                sim.append(2, 12_000).expect("room");
            }
            sim.save_checkpoint(SequenceNumber(2));
            sim.disk.set_capacity(Some(sim.disk.used() + room));
            for round in 0..4 {
                match sim.append(2, 12_000).map_err(|refused| refused.error) {
                    Ok(_) | Err(Error::Full { .. }) => {}
                    Err(error) => panic!("{on_full:?}, room {room}, round {round}: {error}"),
                }
                sim.save_checkpoint(SequenceNumber(2 + round));
                sim.clock.advance(Duration::from_secs(11));
                sim.tick();
                sim.check_running();
            }
            sim.power_cut(if room % 2 == 0 { CatalogueFound::Newest } else { CatalogueFound::Lost });
            sim.open().expect("it opens on the full disk");
            sim.check();
            sim.disk.set_capacity(None);
            sim.append(2, 12_000).expect("room again");
            sim.check();
        }
    }
}

#[test]
fn a_control_block_without_room_drops_nothing() {
    let mut sim = Simulation::new(11);
    sim.stream_config.on_full = OnFull::DropOldest;
    sim.open().expect("an empty disk");
    for _ in 0..10 {
        sim.append(2, 12_000).expect("room");
    }
    sim.disk.set_capacity(Some(sim.disk.used() + 20));
    sim.save_checkpoint(SequenceNumber(1));
    // Also what rolls by its age has to wait.
    sim.clock.advance(Duration::from_secs(700));
    sim.tick();
    assert_eq!(sim.take_events(), []);
    sim.check_running();
    assert_eq!(sim.stream().stats().oldest, SequenceNumber(1));
    sim.disk.set_capacity(None);
    sim.tick();
    sim.power_cut(CatalogueFound::Lost);
    sim.open().expect("opens");
    assert_eq!(sim.stream().checkpoint(CONSUMER), SequenceNumber(1), "it was written when there was room");
}

#[test]
fn a_torn_end_without_room_for_its_copy_is_cut_all_the_same() {
    for room in (0..6000).step_by(113) {
        let mut sim = Simulation::new(room);
        sim.open().expect("an empty disk");
        sim.append(3, 500).expect("room");
        sim.close();
        let (path, _) = sim.segments().remove(0);
        sim.disk.damage(&path, |bytes| bytes.extend(vec![7; 5000]));
        sim.disk.set_capacity(Some(sim.disk.used() + room));
        sim.take_events();
        sim.open().expect("opens");
        let events = sim.take_events();
        let [Event::TailTorn { bytes: 5000, kept, .. }] = events.as_slice() else { panic!("{events:?}") };
        let torn = sim.disk.files().into_iter().find(|(file, _)| *file == path.with_extension("torn"));
        assert_eq!(torn.is_some(), kept.is_some());
        assert_eq!(torn.map_or(5000, |(_, bytes)| bytes), 5000, "whole or not at all");
        sim.check();
        sim.append(1, 10).expect("what was cut off makes room");
        sim.check();
    }
}

#[test]
fn a_power_cut_at_any_operation_on_a_full_disk_loses_nothing_acknowledged() {
    let workload = |sim: &mut Simulation| {
        if sim.open().is_err() {
            return;
        }
        sim.disk.set_capacity(Some(400_000));
        for round in 1..=40u64 {
            match sim.append(2, 9000).map_err(|refused| refused.error) {
                Ok(_) | Err(Error::Full { .. }) => {}
                Err(_) => return,
            }
            if round % 3 == 0 {
                sim.save_checkpoint(SequenceNumber(round));
                sim.tick();
            }
        }
    };
    for on_full in POLICIES {
        let simulation = |seed| {
            let mut sim = Simulation::new(seed);
            sim.stream_config.on_full = on_full;
            sim
        };
        let mut whole = simulation(0);
        workload(&mut whole);
        let operations = whole.disk.operations();
        assert!(operations > 100 && whole.stream().stats().oldest > SequenceNumber(5), "{operations}");
        for at in 1..=operations {
            let mut sim = simulation(at);
            sim.disk.set_fault(Some(Fault::PowerCut { at }));
            workload(&mut sim);
            sim.power_cut(
                [CatalogueFound::Newest, CatalogueFound::Stale(at as usize), CatalogueFound::Lost][at as usize % 3],
            );
            if sim.open().is_err() {
                // The last segment was full of nothing, and there is no room for a new one.
                sim.disk.set_capacity(None);
                sim.power_cut(CatalogueFound::Newest);
                sim.open().expect("opens");
            }
            sim.check();
            sim.disk.set_capacity(None);
            sim.append(1, 10).expect("room");
            sim.check();
        }
    }
}

#[test]
fn what_is_delivered_goes_at_once_if_it_is_not_to_be_kept() {
    let mut sim = Simulation::new(12);
    sim.stream_config.keep_delivered = false;
    sim.open().expect("an empty disk");
    for _ in 0..12 {
        sim.append(2, 12_000).expect("room");
    }
    let segments = sim.segments().len();
    sim.tick();
    assert_eq!(sim.segments().len(), segments, "nothing is delivered");
    // The segment that is written stays: a new file for every delivered commit would wear the flash.
    sim.save_checkpoint(sim.newest());
    for _ in 0..3 {
        sim.tick();
        assert_eq!(sim.segments().len(), 1);
    }
    assert!(sim.stream().stats().disk_bytes > 10_000);
    // Nothing comes any more: at its age it goes too.
    sim.clock.advance(Duration::from_secs(601));
    sim.tick();
    assert_eq!((sim.segments().len(), sim.stream().stats().oldest), (1, SequenceNumber(25)));
    assert!(sim.stream().stats().disk_bytes < 1000, "an empty segment");
    let undelivered: u64 = drops_by_retention(&sim);
    assert_eq!(undelivered, 0);
    assert_eq!(read_all(sim.stream(), 7), []);
}

fn drops_by_retention(sim: &Simulation) -> u64 {
    let events = sim.take_events().into_iter();
    events
        .map(|event| match event {
            Event::Dropped { reason: DropReason::Retention, undelivered, .. } => undelivered,
            other => panic!("{other}"),
        })
        .sum()
}
