//! The devices: MQTT 3.1.1 packets made beforehand, written as fast as acknowledgements come.
//!
//! One thread per connection and hardly any work per message, because the generator runs on the processors that it
//! measures. Acknowledgements must come for every message and in order, which is checked.

#![expect(clippy::big_endian_bytes, reason = "so MQTT writes its numbers")]

use std::{
    io::{Read, Write},
    net::TcpStream,
    ops::Range,
    thread,
    time::{Duration, Instant},
};

pub(crate) const CONNECTIONS: usize = 4;
/// Messages without acknowledgement that a connection allows itself.
pub(crate) const IN_FLIGHT: usize = 200;
pub(crate) const TOPICS_PER_CONNECTION: usize = 250;

/// Packets that are sent round and round. More than are in flight, so that their ids are free again by then.
const PACKETS: usize = 4 * TOPICS_PER_CONNECTION;

/// With nothing acknowledged for so long, something is wrong.
const SILENCE_MAX: Duration = Duration::from_secs(60);

const CONNACK: [u8; 4] = [0x20, 2, 0, 0];
const PUBACK_BYTES: usize = 4;

/// What a message says.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Payload {
    /// So many random bytes.
    Random(usize),
    /// What a sensor says of itself, 145 bytes of it.
    Json,
}

impl Payload {
    fn make(self, random: &mut fastrand::Rng) -> Vec<u8> {
        match self {
            Self::Random(bytes) => std::iter::repeat_with(|| random.u8(..)).take(bytes).collect(),
            Self::Json => format!(
                r#"{{"device":"sensor-{:03}","time":17000{:08},"temperature":{}.{:02},"humidity":{}.{},"battery":3.{:02},"status":"ok","firmware":"1.4.2","rssi":-{}}}"#,
                random.u32(..250),
                random.u32(..100_000_000),
                random.u32(10..40),
                random.u32(..100),
                random.u32(20..90),
                random.u32(..10),
                random.u32(..100),
                random.u32(40..99),
            )
            .into_bytes(),
        }
    }
}

/// What is published in one run.
pub(crate) struct Traffic {
    pub(crate) messages: u64,
    packets: Vec<Packets>,
}

/// One connection's packets, one after the other, all of one length.
struct Packets {
    bytes: Vec<u8>,
    each: usize,
}

impl Traffic {
    /// With so many topics for each connection.
    pub(crate) fn new(payload: Payload, topics: usize, messages: u64) -> Self {
        let packets = (0..CONNECTIONS).map(|connection| Packets::new(connection, payload, topics)).collect();
        Self { messages, packets }
    }

    /// Publishes everything; returns how long it took until the last acknowledgement.
    pub(crate) fn publish(&self, port: u16) -> Duration {
        let connections: Vec<_> = (0..CONNECTIONS).map(|number| connect(port, number)).collect();
        let begun = Instant::now();
        thread::scope(|scope| {
            for (number, connection) in connections.into_iter().enumerate() {
                let packets = &self.packets[number];
                let (count, connections) = (self.messages, CONNECTIONS as u64);
                let share = count / connections + u64::from((number as u64) < count % connections);
                scope.spawn(move || publish(connection, packets, share));
            }
        });
        begun.elapsed()
    }
}

impl Packets {
    fn new(connection: usize, payload: Payload, topics: usize) -> Self {
        let mut random = fastrand::Rng::with_seed(connection as u64);
        let mut bytes = Vec::new();
        for place in 0..PACKETS {
            let topic = format!("plant/{connection}/sensor-{:03}/value", place % topics);
            let payload = payload.make(&mut random);
            bytes.push(0x32); // PUBLISH, QoS 1
            remaining_length(2 + topic.len() + 2 + payload.len(), &mut bytes);
            string(&topic, &mut bytes);
            bytes.extend(packet_id(place).to_be_bytes());
            bytes.extend(payload);
        }
        let each = bytes.len() / PACKETS;
        Self { bytes, each }
    }

    fn get(&self, places: Range<usize>) -> &[u8] {
        &self.bytes[places.start * self.each..places.end * self.each]
    }
}

fn packet_id(place: usize) -> u16 {
    u16::try_from(place + 1).expect("there are fewer than 65536 packets")
}

fn connect(port: u16, number: usize) -> TcpStream {
    let mut connection = TcpStream::connect(("127.0.0.1", port)).expect("the listener takes connections");
    connection.set_nodelay(true).expect("a socket option");
    connection.set_read_timeout(Some(SILENCE_MAX)).expect("a socket option");
    connection.set_write_timeout(Some(SILENCE_MAX)).expect("a socket option");
    let mut connect = Vec::new();
    string("MQTT", &mut connect);
    connect.extend([4, 2, 0, 0]); // 3.1.1, clean session, no keep-alive
    string(&format!("bench-{number}"), &mut connect);
    let mut packet = vec![0x10];
    remaining_length(connect.len(), &mut packet);
    packet.extend(connect);
    connection.write_all(&packet).expect("CONNECT is sent");
    let mut connack = [0; CONNACK.len()];
    connection.read_exact(&mut connack).expect("CONNECT is answered");
    assert_eq!(connack, CONNACK, "the listener lets us in");
    connection
}

fn publish(mut connection: TcpStream, packets: &Packets, count: u64) {
    let mut sent = 0;
    let mut acknowledged = 0;
    // Of these, the first are read and not yet looked at.
    let mut buffer = [0; IN_FLIGHT * PUBACK_BYTES];
    let mut filled = 0;
    while acknowledged < count {
        while sent < count && sent - acknowledged < IN_FLIGHT as u64 {
            let place = (sent % PACKETS as u64) as usize;
            let room = IN_FLIGHT as u64 - (sent - acknowledged);
            let some = room.min(count - sent).min((PACKETS - place) as u64);
            connection.write_all(packets.get(place..place + some as usize)).expect("messages are taken");
            sent += some;
        }
        let read = connection.read(&mut buffer[filled..]).expect("messages are acknowledged");
        assert!(read > 0, "the listener closed the connection");
        filled += read;
        let whole = filled - filled % PUBACK_BYTES;
        for puback in buffer[..whole].chunks_exact(PUBACK_BYTES) {
            let [high, low] = packet_id((acknowledged % PACKETS as u64) as usize).to_be_bytes();
            assert_eq!(puback, [0x40, 2, high, low], "the next message is acknowledged");
            acknowledged += 1;
        }
        buffer.copy_within(whole..filled, 0);
        filled -= whole;
    }
}

fn string(text: &str, out: &mut Vec<u8>) {
    let length = u16::try_from(text.len()).expect("a short text");
    out.extend(length.to_be_bytes());
    out.extend(text.as_bytes());
}

fn remaining_length(mut length: usize, out: &mut Vec<u8>) {
    loop {
        let more = if length < 128 { 0 } else { 128 };
        out.push((length % 128) as u8 | more);
        length /= 128;
        if length == 0 {
            return;
        }
    }
}
