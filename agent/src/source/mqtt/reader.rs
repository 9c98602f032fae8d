//! Cuts what a broker sends into packets of MQTT 3.1.1 or 5.
//!
//! PUBLISH is read in place, without copying, and even if it is something we cannot store: a payload over the limit is
//! passed over without ever being held in memory, and a topic that is not UTF-8 is handed on as bytes, so that neither
//! can make the broker deliver the same message to us for ever. The other packets are for [`super::packet`]. No I/O.

use std::ops::Range;

use bytes::{Buf as _, BytesMut};
use rumqttc::{
    mqttbytes::{self, QoS},
    v5,
};

use super::{
    config::Version,
    packet::{self, Control},
};

/// A SUBACK of some tens of thousands of filters; nothing that a broker sends us, but PUBLISH, is longer.
const OTHER_PACKET_BYTES_MAX: usize = 128 * 1024;

/// The largest properties of a message that are read. Every one of them ends up in memory as a tag.
const PROPERTIES_BYTES_MAX: usize = 64 * 1024;

/// A read buffer larger than this is given back once a large packet has been dealt with.
const BUFFER_KEPT_BYTES: usize = 1024 * 1024;

/// Least room that is offered to a read.
const READ_BYTES: usize = 64 * 1024;

/// Bytes in, packets out.
#[derive(Debug)]
pub(super) struct Reader {
    version: Version,
    buffer: BytesMut,
    /// Bytes at the front of the buffer that belong to the packet handed out last.
    done: usize,
    /// Bytes of a payload still to come that nobody wants.
    pass_over: usize,
    /// Whether the buffer had to grow beyond what is kept.
    swollen: bool,
    payload_bytes_max: usize,
}

/// One packet.
#[derive(Debug, PartialEq)]
pub(super) enum Incoming<'b> {
    Publish(Publish<'b>),
    Other(Control),
}

/// A message.
#[derive(Debug, PartialEq)]
pub(super) struct Publish<'b> {
    pub(super) qos: QoS,
    /// 0 if the QoS is 0.
    pub(super) packet_id: u16,
    /// UTF-8, if the broker keeps to the standard.
    pub(super) topic: &'b [u8],
    /// Version 5's, as they were sent.
    pub(super) properties: &'b [u8],
    pub(super) payload: Payload<'b>,
}

/// What a message carries.
#[derive(Debug, PartialEq)]
pub(super) enum Payload<'b> {
    Whole(&'b [u8]),
    /// Over the limit, alone or with its properties, and not here.
    TooLarge {
        bytes: usize,
    },
}

