//! Records that are refused, and the others that they are compared with.

use std::cell::Cell;

use super::*;

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

/// Whatever a witness's answer says of it, there are others behind it.
#[test]
fn a_witness_that_fails_in_answers_for_ever_keeps_nobody_from_being_judged() {
    for fails in [vec![2], vec![2, 3, 4]] {
        let mut bench = Bench::new(ONE_LANE, Config::default(), []);
        bench.refuses.insert(1);
        bench.fails.extend(fails);
        bench.log(30);
        bench.pass_until(SECOND * 3600, |bench| bench.buried == [1]);
        assert_eq!(bench.buried, [1], "{:?}", bench.told);
        let free: BTreeSet<_> = bench.free().into_iter().filter(|number| *number != 1).collect();
        bench.pass_until(SECOND * 600, |bench| bench.has_taken(&free));
        assert!(bench.has_taken(&free), "{:?}", bench.taken);
        bench.judge_order();
    }
}
