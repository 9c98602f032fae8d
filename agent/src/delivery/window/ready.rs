//! What may leave: heads of parcels, those of live records apart from those of gaps.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, binary_heap::PeekMut},
};

use forebay_log_store::SequenceNumber;

use super::entries::Slot;

/// Where a parcel stands among the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Turn {
    /// Whether it is one of the live ones.
    pub(super) live: bool,
    /// The lower goes first.
    pub(super) rank: u32,
    /// Of two with the same rank, the older goes first.
    pub(super) number: SequenceNumber,
}

type Heap = BinaryHeap<Reverse<(u32, SequenceNumber, Slot)>>;

#[derive(Debug, Default)]
pub(super) struct Ready {
    live: Heap,
    gaps: Heap,
    /// What all of them take on the wire, with [`super::RECORD_OVERHEAD`] for each.
    pub(super) bytes: u64,
    /// Bytes of live records that were sent while there were records of gaps too, less those of these.
    ahead: i64,
}

impl Ready {
    pub(super) fn push(&mut self, turn: Turn, slot: Slot, bytes: u64) {
        let heap = if turn.live { &mut self.live } else { &mut self.gaps };
        heap.push(Reverse((turn.rank, turn.number, slot)));
        self.bytes += bytes;
    }

    pub(super) fn len(&self) -> usize {
        self.live.len() + self.gaps.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.live.is_empty() && self.gaps.is_empty()
    }

    pub(super) fn has_live(&self) -> bool {
        !self.live.is_empty()
    }

    /// Whether there are some of both kinds.
    pub(super) fn has_both(&self) -> bool {
        !self.live.is_empty() && !self.gaps.is_empty()
    }

    /// Whether the gaps have got less than their share.
    pub(super) fn owes_gaps(&self) -> bool {
        self.ahead > 0
    }

    /// So many bytes of each kind leave together, while there were some of both. What is owed is at most `bytes_max`.
    pub(super) fn shared(&mut self, live: u64, gaps: u64, bytes_max: u64) {
        let max = i64::try_from(bytes_max).unwrap_or(i64::MAX);
        self.ahead = (self.ahead + live.cast_signed() - gaps.cast_signed()).clamp(-max, max);
    }

    /// The next one, which stays, and whether it is one of the live ones. Those of gaps come first if so said.
    pub(super) fn peek(&self, gaps_first: bool) -> Option<(bool, Slot)> {
        let live = || self.live.peek().map(|Reverse((.., slot))| (true, *slot));
        let gaps = || self.gaps.peek().map(|Reverse((.., slot))| (false, *slot));
        if gaps_first { gaps().or_else(live) } else { live().or_else(gaps) }
    }

    /// Takes away what [`Ready::peek`] gave.
    pub(super) fn pop(&mut self, live: bool, bytes: u64) {
        let heap = if live { &mut self.live } else { &mut self.gaps };
        PeekMut::pop(heap.peek_mut().expect("it was there"));
        self.bytes -= bytes;
    }

    pub(super) fn clear(&mut self) {
        self.live.clear();
        self.gaps.clear();
        self.bytes = 0;
    }

    /// All of them, in no order.
    pub(super) fn take_all(&mut self) -> Vec<Slot> {
        let all = self.iter().collect();
        self.clear();
        all
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = Slot> {
        self.live.iter().chain(&self.gaps).map(|Reverse((.., slot))| *slot)
    }

    /// Takes out those that are `unwanted`. Their bytes are the caller's.
    pub(super) fn take_out(&mut self, unwanted: impl Fn(Slot) -> bool) -> Vec<Slot> {
        let out: Vec<_> = self.iter().filter(|slot| unwanted(*slot)).collect();
        if !out.is_empty() {
            self.live.retain(|Reverse((.., slot))| !unwanted(*slot));
            self.gaps.retain(|Reverse((.., slot))| !unwanted(*slot));
        }
        out
    }
}
