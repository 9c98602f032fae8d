//! Relaxed order: records of a lane gather until their parcel leaves or is full, and any number of parcels may be under
//! way. How far each partition key has got is known, to count what came out of order.

use std::{collections::HashMap, hash::BuildHasherDefault};

use super::{
    entries::{Entries, Slot},
    lanes::{AsItIs, Put},
    parcels::Size,
};

#[derive(Debug, Default)]
pub(super) struct Relaxed {
    /// By lane: the first and the newest record of the parcel that gathers.
    gathering: HashMap<u64, (Slot, Slot), BuildHasherDefault<AsItIs>>,
    keys: HashMap<u64, Key, BuildHasherDefault<AsItIs>>,
}

#[derive(Debug, Default)]
struct Key {
    unfinished: u64,
    /// One more than the highest ordinal accepted while the key had unfinished records; 0 if none was.
    accepted: u64,
}

impl Relaxed {
    /// Adds a record to the parcel that gathers in its lane, or begins another one with it.
    pub(super) fn gather(&mut self, slot: Slot, entries: &mut Entries, size: Size) -> Put {
        let entry = &entries[slot];
        if size.records == 1 || entry.reason.is_some() || entry.apart != 0 {
            return Put::First;
        }
        let (head, newest) = self.gathering.entry(entry.lane).or_insert((slot, slot));
        let before = std::mem::replace(newest, slot);
        if before == slot {
            return Put::First;
        }
        if entries.is_open(*head) && entries.joins(*head, slot, size) {
            entries[before].next = slot;
            entries.join(*head, slot);
            return Put::With;
        }
        *head = slot;
        Put::First
    }

    /// A parcel has left, or was made anew: nothing joins it any more.
    pub(super) fn close(&mut self, lane: u64, head: Slot) {
        if self.gathering.get(&lane).is_some_and(|(gathering, _)| *gathering == head) {
            self.gathering.remove(&lane);
        }
    }

    /// Forgets what gathers.
    pub(super) fn close_all(&mut self) {
        self.gathering.clear();
    }

    /// One more unfinished record.
    pub(super) fn add(&mut self, key: u64) {
        self.keys.entry(key).or_default().unfinished += 1;
    }

    /// One less. Tells whether a later record of the key was accepted before this one.
    pub(super) fn remove(&mut self, key: u64, ordinal: u64, accepted: bool) -> bool {
        let known = self.keys.get_mut(&key).expect("a key is known while it has records");
        let overtaken = accepted && known.accepted > ordinal;
        if accepted {
            known.accepted = known.accepted.max(ordinal + 1);
        }
        known.unfinished -= 1;
        if known.unfinished == 0 {
            self.keys.remove(&key);
        }
        overtaken
    }
}
