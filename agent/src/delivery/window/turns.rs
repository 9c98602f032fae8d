//! The way of a record through the window: whose turn it is, what is held, finished or given up.

use std::{cmp::Reverse, sync::Arc, time::Duration};

use forebay_log_store::Record;

use super::{
    super::config::Ordering,
    DEAD_LETTER_BYTES, DEAD_LETTERS, DeadLetter, Window,
    entries::{Entry, NONE, Slot, State},
    keys::key_of,
    pace::RECORD_OVERHEAD,
};

impl Window {
    pub(super) fn add(&mut self, record: Record, accepts: &impl Fn(&Record) -> Result<(), String>, now: Duration) {
        let tags: usize = record.tags.iter().map(|tag| tag.name.len() + tag.value.len()).sum();
        let reason = accepts(&record).err();
        let (sequence_number, key) = (record.sequence_number, key_of(&record.partition_key));
        let slot = self.entries.insert(Entry {
            ordinal: self.ledger.next(),
            cost: record.payload_bytes() + tags as u64,
            key,
            next_of_key: NONE,
            state: State::Behind,
            failures: 0,
            refused_alone: 0,
            refused_before: None,
            isolated_at: None,
            attempts: 0,
            first_attempt: None,
            last_attempt: None,
            reason,
            record: Arc::new(record),
        });
        self.ledger.push(slot, sequence_number);
        let its_turn = match self.config.ordering {
            Ordering::Strict => self.keys.push(key, slot, &mut self.entries),
            Ordering::Relaxed => {
                self.keys.add(key);
                true
            }
        };
        if its_turn {
            self.make_ready(slot, now);
        }
    }

    /// It is this record's turn: to be sent, or to be buried.
    pub(super) fn make_ready(&mut self, slot: Slot, now: Duration) {
        let strict = self.config.ordering == Ordering::Strict;
        let entry = &mut self.entries[slot];
        if entry.reason.is_some() {
            entry.state = State::Dead;
            if strict {
                self.keys.hold(entry.key);
            }
            self.dead.push_back(slot);
            return;
        }
        entry.state = State::Ready;
        if strict {
            self.keys.release(entry.key);
        }
        if self.ready.is_empty() {
            self.ready_since = now;
        }
        self.ready_bytes += entry.cost + RECORD_OVERHEAD;
        self.ready.push(Reverse((entry.ordinal, slot)));
    }

    pub(super) fn hold(&mut self, slot: Slot, state: State) {
        let entry = &mut self.entries[slot];
        entry.state = state;
        if self.config.ordering == Ordering::Strict {
            self.keys.hold(entry.key);
        }
    }

    pub(super) fn bury(&mut self, slot: Slot, reason: String) {
        self.entries[slot].reason = Some(reason);
        self.hold(slot, State::Dead);
        self.dead.push_back(slot);
    }

    pub(super) fn finish(&mut self, slot: Slot, accepted: bool, now: Duration) {
        let entry = self.entries.remove(slot);
        self.ledger.finish(entry.ordinal);
        match self.config.ordering {
            Ordering::Strict => {
                if let Some(next) = self.keys.pop(entry.key, slot, entry.next_of_key) {
                    self.make_ready(next, now);
                }
            }
            Ordering::Relaxed => {
                let overtaken = self.keys.remove(entry.key, entry.ordinal, accepted);
                self.counts.out_of_order += u64::from(overtaken && entry.attempts > 1);
            }
        }
    }

    pub(super) fn end_backoffs(&mut self, now: Duration) {
        while let Some(Reverse((at, slot))) = self.throttled.peek().copied()
            && at <= now
        {
            self.throttled.pop();
            self.make_ready(slot, now);
        }
        while let Some(Reverse((at, slot))) = self.failed.peek().copied()
            && at <= now
        {
            self.failed.pop();
            self.make_ready(slot, now);
        }
    }

    pub(super) fn dead_letters(&mut self, now: Duration) -> Option<Vec<DeadLetter>> {
        if self.stopping || self.dead.is_empty() || !self.burying.is_empty() || now < self.dead_not_before {
            return None;
        }
        let mut letters = Vec::new();
        let mut bytes = 0;
        while let Some(slot) = self.dead.front().copied() {
            let entry = &self.entries[slot];
            bytes += entry.cost;
            if letters.len() == DEAD_LETTERS || (bytes > DEAD_LETTER_BYTES && !letters.is_empty()) {
                break;
            }
            letters.push(DeadLetter {
                record: Arc::clone(&entry.record),
                reason: entry.reason.clone().expect("only records with a reason are dead"),
                attempts: entry.attempts,
                first_attempt: entry.first_attempt,
                last_attempt: entry.last_attempt,
            });
            self.dead.pop_front();
            self.burying.push(slot);
        }
        Some(letters)
    }
}
