//! How a destination is delivered to: the keys that every type of destination has.

use std::time::Duration;

use serde::Deserialize;

use crate::{
    config::{Problems, duration, size},
    destination::Limits,
};

/// More would only be memory: a window of this many records keeps 8 requests of 500 full more than a hundred times over.
const WINDOW_RECORDS_MAX: usize = 1_000_000;

/// A few records that are stuck must not be all that is held.
const WINDOW_RECORDS_MIN: usize = 100;

/// More connections than this to one endpoint help nobody.
const IN_FLIGHT_MAX: usize = 64;

/// What one request is given by default as a share of the window, so that several are under way.
const REQUESTS_PER_WINDOW: u64 = 4;

/// Smaller requests would be headers for the most part.
const REQUEST_BYTES_LEAST: u64 = 4 << 10;

/// Hardly any gateway has as much memory for one destination.
const WINDOW_BYTES_MOST: u64 = 1 << 30;

/// A record is not sent at once, however good the link.
const MAX_AGE_MIN: Duration = Duration::from_secs(1);

/// How a destination is delivered to.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Config {
    /// Whether records of one partition key ever overtake each other.
    pub ordering: Ordering,
    /// Parcels of a request: an aggregate counts as one record, as do the records of one lane of an `http` destination. The
    /// destination's own limit holds too. What limits a request however records are packed is `batch-bytes`.
    pub batch_records: usize,
    /// Keys and data of a request in bytes; left out: the destination's limit, at most a quarter of `window-bytes`.
    #[serde(with = "size::option")]
    pub batch_bytes: Option<u64>,
    /// How long a request that is not full waits for more records. The first one after a pause does not wait. Where records
    /// share records of the wire, a request of many small ones is not full.
    #[serde(with = "duration")]
    pub batch_age: Duration,
    /// Requests under way at the same time.
    pub in_flight: usize,
    /// Records held in memory.
    pub window_records: usize,
    /// Their keys and data in bytes.
    #[serde(with = "size")]
    pub window_bytes: u64,
    /// The longest wait between two attempts when the endpoint answers, but not as it should.
    #[serde(with = "duration")]
    pub max_backoff: Duration,
    /// Which records go first after an outage, or where the link is slower than what comes in.
    pub catch_up: CatchUp,
    /// A record that is older than this when it would be sent is not sent any more; it is counted and told. Left out: none is
    /// too old.
    #[serde(with = "duration::option")]
    pub max_age: Option<Duration>,
    /// The way out whose limits it keeps: a table of `[links]`. Left out: none.
    pub link: Option<String>,
    /// Between deliveries over one link: the higher goes first where the link is scarce.
    pub priority: u8,
}

/// What is promised about the order in which the destination gets records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ordering {
    /// Records of one partition key arrive in their order, whatever fails: a record leaves only when the one before it
    /// with its key is resolved.
    Strict,
    /// Any number of a key at once. What fails is sent again, and then comes behind later ones; that is counted.
    Relaxed,
}

/// How a delivery gets from a backlog to what is new.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CatchUp {
    /// All in the order of the stream.
    OldestFirst,
    /// The newest first: the delivery leaps over the backlog, and fills the gap with what is left of the link. Order per
    /// partition key holds within what is live and within each gap, not between them.
    NewestFirst,
    /// The same, but live records and gaps get half of the link each.
    Split,
}

impl CatchUp {
    /// As it is written in the configuration.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::OldestFirst => "oldest-first",
            Self::NewestFirst => "newest-first",
            Self::Split => "split",
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            ordering: Ordering::Strict,
            batch_records: 500,
            batch_bytes: None,
            batch_age: Duration::from_millis(100),
            in_flight: 8,
            window_records: 10_000,
            window_bytes: 8 << 20,
            max_backoff: Duration::from_secs(30),
            catch_up: CatchUp::OldestFirst,
            max_age: None,
            link: None,
            priority: 0,
        }
    }
}

