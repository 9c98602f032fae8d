//! Named scenarios of wrong clocks: what a gateway without a clock battery goes through, and what is known in the end.

use std::time::Duration;

use super::{
    CatalogueFound, Simulation, YEAR_MS, read_all,
    scenarios::{numbers, power_cut_and_open},
};
use crate::{
    clock::{Clock, Now, Timestamp, Trust},
    config::RateLimit,
    cursor::{ReadLimit, Start},
    event::{DropReason, Event},
    shard::ShardIndex,
};

const DAY: Duration = Duration::from_secs(24 * 3600);

/// Without consumers, so that nothing holds what is past retention, which is 1,000 s.
fn open() -> Simulation {
    open_at(Timestamp(1_800_000_000_000))
}

fn open_at(wall: Timestamp) -> Simulation {
    let mut sim = Simulation::new(1);
    sim.clock.set_wall(wall);
    sim.stream_config.consumers.clear();
    sim.open().expect("an empty disk");
    sim
}

fn reboot(sim: &mut Simulation, catalogue: CatalogueFound, off: Duration, wall: Timestamp) {
    sim.power_cut(catalogue);
    sim.clock.reboot(off, wall);
    sim.open().expect("it opens");
}

fn append(sim: &mut Simulation) -> Timestamp {
    sim.append(1, 10).expect("room");
    sim.clock.truth()
}

fn arrivals(sim: &Simulation) -> Vec<(Timestamp, bool)> {
    read_all(sim.stream(), 7).iter().map(|record| (record.arrival, record.arrival_trusted)).collect()
}

fn clock_events(sim: &mut Simulation) -> Vec<Event> {
    let is_of_clock = |event: &Event| {
        matches!(event, Event::ClockTrusted { .. } | Event::ClockStepped { .. } | Event::ClockDoubted { .. })
    };
    sim.take_events().into_iter().filter(is_of_clock).collect()
}

/// lafrech/oem_gateway#12: live before NTP answers, and stamped with whatever the clock showed.
#[test]
fn records_taken_before_the_clock_was_right_get_their_true_times() {
    for catalogue in [CatalogueFound::Newest, CatalogueFound::Lost] {
        let mut sim = open_at(Timestamp(0));
        let first = append(&mut sim);
        let before = arrivals(&sim);
        assert!(!before[0].1 && before[0].0.0 < YEAR_MS, "1970, and known to be untrue: {before:?}");
        assert_eq!(sim.stream().stats().untrusted_records, 1);
        sim.clock.advance(Duration::from_secs(600));
        let second = append(&mut sim);
        sim.clock.synchronise();
        sim.tick();
        let known = [(first, true), (second, true)];
        assert_eq!(arrivals(&sim), known);
        let at = sim.clock.truth();
        assert_eq!(clock_events(&mut sim), [Event::ClockTrusted { wall: at }], "told once");
        assert_eq!(sim.stream().stats().untrusted_records, 0);
        sim.tick();
        // It stays known: in the next boot, whose clock is wrong again, and when the catalogue is lost too.
        for _ in 0..3 {
            reboot(&mut sim, catalogue, Duration::from_secs(1), Timestamp(5 * YEAR_MS));
            assert_eq!(arrivals(&sim), known, "{catalogue:?}");
        }
        assert_eq!(clock_events(&mut sim), []);
    }
}

#[test]
fn what_one_stream_knows_of_the_clocks_survives_the_catalogue_without_a_commit() {
    let mut sim = open();
    let at = append(&mut sim);
    sim.clock.synchronise();
    // The catalogue does not take it either; only the stream's next control block has it.
    sim.kv.fail();
    sim.tick();
    let written = sim.stream().stats().written_bytes;
    sim.tick();
    assert_eq!(sim.stream().stats().written_bytes, written, "written once");
    reboot(&mut sim, CatalogueFound::Newest, DAY, Timestamp(0));
    assert_eq!(arrivals(&sim), [(at, true)]);
}

