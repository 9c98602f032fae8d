//! From an accepted socket to a client that was let in: TLS, WebSocket, CONNECT, credentials, session, CONNACK.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use rmqtt_codec::v5::{ConnectAckReason, DisconnectReasonCode};
use tokio::{
    net::TcpStream,
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;
use tracing::debug;

use super::{
    codec::{Codec, Incoming, Limits},
    connect::{Certificate, Claim, Connect, Refusal, WILL_NOT_ALLOWED, WRONG_PASSWORD},
    connection::Connection,
    goodbye::Violation,
    listener::{Counted, Shared, Transport},
    protocol::Protocol,
    registry::Lease,
    session::{Session, Unreleased},
    websocket,
    wire::{Wire, Wrapped},
};
use crate::tls::server::common_name;

/// How long a connection may take to say who it is.
const CONNECT_PATIENCE: Duration = Duration::from_secs(10);

/// How long an earlier connection of the same client id may take to bring its records to the log.
const HANDOVER_PATIENCE: Duration = Duration::from_secs(10);

/// How long wrong credentials wait for their answer.
const CREDENTIALS_PENALTY: Duration = Duration::from_secs(1);

/// Topic aliases that a client may set; each keeps a topic of at most 64 KiB.
const TOPIC_ALIAS_MAX: u16 = 16;

/// Serves one connection from its first byte to its end.
pub(super) async fn greet(shared: Arc<Shared>, stream: TcpStream, peer: SocketAddr, transport: Transport) {
    let stop = shared.context.stop.clone();
    let greeting = async {
        let deadline = tokio::time::Instant::now() + CONNECT_PATIENCE;
        let (mut wire, certificate) = match tokio::time::timeout_at(deadline, open(&shared, stream, transport)).await {
            Ok(Ok(opened)) => opened,
            Ok(Err((count, message))) => {
                shared.count(count, &peer.to_string(), format_args!("{message}"));
                return None;
            }
            Err(_) => {
                shared.count("no-connect", &peer.to_string(), format_args!("no CONNECT within {CONNECT_PATIENCE:?}"));
                return None;
            }
        };
        let let_in = let_in(&shared, &mut wire, peer, certificate.as_ref(), deadline).await;
        Some((let_in, wire))
    };
    let greeted = tokio::select! {
        biased;
        () = stop.cancelled() => return,
        greeted = greeting => greeted,
    };
    let Some((let_in, wire)) = greeted else { return };
    match let_in {
        Some(connection) => {
            let _open = Counted::new(&shared);
            connection.serve(wire).await;
        }
        // What is left to be written is a refusal.
        None if !wire.out.is_empty() => wire.close().await,
        None => {}
    }
}

/// Opens what stands between the socket and MQTT.
///
/// # Errors
/// What it is counted as, and a sentence fragment.
async fn open(
    shared: &Shared,
    stream: TcpStream,
    transport: Transport,
) -> Result<(Wire, Option<Certificate>), (&'static str, String)> {
    let of_websocket = |error| ("websocket", error);
    let Some(tls) = shared.tls() else {
        return Ok(match transport {
            Transport::Tcp => (Wire::new(stream), None),
            Transport::WebSocket => {
                let socket = websocket::accept(stream, &shared.settings.websocket).await.map_err(of_websocket)?;
                (Wire::wrapped(socket), None)
            }
        });
    };
    let agreed = TlsAcceptor::from(tls).accept(stream).await;
    let stream = agreed.map_err(|error| ("tls", format!("cannot agree on TLS: {error}")))?;
    let shown = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
    let certificate = shown.map(|certificate| Certificate { common_name: common_name(certificate) });
    let stream: Box<dyn Wrapped> = match transport {
        Transport::Tcp => Box::new(stream),
        Transport::WebSocket => websocket::accept(stream, &shared.settings.websocket).await.map_err(of_websocket)?,
    };
    Ok((Wire::wrapped(stream), certificate))
}

/// Answers CONNECT, in `wire.out`.
async fn let_in(
    shared: &Arc<Shared>,
    wire: &mut Wire,
    peer: SocketAddr,
    certificate: Option<&Certificate>,
    deadline: tokio::time::Instant,
) -> Option<Connection> {
    let mut codec = Codec::new();
    let connect = match tokio::time::timeout_at(deadline, first_packet(wire, &mut codec)).await {
        Ok(Ok(Ok(connect))) => connect,
        Ok(Ok(Err(violation))) => {
            codec.write_refused(answer_to(&violation), &mut wire.out);
            shared.count(violation.count, &peer.to_string(), format_args!("{}", violation.message));
            return None;
        }
        Ok(Err(error)) => {
            debug!(%peer, %error, "connection ended before CONNECT");
            return None;
        }
        Err(_) => {
            shared.count("no-connect", &peer.to_string(), format_args!("no CONNECT within {CONNECT_PATIENCE:?}"));
            return None;
        }
    };
    let user = match identify(shared, &connect, certificate).await {
        Ok(user) => user,
        Err(refusal) => {
            refuse(shared, &connect, refusal, peer, &mut codec, wire).await;
            return None;
        }
    };
    let assigned = connect.client_id.is_empty();
    let client_id: Arc<str> = if assigned { assigned_client_id().into() } else { connect.client_id.clone().into() };
    let allowed = shared.settings.rules.of(user.as_deref(), &client_id);
    if connect.will.as_ref().is_some_and(|will| !allowed.includes(&will.topic)) {
        refuse(shared, &connect, WILL_NOT_ALLOWED, peer, &mut codec, wire).await;
        return None;
    }
    let Some((lease, left)) = claim(shared, &client_id, connect.clean).await else {
        let refusal = Refusal {
            reason: ConnectAckReason::ServerBusy,
            count: "session-busy",
            message: "an earlier connection's messages still wait for the log",
        };
        refuse(shared, &connect, refusal, peer, &mut codec, wire).await;
        return None;
    };
    debug!(source = %shared.context.name, %client_id, %peer, version = ?codec.version(), "client connected");

    let limits = Limits {
        packet_bytes_max: shared.settings.max_packet_size,
        receive_max: shared.settings.max_in_flight,
        topic_alias_max: TOPIC_ALIAS_MAX,
    };
    codec.limit(limits.packet_bytes_max, connect.packet_bytes_max);
    codec.write_accepted(left.is_some(), assigned.then_some(&*client_id), limits, &mut wire.out);
    let version = codec.version().expect("CONNECT told it");
    let session = Session::new(version, limits, left.unwrap_or_default());
    Some(Connection {
        shared: Arc::clone(shared),
        client_id,
        user,
        allowed,
        protocol: Protocol::new(codec, session),
        silence_max: connect.silence_max(),
        // An assigned client id is nobody's to come back with, unless version 5 told it.
        session_expiry_secs: connect.session_expiry_secs,
        will: connect.will,
        lease,
    })
}

async fn first_packet(wire: &mut Wire, codec: &mut Codec) -> io::Result<Result<Box<Connect>, Violation>> {
    loop {
        match wire.input.read().await {
            // Of TLS or WebSocket.
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                let reason = DisconnectReasonCode::MalformedPacket;
                return Ok(Err(Violation::new(reason, "malformed", error.to_string())));
            }
            read => read?,
        };
        match codec.decode(&mut wire.input.buffer) {
            Ok(None) => {}
            Ok(Some(Incoming::Connect(connect))) => return Ok(Ok(connect)),
            Ok(Some(_)) => {
                let reason = DisconnectReasonCode::ProtocolError;
                return Ok(Err(Violation::new(reason, "malformed", "its first packet is not CONNECT")));
            }
            Err(violation) => return Ok(Err(violation)),
        }
    }
}

