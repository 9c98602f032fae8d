//! Brokers of version 5.

use super::{super::config::Version, *};

/// A broker's end of a version 5 connection, byte by byte.
struct Peer5(TcpStream);

impl Peer5 {
    /// Waits for a connection, and gives CONNECT's body.
    async fn connection(listener: &TcpListener) -> (Self, Vec<u8>) {
        let (tcp, _) = timeout(DEADLINE, listener.accept()).await.expect("it connects").expect("accepted");
        let mut peer = Self(tcp);
        let (first, body) = peer.packet().await;
        assert_eq!((first, &body[..7]), (0x10, &b"\0\x04MQTT\x05"[..]));
        (peer, body)
    }

    async fn packet(&mut self) -> (u8, Vec<u8>) {
        let mut header = [0; 2];
        timeout(DEADLINE, self.0.read_exact(&mut header)).await.expect("a packet").expect("an open connection");
        assert!(header[1] < 128, "a short one");
        let mut body = vec![0; header[1].into()];
        timeout(DEADLINE, self.0.read_exact(&mut body)).await.expect("a packet").expect("an open connection");
        (header[0], body)
    }

    async fn send(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).await.expect("an open connection");
    }
}

#[tokio::test]
async fn a_version_5_brokers_terms_are_kept_to_and_its_reasons_told() {
    let (listener, address) = listener().await;
    let topics = ["plant/one/#", "plant/two/#", "plant/three/#"].map(str::to_owned).to_vec();
    let gateway = Gateway::start(address, |config, _| {
        (config.version, config.topics) = (Version::V5, Some(topics.clone()));
    });
    let (mut peer, connect) = Peer5::connection(&listener).await;
    assert_eq!(connect[7], 0, "no clean start, no will, no user");
    // A session for ever, and as many messages as may be in flight.
    assert_eq!(connect[10..], *b"\x08\x11\xff\xff\xff\xff\x21\x27\x10\0\x09gateway-7");
    // A server keep-alive of a second, packets of at most 40 bytes, a session of a minute.
    peer.send(b"\x20\x10\0\0\x0d\x13\0\x01\x27\0\0\0\x28\x11\0\0\0\x3c").await;
    let mut asked = Vec::new();
    for answers in [&[1, 1][..], &[0x97]] {
        let (first, body) = loop {
            let packet = peer.packet().await;
            if packet.0 != 0xc0 {
                break packet;
            }
            peer.send(&[0xd0, 0]).await;
        };
        assert_eq!((first, &body[..3]), (0x82, &[0, 1, 0][..]));
        assert!(body.len() + 2 <= 40, "{body:?}");
        asked.extend(body[3..].to_vec());
        peer.send(&[&[0x90, 3 + answers.len() as u8, 0, 1, 0], answers].concat()).await;
    }
    let filter = |topic: &String| [&[0, topic.len() as u8], topic.as_bytes(), &[0x11]].concat();
    assert_eq!(asked, topics.iter().flat_map(filter).collect::<Vec<_>>(), "at QoS 1, without what is retained already");
    let last_error = || gateway.stats.last_error().map(|error| error.message).unwrap_or_default();
    until("the refusal is told", || last_error().contains("`plant/three/#`: quota exceeded")).await;

    let idle = Instant::now();
    // It asks again for what was refused.
    let mut packet = peer.packet().await;
    if packet.0 == 0x82 {
        peer.send(&[0x90, 4, 0, 1, 0, 1]).await;
        packet = peer.packet().await;
    }
    assert_eq!(packet, (0xc0, Vec::new()));
    assert!(idle.elapsed() < Duration::from_secs(10), "it keeps to the server's keep-alive");
    peer.send(&[0xd0, 0]).await;
    // Properties that are none, and a payload: the message is what counts.
    peer.send(b"\x32\x0f\0\x01t\0\x07\x07\x26\0\x01a\0\x01b21").await;
    peer.send(b"\x32\x0a\0\x01t\0\x08\x02\x99\x9922").await;
    assert_eq!(peer.packet().await, (0x40, vec![0, 7]));
    assert_eq!(peer.packet().await, (0x40, vec![0, 8]));
    assert_eq!(gateway.payloads(), ["21", "22"]);
    assert_eq!(gateway.refused("bad-properties"), 1);
    peer.send(b"\xe0\x0c\x8b\x0a\x1f\0\x07at noon").await;
    until("its reason is told", || last_error().contains("server shutting down (at noon)")).await;

    let (mut peer, _) = Peer5::connection(&listener).await;
    peer.send(&[0x20, 3, 0, 0x87, 0]).await;
    until("the refusal is told", || last_error().contains("refuses us: not authorized")).await;
    gateway.stop().await;
}

#[tokio::test]
async fn whatever_a_version_5_broker_sends_it_is_connected_to_again() {
    let (listener, address) = listener().await;
    let gateway = Gateway::start(address, |config, _| config.version = Version::V5);
    for garbage in [
        &b"HTTP/1.1 400 Bad Request\r\n\r\n"[..],
        b"\x20\x05\0\0\xff\xff\xff",
        b"\x20\x03\0\0\0\x30\x04\0\x01a\xff",
        b"\x20\x03\0\0\0\x90\x03\0\x01\x7f",
        b"\x20\x03\0\0\0\xe0\x04\x8b\x7f\x1f\0",
        b"\x20\x03\0\0\0\xf0\0",
    ] {
        let (mut peer, _) = Peer5::connection(&listener).await;
        peer.send(garbage).await;
        // It goes by itself.
        let _ = timeout(DEADLINE, peer.0.read_to_end(&mut Vec::new())).await.expect("it goes");
    }
    let (mut peer, _) = Peer5::connection(&listener).await;
    peer.send(b"\x20\x03\0\0\0").await;
    assert_eq!(peer.packet().await.0, 0x82);
    gateway.stop().await;
}
