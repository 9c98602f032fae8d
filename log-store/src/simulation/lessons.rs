//! What hurt users elsewhere (docs/field-lessons.md), where no other test shows that it does not happen here.

use std::time::Duration;

use super::{CatalogueFound, Simulation};
use crate::{error::Error, record::NewRecord, store::WhenFull};

fn open(seed: u64) -> Simulation {
    let mut sim = Simulation::new(seed);
    sim.open().expect("an empty disk");
    sim
}

#[test]
fn a_quota_counts_what_an_earlier_run_left() {
    for catalogue in [CatalogueFound::Newest, CatalogueFound::Lost] {
        let mut sim = Simulation::new(1);
        sim.stream_config.quota = 600_000;
        sim.open().expect("an empty disk");
        while sim.append(5, 4000).is_ok() {}
        let (full, on_disk) = (sim.stream().stats().disk_bytes, sim.disk.used());
        sim.close();
        sim.power_cut(catalogue);
        sim.open().expect("it opens");
        assert_eq!(sim.stream().stats().disk_bytes, full);
        let refused = sim.append(5, 4000).expect_err("it is as full as before").error;
        assert!(matches!(refused, Error::Full { .. }), "{refused}");
        assert!(sim.disk.used() <= on_disk);
    }
}

#[test]
fn records_and_commits_cost_the_catalogue_nothing() {
    let mut sim = open(2);
    sim.append(1, 10).expect("room");
    let before = sim.kv.states();
    for _ in 0..40 {
        sim.append(3, 10).expect("room");
    }
    assert_eq!(sim.segments().len(), 1, "less than one segment, and less than an index entry is due for");
    assert_eq!(sim.kv.states(), before);
}

#[test]
fn batches_that_wait_together_cost_one_write_and_one_sync() {
    let sim = open(3);
    let stream = sim.stream().clone();
    let before = sim.disk.operations();
    for i in 0..100 {
        let mut batch = stream.batch();
        batch.push(&NewRecord::new(&format!("key-{i}"), b"21.5")).expect("a sound record");
        stream.append(batch, WhenFull::Refuse, Box::new(|outcome| assert!(outcome.is_ok())));
    }
    sim.commit_queued();
    assert_eq!(sim.disk.operations() - before, 2);
    assert_eq!(stream.stats().records, 100);
}

#[test]
fn an_idle_log_writes_nothing() {
    let mut sim = open(4);
    sim.append(3, 100).expect("room");
    sim.save_checkpoint(sim.newest());
    for _ in 0..3 {
        sim.clock.advance(Duration::from_secs(20));
        sim.tick();
    }
    let (operations, states) = (sim.disk.operations(), sim.kv.states());
    for _ in 0..20 {
        sim.clock.advance(Duration::from_secs(20));
        sim.tick();
    }
    assert_eq!((sim.disk.operations(), sim.kv.states()), (operations, states));
}
