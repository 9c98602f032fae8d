//! The listening sockets: accept connections up to the limit, and end them when the agent stops.

use std::{
    fmt,
    net::SocketAddr,
    num::NonZeroUsize,
    path::Path,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use anyhow::{Context, anyhow};
use rustix::net::sockopt;
use rustls::ServerConfig;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinSet,
    time::sleep,
};
use tracing::{debug, error, info, warn};

use crate::source::SourceContext;

use super::{
    config::Settings, credentials::Credentials, goodbye::Goodbye, greeting::greet, registry::Registry, reread::Reread,
    sparingly::Sparingly,
};

/// A device that lost its power says nothing. The kernel finds out after some two minutes, also for clients without a
/// keep-alive of their own.
const TCP_KEEP_ALIVE: (Duration, Duration, u32) = (Duration::from_secs(60), Duration::from_secs(15), 4);

/// A bound listener, that nobody has been accepted from yet.
pub struct Listener {
    socket: Option<TcpListener>,
    websocket: Option<TcpListener>,
    settings: Settings,
    passwords: Option<Reread<Arc<Credentials>>>,
    tls: Option<Reread<Arc<ServerConfig>>>,
}

/// What a socket's clients speak below MQTT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Transport {
    Tcp,
    WebSocket,
}

/// What all connections of a listener share.
pub(super) struct Shared {
    pub(super) context: SourceContext,
    pub(super) settings: Settings,
    pub(super) registry: Arc<Registry>,
    passwords: Option<Arc<Reread<Arc<Credentials>>>>,
    /// Passwords that may be compared at a time: their hashes are made to keep a processor busy.
    comparisons: Semaphore,
    tls: Option<Reread<Arc<ServerConfig>>>,
    told: Sparingly,
}

/// A connection that is counted as open.
pub(super) struct Counted<'a>(&'a Shared);

impl Listener {
    /// Binds the sockets and reads passwords and certificates, so that their trouble is known before anything else begins.
    ///
    /// # Errors
    /// An address is in use, not ours, or not allowed; a file has become useless since it was checked.
    pub async fn bind(settings: Settings) -> anyhow::Result<Self> {
        let socket = listen(settings.listen, "MQTT").await?;
        let websocket = listen(settings.websocket_listen, "MQTT over WebSocket").await?;
        let passwords = settings.password_file.clone().map(|file| {
            let read = {
                let file = file.clone();
                move || Credentials::from_file(&file).map(Arc::new)
            };
            Reread::new(vec![file], read).map_err(|message| anyhow!("read users and passwords: {message}"))
        });
        let tls = settings.tls.clone().map(|tls| {
            let files = [Some(&tls.cert_file), Some(&tls.key_file), tls.client_ca_file.as_ref()];
            let files = files.into_iter().flatten().cloned().collect();
            let load = move || tls.files().load().map_err(|error| error.to_string());
            Reread::new(files, load).map_err(|message| anyhow!("read certificates: {message}"))
        });
        Ok(Self { socket, websocket, settings, passwords: passwords.transpose()?, tls: tls.transpose()? })
    }

    /// Where it listens for MQTT, if it does, and for WebSocket.
    ///
    /// # Errors
    /// The system does not say.
    pub fn local_addresses(&self) -> anyhow::Result<(Option<SocketAddr>, Option<SocketAddr>)> {
        let ask = |socket: &Option<TcpListener>| {
            let address = socket.as_ref().map(TcpListener::local_addr).transpose();
            address.context("ask for the listener's address")
        };
        Ok((ask(&self.socket)?, ask(&self.websocket)?))
    }

    /// Accepts and serves clients until `context.stop` is cancelled and what they sent is acknowledged.
    ///
    /// # Errors
    /// None yet: no client's trouble, and none of the system's while accepting, ends the listener.
    pub async fn run(self, context: SourceContext) -> anyhow::Result<()> {
        let Self { socket, websocket, settings, passwords, tls } = self;
        let (source, encrypted) = (&*context.name, tls.is_some());
        for (transport, address) in [("tcp", settings.listen), ("websocket", settings.websocket_listen)] {
            if let Some(address) = address {
                info!(source, %address, transport, encrypted, "mqtt listener started");
            }
        }
        if let Some(readable) = passwords.as_ref().map(|passwords| passwords.get().0.readable()).filter(|n| *n > 0) {
            let file = settings.password_file.as_deref().unwrap_or_else(|| Path::new(""));
            let message = "passwords can be read in the file; `forebay mqtt-password` makes hashes of them";
            warn!(source, readable, file = %file.display(), "{message}");
        }
        let stop = context.stop.clone();
        let room = Arc::new(Semaphore::new(settings.max_connections));
        // Half of the processors, so that the log and the deliveries go on while everybody comes back at once.
        let processors = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        let shared = Arc::new(Shared {
            context,
            settings,
            registry: Arc::default(),
            passwords: passwords.map(Arc::new),
            comparisons: Semaphore::new((processors / 2).max(1)),
            tls,
            told: Sparingly::default(),
        });
        let mut connections = JoinSet::new();
        loop {
            let (accepted, transport) = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                Some(ended) = connections.join_next() => {
                    shared.reap(ended);
                    continue;
                }
                accepted = accept(socket.as_ref()) => (accepted, Transport::Tcp),
                accepted = accept(websocket.as_ref()) => (accepted, Transport::WebSocket),
            };
            match accepted {
                Ok((stream, peer)) => match Arc::clone(&room).try_acquire_owned() {
                    Ok(permit) => {
                        prepare(&stream);
                        let greet = greet(Arc::clone(&shared), stream, peer, transport);
                        connections.spawn(async move {
                            greet.await;
                            drop(permit);
                        });
                    }
                    Err(_) => {
                        let limit = shared.settings.max_connections;
                        let detail = format_args!("turned away: there are {limit} connections already");
                        shared.count("too-many-connections", &peer.to_string(), detail);
                    }
                },
                Err(error) => {
                    // Such as no file descriptor left: it passes, or it does not, but trying at full speed helps nobody.
                    shared.count("accept", "", format_args!("cannot accept a connection: {error}"));
                    sleep(Duration::from_millis(100)).await;
                }
            }
        }
        drop((socket, websocket));
        while let Some(ended) = connections.join_next().await {
            shared.reap(ended);
        }
        Ok(())
    }
}

