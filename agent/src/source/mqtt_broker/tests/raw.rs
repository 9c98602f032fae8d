//! The protocol's finer points, byte by byte.

use super::*;

#[tokio::test]
async fn an_acknowledged_record_is_durable() {
    let gateway = Gateway::start().await;
    let mut raw = Raw::connect_v3(&gateway, "a", true, false).await;
    for n in 1..50 {
        raw.send(&publish(1, "t", n, &n.to_string())).await;
        raw.expect(&[0x40, 2, 0, n]).await;
        // A cursor never returns what is not durable.
        assert_eq!(gateway.data().last(), Some(&n.to_string()));
    }
}

#[tokio::test]
async fn packets_in_one_segment_with_connect_and_disconnect_count() {
    let gateway = Gateway::start().await;
    let mut raw = Raw::connect(&gateway).await;
    let all = [connect(4, "", 2, 60, b"", b""), publish(0, "t", 0, "hello"), vec![0xe0, 0]].concat();
    raw.send(&all).await;
    raw.expect(&[0x20, 2, 0, 0]).await;
    raw.expect_end().await;
    until("it is stored", || gateway.data() == ["hello"]).await;
}

#[tokio::test]
async fn a_packet_may_come_byte_by_byte() {
    let gateway = Gateway::start().await;
    let mut raw = Raw::connect(&gateway).await;
    for byte in [connect(4, "a", 2, 60, b"", b""), publish(1, "t", 9, "slow")].concat() {
        raw.send(&[byte]).await;
        tokio::task::yield_now().await;
    }
    raw.expect(&[0x20, 2, 0, 0]).await;
    raw.expect(&[0x40, 2, 0, 9]).await;
    assert_eq!(gateway.data(), ["slow"]);
}

#[tokio::test]
async fn a_large_message_is_stored_unchanged() {
    let gateway = Gateway::start().await;
    let mut raw = Raw::connect_v3(&gateway, "a", true, false).await;
    let payload: String = (0..900_000).map(|n| char::from(b'a' + (n % 26) as u8)).collect();
    raw.send(&publish(1, "t", 1, &payload)).await;
    raw.expect(&[0x40, 2, 0, 1]).await;
    raw.send(&publish(1, "t", 2, "small")).await;
    raw.expect(&[0x40, 2, 0, 2]).await;
    assert_eq!(gateway.data(), [payload.as_str(), "small"]);
}

#[tokio::test]
async fn version_3_1_is_spoken_too() {
    let gateway = Gateway::start().await;
    let mut raw = Raw::connect(&gateway).await;
    raw.send(b"\x10\x0f\x00\x06MQIsdp\x03\x02\x00\x3c\x00\x01a").await;
    raw.expect(&[0x20, 2, 0, 0]).await;
    raw.send(&publish(1, "t", 1, "old")).await;
    raw.expect(&[0x40, 2, 0, 1]).await;
}

#[tokio::test]
async fn pings_are_answered() {
    let gateway = Gateway::start().await;
    let mut raw = Raw::connect_v3(&gateway, "a", true, false).await;
    raw.send(&[0xc0, 0]).await;
    raw.expect(&[0xd0, 0]).await;
}

#[tokio::test]
async fn a_qos_2_message_is_stored_once_across_a_reconnect() {
    let gateway = Gateway::start().await;
    let mut raw = Raw::connect_v3(&gateway, "a", false, false).await;
    raw.send(&publish(2, "t", 7, "once")).await;
    raw.expect(&[0x50, 2, 0, 7]).await;
    drop(raw);
    // The answer was lost on the way, as far as the client knows.
    let mut raw = Raw::connect_v3(&gateway, "a", false, true).await;
    let mut again = publish(2, "t", 7, "once");
    again[0] |= 8;
    raw.send(&again).await;
    raw.expect(&[0x50, 2, 0, 7]).await;
    raw.send(&[0x62, 2, 0, 7]).await;
    raw.expect(&[0x70, 2, 0, 7]).await;
    raw.send(&publish(2, "t", 7, "another")).await;
    raw.expect(&[0x50, 2, 0, 7]).await;
    assert_eq!(gateway.data(), ["once", "another"]);
    // A clean session knows of nothing.
    let mut raw = Raw::connect_v3(&gateway, "a", true, false).await;
    raw.send(&publish(2, "t", 7, "new")).await;
    raw.expect(&[0x50, 2, 0, 7]).await;
    assert_eq!(gateway.data(), ["once", "another", "new"]);
}

#[tokio::test]
async fn a_version_5_session_lasts_as_long_as_the_client_asked() {
    let gateway = Gateway::start().await;
    let hour = [0x11, 0, 0, 14, 16];
    for (properties, remembered) in [(&hour[..], 1), (&[][..], 0)] {
        let (mut raw, connack) = Raw::connect_v5(&gateway, "a", true, properties).await;
        assert_eq!(connack[0], 0, "a clean start");
        raw.send(&publish_v5(2, "t", 7, b"", "x")).await;
        raw.expect(&[0x50, 2, 0, 7]).await;
        raw.send(&[0xe0, 0]).await;
        raw.expect_end().await;
        let (mut raw, connack) = Raw::connect_v5(&gateway, "a", false, properties).await;
        assert_eq!(connack[0], remembered);
        raw.send(&[0x62, 2, 0, 7]).await;
        let not_found: &[u8] = if remembered == 1 { &[0x70, 2, 0, 7] } else { &[0x70, 4, 0, 7, 0x92, 0] };
        raw.expect(not_found).await;
    }
}

#[tokio::test]
async fn a_version_5_client_without_an_id_is_told_the_one_it_got() {
    let gateway = Gateway::start().await;
    let (_raw, connack) = Raw::connect_v5(&gateway, "", true, b"").await;
    let connack = String::from_utf8_lossy(&connack).into_owned();
    assert!(connack.contains("forebay-"), "{connack}");
}