/// raspberrypi/linux#1751: two weeks in the past, with NTP running.
#[test]
fn a_clock_two_weeks_behind_disorders_and_expires_nothing() {
    let mut sim = open();
    sim.clock.synchronise();
    let first = append(&mut sim);
    sim.tick();
    let behind = Timestamp(sim.clock.truth().0 - 14 * 24 * 3600 * 1000);
    reboot(&mut sim, CatalogueFound::Newest, Duration::from_secs(60), behind);
    append(&mut sim);
    let seen = arrivals(&sim);
    assert!(seen[0] == (first, true) && seen[1].0 >= first && !seen[1].1, "{seen:?}");
    // The kernel claims that this is right: it would have run before the machine was last switched off.
    sim.clock.set_trust(Trust::Synchronised);
    sim.tick();
    sim.tick();
    let [Event::ClockDoubted { wall, at_least }] = clock_events(&mut sim)[1..] else { panic!("told once") };
    assert!(wall < at_least && at_least <= sim.clock.truth());
    assert_eq!(arrivals(&sim), seen);
    let second = Timestamp(sim.clock.truth().0);
    sim.clock.synchronise();
    sim.tick();
    assert_eq!(arrivals(&sim), [(first, true), (second, true)]);
    assert_eq!(clock_events(&mut sim), [Event::ClockTrusted { wall: second }]);
}

/// stratopi-org/stratopi#1: no battery and no network, but a GPS receiver that knows the time. fluent/fluent-bit#3965: the
/// machine's clock shows the year 2000 beside it.
#[test]
fn a_gps_receiver_tells_the_time_beside_a_wrong_clock() {
    let mut sim = open();
    let year_2000 = Timestamp(30 * YEAR_MS);
    reboot(&mut sim, CatalogueFound::Newest, DAY, year_2000);
    let at = append(&mut sim);
    sim.clock.advance(Duration::from_secs(60));
    let (truth, since_boot) = (sim.clock.truth(), sim.clock.now().since_boot);
    sim.learn_time(Now { wall: truth, since_boot });
    assert_eq!(clock_events(&mut sim), [Event::ClockTrusted { wall: truth }]);
    // What is written now has the right time at once, and the clock's own word is doubted.
    let later = append(&mut sim);
    assert_eq!(arrivals(&sim), [(at, true), (later, true)]);
    sim.clock.set_trust(Trust::Synchronised);
    sim.tick();
    assert!(matches!(clock_events(&mut sim)[..], [Event::ClockDoubted { .. }]));
    assert_eq!(arrivals(&sim), [(at, true), (later, true)]);
    // A receiver whose count of weeks has rolled over is believed as little.
    let rolled_over = Timestamp(truth.0 - 1024 * 7 * 24 * 3600 * 1000);
    sim.learn_time(Now { wall: rolled_over, since_boot });
    assert_eq!(arrivals(&sim), [(at, true), (later, true)]);
}

/// Two that are right to some seconds must not set the time to and fro; and what contradicts is refused, not told each time.
#[test]
fn an_offered_time_counts_while_the_clock_itself_is_not_believed() {
    let mut sim = open();
    reboot(&mut sim, CatalogueFound::Newest, DAY, Timestamp(30 * YEAR_MS));
    let at = append(&mut sim);
    let truth = sim.clock.truth();
    let rolled_over = Timestamp(truth.0 - 1024 * 7 * 24 * 3600 * 1000);
    assert!(sim.offer_time(rolled_over).is_err_and(|at_least| at_least > rolled_over));
    assert_eq!(clock_events(&mut sim), []);
    sim.offer_time(truth).expect("believed");
    assert_eq!(clock_events(&mut sim), [Event::ClockTrusted { wall: truth }]);
    assert_eq!(arrivals(&sim), [(at, true)]);
    // The kernel vouches for the year 2000: told once, and the receiver is heard beside it.
    sim.clock.set_trust(Trust::Synchronised);
    sim.tick();
    sim.offer_time(Timestamp(truth.0 + 3000)).expect("believed");
    sim.tick();
    let told = clock_events(&mut sim);
    assert!(matches!(told[..], [Event::ClockDoubted { .. }, Event::ClockStepped { .. }]), "{told:?}");
    // A clock that is believed goes first.
    sim.clock.synchronise();
    sim.tick();
    assert_eq!(clock_events(&mut sim).len(), 1);
    sim.offer_time(Timestamp(truth.0 + 5000)).expect("passed over");
    assert_eq!((clock_events(&mut sim), arrivals(&sim)), (vec![], vec![(at, true)]));
}

