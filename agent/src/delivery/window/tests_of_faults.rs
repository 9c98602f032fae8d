//! Records at which the endpoint breaks, that it refuses or that it does not take, by name. Where it breaks at one, it answers every
//! request that has it in it with a failure of its own.

use std::collections::{BTreeSet, HashMap};

use super::*;
use crate::{
    delivery::config::Ordering,
    destination::RecordOutcome,
    sample::{LIMITS, plain},
};

mod answers;
mod breaks;
mod outages;
mod restarts;
mod witnesses;

/// One lane, as with one shard and aggregates.
pub(super) const ONE_LANE: Limits = Limits { parcel_records: 1000, ..LIMITS };

/// A lane for each key.
pub(super) const ALONE: Limits = LIMITS;

const KEYS: u64 = 10;
pub(super) const SECOND: Duration = Duration::from_secs(1);
const LATENCY: Duration = Duration::from_millis(50);

/// A request that was answered.
#[derive(Debug)]
pub(super) struct Answered {
    sent: Duration,
    records: usize,
    pub(super) failed: bool,
}

/// A window over a log, and an endpoint that answers after [`LATENCY`].
pub(super) struct Bench {
    pub(super) window: Window,
    /// Lanes are those of keys: the shards are not known, or there are as many.
    by_key: bool,
    /// Else there are so many.
    lanes: u64,
    pub(super) head: u64,
    read: u64,
    pub(super) now: Duration,
    under_way: VecDeque<(Duration, Batch)>,
    /// At these it breaks, and at everything during an outage.
    pub(super) breaks: BTreeSet<u64>,
    pub(super) outage: Option<FailureKind>,
    /// Of these its answers say that they failed, or were too many: all of them while it lasts.
    pub(super) fails: BTreeSet<u64>,
    pub(super) says: Option<RecordOutcome>,
    /// Of these that they were too many.
    throttles: BTreeSet<u64>,
    /// With these it finds fault.
    pub(super) refuses: BTreeSet<u64>,
    pub(super) buried: Vec<u64>,
    pub(super) answered: Vec<Answered>,
    /// What it took, in that order.
    pub(super) taken: Vec<u64>,
    /// What a person heard.
    pub(super) told: Vec<News>,
    /// For the next start.
    saved: Vec<Finished>,
}

impl Bench {
    pub(super) fn new(limits: Limits, config: Config, breaks: impl IntoIterator<Item = u64>) -> Self {
        Self {
            window: Window::new(&config, &limits, SequenceNumber::ZERO, &Finished::default(), 7),
            by_key: limits.parcel_records == 1,
            lanes: 1,
            head: 0,
            read: 0,
            now: Duration::ZERO,
            under_way: VecDeque::new(),
            breaks: breaks.into_iter().collect(),
            outage: None,
            fails: BTreeSet::new(),
            says: None,
            throttles: BTreeSet::new(),
            refuses: BTreeSet::new(),
            buried: Vec::new(),
            answered: Vec::new(),
            taken: Vec::new(),
            told: Vec::new(),
            saved: Vec::new(),
        }
    }

    pub(super) fn log(&mut self, records: u64) {
        self.head += records;
        self.window.on_commit();
    }

    fn key(number: u64) -> u64 {
        number % KEYS
    }

    fn place(&self) -> impl Fn(&Record) -> Result<Place, String> + use<> {
        let (by_key, lanes) = (self.by_key, self.lanes);
        move |record| {
            let place = Place::of_key(record);
            let lane = 1 + Self::key(record.sequence_number.0) % lanes;
            Ok(if by_key { place } else { Place { lane, ..place } })
        }
    }

    pub(super) fn drive(&mut self) -> Option<Duration> {
        self.drive_asking(|_, _, _| {})
    }

    /// Does what the window says until it waits; `sends` hears what the link was asked for before each request.
    fn drive_asking(&mut self, mut sends: impl FnMut(&Window, Option<u64>, &Batch)) -> Option<Duration> {
        loop {
            let asked = self.window.would_send(self.now);
            match self.window.next(self.now) {
                Step::Read(Piece { from, limit, .. }) => {
                    assert_eq!(from.0, self.read + 1);
                    let numbers = from.0..=self.head.min(self.read + limit.records as u64);
                    self.read = self.read.max(*numbers.end());
                    let records = numbers.map(|number| (Arc::new(record(number)), Duration::ZERO)).collect::<Vec<_>>();
                    let reached = records.last().map(|(record, _)| record.sequence_number);
                    self.window.on_read(Found { records, reached }, self.place(), self.now);
                }
                Step::Send(batch) => {
                    sends(&self.window, asked, &batch);
                    self.under_way.push_back((self.now, batch));
                }
                Step::StoreDeadLetters(letters) => {
                    self.buried.extend(letters.iter().map(|letter| letter.record.sequence_number.0));
                    self.window.on_dead_letters(true, self.now);
                }
                Step::TakeMap => self.window.on_map(self.place(), self.now),
                Step::Save(_) => {}
                Step::SaveFinished(finished) => {
                    self.saved.push(finished);
                    self.window.on_finished_saved(true);
                }
                Step::Tell(news) => self.told.push(news),
                Step::Wait(until) => return until,
                Step::Stopped => return None,
                step => panic!("{step:?}"),
            }
        }
    }

