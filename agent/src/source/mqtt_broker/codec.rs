//! The packets of MQTT 3.1.1 and 5, read and written by rmqtt-codec, in one form for both versions.
//!
//! Bytes in, packets out; no sockets, no sessions. A packet over the limit is refused by its header, before memory is
//! reserved for it. What a well-formed packet means is for [`super::session`]. Why this crate: docs/decisions/0002.

use std::num::{NonZeroU16, NonZeroU32};

use bytes::{BufMut, BytesMut};
use rmqtt_codec::{
    error::DecodeError,
    types::Publish,
    v3,
    v5::{self, ConnectAckReason, DisconnectReasonCode as Reason},
    version::{ProtocolVersion, VersionCodec},
};
use tokio_util::codec::{Decoder, Encoder};

use super::{
    connect::{Connect, Will},
    goodbye::Violation,
    tags,
};

/// Largest CONNECT: ids, will, user and password are at most 64 KiB each, and nobody needs all of that before we know
/// who it is.
const CONNECT_BYTES_MAX: u32 = 128 * 1024;

/// What subscribers are told.
const PUBLISH_ONLY: &str = "forebay takes messages in and gives none out";

/// Protocol version of a connection. 3.1 is treated as 3.1.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Version {
    V3,
    V5,
}

/// A packet from a client.
#[derive(Debug)]
pub(super) enum Incoming {
    Connect(Box<Connect>),
    Publish(Box<Publish>),
    Release(NonZeroU16),
    Subscribe {
        id: NonZeroU16,
        filters: usize,
    },
    Unsubscribe {
        id: NonZeroU16,
        filters: usize,
    },
    Ping,
    Disconnect {
        with_will: bool,
    },
    /// An acknowledgement of something that we cannot have sent.
    Stray,
    /// A packet that only a server sends, or AUTH.
    NotAClients(&'static str),
}

/// What a connection is told about its server, for CONNACK.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Largest packet that we take, in bytes.
    pub(super) packet_bytes_max: u32,
    /// QoS 1 and 2 messages that may be unacknowledged.
    pub(super) receive_max: NonZeroU16,
    /// Topic aliases that a client may set.
    pub(super) topic_alias_max: u16,
}

/// Reads and writes the packets of one connection.
pub(super) enum Codec {
    /// Before CONNECT.
    Unknown,
    V3(v3::Codec),
    V5(v5::Codec),
}

impl Codec {
    pub(super) fn new() -> Self {
        Self::Unknown
    }

    /// The version, once a CONNECT told it.
    pub(super) fn version(&self) -> Option<Version> {
        match self {
            Self::Unknown => None,
            Self::V3(_) => Some(Version::V3),
            Self::V5(_) => Some(Version::V5),
        }
    }

    /// After CONNECT: how large packets may be from now on.
    pub(super) fn limit(&mut self, packet_bytes_max: u32, client_packet_bytes_max: Option<NonZeroU32>) {
        match self {
            Self::Unknown => {}
            Self::V3(codec) => codec.set_max_size(packet_bytes_max),
            Self::V5(codec) => {
                codec.set_max_inbound_size(packet_bytes_max);
                codec.set_max_outbound_size(client_packet_bytes_max.map_or(0, NonZeroU32::get));
            }
        }
    }

    /// Takes the next packet off the front of `buffer`, if it is whole.
    pub(super) fn decode(&mut self, buffer: &mut BytesMut) -> Result<Option<Incoming>, Violation> {
        loop {
            match self {
                Self::Unknown => match VersionCodec.decode(buffer).map_err(|error| refused(&error, buffer))? {
                    None => return Ok(None),
                    Some(ProtocolVersion::MQTT3) => *self = Self::V3(v3::Codec::new(CONNECT_BYTES_MAX)),
                    Some(ProtocolVersion::MQTT5) => *self = Self::V5(v5::Codec::new(CONNECT_BYTES_MAX, 0)),
                },
                Self::V3(codec) => {
                    let packet = codec.decode(buffer).map_err(|error| refused(&error, buffer))?;
                    return Ok(packet.map(|(packet, _)| from_v3(packet)));
                }
                Self::V5(codec) => {
                    let packet = codec.decode(buffer).map_err(|error| refused(&error, buffer))?;
                    return Ok(packet.map(|(packet, _)| from_v5(packet)));
                }
            }
        }
    }

