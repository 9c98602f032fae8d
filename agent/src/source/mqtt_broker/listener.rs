//! The listening socket: accepts connections up to the limit, and ends them when the agent stops.

use std::{
    fmt,
    net::SocketAddr,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use anyhow::Context;
use rustix::net::sockopt;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinSet,
    time::sleep,
};
use tracing::{debug, error, info, warn};

use crate::source::SourceContext;

use super::{config::Settings, goodbye::Goodbye, greeting::greet, registry::Registry, sparingly::Sparingly};

/// A device that lost its power says nothing. The kernel finds out after some two minutes, also for clients without a
/// keep-alive of their own.
const TCP_KEEP_ALIVE: (Duration, Duration, u32) = (Duration::from_secs(60), Duration::from_secs(15), 4);

/// A bound listener, that nobody has been accepted from yet.
pub struct Listener {
    socket: TcpListener,
    settings: Settings,
}

/// What all connections of a listener share.
pub(super) struct Shared {
    pub(super) context: SourceContext,
    pub(super) settings: Settings,
    pub(super) registry: Arc<Registry>,
    told: Sparingly,
}

/// A connection that is counted as open.
pub(super) struct Counted<'a>(&'a Shared);

impl Listener {
    /// Binds the socket, so that its trouble is known before anything else begins.
    ///
    /// # Errors
    /// The address is in use, not ours, or not allowed.
    pub async fn bind(settings: Settings) -> anyhow::Result<Self> {
        let address = settings.listen;
        let socket = TcpListener::bind(address).await.with_context(|| format!("listen for MQTT on {address}"))?;
        Ok(Self { socket, settings })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// The system does not say.
    pub fn local_address(&self) -> anyhow::Result<SocketAddr> {
        self.socket.local_addr().context("ask for the listener's address")
    }

    /// Accepts and serves clients until `context.stop` is cancelled and what they sent is acknowledged.
    ///
    /// # Errors
    /// None yet: no client's trouble, and none of the system's while accepting, ends the listener.
    pub async fn run(self, context: SourceContext) -> anyhow::Result<()> {
        let Self { socket, settings } = self;
        info!(source = %context.name, address = %settings.listen, "mqtt listener started");
        let stop = context.stop.clone();
        let room = Arc::new(Semaphore::new(settings.max_connections));
        let shared = Arc::new(Shared { context, settings, registry: Arc::default(), told: Sparingly::default() });
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                Some(ended) = connections.join_next() => shared.reap(ended),
                accepted = socket.accept() => match accepted {
                    Ok((stream, peer)) => match Arc::clone(&room).try_acquire_owned() {
                        Ok(permit) => {
                            prepare(&stream);
                            let greet = greet(Arc::clone(&shared), stream, peer);
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
                },
            }
        }
        drop(socket);
        while let Some(ended) = connections.join_next().await {
            shared.reap(ended);
        }
        Ok(())
    }
}

impl Shared {
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
