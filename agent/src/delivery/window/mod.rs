//! The window of one delivery: decides what is read, sent, sent again, given up and saved, and when.
//!
//! It promises: every record read is delivered or told to be undeliverable, at least once; the checkpoint never passes an
//! unfinished record; what it holds is bounded in records and bytes; with strict order, a record leaves only when all
//! earlier ones of its partition key are resolved; while the endpoint does not answer, one probe at a time is out.
//! It has no clock (times are passed in), no randomness (a seed is), no I/O: whoever drives it does what [`Step`] says
//! and tells what came of it.

mod entries;
mod keys;
mod ledger;
mod link;
mod pace;
#[cfg(test)]
mod simulation;
mod suspects;
#[cfg(test)]
mod tests;

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use fastrand::Rng;
use forebay_log_store::{ReadLimit, Record, SequenceNumber};

pub(crate) use self::link::{Down, Link};
use self::{
    entries::{Entries, Entry, NONE, Slot, State},
    keys::{Keys, key_of},
    ledger::Ledger,
    pace::{Pace, RECORD_OVERHEAD},
    suspects::{Group, History, Suspects},
};
use super::{
    backoff::Backoff,
    config::{Config, Ordering},
};
use crate::destination::{Failure, FailureKind, Limits, Outcome, RecordOutcome};

/// The longest wait after a first failure.
const BACKOFF_BASE: Duration = Duration::from_millis(100);

/// The same for a throttled record: the limits of a shard are counted by the second.
const THROTTLED_BACKOFF_BASE: Duration = Duration::from_millis(500);

/// The longest wait of a record that failed alone while its request was answered: the endpoint is there.
const RECORD_BACKOFF_MAX: Duration = Duration::from_secs(5);

/// How often a record must have been refused alone before it counts as undeliverable.
const REFUSALS_ALONE: u32 = 2;

/// How many others may be left that were refused as well, so that a record is judged although nothing else comes.
const LAST_REFUSED: usize = 4;

/// How many records behind a refused one are sent out of turn, one after the other, to see whether the endpoint takes
/// anything. One at first; more only help where several records in a row are at fault.
const WITNESSES: u32 = 16;

/// One more of them after so many times.
const TRIALS_PER_WITNESS: u32 = 4;

/// Records that a window holds however large they are: one that is never accepted must not be alone, or nothing could
/// show that the endpoint takes others.
const RECORDS_MIN: usize = 2;

/// Records are read in pieces of at most this many, so that reading and sending overlap.
const READ_RECORDS: usize = 1000;

/// The same in bytes.
const READ_BYTES: u64 = 1 << 20;

/// How many windows of records may lie between the oldest unfinished record and the newest one read. All but one window of
/// them are finished, and would be sent again after a kill; but one stuck record must not stop everything else at once.
const SPAN_WINDOWS: usize = 10;

/// Dead letters stored together.
const DEAD_LETTERS: usize = 100;

/// The same in bytes.
const DEAD_LETTER_BYTES: u64 = 1 << 20;

/// What a delivery does next.
#[derive(Debug)]
pub(crate) enum Step {
    /// Read on, then [`Window::on_read`] or [`Window::on_read_failed`].
    Read(ReadLimit),
    /// Send this, then [`Window::on_outcome`].
    Send(Batch),
    /// Store these, then [`Window::on_dead_letters`].
    StoreDeadLetters(Vec<DeadLetter>),
    /// Everything up to here is done.
    Save(SequenceNumber),
    /// Nothing before this time, unless something happens.
    Wait(Option<Duration>),
    /// Nothing any more: it was told to stop, and nothing is under way.
    Stopped,
}

/// Records to be sent in one request.
#[derive(Debug, Clone)]
pub(crate) struct Batch {
    pub(crate) id: u64,
    pub(crate) records: Vec<Arc<Record>>,
}

/// A record that cannot be delivered.
#[derive(Debug, Clone)]
pub(crate) struct DeadLetter {
    pub(crate) record: Arc<Record>,
    pub(crate) reason: String,
    pub(crate) attempts: u32,
    pub(crate) first_attempt: Option<Duration>,
    pub(crate) last_attempt: Option<Duration>,
}

