//! `[agent]`: the process itself.

use std::time::Duration;

use serde::Deserialize;

use super::{Problems, duration};

/// systemd kills a service 90 seconds after it was asked to stop; longer would be cut anyway.
const GRACE_PERIOD_MAX: Duration = Duration::from_secs(80);

/// The process itself.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Config {
    /// What this gateway is called in envelopes; the host's name if left out.
    pub gateway_id: Option<String>,
    /// How long stopping may take: what is on its way to the disk is stored, what is on its way out is awaited.
    #[serde(with = "duration")]
    pub grace_period: Duration,
    /// How much is logged, unless the environment variable `FOREBAY_LOG` says otherwise.
    pub log_level: LogLevel,
}

/// How much is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogLevel {
    /// What a person must act upon.
    Error,
    /// And what was unexpected, but went on.
    Warn,
    /// And what happens.
    Info,
    /// And why.
    Debug,
    /// And everything.
    Trace,
}

impl Default for Config {
    fn default() -> Self {
        Self { gateway_id: None, grace_period: Duration::from_secs(10), log_level: LogLevel::Info }
    }
}

impl Config {
    /// What this gateway is called.
    #[must_use]
    pub fn gateway_id(&self) -> String {
        let host = || rustix::system::uname().nodename().to_string_lossy().into_owned();
        self.gateway_id.clone().unwrap_or_else(host)
    }

    /// Notes what cannot be.
    pub fn validate(&self, path: &str, problems: &mut Problems) {
        let fits = |id: &String| (1..=256).contains(&id.len()) && !id.contains(char::is_control);
        if !self.gateway_id.as_ref().is_none_or(fits) {
            problems.add(format!("{path}.gateway-id"), "is 1 to 256 bytes of text without control characters");
        }
        if self.grace_period > GRACE_PERIOD_MAX {
            let [max, given] = [GRACE_PERIOD_MAX, self.grace_period].map(duration::show);
            problems.add(format!("{path}.grace-period"), format!("must be {max} or less, not {given}"));
        }
    }
}

impl LogLevel {
    /// As `FOREBAY_LOG` would say it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}
