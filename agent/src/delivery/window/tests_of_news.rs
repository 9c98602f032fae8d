//! What a person hears of a delivery, and what status shows: each thing once, and nothing that is not so.

use super::{
    entries::Fault,
    news::{BRIEF, SETTLED, TOLD_AGAIN},
    tests_of_faults::{ALONE, Bench, ONE_LANE, SECOND, relaxed},
    *,
};
use crate::destination::RecordOutcome;

const ENDPOINT_FAILED: News = News::Down(FailureKind::EndpointFailed);

fn failed() -> RecordOutcome {
    RecordOutcome::Failed("InternalFailure".to_owned())
}

impl Bench {
    /// How often it was told that the endpoint is down, and that it is not any more.
    fn outages(&self) -> (usize, usize) {
        let count = |is: fn(&News) -> bool| self.told.iter().filter(|news| is(news)).count();
        (count(|news| matches!(news, News::Down(_))), count(|news| matches!(news, News::Up(_))))
    }
}

#[test]
fn an_endpoint_that_answers_and_takes_nothing_is_down_until_it_takes_something() {
    for limits in [ALONE, ONE_LANE] {
        let mut bench = Bench::new(limits, Config::default(), []);
        bench.log(100);
        bench.pass(SECOND * 60);
        assert_eq!((bench.taken.len(), &bench.told[..]), (100, &[][..]));
        bench.says = Some(failed());
        for round in 0..60 {
            bench.log(10);
            bench.pass(SECOND * 10);
            // That it throttles now and then is no better.
            bench.says = Some(if round % 2 == 0 { RecordOutcome::Throttled("slower".to_owned()) } else { failed() });
            let Link::Down(down) = bench.window.link() else { panic!("round {round}: {:?}", bench.told) };
            assert!(!down.doubtful && down.failures > 0);
        }
        assert_eq!(bench.told, [ENDPOINT_FAILED]);
        assert_eq!(bench.taken.len(), 100);
        bench.says = None;
        let (all, ended) = ((1..=bench.head).collect(), bench.now);
        bench.pass_until(SECOND * 120, |bench| bench.has_taken(&all));
        assert!(bench.now - ended <= SECOND * 31, "{:?}", bench.now - ended);
        bench.pass(SETTLED);
        bench.judge_order();
        let [_, News::Up(outage)] = bench.told[..] else { panic!("{:?}", bench.told) };
        assert!(outage.until - outage.since >= SECOND * 590 && outage.attempts > 10, "{outage:?}");
        assert_eq!(bench.window.held().records, 0);
    }
}

/// A person may wait for a network that is back long since.
#[test]
fn that_an_outage_goes_on_for_another_reason_is_told_once() {
    let mut bench = Bench::new(ALONE, Config::default(), []);
    bench.log(10);
    let silent = [FailureKind::Refused, FailureKind::Dns, FailureKind::NoRoute];
    let answers = [FailureKind::EndpointFailed, FailureKind::RequestInvalid];
    for kind in [silent[0], silent[1], FailureKind::Misconfigured, silent[2], FailureKind::Misconfigured]
        .into_iter()
        .chain(answers)
        .chain([FailureKind::CredentialsExpired, FailureKind::CredentialsRefused])
    {
        bench.outage = Some(kind);
        bench.pass(SECOND * 60);
    }
    let kinds = [
        FailureKind::Misconfigured,
        FailureKind::EndpointFailed,
        FailureKind::RequestInvalid,
        FailureKind::CredentialsExpired,
        FailureKind::CredentialsRefused,
    ];
    let down = [&[News::Down(FailureKind::Refused)][..], &kinds.map(News::StillDown)].concat();
    assert_eq!(bench.told, down);
    // One that was told long ago is told once more, and the same for ever is not.
    bench.pass(TOLD_AGAIN * 3);
    assert_eq!(bench.told, down);
    bench.outage = Some(silent[2]);
    bench.pass(SECOND * 60);
    let down = [&down[..], &[News::StillDown(silent[2])]].concat();
    assert_eq!(bench.told, down);
    bench.outage = None;
    bench.pass(SECOND * 120);
    assert!(matches!(bench.told[down.len()..], [News::Up(_)]), "{:?}", bench.told);
    // Another outage is told anew.
    bench.outage = Some(FailureKind::Misconfigured);
    bench.log(1);
    bench.pass(SECOND * 60);
    assert_eq!(bench.told.last(), Some(&News::Down(FailureKind::Misconfigured)));
}

