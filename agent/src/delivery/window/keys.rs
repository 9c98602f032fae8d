//! Partition keys with unfinished records. Strict order: each key is a chain of records in the order of the stream, and
//! only its first may be sent. Relaxed order: how far each key has got, to count what came out of order.
//!
//! A key is known by a 64-bit hash of it. Should two keys ever share one, they only wait for each other.

use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, DefaultHasher, Hash, Hasher},
};

#[cfg(test)]
use super::entries::State;
use super::entries::{Entries, NONE, Slot};

/// Stands for a partition key.
pub(super) fn key_of(partition_key: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    partition_key.hash(&mut hasher);
    hasher.finish()
}

#[derive(Debug, Default)]
pub(super) struct Keys {
    keys: HashMap<u64, Key, BuildHasherDefault<AsItIs>>,
    behind: u64,
}

#[derive(Debug)]
struct Key {
    /// The record whose turn it is, and the newest (strict order only).
    head: Slot,
    tail: Slot,
    unfinished: u64,
    /// Whether its head waits for something else than the answer to a first request.
    held: bool,
    /// One more than the highest ordinal accepted while the key had unfinished records; 0 if none was.
    accepted: u64,
}

impl Keys {
    /// Adds a record behind those of its key. Tells whether it is its turn.
    pub(super) fn push(&mut self, key: u64, slot: Slot, entries: &mut Entries) -> bool {
        let fresh = Key { head: slot, tail: slot, unfinished: 0, held: false, accepted: 0 };
        let known = self.keys.entry(key).or_insert(fresh);
        known.unfinished += 1;
        if known.unfinished == 1 {
            return true;
        }
        entries[known.tail].next_of_key = slot;
        known.tail = slot;
        self.behind += u64::from(!known.held);
        false
    }

    /// Takes away a key's first record. Returns the one whose turn it is then.
    pub(super) fn pop(&mut self, key: u64, slot: Slot, next: Slot) -> Option<Slot> {
        self.release(key);
        let known = self.keys.get_mut(&key).expect("a key is known while it has records");
        assert_eq!(known.head, slot, "only a key's first record is ever finished");
        known.unfinished -= 1;
        if known.unfinished == 0 {
            assert_eq!(next, NONE, "the last record of a key has none behind it");
            self.keys.remove(&key);
            return None;
        }
        known.head = next;
        self.behind -= 1;
        Some(next)
    }

    /// Takes away a record that is not its key's first one; `before` is in front of it.
    pub(super) fn remove_behind(&mut self, key: u64, before: Slot, slot: Slot) {
        let known = self.keys.get_mut(&key).expect("a key is known while it has records");
        assert!(known.held && known.head != slot, "only behind a record that is held");
        known.unfinished -= 1;
        if known.tail == slot {
            known.tail = before;
        }
    }

    /// The key's first record waits for something of its own: those behind it are not held up by order alone.
    pub(super) fn hold(&mut self, key: u64) {
        let known = self.keys.get_mut(&key).expect("a key is known while it has records");
        if !std::mem::replace(&mut known.held, true) {
            self.behind -= known.unfinished - 1;
        }
    }

    /// The end of [`Keys::hold`].
    pub(super) fn release(&mut self, key: u64) {
        let known = self.keys.get_mut(&key).expect("a key is known while it has records");
        if std::mem::replace(&mut known.held, false) {
            self.behind += known.unfinished - 1;
        }
    }

    /// How many records wait for nothing but an earlier one of their key.
    pub(super) fn behind(&self) -> u64 {
        self.behind
    }

    /// Relaxed order: one more unfinished record.
    pub(super) fn add(&mut self, key: u64) {
        let fresh = Key { head: NONE, tail: NONE, unfinished: 0, held: false, accepted: 0 };
        self.keys.entry(key).or_insert(fresh).unfinished += 1;
    }

    /// Relaxed order: one less. Tells whether a later record of the key was accepted before this one.
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

    /// Panics if the chains do not agree with the entries. For simulations: looks at everything.
    #[cfg(test)]
    pub(super) fn check_chains(&self, entries: &Entries) {
        let mut behind = 0;
        for (key, known) in &self.keys {
            let mut slot = known.head;
            let mut count = 0;
            while slot != NONE {
                let entry = &entries[slot];
                assert_eq!(entry.key, *key);
                let witness = entry.state == State::InFlight && known.held;
                let fits = witness || (entry.state == State::Behind) == (count > 0);
                assert!(fits, "{:?} at place {count} of its key", entry.state);
                count += 1;
                slot = entry.next_of_key;
            }
            assert_eq!(count, known.unfinished);
            let own = matches!(entries[known.head].state, State::Waiting | State::Dead | State::Suspect);
            assert!(known.held || !own, "{:?} but not held", entries[known.head].state);
            behind += if known.held { 0 } else { count - 1 };
        }
        assert_eq!(self.behind, behind);
    }
}

#[derive(Debug, Default)]
struct AsItIs(u64);

impl Hasher for AsItIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("only used for u64, which come hashed already")
    }

    fn write_u64(&mut self, hashed: u64) {
        self.0 = hashed;
    }
}
