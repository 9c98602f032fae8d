//! The endpoint: what becomes of a request there.

use super::*;

impl World {
    pub(super) fn mood(&self) -> Mood {
        self.moods.iter().find(|(end, _)| *end > self.now).map_or(Mood::Healthy, |(_, mood)| *mood)
    }

    /// A request is at the endpoint.
    pub(super) fn reaches(&mut self, parcels: &[Sent], life: u32, id: u64, answer_lost: bool) {
        let records: Vec<_> = parcels.iter().flat_map(|parcel| parcel.records.iter().copied()).collect();
        let fail = |kind| Outcome::Failed(Failure { kind, message: kind.to_string(), retry_after: None });
        let unreachable = fail(FailureKind::Unreachable);
        let flaw = |flaw| records.iter().any(|index| self.log[*index].1 == flaw);
        let breaks = records.iter().any(|index| self.breaks_at(*index));
        // Or it answers, and says of each parcel that has one that it failed.
        let says_so = self.says_so && matches!(self.mood(), Mood::Healthy | Mood::Partial(_));
        let outcome = match self.mood() {
            _ if answer_lost => return self.take_all(parcels),
            Mood::Refused => unreachable,
            Mood::Silent => {
                if self.rng.bool() {
                    let late = self.limits.request_timeout.as_millis() as u64 * 2;
                    let parcels = parcels.to_vec();
                    self.after(late, Event::Reaches { parcels, life, id, answer_lost: true });
                }
                if life == self.life {
                    self.hanging.insert(id);
                }
                let timeout = self.now + self.limits.request_timeout;
                return self.at(timeout, Event::Told { life, id, outcome: unreachable });
            }
            Mood::Fails(kind) => {
                if kind == FailureKind::EndpointFailed && self.rng.bool() {
                    self.take_all(parcels);
                }
                fail(kind)
            }
            Mood::RefusesAll => {
                self.refused_all = true;
                fail(FailureKind::RequestInvalid)
            }
            _ if flaw(Flaw::Refused) => fail(FailureKind::RequestInvalid),
            _ if breaks && !says_so => fail(FailureKind::EndpointFailed),
            Mood::Garbage => {
                self.take_all(parcels);
                Outcome::Answered(vec![RecordOutcome::Accepted; parcels.len() + 1])
            }
            Mood::Reset => {
                self.take_all(parcels);
                unreachable
            }
            Mood::FailsEach => Outcome::Answered(vec![RecordOutcome::Failed("something".to_owned()); parcels.len()]),
            Mood::Healthy => self.answer(parcels, 1.0),
            Mood::Partial(share) => self.answer(parcels, share),
        };
        self.after(LATENCY_MAX_MS / 2, Event::Told { life, id, outcome });
    }

    /// Whether it fails upon this record at the moment.
    fn breaks_at(&self, index: usize) -> bool {
        let until = |time: Duration| self.now < self.healthy_since + time;
        match self.log[index].1 {
            Flaw::Breaks => until(Duration::from_secs(20)),
            Flaw::Lasts => until(LASTING),
            _ => false,
        }
    }

    fn answer(&mut self, parcels: &[Sent], share: f64) -> Outcome {
        let mut outcomes = Vec::new();
        for parcel in parcels {
            outcomes.push(match () {
                () if parcel.records.iter().any(|index| self.log[*index].1 == Flaw::Rejected) => {
                    RecordOutcome::Rejected("never".to_owned())
                }
                () if parcel.records.iter().any(|index| self.breaks_at(*index)) => {
                    RecordOutcome::Failed("internal".to_owned())
                }
                () if self.rng.f64() < share => self.take_parcel(parcel),
                () if self.rng.bool() => RecordOutcome::Throttled("slower".to_owned()),
                () => RecordOutcome::Failed("something".to_owned()),
            });
        }
        Outcome::Answered(outcomes)
    }

    fn take_all(&mut self, parcels: &[Sent]) {
        for parcel in parcels {
            self.take_parcel(parcel);
        }
    }

    /// A parcel goes to the shard of its first record; nobody sees those of its records that belong to another one.
    fn take_parcel(&mut self, parcel: &Sent) -> RecordOutcome {
        let shards = self.shards.clone();
        let of = |log: &[(Record, Flaw)], index: &usize| shard_of(&shards, &log[*index].0.partition_key);
        let shard = of(&self.log, &parcel.records[0]);
        let seen: Vec<_> = parcel.records.iter().copied().filter(|index| of(&self.log, index) == shard).collect();
        self.take(&seen, parcel.life);
        match parcel.shard {
            Some(expected) if expected != shard => {
                self.astray += parcel.records.len() as u64;
                RecordOutcome::Astray
            }
            _ => {
                assert_eq!(seen, parcel.records, "nobody sees all of an accepted parcel");
                RecordOutcome::Accepted
            }
        }
    }

    /// The endpoint has these records now.
    fn take(&mut self, records: &[usize], life: u32) {
        // A leap of the life that sent them: what lies before it is not waited for.
        let boundaries = self.boundaries[life as usize].clone();
        for index in records {
            if matches!(self.log[*index].1, Flaw::Refused | Flaw::Rejected) {
                continue;
            }
            // Refused alone and again, a record may be passed by a later one as a witness. Should the endpoint stop refusing
            // everything just in between, the wrong one is found guilty; nothing can tell.
            let excuse = self.refused_all_until.is_some() && self.reaching_witness;
            let first = self.fates[*index].accepted == 0;
            let number = self.log[*index].0.sequence_number;
            let key = self.log[*index].0.partition_key.clone();
            for earlier in 0..*index {
                if self.log[earlier].0.partition_key != key || self.config.ordering == Ordering::Relaxed {
                    continue;
                }
                let flaw = self.log[earlier].1;
                let never = matches!(flaw, Flaw::Refused | Flaw::Rejected | Flaw::NotAccepted);
                let fate = &mut self.fates[earlier];
                let gone = fate.expired || earlier < self.oldest;
                let leapt = boundaries.range(self.log[earlier].0.sequence_number.next()..=number).next().is_some();
                let resolved = fate.accepted > 0 || fate.buried || gone || leapt || never;
                fate.excused |= excuse && !never && !fate.buried;
                self.wronged += u64::from(first && !resolved);
                assert!(!first || resolved || fate.excused, "{index} arrived before {earlier}, both of key {key}");
            }
            let overtakes = |earlier: usize| self.fates[earlier] == Fate::default() && earlier >= self.oldest;
            self.overtakes += u64::from(first && (0..*index).any(overtakes));
            self.fates[*index].accepted += 1;
        }
    }

    /// Two shards become one, or one two.
    pub(super) fn reshard(&mut self) {
        self.reshards += 1;
        let at = self.rng.usize(..self.shards.len());
        let first = if at == 0 { 0 } else { self.shards[at - 1].1 + 1 };
        let last = self.shards[at].1;
        if self.rng.bool() && at > 0 {
            self.shards.remove(at - 1);
            self.shards[at - 1].0 = self.next_shard;
        } else if first < last {
            self.shards[at].0 = self.next_shard;
            self.shards.insert(at, (self.next_shard + 1, first + (last - first) / 2));
        }
        self.next_shard += 2;
        if self.rng.bool() {
            self.after(4000, Event::Map { life: self.life });
        }
    }
}
