//! What the window promises, checked at every step.

use super::*;

impl World {
    pub(super) fn check_batch(&self, parcels: &[Sent], records: &[usize]) {
        let strict = self.config.ordering == Ordering::Strict;
        assert!(!parcels.is_empty() && parcels.len() <= self.config.batch_records.min(self.limits.request_records));
        let wire = |index: &usize| self.kind.place(&self.map, &self.log[*index].0).bytes;
        let bytes: u64 = records.iter().map(wire).sum();
        let limit = self.limits.request_bytes.min(self.config.batch_bytes.unwrap_or(u64::MAX));
        assert!(parcels.len() == 1 || bytes <= limit, "{bytes} bytes in a request");
        assert!(self.in_flight.len() < self.config.in_flight, "too many requests");
        for parcel in parcels {
            assert!(!parcel.records.is_empty() && parcel.records.len() <= self.limits.parcel_records);
            assert!(parcel.records.is_sorted(), "in the order of the stream");
            let bytes: u64 = parcel.records.iter().map(wire).sum();
            assert!(parcel.records.len() == 1 || bytes <= self.limits.parcel_bytes, "{bytes} bytes in a parcel");
            let lanes = parcel.records.iter().map(|index| self.kind.place(&self.map, &self.log[*index].0).lane);
            assert_eq!(lanes.collect::<BTreeSet<_>>().len(), 1, "one lane");
        }
        let mut keys = BTreeSet::new();
        let stretches: HashMap<_, _> =
            self.window.entries.iter().map(|(_, entry)| (entry.record.sequence_number, entry.stretch)).collect();
        let of = |index: &usize| {
            let record = &self.log[*index].0;
            (stretches[&record.sequence_number], record.partition_key.clone())
        };
        for records in self.in_flight.values().chain(parcels.iter().map(|parcel| &parcel.records)) {
            let own: BTreeSet<_> = records.iter().map(of).collect();
            assert!(own.iter().all(|key| !keys.contains(key)) || !strict, "a key in two parcels under way");
            keys.extend(own);
        }
        let mut numbers = BTreeSet::new();
        for index in records.iter().chain(self.in_flight.values().flatten()) {
            assert!(numbers.insert(index), "under way twice");
            assert_ne!(self.log[*index].1, Flaw::NotAccepted, "sent although it is never accepted");
            assert!(!self.finished.contains(index), "sent although it is finished");
        }
    }

    /// In which order parcels leave.
    pub(super) fn check_turns(&self, id: u64, parcels: &[Sent]) {
        let window = &self.window;
        let flight = &window.in_flight[&id];
        let turns: Vec<_> = flight.slots.iter().map(|slot| window.turn(*slot)).collect();
        let numbers = |live: Option<bool>| {
            turns
                .iter()
                .filter(move |turn| live.is_none_or(|live| turn.live == live))
                .map(|turn| (turn.rank, turn.number))
        };
        for index in parcels.iter().flat_map(|parcel| &parcel.records) {
            let age = self.known_age(*index);
            let is_known = self.arrived.iter().all(|(_, known)| *known);
            // A step of expiry, and what the read took.
            let late = Duration::from_millis(50);
            let young = self.config.max_age.is_none_or(|max| age < max + late) || !is_known || flight.witness;
            assert!(young, "{index} is sent at the age of {age:?}");
        }
        if flight.group.is_some() || flight.witness {
            assert!(turns.is_sorted_by_key(|turn| turn.number), "oldest first");
            return;
        }
        // Of one kind, the newest stretch comes first, and of each its oldest record.
        for live in [true, false] {
            assert!(numbers(Some(live)).is_sorted(), "{turns:?}");
        }
        let begins_with_gap = turns.first().is_some_and(|turn| !turn.live);
        let has_gap = turns.iter().any(|turn| !turn.live);
        let no_live_left = window.ready.peek(false).is_none_or(|(live, _)| !live);
        match self.config.catch_up {
            CatchUp::OldestFirst => assert!(!has_gap && numbers(None).is_sorted()),
            CatchUp::NewestFirst if has_gap => {
                assert!(no_live_left && turns.is_sorted_by_key(|turn| !turn.live), "the newest first: {turns:?}");
            }
            CatchUp::Split if begins_with_gap => assert!(turns.is_sorted_by_key(|turn| turn.live), "{turns:?}"),
            CatchUp::NewestFirst | CatchUp::Split => assert!(turns.is_sorted_by_key(|turn| !turn.live), "{turns:?}"),
        }
    }

