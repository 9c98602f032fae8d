//! `timestamp`: the time that a record itself tells, as text that everything understands (RFC 3339, UTC, milliseconds).
//!
//! A time without a zone is taken for UTC, a day without a time for its beginning.

use chrono::{
    DateTime, Datelike as _, NaiveTime, SecondsFormat, Utc,
    format::{Item, Parsed, StrftimeItems},
};
use serde::Deserialize;

use super::{
    document::Document,
    field::{Field, Number, Value},
};
use crate::config::Problems;

/// `timestamp = { field = "/ts", format = "rfc3339" }`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Config {
    /// Where it is: a member's name, or a JSON pointer.
    pub field: Option<String>,
    /// `"rfc3339"` (the default), `"unix"`, `"unix-ms"`, `"unix-us"`, `"unix-ns"`, or a pattern as of strftime.
    pub format: Option<String>,
}

#[derive(Debug, Clone)]
pub(super) struct Timestamp {
    field: Field,
    format: Format,
}

#[derive(Debug, Clone)]
enum Format {
    Rfc3339,
    /// Since 1970, in so many parts of a second.
    Unix(u32),
    Pattern(Vec<Item<'static>>),
}

impl Config {
    /// Notes everything that is wrong.
    pub(super) fn validate(&self, path: &str, problems: &mut Problems) -> Option<Timestamp> {
        let field = match self.field.as_deref().map(Field::parse) {
            Some(field) => field.map_err(|why| problems.add(format!("{path}.field"), why)).ok(),
            None => {
                problems.add(format!("{path}.field"), "missing; say where the record has its time");
                None
            }
        };
        let format = Format::parse(self.format.as_deref().unwrap_or("rfc3339"));
        let format = format.map_err(|why| problems.add(format!("{path}.format"), why)).ok();
        Some(Timestamp { field: field?, format: format? })
    }
}

impl Timestamp {
    /// The record's time; the error is a sentence fragment.
    pub(super) fn of(&self, document: &Document<'_>) -> Result<String, String> {
        let field = &self.field;
        let Some(raw) = self.field.find(document) else { return Err(format!("there is no `{field}`")) };
        let time = self.format.read(&Value::of(raw));
        time.map(show).ok_or_else(|| {
            let shown: String = raw.get().chars().take(80).collect();
            format!("`{field}` is no such time: {shown}")
        })
    }
}

impl Format {
    fn parse(text: &str) -> Result<Self, String> {
        Ok(match text {
            "rfc3339" => Self::Rfc3339,
            "unix" => Self::Unix(1),
            "unix-ms" => Self::Unix(1_000),
            "unix-us" => Self::Unix(1_000_000),
            "unix-ns" => Self::Unix(1_000_000_000),
            _ if text.contains('%') => {
                let wrong = |why| format!("`{text}` {why}");
                let items = StrftimeItems::new(text).parse_to_owned();
                let format = Self::Pattern(items.map_err(|_| wrong("has a part that strftime does not know"))?);
                // What it writes it must be able to read, or no record ever had a time.
                let written = format.write(DateTime::UNIX_EPOCH).ok_or_else(|| wrong("cannot be read back"))?;
                let read = format.read(&Value::Text(written.into()));
                read.map(|_| format).ok_or_else(|| wrong("does not tell a whole day, such as \"%Y-%m-%d\" does"))?
            }
            _ => {
                return Err(format!(
                    "must be \"rfc3339\", \"unix\", \"unix-ms\", \"unix-us\", \"unix-ns\" or a pattern such as \
                     \"%Y-%m-%d %H:%M:%S\", not `{text}`"
                ));
            }
        })
    }

    fn write(&self, time: DateTime<Utc>) -> Option<String> {
        use std::fmt::Write as _;
        let Self::Pattern(items) = self else { return None };
        let mut out = String::new();
        write!(out, "{}", time.format_with_items(items.iter())).ok()?;
        Some(out)
    }

