//! TLS in front of a server that speaks none, with a certificate that can be exchanged.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// A running front; it ends when dropped.
pub(crate) struct TlsFront {
    port: u16,
    identity: Arc<Mutex<Arc<ServerConfig>>>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl TlsFront {
    /// Listens on 127.0.0.1 with `NAME.crt` and `NAME.key` of a directory, for a server on this machine.
    #[track_caller]
    pub(crate) fn start(server: u16, dir: &Path, name: &str) -> Self {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("some port is free");
        listener.set_nonblocking(true).expect("a socket option");
        let port = listener.local_addr().expect("a bound socket has an address").port();
        let identity = Arc::new(Mutex::new(identity(dir, name)));
        let (stop, stopped) = oneshot::channel();
        let current = Arc::clone(&identity);
        let serve = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a test process may make a runtime").block_on(async {
                let listener = TcpListener::from_std(listener).expect("it is not blocking");
                tokio::select! {
                    () = serve(listener, server, &current) => {}
                    // Its sender was dropped.
                    _ = stopped => {}
                }
            });
        };
        let thread = thread::Builder::new().name("tls".to_owned()).spawn(serve).expect("a test may start a thread");
        Self { port, identity, stop: Some(stop), thread: Some(thread) }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// New connections meet this certificate.
    pub(crate) fn present(&self, dir: &Path, name: &str) {
        *self.identity.lock().expect("nobody panics while it is set") = identity(dir, name);
    }
}

impl Drop for TlsFront {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
            && !thread::panicking()
        {
            panic!("the thread of the TLS front panicked");
        }
    }
}

fn identity(dir: &Path, name: &str) -> Arc<ServerConfig> {
    let certificate = CertificateDer::from_pem_file(dir.join(format!("{name}.crt"))).expect("a certificate");
    let key = PrivateKeyDer::from_pem_file(dir.join(format!("{name}.key"))).expect("a key");
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("the provider has ciphers for them")
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key);
    Arc::new(config.expect("the key is the certificate's"))
}

async fn serve(listener: TcpListener, server: u16, identity: &Mutex<Arc<ServerConfig>>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            client = listener.accept() => {
                let (client, _): (TcpStream, SocketAddr) = client.expect("a listening socket accepts");
                let identity = Arc::clone(&identity.lock().expect("nobody panics while it is set"));
                connections.spawn(async move {
                    // A client that does not like the certificate, or a server that is gone, ends the connection.
                    let Ok(mut client) = TlsAcceptor::from(identity).accept(client).await else { return };
                    let Ok(mut server) = TcpStream::connect((Ipv4Addr::LOCALHOST, server)).await else { return };
                    let _ = copy_bidirectional(&mut client, &mut server).await;
                });
            }
            Some(ended) = connections.join_next() => ended.expect("a connection does not panic"),
        }
    }
}
