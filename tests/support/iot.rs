//! An AWS IoT credentials provider: mutual TLS, one kind of request, answers as it is told.

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, SystemTime};

use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection, StreamOwned};

/// A running provider on 127.0.0.1. It ends with the test's process.
pub(crate) struct IotProvider {
    port: u16,
    state: Arc<Mutex<State>>,
}

/// What the provider knows and how it is told to behave.
struct State {
    /// What is granted holds so long.
    lifetime: Duration,
    /// In place of credentials.
    refusal: Option<(u16, &'static str)>,
    requests: Vec<Asked>,
    turned_away: u64,
}

/// A request that came through TLS.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) path: String,
    pub(crate) thing: Option<String>,
}

/// What is granted to the n-th request, from 1.
pub(crate) fn secrets(number: usize) -> [String; 3] {
    [format!("AKIAIOT{number}"), format!("iot-secret-{number}"), format!("iot-token-{number}")]
}

impl IotProvider {
    /// Starts one with `server.crt`, `server.key`, and `devices.crt` as the authority of its clients, all of this directory.
    pub(crate) fn start(dir: &Path, lifetime: Duration) -> Self {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(dir.join("devices.crt")).expect("PEM")).expect("an authority");
        let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider)).build();
        let certificate = CertificateDer::from_pem_file(dir.join("server.crt")).expect("PEM");
        let key = PrivateKeyDer::from_pem_file(dir.join("server.key")).expect("PEM");
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("ring has them")
            .with_client_cert_verifier(clients.expect("roots"))
            .with_single_cert(vec![certificate], key)
            .expect("they go together");
        let socket = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = socket.local_addr().expect("bound").port();
        let state = State { lifetime, refusal: None, requests: Vec::new(), turned_away: 0 };
        let state = Arc::new(Mutex::new(state));
        let (config, shared) = (Arc::new(config), Arc::clone(&state));
        thread::spawn(move || {
            for stream in socket.incoming().map_while(Result::ok) {
                let outcome = ServerConnection::new(Arc::clone(&config))
                    .map_err(io::Error::other)
                    .and_then(|tls| serve(StreamOwned::new(tls, stream), &shared));
                if outcome.is_err() {
                    lock(&shared).turned_away += 1;
                }
            }
        });
        Self { port, state }
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("localhost:{}", self.port)
    }

    /// From now on requests are answered with this status and body; or with credentials again.
    pub(crate) fn refuse(&self, refusal: Option<(u16, &'static str)>) {
        lock(&self.state).refusal = refusal;
    }

    pub(crate) fn requests(&self) -> Vec<Asked> {
        lock(&self.state).requests.clone()
    }

    /// Connections that did not get as far as a request.
    pub(crate) fn turned_away(&self) -> u64 {
        lock(&self.state).turned_away
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().expect("no panic")
}

fn serve(mut connection: StreamOwned<ServerConnection, TcpStream>, state: &Mutex<State>) -> io::Result<()> {
    connection.sock.set_read_timeout(Some(Duration::from_secs(10)))?;
    let mut lines = Vec::new();
    {
        let mut reader = BufReader::new(&mut connection);
        loop {
            let mut line = String::new();
            reader.read_line(&mut line)?;
            if line.trim_end().is_empty() {
                break;
            }
            lines.push(line.trim_end().to_owned());
        }
    }
    let path = lines.first().and_then(|line| line.split(' ').nth(1)).ok_or(io::ErrorKind::UnexpectedEof)?.to_owned();
    let thing = lines.iter().find_map(|line| line.strip_prefix("x-amzn-iot-thingname: ")).map(str::to_owned);
    let (status, body) = {
        let mut state = lock(state);
        state.requests.push(Asked { path, thing });
        match state.refusal {
            Some((status, body)) => (status, body.to_owned()),
            None => (200, granted(state.requests.len(), state.lifetime)),
        }
    };
    let date = httpdate(now());
    let length = body.len();
    write!(
        connection,
        "HTTP/1.1 {status} Status\r\ndate: {date}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\
         connection: close\r\n\r\n{body}"
    )?;
    connection.flush()?;
    connection.conn.send_close_notify();
    connection.flush()
}

fn granted(number: usize, lifetime: Duration) -> String {
    let [id, secret, token] = secrets(number);
    let until = humantime::format_rfc3339_seconds(now() + lifetime);
    serde_json::json!({ "credentials": {
        "accessKeyId": id, "secretAccessKey": secret, "sessionToken": token, "expiration": until.to_string()
    } })
    .to_string()
}

/// `Sun, 29 Nov 2026 04:00:00 GMT`
fn httpdate(at: SystemTime) -> String {
    use aws_smithy_types::{DateTime, date_time::Format};
    DateTime::from(at).fmt(Format::HttpDate).expect("after 1970")
}

/// The true time.
#[expect(clippy::disallowed_methods, reason = "AWS knows what time it is")]
pub(crate) fn now() -> SystemTime {
    SystemTime::now()
}
