//! The source against brokers that misbehave as no real one does on demand, played by a script over real TCP.
//! (How it gets on with a real broker is shown by the black-box tests.)

use std::{net::SocketAddr, sync::Arc, time::Duration};

use bytes::BytesMut;
use forebay_log_store::{OnFull, ReadLimit, Start, Store, StoreConfig, Stream, StreamConfig, SystemClock};
use rumqttc::mqttbytes::{
    Error as Incomplete, QoS,
    v4::{ConnAck, Connect, ConnectReturnCode, Packet, PubAck, PubRel, Publish, SubAck, SubscribeReasonCode},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::Config;
use crate::source::Config as _;
use crate::{
    config::Problems,
    ingest::{Ingest, PartitionKeyTemplate},
    source::{SourceContext, SourceStats},
};

/// Longer than anything here takes on the slowest machine; only a failing test waits for it.
const DEADLINE: Duration = Duration::from_secs(30);

/// A source that runs, and what it writes to.
struct Gateway {
    stats: Arc<SourceStats>,
    store: Store,
    stream: Stream,
    stop: CancellationToken,
    task: JoinSet<anyhow::Result<()>>,
    _dir: tempfile::TempDir,
}

impl Gateway {
    fn start(broker: SocketAddr, adjust: impl FnOnce(&mut Config, &mut StoreConfig)) -> Self {
        Self::start_taking(1 << 20, broker, adjust)
    }

    fn start_taking(max_record: usize, broker: SocketAddr, adjust: impl FnOnce(&mut Config, &mut StoreConfig)) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let mut config = Config {
            broker: Some(format!("mqtt://{broker}")),
            client_id: Some("gateway-7".into()),
            topics: Some(vec!["plant/#".into()]),
            max_backoff: Duration::from_millis(50),
            ..Config::default()
        };
        let mut store_config = StoreConfig::new(dir.path());
        adjust(&mut config, &mut store_config);
        let queue_bytes = store_config.queue_bytes;
        let store = Store::open(store_config, SystemClock::new(), |_| {}).expect("a store");
        let mut stream_config = StreamConfig::new("telemetry");
        (stream_config.rate_limit, stream_config.on_full) = (None, OnFull::Reject);
        let stream = store.stream(stream_config).expect("a stream");

        let mut problems = Problems::default();
        let settings = config.validate("sources.plant", &mut problems).expect("settings");
        assert_eq!(problems.list(), []);
        let (stats, stop) = (Arc::new(SourceStats::default()), CancellationToken::new());
        let context = SourceContext {
            name: "plant".into(),
            ingest: Ingest::new(stream.clone(), queue_bytes),
            partition_key: PartitionKeyTemplate::parse("{topic}").expect("a template"),
            max_record,
            shaping: Default::default(),
            stats: Arc::clone(&stats),
            stop: stop.clone(),
        };
        let mut task = JoinSet::new();
        task.spawn(super::run(settings, context));
        Self { stats, store, stream, stop, task, _dir: dir }
    }

    /// Keys and data of what is durable.
    fn stored(&self) -> Vec<(String, String)> {
        let mut cursor = self.stream.cursor(Start::Oldest);
        let mut stored = Vec::new();
        loop {
            let records = cursor.read(ReadLimit { records: 1000, payload_bytes: 1 << 20 }).expect("readable");
            if records.is_empty() {
                return stored;
            }
            stored.extend(
                records.iter().map(|record| {
                    (record.partition_key.to_string(), String::from_utf8_lossy(&record.data).into_owned())
                }),
            );
        }
    }

    fn payloads(&self) -> Vec<String> {
        self.stored().into_iter().map(|(_, data)| data).collect()
    }

    fn refused(&self, reason: &str) -> u64 {
        self.stats.refusals().get(reason).copied().unwrap_or_default()
    }

    async fn stop(mut self) {
        self.stop.cancel();
        let ended = timeout(DEADLINE, self.task.join_next()).await.expect("it stops").expect("it is the only task");
        ended.expect("no panic").expect("no error");
    }
}

