//! Connections of destinations: made once and used again, and left behind when they hang.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use hyper::Version;
use hyper::http::request::Parts;
use rcgen::ExtendedKeyUsagePurpose::ServerAuth;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::support::certificates::Authority;
use crate::support::daemon::PATIENCE;
use crate::support::device::Version::V5;
use crate::support::receiver::{Answer, Receiver};
use crate::support::{Device, Forebay, Gateway, Reply, Upstream, eventually, free_port, head_with_devices};

/// A type of destination that is tried, and what is asked of it over which version of HTTP.
#[derive(Debug, Clone, Copy)]
struct Way {
    kind: &'static str,
    version: Version,
}

const WAYS: [Way; 4] = [
    Way { kind: "kinesis", version: Version::HTTP_11 },
    Way { kind: "kinesis", version: Version::HTTP_2 },
    Way { kind: "http", version: Version::HTTP_11 },
    Way { kind: "http", version: Version::HTTP_2 },
];

/// What the endpoint has seen.
#[derive(Default)]
struct Seen {
    requests: u64,
    /// The data of what it took.
    taken: Vec<String>,
}

/// A gateway and its endpoint.
struct Scene {
    receiver: Receiver,
    seen: Arc<Mutex<Seen>>,
    device: Device,
    agent: Forebay,
    _certificates: TempDir,
}

impl Scene {
    /// One whose endpoint falls silent upon the request of this number, if any, and so does that request's connection.
    fn new(way: Way, silent: Option<u64>) -> Self {
        let certificates = TempDir::new().expect("a temporary directory can be made");
        let dir = certificates.path();
        Authority::new("authority", dir).issue("server", "localhost", ServerAuth, dir);
        let certificate = CertificateDer::from_pem_file(dir.join("server.crt")).expect("a certificate");
        let key = PrivateKeyDer::from_pem_file(dir.join("server.key")).expect("a key");
        let tls = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("the provider has ciphers for them")
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key);
        let mut tls = tls.expect("the key is the certificate's");
        tls.alpn_protocols = vec![if way.version == Version::HTTP_2 { b"h2".to_vec() } else { b"http/1.1".to_vec() }];

        let seen = Arc::<Mutex<Seen>>::default();
        let judge = {
            let seen = Arc::clone(&seen);
            move |head: &Parts, body: &[u8]| {
                assert_eq!(head.version, way.version, "{way:?}");
                let mut seen = seen.lock().expect("nobody panics with it");
                seen.requests += 1;
                if Some(seen.requests) == silent { Answer::Silence } else { take(&mut seen.taken, body) }
            }
        };
        let receiver = Receiver::start_tls(tls, judge);
        let mqtt = free_port();
        let trust = format!("ca-file = '{}'", dir.join("authority.crt").display());
        let agent =
            Forebay::start(&configuration(way, mqtt, &format!("https://localhost:{}", receiver.port()), &trust));
        let device = Device::connect(mqtt, V5, "device");
        Self { receiver, seen, device, agent, _certificates: certificates }
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().expect("nobody panics with it")
    }

    fn cloud(&self) -> Value {
        self.agent.status()["destinations"]["cloud"].clone()
    }

    /// Publishes a record, and waits until the endpoint has it.
    #[track_caller]
    fn pass(&mut self, data: &str) {
        self.device.publish("plant/a", data.as_bytes());
        eventually(PATIENCE, &format!("{data} arrives"), || self.seen().taken.iter().any(|taken| taken == data));
    }
}

fn configuration(way: Way, mqtt: u16, endpoint: &str, trust: &str) -> String {
    let address = match way.kind {
        "kinesis" => format!("stream = 's'\nregion = 'r'\nendpoint = '{endpoint}'\ncredentials = 'placeholder'"),
        _ => format!("url = '{endpoint}/'\ncompression = 'none'"),
    };
    format!(
        r#"
        {}
        [destinations.cloud]
        type = "{}"
        from = "telemetry"
        in-flight = 1
        request-timeout = "3s"
        max-backoff = "200ms"
        {trust}
        {address}
        "#,
        head_with_devices(mqtt),
        way.kind
    )
}

