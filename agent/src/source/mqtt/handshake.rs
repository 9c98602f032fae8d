//! From nothing to an accepted MQTT connection: name, TCP, TLS, CONNECT, CONNACK.

use std::{io, time::Duration};

use anyhow::{Context as _, anyhow};
use bytes::BytesMut;
use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::TlsConnector;

use super::{
    Failure,
    config::{Broker, Settings},
    packet::{self, Acceptance, Answer, Control},
    reader::{Incoming, Reader},
};
use crate::source::reconnect::Trouble;

/// All of it together: enough for a mobile link on which every packet is sent three times.
const TIMEOUT: Duration = Duration::from_secs(20);

/// TCP, with or without TLS.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// A connection that the broker has accepted.
pub(super) struct Accepted {
    pub(super) stream: Box<dyn Stream>,
    /// What may have come already behind the acceptance.
    pub(super) reader: Reader,
    /// On which terms.
    pub(super) terms: Acceptance,
}

/// Connects; payloads of over `max_record` bytes will be passed over.
pub(super) async fn connect(settings: &Settings, broker: &Broker, max_record: usize) -> Result<Accepted, Failure> {
    match timeout(TIMEOUT, connect_in_time(settings, broker, max_record)).await {
        Ok(outcome) => outcome,
        Err(_) => Err(Failure::passing(anyhow!("no answer from {broker} within {TIMEOUT:?}"))),
    }
}

async fn connect_in_time(settings: &Settings, broker: &Broker, max_record: usize) -> Result<Accepted, Failure> {
    let tcp = TcpStream::connect((&*broker.host, broker.port)).await;
    let tcp = tcp.with_context(|| format!("connect to {broker}")).map_err(Failure::passing)?;
    // Acknowledgements are written in bunches already.
    tcp.set_nodelay(true).context("configure the connection").map_err(Failure::passing)?;
    let mut stream: Box<dyn Stream> = if broker.tls {
        let config = settings.client_files().load().map_err(|error| Failure::refused(error.into()))?;
        let name = ServerName::try_from(broker.host.clone())
            .with_context(|| format!("`{}` cannot be the name in a certificate", broker.host))
            .map_err(Failure::refused)?;
        let tls = TlsConnector::from(config).connect(name, tcp).await;
        Box::new(tls.map_err(|error| failure("agree on TLS", broker, error))?)
    } else {
        Box::new(tcp)
    };

    let mut out = BytesMut::new();
    packet::write_connect(settings, &mut out);
    let sent = async { stream.write_all(&out).await.and(stream.flush().await) }.await;
    sent.map_err(|error| failure("introduce ourselves", broker, error))?;

    let mut reader = Reader::new(settings.version, max_record);
    loop {
        match reader.next().map_err(|error| Failure::passing(error.into()))? {
            Some(Incoming::Other(Control::Answer(Answer::Accepted(terms)))) => {
                return Ok(Accepted { stream, reader, terms });
            }
            Some(Incoming::Other(Control::Answer(Answer::Refused { trouble, why }))) => {
                return Err(Failure { trouble, error: anyhow!("{broker} refuses us: {why}") });
            }
            Some(packet) => return Err(Failure::passing(anyhow!("the broker's first packet was {packet:?}"))),
            None => {}
        }
        match stream.read_buf(reader.room()).await {
            Ok(0) => return Err(Failure::passing(anyhow!("{broker} closed the connection without an answer"))),
            Ok(_) => {}
            Err(error) => return Err(failure("be accepted", broker, error)),
        }
    }
}

/// TLS tells through I/O errors that somebody is not trusted; that is not a matter of trying again soon.
fn failure(action: &str, broker: &Broker, error: io::Error) -> Failure {
    let untrusted = error.get_ref().is_some_and(|inner| inner.is::<rustls::Error>());
    let trouble = if untrusted { Trouble::Refused } else { Trouble::Passing };
    Failure { trouble, error: anyhow::Error::new(error).context(format!("{action} with {broker}")) }
}
