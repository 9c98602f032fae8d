//! Catching up: when the delivery leaps to the newest records, and whose turn it is then.
//!
//! `oldest-first` never leaps. The others do when all of this holds:
//!
//! - the endpoint answers, and its link lets records pass;
//! - more lies between the oldest unfinished live record and the head of the log than one request takes;
//! - that much was there when the delivery began, or when an outage ended; or what is not read yet is more than a window of records;
//!   or a live record was read more than [`LATE`] ago and is not finished. With each gap there is, it takes another window
//!   of records and another [`LATE`], so that a link that never catches up makes no gap after the other.
//!
//! It leaps so far that one request's worth of records is left: these are sent first. What lies before is a gap. What was
//! read of it and neither sent nor found at fault goes back to the log, so that the window has room for what is newer.

use std::time::Duration;

use forebay_log_store::SequenceNumber;

use super::{
    super::{
        config::{CatchUp, Ordering},
        unfinished::{Part, Unfinished},
    },
    Window,
    entries::{Slot, State},
    link::Link,
    pace::RECORD_OVERHEAD,
    ready::Turn,
    stretches::Stretch,
};

/// A live record that was read so long ago, and is not finished, shows that the link is slower than what comes in.
const LATE: Duration = Duration::from_secs(10);

/// With so many gaps there is no leap before one of them is filled, and gaps get half of the link. Persisted as a list:
/// all of them have to fit into a mark.
pub(super) const GAPS_MAX: usize = 64;

/// What a leap leaves to be sent is at most this share of a window.
const NEWEST_SHARE: usize = 4;

/// Leaping was in vain because what is under way is almost the newest, or takes too much of the window; it is not tried
/// again before so long.
const IN_VAIN: Duration = Duration::from_secs(1);

/// What decides about leaps.
#[derive(Debug)]
pub(super) struct CatchingUp {
    /// The number that the next record of the log will get.
    head: SequenceNumber,
    /// The delivery has begun, or an outage has ended, and what has gathered is neither leapt over nor delivered yet.
    begun: bool,
    not_before: Duration,
    /// The ordinal of the live record that was to be read next at some time, and that time.
    read_by: (u64, Duration),
}

impl CatchingUp {
    pub(super) fn new() -> Self {
        Self { head: SequenceNumber::ZERO, begun: true, not_before: Duration::ZERO, read_by: (0, Duration::ZERO) }
    }

    /// The endpoint answers again.
    pub(super) fn outage_ended(&mut self) {
        self.begun = true;
    }
}

impl Window {
    /// The log has records from `oldest` on, and the next one will be `head`.
    pub(crate) fn on_extent(&mut self, oldest: SequenceNumber, head: SequenceNumber) {
        self.catching_up.head = head;
        // What was read just now may be older.
        if self.reading.is_none() {
            for stretch in self.stretches.iter_mut().take_while(|stretch| stretch.next_read() < oldest) {
                stretch.pass(oldest.previous());
            }
        }
    }

    /// Whether gaps and live records share the window: half of it for each, so that neither keeps the other out.
    pub(super) fn shares_window(&self) -> bool {
        self.config.catch_up != CatchUp::OldestFirst && !self.stretches.gaps().is_empty()
    }

    /// Whether gaps wait although there is nothing else to be sent: more live records are in the log, and are read now or as
    /// soon as some of those under way are finished.
    pub(super) fn live_comes_first(&self, now: Duration) -> bool {
        let gaps = self.stretches.gaps().len();
        if self.config.catch_up != CatchUp::NewestFirst || !(1..GAPS_MAX).contains(&gaps) || self.ready.has_live() {
            return false;
        }
        let is_read_now = || self.reading.is_some() || self.piece(self.stretches.live().id).is_some();
        !self.at_end && now >= self.read_not_before && !self.stopping && (!self.in_flight.is_empty() || is_read_now())
    }

    /// Whether the next request is begun with records of gaps.
    pub(super) fn gaps_first(&self) -> bool {
        let shares = self.config.catch_up == CatchUp::Split || self.stretches.gaps().len() >= GAPS_MAX;
        shares && self.ready.has_both() && self.ready.owes_gaps()
    }

