//! Streams whose configuration changes while they run, and streams that are deleted.

use std::time::Duration;

use super::{CatalogueFound, DIR, Simulation, read_all};
use crate::{
    cursor::Start,
    disk::{Disk, sim::Fault},
    event::{DropReason, Event},
    record::NewRecord,
    sequence::SequenceNumber,
};

const HOUR: Duration = Duration::from_secs(3600);

/// One record an hour, ten of them in one segment, kept for `retention`.
fn ten_hours(retention: Duration) -> Simulation {
    let mut sim = Simulation::new(3);
    sim.stream_config.retention = retention;
    sim.stream_config.consumers.clear();
    sim.open().expect("an empty disk");
    for _ in 0..10 {
        sim.append(1, 10).expect("stored");
        sim.clock.advance(HOUR);
    }
    sim
}

fn readable(sim: &Simulation) -> Vec<u64> {
    read_all(sim.stream(), 3).iter().map(|record| record.sequence_number.0).collect()
}

fn dropped(sim: &Simulation) -> Vec<(u64, u64)> {
    let ranges = sim.take_events().into_iter().filter_map(|event| match event {
        Event::Dropped { reason: DropReason::Retention, records, .. } => Some((records.start().0, records.end().0)),
        _ => None,
    });
    ranges.collect()
}

#[test]
fn a_longer_retention_brings_nothing_back() {
    let mut sim = ten_hours(5 * HOUR);
    // Those of five hours ago and later.
    assert_eq!(readable(&sim), [6, 7, 8, 9, 10]);
    sim.stream_config.retention = 100 * HOUR;
    sim.configure().expect("taken over");
    assert_eq!(readable(&sim), [6, 7, 8, 9, 10]);
    assert_eq!(dropped(&sim), [(1, 5)], "what is out of reach for ever is told");
    assert_eq!(sim.stream().stats().dropped.retention, 5);
    assert_eq!(sim.stream().stats().oldest, SequenceNumber(6));

    // The same after a start, whatever is left of the catalogue; and the longer one holds.
    sim.clock.advance(20 * HOUR);
    for catalogue in [CatalogueFound::Newest, CatalogueFound::Stale(0), CatalogueFound::Lost] {
        sim.power_cut(catalogue);
        sim.open().expect("it opens");
        assert_eq!(readable(&sim), [6, 7, 8, 9, 10], "{catalogue:?}");
    }
    assert_eq!(dropped(&sim), []);
    sim.clock.advance(100 * HOUR);
    sim.tick();
    assert_eq!(readable(&sim), [0; 0]);
    assert_eq!(dropped(&sim), [(6, 10)], "each is told once");
}

#[test]
fn a_longer_retention_holds_also_when_it_comes_with_a_start() {
    let mut sim = ten_hours(5 * HOUR);
    sim.close();
    sim.stream_config.retention = 100 * HOUR;
    sim.open().expect("it opens");
    assert_eq!(readable(&sim), [6, 7, 8, 9, 10]);
    assert_eq!(dropped(&sim), [(1, 5)]);
}

#[test]
fn a_shorter_retention_takes_what_is_past_it() {
    let mut sim = ten_hours(100 * HOUR);
    assert_eq!(readable(&sim).len(), 10);
    sim.stream_config.retention = 5 * HOUR;
    sim.configure().expect("taken over");
    assert_eq!(readable(&sim), [6, 7, 8, 9, 10]);
    sim.clock.advance(6 * HOUR);
    sim.tick();
    assert_eq!((readable(&sim).len(), dropped(&sim)), (0, vec![(1, 10)]));
}

#[test]
fn what_is_held_for_a_delivery_is_not_past() {
    let mut sim = ten_hours(5 * HOUR);
    sim.stream_config.consumers = vec![super::CONSUMER.into()];
    sim.configure().expect("taken over");
    assert_eq!(readable(&sim).len(), 10);
    sim.stream_config.retention = 6 * HOUR;
    sim.configure().expect("taken over");
    assert_eq!(readable(&sim).len(), 10, "nothing is delivered yet");
}

