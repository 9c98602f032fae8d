//! Cuts what a broker sends into MQTT 3.1.1 packets.
//!
//! PUBLISH is read in place, without copying, and even if it is something we cannot store: a payload over the limit is
//! passed over without ever being held in memory, and a topic that is not UTF-8 is handed on as bytes, so that neither
//! can make the broker deliver the same message to us for ever. The other packets are rumqttc's. No I/O.

use bytes::{Buf as _, BytesMut};
use rumqttc::mqttbytes::{
    self, QoS,
    v4::{self, Packet},
};

/// A SUBACK of some tens of thousands of filters; nothing that a broker sends us, but PUBLISH, is longer.
const OTHER_PACKET_BYTES_MAX: usize = 128 * 1024;

/// A read buffer larger than this is given back once a large packet has been dealt with.
const BUFFER_KEPT_BYTES: usize = 1024 * 1024;

/// Least room that is offered to a read.
const READ_BYTES: usize = 64 * 1024;

/// Bytes in, packets out.
#[derive(Debug)]
pub(super) struct Reader {
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
    Other(Packet),
}

/// A message.
#[derive(Debug, PartialEq)]
pub(super) struct Publish<'b> {
    pub(super) qos: QoS,
    /// 0 if the QoS is 0.
    pub(super) packet_id: u16,
    /// UTF-8, if the broker keeps to the standard.
    pub(super) topic: &'b [u8],
    pub(super) payload: Payload<'b>,
}

/// What a message carries.
#[derive(Debug, PartialEq)]
pub(super) enum Payload<'b> {
    Whole(&'b [u8]),
    /// Over the limit, and not here.
    TooLarge {
        bytes: usize,
    },
}

/// Bytes that are not MQTT. The connection has to be given up, because nobody knows where the next packet begins.
#[derive(Debug, thiserror::Error)]
pub(super) enum BadPacket {
    #[error("the broker sent what is not MQTT 3.1.1: {0}")]
    Malformed(#[from] mqttbytes::Error),
    #[error("the broker sent a packet of {bytes} bytes and type {kind}, which is never that long")]
    TooLong { kind: u8, bytes: usize },
}

impl Reader {
    /// A reader of messages with payloads up to a limit.
    pub(super) fn new(payload_bytes_max: usize) -> Self {
        Self { buffer: BytesMut::new(), done: 0, pass_over: 0, swollen: false, payload_bytes_max }
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
        let packet = Packet::read(&mut self.buffer.split_to(frame.bytes()), OTHER_PACKET_BYTES_MAX)?;
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
        let payload_start = topic.end + if qos == QoS::AtMostOnce { 0 } else { 2 };
        if payload_start > frame.bytes() {
            return Err(mqttbytes::Error::BoundaryCrossed(topic.len()).into());
        }
        let payload_bytes = frame.bytes() - payload_start;
        let too_large = payload_bytes > self.payload_bytes_max;
        let needed = if too_large { payload_start } else { frame.bytes() };
        if self.buffer.len() < needed {
            return Ok(None);
        }
        let packet_id = match qos {
            QoS::AtMostOnce => 0,
            _ => read_u16(&self.buffer, topic.end).filter(|id| *id != 0).ok_or(mqttbytes::Error::PacketIdZero)?,
        };
        self.done = needed;
        self.pass_over = frame.bytes() - needed;
        let payload = if too_large {
            Payload::TooLarge { bytes: payload_bytes }
        } else {
            Payload::Whole(&self.buffer[payload_start..needed])
        };
        Ok(Some(Incoming::Publish(Publish { qos, packet_id, topic: &self.buffer[topic], payload })))
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
        let mut body_bytes = 0;
        for (i, byte) in rest.iter().take(4).enumerate() {
            body_bytes |= usize::from(byte & 0x7f) << (7 * i);
            if byte & 0x80 == 0 {
                return Ok(Some(Self { first_byte, header_bytes: 2 + i, body_bytes }));
            }
        }
        if rest.len() >= 4 { Err(mqttbytes::Error::MalformedRemainingLength.into()) } else { Ok(None) }
    }

