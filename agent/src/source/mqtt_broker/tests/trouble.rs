//! Clients that do what they must not, and a log that does not take records.

use super::*;

/// A client that does nothing wrong, to see that others' trouble is not its own.
async fn bystander(gateway: &Gateway) -> Raw {
    Raw::connect_v3(gateway, "bystander", true, false).await
}

async fn still_served(mut bystander: Raw) {
    bystander.send(&publish(1, "bystander", 1, "fine")).await;
    bystander.expect(&[0x40, 2, 0, 1]).await;
}

#[tokio::test]
async fn twenty_megabytes_are_refused_and_told() {
    let gateway = Gateway::start().await;
    let bystander = bystander(&gateway).await;
    let payload = "x".repeat(20_000_000);
    let (mut raw, _) = Raw::connect_v5(&gateway, "device-1", true, b"").await;
    raw.send(&publish_v5(1, "plant/large", 1, b"", &payload)).await;
    raw.expect_disconnect(0x95).await;

    let mut raw = Raw::connect_v3(&gateway, "device-2", true, false).await;
    let _ = raw.0.write_all(&publish(1, "plant/large", 1, &payload)).await;
    drop(raw);
    until("both are counted", || gateway.refused("packet-too-large") == 2).await;
    let error = gateway.last_error();
    assert!(error.starts_with("device-1: a packet to topic `plant/large` of 20000016 bytes is over"), "{error}");
    still_served(bystander).await;
}

#[tokio::test]
async fn garbage_ends_only_its_own_connection() {
    let gateway = Gateway::start().await;
    let bystander = bystander(&gateway).await;
    let mut raw = Raw::connect(&gateway).await;
    raw.send(b"GET / HTTP/1.1\r\nHost: gateway\r\n\r\n").await;
    raw.expect_end().await;
    let mut raw = Raw::connect_v3(&gateway, "device-1", true, false).await;
    raw.send(b"\x00\x00garbage").await;
    raw.expect_end().await;
    assert_eq!(gateway.refused("malformed"), 2);
    still_served(bystander).await;
}

#[tokio::test]
async fn an_unknown_protocol_level_is_answered() {
    let gateway = Gateway::start().await;
    let mut raw = Raw::connect(&gateway).await;
    raw.send(&connect(6, "a", 2, 60, b"", b"")).await;
    raw.expect(&[0x20, 2, 0, 1]).await;
    raw.expect_end().await;
}

#[tokio::test]
async fn topics_that_are_not_utf_8_or_hold_wildcards_are_refused() {
    let gateway = Gateway::start().await;
    for (topic, reason, kind) in [(&b"\xff\xfe"[..], 0x81, "not-utf8"), (b"a/#", 0x90, "bad-topic")] {
        let (mut raw, _) = Raw::connect_v5(&gateway, "a", true, b"").await;
        let body = [&[0, topic.len() as u8], topic, &[0, 1, 0], b"payload"].concat();
        raw.send(&packet(0x32, &body)).await;
        raw.expect_disconnect(reason).await;
        assert_eq!(gateway.refused(kind), 1);
    }
    assert_eq!(gateway.data(), [""; 0]);
}

#[tokio::test]
async fn records_before_a_mistake_are_stored_and_acknowledged() {
    let gateway = Gateway::start().await;
    let (mut raw, _) = Raw::connect_v5(&gateway, "a", true, b"").await;
    let good = publish_v5(1, "t", 1, b"", "good");
    raw.send(&[good, vec![0x00, 0x00]].concat()).await;
    raw.expect(&[0x40, 2, 0, 1]).await;
    raw.expect_disconnect(0x81).await;
    assert_eq!(gateway.data(), ["good"]);
}

