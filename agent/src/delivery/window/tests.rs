//! What the simulation does not tell by name.

use std::collections::HashSet;

use super::*;
use crate::{
    delivery::config::Ordering,
    destination::RecordOutcome,
    sample::{LIMITS, plain},
};

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// A window, the log it reads from, and everything it said.
struct Bench {
    window: Window,
    log: VecDeque<Record>,
    now: Duration,
    sent: VecDeque<Batch>,
    buried: Vec<DeadLetter>,
    next: u64,
}

impl Bench {
    fn new(config: Config) -> Self {
        Self::with_limits(config, LIMITS)
    }

    fn with_limits(config: Config, limits: Limits) -> Self {
        Self {
            window: Window::new(&config, &limits, SequenceNumber::ZERO, &Finished::default(), 7),
            log: VecDeque::new(),
            now: Duration::ZERO,
            sent: VecDeque::new(),
            buried: Vec::new(),
            next: 1,
        }
    }

    fn strict() -> Self {
        Self::new(Config::default())
    }

    /// Gives the pace time to find out that the link is fast.
    fn warmed_up(mut self) -> Self {
        for round in 0..20 {
            self.log(&[&format!("warm-{round}")]);
            self.after(ms(1000));
            self.accept_all();
        }
        self.after(ms(1000));
        assert_eq!((self.window.held().records, self.window.counts().records), (0, 20));
        self
    }

    fn log(&mut self, keys: &[&str]) {
        for key in keys {
            self.log.push_back(Record { sequence_number: SequenceNumber(self.next), ..plain(key, vec![7; 100]) });
            self.next += 1;
        }
        self.window.on_commit();
    }

    fn after(&mut self, time: Duration) {
        self.now += time;
        self.drive();
    }

    /// Does what the window says until it waits.
    fn drive(&mut self) -> Option<Duration> {
        loop {
            match self.window.next(self.now) {
                Step::Read(Piece { limit, .. }) => {
                    let records = self.log.drain(..limit.records.min(self.log.len())).collect();
                    self.window.on_read(fresh(records), |record| Ok(Place::of_key(record)), self.now);
                }
                Step::Send(batch) => self.sent.push_back(batch),
                Step::StoreDeadLetters(letters) => {
                    self.buried.extend(letters);
                    self.window.on_dead_letters(true, self.now);
                }
                Step::TakeMap => self.window.on_map(|record| Ok(Place::of_key(record)), self.now),
                Step::Save(_) | Step::SaveFinished(_) | Step::TellExpired(_) | Step::Tell(_) => {}
                Step::Wait(until) => return until,
                Step::Stopped => return None,
            }
        }
    }

    fn outcome(&mut self, outcome: impl FnOnce(&Batch) -> Outcome) {
        let batch = self.sent.pop_front().expect("a request under way");
        let outcome = outcome(&batch);
        self.window.on_outcome(batch.id, outcome, self.now);
        self.drive();
    }

    fn accept_all(&mut self) {
        while !self.sent.is_empty() {
            self.outcome(|batch| Outcome::Answered(vec![RecordOutcome::Accepted; batch.parcels.len()]));
        }
    }

    fn fail(&mut self, kind: FailureKind) {
        self.outcome(|_| failed(kind, None));
    }

    fn under_way(&self) -> Vec<usize> {
        self.sent.iter().map(|batch| batch.parcels.len()).collect()
    }
}

/// What a read gave, all of it new.
fn fresh(records: Vec<Record>) -> Found {
    let reached = records.last().map(|record| record.sequence_number);
    Found { records: records.into_iter().map(|record| (Arc::new(record), Duration::ZERO)).collect(), reached }
}

fn failed(kind: FailureKind, retry_after: Option<Duration>) -> Outcome {
    Outcome::Failed(Failure { kind, message: "it failed".to_owned(), retry_after })
}

fn distinct(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("key-{n}")).collect()
}

fn refs(keys: &[String]) -> Vec<&str> {
    keys.iter().map(String::as_str).collect()
}

#[test]
fn the_first_record_after_a_pause_leaves_at_once_and_the_next_ones_gather() {
    let mut bench = Bench::strict().warmed_up();
    bench.log(&["a"]);
    bench.drive();
    assert_eq!(bench.under_way(), [1]);
    bench.accept_all();
    for key in ["b", "c", "d"] {
        bench.after(ms(10));
        bench.log(&[key]);
        bench.drive();
        assert!(bench.sent.is_empty());
    }
    bench.after(ms(69));
    assert!(bench.sent.is_empty());
    bench.after(ms(1));
    assert_eq!(bench.under_way(), [3], "a batch age after the last request");
}

