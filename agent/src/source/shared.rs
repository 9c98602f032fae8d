//! `[sources.NAME]`: the keys that all types of sources have.

use forebay_log_store::{RECORD_BYTES_MAX, RateLimit};
use serde::Deserialize;
use toml::Value;

use crate::config::{Problems, size, stream};

/// What Kinesis takes in one record unless the stream was set up for more.
const RECORD_BYTES: usize = 1024 * 1024;

/// The keys that are the same for all, beside `type`, `stream` and `partition-key`.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Config {
    /// Largest data of a record that is stored; default `"1MiB"`. A larger one is counted, told and dropped.
    #[serde(with = "size")]
    pub max_record: usize,
    /// The most that this source may bring, as a table as in a stream's `rate-limit`; `"off"` by default. What can wait, waits; what
    /// cannot (UDP) is dropped and counted.
    pub rate_limit: Option<Value>,
}

/// The same, checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shared {
    /// Largest data of a record, in bytes.
    pub max_record: usize,
    /// The most that the source may bring.
    pub rate_limit: Option<RateLimit>,
}

impl Default for Config {
    fn default() -> Self {
        Self { max_record: RECORD_BYTES, rate_limit: None }
    }
}

impl Config {
    /// Notes what cannot be.
    #[must_use]
    pub fn validate(self, path: &str, problems: &mut Problems) -> Shared {
        if !(1..=RECORD_BYTES_MAX).contains(&self.max_record) {
            let [most, given] = size::show_beside([RECORD_BYTES_MAX, self.max_record].map(|bytes| bytes as u64));
            problems.add(format!("{path}.max-record"), format!("is between 1 byte and {most}, not {given}"));
        }
        let limit = |value| stream::rate_limit(value, &format!("{path}.rate-limit"), problems);
        Shared { max_record: self.max_record, rate_limit: self.rate_limit.and_then(limit) }
    }
}