/// Finds out who a client is: its name, if it proved one.
async fn identify(
    shared: &Shared,
    connect: &Connect,
    certificate: Option<&Certificate>,
) -> Result<Option<Arc<str>>, Refusal> {
    match connect.claim(shared.settings.door(), certificate)? {
        Claim::Nobody => Ok(None),
        Claim::Certified(name) => Ok(Some(name.into())),
        Claim::Password { user, password } => {
            if shared.is_password(user, password).await {
                Ok(Some(user.into()))
            } else {
                Err(WRONG_PASSWORD)
            }
        }
    }
}

async fn refuse(
    shared: &Shared,
    connect: &Connect,
    refusal: Refusal,
    peer: SocketAddr,
    codec: &mut Codec,
    wire: &mut Wire,
) {
    let who = format!("{} at {peer}", connect.client_id);
    shared.count(refusal.count, &who, format_args!("refused: {}", refusal.message));
    if refusal.count == "credentials" {
        sleep(CREDENTIALS_PENALTY).await;
    }
    codec.write_refused(refusal.reason, &mut wire.out);
}

/// Gets the client id, from an earlier connection if need be.
async fn claim(shared: &Shared, client_id: &Arc<str>, clean: bool) -> Option<(Lease, Option<Unreleased>)> {
    let claimed = async {
        loop {
            match shared.registry.claim(client_id, clean, std::time::Instant::now()) {
                Ok(claimed) => return claimed,
                Err(taken) => taken.released.cancelled().await,
            }
        }
    };
    timeout(HANDOVER_PATIENCE, claimed).await.ok()
}

/// What CONNACK says to a CONNECT that is none.
fn answer_to(violation: &Violation) -> ConnectAckReason {
    match violation.count {
        "unknown-protocol" => ConnectAckReason::UnsupportedProtocolVersion,
        "bad-client-id" => ConnectAckReason::ClientIdentifierNotValid,
        _ => match violation.reason {
            DisconnectReasonCode::PacketTooLarge => ConnectAckReason::PacketTooLarge,
            DisconnectReasonCode::ProtocolError => ConnectAckReason::ProtocolError,
            _ => ConnectAckReason::MalformedPacket,
        },
    }
}

fn assigned_client_id() -> String {
    format!("forebay-{:016x}", fastrand::u64(..))
}