#[test]
fn a_jump_from_1970_to_today_expires_nothing() {
    let mut sim = open();
    reboot(&mut sim, CatalogueFound::Newest, DAY, Timestamp(0));
    for _ in 0..5 {
        append(&mut sim);
        sim.clock.advance(Duration::from_secs(100));
        sim.tick();
    }
    sim.clock.synchronise();
    sim.tick();
    assert_eq!(arrivals(&sim).len(), 5);
    sim.clock.advance(Duration::from_secs(550));
    sim.tick();
    assert_eq!(arrivals(&sim).len(), 4, "by its true age the first is past");
}

#[test]
fn an_earlier_boot_expires_by_its_true_age_once_both_clocks_were_trusted() {
    let mut sim = open();
    sim.clock.synchronise();
    append(&mut sim);
    sim.tick();
    let wall = Timestamp(sim.clock.truth().0 + 40 * YEAR_MS);
    reboot(&mut sim, CatalogueFound::Newest, 2 * DAY, wall);
    sim.tick();
    assert_eq!(arrivals(&sim).len(), 1, "a wrong clock says nothing of its age");
    sim.take_events();
    sim.clock.synchronise();
    sim.tick();
    assert_eq!(arrivals(&sim).len(), 0);
    let events = sim.take_events();
    let dropped = |event: &Event| matches!(event, Event::Dropped { reason: DropReason::Retention, .. });
    assert_eq!(events.iter().filter(|event| dropped(event)).count(), 1, "{events:?}");
}

#[test]
fn a_boot_that_never_had_a_clock_expires_by_the_boots_behind_it() {
    let mut sim = open();
    append(&mut sim);
    // Three boots of 300 s each, none with a clock: together they last longer than the retention of 1,000 s.
    for boot in 0..3 {
        sim.clock.advance(Duration::from_secs(300));
        sim.tick();
        assert_eq!(arrivals(&sim).len(), 1, "boot {boot}");
        sim.close();
        reboot(&mut sim, CatalogueFound::Newest, Duration::ZERO, Timestamp(0));
    }
    sim.clock.advance(Duration::from_secs(100));
    sim.tick();
    assert_eq!(arrivals(&sim).len(), 0);
}

#[test]
fn reading_from_a_time_on_goes_by_what_is_known_of_the_clocks() {
    let mut sim = open();
    let mut at = Vec::new();
    for _ in 0..4 {
        // Years ahead, and never more right than by a look in the middle of the boot.
        reboot(&mut sim, CatalogueFound::Newest, Duration::from_secs(50), Timestamp(90 * YEAR_MS));
        at.push(append(&mut sim));
        sim.clock.advance(Duration::from_secs(50));
        sim.clock.synchronise();
        sim.tick();
        at.push(append(&mut sim));
    }
    assert_eq!(arrivals(&sim), at.iter().map(|at| (*at, true)).collect::<Vec<_>>());
    for (i, time) in at.iter().enumerate() {
        for (from, first) in [(time.0, i), (time.0 + 1, i + 1)] {
            let mut cursor = sim.stream().cursor(Start::AtTime(Timestamp(from)));
            let read = cursor.read(ReadLimit { records: 100, payload_bytes: 1 << 20 }).expect("readable");
            assert_eq!(read.iter().map(|record| record.arrival).collect::<Vec<_>>(), at[first..], "{i}");
        }
    }
}