/// Bytes that are not MQTT. The connection has to be given up, because nobody knows where the next packet begins.
#[derive(Debug, thiserror::Error)]
pub(super) enum BadPacket {
    #[error("the broker sent what is not MQTT 3.1.1: {0}")]
    Malformed(#[from] mqttbytes::Error),
    #[error("the broker sent what is not MQTT 5: {0}")]
    Malformed5(#[from] v5::mqttbytes::Error),
    #[error("the broker sent a packet of {bytes} bytes and type {kind}, which is never that long")]
    TooLong { kind: u8, bytes: usize },
}

impl Reader {
    /// A reader of messages with payloads up to a limit.
    pub(super) fn new(version: Version, payload_bytes_max: usize) -> Self {
        Self { version, buffer: BytesMut::new(), done: 0, pass_over: 0, swollen: false, payload_bytes_max }
    }

    /// Where the next bytes belong; never full.
    pub(super) fn room(&mut self) -> &mut BytesMut {
        self.buffer.advance(std::mem::take(&mut self.done));
        self.swollen |= self.buffer.len() > BUFFER_KEPT_BYTES;
        if self.swollen && self.buffer.len() < READ_BYTES {
            self.buffer = BytesMut::from(&self.buffer[..]);
            self.swollen = false;
        }
        self.buffer.reserve(READ_BYTES);
        &mut self.buffer
    }

    /// The next packet, if it is there as a whole.
    ///
    /// # Errors
    /// [`BadPacket`]; the reader is of no use then.
    pub(super) fn next(&mut self) -> Result<Option<Incoming<'_>>, BadPacket> {
        self.buffer.advance(std::mem::take(&mut self.done));
        let passed_over = self.pass_over.min(self.buffer.len());
        self.buffer.advance(passed_over);
        self.pass_over -= passed_over;

        let Some(frame) = Frame::at(&self.buffer)? else { return Ok(None) };
        if frame.is_publish() {
            return self.publish(frame);
        }
        if frame.bytes() > OTHER_PACKET_BYTES_MAX {
            return Err(BadPacket::TooLong { kind: frame.first_byte >> 4, bytes: frame.bytes() });
        }
        if self.buffer.len() < frame.bytes() {
            return Ok(None);
        }
        let packet = packet::read(self.version, self.buffer.split_to(frame.bytes()), OTHER_PACKET_BYTES_MAX)?;
        Ok(Some(Incoming::Other(packet)))
    }

    fn publish(&mut self, frame: Frame) -> Result<Option<Incoming<'_>>, BadPacket> {
        let qos = mqttbytes::qos((frame.first_byte >> 1) & 0b11)?;
        // A topic's length is all that has to be known to find everything else.
        let body = frame.header_bytes;
        let Some(topic_bytes) = read_u16(&self.buffer, body) else {
            return if frame.body_bytes < 2 { Err(mqttbytes::Error::MalformedPacket.into()) } else { Ok(None) };
        };
        let topic = body + 2..body + 2 + usize::from(topic_bytes);
        let properties_start = topic.end + if qos == QoS::AtMostOnce { 0 } else { 2 };
        if properties_start > frame.bytes() {
            return Err(mqttbytes::Error::BoundaryCrossed(topic.len()).into());
        }
        let Some(properties) = self.properties(properties_start, frame)? else { return Ok(None) };
        let payload_bytes = frame.bytes() - properties.end;
        let too_large = payload_bytes > self.payload_bytes_max || properties.len() > PROPERTIES_BYTES_MAX;
        let needed = if too_large { properties.start } else { frame.bytes() };
        if self.buffer.len() < needed {
            return Ok(None);
        }
        let packet_id = match qos {
            QoS::AtMostOnce => 0,
            _ => read_u16(&self.buffer, topic.end).filter(|id| *id != 0).ok_or(mqttbytes::Error::PacketIdZero)?,
        };
        self.done = needed;
        self.pass_over = frame.bytes() - needed;
        let (properties, payload) = if too_large {
            (&[][..], Payload::TooLarge { bytes: frame.bytes() - needed })
        } else {
            (&self.buffer[properties.clone()], Payload::Whole(&self.buffer[properties.end..needed]))
        };
        Ok(Some(Incoming::Publish(Publish { qos, packet_id, topic: &self.buffer[topic], properties, payload })))
    }

    /// Where a message's properties are, behind their length at `start`, once that is there. 3.1.1 has none.
    fn properties(&self, start: usize, frame: Frame) -> Result<Option<Range<usize>>, BadPacket> {
        if self.version == Version::V311 {
            return Ok(Some(start..start));
        }
        let length = self.buffer.get(start..).unwrap_or_default();
        match variable_length(&length[..length.len().min(frame.bytes() - start)])? {
            Some((behind, bytes)) if start + behind + bytes > frame.bytes() => {
                Err(mqttbytes::Error::BoundaryCrossed(bytes).into())
            }
            Some((behind, bytes)) => Ok(Some(start + behind..start + behind + bytes)),
            None if self.buffer.len() >= frame.bytes() => Err(mqttbytes::Error::MalformedPacket.into()),
            None => Ok(None),
        }
    }
}

/// A packet's fixed header.
#[derive(Clone, Copy)]
struct Frame {
    first_byte: u8,
    header_bytes: usize,
    body_bytes: usize,
}

