//! What follows from an answer, and from a request that failed as a whole.

use std::{cmp::Reverse, time::Duration};

use super::{
    super::backoff::Backoff,
    BACKOFF_BASE, Flight, RECORD_BACKOFF_MAX, THROTTLED_BACKOFF_BASE, Window,
    entries::{Entry, Slot, State},
    link::{Down, Link},
    suspects::History,
};
use crate::destination::{Failure, FailureKind, RecordOutcome};

impl Window {
    pub(super) fn answered(
        &mut self,
        id: u64,
        flight: Flight,
        outcomes: Vec<RecordOutcome>,
        now: Duration,
    ) -> Option<Down> {
        self.pace.answered(flight.bytes, now - flight.sent);
        let ended = self.link_succeeds();
        let mut recovered = false;
        for (slot, outcome) in flight.slots.into_iter().zip(outcomes) {
            if outcome != RecordOutcome::Accepted {
                self.clear_suspicion(slot);
            }
            let Entry { parcel: records, parcel_bytes: bytes, lane, .. } = self.entries[slot];
            match outcome {
                RecordOutcome::Accepted => {
                    recovered |= self.entries[slot].failures > 0;
                    self.accepted_id = self.accepted_id.max(id);
                    self.suspects.accepted();
                    self.throttles.accepted(lane, bytes, flight.sent);
                    self.finish(slot, true, now);
                }
                RecordOutcome::Astray => {
                    self.counts.astray_records += u64::from(records);
                    self.need_map();
                    self.make_ready(slot, now);
                }
                RecordOutcome::Throttled(_) => {
                    self.counts.throttled_records += u64::from(records);
                    let backoff = self.record_backoff(slot, THROTTLED_BACKOFF_BASE, now);
                    let paced = self.parcel_size.records > 1;
                    let until = if paced { self.throttles.throttled(lane, bytes, now) } else { backoff };
                    self.throttled.push(Reverse((until, slot)));
                }
                RecordOutcome::Failed(_) => {
                    self.counts.failed_records += u64::from(records);
                    let until = self.record_backoff(slot, BACKOFF_BASE, now);
                    self.failed.push(Reverse((until, slot)));
                }
                RecordOutcome::Rejected(reason) if records == 1 => self.bury(slot, reason),
                RecordOutcome::Rejected(_) => {
                    self.halve(vec![slot], History::beginning(self.counts.records), now);
                }
            }
        }
        if recovered {
            // What made records fail is over for at least one of them: the others need not sit out their backoff.
            for Reverse((_, slot)) in std::mem::take(&mut self.failed) {
                self.make_ready(slot, now);
            }
        }
        ended
    }

    /// The endpoint answered. Returns the outage that this ends.
    pub(super) fn link_succeeds(&mut self) -> Option<Down> {
        let ended = self.link.succeed();
        if ended.is_some() {
            self.catching_up.outage_ended();
        }
        ended
    }

    /// Whatever an answer says of a parcel, the endpoint has not found fault with the request.
    fn clear_suspicion(&mut self, head: Slot) {
        for slot in self.entries.parcel(head).collect::<Vec<_>>() {
            let entry = &mut self.entries[slot];
            (entry.refused_alone, entry.refused_before, entry.isolated_at, entry.apart) = (0, None, None, 0);
            entry.found = false;
        }
    }

    fn record_backoff(&mut self, slot: Slot, base: Duration, now: Duration) -> Duration {
        self.hold(slot, State::Waiting);
        let entry = &mut self.entries[slot];
        entry.failures = entry.failures.saturating_add(1);
        let backoff = Backoff { base, max: self.config.max_backoff.min(RECORD_BACKOFF_MAX) };
        now + backoff.delay(entry.failures, &mut self.rng)
    }

    pub(super) fn request_failed(&mut self, id: u64, flight: Flight, failure: &Failure, now: Duration) {
        self.counts.failed_requests[failure.kind.index()] += 1;
        // If others passed since this very group failed last, then it is its own fault and not the link's.
        let others_pass =
            self.link == Link::Up && flight.group.is_some_and(|history| history.accepted < self.counts.records);
        let others_pass = others_pass || (failure.kind == FailureKind::EndpointFailed && self.is_convicted(&flight));
        if !others_pass || self.link != Link::Up {
            self.link.fail(id, failure, self.config.max_backoff, now, &mut self.rng);
        }
        match failure.kind {
            FailureKind::RequestInvalid => self.isolate(flight, failure, others_pass, now),
            FailureKind::EndpointFailed => self.suspect(flight, others_pass, now),
            _ => {
                if failure.kind.is_silence() {
                    self.pace.unanswered(flight.bytes, now - flight.sent);
                }
                let history = flight.group.map(|history| History { accepted: self.counts.records, ..history });
                match history {
                    // More than the link carries now.
                    Some(history) if flight.bytes > self.pace.bytes => self.halve(flight.slots, history, now),
                    // The link's fault, so it tells nothing about the group: it goes on as one.
                    Some(history) => self.keep_together(flight.slots, history, now),
                    // The other side may have taken it, and would know it again.
                    None if self.keeps_requests => {
                        self.keep_together(flight.slots, History::beginning(self.counts.records), now);
                    }
                    None => flight.slots.into_iter().for_each(|slot| self.make_ready(slot, now)),
                }
            }
        }
    }
}