    /// The endpoint's answer finishes records.
    pub(super) fn resolve(&mut self, id: u64, outcome: &Outcome) {
        let flight = &self.window.in_flight[&id];
        let Outcome::Answered(outcomes) = outcome else { return };
        if outcomes.len() != flight.slots.len() {
            return;
        }
        for (head, outcome) in flight.slots.iter().zip(outcomes) {
            if *outcome == RecordOutcome::Accepted {
                let entries = &self.window.entries;
                self.resolved.extend(entries.parcel(*head).map(|slot| entries[slot].record.sequence_number));
            }
        }
    }

    /// What was read and is not held has expired.
    pub(super) fn judge_read(&mut self, records: &[(Arc<Record>, Duration)], end: Option<SequenceNumber>) {
        let held = self.window_holds();
        for (record, _) in records {
            let number = record.sequence_number;
            if end.is_some_and(|end| number >= end) {
                continue;
            }
            if self.window.finished_before.has(number) {
                assert!(!held.contains(&number), "{number} is finished and held");
            } else if !held.contains(&number) {
                self.judge_expired(number);
            }
        }
        self.held.extend(held);
    }

    fn window_holds(&self) -> BTreeSet<SequenceNumber> {
        self.window.entries.iter().map(|(_, entry)| entry.record.sequence_number).collect()
    }

    /// What the window does not hold any more was told to be finished, went back to the log, or has expired.
    pub(super) fn judge_held(&mut self) {
        let held = self.window_holds();
        for number in self.held.clone() {
            if held.contains(&number) {
                assert!(!self.resolved.contains(&number), "{number} was finished and is held");
                continue;
            }
            let is_unread =
                |stretch: &Stretch| stretch.next_read() <= number && stretch.end.is_none_or(|end| number < end);
            if self.resolved.remove(&number) {
                let index = self.index(number);
                assert!(self.finished.insert(index), "{number} was finished twice");
            } else if self.window.stretches.iter().any(is_unread) {
                self.given_back += 1;
            } else {
                self.judge_expired(number);
            }
        }
        assert!(held.is_subset(&self.held), "held, but never read");
        self.held = held;
        assert_eq!(self.window.counts().expired, self.expired, "what expired is counted");
    }

    fn judge_expired(&mut self, number: SequenceNumber) {
        let index = self.index(number);
        let true_age = match self.arrived[index].0 {
            Arrived::Before(age) => self.now + age,
            Arrived::At(at) => self.now - at,
        };
        let max_age = self.config.max_age.expect("nothing expires without");
        assert!(true_age >= max_age && self.known_age(index) >= max_age, "{number} expired at {true_age:?}");
        assert!(!self.in_flight.values().flatten().any(|under_way| *under_way == index), "{number} is under way");
        assert!(self.finished.insert(index), "{number} was finished twice");
        self.fates[index].expired = true;
        self.expired += 1;
    }

    pub(super) fn judge_told(&mut self, expired: &Expired) {
        self.told += expired.records;
        assert!(self.told <= self.expired && expired.records > 0);
        for number in [expired.first, expired.last] {
            let index = self.index(number);
            assert!(self.fates[index].expired && self.finished.contains(&index), "{number} has not expired");
        }
    }

