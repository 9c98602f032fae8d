//! `verify`: reads everything through and says what is damaged.

use std::{
    collections::BTreeMap,
    ops::ControlFlow,
    path::{Path, PathBuf},
};

use super::{
    Finding, io_error, stream_names,
    walk::{Visit, Walk},
};
use crate::{
    disk::{Disk, RealDisk},
    error::Error,
    marks::Marks,
    sequence::SequenceNumber,
    shard::Shard,
};

/// A stream keeps at most this many findings; the others are only counted.
pub const FINDINGS_MAX: usize = 1000;

/// Everything that [`verify`] found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Every stream, by name.
    pub streams: Vec<StreamReport>,
    /// Catalogues that were set aside because they could not be used.
    pub leftovers: Vec<PathBuf>,
}

impl Report {
    /// Whether no record is damaged or missing and everything could be read.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.streams.iter().all(StreamReport::is_sound)
    }
}

/// What one stream's segments hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StreamReport {
    /// Its name.
    pub name: String,
    /// Format version of its newest readable segment; `None` if there is none.
    pub format: Option<u16>,
    /// Its shards, as the newest readable segment has them.
    pub shards: Vec<Shard>,
    /// Segment files read.
    pub segments: u64,
    /// Sound blocks of records.
    pub blocks: u64,
    /// Sound control blocks.
    pub control_blocks: u64,
    /// Records in sound blocks.
    pub records: u64,
    /// Their keys and data in bytes; `None` with [`Depth::Checksums`].
    pub payload_bytes: Option<u64>,
    /// Bytes of all segments.
    pub bytes: u64,
    /// The first record's number.
    pub first: Option<SequenceNumber>,
    /// The last record's number.
    pub last: Option<SequenceNumber>,
    /// Records that damage took before a repair, which left a gap block in their place. They are no finding.
    pub lost_before: u64,
    /// Checkpoints in the newest control block. Those in the catalogue may be further.
    pub checkpoints: BTreeMap<String, SequenceNumber>,
    /// The marks: named values that were committed with records.
    pub marks: BTreeMap<String, Vec<u8>>,
    /// What was found, in the order of the log; at most [`FINDINGS_MAX`].
    pub findings: Vec<Finding>,
    /// How many more there were.
    pub findings_omitted: u64,
    /// Files that recovery kept for a look: `.torn` and `.broken`. They are in nobody's way and may be removed.
    pub leftovers: Vec<PathBuf>,
    sound: bool,
}

impl StreamReport {
    /// Whether no record is damaged or missing and everything could be read. A torn tail is no damage.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.sound
    }
}

/// How closely [`verify`] looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// At the headers, the checksums of all bytes, and the numbering: all that a disk can do to a log, at the speed at which
    /// it gives the bytes.
    Checksums,
    /// Also into the blocks, which are decompressed, and their records decoded: what only a fault of the program could have
    /// done.
    Records,
}

/// Reads every segment of every stream through, or of one.
///
/// Memory does not grow with the data. Damage is no error but a [`Finding`].
///
/// # Errors
/// [`Error::Io`] with the path, if `data_dir` is no data directory, has no such stream, or cannot be read.
pub fn verify(data_dir: &Path, stream: Option<&str>, depth: Depth) -> Result<Report, Error> {
    verify_to(&RealDisk, data_dir, stream, depth)
}

#[cfg(test)]
pub(crate) fn verify_on(disk: &dyn Disk, data_dir: &Path, stream: Option<&str>) -> Result<Report, Error> {
    verify_to(disk, data_dir, stream, Depth::Records)
}

fn verify_to(disk: &dyn Disk, data_dir: &Path, stream: Option<&str>, depth: Depth) -> Result<Report, Error> {
    let mut report = Report::default();
    for name in stream_names(disk, data_dir, stream)? {
        report.streams.push(verify_stream(disk, data_dir, name, depth)?);
    }
    let in_data_dir = disk.list(data_dir).map_err(|source| io_error("list", data_dir, source))?;
    report.leftovers =
        in_data_dir.iter().filter(|n| n.starts_with("catalogue.broken-")).map(|n| data_dir.join(n)).collect();
    report.leftovers.sort();
    Ok(report)
}

fn verify_stream(disk: &dyn Disk, data_dir: &Path, name: String, depth: Depth) -> Result<StreamReport, Error> {
    let mut walk = Walk::new(disk, data_dir, &name)?;
    walk.decodes = depth == Depth::Records;
    let mut report = StreamReport {
        name,
        sound: true,
        format: walk.format,
        shards: walk.definition.as_ref().map(|definition| definition.shards.shards().to_vec()).unwrap_or_default(),
        leftovers: walk.leftovers.clone(),
        payload_bytes: walk.decodes.then_some(0),
        ..StreamReport::default()
    };
    let mut found_marks = Marks::default();
    // The callback never breaks off.
    let _ = walk.run(SequenceNumber::ZERO, &mut |visit| {
        match visit {
            Visit::Finding(finding) => {
                report.sound &= !finding.kind.is_loss();
                if report.findings.len() < FINDINGS_MAX {
                    report.findings.push(finding);
                } else {
                    report.findings_omitted += 1;
                }
            }
            Visit::Segment { bytes, .. } => {
                report.segments += 1;
                report.bytes += bytes;
            }
            Visit::Control { control, .. } => {
                report.control_blocks += 1;
                report.checkpoints = control.checkpoints;
                found_marks = control.marks;
            }
            Visit::Gap { header, .. } => report.lost_before += u64::from(header.records),
            Visit::Unwritten { .. } => {}
            Visit::Records { header, payload_bytes, marks, .. } => {
                report.blocks += 1;
                report.records += u64::from(header.records);
                report.payload_bytes = report.payload_bytes.map(|bytes| bytes + payload_bytes);
                found_marks.apply(&marks);
                if header.records == 0 {
                    return ControlFlow::Continue(());
                }
                report.first = report.first.or(Some(header.first));
                report.last = Some(header.end().previous());
            }
        }
        ControlFlow::Continue(())
    })?;
    report.marks = found_marks.iter().map(|(name, value)| (name.to_owned(), value.to_vec())).collect();
    Ok(report)
}