/// Takes what is put, by either of the two ways to say it.
fn take(taken: &mut Vec<String>, body: &[u8]) -> Answer {
    let request: Value = serde_json::from_slice(body).expect("JSON");
    let (records, data) = match request["Records"].as_array() {
        Some(records) => (records, "Data"),
        None => (request["records"].as_array().expect("records"), "data"),
    };
    for record in records {
        let data = BASE64_STANDARD.decode(record[data].as_str().expect("text")).expect("Base64");
        taken.push(String::from_utf8(data).expect("what was published"));
    }
    if data == "data" {
        return Answer::json(200, &json!({ "requestId": request["requestId"], "timestamp": 1 }));
    }
    let each: Vec<_> =
        records.iter().map(|_| json!({ "SequenceNumber": "1", "ShardId": "shardId-000000000000" })).collect();
    let answer = json!({ "FailedRecordCount": 0, "Records": each });
    Answer::of(200, "application/x-amz-json-1.1", answer.to_string())
}

#[test]
fn many_requests_go_over_few_connections() {
    for way in WAYS {
        let mut scene = Scene::new(way, None);
        for number in 0..100 {
            scene.pass(&format!("record {number}"));
        }
        let (requests, connections) = (scene.seen().requests, scene.receiver.connections());
        assert!(requests >= 100 && connections * 10 <= requests, "{way:?}: {requests} over {connections}");
        assert!(scene.agent.terminate().success());
    }
}

/// The endpoint takes a request, never answers it, and reads nothing any more; over another connection it answers.
#[test]
fn a_connection_that_hangs_costs_one_request_and_no_record() {
    for way in WAYS {
        let mut scene = Scene::new(way, Some(3));
        scene.pass("one");
        scene.pass("two");
        let rest: Vec<_> = (0..20).map(|number| format!("record {number}")).collect();
        for data in &rest {
            scene.device.publish("plant/a", data.as_bytes());
        }
        eventually(PATIENCE, "everything is delivered", || scene.cloud()["backlog_records"] == 0);
        let status = scene.cloud();
        assert_eq!(status["failed_requests"], json!({ "timed-out": 1 }), "{way:?}: {status}");
        // With HTTP/1.1 the next request may be there before the connection is free again.
        let connections = scene.receiver.connections();
        assert!(connections == 2 || way.version == Version::HTTP_11 && connections > 2, "{way:?}: {connections}");
        let owed: BTreeSet<_> = ["one", "two"].into_iter().chain(rest.iter().map(String::as_str)).collect();
        let seen = scene.seen();
        assert_eq!(seen.taken.iter().map(String::as_str).collect::<BTreeSet<_>>(), owed, "{way:?}");
        assert_eq!(seen.taken.len(), owed.len(), "{way:?}: what the endpoint did not take is sent again once");
        drop(seen);
        assert!(scene.agent.terminate().success());
    }
}

/// Whatever starts again between here and there, a person need not be called for a request that is lost and passes at once.
#[test]
fn a_connection_that_is_lost_for_a_moment_is_told_without_a_warning() {
    let upstream = Upstream::start();
    let gateway = Gateway::to(&upstream.endpoint());
    let agent = Forebay::start(&gateway.configuration());
    let mut device = Device::connect(gateway.mqtt, V5, "device");
    device.publish("plant/a", b"1");
    upstream.wait_for(1, PATIENCE);
    upstream.script([Reply::Reset]);
    device.publish("plant/a", b"2");
    upstream.wait_for(2, PATIENCE);
    let told = |what: &str| agent.log().contains(what);
    eventually(PATIENCE, "it is told", || told("failed for a moment") || told("takes records again"));
    let arrived = upstream.arrived();
    let [_, lost, again] = &arrived[..] else { panic!("{} requests: {}", arrived.len(), agent.log()) };
    // On a machine that stood still in between it was no moment.
    if again.at - lost.at < Duration::from_millis(800) {
        let log = agent.log();
        assert!(log.contains("kind=disconnected") && !log.contains("does not take records"), "{log}");
    }
}
