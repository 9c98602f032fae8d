//! Shards that are split, merged and recounted: what a reader of one shard sees, and what stays over time.

use std::{num::NonZeroU32, time::Duration};

use super::{CatalogueFound, Simulation};
use crate::{
    cursor::{Cursor, ReadLimit, Start},
    error::Error,
    hash_key::HashKey,
    sequence::SequenceNumber,
    shard::{ShardChange, ShardError, ShardIndex},
};

fn count(shards: u32) -> ShardChange {
    ShardChange::Count(NonZeroU32::new(shards).expect("not zero"))
}

fn open(shards: u32) -> Simulation {
    let mut sim = Simulation::new(1);
    sim.stream_config.shards = NonZeroU32::new(3).expect("not zero");
    sim.open().expect("an empty disk");
    sim.change_shards(|_| count(shards)).expect("a new stream");
    sim
}

fn drain(cursor: &mut Cursor) -> Vec<u64> {
    let limit = ReadLimit { records: 7, payload_bytes: 1 << 20 };
    let mut numbers = Vec::new();
    loop {
        let some = cursor.read(limit).expect("readable");
        if some.is_empty() {
            return numbers;
        }
        numbers.extend(some.iter().map(|record| record.sequence_number.0));
    }
}

#[test]
fn whoever_reads_a_shard_and_then_its_children_sees_each_keys_records_in_order() {
    let mut sim = open(1);
    let first = sim.stream().shards().open()[0].index;
    let mut cursor = sim.stream().shard_cursor(first, Start::Oldest);
    sim.append(20, 10).expect("stored");
    assert_eq!((drain(&mut cursor).len(), cursor.is_finished()), (20, false));
    sim.append(5, 10).expect("stored");
    sim.change_shards(|_| ShardChange::Split { shard: first, at: HashKey(1 << 127) }).expect("inside");
    sim.append(20, 10).expect("stored");

    assert_eq!(drain(&mut cursor), [21, 22, 23, 24, 25]);
    assert!(cursor.is_finished());
    let shards = sim.stream().shards();
    let children: Vec<_> = shards.shards().iter().filter(|shard| shard.parents == [first]).collect();
    assert_eq!(children.len(), 2);
    let mut behind: Vec<u64> = Vec::new();
    for child in children {
        let mut cursor = sim.stream().shard_cursor(child.index, Start::Oldest);
        behind.extend(drain(&mut cursor));
        assert!(!cursor.is_finished());
    }
    behind.sort_unstable();
    assert_eq!(behind, (26..=45).collect::<Vec<_>>());
}

#[test]
fn a_closed_shard_stays_until_its_last_record_is_dropped() {
    let mut sim = open(1);
    let parent = sim.stream().shards().open()[0].index;
    sim.append(10, 10).expect("stored");
    sim.change_shards(|_| count(2)).expect("possible");
    sim.append(10, 10).expect("stored");
    let is_listed = |sim: &Simulation| sim.stream().shards().get(parent).is_some();
    assert!(is_listed(&sim));

    sim.save_checkpoint(SequenceNumber(10));
    sim.clock.advance(Duration::from_secs(1001));
    sim.tick();
    assert!(!is_listed(&sim), "its records are past retention and delivered");
    assert_eq!(sim.stream().stats().oldest, SequenceNumber(11));
    let mut gone = sim.stream().shard_cursor(parent, Start::Oldest);
    assert_eq!((drain(&mut gone).len(), gone.is_finished()), (0, true));
    let error = sim.stream().change_shards(ShardChange::Split { shard: parent, at: HashKey(5) });
    let Err(Error::Shards { error, .. }) = error else { panic!("{error:?}") };
    assert_eq!(*error, ShardError::Unknown(parent));

    // Also after a start, with the catalogue and without: numbers of shards go on.
    for catalogue in [CatalogueFound::Newest, CatalogueFound::Lost] {
        sim.power_cut(catalogue);
        sim.open().expect("it opens");
        sim.check();
    }
    let newest = sim.stream().shards().open()[1].index;
    sim.change_shards(|_| ShardChange::Split { shard: newest, at: HashKey(u128::MAX) }).expect("inside");
    let added = sim.stream().shards().shards().last().expect("some").index;
    assert_eq!(added, ShardIndex(newest.0 + 2));
}

#[test]
fn a_change_survives_a_lost_and_a_stale_catalogue() {
    for catalogue in [CatalogueFound::Newest, CatalogueFound::Stale(0), CatalogueFound::Lost] {
        let mut sim = open(2);
        sim.append(10, 10).expect("stored");
        sim.change_shards(|_| count(5)).expect("possible");
        let shards = sim.stream().shards();
        sim.power_cut(catalogue);
        sim.open().expect("it opens");
        sim.check();
        assert_eq!(sim.stream().shards(), shards, "{catalogue:?}");
    }
}
