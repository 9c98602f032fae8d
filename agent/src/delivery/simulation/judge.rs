//! What windows and link promise together.

use std::{collections::BTreeMap, time::Duration};

use super::{
    endpoint::{Flaw, Mood},
    line::Line,
    plan::DAY,
    world::World,
};
use crate::{
    delivery::{
        config::{CatchUp, Ordering},
        window::{Batch, RECORD_OVERHEAD},
    },
    links::{Held, Spent},
};

/// The day before the beginning, as a number of the budget's days.
const DAY_BEFORE: i64 = 20_758;

/// Nothing that may go waits longer, if nothing has to be paid for: timers, backoffs, and requests that are given up.
const PATIENCE: Duration = Duration::from_secs(75);

/// Whoever is held asks again within this.
const LOOKS_AGAIN: Duration = Duration::from_secs(31);

/// See the module.
#[derive(Debug)]
pub(super) struct Judge {
    /// When how much passed, by which delivery, while the limits held.
    passed: Vec<(Duration, u64, usize)>,
    /// What the link is to have counted of the day, and which day that is.
    counted: u64,
    day: i64,
    /// What it may have counted for another day, or not at all.
    unsure: u64,
    /// For each delivery, what has passed since it heard of a request last.
    untold: Vec<u64>,
    /// For each delivery, since when it might go, and when it went last.
    might: Vec<Option<Duration>>,
    went: Vec<Option<Duration>>,
    /// The same since when it has nothing to send.
    idle: Vec<Option<Duration>>,
    /// While somebody waits for the cap, and nothing goes wrong: since when, how long all in all, and how much passed.
    scarce: Option<Duration>,
    scarce_time: Duration,
    scarce_bytes: u64,
    scarce_times: u64,
}

impl Judge {
    pub(super) fn new(lines: usize) -> Self {
        Self {
            passed: Vec::new(),
            counted: 0,
            day: 0,
            unsure: 0,
            untold: vec![0; lines],
            might: vec![None; lines],
            went: vec![None; lines],
            idle: vec![None; lines],
            scarce: None,
            scarce_time: Duration::ZERO,
            scarce_bytes: 0,
            scarce_times: 0,
        }
    }

    /// The agent has started, and knows this.
    pub(super) fn begin(&mut self, spent: Spent, now: Duration) {
        self.counted = spent.bytes;
        self.day = spent.day.unwrap_or_default();
        self.unsure = 0;
        self.untold.fill(0);
        self.might.fill(None);
        self.went.fill(Some(now));
        self.idle.fill(None);
        self.scarce = None;
    }

    /// A delivery tells its link what has passed, of which that takes note while its limits hold.
    pub(super) fn told(&mut self, line: usize, metered: bool) {
        let passed = std::mem::take(&mut self.untold[line]);
        self.counted += if metered { passed } else { 0 };
    }
}

impl World {
    fn is_trusted(&self) -> bool {
        self.since() >= self.trusted_after
    }

    fn is_open(&self) -> bool {
        !self.metered || !self.is_trusted() || self.limit.is_open(self.now)
    }

    /// A request leaves, of which the link was told that it has about so many bytes.
    pub(super) fn judge_send(&mut self, line: usize, batch: &Batch, asked: u64) {
        let of = &self.lines[line];
        assert!(self.is_open(), "{} sends outside the schedule: {}", line, self.tell());
        assert!(of.held.is_none(), "{} sends and is held: {}", line, self.tell());
        if self.metered && self.limit.cap.is_some() {
            let mine = of.config.priority;
            let waits = |line: &&Line| matches!(line.held, Some(Held::Bandwidth | Held::Priority));
            let waiting = || self.lines.iter().filter(waits);
            assert!(waiting().all(|line| line.config.priority <= mine), "{line} goes before others: {}", self.tell());
            self.totals.yielded += waiting().filter(|line| line.config.priority < mine).count() as u64;
        }
        let (group, witness) = of.window.is_apart(batch.id);
        let bytes = batch.parcels.iter().map(|parcel| {
            parcel.records.iter().map(|record| of.lanes.place(record).bytes).sum::<u64>() + RECORD_OVERHEAD
        });
        let bytes = bytes.sum::<u64>();
        assert!(!(group || witness) || asked == bytes, "asked for {asked}, and sends {bytes}");
        self.totals.requests += 1;
        self.totals.groups += u64::from(group);
        self.totals.witnesses += u64::from(witness);
        self.judge.went[line] = Some(self.now);
    }

    /// The shards are asked for.
    pub(super) fn judge_survey(&self, line: usize) {
        assert!(self.is_open(), "{line} asks for shards outside the schedule: {}", self.tell());
        let (spent, budget) = self.link.stats().budget.expect("there is one");
        let goes_on = self.limit.only_priority.is_some_and(|least| self.lines[line].config.priority >= least);
        let may = spent < budget || !self.metered || goes_on;
        assert!(may, "{line} asks for shards, and the budget is spent: {}", self.tell());
    }