    fn read(&self, value: &Value<'_>) -> Option<DateTime<Utc>> {
        let time = match (self, value) {
            (Self::Rfc3339, Value::Text(text)) => DateTime::parse_from_rfc3339(text.trim()).ok()?.to_utc(),
            (Self::Unix(per_second), value) => {
                let ms = match value.number()? {
                    Number::Whole(number) => {
                        number.checked_mul(1000).map(|number| number.div_euclid(i128::from(*per_second)))?
                    }
                    Number::Other(number) => (number * 1000.0 / f64::from(*per_second)).floor() as i128,
                };
                DateTime::from_timestamp_millis(i64::try_from(ms).ok()?)?
            }
            (Self::Pattern(items), Value::Text(text)) => read_pattern(text.trim(), items)?,
            (Self::Pattern(items), Value::Number(Number::Whole(number))) => read_pattern(&number.to_string(), items)?,
            _ => return None,
        };
        // RFC 3339 has four digits for the year.
        (0..=9999).contains(&time.year()).then_some(time)
    }
}

fn read_pattern(text: &str, items: &[Item<'static>]) -> Option<DateTime<Utc>> {
    let mut parsed = Parsed::new();
    chrono::format::parse(&mut parsed, text, items.iter()).ok()?;
    if parsed.offset().is_some() {
        return parsed.to_datetime().ok().map(|time| time.to_utc());
    }
    let time = parsed.to_naive_datetime_with_offset(0);
    let time = time.or_else(|_| parsed.to_naive_date().map(|day| day.and_time(NaiveTime::MIN)));
    time.ok().map(|time| time.and_utc())
}

/// RFC 3339, in UTC, with milliseconds.
fn show(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Millis, true)
}

/// The same for milliseconds since 1970, as the log has them.
pub(super) fn show_ms(ms: u64) -> String {
    i64::try_from(ms).ok().and_then(DateTime::from_timestamp_millis).map_or_else(|| ms.to_string(), show)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(format: &str, value: &str) -> Option<String> {
        let text = format!("{{\"ts\":{value}}}");
        let config = Config { field: Some("ts".into()), format: Some(format.into()) };
        let mut problems = Problems::default();
        let timestamp = config.validate("t", &mut problems);
        assert_eq!(problems.list(), [], "{format}");
        timestamp.expect("right").of(&Document::parse(&text).expect("JSON")).ok()
    }

    #[test]
    fn times_are_read_as_they_are_written() {
        for (format, value, told) in [
            ("rfc3339", r#""2026-11-25T12:00:00.123456+02:00""#, "2026-11-25T10:00:00.123Z"),
            ("rfc3339", r#""1969-12-31T23:59:59Z""#, "1969-12-31T23:59:59.000Z"),
            ("unix", "1700000000", "2023-11-14T22:13:20.000Z"),
            ("unix", "1700000000.123", "2023-11-14T22:13:20.123Z"),
            ("unix", r#""1700000000""#, "2023-11-14T22:13:20.000Z"),
            ("unix-ms", "1700000000123", "2023-11-14T22:13:20.123Z"),
            ("unix-us", "1700000000123456", "2023-11-14T22:13:20.123Z"),
            ("unix-ns", "1700000000123456789", "2023-11-14T22:13:20.123Z"),
            ("unix-ms", "-1", "1969-12-31T23:59:59.999Z"),
            ("%Y-%m-%d %H:%M:%S", r#""2026-11-25 12:00:01""#, "2026-11-25T12:00:01.000Z"),
            ("%d/%b/%Y:%H:%M:%S %z", r#""07/Mar/2004:16:10:02 -0800""#, "2004-03-08T00:10:02.000Z"),
            ("%Y%m%d", "20261125", "2026-11-25T00:00:00.000Z"),
            ("%d.%m.%y %H:%M", r#""25.11.26 07:30""#, "2026-11-25T07:30:00.000Z"),
            ("%Y-%jT%H:%M:%S%.f", r#""2026-001T00:00:00.5""#, "2026-01-01T00:00:00.500Z"),
        ] {
            assert_eq!(read(format, value).as_deref(), Some(told), "{format}: {value}");
        }
    }

    #[test]
    fn what_is_no_such_time_is_none() {
        for (format, value) in [
            ("rfc3339", "1700000000"),
            ("rfc3339", r#""2026-11-25""#),
            ("rfc3339", r#""2026-13-25T00:00:00Z""#),
            ("unix", r#""soon""#),
            ("unix", "1e300"),
            ("unix", "300000000000"),
            ("unix", "null"),
            ("unix-ns", "170000000000000000000000000000000000000"),
            ("%Y-%m-%d", r#""2026-11-25 12:00""#),
            ("%Y-%m-%d", "{}"),
        ] {
            assert_eq!(read(format, value), None, "{format}: {value}");
        }
    }

    #[test]
    fn a_mistaken_format_is_told() {
        for format in ["iso", "%H:%M", "%Q", "%Y-%m", "unix-s", "%"] {
            let mut problems = Problems::default();
            let config = Config { field: Some("a".into()), format: Some(format.into()) };
            assert!(config.validate("t", &mut problems).is_none(), "{format}");
            assert_eq!(problems.list()[0].path, "t.format");
        }
        let mut problems = Problems::default();
        assert!(Config::default().validate("t", &mut problems).is_none());
        assert_eq!(problems.list()[0].path, "t.field");
    }

    proptest! {
        #[test]
        fn any_value_is_read_or_refused(text in ".{0,40}", number in any::<f64>()) {
            let text = serde_json::to_string(&text).expect("JSON");
            for format in ["rfc3339", "unix", "unix-ns", "%Y-%m-%d %H:%M:%S %z", "%s", "%c"] {
                read(format, &text);
                read(format, &serde_json::to_string(&number).expect("JSON"));
            }
        }

        #[test]
        fn every_time_of_the_log_can_be_shown(ms in any::<u64>()) {
            show_ms(ms);
        }
    }
}
