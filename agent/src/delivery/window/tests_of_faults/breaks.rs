//! Records at which the endpoint breaks: how they are found, and whom they hold up.

use super::*;

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
