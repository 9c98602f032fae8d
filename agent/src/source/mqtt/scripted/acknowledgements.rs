//! What is acknowledged, in which order and on which connection; and what is not.

use rumqttc::mqttbytes::v4::PubRel;

use super::*;

#[tokio::test]
async fn an_acknowledged_message_is_durable_and_acknowledgements_keep_their_order() {
    let (listener, address) = listener().await;
    let gateway = Gateway::start(address, |_, _| {});
    let mut peer = Peer::accept_new(&listener).await;
    for id in 1..=300 {
        peer.publish(QoS::AtLeastOnce, id, &id.to_string()).await;
    }
    for id in 1..=300_u16 {
        peer.expect(puback(id)).await;
        let stored = gateway.stored();
        assert_eq!(stored.get(usize::from(id) - 1), Some(&("plant/a".to_owned(), id.to_string())));
    }
    assert_eq!(gateway.stats.records.load(std::sync::atomic::Ordering::Relaxed), 300);
    gateway.stop().await;
}

#[tokio::test]
async fn acknowledgements_of_a_lost_connection_are_not_sent_on_the_next_one() {
    let (listener, address) = listener().await;
    // The connection is gone before the commit is done.
    let gateway = Gateway::start(address, |_, store| store.commit_delay = Duration::from_millis(100));
    let mut peer = Peer::accept_new(&listener).await;
    for id in [1, 2, 3] {
        peer.publish(QoS::AtLeastOnce, id, &format!("first {id}")).await;
    }
    drop(peer);
    let mut peer = Peer::accept(&listener, true).await;
    peer.expect_silence().await;
    // The broker is free to give an identifier to another message, and to deliver the old ones under new ones.
    for id in [3, 1] {
        peer.publish(QoS::AtLeastOnce, id, &format!("second {id}")).await;
    }
    peer.expect(puback(3)).await;
    peer.expect(puback(1)).await;
    peer.expect_silence().await;
    let payloads = gateway.payloads();
    assert!(payloads.ends_with(&["second 3".to_owned(), "second 1".to_owned()]), "{payloads:?}");
    gateway.stop().await;
}

#[tokio::test]
async fn a_qos_2_message_is_stored_once_though_its_receipt_was_lost() {
    let (listener, address) = listener().await;
    let gateway = Gateway::start(address, |config, _| config.qos = 2);
    let mut peer = Peer::accept_new(&listener).await;
    peer.publish(QoS::ExactlyOnce, 7, "once").await;
    until("the record", || gateway.payloads() == ["once"]).await;
    // Whether or not the receipt was sent, this broker has not read it.
    drop(peer);
    let mut peer = Peer::accept(&listener, true).await;
    peer.publish(QoS::ExactlyOnce, 7, "once").await;
    peer.expect(pubrec(7)).await;
    peer.send(Packet::PubRel(PubRel::new(7))).await;
    peer.expect(pubcomp(7)).await;
    peer.publish(QoS::ExactlyOnce, 7, "another").await;
    peer.expect(pubrec(7)).await;
    assert_eq!(gateway.payloads(), ["once", "another"]);
    gateway.stop().await;
}

#[tokio::test]
async fn a_stop_acknowledges_what_was_stored_and_takes_leave() {
    let (listener, address) = listener().await;
    let gateway = Gateway::start(address, |_, store| store.commit_delay = Duration::from_millis(50));
    let mut peer = Peer::accept_new(&listener).await;
    peer.publish(QoS::AtLeastOnce, 1, "x").await;
    peer.expect(puback(1)).await;
    for id in 2..=50 {
        peer.publish(QoS::AtLeastOnce, id, "x").await;
    }
    gateway.stop.cancel();
    let mut acknowledged = 1;
    loop {
        match peer.receive().await {
            Some(Packet::PubAck(ack)) => {
                acknowledged += 1;
                assert_eq!(ack.pkid, acknowledged);
            }
            Some(Packet::Disconnect) => break,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(peer.receive().await, None);
    assert_eq!(gateway.payloads().len(), usize::from(acknowledged));
    gateway.stop().await;
}

#[tokio::test]
async fn what_the_log_does_not_take_is_not_acknowledged_and_asked_for_again() {
    let (listener, address) = listener().await;
    let gateway = Gateway::start(address, |_, _| {});
    let mut peer = Peer::accept_new(&listener).await;
    gateway.store.close();
    peer.publish(QoS::AtMostOnce, 0, "at most once").await;
    peer.publish(QoS::AtLeastOnce, 1, "x").await;
    assert_eq!(peer.receive().await, None, "it hangs up, so that the broker delivers again");
    for _ in 0..3 {
        let mut peer = Peer::accept(&listener, true).await;
        peer.publish(QoS::AtLeastOnce, 1, "x").await;
        assert_eq!(peer.receive().await, None);
    }
    until("the count", || gateway.refused("not-stored") == 1).await;
    let told = gateway.stats.last_error().expect("an error").message;
    assert!(told.contains("log is closed"), "{told}");
    gateway.stop().await;
}

#[tokio::test]
async fn no_more_is_read_than_may_be_in_flight() {
    let (listener, address) = listener().await;
    let gateway = Gateway::start(address, |config, store| {
        config.max_in_flight = 10;
        store.commit_delay = Duration::from_millis(200);
    });
    let mut peer = Peer::accept_new(&listener).await;
    let mut bytes = BytesMut::new();
    for id in 1..=25 {
        let mut publish = Publish::new("plant/a", QoS::AtLeastOnce, "x");
        publish.pkid = id;
        Packet::Publish(publish).write(&mut bytes, usize::MAX).expect("a packet");
    }
    peer.send_bytes(&bytes).await;
    for id in 1..=25 {
        peer.expect(puback(id)).await;
    }
    let commits = gateway.stream.stats().commits;
    assert!(commits >= 3, "25 messages, 10 at a time, were taken with {commits} commits");
    gateway.stop().await;
}
