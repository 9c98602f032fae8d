//! TCP connections whose bytes are counted. Addresses of both families are tried side by side.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use hyper::http::Uri;
use hyper_util::client::legacy::connect::{
    HttpConnector,
    dns::{GaiAddrs, GaiResolver, Name},
};
use tower_service::Service;

use super::{
    error::{ConnectError, NameError},
    stream::Counted,
    wire_bytes::WireBytes,
};

/// Makes TCP connections.
#[derive(Debug, Clone)]
pub(super) struct Tcp {
    inner: HttpConnector<Resolver>,
    wire: Arc<WireBytes>,
}

impl Tcp {
    /// A connection on which nothing is heard for `silence` although something was sent is given up by the system.
    pub(super) fn new(silence: Duration, wire: Arc<WireBytes>) -> Self {
        let mut inner = HttpConnector::new_with_resolver(Resolver(GaiResolver::new()));
        inner.enforce_http(false);
        inner.set_nodelay(true);
        inner.set_tcp_user_timeout(Some(silence));
        Self { inner, wire }
    }

    /// A connection with an address whose port is written out.
    pub(super) async fn connect(&self, destination: Uri) -> Result<Counted, ConnectError> {
        let socket = self.inner.clone().call(destination).await.map_err(|error| ConnectError::of_tcp(&error))?;
        Ok(Counted::new(socket.into_inner(), Arc::clone(&self.wire)))
    }
}

/// The system's resolver, with errors that are recognised.
#[derive(Debug, Clone)]
struct Resolver(GaiResolver);

impl Service<Name> for Resolver {
    type Response = GaiAddrs;
    type Error = NameError;
    type Future = Pin<Box<dyn Future<Output = Result<GaiAddrs, NameError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), NameError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let (host, resolving) = (name.to_string(), self.0.call(name));
        Box::pin(async move { resolving.await.map_err(|source| NameError { host, source }) })
    }
}