#[test]
fn the_time_stays_known_when_the_wall_clock_is_set_afterwards() {
    let mut sim = open();
    sim.clock.synchronise();
    sim.tick();
    let mut at = vec![append(&mut sim)];
    for years in [0, 10, 90] {
        // As by `date -s`: the kernel says no more that it is synchronised.
        sim.clock.set_wall(Timestamp(years * YEAR_MS));
        sim.tick();
        at.push(append(&mut sim));
        sim.clock.advance(Duration::from_secs(7));
    }
    assert_eq!(arrivals(&sim), at.iter().map(|at| (*at, true)).collect::<Vec<_>>());
    assert_eq!(clock_events(&mut sim).len(), 1);
}

/// wazuh/wazuh#12923: a delay reckoned by the wall clock became negative when that was set back.
#[test]
fn a_clock_set_back_stalls_no_limit_and_no_retention() {
    let mut sim = Simulation::new(1);
    sim.stream_config.consumers.clear();
    sim.stream_config.rate_limit = Some(RateLimit { records_per_second: 10, bytes_per_second: 1000 });
    sim.open().expect("an empty disk");
    for years in [0, 90, 20] {
        append(&mut sim);
        let wait = loop {
            if let Err(wait) = sim.stream().admit(ShardIndex(0), 1, 1) {
                break wait;
            }
        };
        sim.clock.set_wall(Timestamp(years * YEAR_MS));
        sim.clock.advance(wait);
        assert_eq!(sim.stream().admit(ShardIndex(0), 1, 1), Ok(()), "in the year {}", 1970 + years);
        sim.clock.advance(Duration::from_secs(1001));
        sim.tick();
        assert_eq!(arrivals(&sim), []);
    }
}

#[test]
fn a_cursor_tells_the_ages_that_retention_goes_by() {
    let mut sim = open();
    append(&mut sim);
    sim.clock.advance(Duration::from_secs(30));
    append(&mut sim);
    sim.clock.advance(Duration::from_secs(5));
    let mut cursor = sim.stream().cursor(Start::Oldest);
    let mut read = |records| {
        let read = cursor.read(ReadLimit { records, payload_bytes: 1 << 20 }).expect("readable");
        assert_eq!(cursor.ages().len(), read.len());
        cursor.ages().iter().map(Duration::as_secs).collect::<Vec<_>>()
    };
    assert_eq!(read(1), [35]);
    assert_eq!(read(100), [5]);
    assert_eq!(read(100), [0; 0]);
    // The clock shows any year: of an earlier boot it is certain only that it ended before this one began.
    let years = Timestamp(90 * YEAR_MS);
    reboot(&mut sim, CatalogueFound::Newest, Duration::from_secs(50), years);
    append(&mut sim);
    sim.clock.advance(Duration::from_secs(7));
    let mut cursor = sim.stream().cursor(Start::Oldest);
    let read = cursor.read(ReadLimit { records: 100, payload_bytes: 1 << 20 }).expect("readable");
    let ages: Vec<_> = cursor.ages().iter().map(Duration::as_secs).collect();
    assert_eq!((read.len(), ages.len()), (3, 3));
    assert!(ages.is_sorted_by(|older, younger| older >= younger) && ages[0] < 200 && ages[2] == 7, "{ages:?}");
}

#[test]
fn a_clock_set_forward_expires_nothing_and_set_back_does_not_run_backwards() {
    let mut sim = Simulation::new(12);
    sim.stream_config.consumers.clear();
    sim.open().expect("an empty disk");
    sim.append(5, 100).expect("room");
    let wall = sim.clock.now().wall.0;
    sim.clock.set_wall(Timestamp(wall + 50 * 31_557_600_000));
    sim.tick();
    sim.append(5, 100).expect("room");
    assert_eq!(numbers(&sim).len(), 10);
    sim.clock.set_wall(Timestamp(5));
    sim.append(5, 100).expect("room");
    power_cut_and_open(&mut sim, CatalogueFound::Newest);
    sim.append(5, 100).expect("room");
    sim.tick();
    // `check` compares arrival times too.
    sim.check();
    assert_eq!(numbers(&sim).len(), 20);
    // By the monotonic clock it is all past in the end.
    sim.clock.advance(Duration::from_secs(1001));
    sim.tick();
    assert_eq!(numbers(&sim).len(), 0);
}