    /// A record's place among all that are ready.
    pub(super) fn turn(&self, slot: Slot) -> Turn {
        let entry = &self.entries[slot];
        let (stretch, number) = (entry.stretch, entry.record.sequence_number);
        if self.config.catch_up == CatchUp::OldestFirst {
            return Turn { live: true, rank: 0, number };
        }
        Turn { live: stretch == self.stretches.live().id, rank: u32::MAX - stretch, number }
    }

    /// Leaps to the newest records, if that is due.
    pub(super) fn catch_up(&mut self, now: Duration) {
        let live = self.stretches.live();
        if live.ledger.first() >= self.catching_up.read_by.0 {
            self.catching_up.read_by = (live.ledger.next(), now);
        }
        let live = self.stretches.live().done(&self.entries);
        if self.to_head(live) <= self.newest_records() {
            // There is no backlog. One that comes of itself is another matter than one that was found.
            self.catching_up.begun &= self.link != Link::Up;
        } else if self.is_leap_due(now) {
            self.leap(now);
        }
    }

    /// How many numbers lie between this one and the head of the log.
    fn to_head(&self, number: SequenceNumber) -> usize {
        let behind = self.catching_up.head.0.saturating_sub(number.0.saturating_add(1));
        usize::try_from(behind).unwrap_or(usize::MAX)
    }

    fn is_leap_due(&self, now: Duration) -> bool {
        let CatchingUp { begun, not_before, read_by, .. } = &self.catching_up;
        let gaps = self.stretches.gaps().len();
        if self.config.catch_up == CatchUp::OldestFirst
            || self.stopping
            || self.reading.is_some()
            || self.trial.is_some()
            || self.link != Link::Up
            || now < self.held_until.max(*not_before)
            || gaps >= GAPS_MAX
        {
            return false;
        }
        // Nor may what lies behind stuck records pile up.
        let span: usize = self.stretches.gaps().iter().map(|gap| gap.ledger.span()).sum();
        if span >= self.span_max() {
            return false;
        }
        let (live, times) = (self.stretches.live(), gaps + 1);
        let is_late = live.ledger.span() > 0 && now >= read_by.1 + LATE * u32::try_from(times).unwrap_or(u32::MAX);
        let far = self.config.window_records.saturating_mul(times);
        *begun || is_late || self.to_head(live.ledger.last_read()) > far
    }

    /// How many of the newest records a leap leaves to be sent.
    fn newest_records(&self) -> usize {
        let live = self.stretches.live();
        let by_link = match live.records {
            0 => usize::MAX,
            records => {
                let each = live.bytes / records as u64 + RECORD_OVERHEAD;
                usize::try_from(self.pace.bytes / each).unwrap_or(usize::MAX)
            }
        };
        self.request_worth().min(self.config.window_records / NEWEST_SHARE).min(by_link).max(1)
    }

    /// How many records a request may hold, where parcels are full.
    pub(super) fn request_worth(&self) -> usize {
        self.request_records.saturating_mul(self.parcel_size.records).min(self.config.batch_records)
    }

    fn leap(&mut self, now: Duration) {
        let to = SequenceNumber(self.catching_up.head.0 - self.newest_records() as u64);
        let ids: Vec<_> = self.stretches.iter().map(|stretch| stretch.id).collect();
        let live = self.stretches.live().id;
        if self.kept_up_to(live) >= to || !self.leaves_room(&ids) {
            self.catching_up.not_before = now + IN_VAIN;
            return;
        }
        for id in ids {
            self.give_back(id, now);
        }
        self.stretches.leap(to, &self.entries);
        // The newest are read first.
        (self.at_end, self.read_live) = (false, false);
        (self.catching_up.begun, self.catching_up.read_by) = (false, (0, now));
        self.rank_anew();
    }

    /// All that is ready gets the turn that it has now.
    fn rank_anew(&mut self) {
        for slot in self.ready.take_all() {
            self.push_ready(slot);
        }
    }

