//! Why a connection ends, and what follows from it: what the client is told, whether its will is published, what is
//! counted. Pure.

use std::{borrow::Cow, io};

use rmqtt_codec::v5::DisconnectReasonCode as Reason;

/// Something that a client must not do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Violation {
    /// What version 5 calls it.
    pub(super) reason: Reason,
    /// What it is counted as.
    pub(super) count: &'static str,
    /// A sentence fragment for the log, status and the client.
    pub(super) message: Cow<'static, str>,
}

impl Violation {
    pub(super) fn new(reason: Reason, count: &'static str, message: impl Into<Cow<'static, str>>) -> Self {
        Self { reason, count, message: message.into() }
    }
}

/// Why a connection ends.
#[derive(Debug)]
pub(super) enum Goodbye {
    /// The client said so, with or without asking for its will.
    Disconnected { with_will: bool },
    /// The client closed the connection, or the network did.
    Gone(Option<io::Error>),
    /// Nothing came for one and a half times its keep-alive.
    Silent,
    /// It did what it must not.
    Violation(Violation),
    /// The log did not take its records.
    NotStored(String),
    /// The same client id connected again.
    TakenOver,
    /// The agent stops.
    Stopping,
}

impl Goodbye {
    /// What a version 5 client is told.
    pub(super) fn reason(&self) -> Option<Reason> {
        match self {
            Self::Disconnected { .. } | Self::Gone(_) => None,
            Self::Silent => Some(Reason::KeepAliveTimeout),
            Self::Violation(violation) => Some(violation.reason),
            Self::NotStored(_) => Some(Reason::ImplementationSpecificError),
            Self::TakenOver => Some(Reason::SessionTakenOver),
            Self::Stopping => Some(Reason::ServerShuttingDown),
        }
    }

    /// And in words.
    pub(super) fn explanation(&self) -> Option<&str> {
        match self {
            Self::Violation(violation) => Some(&violation.message),
            _ => None,
        }
    }

    /// Whether it gets the acknowledgements that are still due: not if it does not listen any more, and not behind a
    /// record that was not stored.
    pub(super) fn awaits_acknowledgements(&self) -> bool {
        matches!(self, Self::Violation(_) | Self::Stopping)
    }

    /// Whether the client's will is published. Not when it is we who stop: the device may be quite well.
    pub(super) fn publishes_will(&self) -> bool {
        !matches!(self, Self::Disconnected { with_will: false } | Self::Stopping)
    }
}