/// What a window counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Records that the destination accepted.
    pub(crate) records: u64,
    /// Their keys and data in bytes.
    pub(crate) bytes: u64,
    /// Requests sent.
    pub(crate) requests: u64,
    /// Requests that failed as a whole, by [`FailureKind::index`].
    pub(crate) failed_requests: [u64; FailureKind::ALL.len()],
    /// Records that were throttled while their request was answered.
    pub(crate) throttled_records: u64,
    /// Records that failed while their request was answered.
    pub(crate) failed_records: u64,
    /// Records whose dead letter is durable.
    pub(crate) dead_letters: u64,
    /// Relaxed order: records that failed and were accepted after a later one of their key.
    pub(crate) out_of_order: u64,
}

/// What a window holds at the moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Held {
    /// Unfinished records.
    pub(crate) records: usize,
    /// Their bytes.
    pub(crate) bytes: u64,
    /// Requests in flight.
    pub(crate) in_flight: usize,
    /// Whether requests leave with fewer records than they could hold only because records wait for earlier ones of
    /// their key.
    pub(crate) limited_by_key_order: bool,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Window {
    config: Config,
    request_records: usize,
    request_bytes: u64,
    rng: Rng,

    entries: Entries,
    ledger: Ledger,
    keys: Keys,
    saved: SequenceNumber,

    /// What may leave, oldest first.
    ready: BinaryHeap<Reverse<(u64, Slot)>>,
    ready_bytes: u64,
    /// Since when the oldest of them has been waiting for company.
    ready_since: Duration,
    /// Throttled records, and failed ones, by the end of their backoff.
    throttled: BinaryHeap<Reverse<(Duration, Slot)>>,
    failed: BinaryHeap<Reverse<(Duration, Slot)>>,
    suspects: Suspects,
    trial: Option<Trial>,
    /// A record was refused alone, and it would help to see whether another one is accepted.
    wants_evidence: bool,
    dead: VecDeque<Slot>,
    /// Their dead letters are being stored.
    burying: Vec<Slot>,
    dead_failures: u32,
    dead_not_before: Duration,

    in_flight: HashMap<u64, Flight>,
    next_id: u64,
    /// The newest request of which at least one record was accepted.
    accepted_id: u64,
    link: Link,
    pace: Pace,
    last_sent: Option<Duration>,
    /// Whether the last request was a group of suspects, so that they and fresh records take turns.
    sent_group: bool,
    /// Smoothed share of requests that key order kept from being full, in 1/1024.
    kept_small: u32,

    reading: bool,
    at_end: bool,
    committed_while_reading: bool,
    read_failures: u32,
    read_not_before: Duration,
    stopping: bool,
    counts: Counts,
}

/// A record that was refused alone, while nothing but those behind it can show whether the endpoint takes anything.
#[derive(Debug, Clone, Copy)]
struct Trial {
    accused: Slot,
    /// A later record of its key, to be sent out of turn.
    witness: Slot,
    /// The one in front of that.
    before: Slot,
    /// How many more may be asked for if this one is refused as well.
    more: u32,
}

/// A request under way.
#[derive(Debug)]
struct Flight {
    slots: Vec<Slot>,
    sent: Duration,
    /// With [`RECORD_OVERHEAD`].
    bytes: u64,
    /// If it is a group of suspects: what it went through.
    group: Option<History>,
    /// [`Window::accepted_id`] when it was sent.
    accepted_id: u64,
    /// Whether it is the witness of [`Window::trial`].
    witness: bool,
}

