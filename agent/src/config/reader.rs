//! Reads a TOML table into a module's `Config`, and finds all its mistakes rather than the first.
//!
//! serde stops at the first value that does not fit. So upon a mistake the key is reported and taken out, and the rest is
//! read again; what is returned after a mistake lacks that key, and serves only to find further problems. Of a list the element is
//! taken out, and the list itself when all of it was read. The keys of tables in lists should have defaults, and be found missing
//! when they are validated: a table that lacks one is taken out, and what else is wrong in it is not told.

use serde::{Deserialize, Deserializer, de};
use serde_path_to_error::Segment;
use toml::{Table, Value};

use super::problem::{Problems, key_path, names, there_are};

/// Reads `table`, which stands at `path`. `elsewhere` are keys of the same table that another module reads: they are not
/// in `table`, but somebody who misspells them should get them as a hint.
pub fn read<T: de::DeserializeOwned>(
    table: Table,
    path: &str,
    elsewhere: &[&str],
    problems: &mut Problems,
) -> Option<T> {
    let mut value = Value::Table(table);
    let mut shortened = Shortened::default();
    // Each round takes something out, so that this ends.
    loop {
        let error = match serde_path_to_error::deserialize(value.clone()) {
            Ok(config) => match shortened.take() {
                None => return Some(config),
                // Nobody is to go by a list that lacks what was wrong in it.
                Some(list) => {
                    remove(&mut value, &list);
                    continue;
                }
            },
            Err(error) => error,
        };
        let steps = steps_to(error.path());
        if shortened.forget(&steps) {
            // It is only that it has become too short.
            if let Some(Step::Index(_)) = steps.last() {
                shortened.add(&steps, &shortened.as_written(&steps));
            }
            remove(&mut value, &steps);
            continue;
        }
        let known = if steps.len() > 1 { &[] } else { elsewhere };
        let (message, meant) = match alternatives(error.inner().message(), at(&value, &steps)) {
            Some(message) => (message, None),
            None => explain(error.inner().message(), known),
        };
        let around = steps.split_last().map_or(&steps[..], |(_, around)| around);
        // What is there under its own name is judged for itself.
        let meant = meant.filter(|meant| at(&value, around).is_none_or(|table| table.get(meant).is_none()));
        let written = shortened.as_written(&steps);
        let (here, around) = (place(path, &written), place(path, &written[..around.len()]));
        let meant = meant.map(|meant| key_path(&around, &meant));
        let taken_out = take_out(&mut value, &steps);
        let unread = taken_out.map(|depth| match steps[depth - 1] {
            Step::Key(_) => place(path, &written[..depth]),
            // What is said of a list is said of all of it.
            Step::Index(_) => {
                shortened.add(&steps[..depth], &written[..depth]);
                place(path, to_key(&written[..depth]))
            }
        });
        problems.add_unread(here, message, unread.into_iter().chain(meant).collect());
        taken_out?;
    }
}

/// The lists that have lost elements, so that those behind are read, too.
#[derive(Default)]
struct Shortened {
    /// The ways to them, as they are.
    lists: Vec<Vec<Step>>,
    /// The ways to the lost elements, as they were written.
    lost: Vec<Vec<Step>>,
}

impl Shortened {
    fn add(&mut self, element: &[Step], as_written: &[Step]) {
        let list = element[..element.len() - 1].to_vec();
        if !self.lists.contains(&list) {
            self.lists.push(list);
        }
        self.lost.push(as_written.to_vec());
    }

    /// The way to one of the lists, or to the one around it that has a key. Inner ones come first.
    fn take(&mut self) -> Option<Vec<Step>> {
        self.lists.sort_by_key(Vec::len);
        self.lists.pop().map(|list| to_key(&list).to_vec())
    }

    /// Whether this was the way to one of the lists.
    fn forget(&mut self, list: &[Step]) -> bool {
        let found = self.lists.iter().position(|known| known == list);
        found.map(|found| self.lists.swap_remove(found)).is_some()
    }

