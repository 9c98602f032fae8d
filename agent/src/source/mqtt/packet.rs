//! The packets other than PUBLISH, in one form for MQTT 3.1.1 and 5: rumqttc reads and writes them. No I/O.

use std::time::Duration;

use bytes::BytesMut;
use rumqttc::{
    mqttbytes::{QoS, v4},
    v5::mqttbytes::{QoS as QoS5, v5},
};

use super::{
    config::{Settings, Version},
    reader::BadPacket,
};
use crate::source::reconnect::Trouble;

/// The only packet identifier of ours, since there is never more than one request under way.
pub(super) const SUBSCRIBE_ID: u16 = 1;

/// A session that the broker is never to forget.
const FOR_EVER: u32 = u32::MAX;

/// What a broker sends besides messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Control {
    /// CONNACK.
    Answer(Answer),
    /// PINGRESP.
    Pong,
    /// PUBREL.
    Release(u16),
    /// SUBACK: what was granted of each filter, or why it was not.
    Subscribed(Vec<Result<QoS, String>>),
    /// Version 5's DISCONNECT.
    Goodbye { trouble: Trouble, reason: String },
    /// Something that we did not ask for, in words.
    Unexpected(String),
}

/// What a broker answers to CONNECT.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    Accepted(Acceptance),
    Refused { trouble: Trouble, why: String },
}

/// The terms of a connection. Only version 5 has others than the first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Acceptance {
    /// Whether the broker remembers us.
    pub(super) session_present: bool,
    /// In place of the keep-alive that we proposed.
    pub(super) keep_alive: Option<Duration>,
    /// The largest packet that the broker takes.
    pub(super) packet_bytes_max: Option<u32>,
    /// The broker forgets our session this long after a connection ended, rather than after what we asked for.
    pub(super) session_expiry: Option<Duration>,
}

/// Reads a whole packet.
pub(super) fn read(version: Version, mut packet: BytesMut, bytes_max: usize) -> Result<Control, BadPacket> {
    match version {
        Version::V311 => Ok(from_v4(v4::Packet::read(&mut packet, bytes_max)?)),
        Version::V5 => {
            if let [0x20, 2, flags, code] = packet[..] {
                // Without properties: how a broker that knows no version 5 says so.
                return Ok(from_old_broker(flags, code));
            }
            let mut packet = with_reason(packet);
            Ok(from_v5(v5::Packet::read(&mut packet, u32::try_from(bytes_max).ok())?))
        }
    }
}

/// A DISCONNECT that leaves out its reason or its properties as it would be with them: rumqttc wants both.
fn with_reason(packet: BytesMut) -> BytesMut {
    match packet[..] {
        [0xe0, 0] => BytesMut::from(&[0xe0, 2, 0, 0][..]),
        [0xe0, 1, reason] => BytesMut::from(&[0xe0, 2, reason, 0][..]),
        _ => packet,
    }
}

/// Appends a CONNECT.
pub(super) fn write_connect(settings: &Settings, out: &mut BytesMut) {
    let keep_alive = u16::try_from(settings.keep_alive.as_secs()).unwrap_or(u16::MAX);
    let password = || settings.password.as_ref().map_or("", |password| password.expose()).to_owned();
    let written = match settings.version {
        Version::V311 => {
            let mut connect = v4::Connect::new(&settings.client_id);
            connect.clean_session = false;
            connect.keep_alive = keep_alive;
            connect.login =
                settings.user.as_ref().map(|user| v4::Login { username: user.clone(), password: password() });
            v4::Packet::Connect(connect).write(out, usize::MAX).is_ok()
        }
        Version::V5 => {
            let mut properties = v5::ConnectProperties::new();
            properties.session_expiry_interval = Some(
                settings.session_expiry.map_or(FOR_EVER, |expiry| u32::try_from(expiry.as_secs()).unwrap_or(FOR_EVER)),
            );
            // More than that we would not read; a broker that knows need not be held back by TCP.
            properties.receive_maximum = Some(u16::try_from(settings.max_in_flight).unwrap_or(u16::MAX));
            // No topic alias maximum: there are none, then. No maximum packet size: the broker would drop what is over it
            // without a word, and we count it and tell.
            let connect = v5::Connect {
                keep_alive,
                client_id: settings.client_id.clone(),
                clean_start: false,
                properties: Some(properties),
            };
            let login = settings.user.as_ref().map(|user| v5::Login { username: user.clone(), password: password() });
            v5::Packet::Connect(connect, None, login).write(out, None).is_ok()
        }
    };
    assert!(written, "validated settings fit into a packet");
}