impl Config {
    /// Notes what cannot be.
    pub fn validate(&self, path: &str, problems: &mut Problems) {
        let mut between = |key: &str, value: usize, min: usize, max: usize| {
            if !(min..=max).contains(&value) {
                problems.add(format!("{path}.{key}"), format!("must be {min} to {max}, not {value}"));
            }
        };
        between("batch-records", self.batch_records, 1, WINDOW_RECORDS_MAX);
        between("in-flight", self.in_flight, 1, IN_FLIGHT_MAX);
        between("window-records", self.window_records, WINDOW_RECORDS_MIN, WINDOW_RECORDS_MAX);
        if self.window_bytes == 0 {
            problems.add(format!("{path}.window-bytes"), "must be more than 0");
        }
        for (key, value, max) in [
            ("batch-age", self.batch_age, Duration::from_secs(3600)),
            ("max-backoff", self.max_backoff, Duration::from_secs(3600)),
        ] {
            if value > max {
                problems.add(
                    format!("{path}.{key}"),
                    format!("must be {} or less, not {}", duration::show(max), duration::show(value)),
                );
            }
        }
        if self.priority > 0 && self.link.is_none() {
            let message = "it counts between the destinations of one link; say which, with `link`";
            problems.add(format!("{path}.priority"), message);
        }
        if self.max_age.is_some_and(|age| age < MAX_AGE_MIN) {
            let message = "must be 1s or more, or nothing would ever be sent; leave it out where no record is too old";
            problems.add(format!("{path}.max-age"), message);
        } else if self.max_age.is_some_and(|age| age <= self.batch_age) {
            let batch_age = duration::show(self.batch_age);
            let message =
                format!("must be more than batch-age ({batch_age}), or records expire while they wait for company");
            problems.add(format!("{path}.max-age"), message);
        }
        if self.max_backoff < Duration::from_millis(100) {
            let shown = duration::show(self.max_backoff);
            problems.add(format!("{path}.max-backoff"), format!("must be 100ms or more, not {shown}"));
        }
    }

    /// Notes requests that cannot be, by the smaller limit: that of the window, or the endpoint's and whose that is.
    pub fn validate_requests(&self, path: &str, endpoint: Option<(u64, &str)>, problems: &mut Problems) {
        let Some(bytes) = self.batch_bytes else { return };
        let message = match endpoint {
            Some((most, why)) if bytes > most && most <= self.window_bytes => {
                let [most, bytes] = size::show_beside([most, bytes]);
                format!("must be {most} or less, not {bytes}: {why}")
            }
            _ if bytes == 0 || bytes > self.window_bytes => {
                let [window, bytes] = size::show_beside([self.window_bytes, bytes]);
                format!("must be more than 0, and at most window-bytes ({window}), not {bytes}")
            }
            _ => return,
        };
        problems.add(format!("{path}.batch-bytes"), message);
    }

    /// What can be, but is hardly meant: which key, and a sentence fragment.
    #[must_use]
    pub fn warnings(&self) -> Vec<(&'static str, String)> {
        let mut warnings = Vec::new();
        // A few requests fill it; without any, nothing could be sent.
        let least = REQUEST_BYTES_LEAST * REQUESTS_PER_WINDOW;
        if (1..least).contains(&self.window_bytes) {
            let [given, least] = size::show_beside([self.window_bytes, least]);
            let why = format!("{given} is less than a few small requests ({least}): without a unit, a size is bytes");
            warnings.push(("window-bytes", why));
        } else if self.window_bytes > WINDOW_BYTES_MOST {
            let [given, most] = size::show_beside([self.window_bytes, WINDOW_BYTES_MOST]);
            let why =
                format!("up to {given} of memory for this destination alone, more than {most}: is that what is meant?");
            warnings.push(("window-bytes", why));
        }
        if let Some(bytes @ 1..REQUEST_BYTES_LEAST) = self.batch_bytes.filter(|bytes| *bytes <= self.window_bytes) {
            let [given, least] = size::show_beside([bytes, REQUEST_BYTES_LEAST]);
            let why = format!(
                "requests of {given} are headers for the most part, as they are below {least}: without a unit, a size is \
                 bytes"
            );
            warnings.push(("batch-bytes", why));
        }
        warnings
    }

