//! The protocol against a model client that resends what was not acknowledged, and against bytes that are no MQTT at all.

use std::{collections::BTreeMap, num::NonZeroU16};

use bytes::Bytes;
use proptest::prelude::*;
use rmqtt_codec::{
    types::{Publish, QoS},
    v3, v5,
};
use tokio_util::codec::{Decoder, Encoder};

use super::{
    fuzzing::{Anything, LIMITS, swallow},
    *,
};
use crate::source::mqtt_broker::{codec::Version, session::Unreleased};

/// Stored payloads; each message of the model client has its own.
#[derive(Default)]
struct Records(Vec<u32>);

impl Sink for Records {
    fn store(&mut self, _topic: &str, payload: &[u8], _tags: &[Tag]) -> Result<(), Violation> {
        self.0.push(u32::from_le_bytes(payload.try_into().expect("the model's payloads are numbers")));
        Ok(())
    }

    fn allows(&mut self, _topic: &str) -> bool {
        true
    }

    fn subscription_refused(&mut self) {}
}

/// A client's step, or what the log does meanwhile.
#[derive(Debug, Clone)]
enum Step {
    /// New messages, written in one go and read in pieces of about this size.
    Publish {
        qos: Vec<u8>,
        piece: usize,
    },
    Release,
    Ping,
    Subscribe,
    /// The oldest batch becomes durable.
    Durable,
    /// The oldest batch is refused, which ends the connection; `later` says what becomes of the others.
    Refuse {
        later: bool,
    },
    /// The connection breaks; what is in flight becomes durable or not.
    Break {
        later: bool,
    },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (prop::collection::vec(0..3u8, 1..8), 1..60usize).prop_map(|(qos, piece)| Step::Publish { qos, piece }),
        3 => Just(Step::Release),
        1 => Just(Step::Ping),
        1 => Just(Step::Subscribe),
        8 => Just(Step::Durable),
        1 => any::<bool>().prop_map(|later| Step::Refuse { later }),
        1 => any::<bool>().prop_map(|later| Step::Break { later }),
    ];
    prop::collection::vec(step, 0..80)
}

/// What the client waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Unacknowledged {
    id: NonZeroU16,
    qos: QoS,
    number: u32,
}

struct World {
    version: Version,
    protocol: Protocol,
    out: BytesMut,
    /// The client's parser for what it gets.
    client: (v3::Codec, v5::Codec),
    /// What each batch on its way holds, oldest first.
    in_flight: std::collections::VecDeque<Vec<u32>>,
    durable: Vec<u32>,
    /// Sent and not acknowledged, in the order of sending.
    waiting: Vec<Unacknowledged>,
    /// PUBREC came, PUBREL not sent or not answered.
    received: Vec<(NonZeroU16, u32)>,
    acknowledged: BTreeMap<u32, QoS>,
    next_number: u32,
    next_id: u16,
    pings: (usize, usize),
    subscriptions: (usize, usize),
}

impl World {
    fn new(version: Version) -> Self {
        Self {
            version,
            protocol: protocol(version, Unreleased::new()),
            out: BytesMut::new(),
            client: (v3::Codec::new(0), v5::Codec::new(0, 0)),
            in_flight: std::collections::VecDeque::new(),
            durable: Vec::new(),
            waiting: Vec::new(),
            received: Vec::new(),
            acknowledged: BTreeMap::new(),
            next_number: 0,
            next_id: 0,
            pings: (0, 0),
            subscriptions: (0, 0),
        }
    }

