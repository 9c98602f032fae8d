//! Leaps, gaps and expiry, by name.

use super::*;
use crate::{
    delivery::config::{CatchUp, Ordering},
    destination::RecordOutcome,
    sample::{self, plain},
};

const LIMITS: Limits = Limits { request_records: 10, request_bytes: 1 << 20, ..sample::LIMITS };

const SECOND: Duration = Duration::from_secs(1);

/// A window over a log of records 1 to `head`, and a link that takes one request at a time.
struct Bench {
    window: Window,
    head: u64,
    /// The key of a record, and how large it is. A key of its own, else.
    record: fn(u64) -> (String, usize),
    /// All are that old.
    age: Duration,
    now: Duration,
    under_way: Option<Batch>,
    finished: Vec<Finished>,
    told: Vec<Expired>,
}

impl Bench {
    fn new(catch_up: CatchUp, head: u64) -> Self {
        Self::with(
            Config { catch_up, window_records: 100, in_flight: 1, ..Config::default() },
            &Finished::default(),
            head,
        )
    }

    fn with(config: Config, finished: &Finished, head: u64) -> Self {
        let window = Window::new(&config, &LIMITS, SequenceNumber::ZERO, finished, 7);
        let (age, now) = (Duration::ZERO, Duration::ZERO);
        let record = |number: u64| (number.to_string(), 100);
        Self { window, head, record, age, now, under_way: None, finished: Vec::new(), told: Vec::new() }
    }

    /// Does what the window says; gives the numbers that it sends, if it does.
    fn sent(&mut self) -> Vec<u64> {
        self.window.on_extent(SequenceNumber(1), SequenceNumber(self.head + 1));
        loop {
            match self.window.next(self.now) {
                Step::Read(piece) => self.read(piece),
                Step::Send(batch) => {
                    let numbers = batch.records().map(|record| record.sequence_number.0).collect();
                    assert!(self.under_way.replace(batch).is_none(), "one at a time");
                    return numbers;
                }
                Step::SaveFinished(finished) => {
                    self.finished.push(finished);
                    self.window.on_finished_saved(true);
                }
                Step::TellExpired(expired) => self.told.push(expired),
                Step::Save(_) | Step::Tell(_) => {}
                Step::Wait(_) | Step::Stopped => return Vec::new(),
                step => panic!("{step:?}"),
            }
        }
    }

    fn read(&mut self, Piece { from, limit, .. }: Piece) {
        let last = self.head.min(from.0 + limit.records as u64 - 1);
        let record = |number: u64| {
            let (key, bytes) = (self.record)(number);
            Record { sequence_number: SequenceNumber(number), ..plain(&key, vec![7; bytes]) }
        };
        let records: Vec<_> = (from.0..=last).map(|number| (Arc::new(record(number)), self.age)).collect();
        let reached = records.last().map(|(record, _)| record.sequence_number);
        self.window.on_read(Found { records, reached }, |record| Ok(Place::of_key(record)), self.now);
    }

    fn answer(&mut self, outcome: impl FnOnce(usize) -> Outcome) {
        // Meanwhile it reads.
        assert_eq!(self.sent(), [0; 0], "one at a time");
        let batch = self.under_way.take().expect("a request under way");
        self.now += Duration::from_millis(100);
        self.window.on_outcome(batch.id, outcome(batch.parcels.len()), self.now);
    }

    fn accept(&mut self) {
        self.answer(|parcels| Outcome::Answered(vec![RecordOutcome::Accepted; parcels]));
    }

    fn fail(&mut self) {
        let message = "no link".to_owned();
        self.answer(|_| Outcome::Failed(Failure { kind: FailureKind::NoRoute, message, retry_after: None }));
    }

    fn commit(&mut self, records: u64) {
        self.head += records;
        self.window.on_commit();
    }
}

fn numbers(range: std::ops::RangeInclusive<u64>) -> Vec<u64> {
    range.collect()
}

#[test]
fn newest_first_begins_with_the_newest_request_and_fills_the_gap_from_its_oldest() {
    let mut bench = Bench::new(CatchUp::NewestFirst, 1000);
    assert_eq!(bench.sent(), numbers(991..=1000));
    bench.accept();
    assert_eq!(bench.sent(), numbers(1..=10));
    // What comes in leaves with the next request, and the gap gets what is left of it.
    bench.commit(4);
    bench.accept();
    assert_eq!(bench.sent(), [numbers(1001..=1004), numbers(11..=16)].concat());
    bench.accept();
    for first in (17..991).step_by(10) {
        assert_eq!(bench.sent(), numbers(first..=(first + 9).min(990)));
        bench.accept();
    }
    assert_eq!(bench.sent(), [0; 0]);
    assert_eq!((bench.window.checkpoint(), bench.window.counts().records), (SequenceNumber(1004), 1004));
}

