//! Reads a TOML table into a module's `Config`, and finds all its mistakes rather than the first.
//!
//! serde stops at the first value that does not fit. So upon a mistake the key is reported and taken out, and the rest is
//! read again; what is returned after a mistake lacks that key, and serves only to find further problems. So that one mistake in a
//! list of tables hides none in the others, their keys should have defaults, and be found missing when they are validated.

use serde::{Deserialize, Deserializer, de};
use serde_path_to_error::Segment;
use toml::{Table, Value};

use super::problem::{Problems, key_path, there_are};

/// Reads `table`, which stands at `path`. `elsewhere` are keys of the same table that another module reads: they are not
/// in `table`, but somebody who misspells them should get them as a hint.
pub fn read<T: de::DeserializeOwned>(
    table: Table,
    path: &str,
    elsewhere: &[&str],
    problems: &mut Problems,
) -> Option<T> {
    let mut value = Value::Table(table);
    // Each round takes one key out, so that this ends.
    loop {
        let error = match serde_path_to_error::deserialize(value.clone()) {
            Ok(config) => return Some(config),
            Err(error) => error,
        };
        let steps = steps_to(error.path());
        let known = if steps.len() > 1 { &[] } else { elsewhere };
        let (message, meant) = explain(error.inner().message(), known);
        let around = steps.split_last().map_or(&steps[..], |(_, around)| around);
        // What is there under its own name is judged for itself.
        let meant = meant.filter(|meant| at(&value, around).is_none_or(|table| table.get(meant).is_none()));
        let meant = meant.map(|meant| key_path(&place(path, around), &meant));
        let taken_out = take_out(&mut value, &steps);
        let unread = taken_out.map(|depth| place(path, &steps[..depth]));
        problems.add_unread(place(path, &steps), message, unread.into_iter().chain(meant).collect());
        taken_out?;
    }
}

/// The keys of a `Config` struct, as they are written in TOML.
///
/// For a table that two modules share: the first takes its keys out of it.
#[must_use]
pub fn keys_of<T: for<'de> Deserialize<'de>>() -> &'static [&'static str] {
    let mut keys: &'static [&'static str] = &[];
    // It always fails: all that is wanted is the list that `T` asks with.
    let _ = T::deserialize(KeyCatcher(&mut keys));
    keys
}

/// Moves the keys that `T` knows from `table` to a table of its own.
#[must_use]
pub fn split_off<T: for<'de> Deserialize<'de>>(table: &mut Table) -> Table {
    keys_of::<T>().iter().filter_map(|key| table.remove_entry(*key)).collect()
}

/// The key of `known` that `key` was probably meant to be.
#[must_use]
pub fn nearest<'a>(key: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let (distance, nearest) = known.into_iter().map(|known| (edits(key, known), known)).min()?;
    // Two slips, or one in a short word; more is another word.
    (distance <= 2.min(nearest.len() / 2)).then_some(nearest)
}

/// One step on the way to a value.
#[derive(Debug, Clone)]
enum Step {
    Key(String),
    Index(usize),
}

/// The way to a value.
fn steps_to(path: &serde_path_to_error::Path) -> Vec<Step> {
    path.iter()
        .filter_map(|segment| match segment {
            // A variant with settings of its own is written as the key of a table.
            Segment::Map { key } | Segment::Enum { variant: key } => Some(Step::Key(key.clone())),
            Segment::Seq { index } => Some(Step::Index(*index)),
            _ => None,
        })
        .collect()
}

/// What is at the end of these steps.
fn at<'v>(value: &'v Value, steps: &[Step]) -> Option<&'v Value> {
    steps.iter().try_fold(value, |value, step| match step {
        Step::Key(key) => value.get(key),
        Step::Index(index) => value.get(*index),
    })
}

/// The same for a message.
fn place(path: &str, steps: &[Step]) -> String {
    steps.iter().fold(path.to_owned(), |path, step| match step {
        Step::Key(key) => key_path(&path, key),
        Step::Index(index) => format!("{path}[{index}]"),
    })
}

/// Removes the value at the end of these steps, or the nearest around it that has a key: an element of a list cannot go without
/// moving the others. How many steps lead to what was removed.
fn take_out(value: &mut Value, steps: &[Step]) -> Option<usize> {
    let (step, rest) = steps.split_first()?;
    match (step, value) {
        (Step::Key(key), Value::Table(table)) => {
            let deeper = table.get_mut(key).and_then(|inner| take_out(inner, rest));
            deeper.map(|depth| depth + 1).or_else(|| table.remove(key).map(|_| 1))
        }
        (Step::Index(index), Value::Array(array)) => {
            array.get_mut(*index).and_then(|inner| take_out(inner, rest)).map(|depth| depth + 1)
        }
        _ => None,
    }
}

/// Says in our words what serde says in its own, and which key was probably meant by one that nobody knows.
fn explain(message: &str, elsewhere: &[&str]) -> (String, Option<String>) {
    if message.starts_with("unknown field") {
        let mut quoted = message.split('`').skip(1).step_by(2);
        let unknown = quoted.next().unwrap_or_default();
        let mut known: Vec<_> = quoted.chain(elsewhere.iter().copied()).collect();
        known.sort_unstable();
        known.dedup();
        return match nearest(unknown, known.iter().copied()) {
            Some(near) => (format!("unknown key, did you mean `{near}`?"), Some(near.to_owned())),
            None if known.is_empty() => ("unknown key".to_owned(), None),
            None => (format!("unknown key; {}", there_are(known)), None),
        };
    }
    (explain_value(message), None)
}