#[tokio::test]
async fn more_unacknowledged_messages_than_announced_are_refused() {
    let mut setup = Setup { rate_limit: Some(slow()), ..Setup::default() };
    setup.settings.max_in_flight = NonZeroU16::new(2).expect("not zero");
    let gateway = Gateway::with(setup).await;
    let (mut raw, _) = Raw::connect_v5(&gateway, "a", true, b"").await;
    let messages: Vec<u8> = (1..=3).flat_map(|n| publish_v5(1, "t", n, b"", "x")).collect();
    raw.send(&messages).await;
    raw.expect(&[0x40, 2, 0, 1]).await;
    raw.expect(&[0x40, 2, 0, 2]).await;
    raw.expect_disconnect(0x93).await;
}

#[tokio::test]
async fn wrong_credentials_are_refused_and_told() {
    let mut setup = Setup::default();
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), "anna:secret\n").expect("written");
    setup.settings.password_file = Some(file.path().to_owned());
    setup.settings.allow_anonymous = false;
    let gateway = Gateway::with(setup).await;
    for (level, flags, rest, answer) in [
        (4, 0xc2, [text("anna"), text("wrong")].concat(), &[0x20, 2, 0, 4][..]),
        (4, 0xc2, [text("bob"), text("secret")].concat(), &[0x20, 2, 0, 4]),
        (4, 0x02, vec![], &[0x20, 2, 0, 5]),
        (5, 0xc2, [text("anna"), text("wrong")].concat(), &[0x20, 3, 0, 0x86, 0]),
        (5, 0x02, vec![], &[0x20, 3, 0, 0x87, 0]),
    ] {
        let mut raw = Raw::connect(&gateway).await;
        raw.send(&connect(level, "device-1", flags, 60, b"", &rest)).await;
        raw.expect(answer).await;
        raw.expect_end().await;
    }
    assert_eq!(gateway.refused("credentials"), 5);
    let error = gateway.last_error();
    assert!(error.starts_with("device-1 at 127.0.0.1:") && !error.contains("secret"), "{error}");

    let mut raw = Raw::connect(&gateway).await;
    raw.send(&connect(4, "device-1", 0xc2, 60, b"", &[text("anna"), text("secret")].concat())).await;
    raw.expect(&[0x20, 2, 0, 0]).await;
}

#[tokio::test]
async fn a_silent_client_is_given_up_after_one_and_a_half_keep_alives() {
    let gateway = Gateway::start().await;
    let mut raw = Raw::connect(&gateway).await;
    raw.send(&connect(5, "a", 2, 1, b"", b"")).await;
    raw.packet().await;
    let connected = Instant::now();
    raw.expect_disconnect(0x8d).await;
    assert!(connected.elapsed() >= Duration::from_millis(1490), "{:?}", connected.elapsed());
    assert_eq!(gateway.refused("keep-alive"), 1);
}

#[tokio::test]
async fn a_client_that_is_not_listened_to_is_not_silent() {
    let gateway = Gateway::with(Setup { rate_limit: Some(slow()), ..Setup::default() }).await;
    let mut raw = Raw::connect(&gateway).await;
    raw.send(&connect(5, "a", 2, 1, b"", b"")).await;
    raw.packet().await;
    // 20 at once, then 20 per second: three seconds in which its pings are not read.
    // These use up what a second allows, and two seconds more, which the next one has to wait for.
    let messages: Vec<u8> = (1..=60).flat_map(|n| publish_v5(1, "t", n, b"", "x")).collect();
    raw.send(&messages).await;
    for n in 1..=60 {
        raw.expect(&[0x40, 2, 0, n]).await;
    }
    let sent = Instant::now();
    raw.send(&publish_v5(1, "t", 61, b"", "x")).await;
    raw.expect(&[0x40, 2, 0, 61]).await;
    assert!(sent.elapsed() > Duration::from_millis(1600), "the log was to be slow: {:?}", sent.elapsed());
    raw.send(&[0xc0, 0]).await;
    raw.expect(&[0xd0, 0]).await;
}