#[test]
fn an_endpoint_that_throttles_everything_is_down_once_that_has_lasted() {
    for limits in [ALONE, ONE_LANE] {
        let mut bench = Bench::new(limits, Config::default(), []);
        bench.says = Some(RecordOutcome::Throttled("slower".to_owned()));
        bench.log(100);
        bench.pass(SECOND * 59);
        assert_eq!((bench.window.link(), &bench.told[..]), (&Link::Up, &[][..]));
        bench.pass(SECOND * 541);
        assert_eq!(bench.told, [News::Down(FailureKind::Throttled)]);
        bench.says = None;
        let all = (1..=100).collect();
        bench.pass_until(SECOND * 40, |bench| bench.has_taken(&all));
        bench.pass(SECOND * 60);
        assert_eq!(bench.outages(), (1, 1), "{:?}", bench.told);
        bench.judge_order();
        // What is taken now and then is slow, and no outage.
        bench.told.clear();
        for _ in 0..20 {
            bench.log(10);
            bench.says = Some(RecordOutcome::Throttled("slower".to_owned()));
            bench.pass(SECOND * 40);
            bench.says = None;
            bench.pass(SECOND * 10);
        }
        assert_eq!((bench.window.link(), &bench.told[..]), (&Link::Up, &[][..]));
    }
}

/// A record that fails in answers is no outage. Once the window is full of what waits for it nothing else is taken: that is told.
#[test]
fn a_record_that_fails_in_answers_and_fills_the_window_is_told_to_stop_reading() {
    let config = Config { window_records: 100, ..Config::default() };
    // The waits are long and short by chance.
    for seed in 0..100 {
        let mut bench = Bench::new(ALONE, config.clone(), []);
        bench.window = Window::new(&config, &ALONE, SequenceNumber::ZERO, &Finished::default(), seed);
        bench.fails.extend(24..24 + 1 + seed % 3);
        bench.log(5000);
        bench.pass(SECOND * 600);
        assert!(!bench.has_taken(&(1..=5000).collect()));
        let [News::Failing(_), .., News::ReadingStopped(failing)] = bench.told[..] else { panic!("{:?}", bench.told) };
        let down = bench.told.iter().any(|news| matches!(news, News::Down(_)));
        assert!(!down && failing == bench.fails.len(), "{seed}: {:?}", bench.told);
        let told = bench.told.len();
        bench.fails.clear();
        let all = (1..=5000).collect();
        bench.pass_until(SECOND * 120, |bench| bench.has_taken(&all));
        bench.pass(SECOND * 60);
        assert_eq!(bench.told[told..], [News::ReadingGoesOn], "{seed}: {:?}", bench.told);
        bench.judge_order();
    }
}

/// With many of them it is an outage once none but they are left in the window.
#[test]
fn records_that_fail_in_answers_are_an_outage_once_they_fill_the_window() {
    let config = Config { window_records: 100, ..Config::default() };
    let mut bench = Bench::new(ALONE, config, []);
    bench.fails.extend(24..32);
    bench.log(5000);
    bench.pass(SECOND * 600);
    assert!(!bench.has_taken(&(1..=5000).collect()));
    assert!(bench.told.contains(&ENDPOINT_FAILED), "{:?} {:?}", bench.told, bench.window.held());
    assert!(matches!(bench.window.link(), Link::Down(_)), "{:?}", bench.told);
    bench.fails.clear();
    let all = (1..=5000).collect();
    bench.pass_until(SECOND * 120, |bench| bench.has_taken(&all));
    bench.pass(SECOND * 60);
    assert_eq!(bench.outages(), (1, 1), "{:?}", bench.told);
    bench.judge_order();
}

