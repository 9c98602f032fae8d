//! The window of one delivery: decides what is read, sent, sent again, given up and saved, and when.
//!
//! It promises: every record read is delivered, or told to be undeliverable or too old, at least once; the checkpoint never
//! passes an unfinished record; what it holds is bounded in records and bytes; with strict order, a record leaves only together with
//! the earlier ones of its partition key, or when they are resolved; while the endpoint does not answer, one probe at a time is out.
//! It has no clock (times are passed in), no randomness (a seed is), no I/O: whoever drives it does what [`Step`] says
//! and tells what came of it.

mod catch_up;
mod entries;
mod expiry;
mod isolation;
mod lanes;
mod ledger;
mod link;
mod map;
mod news;
mod outcomes;
mod pace;
mod parcels;
mod reading;
mod ready;
mod relaxed;
mod saving;
mod sending;
#[cfg(test)]
mod simulation;
mod stretches;
mod suspects;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_of_catching_up;
#[cfg(test)]
mod tests_of_faults;
#[cfg(test)]
mod tests_of_news;
mod throttles;
mod turns;

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use fastrand::Rng;
use forebay_log_store::{Record, SequenceNumber};

use self::{
    catch_up::CatchingUp,
    entries::{Entries, Slot},
    expiry::Expiry,
    lanes::Lanes,
    map::Map,
    news::Told,
    pace::Pace,
    parcels::Size,
    ready::Ready,
    saving::Saving,
    sending::Due,
    stretches::Stretches,
    suspects::{History, Suspects},
    throttles::Throttles,
};
pub(crate) use self::{
    expiry::Expired,
    link::Link,
    news::News,
    pace::RECORD_OVERHEAD,
    reading::{Found, Piece},
    stretches::{Finished, Range},
};
use super::{backoff::Backoff, config::Config};
#[cfg(test)]
use crate::destination::Place;
use crate::destination::{Failure, FailureKind, Limits, Outcome, Parcel};

/// The longest wait after a first failure.
const BACKOFF_BASE: Duration = Duration::from_millis(100);

/// The same for a throttled record: the limits of a shard are counted by the second.
const THROTTLED_BACKOFF_BASE: Duration = Duration::from_millis(500);

/// The longest wait of a record that failed alone while its request was answered: the endpoint is there.
const RECORD_BACKOFF_MAX: Duration = Duration::from_secs(5);

/// So often in a row, which takes about a minute. After that the wait goes on doubling up to `max-backoff`.
const FAILURES_SOON: u32 = 30;

/// A long wait ends at one of so many moments of the longest that it may be, so that many records come back together.
const TOGETHER: u32 = 8;

/// So many failures of a record that is tried alone make it wait about as long as [`RECORD_BACKOFF_MAX`].
const STRIKES_SOON: u32 = 6;

/// For so long answers may take nothing, because they throttle, before that counts as an outage.
const IN_VAIN_MAX: Duration = Duration::from_secs(60);

/// How often a record must have been refused alone before it counts as undeliverable.
const REFUSALS_ALONE: u32 = 2;

/// How many others may be at fault as well for a record to be judged although nothing else shows that the endpoint takes any.
const FEW: usize = 4;

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
    Read(Piece),
    /// Send this, then [`Window::on_outcome`].
    Send(Batch),
    /// Store these, then [`Window::on_dead_letters`].
    StoreDeadLetters(Vec<DeadLetter>),
    /// The destination's new map of shards counts from now on; then [`Window::on_map`].
    TakeMap,
    /// Everything up to here is done.
    Save(SequenceNumber),
    /// This is finished: for the next start; then [`Window::on_finished_saved`].
    SaveFinished(Finished),
    /// These were too old to be sent.
    TellExpired(Expired),
    /// A person is to hear of this.
    Tell(News),
    /// Nothing before this time, unless something happens.
    Wait(Option<Duration>),
    /// Nothing any more: it was told to stop, and nothing is under way.
    Stopped,
}

/// Parcels to be sent in one request.
#[derive(Debug, Clone)]
pub(crate) struct Batch {
    pub(crate) id: u64,
    pub(crate) parcels: Vec<Parcel>,
}