#[test]
fn a_full_request_does_not_wait() {
    let mut bench = Bench::strict().warmed_up();
    bench.log(&refs(&distinct(1200)));
    bench.drive();
    assert_eq!(bench.under_way(), [500, 500]);
    bench.after(ms(100));
    assert_eq!(bench.under_way(), [500, 500, 200]);
}

#[test]
fn few_keys_send_as_soon_as_their_turn_comes_and_status_says_that_order_limits() {
    let mut bench = Bench::strict().warmed_up();
    let keys: Vec<_> = (0..400).map(|n| ["a", "b", "c", "d"][n % 4]).collect();
    bench.log(&keys);
    bench.drive();
    for _ in 0..50 {
        assert_eq!(bench.under_way(), [4], "one of each key");
        bench.after(ms(20));
        bench.accept_all_once();
    }
    assert!(bench.window.held().limited_by_key_order);
    while !bench.sent.is_empty() {
        bench.accept_all_once();
    }
    assert!(!bench.window.held().limited_by_key_order, "nothing waits any more");
}

impl Bench {
    fn accept_all_once(&mut self) {
        for _ in 0..self.sent.len() {
            self.outcome(|batch| Outcome::Answered(vec![RecordOutcome::Accepted; batch.parcels.len()]));
        }
    }
}

#[test]
fn many_keys_are_not_said_to_be_limited_by_their_order() {
    let mut bench = Bench::strict().warmed_up();
    bench.log(&refs(&distinct(5000)));
    bench.drive();
    bench.accept_all();
    assert!(!bench.window.held().limited_by_key_order);
}

#[test]
fn a_throttled_key_waits_and_the_others_go_on() {
    let mut bench = Bench::strict().warmed_up();
    bench.log(&["a", "b", "a", "b"]);
    bench.drive();
    bench.outcome(|batch| {
        assert_eq!(batch.parcels.len(), 2);
        Outcome::Answered(vec![RecordOutcome::Throttled("slower".to_owned()), RecordOutcome::Accepted])
    });
    bench.after(ms(100));
    let keys: Vec<_> = bench.sent.iter().flat_map(Batch::records).map(|r| &*r.partition_key).collect();
    assert!(keys.contains(&"b"), "{keys:?}");
    assert_eq!(*bench.window.link(), Link::Up);
    assert_eq!(bench.window.counts().throttled_records, 1);
}

#[test]
fn an_unreachable_endpoint_is_probed_by_one_request_at_least_every_second() {
    let mut bench = Bench::strict().warmed_up();
    bench.log(&refs(&distinct(3000)));
    bench.drive();
    while !bench.sent.is_empty() {
        bench.fail(FailureKind::Unreachable);
    }
    let mut probes = 0;
    while bench.now < Duration::from_secs(600) {
        let until = bench.drive();
        if bench.sent.is_empty() {
            let until = until.expect("another probe");
            assert!(until <= bench.now + ms(1000));
            bench.now = until;
        } else {
            assert_eq!(bench.sent.len(), 1);
            probes += 1;
            bench.fail(FailureKind::Unreachable);
        }
    }
    assert!((600..3000).contains(&probes), "{probes} probes in ten minutes");
    if let Some(until) = bench.drive() {
        bench.after(until - bench.now);
    }
    bench.accept_all();
    assert_eq!(bench.window.counts().records, 3020, "the first success ends all waiting");
}

#[test]
fn an_endpoint_that_asks_for_time_gets_it_but_not_for_ever() {
    for (asked, until) in [(7, 7), (86_400, 300)] {
        let mut bench = Bench::strict();
        bench.log(&["a"]);
        bench.drive();
        bench.outcome(|_| failed(FailureKind::Throttled, Some(Duration::from_secs(asked))));
        assert_eq!(bench.drive(), Some(Duration::from_secs(until)));
    }
}

#[test]
fn backoff_stays_under_its_maximum() {
    let mut bench = Bench::new(Config { max_backoff: Duration::from_secs(4), ..Config::default() });
    bench.log(&["a"]);
    let mut longest = Duration::ZERO;
    for _ in 0..200 {
        let until = bench.drive();
        match bench.sent.is_empty() {
            true => {
                let until = until.expect("another attempt");
                longest = longest.max(until - bench.now);
                bench.now = until;
            }
            false => bench.fail(FailureKind::CredentialsRefused),
        }
    }
    assert!(longest <= Duration::from_secs(4) && longest > Duration::from_secs(3), "{longest:?}");
}