impl Window {
    /// A window behind `checkpoint`. `seed` decides all jitter.
    pub(crate) fn new(config: &Config, limits: &Limits, checkpoint: SequenceNumber, seed: u64) -> Self {
        let request_bytes = config.request_bytes(limits);
        let pace_bytes = request_bytes.saturating_add(RECORD_OVERHEAD * limits.request_records as u64);
        Self {
            request_records: config.request_records(limits),
            request_bytes,
            rng: Rng::with_seed(seed),
            entries: Entries::default(),
            ledger: Ledger::new(checkpoint),
            keys: Keys::default(),
            saved: checkpoint,
            ready: BinaryHeap::new(),
            ready_bytes: 0,
            ready_since: Duration::ZERO,
            throttled: BinaryHeap::new(),
            failed: BinaryHeap::new(),
            suspects: Suspects::default(),
            trial: None,
            wants_evidence: false,
            dead: VecDeque::new(),
            burying: Vec::new(),
            dead_failures: 0,
            dead_not_before: Duration::ZERO,
            in_flight: HashMap::new(),
            next_id: 1,
            accepted_id: 0,
            link: Link::Up,
            pace: Pace::new(pace_bytes, config.in_flight, limits.request_timeout),
            last_sent: None,
            sent_group: false,
            kept_small: 0,
            reading: false,
            at_end: false,
            committed_while_reading: false,
            read_failures: 0,
            read_not_before: Duration::ZERO,
            stopping: false,
            counts: Counts::default(),
            config: config.clone(),
        }
    }

    /// What to do now. To be asked again until it says [`Step::Wait`] or [`Step::Stopped`].
    pub(crate) fn next(&mut self, now: Duration) -> Step {
        self.end_backoffs(now);
        if let Some(letters) = self.dead_letters(now) {
            return Step::StoreDeadLetters(letters);
        }
        let send = self.send_due(now);
        if let Due::Now(what) = send {
            return Step::Send(self.send(what, now));
        }
        if let Some(limit) = self.read_due(now) {
            self.reading = true;
            self.wants_evidence = false;
            self.committed_while_reading = false;
            return Step::Read(limit);
        }
        let checkpoint = self.ledger.checkpoint(&self.entries);
        if checkpoint > self.saved {
            self.saved = checkpoint;
            return Step::Save(checkpoint);
        }
        if self.stopping && self.in_flight.is_empty() && self.burying.is_empty() {
            return Step::Stopped;
        }
        Step::Wait(self.wake_at(now, send))
    }

    /// There may be more to read.
    pub(crate) fn on_commit(&mut self) {
        self.at_end = false;
        self.committed_while_reading = true;
    }

    /// What a read gave, in order; nothing at the end of the log. `accepts` is the destination's own check.
    pub(crate) fn on_read(
        &mut self,
        records: Vec<Record>,
        accepts: impl Fn(&Record) -> Result<(), String>,
        now: Duration,
    ) {
        self.reading = false;
        self.read_failures = 0;
        self.at_end = records.is_empty() && !self.committed_while_reading;
        for record in records {
            self.add(record, &accepts, now);
        }
    }

    /// A read failed; nothing was read.
    pub(crate) fn on_read_failed(&mut self, now: Duration) {
        self.reading = false;
        self.read_failures += 1;
        let backoff = Backoff { base: BACKOFF_BASE, max: self.config.max_backoff };
        self.read_not_before = now + backoff.delay(self.read_failures, &mut self.rng);
    }

    /// What became of a request. Returns the outage that it ended, if any.
    pub(crate) fn on_outcome(&mut self, id: u64, outcome: Outcome, now: Duration) -> Option<Down> {
        let flight = self.in_flight.remove(&id).expect("every request has one outcome");
        let outcome = match outcome {
            Outcome::Answered(outcomes) if outcomes.len() != flight.slots.len() => {
                let message = format!("answered for {} of {} records", outcomes.len(), flight.slots.len());
                Outcome::Failed(Failure { kind: FailureKind::EndpointFailed, message, retry_after: None })
            }
            outcome => outcome,
        };
        match outcome {
            outcome if flight.witness => self.testified(id, flight, outcome, now),
            Outcome::Answered(outcomes) => self.answered(id, flight, outcomes, now),
            Outcome::Failed(failure) => {
                self.request_failed(id, flight, &failure, now);
                None
            }
        }
    }

