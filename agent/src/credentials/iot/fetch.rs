//! One request to the provider, over a connection of its own: it is made about once an hour.

use std::{io, sync::Arc, time::Duration};

use aws_smithy_types::{DateTime, date_time::Format};
use axum::http::{Request, header};
use bytes::Bytes;
use forebay_log_store::Timestamp;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{config::Config, verifier::Verifier};
use crate::{
    causes::causes,
    credentials::time::KnownTime,
    outgoing::{Counted, Outgoing},
};

/// For the whole of it. A link of 2 s each way needs some ten for TCP, TLS and the request.
const PATIENCE: Duration = Duration::from_secs(25);
/// An answer has some 2 KiB.
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// What was answered.
pub(super) struct Heard {
    pub(super) status: u16,
    pub(super) body: Vec<u8>,
    /// Its `Date`.
    pub(super) at: Option<Timestamp>,
}

/// Why there are no credentials.
#[derive(Debug, thiserror::Error)]
pub(in crate::credentials) enum Error {
    /// Our own files are not right (any more).
    #[error("{0}")]
    Files(#[from] crate::tls::TlsError),
    /// No connection, or none that we trust.
    #[error("no connection to the AWS IoT credentials provider at {endpoint}: {source}{}", advice(.source))]
    Unreachable {
        /// Where.
        endpoint: String,
        /// Why.
        source: io::Error,
    },
    /// It does not give us any.
    #[error("the AWS IoT credentials provider answered {status}{said}")]
    Refused {
        /// Of HTTP.
        status: u16,
        /// What it said, and what to look at.
        said: String,
    },
    /// Its answer is none.
    #[error("the answer of the AWS IoT credentials provider cannot be used: {what}")]
    Nonsense {
        /// Why.
        what: String,
    },
}

/// What TLS says of certificates, in words that say whose.
fn advice(error: &io::Error) -> &'static str {
    use rustls::{AlertDescription as Alert, CertificateError as Bad, Error as Tls};
    match tls_error(error) {
        Some(Tls::AlertReceived(Alert::CertificateExpired)) => " (it says that our certificate has expired)",
        Some(Tls::AlertReceived(_)) => " (it does not take our certificate)",
        Some(Tls::InvalidCertificate(Bad::NotValidYet | Bad::NotValidYetContext { .. })) => {
            " (its certificate is not valid yet by our clock)"
        }
        Some(Tls::InvalidCertificate(Bad::Expired | Bad::ExpiredContext { .. })) => {
            " (its certificate has expired by our clock)"
        }
        _ => "",
    }
}

/// What TLS said, however far down: an alert may come after the handshake, with the first bytes of HTTP.
fn tls_error(error: &io::Error) -> Option<&rustls::Error> {
    causes(error).find_map(|cause| cause.downcast_ref())
}

/// Asks once.
pub(super) async fn get(config: &Config, time: &Arc<KnownTime>, outgoing: &Outgoing) -> Result<Heard, Error> {
    let unreachable = |source| Error::Unreachable { endpoint: config.endpoint.clone(), source };
    let in_time = tokio::time::timeout(PATIENCE, async {
        let verifier = Arc::new(Verifier::new(config, Arc::clone(time))?);
        let tls = config.files().load_with(Arc::clone(time) as _, Arc::clone(&verifier) as _)?;
        let connection = connect(config, tls, outgoing).await.map_err(unreachable)?;
        let heard = ask(config, connection).await.map_err(|error| unreachable(io::Error::other(error)))?;
        verifier.confirm(heard.at).map_err(|error| unreachable(io::Error::other(error)))?;
        Ok(heard)
    });
    in_time.await.unwrap_or_else(|_| Err(unreachable(io::Error::new(io::ErrorKind::TimedOut, "no answer in time"))))
}

async fn connect(
    config: &Config,
    tls: Arc<rustls::ClientConfig>,
    outgoing: &Outgoing,
) -> io::Result<TlsStream<Counted>> {
    let (host, port) = config.address().ok_or_else(|| io::Error::other("it is no host name"))?;
    let bare = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let name = ServerName::try_from(bare).map_err(io::Error::other)?;
    let place = format!("https://{host}:{port}").parse().map_err(io::Error::other)?;
    let socket = outgoing.reach(place).await.map_err(io::Error::other)?;
    TlsConnector::from(tls).connect(name, socket).await
}

async fn ask(
    config: &Config,
    connection: TlsStream<Counted>,
) -> Result<Heard, Box<dyn std::error::Error + Send + Sync>> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(connection)).await?;
    let mut request = Request::get(format!("/role-aliases/{}/credentials", config.role_alias))
        .header(header::HOST, &config.endpoint)
        .header(header::CONNECTION, "close");
    if let Some(thing) = &config.thing_name {
        request = request.header("x-amzn-iot-thingname", thing);
    }
    let answer = async {
        let response = sender.send_request(request.body(Empty::<Bytes>::new())?).await?;
        let at = response.headers().get(header::DATE).and_then(|date| date.to_str().ok()).and_then(date);
        let status = response.status().as_u16();
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await?.to_bytes().to_vec();
        Ok(Heard { status, body, at })
    };
    // The connection is driven beside it, and ends with it.
    tokio::select! {
        answer = answer => answer,
        Err(error) = connection => Err(error.into()),
    }
}

fn date(text: &str) -> Option<Timestamp> {
    let millis = DateTime::from_str(text, Format::HttpDate).ok()?.to_millis().ok()?;
    u64::try_from(millis).ok().map(Timestamp)
}