/// It answers, and what it found fault with has gone to the dead letters.
#[test]
fn an_outage_for_a_bad_request_is_over_when_nothing_is_left_to_send() {
    for (limits, refused) in
        [ALONE, ONE_LANE].into_iter().flat_map(|limits| (1..=21).map(move |refused| (limits, refused)))
    {
        let mut bench = Bench::new(limits, Config::default(), []);
        bench.refuses.insert(refused);
        bench.log(21);
        bench.pass(SECOND * 300);
        if bench.buried.is_empty() {
            continue;
        }
        assert_eq!(*bench.window.link(), Link::Up, "{refused}: {:?}", bench.told);
        let (down, up) = bench.outages();
        assert!(down <= 1 && up == down, "{refused}: {:?}", bench.told);
    }
}

/// However little else there is to be sent.
#[test]
fn one_record_that_fails_while_others_are_taken_is_no_outage() {
    let mut bench = Bench::new(ALONE, Config::default(), []);
    bench.fails.insert(24);
    for _ in 0..100 {
        bench.log(10);
        bench.pass(SECOND * 60);
    }
    assert_eq!(*bench.window.link(), Link::Up);
    assert!(bench.outages().0 <= 1 && bench.outages().0 == bench.outages().1, "{:?}", bench.told);
    bench.judge_order();
    // The endpoint does go away, and that is told.
    bench.told.clear();
    bench.says = Some(failed());
    bench.log(10);
    bench.pass(SECOND * 600);
    assert_eq!(bench.told, [ENDPOINT_FAILED]);
}

#[test]
fn it_is_told_that_reading_has_stopped_for_failing_records_and_that_it_goes_on() {
    // By what lies behind them, and by what waits for them.
    for (limits, keys_at_fault, records) in [(ONE_LANE, 1, 5000), (ALONE, 3, 2000)] {
        let config = Config { window_records: 100, ..Config::default() };
        let mut bench = Bench::new(limits, config, 1..=keys_at_fault);
        bench.log(records);
        bench.pass(SECOND * 3600);
        let stopped = News::ReadingStopped(bench.window.held().failing);
        // Whoever reads that last does not read that all is well.
        assert_eq!((bench.told.last(), bench.outages()), (Some(&stopped), (1, 1)), "{:?}", bench.told);
        let told = |bench: &Bench, news| bench.told.iter().filter(|told| **told == news).count();
        assert_eq!(told(&bench, stopped), 1, "{:?} {:?}", bench.told, bench.window.held());
        assert!(bench.window.held().reading_stopped && bench.window.held().failing as u64 == keys_at_fault);
        assert_eq!(told(&bench, News::ReadingGoesOn), 0);
        bench.breaks.clear();
        let all = (1..=records).collect();
        bench.pass_until(SECOND * 120, |bench| bench.has_taken(&all));
        bench.drive();
        assert_eq!(told(&bench, News::ReadingGoesOn), 1, "{:?}", bench.told);
        assert!(!bench.window.held().reading_stopped);
        bench.judge_order();
    }
}

#[test]
fn an_outage_that_the_next_request_ends_is_told_once() {
    for limits in [ALONE, ONE_LANE] {
        let mut bench = Bench::new(limits, Config::default(), []);
        bench.log(100);
        bench.pass(SECOND);
        for kind in [FailureKind::Disconnected, FailureKind::Refused] {
            bench.told.clear();
            bench.outage = Some(kind);
            bench.log(100);
            bench.pass_until(SECOND, |bench| *bench.window.link() != Link::Up);
            assert!(matches!(bench.window.link(), Link::Down(_)), "status shows it at once");
            bench.outage = None;
            bench.pass(SECOND * 60);
            let [News::Brief(outage)] = bench.told[..] else { panic!("{kind}: {:?}", bench.told) };
            assert!(outage.kind == kind && outage.until - outage.since < BRIEF, "{outage:?}");
        }
        assert_eq!(bench.taken.len(), 300);
    }
}

