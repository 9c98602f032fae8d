//! Counts of a log in which some numbers stand for no record: they were delivered from memory, or were reserved when the
//! power went. Nothing counts them, whichever catalogue is found.

use std::{collections::BTreeSet, ops::ControlFlow, path::Path};

use super::{
    CONSUMER, CatalogueFound, DIR,
    durability::{MODES, SPILL_AFTER, World},
    read_all,
};
use crate::{
    catalogue::Kv as _,
    config::OnFull,
    event::Event,
    inspect::{Dumped, dump_on},
    sequence::SequenceNumber,
};

const CATALOGUES: [CatalogueFound; 4] =
    [CatalogueFound::Newest, CatalogueFound::Stale(0), CatalogueFound::Stale(3), CatalogueFound::Lost];

fn counted(world: &World) -> u64 {
    world.sim.stream().records_between(SequenceNumber::ZERO, SequenceNumber(u64::MAX))
}

fn numbers(world: &World) -> BTreeSet<SequenceNumber> {
    read_all(world.sim.stream(), 7).iter().map(|record| record.sequence_number).collect()
}

/// Entries of the catalogue for unwritten numbers.
fn entries(world: &World) -> usize {
    world.sim.kv.scan(b"u/telemetry\0").expect("readable").len()
}

/// Brings what waits in memory to the disk.
fn spill(world: &mut World) {
    world.sim.clock.advance(SPILL_AFTER);
    world.do_due();
}

fn memory_first() -> World {
    let mut world = World::new(7, MODES[2]);
    world.with_marks = false;
    world
}

/// Numbers 1 to 10 delivered from memory, five records on the disk, and three that the power takes before they are anywhere.
fn with_unwritten_numbers(catalogue: CatalogueFound) -> World {
    let mut world = memory_first();
    world.append(10, 100);
    world.deliver(10, 0);
    assert_eq!(counted(&world), 0, "delivered from memory");
    world.append(5, 100);
    assert_eq!(counted(&world), 5, "held in memory");
    spill(&mut world);
    assert_eq!(counted(&world), 5, "on the disk");
    world.append(3, 100);
    assert_eq!(counted(&world), 8);
    world.power_cut(catalogue);
    assert_eq!(counted(&world), 5, "{catalogue:?}");
    assert!(world.sim.stream().stats().next > SequenceNumber(1 << 20), "a whole range was reserved");
    world
}

#[test]
fn numbers_reserved_before_a_power_cut_are_no_records() {
    for catalogue in CATALOGUES {
        let mut world = with_unwritten_numbers(catalogue);
        // Some numbers of the range were given, some were not; then it happens again.
        for round in 1..4 {
            world.append(4, 100);
            assert_eq!(counted(&world), 5 + 4 * round);
            spill(&mut world);
            assert_eq!(counted(&world), 5 + 4 * round);
            world.power_cut(catalogue);
            assert_eq!(counted(&world), 5 + 4 * round, "{catalogue:?}");
        }
        let numbers = numbers(&world);
        for number in &numbers {
            let behind = numbers.range(number..).count() as u64;
            assert_eq!(world.sim.stream().records_between(*number, SequenceNumber(u64::MAX)), behind);
        }
        world.reopen();
        assert_eq!(counted(&world), 17);
    }
}

#[test]
fn what_is_uncertain_is_counted_in_records() {
    let mut world = memory_first();
    // Nobody has said yet that the clock is right.
    world.append(10, 100);
    world.deliver(10, 0);
    world.append(5, 100);
    spill(&mut world);
    assert_eq!(world.sim.stream().stats().untrusted_records, 5);
    world.power_cut(CatalogueFound::Newest);
    assert_eq!(world.sim.stream().stats().untrusted_records, 5);
}

#[test]
fn dropped_and_lost_never_count_a_number_without_a_record() {
    for catalogue in CATALOGUES {
        let mut world = with_unwritten_numbers(catalogue);
        let mut there = BTreeSet::new();
        // Several segments, each with numbers of no record in it, and another power cut between them.
        for round in 0..12 {
            world.append(6, 3000);
            spill(&mut world);
            there.extend(numbers(&world));
            world.deliver(if round < 6 { 20 } else { 3 }, 0);
            world.append(4, 3000);
            world.deliver(if round < 6 { 20 } else { 0 }, 0);
            if round == 5 {
                spill(&mut world);
                there.extend(numbers(&world));
                world.power_cut(catalogue);
            }
        }
        spill(&mut world);
        there.extend(numbers(&world));
        let before = world.sim.stream().stats();
        assert_eq!((before.dropped.total(), counted(&world)), (0, there.len() as u64), "{catalogue:?}");
        let entries_before = entries(&world);
        let done = world.sim.stream().checkpoint(CONSUMER);
        // Now nearly all has to go.
        world.sim.stream_config.quota = 150_000;
        world.sim.stream_config.on_full = OnFull::DropOldest;
        world.sim.reconfigure();
        for _ in 0..10 {
            world.append(8, 3000);
            spill(&mut world);
            there.extend(numbers(&world));
        }
        let (left, stats) = (numbers(&world), world.sim.stream().stats());
        let gone: Vec<_> = there.difference(&left).collect();
        assert_eq!(stats.dropped.total(), gone.len() as u64, "{catalogue:?}");
        assert_eq!(stats.lost.total(), gone.iter().filter(|number| ***number > done).count() as u64);
        assert!(stats.lost.total() > 20 && stats.dropped.total() > stats.lost.total() + 20, "{stats:?}");
        let told = |event: &Event| match event {
            Event::Dropped { count, undelivered, .. } => (*count, *undelivered),
            _ => (0, 0),
        };
        let events = world.sim.take_events();
        let sum = events.iter().map(told).fold((0, 0), |sum, told| (sum.0 + told.0, sum.1 + told.1));
        assert_eq!(sum, (stats.dropped.total(), stats.lost.total()));
        assert_eq!(counted(&world), left.len() as u64);
        // The catalogue forgets what it knew of segments that are gone.
        assert!(entries(&world) < entries_before, "{} of {entries_before}", entries(&world));
    }
}

fn damage_unwritten_blocks(world: &World) -> usize {
    let (mut segment, mut places) = (None, Vec::new());
    let look = |dumped| {
        match dumped {
            Dumped::Segment { path, .. } => segment = Some(path),
            Dumped::Unwritten { offset, .. } => places.push((segment.clone().expect("it is in a segment"), offset)),
            _ => {}
        }
        ControlFlow::Continue(())
    };
    dump_on(&world.sim.disk, Path::new(DIR), "telemetry", SequenceNumber::ZERO, None, look).expect("readable");
    for (path, offset) in &places {
        world.sim.disk.damage(path, |bytes| bytes[*offset as usize + 20] ^= 1);
    }
    places.len()
}

#[test]
fn damage_to_an_unwritten_block_costs_no_record() {
    for catalogue in [CatalogueFound::Newest, CatalogueFound::Lost] {
        let mut world = with_unwritten_numbers(catalogue);
        world.append(4, 100);
        spill(&mut world);
        // 9 records and nothing else are there, whatever becomes of the block between them.
        assert!(damage_unwritten_blocks(&world) > 0);
        world.sim.take_events();
        let found = numbers(&world);
        assert_eq!(found.len(), 9);
        let stats = world.sim.stream().stats();
        assert_eq!((stats.dropped.damage, stats.lost.damage, counted(&world)), (0, 0, 9));
        let events = world.sim.take_events();
        assert!(events.iter().all(|event| matches!(event, Event::Damaged { records: None, .. })), "{events:?}");
        assert!(!events.is_empty(), "it is told all the same");
    }
}
