//! An endpoint that breaks at everything: it is not taken for the fault of records, nor are many of those for an outage.

use super::*;

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
