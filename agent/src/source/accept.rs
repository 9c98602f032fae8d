//! Listening for connections: over TCP, over a Unix socket, with TLS; up to a limit, and until the source stops.

use std::{
    fs,
    future::Future,
    io,
    os::unix::fs::{FileTypeExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use rustix::net::sockopt;
use rustls::ServerConfig;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream, UnixListener},
    sync::Semaphore,
    task::{JoinError, JoinSet},
    time::{sleep, timeout},
};
use tracing::{debug, error};

use super::SourceContext;
use crate::tls::{TlsError, server::ServerFiles};

/// A device that lost its power says nothing. The kernel finds out after some two minutes.
const TCP_KEEP_ALIVE: (Duration, Duration, u32) = (Duration::from_secs(60), Duration::from_secs(15), 4);

/// How long what we send may lie unacknowledged or unread.
const UNREAD_MILLIS_MAX: u32 = 120_000;

/// Time for a TLS handshake.
const HANDSHAKE_PATIENCE: Duration = Duration::from_secs(10);

/// A renewed certificate is used this long after it was written.
const CERTIFICATE_AGE_MAX: Duration = Duration::from_secs(60);

/// A connection, whatever it runs over.
pub(super) type Io = Box<dyn ReadWrite>;

/// What a connection can do.
pub(super) trait ReadWrite: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> ReadWrite for T {}

/// Who is at the other end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Peer {
    /// Its IP address; `localhost` behind a Unix socket.
    host: String,
    /// Its port; none behind a Unix socket.
    port: Option<String>,
}

impl Peer {
    pub(super) fn of(address: std::net::SocketAddr) -> Self {
        Self { host: address.ip().to_canonical().to_string(), port: Some(address.port().to_string()) }
    }

    pub(super) fn local() -> Self {
        Self { host: "localhost".to_owned(), port: None }
    }

    /// What partition keys can be made of.
    pub(super) fn named(&self) -> Vec<(&'static str, &str)> {
        let port = self.port.as_deref().map(|port| ("port", port));
        [("host", &*self.host)].into_iter().chain(port).collect()
    }
}

impl std::fmt::Display for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.host)?;
        self.port.as_ref().map_or(Ok(()), |port| write!(f, " port {port}"))
    }
}

/// A socket that is listened on.
pub(super) enum Acceptor {
    Tcp(TcpListener),
    Unix(UnixListener, #[expect(dead_code, reason = "it is there to be dropped")] SocketFile),
}

impl Acceptor {
    pub(super) async fn tcp(address: std::net::SocketAddr) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(address).await.with_context(|| format!("listen on {address}"))?;
        Ok(Self::Tcp(listener))
    }

    pub(super) fn unix(path: &Path, mode: u32) -> anyhow::Result<Self> {
        SocketFile::make(path, mode, |path| UnixListener::bind(path)).map(|(socket, file)| Self::Unix(socket, file))
    }

    async fn accept(&self) -> io::Result<(Io, Peer)> {
        match self {
            Self::Tcp(listener) => {
                let (stream, address) = listener.accept().await?;
                prepare(&stream);
                Ok((Box::new(stream), Peer::of(address)))
            }
            Self::Unix(listener, _) => {
                let (stream, _) = listener.accept().await?;
                Ok((Box::new(stream), Peer::local()))
            }
        }
    }

