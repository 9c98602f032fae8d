//! Why there is no connection.

use std::{error::Error, fmt, io, time::Duration};

use crate::{causes::causes, tls::TlsError};

/// Why there is no connection; each kind is for somebody else to set right.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The name has no address, or nobody could be asked for it.
    #[error("no address for {host}: {source}")]
    Name {
        /// Whose.
        host: String,
        /// What the resolver says.
        source: io::Error,
    },
    /// No TCP connection: no route, refused, reset.
    #[error("{source}")]
    Tcp {
        /// What the system says.
        source: io::Error,
    },
    /// The proxy is in the way.
    #[error("proxy {proxy} {trouble}")]
    Proxy {
        /// Scheme, host and port; never who we are to it.
        proxy: String,
        /// What about it.
        #[source]
        trouble: ProxyTrouble,
    },
    /// One of our own files for TLS.
    #[error("{}: {}", .0.key, .0.message)]
    Files(TlsError),
    /// No TLS with whoever is there.
    #[error("no TLS with {host}: {source}")]
    Tls {
        /// Whom we wanted.
        host: String,
        /// Holds rustls' error where it is one.
        source: io::Error,
    },
    /// Nothing of all this in time.
    #[error("no connection within {0:?}")]
    Timeout(Duration),
    /// An address that leads nowhere.
    #[error("{0}")]
    Address(String),
}

/// What is wrong with a proxy.
#[derive(Debug, thiserror::Error)]
pub enum ProxyTrouble {
    /// It cannot be reached itself.
    #[error("cannot be reached: {0}")]
    Unreachable(#[source] Box<ConnectError>),
    /// It wants to know who we are.
    #[error("wants credentials")]
    WantsCredentials,
    /// It does not take our user and password.
    #[error("does not take our credentials")]
    RefusesCredentials,
    /// It does not let us through, or cannot itself reach whom we want.
    #[error("refused to connect us: {0}")]
    Refused(String),
    /// It speaks something else, or breaks off.
    #[error("does not answer as a proxy: {0}")]
    Nonsense(String),
}

/// No address for a name; so that it is found again in the chain of another error.
#[derive(Debug)]
pub(super) struct NameError {
    pub(super) host: String,
    pub(super) source: io::Error,
}

impl fmt::Display for NameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no address for {}", self.host)
    }
}

impl Error for NameError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.source)
    }
}

impl ConnectError {
    /// Of what came of a TCP connection.
    pub(super) fn of_tcp(error: &(dyn Error + 'static)) -> Self {
        for cause in causes(error) {
            if let Some(name) = cause.downcast_ref::<NameError>() {
                return Self::Name { host: name.host.clone(), source: copy(&name.source) };
            }
            if let Some(io) = cause.downcast_ref::<io::Error>() {
                return Self::Tcp { source: copy(io) };
            }
        }
        Self::Tcp { source: io::Error::other(error.to_string()) }
    }
}

/// The same error again: what the system says is only its number.
fn copy(error: &io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(number) => io::Error::from_raw_os_error(number),
        None => io::Error::new(error.kind(), error.to_string()),
    }
}