#[test]
fn a_refused_record_is_found_and_buried_and_everything_else_arrives() {
    let mut bench = Bench::strict().warmed_up();
    let began = bench.now;
    bench.log(&refs(&distinct(2000)));
    bench.drive();
    for _ in 0..200 {
        if bench.sent.is_empty() {
            let Some(until) = bench.drive().filter(|_| bench.window.held().records > 0) else { break };
            bench.now = until;
            bench.drive();
            continue;
        }
        bench.outcome(|batch| match batch.records().any(|record| &*record.partition_key == "key-777") {
            true => failed(FailureKind::RequestInvalid, None),
            false => Outcome::Answered(vec![RecordOutcome::Accepted; batch.parcels.len()]),
        });
    }
    assert_eq!(bench.window.held().records, 0);
    assert_eq!(bench.window.counts().records, 2019);
    let [letter] = &bench.buried[..] else { panic!("{} buried", bench.buried.len()) };
    assert_eq!((&*letter.record.partition_key, &*letter.reason), ("key-777", "it failed"));
    let took = bench.now - began;
    assert!(took < Duration::from_secs(4), "found after {took:?}");
    let requests = bench.window.counts().failed_requests[FailureKind::RequestInvalid.index()];
    assert!(requests <= 12, "{requests} refused requests to find one of 500");
}

#[test]
fn an_endpoint_that_refuses_everything_gets_no_dead_letters_and_few_requests() {
    let mut bench = Bench::strict();
    bench.log(&refs(&distinct(5000)));
    let mut requests = 0;
    while bench.now < Duration::from_secs(3600) {
        let until = bench.drive();
        if bench.sent.is_empty() {
            bench.now = until.expect("another attempt");
        } else {
            requests += bench.sent.len();
            bench.fail(FailureKind::RequestInvalid);
        }
    }
    assert!(bench.buried.is_empty());
    assert!(requests < 1000, "{requests} requests in an hour");
    let mut spent = 0;
    while bench.window.held().records > 0 {
        let until = bench.drive();
        match bench.sent.is_empty() {
            true => bench.now = until.expect("another attempt"),
            false => bench.accept_all(),
        }
        spent += 1;
        assert!(spent < 10_000);
    }
    assert_eq!(bench.window.counts().records, 5000);
}

#[test]
fn a_dead_letter_that_cannot_be_stored_keeps_no_other_from_it() {
    let mut bench = Bench::strict();
    bench.log(&refs(&distinct(5)));
    let mut tried = Vec::new();
    while bench.window.counts().dead_letters < 4 {
        match bench.window.next(bench.now) {
            Step::Read(Piece { limit, .. }) => {
                let records = bench.log.drain(..limit.records.min(bench.log.len())).collect();
                bench.window.on_read(fresh(records), |_| Err("too large".to_owned()), bench.now);
            }
            Step::StoreDeadLetters(letters) => {
                tried.push(letters.len());
                let durable = letters.iter().all(|letter| &*letter.record.partition_key != "key-0");
                bench.window.on_dead_letters(durable, bench.now);
            }
            Step::Wait(until) => bench.now = until.expect("another attempt"),
            step => assert!(matches!(step, Step::Save(_)), "{step:?}"),
        }
        assert!(tried.len() < 20, "{tried:?}");
    }
    assert_eq!(tried[..2], [5, 1], "together, then one by one");
    assert_eq!(bench.window.held().records, 1, "it is still to be stored");
}

#[test]
fn relaxed_order_counts_what_a_failure_put_behind_a_later_one() {
    let mut bench = Bench::new(Config { ordering: Ordering::Relaxed, ..Config::default() });
    bench.log(&["a", "a", "a", "b"]);
    bench.drive();
    assert_eq!(bench.under_way(), [4], "as many of a key as fit");
    bench.outcome(|_| {
        let slower = RecordOutcome::Throttled("slower".to_owned());
        Outcome::Answered(vec![slower, RecordOutcome::Accepted, RecordOutcome::Accepted, RecordOutcome::Accepted])
    });
    bench.after(ms(600));
    bench.accept_all();
    assert_eq!(bench.window.held().records, 0);
    assert_eq!(bench.window.counts().out_of_order, 1);
}

#[test]
fn stopping_waits_for_what_is_under_way_and_saves() {
    let mut bench = Bench::strict().warmed_up();
    bench.log(&refs(&distinct(600)));
    bench.drive();
    assert_eq!(bench.under_way(), [500]);
    bench.window.stop();
    assert!(matches!(bench.window.next(bench.now), Step::Wait(_)));
    let batch = bench.sent.pop_front().expect("under way");
    bench.window.on_outcome(batch.id, Outcome::Answered(vec![RecordOutcome::Accepted; 500]), bench.now);
    assert!(matches!(bench.window.next(bench.now), Step::Save(SequenceNumber(520))));
    assert!(matches!(bench.window.next(bench.now), Step::Stopped), "100 ready records are left for the next start");
}

