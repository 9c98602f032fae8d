//! The listener of one or more `http` sources: connections, and which source a request is for.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::Semaphore;
use tracing::{debug, info};

use super::{answer::Refusal, body::Coming, config::Listener, request::Route};
use crate::source::{
    SourceContext,
    accept::{Acceptor, Io, Peer},
};

/// Large bodies that may be in memory at once.
const LARGE_BODIES_MAX: usize = 8;

/// What a request that is under way gets when the agent stops, of the two seconds that a source has.
const STOP_PATIENCE: Duration = Duration::from_millis(1600);

/// Memory for the head of a request.
const HEAD_BYTES_MAX: usize = 32 * 1024;

/// The listeners of this process, by address. An address can be listened on once, so this is the process's and no one's.
static DOORS: Mutex<BTreeMap<SocketAddr, Weak<Door>>> = Mutex::new(BTreeMap::new());

/// A listener and those who share it.
pub(super) struct Door {
    listener: Listener,
    state: Mutex<State>,
    pub(super) large: Semaphore,
}

#[derive(Default)]
struct State {
    /// The first attempt to listen, until somebody serves.
    first: Option<anyhow::Result<Acceptor>>,
    /// Sources that will come.
    expected: usize,
    routes: BTreeMap<String, Arc<Route>>,
}

impl Door {
    /// The door at an address: the one that another source has, or a new one, which tries to listen.
    pub(super) async fn at(listener: &Listener) -> Arc<Self> {
        let known = {
            let mut doors = DOORS.lock().unwrap_or_else(PoisonError::into_inner);
            doors.retain(|_, door| door.strong_count() > 0);
            // Port 0 is another port each time.
            let known = doors.get(&listener.address).and_then(Weak::upgrade).filter(|_| listener.address.port() != 0);
            known.map_or_else(
                || {
                    let door = Arc::new(Self {
                        listener: listener.clone(),
                        state: Mutex::default(),
                        large: Semaphore::new(LARGE_BODIES_MAX),
                    });
                    doors.insert(listener.address, Arc::downgrade(&door));
                    (door, true)
                },
                |door| (door, false),
            )
        };
        let (door, new) = known;
        door.state().expected += 1;
        if new {
            let first = Acceptor::tcp(listener.address).await;
            door.state().first = Some(first);
        }
        door
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes requests for a route, until the source stops. The last source that comes serves for all, so that nobody is told
    /// that there is nothing at a path whose source only has not begun.
    ///
    /// # Errors
    /// None: no client's trouble ends it.
    pub(super) async fn run(self: Arc<Self>, path: String, route: Route) -> anyhow::Result<()> {
        let context = route.context.clone();
        let turn = {
            let mut state = self.state();
            state.routes.insert(path, Arc::new(route));
            if state.routes.len() == state.expected {
                state.first.take().map(|first| (first, state.routes.clone()))
            } else {
                None
            }
        };
        let Some((first, routes)) = turn else {
            context.stop.cancelled().await;
            return Ok(());
        };
        let again = || Acceptor::tcp(self.listener.address);
        let Some(acceptor) = context.until_given("cannot-listen", first, again).await else {
            return Ok(());
        };
        info!(source = &*context.name, address = %self.listener.address, "http listens");
        let contexts: Vec<SourceContext> = routes.values().map(|route| route.context.clone()).collect();
        let routes = Arc::new(routes);
        let serve = |io, peer| Arc::clone(&self).serve(Arc::clone(&routes), contexts[0].clone(), io, peer);
        acceptor.serve(self.listener.max_connections, &contexts, serve).await
    }

    async fn serve(
        self: Arc<Self>,
        routes: Arc<BTreeMap<String, Arc<Route>>>,
        context: SourceContext,
        io: Io,
        peer: Peer,
    ) -> anyhow::Result<()> {
        let io = match &self.listener.tls {
            None => io,
            Some(tls) => {
                let handshake = tokio::select! {
                    biased;
                    () = context.stop.cancelled() => return Ok(()),
                    handshake = tls.handshake(io) => handshake,
                };
                match handshake {
                    Ok(io) => io,
                    Err(error) => {
                        context.trouble("tls-handshake", format_args!("no TLS with {peer}: {error:#}"));
                        return Ok(());
                    }
                }
            }
        };
        let service = service_fn(|request| {
            let (door, routes, peer) = (Arc::clone(&self), Arc::clone(&routes), peer.clone());
            async move { Ok::<_, Infallible>(door.answer(&routes, request, &peer).await) }
        });
        let mut builder = http1::Builder::new();
        builder
            .timer(TokioTimer::new())
            .header_read_timeout(self.listener.request_timeout)
            .max_buf_size(HEAD_BYTES_MAX);
        let mut connection = std::pin::pin!(builder.serve_connection(TokioIo::new(io), service));
        let outcome = tokio::select! {
            outcome = connection.as_mut() => Some(outcome),
            () = context.stop.cancelled() => {
                connection.as_mut().graceful_shutdown();
                tokio::time::timeout(STOP_PATIENCE, connection).await.ok()
            }
        };
        match outcome {
            Some(Err(error)) if error.is_timeout() => {
                context.trouble("timeout", format_args!("{peer} did not send a request within request-timeout"));
            }
            Some(Err(error)) if error.is_parse() => {
                context.trouble("malformed", format_args!("{peer} sent no HTTP: {error}"))
            }
            Some(Err(error)) => debug!(source = &*context.name, %peer, %error, "http connection ended"),
            Some(Ok(())) => {}
            None => context.trouble("stopped", format_args!("stopped before the request of {peer} was answered")),
        }
        Ok(())
    }

    async fn answer(
        &self,
        routes: &BTreeMap<String, Arc<Route>>,
        request: Request<Incoming>,
        peer: &Peer,
    ) -> Response<Full<Bytes>> {
        let (head, body) = request.into_parts();
        let mut body = Coming::new(&head.headers, body);
        let path = head.uri.path();
        let Some(route) = routes.get(path) else {
            let message = format!("there is nothing at {path}");
            // Nobody's path, so it is told by one of those who listen.
            if let Some(route) = routes.values().next() {
                route.context.trouble("not-found", format_args!("{peer} was answered 404: {message}"));
            }
            let refusal = Refusal::new(StatusCode::NOT_FOUND, "not-found", message);
            return body.pass_over(refusal.into_response(&[])).await;
        };
        let outcome = if head.method == Method::POST {
            route.take(&head, &mut body, peer, self.listener.request_timeout, &self.large).await
        } else {
            let message = format!("{path} does not take {}, only POST", head.method);
            Err(Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "bad-method", message))
        };
        match outcome {
            Ok(response) => response,
            Err(refusal) => {
                let (reason, code) = (refusal.reason, refusal.code);
                route.context.trouble(reason, format_args!("{peer} was answered {code}: {}", refusal.message()));
                let response = refusal.into_response(&route.settings.access.schemes());
                body.pass_over(response).await
            }
        }
    }
}
