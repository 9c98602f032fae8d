//! `[links.NAME]`: a way out of the gateway, and what may be asked of it.

use std::ops::RangeInclusive;

use serde::Deserialize;

use super::{
    calendar::{TimeOfDay, Zone},
    rate::Rate,
    schedule::Schedule,
};
use crate::config::{Problems, size};

const SECONDS_A_DAY: u64 = 24 * 3600;

/// A cap under this would be a stop.
const BANDWIDTH_MIN: u64 = 100;

/// What the slowest modem of a satellite link has, and what no gateway's link has (10 Gbit/s): beyond, a unit is wrong.
const BANDWIDTHS: RangeInclusive<u64> = 300..=1_250_000_000;

/// What may be asked of a link.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Default)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Config {
    /// Bytes per second, in both directions together.
    pub bandwidth: Option<Rate>,
    /// Bytes per day, in both directions together.
    #[serde(with = "size::option")]
    pub daily_budget: Option<u64>,
    /// When the day of the budget begins.
    pub reset: TimeOfDay,
    /// What happens then that the budget is spent.
    pub when_spent: WhenSpent,
    /// When it may be used; left out: always.
    pub schedule: Schedule,
    /// Where `reset` and `schedule` are meant.
    pub time_zone: Zone,
    /// The limits hold only while the machine's default route leaves by one of these interfaces; `*` at the end stands for
    /// anything.
    pub metered_interfaces: Vec<String>,
    /// The limits hold only while this file does not say `no`.
    pub metered_file: Option<std::path::PathBuf>,
}

/// What happens when the day's budget is spent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Default)]
#[serde(rename_all = "kebab-case")]
pub enum WhenSpent {
    /// Everything waits for the next day.
    #[default]
    Wait,
    /// Destinations of at least this priority go on.
    OnlyPriority(u8),
}

impl Config {
    /// Notes what cannot be.
    pub fn validate(&self, path: &str, problems: &mut Problems) {
        if let Some(rate) = self.bandwidth
            && rate.bytes_per_second() < BANDWIDTH_MIN
        {
            let (least, bits) = (BANDWIDTH_MIN * 8, rate.bits_per_second());
            let message = format!("must be {least} bit/s ({BANDWIDTH_MIN} B/s) or more, not {bits} bit/s");
            problems.add(format!("{path}.bandwidth"), message);
        }
        if self.reset == TimeOfDay::END {
            problems.add(format!("{path}.reset"), "a day that begins at its end begins at \"00:00\"");
        }
        if self.daily_budget.is_none() {
            if self.when_spent != WhenSpent::Wait {
                problems.add(format!("{path}.when-spent"), "there is no daily-budget that could be spent");
            }
            if self.reset != TimeOfDay::default() {
                problems.add(format!("{path}.reset"), "there is no daily-budget whose day could begin");
            }
        }
        if !self.metered_interfaces.is_empty() && self.metered_file.is_some() {
            problems.add(format!("{path}.metered-file"), "say it by metered-interfaces or by a file, not by both");
        }
        for (index, pattern) in self.metered_interfaces.iter().enumerate() {
            let name = pattern.strip_suffix('*').unwrap_or(pattern);
            if pattern.is_empty() || name.contains(['*', '/', ' ']) || name.len() > 15 {
                let what = format!("`{pattern}` is no interface such as \"wwan0\" or \"ppp*\"");
                problems.add(format!("{path}.metered-interfaces[{index}]"), what);
            }
        }
        if self.is_unlimited() {
            problems.add(path, "limits nothing; give it bandwidth, daily-budget or schedule");
        }
    }