async fn listen(address: Option<SocketAddr>, what: &str) -> anyhow::Result<Option<TcpListener>> {
    let Some(address) = address else { return Ok(None) };
    let socket = TcpListener::bind(address).await.with_context(|| format!("listen for {what} on {address}"))?;
    Ok(Some(socket))
}

/// The next connection; never, where nobody listens.
async fn accept(socket: Option<&TcpListener>) -> std::io::Result<(TcpStream, SocketAddr)> {
    match socket {
        Some(socket) => socket.accept().await,
        None => std::future::pending().await,
    }
}

impl Shared {
    /// The certificates, read again if they have changed; nothing where TLS is not spoken.
    pub(super) fn tls(&self) -> Option<Arc<ServerConfig>> {
        let (config, trouble) = self.tls.as_ref()?.get();
        if let Some(trouble) = trouble {
            self.count("unreadable-file", "", format_args!("the certificates read before are used: {trouble}"));
        }
        Some(config)
    }

    /// Whether this is a user's password. The file is read again if it has changed.
    pub(super) async fn is_password(&self, user: &str, password: &[u8]) -> bool {
        let Some(passwords) = self.passwords.clone() else { return false };
        let _turn = self.comparisons.acquire().await.expect("the semaphore is never closed");
        let (user, password) = (user.to_owned(), password.to_owned());
        let compare = move || {
            let (credentials, trouble) = passwords.get();
            (credentials.hold(&user, &password), trouble)
        };
        let (is, trouble) = tokio::task::spawn_blocking(compare)
            .await
            .unwrap_or_else(|error| (false, Some(format!("the comparison panicked: {error}"))));
        if let Some(trouble) = trouble {
            self.count("unreadable-file", "", format_args!("the users and passwords read before are used: {trouble}"));
        }
        is
    }

    /// Counts something that was not taken, or not as it came, and tells of it, but not each time.
    pub(super) fn count(&self, kind: &'static str, client: &str, detail: fmt::Arguments<'_>) {
        self.context.stats.refused(kind);
        if let Some(left_out) = self.told.tell(kind, Instant::now()) {
            let detail = detail.to_string();
            warn!(source = %self.context.name, client, kind, detail, left_out, "mqtt client trouble");
            self.context.stats.failed(if client.is_empty() { detail } else { format!("{client}: {detail}") });
        }
    }

    /// Counts and tells why a connection ended, if that is worth it.
    pub(super) fn told_goodbye(&self, client_id: &str, goodbye: &Goodbye) {
        debug!(source = %self.context.name, client_id, reason = ?goodbye.reason(), "client left");
        match goodbye {
            Goodbye::Disconnected { .. } | Goodbye::Gone(None) | Goodbye::Stopping => {}
            Goodbye::Gone(Some(error)) => debug!(source = %self.context.name, client_id, %error, "connection lost"),
            Goodbye::Silent => {
                self.count("keep-alive", client_id, format_args!("silent for one and a half times its keep-alive"));
            }
            Goodbye::TakenOver => {
                self.count("taken-over", client_id, format_args!("the same client id connected again"));
            }
            Goodbye::Violation(violation) => {
                self.count(violation.count, client_id, format_args!("{}", violation.message));
            }
            Goodbye::NotStored(error) => self.count("not-stored", client_id, format_args!("not stored: {error}")),
        }
    }

    fn reap(&self, ended: Result<(), tokio::task::JoinError>) {
        if let Err(error) = ended
            && error.is_panic()
        {
            // A mistake of ours, which must not take the other clients with it.
            error!(source = %self.context.name, %error, "an mqtt connection's task panicked");
            self.context.stats.refused("panic");
            self.context.stats.failed(format!("a connection's task panicked: {error}"));
        }
    }
}

impl<'a> Counted<'a> {
    pub(super) fn new(shared: &'a Shared) -> Self {
        shared.context.stats.connections.fetch_add(1, Relaxed);
        Self(shared)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.context.stats.connections.fetch_sub(1, Relaxed);
    }
}

/// Sets what a socket does by itself. Without it the connection works all the same.
fn prepare(stream: &TcpStream) {
    let (idle, interval, count) = TCP_KEEP_ALIVE;
    let prepared = stream.set_nodelay(true).and_then(|()| {
        sockopt::set_socket_keepalive(stream, true)?;
        sockopt::set_tcp_keepidle(stream, idle)?;
        sockopt::set_tcp_keepintvl(stream, interval)?;
        sockopt::set_tcp_keepcnt(stream, count)?;
        Ok(())
    });
    if let Err(error) = prepared {
        debug!(%error, "socket options not set");
    }
}
