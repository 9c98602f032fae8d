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
#[derive(Debug, Default)]
pub struct Problems(Vec<Problem>);

impl Problems {
    /// Notes a problem.
    pub fn add(&mut self, path: impl Into<String>, message: impl Into<String>) {
        self.0.push(Problem { path: path.into(), message: message.into() });
    }

    /// In the order they were found.
    #[must_use]
    pub fn list(&self) -> &[Problem] {
        &self.0
    }

    /// Takes them out, in the order they were found.
    #[must_use]
    pub fn into_list(self) -> Vec<Problem> {
        self.0
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
    fn names_read_as_a_sentence() {
        assert_eq!(names([]), "");
        assert_eq!(names(["a"]), "`a`");
        assert_eq!(names(["a", "b", "c"]), "`a`, `b` and `c`");
        assert_eq!(there_are(["a"]), "there is only `a`");
        assert_eq!(there_are(["a", "b"]), "there are `a` and `b`");
    }
}
