//! The settings of a `tail` source: as they are written, and as they are once they were found right.

use std::{
    ops::RangeInclusive,
    path::{Path, PathBuf},
    time::Duration,
};

use glob::{MatchOptions, Pattern};
use regex::bytes::RegexBuilder;
use serde::Deserialize;

use super::cut::Group;
use crate::{
    config::{Problems, duration},
    source,
};

/// A stream takes 10,000 marks; two sources of this size leave it some.
const FILES: usize = 5_000;
const FILES_MAX: usize = 10_000;

/// Below, looking for files is all that is done; above, a network drive's lines come late.
const POLL_INTERVALS: RangeInclusive<Duration> = Duration::from_millis(50)..=Duration::from_secs(3600);

/// A pattern must not take more memory than this once it is compiled.
const PATTERN_BYTES_MAX: usize = 1 << 20;

/// The keys of `[sources.NAME]` with `type = "tail"`.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Config {
    /// Files and patterns such as `"/var/log/*.log"`; `**` stands for any folders.
    pub paths: Option<Vec<String>>,
    /// Patterns of what is left out.
    pub exclude: Vec<String>,
    /// Where files are begun that are there when the source looks for the first time ever. Every other file is read from its beginning.
    pub start: Start,
    /// Folders besides the file's own to which files are rotated away (logrotate's `olddir`).
    pub rotated_into: Vec<PathBuf>,
    /// Puts lines together.
    pub multiline: Option<Multiline>,
    /// A line without end becomes a record when its file has not grown for so long; left out: it waits for its end.
    #[serde(with = "duration::option")]
    pub partial_line_timeout: Option<Duration>,
    /// What becomes of lines of nothing.
    pub empty_lines: EmptyLines,
    /// How changes are noticed, besides by looking.
    pub watch: Watch,
    /// How often is looked for what nobody told.
    #[serde(with = "duration")]
    pub poll_interval: Duration,
    /// So many files are followed at the most.
    pub max_files: usize,
    /// So many of them are held open.
    pub max_open: usize,
}

/// `start`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Start {
    /// Their first byte.
    Beginning,
    /// Their last line.
    End,
}

/// `empty-lines`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EmptyLines {
    /// They are no records.
    Skip,
    /// They are.
    Keep,
}

/// `watch`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Watch {
    /// The kernel tells.
    Inotify,
    /// Nobody does, as with a network drive.
    Poll,
}

/// `multiline`.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Multiline {
    /// A regular expression that the first line of every record matches.
    pub start: String,
    /// A record ends after so many lines.
    #[serde(default = "max_lines")]
    pub max_lines: usize,
    /// The last record ends when its file has not grown for so long.
    #[serde(default = "timeout", with = "duration")]
    pub timeout: Duration,
}

fn max_lines() -> usize {
    500
}

fn timeout() -> Duration {
    Duration::from_secs(2)
}

impl Default for Config {
    fn default() -> Self {
        Self {
            paths: None,
            exclude: Vec::new(),
            start: Start::Beginning,
            rotated_into: Vec::new(),
            multiline: None,
            partial_line_timeout: None,
            empty_lines: EmptyLines::Skip,
            watch: Watch::Inotify,
            poll_interval: Duration::from_secs(5),
            max_files: FILES,
            // A process may commonly open 1,024.
            max_open: 500,
        }
    }
}

/// Settings that were found right.
#[derive(Debug, Clone)]
pub struct Settings {
    pub(super) paths: Vec<String>,
    /// The same.
    patterns: Vec<Pattern>,
    pub(super) exclude: Vec<Pattern>,
    pub(super) start: Start,
    pub(super) rotated_into: Vec<PathBuf>,
    pub(super) group: Option<Group>,
    /// After which a group of lines ends.
    pub(super) group_timeout: Duration,
    pub(super) partial_line_timeout: Option<Duration>,
    pub(super) keep_empty: bool,
    pub(super) watch: Watch,
    pub(super) poll_interval: Duration,
    pub(super) max_files: usize,
    pub(super) max_open: usize,
}

impl source::Config for Config {
    type Settings = Settings;

    fn validate(&self, path: &str, problems: &mut Problems) -> Option<Settings> {
        let mut wrong = |key: &str, message: String| problems.add(format!("{path}.{key}"), message);
        match self.paths.as_deref() {
            None => wrong("paths", "missing; such as [\"/var/log/*.log\"]".into()),
            Some([]) => wrong("paths", "names no file".into()),
            Some(_) => {}
        }
        for pattern in self.paths.iter().flatten() {
            if pattern.is_empty() {
                wrong("paths", "must not be empty".into());
            } else if let Err(error) = Pattern::new(pattern) {
                wrong("paths", format!("`{pattern}` is not a pattern: {error}"));
            }
        }
        let exclude = self.exclude.iter().filter_map(|pattern| {
            Pattern::new(pattern)
                .map_err(|error| wrong("exclude", format!("`{pattern}` is not a pattern: {error}")))
                .ok()
        });
        let exclude = exclude.collect();
        let group = self.multiline.as_ref().and_then(|multiline| multiline.validate(&mut wrong));
        if self.partial_line_timeout.is_some_and(|timeout| timeout.is_zero()) {
            wrong("partial-line-timeout", "must be longer than 0; left out, a line waits for its end".into());
        }
        if !POLL_INTERVALS.contains(&self.poll_interval) {
            wrong("poll-interval", format!("is between 50ms and 1h, not {}", duration::show(self.poll_interval)));
        }
        if !(1..=FILES_MAX).contains(&self.max_files) {
            wrong("max-files", format!("is between 1 and {FILES_MAX}, not {}", self.max_files));
        }
        if self.max_open == 0 {
            wrong("max-open", "must be at least 1".into());
        }
        Some(Settings {
            paths: self.paths.clone()?,
            patterns: self.paths.iter().flatten().filter_map(|pattern| Pattern::new(pattern).ok()).collect(),
            exclude,
            start: self.start,
            rotated_into: self.rotated_into.clone(),
            group,
            group_timeout: self.multiline.as_ref().map_or(Duration::ZERO, |multiline| multiline.timeout),
            partial_line_timeout: self.partial_line_timeout,
            keep_empty: self.empty_lines == EmptyLines::Keep,
            watch: self.watch,
            poll_interval: self.poll_interval,
            max_files: self.max_files,
            max_open: self.max_open,
        })
    }
}

