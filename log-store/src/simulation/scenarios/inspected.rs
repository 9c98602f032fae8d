//! What `inspect` shows of a log, beside what the running log serves.

use super::*;
use crate::{
    clock::Clock,
    inspect::{Dumped, dump_on},
    segment::FORMAT_VERSION,
};

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