/// Appends a SUBSCRIBE.
pub(super) fn write_subscribe(version: Version, topics: &[String], qos: QoS, out: &mut BytesMut) {
    let written = match version {
        Version::V311 => {
            let filters = topics.iter().map(|topic| v4::SubscribeFilter::new(topic.clone(), qos)).collect();
            v4::Packet::Subscribe(v4::Subscribe { pkid: SUBSCRIBE_ID, filters }).write(out, usize::MAX).is_ok()
        }
        Version::V5 => {
            let filter = |topic: &String| v5::Filter {
                path: topic.clone(),
                qos: match qos {
                    QoS::AtMostOnce => QoS5::AtMostOnce,
                    QoS::AtLeastOnce => QoS5::AtLeastOnce,
                    QoS::ExactlyOnce => QoS5::ExactlyOnce,
                },
                // A subscription that the session has already brings no retained messages again.
                retain_forward_rule: v5::RetainForwardRule::OnNewSubscribe,
                ..v5::Filter::default()
            };
            let mut subscribe = v5::Subscribe::new_many(topics.iter().map(filter), None);
            subscribe.pkid = SUBSCRIBE_ID;
            v5::Packet::Subscribe(subscribe).write(out, None).is_ok()
        }
    };
    assert!(written, "validated topics fit into a packet");
}

/// What a SUBSCRIBE has at most before its filters, in bytes.
pub(super) const SUBSCRIBE_BYTES: usize = 8;

/// What a filter takes in a SUBSCRIBE, in bytes.
pub(super) fn filter_bytes(topic: &str) -> usize {
    3 + topic.len()
}

/// Appends PINGREQ.
pub(super) fn write_ping(out: &mut BytesMut) {
    out.extend_from_slice(&[0xc0, 0]);
}

/// Appends PUBCOMP.
pub(super) fn write_complete(packet_id: u16, out: &mut BytesMut) {
    write_short(0x70, packet_id, out);
}

/// Appends a DISCONNECT in good order. The session goes on.
pub(super) fn write_goodbye(out: &mut BytesMut) {
    out.extend_from_slice(&[0xe0, 0]);
}

/// Appends an acknowledgement: the same four bytes in both versions.
pub(super) fn write_ack(ack: Ack, out: &mut BytesMut) {
    match ack {
        Ack::Received(id) => write_short(0x40, id, out),
        Ack::ReceivedOnce(id) => write_short(0x50, id, out),
    }
}

#[expect(clippy::big_endian_bytes, reason = "MQTT sends packet identifiers high byte first")]
fn write_short(first_byte: u8, packet_id: u16, out: &mut BytesMut) {
    let [high, low] = packet_id.to_be_bytes();
    out.extend_from_slice(&[first_byte, 2, high, low]);
}

/// What a broker is told once a message is durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ack {
    /// PUBACK, for QoS 1.
    Received(u16),
    /// PUBREC, for QoS 2.
    ReceivedOnce(u16),
}

fn from_v4(packet: v4::Packet) -> Control {
    use v4::{ConnectReturnCode as Code, Packet as P};
    let refused = |trouble, why: &str| Control::Answer(Answer::Refused { trouble, why: why.to_owned() });
    match packet {
        P::ConnAck(answer) => match answer.code {
            Code::Success => {
                let session_present = answer.session_present;
                Control::Answer(Answer::Accepted(Acceptance { session_present, ..Acceptance::default() }))
            }
            Code::RefusedProtocolVersion => refused(Trouble::Refused, "it does not speak MQTT 3.1.1"),
            Code::BadClientId => refused(Trouble::Refused, "it does not accept this client-id"),
            Code::BadUserNamePassword => refused(Trouble::Refused, "wrong user or password"),
            Code::NotAuthorized => refused(Trouble::Refused, NOT_AUTHORIZED),
            Code::ServiceUnavailable => refused(Trouble::Passing, "it is unavailable"),
        },
        P::PingResp => Control::Pong,
        P::PubRel(release) => Control::Release(release.pkid),
        P::SubAck(answer) if answer.pkid == SUBSCRIBE_ID => {
            let granted = |code| match code {
                v4::SubscribeReasonCode::Success(qos) => Ok(qos),
                v4::SubscribeReasonCode::Failure => Err(String::new()),
            };
            Control::Subscribed(answer.return_codes.into_iter().map(granted).collect())
        }
        packet => Control::Unexpected(format!("{packet:?}")),
    }
}

