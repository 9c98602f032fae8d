//! The ways out that a gateway may be given: proxies that want to know who comes, and endpoints that know each other only by
//! certificates.

use std::fs;
use std::net::{Ipv4Addr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};

use crate::support::daemon::PATIENCE;
use crate::support::device::Version;
use crate::support::forebay::Home;
use crate::support::gateway::CLOUD_STREAM;
use crate::support::proxies::OutgoingProxy;
use crate::support::receiver::{Answer, Receiver};
use crate::support::{Device, Forebay, Gateway, Kinesalite, Upstream, eventually};

const USER: &str = "gateway-7";
const PASSWORD: &str = "correct-horse";

fn cloud(agent: &Forebay) -> Value {
    agent.status()["destinations"]["cloud"].clone()
}

/// Waits until the delivery tells this kind of trouble, and these words of it.
#[track_caller]
fn wait_for_trouble(agent: &Forebay, kind: &str, words: &str) {
    eventually(PATIENCE, &format!("delivery tells: {kind}, {words}"), || {
        let cloud = cloud(agent);
        let error = cloud["last_error"]["message"].as_str().unwrap_or_default().to_lowercase();
        cloud["failed_requests"][kind].as_u64() >= Some(1) && error.contains(&words.to_lowercase())
    });
}

/// A gateway that reaches the endpoint through this proxy as `USER`, with the password in a file.
fn gateway(endpoint: &str, proxy: &OutgoingProxy) -> Gateway {
    let url = proxy.url();
    let destination = format!(
        "proxy = '{url}'\nproxy-user = '{USER}'\nproxy-password-file = 'proxy.password'\nmax-backoff = '200ms'"
    );
    Gateway { destination, ..Gateway::to(endpoint) }
}

fn through(proxy: &mut OutgoingProxy) {
    let kinesalite = Kinesalite::start();
    let kinesis = kinesalite.kinesis();
    kinesis.create_stream(CLOUD_STREAM, 2);
    let gateway = gateway(&kinesalite.endpoint(), proxy);
    let home = Home::new(&gateway.configuration());
    fs::write(home.path().join("proxy.password"), "wrong-horse\n").expect("a file");
    let mut agent = Forebay::start_in(home, &[]);
    let mut device = Device::connect(gateway.mqtt, Version::V5, "device");
    device.publish("plant/a", b"one");
    wait_for_trouble(&agent, "proxy-credentials", "does not take our credentials");

    fs::write(agent.home().path().join("proxy.password"), format!("{PASSWORD}\n")).expect("a file");
    agent.restart();
    assert_eq!(kinesis.read(CLOUD_STREAM, 1, PATIENCE).len(), 1);
    let cloud = cloud(&agent);
    assert!(
        cloud["wire_sent_bytes"].as_u64() > Some(300) && cloud["wire_received_bytes"].as_u64() > Some(100),
        "{cloud}"
    );

    // Nothing goes past it.
    proxy.kill9();
    Device::connect(gateway.mqtt, Version::V5, "another").publish("plant/b", b"two");
    wait_for_trouble(&agent, "refused", "cannot be reached");
    assert_eq!(kinesis.read(CLOUD_STREAM, 2, Duration::from_secs(1)).len(), 1);

    let described = agent.home().forebay(&["check", "--config", "forebay.toml"]);
    let told =
        [agent.log(), agent.status().to_string(), String::from_utf8_lossy(&described.stdout).into_owned()].concat();
    assert!(described.status.success() && told.contains(&proxy.url()), "{told}");
    assert!(!told.contains(PASSWORD) && !told.contains("wrong-horse"), "{told}");
}

#[test]
fn an_http_proxy_leads_out_whoever_it_knows() {
    through(&mut OutgoingProxy::http(USER, PASSWORD));
}

#[test]
fn a_socks_proxy_leads_out_whoever_it_knows() {
    through(&mut OutgoingProxy::socks(USER, PASSWORD));
}

