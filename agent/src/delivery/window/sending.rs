//! When to send and what: the part of the window that looks at what is ready.

use std::{cmp::Reverse, collections::BinaryHeap, sync::Arc, time::Duration};

use smallvec::SmallVec;

use super::{
    super::config::Ordering,
    Batch, Flight, Link, Map, Window,
    entries::{Entry, Slot, State},
    pace::RECORD_OVERHEAD,
    parcels::Size,
};
use crate::destination::{FailureKind, Parcel};

/// Whether, when and what to send.
#[derive(Debug, Clone, Copy)]
pub(super) enum Due {
    Now(What),
    /// Not before this, or not before something happens.
    Later(Option<Duration>),
}

#[derive(Debug, Clone, Copy)]
pub(super) enum What {
    /// Records whose turn it is.
    Fresh,
    /// Suspects.
    Group,
    /// The witness of a trial.
    Witness,
}

impl Window {
    pub(super) fn send_due(&self, now: Duration) -> Due {
        if self.stopping || self.in_flight.len() >= self.config.in_flight || self.map != Map::Current {
            return Due::Later(None);
        }
        if now < self.held_until {
            return Due::Later(Some(self.held_until));
        }
        if self.trial.is_some() {
            return match &self.link {
                _ if !self.in_flight.is_empty() => Due::Later(None),
                // That the endpoint broke at the last witness may be its own fault: the next one waits as any request would.
                Link::Down(down) if down.kind == FailureKind::EndpointFailed && now < down.next_probe => {
                    Due::Later(Some(down.next_probe))
                }
                _ => Due::Now(What::Witness),
            };
        }
        let (fresh, group) = match &self.link {
            Link::Up if self.in_flight.len() >= self.pace.requests => return Due::Later(None),
            Link::Up => (self.batch_due(now), self.suspects.due()),
            Link::Down(down) if down.probe.is_some() => return Due::Later(None),
            Link::Down(down) => (
                (!self.ready.is_empty()).then_some(down.next_probe),
                self.suspects.due().map(|due| due.max(down.next_probe)),
            ),
        };
        match (fresh.filter(|due| *due <= now), group.filter(|due| *due <= now)) {
            (Some(_), Some(_)) if self.sent_group => Due::Now(What::Fresh),
            (_, Some(_)) => Due::Now(What::Group),
            (Some(_), None) => Due::Now(What::Fresh),
            (None, None) => Due::Later(earliest([fresh, group])),
        }
    }

    /// When what is ready is to leave, the link being up.
    fn batch_due(&self, now: Duration) -> Option<Duration> {
        if self.ready.is_empty() || self.live_comes_first(now) {
            return None;
        }
        let payload = self.ready.bytes - RECORD_OVERHEAD * self.ready.len() as u64;
        // Many small parcels had better grow.
        let full = (self.ready.len() >= self.request_records && self.oldest_is_grown())
            || self.ready.bytes >= self.pace.bytes
            || payload >= self.request_bytes;
        if full {
            return Some(Duration::ZERO);
        }
        // Company comes from the log, or from answers to requests under way. If the log gives none, waiting long for the
        // answers would only make key order cost more round trips than it must.
        let log_gives_none = self.behind() > 0 || !self.has_room() || self.reads_later(now);
        let wait =
            if log_gives_none { self.config.batch_age.min(self.pace.typical / 4) } else { self.config.batch_age };
        let by_age = self.ready_since + wait;
        if !self.in_flight.is_empty() {
            return Some(by_age);
        }
        match self.last_sent {
            _ if log_gives_none => Some(Duration::ZERO),
            // After a pause the first record leaves at once, and the next ones gather behind it.
            Some(last) => Some(by_age.min(last + wait)),
            None => Some(Duration::ZERO),
        }
    }

    /// Whether the oldest parcel that is ready gains little by waiting for more records.
    fn oldest_is_grown(&self) -> bool {
        let Some((_, head)) = self.ready.peek(self.gaps_first()) else { return false };
        let (head, size) = (&self.entries[head], self.parcel_size());
        head.parcel as usize >= size.records || head.parcel_bytes >= size.bytes / 2
    }

    /// About how many bytes a request takes, each record with [`RECORD_OVERHEAD`].
    pub(super) fn bytes_of(&self, what: What) -> u64 {
        match what {
            What::Fresh => self.next_bytes(),
            What::Group => {
                let slots = self.suspects.first().map_or(&[][..], |group| &group.slots);
                slots.iter().map(|head| self.entries[*head].parcel_bytes + RECORD_OVERHEAD).sum()
            }
            What::Witness => {
                let witness = self.trial.map(|trial| &self.entries[trial.witness]);
                witness.map_or(0, |entry| entry.wire + RECORD_OVERHEAD)
            }
        }
    }

    /// About how many bytes the next request takes of what is ready.
    fn next_bytes(&self) -> u64 {
        let records = self.ready.len().max(1) as f64;
        let payload = self.ready.bytes.saturating_sub(RECORD_OVERHEAD * self.ready.len() as u64).max(1) as f64;
        // As if all were of one size, so that a limit of records or of bytes takes a share of both.
        let share = (self.request_bytes as f64 / payload).min(self.request_records as f64 / records).min(1.0);
        ((self.ready.bytes as f64 * share) as u64).min(self.pace.bytes)
    }

