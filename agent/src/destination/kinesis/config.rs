//! Which Kinesis data stream.

use serde::Deserialize;

use crate::{
    config::{Problems, size},
    destination::aws,
    outgoing,
};

/// Kinesis' own bounds for the size of a record (`UpdateMaxRecordSize`).
const MAX_RECORD: std::ops::RangeInclusive<u64> = 1 << 10..=10 << 20;

/// The settings of a `kinesis` destination.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Config {
    /// Where AWS is.
    #[serde(skip)]
    pub aws: aws::Config,
    /// How it is reached.
    #[serde(skip)]
    pub outgoing: outgoing::Config,
    /// The stream's name.
    pub stream: Option<String>,
    /// The largest record (key and data) that the stream takes. AWS: 1 MiB unless raised, at most 10 MiB.
    #[serde(with = "size")]
    pub max_record: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self { aws: aws::Config::default(), outgoing: outgoing::Config::default(), stream: None, max_record: 1 << 20 }
    }
}

impl Config {
    /// Notes what is missing or cannot be.
    pub fn validate(&self, path: &str, problems: &mut Problems) {
        match &self.stream {
            None => problems.add(format!("{path}.stream"), "is missing: the name of the Kinesis stream"),
            Some(name) if !is_stream_name(name) => problems.add(
                format!("{path}.stream"),
                format!("`{name}` cannot be a Kinesis stream: 1 to 128 characters of a-z A-Z 0-9 _ . -"),
            ),
            Some(_) => {}
        }
        self.aws.validate(path, problems);
        self.outgoing.validate(path, problems);
        if !MAX_RECORD.contains(&self.max_record) {
            let (min, max) = (size::show(*MAX_RECORD.start()), size::show(*MAX_RECORD.end()));
            problems.add(format!("{path}.max-record"), format!("must be {min} to {max}"));
        }
    }

    /// What it is, in a few words.
    #[must_use]
    pub fn describe(&self) -> String {
        let stream = self.stream.as_deref().unwrap_or_default();
        format!("kinesis stream {stream} {}{}", self.aws.describe(), self.outgoing.describe())
    }
}

fn is_stream_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    (1..=128).contains(&name.len()) && name.bytes().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config::key_path, destination};

    #[test]
    fn every_mistake_is_told() {
        let text = "stream = 'no good'\nendpoint = 'example.com'\nmax-record = '11MiB'\nrequest-timeout = '1h'";
        let (table, path) = (toml::from_str(text).expect("TOML"), key_path("destinations", "cloud"));
        let mut problems = Problems::default();
        destination::Config::read("kinesis", table, &path, &[], &mut problems).expect("a table");
        assert_eq!(problems.list().len(), 5, "{problems:#?}");
    }
}