    /// The same with requests of at most so many bytes, for the sake of a link's limits.
    #[must_use]
    pub fn with_requests_of(mut self, bytes: Option<u64>) -> Self {
        let now = self.batch_bytes.unwrap_or(self.window_bytes / REQUESTS_PER_WINDOW);
        if let Some(bytes) = bytes {
            self.batch_bytes = Some(now.min(bytes));
        }
        self
    }

    /// Bytes of a request to a destination with these limits.
    pub(super) fn request_bytes(&self, limits: &Limits) -> u64 {
        self.batch_bytes.unwrap_or(self.window_bytes / REQUESTS_PER_WINDOW).clamp(1, limits.request_bytes)
    }

    /// Records of a request to a destination with these limits.
    pub(super) fn request_records(&self, limits: &Limits) -> usize {
        self.batch_records.clamp(1, limits.request_records)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config::reader, sample::LIMITS};

    fn read(text: &str) -> (Option<Config>, Vec<String>) {
        let mut problems = Problems::default();
        let config: Option<Config> =
            reader::read(toml::from_str(text).expect("TOML"), "destinations.cloud", &[], &mut problems);
        if let Some(config) = &config {
            config.validate("destinations.cloud", &mut problems);
            config.validate_requests("destinations.cloud", None, &mut problems);
        }
        (config, problems.list().iter().map(ToString::to_string).collect())
    }

    #[test]
    fn everything_has_a_default() {
        assert_eq!(read(""), (Some(Config::default()), vec![]));
    }

    #[test]
    fn sizes_that_are_hardly_meant_are_told() {
        let told = |text: &str| {
            let (config, problems) = read(text);
            assert_eq!(problems, [""; 0], "{text}");
            let warnings = config.expect("read").warnings();
            warnings.into_iter().map(|(key, why)| format!("{key}: {why}")).collect::<Vec<_>>()
        };
        for text in [
            "",
            "window-bytes = '16KiB'",
            "window-bytes = '1GiB'",
            "batch-bytes = '4KiB'",
            "window-bytes = '16KiB'\nbatch-bytes = '16KiB'",
        ] {
            assert_eq!(told(text), [""; 0], "{text}");
        }
        assert_eq!(
            told("window-bytes = '1B'"),
            ["window-bytes: 1 B is less than a few small requests (16.0 KiB): without a unit, a size is bytes"]
        );
        assert_eq!(
            told("window-bytes = '100GiB'"),
            [
                "window-bytes: up to 100.0 GiB of memory for this destination alone, more than 1.0 GiB: is that what is meant?"
            ]
        );
        assert_eq!(
            told("batch-bytes = 4095"),
            [
                "batch-bytes: requests of 4095 B are headers for the most part, as they are below 4096 B: without a unit, a size \
                 is bytes"
            ]
        );
        let both = told("window-bytes = 8\nbatch-bytes = 1");
        assert!(matches!(&both[..], [window, batch] if window.starts_with("window") && batch.starts_with("batch")));
        // What cannot be is a problem, and nothing else.
        for text in [
            "window-bytes = 0",
            "window-bytes = '1MiB'\nbatch-bytes = 0",
            "window-bytes = '20KiB'\nbatch-bytes = '1MiB'",
        ] {
            let (config, problems) = read(text);
            assert_eq!((problems.len(), config.expect("read").warnings().len()), (1, 0), "{text}");
        }
    }

