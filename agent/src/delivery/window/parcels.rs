//! Parcels: records of one lane that travel together, as a chain. A parcel is known by its first record, its head, which
//! alone has a state; the head knows how many records there are and what they take on the wire.

use super::entries::{Entries, NONE, Slot, State};

/// How large a parcel may get; one record is always taken.
#[derive(Debug, Clone, Copy)]
pub(super) struct Size {
    pub(super) records: usize,
    /// On the wire.
    pub(super) bytes: u64,
}

impl Entries {
    /// Makes a parcel of a record and those behind it. Returns the first one that it does not take.
    pub(super) fn form(&mut self, head: Slot, size: Size) -> Slot {
        let entry = &mut self[head];
        (entry.parcel, entry.parcel_bytes) = (1, entry.wire);
        let mut next = entry.next;
        while next != NONE && self.joins(head, next, size) {
            self.join(head, next);
            next = self[next].next;
        }
        next
    }

    /// Whether the record behind a parcel may still travel with it.
    pub(super) fn joins(&self, head: Slot, slot: Slot, size: Size) -> bool {
        let (first, last) = (&self[head], &self[slot]);
        (first.parcel as usize) < size.records
            && first.parcel_bytes + last.wire <= size.bytes
            && first.apart == last.apart
            && last.reason.is_none()
    }

    pub(super) fn join(&mut self, head: Slot, slot: Slot) {
        let wire = self[slot].wire;
        let entry = &mut self[head];
        entry.parcel += 1;
        entry.parcel_bytes += wire;
    }

    /// Whether records that come now may join a parcel.
    pub(super) fn is_open(&self, head: Slot) -> bool {
        self[head].state == State::Ready
    }

    /// The records of a parcel.
    pub(super) fn parcel(&self, head: Slot) -> impl Iterator<Item = Slot> + '_ {
        let records = self[head].parcel as usize;
        std::iter::successors(Some(head), |slot| Some(self[*slot].next)).take(records)
    }

    /// The `nth` record of a parcel.
    pub(super) fn nth(&self, head: Slot, nth: u32) -> Slot {
        (0..nth).fold(head, |slot, _| self[slot].next)
    }

    /// Ends a chain after the first `records`.
    pub(super) fn cut(&mut self, head: Slot, records: u32) {
        let last = self.nth(head, records - 1);
        self[last].next = NONE;
    }
}
