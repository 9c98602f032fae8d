//! What may leave: heads of parcels, those of live records apart from those of gaps.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, VecDeque},
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

/// Rank, number and slot.
type Waiting = (u32, SequenceNumber, Slot);

/// The lowest first. Nearly all come in the order in which they leave: these are not sorted.
#[derive(Debug, Default)]
struct Queue {
    in_order: VecDeque<Waiting>,
    others: BinaryHeap<Reverse<Waiting>>,
}

#[derive(Debug, Default)]
pub(super) struct Ready {
    live: Queue,
    gaps: Queue,
    /// What all of them take on the wire, with [`super::RECORD_OVERHEAD`] for each.
    pub(super) bytes: u64,
    /// Bytes of live records that were sent while there were records of gaps too, less those of these.
    ahead: i64,
}

impl Ready {
    pub(super) fn push(&mut self, turn: Turn, slot: Slot, bytes: u64) {
        let queue = if turn.live { &mut self.live } else { &mut self.gaps };
        queue.push((turn.rank, turn.number, slot));
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
        let live = || self.live.first().map(|(.., slot)| (true, *slot));
        let gaps = || self.gaps.first().map(|(.., slot)| (false, *slot));
        if gaps_first { gaps().or_else(live) } else { live().or_else(gaps) }
    }

    /// Takes away what [`Ready::peek`] gave.
    pub(super) fn pop(&mut self, live: bool, bytes: u64) {
        let queue = if live { &mut self.live } else { &mut self.gaps };
        queue.pop().expect("it was there");
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
        self.live.iter().chain(self.gaps.iter())
    }

    /// Takes out those that are `unwanted`. Their bytes are the caller's.
    pub(super) fn take_out(&mut self, unwanted: impl Fn(Slot) -> bool) -> Vec<Slot> {
        let out: Vec<_> = self.iter().filter(|slot| unwanted(*slot)).collect();
        if !out.is_empty() {
            self.live.retain(|slot| !unwanted(slot));
            self.gaps.retain(|slot| !unwanted(slot));
        }
        out
    }
}

impl Queue {
    fn push(&mut self, waiting: Waiting) {
        if self.in_order.back().is_none_or(|last| *last < waiting) {
            self.in_order.push_back(waiting);
        } else {
            self.others.push(Reverse(waiting));
        }
    }

    fn first(&self) -> Option<&Waiting> {
        let other = self.others.peek().map(|Reverse(waiting)| waiting);
        self.in_order.front().into_iter().chain(other).min()
    }

    fn pop(&mut self) -> Option<Waiting> {
        match (self.in_order.front(), self.others.peek()) {
            (Some(first), Some(Reverse(other))) if other < first => self.others.pop().map(|Reverse(waiting)| waiting),
            (Some(_), _) => self.in_order.pop_front(),
            (None, _) => self.others.pop().map(|Reverse(waiting)| waiting),
        }
    }

    fn len(&self) -> usize {
        self.in_order.len() + self.others.len()
    }

    fn is_empty(&self) -> bool {
        self.in_order.is_empty() && self.others.is_empty()
    }

    fn clear(&mut self) {
        self.in_order.clear();
        self.others.clear();
    }

    fn iter(&self) -> impl Iterator<Item = Slot> {
        self.in_order.iter().chain(self.others.iter().map(|Reverse(waiting)| waiting)).map(|(.., slot)| *slot)
    }

    fn retain(&mut self, wanted: impl Fn(Slot) -> bool) {
        self.in_order.retain(|(.., slot)| wanted(*slot));
        self.others.retain(|Reverse((.., slot))| wanted(*slot));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn whatever_comes_in_between_the_lowest_leaves_first(
            steps in prop::collection::vec(prop::option::weighted(0.6, (0..3u32, 0..50u64)), 0..200),
        ) {
            let (mut queue, mut expected) = (Queue::default(), Vec::new());
            for (slot, step) in (0..).zip(steps) {
                match step {
                    Some((rank, number)) => {
                        let waiting = (rank, SequenceNumber(number), slot);
                        queue.push(waiting);
                        expected.push(waiting);
                        expected.sort_unstable();
                    }
                    None => {
                        let first = (!expected.is_empty()).then(|| expected.remove(0));
                        prop_assert_eq!(queue.first().copied(), first);
                        prop_assert_eq!(queue.pop(), first);
                    }
                }
                prop_assert_eq!((queue.len(), queue.is_empty()), (expected.len(), expected.is_empty()));
            }
        }
    }
}
