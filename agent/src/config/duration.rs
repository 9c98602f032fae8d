//! Durations in a configuration, such as `"500ms"` or `"24h"`: for `#[serde(with = "crate::config::duration")]`.

use std::{fmt, time::Duration};

use serde::{Deserializer, de};

/// Reads a duration with its unit.
///
/// # Errors
/// Not a string, or not a duration.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    deserializer.deserialize_str(DurationVisitor)
}

/// A duration for messages, as it is written in a configuration: `1m 30s`.
#[must_use]
pub fn show(duration: Duration) -> String {
    // humantime calls a day and more by names that vary in length; hours are what retention is written in.
    let hours = duration.as_secs() / 3600;
    if duration == Duration::from_secs(hours * 3600) && hours > 0 {
        return format!("{hours}h");
    }
    humantime::format_duration(duration).to_string()
}

/// For optional keys.
pub mod option {
    use super::{Deserializer, Duration};

    /// Reads a duration that may be left out (together with `#[serde(default)]`).
    ///
    /// # Errors
    /// Not a string, or not a duration.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
        super::deserialize(deserializer).map(Some)
    }
}

struct DurationVisitor;

impl de::Visitor<'_> for DurationVisitor {
    type Value = Duration;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a duration with its unit, such as \"500ms\" or \"24h\"")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Duration, E> {
        humantime::parse_duration(text).map_err(|_| E::invalid_value(de::Unexpected::Str(text), &self))
    }
}