impl Batch {
    /// The records of all parcels.
    pub(crate) fn records(&self) -> impl Iterator<Item = &Arc<Record>> {
        self.parcels.iter().flat_map(|parcel| &parcel.records)
    }
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
    /// Parcels sent.
    pub(crate) parcels: u64,
    /// Requests sent.
    pub(crate) requests: u64,
    /// Requests that failed as a whole, by [`FailureKind::index`].
    pub(crate) failed_requests: [u64; FailureKind::ALL.len()],
    /// Records that were throttled while their request was answered.
    pub(crate) throttled_records: u64,
    /// Records that failed while their request was answered.
    pub(crate) failed_records: u64,
    /// Records that were sent again because their parcel had gone to another shard than it was made for.
    pub(crate) astray_records: u64,
    /// Records whose dead letter is durable.
    pub(crate) dead_letters: u64,
    /// Relaxed order: records that failed and were accepted after a later one of their key.
    pub(crate) out_of_order: u64,
    /// Records that were too old to be sent.
    pub(crate) expired: u64,
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
    /// Records upon which the endpoint fails although it takes others. Each is tried alone.
    pub(crate) failing: usize,
    /// Whether nothing more is read because what waits behind these fills the window.
    pub(crate) reading_stopped: bool,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Window {
    config: Config,
    request_records: usize,
    request_bytes: u64,
    rng: Rng,

    entries: Entries,
    stretches: Stretches,
    /// What former runs had finished.
    finished_before: Finished,
    catching_up: CatchingUp,
    saving: Saving,
    expiry: Expiry,
    parcel_size: Size,
    keeps_requests: bool,
    map: Map,
    saved: SequenceNumber,

    /// What may leave.
    ready: Ready,
    /// Since when the oldest of them has been waiting for company.
    ready_since: Duration,
    /// Throttled records, and failed ones, by the end of their backoff.
    throttled: BinaryHeap<Reverse<(Duration, Slot)>>,
    failed: BinaryHeap<Reverse<(Duration, Slot)>>,
    throttles: Throttles,
    suspects: Suspects,
    /// The newest number of [`entries::Entry::apart`].
    marks: u32,
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
    /// When the first of those answers came, one after the other, that took nothing.
    in_vain_since: Option<Duration>,
    link: Link,
    told: Told,
    pace: Pace,
    last_sent: Option<Duration>,
    /// Nothing is sent before this: the way out has limits.
    held_until: Duration,
    /// Whether the last request was a group of suspects, so that they and fresh records take turns.
    sent_group: bool,
    /// Smoothed share of requests that key order kept from being full, in 1/1024.
    kept_small: u32,

    /// The stretch that is being read.
    reading: Option<u32>,
    /// Whether that was the live one the last time.
    read_live: bool,
    /// Whether all live records there are have been read.
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
    /// A later record of its lane, to be sent out of turn.
    witness: Slot,
    /// The one in front of that.
    before: Slot,
    /// How many more may be asked for if this one is refused as well.
    more: u32,
}

/// A request under way.
#[derive(Debug)]
struct Flight {
    /// The heads of its parcels.
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
    /// A window behind `checkpoint`, where this is `finished` too. `seed` decides all jitter.
    pub(crate) fn new(
        config: &Config,
        limits: &Limits,
        checkpoint: SequenceNumber,
        finished: &Finished,
        seed: u64,
    ) -> Self {
        let request_bytes = config.request_bytes(limits);
        let pace_bytes = request_bytes.saturating_add(RECORD_OVERHEAD * limits.request_records as u64);
        Self {
            request_records: config.request_records(limits),
            request_bytes,
            rng: Rng::with_seed(seed),
            entries: Entries::default(),
            stretches: Stretches::new(checkpoint, &finished.between),
            finished_before: finished.clone(),
            catching_up: CatchingUp::new(),
            saving: Saving::new(finished),
            expiry: Expiry::new(config.max_age),
            parcel_size: Size { records: limits.parcel_records.max(1), bytes: limits.parcel_bytes.min(request_bytes) },
            keeps_requests: limits.keeps_requests,
            map: Map::Current,
            saved: checkpoint,
            ready: Ready::default(),
            ready_since: Duration::ZERO,
            throttled: BinaryHeap::new(),
            failed: BinaryHeap::new(),
            throttles: Throttles::new(config.max_backoff),
            suspects: Suspects::default(),
            marks: 0,
            trial: None,
            wants_evidence: false,
            dead: VecDeque::new(),
            burying: Vec::new(),
            dead_failures: 0,
            dead_not_before: Duration::ZERO,
            in_flight: HashMap::new(),
            next_id: 1,
            accepted_id: 0,
            in_vain_since: None,
            link: Link::Up,
            told: Told::default(),
            pace: Pace::new(pace_bytes, config.in_flight, limits.request_timeout),
            last_sent: None,
            held_until: Duration::ZERO,
            sent_group: false,
            kept_small: 0,
            reading: None,
            read_live: false,
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
        self.pass_time(now);
        if let Some(news) = self.news(now) {
            return Step::Tell(news);
        }
        if self.map == Map::New && self.in_flight.is_empty() && self.burying.is_empty() && !self.stopping {
            return Step::TakeMap;
        }
        if let Some(letters) = self.dead_letters(now) {
            return Step::StoreDeadLetters(letters);
        }
        let send = self.send_due(now);
        if let Due::Now(what) = send {
            return Step::Send(self.send(what, now));
        }
        if let Some((stretch, piece)) = self.read_due(now) {
            self.reading = Some(stretch);
            self.read_live = piece.end.is_none();
            self.wants_evidence = false;
            self.committed_while_reading = false;
            return Step::Read(piece);
        }
        if let Some(expired) = self.expiry.take_run(now, self.stopping) {
            return Step::TellExpired(expired);
        }
        let checkpoint = self.stretches.checkpoint(&self.entries);
        if checkpoint > self.saved {
            self.saved = checkpoint;
            return Step::Save(checkpoint);
        }
        if let Some(save) = self.save_due(now) {
            return save;
        }
        if let Some(news) = self.news_of_reading(now) {
            return Step::Tell(news);
        }
        if self.stopping && self.in_flight.is_empty() && self.burying.is_empty() && !self.saving.is_under_way() {
            return Step::Stopped;
        }
        Step::Wait(self.wake_at(now, send))
    }

    /// About how many bytes of records would leave with [`Step::Send`] if it were asked for now; nothing if none would.
    pub(crate) fn would_send(&mut self, now: Duration) -> Option<u64> {
        self.pass_time(now);
        match self.send_due(now) {
            Due::Now(what) => Some(self.bytes_of(what)),
            Due::Later(_) => None,
        }
    }

    /// What follows from the time alone.
    fn pass_time(&mut self, now: Duration) {
        self.end_backoffs(now);
        self.expire(now);
        self.stretches.forget_finished();
        // It answers, and what it found fault with is gone.
        if self.entries.len() == 0 && matches!(&self.link, Link::Down(down) if down.kind == FailureKind::RequestInvalid)
        {
            self.link_is_up(now);
        }
        self.catch_up(now);
    }

    /// Sends nothing before this.
    pub(crate) fn hold_until(&mut self, until: Duration) {
        self.held_until = until;
    }

    /// There may be a way out that was not there before: if the endpoint does not answer, it is asked at once.
    pub(crate) fn probe_now(&mut self, now: Duration) {
        self.link.probe_now(now);
    }

    /// There may be more to read.
    pub(crate) fn on_commit(&mut self) {
        self.at_end = false;
        self.committed_while_reading = true;
    }

    /// A read failed; nothing was read.
    pub(crate) fn on_read_failed(&mut self, now: Duration) {
        self.reading = None;
        self.read_failures += 1;
        let backoff = Backoff { base: BACKOFF_BASE, max: self.config.max_backoff };
        self.read_not_before = now + backoff.delay(self.read_failures, &mut self.rng);
    }

    /// What became of a request.
    pub(crate) fn on_outcome(&mut self, id: u64, outcome: Outcome, now: Duration) {
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
            Outcome::Failed(failure) => self.request_failed(id, flight, &failure, now),
        }
        self.expiry.look_again(now);
    }