/// Records cost the same whether they have a key each or all the same one. Counted, since time tells of the machine as well.
#[test]
fn the_cost_of_a_record_does_not_grow_with_the_records_of_its_key() {
    let keys = distinct(20_000);
    for (name, records_of_a_key) in [("distinct", 1), ("four keys", 5000), ("one key", 20_000)] {
        let mut bench = Bench::strict().warmed_up();
        let keys: Vec<_> = (0..keys.len()).map(|n| keys[n / records_of_a_key].as_str()).collect();
        bench.log(&keys);
        let before = bench.window.entries.looks();
        bench.drive();
        while bench.window.held().records > 0 {
            bench.accept_all_once();
            bench.now += ms(1);
            bench.drive();
        }
        let each = (bench.window.entries.looks() - before) / 20_000;
        eprintln!("{name}: {each} looks at entries per record, {} requests", bench.window.counts().requests);
        // A scan of the window would be thousands.
        assert!(each < 60, "{name}: {each} looks at entries per record");
    }
}

/// Records that came while a request was under way.
fn tried_again(keeps_requests: bool, kind: FailureKind) -> (Vec<u64>, Vec<u64>) {
    let numbers = |batch: &Batch| batch.records().map(|record| record.sequence_number.0).collect::<Vec<_>>();
    let limits = Limits { parcel_records: 100, keeps_requests, ..LIMITS };
    let mut bench = Bench::with_limits(Config::default(), limits).warmed_up();
    bench.log(&["a", "b"]);
    bench.drive();
    let first = numbers(&bench.sent[0]);
    bench.log(&["a", "c"]);
    bench.fail(kind);
    while bench.sent.is_empty() {
        bench.after(ms(500));
    }
    (first, numbers(&bench.sent[0]))
}

#[test]
fn a_request_that_failed_takes_newer_records_along_unless_the_other_side_is_to_know_it_again() {
    for kind in [FailureKind::Refused, FailureKind::TimedOut, FailureKind::Throttled, FailureKind::EndpointFailed] {
        let (first, again) = tried_again(true, kind);
        assert_eq!(first, again, "{kind:?}");
    }
    let (first, again) = tried_again(false, FailureKind::Refused);
    assert!(again.len() > first.len() && first.iter().all(|number| again.contains(number)), "{first:?} {again:?}");
}

/// How long it takes until every good record is accepted, at an endpoint that answers after 50 ms, and refuses each request with a bad
/// one in it. One in `bad` is.
fn time_to_the_last_good_one(limits: Limits, records: u64, keys: u64, bad: u64) -> Duration {
    let mut dice = Rng::with_seed(5);
    let keys: Vec<_> = (0..records).map(|_| format!("key-{}", dice.u64(..keys))).collect();
    let bad: HashSet<_> = (1..=records).filter(|_| dice.u64(..bad) == 0).map(SequenceNumber).collect();
    let mut bench = Bench::with_limits(Config::default(), limits);
    bench.log(&refs(&keys));
    let mut due = VecDeque::new();
    while bench.window.counts().records < records - bad.len() as u64 {
        let wake = bench.drive();
        while due.len() < bench.sent.len() {
            due.push_back(bench.now + ms(50));
        }
        let answer = due.front().copied();
        bench.now = answer.into_iter().chain(wake).min().expect("it never waits for nothing").max(bench.now);
        if answer.is_some_and(|answer| answer <= bench.now) {
            due.pop_front();
            bench.outcome(|batch| {
                if batch.records().any(|record| bad.contains(&record.sequence_number)) {
                    failed(FailureKind::RequestInvalid, None)
                } else {
                    Outcome::Answered(vec![RecordOutcome::Accepted; batch.parcels.len()])
                }
            });
        }
        assert!(bench.now < Duration::from_secs(3600), "{:?} of {records}", bench.window.counts());
    }
    assert!(bench.buried.iter().all(|letter| bad.contains(&letter.record.sequence_number)));
    bench.now
}

#[test]
fn bad_records_are_found_in_seconds_although_the_endpoint_says_only_that_something_is_wrong() {
    let parcels = Limits { parcel_records: 10_000, parcel_bytes: 250_000, ..LIMITS };
    for (limits, keys, bad, seconds) in [(LIMITS, 1000, 100, 10), (LIMITS, 1000, 20, 20), (parcels, 4, 100, 30)] {
        let took = time_to_the_last_good_one(limits, 2000, keys, bad);
        assert!(took < Duration::from_secs(seconds), "{keys} keys, one bad in {bad}: {took:?}");
    }
}