#[test]
fn an_outage_is_told_once_its_first_probe_fails_or_takes_too_long() {
    let begin = |kind| {
        let mut bench = Bench::new(ALONE, Config::default(), []);
        bench.outage = Some(kind);
        bench.log(100);
        bench.pass_until(SECOND, |bench| *bench.window.link() != Link::Up);
        bench
    };
    let down = News::Down(FailureKind::Disconnected);
    let mut bench = begin(FailureKind::Disconnected);
    let failures = |bench: &Bench| match bench.window.link() {
        Link::Down(down) => down.failures,
        Link::Up => 0,
    };
    bench.drive();
    assert_eq!((failures(&bench), &bench.told[..]), (1, &[][..]));
    bench.pass_until(SECOND, |bench| failures(bench) == 2);
    bench.drive();
    assert_eq!(bench.told, [down]);
    bench.outage = None;
    bench.pass(SECOND * 60);
    assert!(matches!(bench.told[..], [_, News::Up(_)]), "{:?}", bench.told);
    // Nothing is sent that could end it.
    let mut bench = begin(FailureKind::Disconnected);
    bench.window.hold_until(bench.now + SECOND * 60);
    bench.pass(BRIEF);
    assert_eq!((failures(&bench), &bench.told[..]), (1, &[down][..]));
    // Whoever answers, or has been waited for, is told at once.
    for kind in [FailureKind::TimedOut, FailureKind::EndpointFailed, FailureKind::CredentialsExpired] {
        let mut bench = begin(kind);
        bench.drive();
        assert_eq!(bench.told, [News::Down(kind)]);
    }
}

/// An outage fills the window as well. That is another matter.
#[test]
fn that_a_window_is_full_in_an_outage_is_not_told_as_if_records_were_at_fault() {
    let mut bench = Bench::new(ONE_LANE, Config { window_records: 100, ..Config::default() }, []);
    bench.outage = Some(FailureKind::EndpointFailed);
    bench.log(5000);
    bench.pass(SECOND * 3600);
    assert_eq!(bench.told, [ENDPOINT_FAILED]);
}

#[test]
fn a_new_map_of_the_shards_changes_nothing_about_records_that_go_on_failing() {
    let mut bench = Bench::new(ONE_LANE, Config::default(), [4, 5]);
    bench.log(200);
    bench.pass(SECOND * 300);
    assert_eq!(bench.window.held().failing, 2);
    bench.told.clear();
    for _ in 0..5 {
        bench.window.on_new_map();
        bench.drive();
        assert_eq!(bench.window.held().failing, 2);
        bench.pass(SECOND * 60);
    }
    assert_eq!((bench.window.held().failing, &bench.told[..]), (2, &[][..]));
    bench.breaks.clear();
    bench.pass(SECOND * 60);
    assert_eq!((bench.window.held().failing, bench.window.held().records), (0, 0));
}

/// The endpoint broke just then. Only those of its key are not to pass it.
#[test]
fn a_witness_at_which_the_endpoint_broke_once_is_not_known_to_be_at_fault() {
    let mut bench = Bench::new(ONE_LANE, Config::default(), [2]);
    bench.refuses.insert(1);
    bench.log(20);
    let faults = |bench: &Bench| -> Vec<_> {
        let entries = bench.window.entries.iter().filter(|(_, entry)| entry.fault != Fault::None);
        entries.map(|(_, entry)| (entry.record.sequence_number.0, entry.fault)).collect()
    };
    bench.pass_until(SECOND * 600, |bench| !faults(bench).is_empty());
    assert_eq!(faults(&bench), [(2, Fault::Witness)]);
    bench.breaks.clear();
    let free = (2..=20).collect();
    bench.pass_until(SECOND * 60, |bench| bench.has_taken(&free));
    bench.drive();
    assert_eq!((&bench.buried[..], bench.window.held().failing), (&[1][..], 0));
    bench.judge_order();
}

