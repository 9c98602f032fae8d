//! Connections that do not come about, break off or hang, and certificates that are refused.

use std::{fs, time::Instant};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::*;

/// What becomes of a record sent to a server that does what it likes with the connection.
async fn ask_raw<F: Future<Output = ()> + Send + 'static>(serve: impl Fn(TcpStream) -> F + Send + 'static) -> Outcome {
    let socket = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = socket.local_addr().expect("bound");
    let mut server = JoinSet::new();
    server.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((stream, _)) = socket.accept().await {
            connections.spawn(serve(stream));
        }
    });
    destination(address).await.send(&[parcel("a", b"one")]).await
}

#[tokio::test]
async fn a_connection_that_ends_is_told_as_such() {
    let failure = failure(ask_raw(|stream| async move { drop(stream) }).await);
    assert_eq!(failure.kind, FailureKind::Disconnected, "{failure}");
}

#[tokio::test]
async fn an_answer_that_breaks_off_confirms_nothing() {
    let cut = |mut stream: TcpStream| async move {
        let mut request = [0; 64 << 10];
        let _ = stream.read(&mut request).await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n{\"Fail").await;
    };
    let failure = failure(ask_raw(cut).await);
    assert_eq!(failure.kind, FailureKind::Disconnected, "{failure}");
}

#[tokio::test]
async fn a_hanging_endpoint_is_given_up_in_time() {
    let begun = Instant::now();
    let hang = |mut stream: TcpStream| async move {
        let mut request = [0; 64 << 10];
        while stream.read(&mut request).await.is_ok_and(|n| n > 0) {}
    };
    let failure = failure(ask_raw(hang).await);
    assert_eq!(failure.kind, FailureKind::TimedOut, "{failure}");
    assert!(begun.elapsed() >= Duration::from_secs(2), "given up after {:?}", begun.elapsed());
}

#[tokio::test]
async fn nobody_listening_is_told() {
    let free = TcpListener::bind("127.0.0.1:0").await.expect("a port").local_addr().expect("bound");
    let failure = failure(destination(free).await.send(&[parcel("a", b"one")]).await);
    assert_eq!(failure.kind, FailureKind::Refused);
    assert!(failure.message.to_lowercase().contains("refused"), "{failure}");
}

/// What becomes of a request to an endpoint whose certificate is for `name` and has been signed in one year and ends in
/// another, when it is trusted, or somebody else instead.
async fn ask_with_certificate(name: &str, years: [i32; 2], trusted: bool) -> Failure {
    let make = |issuer: &str| {
        let key = rcgen::KeyPair::generate().expect("a key");
        let mut params = rcgen::CertificateParams::new(vec![name.to_owned()]).expect("sound parameters");
        params.distinguished_name.push(rcgen::DnType::CommonName, issuer);
        [params.not_before, params.not_after] = years.map(|year| rcgen::date_time_ymd(year, 1, 1));
        (params.self_signed(&key).expect("signed"), key)
    };
    let (certificate, key) = make("the plant");
    let ca = tempfile::NamedTempFile::new().expect("a temporary file");
    let trusts = if trusted { certificate.pem() } else { make("somebody else").0.pem() };
    fs::write(ca.path(), trusts).expect("written");
    let key = rustls::pki_types::PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
    let tls = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(vec![certificate.der().clone()], key));
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(tls.expect("sound")));
    let socket = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = socket.local_addr().expect("bound").port();
    let mut server = JoinSet::new();
    server.spawn(async move {
        while let Ok((stream, _)) = socket.accept().await {
            let _ = acceptor.accept(stream).await;
        }
    });
    let config = Config {
        stream: Some("plant".into()),
        aws: aws::Config {
            region: Some("eu-west-1".into()),
            endpoint: Some(format!("https://localhost:{port}")),
            credentials: None,
        },
        outgoing: outgoing::Config { ca_file: Some(ca.path().into()), ..outgoing::Config::default() },
        ..Config::default()
    };
    let destination = Kinesis::open(&config, &ORIGIN, &Arc::default()).expect("sound settings");
    failure(destination.send(&[parcel("a", b"one")]).await)
}

/// Waziup/WaziGate#20: seven days late, and the endpoint's certificate was not valid yet.
#[tokio::test]
async fn a_certificate_that_is_refused_says_why() {
    for (name, years, trusted, kind, words) in [
        ("localhost", [2090, 2091], true, FailureKind::Clock, "not valid yet by our clock"),
        ("localhost", [2010, 2011], true, FailureKind::TlsExpired, "expired by our clock"),
        ("portal.example", [2010, 2091], true, FailureKind::TlsWrongHost, "localhost"),
        ("localhost", [2010, 2091], false, FailureKind::TlsUnknownAuthority, ""),
    ] {
        let failure = ask_with_certificate(name, years, trusted).await;
        assert_eq!(failure.kind, kind, "{failure}");
        assert!(failure.message.contains(words), "{failure}");
    }
}