    /// Serves connections, up to `limit` at a time, until the source is stopped and they have ended. `contexts` are of the sources that
    /// the listener serves, at least one: what happens to a connection before anybody knows whose it is, all of them count.
    ///
    /// # Errors
    /// Of a connection: the log is gone.
    pub(super) async fn serve<F: Future<Output = anyhow::Result<()>> + Send + 'static>(
        &self,
        limit: usize,
        contexts: &[SourceContext],
        connection: impl Fn(Io, Peer) -> F,
    ) -> anyhow::Result<()> {
        let stop = contexts[0].stop.clone();
        let room = Arc::new(Semaphore::new(limit));
        let trouble = |reason, detail: std::fmt::Arguments<'_>| {
            contexts.iter().for_each(|context| context.trouble(reason, detail));
        };
        let ended = |ended: Result<anyhow::Result<()>, JoinError>| match ended {
            Ok(outcome) => outcome,
            Err(error) => {
                if error.is_panic() {
                    // A mistake of ours, which must not take the other connections with it.
                    error!(source = &*contexts[0].name, %error, "a connection's task panicked");
                    trouble("panic", format_args!("a connection's task panicked: {error}"));
                }
                Ok(())
            }
        };
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                Some(task) = connections.join_next() => ended(task)?,
                accepted = self.accept() => match accepted {
                    Ok((io, peer)) => match Arc::clone(&room).try_acquire_owned() {
                        Ok(permit) => {
                            let counted = Counted::new(contexts);
                            let serve = connection(io, peer);
                            connections.spawn(async move {
                                let outcome = serve.await;
                                drop((permit, counted));
                                outcome
                            });
                        }
                        Err(_) => {
                            let detail = format_args!("{peer} was turned away: there are {limit} connections already");
                            trouble("too-many-connections", detail);
                        }
                    },
                    Err(error) => {
                        // Such as no file descriptor left: it passes, or it does not, but trying at full speed helps nobody.
                        trouble("accept", format_args!("cannot accept a connection: {error}"));
                        sleep(Duration::from_millis(100)).await;
                    }
                },
            }
        }
        while let Some(task) = connections.join_next().await {
            ended(task)?;
        }
        Ok(())
    }
}

/// A connection that is counted as open.
struct Counted(Vec<SourceContext>);

impl Counted {
    fn new(contexts: &[SourceContext]) -> Self {
        for context in contexts {
            context.stats.connections.fetch_add(1, Relaxed);
        }
        Self(contexts.to_vec())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        for context in &self.0 {
            context.stats.connections.fetch_sub(1, Relaxed);
        }
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
        // Also for one that takes no answers any more.
        sockopt::set_tcp_user_timeout(stream, UNREAD_MILLIS_MAX)?;
        Ok(())
    });
    if let Err(error) = prepared {
        debug!(%error, "socket options not set");
    }
}

/// The file of a Unix socket, which goes when the socket goes.
#[derive(Debug)]
pub(super) struct SocketFile(PathBuf);

impl SocketFile {
    /// Binds a socket there, after taking away one that nobody listens on any more, as a kill leaves it.
    pub(super) fn make<T>(
        path: &Path,
        mode: u32,
        bind: impl FnOnce(&Path) -> io::Result<T>,
    ) -> anyhow::Result<(T, Self)> {
        let at = || path.display();
        match fs::symlink_metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).with_context(|| format!("look at {}", at())),
            Ok(found) if !found.file_type().is_socket() => {
                anyhow::bail!("listen on {}: it exists and is no socket", at());
            }
            Ok(_) if is_listened_on(path) => anyhow::bail!("listen on {}: another program does", at()),
            Ok(_) => fs::remove_file(path).with_context(|| format!("remove the old socket {}", at()))?,
        }
        let socket = bind(path).with_context(|| format!("listen on {}", at()))?;
        let file = Self(path.to_owned());
        fs::set_permissions(path, fs::Permissions::from_mode(mode))
            .with_context(|| format!("set the mode of {}", at()))?;
        Ok((socket, file))
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.0) {
            debug!(path = %self.0.display(), %error, "socket not removed");
        }
    }
}

/// Whether a connection gets further than to nobody: the wrong kind of socket, and no permission, are somebody.
fn is_listened_on(path: &Path) -> bool {
    let nobody = |error: &io::Error| error.kind() == io::ErrorKind::ConnectionRefused;
    let stream = std::os::unix::net::UnixStream::connect(path);
    match stream.map(drop) {
        // A datagram socket: EPROTOTYPE.
        Err(error) if !nobody(&error) => {
            let datagram = std::os::unix::net::UnixDatagram::unbound().and_then(|socket| socket.connect(path));
            !datagram.is_err_and(|error| nobody(&error))
        }
        Err(_) => false,
        Ok(()) => true,
    }
}

/// The TLS of a listener.
#[derive(Debug)]
pub(super) struct Tls {
    certificate: PathBuf,
    key: PathBuf,
    client_ca: Option<PathBuf>,
    client_may_go_without: bool,
    current: Mutex<(Instant, Arc<ServerConfig>)>,
}