    fn is_publish(self) -> bool {
        self.first_byte >> 4 == mqttbytes::PacketType::Publish as u8
    }

    fn bytes(self) -> usize {
        self.header_bytes + self.body_bytes
    }
}

fn read_u16(bytes: &[u8], at: usize) -> Option<u16> {
    let bytes = bytes.get(at..at + 2)?;
    Some(u16::from(bytes[0]) << 8 | u16::from(bytes[1]))
}

/// Appends a packet to what is to be sent.
pub(super) fn write(packet: &Packet, out: &mut BytesMut) {
    packet.write(out, usize::MAX).expect("validated settings and acknowledgements fit into a packet");
}

/// Appends an acknowledgement.
pub(super) fn write_ack(ack: Ack, out: &mut BytesMut) {
    write(
        &match ack {
            Ack::Received(id) => Packet::PubAck(v4::PubAck::new(id)),
            Ack::ReceivedOnce(id) => Packet::PubRec(v4::PubRec::new(id)),
        },
        out,
    );
}

/// What a broker is told once a message is durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ack {
    /// PUBACK, for QoS 1.
    Received(u16),
    /// PUBREC, for QoS 2.
    ReceivedOnce(u16),
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rumqttc::mqttbytes::v4::{PubRel, Publish as Sent, SubAck, SubscribeReasonCode};

    use super::*;

    fn publish(topic: &str, qos: QoS, packet_id: u16, payload: &[u8]) -> Packet {
        let mut packet = Sent::new(topic, qos, payload);
        packet.pkid = packet_id;
        Packet::Publish(packet)
    }

    fn bytes_of(packets: &[Packet]) -> Vec<u8> {
        let mut bytes = BytesMut::new();
        packets.iter().for_each(|packet| write(packet, &mut bytes));
        bytes.to_vec()
    }

    /// What comes out, in words, if the bytes come in pieces.
    fn read(bytes: &[u8], piece: usize, payload_bytes_max: usize) -> Result<Vec<String>, BadPacket> {
        let mut reader = Reader::new(payload_bytes_max);
        let mut packets = Vec::new();
        for piece in bytes.chunks(piece.max(1)) {
            reader.room().extend_from_slice(piece);
            while let Some(packet) = reader.next()? {
                packets.push(match packet {
                    Incoming::Publish(Publish { qos, packet_id, topic, payload }) => {
                        let topic = String::from_utf8_lossy(topic);
                        match payload {
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
        assert_eq!(whole[1], "PingResp");
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
        let mut reader = Reader::new(10);
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
        let mut reader = Reader::new(4_000_000);
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
        let mut reader = Reader::new(10);
        reader.room().extend_from_slice(&bytes);
        let Ok(Some(Incoming::Publish(publish))) = reader.next() else { panic!("it is a message") };
        assert_eq!((publish.topic, publish.packet_id), (&b"a\xffb"[..], 3));
        assert_eq!(reader.next().expect("framing is intact"), Some(Incoming::Other(Packet::PingResp)));
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
            let whole = read(&bytes, 200, 20);
            let pieces = read(&bytes, piece, 20);
            prop_assert_eq!(whole.is_ok(), pieces.is_ok());
            if let (Ok(whole), Ok(pieces)) = (whole, pieces) {
                prop_assert_eq!(whole, pieces);
            }
        }

        #[test]
        fn packets_of_every_type_with_any_body(kind in 0..16_u8, flags in 0..16_u8, body in proptest::collection::vec(any::<u8>(), 0..40)) {
            let mut bytes = vec![kind << 4 | flags, u8::try_from(body.len()).expect("short")];
            bytes.extend(&body);
            let _ = read(&bytes, 200, 10);
        }
    }
}