    /// These are given up, and a person finds their letters.
    pub(super) fn judge_letters(&mut self, letters: Vec<usize>) {
        for index in letters {
            let deliverable = matches!(self.log[index].1, Flaw::None | Flaw::Breaks | Flaw::Lasts);
            self.wronged += u64::from(deliverable);
            let excused = self.fates[index].excused || self.refused_all;
            assert!(!deliverable || excused, "record {index} is buried: {}", self.tell());
            self.fates[index].buried = true;
        }
    }

    /// All of these are finished, or gone.
    pub(super) fn judge_finished(&self, ranges: &[Range]) {
        for (index, (record, _)) in self.log.iter().enumerate() {
            let number = record.sequence_number;
            let told = ranges.iter().any(|(first, last)| *first <= number && number <= *last);
            let is_finished = self.finished.contains(&index) || (index < self.oldest && !self.held.contains(&number));
            assert!(!told || is_finished, "{number} is in {ranges:?}, and unfinished");
        }
    }

    fn note_leaps(&mut self) {
        let ends = self.window.stretches.gaps().iter().map(|gap| gap.end.expect("a gap has an end"));
        let known = self.boundaries.last_mut().expect("one for each life");
        let before = known.len();
        known.extend(ends);
        if self.window.stretches.live().ledger.next() == 0 {
            self.leaps += (known.len() - before) as u64;
        }
    }

    /// Whatever need not wait for a record at which the endpoint breaks is finished by now.
    pub(super) fn judge_flow(&mut self) {
        for (index, (record, _)) in self.log.iter().enumerate().take(self.committed).skip(self.oldest) {
            let is_held_up = is_held_up(&self.log, self.config.ordering, index);
            let is_finished = self.fates[index] != Fate::default();
            let number = record.sequence_number;
            assert!(is_finished || is_held_up, "record {number} was held up by another: {}", self.tell());
            self.held_up += u64::from(!is_finished);
        }
    }

    pub(super) fn save(&mut self, checkpoint: SequenceNumber) {
        assert!(checkpoint > *self.saved.last().expect("never empty"), "a checkpoint goes forward");
        self.judge_finished(&[(SequenceNumber::ZERO, checkpoint)]);
        self.saved.push(checkpoint);
    }

    /// Each thing is told once, and while it is so.
    pub(super) fn judge_news(&mut self, news: News) {
        let (down, stopped) = self.heard;
        match news {
            News::Down(kind) => {
                assert!(!down, "told twice that it is down");
                assert!(matches!(self.window.link(), Link::Down(now) if now.kind == kind && !now.doubtful));
                self.heard.0 = true;
            }
            News::StillDown(kind) => {
                assert!(down, "what it is down for now, but not that it is");
                assert!(matches!(self.window.link(), Link::Down(now) if now.kind == kind && !now.doubtful));
            }
            News::Up(outage) => {
                assert!(down && !matches!(self.window.link(), Link::Down(now) if now.since < outage.until));
                assert!(outage.since <= outage.until && outage.until <= self.now && outage.attempts > 0, "{outage:?}");
                self.heard.0 = false;
            }
            News::Brief(outage) => {
                assert!(!down && outage.since <= outage.until && outage.attempts == 1, "{outage:?}");
            }
            News::Failing(records) => assert!(records > 0 && records == self.window.held().failing),
            News::ReadingStopped(records) => {
                assert!(!stopped && records > 0 && records == self.window.held().failing);
                self.heard.1 = true;
            }
            News::ReadingGoesOn => {
                assert!(stopped && !self.window.reads_later(self.now));
                self.heard.1 = false;
            }
        }
        assert_eq!(self.heard.1, self.window.held().reading_stopped);
    }

