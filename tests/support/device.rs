//! A device that speaks MQTT byte by byte: it can say anything, also what no client library would.
//!
//! Written from the specifications alone, so that a test's view of the protocol shares no code with forebay's.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use super::daemon::PATIENCE;

/// Protocol versions, by the number in CONNECT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    V311 = 4,
    V5 = 5,
}

/// Both of them.
pub(crate) const VERSIONS: [Version; 2] = [Version::V311, Version::V5];

/// First bytes of the packets that a server sends.
pub(crate) const CONNACK: u8 = 0x20;
pub(crate) const PUBACK: u8 = 0x40;
pub(crate) const SUBACK: u8 = 0x90;
pub(crate) const PINGRESP: u8 = 0xd0;
pub(crate) const DISCONNECT: u8 = 0xe0;

/// A packet from the server: its first byte, and what comes after its length.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Packet {
    pub(crate) kind: u8,
    pub(crate) body: Vec<u8>,
}

/// One connection to a server on 127.0.0.1.
pub(crate) struct Device {
    stream: TcpStream,
    version: Version,
    packet_id: u16,
}

impl Device {
    /// A connection on which nothing was said yet.
    pub(crate) fn silent(port: u16, version: Version) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&SocketAddr::from(([127, 0, 0, 1], port)), PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, version, packet_id: 0 })
    }

    /// A connection that was let in, with a new session.
    #[track_caller]
    pub(crate) fn connect(port: u16, version: Version, client_id: &str) -> Self {
        Self::try_connect(port, version, client_id).unwrap_or_else(|error| panic!("{client_id} connects: {error}"))
    }

    /// As [`Device::connect`]; fails if there is no server, or if it does not let this client in.
    pub(crate) fn try_connect(port: u16, version: Version, client_id: &str) -> io::Result<Self> {
        let mut device = Self::silent(port, version)?;
        device.send(&connect(version, client_id, None))?;
        match device.receive()? {
            Some(packet) if packet.kind == CONNACK && packet.body[1] == 0 => Ok(device),
            other => Err(io::Error::other(format!("CONNECT was answered with {other:?}"))),
        }
    }

    /// Writes any bytes.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// The next packet; nothing at the end of the connection, however it came.
    pub(crate) fn receive(&mut self) -> io::Result<Option<Packet>> {
        let mut first = [0];
        match self.stream.read_exact(&mut first) {
            Err(error) if matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset) => {
                return Ok(None);
            }
            read => read?,
        }
        let (mut length, mut shift, mut byte) = (0, 0, [0x80]);
        while byte[0] & 0x80 != 0 {
            self.stream.read_exact(&mut byte)?;
            length |= usize::from(byte[0] & 0x7f) << shift;
            shift += 7;
        }
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body)?;
        Ok(Some(Packet { kind: first[0], body }))
    }

    /// Everything that comes until the server ends the connection; panics when it does not.
    #[track_caller]
    pub(crate) fn receive_until_end(&mut self) -> Vec<Packet> {
        let mut packets = Vec::new();
        loop {
            match self.receive() {
                Ok(Some(packet)) => packets.push(packet),
                Ok(None) => return packets,
                Err(error) => panic!("the server does not end the connection ({error}) after {packets:?}"),
            }
        }
    }

    /// Waits for the end of the connection, whatever comes before it.
    #[track_caller]
    pub(crate) fn receive_all(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        match self.stream.read_to_end(&mut bytes) {
            Err(error) if error.kind() != ErrorKind::ConnectionReset => panic!("the server does not end it: {error}"),
            _ => bytes,
        }
    }

    /// Publishes at QoS 1 and waits for the acknowledgement.
    #[track_caller]
    pub(crate) fn publish(&mut self, topic: &str, payload: &[u8]) {
        let id = self.send_publish(topic, payload);
        let answer = self.receive().unwrap_or_else(|error| panic!("no PUBACK for {topic}: {error}"));
        let expected = Packet { kind: PUBACK, body: id.to_be_bytes().to_vec() };
        assert_eq!(answer, Some(expected), "the answer to a PUBLISH to {topic}");
    }

    /// Publishes at QoS 1 and does not wait; gives the packet id.
    #[track_caller]
    pub(crate) fn send_publish(&mut self, topic: &str, payload: &[u8]) -> u16 {
        self.packet_id = self.packet_id.checked_add(1).unwrap_or(1);
        let packet = publish(self.version, 1, self.packet_id, topic.as_bytes(), payload);
        self.send(&packet).unwrap_or_else(|error| panic!("publish to {topic}: {error}"));
        self.packet_id
    }

    /// Whether a packet or the end of the connection comes within this time.
    pub(crate) fn hears_within(&mut self, time: Duration) -> bool {
        self.stream.set_read_timeout(Some(time)).expect("a duration above zero");
        let heard = self.stream.peek(&mut [0]);
        self.stream.set_read_timeout(Some(PATIENCE)).expect("a duration above zero");
        heard.is_ok()
    }

    pub(crate) fn version(&self) -> Version {
        self.version
    }

    /// For reading and writing in one's own way.
    pub(crate) fn into_stream(self) -> TcpStream {
        self.stream
    }
}

