//! The listener as devices meet it: real clients and raw sockets over loopback, a real store on disk behind it.

use std::{
    net::SocketAddr,
    num::NonZeroU16,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use forebay_log_store::{
    Cursor, RateLimit, ReadLimit, Record, Start, Store, StoreConfig, Stream, StreamConfig, SystemClock,
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::{
    ingest::{Ingest, PartitionKeyTemplate},
    source::{SourceContext, SourceStats},
};

mod clients;
mod raw;
mod trouble;

/// Long enough for any machine; nothing waits for it to pass.
const PATIENCE: Duration = Duration::from_secs(20);

/// A listener with a log behind it.
struct Gateway {
    address: SocketAddr,
    websocket: SocketAddr,
    store: Store,
    stream: Stream,
    stats: Arc<SourceStats>,
    stop: CancellationToken,
    running: JoinSet<anyhow::Result<()>>,
    _dir: TempDir,
}

/// What a test changes.
struct Setup {
    settings: Settings,
    rate_limit: Option<RateLimit>,
    commit_delay: Duration,
    partition_key: &'static str,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            settings: Settings {
                listen: Some("127.0.0.1:0".parse().expect("an address")),
                websocket_listen: Some("127.0.0.1:0".parse().expect("an address")),
                websocket: websocket::Terms { message_bytes_max: 2 * 1024 * 1024, ..websocket::Terms::default() },
                max_connections: 10,
                max_packet_size: 1024 * 1024,
                max_in_flight: NonZeroU16::new(100).expect("not zero"),
                allow_anonymous: true,
                password_file: None,
                tls: None,
                client_rate_limit: None,
                rules: rules::Rules::default(),
            },
            rate_limit: None,
            commit_delay: Duration::from_millis(1),
            partition_key: "{topic}",
        }
    }
}

impl Gateway {
    async fn start() -> Self {
        Self::with(Setup::default()).await
    }

    async fn with(setup: Setup) -> Self {
        let dir = tempfile::tempdir().expect("temporary directory");
        let config = StoreConfig { commit_delay: setup.commit_delay, ..StoreConfig::new(dir.path().join("data")) };
        let queue_bytes = config.queue_bytes;
        let store = Store::open(config, SystemClock::new(), |_| {}).expect("a new store");
        let stream = StreamConfig { rate_limit: setup.rate_limit, ..StreamConfig::new("telemetry") };
        let stream = store.stream(stream).expect("a new stream");
        let listener = Listener::bind(setup.settings).await.expect("a free port");
        let (address, websocket) = listener.local_addresses().expect("it is bound");
        let (address, websocket) = (address.expect("it listens"), websocket.expect("for both"));
        let context = SourceContext {
            name: "devices".into(),
            ingest: Ingest::new(stream.clone(), queue_bytes),
            partition_key: PartitionKeyTemplate::parse(setup.partition_key).expect("a template"),
            max_record: 1 << 20,
            shaping: Default::default(),
            stats: Arc::default(),
            stop: CancellationToken::new(),
        };
        let (stats, stop) = (Arc::clone(&context.stats), context.stop.clone());
        let mut running = JoinSet::new();
        running.spawn(listener.run(context));
        Self { address, websocket, store, stream, stats, stop, running, _dir: dir }
    }

    fn cursor(&self) -> Cursor {
        self.stream.cursor(Start::Oldest)
    }

    /// Everything that is durable.
    fn records(&self) -> Vec<Arc<Record>> {
        let mut cursor = self.cursor();
        let mut records = Vec::new();
        loop {
            let some = cursor.read(ReadLimit { records: 1000, payload_bytes: 1 << 20 }).expect("a readable log");
            if some.is_empty() {
                return records;
            }
            records.extend(some);
        }
    }

    /// Everything that is durable, as text.
    fn data(&self) -> Vec<String> {
        self.records().iter().map(|record| String::from_utf8_lossy(&record.data).into_owned()).collect()
    }

    /// How often this was counted.
    fn refused(&self, kind: &str) -> u64 {
        self.stats.refusals().get(kind).copied().unwrap_or(0)
    }

    fn last_error(&self) -> String {
        self.stats.last_error().map(|error| error.message).unwrap_or_default()
    }

    async fn stop(mut self) {
        self.stop.cancel();
        let ended = timeout(PATIENCE, self.running.join_next()).await.expect("it stops").expect("it ran");
        ended.expect("without panic").expect("without error");
    }
}

/// Waits until something holds.
async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        sleep(Duration::from_millis(5)).await;
    }
}

