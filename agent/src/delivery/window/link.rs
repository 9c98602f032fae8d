//! Whether the endpoint answers. While it does not, one probe at a time is sent, and the first success ends the wait.

use std::time::Duration;

use fastrand::Rng;

use super::super::backoff::Backoff;
use crate::destination::{Failure, FailureKind, RETRY_AFTER_MAX};

/// The longest wait between two probes of an endpoint that cannot be reached: a backlog is to move within a second of the
/// link's return, and a probe that finds no link costs next to nothing.
const UNREACHABLE_BACKOFF_MAX: Duration = Duration::from_millis(750);

/// The longest wait after a request that was found at fault. Records that have not been refused yet go no slower than
/// this; what was refused waits longer, see `suspects`.
const INVALID_BACKOFF_MAX: Duration = Duration::from_millis(750);

/// The state of a delivery's link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Link {
    /// The newest request was answered, not in vain.
    Up,
    /// It was not.
    Down(Down),
}

/// An outage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Down {
    /// When it began.
    pub(crate) since: Duration,
    /// Its newest failure.
    pub(crate) kind: FailureKind,
    /// When the next probe may leave.
    pub(crate) next_probe: Duration,
    /// The endpoint asked to be left alone until then.
    asked: Duration,
    /// Probes that failed, and the failure that began it.
    pub(crate) failures: u32,
    /// All that failed were records that go on failing while others are taken, so that it may be none.
    pub(crate) doubtful: bool,
    /// The request that is out to see.
    pub(crate) probe: Option<u64>,
}

/// Why a request did not succeed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Why {
    pub(super) kind: FailureKind,
    pub(super) retry_after: Option<Duration>,
    /// See [`Down::doubtful`].
    pub(super) doubtful: bool,
}

impl Why {
    pub(super) fn of(failure: &Failure) -> Self {
        Self { retry_after: failure.retry_after, ..Self::answered(failure.kind) }
    }

    /// Its answer said so of each record.
    pub(super) fn answered(kind: FailureKind) -> Self {
        Self { kind, retry_after: None, doubtful: false }
    }
}

impl Link {
    /// The endpoint answered. Returns the outage that this ends.
    pub(super) fn succeed(&mut self) -> Option<Down> {
        match std::mem::replace(self, Self::Up) {
            Self::Up => None,
            Self::Down(down) => Some(down),
        }
    }

    /// Whether this is an outage in which the endpoint answers, but takes nothing: only that it does ends it.
    pub(super) fn answers_in_vain(&self) -> bool {
        let in_vain = |kind| matches!(kind, FailureKind::EndpointFailed | FailureKind::Throttled);
        matches!(self, Self::Down(down) if in_vain(down.kind))
    }

    /// Request `id` failed. One that was sent before the outage began tells nothing new.
    pub(super) fn fail(&mut self, id: u64, why: &Why, max: Duration, now: Duration, rng: &mut Rng) {
        let (since, failures, doubtful) = match self {
            Self::Up => (now, 1, why.doubtful),
            Self::Down(down) if down.probe == Some(id) => {
                (down.since, down.failures.saturating_add(1), down.doubtful && why.doubtful)
            }
            Self::Down(_) => return,
        };
        let kind = why.kind;
        let max = longest_wait(kind, max);
        let asked = why.retry_after.unwrap_or_default().min(RETRY_AFTER_MAX);
        let wait = Backoff { base: super::BACKOFF_BASE, max }.delay(failures, rng).max(asked);
        let (next_probe, asked) = (now + wait, now + asked);
        *self = Self::Down(Down { since, kind, next_probe, asked, failures, doubtful, probe: None });
    }

    /// There may be a way out that was not there before: the next probe leaves at once, unless the endpoint itself has
    /// asked for time.
    pub(super) fn probe_now(&mut self, now: Duration) {
        if let Self::Down(down) = self {
            down.next_probe = down.next_probe.min(now.max(down.asked));
        }
    }

    pub(super) fn sent(&mut self, id: u64) {
        if let Self::Down(down) = self {
            assert_eq!(down.probe, None, "one probe at a time");
            down.probe = Some(id);
        }
    }
}

/// How far apart two probes are at the most, for each kind of failure; `max` is what the configuration says. docs/links.md
/// has this as a table.
fn longest_wait(kind: FailureKind, max: Duration) -> Duration {
    match kind {
        FailureKind::NoRoute
        | FailureKind::Dns
        | FailureKind::Refused
        | FailureKind::TimedOut
        | FailureKind::Disconnected
        | FailureKind::Unreachable => max.min(UNREACHABLE_BACKOFF_MAX),
        FailureKind::RequestInvalid | FailureKind::RecordInvalid => max.min(INVALID_BACKOFF_MAX),
        // Each of these has an endpoint at the other end, and a handshake or a request that is paid for.
        FailureKind::ProxyCredentials
        | FailureKind::ProxyRefused
        | FailureKind::TlsWrongHost
        | FailureKind::TlsUnknownAuthority
        | FailureKind::TlsExpired
        | FailureKind::Tls
        | FailureKind::Clock
        | FailureKind::CredentialsMissing
        | FailureKind::CredentialsRefused
        | FailureKind::CredentialsExpired
        | FailureKind::Throttled
        | FailureKind::EndpointFailed
        | FailureKind::Misconfigured => max,
    }
}
