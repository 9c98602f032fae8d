//! The records of a window that are not finished, each in a numbered slot. Slots are reused; nothing is searched.

#[cfg(test)]
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::{ops, sync::Arc, time::Duration};

use forebay_log_store::Record;

/// Where an unfinished record is.
pub(super) type Slot = u32;

/// No slot.
pub(super) const NONE: Slot = Slot::MAX;

/// An unfinished record and all that the window knows about it.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) record: Arc<Record>,
    /// The stretch of the log that it is of.
    pub(super) stretch: u32,
    /// How many records of its stretch were read before it, as far as they stand in the ledger.
    pub(super) ordinal: u64,
    /// When it is too old to be sent.
    pub(super) expires: Duration,
    /// What it takes of the window, in bytes.
    pub(super) cost: u64,
    /// What it takes of a parcel on the wire, in bytes.
    pub(super) wire: u64,
    /// Its lane.
    pub(super) lane: u64,
    /// Stands for its partition key (relaxed order only).
    pub(super) key: u64,
    /// The record behind it in its lane; relaxed order: in its parcel.
    pub(super) next: Slot,
    /// If it is the head of a parcel: how many records that has, and what they take on the wire.
    pub(super) parcel: u32,
    pub(super) parcel_bytes: u64,
    /// It travels only with others of the same number: not 0 once it was in a request that failed and may be at fault.
    pub(super) apart: u32,
    pub(super) state: State,
    /// Failures of this record alone, in a row.
    pub(super) failures: u32,
    /// Set by [`Entries::set_fault`].
    pub(super) fault: Fault,
    /// The number of the first request that was sent after a request with this record had been refused.
    pub(super) isolated_at: Option<u64>,
    /// How often the endpoint refused a request that held nothing else.
    pub(super) refused_alone: u32,
    /// The number of the first request that was sent after the newest of these refusals.
    pub(super) refused_before: Option<u64>,
    pub(super) attempts: u32,
    pub(super) first_attempt: Option<Duration>,
    pub(super) last_attempt: Option<Duration>,
    /// One behind it was taken in a trial, so that it is given up. Should it be sent again all the same, that one has to follow.
    pub(super) was_passed: bool,
    /// Why it can never be delivered.
    pub(super) reason: Option<String>,
}

/// Whose fault it is that the endpoint failed upon a record, as far as that is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// It has not, since it last said anything else.
    None,
    /// An answer said that this record failed, when so many had been accepted. It may be the endpoint's.
    Failed(u64),
    /// Others were accepted between two such answers, so that it is not.
    FailedBeside,
    /// The endpoint failed upon it out of its turn: it may have it, or take it yet.
    Witness,
    /// The endpoint went on failing upon requests with nothing else in them.
    Found,
    /// And others are accepted.
    Failing,
}

impl Fault {
    /// Whether the endpoint went on failing upon this record alone.
    pub(super) fn is_found(self) -> bool {
        matches!(self, Self::Found | Self::Failing)
    }
}

/// What an unfinished record waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum State {
    /// An earlier record of its lane, with which it may travel.
    Behind,
    /// A request to leave with.
    Ready,
    /// The outcome of its request.
    InFlight,
    /// The end of its own backoff.
    Waiting,
    /// Its turn as one of a request that failed and is kept together.
    Suspect,
    /// Its dead letter to become durable.
    Dead,
}

/// All entries of a window.
#[derive(Debug, Default)]
pub(super) struct Entries {
    slots: Vec<Option<Entry>>,
    free: Vec<Slot>,
    cost: u64,
    failing: usize,
    failed: usize,
    #[cfg(test)]
    looks: AtomicU64,
}

impl Entries {
    pub(super) fn insert(&mut self, entry: Entry) -> Slot {
        self.cost += entry.cost;
        match self.free.pop() {
            Some(slot) => {
                self.slots[slot as usize] = Some(entry);
                slot
            }
            None => {
                self.slots.push(Some(entry));
                Slot::try_from(self.slots.len() - 1).expect("a window is bounded far below 2^32 records")
            }
        }
    }

    pub(super) fn remove(&mut self, slot: Slot) -> Entry {
        let entry = self.slots[slot as usize].take().expect("a slot is named only while it is taken");
        self.free.push(slot);
        self.cost -= entry.cost;
        self.count(entry.fault, Fault::None);
        entry
    }

    pub(super) fn set_fault(&mut self, slot: Slot, fault: Fault) {
        let before = std::mem::replace(&mut self[slot].fault, fault);
        self.count(before, fault);
    }

    fn count(&mut self, before: Fault, fault: Fault) {
        let is_failed = |fault| usize::from(matches!(fault, Fault::Failed(_)));
        let is_failing = |fault| usize::from(fault == Fault::Failing);
        self.failed = self.failed + is_failed(fault) - is_failed(before);
        self.failing = self.failing + is_failing(fault) - is_failing(before);
    }

    /// How many are [`Fault::Failing`].
    pub(super) fn failing(&self) -> usize {
        self.failing
    }

    /// How many are [`Fault::Failed`].
    pub(super) fn failed(&self) -> usize {
        self.failed
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// What all of them take, in bytes.
    pub(super) fn cost(&self) -> u64 {
        self.cost
    }

    /// How often one was looked at, or changed.
    #[cfg(test)]
    pub(super) fn looks(&self) -> u64 {
        self.looks.load(Relaxed)
    }

    #[cfg(test)]
    pub(super) fn iter(&self) -> impl Iterator<Item = (Slot, &Entry)> {
        self.slots.iter().enumerate().filter_map(|(slot, entry)| Some((slot as Slot, entry.as_ref()?)))
    }
}

impl ops::Index<Slot> for Entries {
    type Output = Entry;

    fn index(&self, slot: Slot) -> &Entry {
        #[cfg(test)]
        self.looks.fetch_add(1, Relaxed);
        self.slots[slot as usize].as_ref().expect("a slot is named only while it is taken")
    }
}

impl ops::IndexMut<Slot> for Entries {
    fn index_mut(&mut self, slot: Slot) -> &mut Entry {
        #[cfg(test)]
        self.looks.fetch_add(1, Relaxed);
        self.slots[slot as usize].as_mut().expect("a slot is named only while it is taken")
    }
}
