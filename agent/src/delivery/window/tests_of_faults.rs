//! Records at which the endpoint breaks, by name: it answers every request that has one in it with a failure of its own.

use std::{
    cell::Cell,
    collections::{BTreeSet, HashMap},
};

use super::*;
use crate::{
    delivery::config::Ordering,
    destination::RecordOutcome,
    sample::{LIMITS, plain},
};

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
}

impl Bench {
    pub(super) fn new(limits: Limits, config: Config, breaks: impl IntoIterator<Item = u64>) -> Self {
        Self {
            window: Window::new(&config, &limits, SequenceNumber::ZERO, &[], 7),
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
                Step::Tell(news) => self.told.push(news),
                Step::Wait(until) => return until,
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

/// Nothing else comes that could show that the endpoint takes others.
#[test]
fn a_record_at_which_the_endpoint_breaks_holds_up_only_those_of_its_key() {
    let faults: [&[u64]; 8] =
        [&[57], &[1], &[200], &[1, 2], &[1, 11], &[1, 2, 3, 4], &[57, 58, 199], &[3, 40, 77, 120]];
    for (at, faults) in faults.iter().enumerate() {
        let mut bench = Bench::new(ONE_LANE, Config::default(), faults.iter().copied());
        bench.log(200);
        let free = bench.free();
        bench.pass_until(SECOND * 1800, |bench| bench.has_taken(&free));
        assert!(bench.has_taken(&free), "{faults:?}: {} of {}", bench.taken.len(), free.len());
        assert_eq!(bench.taken.iter().copied().collect::<BTreeSet<_>>(), free, "{faults:?}: only those");
        if at < 3 {
            assert!(bench.now < SECOND * 120, "{faults:?}: found after {:?}", bench.now);
        }
        // They are not given up.
        bench.pass(SECOND * 600);
        assert_eq!(bench.window.checkpoint().0, faults[0] - 1);
        bench.breaks.clear();
        let all = (1..=200).collect();
        bench.pass_until(SECOND * 31, |bench| bench.has_taken(&all));
        bench.drive();
        bench.judge_order();
        assert_eq!((bench.taken.len(), bench.window.checkpoint().0), (200, 200), "each once");
        assert_eq!(bench.window.held().failing, 0);
    }
}

/// A link is asked for what leaves, not for what else is ready: suspects by themselves, and a witness.
#[test]
fn what_would_be_sent_is_as_large_as_what_is_sent() {
    let mut bench = Bench::new(ONE_LANE, Config::default(), [57]);
    bench.refuses.extend([120, 121]);
    bench.log(200);
    let (mut groups, mut witnesses) = (0, 0);
    while bench.buried.len() < 2 {
        bench.drive_asking(|window, asked, batch| {
            let flight = &window.in_flight[&batch.id];
            if flight.group.is_some() || flight.witness {
                assert_eq!(asked, Some(flight.bytes));
            }
            groups += u64::from(flight.group.is_some());
            witnesses += u64::from(flight.witness);
        });
        let now = bench.now;
        bench.pass_until(SECOND, |bench| bench.now > now);
        assert!(bench.now < SECOND * 3600);
    }
    assert!(groups > 10 && witnesses > 0, "{groups} groups, {witnesses} witnesses");
}

/// The same where it takes more than one request at first, and where records wait for no other.
#[test]
fn it_is_found_in_requests_of_many_lanes_and_of_none_too() {
    for (limits, config) in [(ALONE, Config::default()), (ALONE, relaxed()), (ONE_LANE, relaxed())] {
        let mut bench = Bench::new(limits, config.clone(), [4]);
        bench.log(10);
        let free = bench.free();
        bench.pass_until(SECOND * 120, |bench| bench.has_taken(&free));
        assert!(bench.has_taken(&free), "{limits:?} {config:?}: {:?}", bench.taken);
        assert!(!bench.taken.contains(&4));
        bench.breaks.clear();
        bench.pass(SECOND * 31);
        assert_eq!(bench.window.checkpoint().0, 10);
    }
}

/// As after a start: what the shards are is only known when the endpoint answers again.
#[test]
fn under_a_new_map_what_was_halved_travels_together_again() {
    let mut bench = Bench::new(ONE_LANE, Config::default(), []);
    bench.by_key = true;
    bench.outage = Some(FailureKind::EndpointFailed);
    bench.log(1000);
    bench.pass(SECOND * 60);
    bench.outage = None;
    bench.by_key = false;
    bench.window.on_new_map();
    let (all, failed) = ((1..=1000).collect(), bench.answered.len());
    bench.pass_until(SECOND * 60, |bench| bench.has_taken(&all));
    bench.judge_order();
    assert_eq!(bench.taken.len(), 1000);
    let requests = bench.answered.len() - failed;
    assert!(requests <= 5, "{requests} requests");
}

#[test]
fn what_comes_in_later_passes_at_once_and_the_record_at_fault_is_tried_ever_more_rarely() {
    let mut bench = Bench::new(ONE_LANE, Config::default(), [4]);
    bench.log(10);
    bench.pass(SECOND * 120);
    for round in 0..100 {
        let number = bench.head + 1;
        bench.log(1);
        let began = bench.now;
        if Bench::key(number) != 4 {
            bench.pass_until(SECOND * 30, |bench| bench.taken.contains(&number));
            assert!(bench.now - began <= SECOND, "round {round}: {number} took {:?}", bench.now - began);
        }
        bench.pass(SECOND * 60);
        assert_eq!(bench.window.link(), &Link::Up, "round {round}");
        assert_eq!(bench.window.held().failing, 1);
    }
    bench.judge_order();
    let tried: Vec<_> =
        bench.answered.iter().filter(|answered| answered.failed).map(|answered| answered.sent).collect();
    let waits = || tried.windows(2).map(|pair| pair[1] - pair[0] - LATENCY);
    assert!(waits().all(|wait| wait <= SECOND * 30), "{:?}", waits().max());
    assert!(tried.len() < 600, "{} attempts in 100 minutes", tried.len());
}

#[test]
fn a_key_goes_back_to_its_lane_when_its_record_is_finished() {
    let mut bench = Bench::new(ONE_LANE, Config::default(), [4]);
    bench.log(200);
    bench.pass(SECOND * 120);
    bench.breaks.clear();
    bench.pass(SECOND * 60);
    assert_eq!(bench.taken.len(), 200);
    let requests = bench.answered.len();
    bench.log(100);
    bench.pass(SECOND);
    assert_eq!(bench.answered[requests..].iter().map(|answered| answered.records).collect::<Vec<_>>(), [100]);
    bench.judge_order();
}

#[test]
fn a_new_map_of_the_shards_keeps_the_order_and_holds_up_nobody_for_long() {
    let mut bench = Bench::new(ONE_LANE, Config::default(), [4]);
    bench.log(200);
    bench.pass(SECOND * 120);
    for round in 0..10 {
        bench.window.on_new_map();
        bench.log(100);
        let free = bench.free();
        bench.pass_until(SECOND * 60, |bench| bench.has_taken(&free));
        assert!(bench.has_taken(&free), "round {round}");
    }
    bench.breaks.clear();
    bench.pass(SECOND * 60);
    bench.judge_order();
    assert_eq!(bench.window.checkpoint().0, bench.head);
}

/// The next one behind it is no witness, but the one after that is.
#[test]
fn a_record_that_is_refused_is_judged_although_the_endpoint_breaks_at_the_one_behind_it() {
    let mut bench = Bench::new(ONE_LANE, Config::default(), [2]);
    bench.refuses.insert(1);
    bench.log(20);
    let free: BTreeSet<_> = bench.free().into_iter().filter(|number| *number != 1).collect();
    bench.pass_until(SECOND * 600, |bench| bench.has_taken(&free));
    assert!(bench.has_taken(&free), "{:?}", bench.taken);
    assert_eq!(bench.buried, [1]);
    bench.breaks.clear();
    bench.pass(SECOND * 31);
    bench.judge_order();
    assert_eq!(bench.window.checkpoint().0, 20);
}

/// It may be taken yet.
#[test]
fn no_witness_passes_one_of_its_key_at_which_the_endpoint_breaks() {
    let mut bench = Bench::new(ONE_LANE, Config::default(), [2]);
    bench.refuses = (1..=11).filter(|number| *number != 2).collect();
    bench.log(12);
    bench.pass(SECOND * 3600);
    assert_eq!(bench.taken, [0; 0]);
    bench.breaks.clear();
    bench.pass(SECOND * 600);
    assert_eq!((&bench.taken[..], bench.buried.len()), (&[2, 12][..], 10));
}

/// That the endpoint once broke at it, in an outage perhaps, is no reason for ever to let none of its key pass it.
#[test]
fn a_witness_passes_one_of_its_key_that_is_refused_by_now() {
    let mut bench = Bench::new(ONE_LANE, Config::default(), [2]);
    bench.refuses = (1..=11).filter(|number| *number != 2).collect();
    bench.log(12);
    bench.pass(SECOND * 600);
    assert_eq!(bench.taken, [0; 0]);
    bench.breaks.clear();
    bench.refuses.insert(2);
    bench.pass(SECOND * 1800);
    assert_eq!((&bench.taken[..], bench.buried.len()), (&[12][..], 11));
}

/// An endpoint that fails upon everything, for ten hours: as many requests as before there was any halving, one at a time,
/// and few small ones after it.
#[test]
fn an_outage_is_probed_as_ever_and_ends_at_once() {
    for (limits, config, backlog) in
        [(ONE_LANE, Config::default(), 20_000), (ALONE, Config::default(), 2000), (ONE_LANE, relaxed(), 20_000)]
    {
        let mut bench = Bench::new(limits, config.clone(), []);
        for _ in 0..20 {
            bench.log(backlog / 100);
            bench.pass(SECOND);
        }
        let (before, began) = (bench.answered.len(), bench.now);
        bench.outage = Some(FailureKind::EndpointFailed);
        bench.log(backlog);
        bench.pass(SECOND * 36_000);
        let probes = &bench.answered[before..];
        assert!(probes.iter().all(|probe| probe.failed));
        let later = probes.iter().skip_while(|probe| probe.sent < began + SECOND).collect::<Vec<_>>();
        for pair in later.windows(2) {
            let wait = pair[1].sent.saturating_sub(pair[0].sent + LATENCY);
            assert!(pair[1].sent >= pair[0].sent + LATENCY && wait <= SECOND * 30, "{pair:?}");
        }
        assert!((1000..3000).contains(&probes.len()), "{} requests in ten hours", probes.len());
        let small = bench.window.entries.iter().filter(|(_, entry)| entry.fault.is_found()).count();
        assert!(small <= 40, "{small} records were set apart");

        bench.outage = None;
        let (before, ended) = (bench.answered.len(), bench.now);
        let all = bench.head as usize;
        bench.pass_until(SECOND * 120, |bench| bench.taken.len() == all);
        assert_eq!(bench.taken.len(), all);
        let first = bench.answered[before].sent - ended;
        assert!(first <= SECOND * 30, "{first:?} until the first request");
        let took = bench.now - ended - first;
        assert!(took <= SECOND * 60, "{took:?} for the rest");
        let requests: Vec<_> = bench.answered[before..].iter().map(|request| request.records).collect();
        let full = if limits == ALONE { KEYS as usize } else { 1000 };
        let small = requests.iter().filter(|records| **records < full / 2).count();
        assert!(small <= 100 && requests.iter().any(|records| *records >= full), "{requests:?}");
        if config.ordering == Ordering::Strict {
            bench.judge_order();
        }
    }
}

/// Many records that fail alone rather speak for an outage than for themselves.
#[test]
fn many_records_at_fault_are_not_tried_side_by_side() {
    let mut bench = Bench::new(ALONE, Config::default(), (1..=9).map(|n| 10 * n + n));
    for _ in 0..20 {
        bench.log(10);
        bench.pass(SECOND * 60);
    }
    assert_eq!(bench.window.held().failing, 9, "{:?} {:?}", bench.window.link(), bench.window.suspects);
    assert!(bench.has_taken(&bench.free()));
    bench.outage = Some(FailureKind::EndpointFailed);
    let before = bench.answered.len();
    bench.pass(SECOND * 3600);
    let requests = bench.answered.len() - before;
    assert!((100..800).contains(&requests), "{requests} requests in an hour");
    bench.outage = None;
    bench.log(10);
    let free = bench.free();
    bench.pass_until(SECOND * 61, |bench| bench.has_taken(&free));
    assert!(bench.has_taken(&free));
}

/// A request that is kept together is no reason to hurry when the link is gone.
#[test]
fn what_is_kept_together_waits_for_a_link_that_went_away_like_everything_else() {
    let mut bench = Bench::new(ALONE, Config::default(), [1]);
    bench.log(1);
    bench.pass_until(SECOND, |bench| bench.answered.len() == 1);
    bench.log(1);
    bench.pass_until(SECOND * 60, |bench| bench.taken == [2]);
    assert_eq!(bench.taken, [2], "others pass");
    bench.outage = Some(FailureKind::Refused);
    let before = bench.answered.len();
    bench.pass(SECOND * 60);
    let requests = bench.answered.len() - before;
    assert!((60..600).contains(&requests), "{requests} requests in a minute");
}

/// Where each byte is paid for. What makes them fail, or be throttled, may last for hours; when it is over for one of them, it is
/// soon known of the others.
#[test]
fn what_answers_do_not_take_for_long_is_asked_for_ever_more_rarely_until_one_of_them_is_taken() {
    for throttled in [false, true] {
        let config = Config { max_backoff: SECOND * 3600, ..Config::default() };
        let mut bench = Bench::new(ALONE, config, []);
        let faults = if throttled { &mut bench.throttles } else { &mut bench.fails };
        faults.extend([4, 5]);
        bench.log(10);
        bench.pass(SECOND * 60);
        let soon = bench.answered.len();
        assert!(soon > 20, "{soon} requests in the first minute");
        let more = bench.others_pass_for_ten_hours();
        assert!(more < 300, "{throttled}: {more} requests more");
        bench.fails.clear();
        bench.throttles.clear();
        bench.pass_until(SECOND * 3600, |bench| bench.taken.contains(&4) || bench.taken.contains(&5));
        let first = bench.now;
        bench.pass_until(SECOND * 3600, |bench| bench.taken.contains(&4) && bench.taken.contains(&5));
        assert!(bench.now - first <= SECOND * 6, "{throttled}: {:?} for the other", bench.now - first);
        bench.pass(SECOND * 60);
        bench.judge_order();
        assert_eq!(bench.window.checkpoint().0, bench.head);
    }
}

/// As a shard does that takes nothing while others do.
#[test]
fn a_lane_that_is_throttled_for_long_is_asked_for_ever_more_rarely() {
    let config = Config { max_backoff: SECOND * 3600, ..Config::default() };
    let mut bench = Bench::new(ONE_LANE, config, []);
    bench.by_key = true;
    bench.throttles.insert(4);
    bench.log(10);
    let requests = bench.others_pass_for_ten_hours();
    assert!((20..300).contains(&requests), "{requests} requests");
    bench.throttles.clear();
    bench.pass(SECOND * 3610);
    bench.judge_order();
    assert_eq!(bench.window.checkpoint().0, bench.head);
}

/// What a witness's answer says is judged by what was said of it before, and known afterwards.
#[test]
fn that_a_witness_failed_in_an_answer_is_not_forgotten() {
    let mut bench = Bench::new(ALONE, Config::default(), []);
    bench.fails.insert(1);
    bench.log(11);
    bench.pass(SECOND * 10);
    assert_eq!(bench.taken.len(), 9);
    bench.fails = [11].into();
    bench.refuses.insert(1);
    // They have no other to be compared with, so that the one behind is a witness.
    let witnesses = Cell::new(0);
    while witnesses.get() == 0 {
        bench.drive_asking(|window, _, batch| {
            let is_witness = window.in_flight[&batch.id].witness;
            witnesses.set(witnesses.get() + u64::from(is_witness));
        });
        let now = bench.now;
        bench.pass_until(SECOND, |bench| bench.now > now);
        assert!(bench.now < SECOND * 600);
    }
    bench.pass_until(SECOND, |bench| bench.under_way.is_empty());
    bench.log(1);
    bench.pass_until(SECOND * 120, |bench| bench.buried == [1]);
    assert_eq!((&bench.buried[..], bench.window.link()), (&[1][..], &Link::Up));
    bench.pass_until(SECOND * 30, |bench| bench.window.link() != &Link::Up);
    assert_eq!((bench.window.link(), bench.taken.len()), (&Link::Up, 10), "the endpoint takes others");
}

/// Where records share parcels, all of them fail with one; nothing says which it is.
#[test]
fn a_record_that_fails_in_answers_is_found_in_its_parcel() {
    for (lanes, busy, config) in [
        (1, false, Config::default()),
        (2, false, Config::default()),
        (2, true, Config::default()),
        (1, false, relaxed()),
        (1, true, relaxed()),
    ] {
        let mut bench = Bench::new(ONE_LANE, config, []);
        bench.lanes = lanes;
        bench.fails.insert(57);
        bench.log(200);
        if busy {
            for _ in 0..300 {
                bench.log(10);
                bench.pass(SECOND / 10);
            }
        }
        let free = bench.free();
        bench.pass_until(SECOND * 120, |bench| bench.has_taken(&free));
        let said = format!("{lanes} {busy}: {} of {} taken, {:?}", bench.taken.len(), free.len(), bench.told);
        assert!(bench.has_taken(&free), "{said}");
        // Others show that it is its own fault, if that is not known yet.
        bench.log(10);
        bench.pass(SECOND * 60);
        assert_eq!((bench.window.held().failing, bench.window.link()), (1, &Link::Up), "{said}");
        assert!(bench.told.contains(&News::Failing(1)), "{said}");
        bench.fails.clear();
        bench.pass(SECOND * 31);
        bench.drive();
        let head = bench.head;
        assert_eq!((bench.taken.len() as u64, bench.window.checkpoint().0), (head, head), "{said}");
        assert_eq!(bench.window.held().failing, 0);
        if bench.window.config.ordering == Ordering::Strict {
            bench.judge_order();
        }
    }
}

/// One record that is refused, and nothing comes that it could be compared with: it is not given up, and a person hears why nothing
/// arrives.
#[test]
fn that_a_record_is_refused_with_no_other_to_compare_it_with_is_told() {
    for (limits, before) in [ALONE, ONE_LANE].into_iter().flat_map(|limits| [(limits, 0), (limits, 10)]) {
        let mut bench = Bench::new(limits, Config::default(), []);
        bench.log(before);
        bench.pass(SECOND);
        bench.refuses.insert(before + 1);
        bench.log(1);
        bench.pass(SECOND * 3600);
        assert_eq!((&bench.told[..], &bench.buried[..]), (&[News::Down(FailureKind::RequestInvalid)][..], &[][..]));
        let Link::Down(down) = bench.window.link() else { panic!("status shows it") };
        assert!(down.kind == FailureKind::RequestInvalid && !down.doubtful);
        bench.log(1);
        bench.pass(SECOND * 60);
        assert_eq!((bench.taken.len() as u64, &bench.buried[..]), (before + 1, &[before + 1][..]));
        assert!(matches!(bench.told[..], [_, News::Up(_)]), "{:?}", bench.told);
    }
}
