//! Problems: what is wrong with a configuration, and at which key.
//!
//! Validation never stops at the first mistake; it collects them here, so that one run of `forebay check` tells them all.

use std::fmt;

/// What is wrong with a configuration, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Such as `sources.devices.listen`.
    pub path: String,
    /// A sentence fragment.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.message)
    }
}

/// All problems found so far.
///
/// One mistake is told once: of a key whose value could not be read, or that was misspelt, nothing else is noted. It would be
/// said of its default, such as that it is missing.
#[derive(Debug, Default)]
pub struct Problems {
    found: Vec<Problem>,
    /// Paths of keys that are there, but not as they should be.
    unread: Vec<String>,
}

impl Problems {
    /// Notes a problem, unless it is of a key that could not be read, or of the table that has this key.
    pub fn add(&mut self, path: impl Into<String>, message: impl Into<String>) {
        let path = path.into();
        if !self.is_unread(&path) && !self.holds_unread(&path) {
            self.found.push(Problem { path, message: message.into() });
        }
    }

    /// Notes a problem that a table has whatever the values in it are: also if one of them could not be read.
    pub fn add_of_table(&mut self, path: impl Into<String>, message: impl Into<String>) {
        let path = path.into();
        if !self.is_unread(&path) {
            self.found.push(Problem { path, message: message.into() });
        }
    }

    /// Notes that something cannot be read, so that `keys` are without their values.
    pub(super) fn add_unread(&mut self, path: String, message: String, keys: Vec<String>) {
        self.found.retain(|problem| !keys.contains(&problem.path));
        // A table that has lost a key, which now misses in it.
        if !self.holds_unread(&path) {
            self.found.push(Problem { path, message });
        }
        self.unread.extend(keys);
    }

    /// Whether there is a key in this table or list that could not be read.
    pub(super) fn holds_unread(&self, path: &str) -> bool {
        self.unread.iter().any(|unread| unread.strip_prefix(path).is_some_and(|rest| rest.starts_with(['.', '['])))
    }

    /// Whether a key is there, but could not be read.
    #[must_use]
    pub fn is_unread(&self, path: &str) -> bool {
        self.unread.iter().any(|unread| unread == path)
    }

    /// In the order they were found.
    #[must_use]
    pub fn list(&self) -> &[Problem] {
        &self.found
    }

    /// Takes them out, in the order they were found.
    #[must_use]
    pub fn into_list(self) -> Vec<Problem> {
        self.found
    }
}

/// The path of `key` under `path`, quoted as TOML demands it: `streams."dead-letter.cloud"`.
#[must_use]
pub fn key_path(path: &str, key: &str) -> String {
    let bare = !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    let key = if bare { key.to_owned() } else { format!("{key:?}") };
    if path.is_empty() { key } else { format!("{path}.{key}") }
}

/// Names for a message: "`a`, `b` and `c`".
#[must_use]
pub fn names<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let quoted: Vec<_> = names.into_iter().map(|name| format!("`{name}`")).collect();
    match quoted.split_last() {
        None => String::new(),
        Some((last, [])) => last.clone(),
        Some((last, rest)) => format!("{} and {last}", rest.join(", ")),
    }
}

/// What there is, for a message about what there is not: "there are `a` and `b`", "there is only `a`".
#[must_use]
pub fn there_are<'a>(known: impl IntoIterator<Item = &'a str>) -> String {
    let known: Vec<_> = known.into_iter().collect();
    match known[..] {
        [] => "there is none".to_owned(),
        [only] => format!("there is only `{only}`"),
        _ => format!("there are {}", names(known)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_quoted_where_toml_demands_it() {
        assert_eq!(key_path("", "data-dir"), "data-dir");
        assert_eq!(key_path("streams", "telemetry"), "streams.telemetry");
        assert_eq!(key_path("streams", "dead-letter.cloud"), "streams.\"dead-letter.cloud\"");
        assert_eq!(key_path("streams", ""), "streams.\"\"");
    }

    #[test]
    fn of_a_key_that_cannot_be_read_nothing_else_is_told() {
        let mut problems = Problems::default();
        problems.add("s.listen", "missing");
        problems.add("s.stream", "missing");
        problems.add_unread("s.lisen".into(), "unknown key".into(), vec!["s.lisen".into(), "s.listen".into()]);
        problems.add_unread("s.sample.every".into(), "must be a number".into(), vec!["s.sample.every".into()]);
        problems.add("s.listen", "missing");
        problems.add("s.sample", "needs `every`");
        problems.add("s.samples", "is something else");
        problems.add_unread("s.sample".into(), "`every` is missing".into(), vec!["s.sample".into()]);
        let told: Vec<_> = problems.list().iter().map(|problem| &*problem.path).collect();
        assert_eq!(told, ["s.stream", "s.lisen", "s.sample.every", "s.samples"]);
    }

    #[test]
    fn names_read_as_a_sentence() {
        assert_eq!(names([]), "");
        assert_eq!(names(["a"]), "`a`");
        assert_eq!(names(["a", "b", "c"]), "`a`, `b` and `c`");
        assert_eq!(there_are(["a"]), "there is only `a`");
        assert_eq!(there_are(["a", "b"]), "there are `a` and `b`");
    }
}
