//! From an accepted socket to a client that was let in: CONNECT, credentials, session, CONNACK.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use rmqtt_codec::v5::{ConnectAckReason, DisconnectReasonCode};
use tokio::time::{sleep, timeout};
use tracing::debug;

use super::{
    codec::{Codec, Incoming, Limits},
    connect::{Connect, Refusal},
    connection::Connection,
    goodbye::Violation,
    listener::{Counted, Shared},
    protocol::Protocol,
    registry::Lease,
    session::{Session, Unreleased},
    wire::Wire,
};

/// How long a connection may take to say who it is.
const CONNECT_PATIENCE: Duration = Duration::from_secs(10);

/// How long an earlier connection of the same client id may take to bring its records to the log.
const HANDOVER_PATIENCE: Duration = Duration::from_secs(10);

/// How long wrong credentials wait for their answer.
const CREDENTIALS_PENALTY: Duration = Duration::from_secs(1);

/// Topic aliases that a client may set; each keeps a topic of at most 64 KiB.
const TOPIC_ALIAS_MAX: u16 = 16;

/// Serves one connection from its first byte to its end.
pub(super) async fn greet(shared: Arc<Shared>, stream: tokio::net::TcpStream, peer: SocketAddr) {
    let stop = shared.context.stop.clone();
    let mut wire = Wire::new(stream);
    let let_in = tokio::select! {
        biased;
        () = stop.cancelled() => return,
        let_in = let_in(&shared, &mut wire, peer) => let_in,
    };
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

/// Answers CONNECT, in `wire.out`.
async fn let_in(shared: &Arc<Shared>, wire: &mut Wire, peer: SocketAddr) -> Option<Connection> {
    let mut codec = Codec::new();
    let connect = match timeout(CONNECT_PATIENCE, first_packet(wire, &mut codec)).await {
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
    if let Err(refusal) = connect.admit(&shared.settings.credentials, shared.settings.allow_anonymous) {
        refuse(shared, &connect, refusal, peer, &mut codec, wire).await;
        return None;
    }
    let assigned = connect.client_id.is_empty();
    let client_id: Arc<str> = if assigned { assigned_client_id().into() } else { connect.client_id.clone().into() };
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
        protocol: Protocol { codec, session },
        silence_max: connect.silence_max(),
        // An assigned client id is nobody's to come back with, unless version 5 told it.
        session_expiry_secs: connect.session_expiry_secs,
        will: connect.will,
        lease,
    })
}

async fn first_packet(wire: &mut Wire, codec: &mut Codec) -> io::Result<Result<Box<Connect>, Violation>> {
    loop {
        wire.stream.readable().await?;
        wire.read_now().await?;
        match codec.decode(&mut wire.buffer) {
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
