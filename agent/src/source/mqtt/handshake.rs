//! From nothing to an accepted MQTT connection: name, TCP, TLS, CONNECT, CONNACK.

use std::{io, time::Duration};

use anyhow::{Context as _, anyhow};
use bytes::BytesMut;
use rumqttc::mqttbytes::v4::{ConnAck, Connect, ConnectReturnCode, Login, Packet};
use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::TlsConnector;

use super::{
    Failure,
    config::Settings,
    reader::{self, Incoming, Reader},
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
    /// Whether the broker remembers us.
    pub(super) session_present: bool,
}

/// Connects; payloads of over `max_record` bytes will be passed over.
pub(super) async fn connect(settings: &Settings, max_record: usize) -> Result<Accepted, Failure> {
    match timeout(TIMEOUT, connect_in_time(settings, max_record)).await {
        Ok(outcome) => outcome,
        Err(_) => Err(Failure::passing(anyhow!("no answer from {} within {TIMEOUT:?}", settings.broker))),
    }
}

async fn connect_in_time(settings: &Settings, max_record: usize) -> Result<Accepted, Failure> {
    let broker = &settings.broker;
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
        Box::new(tls.map_err(|error| failure("agree on TLS", settings, error))?)
    } else {
        Box::new(tcp)
    };

    let mut out = BytesMut::new();
    reader::write(&Packet::Connect(introduction(settings)), &mut out);
    let sent = async { stream.write_all(&out).await.and(stream.flush().await) }.await;
    sent.map_err(|error| failure("introduce ourselves", settings, error))?;

    let mut reader = Reader::new(max_record);
    loop {
        match reader.next().map_err(|error| Failure::passing(error.into()))? {
            Some(Incoming::Other(Packet::ConnAck(answer))) => {
                let session_present = check(&answer)?;
                return Ok(Accepted { stream, reader, session_present });
            }
            Some(packet) => return Err(Failure::passing(anyhow!("the broker's first packet was {packet:?}"))),
            None => {}
        }
        match stream.read_buf(reader.room()).await {
            Ok(0) => return Err(Failure::passing(anyhow!("{broker} closed the connection without an answer"))),
            Ok(_) => {}
            Err(error) => return Err(failure("be accepted", settings, error)),
        }
    }
}

fn introduction(settings: &Settings) -> Connect {
    let mut connect = Connect::new(&settings.client_id);
    connect.clean_session = false;
    connect.keep_alive = u16::try_from(settings.keep_alive.as_secs()).unwrap_or(u16::MAX);
    connect.login = settings.user.as_ref().map(|user| {
        let password = settings.password.as_ref().map_or("", |password| password.expose());
        Login { username: user.clone(), password: password.to_owned() }
    });
    connect
}

fn check(answer: &ConnAck) -> Result<bool, Failure> {
    let refused = |why| Err(Failure::refused(anyhow!("the broker refuses us: {why}")));
    match answer.code {
        ConnectReturnCode::Success => Ok(answer.session_present),
        ConnectReturnCode::RefusedProtocolVersion => refused("it does not speak MQTT 3.1.1"),
        ConnectReturnCode::BadClientId => refused("it does not accept this client-id"),
        ConnectReturnCode::BadUserNamePassword => refused("wrong user or password"),
        ConnectReturnCode::NotAuthorized => refused("not authorized; are user, password and client-id right?"),
        ConnectReturnCode::ServiceUnavailable => Err(Failure::passing(anyhow!("the broker says it is unavailable"))),
    }
}

/// TLS tells through I/O errors that somebody is not trusted; that is not a matter of trying again soon.
fn failure(action: &str, settings: &Settings, error: io::Error) -> Failure {
    let untrusted = error.get_ref().is_some_and(|inner| inner.is::<rustls::Error>());
    let trouble = if untrusted { Trouble::Refused } else { Trouble::Passing };
    Failure { trouble, error: anyhow::Error::new(error).context(format!("{action} with {}", settings.broker)) }
}