#[tokio::test]
async fn topic_aliases_are_resolved() {
    let gateway = Gateway::start().await;
    let (mut raw, _) = Raw::connect_v5(&gateway, "a", true, b"").await;
    raw.send(&publish_v5(0, "plant/1", 0, b"\x23\0\x01", "one")).await;
    raw.send(&publish_v5(1, "", 1, b"\x23\0\x01", "two")).await;
    raw.expect(&[0x40, 2, 0, 1]).await;
    let keys: Vec<_> = gateway.records().into_iter().map(|record| record.partition_key.to_string()).collect();
    assert_eq!(keys, ["plant/1", "plant/1"]);
    raw.send(&publish_v5(1, "x", 1, b"\x23\0\x11", "three")).await;
    raw.expect_disconnect(0x94).await;
}

#[tokio::test]
async fn the_same_client_id_takes_the_connection_over() {
    let gateway = Gateway::start().await;
    let (old, _) = Raw::connect_v5(&gateway, "a", false, b"").await;
    let (mut new, _) = Raw::connect_v5(&gateway, "a", false, b"").await;
    old.expect_disconnect(0x8e).await;
    new.send(&[0xc0, 0]).await;
    new.expect(&[0xd0, 0]).await;
    assert_eq!(gateway.refused("taken-over"), 1);
    until("the old one is gone", || gateway.stats.connections.load(Relaxed) == 1).await;
}

#[tokio::test]
async fn a_will_is_published_unless_the_client_says_goodbye() {
    let gateway = Gateway::start().await;
    for payload in ["said goodbye", "lost"] {
        let mut raw = Raw::connect(&gateway).await;
        raw.send(&connect(4, "a", 0x06, 60, b"", &[text("gone/a"), text(payload)].concat())).await;
        raw.expect(&[0x20, 2, 0, 0]).await;
        if payload == "said goodbye" {
            raw.send(&[0xe0, 0]).await;
            raw.expect_end().await;
        }
    }
    until("the will is published", || gateway.data().last().is_some_and(|data| data == "lost")).await;
    // The first connection's end came before the second's beginning: its will would be there.
    assert_eq!(gateway.data(), ["lost"]);
    assert_eq!(*gateway.records()[0].partition_key, *"gone/a");
}

#[tokio::test]
async fn a_version_5_client_may_say_goodbye_and_ask_for_its_will() {
    let gateway = Gateway::start().await;
    let will = [vec![0], text("gone/a"), text("lost")].concat();
    let mut raw = Raw::connect(&gateway).await;
    raw.send(&connect(5, "a", 0x06, 60, b"", &will)).await;
    raw.packet().await;
    raw.send(&[0xe0, 1, 4]).await;
    raw.expect_end().await;
    until("the will is published", || gateway.data() == ["lost"]).await;
}

#[tokio::test]
async fn a_delayed_will_is_not_published_if_the_client_comes_back() {
    let gateway = Gateway::start().await;
    // A delay of an hour, in a session of an hour.
    let will = [vec![5, 0x18, 0, 0, 14, 16], text("gone/a"), text("lost")].concat();
    let hour = [0x11, 0, 0, 14, 16];
    let mut raw = Raw::connect(&gateway).await;
    raw.send(&connect(5, "a", 0x04, 60, &hour, &will)).await;
    raw.packet().await;
    drop(raw);
    let (mut raw, connack) = Raw::connect_v5(&gateway, "a", false, &hour).await;
    assert_eq!(connack[0], 1, "the session is there");
    raw.send(&publish_v5(1, "t", 1, b"", "back")).await;
    raw.expect(&[0x40, 2, 0, 1]).await;
    assert_eq!(gateway.data(), ["back"]);
}

#[tokio::test]
async fn an_acknowledgement_waits_for_the_commit_and_an_answer_to_a_ping_does_not() {
    let gateway = Gateway::with(slow_commit()).await;
    let mut raw = Raw::connect_v3(&gateway, "a", true, false).await;
    for n in 1..3 {
        raw.send(&[publish(1, "t", n, "x"), publish(2, "t", n + 10, "x"), vec![0xc0, 0]].concat()).await;
        raw.expect(&[0xd0, 0]).await;
        raw.expect(&[0x40, 2, 0, n, 0x50, 2, 0, n + 10]).await;
    }
}

#[tokio::test]
async fn a_stop_acknowledges_what_was_taken_and_says_why() {
    let gateway = Gateway::with(slow_commit()).await;
    let (mut raw, _) = Raw::connect_v5(&gateway, "a", true, b"").await;
    let mut idle = Raw::connect(&gateway).await;
    let will = [vec![0], text("gone/b"), text("lost")].concat();
    idle.send(&connect(5, "b", 0x06, 60, b"", &will)).await;
    idle.packet().await;
    // The answer to the ping says that the messages before it were taken.
    raw.send(&[publish_v5(1, "t", 1, b"", "one"), publish_v5(1, "t", 2, b"", "two"), vec![0xc0, 0]].concat()).await;
    raw.expect(&[0xd0, 0]).await;
    gateway.stop.cancel();
    idle.expect_disconnect(0x8b).await;
    raw.expect(&[0x40, 2, 0, 1, 0x40, 2, 0, 2]).await;
    raw.expect_disconnect(0x8b).await;
    assert_eq!(gateway.data(), ["one", "two"], "and no will: it is not the device that is gone");
    gateway.stop().await;
}

/// A commit that takes its time, so that something is on its way for a while.
fn slow_commit() -> Setup {
    Setup { commit_delay: Duration::from_millis(300), ..Setup::default() }
}
