//! What is drawn beforehand: limits, deliveries, what comes in, and what goes wrong when.

use std::time::Duration;

use fastrand::Rng;
use forebay_log_store::{Record, SequenceNumber};

use super::{
    endpoint::{Flaw, Mood, PASSING},
    line::{Lanes, Line},
    world::{Event, World},
};
use crate::{
    delivery::config::{CatchUp, Config, Ordering},
    destination::Limits,
    links,
    sample::plain,
};

const HOUR: u64 = 3600;
pub(super) const DAY: u64 = 24 * HOUR;
/// Where there is no budget, there is one that nobody can spend, so that what is counted can be seen.
const UNLIMITED: u64 = 1 << 40;

/// A link's limits.
#[derive(Debug)]
pub(super) struct Limit {
    /// Bytes per second.
    pub(super) cap: Option<u64>,
    /// Bytes per day.
    pub(super) budget: u64,
    /// When its day begins, in minutes.
    pub(super) reset: u64,
    pub(super) only_priority: Option<u8>,
    /// When it is open, in minutes of each day; the end may be past midnight.
    pub(super) windows: Vec<(u64, u64)>,
    /// No request takes more: as large as requests are to be, or one record that is larger; in base64, with a handshake and an
    /// answer.
    pub(super) largest: u64,
    /// Nothing is planned after this.
    pub(super) planned: Duration,
}

impl Limit {
    pub(super) fn draw(rng: &mut Rng) -> Self {
        let has_budget = rng.bool();
        let has_cap = !has_budget || rng.bool();
        let mut limit = Self {
            cap: has_cap.then(|| [100, 400, 1000, 4000, 20_000][rng.usize(..5)]),
            budget: if has_budget { [400_000, 1_000_000, 2_000_000][rng.usize(..3)] } else { UNLIMITED },
            reset: if has_budget { rng.u64(..24 * 60) } else { 0 },
            only_priority: (has_budget && rng.u8(..3) == 0).then(|| rng.u8(1..=9)),
            windows: (0..rng.u8(..3)).map(|_| (rng.u64(..24 * 60), rng.u64(30..=16 * 60))).collect(),
            largest: 0,
            planned: Duration::ZERO,
        };
        limit.largest = 8000 + 2 * limit.config().request_bytes().expect("there is a budget");
        limit
    }

