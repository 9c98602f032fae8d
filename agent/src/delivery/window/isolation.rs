//! Which record a refused request is refused for: halving, suspects, and trials with a witness.

use std::time::Duration;

use super::{
    super::{backoff::Backoff, config::Ordering},
    BACKOFF_BASE, FEW, Flight, REFUSALS_ALONE, TRIALS_PER_WITNESS, Trial, WITNESSES, Window,
    entries::{Entry, Fault, NONE, Slot, State},
    link::Why,
    suspects::{Group, History},
};
use crate::destination::{Failure, FailureKind, Outcome, RecordOutcome};

impl Window {
    /// A request was refused: halve it, and once a record is alone, judge it.
    pub(super) fn isolate(&mut self, flight: Flight, failure: &Failure, others_pass: bool, now: Duration) {
        let backoff = Backoff { base: BACKOFF_BASE, max: self.config.max_backoff };
        if !others_pass {
            // To halve is to look for the record; only what is refused alone speaks for an endpoint that refuses everything.
            let refusals = self.suspects.refusals + u32::from(self.single(&flight.slots).is_some());
            let until = now + backoff.delay(refusals.max(1), &mut self.rng);
            self.suspects.refused(refusals, until);
        }
        // Requests sent from now on see the endpoint as it is after this refusal.
        let next_id = self.next_id;
        for head in &flight.slots {
            for slot in self.entries.parcel(*head).collect::<Vec<_>>() {
                self.entries[slot].isolated_at.get_or_insert(next_id);
            }
        }
        let strikes = flight.group.map_or(0, |group| group.strikes);
        let history = History { strikes, ..History::beginning(self.counts.records) };
        let Some(slot) = self.single(&flight.slots) else {
            return self.halve(flight.slots, history, Duration::ZERO);
        };
        let nothing_else = self.ready.is_empty() && self.in_flight.is_empty();
        let only_such_left = nothing_else && self.only_refused_left();
        self.entries.set_fault(slot, Fault::None);
        let entry = &mut self.entries[slot];
        entry.refused_alone = entry.refused_alone.saturating_add(1);
        // Somebody who refuses everything must not turn the whole log into dead letters: between two refusals of this
        // record alone, another one must have been sent and accepted.
        let takes_others = entry.refused_before.replace(next_id).is_some_and(|before| flight.accepted_id >= before);
        // Where nothing else is left to be sent, that one was accepted since the first refusal has to be enough.
        let took_all_others = only_such_left
            && entry.refused_alone > REFUSALS_ALONE
            && entry.isolated_at.is_some_and(|isolated| flight.accepted_id >= isolated);
        if entry.refused_alone >= REFUSALS_ALONE && (takes_others || took_all_others) {
            let reason = failure.message.clone();
            self.bury(slot, reason);
            return;
        }
        if entry.refused_alone >= REFUSALS_ALONE && !others_pass && nothing_else && self.trial.is_none() {
            let more = ((entry.refused_alone - REFUSALS_ALONE) / TRIALS_PER_WITNESS).min(WITNESSES - 1);
            self.trial = self.trial_of(slot, slot, more);
        }
        if self.trial.is_some_and(|trial| trial.accused == slot) {
            self.entries[slot].reason = Some(failure.message.clone());
            self.hold(slot, State::Suspect);
        } else {
            self.wants_evidence = true;
            self.keep_together(vec![slot], history, now);
        }
    }

    /// Whether, the one just refused aside, there are at most a few records left that were refused alone just as often.
    /// Many would rather be the endpoint's fault.
    fn only_refused_left(&self) -> bool {
        let refused =
            |group: &Group| matches!(group.slots[..], [slot] if self.entries[slot].refused_alone >= REFUSALS_ALONE);
        let nothing_waits = self.throttled.is_empty() && self.failed.is_empty() && self.reading.is_none();
        // One at which the endpoint breaks may be tried for ever, and says nothing of the others.
        let mut others = self.suspects.iter().filter(|group| !self.is_failing(&group.slots));
        self.is_all_read() && nothing_waits && self.suspects.iter().count() <= FEW && others.all(refused)
    }

    /// Where everything that could be accepted waits behind a refused record, those behind it are asked for, at once and
    /// in order: as soon as one is accepted, the fault is not the endpoint's. The accused is not sent again then, so that
    /// order holds.
    fn trial_of(&self, accused: Slot, mut before: Slot, more: u32) -> Option<Trial> {
        loop {
            let witness = self.entries[before].next;
            if witness == NONE {
                return None;
            }
            // One at which the endpoint breaks is not at fault for sure: none of its key passes it.
            if self.entries[witness].reason.is_none() && !self.passes_found(accused, witness) {
                return Some(Trial { accused, witness, before, more });
            }
            before = witness;
        }
    }

