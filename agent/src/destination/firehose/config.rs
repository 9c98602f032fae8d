//! Which Firehose stream, and how records are put into it.

use serde::Deserialize;

use crate::{
    config::{Problems, size},
    destination::aws,
    outgoing::{self, Variables},
};

/// What Firehose takes in a record.
pub(super) const RECORD_BYTES: u64 = 1_024_000;

/// More lanes than requests under way only leave aggregates empty.
const LANES_MAX: u16 = 256;

/// The settings of a `firehose` destination.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Config {
    /// Where AWS is.
    #[serde(skip)]
    pub aws: aws::Config,
    /// How it is reached.
    #[serde(skip)]
    pub outgoing: outgoing::Config,
    /// The Firehose stream's name.
    pub stream: Option<String>,
    /// What each record ends with; it is added where it is missing. Left out: nothing, or a line end with aggregation.
    pub delimiter: Option<String>,
    /// Whether small records become one.
    pub aggregation: Aggregation,
    /// How large that one gets; left out: 128 KiB.
    #[serde(with = "size::option")]
    pub aggregate_bytes: Option<u64>,
    /// How many are filled side by side; left out: 4. All records of a partition key go into the same.
    pub aggregate_lanes: Option<u16>,
}

/// Whether small records become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Aggregation {
    /// A record stays a record.
    None,
    /// Records behind each other, each with its delimiter.
    Lines,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            aws: aws::Config::default(),
            outgoing: outgoing::Config::default(),
            stream: None,
            delimiter: None,
            aggregation: Aggregation::None,
            aggregate_bytes: None,
            aggregate_lanes: None,
        }
    }
}

impl Config {
    /// Notes what is missing or cannot be.
    pub fn validate(&self, path: &str, problems: &mut Problems) {
        match &self.stream {
            None => problems.add(format!("{path}.stream"), "is missing: the name of the Firehose stream"),
            Some(name) if !is_stream_name(name) => problems.add(
                format!("{path}.stream"),
                format!("`{name}` cannot be a Firehose stream: 1 to 64 characters of a-z A-Z 0-9 _ . -"),
            ),
            Some(_) => {}
        }
        self.aws.validate(path, problems);
        self.outgoing.validate(path, problems);
        if self.delimiter().len() > 16 {
            problems
                .add(format!("{path}.delimiter"), format!("must be at most 16 bytes, not {}", self.delimiter().len()));
        }
        if self.aggregation == Aggregation::Lines && self.delimiter().is_empty() {
            problems.add(format!("{path}.delimiter"), "must not be empty: nobody could take the records apart again");
        }
        if !(1 << 10..=RECORD_BYTES).contains(&self.aggregate_bytes()) {
            let [min, max, shown] = size::show_beside([1 << 10, RECORD_BYTES, self.aggregate_bytes()]);
            problems.add(format!("{path}.aggregate-bytes"), format!("must be {min} to {max}, not {shown}"));
        }
        if !(1..=LANES_MAX).contains(&self.aggregate_lanes()) {
            let lanes = self.aggregate_lanes();
            problems.add(format!("{path}.aggregate-lanes"), format!("must be 1 to {LANES_MAX}, not {lanes}"));
        }
    }

    /// How large an aggregate gets.
    pub(super) fn aggregate_bytes(&self) -> u64 {
        self.aggregate_bytes.unwrap_or(128 << 10)
    }

    /// How many aggregates are filled side by side.
    pub(super) fn aggregate_lanes(&self) -> u16 {
        self.aggregate_lanes.unwrap_or(4)
    }

    /// Keys that are without effect, and why.
    pub(in crate::destination) fn warnings(&self) -> Vec<(&'static str, String)> {
        let given =
            [("aggregate-bytes", self.aggregate_bytes.is_some()), ("aggregate-lanes", self.aggregate_lanes.is_some())];
        let why = || "without effect: aggregation = \"none\" makes no aggregates".to_owned();
        let vain = given.into_iter().filter(|(_, given)| *given && self.aggregation == Aggregation::None);
        vain.map(|(key, _)| (key, why())).collect()
    }

    /// What it is, and by which way it is reached in this environment, in a few words.
    #[must_use]
    pub fn describe(&self, variables: Variables<'_>) -> String {
        let stream = self.stream.as_deref().unwrap_or_default();
        let way = self.outgoing.describe(&self.aws.address("firehose"), variables);
        format!("firehose stream {stream} {}{way}", self.aws.describe())
    }

    /// How records travel, also where nothing was said about it.
    #[must_use]
    pub fn describe_travel(&self) -> String {
        let (most, lanes) = (size::show(self.aggregate_bytes()), self.aggregate_lanes());
        match self.aggregation {
            Aggregation::None => "no aggregates, JSON".to_owned(),
            Aggregation::Lines => format!("lines of at most {most} in {lanes} lanes, JSON"),
        }
    }

    /// What each record ends with.
    pub(super) fn delimiter(&self) -> &str {
        match (&self.delimiter, self.aggregation) {
            (Some(delimiter), _) => delimiter,
            (None, Aggregation::None) => "",
            (None, Aggregation::Lines) => "\n",
        }
    }
}

fn is_stream_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    (1..=64).contains(&name.len()) && name.bytes().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::destination;

    fn problems_of(text: &str) -> Vec<String> {
        let mut problems = Problems::default();
        let table = toml::from_str(&format!("region = 'r'\n{text}")).expect("TOML");
        destination::Config::read("firehose", table, "destinations.lake", &[], &mut problems).expect("a table");
        problems.list().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn every_mistake_is_told_by_its_key() {
        for (text, key) in [
            ("", "stream"),
            ("stream = 'no good'", "stream"),
            ("stream = 's'\naggregation = 'lines'\ndelimiter = ''", "delimiter"),
            ("stream = 's'\ndelimiter = '12345678901234567'", "delimiter"),
            ("stream = 's'\naggregate-bytes = '1MiB'", "aggregate-bytes"),
            ("stream = 's'\naggregate-lanes = 0", "aggregate-lanes"),
            ("stream = 's'\nmax-record = '1MiB'", "max-record"),
        ] {
            let found = problems_of(text);
            assert_eq!(found.len(), 1, "{text}: {found:?}");
            assert!(found[0].starts_with(&format!("destinations.lake.{key}: ")), "{text}: {found:?}");
        }
        assert_eq!(problems_of("stream = 's'\naggregation = 'lines'"), Vec::<String>::new());
    }
}
