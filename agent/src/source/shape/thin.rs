//! `sample` and `deduplicate`: which of many records are taken. Pure: the time is passed in.
//!
//! Both remember keys by a hash of 128 bits that nobody outside can foresee, and no more of them than they are told to: the
//! oldest are forgotten first, and a forgotten key is a new one. So what is lost by it is at most a record too many.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    hash::{BuildHasher as _, RandomState},
    num::NonZeroU64,
    time::Duration,
};

use serde::Deserialize;

use crate::{
    config::{Problems, duration},
    ingest::PartitionKeyTemplate,
};

/// Some 100 bytes each.
const MAX_ENTRIES: usize = 10_000;

/// More would be a database of its own.
const MOST_ENTRIES: usize = 10_000_000;

/// `sample = { every = 10 }` or `{ interval = "1s" }`.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct SampleConfig {
    /// The first of each so many records is taken.
    pub every: Option<NonZeroU64>,
    /// At most one record in this time is taken.
    #[serde(with = "duration::option")]
    pub interval: Option<Duration>,
    /// A template as for `partition-key`: what is the same is sampled together. Without it, the whole source is.
    pub per: Option<String>,
    /// How many different ones are told apart.
    pub max_entries: usize,
}

/// `deduplicate = { window = "10s" }`.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct DeduplicateConfig {
    /// How long a record is remembered, from when it was taken.
    #[serde(with = "duration::option")]
    pub window: Option<Duration>,
    /// A template as for `partition-key`: what is the same is a duplicate. Without it, the whole record is compared.
    pub by: Option<String>,
    /// How many records are remembered.
    pub max_entries: usize,
}

impl Default for SampleConfig {
    fn default() -> Self {
        Self { every: None, interval: None, per: None, max_entries: MAX_ENTRIES }
    }
}

impl Default for DeduplicateConfig {
    fn default() -> Self {
        Self { window: None, by: None, max_entries: MAX_ENTRIES }
    }
}

/// Which records are taken, and what tells them apart.
#[derive(Debug, Clone)]
pub(super) struct Rule {
    pub(super) key: Option<PartitionKeyTemplate>,
    pub(super) how: How,
    max_entries: usize,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum How {
    /// The first of so many.
    Every(NonZeroU64),
    /// The first in so long.
    Window(Duration),
}

/// What becomes of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Take,
    /// And an older key had to be forgotten for it before its time.
    TakeAndForget,
    Leave,
}

impl SampleConfig {
    /// Notes everything that is wrong.
    pub(super) fn validate(&self, path: &str, problems: &mut Problems) -> Option<Rule> {
        let how = match (self.every, self.interval) {
            (Some(every), None) => Some(How::Every(every)),
            (None, Some(interval)) => window(interval, &format!("{path}.interval"), problems),
            _ => {
                problems.add(path, "needs either `every`, such as 10, or `interval`, such as \"1s\"");
                None
            }
        };
        rule(how, self.per.as_deref(), &format!("{path}.per"), self.max_entries, path, problems)
    }
}

impl DeduplicateConfig {
    /// Notes everything that is wrong.
    pub(super) fn validate(&self, path: &str, problems: &mut Problems) -> Option<Rule> {
        let key = format!("{path}.window");
        let how = match self.window {
            Some(given) => window(given, &key, problems),
            None => {
                problems.add(key, "missing; say how long a record is remembered, such as \"10s\"");
                None
            }
        };
        rule(how, self.by.as_deref(), &format!("{path}.by"), self.max_entries, path, problems)
    }
}

fn window(given: Duration, path: &str, problems: &mut Problems) -> Option<How> {
    if given.is_zero() {
        problems.add(path, "must be longer than 0");
        return None;
    }
    Some(How::Window(given))
}

fn rule(
    how: Option<How>,
    template: Option<&str>,
    template_path: &str,
    max_entries: usize,
    path: &str,
    problems: &mut Problems,
) -> Option<Rule> {
    let key = match template.map(PartitionKeyTemplate::parse).transpose() {
        Ok(key) => Some(key),
        Err(error) => {
            problems.add(template_path, error.to_string());
            None
        }
    };
    if !(1..=MOST_ENTRIES).contains(&max_entries) {
        problems.add(format!("{path}.max-entries"), format!("is between 1 and {MOST_ENTRIES}, not {max_entries}"));
        return None;
    }
    Some(Rule { key: key?, how: how?, max_entries })
}

/// What a rule remembers.
#[derive(Debug, Default)]
pub(super) struct Memory {
    hashers: [RandomState; 2],
    /// Of a window, oldest first; of counts, in the order of the first record of each key.
    order: VecDeque<(Duration, u128)>,
    known: HashSet<u128>,
    counts: HashMap<u128, u64>,
}

impl Rule {
    /// Whether a record of this key is taken now.
    pub(super) fn decide(&self, key: &[u8], now: Duration, memory: &mut Memory) -> Verdict {
        let key = memory.hash(key);
        match self.how {
            How::Window(window) => {
                memory.expire(now, window);
                if !memory.known.insert(key) {
                    return Verdict::Leave;
                }
                memory.remember(now, key, self.max_entries)
            }
            How::Every(every) => {
                if let Some(count) = memory.counts.get_mut(&key) {
                    *count = (*count + 1) % every;
                    return if *count == 0 { Verdict::Take } else { Verdict::Leave };
                }
                memory.counts.insert(key, 0);
                memory.remember(now, key, self.max_entries)
            }
        }
    }
}