    /// Accepts a connection.
    pub(super) fn write_accepted(
        &mut self,
        session_present: bool,
        assigned_client_id: Option<&str>,
        limits: Limits,
        out: &mut BytesMut,
    ) {
        self.encode(
            || {
                v3::Packet::ConnectAck(v3::ConnectAck {
                    session_present,
                    return_code: v3::ConnectAckReason::ConnectionAccepted,
                })
            },
            || {
                v5::Packet::from(v5::ConnectAck {
                    session_present,
                    receive_max: limits.receive_max,
                    max_packet_size: Some(limits.packet_bytes_max),
                    assigned_client_id: assigned_client_id.map(Into::into),
                    topic_alias_max: limits.topic_alias_max,
                    // Retained messages are taken, as ordinary ones; refusing them would only break clients.
                    retain_available: true,
                    wildcard_subscription_available: false,
                    subscription_identifiers_available: false,
                    shared_subscription_available: false,
                    ..v5::ConnectAck::default()
                })
            },
            out,
        );
    }

    /// Refuses a connection. To a client whose version nobody knows, 3.1.1 is spoken: the specifications ask for it.
    pub(super) fn write_refused(&mut self, reason: ConnectAckReason, out: &mut BytesMut) {
        if matches!(self, Self::Unknown) {
            *self = Self::V3(v3::Codec::new(0));
        }
        let return_code = match reason {
            ConnectAckReason::UnsupportedProtocolVersion => v3::ConnectAckReason::UnacceptableProtocolVersion,
            ConnectAckReason::ClientIdentifierNotValid => v3::ConnectAckReason::IdentifierRejected,
            ConnectAckReason::ServerUnavailable | ConnectAckReason::ServerBusy => {
                v3::ConnectAckReason::ServiceUnavailable
            }
            ConnectAckReason::BadUserNameOrPassword => v3::ConnectAckReason::BadUserNameOrPassword,
            ConnectAckReason::NotAuthorized => v3::ConnectAckReason::NotAuthorized,
            // 3.1.1 has no code for anything else: the connection just ends.
            _ if matches!(self, Self::V3(_)) => return,
            _ => v3::ConnectAckReason::ServiceUnavailable,
        };
        self.encode(
            || v3::Packet::ConnectAck(v3::ConnectAck { session_present: false, return_code }),
            || v5::Packet::from(v5::ConnectAck { reason_code: reason, ..v5::ConnectAck::default() }),
            out,
        );
    }

    /// Refuses all of a SUBSCRIBE's filters.
    pub(super) fn write_suback(&mut self, packet_id: NonZeroU16, filters: usize, out: &mut BytesMut) {
        self.encode(
            || v3::Packet::SubscribeAck { packet_id, status: vec![v3::SubscribeReturnCode::Failure; filters] },
            || {
                v5::Packet::from(v5::SubscribeAck {
                    packet_id,
                    properties: Vec::new(),
                    reason_string: Some(PUBLISH_ONLY.into()),
                    status: vec![v5::SubscribeAckReason::NotAuthorized; filters],
                })
            },
            out,
        );
    }

    /// Says that none of an UNSUBSCRIBE's subscriptions existed.
    pub(super) fn write_unsuback(&mut self, packet_id: NonZeroU16, filters: usize, out: &mut BytesMut) {
        self.encode(
            || v3::Packet::UnsubscribeAck { packet_id },
            || {
                v5::Packet::from(v5::UnsubscribeAck {
                    packet_id,
                    properties: Vec::new(),
                    reason_string: None,
                    status: vec![v5::UnsubscribeAckReason::NoSubscriptionExisted; filters],
                })
            },
            out,
        );
    }

    /// Tells a client why its connection ends; 3.1.1 has no packet for it.
    pub(super) fn write_disconnect(&mut self, reason: Reason, why: Option<&str>, out: &mut BytesMut) {
        if let Self::V5(codec) = self {
            let packet = v5::Disconnect { reason_string: why.map(Into::into), ..v5::Disconnect::new(reason) };
            encode(codec, packet.into(), out);
        }
    }

    fn encode(&mut self, as_v3: impl FnOnce() -> v3::Packet, as_v5: impl FnOnce() -> v5::Packet, out: &mut BytesMut) {
        match self {
            Self::Unknown => {}
            Self::V3(codec) => encode(codec, as_v3(), out),
            Self::V5(codec) => encode(codec, as_v5(), out),
        }
    }
}

/// Writes a packet, or nothing if it is over what the client said it takes: the specification wants it left out then.
fn encode<P, C: Encoder<P>>(codec: &mut C, packet: P, out: &mut BytesMut) {
    let before = out.len();
    if codec.encode(packet, out).is_err() {
        out.truncate(before);
    }
}

pub(super) fn write_pingresp(out: &mut BytesMut) {
    out.put_slice(&[0xd0, 0]);
}