    /// Whether the dead letters given out last are durable.
    pub(crate) fn on_dead_letters(&mut self, durable: bool, now: Duration) {
        let slots = std::mem::take(&mut self.burying);
        if durable {
            self.dead_failures = 0;
            self.counts.dead_letters += slots.len() as u64;
            for slot in slots {
                self.finish(slot, false, now);
            }
        } else {
            self.dead_failures += 1;
            let backoff = Backoff { base: BACKOFF_BASE, max: self.config.max_backoff };
            self.dead_not_before = now + backoff.delay(self.dead_failures, &mut self.rng);
            for slot in slots.into_iter().rev() {
                self.dead.push_front(slot);
            }
        }
    }

    /// Nothing new from now on; what is under way is awaited.
    pub(crate) fn stop(&mut self) {
        self.stopping = true;
    }

    /// Up to here everything is done, as far as [`Step::Save`] has told.
    pub(crate) fn checkpoint(&self) -> SequenceNumber {
        self.saved
    }

    /// The newest record read.
    pub(crate) fn last_read(&self) -> SequenceNumber {
        self.ledger.last_read()
    }

    /// Whether the endpoint answers.
    pub(crate) fn link(&self) -> &Link {
        &self.link
    }

    /// Since the window was made.
    pub(crate) fn counts(&self) -> Counts {
        self.counts
    }

    /// At the moment.
    pub(crate) fn held(&self) -> Held {
        Held {
            records: self.entries.len(),
            bytes: self.entries.cost(),
            in_flight: self.in_flight.len(),
            limited_by_key_order: self.kept_small > 512 && self.keys.behind() > 0,
        }
    }
}

/// Whether, when and what to send.
#[derive(Debug, Clone, Copy)]
enum Due {
    Now(What),
    /// Not before this, or not before something happens.
    Later(Option<Duration>),
}

#[derive(Debug, Clone, Copy)]
enum What {
    /// Records whose turn it is.
    Fresh,
    /// Suspects.
    Group,
    /// The witness of a trial.
    Witness,
}

