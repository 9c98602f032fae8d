//! `dump`: blocks and records as they lie in the files.

use std::{
    collections::{BTreeMap, VecDeque},
    io::{self, ErrorKind},
    ops::ControlFlow,
    path::{Path, PathBuf},
};

use super::{
    Finding, io_error, stream_names,
    walk::{Visit, Walk},
};
use crate::{
    clock::{Pass, Timeline, Timestamp},
    cursor::decode,
    disk::{Disk, RealDisk},
    error::Error,
    marks::Marks,
    record::Record,
    segment::BlockHeader,
    sequence::SequenceNumber,
    stream::{boots, stream_dir},
};

/// One thing that [`dump`] shows.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Dumped {
    /// A segment begins.
    Segment {
        /// Its file.
        path: PathBuf,
        /// Its length in bytes.
        bytes: u64,
        /// The first record that it holds or will hold.
        first: SequenceNumber,
        /// When it was made, by the wall clock of that time; `None` if its header is damaged.
        created: Option<Timestamp>,
    },
    /// A sound block begins; its records follow.
    Block {
        /// Where in the segment, in bytes.
        offset: u64,
        /// Its length in bytes.
        bytes: u64,
        /// Its first record; of a control block, the record that comes next.
        first: SequenceNumber,
        /// How many records it holds.
        records: u32,
        /// When its records arrived.
        arrival: Timestamp,
        /// Which boot of the machine wrote it.
        boot: u32,
        /// The checkpoints, if it is a control block.
        checkpoints: Option<BTreeMap<String, SequenceNumber>>,
    },
    /// Records that were lost to damage before a repair.
    Gap {
        /// Where in the segment, in bytes.
        offset: u64,
        /// The first of them.
        first: SequenceNumber,
        /// The last of them.
        last: SequenceNumber,
    },
    /// Numbers of records that were never written: they were delivered from memory, or there never were any.
    Unwritten {
        /// Where in the file the block is.
        offset: u64,
        /// First number.
        first: SequenceNumber,
        /// Last number.
        last: SequenceNumber,
    },
    /// A record.
    Record(Record),
    /// A mark that the block before has set; of a control block, one that was set before it.
    Mark {
        /// Its name.
        name: String,
        /// Its value; empty if the mark was removed.
        value: Vec<u8>,
    },
    /// Something that is not as it should be.
    Finding(Finding),
}

/// Calls `show` for each segment, block and record of a stream from the record `from` on, until `limit` records were
/// shown or `show` breaks off.
///
/// # Errors
/// [`Error::Io`] with the path, if `data_dir` is no data directory, has no such stream, or cannot be read.
pub fn dump(
    data_dir: &Path,
    stream: &str,
    from: SequenceNumber,
    limit: Option<u64>,
    show: impl FnMut(Dumped) -> ControlFlow<()>,
) -> Result<(), Error> {
    dump_on(&RealDisk, data_dir, stream, from, limit, show)
}

pub(crate) fn dump_on(
    disk: &dyn Disk,
    data_dir: &Path,
    stream: &str,
    from: SequenceNumber,
    limit: Option<u64>,
    mut show: impl FnMut(Dumped) -> ControlFlow<()>,
) -> Result<(), Error> {
    if !stream_names(disk, data_dir)?.iter().any(|name| name == stream) {
        let source = io::Error::new(ErrorKind::NotFound, "there is no such stream");
        return Err(io_error("dump", &stream_dir(data_dir, stream), source));
    }
    let mut left = limit.unwrap_or(u64::MAX);
    if left == 0 {
        return Ok(());
    }
    let timeline = Timeline::recorded(boots::in_stream(disk, &stream_dir(data_dir, stream)));
    let mut pass = Pass::default();
    let block = |offset, header: &BlockHeader, arrival, checkpoints| Dumped::Block {
        offset,
        bytes: header.total_bytes(),
        first: header.first,
        records: header.records,
        arrival,
        boot: header.arrival.boot,
        checkpoints,
    };
    let walked = Walk::new(disk, data_dir, stream)?.run(from, &mut |visit| match visit {
        Visit::Finding(finding) => show(Dumped::Finding(finding)),
        Visit::Segment { path, bytes, first, created } => {
            show(Dumped::Segment { path: path.into(), bytes, first, created })
        }
        Visit::Control { offset, header, control } => {
            let arrival = timeline.arrival(header.arrival).at;
            show(block(offset, header, arrival, Some(control.checkpoints)))?;
            show_marks(&control.marks, &mut show)
        }
        Visit::Gap { offset, header } => {
            show(Dumped::Gap { offset, first: header.first, last: header.end().previous() })
        }
        Visit::Unwritten { offset, header } => {
            show(Dumped::Unwritten { offset, first: header.first, last: header.end().previous() })
        }
        Visit::Records { header, .. } if header.end() < from || header.end() == from && header.records > 0 => {
            ControlFlow::Continue(())
        }
        Visit::Records { offset, header, payload, marks, .. } => {
            let arrival = pass.next(timeline.arrival(header.arrival), 0);
            show(block(offset, header, arrival.at, None))?;
            show_marks(&marks, &mut show)?;
            let mut records = VecDeque::new();
            // The walk has decoded it once already.
            if decode(payload, header, arrival, header.first.max(from), None, &mut records).is_err() {
                return ControlFlow::Continue(());
            }
            for record in records {
                show(Dumped::Record(record))?;
                left -= 1;
                if left == 0 {
                    return ControlFlow::Break(());
                }
            }
            ControlFlow::Continue(())
        }
    });
    walked.map(drop)
}

fn show_marks(marks: &Marks, show: &mut impl FnMut(Dumped) -> ControlFlow<()>) -> ControlFlow<()> {
    marks.iter().try_for_each(|(name, value)| show(Dumped::Mark { name: name.to_owned(), value: value.to_vec() }))
}
