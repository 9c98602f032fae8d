//! The list of a stream's segments as readers see it: only what is durable.

use std::collections::VecDeque;

use crate::{clock::Stamp, sequence::SequenceNumber};

/// One segment. The last of a view is the one being written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Segment {
    /// Its first record, which also names its file.
    pub(crate) first: SequenceNumber,
    /// Behind its last durable record.
    pub(crate) end: SequenceNumber,
    /// Length of its durable part.
    pub(crate) bytes: u64,
    /// When its newest record was written; when it was made, if it has none.
    pub(crate) newest: Stamp,
}

impl Segment {
    pub(crate) fn is_empty(&self) -> bool {
        self.end == self.first
    }
}

/// All segments, oldest first.
#[derive(Debug, Default)]
pub(crate) struct View {
    pub(crate) segments: VecDeque<Segment>,
    /// What lies before it was dropped, though its segment may still hold later records.
    pub(crate) horizon: SequenceNumber,
    /// The number that the next record will get: everything before it is durable, gone, or held in memory.
    pub(crate) next: SequenceNumber,
    /// Bytes on disk that hold no records: of a spare file, and what is left of a recycled one.
    pub(crate) unused: u64,
}

impl View {
    /// The oldest record that is there, or will be.
    pub(crate) fn oldest(&self) -> SequenceNumber {
        self.segments.front().map_or(self.next, |segment| segment.first).max(self.horizon)
    }

    /// All but the one being written.
    pub(crate) fn sealed(&self) -> impl Iterator<Item = &Segment> {
        self.segments.iter().take(self.segments.len().saturating_sub(1))
    }

    /// What the stream takes on disk.
    pub(crate) fn disk_bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.bytes).sum::<u64>() + self.unused
    }

    /// The segment where reading goes on at `wanted`: the one that holds it, else the next that holds anything behind it.
    pub(crate) fn segment_for(&self, wanted: SequenceNumber) -> Option<Segment> {
        let behind = self.segments.partition_point(|segment| segment.end <= wanted);
        self.segments.iter().skip(behind).find(|segment| !segment.is_empty()).copied()
    }
}