/// A whole packet: its first byte, the length, and the rest.
pub(crate) fn packet(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut packet = Vec::with_capacity(body.len() + 5);
    packet.push(kind);
    write_length(body.len(), &mut packet);
    packet.extend_from_slice(body);
    packet
}

/// CONNECT with a clean session and a keep-alive of a minute, as somebody or as nobody.
pub(crate) fn connect(version: Version, client_id: &str, user: Option<(&str, &str)>) -> Vec<u8> {
    let flags = if user.is_some() { 0b1100_0010 } else { 0b10 };
    let mut body = [&string(b"MQTT")[..], &[version as u8, flags, 0, 60]].concat();
    write_no_properties(version, &mut body);
    body.extend(string(client_id.as_bytes()));
    if let Some((name, password)) = user {
        body.extend(string(name.as_bytes()));
        body.extend(string(password.as_bytes()));
    }
    packet(0x10, &body)
}

/// PUBLISH; the packet id is left out at QoS 0.
pub(crate) fn publish(version: Version, qos: u8, packet_id: u16, topic: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut packet = Vec::with_capacity(payload.len() + topic.len() + 10);
    write_publish(version, qos << 1, packet_id, topic, payload, &mut packet);
    packet
}

/// The same behind what `out` holds already, with any flags.
pub(crate) fn write_publish(version: Version, flags: u8, id: u16, topic: &[u8], payload: &[u8], out: &mut Vec<u8>) {
    let has_id = flags & 0b110 != 0;
    let properties = usize::from(version == Version::V5);
    out.push(0x30 | flags);
    write_length(2 + topic.len() + 2 * usize::from(has_id) + properties + payload.len(), out);
    out.extend_from_slice(&u16::try_from(topic.len()).expect("at most 65535 bytes").to_be_bytes());
    out.extend_from_slice(topic);
    if has_id {
        out.extend_from_slice(&id.to_be_bytes());
    }
    write_no_properties(version, out);
    out.extend_from_slice(payload);
}

/// A string as MQTT writes it: two bytes of length, then the bytes.
pub(crate) fn string(bytes: &[u8]) -> Vec<u8> {
    let length = u16::try_from(bytes.len()).expect("at most 65535 bytes");
    [&length.to_be_bytes()[..], bytes].concat()
}

fn write_no_properties(version: Version, out: &mut Vec<u8>) {
    if version == Version::V5 {
        out.push(0);
    }
}

fn write_length(mut length: usize, out: &mut Vec<u8>) {
    loop {
        let more = if length > 0x7f { 0x80 } else { 0 };
        out.push(u8::try_from(length & 0x7f).expect("seven bits") | more);
        length >>= 7;
        if length == 0 {
            return;
        }
    }
}
