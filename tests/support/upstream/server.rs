//! The thread that listens, and carries out what [`Reply`] says.

use std::convert::Infallible;
use std::future::{pending, poll_fn};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, mpsc as blocking};
use std::thread::{self, JoinHandle};

use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;

use super::wire::{self, ListShards, PutRecords};
use super::{Memory, Reply};

/// A server on a thread of its own; it ends when dropped.
pub(super) struct Server {
    commands: mpsc::UnboundedSender<Command>,
    hanging: watch::Sender<()>,
    thread: Option<JoinHandle<()>>,
}

enum Command {
    Down(blocking::Sender<()>),
    Up(blocking::Sender<()>),
}

impl Server {
    /// Returns once it listens.
    pub(super) fn start(port: u16, memory: Arc<Memory>) -> Self {
        let (commands, orders) = mpsc::unbounded_channel();
        let (hanging, let_go) = watch::channel(());
        let thread = thread::Builder::new()
            .name("upstream".to_owned())
            .spawn(move || {
                tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()
                    .expect("a test process may make a runtime")
                    .block_on(serve(port, memory, orders, let_go));
            })
            .expect("a test process may start a thread");
        let server = Self { commands, hanging, thread: Some(thread) };
        server.link_up();
        server
    }

    pub(super) fn link_up(&self) {
        self.order(Command::Up);
    }

    pub(super) fn link_down(&self) {
        self.order(Command::Down);
    }

    /// Resets the connections whose request is never answered.
    pub(super) fn cut_hanging(&self) {
        self.hanging.send_replace(());
    }

    fn order(&self, command: impl FnOnce(blocking::Sender<()>) -> Command) {
        let (done, wait) = blocking::channel();
        self.commands.send(command(done)).expect("the upstream's thread lives as long as the upstream");
        wait.recv().expect("the upstream's thread does what it is told");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Nobody can order any more: that ends it.
        self.commands = mpsc::unbounded_channel().0;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
            && !thread::panicking()
        {
            panic!("the upstream's thread panicked");
        }
    }
}

async fn serve(
    port: u16,
    memory: Arc<Memory>,
    mut orders: mpsc::UnboundedReceiver<Command>,
    let_go: watch::Receiver<()>,
) {
    let mut listener: Option<TcpListener> = None;
    let mut connections = JoinSet::new();
    let mut link = watch::channel(()).0;
    loop {
        tokio::select! {
            order = orders.recv() => match order {
                None => return,
                Some(Command::Up(done)) => {
                    if listener.is_none() {
                        listener = Some(listen(port));
                    }
                    let _ = done.send(());
                }
                Some(Command::Down(done)) => {
                    listener = None;
                    // The connections notice that their link is gone, and reset.
                    link = watch::channel(()).0;
                    while connections.join_next().await.is_some() {}
                    let _ = done.send(());
                }
            },
            stream = accept(listener.as_ref()) => {
                let connection = connection(stream, Arc::clone(&memory), link.subscribe(), let_go.clone());
                connections.spawn(connection);
            }
            Some(ended) = connections.join_next() => ended.expect("a connection does not panic"),
        }
    }
}

fn listen(port: u16) -> TcpListener {
    let listen = || {
        let socket = TcpSocket::new_v4()?;
        // Connections of before may still be waiting for their last packets.
        socket.set_reuseaddr(true)?;
        socket.bind(SocketAddr::from(([127, 0, 0, 1], port)))?;
        socket.listen(1024)
    };
    listen().unwrap_or_else(|error| panic!("the upstream cannot listen on port {port}: {error}"))
}

async fn accept(listener: Option<&TcpListener>) -> TcpStream {
    match listener {
        None => pending().await,
        Some(listener) => listener.accept().await.expect("a listening socket accepts").0,
    }
}

/// Serves one connection until the client, a script or the link ends it.
async fn connection(
    stream: TcpStream,
    memory: Arc<Memory>,
    mut link: watch::Receiver<()>,
    let_go: watch::Receiver<()>,
) {
    // An answer must not wait for the client's acknowledgement of the one before.
    let _ = stream.set_nodelay(true);
    let ending = Arc::new(Ending::default());
    let service = {
        let ending = Arc::clone(&ending);
        service_fn(move |request| -> Pin<Box<dyn Future<Output = _> + Send>> {
            let (memory, ending, let_go) = (Arc::clone(&memory), Arc::clone(&ending), let_go.clone());
            Box::pin(async move { Ok::<_, Infallible>(answer(request, &memory, &ending, let_go).await) })
        })
    };
    let mut served = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    let reset = tokio::select! {
        _ = poll_fn(|cx| served.poll_without_shutdown(cx)) => false,
        () = ending.close.notified() => false,
        () = ending.reset.notified() => true,
        // Its sender was dropped: the link is gone.
        _ = link.changed() => true,
    };
    let stream = served.into_parts().io.into_inner();
    if reset {
        // Closing then throws away what was not sent yet and answers with RST.
        let _ = stream.set_zero_linger();
    }
}

/// How a request says that its connection ends.
#[derive(Default)]
struct Ending {
    close: Notify,
    reset: Notify,
}

impl Ending {
    async fn close(&self) -> Response<Full<Bytes>> {
        self.close.notify_one();
        pending().await
    }

    async fn reset(&self) -> Response<Full<Bytes>> {
        self.reset.notify_one();
        pending().await
    }
}