    /// What can be, but is hardly meant: which key, and a sentence fragment.
    #[must_use]
    pub fn warnings(&self) -> Vec<(String, String)> {
        let mut warnings = Vec::new();
        // Of what cannot be, that is told.
        let bandwidth = self.bandwidth.filter(|rate| rate.bytes_per_second() >= BANDWIDTH_MIN);
        if let Some(rate) = bandwidth.filter(|rate| !BANDWIDTHS.contains(&rate.bytes_per_second())) {
            let bits = rate.bits_per_second();
            let why = format!("{rate} is {bits} bit/s: is that what is meant?");
            warnings.push(("bandwidth".to_owned(), why));
        }
        if let (Some(rate), Some(budget)) = (bandwidth, self.daily_budget)
            && rate.bytes_per_second().saturating_mul(SECONDS_A_DAY) <= budget
        {
            let day = size::show(rate.bytes_per_second().saturating_mul(SECONDS_A_DAY));
            let why = format!("without effect: at {rate}, the bandwidth, no more than {day} pass in a day");
            warnings.push(("daily-budget".to_owned(), why));
        }
        // None at all is what one may want.
        if let Some(bytes @ 1..super::budget::REQUEST_BYTES_MIN) = self.daily_budget {
            let [given, least] = size::show_beside([bytes, super::budget::REQUEST_BYTES_MIN]);
            let why =
                format!("{given} a day is less than one request takes ({least}): without a unit, a size is bytes");
            warnings.push(("daily-budget".to_owned(), why));
        }
        if self.schedule.is_always_open() {
            warnings
                .push(("schedule".to_owned(), "without effect: its windows leave out no time of the week".to_owned()));
        }
        for (place, why) in self.schedule.in_vain() {
            warnings.push((format!("schedule[{place}]"), why));
        }
        warnings
    }

    /// In one line, for a person.
    #[must_use]
    pub fn describe(&self) -> String {
        let mut parts = Vec::new();
        parts.extend(self.bandwidth.map(|rate| format!("at most {rate}")));
        if let Some(bytes) = self.daily_budget {
            let then = match self.when_spent {
                WhenSpent::Wait => "then everything waits".to_owned(),
                WhenSpent::OnlyPriority(least) => format!("then only priority {least} and higher"),
            };
            parts.push(format!("{} a day from {}, {then}", size::show(bytes), self.reset));
        }
        if !self.schedule.is_empty() {
            parts.push(format!("only {}", self.schedule));
        }
        let zone = match self.time_zone {
            Zone::Utc => " (UTC)",
            _ => "",
        };
        let mut text = parts.join("; ") + zone;
        if !self.metered_interfaces.is_empty() {
            text += &format!("; while the default route leaves by {}", self.metered_interfaces.join(", "));
        }
        if let Some(file) = &self.metered_file {
            text += &format!("; unless {} says \"no\"", file.display());
        }
        text
    }

    /// How large requests may be, so that the limits can be kept closely.
    #[must_use]
    pub fn request_bytes(&self) -> Option<u64> {
        let by_cap = self.bandwidth.map(|rate| super::bandwidth::request_bytes(rate.bytes_per_second()));
        let by_budget = self.daily_budget.map(super::budget::request_bytes);
        by_cap.into_iter().chain(by_budget).min()
    }

