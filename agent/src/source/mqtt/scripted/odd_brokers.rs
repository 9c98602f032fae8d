//! Messages that cannot be taken as they are, and brokers that refuse, forget, or send what they must not.

use rumqttc::mqttbytes::v4::PubRel;

use super::*;

#[tokio::test]
async fn a_payload_over_max_record_is_counted_acknowledged_and_passed_over() {
    let (listener, address) = listener().await;
    let gateway = Gateway::start_taking(1000, address, |_, _| {});
    let mut peer = Peer::accept_new(&listener).await;
    peer.publish(QoS::AtLeastOnce, 1, "before").await;
    peer.publish(QoS::AtLeastOnce, 2, &"x".repeat(20_000_000)).await;
    peer.publish(QoS::ExactlyOnce, 3, &"x".repeat(1001)).await;
    peer.publish(QoS::AtMostOnce, 0, &"x".repeat(1001)).await;
    peer.publish(QoS::AtLeastOnce, 4, &"x".repeat(1000)).await;
    for ack in [puback(1), puback(2), pubrec(3), puback(4)] {
        peer.expect(ack).await;
    }
    assert_eq!(gateway.payloads(), ["before".to_owned(), "x".repeat(1000)]);
    assert_eq!(gateway.refused("oversize"), 3);
    gateway.stop().await;
}

#[tokio::test]
async fn a_topic_that_is_not_utf8_is_stored_and_does_not_come_back() {
    let (listener, address) = listener().await;
    let gateway = Gateway::start(address, |_, _| {});
    let mut peer = Peer::accept_new(&listener).await;
    peer.send_bytes(&[0x32, 8, 0, 3, b'a', 0xff, b'b', 0, 5, b'x']).await;
    peer.expect(puback(5)).await;
    assert_eq!(gateway.stored(), [("a\u{fffd}b".to_owned(), "x".to_owned())]);
    assert_eq!(gateway.refused("topic-not-utf8"), 1);
    gateway.stop().await;
}

#[tokio::test]
async fn what_came_before_a_malformed_packet_is_acknowledged() {
    let (listener, address) = listener().await;
    let gateway = Gateway::start(address, |_, _| {});
    let mut peer = Peer::accept_new(&listener).await;
    for id in 1..=3 {
        peer.publish(QoS::AtLeastOnce, id, &id.to_string()).await;
    }
    // QoS 3.
    peer.send_bytes(&[0x36, 6, 0, 1, b'a', 0, 4, b'x']).await;
    for id in 1..=3 {
        peer.expect(puback(id)).await;
    }
    peer.expect(Packet::Disconnect).await;
    assert_eq!(peer.receive().await, None);
    assert_eq!(gateway.payloads(), ["1", "2", "3"]);
    Peer::accept(&listener, true).await;
    gateway.stop().await;
}

