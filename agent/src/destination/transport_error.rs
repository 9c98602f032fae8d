//! What it means that a request got no answer: one reading of the errors of sockets, resolvers, TLS and HTTP, for all
//! destinations. Pure.
//!
//! Libraries wrap these errors into their own, so the whole chain of causes is looked at; the innermost that is known says
//! most.

use std::{error::Error, io};

use aws_smithy_runtime_api::client::{dns::ResolveDnsError, result::ConnectorError};
use rustls::{AlertDescription, CertificateError};

use super::FailureKind;
use crate::{
    causes::causes,
    outgoing::{ConnectError, ProxyTrouble},
};

/// What kind of trouble it is, if it is known.
pub(crate) fn known_kind(error: &(dyn Error + 'static)) -> Option<FailureKind> {
    // What the system's resolver gives is an I/O error like any other, but for its words and its place.
    if causes(error).any(is_of_resolver) {
        return Some(FailureKind::Dns);
    }
    causes(error).filter_map(of_one).last()
}

/// What kind of trouble it is.
pub(crate) fn kind(error: &(dyn Error + 'static)) -> FailureKind {
    known_kind(error).unwrap_or(FailureKind::Unreachable)
}

/// For a person: the root of the trouble says most, `Connection refused` rather than `dispatch failure`.
pub(crate) fn message(error: &(dyn Error + 'static)) -> String {
    let root = causes(error).last().map(ToString::to_string).unwrap_or_default();
    match known_kind(error) {
        Some(FailureKind::Clock) => format!("the endpoint's certificate is not valid yet by our clock: {root}"),
        Some(FailureKind::TlsExpired) => format!("the endpoint's certificate has expired by our clock: {root}"),
        Some(FailureKind::Dns) => format!("its name does not resolve: {root}"),
        // It says with whom, and by which way.
        _ => causes(error).find_map(|cause| cause.downcast_ref::<ConnectError>()).map_or(root, ToString::to_string),
    }
}

fn is_of_resolver(cause: &(dyn Error + 'static)) -> bool {
    cause.is::<ResolveDnsError>()
        || cause.is::<io::Error>() && cause.to_string().starts_with("failed to lookup address information")
}

fn of_one(cause: &(dyn Error + 'static)) -> Option<FailureKind> {
    if let Some(error) = cause.downcast_ref::<io::Error>() {
        return of_words(&error.to_string()).or_else(|| of_io(error.kind()));
    }
    if let Some(error) = cause.downcast_ref::<ConnectError>() {
        return of_connection(error);
    }
    if let Some(error) = cause.downcast_ref::<rustls::Error>() {
        return Some(of_tls(error));
    }
    if let Some(error) = cause.downcast_ref::<hyper::Error>() {
        return of_http(error);
    }
    let in_time = cause.downcast_ref::<ConnectorError>().is_none_or(|error| !error.is_timeout())
        && !cause.is::<tokio::time::error::Elapsed>();
    (!in_time).then_some(FailureKind::TimedOut)
}

/// Where the cause of an error does not say it all.
fn of_connection(error: &ConnectError) -> Option<FailureKind> {
    match error {
        ConnectError::Proxy { trouble, .. } => match trouble {
            ProxyTrouble::WantsCredentials | ProxyTrouble::RefusesCredentials => Some(FailureKind::ProxyCredentials),
            ProxyTrouble::Refused(_) | ProxyTrouble::Nonsense(_) => Some(FailureKind::ProxyRefused),
            ProxyTrouble::Unreachable(_) => None,
        },
        ConnectError::Files(_) | ConnectError::Address(_) => Some(FailureKind::Misconfigured),
        ConnectError::Timeout(_) => Some(FailureKind::TimedOut),
        ConnectError::Name { .. } => Some(FailureKind::Dns),
        ConnectError::Tls { .. } => Some(FailureKind::Tls),
        ConnectError::Tcp { .. } => None,
    }
}

/// HTTP/2 tells everybody on a connection why it broke, and keeps only the words of it.
fn of_words(said: &str) -> Option<FailureKind> {
    use AlertDescription as Alert;
    let alert = said.strip_prefix("received fatal alert: ")?;
    let about_us = [
        Alert::CertificateRequired,
        Alert::NoCertificate,
        Alert::CertificateExpired,
        Alert::BadCertificate,
        Alert::UnsupportedCertificate,
        Alert::CertificateRevoked,
        Alert::CertificateUnknown,
        Alert::UnknownCA,
        Alert::AccessDenied,
    ];
    let known = about_us.into_iter().find(|known| format!("{known:?}") == alert);
    Some(known.map_or(FailureKind::Tls, |alert| of_tls(&rustls::Error::AlertReceived(alert))))
}

fn of_io(kind: io::ErrorKind) -> Option<FailureKind> {
    use io::ErrorKind as Io;
    Some(match kind {
        Io::NetworkDown | Io::NetworkUnreachable | Io::HostUnreachable | Io::AddrNotAvailable => FailureKind::NoRoute,
        Io::ConnectionRefused => FailureKind::Refused,
        Io::TimedOut => FailureKind::TimedOut,
        Io::ConnectionReset | Io::ConnectionAborted | Io::BrokenPipe | Io::NotConnected | Io::UnexpectedEof => {
            FailureKind::Disconnected
        }
        _ => return None,
    })
}

fn of_tls(error: &rustls::Error) -> FailureKind {
    use CertificateError as Refused;
    match error {
        rustls::Error::InvalidCertificate(refused) => match refused {
            Refused::NotValidForName | Refused::NotValidForNameContext { .. } => FailureKind::TlsWrongHost,
            // Somebody unknown, also under a name that we know.
            Refused::UnknownIssuer | Refused::BadSignature => FailureKind::TlsUnknownAuthority,
            // One that has expired may as well be the endpoint's fault; one of the future is hardly ever.
            Refused::NotValidYet | Refused::NotValidYetContext { .. } => FailureKind::Clock,
            Refused::Expired | Refused::ExpiredContext { .. } | Refused::Revoked => FailureKind::TlsExpired,
            _ => FailureKind::Tls,
        },
        // What the endpoint says of our own certificate.
        rustls::Error::AlertReceived(alert) => match alert {
            AlertDescription::CertificateRequired | AlertDescription::NoCertificate => FailureKind::CredentialsMissing,
            AlertDescription::CertificateExpired => FailureKind::CredentialsExpired,
            AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateUnknown
            | AlertDescription::UnknownCA
            | AlertDescription::AccessDenied => FailureKind::CredentialsRefused,
            _ => FailureKind::Tls,
        },
        _ => FailureKind::Tls,
    }
}

fn of_http(error: &hyper::Error) -> Option<FailureKind> {
    if error.is_timeout() {
        Some(FailureKind::TimedOut)
    } else if error.is_parse() {
        // Something answers there, but not in HTTP.
        Some(FailureKind::EndpointFailed)
    } else if error.is_incomplete_message() || error.is_closed() || error.is_canceled() {
        Some(FailureKind::Disconnected)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use http_body_util::Empty;
    use hyper::body::Bytes;
    use hyper_util::{client::legacy::Client, rt::TokioExecutor};
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::{TcpListener, TcpStream},
    };
    use tokio_rustls::TlsConnector;

    use super::*;

    /// An error around another one, as libraries make them.
    #[derive(Debug, thiserror::Error)]
    #[error("wrapped")]
    struct Wrapped(#[source] Box<dyn Error + Send + Sync>);

    fn wrapped(error: impl Error + Send + Sync + 'static) -> Wrapped {
        Wrapped(Box::new(Wrapped(Box::new(error))))
    }

    /// What an HTTP client says of a place.
    async fn asking(uri: &str) -> FailureKind {
        let client = Client::builder(TokioExecutor::new()).build_http::<Empty<Bytes>>();
        kind(&client.get(uri.parse().expect("a URI")).await.expect_err("nobody answers there"))
    }

    #[test]
    fn errors_of_sockets() {
        for (io, expected) in [
            (io::ErrorKind::NetworkUnreachable, FailureKind::NoRoute),
            (io::ErrorKind::HostUnreachable, FailureKind::NoRoute),
            (io::ErrorKind::ConnectionRefused, FailureKind::Refused),
            (io::ErrorKind::TimedOut, FailureKind::TimedOut),
            (io::ErrorKind::ConnectionReset, FailureKind::Disconnected),
            (io::ErrorKind::PermissionDenied, FailureKind::Unreachable),
        ] {
            assert_eq!(kind(&wrapped(io::Error::from(io))), expected, "{io:?}");
        }
    }

    #[test]
    fn errors_of_tls_also_inside_those_of_io() {
        use rustls::Error as Tls;
        for (tls, expected) in [
            (Tls::InvalidCertificate(CertificateError::NotValidForName), FailureKind::TlsWrongHost),
            (Tls::InvalidCertificate(CertificateError::UnknownIssuer), FailureKind::TlsUnknownAuthority),
            (Tls::InvalidCertificate(CertificateError::Expired), FailureKind::TlsExpired),
            (Tls::InvalidCertificate(CertificateError::NotValidYet), FailureKind::Clock),
            (Tls::InvalidCertificate(CertificateError::BadEncoding), FailureKind::Tls),
            (Tls::AlertReceived(AlertDescription::CertificateRequired), FailureKind::CredentialsMissing),
            (Tls::AlertReceived(AlertDescription::CertificateExpired), FailureKind::CredentialsExpired),
            (Tls::AlertReceived(AlertDescription::UnknownCA), FailureKind::CredentialsRefused),
            (Tls::AlertReceived(AlertDescription::HandshakeFailure), FailureKind::Tls),
        ] {
            assert_eq!(kind(&wrapped(tls.clone())), expected, "{tls:?}");
            if let Tls::AlertReceived(_) = &tls {
                let words = io::Error::new(io::ErrorKind::InvalidData, tls.to_string());
                assert_eq!(kind(&wrapped(words)), expected, "{tls:?}");
            }
            let io = io::Error::new(io::ErrorKind::InvalidData, tls.clone());
            assert_eq!(kind(&wrapped(io::Error::other(wrapped(io)))), expected, "{tls:?}");
        }
    }

    #[tokio::test]
    async fn a_name_that_does_not_resolve() {
        assert_eq!(asking("http://gateway.invalid:4568/").await, FailureKind::Dns);
        let error = tokio::net::lookup_host("gateway.invalid:80").await.map(|_| ()).expect_err("no such name");
        assert_eq!(kind(&wrapped(error)), FailureKind::Dns);
    }

    #[tokio::test]
    async fn whom_we_do_not_know() {
        let key = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
        let ring = Arc::new(rustls::crypto::ring::default_provider());
        let server = rustls::ServerConfig::builder_with_provider(Arc::clone(&ring))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(
                vec![key.cert.der().clone()],
                rustls::pki_types::PrivatePkcs8KeyDer::from(key.signing_key.serialize_der()).into(),
            )
            .expect("a server");
        let client = rustls::ClientConfig::builder_with_provider(ring)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let stream = TcpStream::connect(listener.local_addr().expect("bound")).await.expect("connected");
        let connector = TlsConnector::from(Arc::new(client));
        let connecting = connector.connect("localhost".try_into().expect("a name"), stream);
        let accepting = async {
            let (stream, _) = listener.accept().await.expect("a client");
            tokio_rustls::TlsAcceptor::from(Arc::new(server)).accept(stream).await
        };
        let (connected, accepted) = tokio::join!(connecting, accepting);
        let kinds = (kind(&connected.expect_err("not trusted")), accepted.is_err());
        assert_eq!(kinds, (FailureKind::TlsUnknownAuthority, true));
    }

    #[tokio::test]
    async fn what_ends_early_or_is_no_http() {
        for (answer, expected) in
            [(&b""[..], FailureKind::Disconnected), (b"220 mail.example ESMTP\r\n", FailureKind::EndpointFailed)]
        {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
            let port = listener.local_addr().expect("bound").port();
            let server = async {
                let (mut stream, _) = listener.accept().await.expect("a client");
                let _ = stream.read(&mut [0; 1024]).await;
                let _ = stream.write_all(answer).await;
            };
            let (kind, ()) = tokio::join!(async { asking(&format!("http://127.0.0.1:{port}/")).await }, server);
            assert_eq!(kind, expected);
        }
    }
}