const NOT_AUTHORIZED: &str = "not authorized; are user, password and client-id right?";

fn from_v5(packet: v5::Packet) -> Control {
    use v5::Packet as P;
    match packet {
        P::ConnAck(answer) => Control::Answer(answer_of(answer)),
        P::PingResp(_) => Control::Pong,
        P::PubRel(release) => Control::Release(release.pkid),
        P::SubAck(answer) if answer.pkid == SUBSCRIBE_ID => {
            let explanation = answer.properties.and_then(|properties| properties.reason_string);
            let granted = |code| match code {
                v5::SubscribeReasonCode::Success(QoS5::AtMostOnce) => Ok(QoS::AtMostOnce),
                v5::SubscribeReasonCode::Success(QoS5::AtLeastOnce) => Ok(QoS::AtLeastOnce),
                v5::SubscribeReasonCode::Success(QoS5::ExactlyOnce) => Ok(QoS::ExactlyOnce),
                code => Err(reason(&code, explanation.as_deref())),
            };
            Control::Subscribed(answer.return_codes.into_iter().map(granted).collect())
        }
        P::Disconnect(goodbye) => {
            let (mut explanation, mut reference) = (None, None);
            if let Some(properties) = goodbye.properties {
                (explanation, reference) = (properties.reason_string, properties.server_reference);
            }
            let mut reason = reason(&goodbye.reason_code, explanation.as_deref());
            if let Some(reference) = reference {
                reason.push_str(&format!("; it names another broker: {reference}"));
            }
            Control::Goodbye { trouble: trouble_of_goodbye(goodbye.reason_code), reason }
        }
        packet => Control::Unexpected(format!("{packet:?}")),
    }
}

fn answer_of(answer: v5::ConnAck) -> Answer {
    use v5::ConnectReturnCode as Code;
    let properties = answer.properties;
    if answer.code == Code::Success {
        let seconds = |seconds: u32| Duration::from_secs(seconds.into());
        let terms = properties.map(|properties| Acceptance {
            session_present: answer.session_present,
            // 0 means that none of us has to speak; asking now and then all the same is allowed, and finds a dead link.
            keep_alive: properties.server_keep_alive.filter(|keep_alive| *keep_alive > 0).map(|s| seconds(s.into())),
            packet_bytes_max: properties.max_packet_size,
            session_expiry: properties.session_expiry_interval.filter(|expiry| *expiry < FOR_EVER).map(seconds),
        });
        return Answer::Accepted(
            terms.unwrap_or(Acceptance { session_present: answer.session_present, ..Acceptance::default() }),
        );
    }
    let (mut explanation, mut reference) = (None, None);
    if let Some(properties) = properties {
        (explanation, reference) = (properties.reason_string, properties.server_reference);
    }
    let mut why = match answer.code {
        Code::BadUserNamePassword => "wrong user or password".to_owned(),
        Code::NotAuthorized => NOT_AUTHORIZED.to_owned(),
        Code::ClientIdentifierNotValid => "it does not accept this client-id".to_owned(),
        Code::UnsupportedProtocolVersion => "it does not speak MQTT 5".to_owned(),
        code => words(&code),
    };
    if let Some(explanation) = explanation {
        why.push_str(&format!(" ({explanation})"));
    }
    if let Some(reference) = reference {
        why.push_str(&format!("; it names another broker: {reference}"));
    }
    let trouble = match answer.code {
        Code::ServerUnavailable
        | Code::ServerBusy
        | Code::UseAnotherServer
        | Code::ConnectionRateExceeded
        | Code::UnspecifiedError
        | Code::ImplementationSpecificError => Trouble::Passing,
        _ => Trouble::Refused,
    };
    Answer::Refused { trouble, why }
}

fn from_old_broker(flags: u8, code: u8) -> Control {
    Control::Answer(match code {
        0 => Answer::Accepted(Acceptance { session_present: flags & 1 == 1, ..Acceptance::default() }),
        1 | 0x84 => Answer::Refused { trouble: Trouble::Refused, why: "it does not speak MQTT 5".to_owned() },
        code => Answer::Refused { trouble: Trouble::Refused, why: format!("reason code 0x{code:02x}") },
    })
}

