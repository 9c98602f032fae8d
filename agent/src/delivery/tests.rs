//! Whole deliveries: a real log, the real SDK, and an endpoint inside the test that can be told how to behave.

use std::{
    collections::HashMap,
    net::SocketAddr,
    num::NonZeroU32,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use axum::{
    Router,
    body::Bytes,
    extract::{DefaultBodyLimit, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::post,
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use forebay_log_store::{
    NewRecord, ReadLimit, Record, Start, Store, StoreConfig, Stream, StreamConfig, SystemClock, Tag, WhenFull,
};
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinSet};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::{
    destination::{Destination, Origin, aws, kinesis},
    ingest::Ingest,
    outgoing,
};

const ORIGIN: Origin<'static> = Origin { gateway: "truck-7", stream: "telemetry" };

const PATIENCE: Duration = Duration::from_secs(60);

/// How the endpoint treats one request.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Answer {
    TakesAll,
    /// Refuses each record with this probability.
    Partial(f64),
    Error(u16, &'static str),
    /// Takes everything and then says that it failed.
    TakesAndFails,
    Hangs,
}

/// How a request, with its number, is answered.
type Decide = Box<dyn Fn(u64, &[Value]) -> Answer + Send + Sync>;

/// An endpoint that takes PutRecords.
struct Endpoint {
    taken: Mutex<Vec<(String, Vec<u8>)>>,
    answer: Decide,
    requests: AtomicU64,
}

impl Endpoint {
    fn new(answer: impl Fn(u64, &[Value]) -> Answer + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self { taken: Mutex::default(), answer: Box::new(answer), requests: AtomicU64::new(0) })
    }

    async fn serve(self: &Arc<Self>, address: SocketAddr) -> (SocketAddr, JoinSet<()>) {
        let socket = TcpListener::bind(address).await.expect("a port");
        let address = socket.local_addr().expect("bound");
        let router =
            Router::new().route("/", post(put_records)).layer(DefaultBodyLimit::disable()).with_state(Arc::clone(self));
        let mut server = JoinSet::new();
        server.spawn(async move { axum::serve(socket, router).await.expect("serves until it is dropped") });
        (address, server)
    }

    fn taken(&self) -> Vec<(String, Vec<u8>)> {
        self.taken.lock().expect("no panic").clone()
    }
}

async fn put_records(State(endpoint): State<Arc<Endpoint>>, body: Bytes) -> Response {
    let request: Value = serde_json::from_slice(&body).expect("JSON");
    let records = request["Records"].as_array().expect("records");
    let number = endpoint.requests.fetch_add(1, Relaxed);
    let answer = (endpoint.answer)(number, records);
    let mut entries = Vec::new();
    let mut taken = Vec::new();
    for record in records {
        let refused = matches!(answer, Answer::Partial(share) if fastrand::f64() < share);
        if refused {
            entries.push(json!({ "ErrorCode": "ProvisionedThroughputExceededException", "ErrorMessage": "slower" }));
        } else {
            let data = STANDARD.decode(record["Data"].as_str().expect("data")).expect("base64");
            taken.push((record["PartitionKey"].as_str().expect("a key").to_owned(), data));
            entries.push(json!({ "SequenceNumber": "1", "ShardId": "shardId-000000000000" }));
        }
    }
    let error = |status: u16, code: &str| {
        let status = StatusCode::from_u16(status).expect("a status");
        (status, json!({ "__type": code, "message": "said by the test" }).to_string()).into_response()
    };
    match answer {
        Answer::Error(status, code) => return error(status, code),
        Answer::Hangs => std::future::pending().await,
        _ => {}
    }
    endpoint.taken.lock().expect("no panic").extend(taken);
    match answer {
        Answer::TakesAndFails => error(500, "InternalFailure"),
        _ => json!({ "FailedRecordCount": 0, "Records": entries }).to_string().into_response(),
    }
}

/// A log with a stream and its dead letters.
struct Log {
    store: Store,
    stream: Stream,
    dead_letters: Stream,
}

impl Log {
    fn open(dir: &Path) -> Self {
        let store = Store::open(StoreConfig::new(dir), SystemClock::new(), |_| {}).expect("open");
        let stream = |name: &str, consumers: &[&str]| {
            let config = StreamConfig {
                rate_limit: None,
                shards: NonZeroU32::new(2).expect("not zero"),
                consumers: consumers.iter().map(|name| (*name).to_owned()).collect(),
                ..StreamConfig::new(name)
            };
            store.stream(config).expect("a stream")
        };
        Self { stream: stream("telemetry", &["cloud"]), dead_letters: stream("dead-letter.cloud", &[]), store }
    }

    async fn append(&self, records: &[(String, Vec<u8>)]) {
        let ingest = Ingest::new(self.stream.clone(), 4 << 20);
        for records in records.chunks(1000) {
            let mut batch = ingest.batch();
            for (key, data) in records {
                batch.push(&NewRecord::new(key, data)).expect("fits");
            }
            ingest.offer(batch, WhenFull::Wait).await.durable().await.expect("durable");
        }
    }

    fn buried(&self) -> Vec<Arc<Record>> {
        let limit = ReadLimit { records: 1000, payload_bytes: 64 << 20 };
        self.dead_letters.cursor(Start::Oldest).read(limit).expect("read")
    }

    fn checkpoint(&self) -> u64 {
        self.stream.checkpoint("cloud").0
    }
}

/// A delivery that runs.
struct Running {
    tasks: JoinSet<anyhow::Result<()>>,
    stop: CancellationToken,
    stats: Arc<DeliveryStats>,
}

impl Running {
    async fn start(log: &Log, endpoint: SocketAddr, config: Config) -> Self {
        Self::start_with(log, endpoint, config, Duration::from_secs(10)).await
    }

    async fn start_with(log: &Log, endpoint: SocketAddr, config: Config, grace: Duration) -> Self {
        let settings = kinesis::Config {
            stream: Some("plant".into()),
            aws: aws::Config {
                region: Some("eu-west-1".into()),
                endpoint: Some(format!("http://{endpoint}")),
                credentials: None,
            },
            outgoing: outgoing::Config { request_timeout: Duration::from_secs(5), ..outgoing::Config::default() },
            ..kinesis::Config::default()
        };
        let (stop, stats) = (CancellationToken::new(), Arc::new(DeliveryStats::default()));
        let destination = crate::destination::Config::Kinesis(Box::new(settings));
        let delivery = Delivery {
            name: "cloud".into(),
            stream: log.stream.clone(),
            dead_letters: Ingest::new(log.dead_letters.clone(), 4 << 20),
            destination: Destination::open(&destination, &ORIGIN, &Arc::default()).expect("sound settings"),
            config,
            way: None,
            interfaces: tokio::sync::watch::channel(()).1,
            stats: Arc::clone(&stats),
            stop: stop.clone(),
            grace,
        };
        let mut tasks = JoinSet::new();
        tasks.spawn(delivery.run());
        Self { tasks, stop, stats }
    }

    async fn until(&self, what: &str, mut is_so: impl FnMut(&Snapshot) -> bool) {
        let begun = Instant::now();
        while !is_so(&self.stats.snapshot()) {
            assert!(begun.elapsed() < PATIENCE, "not {what}: {:#?}", self.stats.snapshot());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn stop(mut self) {
        self.stop.cancel();
        self.tasks.join_next().await.expect("it runs").expect("no panic").expect("no error");
    }
}

fn loopback() -> SocketAddr {
    ([127, 0, 0, 1], 0).into()
}

/// `count` records of `keys` keys; each says its number.
fn records(count: usize, keys: usize) -> Vec<(String, Vec<u8>)> {
    (0..count).map(|n| (format!("key-{}", n % keys), format!("{n:>100}").into_bytes())).collect()
}

/// Everything arrived, and for each key the first arrivals are in order.
fn assert_complete_and_in_order(sent: &[(String, Vec<u8>)], taken: &[(String, Vec<u8>)]) {
    let mut wanted: HashMap<&str, Vec<&[u8]>> = HashMap::new();
    for (key, data) in sent {
        wanted.entry(key).or_default().push(data);
    }
    let mut seen: HashMap<&str, Vec<&[u8]>> = HashMap::new();
    let mut known = std::collections::HashSet::new();
    for (key, data) in taken {
        if known.insert((key, data)) {
            seen.entry(key).or_default().push(data);
        }
    }
    for (key, wanted) in wanted {
        assert!(seen.get(key) == Some(&wanted), "key {key} did not arrive whole and in order");
    }
}

/// Replayed letters of another destination: nothing is sent, and nothing stays behind the checkpoint.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_meant_for_another_destination_is_passed_over() {
    let dir = tempfile::tempdir().expect("a directory");
    let log = Log::open(dir.path());
    let ingest = Ingest::new(log.stream.clone(), 4 << 20);
    let mut batch = ingest.batch();
    for (n, to) in [None, Some("depot"), Some("cloud"), Some("depot")].into_iter().enumerate() {
        let tags: Vec<_> =
            to.map(|to| Tag { name: "forebay.replay-to".into(), value: to.into() }).into_iter().collect();
        batch.push(&NewRecord { tags: &tags, ..NewRecord::new("one-key", &[b'0' + n as u8]) }).expect("fits");
    }
    ingest.offer(batch, WhenFull::Wait).await.durable().await.expect("durable");
    let endpoint = Endpoint::new(|_, _| Answer::TakesAll);
    let (address, _server) = endpoint.serve("127.0.0.1:0".parse().expect("an address")).await;
    let running = Running::start(&log, address, Config::default()).await;
    running.until("the checkpoint is behind all of them", |_| log.checkpoint() == 4).await;
    let taken: Vec<_> = endpoint.taken().into_iter().map(|(_, data)| data).collect();
    assert_eq!(taken, [b"0", b"2"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backlog_arrives_whole_in_order_and_once() {
    let dir = tempfile::tempdir().expect("a directory");
    let log = Log::open(dir.path());
    let sent = records(20_000, 1000);
    log.append(&sent).await;
    let endpoint = Endpoint::new(|_, _| Answer::TakesAll);
    let (address, _server) = endpoint.serve(loopback()).await;
    let delivery = Running::start(&log, address, Config::default()).await;
    delivery.until("all delivered", |stats| stats.records == 20_000).await;
    delivery.stop().await;
    assert_eq!(log.checkpoint(), 20_000);
    assert_eq!(endpoint.taken().len(), 20_000, "no duplicates");
    assert_complete_and_in_order(&sent, &endpoint.taken());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_misbehaving_endpoint_gets_everything_in_order_per_key() {
    let dir = tempfile::tempdir().expect("a directory");
    let log = Log::open(dir.path());
    let sent = records(5000, 500);
    log.append(&sent).await;
    let endpoint = Endpoint::new(|number, _| match number {
        0..40 => match number % 8 {
            0 => Answer::Error(500, "InternalFailure"),
            1 => Answer::TakesAndFails,
            2 => Answer::Error(400, "ProvisionedThroughputExceededException"),
            3 => Answer::Error(400, "ExpiredTokenException"),
            4 => Answer::Error(400, "ResourceNotFoundException"),
            _ => Answer::Partial(0.5),
        },
        _ => Answer::TakesAll,
    });
    let (address, _server) = endpoint.serve(loopback()).await;
    let config = Config { max_backoff: Duration::from_millis(200), ..Config::default() };
    let delivery = Running::start(&log, address, config).await;
    delivery.until("all delivered", |stats| stats.checkpoint == 5000).await;
    let stats = delivery.stats.snapshot();
    delivery.stop().await;
    assert_complete_and_in_order(&sent, &endpoint.taken());
    assert!(stats.throttled_records > 0 && stats.down.is_none(), "{stats:#?}");
    for kind in ["endpoint-failed", "throttled", "credentials-expired", "misconfigured"] {
        assert!(stats.failed_requests[kind] > 0, "{kind}: {stats:#?}");
    }
    assert!(stats.last_error.expect("something went wrong").message.len() < 500);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backlog_moves_within_a_second_of_the_links_return() {
    let dir = tempfile::tempdir().expect("a directory");
    let log = Log::open(dir.path());
    let sent = records(3000, 3000);
    log.append(&sent).await;
    let free = TcpListener::bind(loopback()).await.expect("a port").local_addr().expect("bound");
    let delivery = Running::start(&log, free, Config::default()).await;
    delivery.until("down for long", |stats| stats.down.as_ref().is_some_and(|down| down.attempts >= 8)).await;
    let down = delivery.stats.snapshot().down.expect("down");
    assert_eq!(down.kind, "refused");
    let endpoint = Endpoint::new(|_, _| Answer::TakesAll);
    let (_, _server) = endpoint.serve(free).await;
    let back = Instant::now();
    delivery.until("moving", |stats| stats.records > 0).await;
    let took = back.elapsed();
    assert!(took < Duration::from_secs(1), "{took:?}");
    delivery.until("all delivered", |stats| stats.records == 3000).await;
    delivery.stop().await;
    assert_complete_and_in_order(&sent, &endpoint.taken());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_can_never_be_delivered_is_set_aside_with_its_reason() {
    let dir = tempfile::tempdir().expect("a directory");
    let log = Log::open(dir.path());
    let mut sent = records(1000, 50);
    sent[100].1 = vec![7; 2 << 20];
    sent[200].1 = b"poison".to_vec();
    log.append(&sent).await;
    let poison = STANDARD.encode("poison");
    let endpoint =
        Endpoint::new(move |_, records| match records.iter().any(|record| record["Data"] == poison.as_str()) {
            true => Answer::Error(400, "ValidationException"),
            false => Answer::TakesAll,
        });
    let (address, _server) = endpoint.serve(loopback()).await;
    let delivery = Running::start(&log, address, Config::default()).await;
    delivery.until("all finished", |stats| stats.checkpoint == 1000).await;
    assert_eq!(delivery.stats.snapshot().dead_letters, 2);
    delivery.stop().await;
    let buried = log.buried();
    let tag = |record: &Record, name: &str| {
        record.tags.iter().find(|tag| tag.name == name).map(|tag| tag.value.clone()).unwrap_or_default()
    };
    let [large, refused] = &buried[..] else { panic!("{} dead letters", buried.len()) };
    let numbers: Vec<_> = buried.iter().map(|record| tag(record, "sequence-number")).collect();
    assert_eq!(numbers.len(), 2);
    assert_eq!((&*large.partition_key, large.data.len()), (sent[100].0.as_str(), 2 << 20));
    assert!(tag(large, "reason").contains("2097"), "{:?}", large.tags);
    assert_eq!(tag(large, "attempts"), "0");
    assert_eq!((&*refused.partition_key, &refused.data[..]), (sent[200].0.as_str(), &b"poison"[..]));
    assert!(tag(refused, "reason").contains("ValidationException"), "{:?}", refused.tags);
    assert_eq!(tag(refused, "source-stream"), "telemetry");
    let (first, last) = (tag(refused, "first-attempt"), tag(refused, "last-attempt"));
    assert!(first.parse::<u64>().expect("ms") <= last.parse::<u64>().expect("ms"));
    sent.remove(200);
    sent.remove(100);
    assert_complete_and_in_order(&sent, &endpoint.taken());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_awaits_what_is_under_way_but_not_for_ever_and_the_next_start_repeats_nothing() {
    let dir = tempfile::tempdir().expect("a directory");
    let sent = records(4000, 4000);
    let endpoint = Endpoint::new(|_, _| Answer::TakesAll);
    let (address, _server) = endpoint.serve(loopback()).await;
    {
        let log = Log::open(dir.path());
        log.append(&sent[..2000]).await;
        let delivery = Running::start(&log, address, Config::default()).await;
        delivery.until("begun", |stats| stats.records > 0).await;
        delivery.stop().await;
        log.append(&sent[2000..]).await;
        log.store.close();
    }
    let log = Log::open(dir.path());
    let delivery = Running::start(&log, address, Config::default()).await;
    delivery.until("all delivered", |stats| stats.checkpoint == 4000).await;
    delivery.stop().await;
    assert_eq!(endpoint.taken().len(), 4000, "no duplicates after a clean stop");

    let deaf = Endpoint::new(|_, _| Answer::Hangs);
    let (address, _deaf) = deaf.serve(loopback()).await;
    log.append(&records(10, 10)).await;
    let delivery = Running::start_with(&log, address, Config::default(), Duration::from_millis(200)).await;
    delivery.until("under way", |stats| stats.in_flight > 0).await;
    let asked = Instant::now();
    delivery.stop().await;
    assert!(asked.elapsed() < Duration::from_secs(2), "{:?}", asked.elapsed());
    assert_eq!(log.checkpoint(), 4000);
}