impl Tls {
    /// Reads the files that a configuration names, if it names any; `wrong` gets what is wrong with them, and the key.
    pub(super) fn of(
        certificate: Option<&PathBuf>,
        key: Option<&PathBuf>,
        client_ca: Option<&PathBuf>,
        client_may_go_without: bool,
        wrong: &mut impl FnMut(&str, &str),
    ) -> Option<Arc<Self>> {
        match (certificate, key) {
            (Some(certificate), Some(key)) => {
                let tls = Self::new(certificate.clone(), key.clone(), client_ca.cloned(), client_may_go_without);
                if tls.is_err() {
                    let client_ca = client_ca.map(PathBuf::as_path);
                    let files = ServerFiles { certificate, key, client_ca, client_may_go_without };
                    files.mistakes().iter().for_each(|error| wrong(error.key, &error.message));
                }
                return tls.map(Arc::new).ok();
            }
            (Some(_), None) => wrong("key-file", "missing; `cert-file` needs it"),
            (None, Some(_)) => wrong("cert-file", "missing; `key-file` needs it"),
            (None, None) if client_ca.is_some() => {
                wrong("cert-file", "missing; clients show their certificates only to who shows one");
            }
            (None, None) => {}
        }
        None
    }

    /// Reads the files.
    fn new(
        certificate: PathBuf,
        key: PathBuf,
        client_ca: Option<PathBuf>,
        client_may_go_without: bool,
    ) -> Result<Self, TlsError> {
        let loaded = load(&certificate, &key, client_ca.as_deref(), client_may_go_without)?;
        Ok(Self { certificate, key, client_ca, client_may_go_without, current: Mutex::new((Instant::now(), loaded)) })
    }

    /// Speaks TLS over a connection.
    ///
    /// # Errors
    /// The client does not, is not who it should be, or takes too long.
    pub(super) async fn handshake(&self, io: Io) -> anyhow::Result<Io> {
        let acceptor = tokio_rustls::TlsAcceptor::from(self.current());
        let stream = timeout(HANDSHAKE_PATIENCE, acceptor.accept(io)).await.context("it took too long")??;
        Ok(Box::new(stream))
    }

    fn current(&self) -> Arc<ServerConfig> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if now.duration_since(current.0) >= CERTIFICATE_AGE_MAX {
            match load(&self.certificate, &self.key, self.client_ca.as_deref(), self.client_may_go_without) {
                Ok(loaded) => current.1 = loaded,
                // Perhaps it is just being written. The old one is better than none.
                Err(error) => error!(%error, "certificate cannot be read again; the old one is used"),
            }
            current.0 = now;
        }
        Arc::clone(&current.1)
    }
}

fn load(
    certificate: &Path,
    key: &Path,
    client_ca: Option<&Path>,
    client_may_go_without: bool,
) -> Result<Arc<ServerConfig>, TlsError> {
    ServerFiles { certificate, key, client_ca, client_may_go_without }.load()
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::{UnixDatagram, UnixListener};

    use super::*;

    #[test]
    fn a_socket_that_a_kill_left_is_replaced_and_no_other_file_is() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("in.sock");
        // Dropped listeners leave their files, as a kill does.
        drop(UnixListener::bind(&path).expect("bound"));
        let (socket, file) = SocketFile::make(&path, 0o660, |path| UnixListener::bind(path)).expect("it was stale");
        assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o7777, 0o660);
        let again = SocketFile::make(&path, 0o660, |path| UnixDatagram::bind(path)).expect_err("it is alive");
        assert!(again.to_string().contains("another program does"), "{again}");
        drop((socket, file));
        assert!(!path.exists());

        drop(UnixDatagram::bind(&path).expect("bound"));
        let (socket, file) = SocketFile::make(&path, 0o600, |path| UnixDatagram::bind(path)).expect("it was stale");
        let again = SocketFile::make(&path, 0o600, |path| UnixDatagram::bind(path)).expect_err("it is alive");
        assert!(again.to_string().contains("another program does"), "{again}");
        drop((socket, file));

        fs::write(&path, "precious").expect("written");
        let refused = SocketFile::make(&path, 0o600, |path| UnixListener::bind(path)).expect_err("it is no socket");
        assert!(refused.to_string().contains("is no socket"), "{refused}");
        assert!(path.exists());
    }

    #[test]
    fn a_peer_is_known_by_its_address() {
        let peer = Peer::of("[::ffff:10.0.0.7]:99".parse().expect("an address"));
        assert_eq!(peer.named(), [("host", "10.0.0.7"), ("port", "99")]);
        assert_eq!(Peer::local().named(), [("host", "localhost")]);
    }
}