    fn is_unlimited(&self) -> bool {
        self.bandwidth.is_none() && self.daily_budget.is_none() && self.schedule.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::reader;

    #[test]
    fn a_bandwidth_that_cannot_be_is_told_once_and_as_it_is_written() {
        for (rate, bits) in [("0kbit/s", 0), ("1bit/s", 1), ("99B/s", 792), ("799bit/s", 799)] {
            let config: Config = toml::from_str(&format!("bandwidth = '{rate}'\ndaily-budget = '50MB'")).expect("read");
            let mut problems = Problems::default();
            config.validate("links.lte", &mut problems);
            let told: Vec<_> = problems.list().iter().map(ToString::to_string).collect();
            assert_eq!(told, [format!("links.lte.bandwidth: must be 800 bit/s (100 B/s) or more, not {bits} bit/s")]);
            assert_eq!(config.warnings(), [], "{rate}");
        }
    }

    #[test]
    fn what_is_hardly_meant_is_told() {
        let warnings = |text: &str| {
            let config: Config = toml::from_str(text).expect("it works");
            config.warnings().into_iter().map(|(key, why)| format!("{key}: {why}")).collect::<Vec<_>>()
        };
        for text in ["'50MB'", "'4KiB'", "'0B'", "4096"] {
            assert_eq!(warnings(&format!("daily-budget = {text}")), [""; 0], "{text}");
        }
        for text in ["'50'", "50", "'4095B'"] {
            let told = warnings(&format!("daily-budget = {text}"));
            assert!(matches!(&told[..], [one] if one.starts_with("daily-budget: ")), "{text}: {told:?}");
        }
        let told = warnings("daily-budget = '4095B'");
        let why = "daily-budget: 4095 B a day is less than one request takes (4096 B): without a unit, a size is bytes";
        assert_eq!(told, [why]);
        for rate in ["2400bit/s", "400kbit", "10Gbit/s"] {
            assert_eq!(warnings(&format!("bandwidth = '{rate}'")), [""; 0], "{rate}");
        }
        let told = warnings("bandwidth = '2000bit/s'");
        assert_eq!(told, ["bandwidth: 250 B/s is 2000 bit/s: is that what is meant?"]);
        assert_eq!(warnings("bandwidth = '11Gbit/s'").len(), 1);
        assert_eq!(
            warnings("bandwidth = '4kbit/s'\ndaily-budget = '50MB'"),
            ["daily-budget: without effect: at 500 B/s, the bandwidth, no more than 41.2 MiB pass in a day"]
        );
        assert_eq!(warnings("bandwidth = '400kbit/s'\ndaily-budget = '50MB'"), [""; 0]);
        assert_eq!(
            warnings("schedule = ['06:00-22:00', '22:00-06:00']"),
            ["schedule: without effect: its windows leave out no time of the week"]
        );
        assert_eq!(warnings("schedule = ['mon-fri 22:00-06:00', 'sat,sun 00:00-24:00', '12:00-13:00']"), [""; 0]);
        assert_eq!(
            warnings(
                "schedule = ['mon-fri 22:00-06:00', 'fri 23:00-01:00', 'Mon-Fri 22:00-06:00', 'fri-mon 01:00-02:00']"
            ),
            [
                "schedule[1]: `fri 23:00-01:00` adds nothing to `mon-fri 22:00-06:00`",
                "schedule[2]: `Mon-Fri 22:00-06:00` is the same as `mon-fri 22:00-06:00`",
            ]
        );
        assert_eq!(
            warnings("schedule = ['mon 08:00-12:00', 'mon 12:00-13:00', 'mon 11:00-14:00']"),
            [
                "schedule[1]: `mon 12:00-13:00` adds nothing to `mon 11:00-14:00`",
                "schedule[2]: `mon 11:00-14:00` overlaps with `mon 08:00-12:00`: one window can say both",
            ]
        );
    }

    #[test]
    fn every_wrong_window_is_told() {
        let text = "schedule = ['22:00-06:00', 'nights', 'mon 25:00-26:00', 'sat 00:00-24:00', 7]\nreset = 'noon'";
        let mut problems = Problems::default();
        let config: Config =
            reader::read(toml::from_str(text).expect("TOML"), "links.lte", &[], &mut problems).expect("a table");
        config.validate("links.lte", &mut problems);
        let told: Vec<_> = problems.list().iter().map(|problem| &*problem.path).collect();
        let places = ["links.lte.schedule[1]", "links.lte.schedule[2]", "links.lte.schedule[4]"];
        assert_eq!(told, [&["links.lte.reset"], &places[..]].concat(), "{problems:?}");
        assert!(problems.list()[2].message.contains("`mon 25:00-26:00` is no window"), "{problems:?}");
    }
}
