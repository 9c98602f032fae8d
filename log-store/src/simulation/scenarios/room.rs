//! A disk and a quota that are full, and what gives room again.

use std::time::Duration;

use super::*;
use crate::{config::OnFull, event::DropReason, record::NewRecord};

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
