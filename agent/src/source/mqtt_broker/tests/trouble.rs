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
    setup.settings.credentials = Credentials::parse("anna:secret").expect("one user");
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
    let settings = Settings { listen: gateway.address, ..Setup::default().settings };
    let error = Listener::bind(settings).await.err().expect("it is in use");
    let error = format!("{error:#}");
    assert!(error.starts_with(&format!("listen for MQTT on {}: ", gateway.address)), "{error}");
}

/// 20 records a second.
fn slow() -> RateLimit {
    RateLimit { records_per_second: 20, bytes_per_second: 1_000_000 }
}