fn trouble_of_goodbye(reason: v5::DisconnectReasonCode) -> Trouble {
    use v5::DisconnectReasonCode as Code;
    match reason {
        Code::NotAuthorized | Code::AdministrativeAction | Code::ServerMoved => Trouble::Refused,
        _ => Trouble::Passing,
    }
}

/// A reason code in words, with the broker's own explanation.
fn reason(code: &impl std::fmt::Debug, explanation: Option<&str>) -> String {
    match explanation {
        Some(explanation) => format!("{} ({explanation})", words(code)),
        None => words(code),
    }
}

/// `NotAuthorized` as `not authorized`: rumqttc's names are those of the specification.
fn words(code: &impl std::fmt::Debug) -> String {
    let mut words = String::new();
    for c in format!("{code:?}").chars() {
        if c.is_uppercase() && !words.is_empty() {
            words.push(' ');
        }
        words.extend(c.to_lowercase());
    }
    words
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read5(bytes: &[u8]) -> Control {
        read(Version::V5, BytesMut::from(bytes), 1000).expect("a packet")
    }

    #[test]
    fn a_version_5_brokers_terms_are_read() {
        let properties = [&[0x13, 0, 30][..], &[0x27, 0, 0, 1, 0], &[0x11, 0, 0, 14, 16]].concat();
        let packet = [&[0x20, 3 + properties.len() as u8, 1, 0, properties.len() as u8][..], &properties].concat();
        let terms = Acceptance {
            session_present: true,
            keep_alive: Some(Duration::from_secs(30)),
            packet_bytes_max: Some(256),
            session_expiry: Some(Duration::from_secs(3600)),
        };
        assert_eq!(read5(&packet), Control::Answer(Answer::Accepted(terms)));
    }

    #[test]
    fn refusals_are_told_in_words_with_what_the_broker_says() {
        let said = [&[0x20, 3 + 6, 0, 0x97, 6, 0x1f, 0, 3][..], b"too"].concat();
        let refused = |trouble, why: &str| Control::Answer(Answer::Refused { trouble, why: why.into() });
        assert_eq!(read5(&said), refused(Trouble::Refused, "quota exceeded (too)"));
        assert_eq!(read5(&[0x20, 3, 0, 0x89, 0]), refused(Trouble::Passing, "server busy"));
        // Mosquitto without version 5, and those before it.
        assert_eq!(read5(&[0x20, 2, 0, 1]), refused(Trouble::Refused, "it does not speak MQTT 5"));
    }

    #[test]
    fn a_goodbye_may_be_as_short_as_it_likes() {
        let goodbye = |trouble, reason: &str| Control::Goodbye { trouble, reason: reason.into() };
        assert_eq!(read5(&[0xe0, 0]), goodbye(Trouble::Passing, "normal disconnection"));
        assert_eq!(read5(&[0xe0, 1, 0x8b]), goodbye(Trouble::Passing, "server shutting down"));
        assert_eq!(read5(&[0xe0, 2, 0x8e, 0]), goodbye(Trouble::Passing, "session taken over"));
        assert_eq!(read5(&[0xe0, 2, 0x98, 0]), goodbye(Trouble::Refused, "administrative action"));
    }

    #[test]
    fn a_subscription_is_answered_filter_by_filter() {
        let answer = read5(&[0x90, 6, 0, 1, 0, 1, 0x87, 0x9e]);
        let refused = |why: &str| Err(why.to_owned());
        let expected =
            vec![Ok(QoS::AtLeastOnce), refused("not authorized"), refused("shared subscriptions not supported")];
        assert_eq!(answer, Control::Subscribed(expected));
    }

    #[test]
    fn the_size_of_a_subscription_is_no_less_than_it_is() {
        for topics in [vec!["a".to_owned()], vec!["x".repeat(60_000); 5]] {
            for version in [Version::V311, Version::V5] {
                let mut out = BytesMut::new();
                write_subscribe(version, &topics, QoS::AtLeastOnce, &mut out);
                let most = SUBSCRIBE_BYTES + topics.iter().map(|topic| filter_bytes(topic)).sum::<usize>();
                assert!(out.len() <= most, "{} > {most}", out.len());
            }
        }
    }

    proptest! {
        #[test]
        fn any_body_is_read_or_refused(first in any::<u8>(), body in proptest::collection::vec(any::<u8>(), 0..60)) {
            let mut packet = vec![first, body.len() as u8];
            packet.extend(&body);
            for version in [Version::V311, Version::V5] {
                let _ = read(version, BytesMut::from(&packet[..]), 1000);
            }
        }
    }
}