    /// Lets so much time pass.
    pub(super) fn pass(&mut self, time: Duration) {
        self.pass_until(time, |_| false);
    }

    /// At most so much, until this is so.
    #[track_caller]
    pub(super) fn pass_until(&mut self, time: Duration, done: impl Fn(&Self) -> bool) {
        let end = self.now + time;
        while !done(self) {
            let wake = self.drive();
            let answer = self.under_way.front().map(|(sent, _)| *sent + LATENCY);
            let Some(next) = wake.into_iter().chain(answer).min().filter(|next| *next <= end) else {
                self.now = end;
                return;
            };
            self.now = self.now.max(next);
            if answer == Some(next) {
                self.answer();
            }
        }
    }

    fn answer(&mut self) {
        let (sent, batch) = self.under_way.pop_front().expect("a request under way");
        let numbers: Vec<_> = batch.records().map(|record| record.sequence_number.0).collect();
        let has_one_of = |faults: &BTreeSet<u64>| numbers.iter().any(|number| faults.contains(number));
        let refused = has_one_of(&self.refuses).then_some(FailureKind::RequestInvalid);
        let broken = has_one_of(&self.breaks).then_some(FailureKind::EndpointFailed);
        let kind = self.outage.or(refused).or(broken);
        self.answered.push(Answered { sent, records: numbers.len(), failed: kind.is_some() });
        let outcome = match kind {
            Some(kind) => Outcome::Failed(Failure { kind, message: "it broke".to_owned(), retry_after: None }),
            None => {
                let parcels = batch.parcels.iter().map(|parcel| {
                    let numbers: Vec<_> = parcel.records.iter().map(|record| record.sequence_number.0).collect();
                    if numbers.iter().any(|number| self.fails.contains(number)) {
                        return RecordOutcome::Failed("it failed".to_owned());
                    }
                    if numbers.iter().any(|number| self.throttles.contains(number)) {
                        return RecordOutcome::Throttled("slower".to_owned());
                    }
                    if let Some(outcome) = &self.says {
                        return outcome.clone();
                    }
                    self.taken.extend(numbers);
                    RecordOutcome::Accepted
                });
                Outcome::Answered(parcels.collect())
            }
        };
        self.window.on_outcome(batch.id, outcome, self.now);
        self.window
            .stretches
            .iter()
            .for_each(|s| s.lanes.check_chains(&self.window.entries, self.window.parcel_size()));
    }

    /// A record every ten seconds, of any key. Returns how many requests there were beside those for them.
    fn others_pass_for_ten_hours(&mut self) -> usize {
        let (before, taken) = (self.answered.len(), self.taken.len());
        for _ in 0..3600 {
            self.log(1);
            self.pass(SECOND * 10);
            assert_eq!(self.window.link(), &Link::Up);
        }
        (self.answered.len() - before).saturating_sub(self.taken.len() - taken)
    }

    /// Records that need not wait for one at which the endpoint breaks, or that fails.
    pub(super) fn free(&self) -> BTreeSet<u64> {
        let faults = || self.breaks.iter().chain(&self.fails);
        let held_up = |number: u64| faults().any(|at| *at <= number && Self::key(*at) == Self::key(number));
        (1..=self.head).filter(|number| !held_up(*number)).collect()
    }

    #[track_caller]
    pub(super) fn judge_order(&self) {
        let mut newest = HashMap::new();
        for number in &self.taken {
            let before = newest.insert(Self::key(*number), *number);
            assert!(before.is_none_or(|before| before < *number), "{number} after {before:?}");
        }
    }

    pub(super) fn has_taken(&self, numbers: &BTreeSet<u64>) -> bool {
        self.taken.len() >= numbers.len() && numbers.is_subset(&self.taken.iter().copied().collect())
    }
}

fn record(number: u64) -> Record {
    let key = format!("key-{}", Bench::key(number));
    Record { sequence_number: SequenceNumber(number), ..plain(&key, vec![7; 100]) }
}

pub(super) fn relaxed() -> Config {
    Config { ordering: Ordering::Relaxed, ..Config::default() }
}