/// bytebeamio/rumqtt#1056, #1014 and #664: a client that is told of packet identifiers that it does not know, or twice of
/// the same, may never again get anything done. Ours does, whatever the connections before were like.
#[tokio::test]
async fn no_broker_however_odd_stalls_the_source() {
    let (listener, address) = listener().await;
    let gateway = Gateway::start(address, |config, _| {
        (config.qos, config.keep_alive) = (2, Duration::from_secs(1));
    });
    let mut subscribed = false;
    for round in 0..2_u16 {
        for oddity in 0..14_u16 {
            if oddity == 0 {
                // Hangs up without a word.
                drop(timeout(DEADLINE, listener.accept()).await.expect("it connects"));
                continue;
            }
            if oddity == 1 {
                let (mut peer, _) = Peer::connection(&listener).await;
                peer.send(Packet::ConnAck(ConnAck::new(ConnectReturnCode::ServiceUnavailable, false))).await;
                continue;
            }
            // Now and then the broker has forgotten us.
            let session_present = subscribed && oddity != 2;
            let mut peer = Peer::accept(&listener, session_present).await;
            if !session_present {
                peer.grant().await;
                subscribed = true;
            }
            match oddity {
                2 => {}
                // A release of something that we do not know, as after a restart of ours; and the same once more.
                3 => {
                    for _ in 0..2 {
                        peer.send(Packet::PubRel(PubRel::new(700 + round))).await;
                        peer.expect(pubcomp(700 + round)).await;
                    }
                }
                // Acknowledgements of what we never published.
                4 => peer.send(puback(1)).await,
                5 => peer.send(pubrec(1)).await,
                6 => peer.send(pubcomp(1)).await,
                7 => peer.send(Packet::SubAck(SubAck::new(99, vec![SubscribeReasonCode::Failure]))).await,
                // One identifier for two messages under way.
                8 => {
                    for _ in 0..2 {
                        peer.publish(QoS::AtLeastOnce, 5, "twin").await;
                    }
                    peer.expect(puback(5)).await;
                    peer.expect(puback(5)).await;
                }
                // Every identifier there is, and no release.
                9 => {
                    for id in 1..=u16::MAX {
                        peer.publish(QoS::ExactlyOnce, id, "").await;
                        if id % 1000 == 0 {
                            peer.expect(pubrec(id - 999)).await;
                            for id in id - 998..=id {
                                peer.expect(pubrec(id)).await;
                            }
                        }
                    }
                }
                10 => peer.send_bytes(b"HTTP/1.1 400 Bad Request\r\n\r\n").await,
                // Half a message.
                11 => peer.send_bytes(&[0x32, 200, 1, 0, 1, b'a', 0, 5, b'x']).await,
                // Says nothing ever again, not even to a ping.
                12 => while peer.tcp.read_buf(&mut peer.buffer).await.is_ok_and(|read| read > 0) {},
                // A second welcome.
                _ => peer.send(Packet::ConnAck(ConnAck::new(ConnectReturnCode::Success, true))).await,
            }
        }
        let mut peer = Peer::accept(&listener, false).await;
        peer.grant().await;
        for id in 1..=100 {
            peer.publish(QoS::ExactlyOnce, id, &format!("fresh {round} {id}")).await;
            peer.expect(pubrec(id)).await;
            peer.send(Packet::PubRel(PubRel::new(id))).await;
            peer.expect(pubcomp(id)).await;
        }
        assert_eq!(gateway.payloads().last(), Some(&format!("fresh {round} 100")));
    }
    gateway.stop().await;
}

#[tokio::test]
async fn a_refusal_is_told_and_tried_again() {
    let (listener, address) = listener().await;
    let gateway = Gateway::start(address, |_, _| {});
    for code in [ConnectReturnCode::BadUserNamePassword, ConnectReturnCode::NotAuthorized] {
        let (mut peer, _) = Peer::connection(&listener).await;
        peer.send(Packet::ConnAck(ConnAck::new(code, false))).await;
        assert_eq!(peer.receive().await, None);
    }
    let told = gateway.stats.last_error().expect("an error").message;
    assert!(told.contains("user"), "{told}");
    let mut peer = Peer::accept_new(&listener).await;
    peer.publish(QoS::AtLeastOnce, 1, "x").await;
    peer.expect(puback(1)).await;
    assert_eq!(gateway.stats.connections.load(std::sync::atomic::Ordering::Relaxed), 1);
    gateway.stop().await;
}

#[tokio::test]
async fn a_refused_subscription_is_told_and_asked_for_again() {
    let (listener, address) = listener().await;
    let gateway = Gateway::start(address, |config, _| config.topics = Some(vec!["a".into(), "b".into()]));
    let mut peer = Peer::accept(&listener, false).await;
    let Some(Packet::Subscribe(request)) = peer.receive().await else { panic!("no subscription") };
    let answers = vec![SubscribeReasonCode::Success(QoS::AtLeastOnce), SubscribeReasonCode::Failure];
    peer.send(Packet::SubAck(SubAck::new(request.pkid, answers))).await;
    let Some(Packet::Subscribe(request)) = peer.receive().await else { panic!("no second subscription") };
    assert_eq!(request.filters.iter().map(|filter| &*filter.path).collect::<Vec<_>>(), ["b"]);
    let told = gateway.stats.last_error().expect("an error").message;
    assert!(told.contains("`b`"), "{told}");
    gateway.stop().await;
}

#[tokio::test]
async fn a_forgotten_session_is_counted() {
    let (listener, address) = listener().await;
    let gateway = Gateway::start(address, |_, _| {});
    drop(Peer::accept_new(&listener).await);
    let _peer = Peer::accept_new(&listener).await;
    assert_eq!(gateway.refused("session-forgotten"), 1);
    gateway.stop().await;
}