/// While the records are searched, and after it.
#[test]
fn an_endpoint_that_breaks_at_many_records_is_told_to_be_down_once() {
    for limits in [ALONE, ONE_LANE] {
        let faults = (0..9).map(|n| 15 * n + n % 9 + 1).collect::<Vec<_>>();
        let mut bench = Bench::new(limits, Config::default(), faults.iter().copied());
        bench.log(200);
        bench.pass(SECOND * 3600);
        let failing = bench.window.held().failing;
        assert!(failing > FEW, "{failing}: {:?}", bench.told);
        assert_eq!(bench.outages(), (1, 1), "{:?}", bench.told);
        // What comes now and then is taken, and they go on failing.
        bench.told.clear();
        for _ in 0..60 {
            bench.log(10);
            bench.pass(SECOND * 120);
        }
        assert_eq!(bench.told, []);
        assert!(bench.has_taken(&bench.free()));
    }
}

/// An outage that is not over yet hides no other one.
#[test]
fn that_the_link_goes_away_is_told_while_records_are_searched_too() {
    let mut bench = Bench::new(ALONE, Config::default(), [11, 12]);
    bench.log(100);
    bench.pass_until(SECOND * 60, |bench| bench.told.len() == 1 && *bench.window.link() == Link::Up);
    bench.outage = Some(FailureKind::Refused);
    bench.pass(SECOND * 60);
    let [ENDPOINT_FAILED, News::Up(_), News::Down(FailureKind::Refused)] = bench.told[..] else {
        panic!("{:?}", bench.told)
    };
    bench.outage = None;
    bench.pass(SECOND * 60);
    assert!(matches!(bench.told.last(), Some(News::Up(_))), "{:?}", bench.told);
}

/// Its way out may be narrow, so that it takes long until all of them are sent again.
#[test]
fn an_outage_is_not_told_to_be_over_while_records_that_failed_in_it_wait() {
    let mut bench = Bench::new(ALONE, relaxed(), []);
    for _ in 0..10 {
        bench.log(1000);
        bench.pass(SECOND);
    }
    bench.outage = Some(FailureKind::EndpointFailed);
    bench.log(2000);
    bench.pass(SECOND * 5);
    bench.outage = None;
    bench.pass_until(SECOND * 60, |bench| *bench.window.link() == Link::Up);
    bench.window.hold_until(bench.now + SECOND * 60);
    bench.pass(SECOND * 50);
    assert_eq!(bench.told, [ENDPOINT_FAILED]);
    bench.pass(SECOND * 30);
    assert_eq!((bench.outages(), bench.taken.len()), ((1, 1), 12_000));
}

/// Nor do records that go on failing make it last, when there are many and little else.
#[test]
fn records_that_were_found_make_no_outage_last() {
    let mut bench = Bench::new(ALONE, Config::default(), (1..=9).map(|n| 10 * n + n));
    for _ in 0..20 {
        bench.log(10);
        bench.pass(SECOND * 60);
    }
    bench.told.clear();
    bench.outage = Some(FailureKind::EndpointFailed);
    bench.log(10);
    bench.pass(SECOND * 60);
    bench.outage = None;
    for _ in 0..100 {
        bench.log(10);
        bench.pass(SECOND * 8);
    }
    assert_eq!((bench.window.held().failing, bench.outages()), (9, (1, 1)), "{:?}", bench.told);
}

/// What is finished behind a record that waits is no backlog.
#[test]
fn unfinished_is_what_was_not_taken() {
    let mut bench = Bench::new(ALONE, Config { window_records: 100, ..Config::default() }, [4]);
    let unfinished = |bench: &Bench| {
        let between = |from: SequenceNumber, end: SequenceNumber| end.0.saturating_sub(from.0);
        bench.window.unfinished().live.records(SequenceNumber(bench.head + 1), between)
    };
    for round in 0..100 {
        bench.log(7);
        assert_eq!(unfinished(&bench), bench.head - bench.taken.len() as u64, "round {round}");
        bench.pass(SECOND);
        assert_eq!(unfinished(&bench), bench.head - bench.taken.len() as u64, "round {round}");
    }
    assert!(unfinished(&bench) < 100, "{} of {}", unfinished(&bench), bench.head);
}