    #[test]
    fn sizes_and_durations_have_units() {
        let (config, problems) = read("ordering = 'relaxed'\nbatch-bytes = '1MiB'\nbatch-age = '20ms'\nin-flight = 2");
        assert_eq!(problems, Vec::<String>::new());
        let config = config.expect("read");
        assert_eq!((config.ordering, config.batch_bytes, config.in_flight), (Ordering::Relaxed, Some(1 << 20), 2));
    }

    #[test]
    fn catching_up_has_three_ways_and_ages_a_unit() {
        for way in [CatchUp::OldestFirst, CatchUp::NewestFirst, CatchUp::Split] {
            let (config, problems) = read(&format!("catch-up = '{}'\nmax-age = '6h'", way.as_str()));
            assert_eq!(problems, Vec::<String>::new());
            let config = config.expect("read");
            assert_eq!((config.catch_up, config.max_age), (way, Some(Duration::from_secs(6 * 3600))));
        }
        for (text, told) in [
            ("max-age = '0s'", "destinations.cloud.max-age: must be 1s or more"),
            ("max-age = 6", "destinations.cloud.max-age"),
            ("catch-up = 'latest'", "destinations.cloud.catch-up"),
        ] {
            let (_, problems) = read(text);
            assert!(matches!(&problems[..], [problem] if problem.starts_with(told)), "{text}: {problems:?}");
        }
    }

    #[test]
    fn what_makes_no_sense_together_or_is_no_word_is_told() {
        let (_, problems) = read("max-age = '30s'\nbatch-age = '60s'");
        assert!(
            problems[0].starts_with("destinations.cloud.max-age: must be more than batch-age (1m)"),
            "{problems:?}"
        );
        for text in ["catch-up = 1", "catch-up = true", "catch-up = ['split']"] {
            assert_eq!(read(text).1, ["destinations.cloud.catch-up: must be a word in quotes"], "{text}");
        }
    }

    #[test]
    fn every_mistake_is_told() {
        let (_, problems) = read(
            "ordering = 'loose'\nbatch-records = 0\nbatch-bytes = '9MiB'\nin-flight = 65\nwindow-records = 0\n\
             max-backoff = '1ms'\nbatch-age = '2h'",
        );
        assert_eq!(problems.len(), 7, "{problems:#?}");
        assert!(problems.iter().all(|problem| problem.starts_with("destinations.cloud.")), "{problems:#?}");
    }

    /// Once, by the limit that would be next to be met.
    #[test]
    fn requests_that_are_too_large_are_told_by_the_smaller_limit() {
        let told = |window_bytes: u64, bytes: u64| {
            let mut problems = Problems::default();
            let config = Config { window_bytes, batch_bytes: Some(bytes), ..Config::default() };
            config.validate_requests("d", Some((4096, "no more is taken")), &mut problems);
            problems.into_list().into_iter().map(|problem| problem.message).collect::<Vec<_>>()
        };
        let by_endpoint = "must be 4.0 KiB or less, not 9.0 KiB: no more is taken";
        assert_eq!(told(4096, 4096), [""; 0]);
        assert_eq!(told(8192, 4097), ["must be 4096 B or less, not 4097 B: no more is taken"]);
        assert_eq!((told(8192, 9216), told(16_384, 9216)), (vec![by_endpoint.into()], vec![by_endpoint.into()]));
        assert_eq!(told(2048, 9216), ["must be more than 0, and at most window-bytes (2.0 KiB), not 9.0 KiB"]);
        assert_eq!(told(2048, 2047), [""; 0]);
        assert_eq!(told(2048, 0), ["must be more than 0, and at most window-bytes (2.0 KiB), not 0 B"]);
    }

    #[test]
    fn the_destinations_limits_hold() {
        let config = Config { batch_records: 9000, window_bytes: 1 << 30, ..Config::default() };
        assert_eq!((config.request_records(&LIMITS), config.request_bytes(&LIMITS)), (500, 10 << 20));
        assert_eq!(Config::default().request_bytes(&LIMITS), 2 << 20);
    }
}