    pub(super) fn send(&mut self, what: What, now: Duration) -> Batch {
        let (slots, group) = match what {
            What::Fresh => (self.take_ready(now), None),
            What::Group => {
                let group = self.suspects.take().expect("it was due");
                (group.slots, Some(group.history))
            }
            What::Witness => {
                let trial = self.trial.as_ref().expect("a witness is only called in a trial");
                (vec![self.alone(trial.witness)], None)
            }
        };
        self.sent_group = group.is_some();
        let id = self.next_id;
        self.next_id += 1;
        let mut bytes = 0;
        let mut parcels = Vec::with_capacity(slots.len());
        for head in &slots {
            bytes += self.entries[*head].parcel_bytes + RECORD_OVERHEAD;
            parcels.push(self.parcel(*head, now));
        }
        self.link.sent(id);
        self.last_sent = Some(now);
        self.counts.requests += 1;
        let witness = matches!(what, What::Witness);
        self.in_flight.insert(id, Flight { slots, sent: now, bytes, group, accepted_id: self.accepted_id, witness });
        Batch { id, parcels }
    }

    /// A parcel leaves.
    fn parcel(&mut self, head: Slot, now: Duration) -> Parcel {
        let Entry { stretch, lane, parcel, .. } = self.entries[head];
        let mut records = SmallVec::with_capacity(parcel as usize);
        let mut slot = head;
        for _ in 0..parcel {
            let entry = &mut self.entries[slot];
            entry.attempts = entry.attempts.saturating_add(1);
            entry.first_attempt.get_or_insert(now);
            entry.last_attempt = Some(now);
            records.push(Arc::clone(&entry.record));
            slot = entry.next;
        }
        self.entries[head].state = State::InFlight;
        match self.config.ordering {
            Ordering::Strict => self.lane_changed(head),
            Ordering::Relaxed => self.stretches[stretch].relaxed.close(lane, head),
        }
        self.counts.parcels += 1;
        Parcel { records }
    }

    /// How large a parcel may get at the moment.
    pub(super) fn parcel_size(&self) -> Size {
        Size { bytes: self.parcel_size.bytes.min(self.pace.bytes.saturating_sub(RECORD_OVERHEAD)), ..self.parcel_size }
    }

    /// As many ready parcels as a request holds, in the order of their turns.
    fn take_ready(&mut self, now: Duration) -> Vec<Slot> {
        let mut slots = Vec::with_capacity(self.ready.len().min(self.request_records));
        let (mut payload, mut bytes) = (0, 0);
        let mut full = false;
        let (gaps_first, both, mut live_bytes) = (self.gaps_first(), self.ready.has_both(), 0);
        while let Some((live, slot)) = self.ready.peek(gaps_first) {
            if slots.is_empty() {
                self.shrink(slot, now);
            }
            let cost = self.entries[slot].parcel_bytes;
            full = slots.len() == self.request_records
                || (!slots.is_empty()
                    && (payload + cost > self.request_bytes || bytes + cost + RECORD_OVERHEAD > self.pace.bytes));
            if full {
                break;
            }
            payload += cost;
            bytes += cost + RECORD_OVERHEAD;
            slots.push(slot);
            self.ready.pop(live, cost + RECORD_OVERHEAD);
            live_bytes += if live { cost + RECORD_OVERHEAD } else { 0 };
        }
        if both {
            self.ready.shared(live_bytes, bytes - live_bytes, self.pace.bytes);
        }
        self.ready_since = now;
        if self.config.ordering == Ordering::Strict {
            let kept_small = !full && slots.len() < self.request_records && self.behind() > 0;
            self.kept_small = (self.kept_small * 7 + if kept_small { 1024 } else { 0 }) / 8;
        }
        slots
    }

    /// A ready parcel that has become too large for the link is made smaller.
    fn shrink(&mut self, head: Slot, now: Duration) {
        let Entry { parcel, parcel_bytes, .. } = self.entries[head];
        if parcel == 1 || parcel_bytes <= self.parcel_size().bytes {
            return;
        }
        let rest = self.form(head);
        self.ready.bytes -= parcel_bytes - self.entries[head].parcel_bytes;
        let Entry { stretch, lane, .. } = self.entries[head];
        match rest {
            Some(rest) => {
                self.stretches[stretch].relaxed.close(lane, head);
                self.make_ready(rest, now);
            }
            None => self.lane_changed(head),
        }
    }

    /// How many records wait for nothing but a parcel in front of them.
    pub(super) fn behind(&self) -> u64 {
        self.stretches.iter().map(|stretch| stretch.lanes.behind()).sum()
    }

    fn lane_changed(&mut self, head: Slot) {
        let Entry { stretch, lane, .. } = self.entries[head];
        let size = self.parcel_size();
        self.stretches[stretch].lanes.changed(lane, &self.entries, size);
    }

    pub(super) fn wake_at(&self, now: Duration, send: Due) -> Option<Duration> {
        let send = if let Due::Later(at) = send { at } else { None };
        let backoff = |heap: &BinaryHeap<Reverse<(Duration, Slot)>>| heap.peek().map(|Reverse((at, _))| *at);
        let bury = (!self.dead.is_empty() && self.burying.is_empty()).then_some(self.dead_not_before);
        let read = (self.reading.is_none() && !self.is_all_read() && now < self.read_not_before)
            .then_some(self.read_not_before);
        if self.stopping {
            return None;
        }
        let (expiry, save) = (self.expiry.wake_at(), self.save_at());
        let news = earliest([self.outage_begins_at(), self.outage_ends_at()]);
        earliest([send, backoff(&self.throttled), backoff(&self.failed), bury, read, expiry, save, news])
    }
}

fn earliest<const N: usize>(times: [Option<Duration>; N]) -> Option<Duration> {
    times.into_iter().flatten().min()
}