    /// Whether between these two of a lane there is a record upon which the endpoint fails, of the later one's key.
    fn passes_found(&self, accused: Slot, witness: Slot) -> bool {
        let key = &self.entries[witness].record.partition_key;
        let between = std::iter::successors(Some(self.entries[accused].next), |slot| Some(self.entries[*slot].next));
        let mut between = between.take_while(|slot| *slot != witness).map(|slot| &self.entries[slot]);
        let may_be_taken = |entry: &Entry| entry.fault != Fault::None;
        between.any(|entry| may_be_taken(entry) && entry.record.partition_key == *key)
    }

    /// What became of the witness.
    pub(super) fn testified(&mut self, id: u64, flight: Flight, outcome: Outcome, now: Duration) {
        let Trial { accused, witness, before, more } = self.trial.take().expect("a witness is only called in a trial");
        self.entries[witness].state = State::Behind;
        match outcome {
            Outcome::Answered(outcomes) => {
                self.pace.answered(flight.bytes, now - flight.sent);
                self.hear(id, &flight.slots, &outcomes, false, now);
                // What was known of it counts until its answer is heard.
                let fault = self.fault_by(witness, &outcomes[0], self.counts.records);
                self.entries.set_fault(witness, fault);
                match outcomes.into_iter().next() {
                    Some(RecordOutcome::Accepted) => {
                        self.acquit(id, witness, before);
                        self.entries[accused].was_passed = true;
                        let reason = self.entries[accused].reason.take().expect("an accusation has a reason");
                        self.bury(accused, reason);
                        return;
                    }
                    Some(RecordOutcome::Rejected(reason)) => self.entries[witness].reason = Some(reason),
                    // It may be taken yet: none of its key is asked before it.
                    Some(RecordOutcome::Failed(_)) => self.trial = self.next_trial(accused, witness, more),
                    // Neither accepted nor at fault. It will be asked for again.
                    _ => {}
                }
            }
            Outcome::Failed(failure) => {
                self.counts.failed_requests[failure.kind.index()] += 1;
                let entry = &mut self.entries[witness];
                match failure.kind {
                    FailureKind::RequestInvalid => {
                        entry.refused_alone = entry.refused_alone.saturating_add(1);
                        entry.refused_before = Some(self.next_id);
                        // The endpoint does not break at it, whatever it did before: others of its key may pass it again.
                        self.entries.set_fault(witness, Fault::None);
                    }
                    // Once is not enough to know whose fault it is.
                    FailureKind::EndpointFailed if !entry.fault.is_found() => {
                        self.entries.set_fault(witness, Fault::Witness);
                    }
                    _ => {}
                }
                if matches!(failure.kind, FailureKind::RequestInvalid | FailureKind::EndpointFailed) {
                    self.trial = self.next_trial(accused, witness, more);
                }
                self.link.fail(id, &Why::of(&failure), self.config.max_backoff, now, &mut self.rng);
            }
        }
        if self.trial.is_none() {
            self.entries[accused].reason = None;
            self.keep_together(vec![accused], History::beginning(self.counts.records), now);
        }
    }

    /// The one behind this witness, if so many `more` may be asked.
    fn next_trial(&self, accused: Slot, witness: Slot, more: u32) -> Option<Trial> {
        let more = more.checked_sub(1)?;
        self.trial_of(accused, witness, more)
    }

    /// A witness was accepted: it is finished, out of turn.
    fn acquit(&mut self, id: u64, witness: Slot, before: Slot) {
        let entry = self.entries.remove(witness);
        self.entries[before].next = entry.next;
        let stretch = &mut self.stretches[entry.stretch];
        stretch.lanes.remove_behind(entry.lane, before, witness);
        stretch.ledger.finish(entry.ordinal);
        stretch.records -= 1;
        stretch.bytes -= entry.cost;
        self.counts.records += 1;
        self.counts.bytes += entry.record.payload_bytes();
        self.accepted_id = self.accepted_id.max(id);
        self.suspects.accepted();
    }

    /// The endpoint failed upon a request: perhaps because of what is in it. Once that is a record alone, only those of its
    /// key wait for it. It is tried again and again: it may not be the record's fault for ever.
    pub(super) fn suspect(&mut self, slots: Vec<Slot>, group: Option<History>, others_pass: bool, now: Duration) {
        let mut history = group.unwrap_or_default();
        history.accepted = self.counts.records;
        let until = if others_pass {
            (history.strikes, history.failures) = (history.strikes.saturating_add(1), 0);
            let backoff = Backoff { base: BACKOFF_BASE, max: self.config.max_backoff };
            now + backoff.delay(history.strikes, &mut self.rng)
        } else {
            history.failures = history.failures.saturating_add(1);
            Duration::ZERO
        };
        let single = self.single(&slots);
        let is_known = single.is_some_and(|slot| self.entries[slot].fault.is_found());
        let is_searched = || self.suspects.is_enough(history.failures) && self.is_oldest(&slots);
        if !others_pass && !is_known && !is_searched() {
            self.keep_together(slots, history, now);
            return;
        }
        let Some(slot) = single else { return self.halve(slots, history, until) };
        self.suspects.found += u32::from(!is_known && !others_pass);
        if history.strikes > 0 {
            self.entries.set_fault(slot, Fault::Failing);
        } else if !is_known {
            self.entries.set_fault(slot, Fault::Found);
        }
        self.part(slot, now);
        self.keep_together(vec![slot], history, until.max(now));
    }