    fn run(&mut self, step: Step) {
        match step {
            Step::Publish { qos, piece } => {
                let mut bytes = BytesMut::new();
                for qos in qos {
                    self.publish_new(QoS::try_from(qos).expect("0 to 2"), &mut bytes);
                }
                self.send(&bytes, piece);
            }
            Step::Release => {
                if let Some((id, _)) = self.received.first().copied() {
                    let mut bytes = BytesMut::new();
                    self.write(&mut bytes, v3::Packet::PublishRelease { packet_id: id }, || {
                        let ack = v5::PublishAck2 { packet_id: id, ..v5::PublishAck2::default() };
                        v5::Packet::PublishRelease(ack)
                    });
                    self.send(&bytes, 100);
                    assert!(self.received.iter().all(|(received, _)| *received != id), "PUBCOMP comes at once");
                }
            }
            Step::Ping => {
                self.pings.0 += 1;
                self.send(&[0xc0, 0], 100);
                assert_eq!(self.pings.0, self.pings.1);
            }
            Step::Subscribe => {
                self.subscriptions.0 += 1;
                let bytes: &[u8] = match self.version {
                    Version::V3 => b"\x82\x06\x00\x07\x00\x01#\x01",
                    Version::V5 => b"\x82\x07\x00\x07\x00\x00\x01#\x01",
                };
                self.send(bytes, 100);
                assert_eq!(self.subscriptions.0, self.subscriptions.1);
            }
            Step::Durable => {
                if let Some(batch) = self.in_flight.pop_front() {
                    self.durable.extend(batch);
                    self.protocol.session.on_durable(&mut self.out);
                    self.hear();
                }
            }
            Step::Refuse { later } => {
                if self.in_flight.pop_front().is_some() {
                    self.protocol.session.on_refused();
                    self.reconnect(later);
                }
            }
            Step::Break { later } => self.reconnect(later),
        }
    }

    fn publish_new(&mut self, qos: QoS, bytes: &mut BytesMut) {
        let number = self.next_number;
        self.next_number += 1;
        if qos == QoS::AtMostOnce {
            self.write_publish(None, qos, number, false, bytes);
            return;
        }
        let id = loop {
            self.next_id = self.next_id % 600 + 1;
            let id = NonZeroU16::new(self.next_id).expect("not zero");
            let waits = self.waiting.iter().any(|waiting| waiting.id == id);
            if !waits && self.received.iter().all(|(received, _)| *received != id) {
                break id;
            }
        };
        // As clients do that respect the receive maximum.
        if self.waiting.len() + self.received.len() < 400 {
            self.waiting.push(Unacknowledged { id, qos, number });
            self.write_publish(Some(id), qos, number, false, bytes);
        }
    }

    fn write_publish(&mut self, id: Option<NonZeroU16>, qos: QoS, number: u32, dup: bool, bytes: &mut BytesMut) {
        let publish = Publish {
            dup,
            retain: false,
            qos,
            topic: "plant/1".into(),
            packet_id: id,
            payload: Bytes::copy_from_slice(&number.to_le_bytes()),
            properties: None,
        };
        self.write(bytes, v3::Packet::from(publish.clone()), || v5::Packet::from(publish));
    }

    fn write(&mut self, bytes: &mut BytesMut, as_v3: v3::Packet, as_v5: impl FnOnce() -> v5::Packet) {
        match self.version {
            Version::V3 => self.client.0.encode(as_v3, bytes).expect("it fits"),
            Version::V5 => self.client.1.encode(as_v5(), bytes).expect("it fits"),
        }
    }

    /// Lets the server read `bytes` in pieces, as the connection's loop does.
    fn send(&mut self, bytes: &[u8], piece: usize) {
        let mut buffer = BytesMut::new();
        for piece in bytes.chunks(piece) {
            buffer.extend_from_slice(piece);
            let mut records = Records::default();
            self.protocol.advance(&mut buffer, &mut self.out, &mut records).expect("the model breaks no rules");
            if records.0.is_empty() {
                self.protocol.session.nothing_to_seal(&mut self.out);
            } else {
                self.protocol.session.seal();
                self.in_flight.push_back(records.0);
            }
            self.hear();
        }
        assert!(buffer.is_empty(), "whole packets were sent");
    }

    /// The client reads what it was sent, and holds it against what it waits for.
    fn hear(&mut self) {
        while !self.out.is_empty() {
            match self.version {
                Version::V3 => {
                    let (packet, _) = self.client.0.decode(&mut self.out).expect("MQTT").expect("whole");
                    match packet {
                        v3::Packet::PublishAck { packet_id } => self.acknowledged(packet_id, QoS::AtLeastOnce),
                        v3::Packet::PublishReceived { packet_id } => self.acknowledged(packet_id, QoS::ExactlyOnce),
                        v3::Packet::PublishComplete { packet_id } => self.completed(packet_id),
                        v3::Packet::PingResponse => self.pings.1 += 1,
                        v3::Packet::SubscribeAck { status, .. } => {
                            assert_eq!(status, [v3::SubscribeReturnCode::Failure]);
                            self.subscriptions.1 += 1;
                        }
                        packet => panic!("unexpected {packet:?}"),
                    }
                }
                Version::V5 => {
                    let (packet, _) = self.client.1.decode(&mut self.out).expect("MQTT").expect("whole");
                    match packet {
                        v5::Packet::PublishAck(ack) => self.acknowledged(ack.packet_id, QoS::AtLeastOnce),
                        v5::Packet::PublishReceived(ack) => self.acknowledged(ack.packet_id, QoS::ExactlyOnce),
                        v5::Packet::PublishComplete(ack) => {
                            assert_eq!(ack.reason_code, v5::PublishAck2Reason::Success);
                            self.completed(ack.packet_id);
                        }
                        v5::Packet::PingResponse => self.pings.1 += 1,
                        v5::Packet::SubscribeAck(ack) => {
                            assert_eq!(ack.status, [v5::SubscribeAckReason::NotAuthorized]);
                            self.subscriptions.1 += 1;
                        }
                        packet => panic!("unexpected {packet:?}"),
                    }
                }
            }
        }
    }