impl Frame {
    fn at(bytes: &[u8]) -> Result<Option<Self>, BadPacket> {
        let Some((&first_byte, rest)) = bytes.split_first() else { return Ok(None) };
        let length = variable_length(rest)?;
        Ok(length.map(|(bytes, body_bytes)| Self { first_byte, header_bytes: 1 + bytes, body_bytes }))
    }

    fn is_publish(self) -> bool {
        self.first_byte >> 4 == mqttbytes::PacketType::Publish as u8
    }

    fn bytes(self) -> usize {
        self.header_bytes + self.body_bytes
    }
}

/// A number of one to four bytes at the front, once it is there: how many they are, and the number.
fn variable_length(bytes: &[u8]) -> Result<Option<(usize, usize)>, BadPacket> {
    let mut number = 0;
    for (i, byte) in bytes.iter().take(4).enumerate() {
        number |= usize::from(byte & 0x7f) << (7 * i);
        if byte & 0x80 == 0 {
            return Ok(Some((1 + i, number)));
        }
    }
    if bytes.len() >= 4 { Err(mqttbytes::Error::MalformedRemainingLength.into()) } else { Ok(None) }
}

fn read_u16(bytes: &[u8], at: usize) -> Option<u16> {
    let bytes = bytes.get(at..at + 2)?;
    Some(u16::from(bytes[0]) << 8 | u16::from(bytes[1]))
}