impl Memory {
    fn hash(&self, key: &[u8]) -> u128 {
        let [high, low] = [0, 1].map(|index: usize| self.hashers[index].hash_one(key));
        u128::from(high) << 64 | u128::from(low)
    }

    fn expire(&mut self, now: Duration, window: Duration) {
        while let Some(&(at, key)) = self.order.front() {
            if now.saturating_sub(at) < window {
                break;
            }
            self.order.pop_front();
            self.known.remove(&key);
        }
    }

    fn remember(&mut self, now: Duration, key: u128, max: usize) -> Verdict {
        self.order.push_back((now, key));
        if self.order.len() <= max {
            return Verdict::Take;
        }
        if let Some((_, oldest)) = self.order.pop_front() {
            self.known.remove(&oldest);
            self.counts.remove(&oldest);
        }
        Verdict::TakeAndForget
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rule(how: How, max_entries: usize) -> Rule {
        Rule { key: None, how, max_entries }
    }

    fn taken(rule: &Rule, records: &[(&str, u64)]) -> Vec<Verdict> {
        let mut memory = Memory::default();
        records.iter().map(|(key, ms)| rule.decide(key.as_bytes(), Duration::from_millis(*ms), &mut memory)).collect()
    }

    #[test]
    fn the_first_of_each_n_is_taken_per_key() {
        let every = rule(How::Every(NonZeroU64::new(3).expect("not 0")), 10);
        let verdicts = taken(&every, &[("a", 0), ("a", 0), ("b", 0), ("a", 0), ("a", 0), ("b", 0)]);
        use Verdict::{Leave, Take};
        assert_eq!(verdicts, [Take, Leave, Take, Leave, Take, Leave]);
        let all = rule(How::Every(NonZeroU64::MIN), 10);
        assert_eq!(taken(&all, &[("a", 0), ("a", 0)]), [Take, Take]);
    }

    #[test]
    fn a_window_begins_with_the_record_that_was_taken() {
        use Verdict::{Leave, Take, TakeAndForget};
        let window = rule(How::Window(Duration::from_secs(1)), 2);
        assert_eq!(
            taken(&window, &[("a", 0), ("a", 600), ("a", 999), ("a", 1000), ("a", 1999)]),
            [Take, Leave, Leave, Take, Leave]
        );
        // No room for three: the oldest is forgotten.
        assert_eq!(
            taken(&window, &[("a", 0), ("b", 0), ("c", 1), ("a", 2), ("c", 3)]),
            [Take, Take, TakeAndForget, TakeAndForget, Leave]
        );
    }

    #[test]
    fn mistakes_are_told_with_their_keys() {
        let mut problems = Problems::default();
        for toml in [
            "",
            "every = 2\ninterval = '1s'",
            "interval = '0s'",
            "every = 1\nper = '{topik}'",
            "every = 1\nmax-entries = 0",
        ] {
            let config: SampleConfig = toml::from_str(toml).expect(toml);
            assert!(config.validate("s", &mut problems).is_none(), "{toml}");
        }
        for toml in ["", "window = '0s'", "window = '1s'\nby = '{'"] {
            let config: DeduplicateConfig = toml::from_str(toml).expect(toml);
            assert!(config.validate("d", &mut problems).is_none(), "{toml}");
        }
        let told: Vec<_> = problems.list().iter().map(|problem| problem.path.as_str()).collect();
        assert_eq!(told, ["s", "s", "s.interval", "s.per", "s.max-entries", "d.window", "d.window", "d.by"]);
    }

    proptest! {
        /// Against the plain meaning, with room for all.
        #[test]
        fn a_window_takes_what_was_not_taken_within_it(records in proptest::collection::vec((0..4_u8, 0..400_u64), 1..60)) {
            let window = Duration::from_millis(1000);
            let (mut memory, mut now) = (Memory::default(), 0);
            let mut last: [Option<u64>; 4] = [None; 4];
            for (key, pause) in records {
                now += pause;
                let model = last[usize::from(key)].is_none_or(|at| now - at >= 1000);
                let verdict = rule(How::Window(window), 1000).decide(&[key], Duration::from_millis(now), &mut memory);
                prop_assert_eq!(verdict == Verdict::Take, model);
                if model {
                    last[usize::from(key)] = Some(now);
                }
            }
        }

        #[test]
        fn memory_is_bounded(keys in proptest::collection::vec(any::<u16>(), 1..200), max in 1..20_usize, counts: bool) {
            let how = if counts { How::Every(NonZeroU64::MIN) } else { How::Window(Duration::from_secs(1)) };
            let (rule, mut memory) = (rule(how, max), Memory::default());
            for key in keys {
                rule.decide(&key.to_le_bytes(), Duration::ZERO, &mut memory);
                prop_assert!(memory.order.len() <= max && memory.known.len() <= max && memory.counts.len() <= max);
            }
        }
    }
}
