//! What answers do not take, record by record: they say that it failed, or was too much.

use super::*;

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

/// Where records travel alone nothing has to be found; but a person hears of it, and nobody else travels with it.
#[test]
fn a_record_that_fails_in_answers_for_long_is_told_of_where_it_travels_alone_too() {
    for config in [Config::default(), relaxed()] {
        let mut bench = Bench::new(ALONE, config, []);
        bench.fails.insert(57);
        bench.log(200);
        for second in 0..300 {
            bench.log(1);
            bench.pass(SECOND);
            let known = bench.window.held().failing == 1;
            assert!(if second < 30 { !known } else { known || second < 240 }, "after {second} s");
        }
        assert_eq!((&bench.told[..], bench.window.link()), (&[News::Failing(1)][..], &Link::Up));
        assert!(bench.has_taken(&bench.free()));
        let (answered, taken) = (bench.answered.len(), bench.taken.len());
        bench.pass(SECOND * 3600);
        let alone = bench.answered[answered..].iter().all(|answered| answered.records == 1);
        assert!(alone && bench.answered.len() > answered + 100 && bench.taken.len() == taken);
        bench.fails.clear();
        bench.pass(SECOND * 31);
        bench.drive();
        assert_eq!((bench.taken.len() as u64, bench.window.checkpoint().0), (bench.head, bench.head));
        assert_eq!((bench.window.held().failing, bench.told.len()), (0, 1));
    }
}

/// As where a part of the endpoint has failed for long: they do not go one by one.
#[test]
fn many_records_that_fail_in_answers_for_long_share_requests() {
    let mut bench = Bench::new(ALONE, Config { max_backoff: SECOND * 3600, ..relaxed() }, []);
    bench.fails.extend(1..=400);
    bench.log(500);
    bench.pass(SECOND * 600);
    let requests = bench.others_pass_for_ten_hours();
    assert!(requests < 400, "{requests} requests for 400 records");
    assert!((1..=FEW).contains(&bench.window.held().failing));
    bench.fails.clear();
    // As soon as one is taken, the others are tried.
    bench.pass_until(SECOND * 3600, |bench| bench.taken.iter().any(|number| *number <= 400));
    bench.pass(SECOND * 10);
    assert_eq!((bench.window.checkpoint().0, bench.window.held().failing), (bench.head, 0));
}

/// A record may travel alone and keep others back all the same: those of its shard.
#[test]
fn a_record_that_fails_in_answers_alone_holds_up_its_key_and_not_its_lane() {
    let mut bench = Bench::new(ALONE, Config::default(), []);
    bench.by_key = false;
    bench.fails.insert(4);
    bench.log(60);
    let free = bench.free();
    bench.pass_until(SECOND * 600, |bench| bench.has_taken(&free));
    assert!(bench.has_taken(&free), "{:?}", bench.taken);
    bench.log(10);
    bench.pass(SECOND * 60);
    assert_eq!((bench.window.held().failing, bench.window.link()), (1, &Link::Up));
    bench.judge_order();
}