    /// As a configuration file has it.
    pub(super) fn config(&self) -> links::Config {
        let time = |minutes: u64| format!("{:02}:{:02}", minutes / 60 % 24, minutes % 60);
        let windows: Vec<_> = self
            .windows
            .iter()
            .map(|(begin, minutes)| format!("'{}-{}'", time(*begin), time(begin + minutes)))
            .collect();
        let mut text = format!("daily-budget = {}\nreset = '{}'\ntime-zone = 'utc'\n", self.budget, time(self.reset));
        text += &format!("schedule = [{}]\n", windows.join(", "));
        text += &self.cap.map_or_else(String::new, |cap| format!("bandwidth = '{cap}B/s'\n"));
        text += &self
            .only_priority
            .map_or_else(String::new, |least| format!("when-spent = {{ only-priority = {least} }}\n"));
        toml::from_str(&text).unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    /// Whether it is open so long after the beginning, which is a midnight.
    pub(super) fn is_open(&self, now: Duration) -> bool {
        let minute = now.as_secs() / 60 % (24 * 60);
        let within = |(begin, minutes): &(u64, u64)| (minute + 24 * 60 - begin) % (24 * 60) < *minutes;
        self.windows.is_empty() || self.windows.iter().any(within)
    }

    /// Which day of the budget it is then.
    pub(super) fn day(&self, now: Duration) -> u64 {
        (now.as_secs() + DAY - self.reset * 60) / DAY
    }
}

impl Line {
    pub(super) fn draw(number: usize, limit: &Limit, rng: &mut Rng) -> Self {
        let lanes = [Lanes::Single, Lanes::OfKey, Lanes::OfShard][rng.usize(..3)];
        let config = Config {
            ordering: if rng.u8(..6) == 0 { Ordering::Relaxed } else { Ordering::Strict },
            batch_records: rng.usize(1..=50),
            batch_age: Duration::from_millis(rng.u64(0..=1000)),
            in_flight: rng.usize(1..=4),
            window_records: rng.usize(100..=300),
            window_bytes: rng.u64(20_000..=400_000),
            max_backoff: Duration::from_millis(rng.u64(100..=20_000)),
            catch_up: [CatchUp::OldestFirst, CatchUp::OldestFirst, CatchUp::NewestFirst, CatchUp::Split]
                [rng.usize(..4)],
            max_age: (rng.u8(..6) == 0).then(|| Duration::from_secs(rng.u64(60..=DAY))),
            priority: rng.u8(..10),
            ..Config::default()
        };
        let limits = Limits {
            request_records: rng.usize(10..=100),
            request_bytes: rng.u64(8_000..=200_000),
            parcel_records: if lanes == Lanes::Single { 1 } else { rng.usize(2..=100) },
            parcel_bytes: rng.u64(500..=20_000),
            keeps_requests: rng.bool(),
            request_timeout: Duration::from_millis(rng.u64(2000..=30_000)),
        };
        let config = config.with_requests_of(limit.config().request_bytes());
        // As much as a day and a half carry, at the most.
        let day = limit.budget.min(limit.cap.map_or(u64::MAX, |cap| cap * DAY));
        let (size_max, all) = (rng.u64(100..=4000), rng.u64(2_000..=(day * 3 / 4).min(1_000_000)));
        let keys = rng.u32(1..=12);
        let flaws = if rng.bool() { 0 } else { rng.usize(1..=4) };
        let mut log = Vec::new();
        let mut sequence_number = 0;
        let mut add = |log: &mut Vec<(Record, Flaw)>, key: String, bytes: u64, gap: u64| {
            sequence_number += gap;
            log.push((record(sequence_number, &key, bytes), Flaw::None));
            bytes
        };
        let mut bytes = 0;
        while bytes < all && log.len() < 800 {
            let gap = if rng.u8(..10) == 0 { rng.u64(1..=50) } else { 1 };
            bytes += add(&mut log, format!("k{}", rng.u32(..keys)), rng.u64(1..=size_max), gap) + 128;
        }
        let others = log.len();
        for _ in 0..flaws {
            let at = rng.usize(..others);
            log[at].1 = [Flaw::Refused, Flaw::Rejected, Flaw::NotAccepted, Flaw::Breaks][rng.usize(..4)];
        }
        // Some of them come when the endpoint takes everything, one by one: what is refused is only found undeliverable when others
        // are taken in between.
        for _ in 0..=2 * flaws {
            add(&mut log, "fresh".to_owned(), 1, 1);
        }
        Self::new(number, config, limits, lanes, log, others, rng)
    }
}

fn record(sequence_number: u64, key: &str, bytes: u64) -> Record {
    Record { sequence_number: SequenceNumber(sequence_number), ..plain(key, vec![0; bytes as usize]) }
}

impl World {
    /// What happens from outside.
    pub(super) fn plan(&mut self) {
        let span = HOUR * self.rng.u64(1..=36);
        let seconds = Duration::from_secs;
        let mut healthy = Duration::ZERO;
        for line in 0..self.lines.len() {
            let mut end = Duration::ZERO;
            for _ in 0..self.rng.usize(..=8) {
                let longest = [60, 60, 120, 120, 600, 600, 1800, 2 * HOUR][self.rng.usize(..8)];
                end += Duration::from_millis(self.rng.u64(1000..=longest * 1000));
                let mood = match self.rng.u8(..12) {
                    0..4 => Mood::Healthy,
                    4..6 => Mood::Refused,
                    6 => Mood::Silent,
                    7 => Mood::Reset,
                    8 => Mood::Fails(*self.rng.choice(&PASSING).expect("some")),
                    9 => Mood::Garbage,
                    _ => Mood::Partial(self.rng.f64()),
                };
                self.lines[line].moods.push((end, mood));
                self.at(end, Event::Mood);
            }
            self.lines[line].healthy_since = end;
            healthy = healthy.max(end);
            // What comes in: a backlog, bursts, and single records.
            let (mut left, fresh) = self.lines[line].to_come();
            if self.rng.bool() {
                let backlog = self.rng.usize(..=left);
                self.lines[line].commit(backlog, Duration::ZERO);
                left -= backlog;
            }
            while left > 0 {
                let burst = if self.rng.u8(..4) == 0 { left } else { 20 };
                let records = self.rng.usize(1..=burst.min(left));
                left -= records;
                let at = Duration::from_millis(self.rng.u64(..span * 1000));
                self.at(at, Event::Commit { line, records });
            }
            for n in 1..=fresh {
                // Each in another window of the schedule, and on another day of the budget: those that wait together are taken together.
                let apart = if self.lines[line].is_refused_any() { 25 * HOUR } else { 600 };
                let at = seconds(span) + end + seconds(n as u64 * apart);
                healthy = healthy.max(at);
                self.at(at, Event::Commit { line, records: 1 });
            }
        }
        let some = |rng: &mut Rng| Duration::from_millis(rng.u64(..span * 1000));
        for _ in 0..self.rng.u8(..6).saturating_sub(2) {
            let at = some(&mut self.rng);
            let stop = self.rng.u8(..3) == 0;
            self.at(at, if stop { Event::Stop } else { Event::Kill });
        }
        // Soon after the start, too, when much is sent at once.
        if self.rng.u8(..3) == 0 {
            let at = Duration::from_millis(self.rng.u64(..10_000));
            self.at(at, Event::Kill);
        }
        for _ in 0..self.rng.u8(..3) {
            let at = some(&mut self.rng);
            self.at(at, Event::Interface);
        }
        if self.rng.u8(..6) == 0 {
            let at = some(&mut self.rng);
            let until = at + Duration::from_millis(self.rng.u64(..2 * HOUR * 1000));
            self.at(at, Event::Metered(false));
            self.at(until, Event::Metered(true));
            healthy = healthy.max(until);
        }
        self.limit.planned = healthy.max(seconds(span));
    }

    /// All of it has to be delivered by then.
    pub(super) fn deadline(&self) -> Duration {
        let bytes: u64 = self.lines.iter().map(Line::bytes).sum();
        // Whatever the endpoints made to be sent again.
        let bytes = (bytes * 4) as f64;
        let open: u64 = self.limit.windows.iter().map(|(_, minutes)| *minutes * 60).max().unwrap_or(DAY);
        let a_day = self.limit.cap.map_or(f64::MAX, |cap| (cap * open) as f64).min(self.limit.budget as f64);
        let days = 4 + (bytes / a_day) as u64;
        self.limit.planned + Duration::from_secs(days * DAY)
    }
}