impl Multiline {
    fn validate(&self, wrong: &mut impl FnMut(&str, String)) -> Option<Group> {
        if self.max_lines == 0 {
            wrong("multiline.max-lines", "must be at least 1".into());
        }
        if self.timeout.is_zero() {
            wrong("multiline.timeout", "must be longer than 0".into());
        }
        if self.start.is_empty() {
            wrong("multiline.start", "must not be empty".into());
            return None;
        }
        let start = RegexBuilder::new(&self.start).unicode(false).size_limit(PATTERN_BYTES_MAX).build();
        let start = start.map_err(|error| wrong("multiline.start", last_line(&error.to_string()))).ok()?;
        Some(Group { start, max_lines: self.max_lines })
    }
}

impl Settings {
    /// Whether a path that a pattern matches is not left out.
    pub(super) fn takes(&self, path: &Path) -> bool {
        !self.exclude.iter().any(|pattern| pattern.matches_path(path))
    }

    /// Whether a path is one that looking for files would find.
    pub(super) fn matches(&self, path: &Path) -> bool {
        let options = MatchOptions { require_literal_separator: true, ..MatchOptions::new() };
        self.takes(path) && self.patterns.iter().any(|pattern| pattern.matches_path_with(path, options))
    }
}

/// What is wrong stands in the last line, below the pattern.
fn last_line(error: &str) -> String {
    error.lines().next_back().unwrap_or_default().trim_start_matches("error: ").to_owned()
}

/// The folder below which a pattern looks: its beginning without wildcards.
pub(super) fn folder_of(pattern: &str) -> PathBuf {
    let parts = Path::new(pattern).parent().into_iter().flat_map(Path::components);
    let fixed: PathBuf =
        parts.take_while(|part| !part.as_os_str().to_string_lossy().contains(['*', '?', '['])).collect();
    if fixed.as_os_str().is_empty() { ".".into() } else { fixed }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config::reader, source::Config as _};

    fn problems_of(toml: &str) -> Vec<String> {
        let mut problems = Problems::default();
        let table = toml.parse().expect("TOML");
        if let Some(config) = reader::read::<Config>(table, "sources.logs", &[], &mut problems) {
            let settings = config.validate("sources.logs", &mut problems);
            assert!(settings.is_some() || !problems.list().is_empty(), "nothing was told");
        }
        problems.list().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_pattern_looks_below_a_folder() {
        for (pattern, folder) in [
            ("/var/log/*.log", "/var/log"),
            ("/var/log/**/app/a.log", "/var/log"),
            ("/var/log/app.log", "/var/log"),
            ("/srv/[ab]/x.log", "/srv"),
            ("logs/x.log", "logs"),
            ("x.log", "."),
            ("**/x.log", "."),
        ] {
            assert_eq!(folder_of(pattern), PathBuf::from(folder), "{pattern}");
        }
    }

    #[test]
    fn the_least_configuration_is_enough() {
        assert_eq!(problems_of("paths = ['/var/log/*.log']"), [""; 0]);
        assert_eq!(problems_of("paths = ['a']\nmultiline = { start = '^\\d{4}-' }"), [""; 0]);
    }

    #[test]
    fn every_mistake_is_told_with_its_key() {
        let found = problems_of(
            "paths = ['a***', '']\nexclude = ['[']\nstart = 'middle'\npartial-line-timeout = '0s'\npoll-interval = '1ms'\n\
             multiline = { start = '(', max-lines = 0, timeout = '0s' }\nmax-files = 0\nmax-open = 0\nempty-lines = 'x'\nwach = 1",
        );
        for key in [
            "paths: `a***`",
            "paths: must not be empty",
            "exclude: `[`",
            "start: must be",
            "partial-line-timeout: ",
            "poll-interval: ",
            "multiline.start: unclosed group",
            "multiline.max-lines: ",
            "multiline.timeout: ",
            "max-files: ",
            "max-open: ",
            "empty-lines: ",
            "wach: unknown key, did you mean `watch`?",
        ] {
            let wanted = format!("sources.logs.{key}");
            assert_eq!(
                found.iter().filter(|problem| problem.starts_with(&wanted)).count(),
                1,
                "{wanted} in {found:#?}"
            );
        }
        assert_eq!(found.len(), 13, "{found:#?}");
        assert_eq!(problems_of("").len(), 1);
        assert_eq!(problems_of("paths = []").len(), 1);
    }
}
