//! The settings of an `exec` source: as they are written, and as they are once they were found right.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use serde::Deserialize;
use toml::Table;

use crate::{
    config::{Problems, duration, key_path},
    framing::Framing,
    source::{self, pump},
};

/// The keys of `[sources.NAME]` with `type = "exec"`, beside those of framing.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Config {
    /// The program and its arguments. No shell reads them; where one is wanted: `["sh", "-c", "..."]`.
    pub command: Option<Vec<String>>,
    /// Variables added to its environment, which is ours otherwise.
    pub env: BTreeMap<String, String>,
    /// Its working directory; ours unless given.
    pub working_dir: Option<PathBuf>,
    /// Whether it is started again when it ends: `"always"` (the default), `"on-failure"`, `"never"`.
    pub restart: Option<Restart>,
    /// The longest pause before it is started again; default `"1m"`.
    #[serde(with = "duration::option")]
    pub max_backoff: Option<Duration>,
    /// It is run this often, from start to start, in place of being started again when it ends.
    #[serde(with = "duration::option")]
    pub interval: Option<Duration>,
    /// With `interval`: a run that takes longer is ended. Without, it may take as long as it likes, and the next one waits for it.
    #[serde(with = "duration::option")]
    pub timeout: Option<Duration>,
}

/// Whether a program is started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Restart {
    /// However it ended.
    Always,
    /// Unless it ended with status 0.
    OnFailure,
    /// However it ended, the source is finished.
    Never,
}

/// Settings that were found right.
#[derive(Debug, Clone)]
pub struct Settings {
    pub(super) program: String,
    pub(super) arguments: Vec<String>,
    pub(super) env: BTreeMap<String, String>,
    pub(super) working_dir: Option<PathBuf>,
    pub(super) restart: Restart,
    pub(super) max_backoff: Duration,
    pub(super) interval: Option<Duration>,
    pub(super) timeout: Option<Duration>,
    pub(super) framing: Framing,
}

/// Reads the keys, with those of framing.
pub(super) fn read(
    table: Table,
    path: &str,
    elsewhere: &[&str],
    problems: &mut Problems,
) -> Option<Arc<dyn source::Settings>> {
    let (framing, config) = pump::read_framed::<Config>(table, path, elsewhere, problems);
    let framing = framing.and_then(|framing| framing.validate(path, problems));
    Some(Arc::new(config?.validate(framing, path, problems)?))
}

impl Settings {
    /// What is not there of what is needed to start the program: the key that names it, and what of it.
    pub(super) fn not_there(&self) -> Option<(&'static str, String)> {
        if let Some(dir) = &self.working_dir
            && !dir.is_dir()
        {
            return Some(("working-dir", format!("there is no folder {}", dir.display())));
        }
        // As the system looks for it: with a slash from the working directory on, otherwise in the folders of PATH.
        let found = if self.program.contains('/') {
            self.working_dir.clone().unwrap_or_default().join(&self.program).exists()
        } else {
            let path = self.env.get("PATH").map(Into::into).or_else(|| std::env::var_os("PATH"));
            path.is_none_or(|path| std::env::split_paths(&path).any(|dir| dir.join(&self.program).exists()))
        };
        (!found).then(|| ("command", format!("there is no program `{}`", self.program)))
    }
}

impl Config {
    fn validate(self, framing: Option<Framing>, path: &str, problems: &mut Problems) -> Option<Settings> {
        let before = problems.list().len();
        let mut wrong = |key: &str, message: &str| problems.add(key_path(path, key), message);
        let mut words = self.command.unwrap_or_default().into_iter();
        let program = words.next().filter(|program| !program.is_empty());
        if program.is_none() {
            wrong("command", "missing; a program and its arguments, such as [\"vmstat\", \"-n\", \"5\"]");
        }
        let arguments: Vec<String> = words.collect();
        if program.iter().chain(&arguments).any(|word| word.contains('\0')) {
            wrong("command", "a program cannot be given a zero byte");
        }
        for (name, value) in &self.env {
            if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
                wrong("env", &format!("`{name}` cannot be in an environment"));
            }
        }
        if self.interval.is_some() {
            for (key, given) in [("restart", self.restart.is_some()), ("max-backoff", self.max_backoff.is_some())] {
                if given {
                    wrong(key, "is of no use with `interval`");
                }
            }
        } else if self.timeout.is_some() {
            wrong("timeout", "is of no use without `interval`");
        }
        for (key, given) in [("interval", self.interval), ("timeout", self.timeout), ("max-backoff", self.max_backoff)]
        {
            if given.is_some_and(|given| given < Duration::from_millis(100)) {
                wrong(key, "must be at least 100ms");
            }
        }
        if problems.list().len() > before {
            return None;
        }
        Some(Settings {
            program: program?,
            arguments,
            env: self.env,
            working_dir: self.working_dir,
            restart: self.restart.unwrap_or(Restart::Always),
            max_backoff: self.max_backoff.unwrap_or(Duration::from_secs(60)),
            interval: self.interval,
            timeout: self.timeout,
            framing: framing?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems_of(text: &str) -> Vec<String> {
        let mut problems = Problems::default();
        let settings = read(text.parse().expect("TOML"), "sources.e", &[], &mut problems);
        assert_eq!(settings.is_none(), !problems.list().is_empty(), "{:?}", problems.list());
        problems.list().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_command_is_enough() {
        assert_eq!(problems_of("command = ['vmstat', '-n', '5']"), [""; 0]);
        let whole = "command = ['probe']\nenv = { A = 'b' }\nworking-dir = '/'\ninterval = '10s'\ntimeout = '5s'\nframing = 'cobs'";
        assert_eq!(problems_of(whole), [""; 0]);
    }

    #[test]
    fn all_mistakes_are_told_at_once() {
        let text = "command = []\nenv = { 'A=B' = 'c' }\nrestart = 'never'\ninterval = '1ms'";
        assert_eq!(
            problems_of(text),
            [
                "sources.e.command: missing; a program and its arguments, such as [\"vmstat\", \"-n\", \"5\"]",
                "sources.e.env: `A=B` cannot be in an environment",
                "sources.e.restart: is of no use with `interval`",
                "sources.e.interval: must be at least 100ms",
            ]
        );
        assert_eq!(
            problems_of("command = ['x']\ntimeout = '1s'"),
            ["sources.e.timeout: is of no use without `interval`"]
        );
    }
}
