//! Which of the records read are finished, and from that the checkpoint. Four bytes for each record behind the oldest
//! unfinished one; the finished ones in front of it are forgotten.

use std::collections::VecDeque;

use forebay_log_store::SequenceNumber;

use super::entries::{Entries, NONE, Slot};

#[derive(Debug)]
pub(super) struct Ledger {
    /// For each record since the oldest unfinished one: its slot, or [`NONE`] once it is finished.
    slots: VecDeque<Slot>,
    /// Ordinal of the first of them.
    first: u64,
    last_read: SequenceNumber,
}

impl Ledger {
    /// Everything up to `checkpoint` is finished.
    pub(super) fn new(checkpoint: SequenceNumber) -> Self {
        Self { slots: VecDeque::new(), first: 0, last_read: checkpoint }
    }

    /// The ordinal of the next record.
    pub(super) fn next(&self) -> u64 {
        self.first + self.slots.len() as u64
    }

    /// The ordinal of the oldest unfinished record, or of the next one if there is none.
    pub(super) fn first(&self) -> u64 {
        self.first
    }

    pub(super) fn push(&mut self, slot: Slot, sequence_number: SequenceNumber) {
        assert!(sequence_number > self.last_read, "record {sequence_number} read after {}", self.last_read);
        self.last_read = sequence_number;
        self.slots.push_back(slot);
    }

    /// There is nothing more for us up to here.
    pub(super) fn pass(&mut self, last: SequenceNumber) {
        self.last_read = self.last_read.max(last);
    }

    /// A record was read that is finished already.
    pub(super) fn gone(&mut self, sequence_number: SequenceNumber) {
        assert!(sequence_number > self.last_read, "record {sequence_number} read after {}", self.last_read);
        self.last_read = sequence_number;
        // One place stands for any number of them: it is only to be seen that there were some.
        if self.slots.back().is_some_and(|newest| *newest != NONE) {
            self.slots.push_back(NONE);
        }
    }

    pub(super) fn finish(&mut self, ordinal: u64) {
        let index = usize::try_from(ordinal - self.first).expect("within the window");
        assert_ne!(std::mem::replace(&mut self.slots[index], NONE), NONE, "finished twice");
        while self.slots.front() == Some(&NONE) {
            self.slots.pop_front();
            self.first += 1;
        }
    }

    /// The slots of all unfinished records, in the order of the stream.
    pub(super) fn unfinished(&self) -> impl Iterator<Item = Slot> {
        self.slots.iter().copied().filter(|slot| *slot != NONE)
    }

    /// The ordinal behind the newest record that is finished, as far as that is remembered.
    pub(super) fn behind_last_finished(&self) -> u64 {
        let last = self.slots.iter().rposition(|slot| *slot == NONE);
        self.first + last.map_or(0, |last| last as u64 + 1)
    }

    /// The slots from this ordinal on.
    pub(super) fn slots_from(&self, ordinal: u64) -> impl Iterator<Item = Slot> {
        let at = usize::try_from(ordinal - self.first).expect("within the window");
        self.slots.range(at..).copied()
    }

    /// Forgets the records from this ordinal on: nothing behind `last_read` was read.
    pub(super) fn give_back(&mut self, ordinal: u64, last_read: SequenceNumber) {
        self.slots.truncate(usize::try_from(ordinal - self.first).expect("within the window"));
        self.last_read = last_read;
    }

    /// How many records lie between the oldest unfinished one and the newest one read, both included.
    pub(super) fn span(&self) -> usize {
        self.slots.len()
    }

    pub(super) fn last_read(&self) -> SequenceNumber {
        self.last_read
    }

    /// The number up to which everything is finished.
    pub(super) fn checkpoint(&self, entries: &Entries) -> SequenceNumber {
        match self.slots.front() {
            Some(oldest) => entries[*oldest].record.sequence_number.previous(),
            None => self.last_read,
        }
    }
}
