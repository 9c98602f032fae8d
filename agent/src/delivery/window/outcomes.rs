//! What follows from an answer, and from a request that failed as a whole.

use std::{cmp::Reverse, time::Duration};

use fastrand::Rng;

use super::{
    super::backoff::Backoff,
    BACKOFF_BASE, FAILURES_SOON, FEW, Flight, IN_VAIN_MAX, RECORD_BACKOFF_MAX, STRIKES_SOON, THROTTLED_BACKOFF_BASE,
    TOGETHER, Window,
    entries::{Entry, Fault, Slot, State},
    link::{Link, Why},
    suspects::History,
};
use crate::destination::{Failure, FailureKind, Place, RecordOutcome};

impl Window {
    pub(super) fn answered(&mut self, id: u64, flight: Flight, outcomes: Vec<RecordOutcome>, now: Duration) {
        self.pace.answered(flight.bytes, now - flight.sent);
        let others_pass = flight.group.is_some_and(|history| history.accepted < self.counts.records);
        self.hear(id, &flight.slots, &outcomes, others_pass, now);
        let accepted = self.counts.records;
        let all_failed = outcomes.iter().all(|outcome| matches!(outcome, RecordOutcome::Failed(_)));
        if all_failed && (self.keep_others_back(&flight.slots) || self.is_failing(&flight.slots)) {
            for (slot, outcome) in flight.slots.iter().zip(&outcomes) {
                self.counts.failed_records += u64::from(self.entries[*slot].parcel);
                if !self.entries[*slot].fault.is_found() {
                    self.entries.set_fault(*slot, self.fault_by(*slot, outcome, accepted));
                }
            }
            // As if it had failed as a whole: nothing says which of a parcel's records it is, or it is known.
            return self.suspect(flight.slots, flight.group, self.link == Link::Up, now);
        }
        let (mut recovered, mut recovered_late) = (false, false);
        for (slot, outcome) in flight.slots.into_iter().zip(outcomes) {
            let fault = self.fault_by(slot, &outcome, accepted);
            if outcome != RecordOutcome::Accepted {
                self.clear_suspicion(slot);
            }
            match outcome {
                RecordOutcome::Accepted => {
                    let Entry { failures, fault, .. } = self.entries[slot];
                    recovered |= failures > 0;
                    recovered_late |= fault.is_found() || (fault != Fault::None && failures > FAILURES_SOON);
                    self.accepted(id, slot, flight.sent, now);
                }
                RecordOutcome::Astray => {
                    self.counts.astray_records += u64::from(self.entries[slot].parcel);
                    self.need_map();
                    self.make_ready(slot, now);
                }
                RecordOutcome::Throttled(_) => self.too_much(slot, now),
                RecordOutcome::Failed(_) => self.failed_by_answer(slot, fault, now),
                RecordOutcome::Rejected(reason) if self.entries[slot].parcel == 1 => self.bury(slot, reason),
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
            self.throttled_soon(now);
        }
        if recovered_late {
            self.suspects.soon(now, RECORD_BACKOFF_MAX, &mut self.rng);
        }
    }

    /// Whether records of other keys travel with these, or wait for them.
    fn keep_others_back(&self, slots: &[Slot]) -> bool {
        let shares_lane = |slot: &Slot| self.entries[*slot].lane != Place::of_key(&self.entries[*slot].record).lane;
        self.parcel_size.records > 1 || slots.iter().any(shares_lane)
    }

    /// The destination has a parcel, which left at `sent`.
    fn accepted(&mut self, id: u64, head: Slot, sent: Duration, now: Duration) {
        let Entry { parcel_bytes, lane, .. } = self.entries[head];
        self.accepted_id = self.accepted_id.max(id);
        self.suspects.accepted();
        self.throttles.accepted(lane, parcel_bytes, sent);
        self.finish(head, true, now);
    }

    /// A parcel was throttled.
    fn too_much(&mut self, head: Slot, now: Duration) {
        let Entry { parcel: records, parcel_bytes, lane, .. } = self.entries[head];
        self.counts.throttled_records += u64::from(records);
        let mut until = self.record_backoff(head, THROTTLED_BACKOFF_BASE, now);
        if self.parcel_size.records > 1 {
            let paced = self.throttles.throttled(lane, parcel_bytes, now);
            let is_for_long = self.entries[head].failures > FAILURES_SOON;
            until = if is_for_long { until.max(paced) } else { paced };
        }
        self.throttled.push(Reverse((until, head)));
    }

    /// The answer says that a parcel failed.
    fn failed_by_answer(&mut self, head: Slot, fault: Fault, now: Duration) {
        self.counts.failed_records += u64::from(self.entries[head].parcel);
        self.entries.set_fault(head, fault);
        let until = self.record_backoff(head, BACKOFF_BASE, now);
        let keeps_back = self.keep_others_back(&[head]);
        // Of many it is rather a part of the endpoint, and they had better share requests.
        let is_for_long = || self.entries[head].failures > FAILURES_SOON || self.keeps_others_waiting(now);
        let is_one_of_few = || self.entries.failing() < FEW && is_for_long();
        if fault == Fault::FailedBeside && (keeps_back || is_one_of_few()) {
            let history = (!keeps_back).then(|| History { strikes: STRIKES_SOON, ..History::default() });
            self.suspect(vec![head], history, true, now);
        } else {
            self.failed.push(Reverse((until, head)));
        }
    }

    /// Whether nothing has been taken for half as long as makes it an outage, and nothing more is read.
    fn keeps_others_waiting(&self, now: Duration) -> bool {
        self.in_vain_since.is_some_and(|since| now >= since + IN_VAIN_MAX / 2) && self.reads_later(now)
    }

    /// None that is throttled waits for longer from now on than it did at first.
    fn throttled_soon(&mut self, now: Duration) {
        let longest = now + RECORD_BACKOFF_MAX;
        if self.throttled.iter().any(|Reverse((until, _))| *until > longest) {
            let throttled = std::mem::take(&mut self.throttled).into_iter();
            // Not all at once: there are limits.
            let soon = |until: Duration, rng: &mut Rng| until.min(now + RECORD_BACKOFF_MAX.mul_f64(rng.f64()));
            let rng = &mut self.rng;
            self.throttled = throttled.map(|Reverse((until, slot))| Reverse((soon(until, rng), slot))).collect();
        }
    }

    /// What an answer says about the link. An endpoint of which every record fails does not take records, whatever else it
    /// says, unless `others_pass`; that it throttles, or finds fault with records, is no outage, unless that is all that it does
    /// for long.
    pub(super) fn hear(
        &mut self,
        id: u64,
        slots: &[Slot],
        outcomes: &[RecordOutcome],
        others_pass: bool,
        now: Duration,
    ) {
        let failed = |outcome: &RecordOutcome| matches!(outcome, RecordOutcome::Failed(_));
        let throttled = |outcome: &RecordOutcome| matches!(outcome, RecordOutcome::Throttled(_));
        if !outcomes.iter().all(|outcome| failed(outcome) || throttled(outcome)) {
            self.in_vain_since = None;
            self.link_is_up(now);
            return;
        }
        let doubtful = self.is_failing(slots);
        let for_long = now >= *self.in_vain_since.get_or_insert(now) + IN_VAIN_MAX;
        let (kind, is_outage) = if outcomes.iter().all(failed) {
            let others_pass = others_pass || self.are_own_faults(slots, outcomes);
            // A record that fails alone keeps nobody waiting, until what waits for it fills the window.
            let keeps_nobody = others_pass && !(for_long && self.reads_later(now));
            let is_known = doubtful && self.entries.failing() <= FEW;
            (FailureKind::EndpointFailed, self.link != Link::Up || !(keeps_nobody || is_known))
        } else {
            (FailureKind::Throttled, for_long || self.link.answers_in_vain())
        };
        if is_outage {
            let why = Why { doubtful, ..Why::answered(kind) };
            self.link.fail(id, &why, self.config.max_backoff, now, &mut self.rng);
        } else if kind == FailureKind::Throttled {
            self.link_is_up(now);
        }
    }

    /// Whether others were accepted between the failures of each of these.
    fn are_own_faults(&self, slots: &[Slot], outcomes: &[RecordOutcome]) -> bool {
        let accepted = self.counts.records;
        let mut failed = slots.iter().copied().zip(outcomes);
        failed.all(|(slot, outcome)| self.fault_by(slot, outcome, accepted) == Fault::FailedBeside)
    }

    /// The endpoint does what it is there for, or nothing is left to be asked of it.
    pub(super) fn link_is_up(&mut self, now: Duration) {
        if let Some(ended) = self.link.succeed() {
            self.catching_up.outage_ended();
            self.told.outage_ended(&ended, now);
        }
    }

    /// Whose fault it is that an answer said this of a record, after so many had been accepted.
    pub(super) fn fault_by(&self, slot: Slot, outcome: &RecordOutcome, accepted: u64) -> Fault {
        match (outcome, self.entries[slot].fault) {
            (RecordOutcome::Failed(_), Fault::FailedBeside) => Fault::FailedBeside,
            (RecordOutcome::Failed(_), Fault::Failed(before)) if before < accepted => Fault::FailedBeside,
            (RecordOutcome::Failed(_), _) => Fault::Failed(accepted),
            _ => Fault::None,
        }
    }

    /// Whatever an answer says of a parcel, the endpoint has not found fault with the request.
    fn clear_suspicion(&mut self, head: Slot) {
        for slot in self.entries.parcel(head).collect::<Vec<_>>() {
            let entry = &mut self.entries[slot];
            (entry.refused_alone, entry.refused_before, entry.isolated_at, entry.apart) = (0, None, None, 0);
            self.entries.set_fault(slot, Fault::None);
        }
    }

    /// Until when a record waits of which an answer says that it was not taken. The endpoint is there, so it is asked again
    /// soon; but not for hours, since each time may be paid for. Those that wait for long come back together: a request for each of
    /// many would cost more.
    fn record_backoff(&mut self, slot: Slot, base: Duration, now: Duration) -> Duration {
        self.hold(slot, State::Waiting);
        let entry = &mut self.entries[slot];
        entry.failures = entry.failures.saturating_add(1);
        let max = self.config.max_backoff;
        match entry.failures.checked_sub(FAILURES_SOON) {
            None | Some(0) => {
                let backoff = Backoff { base, max: max.min(RECORD_BACKOFF_MAX) };
                now + backoff.delay(entry.failures, &mut self.rng)
            }
            Some(more) => {
                let backoff = Backoff { base: RECORD_BACKOFF_MAX, max };
                rounded(now + backoff.delay(more, &mut self.rng), backoff.ceiling(more) / TOGETHER, now)
            }
        }
    }

    pub(super) fn request_failed(&mut self, id: u64, flight: Flight, failure: &Failure, now: Duration) {
        self.counts.failed_requests[failure.kind.index()] += 1;
        // If others passed since this very group failed last, then it is its own fault and not the link's.
        let others_pass =
            self.link == Link::Up && flight.group.is_some_and(|history| history.accepted < self.counts.records);
        // Of a few records upon which the endpoint goes on failing that is known. Of many it might as well be the link's.
        let doubtful = failure.kind == FailureKind::EndpointFailed && self.is_failing(&flight.slots);
        let others_pass = others_pass || (doubtful && self.entries.failing() <= FEW);
        if !others_pass || self.link != Link::Up {
            let why = Why { doubtful, ..Why::of(failure) };
            self.link.fail(id, &why, self.config.max_backoff, now, &mut self.rng);
        }
        match failure.kind {
            FailureKind::RequestInvalid => self.isolate(flight, failure, others_pass, now),
            FailureKind::EndpointFailed => self.suspect(flight.slots, flight.group, others_pass, now),
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

/// The last multiple of `step` up to `time`, or the next one if that is not after `now`.
fn rounded(time: Duration, step: Duration, now: Duration) -> Duration {
    let beyond = time.as_nanos().checked_rem(step.as_nanos()).and_then(|beyond| u64::try_from(beyond).ok());
    let last = time - Duration::from_nanos(beyond.unwrap_or(0));
    if last > now { last } else { last + step }
}