    pub(super) fn judge_passing(&mut self, line: usize, bytes: u64) {
        if self.metered {
            self.judge.passed.push((self.now, bytes, line));
            if self.judge.scarce.is_some() {
                self.judge.scarce_bytes += bytes;
            }
        }
        self.judge.untold[line] += bytes;
    }

    /// What is under way now may be counted wrongly.
    pub(super) fn judge_unsure(&mut self) {
        let under_way: usize = self.lines.iter().map(|line| line.in_flight.len()).sum();
        self.judge.unsure += under_way as u64 * self.limit.largest;
    }

    /// What is told to be spent is what has passed.
    pub(super) fn judge_spent(&mut self) {
        if !self.runs || self.trusted_after > Duration::ZERO {
            return;
        }
        let today = DAY_BEFORE + self.limit.day(self.now).cast_signed();
        if self.judge.day < today {
            (self.judge.day, self.judge.counted, self.judge.unsure) = (today, 0, 0);
            self.judge_unsure();
            let is_spent = |line: &Line| matches!(line.held, Some(Held::Budget { .. }));
            self.totals.spent_days += u64::from(self.lines.iter().any(is_spent));
        }
        if self.lines.iter().all(|line| line.in_flight.is_empty()) {
            let (spent, _) = self.link.stats().budget.expect("there is one");
            let Judge { counted, unsure, .. } = self.judge;
            assert!(spent.abs_diff(counted) <= unsure, "{spent} for {counted} (± {unsure}): {}", self.tell());
            self.totals.exactly += u64::from(unsure == 0);
        }
    }

    /// Nothing happens before `next`: nobody who might go has to wait until then.
    pub(super) fn judge_flow(&mut self, next: Duration) {
        self.judge_scarcity(next);
        let to_pay = self.limit.cap.map_or(Duration::ZERO, |cap| Duration::from_secs(3 * self.limit.largest / cap));
        let patience = PATIENCE + to_pay;
        let (spent, budget) = self.link.stats().budget.expect("there is one");
        for line in 0..self.lines.len() {
            let of = &self.lines[line];
            let goes_on = self.limit.only_priority.is_some_and(|least| of.config.priority >= least);
            let is_within = !self.metered || goes_on || spent + 2 * self.limit.largest <= budget;
            let might = self.runs
                && self.is_open()
                && is_within
                && of.has_more()
                && of.mood(self.now) == Mood::Healthy
                && self.now > of.asked;
            // Nobody is held who has nothing to send.
            let idle = &mut self.judge.idle[line];
            *idle = (self.runs && !of.has_more()).then(|| idle.unwrap_or(self.now));
            let long_idle = idle.is_some_and(|since| self.now > since + LOOKS_AGAIN);
            assert!(!long_idle || of.held.is_none(), "{line} has nothing to send, and is held: {}", self.tell());
            let since = &mut self.judge.might[line];
            *since = might.then(|| since.unwrap_or(self.now));
            let Some(since) = *since else { continue };
            // Others may go instead, but not of lower priority.
            let others = self.lines.iter().filter(|other| other.config.priority >= of.config.priority);
            let went = others.clone().filter_map(|other| self.judge.went[other.number]).max();
            let went = went.map_or(since, |went| went.max(since));
            assert!(
                went + patience > next,
                "{line} might go since {since:?}, nobody went since {went:?}: {}",
                self.tell()
            );
            // Where nobody goes before it, it has its turn.
            if others.clone().all(|other| other.config.priority == of.config.priority) {
                let went = self.judge.went[line].map_or(since, |went| went.max(since));
                let turns = u32::try_from(others.count()).expect("few");
                assert!(went + patience * turns > next, "{line} might go since {went:?}: {}", self.tell());
            }
        }
    }

    /// While somebody waits for the cap, what passes is as much.
    fn judge_scarcity(&mut self, next: Duration) {
        let waits = |line: &Line| matches!(line.held, Some(Held::Bandwidth | Held::Priority));
        let settled = Duration::from_secs(60);
        let is_well = |line: &Line| {
            line.mood(self.now) == Mood::Healthy && line.mood(self.now.saturating_sub(settled)) == Mood::Healthy
        };
        let is_scarce = self.runs && self.metered && self.lines.iter().any(waits) && self.lines.iter().all(is_well);
        if is_scarce {
            if self.judge.scarce.is_none() {
                self.judge.scarce_times += 1;
                // What is waited for left just now.
                let just_now = self.judge.passed.iter().rev().take_while(|(at, ..)| *at == self.now);
                self.judge.scarce_bytes += just_now.map(|(_, bytes, _)| bytes).sum::<u64>();
            }
            self.judge.scarce = Some(self.now);
            self.judge.scarce_time += next - self.now;
        } else {
            self.judge.scarce = None;
        }
    }