/// For fuzzing: the first bytes choose the version, and in which pieces the stream comes that follows.
#[cfg(any(test, fuzzing))]
pub fn fuzz(bytes: &[u8]) {
    let Some((&[version, piece], stream)) = bytes.split_first_chunk::<2>() else { return };
    let version = if version & 1 == 0 { Version::V311 } else { Version::V5 };
    let mut reader = Reader::new(version, 100);
    let mut tags = Vec::new();
    for piece in stream.chunks(usize::from(piece) + 1) {
        reader.room().extend_from_slice(piece);
        loop {
            match reader.next() {
                Ok(None) => break,
                Ok(Some(Incoming::Publish(publish))) => {
                    tags.clear();
                    super::properties::tags(publish.properties, &mut tags);
                    assert!(!matches!(publish.payload, Payload::Whole(payload) if payload.len() > 100));
                }
                Ok(Some(Incoming::Other(_))) => {}
                Err(_) => return,
            }
        }
        assert!(reader.buffer.len() <= stream.len());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rumqttc::mqttbytes::v4::{Packet, PubRel, Publish as Sent, SubAck, SubscribeReasonCode};

    use super::*;

    fn publish(topic: &str, qos: QoS, packet_id: u16, payload: &[u8]) -> Packet {
        let mut packet = Sent::new(topic, qos, payload);
        packet.pkid = packet_id;
        Packet::Publish(packet)
    }

    fn bytes_of(packets: &[Packet]) -> Vec<u8> {
        let mut bytes = BytesMut::new();
        for packet in packets {
            packet.write(&mut bytes, usize::MAX).expect("it fits");
        }
        bytes.to_vec()
    }

    /// What comes out, in words, if the bytes come in pieces.
    fn read(bytes: &[u8], piece: usize, payload_bytes_max: usize) -> Result<Vec<String>, BadPacket> {
        read_as(Version::V311, bytes, piece, payload_bytes_max)
    }

    fn read_as(version: Version, bytes: &[u8], piece: usize, limit: usize) -> Result<Vec<String>, BadPacket> {
        let mut reader = Reader::new(version, limit);
        let mut packets = Vec::new();
        for piece in bytes.chunks(piece.max(1)) {
            reader.room().extend_from_slice(piece);
            while let Some(packet) = reader.next()? {
                packets.push(match packet {
                    Incoming::Publish(Publish { qos, packet_id, topic, properties, payload }) => {
                        let topic = String::from_utf8_lossy(topic);
                        match payload {
                            Payload::Whole(payload) if !properties.is_empty() => {
                                format!("{topic} {} {packet_id} {properties:?} {payload:?}", qos as u8)
                            }
                            Payload::Whole(payload) => format!("{topic} {} {packet_id} {payload:?}", qos as u8),
                            Payload::TooLarge { bytes } => {
                                format!("{topic} {} {packet_id} too large: {bytes}", qos as u8)
                            }
                        }
                    }
                    Incoming::Other(packet) => format!("{packet:?}"),
                });
            }
        }
        Ok(packets)
    }

    #[test]
    fn packets_come_out_however_they_are_cut() {
        let bytes = bytes_of(&[
            publish("a/b", QoS::AtMostOnce, 0, b"x"),
            Packet::PingResp,
            publish("a/b", QoS::AtLeastOnce, 7, &[1; 5]),
            publish("c", QoS::ExactlyOnce, 65535, b""),
            Packet::PubRel(PubRel::new(65535)),
            Packet::SubAck(SubAck::new(1, vec![SubscribeReasonCode::Failure])),
        ]);
        let whole = read(&bytes, bytes.len(), 100).expect("well-formed");
        assert_eq!(whole[0], "a/b 0 0 [120]");
        assert_eq!(whole[1], "Pong");
        assert_eq!(whole[2], "a/b 1 7 [1, 1, 1, 1, 1]");
        assert_eq!(whole[3], "c 2 65535 []");
        assert_eq!(whole.len(), 6);
        for piece in 1..bytes.len() {
            assert_eq!(read(&bytes, piece, 100).expect("well-formed"), whole, "pieces of {piece}");
        }
    }

    #[test]
    fn a_payload_over_the_limit_is_passed_over_and_never_held() {
        let bytes = bytes_of(&[
            publish("big", QoS::AtLeastOnce, 1, &vec![0; 5_000_000]),
            publish("small", QoS::AtLeastOnce, 2, &[9; 10]),
        ]);
        let mut reader = Reader::new(Version::V311, 10);
        let mut seen = 0;
        for piece in bytes.chunks(4096) {
            reader.room().extend_from_slice(piece);
            while let Some(packet) = reader.next().expect("well-formed") {
                let Incoming::Publish(publish) = packet else { panic!("{packet:?}") };
                match publish.packet_id {
                    1 => assert_eq!(publish.payload, Payload::TooLarge { bytes: 5_000_000 }),
                    _ => assert_eq!(publish.payload, Payload::Whole(&[9; 10])),
                }
                seen += 1;
            }
            assert!(reader.buffer.capacity() <= 4 * READ_BYTES, "{} bytes held", reader.buffer.capacity());
        }
        assert_eq!(seen, 2);
    }

    #[test]
    fn a_large_packets_memory_is_given_back() {
        let bytes = bytes_of(&[publish("big", QoS::AtMostOnce, 0, &vec![0; 3_000_000])]);
        let mut reader = Reader::new(Version::V311, 4_000_000);
        for piece in bytes.chunks(100_000) {
            assert!(matches!(reader.next(), Ok(None)));
            reader.room().extend_from_slice(piece);
        }
        assert!(matches!(reader.next(), Ok(Some(Incoming::Publish(_)))));
        assert!(matches!(reader.next(), Ok(None)));
        reader.room();
        assert!(reader.buffer.capacity() <= BUFFER_KEPT_BYTES, "{} bytes held", reader.buffer.capacity());
    }

    #[test]
    fn a_topic_that_is_not_utf8_is_handed_on() {
        let mut bytes = bytes_of(&[publish("a?b", QoS::AtLeastOnce, 3, b"x"), Packet::PingResp]);
        bytes[5] = 0xff;
        let mut reader = Reader::new(Version::V311, 10);
        reader.room().extend_from_slice(&bytes);
        let Ok(Some(Incoming::Publish(publish))) = reader.next() else { panic!("it is a message") };
        assert_eq!((publish.topic, publish.packet_id), (&b"a\xffb"[..], 3));
        assert_eq!(reader.next().expect("framing is intact"), Some(Incoming::Other(Control::Pong)));
    }

    #[test]
    fn version_5_puts_properties_before_the_payload() {
        let bytes =
            [&b"\x30\x05\0\x01a\0x"[..], b"\x32\x0a\0\x01a\0\x07\x02\x01\x01xy", b"\x32\x06\0\x01a\0\x08\0", b"\xd0\0"]
                .concat();
        let whole = read_as(Version::V5, &bytes, bytes.len(), 100).expect("well-formed");
        assert_eq!(whole, ["a 0 0 [120]", "a 1 7 [1, 1] [120, 121]", "a 1 8 []", "Pong"]);
        for piece in 1..bytes.len() {
            assert_eq!(read_as(Version::V5, &bytes, piece, 100).expect("well-formed"), whole, "pieces of {piece}");
        }
    }

    #[test]
    fn properties_over_the_limit_are_passed_over_with_their_payload() {
        let properties = PROPERTIES_BYTES_MAX + 1;
        // A length of three bytes, in both places.
        let length = |n: usize| [n as u8 | 0x80, (n >> 7) as u8 | 0x80, (n >> 14) as u8];
        let body = [&b"\0\x01a\0\x07"[..], &length(properties), &vec![0; properties], b"payload"].concat();
        let bytes = [&[0x32][..], &length(body.len()), &body, b"\xd0\0"].concat();
        let seen = read_as(Version::V5, &bytes, 1000, 100).expect("well-formed");
        assert_eq!(seen, [&*format!("a 1 7 too large: {}", properties + 7), "Pong"]);
    }

    #[test]
    fn what_is_no_version_5_is_an_error() {
        for (what, bytes) in [
            ("no properties at all", &b"\x30\x03\0\x01a"[..]),
            ("properties longer than the packet", b"\x30\x05\0\x01a\x02\x01"),
            ("a length of properties that does not end", b"\x30\x07\0\x01a\x80\x80\x80\x80"),
            ("half a length of properties", b"\x30\x04\0\x01a\x80"),
        ] {
            assert!(read_as(Version::V5, bytes, bytes.len(), 100).is_err(), "{what}");
        }
    }

    #[test]
    fn what_is_no_mqtt_is_an_error() {
        for (what, bytes) in [
            ("remaining length of five bytes", &[0x30, 0xff, 0xff, 0xff, 0xff, 0x01][..]),
            ("QoS 3", &[0x36, 5, 0, 1, b'a', 0, 1]),
            ("packet id 0", &[0x32, 5, 0, 1, b'a', 0, 0]),
            ("PUBLISH without a topic", &[0x30, 0]),
            ("PUBLISH with half a topic length", &[0x30, 1, 0]),
            ("topic longer than the packet", &[0x30, 4, 0, 9, b'a', b'b']),
            ("no room for the packet id", &[0x32, 4, 0, 1, b'a', 0]),
            ("packet type 0", &[0x00, 2, 0, 0]),
            ("packet type 15", &[0xf0, 2, 0, 0]),
            ("PUBREL of nothing", &[0x62, 0]),
            ("SUBACK of 200 MB", &[0x90, 0xff, 0xff, 0xff, 0x5f]),
        ] {
            assert!(read(bytes, bytes.len(), 100).is_err(), "{what}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200), piece in 1..200_usize) {
            for version in [Version::V311, Version::V5] {
                let whole = read_as(version, &bytes, 200, 20);
                let pieces = read_as(version, &bytes, piece, 20);
                prop_assert_eq!(whole.is_ok(), pieces.is_ok());
                if let (Ok(whole), Ok(pieces)) = (whole, pieces) {
                    prop_assert_eq!(whole, pieces);
                }
            }
        }

        #[test]
        fn packets_of_every_type_with_any_body(kind in 0..16_u8, flags in 0..16_u8, body in proptest::collection::vec(any::<u8>(), 0..40)) {
            let mut bytes = vec![kind << 4 | flags, u8::try_from(body.len()).expect("short")];
            bytes.extend(&body);
            let _ = read(&bytes, 200, 10);
            let _ = read_as(Version::V5, &bytes, 200, 10);
        }
    }
}