#[tokio::test]
async fn what_the_log_does_not_take_is_not_acknowledged() {
    let gateway = Gateway::start().await;
    let (mut raw, _) = Raw::connect_v5(&gateway, "a", true, b"").await;
    let mut raw_v3 = Raw::connect_v3(&gateway, "b", true, false).await;
    gateway.store.close();
    raw.send(&publish_v5(1, "t", 1, b"", "x")).await;
    raw.expect_disconnect(0x83).await;
    raw_v3.send(&publish(2, "t", 1, "x")).await;
    raw_v3.expect_end().await;
    assert_eq!(gateway.refused("not-stored"), 2);
    gateway.stop().await;
}

#[tokio::test]
async fn connections_over_the_limit_are_turned_away() {
    let mut setup = Setup::default();
    setup.settings.max_connections = 2;
    let gateway = Gateway::with(setup).await;
    let first = Raw::connect_v3(&gateway, "a", true, false).await;
    let _second = Raw::connect_v3(&gateway, "b", true, false).await;
    Raw::connect(&gateway).await.expect_end().await;
    assert_eq!(gateway.refused("too-many-connections"), 1);
    drop(first);
    until("there is room again", || gateway.stats.connections.load(Relaxed) == 1).await;
    Raw::connect_v3(&gateway, "c", true, false).await;
}

#[tokio::test]
async fn an_address_in_use_is_told_at_once() {
    let gateway = Gateway::start().await;
    let settings = Settings { listen: Some(gateway.address), ..Setup::default().settings };
    let error = Listener::bind(settings).await.err().expect("it is in use");
    let error = format!("{error:#}");
    assert!(error.starts_with(&format!("listen for MQTT on {}: ", gateway.address)), "{error}");
}

/// 20 records a second.
fn slow() -> RateLimit {
    RateLimit { records_per_second: 20, bytes_per_second: 1_000_000 }
}

#[tokio::test]
async fn a_changed_password_file_counts_from_the_next_connection_on() {
    let mut setup = Setup::default();
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), "anna:secret\n").expect("written");
    setup.settings.password_file = Some(file.path().to_owned());
    setup.settings.allow_anonymous = false;
    let gateway = Gateway::with(setup).await;
    let hashed = password_line("anna", b"another", ITERATIONS).expect("a line");
    for (text_of_file, password, answer) in
        [(None, "secret", 0), (Some(&*hashed), "secret", 4), (None, "another", 0), (Some("broken"), "another", 0)]
    {
        if let Some(text) = text_of_file {
            std::fs::write(file.path(), text).expect("written");
        }
        let mut raw = Raw::connect(&gateway).await;
        raw.send(&connect(4, "device-1", 0xc2, 60, b"", &[text("anna"), text(password)].concat())).await;
        raw.expect(&[0x20, 2, 0, answer]).await;
    }
    assert_eq!((gateway.refused("credentials"), gateway.refused("unreadable-file")), (1, 1));
}

#[tokio::test]
async fn what_no_rule_allows_is_answered_counted_and_not_stored() {
    let mut setup = Setup::default();
    let rule = Rule { publish: vec!["own/{client-id}/#".into()], ..Rule::default() };
    setup.settings.rules = rules::Rules::validate(&[rule], "rules", &mut crate::config::Problems::default());
    let gateway = Gateway::with(setup).await;
    let (mut raw, _) = Raw::connect_v5(&gateway, "a", true, b"").await;
    raw.send(&[publish_v5(1, "own/a/t", 1, b"", "mine"), publish_v5(1, "own/b/t", 2, b"", "not mine")].concat()).await;
    raw.expect(&[0x40, 2, 0, 1, 0x40, 4, 0, 2, 0x87, 0]).await;
    raw.send(&publish_v5(2, "own/b/t", 3, b"", "not mine")).await;
    raw.expect(&[0x50, 4, 0, 3, 0x87, 0]).await;
    let mut old = Raw::connect_v3(&gateway, "b", true, false).await;
    old.send(
        &[publish(1, "own/a/t", 1, "not mine"), publish(2, "own/a/t", 2, "not mine"), publish(1, "own/b/t", 3, "mine")]
            .concat(),
    )
    .await;
    old.expect(&[0x40, 2, 0, 1, 0x50, 2, 0, 2, 0x40, 2, 0, 3]).await;
    old.send(&[0x62, 2, 0, 2]).await;
    old.expect(&[0x70, 2, 0, 2]).await;
    assert_eq!(gateway.data(), ["mine", "mine"]);
    assert_eq!(gateway.refused("not-allowed"), 4);

    let will = [text("own/other/gone"), text("lost")].concat();
    let mut raw = Raw::connect(&gateway).await;
    raw.send(&connect(4, "c", 0x06, 60, b"", &will)).await;
    raw.expect(&[0x20, 2, 0, 5]).await;
    assert_eq!(gateway.refused("not-allowed"), 5);
}

