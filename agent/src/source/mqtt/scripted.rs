//! The source against brokers that misbehave as no real one does on demand, played by a script over real TCP.
//! (How it gets on with a real broker is shown by the black-box tests.)

use std::{net::SocketAddr, sync::Arc, time::Duration};

use bytes::BytesMut;
use forebay_log_store::{OnFull, ReadLimit, Start, Store, StoreConfig, Stream, StreamConfig, SystemClock};
use rumqttc::mqttbytes::{
    Error as Incomplete, QoS,
    v4::{ConnAck, Connect, ConnectReturnCode, Packet, PubAck, Publish, SubAck, SubscribeReasonCode},
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

mod acknowledgements;
mod broken_link;
mod odd_brokers;
mod version_5;

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