#[test]
fn a_note_is_kept_with_the_stream() {
    let mut sim = Simulation::new(4);
    sim.stream_config.note = "made by hand".into();
    sim.open().expect("an empty disk");
    for catalogue in [CatalogueFound::Newest, CatalogueFound::Stale(0), CatalogueFound::Lost] {
        sim.power_cut(catalogue);
        sim.open_without_stream().expect("it opens");
        assert_eq!(sim.note().as_deref(), Some("made by hand"), "{catalogue:?}");
    }
    sim.power_cut(CatalogueFound::Newest);
    sim.open().expect("it opens");
    sim.stream_config.note = "changed".into();
    sim.configure().expect("taken over");
    assert_eq!(sim.note().as_deref(), Some("changed"));
    sim.power_cut(CatalogueFound::Lost);
    sim.open_without_stream().expect("it opens");
    assert_eq!(sim.note().as_deref(), Some("changed"));
    assert!(sim.delete().expect("deleted"));
    assert_eq!(sim.note(), None);
    assert!(!sim.delete().expect("nothing to do"));
}

/// A stream of several segments.
fn stored(seed: u64) -> Simulation {
    let mut sim = Simulation::new(seed);
    sim.open().expect("an empty disk");
    for _ in 0..5 {
        sim.append(10, 5000).expect("stored");
    }
    sim.save_checkpoint(SequenceNumber(20));
    sim.tick();
    sim
}

#[test]
fn a_deleted_stream_is_gone_for_who_still_holds_it() {
    let mut sim = stored(5);
    let stream = sim.stream().clone();
    let mut cursor = stream.cursor(Start::Oldest);
    assert!(sim.delete().expect("deleted"));
    assert_eq!(cursor.read(crate::ReadLimit { records: 10, payload_bytes: 1000 }).expect("readable"), []);
    let mut batch = stream.batch();
    batch.push(&NewRecord::new("key", b"data")).expect("sound");
    let (told, outcome) = std::sync::mpsc::channel();
    stream.append(batch, crate::WhenFull::Wait, Box::new(move |outcome| drop(told.send(outcome))));
    let refused = outcome.recv().expect("told at once").expect_err("refused");
    assert!(matches!(refused.error, crate::Error::Closed), "{refused}");
    assert_eq!(sim.segments(), []);

    // A new one of the same name begins anew.
    sim.configure().expect("made");
    sim.power_cut(CatalogueFound::Newest);
    sim.open().expect("it opens");
    assert_eq!((sim.stream().stats().next, readable(&sim)), (SequenceNumber(1), vec![]));
    assert_eq!(sim.stream().checkpoint(super::CONSUMER), SequenceNumber::ZERO);
}

#[test]
fn a_power_cut_while_deleting_leaves_all_or_nothing() {
    let operations = {
        let mut sim = stored(0);
        let before = sim.disk.operations();
        assert!(sim.delete().expect("deleted"));
        sim.disk.operations() - before
    };
    assert!(operations > 8, "{operations}");
    let mut outcomes = [0; 2];
    for at in 1..=operations {
        for catalogue in [CatalogueFound::Newest, CatalogueFound::Stale(at as usize), CatalogueFound::Lost] {
            let mut sim = stored(at);
            sim.disk.set_fault(Some(Fault::PowerCut { at: sim.disk.operations() + at }));
            let _ = sim.delete();
            sim.power_cut(catalogue);
            sim.open().unwrap_or_else(|error| panic!("operation {at}: {error}"));
            let left = readable(&sim);
            let gone = left.is_empty() && sim.stream().stats().next == SequenceNumber(1);
            assert!(gone || left == (1..=50).collect::<Vec<_>>(), "operation {at}, {catalogue:?}: {left:?}");
            outcomes[usize::from(gone)] += 1;
        }
    }
    assert!(outcomes.iter().all(|count| *count > 0), "{outcomes:?}");
}

#[test]
fn an_opening_ends_a_deletion_that_was_begun() {
    let mut sim = stored(6);
    let path = sim.stream_dir().join("deleted");
    sim.close();
    let mark = sim.disk.create(&path).expect("made");
    mark.sync().and_then(|()| sim.disk.sync_dir(&sim.stream_dir())).expect("synced");
    sim.open_without_stream().expect("it opens");
    assert!(
        !sim.disk
            .list(std::path::Path::new(DIR).join("streams").as_path())
            .expect("listed")
            .contains(&"telemetry".into())
    );
}