/// By far the most frequent of what is sent, and the same four bytes in both versions.
pub(super) fn write_puback(id: NonZeroU16, out: &mut BytesMut) {
    write_ack(0x40, id, out);
}

pub(super) fn write_pubrec(id: NonZeroU16, out: &mut BytesMut) {
    write_ack(0x50, id, out);
}

pub(super) fn write_pubcomp(id: NonZeroU16, out: &mut BytesMut) {
    write_ack(0x70, id, out);
}

/// PUBCOMP "packet identifier not found", which only version 5 knows.
pub(super) fn write_pubcomp_not_found(id: NonZeroU16, out: &mut BytesMut) {
    let [high, low] = network_order(id);
    out.put_slice(&[0x70, 4, high, low, 0x92, 0]);
}

/// PUBACK or PUBREC "not authorized", which only version 5 knows.
pub(super) fn write_not_authorized(first: u8, id: NonZeroU16, out: &mut BytesMut) {
    let [high, low] = network_order(id);
    out.put_slice(&[first, 4, high, low, 0x87, 0]);
}

fn write_ack(first: u8, id: NonZeroU16, out: &mut BytesMut) {
    let [high, low] = network_order(id);
    out.put_slice(&[first, 2, high, low]);
}

#[expect(clippy::big_endian_bytes, reason = "MQTT sends packet identifiers high byte first")]
fn network_order(id: NonZeroU16) -> [u8; 2] {
    id.get().to_be_bytes()
}

fn from_v3(packet: v3::Packet) -> Incoming {
    use v3::Packet as P;
    match packet {
        P::Publish(publish) => Incoming::Publish(publish),
        P::PublishRelease { packet_id } => Incoming::Release(packet_id),
        P::Connect(connect) => Incoming::Connect(Box::new(Connect::from_v3(*connect))),
        P::Subscribe { packet_id, topic_filters } => {
            Incoming::Subscribe { id: packet_id, filters: topic_filters.len() }
        }
        P::Unsubscribe { packet_id, topic_filters } => {
            Incoming::Unsubscribe { id: packet_id, filters: topic_filters.len() }
        }
        P::PingRequest => Incoming::Ping,
        P::Disconnect => Incoming::Disconnect { with_will: false },
        P::PublishAck { .. } | P::PublishReceived { .. } | P::PublishComplete { .. } => Incoming::Stray,
        P::ConnectAck(_) => Incoming::NotAClients("CONNACK"),
        P::SubscribeAck { .. } => Incoming::NotAClients("SUBACK"),
        P::UnsubscribeAck { .. } => Incoming::NotAClients("UNSUBACK"),
        P::PingResponse => Incoming::NotAClients("PINGRESP"),
    }
}

fn from_v5(packet: v5::Packet) -> Incoming {
    use v5::Packet as P;
    match packet {
        P::Publish(publish) => Incoming::Publish(publish),
        P::PublishRelease(release) => Incoming::Release(release.packet_id),
        P::Connect(connect) => Incoming::Connect(Box::new(Connect::from_v5(*connect))),
        P::Subscribe(subscribe) => {
            Incoming::Subscribe { id: subscribe.packet_id, filters: subscribe.topic_filters.len() }
        }
        P::Unsubscribe(unsubscribe) => {
            Incoming::Unsubscribe { id: unsubscribe.packet_id, filters: unsubscribe.topic_filters.len() }
        }
        P::PingRequest => Incoming::Ping,
        P::Disconnect(disconnect) => {
            Incoming::Disconnect { with_will: disconnect.reason_code == Reason::DisconnectWithWillMessage }
        }
        P::PublishAck(_) | P::PublishReceived(_) | P::PublishComplete(_) => Incoming::Stray,
        P::ConnectAck(_) => Incoming::NotAClients("CONNACK"),
        P::SubscribeAck(_) => Incoming::NotAClients("SUBACK"),
        P::UnsubscribeAck(_) => Incoming::NotAClients("UNSUBACK"),
        P::PingResponse => Incoming::NotAClients("PINGRESP"),
        P::Auth(_) => Incoming::NotAClients("AUTH"),
    }
}

impl Connect {
    fn from_v3(connect: v3::Connect) -> Self {
        Self {
            client_id: Box::from(&*connect.client_id),
            keep_alive_secs: connect.keep_alive,
            clean: connect.clean_session,
            // 3.1.1 sessions have no end of their own.
            session_expiry_secs: if connect.clean_session { 0 } else { u32::MAX },
            user: connect.username.map(|user| Box::from(&*user)),
            password: connect.password,
            extended_authentication: false,
            packet_bytes_max: None,
            will: connect.last_will.map(|will| Will {
                topic: Box::from(&*will.topic),
                payload: will.message.to_vec(),
                tags: Vec::new(),
                delay_secs: 0,
            }),
        }
    }