    /// The way to a value, as it was written.
    fn as_written(&self, steps: &[Step]) -> Vec<Step> {
        let mut written: Vec<Step> = Vec::with_capacity(steps.len());
        for step in steps {
            let mut step = step.clone();
            if let Step::Index(index) = &mut step {
                let of_list = |lost: &&Vec<Step>| lost.split_last().is_some_and(|(_, list)| list == written);
                let mut lost: Vec<_> = self.lost.iter().filter(of_list).filter_map(|lost| lost.last()).collect();
                lost.sort_unstable();
                for lost in lost {
                    if matches!(lost, Step::Index(lost) if lost <= index) {
                        *index += 1;
                    }
                }
            }
            written.push(step);
        }
        written
    }
}

/// As much of a way as leads to the last key: in a list nothing but elements has a place.
fn to_key(steps: &[Step]) -> &[Step] {
    let keys = steps.iter().rposition(|step| matches!(step, Step::Key(_))).map_or(0, |last| last + 1);
    &steps[..keys]
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
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
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

/// Removes the value at the end of these steps, or the nearest around it that is there. How many steps lead to what was removed.
fn take_out(value: &mut Value, steps: &[Step]) -> Option<usize> {
    let (step, rest) = steps.split_first()?;
    match (step, value) {
        (Step::Key(key), Value::Table(table)) => {
            let deeper = table.get_mut(key).and_then(|inner| take_out(inner, rest));
            deeper.map(|depth| depth + 1).or_else(|| table.remove(key).map(|_| 1))
        }
        (Step::Index(index), Value::Array(array)) => {
            let inner = array.get_mut(*index)?;
            match take_out(inner, rest) {
                Some(depth) => Some(depth + 1),
                None => {
                    array.remove(*index);
                    Some(1)
                }
            }
        }
        _ => None,
    }
}

/// Removes exactly what is at the end of these steps, if it is there.
fn remove(value: &mut Value, steps: &[Step]) {
    let Some((last, around)) = steps.split_last() else { return };
    let around = around.iter().try_fold(value, |value, step| match step {
        Step::Key(key) => value.get_mut(key),
        Step::Index(index) => value.get_mut(*index),
    });
    match (last, around) {
        (Step::Key(key), Some(Value::Table(table))) => drop(table.remove(key)),
        (Step::Index(index), Some(Value::Array(array))) if *index < array.len() => drop(array.remove(*index)),
        _ => {}
    }
}

/// Where one of several tables is wanted, what is said of a value that has none of them, or some at once.
fn alternatives(message: &str, value: Option<&Value>) -> Option<String> {
    let found = value.and_then(Value::as_table).filter(|_| message.starts_with("wanted exactly 1 element"))?;
    Some(match found.len() {
        0 => "is an empty table".to_owned(),
        _ => format!("has {}; give one of them, not several at once", names(found.keys().map(String::as_str))),
    })
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
    let outside = message.strip_prefix("invalid value: integer `").and_then(|rest| rest.split_once("`, expected "));
    if let Some((found, expected)) = outside
        && let Some((least, most)) = range_of(expected)
    {
        // Of large numbers only the bound that was passed: a key has narrower ones of its own, and tells them next.
        return if most <= u8::MAX.into() {
            format!("must be a whole number from {least} to {most}, not {found}")
        } else if found.starts_with('-') || found == "0" {
            format!("must be a whole number from {least}, not {found}")
        } else {
            format!("must be a whole number up to {most}, not {found}")
        };
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

/// The least and the largest of Rust's numbers, as far as TOML knows larger ones.
fn range_of(expected: &str) -> Option<(i64, i64)> {
    let (nonzero, kind) = match expected.strip_prefix("a nonzero ") {
        Some(kind) => (1, kind),
        None => (0, expected),
    };
    Some(match kind {
        "u8" => (nonzero, u8::MAX.into()),
        "u16" => (nonzero, u16::MAX.into()),
        "u32" => (nonzero, u32::MAX.into()),
        "u64" | "usize" => (nonzero, i64::MAX),
        "i8" => (i8::MIN.into(), i8::MAX.into()),
        "i16" => (i16::MIN.into(), i16::MAX.into()),
        "i32" => (i32::MIN.into(), i32::MAX.into()),
        _ => return None,
    })
}

/// Rust's names for numbers mean nothing to whoever writes a configuration.
fn in_words(expected: &str) -> &str {
    match expected {
        "i8" | "i16" | "i32" | "i64" | "u8" | "u16" | "u32" | "u64" | "usize" => "a whole number",
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
    fn a_number_out_of_range_is_told_with_the_range() {
        #[derive(Debug, Default, Deserialize)]
        #[serde(deny_unknown_fields, default)]
        struct Numbers {
            byte: u8,
            signed: i16,
            word: Option<std::num::NonZeroU16>,
            count: usize,
        }
        let mut problems = Problems::default();
        let text = "byte = 300\nsigned = -40000\nword = 0\ncount = -1";
        let _: Option<Numbers> = read(text.parse().expect("TOML"), "a", &[], &mut problems);
        let found: Vec<_> = problems.list().iter().map(ToString::to_string).collect();
        let expected = [
            "a.byte: must be a whole number from 0 to 255, not 300",
            "a.count: must be a whole number from 0, not -1",
            "a.signed: must be a whole number from -32768, not -40000",
            "a.word: must be a whole number from 1, not 0",
        ];
        assert_eq!(found, expected);
        let mut problems = Problems::default();
        let text = "byte = -1\nsigned = 40000\nword = 70000";
        let _: Option<Numbers> = read(text.parse().expect("TOML"), "a", &[], &mut problems);
        let found: Vec<_> = problems.list().iter().map(ToString::to_string).collect();
        let expected = [
            "a.byte: must be a whole number from 0 to 255, not -1",
            "a.signed: must be a whole number up to 32767, not 40000",
            "a.word: must be a whole number up to 65535, not 70000",
        ];
        assert_eq!(found, expected);
        let text = "byte = 1.5\nsigned = 'x'";
        let mut problems = Problems::default();
        let _: Option<Numbers> = read(text.parse().expect("TOML"), "a", &[], &mut problems);
        let found: Vec<_> = problems.list().iter().map(ToString::to_string).collect();
        let expected = [
            "a.byte: must be a whole number, not floating point `1.5`",
            "a.signed: must be a whole number, not string \"x\"",
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn every_mistake_in_a_list_is_found_at_its_place() {
        #[derive(Debug, Default, Deserialize)]
        #[serde(deny_unknown_fields, default)]
        struct Lists {
            names: Vec<String>,
            pairs: Vec<[u8; 2]>,
            tables: Vec<Tls>,
        }
        let text = "names = [1, 'a', 2, 'b', 3]\npairs = [[1, 2], ['x', 'y'], [3], [4, 5]]\n\
                    tables = [{}, 7, { ca = 8 }, { ca = 'x' }, 9, { cb = 'x' }]";
        let mut problems = Problems::default();
        let lists: Lists = read(text.parse().expect("TOML"), "a", &[], &mut problems).expect("without them");
        problems.add("a.names", "must not be empty");
        let found: Vec<_> = problems.list().iter().map(|problem| &*problem.path).collect();
        let expected = [
            "a.names[0]",
            "a.names[2]",
            "a.names[4]",
            "a.pairs[1][0]",
            "a.pairs[1][1]",
            "a.pairs[2]",
            "a.tables[1]",
            "a.tables[2].ca",
            "a.tables[4]",
            "a.tables[5].cb",
        ];
        assert_eq!(found, expected, "{problems:#?}");
        assert!(lists.names.is_empty() && lists.pairs.is_empty() && lists.tables.is_empty(), "{lists:?}");
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
