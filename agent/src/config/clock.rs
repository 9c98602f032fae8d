//! `[clock]`: when the machine's clock is trusted.

use std::sync::Arc;

use forebay_log_store::{SystemClock, TrustRule};
use serde::Deserialize;

/// When the machine's clock is trusted. Arrival times are certain, and retention goes by true ages, once it was.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Config {
    /// By what.
    pub trust: Trust,
}

/// By what the machine's clock is trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Trust {
    /// While the kernel says that something synchronises it, such as NTP; on 32-bit machines, systemd-timesyncd.
    #[default]
    Kernel,
    /// From the start: the machine's clock has a battery, or the host is known to keep it right.
    Always,
    /// Not by itself; a `gps` source may still tell the time.
    Never,
}

impl Config {
    /// The machine's clocks, trusted by this.
    #[must_use]
    pub fn open(self) -> Arc<SystemClock> {
        SystemClock::trusted_by(match self.trust {
            Trust::Kernel => TrustRule::Kernel,
            Trust::Always => TrustRule::Always,
            Trust::Never => TrustRule::Never,
        })
    }
}
