//! rumqttc's clients, 3.1.1 and 5.

use rumqttc::{AsyncClient, Event, MqttOptions, Packet, QoS, SubscribeReasonCode, v5};

use super::*;

fn options(gateway: &Gateway, client_id: &str) -> MqttOptions {
    let mut options = MqttOptions::new(client_id, gateway.address.ip().to_string(), gateway.address.port());
    options.set_inflight(50);
    options
}

fn options_v5(gateway: &Gateway, client_id: &str) -> v5::MqttOptions {
    let mut options = v5::MqttOptions::new(client_id, gateway.address.ip().to_string(), gateway.address.port());
    options.set_outgoing_inflight_upper_limit(50);
    options
}

#[tokio::test]
async fn a_3_1_1_client_publishes_with_every_quality_of_service() {
    let gateway = Gateway::start().await;
    let (client, mut events) = AsyncClient::new(options(&gateway, "device-1"), 10);
    let mut publisher = JoinSet::new();
    publisher.spawn(async move {
        for n in 0..300 {
            let qos = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce][n % 3];
            let topic = format!("plant/{}", n % 2);
            client.publish(topic, qos, false, n.to_string()).await.expect("the event loop runs");
        }
        client
    });
    let (mut pubacks, mut pubcomps) = (0, 0);
    while pubacks < 100 || pubcomps < 100 {
        match timeout(PATIENCE, events.poll()).await.expect("an event").expect("a connection") {
            Event::Incoming(Packet::PubAck(_)) => pubacks += 1,
            Event::Incoming(Packet::PubComp(_)) => pubcomps += 1,
            _ => {}
        }
    }
    until("all are stored", || gateway.records().len() == 300).await;
    for (n, record) in gateway.records().iter().enumerate() {
        assert_eq!(record.data, n.to_string().as_bytes(), "in order, bytes unchanged");
        assert_eq!(*record.partition_key, *format!("plant/{}", n % 2));
    }
    assert_eq!(gateway.stats.records.load(Relaxed), 300);
    assert_eq!(gateway.stats.connections.load(Relaxed), 1);
    publisher.join_next().await.expect("it published").expect("without panic");
    gateway.stop().await;
}

#[tokio::test]
async fn a_version_5_client_publishes_with_every_quality_of_service() {
    let gateway = Gateway::start().await;
    let (client, mut events) = v5::AsyncClient::new(options_v5(&gateway, "device-1"), 10);
    let mut publisher = JoinSet::new();
    publisher.spawn(async move {
        for n in 0..300 {
            let qos =
                [v5::mqttbytes::QoS::AtMostOnce, v5::mqttbytes::QoS::AtLeastOnce, v5::mqttbytes::QoS::ExactlyOnce];
            client.publish("plant/1", qos[n % 3], false, n.to_string()).await.expect("the event loop runs");
        }
        client
    });
    let (mut pubacks, mut pubcomps) = (0, 0);
    while pubacks < 100 || pubcomps < 100 {
        use v5::mqttbytes::v5::Packet;
        match timeout(PATIENCE, events.poll()).await.expect("an event").expect("a connection") {
            v5::Event::Incoming(Packet::ConnAck(ack)) => {
                let properties = ack.properties.expect("it announces its limits");
                assert_eq!(properties.receive_max, Some(100));
                assert_eq!(properties.max_packet_size, Some(1024 * 1024));
                assert_eq!(properties.topic_alias_max, Some(16));
                assert_eq!(properties.wildcard_subscription_available, Some(0));
            }
            v5::Event::Incoming(Packet::PubAck(_)) => pubacks += 1,
            v5::Event::Incoming(Packet::PubComp(_)) => pubcomps += 1,
            _ => {}
        }
    }
    until("all are stored", || gateway.records().len() == 300).await;
    let data: Vec<_> = (0..300).map(|n| n.to_string()).collect();
    assert_eq!(gateway.data(), data);
    publisher.join_next().await.expect("it published").expect("without panic");
    gateway.stop().await;
}