/// The broker's end of a connection.
struct Peer {
    tcp: TcpStream,
    buffer: BytesMut,
}

impl Peer {
    /// Waits for a connection and lets it in.
    async fn accept(listener: &TcpListener, session_present: bool) -> Self {
        let (mut peer, connect) = Self::connection(listener).await;
        assert!(!connect.clean_session && connect.client_id == "gateway-7", "{connect:?}");
        peer.send(Packet::ConnAck(ConnAck::new(ConnectReturnCode::Success, session_present))).await;
        peer
    }

    /// The same, for one that is to subscribe.
    async fn accept_new(listener: &TcpListener) -> Self {
        let mut peer = Self::accept(listener, false).await;
        peer.grant().await;
        peer
    }

    async fn connection(listener: &TcpListener) -> (Self, Connect) {
        let (tcp, _) = timeout(DEADLINE, listener.accept()).await.expect("it connects").expect("accepted");
        tcp.set_nodelay(true).expect("set");
        let mut peer = Self { tcp, buffer: BytesMut::new() };
        match peer.receive().await {
            Some(Packet::Connect(connect)) => (peer, connect),
            other => panic!("it began with {other:?}"),
        }
    }

    async fn grant(&mut self) {
        let Some(Packet::Subscribe(request)) = self.receive().await else { panic!("no subscription") };
        let granted = request.filters.iter().map(|filter| SubscribeReasonCode::Success(filter.qos)).collect();
        self.send(Packet::SubAck(SubAck::new(request.pkid, granted))).await;
    }

    async fn send(&mut self, packet: Packet) {
        let mut bytes = BytesMut::new();
        packet.write(&mut bytes, usize::MAX).expect("a packet");
        self.send_bytes(&bytes).await;
    }

    /// A source that has given up on us does not mind.
    async fn send_bytes(&mut self, bytes: &[u8]) {
        let _ = self.tcp.write_all(bytes).await;
    }

    async fn publish(&mut self, qos: QoS, packet_id: u16, payload: &str) {
        let mut publish = Publish::new("plant/a", qos, payload);
        publish.pkid = packet_id;
        self.send(Packet::Publish(publish)).await;
    }

    /// The next packet that is no ping (which is answered), or nothing if the connection ended.
    async fn receive(&mut self) -> Option<Packet> {
        timeout(DEADLINE, self.next()).await.expect("a packet or an end")
    }

    async fn next(&mut self) -> Option<Packet> {
        loop {
            match Packet::read(&mut self.buffer, usize::MAX) {
                Ok(Packet::PingReq) => self.send(Packet::PingResp).await,
                Ok(packet) => return Some(packet),
                Err(Incomplete::InsufficientBytes(_)) => match self.tcp.read_buf(&mut self.buffer).await {
                    Ok(0) | Err(_) => return None,
                    Ok(_) => {}
                },
                Err(error) => panic!("the source sent what is not MQTT: {error}"),
            }
        }
    }

    async fn expect(&mut self, wanted: Packet) {
        assert_eq!(self.receive().await, Some(wanted));
    }

    /// Nothing comes for a while.
    async fn expect_silence(&mut self) {
        if let Ok(packet) = timeout(Duration::from_millis(200), self.next()).await {
            panic!("{packet:?}");
        }
    }
}

fn puback(packet_id: u16) -> Packet {
    Packet::PubAck(PubAck::new(packet_id))
}

fn pubrec(packet_id: u16) -> Packet {
    Packet::PubRec(rumqttc::mqttbytes::v4::PubRec::new(packet_id))
}

fn pubcomp(packet_id: u16) -> Packet {
    Packet::PubComp(rumqttc::mqttbytes::v4::PubComp::new(packet_id))
}

async fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    (listener, address)
}

async fn until(what: &str, mut true_now: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !true_now() {
        assert!(Instant::now() < deadline, "never came: {what}");
        sleep(Duration::from_millis(5)).await;
    }
}

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
        (config.version, config.topics) = (super::config::Version::V5, Some(topics.clone()));
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
    let gateway = Gateway::start(address, |config, _| config.version = super::config::Version::V5);
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
