//! Decides which readings become records: all, or those that changed by more than a dead band. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::reading::{Amount, Reading, Unreadable};

/// Timers are not exact to the millisecond: every sixth poll of ten seconds is none too soon for a minute.
const SLACK: Duration = Duration::from_millis(100);

/// Which readings are worth a record.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Rule {
    /// Only those that changed.
    pub(super) changed: bool,
    /// A value has changed if it differs by at least this from the one that was recorded; 0: by anything.
    pub(super) dead_band: f64,
    /// The same for values of a unit.
    pub(super) by_unit: BTreeMap<String, f64>,
    /// A record at least this often.
    pub(super) max_silence: Option<Duration>,
}

/// What is remembered of a group's sensors.
#[derive(Debug, Default)]
pub(super) struct Reporter {
    recorded: BTreeMap<String, (BTreeMap<String, Amount>, Duration)>,
    /// Those that were there at the last poll.
    known: BTreeSet<String>,
    /// What could not be read at the last poll, and was told.
    failing: BTreeSet<(String, String)>,
}

/// What a poll means.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Verdict {
    pub(super) record: Vec<Reading>,
    /// What could be read before.
    pub(super) tell: Vec<Unreadable>,
    /// Sensors that were there before.
    pub(super) vanished: Vec<String>,
}

impl Reporter {
    /// Judges a poll; `now` is any time that only goes forward.
    pub(super) fn judge(
        &mut self,
        rule: &Rule,
        readings: Vec<Reading>,
        unreadable: Vec<Unreadable>,
        now: Duration,
    ) -> Verdict {
        let there = readings.iter().map(|reading| &reading.sensor).chain(unreadable.iter().map(|one| &one.sensor));
        let there: BTreeSet<String> = there.cloned().collect();
        let vanished = self.known.difference(&there).cloned().collect();
        self.recorded.retain(|sensor, _| there.contains(sensor));
        self.known = there;
        let record = readings.into_iter().filter(|reading| self.is_due(rule, reading, now)).collect();
        let failing = unreadable.iter().map(|one| (one.sensor.clone(), one.what.clone())).collect();
        let before = std::mem::replace(&mut self.failing, failing);
        let is_new = |one: &Unreadable| !before.contains(&(one.sensor.clone(), one.what.clone()));
        Verdict { record, tell: unreadable.into_iter().filter(is_new).collect(), vanished }
    }

    fn is_due(&mut self, rule: &Rule, reading: &Reading, now: Duration) -> bool {
        let is_due = !rule.changed
            || self.recorded.get(&reading.sensor).is_none_or(|(before, at)| {
                let is_silent = rule.max_silence.is_some_and(|longest| now.saturating_sub(*at) + SLACK >= longest);
                is_silent || rule.has_changed(before, reading)
            });
        if is_due && rule.changed {
            let values = reading.values.iter().map(|value| (value.name.clone(), value.amount)).collect();
            self.recorded.insert(reading.sensor.clone(), (values, now));
        }
        is_due
    }
}

impl Rule {
    fn has_changed(&self, before: &BTreeMap<String, Amount>, reading: &Reading) -> bool {
        before.len() != reading.values.len()
            || reading.values.iter().any(|value| {
                let Some(before) = before.get(&value.name) else { return true };
                let dead_band = self.by_unit.get(value.unit).copied().unwrap_or(self.dead_band);
                let differs = (value.amount.as_f64() - before.as_f64()).abs();
                // 0.1 written in binary must not keep a step of 0.1 from counting.
                value.amount != *before && differs >= dead_band * (1.0 - 1e-9)
            })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::reading::Measured, *};

    fn reading(sensor: &str, number: f64) -> Reading {
        Reading { sensor: sensor.into(), values: vec![Measured::gauge("temp", number, "°C").expect("finite")] }
    }

    fn changed(dead_band: f64, max_silence: Option<u64>) -> Rule {
        Rule { changed: true, dead_band, by_unit: BTreeMap::new(), max_silence: max_silence.map(Duration::from_secs) }
    }

    fn recorded(rule: &Rule, numbers: &[f64]) -> Vec<f64> {
        let mut reporter = Reporter::default();
        let polls = numbers.iter().enumerate();
        let records = polls.flat_map(|(second, number)| {
            reporter.judge(rule, vec![reading("a", *number)], vec![], Duration::from_secs(second as u64)).record
        });
        records.map(|reading| reading.values[0].amount.as_f64()).collect()
    }

    #[test]
    fn a_value_is_compared_with_the_one_that_was_recorded() {
        let all = Rule { changed: false, ..changed(0.5, None) };
        assert_eq!(recorded(&all, &[20.0, 20.0]), [20.0, 20.0]);
        assert_eq!(recorded(&changed(0.0, None), &[20.0, 20.0, 20.1, 20.1]), [20.0, 20.1]);
        assert_eq!(recorded(&changed(0.5, None), &[20.0, 20.3, 20.4, 20.5, 20.9, 20.2]), [20.0, 20.5]);
        assert_eq!(recorded(&changed(0.1, None), &[20.0, 20.1, 20.2]), [20.0, 20.1, 20.2]);
        assert_eq!(recorded(&changed(0.5, Some(3)), &[20.0; 7]), [20.0; 3]);
        let by_unit = Rule { by_unit: [("°C".to_owned(), 2.0)].into(), ..changed(0.0, None) };
        assert_eq!(recorded(&by_unit, &[20.0, 21.0, 22.0]), [20.0, 22.0]);
    }

    #[test]
    fn trouble_is_told_once_until_it_is_over() {
        let rule = changed(0.0, None);
        let mut reporter = Reporter::default();
        let broken = |sensor: &str| Unreadable { sensor: sensor.into(), what: "temp".into(), error: "EIO".into() };
        let mut told = |readings, unreadable| {
            let verdict = reporter.judge(&rule, readings, unreadable, Duration::ZERO);
            (verdict.tell.len(), verdict.vanished)
        };
        assert_eq!(told(vec![reading("a", 1.0)], vec![broken("b")]), (1, vec![]));
        assert_eq!(told(vec![reading("a", 1.0)], vec![broken("b")]), (0, vec![]));
        assert_eq!(told(vec![reading("b", 1.0)], vec![broken("a")]), (1, vec![]));
        assert_eq!(told(vec![], vec![broken("b")]), (1, vec!["a".to_owned()]));
        assert_eq!(told(vec![], vec![]), (0, vec!["b".to_owned()]));
        assert_eq!(told(vec![], vec![]), (0, vec![]));
    }

    proptest! {
        /// Whoever has the records knows every value up to the dead band.
        #[test]
        fn what_is_known_is_never_further_off_than_the_dead_band(numbers in prop::collection::vec(-50.0..50.0_f64, 1..60), dead_band in 0.0..20.0_f64) {
            let rule = changed(dead_band, None);
            let mut reporter = Reporter::default();
            let mut known = None;
            for number in numbers {
                let record = reporter.judge(&rule, vec![reading("a", number)], vec![], Duration::ZERO).record;
                known = record.first().map(|reading| reading.values[0].amount.as_f64()).or(known);
                prop_assert!((known.expect("the first is recorded") - number).abs() <= dead_band + 1e-5);
            }
        }
    }
}
