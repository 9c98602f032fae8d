//! Connections against small servers and proxies, each with a fault of its own.

use std::{
    convert::Infallible,
    error::Error,
    fs,
    future::pending,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use futures_util::{Stream, StreamExt as _, stream};
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use hyper::{
    Request, Response, StatusCode, Version,
    body::{Bytes, Frame, Incoming},
    http::Uri,
    service::service_fn,
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::{RootCertStore, pki_types::CertificateDer, server::WebPkiClientVerifier};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::causes::causes;

/// A server that does with each connection what it is told to.
struct Server {
    address: SocketAddr,
    connections: Arc<AtomicU64>,
    _tasks: JoinSet<()>,
}

impl Server {
    async fn start<F: Future<Output = ()> + Send + 'static>(serve: impl Fn(TcpStream) -> F + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let (mut tasks, count) = (JoinSet::new(), Arc::<AtomicU64>::default());
        let made = Arc::clone(&count);
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                made.fetch_add(1, Relaxed);
                connections.spawn(serve(stream));
            }
        });
        Self { address, connections: count, _tasks: tasks }
    }

    /// One that hears something and answers with this, again and again.
    async fn saying(answers: &'static [&'static [u8]]) -> Self {
        Self::start(move |mut stream| async move {
            for answer in answers {
                if stream.read(&mut [0; 4096]).await.is_err() || stream.write_all(answer).await.is_err() {
                    return;
                }
            }
            let _ = stream.read(&mut [0; 4096]).await;
        })
        .await
    }
}

fn open(config: &Config) -> Outgoing {
    Outgoing::open(config).expect("sound settings")
}

async fn ask(outgoing: &Outgoing, uri: &str) -> Result<(Version, StatusCode), ConnectErrorFound> {
    let client = outgoing.client::<Empty<Bytes>>();
    let answer = client.get(uri.parse::<Uri>().expect("a URI")).await.map_err(|error| found(&error))?;
    Ok((answer.version(), answer.status()))
}

/// What is left of an error: ours, or else the innermost, as text, and what TLS says.
type ConnectErrorFound = (String, Option<rustls::Error>);

fn found(error: &(dyn Error + 'static)) -> ConnectErrorFound {
    let (mut ours, mut innermost) = (None, String::new());
    let mut tls = None;
    for cause in causes(error) {
        if let Some(connect) = cause.downcast_ref::<ConnectError>() {
            ours = Some(connect.to_string());
        }
        innermost = cause.to_string();
        tls = tls.or_else(|| cause.downcast_ref::<rustls::Error>().cloned());
    }
    (ours.unwrap_or(innermost), tls)
}

async fn trouble(config: &Config, uri: &str) -> String {
    ask(&open(config), uri).await.expect_err("no connection").0
}

fn through(scheme: &str, proxy: SocketAddr) -> Config {
    Config { proxy: Some(format!("{scheme}://{proxy}")), ..Config::default() }
}

fn with_user(config: Config, dir: &Path) -> Config {
    let file = dir.join("password");
    fs::write(&file, "hunter2\n").expect("written");
    Config { proxy_user: Some("me".into()), proxy_password_file: Some(file), ..config }
}

#[tokio::test]
async fn what_an_http_proxy_has_against_us_is_told() {
    let dir = TempDir::new().expect("a directory");
    for (answer, anonymous, known) in [
        (
            &b"HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic\r\n\r\n"[..],
            "wants credentials",
            "does not take our credentials",
        ),
        (b"HTTP/1.1 403 Forbidden\r\n\r\n", "refused to connect us: 403 Forbidden", "403 Forbidden"),
        (b"HTTP/1.1 502 Bad Gateway\r\n\r\n", "refused to connect us: 502 Bad Gateway", "502"),
        (b"220 mail.example ESMTP\r\n", "does not answer as a proxy", "does not answer as a proxy"),
        (b"", "", ""),
    ] {
        let answers: &'static [&'static [u8]] = Box::leak(Box::new([answer]));
        let proxy = Server::saying(answers).await;
        let plain = Config { connect_timeout: Duration::from_millis(500), ..through("http", proxy.address) };
        for (config, words) in [(plain.clone(), anonymous), (with_user(plain, dir.path()), known)] {
            let said = trouble(&config, "http://gateway.invalid/").await;
            if words.is_empty() {
                assert_eq!(said, "no connection within 500ms");
                continue;
            }
            assert!(said.starts_with(&format!("proxy http://{} ", proxy.address)) && said.contains(words), "{said}");
            assert!(!said.contains("hunter2"), "{said}");
        }
    }
}