    /// Whether the dead letters given out last are durable.
    pub(crate) fn on_dead_letters(&mut self, durable: bool, now: Duration) {
        let slots = std::mem::take(&mut self.burying);
        if durable {
            self.dead_failures = 0;
            self.counts.dead_letters += slots.len() as u64;
            for slot in slots {
                let checkpoint = self.stretches.checkpoint(&self.entries);
                self.saving.buried(self.entries[slot].record.sequence_number, checkpoint, now);
                self.finish(slot, false, now);
            }
        } else {
            self.dead_failures += 1;
            let backoff = Backoff { base: BACKOFF_BASE, max: self.config.max_backoff };
            self.dead_not_before = now + backoff.delay(self.dead_failures, &mut self.rng);
            if slots.len() == 1 {
                // The others have their turn first.
                self.dead.extend(slots);
            } else {
                for slot in slots.into_iter().rev() {
                    self.dead.push_front(slot);
                }
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

    /// Whether a request under way is of suspects, and whether it is the witness of a trial.
    #[cfg(test)]
    pub(crate) fn is_apart(&self, id: u64) -> (bool, bool) {
        let flight = &self.in_flight[&id];
        (flight.group.is_some(), flight.witness)
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
            limited_by_key_order: self.kept_small > 512 && self.behind() > 0,
            failing: self.entries.failing(),
            reading_stopped: self.told.reading_stopped,
        }
    }
}