fn explain_value(message: &str) -> String {
    if let Some(rest) = message.strip_prefix("unknown variant ")
        && let Some((found, expected)) = rest.split_once(", expected ")
    {
        return format!("must be {expected}, not {found}");
    }
    let wrong = message.strip_prefix("invalid type: ").or_else(|| message.strip_prefix("invalid value: "));
    if let Some((found, expected)) = wrong.and_then(|rest| rest.rsplit_once(", expected ")) {
        if expected == "string only" {
            // One of several words, and its type is all that serde tells.
            return "must be a word in quotes".to_owned();
        }
        return format!("must be {}, not {found}", in_words(expected));
    }
    if let Some(field) = message.strip_prefix("missing field ") {
        return format!("{field} is missing");
    }
    message.to_owned()
}

/// Rust's names for numbers mean nothing to whoever writes a configuration.
fn in_words(expected: &str) -> &str {
    match expected {
        "u8" | "u16" | "u32" | "u64" | "usize" => "a whole number",
        "a nonzero u8" | "a nonzero u16" | "a nonzero u32" | "a nonzero u64" | "a nonzero usize" => {
            "a whole number from 1"
        }
        "f32" | "f64" => "a number",
        "a sequence" => "a list",
        "a map" => "a table",
        _ if expected.starts_with("struct ") => "a table",
        _ => expected,
    }
}

/// Levenshtein's distance between two words.
fn edits(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, to) in b.iter().enumerate() {
            let changed = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

/// A deserializer that only notes which keys a struct asks for.
struct KeyCatcher<'a>(&'a mut &'static [&'static str]);

impl<'de> Deserializer<'de> for KeyCatcher<'_> {
    type Error = de::value::Error;

    fn deserialize_struct<V: de::Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        _visitor: V,
    ) -> Result<V::Value, Self::Error> {
        *self.0 = fields;
        Err(de::Error::custom("only the keys were wanted"))
    }

    fn deserialize_any<V: de::Visitor<'de>>(self, _visitor: V) -> Result<V::Value, Self::Error> {
        Err(de::Error::custom("a Config is a struct"))
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 char str string bytes byte_buf option unit unit_struct newtype_struct
        seq tuple tuple_struct map enum identifier ignored_any
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "kebab-case", deny_unknown_fields)]
    #[expect(dead_code, reason = "only read from TOML")]
    struct Sample {
        listen: Option<String>,
        #[serde(default)]
        topics: Vec<String>,
        max_size: Option<u32>,
        #[serde(default, with = "crate::config::duration::option")]
        keep_alive: Option<Duration>,
        #[serde(default, with = "crate::config::size::option")]
        room: Option<u64>,
        mode: Option<Mode>,
        tls: Option<Tls>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "kebab-case")]
    enum Mode {
        Fast,
        Safe,
    }

    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "kebab-case", deny_unknown_fields)]
    #[expect(dead_code, reason = "only read from TOML")]
    struct Tls {
        ca: Option<String>,
    }

    fn problems_of(text: &str) -> Vec<String> {
        let mut problems = Problems::default();
        let _: Option<Sample> = read(text.parse().expect("TOML"), "a.b", &["type", "stream"], &mut problems);
        problems.list().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn every_mistake_is_found_and_told_in_plain_words() {
        let found = problems_of(
            r#"
            lisen = "127.0.0.1:1"
            colour = "green"
            streem = "x"
            topics = ["a", 3]
            max-size = "many"
            keep-alive = "soon"
            room = -1
            mode = "quick"
            tls = { ca-file = "x", key = "y" }
            "#,
        );
        assert_eq!(
            found,
            [
                "a.b.colour: unknown key; there are `keep-alive`, `listen`, `max-size`, `mode`, `room`, `stream`, `tls`, \
                 `topics` and `type`",
                "a.b.keep-alive: must be a duration with its unit, such as \"500ms\" or \"24h\", not string \"soon\"",
                "a.b.lisen: unknown key, did you mean `listen`?",
                "a.b.max-size: must be a whole number, not string \"many\"",
                "a.b.mode: must be `fast` or `safe`, not `quick`",
                "a.b.room: must be a size such as \"64KiB\" or \"1GiB\", not integer `-1`",
                "a.b.streem: unknown key, did you mean `stream`?",
                "a.b.tls.ca-file: unknown key; there is only `ca`",
                "a.b.tls.key: unknown key; there is only `ca`",
                "a.b.topics[1]: must be a string, not integer `3`",
            ]
        );
    }

    #[test]
    fn what_is_right_is_read() {
        let mut problems = Problems::default();
        let text = r#"keep-alive = "90s"
            room = "1MB""#;
        let sample: Sample = read(text.parse().expect("TOML"), "", &[], &mut problems).expect("a sample");
        assert_eq!(sample.keep_alive, Some(Duration::from_secs(90)));
        assert_eq!(sample.room, Some(1_000_000));
        assert_eq!(problems.list(), []);
    }

    #[test]
    fn a_table_is_split_by_the_keys_of_a_module() {
        assert_eq!(keys_of::<Tls>(), ["ca"]);
        let mut table: Table = "ca = 'x'\nlisten = 'y'".parse().expect("TOML");
        assert_eq!(split_off::<Tls>(&mut table).keys().collect::<Vec<_>>(), ["ca"]);
        assert_eq!(table.keys().collect::<Vec<_>>(), ["listen"]);
    }

    #[test]
    fn a_hint_is_only_given_for_a_slip() {
        assert_eq!(nearest("data_dir", ["data-dir", "api"]), Some("data-dir"));
        assert_eq!(nearest("retension", ["retention"]), Some("retention"));
        assert_eq!(nearest("colour", ["retention", "quota"]), None);
        assert_eq!(nearest("x", ["ca"]), None);
    }
}
