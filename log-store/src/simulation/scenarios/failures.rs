//! A sync that fails, and a catalogue that fails, cannot be opened or says what is not so.

use std::time::Duration;

use super::*;
use crate::{catalogue::Catalogue, disk::sim::Fault, marks::Marks};

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