/// An address of this machine that is not loopback, for which the environment's proxies hold.
fn address() -> Ipv4Addr {
    // Nothing is sent: a route is looked up, and with it an address of our own.
    let socket = UdpSocket::bind("0.0.0.0:0").expect("a port");
    socket.connect("192.0.2.1:9").expect("the machine has a route into the world");
    match socket.local_addr().expect("bound").ip() {
        std::net::IpAddr::V4(address) => address,
        std::net::IpAddr::V6(address) => panic!("{address} is no address of the fourth version"),
    }
}

/// Kinesalite listens everywhere.
#[test]
fn the_environment_names_proxies_for_others_than_this_machine() {
    let mut proxy = OutgoingProxy::http(USER, PASSWORD);
    let kinesalite = Kinesalite::start();
    let kinesis = kinesalite.kinesis();
    kinesis.create_stream(CLOUD_STREAM, 1);
    let variables = [("HTTP_PROXY", proxy.url_with(USER, PASSWORD))];
    let variables = variables.each_ref().map(|(name, value)| (*name, value.as_str()));

    let outside = format!("http://{}:{}", address(), kinesalite.port());
    let destination = "credentials = 'placeholder'\nmax-backoff = '200ms'".to_owned();
    let gateway = Gateway { destination, ..Gateway::to(&outside) };
    let agent = Forebay::start_with(&gateway.configuration(), &variables);
    let mut device = Device::connect(gateway.mqtt, Version::V5, "device");
    device.publish("plant/a", b"one");
    assert_eq!(kinesis.read(CLOUD_STREAM, 1, PATIENCE).len(), 1);
    proxy.kill9();
    device.publish("plant/a", b"two");
    wait_for_trouble(&agent, "refused", "cannot be reached");
    assert!(!agent.log().contains(PASSWORD) && !agent.status().to_string().contains(PASSWORD), "{}", agent.log());

    // The proxy is gone, and on loopback nobody needs it.
    let gateway = Gateway::to(&kinesalite.endpoint());
    let _agent = Forebay::start_with(&gateway.configuration(), &variables);
    Device::connect(gateway.mqtt, Version::V5, "device").publish("plant/a", b"three");
    assert_eq!(kinesis.read(CLOUD_STREAM, 2, PATIENCE).len(), 2);
}

#[test]
fn check_shows_the_proxy_of_the_environment_without_its_password() {
    let outside = Gateway::to("https://kinesis.example.com");
    let home = Home::new(&outside.configuration());
    let check = |variables: &[(&str, &str)]| {
        let mut check = home.command(&["check", "--config", "forebay.toml"]);
        let checked = check.envs(variables.iter().copied()).output().expect("it can be run");
        assert!(checked.status.success(), "{checked:?}");
        String::from_utf8_lossy(&[checked.stdout, checked.stderr].concat()).into_owned()
    };
    let variables = [("HTTPS_PROXY", "http://me:hunter2@proxy.example:3128"), ("HTTP_PROXY", "http://other.example")];
    let told = check(&variables);
    assert!(told.contains(" through http://proxy.example:3128 by HTTPS_PROXY of the environment)"), "{told}");
    assert!(!told.contains("hunter2") && !told.contains("other.example"), "{told}");
    let told = check(&[variables[0], ("NO_PROXY", ".example.com")]);
    assert!(told.contains(" without a proxy by NO_PROXY of the environment)"), "{told}");
}

#[test]
fn a_proxy_of_the_environment_that_cannot_be_used_is_told_before_anything_is_sent_past_it() {
    let upstream = Upstream::start();
    let home = Home::new(&Gateway::to(&upstream.endpoint()).configuration());
    let mut check = home.command(&["check", "--config", "forebay.toml"]);
    let checked = check.env("HTTPS_PROXY", "socks4://me:hunter2@proxy.example:1080").output().expect("it can be run");
    let told = [checked.stdout, checked.stderr].concat();
    let told = String::from_utf8_lossy(&told);
    assert_eq!(checked.status.code(), Some(78), "{told}");
    assert!(told.contains("destinations.cloud.proxy") && told.contains("HTTPS_PROXY"), "{told}");
    assert!(!told.contains("hunter2"), "{told}");
}

