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