    /// What is said to be unfinished is that, record by record, but for what is held and dropped from the log since.
    pub(super) fn judge_unfinished(&self) {
        let there = |index: &usize| !self.finished.contains(index);
        let lies_between = |from: SequenceNumber, end: SequenceNumber| {
            let numbers = self.log[self.oldest..self.committed].iter().map(|(record, _)| record.sequence_number);
            numbers.filter(|number| from <= *number && *number < end).count() as u64
        };
        let Unfinished { gaps, live } = self.window.unfinished();
        let head = self.number_of(self.committed);
        let said: u64 = gaps.iter().chain([&live]).map(|part| part.records(head, lies_between)).sum();
        let dropped = (0..self.oldest).filter(there);
        let dropped = dropped.filter(|index| self.held.contains(&self.log[*index].0.sequence_number)).count() as u64;
        // What a former run finished inside of a stretch is known when it is read again.
        let window = &self.window;
        let is_passed_later = |index: &usize| {
            let number = self.log[*index].0.sequence_number;
            let unread =
                |stretch: &Stretch| number >= stretch.next_read() && stretch.end.is_none_or(|end| number < end);
            window.finished_before.has(number) && window.stretches.iter().any(unread)
        };
        let left = (self.oldest..self.committed).filter(|index| there(index) || is_passed_later(index)).count() as u64;
        assert!((left..=left + dropped).contains(&said), "{said}, not {left} and {dropped}: {}", self.tell());
    }

    pub(super) fn check_window(&mut self) {
        self.judge_held();
        self.note_leaps();
        let window = &self.window;
        let held = window.held();
        assert!(held.records <= self.config.window_records, "{held:?}");
        // Two records of each kind are held however large they are.
        assert!(held.bytes <= (self.config.window_bytes + 2 * self.largest).max(4 * self.largest), "{held:?}");
        for stretch in window.stretches.iter() {
            let own = || window.entries.iter().filter(|(_, entry)| entry.stretch == stretch.id);
            assert_eq!((own().count(), own().map(|(_, entry)| entry.cost).sum()), (stretch.records, stretch.bytes));
        }
        // Beyond that, one record for each refusal that needs to be compared with something.
        let span_max = self.config.window_records * SPAN_WINDOWS;
        // A leap adds what lies behind a stuck record to that of the gaps.
        let spans: usize = window.stretches.iter().map(|stretch| stretch.ledger.span()).sum();
        let refusals = window.counts().failed_requests[FailureKind::RequestInvalid.index()] as usize;
        let times = if window.stretches.gaps().is_empty() { 1 } else { 3 };
        assert!(spans <= times * (span_max + refusals), "{spans}");
        if self.config.ordering == Ordering::Strict {
            window.stretches.iter().for_each(|s| s.lanes.check_chains(&window.entries, window.parcel_size()));
            let parted = window.stretches.iter().map(|stretch| stretch.lanes.parted()).sum();
            self.parted = self.parted.max(parted);
        }
        let has = |fault: fn(Fault) -> bool| window.entries.iter().filter(|(_, entry)| fault(entry.fault)).count();
        assert_eq!(window.entries.failing(), has(|fault| fault == Fault::Failing));
        assert_eq!(window.entries.failed(), has(|fault| matches!(fault, Fault::Failed(_))));
        let mut states = HashMap::<State, usize>::new();
        for (_, entry) in window.entries.iter() {
            *states.entry(entry.state).or_default() += 1;
        }
        let count = |state| states.get(&state).copied().unwrap_or_default();
        assert_eq!(count(State::Ready), window.ready.len());
        let ready = window.ready.iter().map(|head| window.entries[head].parcel_bytes + RECORD_OVERHEAD);
        assert_eq!(window.ready.bytes, ready.sum::<u64>());
        assert_eq!(count(State::Waiting), window.throttled.len() + window.failed.len());
        let suspects = window.suspects.iter().map(|group| group.slots.len()).sum::<usize>();
        assert_eq!(count(State::Suspect), suspects + usize::from(window.trial.is_some()));
        assert_eq!(count(State::InFlight), window.in_flight.values().map(|flight| flight.slots.len()).sum::<usize>());
        assert_eq!(count(State::Dead), window.dead.len() + window.burying.len());
    }
}