#[tokio::test]
async fn what_a_socks_proxy_has_against_us_is_told() {
    let dir = TempDir::new().expect("a directory");
    for (answers, user, words) in [
        (&[&[5, 0xff][..]][..], false, "wants credentials"),
        (&[&[5, 0xff]], true, "does not take our credentials"),
        (&[&[5, 2], &[1, 1]], true, "does not take our credentials"),
        (&[&[5, 0], &[5, 2, 0, 1, 0, 0, 0, 0, 0, 0]], false, "refused to connect us: connection not allowed"),
        (&[&[5, 0], &[5, 5, 0, 1, 0, 0, 0, 0, 0, 0]], false, "refused to connect us: connection refused"),
        (&[b"HTTP/1.1 400 Bad Request\r\n\r\n"], false, "does not answer as a proxy"),
    ] {
        let answers: &'static [&'static [u8]] = Box::leak(answers.to_vec().into_boxed_slice());
        let proxy = Server::saying(answers).await;
        let config = through("socks5", proxy.address);
        let config = if user { with_user(config, dir.path()) } else { config };
        let said = trouble(&config, "http://gateway.invalid/").await;
        assert!(said.starts_with("proxy socks5://127.0.0.1:") && said.contains(words), "{answers:?}: {said}");
    }
}

#[tokio::test]
async fn a_proxy_that_is_not_there_is_told_as_such() {
    let free = TcpListener::bind("127.0.0.1:0").await.expect("a port").local_addr().expect("bound");
    for scheme in ["http", "socks5"] {
        let said = trouble(&through(scheme, free), "http://gateway.invalid/").await;
        assert!(said.contains("cannot be reached: Connection refused"), "{said}");
    }
}

#[tokio::test]
async fn a_name_without_an_address_is_told() {
    let said = trouble(&Config { proxy: Some("none".into()), ..Config::default() }, "http://gateway.invalid/").await;
    assert!(said.starts_with("no address for gateway.invalid: "), "{said}");
}

/// By every byte that the other side counts.
#[tokio::test]
async fn bytes_are_counted_exactly() {
    const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello";
    let (told, mut heard) = tokio::sync::mpsc::unbounded_channel();
    let server = Server::start(move |mut stream| {
        let told = told.clone();
        async move {
            let mut bytes = Vec::new();
            while let Ok(1..) = stream.read_buf(&mut bytes).await {
                if bytes.ends_with(b"\r\n\r\nthe body") {
                    let _ = told.send(bytes.len() as u64);
                    bytes.clear();
                    let _ = stream.write_all(ANSWER).await;
                }
            }
        }
    })
    .await;
    let outgoing = open(&Config::default());
    let client = outgoing.client::<Full<Bytes>>();
    let mut sent = 0;
    for round in 1..=3 {
        let request = Request::post(format!("http://{}/", server.address)).body(Full::from("the body"));
        let answer = client.request(request.expect("a request")).await.expect("an answer");
        assert_eq!(answer.into_body().collect().await.expect("a body").to_bytes(), "hello");
        sent += heard.recv().await.expect("heard");
        let wire = outgoing.wire_bytes();
        assert_eq!((wire.sent(), wire.received()), (sent, round * ANSWER.len() as u64));
    }
}