    fn acknowledged(&mut self, id: NonZeroU16, qos: QoS) {
        assert!(!self.waiting.is_empty(), "acknowledged {id} twice, or out of the blue");
        let oldest = self.waiting.remove(0);
        assert_eq!((oldest.id, oldest.qos), (id, qos), "acknowledgements keep the order of the messages");
        assert!(self.durable.contains(&oldest.number), "acknowledged before it was durable");
        assert_eq!(self.acknowledged.insert(oldest.number, qos), None);
        if qos == QoS::ExactlyOnce {
            self.received.push((id, oldest.number));
        }
    }

    fn completed(&mut self, id: NonZeroU16) {
        let before = self.received.len();
        self.received.retain(|(received, _)| *received != id);
        assert_eq!(self.received.len() + 1, before, "completed once, and only what was received");
    }

    /// The client comes back, its session goes on, and it sends again what was not acknowledged.
    fn reconnect(&mut self, later: bool) {
        let mut nobody = BytesMut::new();
        for batch in std::mem::take(&mut self.in_flight) {
            if later {
                self.durable.extend(batch);
                self.protocol.session.on_durable(&mut nobody);
            } else {
                self.protocol.session.on_refused();
            }
        }
        let fresh = protocol(self.version, Unreleased::new());
        let old = std::mem::replace(&mut self.protocol, fresh);
        self.protocol = protocol(self.version, old.session.into_unreleased());
        self.out.clear();
        let mut bytes = BytesMut::new();
        for Unacknowledged { id, qos, number } in self.waiting.clone() {
            self.write_publish(Some(id), qos, number, true, &mut bytes);
        }
        self.send(&bytes, 40);
    }

    fn finish(&mut self) {
        while !self.in_flight.is_empty() {
            self.run(Step::Durable);
        }
        assert_eq!(self.waiting, [], "everything is acknowledged in the end");
        for (number, qos) in &self.acknowledged {
            let times = self.durable.iter().filter(|durable| *durable == number).count();
            match qos {
                QoS::ExactlyOnce => assert_eq!(times, 1, "message {number} of QoS 2"),
                _ => assert!(times >= 1, "message {number} was lost"),
            }
        }
    }
}

fn protocol(version: Version, unreleased: Unreleased) -> Protocol {
    let codec = match version {
        Version::V3 => Codec::V3(v3::Codec::new(LIMITS.packet_bytes_max)),
        Version::V5 => Codec::V5(v5::Codec::new(LIMITS.packet_bytes_max, 0)),
    };
    Protocol::new(codec, Session::new(version, LIMITS, unreleased))
}

fn versions() -> impl Strategy<Value = Version> {
    prop_oneof![Just(Version::V3), Just(Version::V5)]
}

proptest! {
    #[test]
    fn acknowledged_once_in_order_and_only_when_durable(version in versions(), steps in steps()) {
        let mut world = World::new(version);
        for step in steps {
            world.run(step);
        }
        world.finish();
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..400), piece in 1..100usize) {
        swallow(Codec::new(), &bytes, piece);
        swallow(Codec::V3(v3::Codec::new(LIMITS.packet_bytes_max)), &bytes, piece);
        swallow(Codec::V5(v5::Codec::new(LIMITS.packet_bytes_max, 0)), &bytes, piece);
    }

    #[test]
    fn no_slips_in_packets_make_it_panic(
        version in versions(),
        packets in prop::collection::vec(0..SEEDS.len(), 1..6),
        slips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..4u8), 0..4),
        piece in 1..200usize,
    ) {
        let mut bytes: Vec<u8> = match version {
            Version::V3 => b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x3c\x00\x01a".to_vec(),
            Version::V5 => b"\x10\x0e\x00\x04MQTT\x05\x02\x00\x3c\x00\x00\x01a".to_vec(),
        };
        for packet in packets {
            bytes.extend_from_slice(SEEDS[packet]);
        }
        for (index, byte, slip) in slips {
            let index = index.index(bytes.len());
            match slip {
                0 => bytes[index] = byte,
                1 => bytes[index] ^= 1 << (byte % 8),
                2 => bytes.insert(index, byte),
                _ => drop(bytes.remove(index)),
            }
        }
        swallow(Codec::new(), &bytes, piece);
    }
}