    /// Whether of all groups upon which the endpoint fails this one has the oldest record, those aside that cannot be halved any
    /// more. One place to look is enough: as soon as anything is accepted, others pass.
    fn is_oldest(&self, slots: &[Slot]) -> bool {
        let oldest = |slots: &[Slot]| self.entries[slots[0]].record.sequence_number;
        let is_found =
            |group: &Group| self.single(&group.slots).is_some_and(|slot| self.entries[slot].fault.is_found());
        let mut others = self.suspects.iter().filter(|group| group.history.failures > 0 && !is_found(group));
        others.all(|group| oldest(slots) <= oldest(&group.slots))
    }

    /// Whether these are one record upon which the endpoint has failed alone while others passed. That tells nothing of the
    /// link.
    pub(super) fn is_failing(&self, slots: &[Slot]) -> bool {
        self.single(slots).is_some_and(|slot| self.entries[slot].fault == Fault::Failing)
    }

    /// The record of a request that has only this one.
    fn single(&self, slots: &[Slot]) -> Option<Slot> {
        match slots {
            [slot] if self.entries[*slot].parcel == 1 => Some(*slot),
            _ => None,
        }
    }

    /// The records of this one's key leave its lane with it, where it is the first.
    fn part(&mut self, slot: Slot, now: Duration) {
        let Entry { stretch, .. } = self.entries[slot];
        if self.config.ordering == Ordering::Strict
            && let Some(next) = self.stretches[stretch].lanes.part(slot, &mut self.entries)
        {
            self.make_ready(next, now);
        }
    }

    /// Parcels are told apart first, then the records of a parcel. A single record stays as it is.
    pub(super) fn halve(&mut self, slots: Vec<Slot>, history: History, not_before: Duration) {
        if let [head] = slots[..] {
            let second = self.set_apart(head);
            self.keep_together(vec![head], history, not_before);
            if let Some(second) = second {
                self.keep_together(vec![second], History { failures: 0, ..history }, not_before);
            }
            return;
        }
        let (first, second) = slots.split_at(slots.len() / 2);
        // The one that is added last goes first, if nothing else decides. Only that one goes on where they were.
        let afresh = History { failures: 0, ..history };
        for (half, history) in [(second, afresh), (first, history)] {
            self.keep_together(half.to_vec(), history, not_before);
        }
    }

    /// The second half of a parcel is not to travel with the first any more. Strict order: its turn comes after it.
    fn set_apart(&mut self, head: Slot) -> Option<Slot> {
        let records = self.entries[head].parcel;
        if records == 1 {
            return None;
        }
        let half = records / 2;
        let second = self.entries.nth(head, half);
        self.entries[second].parcel = records - half;
        self.mark(second);
        self.entries[head].parcel = half;
        self.mark(head);
        if self.config.ordering == Ordering::Strict {
            return None;
        }
        self.entries.cut(head, half);
        Some(second)
    }

    /// The records of a parcel travel with no others from now on.
    fn mark(&mut self, head: Slot) {
        self.marks = self.marks.wrapping_add(1).max(1);
        for slot in self.entries.parcel(head).collect::<Vec<_>>() {
            self.entries[slot].apart = self.marks;
        }
    }

    pub(super) fn keep_together(&mut self, mut slots: Vec<Slot>, history: History, not_before: Duration) {
        let mut nth = 0;
        while let Some(head) = slots.get(nth).copied() {
            if self.entries[head].apart == 0 {
                self.mark(head);
            }
            let rest = self.form(head);
            self.hold(head, State::Suspect);
            slots.extend(rest);
            nth += 1;
        }
        slots.sort_unstable_by_key(|head| self.entries[*head].record.sequence_number);
        // Parcels that became smaller are more than they were.
        for slots in slots.chunks(self.request_records) {
            self.suspects.add(Group { slots: slots.to_vec(), history }, not_before);
        }
    }

    /// Makes a parcel of nothing but this record.
    pub(super) fn alone(&mut self, slot: Slot) -> Slot {
        let entry = &mut self.entries[slot];
        (entry.parcel, entry.parcel_bytes) = (1, entry.wire);
        slot
    }
}
