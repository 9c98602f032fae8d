//! A power cut at every single operation of a workload with rolls, retention and checkpoints, with and without its catalogue.

use std::{num::NonZeroU32, time::Duration};

use super::{CatalogueFound, Simulation};
use crate::{disk::sim::Fault, segment::Codec, sequence::SequenceNumber, shard::ShardChange};

/// Rolls several times, drops by retention, moves checkpoints, and goes idle. Stops at the first refusal.
fn workload(sim: &mut Simulation) {
    if sim.open().is_err() {
        return;
    }
    for round in 1..=12u64 {
        for size in [10, 9000, 300, 12_000] {
            if sim.append(5, size).is_err() {
                return;
            }
        }
        // Now and then there is nothing but a mark to be kept, or to be removed.
        let alone = if round % 3 == 0 { Vec::new() } else { vec![7; 100] };
        if sim.set_mark("alone", &alone).is_err() {
            return;
        }
        sim.save_checkpoint(SequenceNumber(round * 15));
        // One of them while the segment being written is empty, and while a batch waits.
        let changed = match round {
            3 => sim.change_shards(|_| ShardChange::Count(count(2))).is_ok(),
            4 => sim.append_across(3, 10, |sim| _ = sim.change_shards(|_| ShardChange::Count(count(3)))).is_ok(),
            5 => {
                sim.change_shards(|_| ShardChange::Count(count(1))).is_ok()
                    && sim.change_shards(|_| ShardChange::Count(count(3))).is_ok()
            }
            _ => true,
        };
        if !changed {
            return;
        }
        sim.clock.advance(Duration::from_secs(150));
        sim.tick();
        sim.note_recycled();
        if !sim.disk.has_fault() {
            assert_eq!(sim.stream().stats().disk_bytes, sim.disk_bytes(), "what is taken is what is counted");
        }
    }
    sim.save_checkpoint(sim.newest());
    sim.clock.advance(Duration::from_secs(5000));
    sim.tick();
    let _ = sim.append(1, 10);
    sim.close();
}

fn count(count: u32) -> NonZeroU32 {
    NonZeroU32::new(count).expect("not zero")
}

fn simulation(seed: u64, compression: Codec) -> Simulation {
    let mut sim = Simulation::new(seed);
    sim.stream_config.compression = compression;
    sim.with_marks = true;
    sim
}

fn operations_of_workload(compression: Codec) -> u64 {
    let mut sim = simulation(0, compression);
    workload(&mut sim);
    let (operations, segments) = (sim.disk.operations(), sim.segments().len());
    assert!(
        sim.acknowledged.len() > 200 && segments <= 2 && sim.recycled,
        "the workload does what it is for: {segments} segments left"
    );
    operations
}

fn crash_everywhere(catalogue: fn(usize) -> CatalogueFound) {
    for (seed, compression) in [(0, Codec::None), (1, Codec::Zstd), (2, Codec::Lz4)] {
        let operations = operations_of_workload(compression);
        assert!(operations > 190, "{operations}");
        for at in 1..=operations {
            let mut sim = simulation(seed * 100_000 + at, compression);
            sim.disk.set_fault(Some(Fault::PowerCut { at }));
            workload(&mut sim);
            sim.power_cut(catalogue((seed * 31 + at * 17) as usize));
            sim.open().unwrap_or_else(|error| panic!("seed {seed}, operation {at}: {error}"));
            sim.check();
            // And it goes on.
            sim.append(3, 100).unwrap_or_else(|error| panic!("seed {seed}, operation {at}: {error}"));
            sim.check();
            // Twice, since the first recovery writes too.
            sim.power_cut(CatalogueFound::Lost);
            sim.open().expect("opens again");
            sim.check();
        }
    }
}

#[test]
fn a_power_cut_at_any_operation_loses_nothing_acknowledged() {
    crash_everywhere(|_| CatalogueFound::Newest);
}

#[test]
fn a_power_cut_with_a_stale_catalogue_loses_nothing_acknowledged() {
    crash_everywhere(CatalogueFound::Stale);
}

#[test]
fn a_power_cut_that_takes_the_catalogue_loses_nothing_acknowledged() {
    crash_everywhere(|_| CatalogueFound::Lost);
}

#[test]
fn any_single_failing_operation_loses_nothing_acknowledged() {
    for at in 1..=operations_of_workload(Codec::Zstd) {
        let mut sim = simulation(at, Codec::Zstd);
        sim.disk.set_fault(Some(Fault::Fails { at }));
        workload(&mut sim);
        sim.power_cut(CatalogueFound::Newest);
        sim.open().unwrap_or_else(|error| panic!("operation {at}: {error}"));
        sim.check();
        sim.append(3, 100).unwrap_or_else(|error| panic!("operation {at}: {error}"));
        sim.check();
    }
}