    pub(super) fn push_ready(&mut self, slot: Slot) {
        self.ready.push(self.turn(slot), slot, self.entries[slot].parcel_bytes + RECORD_OVERHEAD);
    }

    /// The ordinal from which on a stretch has only records that wait for the link alone, or behind those.
    fn kept_before(&self, id: u32) -> u64 {
        let ledger = &self.stretches[id].ledger;
        let mut before = ledger.behind_last_finished();
        for slot in ledger.unfinished() {
            if !matches!(self.entries[slot].state, State::Ready | State::Behind) {
                let last = self.entries.parcel(slot).last().expect("its head at least");
                before = before.max(self.entries[last].ordinal + 1);
            }
        }
        before
    }

    /// Whether what stays in memory takes less than half of the window, so that there is room for what is newer.
    fn leaves_room(&self, ids: &[u32]) -> bool {
        let (mut records, mut bytes) = (0, 0);
        for id in ids {
            let before = self.kept_before(*id);
            let slots = self.stretches[*id].ledger.unfinished();
            for slot in slots.take_while(|slot| self.entries[*slot].ordinal < before) {
                records += 1;
                bytes += self.entries[slot].cost;
            }
        }
        records <= self.config.window_records / 2 && bytes <= self.config.window_bytes / 2
    }

    /// The newest number of a stretch that [`Window::give_back`] keeps.
    fn kept_up_to(&self, id: u32) -> SequenceNumber {
        let ledger = &self.stretches[id].ledger;
        match ledger.slots_from(self.kept_before(id)).next() {
            Some(slot) => self.entries[slot].record.sequence_number.previous(),
            None => ledger.last_read(),
        }
    }

    /// Gives back to the log what was read of a stretch and waits for the link alone; it is read again.
    fn give_back(&mut self, id: u32, now: Duration) {
        let before = self.kept_before(id);
        let slots: Vec<_> = self.stretches[id].ledger.slots_from(before).collect();
        let Some(oldest) = slots.first().map(|slot| &self.entries[*slot]) else { return };
        let (first, expires) = (oldest.record.sequence_number, oldest.expires);
        let size = self.parcel_size();
        let stretch = &mut self.stretches[id];
        stretch.lanes.cut(before, &mut self.entries);
        stretch.relaxed.close_all();
        for head in self.ready.take_all() {
            let entry = &self.entries[head];
            if entry.stretch == id {
                if entry.ordinal >= before {
                    continue;
                }
                if self.config.ordering == Ordering::Relaxed {
                    let is_kept = |slot: &Slot| self.entries[*slot].ordinal < before;
                    let kept = self.entries.parcel(head).take_while(is_kept).count();
                    self.entries.cut(head, u32::try_from(kept).expect("at most all of a parcel"));
                }
                // What does not fit, because parcels have become smaller since, is ready, too.
                let mut next = Some(head);
                while let Some(head) = next {
                    next = self.form(head);
                    self.entries[head].state = State::Ready;
                    self.push_ready(head);
                }
                continue;
            }
            self.push_ready(head);
        }
        let stretch = &mut self.stretches[id];
        stretch.lanes.recount(&self.entries, size);
        stretch.ledger.give_back(before, first.previous());
        stretch.expires = expires;
        for slot in slots {
            let entry = self.entries.remove(slot);
            stretch.records -= 1;
            stretch.bytes -= entry.cost;
            if self.config.ordering == Ordering::Relaxed {
                stretch.relaxed.remove(entry.key, entry.ordinal, false);
            }
        }
        if self.ready.is_empty() {
            self.ready_since = now;
        }
    }

    /// What is left of the gaps, and of what is live.
    pub(crate) fn unfinished(&self) -> Unfinished {
        let part = |stretch: &Stretch| Part {
            from: stretch.done(&self.entries).next(),
            unread: stretch.next_read(),
            end: stretch.end,
            held: stretch.records as u64,
        };
        let gaps = self.stretches.gaps().iter().map(part).collect();
        Unfinished { gaps, live: part(self.stretches.live()) }
    }
}