/// The frames of a body.
fn beginning() -> impl Stream<Item = Result<Frame<Bytes>, Infallible>> {
    stream::iter([Ok(Frame::data(Bytes::from_static(b"beginning")))])
}

/// Certificates, and a server that shows one of them and may demand one.
struct Tls {
    dir: TempDir,
    authority: CertifiedIssuer<'static, KeyPair>,
}

impl Tls {
    fn new() -> Self {
        let dir = TempDir::new().expect("a directory");
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let authority = CertifiedIssuer::self_signed(params, key).expect("a certificate");
        fs::write(dir.path().join("ca.pem"), authority.pem()).expect("written");
        Self { dir, authority }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A certificate and its key, also as `FILE.crt` and `FILE.key`.
    fn issue(&self, file: &str, name: &str, until: i32) -> (CertificateDer<'static>, KeyPair) {
        let mut params = CertificateParams::new(vec![name.to_owned()]).expect("a name");
        params.not_after = rcgen::date_time_ymd(until, 1, 1);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.authority).expect("a certificate");
        fs::write(self.file(&format!("{file}.crt")), certificate.pem()).expect("written");
        fs::write(self.file(&format!("{file}.key")), key.serialize_pem()).expect("written");
        (certificate.der().clone(), key)
    }

    /// Answers with the names in the client's certificate, which it demands if told to; but never to what is asked for at
    /// `/never`, and only with the beginning of an answer at `/half`.
    async fn server(&self, (certificate, key): (CertificateDer<'static>, KeyPair), demanding: bool) -> Server {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .expect("versions");
        let builder = if demanding {
            let mut roots = RootCertStore::empty();
            roots.add(self.authority.der().clone()).expect("an authority");
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
            builder.with_client_cert_verifier(verifier.expect("a verifier"))
        } else {
            builder.with_no_client_auth()
        };
        let key = rustls::pki_types::PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
        let mut config = builder.with_single_cert(vec![certificate], key).expect("sound");
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(config));
        Server::start(move |stream| {
            let acceptor = acceptor.clone();
            async move {
                let Ok(stream) = acceptor.accept(stream).await else { return };
                let client = stream.get_ref().1.peer_certificates().map_or(0, |chain| chain[0].len());
                let answer = service_fn(move |request: Request<Incoming>| async move {
                    let body = match request.uri().path() {
                        "/never" => pending().await,
                        "/half" => BodyExt::boxed(StreamBody::new(beginning().chain(stream::pending()))),
                        _ => BodyExt::boxed(StreamBody::new(beginning())),
                    };
                    Response::builder().header("client", client).body(body)
                });
                let _ = auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), answer).await;
            }
        })
        .await
    }

    fn config(&self) -> Config {
        Config { ca_file: Some(self.file("ca.pem")), ..Config::default() }
    }
}

#[tokio::test]
async fn http_2_is_spoken_where_it_is_offered() {
    let tls = Tls::new();
    let server = tls.server(tls.issue("server", "localhost", 2100), false).await;
    let uri = format!("https://localhost:{}/", server.address.port());
    assert_eq!(ask(&open(&tls.config()), &uri).await, Ok((Version::HTTP_2, StatusCode::OK)));
}

#[tokio::test]
async fn a_connection_on_which_a_request_was_given_up_gets_no_other() {
    let tls = Tls::new();
    let server = tls.server(tls.issue("server", "localhost", 2100), false).await;
    let client = open(&tls.config()).client::<Empty<Bytes>>();
    let request = |path: &str| {
        let uri = format!("https://localhost:{}/{path}", server.address.port());
        Request::get(uri).body(Empty::new()).expect("a request")
    };
    let answered = async || {
        let answer = super::ask(&client, request("")).await.expect("an answer");
        assert_eq!(answer.version(), Version::HTTP_2);
        answer.into_body().collect().await.expect("a body");
        server.connections.load(Relaxed)
    };
    assert_eq!([answered().await, answered().await, answered().await], [1, 1, 1]);
    let given_up = tokio::time::timeout(Duration::from_millis(200), super::ask(&client, request("never"))).await;
    assert!(given_up.is_err());
    assert_eq!([answered().await, answered().await], [2, 2]);
    let mut half = super::ask(&client, request("half")).await.expect("its beginning").into_body();
    half.frame().await.expect("a part").expect("of the body");
    assert_eq!(answered().await, 2, "it may still come");
    drop(half);
    assert_eq!([answered().await, answered().await], [3, 3]);
}

