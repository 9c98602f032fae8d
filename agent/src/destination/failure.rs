//! Why requests fail: the kinds that a delivery and a person tell apart. docs/links.md says what each one means, what forebay
//! does, and what a person does.

use std::{fmt, time::Duration};

/// A whole page of HTML helps nobody.
pub(super) const MESSAGE_CHARS_MAX: usize = 400;

/// An endpoint that wants to be left alone for longer is asked again all the same.
pub(crate) const RETRY_AFTER_MAX: Duration = Duration::from_secs(300);

/// Why a request failed as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What the delivery goes by.
    pub kind: FailureKind,
    /// For a person; of bounded length.
    pub message: String,
    /// How long the endpoint asked us to stay away.
    pub retry_after: Option<Duration>,
}

/// Kinds of failure, each of which a delivery or a person treats in its own way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FailureKind {
    /// No way to it: no interface that is up, no route, no address of our own.
    NoRoute,
    /// Its name does not resolve.
    Dns,
    /// Its machine, or something in front of it, does not take the connection.
    Refused,
    /// No connection, or no answer, in time.
    TimedOut,
    /// The connection ended before the answer did.
    Disconnected,
    /// No answer, for another reason than these.
    Unreachable,
    /// The proxy on the way wants to know who we are, or does not take what we say.
    ProxyCredentials,
    /// The proxy does not connect us.
    ProxyRefused,
    /// Its certificate is for another name.
    TlsWrongHost,
    /// Nobody whom we trust has signed its certificate.
    TlsUnknownAuthority,
    /// Its certificate is past its end, or was revoked.
    TlsExpired,
    /// TLS failed in another way.
    Tls,
    /// Our clock is wrong, by what the endpoint says of the request's date or by its certificate.
    Clock,
    /// There are no credentials to be had.
    CredentialsMissing,
    /// The endpoint does not take our credentials, or they do not suffice.
    CredentialsRefused,
    /// Our credentials are past their end.
    CredentialsExpired,
    /// Too much at once.
    Throttled,
    /// It answered that it cannot at the moment, or with something that is no answer at all.
    EndpointFailed,
    /// What was asked for is not there: a person has to set something right, here or there.
    Misconfigured,
    /// The endpoint finds fault with the request itself: with at least one of its records.
    RequestInvalid,
    /// It finds fault with one record, and says with which. No request fails of this.
    RecordInvalid,
}

impl FailureKind {
    /// All of them, in the order of [`FailureKind::index`].
    pub const ALL: [Self; 21] = [
        Self::NoRoute,
        Self::Dns,
        Self::Refused,
        Self::TimedOut,
        Self::Disconnected,
        Self::Unreachable,
        Self::ProxyCredentials,
        Self::ProxyRefused,
        Self::TlsWrongHost,
        Self::TlsUnknownAuthority,
        Self::TlsExpired,
        Self::Tls,
        Self::Clock,
        Self::CredentialsMissing,
        Self::CredentialsRefused,
        Self::CredentialsExpired,
        Self::Throttled,
        Self::EndpointFailed,
        Self::Misconfigured,
        Self::RequestInvalid,
        Self::RecordInvalid,
    ];

    /// Its place in [`FailureKind::ALL`], for counters.
    #[must_use]
    pub fn index(self) -> usize {
        self as usize
    }

    /// Whether other credentials may help.
    #[must_use]
    pub fn is_about_credentials(self) -> bool {
        matches!(self, Self::CredentialsMissing | Self::CredentialsRefused | Self::CredentialsExpired)
    }

    /// As it is written in status, metrics and logs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoRoute => "no-route",
            Self::Dns => "dns",
            Self::Refused => "refused",
            Self::TimedOut => "timed-out",
            Self::Disconnected => "disconnected",
            Self::Unreachable => "unreachable",
            Self::ProxyCredentials => "proxy-credentials",
            Self::ProxyRefused => "proxy-refused",
            Self::TlsWrongHost => "tls-wrong-host",
            Self::TlsUnknownAuthority => "tls-unknown-authority",
            Self::TlsExpired => "tls-expired",
            Self::Tls => "tls",
            Self::Clock => "clock",
            Self::CredentialsMissing => "credentials-missing",
            Self::CredentialsRefused => "credentials-refused",
            Self::CredentialsExpired => "credentials-expired",
            Self::Throttled => "throttled",
            Self::EndpointFailed => "endpoint-failed",
            Self::Misconfigured => "misconfigured",
            Self::RequestInvalid => "request-invalid",
            Self::RecordInvalid => "record-invalid",
        }
    }

    /// Whether nothing was heard of the endpoint itself: a link that carries nothing, or a request too large for it.
    #[must_use]
    pub fn is_silence(self) -> bool {
        matches!(
            self,
            Self::NoRoute | Self::Dns | Self::Refused | Self::TimedOut | Self::Disconnected | Self::Unreachable
        )
    }
}

/// How long the endpoint wants to be left alone, by its `Retry-After`.
pub(super) fn retry_after(said: Option<&str>) -> Option<Duration> {
    let seconds = said?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds).min(RETRY_AFTER_MAX))
}

/// A message of bounded length.
pub(super) fn shorten(message: String) -> String {
    match message.char_indices().nth(MESSAGE_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &message[..end]),
        None => message,
    }
}

impl fmt::Display for FailureKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kind, self.message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_its_place_and_a_name_of_its_own() {
        for (place, kind) in FailureKind::ALL.into_iter().enumerate() {
            assert_eq!(kind.index(), place);
            let namesakes = FailureKind::ALL.iter().filter(|other| other.as_str() == kind.as_str()).count();
            assert_eq!(namesakes, 1, "{kind}");
        }
    }

    #[test]
    fn what_an_endpoint_says_is_bounded() {
        assert_eq!(retry_after(Some(" 7 ")), Some(Duration::from_secs(7)));
        assert_eq!(retry_after(Some("86400")), Some(RETRY_AFTER_MAX));
        assert_eq!((retry_after(Some("soon")), retry_after(None)), (None, None));
        assert_eq!(shorten("ä".repeat(MESSAGE_CHARS_MAX)), "ä".repeat(MESSAGE_CHARS_MAX));
        assert_eq!(shorten("ä".repeat(1000)).chars().count(), MESSAGE_CHARS_MAX + 1);
    }

    #[test]
    fn every_kind_is_explained() {
        let page = include_str!("../../../docs/links.md");
        for kind in FailureKind::ALL {
            assert!(page.contains(&format!("\n| `{kind}` |")), "docs/links.md has no row for {kind}");
        }
    }
}
