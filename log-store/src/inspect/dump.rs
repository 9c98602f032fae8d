//! `dump`: blocks and records as they lie in the files.

use std::{
    collections::{BTreeMap, VecDeque},
    ops::{ControlFlow, RangeInclusive},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use super::{
    Finding, stream_names,
    walk::{Visit, Walk},
};
use crate::{
    clock::{Pass, Timeline, Timestamp},
    cursor::decode,
    disk::{Disk, RealDisk},
    error::Error,
    marks::Marks,
    record::Record,
    segment::{BlockHeader, Control},
    sequence::SequenceNumber,
    stats::{DropCounts, DropTotals},
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
        /// What it holds if it is a control block; its marks follow, each as a [`Dumped::Mark`].
        control: Option<Box<DumpedControl>>,
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
    Record(Arc<Record>),
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

/// What a control block says of the stream, but for the marks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DumpedControl {
    /// Up to where each consumer was done.
    pub checkpoints: BTreeMap<String, SequenceNumber>,
    /// Everything before this was dropped by right.
    pub oldest: SequenceNumber,
    /// How many records were dropped so far, by reason.
    pub dropped: DropCounts,
    /// Those of them that some consumer had not finished.
    pub lost: DropCounts,
    /// The records that damage took and that were told.
    pub gaps: Vec<RangeInclusive<SequenceNumber>>,
    /// Numbers before this one may have been given to records that were never written; zero if there are none.
    pub reserved: SequenceNumber,
    /// In the first block of a segment: numbers before it that stand for no record of the files.
    pub unwritten: Vec<RangeInclusive<SequenceNumber>>,
    /// All boots of the machine that are known, or none if they have not changed since the control block before.
    pub boots: Vec<DumpedBoot>,
}

/// A boot of the machine, as a control block tells of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DumpedBoot {
    /// As in [`Dumped::Block`].
    pub id: u32,
    /// Grows from boot to boot.
    pub number: u32,
    /// It lasted at least so long.
    pub lasted: Duration,
    /// When it began; `None` if no clock could be trusted in it.
    pub began: Option<Timestamp>,
}

impl From<Control> for DumpedControl {
    fn from(Control { checkpoints, totals, gaps, reserved, boots, unwritten, marks: _ }: Control) -> Self {
        let DropTotals { oldest, dropped, lost } = totals;
        let boots = boots.iter().map(|boot| DumpedBoot {
            id: boot.id(),
            number: boot.number(),
            lasted: boot.lasted(),
            began: boot.began(),
        });
        let (gaps, unwritten) = (gaps.ranges().collect(), unwritten.ranges().collect());
        Self { checkpoints, oldest, dropped, lost, gaps, reserved, unwritten, boots: boots.collect() }
    }
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
    stream_names(disk, data_dir, Some(stream))?;
    let mut left = limit.unwrap_or(u64::MAX);
    if left == 0 {
        return Ok(());
    }
    let timeline = Timeline::recorded(boots::in_stream(disk, &stream_dir(data_dir, stream)));
    let mut pass = Pass::default();
    let block = |offset, header: &BlockHeader, arrival, control| Dumped::Block {
        offset,
        bytes: header.total_bytes(),
        first: header.first,
        records: header.records,
        arrival,
        boot: header.arrival.boot,
        control,
    };
    let walked = Walk::new(disk, data_dir, stream)?.run(from, &mut |visit| match visit {
        Visit::Finding(finding) => show(Dumped::Finding(finding)),
        Visit::Segment { path, bytes, first, created } => {
            show(Dumped::Segment { path: path.into(), bytes, first, created })
        }
        Visit::Control { offset, header, control } => {
            let arrival = timeline.arrival(header.arrival).at;
            let marks = control.marks.clone();
            show(block(offset, header, arrival, Some(Box::new(control.into()))))?;
            show_marks(&marks, &mut show)
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