#[tokio::test]
async fn what_is_wrong_with_a_certificate_is_told_by_tls_itself() {
    let tls = Tls::new();
    let server = tls.server(tls.issue("server", "elsewhere.example", 2100), false).await;
    let wrong_host = ask(&open(&tls.config()), &format!("https://localhost:{}/", server.address.port())).await;
    let (said, error) = wrong_host.expect_err("another name");
    assert!(said.starts_with("no TLS with localhost: "), "{said}");
    assert!(
        matches!(
            error,
            Some(rustls::Error::InvalidCertificate(rustls::CertificateError::NotValidForNameContext { .. }))
        ),
        "{error:?}"
    );

    let expired = tls.server(tls.issue("server", "localhost", 2001), false).await;
    let (_, error) =
        ask(&open(&tls.config()), &format!("https://localhost:{}/", expired.address.port())).await.expect_err("old");
    assert!(
        matches!(error, Some(rustls::Error::InvalidCertificate(rustls::CertificateError::ExpiredContext { .. }))),
        "{error:?}"
    );

    let stranger = Tls::new();
    let strange = stranger.server(stranger.issue("server", "localhost", 2100), false).await;
    let (_, error) = ask(&open(&tls.config()), &format!("https://localhost:{}/", strange.address.port()))
        .await
        .expect_err("unknown");
    assert!(matches!(error, Some(rustls::Error::InvalidCertificate(_))), "{error:?}");
}

#[tokio::test]
async fn a_renewed_certificate_is_shown_without_a_restart() {
    let tls = Tls::new();
    let server = tls.server(tls.issue("server", "localhost", 2100), true).await;
    let uri = format!("https://localhost:{}/", server.address.port());
    let (said, error) = ask(&open(&tls.config()), &uri).await.expect_err("it demands a certificate");
    // HTTP/2 leaves nothing of it but its words.
    assert_eq!((said.as_str(), error), ("received fatal alert: CertificateRequired", None));

    tls.issue("client", "gateway", 2100);
    let (cert, key) = (tls.file("client.crt"), tls.file("client.key"));
    let outgoing = open(&Config { client_cert_file: Some(cert), client_key_file: Some(key), ..tls.config() });
    let shown = async || {
        // A new client has no connection yet.
        let answer = outgoing.client::<Empty<Bytes>>().get(uri.parse().expect("a URI")).await.expect("an answer");
        answer.headers()["client"].to_str().expect("text").parse::<usize>().expect("a length")
    };
    let before = shown().await;
    tls.issue("client", "gateway-with-a-much-longer-name.example", 2100);
    assert!(shown().await > before, "the certificate of the longer name is longer");

    fs::remove_file(tls.file("client.crt")).expect("removed");
    let (said, _) = ask(&outgoing, &uri).await.expect_err("a file is gone");
    assert!(said.starts_with("client-cert-file: cannot read certificates from "), "{said}");
}

#[tokio::test]
async fn a_server_that_says_nothing_is_given_up_in_time() {
    let silent = Server::start(|stream| async move {
        tokio::time::sleep(Duration::from_secs(600)).await;
        drop(stream)
    })
    .await;
    let config = Config { connect_timeout: Duration::from_millis(200), ..Config::default() };
    let said = trouble(&config, &format!("https://localhost:{}/", silent.address.port())).await;
    assert_eq!(said, "no connection within 200ms");
}