#[tokio::test]
async fn a_flood_is_read_at_the_clients_rate() {
    let mut setup = Setup::default();
    setup.settings.client_rate_limit = Some(RateLimit { records_per_second: 100, bytes_per_second: 1 << 20 });
    let gateway = Gateway::with(setup).await;
    let bystander = bystander(&gateway).await;
    let mut raw = Raw::connect_v3(&gateway, "flood", true, false).await;
    let (begun, large) = (Instant::now(), "x".repeat(4096));
    for id in 1..=25 {
        // Eight messages and four pings, and much more in all than one read brings.
        let messages = (0..8).flat_map(|_| publish(0, "t", 0, &large));
        let mut bytes: Vec<u8> = messages.chain([0xc0, 0].repeat(4)).collect();
        bytes.extend(publish(1, "t", id, "x"));
        raw.send(&bytes).await;
    }
    still_served(bystander).await;
    for _ in 0..25 {
        raw.expect_among_pongs(0x40).await;
    }
    // 325 packets: a second's worth at once, and the rest at 100 a second.
    assert!(begun.elapsed() >= Duration::from_millis(1500), "{:?}", begun.elapsed());
    assert_eq!(gateway.data().len(), 226);
    assert_eq!(gateway.stats.refusals(), [].into(), "a client that is slowed down has done nothing wrong");
}

#[tokio::test]
async fn whatever_comes_to_the_websocket_listener_ends_only_its_own_connection() {
    let gateway = Gateway::start().await;
    let bystander = bystander(&gateway).await;
    let handshake = "GET /mqtt HTTP/1.1\r\nHost: gateway\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                     Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let with_protocol = format!("{handshake}Sec-WebSocket-Protocol: mqtt\r\n\r\n");
    for (what, opening, frames) in [
        ("garbage", "\0\x01\x02garbage\r\n\r\n", &b""[..]),
        ("MQTT without WebSocket", "\x10\x0c\0\x04MQTT\x04\x02\0\x3c\0\0\r\n\r\n", b""),
        ("an endless header", &*format!("GET / HTTP/1.1\r\nX: {}", "x".repeat(200_000)), b""),
        ("no subprotocol", &*format!("{handshake}\r\n"), b""),
        ("a reserved opcode", &*with_protocol, b"\x83\x80\0\0\0\0"),
        ("an unmasked frame", &*with_protocol, b"\x82\x02\xc0\0"),
        ("a text frame", &*with_protocol, b"\x81\x81\0\0\0\0x"),
        ("a frame of 8 EiB", &*with_protocol, b"\x82\xff\x7f\xff\xff\xff\xff\xff\xff\xff\0\0\0\0"),
        ("no CONNECT", &*with_protocol, b"\x82\x82\0\0\0\0\xc0\0"),
    ] {
        let before: u64 = gateway.stats.refusals().values().sum();
        let mut socket = TcpStream::connect(gateway.websocket).await.expect("it listens");
        // It may be closed before all is sent.
        let _ = socket.write_all(opening.as_bytes()).await;
        if opening == with_protocol {
            upgraded(&mut socket).await;
        }
        let _ = socket.write_all(frames).await;
        let mut rest = Vec::new();
        let _ = timeout(PATIENCE, socket.read_to_end(&mut rest)).await.expect("it ends");
        until(what, || gateway.stats.refusals().values().sum::<u64>() == before + 1).await;
    }
    assert_eq!((gateway.refused("websocket"), gateway.refused("malformed")), (4, 5), "{:?}", gateway.stats.refusals());
    still_served(bystander).await;
}

