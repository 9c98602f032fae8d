//! The way of records through the window: whose turn it is, what travels together, what is held, finished or given up.

use std::{cmp::Reverse, sync::Arc, time::Duration};

use forebay_log_store::Record;

use super::{
    super::config::Ordering,
    DEAD_LETTER_BYTES, DEAD_LETTERS, DeadLetter, Window,
    entries::{Entry, Fault, NONE, Slot, State},
    lanes::Put,
    suspects::History,
};
use crate::destination::{Place, hash};

impl Window {
    pub(super) fn add(
        &mut self,
        stretch: u32,
        record: Arc<Record>,
        expires: Duration,
        place: &impl Fn(&Record) -> Result<Place, String>,
        now: Duration,
    ) {
        let tags: usize = record.tags.iter().map(|tag| tag.name.len() + tag.value.len()).sum();
        let (place, reason) = placed(&record, place);
        let lane = self.stretches[stretch].lanes.lane_of(&record, place.lane);
        let sequence_number = record.sequence_number;
        let relaxed = self.config.ordering == Ordering::Relaxed;
        let key = if relaxed { hash(&record.partition_key) } else { 0 };
        let cost = record.payload_bytes() + tags as u64;
        let of = &mut self.stretches[stretch];
        let slot = self.entries.insert(Entry {
            stretch,
            ordinal: of.ledger.next(),
            expires,
            cost,
            wire: place.bytes,
            lane,
            key,
            next: NONE,
            parcel: 1,
            parcel_bytes: place.bytes,
            apart: 0,
            state: State::Behind,
            failures: 0,
            fault: Fault::None,
            refused_alone: 0,
            refused_before: None,
            isolated_at: None,
            attempts: 0,
            first_attempt: None,
            last_attempt: None,
            was_passed: false,
            reason,
            record,
        });
        of.ledger.push(slot, sequence_number);
        of.records += 1;
        of.bytes += cost;
        if relaxed {
            of.relaxed.add(key);
        }
        self.put(slot, now);
    }

    /// Puts a record behind those of its lane.
    pub(super) fn put(&mut self, slot: Slot, now: Duration) {
        let size = self.parcel_size();
        let stretch = &mut self.stretches[self.entries[slot].stretch];
        let put = match self.config.ordering {
            Ordering::Strict => stretch.lanes.push(slot, &mut self.entries, size),
            Ordering::Relaxed => stretch.relaxed.gather(slot, &mut self.entries, size),
        };
        match put {
            Put::First => self.make_ready(slot, now),
            Put::With => self.ready.bytes += self.entries[slot].wire,
            Put::Behind => {}
        }
    }

    /// It is this record's turn: to be sent as the head of a parcel, or to be buried.
    pub(super) fn make_ready(&mut self, mut slot: Slot, now: Duration) {
        loop {
            let entry = &self.entries[slot];
            if entry.reason.is_some() {
                self.hold(slot, State::Dead);
                self.dead.push_back(slot);
                return;
            }
            if self.has_expired(slot, now) {
                self.expire_from(slot, now);
                return;
            }
            if entry.apart != 0 {
                self.keep_together(vec![slot], History::continued(self.counts.records), now);
                return;
            }
            let rest = self.form(slot);
            let Entry { lane, parcel_bytes, .. } = self.entries[slot];
            if let Some(until) = self.throttles.pass(lane, parcel_bytes, now) {
                self.hold(slot, State::Waiting);
                self.throttled.push(Reverse((until, slot)));
                let Some(rest) = rest else { return };
                slot = rest;
                continue;
            }
            self.entries[slot].state = State::Ready;
            self.set_held(slot, false);
            if self.ready.is_empty() {
                self.ready_since = now;
            }
            self.push_ready(slot);
            let Some(rest) = rest else { return };
            slot = rest;
        }
    }

    /// Makes a parcel of the records that begin with this one. Relaxed order: returns what did not fit into it, since
    /// nothing has to wait.
    pub(super) fn form(&mut self, head: Slot) -> Option<Slot> {
        let rest = self.entries.form(head, self.parcel_size());
        if self.config.ordering == Ordering::Strict || rest == NONE {
            return None;
        }
        self.entries.cut(head, self.entries[head].parcel);
        Some(rest)
    }

    pub(super) fn hold(&mut self, slot: Slot, state: State) {
        self.entries[slot].state = state;
        self.set_held(slot, true);
    }

    fn set_held(&mut self, slot: Slot, held: bool) {
        if self.config.ordering == Ordering::Strict {
            let Entry { stretch, lane, .. } = self.entries[slot];
            let size = self.parcel_size();
            self.stretches[stretch].lanes.hold(lane, held, &self.entries, size);
        }
    }

    pub(super) fn bury(&mut self, slot: Slot, reason: String) {
        self.entries[slot].reason = Some(reason);
        self.hold(slot, State::Dead);
        self.dead.push_back(slot);
    }

    /// All records of a parcel are done with.
    pub(super) fn finish(&mut self, head: Slot, accepted: bool, now: Duration) {
        let strict = self.config.ordering == Ordering::Strict;
        let Entry { stretch, lane, parcel: records, .. } = self.entries[head];
        let mut slot = head;
        let of = &mut self.stretches[stretch];
        for _ in 0..records {
            let entry = self.entries.remove(slot);
            of.ledger.finish(entry.ordinal);
            of.records -= 1;
            of.bytes -= entry.cost;
            if accepted {
                self.counts.records += 1;
                self.counts.bytes += entry.record.payload_bytes();
            }
            if !strict {
                let overtaken = of.relaxed.remove(entry.key, entry.ordinal, accepted);
                self.counts.out_of_order += u64::from(overtaken && entry.attempts > 1);
            }
            slot = entry.next;
        }
        if strict && let Some(next) = of.lanes.pop(lane, head, records, slot) {
            self.make_ready(next, now);
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
        if self.dead.is_empty() || !self.burying.is_empty() || now < self.dead_not_before {
            return None;
        }
        // One that cannot be stored must not keep the others from it.
        let most = if self.dead_failures > 0 { 1 } else { DEAD_LETTERS };
        let mut letters = Vec::new();
        let mut bytes = 0;
        while let Some(slot) = self.dead.front().copied() {
            let entry = &self.entries[slot];
            bytes += entry.cost;
            if letters.len() == most || (bytes > DEAD_LETTER_BYTES && !letters.is_empty()) {
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

/// Where a record goes, and why it cannot if so.
pub(super) fn placed(record: &Record, place: &impl Fn(&Record) -> Result<Place, String>) -> (Place, Option<String>) {
    match place(record) {
        Ok(place) => (place, None),
        Err(reason) => (Place::of_key(record), Some(reason)),
    }
}
