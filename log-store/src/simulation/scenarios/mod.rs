//! Named scenarios: one thing goes wrong at a time, and what is lost, told and counted is known to the record.
//!
//! Damage is looked at from both sides: what the running log serves and tells, and what `inspect` finds in the files.

mod failures;
mod files;
mod inspected;
mod room;

use std::{
    ops::RangeInclusive,
    path::{Path, PathBuf},
};

use super::{CONSUMER, CatalogueFound, DIR, Simulation, read_all};
use crate::{
    disk::Disk,
    error::Error,
    event::Event,
    inspect::{Finding, StreamReport, verify_on},
    segment::{Found, SegmentHeader, SegmentReader, parse_file_name, salt},
    sequence::SequenceNumber,
};

/// A block of a segment, as the file has it.
#[derive(Debug, Clone)]
pub(super) struct BlockPlace {
    pub(super) path: PathBuf,
    pub(super) offset: u64,
    pub(super) bytes: u64,
    pub(super) first: SequenceNumber,
    pub(super) end: SequenceNumber,
}

impl BlockPlace {
    pub(super) fn numbers(&self) -> RangeInclusive<SequenceNumber> {
        self.first..=self.end.previous()
    }
}

fn open(seed: u64) -> Simulation {
    let mut sim = Simulation::new(seed);
    sim.open().expect("an empty disk");
    sim
}

/// All blocks of records, in order.
pub(super) fn blocks(sim: &Simulation) -> Vec<BlockPlace> {
    sim.segments().iter().flat_map(|(path, len)| blocks_of(sim, path, *len)).collect()
}

pub(super) fn blocks_of(sim: &Simulation, path: &Path, len: u64) -> Vec<BlockPlace> {
    let mut places = Vec::new();
    let file = sim.disk.open_read(path).expect("there");
    let header = SegmentHeader::read(file.as_ref(), path).expect("sound");
    let mut reader = SegmentReader::new(file, salt(header.definition.id, header.first), header.encoded_len());
    loop {
        match reader.next(len).expect("readable") {
            Found::End => return places,
            Found::Damaged { .. } if header.is_leftover(len) => {}
            Found::Damaged { .. } => panic!("{} is damaged already", path.display()),
            Found::Block { offset, header } if header.records > 0 => places.push(BlockPlace {
                path: path.into(),
                offset,
                bytes: header.total_bytes() - u64::from(header.padding),
                first: header.first,
                end: header.end(),
            }),
            Found::Block { .. } => {}
        }
    }
}

/// The first sequence number in a segment's name.
pub(super) fn first_of(path: &Path) -> SequenceNumber {
    let name = path.file_name().and_then(|name| name.to_str());
    name.and_then(parse_file_name).expect("a segment's name")
}

pub(super) fn numbers(sim: &Simulation) -> Vec<u64> {
    read_all(sim.stream(), 7).iter().map(|record| record.sequence_number.0).collect()
}

pub(super) fn damaged(events: &[Event]) -> Vec<(PathBuf, u64, Option<RangeInclusive<SequenceNumber>>)> {
    let damaged = events.iter().filter_map(|event| match event {
        Event::Damaged { segment, offset, records, .. } => Some((segment.clone(), *offset, records.clone())),
        _ => None,
    });
    damaged.collect()
}

/// Everything told, but that the catalogue was rebuilt.
fn told_of_segments(sim: &Simulation) -> Vec<Event> {
    let mut events = sim.take_events();
    events.retain(|event| !matches!(event, Event::CatalogueRebuilt { .. }));
    events
}

pub(super) fn verified(sim: &Simulation) -> StreamReport {
    let report = verify_on(&sim.disk, Path::new(DIR), None).expect("a data directory");
    report.streams.into_iter().next().expect("one stream")
}

pub(super) fn losses(report: &StreamReport) -> Vec<&Finding> {
    report.findings.iter().filter(|finding| finding.kind.is_loss()).collect()
}

/// Forgets records of the model that the disk took away.
fn forget(sim: &mut Simulation, records: &RangeInclusive<SequenceNumber>) {
    sim.acknowledged.retain(|number, _| !records.contains(number));
}

pub(super) fn power_cut_and_open(sim: &mut Simulation, catalogue: CatalogueFound) {
    sim.power_cut(catalogue);
    sim.open().expect("it opens");
}

/// Ten commits of five records in a few segments, of which the consumer has finished the first twelve records.
pub(super) fn ten_blocks(seed: u64) -> (Simulation, Vec<BlockPlace>) {
    let mut sim = open(seed);
    for _ in 0..10 {
        sim.append(5, 4000).expect("room");
    }
    sim.save_checkpoint(SequenceNumber(12));
    sim.tick();
    let blocks = blocks(&sim);
    assert!(sim.segments().len() > 2 && blocks.len() == 10);
    (sim, blocks)
}

pub(super) fn bytes_of(sim: &Simulation, path: &Path) -> Vec<u8> {
    let file = sim.disk.open_read(path).expect("there");
    let mut bytes = vec![0; file.len().expect("known") as usize];
    file.read_at(0, &mut bytes).expect("readable");
    bytes
}