/// Reads the answer to a request for WebSocket, which is to be granted.
async fn upgraded(socket: &mut TcpStream) {
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        let read = timeout(PATIENCE, socket.read_buf(&mut answer)).await.expect("an answer").expect("open");
        assert!(read > 0, "{}", String::from_utf8_lossy(&answer));
    }
    let answer = String::from_utf8_lossy(&answer).to_lowercase();
    assert!(answer.starts_with("http/1.1 101") && answer.contains("sec-websocket-protocol: mqtt\r\n"), "{answer}");
}

#[tokio::test]
async fn mqtt_may_be_cut_into_websocket_frames_anywhere() {
    let gateway = Gateway::start().await;
    let mut socket = TcpStream::connect(gateway.websocket).await.expect("it listens");
    let handshake = "GET / HTTP/1.1\r\nHost: gateway\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                     Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
                     Sec-WebSocket-Protocol: mqttv3.1, mqtt\r\n\r\n";
    socket.write_all(handshake.as_bytes()).await.expect("sent");
    upgraded(&mut socket).await;
    let mqtt = [connect(4, "a", 2, 60, b"", b""), publish(1, "t", 1, "one"), publish(1, "t", 2, "two")].concat();
    for piece in mqtt.chunks(3) {
        let frame = [&[0x82, 0x80 | piece.len() as u8, 0, 0, 0, 0][..], piece].concat();
        socket.write_all(&frame).await.expect("sent");
    }
    until("both are stored", || gateway.data() == ["one", "two"]).await;
    let expected = [0x20, 2, 0, 0, 0x40, 2, 0, 1, 0x40, 2, 0, 2];
    let (mut heard, mut bytes) = (Vec::new(), Vec::new());
    while heard.len() < expected.len() {
        let read = timeout(PATIENCE, socket.read_buf(&mut bytes)).await.expect("an answer").expect("open");
        assert!(read > 0, "{heard:?}");
        while bytes.len() >= 2 && bytes.len() >= 2 + usize::from(bytes[1]) {
            assert_eq!(bytes[0], 0x82, "a binary frame");
            heard.extend(bytes.drain(..2 + usize::from(bytes[1])).skip(2));
        }
    }
    assert_eq!(heard, expected);
    gateway.stop().await;
}

#[tokio::test]
async fn what_a_version_5_client_says_about_a_message_becomes_tags() {
    let gateway = Gateway::start().await;
    let (mut raw, _) = Raw::connect_v5(&gateway, "a", true, b"").await;
    let properties = b"\x03\0\x08text/csv\x26\0\x04unit\0\x01C\x08\0\x01r\x09\0\x02\xff\xfe\x26\0\x04unit\0\x01F";
    raw.send(&publish_v5(1, "t", 1, properties, "21.5")).await;
    raw.send(&publish_v5(1, "t", 2, b"", "22.5")).await;
    raw.expect(&[0x40, 2, 0, 1, 0x40, 2, 0, 2]).await;
    let records = gateway.records();
    let tags: Vec<_> = records[0].tags.iter().map(|tag| (&*tag.name, &*tag.value)).collect();
    let expected = [
        ("content-type", "text/csv"),
        ("response-topic", "r"),
        ("correlation-data", "//4="),
        ("unit", "C"),
        ("unit", "F"),
    ];
    assert_eq!(tags, expected);
    assert!(records[1].tags.is_empty());
}
