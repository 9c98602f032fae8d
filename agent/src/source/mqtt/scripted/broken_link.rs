//! A broker that keeps to the standard, on a link that does not.

use rumqttc::mqttbytes::v4::PubRel;

use super::*;

/// A message that the broker has published to us and not finished with.
struct Outstanding {
    number: u32,
    qos: QoS,
    packet_id: u16,
    /// QoS 2: PUBREC came, PUBREL was sent.
    released: bool,
}

impl Outstanding {
    async fn deliver(&self, peer: &mut Peer) {
        if self.released {
            peer.send(Packet::PubRel(PubRel::new(self.packet_id))).await;
        } else {
            peer.publish(self.qos, self.packet_id, &self.number.to_string()).await;
        }
    }
}

/// A broker that keeps to the standard, on a link that does not: it breaks at any moment, with packets under way in both
/// directions.
#[tokio::test]
async fn over_a_link_that_breaks_nothing_is_lost_order_is_kept_and_qos_2_is_stored_once() {
    const MESSAGES: u32 = 3000;
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let (listener, address) = listener().await;
    let gateway = Gateway::start(address, |config, store| {
        (config.qos, config.max_backoff) = (2, Duration::from_millis(5));
        store.commit_delay = Duration::from_millis(3);
    });
    let mut outstanding: std::collections::VecDeque<Outstanding> = std::collections::VecDeque::new();
    let mut exactly_once = Vec::new();
    let (mut published, mut packet_id, mut known, mut breaks) = (0, 0_u16, false, 0);
    while published < MESSAGES || !outstanding.is_empty() {
        let mut peer = Peer::accept(&listener, known).await;
        if !known {
            peer.grant().await;
            known = true;
        }
        for message in &outstanding {
            message.deliver(&mut peer).await;
        }
        let mut packets_left = random.u32(0..200);
        while packets_left > 0 {
            packets_left -= 1;
            if outstanding.len() < 20 && published < MESSAGES {
                published += 1;
                packet_id = packet_id % 1000 + 1;
                let qos = if random.bool() { QoS::AtLeastOnce } else { QoS::ExactlyOnce };
                if qos == QoS::ExactlyOnce {
                    exactly_once.push(published.to_string());
                }
                let message = Outstanding { number: published, qos, packet_id, released: false };
                message.deliver(&mut peer).await;
                outstanding.push_back(message);
                continue;
            }
            let finished = match peer.receive().await {
                Some(Packet::PubAck(ack)) => ack.pkid,
                Some(Packet::PubComp(ack)) => ack.pkid,
                Some(Packet::PubRec(ack)) => {
                    let message = outstanding.iter_mut().find(|message| message.packet_id == ack.pkid);
                    let message = message.expect("it acknowledges what is outstanding");
                    message.released = true;
                    message.deliver(&mut peer).await;
                    continue;
                }
                other => panic!("{other:?}"),
            };
            outstanding.retain(|message| message.packet_id != finished);
            if published == MESSAGES && outstanding.is_empty() {
                break;
            }
        }
        breaks += 1;
    }
    let mut first_seen = Vec::new();
    let mut copies = std::collections::HashMap::<String, u32>::new();
    for payload in gateway.payloads() {
        let copies = copies.entry(payload.clone()).or_default();
        *copies += 1;
        if *copies == 1 {
            first_seen.push(payload);
        }
    }
    assert_eq!(first_seen, (1..=MESSAGES).map(|number| number.to_string()).collect::<Vec<_>>());
    for number in exactly_once {
        assert_eq!(copies[&number], 1, "{number}");
    }
    assert!(breaks > 5, "the link broke {breaks} times");
    gateway.stop().await;
}