/// In CBOR to whoever asks in CBOR.
async fn answer(
    request: Request<Incoming>,
    memory: &Memory,
    ending: &Ending,
    let_go: watch::Receiver<()>,
) -> Response<Full<Bytes>> {
    let cbor = wire::is_cbor(request.headers());
    let answer = answer_in_json(request, memory, ending, let_go).await;
    if !cbor || answer.headers().get("content-type").is_none_or(|content_type| content_type != wire::CONTENT_TYPE) {
        return answer;
    }
    let status = answer.status().as_u16();
    let Ok(body) = answer.into_body().collect().await;
    respond(status, wire::CBOR, wire::cbor_of_json(&body.to_bytes()))
}

async fn answer_in_json(
    request: Request<Incoming>,
    memory: &Memory,
    ending: &Ending,
    let_go: watch::Receiver<()>,
) -> Response<Full<Bytes>> {
    let (head, body) = request.into_parts();
    let Ok(body) = body.collect().await else {
        return ending.close().await;
    };
    let body = body.to_bytes();
    if wire::asks_for_shards(&head.headers) {
        return match wire::parse_list(&body) {
            Ok(list) => listed(memory.list(), &list, memory, ending, let_go).await,
            Err(invalid) => json(400, wire::error(invalid.code, &invalid.message)),
        };
    }
    let body = if wire::is_cbor(&head.headers) { wire::json_of_cbor(&body) } else { Ok(body.to_vec()) };
    let request = match body.and_then(|body| wire::parse(&head.headers, &body)) {
        Ok(request) => request,
        Err(invalid) => return json(400, wire::error(invalid.code, &invalid.message)),
    };
    let (number, reply) = memory.lock().decide(&request);
    carry_out(reply, number, request, memory, ending, let_go).await
}

async fn listed(
    reply: Reply,
    list: &ListShards,
    memory: &Memory,
    ending: &Ending,
    let_go: watch::Receiver<()>,
) -> Response<Full<Bytes>> {
    match after(reply).await {
        Reply::Accept => json(200, wire::page(&memory.shards.all(), list)),
        Reply::Listed(shards) => json(200, wire::page(&shards, list)),
        other => nothing_done(other, ending, let_go).await,
    }
}

/// Waits until a reply is due.
async fn after(mut reply: Reply) -> Reply {
    while let Reply::After(delay, then) = reply {
        tokio::time::sleep(delay).await;
        reply = *then;
    }
    reply
}

async fn carry_out(
    reply: Reply,
    number: u64,
    request: PutRecords,
    memory: &Memory,
    ending: &Ending,
    let_go: watch::Receiver<()>,
) -> Response<Full<Bytes>> {
    let refuse = |places: Vec<usize>, code: &'static str| move |index: usize| places.contains(&index).then_some(code);
    let outcomes = match after(reply).await {
        Reply::Accept => memory.take(number, request, |_| None),
        Reply::Throttle(places) => {
            let refused = refuse(places, "ProvisionedThroughputExceededException");
            memory.take(number, request, refused)
        }
        Reply::Fail(places) => memory.take(number, request, refuse(places, "InternalFailure")),
        Reply::AcceptThenReset => {
            memory.take(number, request, |_| None);
            return ending.reset().await;
        }
        Reply::AcceptThenHang => {
            memory.take(number, request, |_| None);
            return hang(ending, let_go).await;
        }
        other => return nothing_done(other, ending, let_go).await,
    };
    json(200, wire::answer(&outcomes))
}

/// A reply to a request that did nothing.
async fn nothing_done(reply: Reply, ending: &Ending, let_go: watch::Receiver<()>) -> Response<Full<Bytes>> {
    match reply {
        Reply::Error { status, code } => json(status, wire::error(code, "as the test asked for")),
        Reply::Saying { code, message } => json(400, wire::error(code, message)),
        Reply::Html { status } => html(status),
        Reply::Empty => Response::new(Full::default()),
        Reply::Close => ending.close().await,
        Reply::Reset => ending.reset().await,
        Reply::Hang => hang(ending, let_go).await,
        other => unreachable!("no reply to such a request: {other:?}"),
    }
}

/// Silent until the script is thrown away, the link goes down or the client gives up.
async fn hang(ending: &Ending, mut let_go: watch::Receiver<()>) -> Response<Full<Bytes>> {
    let_go.mark_unchanged();
    // An error means that the server is ending, and the connection with it.
    let _ = let_go.changed().await;
    ending.reset().await
}

fn json(status: u16, body: Vec<u8>) -> Response<Full<Bytes>> {
    respond(status, wire::CONTENT_TYPE, body)
}

fn html(status: u16) -> Response<Full<Bytes>> {
    let page = "<!DOCTYPE html><html><body><h1>Welcome to the hotel's network</h1></body></html>";
    respond(status, "text/html; charset=utf-8", page.into())
}

fn respond(status: u16, content_type: &str, body: Vec<u8>) -> Response<Full<Bytes>> {
    Response::builder()
        .status(status)
        .header("content-type", content_type)
        .header("x-amzn-requestid", "00000000-0000-4000-8000-000000000000")
        // It means something with a redirection only.
        .header("location", "http://login.hotel.example/")
        .body(Full::from(body))
        .expect("the status and headers of a reply are valid")
}
