//! A web server that judges each request by what the test says, and answers as it says.

use std::convert::Infallible;
use std::future::pending;
use std::net::Ipv4Addr;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::http::request::Parts;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;

/// What becomes of a request.
pub(crate) enum Answer {
    Reply(Response<Full<Bytes>>),
    /// The connection ends without one.
    Hangup,
    /// The connection stays, and nothing is ever heard of it again or read from it.
    Silence,
}

impl Answer {
    pub(crate) fn of(status: u16, kind: &str, body: impl Into<Bytes>) -> Self {
        let response = Response::builder().status(status).header("content-type", kind).body(Full::from(body.into()));
        Self::Reply(response.expect("a sound status and type"))
    }

    pub(crate) fn json(status: u16, body: &serde_json::Value) -> Self {
        Self::of(status, "application/json", body.to_string())
    }
}

type Judge = dyn FnMut(&Parts, &[u8]) -> Answer + Send;

/// A running server on 127.0.0.1; it ends when dropped.
pub(crate) struct Receiver {
    port: u16,
    connections: Arc<AtomicU64>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Receiver {
    /// Requests are judged one after the other.
    #[track_caller]
    pub(crate) fn start(judge: impl FnMut(&Parts, &[u8]) -> Answer + Send + 'static) -> Self {
        Self::start_with(None, judge)
    }

    /// The same over TLS, and over HTTP/2 if the settings offer it.
    #[track_caller]
    pub(crate) fn start_tls(tls: ServerConfig, judge: impl FnMut(&Parts, &[u8]) -> Answer + Send + 'static) -> Self {
        Self::start_with(Some(TlsAcceptor::from(Arc::new(tls))), judge)
    }

    #[track_caller]
    fn start_with(tls: Option<TlsAcceptor>, judge: impl FnMut(&Parts, &[u8]) -> Answer + Send + 'static) -> Self {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("some port is free");
        listener.set_nonblocking(true).expect("a socket option");
        let port = listener.local_addr().expect("a bound socket has an address").port();
        let (stop, stopped) = oneshot::channel();
        let judge: Arc<Mutex<Judge>> = Arc::new(Mutex::new(judge));
        let connections = Arc::<AtomicU64>::default();
        let made = Arc::clone(&connections);
        let run = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a test process may make a runtime").block_on(async {
                let listener = TcpListener::from_std(listener).expect("it is not blocking");
                tokio::select! {
                    () = serve(listener, tls, judge, &made) => {}
                    // Its sender was dropped.
                    _ = stopped => {}
                }
            });
        };
        let thread = thread::Builder::new().name("receiver".to_owned()).spawn(run);
        let thread = Some(thread.expect("a test process may start a thread"));
        Self { port, connections, stop: Some(stop), thread }
    }

    /// `http://127.0.0.1:PORT`
    pub(crate) fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// How many connections were made to it so far.
    pub(crate) fn connections(&self) -> u64 {
        self.connections.load(Ordering::Relaxed)
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
            && !thread::panicking()
        {
            panic!("the receiver's thread panicked: a request was not as it must be");
        }
    }
}

async fn serve(listener: TcpListener, tls: Option<TlsAcceptor>, judge: Arc<Mutex<Judge>>, made: &AtomicU64) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            stream = listener.accept() => {
                let (stream, _) = stream.expect("a listening socket accepts");
                made.fetch_add(1, Ordering::Relaxed);
                let (tls, judge) = (tls.clone(), Arc::clone(&judge));
                connections.spawn(async move {
                    match tls {
                        None => connection(stream, false, judge).await,
                        // Who does not like the other's certificate is gone.
                        Some(tls) => if let Ok(stream) = tls.accept(stream).await {
                            let h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
                            connection(stream, h2, judge).await;
                        },
                    }
                });
            }
            Some(ended) = connections.join_next() => ended.expect("a connection does not panic"),
        }
    }
}

async fn connection(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, h2: bool, judge: Arc<Mutex<Judge>>) {
    let (hangup, silence) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let service = {
        let (hangup, silence) = (Arc::clone(&hangup), Arc::clone(&silence));
        service_fn(move |request: Request<Incoming>| {
            let (judge, hangup, silence) = (Arc::clone(&judge), Arc::clone(&hangup), Arc::clone(&silence));
            async move {
                let (head, body) = request.into_parts();
                let answer = match body.collect().await {
                    Ok(body) => {
                        let mut judge = judge.lock().expect("no judge panicked before");
                        (*judge)(&head, &body.to_bytes())
                    }
                    Err(_) => Answer::Hangup,
                };
                match answer {
                    Answer::Reply(reply) => Ok::<_, Infallible>(reply),
                    Answer::Hangup => {
                        hangup.notify_one();
                        pending().await
                    }
                    Answer::Silence => {
                        silence.notify_one();
                        pending().await
                    }
                }
            }
        })
    };
    let stream = TokioIo::new(stream);
    let mut serving: Pin<Box<dyn Future<Output = _> + Send>> = if h2 {
        Box::pin(http2::Builder::new(TokioExecutor::new()).serve_connection(stream, service))
    } else {
        Box::pin(http1::Builder::new().serve_connection(stream, service))
    };
    tokio::select! {
        _ = &mut serving => {}
        () = hangup.notified() => {}
        // It is still held.
        () = silence.notified() => pending().await,
    }
}