    /// A record arrives after all earlier ones of its key.
    pub(super) fn judge_order(&mut self, line: usize, index: usize) {
        let Line { config, log, keys, fates, .. } = &mut self.lines[line];
        let ordered = config.ordering == Ordering::Strict && config.catch_up == CatchUp::OldestFirst;
        if !ordered || config.max_age.is_some() || fates[index].accepted > 0 {
            return;
        }
        let (of_key, resolved) = keys.get_mut(&*log[index].0.partition_key).expect("every key is known");
        let is_resolved = |at: usize| {
            let fate = fates[at];
            let never = matches!(log[at].1, Flaw::Refused | Flaw::Rejected | Flaw::NotAccepted);
            fate.accepted > 0 || fate.buried || never
        };
        while of_key.get(*resolved).is_some_and(|at| *at < index && is_resolved(*at)) {
            *resolved += 1;
        }
        let first = of_key[*resolved];
        assert!(first >= index, "{index} of {line} arrived before {first}, both of one key");
    }

    /// The agent ends, or the simulation does.
    pub(super) fn judge_life(&mut self) {
        for line in &self.lines {
            let counts = line.window.counts();
            assert_eq!((counts.requests, counts.records), (line.sent, line.taken as u64), "{}", self.tell());
        }
    }

    pub(super) fn judge_all(&mut self) {
        self.judge_life();
        assert!(self.is_over(), "it came to rest before the end: {}", self.tell());
        for line in &self.lines {
            for (index, fate) in line.fates.iter().enumerate() {
                let age = self.now - line.arrived[index];
                let is_expired = line.config.max_age.is_some_and(|max| age >= max);
                let number = line.log[index].0.sequence_number;
                assert!(*fate != Default::default() || is_expired, "{number} of {} was never delivered", line.number);
            }
        }
        self.judge_cap();
        self.judge_budget();
        self.judge_schedule();
        self.totals.days = self.now.as_secs() / DAY + 1;
        self.totals.records = self.lines.iter().map(|line| line.log.len() as u64).sum();
        let fates = || self.lines.iter().flat_map(|line| &line.fates);
        self.totals.duplicates = fates().map(|fate| u64::from(fate.accepted.saturating_sub(1))).sum();
        self.totals.buried = fates().filter(|fate| fate.buried).count() as u64;
    }

    /// In no hour more than 5 % more than the cap, and whatever it makes wait passes at its speed.
    fn judge_cap(&self) {
        let Some(cap) = self.limit.cap else { return };
        let Judge { passed, scarce_time, scarce_bytes, scarce_times, .. } = &self.judge;
        // A start owes nothing, and what is under way when the metering changes may go uncounted.
        let slack = (1 + self.totals.kills + self.totals.stops) * self.limit.largest;
        let hour = Duration::from_secs(3600);
        let (mut first, mut bytes) = (0, 0);
        for (at, more, _) in passed {
            bytes += more;
            while passed[first].0 + hour < *at {
                bytes -= passed[first].1;
                first += 1;
            }
            assert!(bytes <= cap * 3780 + slack, "{bytes} in an hour up to {at:?}: {}", self.tell());
        }
        let least = (scarce_time.as_secs_f64() * cap as f64 * 0.95) as u64;
        assert!(
            scarce_bytes + scarce_times * self.limit.largest >= least,
            "{scarce_bytes} in {scarce_time:?}: {}",
            self.tell()
        );
    }

    /// On no day more than 5 % more than the budget; while the time is not known, of all days together.
    fn judge_budget(&self) {
        let mut days = BTreeMap::<u64, u64>::new();
        let waits = |line: usize| self.limit.only_priority.is_none_or(|least| self.lines[line].config.priority < least);
        for (at, bytes, _) in self.judge.passed.iter().filter(|(_, _, line)| waits(*line)) {
            let day = if self.trusted_after == Duration::ZERO { self.limit.day(*at) } else { 0 };
            *days.entry(day).or_default() += bytes;
        }
        let touched = self.limit.day(self.now) - self.limit.day(Duration::ZERO) + 1;
        let times = if self.trusted_after == Duration::ZERO { 1 } else { touched };
        for (day, bytes) in days {
            let most = times * self.limit.budget / 100 * 105;
            assert!(bytes <= most, "{bytes} on day {day}: {}", self.tell());
        }
    }

    /// What was begun inside a window may end outside, and that is all.
    fn judge_schedule(&self) {
        if self.trusted_after > Duration::ZERO {
            return;
        }
        let sum = |outside: bool| {
            let within = self.judge.passed.iter().filter(|(at, ..)| !outside || !self.limit.is_open(*at));
            within.map(|(_, bytes, _)| *bytes).sum::<u64>()
        };
        let (outside, all) = (sum(true), sum(false));
        assert!(
            outside <= all / 20 + 4 * self.limit.largest,
            "{outside} of {all} outside the schedule: {}",
            self.tell()
        );
    }
}

impl Line {
    /// Whether something is left of what has come.
    fn has_more(&self) -> bool {
        let newest = self.arrived.len().checked_sub(1).map(|newest| self.log[newest].0.sequence_number);
        newest.is_some_and(|newest| self.window.checkpoint() < newest)
    }
}
