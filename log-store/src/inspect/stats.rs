//! `stats`: what the segments of each stream hold, in figures.

use std::{
    collections::BTreeMap,
    ops::{ControlFlow, RangeInclusive},
    path::Path,
};

use super::{
    stream_names,
    walk::{Visit, Walk},
};
use crate::{
    clock::{Pass, Timeline, Timestamp},
    disk::{Disk, RealDisk},
    error::Error,
    marks::Marks,
    segment::{BlockHeader, decode_runs},
    sequence::SequenceNumber,
    shard::ShardIndex,
    stream::{boots, stream_dir},
};

/// What one stream's segments hold. Damaged blocks are left out, and counted as [`StreamCounts::findings`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StreamCounts {
    /// Its name.
    pub name: String,
    /// Segment files.
    pub segments: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Blocks of records.
    pub blocks: u64,
    /// Control blocks.
    pub control_blocks: u64,
    /// Records.
    pub records: u64,
    /// Their keys and data in bytes.
    pub payload_bytes: u64,
    /// The first and the last record.
    pub range: Option<RangeInclusive<SequenceNumber>>,
    /// When the first and the last of them arrived.
    pub arrivals: Option<RangeInclusive<Timestamp>>,
    /// By name of the codec.
    pub codecs: BTreeMap<&'static str, CodecStats>,
    /// How many blocks of records take up to so many bytes: powers of two.
    pub block_sizes: BTreeMap<u64, u64>,
    /// By shard.
    pub shards: BTreeMap<ShardIndex, ShardCounts>,
    /// Marks: named values that were committed with records.
    pub marks: u64,
    /// Records that damage took before a repair.
    pub lost_before: u64,
    /// Places where something is not as it should be: see [`verify`](super::verify).
    pub findings: u64,
}

/// What blocks of one codec take.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CodecStats {
    /// Blocks of records.
    pub blocks: u64,
    /// Bytes of their payloads on disk.
    pub stored_bytes: u64,
    /// Bytes of their payloads once decompressed.
    pub raw_bytes: u64,
}

/// What one shard holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ShardCounts {
    /// Records.
    pub records: u64,
    /// Bytes of the records as they are encoded, before compression.
    pub encoded_bytes: u64,
}

/// Counts what the segments of every stream hold, or of one.
///
/// Reads everything; memory does not grow with it.
///
/// # Errors
/// [`Error::Io`] with the path, if `data_dir` is no data directory, has no such stream, or cannot be read.
pub fn stats(data_dir: &Path, stream: Option<&str>) -> Result<Vec<StreamCounts>, Error> {
    stats_on(&RealDisk, data_dir, stream)
}

pub(crate) fn stats_on(disk: &dyn Disk, data_dir: &Path, stream: Option<&str>) -> Result<Vec<StreamCounts>, Error> {
    let names = stream_names(disk, data_dir, stream)?;
    names.into_iter().map(|name| count(disk, data_dir, name)).collect()
}

fn count(disk: &dyn Disk, data_dir: &Path, name: String) -> Result<StreamCounts, Error> {
    let walk = Walk::new(disk, data_dir, &name)?;
    let timeline = Timeline::recorded(boots::in_stream(disk, &stream_dir(data_dir, &name)));
    let mut pass = Pass::default();
    let mut counts = StreamCounts { name, ..StreamCounts::default() };
    let mut found_marks = Marks::default();
    // The callback never breaks off.
    let _ = walk.run(SequenceNumber::ZERO, &mut |visit| {
        match visit {
            Visit::Segment { bytes, .. } => {
                counts.segments += 1;
                counts.bytes += bytes;
            }
            Visit::Control { control, .. } => {
                counts.control_blocks += 1;
                found_marks = control.marks;
            }
            Visit::Gap { header, .. } => counts.lost_before += u64::from(header.records),
            Visit::Unwritten { .. } => {}
            Visit::Finding(_) => counts.findings += 1,
            Visit::Records { header, payload, payload_bytes, marks, .. } => {
                found_marks.apply(&marks);
                counts.payload_bytes += payload_bytes;
                counts.count_block(header, pass.next(timeline.arrival(header.arrival), 0).at, payload);
            }
        }
        ControlFlow::Continue(())
    })?;
    counts.marks = found_marks.len() as u64;
    Ok(counts)
}

impl StreamCounts {
    fn count_block(&mut self, header: &BlockHeader, arrival: Timestamp, payload: &[u8]) {
        self.blocks += 1;
        self.records += u64::from(header.records);
        if header.records > 0 {
            let oldest = self.range.as_ref().map_or(header.first, |range| *range.start());
            self.range = Some(oldest..=header.end().previous());
            let earliest = self.arrivals.as_ref().map_or(arrival, |range| *range.start());
            self.arrivals = Some(earliest..=arrival);
        }
        *self.block_sizes.entry(header.total_bytes().next_power_of_two()).or_default() += 1;
        let codec = self.codecs.entry(header.codec.name()).or_default();
        codec.blocks += 1;
        codec.stored_bytes += u64::from(header.stored_bytes);
        codec.raw_bytes += u64::from(header.raw_bytes);
        for run in decode_runs(header.runs(payload).unwrap_or_default()).flatten() {
            let shard = self.shards.entry(run.shard).or_default();
            shard.records += u64::from(run.records);
            shard.encoded_bytes += run.encoded.len() as u64;
        }
    }
}