#[test]
fn oldest_first_never_leaps() {
    let mut bench = Bench::new(CatchUp::OldestFirst, 1000);
    for first in (1..1000).step_by(10) {
        assert_eq!(bench.sent(), numbers(first..=first + 9));
        bench.accept();
    }
    assert!(bench.finished.is_empty(), "the checkpoint says it all");
}

#[test]
fn an_outage_is_leapt_over_when_it_ends_and_what_was_read_goes_back_to_the_log() {
    let mut bench = Bench::new(CatchUp::NewestFirst, 5);
    assert_eq!(bench.sent(), numbers(1..=5));
    bench.fail();
    bench.commit(395);
    assert_eq!(bench.sent(), [0; 0]);
    assert_eq!(bench.window.held().records, 100, "no more than a window is read");
    bench.now += SECOND;
    assert_eq!(bench.sent(), numbers(1..=10), "a probe");
    bench.accept();
    assert_eq!(bench.sent(), numbers(391..=400));
    assert!(bench.window.held().records <= 60, "half of it at the most is of the gap");
    bench.accept();
    assert_eq!(bench.sent(), numbers(11..=20));
}

#[test]
fn a_link_that_is_too_slow_leaps_when_the_live_records_are_late() {
    let mut bench = Bench::new(CatchUp::NewestFirst, 0);
    let mut lag_max = 0;
    assert_eq!(bench.sent(), [0; 0]);
    // Twenty records a second come in, and ten leave.
    for second in 0..300 {
        bench.commit(20);
        let sent = bench.sent();
        lag_max = lag_max.max(bench.head - sent.last().expect("there is always something"));
        bench.now += SECOND - Duration::from_millis(100);
        bench.accept();
        assert!(second > 5 || bench.window.unfinished().gaps.is_empty());
    }
    let gaps = bench.window.unfinished().gaps;
    assert!(gaps.len() > 3 && gaps.len() < 12, "{gaps:?}");
    assert!(lag_max < 1500, "{lag_max} records behind the head, of {}", bench.head);
}

#[test]
fn there_is_a_bound_of_gaps_and_then_they_get_their_share() {
    let between = (0..64).map(|n| (SequenceNumber(100 * n + 51), SequenceNumber(100 * n + 100))).collect();
    let finished = Finished { between, ..Finished::default() };
    let config = Config { catch_up: CatchUp::NewestFirst, window_records: 100, in_flight: 1, ..Config::default() };
    let mut bench = Bench::with(config, &finished, 7000);
    assert_eq!(bench.window.unfinished().gaps.len(), 64);
    let mut gaps = 0;
    for _ in 0..12 {
        gaps += bench.sent().iter().filter(|number| **number <= 6400).count();
        bench.accept();
    }
    assert!((50..=70).contains(&gaps), "{gaps} of 120");
    assert_eq!(bench.window.unfinished().gaps.len(), 64, "one was filled, and one was leapt over");
}

#[test]
fn split_sends_half_of_each() {
    let mut bench = Bench::new(CatchUp::Split, 10_000);
    let mut of = [0; 2];
    // Not so many that it leaps again.
    for _ in 0..40 {
        bench.commit(8);
        let sent = bench.sent();
        of[usize::from(sent[0] > 9_900)] += sent.len();
        bench.accept();
    }
    assert!(of.iter().all(|records| (170..=230).contains(records)), "{of:?}");
}

/// What is finished does not change while nothing passes, and is not written again, though there is a gap.
#[test]
fn nothing_is_saved_while_nothing_is_finished() {
    let mut bench = Bench::new(CatchUp::NewestFirst, 1000);
    for _ in 0..30 {
        bench.sent();
        bench.accept();
    }
    bench.sent();
    bench.answer(|_| {
        Outcome::Failed(Failure { kind: FailureKind::Misconfigured, message: "gone".to_owned(), retry_after: None })
    });
    bench.now += 20 * SECOND;
    bench.sent();
    let saved = bench.finished.len();
    assert!(saved > 0 && !bench.window.unfinished().gaps.is_empty());
    for _ in 0..360 {
        bench.now += 10 * SECOND;
        bench.sent();
        if bench.under_way.is_some() {
            bench.answer(|_| {
                Outcome::Failed(Failure {
                    kind: FailureKind::Misconfigured,
                    message: "gone".to_owned(),
                    retry_after: None,
                })
            });
        }
    }
    assert_eq!(bench.finished.len(), saved);
}

