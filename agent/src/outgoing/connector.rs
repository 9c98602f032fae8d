//! Makes connections: name, TCP, proxy, TLS, within one time limit.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use hyper::http::Uri;
use hyper_util::rt::TokioIo;
use rustls::{pki_types::ServerName, time_provider::TimeProvider};
use tokio_rustls::TlsConnector;
use tower_service::Service;

use super::{
    Config,
    error::{ConnectError, ProxyTrouble},
    proxy::{Proxies, Route, with_port},
    socks,
    stream::{Counted, Stream},
    tcp::Tcp,
    trust::Trust,
    tunnel,
    wire_bytes::WireBytes,
};

/// Makes connections for hyper's client.
#[derive(Debug, Clone)]
pub struct Connector(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    tcp: Tcp,
    proxies: Proxies,
    trust: Trust,
    timeout: Duration,
}

impl Service<Uri> for Connector {
    type Response = TokioIo<Stream>;
    type Error = ConnectError;
    type Future = Pin<Box<dyn Future<Output = Result<TokioIo<Stream>, ConnectError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ConnectError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, destination: Uri) -> Self::Future {
        let inner = Arc::clone(&self.0);
        Box::pin(async move {
            let timeout = inner.timeout;
            let connecting = inner.connect(destination);
            let connected = tokio::time::timeout(timeout, connecting).await;
            connected.unwrap_or(Err(ConnectError::Timeout(timeout))).map(TokioIo::new)
        })
    }
}

impl Connector {
    pub(super) fn new(config: &Config, proxies: Proxies, wire: Arc<WireBytes>) -> Self {
        Self(Arc::new(Inner {
            tcp: Tcp::new(config.request_timeout, wire),
            proxies,
            trust: Trust::new(config),
            timeout: config.connect_timeout,
        }))
    }

    pub(super) fn judge_by(&self, time: Arc<dyn TimeProvider>) {
        self.0.trust.judge_by(time);
    }

    pub(super) async fn reach(&self, destination: Uri) -> Result<Counted, ConnectError> {
        let timeout = self.0.timeout;
        let reached = tokio::time::timeout(timeout, self.0.reach(destination)).await;
        reached.unwrap_or(Err(ConnectError::Timeout(timeout)))
    }
}

impl Inner {
    async fn connect(self: Arc<Self>, destination: Uri) -> Result<Stream, ConnectError> {
        let tls = destination.scheme_str() == Some("https");
        let destination = with_port(&destination, if tls { 443 } else { 80 });
        let host = destination.host().unwrap_or_default().to_owned();
        // Before a connection is made for nothing; and files are read where reading them stops nobody else.
        let settings = if tls {
            let this = Arc::clone(&self);
            let read = tokio::task::spawn_blocking(move || this.trust.current()).await;
            let settings =
                read.map_err(|panic| ConnectError::Address(panic.to_string()))?.map_err(ConnectError::Files)?;
            Some((settings, server_name(&host)?))
        } else {
            None
        };
        let socket = self.reach(destination).await?;
        let Some((settings, name)) = settings else { return Ok(Stream::Plain(socket)) };
        let shaken = TlsConnector::from(settings).connect(name, socket).await;
        let stream = shaken.map_err(|source| ConnectError::Tls { host, source })?;
        Ok(Stream::Tls(Box::new(stream)))
    }

    async fn reach(&self, destination: Uri) -> Result<Counted, ConnectError> {
        let route = self.proxies.route(&destination);
        let first = match &route {
            Route::Direct => &destination,
            Route::Tunnel { proxy, .. } | Route::Socks { proxy, .. } => proxy,
        };
        let reached = self.tcp.connect(first.clone()).await;
        match route {
            Route::Direct => reached,
            Route::Tunnel { proxy, authorization } => match reached {
                Ok(socket) => tunnel::through(socket, &destination, authorization.as_ref()).await,
                Err(error) => Err(ProxyTrouble::Unreachable(Box::new(error))),
            }
            .map_err(|trouble| in_the_way(&proxy, trouble)),
            Route::Socks { proxy, user } => match reached {
                Ok(socket) => socks::through(socket, destination, user).await,
                Err(error) => Err(ProxyTrouble::Unreachable(Box::new(error))),
            }
            .map_err(|trouble| in_the_way(&proxy, trouble)),
        }
    }
}

fn in_the_way(proxy: &Uri, trouble: ProxyTrouble) -> ConnectError {
    ConnectError::Proxy { proxy: proxy.to_string().trim_end_matches('/').to_owned(), trouble }
}

fn server_name(host: &str) -> Result<ServerName<'static>, ConnectError> {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    ServerName::try_from(bare.to_owned())
        .map_err(|_| ConnectError::Address(format!("`{host}` is no name that a certificate can have")))
}