/// A packet of each kind, of both versions.
const SEEDS: [&[u8]; 22] = [
    b"\x32\x0a\x00\x03a/b\x00\x07xyz",
    b"\x3d\x0a\x00\x03a/b\x00\x07xyz",
    b"\x30\x08\x00\x03a/bxyz",
    b"\x32\x0f\x00\x03a/b\x00\x07\x03\x23\x00\x01data",
    b"\x32\x0c\x00\x00\x00\x08\x03\x23\x00\x01data",
    b"\x34\x1e\x00\x01t\x00\x09\x13\x01\x01\x02\x00\x00\x00\x09\x08\x00\x01r\x26\x00\x01a\x00\x01bdata!",
    b"\x62\x02\x00\x07",
    b"\x62\x03\x00\x07\x00",
    b"\x62\x04\x00\x07\x92\x00",
    b"\x82\x08\x00\x03\x00\x03a/#\x01",
    b"\x82\x09\x00\x03\x00\x00\x03a/#\x01",
    b"\xa2\x07\x00\x03\x00\x03a/#",
    b"\xa2\x08\x00\x03\x00\x00\x03a/#",
    b"\xc0\x00",
    b"\xe0\x00",
    b"\xe0\x01\x04",
    b"\xe0\x07\x04\x05\x11\x00\x00\x00\x00",
    b"\x40\x02\x00\x01",
    b"\x50\x02\x00\x01",
    b"\xf0\x02\x18\x00",
    b"\x20\x02\x00\x00",
    b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x3c\x00\x01a",
];

#[test]
fn what_no_client_sends_ends_the_connection() {
    for (bytes, message) in [
        (&b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x3c\x00\x01a"[..], "it sent a second CONNECT"),
        (b"\x20\x02\x00\x00", "it sent CONNACK"),
        (b"\xd0\x00", "it sent PINGRESP"),
        (b"\xf0\x00", "malformed packet: Unsupported packet type"),
        (b"\x82\x02\x00\x01", "it sent a SUBSCRIBE or UNSUBSCRIBE without a topic filter"),
        (b"\x60\x02\x00\x01", "malformed packet: Unsupported packet type"),
        (b"\x30\x04\x00\x02\xff\xfe", "a topic or another text is not UTF-8"),
        (b"\x36\x05\x00\x01a\x00\x01", "malformed packet: Malformed packet"),
        (b"\x32\x05\x00\x01a\x00\x00", "malformed packet: Malformed packet"),
        (b"\x30\x01\x00", "malformed packet: Invalid length"),
        (b"\x30\xff\xff\xff\xff\x01", "malformed packet: Invalid length"),
    ] {
        let mut protocol = protocol(Version::V3, Unreleased::new());
        let goodbye = protocol
            .advance(&mut BytesMut::from(bytes), &mut BytesMut::new(), &mut Anything)
            .expect_err("it ends the connection");
        let Goodbye::Violation(violation) = goodbye else { panic!("{goodbye:?}") };
        assert_eq!(violation.message, message);
    }
}

#[test]
fn what_came_before_a_mistake_counts() {
    let mut protocol = protocol(Version::V3, Unreleased::new());
    let mut records = Records::default();
    let mut buffer = BytesMut::from(&b"\x32\x09\x00\x01a\x00\x07\x01\x00\x00\x00\xd0\x00"[..]);
    let mut out = BytesMut::new();
    protocol.advance(&mut buffer, &mut out, &mut records).expect_err("PINGRESP is not a client's");
    assert_eq!(records.0, [1]);
    protocol.session.seal();
    protocol.session.on_durable(&mut out);
    assert_eq!(out[..], [0x40, 2, 0, 7]);
}