/// A socket that sends and expects bytes.
struct Raw(TcpStream);

impl Raw {
    async fn connect(gateway: &Gateway) -> Self {
        Self(TcpStream::connect(gateway.address).await.expect("it listens"))
    }

    /// Connects as a 3.1.1 client, and expects the session to be there already, or not.
    async fn connect_v3(gateway: &Gateway, client_id: &str, clean: bool, session_present: bool) -> Self {
        let mut raw = Self::connect(gateway).await;
        raw.send(&connect(4, client_id, if clean { 2 } else { 0 }, 60, b"", b"")).await;
        raw.expect(&[0x20, 2, u8::from(session_present), 0]).await;
        raw
    }

    /// Connects as a version 5 client with these properties. Gives CONNACK's body.
    async fn connect_v5(gateway: &Gateway, client_id: &str, clean: bool, properties: &[u8]) -> (Self, Vec<u8>) {
        let mut raw = Self::connect(gateway).await;
        raw.send(&connect(5, client_id, if clean { 2 } else { 0 }, 60, properties, b"")).await;
        let (first, connack) = raw.packet().await;
        assert_eq!((first, connack[1]), (0x20, 0), "{connack:?}");
        (raw, connack)
    }

    async fn send(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).await.expect("the connection is open");
    }

    async fn expect(&mut self, bytes: &[u8]) {
        let mut got = vec![0; bytes.len()];
        timeout(PATIENCE, self.0.read_exact(&mut got)).await.expect("an answer").expect("an open connection");
        assert_eq!(got, bytes);
    }

    /// The next packet: its first byte and its body.
    async fn packet(&mut self) -> (u8, Vec<u8>) {
        let mut header = [0; 2];
        timeout(PATIENCE, self.0.read_exact(&mut header)).await.expect("a packet").expect("an open connection");
        assert!(header[1] < 128, "the server's packets are short");
        let mut body = vec![0; header[1].into()];
        timeout(PATIENCE, self.0.read_exact(&mut body)).await.expect("a packet").expect("an open connection");
        (header[0], body)
    }

    /// The next packet but answers to pings, which is to be of this type.
    async fn expect_among_pongs(&mut self, first: u8) {
        loop {
            let (came, _) = self.packet().await;
            if came != 0xd0 {
                assert_eq!(came, first);
                return;
            }
        }
    }

    /// A DISCONNECT with this reason, and nothing behind it.
    async fn expect_disconnect(mut self, reason: u8) {
        let (first, body) = self.packet().await;
        assert_eq!((first, body[0]), (0xe0, reason));
        self.expect_end().await;
    }

    /// Nothing more, in good order.
    async fn expect_end(mut self) {
        let mut rest = Vec::new();
        timeout(PATIENCE, self.0.read_to_end(&mut rest)).await.expect("an end").expect("no reset");
        assert_eq!(rest, [0; 0]);
    }
}

fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut packet = vec![first];
    let mut length = body.len();
    loop {
        let byte = (length % 128) as u8;
        length /= 128;
        packet.push(if length > 0 { byte | 0x80 } else { byte });
        if length == 0 {
            break;
        }
    }
    packet.extend_from_slice(body);
    packet
}

fn text(text: &str) -> Vec<u8> {
    let length = text.len() as u16;
    [&[(length >> 8) as u8, length as u8], text.as_bytes()].concat()
}

/// A CONNECT; `rest` is will, user and password.
fn connect(level: u8, client_id: &str, flags: u8, keep_alive: u8, properties: &[u8], rest: &[u8]) -> Vec<u8> {
    let properties = if level == 5 { [&[properties.len() as u8], properties].concat() } else { Vec::new() };
    let head = [0, 4, b'M', b'Q', b'T', b'T', level, flags, 0, keep_alive];
    packet(0x10, &[&head[..], &properties, &text(client_id), rest].concat())
}

/// A 3.1.1 PUBLISH.
fn publish(qos: u8, topic: &str, id: u8, payload: &str) -> Vec<u8> {
    let id: &[u8] = if qos == 0 { &[] } else { &[0, id] };
    packet(0x30 | qos << 1, &[&text(topic)[..], id, payload.as_bytes()].concat())
}

/// A version 5 PUBLISH.
fn publish_v5(qos: u8, topic: &str, id: u8, properties: &[u8], payload: &str) -> Vec<u8> {
    let id: &[u8] = if qos == 0 { &[] } else { &[0, id] };
    let length = [properties.len() as u8];
    packet(0x30 | qos << 1, &[&text(topic)[..], id, &length, properties, payload.as_bytes()].concat())
}
