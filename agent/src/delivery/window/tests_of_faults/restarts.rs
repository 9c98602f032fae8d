//! What is known of a window's records after a restart.

use super::*;

/// While one record waits, others are delivered, and one becomes a dead letter: none of them comes again, neither after a clean stop nor, for the
/// letter, a second after it was stored.
#[test]
fn what_is_finished_behind_a_record_that_waits_is_known_after_a_restart() {
    for limits in [ALONE, ONE_LANE] {
        let mut bench = Bench::new(limits, Config::default(), []);
        bench.by_key = true;
        bench.fails.insert(4);
        bench.refuses.insert(9);
        bench.log(30);
        bench.pass(SECOND * 60);
        assert_eq!(bench.buried, [9]);
        let range = |first, last| (SequenceNumber(first), SequenceNumber(last));
        // Records 4, 14 and 24 are of one key.
        let inside = [range(5, 13), range(15, 23), range(25, 30)];
        let [noted] = &bench.saved[..] else { panic!("{:?}", bench.saved) };
        assert!(noted.inside.iter().any(|(first, last)| (*first..=*last).contains(&SequenceNumber(9))), "{noted:?}");
        bench.log(600);
        bench.pass(SECOND * 60);
        assert_eq!(bench.saved.len(), 1, "the flash is written for letters alone");
        bench.window.stop();
        bench.pass(SECOND);
        assert!(matches!(bench.window.next(bench.now), Step::Stopped));
        let finished = bench.saved.pop().expect("saved");
        assert_eq!(finished.inside[..3], [inside[0], inside[1], range(25, 33)]);
        let mut again = Bench::new(limits, Config::default(), []);
        again.by_key = true;
        again.window = Window::new(&Config::default(), &limits, bench.window.checkpoint(), &finished, 7);
        (again.read, again.head) = (bench.window.checkpoint().0, bench.head);
        again.pass(SECOND * 60);
        let key: Vec<_> = (4..=bench.head).step_by(10).collect();
        assert_eq!((&again.taken, &again.buried[..]), (&key, &[][..]));
        assert_eq!(again.window.checkpoint().0, bench.head);
    }
}

/// The log repeats every mark in its control blocks: one that says nothing any more is emptied, once.
#[test]
fn what_is_noted_is_forgotten_when_the_checkpoint_has_passed_it() {
    let mut bench = Bench::new(ALONE, Config::default(), []);
    bench.fails.insert(4);
    bench.log(30);
    bench.pass(SECOND * 60);
    assert_eq!(bench.saved, [], "nothing but a record that waits");
    bench.window.stop();
    bench.pass(SECOND);
    let finished = bench.saved.pop().expect("saved");
    let mut again = Bench::new(ALONE, Config::default(), []);
    again.window = Window::new(&Config::default(), &ALONE, bench.window.checkpoint(), &finished, 7);
    (again.read, again.head) = (bench.window.checkpoint().0, bench.head);
    for _ in 0..60 {
        again.log(10);
        again.pass(SECOND);
    }
    assert!(again.saved.len() <= 1, "{:?}", again.saved);
    assert!(again.saved.iter().all(Finished::says_no_more));
    again.pass(SECOND * 60);
    assert_eq!((again.saved.len(), again.window.checkpoint().0), (1, again.head));
}

/// A letter that the checkpoint reaches at once costs no mark.
#[test]
fn letters_with_nothing_in_front_of_them_are_not_noted() {
    let mut bench = Bench::new(ALONE, Config::default(), []);
    for _ in 0..30 {
        bench.log(10);
        bench.refuses.insert(bench.head);
        bench.pass(SECOND * 20);
    }
    assert!(bench.buried.len() > 20, "{:?}", bench.buried);
    assert_eq!(bench.saved, []);
}
