//! The settings of a `journald` source: as they are written, and as they are once they were found right.

use std::{ffi::OsString, path::PathBuf, time::Duration};

use serde::Deserialize;

use crate::{
    config::{Problems, duration},
    source,
};

/// As `journalctl --priority` has them, the most urgent first.
const PRIORITIES: [&str; 8] = ["emerg", "alert", "crit", "err", "warning", "notice", "info", "debug"];

/// The keys of `[sources.NAME]` with `type = "journald"`.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Config {
    /// Only entries of these units, such as `"ssh.service"`; of all, if left out.
    pub units: Vec<String>,
    /// Only entries of this priority or a more urgent one: `"emerg"` to `"debug"`.
    pub priority: Option<String>,
    /// Which boots' entries.
    pub boot: Boot,
    /// Where the first run ever begins. Every other one goes on after what is stored.
    pub start: Start,
    /// A folder with journal files; the machine's own journal if left out.
    pub directory: Option<PathBuf>,
    /// systemd's program that reads journals.
    pub journalctl: PathBuf,
    /// Longest pause before it is started again.
    #[serde(with = "duration")]
    pub max_backoff: Duration,
}

/// `boot`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Boot {
    /// Those of all boots.
    All,
    /// Those since the machine was started.
    Current,
}

/// `start`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Start {
    /// The oldest entry.
    Beginning,
    /// What comes from now on.
    End,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            units: Vec::new(),
            priority: None,
            boot: Boot::All,
            start: Start::Beginning,
            directory: None,
            journalctl: "journalctl".into(),
            max_backoff: Duration::from_secs(30),
        }
    }
}

/// Settings that were found right.
#[derive(Debug, Clone)]
pub struct Settings {
    pub(super) journalctl: PathBuf,
    /// Which entries.
    pub(super) selection: Vec<OsString>,
    pub(super) start: Start,
    pub(super) max_backoff: Duration,
}

impl source::Config for Config {
    type Settings = Settings;

    fn validate(&self, path: &str, problems: &mut Problems) -> Option<Settings> {
        let mut wrong = |key: &str, message: String| problems.add(format!("{path}.{key}"), message);
        let mut selection: Vec<OsString> = Vec::new();
        for unit in &self.units {
            if unit.is_empty() {
                wrong("units", "must not be empty".into());
            }
            selection.push(format!("--unit={unit}").into());
        }
        if let Some(priority) = &self.priority {
            if !PRIORITIES.contains(&priority.as_str()) {
                wrong("priority", format!("is one of {}, not `{priority}`", PRIORITIES.join(", ")));
            }
            selection.push(format!("--priority={priority}").into());
        }
        if self.boot == Boot::Current {
            selection.push("--boot".into());
        }
        if let Some(directory) = &self.directory {
            let mut argument = OsString::from("--directory=");
            argument.push(directory);
            selection.push(argument);
        }
        if self.journalctl.as_os_str().is_empty() {
            wrong("journalctl", "must not be empty".into());
        }
        if self.max_backoff.is_zero() {
            wrong("max-backoff", "must be longer than 0".into());
        }
        let (journalctl, start, max_backoff) = (self.journalctl.clone(), self.start, self.max_backoff);
        Some(Settings { journalctl, selection, start, max_backoff })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config::reader, source::Config as _};

    #[test]
    fn every_mistake_is_told_with_its_key() {
        let mut problems = Problems::default();
        let table = "units = ['']\npriority = 'loud'\nboot = 'last'\njournalctl = ''\nmax-backoff = '0s'\nunit = 'a'";
        let config: Config =
            reader::read(table.parse().expect("TOML"), "sources.j", &[], &mut problems).expect("a table");
        config.validate("sources.j", &mut problems);
        let found: Vec<_> = problems.list().iter().map(ToString::to_string).collect();
        for key in
            ["units: must", "priority: is one", "boot: must be", "journalctl: ", "max-backoff: ", "unit: unknown key"]
        {
            assert!(
                found.iter().any(|problem| problem.starts_with(&format!("sources.j.{key}"))),
                "{key} in {found:#?}"
            );
        }
        assert_eq!(found.len(), 6, "{found:#?}");
    }

    #[test]
    fn what_is_chosen_is_asked_for() {
        let config = Config {
            units: vec!["a.service".into()],
            priority: Some("err".into()),
            boot: Boot::Current,
            directory: Some("/j".into()),
            ..Config::default()
        };
        let settings = config.validate("s", &mut Problems::default()).expect("right");
        assert_eq!(settings.selection, ["--unit=a.service", "--priority=err", "--boot", "--directory=/j"]);
    }
}