impl Window {
    fn send_due(&self, now: Duration) -> Due {
        if self.stopping || self.in_flight.len() >= self.config.in_flight {
            return Due::Later(None);
        }
        if self.trial.is_some() {
            return if self.in_flight.is_empty() { Due::Now(What::Witness) } else { Due::Later(None) };
        }
        let (fresh, group) = match &self.link {
            Link::Up if self.in_flight.len() >= self.pace.requests => return Due::Later(None),
            Link::Up => (self.batch_due(), self.suspects.due()),
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
    fn batch_due(&self) -> Option<Duration> {
        if self.ready.is_empty() {
            return None;
        }
        let payload = self.ready_bytes - RECORD_OVERHEAD * self.ready.len() as u64;
        let full = self.ready.len() >= self.request_records
            || self.ready_bytes >= self.pace.bytes
            || payload >= self.request_bytes;
        if full {
            return Some(Duration::ZERO);
        }
        // Company comes from the log, or from answers to requests under way. If the log gives none, waiting long for the
        // answers would only make key order cost more round trips than it must.
        let log_gives_none = self.keys.behind() > 0 || !self.has_room();
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

    fn send(&mut self, what: What, now: Duration) -> Batch {
        let (slots, group) = match what {
            What::Fresh => (self.take_ready(now), None),
            What::Group => {
                let group = self.suspects.take().expect("it was due");
                (group.slots, Some(group.history))
            }
            What::Witness => {
                let trial = self.trial.as_ref().expect("a witness is only called in a trial");
                (vec![trial.witness], None)
            }
        };
        self.sent_group = group.is_some();
        let id = self.next_id;
        self.next_id += 1;
        let mut bytes = 0;
        let mut records = Vec::with_capacity(slots.len());
        for slot in &slots {
            let entry = &mut self.entries[*slot];
            entry.state = State::InFlight;
            entry.attempts = entry.attempts.saturating_add(1);
            entry.first_attempt.get_or_insert(now);
            entry.last_attempt = Some(now);
            bytes += entry.cost + RECORD_OVERHEAD;
            records.push(Arc::clone(&entry.record));
        }
        self.link.sent(id);
        self.last_sent = Some(now);
        self.counts.requests += 1;
        let witness = matches!(what, What::Witness);
        self.in_flight.insert(id, Flight { slots, sent: now, bytes, group, accepted_id: self.accepted_id, witness });
        Batch { id, records }
    }

    /// As many ready records as a request holds, oldest first.
    fn take_ready(&mut self, now: Duration) -> Vec<Slot> {
        let mut slots = Vec::with_capacity(self.ready.len().min(self.request_records));
        let (mut payload, mut bytes) = (0, 0);
        let mut full = false;
        while let Some(Reverse((_, slot))) = self.ready.peek() {
            let cost = self.entries[*slot].cost;
            full = slots.len() == self.request_records
                || (!slots.is_empty()
                    && (payload + cost > self.request_bytes || bytes + cost + RECORD_OVERHEAD > self.pace.bytes));
            if full {
                break;
            }
            payload += cost;
            bytes += cost + RECORD_OVERHEAD;
            slots.push(*slot);
            self.ready.pop();
        }
        self.ready_bytes -= bytes;
        self.ready_since = now;
        if self.config.ordering == Ordering::Strict {
            let kept_small = !full && slots.len() < self.request_records && self.keys.behind() > 0;
            self.kept_small = (self.kept_small * 7 + if kept_small { 1024 } else { 0 }) / 8;
        }
        slots
    }

    /// Whether there is room for another record.
    fn has_room(&self) -> bool {
        self.entries.len() < self.config.window_records
            && (self.entries.cost() < self.config.window_bytes || self.entries.len() < RECORDS_MIN)
            && (self.ledger.span() < self.span_max() || self.wants_evidence)
    }

    fn span_max(&self) -> usize {
        self.config.window_records.saturating_mul(SPAN_WINDOWS)
    }

    fn read_due(&self, now: Duration) -> Option<ReadLimit> {
        if self.stopping || self.reading || self.at_end || now < self.read_not_before || !self.has_room() {
            return None;
        }
        let span = self.span_max().saturating_sub(self.ledger.span()).max(1);
        let records = (self.config.window_records - self.entries.len()).min(span);
        let bytes = self.config.window_bytes.saturating_sub(self.entries.cost()).max(1);
        // Not in crumbs: each read costs a visit to the disk's thread.
        let worth_it = records >= READ_RECORDS.min(self.config.window_records / 8)
            && bytes >= READ_BYTES.min(self.config.window_bytes / 8);
        (worth_it || self.entries.len() < RECORDS_MIN || self.wants_evidence).then(|| ReadLimit {
            records: if worth_it { records.min(READ_RECORDS) } else { 1 },
            payload_bytes: usize::try_from(bytes.min(READ_BYTES)).unwrap_or(usize::MAX),
        })
    }

    fn wake_at(&self, now: Duration, send: Due) -> Option<Duration> {
        let send = if let Due::Later(at) = send { at } else { None };
        let backoff = |heap: &BinaryHeap<Reverse<(Duration, Slot)>>| heap.peek().map(|Reverse((at, _))| *at);
        let bury = (!self.dead.is_empty() && self.burying.is_empty()).then_some(self.dead_not_before);
        let read = (!self.reading && !self.at_end && now < self.read_not_before).then_some(self.read_not_before);
        if self.stopping {
            return None;
        }
        earliest([send, backoff(&self.throttled), backoff(&self.failed), bury, read])
    }
}

impl Window {
    fn add(&mut self, record: Record, accepts: &impl Fn(&Record) -> Result<(), String>, now: Duration) {
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
    fn make_ready(&mut self, slot: Slot, now: Duration) {
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

    fn hold(&mut self, slot: Slot, state: State) {
        let entry = &mut self.entries[slot];
        entry.state = state;
        if self.config.ordering == Ordering::Strict {
            self.keys.hold(entry.key);
        }
    }

    fn bury(&mut self, slot: Slot, reason: String) {
        self.entries[slot].reason = Some(reason);
        self.hold(slot, State::Dead);
        self.dead.push_back(slot);
    }

    fn finish(&mut self, slot: Slot, accepted: bool, now: Duration) {
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

    fn end_backoffs(&mut self, now: Duration) {
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

    fn dead_letters(&mut self, now: Duration) -> Option<Vec<DeadLetter>> {
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

impl Window {
    fn answered(&mut self, id: u64, flight: Flight, outcomes: Vec<RecordOutcome>, now: Duration) -> Option<Down> {
        self.pace.answered(flight.bytes, now - flight.sent);
        let ended = self.link.succeed();
        let mut recovered = false;
        for (slot, outcome) in flight.slots.into_iter().zip(outcomes) {
            // Whatever it says of the record, the endpoint has not found fault with it.
            let entry = &mut self.entries[slot];
            (entry.refused_alone, entry.refused_before, entry.isolated_at) = (0, None, None);
            match outcome {
                RecordOutcome::Accepted => {
                    recovered |= entry.failures > 0;
                    self.counts.records += 1;
                    self.counts.bytes += entry.record.payload_bytes();
                    self.accepted_id = self.accepted_id.max(id);
                    self.suspects.accepted();
                    self.finish(slot, true, now);
                }
                RecordOutcome::Throttled(_) => {
                    self.counts.throttled_records += 1;
                    let until = self.record_backoff(slot, THROTTLED_BACKOFF_BASE, now);
                    self.throttled.push(Reverse((until, slot)));
                }
                RecordOutcome::Failed(_) => {
                    self.counts.failed_records += 1;
                    let until = self.record_backoff(slot, BACKOFF_BASE, now);
                    self.failed.push(Reverse((until, slot)));
                }
                RecordOutcome::Rejected(reason) => self.bury(slot, reason),
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

    fn record_backoff(&mut self, slot: Slot, base: Duration, now: Duration) -> Duration {
        self.hold(slot, State::Waiting);
        let entry = &mut self.entries[slot];
        entry.failures = entry.failures.saturating_add(1);
        let backoff = Backoff { base, max: self.config.max_backoff.min(RECORD_BACKOFF_MAX) };
        now + backoff.delay(entry.failures, &mut self.rng)
    }

    fn request_failed(&mut self, id: u64, flight: Flight, failure: &Failure, now: Duration) {
        self.counts.failed_requests[failure.kind.index()] += 1;
        // If others passed since this very group failed last, then it is its own fault and not the link's.
        let others_pass =
            self.link == Link::Up && flight.group.is_some_and(|history| history.accepted < self.counts.records);
        if !others_pass {
            self.link.fail(id, failure, self.config.max_backoff, now, &mut self.rng);
        }
        match failure.kind {
            FailureKind::Invalid => self.isolate(flight, failure, others_pass, now),
            FailureKind::EndpointFailed => self.suspect(flight, others_pass, now),
            _ => {
                if failure.kind == FailureKind::Unreachable {
                    self.pace.unanswered(flight.bytes, now - flight.sent);
                }
                match flight.group {
                    // The link's fault, so it tells nothing about the group: it goes on as one.
                    Some(history) => self.keep_together(flight.slots, history, now),
                    None => flight.slots.into_iter().for_each(|slot| self.make_ready(slot, now)),
                }
            }
        }
    }

    /// A request was refused: halve it, and once a record is alone, judge it.
    fn isolate(&mut self, flight: Flight, failure: &Failure, others_pass: bool, now: Duration) {
        let backoff = Backoff { base: BACKOFF_BASE, max: self.config.max_backoff };
        if !others_pass {
            let until = now + backoff.delay(self.suspects.refusals + 1, &mut self.rng);
            self.suspects.refused(until);
        }
        // Requests sent from now on see the endpoint as it is after this refusal.
        let next_id = self.next_id;
        for slot in &flight.slots {
            self.entries[*slot].isolated_at.get_or_insert(next_id);
        }
        let history = History { strikes: flight.group.map_or(0, |group| group.strikes), accepted: self.counts.records };
        let [slot] = flight.slots[..] else {
            self.halve(flight.slots, history, now);
            return;
        };
        let nothing_else = self.ready.is_empty() && self.in_flight.is_empty();
        let only_such_left = nothing_else && self.only_refused_left();
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
        let nothing_waits = self.throttled.is_empty() && self.failed.is_empty() && !self.reading;
        self.at_end
            && nothing_waits
            && self.suspects.iter().count() <= LAST_REFUSED
            && self.suspects.iter().all(refused)
    }

    /// Where everything that could be accepted waits behind a refused record, those behind it are asked for, at once and
    /// in order: as soon as one is accepted, the fault is not the endpoint's. The accused is not sent again then, so that
    /// order holds.
    fn trial_of(&self, accused: Slot, mut before: Slot, more: u32) -> Option<Trial> {
        loop {
            let witness = self.entries[before].next_of_key;
            if witness == NONE {
                return None;
            }
            if self.entries[witness].reason.is_none() {
                return Some(Trial { accused, witness, before, more });
            }
            before = witness;
        }
    }

    /// What became of the witness.
    fn testified(&mut self, id: u64, flight: Flight, outcome: Outcome, now: Duration) -> Option<Down> {
        let Trial { accused, witness, before, more } = self.trial.take().expect("a witness is only called in a trial");
        let entry = &mut self.entries[witness];
        entry.state = State::Behind;
        let mut ended = None;
        match outcome {
            Outcome::Answered(outcomes) => {
                self.pace.answered(flight.bytes, now - flight.sent);
                ended = self.link.succeed();
                match outcomes.into_iter().next() {
                    Some(RecordOutcome::Accepted) => {
                        self.acquit(id, witness, before);
                        let reason = self.entries[accused].reason.take().expect("an accusation has a reason");
                        self.bury(accused, reason);
                        return ended;
                    }
                    Some(RecordOutcome::Rejected(reason)) => entry.reason = Some(reason),
                    // Neither accepted nor at fault. It will be asked for again, and none behind it before that: else it
                    // might arrive out of order.
                    _ => {}
                }
            }
            Outcome::Failed(failure) => {
                self.counts.failed_requests[failure.kind.index()] += 1;
                if failure.kind == FailureKind::Invalid {
                    entry.refused_alone = entry.refused_alone.saturating_add(1);
                    entry.refused_before = Some(self.next_id);
                    self.trial = (more > 0).then(|| self.trial_of(accused, witness, more - 1)).flatten();
                }
                self.link.fail(id, &failure, self.config.max_backoff, now, &mut self.rng);
            }
        }
        if self.trial.is_none() {
            self.entries[accused].reason = None;
            let history = History { strikes: 0, accepted: self.counts.records };
            self.keep_together(vec![accused], history, now);
        }
        ended
    }

    /// A witness was accepted: it is finished, out of turn.
    fn acquit(&mut self, id: u64, witness: Slot, before: Slot) {
        let entry = self.entries.remove(witness);
        self.entries[before].next_of_key = entry.next_of_key;
        self.keys.remove_behind(entry.key, before, witness);
        self.ledger.finish(entry.ordinal);
        self.counts.records += 1;
        self.counts.bytes += entry.record.payload_bytes();
        self.accepted_id = self.accepted_id.max(id);
        self.suspects.accepted();
    }

    /// The endpoint failed upon a request: perhaps because of what is in it.
    fn suspect(&mut self, flight: Flight, others_pass: bool, now: Duration) {
        let mut history = flight.group.unwrap_or_default();
        history.accepted = self.counts.records;
        if !others_pass {
            self.keep_together(flight.slots, history, now);
            return;
        }
        history.strikes = history.strikes.saturating_add(1);
        let backoff = Backoff { base: BACKOFF_BASE, max: self.config.max_backoff };
        let until = now + backoff.delay(history.strikes, &mut self.rng);
        if flight.slots.len() > 1 {
            self.halve(flight.slots, history, until);
        } else {
            self.keep_together(flight.slots, history, until);
        }
    }

    fn halve(&mut self, slots: Vec<Slot>, history: History, not_before: Duration) {
        let (first, second) = slots.split_at(slots.len() / 2);
        for half in [first, second] {
            self.keep_together(half.to_vec(), history, not_before);
        }
    }

    fn keep_together(&mut self, slots: Vec<Slot>, history: History, not_before: Duration) {
        for slot in &slots {
            self.hold(*slot, State::Suspect);
        }
        self.suspects.add(Group { slots, history }, not_before);
    }
}

fn earliest<const N: usize>(times: [Option<Duration>; N]) -> Option<Duration> {
    times.into_iter().flatten().min()
}