    fn from_v5(connect: v5::Connect) -> Self {
        Self {
            client_id: Box::from(&*connect.client_id),
            keep_alive_secs: connect.keep_alive,
            clean: connect.clean_start,
            session_expiry_secs: connect.session_expiry_interval_secs,
            user: connect.username.map(|user| Box::from(&*user)),
            password: connect.password,
            extended_authentication: connect.auth_method.is_some(),
            packet_bytes_max: connect.max_packet_size,
            will: connect.last_will.map(|will| Will {
                topic: Box::from(&*will.topic),
                payload: will.message.to_vec(),
                tags: tags::of_will(&will),
                delay_secs: will.will_delay_interval_sec.unwrap_or(0),
            }),
        }
    }
}

/// What is wrong with bytes that are no packet; `buffer` still begins with them if they were refused by their header.
fn refused(error: &DecodeError, buffer: &[u8]) -> Violation {
    match error {
        DecodeError::MaxSizeExceeded { size, max } => {
            let topic = topic_of(buffer).map_or_else(String::new, |topic| format!(" to topic `{topic}`"));
            Violation::new(
                Reason::PacketTooLarge,
                "packet-too-large",
                format!("a packet{topic} of {size} bytes is over the limit of {max}"),
            )
        }
        DecodeError::Utf8Error => {
            Violation::new(Reason::MalformedPacket, "not-utf8", "a topic or another text is not UTF-8")
        }
        DecodeError::UnsupportedProtocolLevel | DecodeError::InvalidProtocol => {
            Violation::new(Reason::ProtocolError, "unknown-protocol", "it speaks neither MQTT 3.1.1 nor 5")
        }
        DecodeError::InvalidClientId => Violation::new(
            Reason::ProtocolError,
            "bad-client-id",
            "a session that outlives its connection needs a client id",
        ),
        error => Violation::new(Reason::MalformedPacket, "malformed", format!("malformed packet: {error}")),
    }
}

/// The topic of the PUBLISH at the front of `bytes`, as far as it came, for a message.
fn topic_of(bytes: &[u8]) -> Option<&str> {
    let header = 1 + bytes.get(1..5)?.iter().position(|byte| byte & 0x80 == 0)? + 1;
    if bytes[0] & 0xf0 != 0x30 {
        return None;
    }
    let rest = bytes.get(header..)?;
    let (high, low) = (*rest.first()?, *rest.get(1)?);
    let topic = rest.get(2..2 + usize::from(high) * 256 + usize::from(low))?;
    std::str::from_utf8(topic).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_topic_of_an_oversized_publish_is_told() {
        let mut codec = Codec::V3(v3::Codec::new(100));
        let mut buffer = BytesMut::from(&b"\x32\xe8\x07\x00\x09plant/hot\x00\x01xxxx"[..]);
        let violation = codec.decode(&mut buffer).expect_err("1000 bytes are over 100");
        assert_eq!(violation.count, "packet-too-large");
        assert_eq!(violation.message, "a packet to topic `plant/hot` of 1000 bytes is over the limit of 100");
    }

    #[test]
    fn no_memory_is_reserved_for_a_packet_over_the_limit() {
        let mut codec = Codec::V5(v5::Codec::new(1000, 0));
        let mut buffer = BytesMut::from(&b"\x30\xff\xff\xff\x7f"[..]);
        assert!(codec.decode(&mut buffer).is_err());
        assert!(buffer.capacity() < 1024);
    }

    #[test]
    fn a_stranger_gets_the_answer_that_the_specification_asks_for() {
        let mut codec = Codec::new();
        let mut buffer = BytesMut::from(&b"\x10\x0c\x00\x04MQTT\x09\x02\x00\x3c\x00\x00"[..]);
        let violation = codec.decode(&mut buffer).expect_err("there is no level 9");
        assert_eq!(violation.count, "unknown-protocol");
        let mut out = BytesMut::new();
        codec.write_refused(ConnectAckReason::UnsupportedProtocolVersion, &mut out);
        assert_eq!(&out[..], [0x20, 2, 0, 1]);
    }

    #[test]
    fn a_reason_string_is_left_out_rather_than_the_packet() {
        let mut codec = Codec::V5(v5::Codec::new(0, 0));
        codec.limit(1000, NonZeroU32::new(20));
        let mut out = BytesMut::new();
        codec.write_disconnect(Reason::PacketTooLarge, Some("a long explanation that cannot fit"), &mut out);
        assert_eq!(&out[..], [0xe0, 2, 0x95, 0]);
    }
}