/// Who signs certificates, and a Kinesis endpoint that shows one of them and demands one.
struct Strangers {
    dir: TempDir,
    authority: CertifiedIssuer<'static, KeyPair>,
}

impl Strangers {
    fn new() -> Self {
        let dir = TempDir::new().expect("a temporary directory");
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority =
            CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("a certificate");
        fs::write(dir.path().join("ca.pem"), authority.pem()).expect("a file");
        Self { dir, authority }
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    /// A certificate, valid until that year, and its key; also as files.
    fn issue(&self, name: &str, until: i32) -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
        let mut params = CertificateParams::new(vec![name.to_owned()]).expect("a name");
        params.not_after = rcgen::date_time_ymd(until, 1, 1);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.authority).expect("a certificate");
        fs::write(self.path(&format!("{name}.crt")), certificate.pem()).expect("a file");
        fs::write(self.path(&format!("{name}.key")), key.serialize_pem()).expect("a file");
        (certificate.der().clone(), PrivateKeyDer::try_from(key.serialize_der()).expect("a key"))
    }

    /// Takes whatever is put by those who show a certificate.
    fn endpoint(&self, name: &str, until: i32) -> Receiver {
        let mut roots = RootCertStore::empty();
        roots.add(self.authority.der().clone()).expect("an authority");
        let ring = Arc::new(ring::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&ring)).build();
        let (certificate, key) = self.issue(name, until);
        let tls = ServerConfig::builder_with_provider(ring)
            .with_safe_default_protocol_versions()
            .expect("the provider has ciphers for them")
            .with_client_cert_verifier(verifier.expect("a verifier"))
            .with_single_cert(vec![certificate], key);
        Receiver::start_tls(tls.expect("the key is the certificate's"), |_, body| {
            let request: Value = serde_json::from_slice(body).expect("JSON");
            let records = request["Records"].as_array().expect("records").iter();
            let taken = records.map(|_| json!({ "SequenceNumber": "1", "ShardId": "shardId-000000000000" }));
            let answer = json!({ "FailedRecordCount": 0, "Records": taken.collect::<Vec<_>>() });
            Answer::of(200, "application/x-amz-json-1.1", answer.to_string())
        })
    }
}

#[test]
fn who_is_there_and_who_we_are_is_known_by_certificates() {
    let ours = Strangers::new();
    let (good, expired) = (ours.endpoint("localhost", 2100), ours.endpoint("localhost", 2001));
    ours.issue("gateway", 2100);
    let strangers = Strangers::new();
    let known =
        format!("client-cert-file = '{}'\nclient-key-file = '{}'", ours.path("gateway.crt"), ours.path("gateway.key"));
    for (host, port, authority, own, kind) in [
        ("localhost", good.port(), &ours, "", "credentials-missing"),
        ("127.0.0.1", good.port(), &ours, &*known, "tls-wrong-host"),
        ("localhost", expired.port(), &ours, &*known, "tls-expired"),
        ("localhost", good.port(), &strangers, &*known, "tls-unknown-authority"),
    ] {
        let trust =
            |ca: &Strangers, own: &str| format!("ca-file = '{}'\nmax-backoff = '200ms'\n{own}", ca.path("ca.pem"));
        let wrong = Gateway { destination: trust(authority, own), ..Gateway::to(&format!("https://{host}:{port}")) };
        let mut agent = Forebay::start(&wrong.configuration());
        Device::connect(wrong.mqtt, Version::V5, "device").publish("plant/a", b"one");
        wait_for_trouble(&agent, kind, "");
        let right = Gateway {
            destination: trust(&ours, &known),
            endpoint: format!("https://localhost:{}", good.port()),
            ..wrong
        };
        agent.home().configure(&right.configuration());
        agent.restart();
        eventually(PATIENCE, "what waited has arrived", || cloud(&agent)["records"] == 1);
    }
}