#[test]
fn what_was_finished_ahead_is_saved_and_not_sent_again() {
    let mut bench = Bench::new(CatchUp::NewestFirst, 1000);
    for _ in 0..30 {
        bench.sent();
        bench.accept();
    }
    bench.window.stop();
    bench.sent();
    let finished = bench.finished.last().expect("saved").clone();
    let range = |first, last| (SequenceNumber(first), SequenceNumber(last));
    assert_eq!((&finished.between[..], &finished.inside[..]), (&[range(0, 290), range(991, 1000)][..], &[][..]));
    assert!(bench.finished.len() <= 4, "once a second: {:?}", bench.finished);
    let config = Config { catch_up: CatchUp::OldestFirst, in_flight: 1, ..Config::default() };
    let mut bench = Bench::with(config, &finished, 1010);
    let mut sent = Vec::new();
    while bench.window.counts().records < 710 {
        sent.extend(bench.sent());
        bench.accept();
    }
    bench.sent();
    assert_eq!(sent, [numbers(291..=990), numbers(1001..=1010)].concat());
    assert_eq!(bench.window.checkpoint(), SequenceNumber(1010));
}

#[test]
fn records_expire_while_they_are_read_while_they_wait_and_not_under_way() {
    let config = Config { max_age: Some(10 * SECOND), window_records: 100, in_flight: 1, ..Config::default() };
    let mut bench = Bench::with(config, &Finished::default(), 100_000);
    bench.age = 11 * SECOND;
    assert_eq!(bench.sent(), [0; 0], "all of a long backlog is passed");
    assert_eq!((bench.window.counts().expired, bench.window.held().records), (100_000, 0));
    bench.age = 4 * SECOND;
    bench.commit(20);
    assert_eq!(bench.sent(), numbers(100_001..=100_010));
    bench.now += 5 * SECOND;
    bench.sent();
    assert_eq!(bench.told.len(), 1, "there was a pause");
    bench.now += 2 * SECOND;
    bench.sent();
    assert_eq!(bench.window.counts().expired, 100_010, "those that wait; those under way may have been accepted");
    bench.fail();
    bench.sent();
    assert_eq!((bench.window.counts().expired, bench.window.held().records), (100_020, 0));
    bench.now += 60 * SECOND;
    bench.sent();
    let (first, last) = (SequenceNumber(1), SequenceNumber(100_000));
    assert_eq!(bench.told[0], Expired { first, last, records: 100_000 });
    assert_eq!(bench.told.iter().map(|run| run.records).sum::<u64>(), 100_020);
    assert_eq!(bench.window.checkpoint(), SequenceNumber(100_020));
}

#[test]
fn a_leap_leaves_no_record_behind_of_parcels_that_are_too_large_for_the_link_by_now() {
    let config = Config {
        ordering: Ordering::Relaxed,
        catch_up: CatchUp::NewestFirst,
        window_records: 1000,
        in_flight: 1,
        ..Config::default()
    };
    let mut bench = Bench::with(config.clone(), &Finished::default(), 200);
    bench.window =
        Window::new(&config, &Limits { parcel_records: 100, ..LIMITS }, SequenceNumber::ZERO, &Finished::default(), 7);
    bench.record = |number| ((number % 2).to_string(), if number % 2 == 0 { 1000 } else { 500 });
    assert_eq!(bench.sent(), (1..200).step_by(2).collect::<Vec<_>>(), "all of one key");
    bench.now += 3 * SECOND;
    bench.answer(|_| {
        Outcome::Failed(Failure { kind: FailureKind::TimedOut, message: "late".to_owned(), retry_after: None })
    });
    bench.commit(2800);
    bench.now += SECOND;
    assert!(!bench.sent().is_empty(), "a probe");
    // So slow that requests do not grow again.
    bench.now += 5 * SECOND;
    for _ in 0..10_000 {
        while bench.under_way.is_some() || !bench.sent().is_empty() {
            bench.accept();
        }
        bench.now += SECOND;
    }
    assert!(!bench.finished.is_empty(), "it has leapt");
    assert_eq!((bench.window.checkpoint(), bench.window.counts().records), (SequenceNumber(3000), 3000));
}

#[test]
fn newest_first_leaves_a_gap_nothing_of_a_link_that_live_records_need() {
    for (catch_up, all) in [(CatchUp::NewestFirst, true), (CatchUp::Split, false)] {
        let mut bench = Bench::new(catch_up, 1000);
        let mut live = 0;
        for _ in 0..50 {
            let sent = bench.sent();
            live += sent.iter().filter(|number| **number > 990).count();
            // As much comes in as leaves.
            bench.commit(10);
            bench.accept();
        }
        assert_eq!(live >= 480, all, "{catch_up:?}: {live} of 500");
        assert!(live >= 240, "{catch_up:?}: {live} of 500");
    }
}
