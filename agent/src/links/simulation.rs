//! Months over a link, simulated: deliveries that always have more than it takes, estimates that are wrong, wake-ups that
//! come late. Judged by what passed.

use std::{collections::BTreeMap, time::Duration};

use fastrand::Rng;
use forebay_log_store::Timestamp;

use super::{
    Answer, Config, Held,
    budget::Spent,
    calendar::{WallTime, Zone},
    policy::{Moment, Policy},
};

const DAY: u64 = 86_400;
/// Monday, 2 November 2026, 00:00 UTC.
const BEGIN: u64 = 1_793_577_600;
const MONTH: u64 = 30 * DAY;
/// Requests of a delivery that are under way together.
const IN_FLIGHT: usize = 8;

/// A delivery that always has something to send.
struct Sender {
    priority: u8,
    /// What its requests are thought to have, and how much more they really have.
    estimate: u64,
    factor: f64,
    wakes: f64,
    /// When its requests under way are answered.
    under_way: Vec<f64>,
    passed: Vec<(f64, u64)>,
}

fn config(text: &str) -> Config {
    toml::from_str(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn senders(config: &Config, priorities: &[u8], rng: &mut Rng) -> Vec<Sender> {
    let largest = config.request_bytes().expect("it is limited");
    let sender = |priority: &u8| Sender {
        priority: *priority,
        estimate: rng.u64(largest / 4..=largest),
        factor: 0.5 + rng.f64(),
        wakes: 0.0,
        under_way: Vec::new(),
        passed: Vec::new(),
    };
    priorities.iter().map(sender).collect()
}

/// Runs `senders` for `seconds`; the clock is trusted after `trusted_after` of them.
fn run(policy: &mut Policy, senders: &mut [Sender], seconds: u64, trusted_after: u64, rng: &mut Rng) {
    let mut corrections: Vec<(f64, i64)> = Vec::new();
    loop {
        let next = (0..senders.len()).min_by(|a, b| senders[*a].wakes.total_cmp(&senders[*b].wakes)).expect("somebody");
        let now = senders[next].wakes;
        if now >= seconds as f64 {
            return;
        }
        corrections.retain(|(at, bytes)| {
            if *at <= now {
                policy.correct(*bytes);
            }
            *at > now
        });
        let wall = (now >= trusted_after as f64).then(|| Timestamp(BEGIN * 1000 + (now * 1000.0) as u64));
        let moment = Moment { since: Duration::from_secs_f64(now), wall };
        let sender = &mut senders[next];
        match policy.ask(next, sender.priority, sender.estimate, moment) {
            Answer::Wait { time, held } => {
                assert!(time > Duration::ZERO && time <= Duration::from_secs(30), "{time:?} for {held}");
                // No timer is punctual.
                sender.wakes = now + time.as_secs_f64() + rng.f64() * 0.02;
            }
            Answer::Now => {
                policy.sent(sender.estimate, moment);
                let bytes = (sender.estimate as f64 * sender.factor) as u64;
                sender.passed.push((now, bytes));
                let answered = now + rng.f64() * 2.0;
                corrections.push((answered, bytes as i64 - sender.estimate as i64));
                sender.under_way.retain(|at| *at > now);
                sender.under_way.push(answered);
                // It has more at once, or has to wait for an answer first.
                sender.wakes = match sender.under_way.len() {
                    IN_FLIGHT => sender.under_way.iter().copied().fold(f64::MAX, f64::min),
                    _ => now + rng.f64() * 0.01,
                };
            }
        }
    }
}

/// Bytes by spans of so many seconds.
fn by_span(senders: &[Sender], span: u64) -> BTreeMap<u64, u64> {
    let mut spans = BTreeMap::new();
    for (at, bytes) in senders.iter().flat_map(|sender| &sender.passed) {
        *spans.entry(*at as u64 / span).or_default() += bytes;
    }
    spans
}

#[track_caller]
fn within_5_percent(bytes: u64, expected: u64, what: &str) {
    let ratio = bytes as f64 / expected as f64;
    assert!((0.95..=1.05).contains(&ratio), "{what}: {bytes} of {expected}");
}

#[test]
fn a_cap_is_held_in_every_hour_of_a_month() {
    let mut rng = Rng::with_seed(3);
    let config = config("bandwidth = '4kbit/s'");
    let mut policy = Policy::new(&config, Spent::default());
    let mut senders = senders(&config, &[0, 0], &mut rng);
    run(&mut policy, &mut senders, MONTH, 0, &mut rng);
    let spans = by_span(&senders, 3600);
    assert_eq!(spans.len() as u64, MONTH / 3600);
    for (span, bytes) in spans {
        within_5_percent(bytes, 500 * 3600, &format!("hour {span}"));
    }
}

#[test]
fn a_budget_is_held_on_every_day_of_a_month() {
    for seed in 0..5 {
        let mut rng = Rng::with_seed(seed);
        let config = config("daily-budget = '50MB'\nreset = '03:00'\ntime-zone = 'utc'");
        let mut policy = Policy::new(&config, Spent::default());
        let mut senders = senders(&config, &[0, 1], &mut rng);
        run(&mut policy, &mut senders, MONTH, 0, &mut rng);
        // The first day ended at three, and had a whole budget.
        let all: u64 = by_span(&senders, MONTH).values().sum();
        within_5_percent(all, 31 * 50_000_000, &format!("seed {seed}, the month"));
        let mut days = BTreeMap::<u64, u64>::new();
        for (at, bytes) in senders.iter().flat_map(|sender| &sender.passed) {
            *days.entry((*at as u64 + 21 * 3600) / DAY).or_default() += bytes;
        }
        for (day, bytes) in days {
            within_5_percent(bytes, 50_000_000, &format!("seed {seed}, day {day}"));
        }
    }
}

#[test]
fn a_budget_is_held_over_kills_and_while_no_clock_is_trusted() {
    let mut rng = Rng::with_seed(5);
    let config = config("daily-budget = '50MB'");
    let mut spent = Spent::default();
    let mut passed = 0;
    // Twelve starts a day, each without a clock and ended by a power cut; what is on the disk lies 1 % ahead.
    for _ in 0..12 {
        let mut policy = Policy::new(&config, spent);
        let mut senders = senders(&config, &[0], &mut rng);
        run(&mut policy, &mut senders, 2 * 3600, MONTH, &mut rng);
        passed += by_span(&senders, MONTH).values().sum::<u64>();
        let end = Moment { since: Duration::from_secs(2 * 3600), wall: None };
        let (now, budget) = policy.spent(end).expect("there is one");
        spent = Spent { bytes: now.bytes + budget / 100, ..now };
    }
    within_5_percent(passed, 50_000_000, "a day in twelve pieces");
}

#[test]
fn a_schedule_is_held_for_a_month_and_open_while_no_clock_is_trusted() {
    let mut rng = Rng::with_seed(1);
    let text = "bandwidth = '8kbit/s'\nschedule = ['mon-fri 22:00-06:00', 'sat,sun 12:00-13:30']\ntime-zone = 'utc'";
    let config = config(text);
    let mut policy = Policy::new(&config, Spent::default());
    let mut senders = senders(&config, &[0, 0], &mut rng);
    run(&mut policy, &mut senders, MONTH, 3600, &mut rng);
    let (mut open, mut blind) = (0, 0);
    for (at, bytes) in senders.iter().flat_map(|sender| &sender.passed) {
        let wall = WallTime::of(Timestamp((BEGIN + *at as u64) * 1000), Zone::Utc);
        match config.schedule.is_open(wall) {
            true => open += bytes,
            false => {
                assert!(*at < 3600.0, "something left at {wall}");
                blind += bytes;
            }
        }
    }
    // Four weeks and a Monday and a Tuesday: 22 nights of eight hours (the last one begins two hours before the end), and
    // eight days of the weekend.
    let seconds = 21 * 8 * 3600 + 2 * 3600 + 8 * 5400;
    within_5_percent(open, 1000 * seconds, "all windows together");
    within_5_percent(blind, 1000 * 3600, "the first hour, without a clock");
}

#[test]
fn the_higher_priority_goes_first_and_a_spent_budget_is_for_it_alone() {
    let mut rng = Rng::with_seed(9);
    let config = config("bandwidth = '64kbit/s'\ndaily-budget = '100MB'\nwhen-spent = { only-priority = 5 }");
    let mut policy = Policy::new(&config, Spent::default());
    let mut both = senders(&config, &[0, 5], &mut rng);
    // The important one has something to say for a quarter of an hour only.
    let mut important = vec![both.pop().expect("two")];
    important[0].wakes = f64::MAX;
    run(&mut policy, &mut both, 600, 0, &mut rng);
    let mut senders = both;
    senders.append(&mut important);
    senders[1].wakes = 600.0;
    let before = senders[0].passed.len();
    run(&mut policy, &mut senders, 1500, 0, &mut rng);
    let others: u64 = senders[0].passed[before..].iter().map(|(_, bytes)| bytes).sum();
    let its: u64 = senders[1].passed.iter().map(|(_, bytes)| bytes).sum();
    // It is not there while it waits for an answer, and only then the other one has its turn.
    assert!(its > 3 * others, "{its} against {others}");
    let at =
        |seconds: u64| Moment { since: Duration::from_secs(seconds), wall: Some(Timestamp((BEGIN + seconds) * 1000)) };
    policy.sent(100_000_000, at(1500));
    let later = at(40_000);
    let answers = [0, 4, 5].map(|priority| policy.ask(0, priority, 1000, later));
    let held = |answer: Answer| matches!(answer, Answer::Wait { held: Held::Budget { .. }, .. });
    assert_eq!(answers.map(held), [true, true, false]);
}