#[tokio::test]
async fn a_subscriber_is_refused_and_may_go_on_publishing() {
    let gateway = Gateway::start().await;
    let (client, mut events) = AsyncClient::new(options(&gateway, "device-1"), 10);
    client.subscribe("plant/#", QoS::AtLeastOnce).await.expect("the event loop runs");
    loop {
        if let Event::Incoming(Packet::SubAck(ack)) =
            timeout(PATIENCE, events.poll()).await.expect("an event").expect("ok")
        {
            assert_eq!(ack.return_codes, [SubscribeReasonCode::Failure]);
            break;
        }
    }
    client.unsubscribe("plant/#").await.expect("the event loop runs");
    client.publish("plant/1", QoS::AtLeastOnce, true, "still there").await.expect("the event loop runs");
    let (mut unsubscribed, mut published) = (false, false);
    while !unsubscribed || !published {
        match timeout(PATIENCE, events.poll()).await.expect("an event").expect("ok") {
            Event::Incoming(Packet::UnsubAck(_)) => unsubscribed = true,
            Event::Incoming(Packet::PubAck(_)) => published = true,
            _ => {}
        }
    }
    assert_eq!(gateway.data(), ["still there"]);
    assert_eq!(gateway.refused("subscribe"), 1);
    assert!(gateway.last_error().starts_with("device-1: refused a subscription"), "{}", gateway.last_error());
}

#[tokio::test]
async fn a_version_5_subscriber_is_told_that_it_is_not_authorized() {
    use v5::mqttbytes::{QoS, v5::Packet, v5::SubscribeReasonCode, v5::UnsubAckReason};
    let gateway = Gateway::start().await;
    let (client, mut events) = v5::AsyncClient::new(options_v5(&gateway, "device-1"), 10);
    client.subscribe("plant/#", QoS::AtLeastOnce).await.expect("the event loop runs");
    client.unsubscribe("plant/#").await.expect("the event loop runs");
    let (mut subscribed, mut unsubscribed) = (false, false);
    while !subscribed || !unsubscribed {
        match timeout(PATIENCE, events.poll()).await.expect("an event").expect("ok") {
            v5::Event::Incoming(Packet::SubAck(ack)) => {
                assert_eq!(ack.return_codes, [SubscribeReasonCode::NotAuthorized]);
                subscribed = true;
            }
            v5::Event::Incoming(Packet::UnsubAck(ack)) => {
                assert_eq!(ack.reasons, [UnsubAckReason::NoSubscriptionExisted]);
                unsubscribed = true;
            }
            _ => {}
        }
    }
}

#[tokio::test]
async fn a_key_is_made_of_the_payload_and_of_the_topic_where_that_fails() {
    let gateway = Gateway::with(Setup { partition_key: "{json:/device/id}", ..Setup::default() }).await;
    let (client, mut events) = AsyncClient::new(options(&gateway, "device-1"), 10);
    for payload in [r#"{"device":{"id":"d-7"}}"#, "no JSON"] {
        client.publish("plant/1", QoS::AtLeastOnce, false, payload).await.expect("the event loop runs");
    }
    let mut acknowledged = 0;
    while acknowledged < 2 {
        if let Event::Incoming(Packet::PubAck(_)) =
            timeout(PATIENCE, events.poll()).await.expect("an event").expect("ok")
        {
            acknowledged += 1;
        }
    }
    let keys: Vec<_> = gateway.records().into_iter().map(|record| record.partition_key.to_string()).collect();
    assert_eq!(keys, ["d-7", "plant/1"]);
    assert_eq!(gateway.refused("key-fallback"), 1);
}

#[tokio::test]
async fn several_clients_keep_each_its_order() {
    let gateway = Gateway::start().await;
    let mut devices = JoinSet::new();
    for device in 0..4 {
        let (client, mut events) = AsyncClient::new(options(&gateway, &format!("device-{device}")), 10);
        devices.spawn(async move {
            let publish = async {
                for n in 0..500 {
                    let topic = format!("plant/{device}");
                    client.publish(topic, QoS::AtLeastOnce, false, n.to_string()).await.expect("the event loop runs");
                }
            };
            let listen = async {
                let mut acknowledged = 0;
                while acknowledged < 500 {
                    if let Event::Incoming(Packet::PubAck(_)) = events.poll().await.expect("a connection") {
                        acknowledged += 1;
                    }
                }
            };
            tokio::join!(publish, listen);
        });
    }
    timeout(PATIENCE, devices.join_all()).await.expect("in time");
    let records = gateway.records();
    for device in 0..4 {
        let key = format!("plant/{device}");
        let of_device: Vec<_> = records.iter().filter(|record| *record.partition_key == *key).collect();
        let expected: Vec<_> = (0..500).map(|n: u32| n.to_string()).collect();
        assert_eq!(of_device.iter().map(|record| String::from_utf8_lossy(&record.data)).collect::<Vec<_>>(), expected);
    }
}
