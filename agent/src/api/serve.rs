//! The listening socket and its connections: HTTP/1.1 and HTTP/2 (prior knowledge), so many and no more.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use anyhow::Context as _;
use axum::Router;
use hyper::service::{Service as _, service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

/// Enough for everybody who watches one gateway, and far below the usual limit of 1024 open files.
const CONNECTIONS_MAX: usize = 128;
/// For a request's head; also how long a connection may lie idle.
const HEAD_PATIENCE: Duration = Duration::from_secs(60);
/// Requests under way on one HTTP/2 connection.
const STREAMS_MAX: u32 = 32;

/// A bound socket that nobody has been accepted from yet.
pub struct Server {
    socket: TcpListener,
    address: SocketAddr,
}

impl Server {
    /// Binds the socket, so that its trouble is known before anything else begins.
    ///
    /// # Errors
    /// The address is in use, not ours, or not allowed.
    pub async fn bind(listen: SocketAddr) -> anyhow::Result<Self> {
        let socket = TcpListener::bind(listen).await.with_context(|| format!("listen for the API on {listen}"))?;
        let address = socket.local_addr().context("ask for the API's address")?;
        Ok(Self { socket, address })
    }

    /// Serves until `stop` is cancelled and the requests under way are answered.
    ///
    /// # Errors
    /// None: no client's trouble ends it.
    pub async fn run(self, router: Router, stop: CancellationToken) -> anyhow::Result<()> {
        info!(address = %self.address, "api listens");
        let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                Some(_) = connections.join_next() => {}
                accepted = self.socket.accept() => match accepted {
                    Ok((stream, peer)) => match Arc::clone(&room).try_acquire_owned() {
                        Ok(permit) => {
                            let (router, stop) = (router.clone(), stop.clone());
                            connections.spawn(async move {
                                serve(stream, peer, router, stop).await;
                                drop(permit);
                            });
                        }
                        Err(_) => debug!(%peer, "api has too many connections; one was turned away"),
                    },
                    Err(error) => {
                        // Such as no file descriptor left: trying at full speed would not give us one.
                        warn!(%error, "api cannot accept a connection");
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                },
            }
        }
        while connections.join_next().await.is_some() {}
        Ok(())
    }
}

async fn serve(stream: TcpStream, peer: SocketAddr, router: Router, stop: CancellationToken) {
    let _ = stream.set_nodelay(true);
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_PATIENCE);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .keep_alive_interval(HEAD_PATIENCE)
        .keep_alive_timeout(HEAD_PATIENCE);
    // hyper's own patience begins once it knows which HTTP is spoken; before that, ours counts.
    let spoken = Arc::new(AtomicBool::new(false));
    let service = service_fn({
        let (service, spoken) = (TowerToHyperService::new(router), Arc::clone(&spoken));
        move |request| {
            spoken.store(true, Relaxed);
            service.call(request)
        }
    });
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let mut stopping = false;
    let mut silence = std::pin::pin!(tokio::time::sleep(HEAD_PATIENCE));
    let mut waiting = true;
    let outcome = loop {
        tokio::select! {
            outcome = connection.as_mut() => break outcome,
            () = stop.cancelled(), if !stopping => {
                stopping = true;
                connection.as_mut().graceful_shutdown();
            }
            () = silence.as_mut(), if waiting => {
                waiting = false;
                if !spoken.load(Relaxed) {
                    debug!(%peer, "api connection without a request was closed");
                    return;
                }
            }
        }
    };
    if let Err(error) = outcome {
        debug!(%peer, %error, "api connection ended");
    }
}
