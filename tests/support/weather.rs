//! A link to a server with weather: slow, thin, lossy, cut, silent, as it is told.
//!
//! It stands in front of a real server and passes on what both sides say. What `tc netem` would do to packets it does to
//! pieces of a packet's size: a lost one arrives when it was sent again, and everything behind it waits.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use fastrand::Rng;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

/// What a packet holds.
const PIECE_BYTES: usize = 1400;

/// Pieces under way in one direction of a connection; whoever sends more waits.
const PIECES: usize = 256;

/// How long a sender waits for an acknowledgement before it sends a packet again the first time (Linux: 200 ms at least).
const RESEND_AFTER: Duration = Duration::from_millis(200);

/// It doubles with every loss; real senders wait up to two minutes, tests do not.
const RESEND_AFTER_MAX: Duration = Duration::from_secs(2);

/// What the link is like at the moment. Each piece meets the weather of the moment in which it comes.
#[derive(Debug, Clone)]
pub(crate) struct Weather {
    /// How long everything is under way, in each direction.
    pub(crate) delay: Duration,
    /// Bits a second, in each direction, of all connections together.
    pub(crate) bits_per_second: Option<u32>,
    /// The share of packets that get lost.
    pub(crate) loss: f64,
    pub(crate) trouble: Option<Trouble>,
}

/// What is worse than bad weather.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// Connections are reset as soon as they are made, and those there are when something is said on them.
    Resets,
    /// An answer is cut after so many bytes by a reset.
    ResetsInAnswers(usize),
    /// The head of an answer passes and its body never does.
    HangsAfterHead,
    /// The server seems to say goodbye when it is asked: the connection is closed in its direction, and open in the other.
    HalfCloses,
    /// Connections are made, and nothing ever passes.
    Swallows,
}

impl Weather {
    /// Nothing is in the way.
    pub(crate) fn fine() -> Self {
        Self { delay: Duration::ZERO, bits_per_second: None, loss: 0.0, trouble: None }
    }

    /// Fine but for this.
    pub(crate) fn with(trouble: Trouble) -> Self {
        Self { trouble: Some(trouble), ..Self::fine() }
    }
}

/// A running proxy; it ends when dropped.
pub(crate) struct Proxy {
    address: SocketAddr,
    weather: Arc<Mutex<Weather>>,
    cut: watch::Sender<()>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Proxy {
    /// Listens on this address, in the network of the calling thread, for connections to a server on 127.0.0.1.
    #[track_caller]
    pub(crate) fn start(on: Ipv4Addr, server: u16) -> Self {
        let listener = std::net::TcpListener::bind((on, 0)).expect("the address is this machine's");
        listener.set_nonblocking(true).expect("a socket option");
        let address = listener.local_addr().expect("a bound socket has an address");
        let weather = Arc::new(Mutex::new(Weather::fine()));
        let (stop, stopped) = oneshot::channel();
        let (cut, is_cut) = watch::channel(());
        let line = Line { weather: Arc::clone(&weather), free: [Arc::default(), Arc::default()], is_cut };
        let serve = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a test process may make a runtime").block_on(async {
                let listener = TcpListener::from_std(listener).expect("it is not blocking");
                tokio::select! {
                    () = serve(listener, server, line) => {}
                    // Its sender was dropped.
                    _ = stopped => {}
                }
            });
        };
        let thread = thread::Builder::new().name("proxy".to_owned()).spawn(serve);
        let thread = thread.expect("a test process may start a thread");
        Self { address, weather, cut, stop: Some(stop), thread: Some(thread) }
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on.
    pub(crate) fn set(&self, weather: Weather) {
        *self.weather.lock().expect("nobody panics while it is set") = weather;
    }

    /// Resets all connections there are.
    pub(crate) fn cut(&self) {
        self.cut.send_replace(());
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
            && !thread::panicking()
        {
            panic!("the proxy's thread panicked");
        }
    }
}

/// What all connections share.
#[derive(Clone)]
struct Line {
    weather: Arc<Mutex<Weather>>,
    /// When each direction has carried what was given to it so far.
    free: [Arc<Mutex<Option<Instant>>>; 2],
    /// Tells a connection that it is to be reset.
    is_cut: watch::Receiver<()>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Towards {
    Server,
    Client,
}

impl Line {
    fn weather(&self) -> Weather {
        self.weather.lock().expect("nobody panics while it is set").clone()
    }

    /// When a piece of so many bytes has been carried that is given to it now.
    fn carried(&self, towards: Towards, bytes: usize) -> Instant {
        let Some(bits) = self.weather().bits_per_second else { return Instant::now() };
        let mut free = self.free[towards as usize].lock().expect("nobody panics while reckoning");
        let begins = free.unwrap_or_else(Instant::now).max(Instant::now());
        let carried = begins + Duration::from_secs_f64(bytes as f64 * 8.0 / f64::from(bits));
        *free = Some(carried);
        carried
    }
}

async fn serve(listener: TcpListener, server: u16, line: Line) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            client = listener.accept() => {
                let (client, _) = client.expect("a listening socket accepts");
                connections.spawn(connection(client, server, line.clone()));
            }
            Some(ended) = connections.join_next() => ended.expect("a connection does not panic"),
        }
    }
}

async fn connection(mut client: TcpStream, server: u16, mut line: Line) {
    line.is_cut.mark_unchanged();
    let mut is_cut = line.is_cut.clone();
    let _ = client.set_nodelay(true);
    let reset = match TcpStream::connect(("127.0.0.1", server)).await {
        _ if line.weather().trouble == Some(Trouble::Resets) => true,
        Ok(mut server) => {
            let _ = server.set_nodelay(true);
            let (mut from_client, mut to_client) = client.split();
            let (mut from_server, mut to_server) = server.split();
            let asks = pass(&mut from_client, &mut to_server, &line, Towards::Server);
            let answers = pass(&mut from_server, &mut to_client, &line, Towards::Client);
            tokio::pin!(asks, answers);
            // What a client that closes its direction is still owed comes all the same.
            tokio::select! {
                end = &mut asks => end == End::Reset || answers.await == End::Reset,
                end = &mut answers => end == End::Reset || asks.await == End::Reset,
                _ = is_cut.changed() => true,
            }
        }
        Err(_) => true,
    };
    if reset {
        // Closing then throws away what was not sent yet and answers with RST.
        let _ = client.set_zero_linger();
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Closed,
    Reset,
}

/// Passes on what one side says, until it ends or the weather ends it.
async fn pass(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    line: &Line,
    towards: Towards,
) -> End {
    let (sent, arriving) = mpsc::channel(PIECES);
    let take = take(from, sent, line, towards);
    let give = give(to, arriving, line, towards);
    tokio::pin!(take, give);
    tokio::select! {
        end = &mut give => end,
        () = &mut take => give.await,
    }
}

/// What arrives at a moment.
type Arriving = (Instant, Said);

enum Said {
    Piece(Vec<u8>),
    End(End),
}

async fn take(from: &mut (impl AsyncRead + Unpin), sent: mpsc::Sender<Arriving>, line: &Line, towards: Towards) {
    let mut buffer = [0; PIECE_BYTES];
    // Of the answer that is passing.
    let mut answer = Vec::new();
    loop {
        let read = from.read(&mut buffer).await;
        let Weather { delay, trouble, .. } = line.weather();
        let arrives = Instant::now() + delay;
        let mut end = None;
        let mut piece = match read {
            Ok(length) if length > 0 => buffer[..length].to_vec(),
            ended => {
                end = Some(if ended.is_ok() { End::Closed } else { End::Reset });
                Vec::new()
            }
        };
        match (trouble, towards) {
            (Some(Trouble::Swallows), _) if end.is_none() => continue,
            (Some(Trouble::Resets), _) => (piece, end) = (Vec::new(), Some(End::Reset)),
            (Some(Trouble::HalfCloses), Towards::Client) => (piece, end) = (Vec::new(), Some(End::Closed)),
            (Some(Trouble::ResetsInAnswers(bytes)), Towards::Client) => {
                piece.truncate(bytes);
                end = Some(End::Reset);
            }
            (Some(Trouble::HangsAfterHead), Towards::Client) => {
                let passed = answer.len();
                answer.extend_from_slice(&piece);
                let head = answer.windows(4).position(|four| four == b"\r\n\r\n").map_or(answer.len(), |at| at + 4);
                piece = answer[passed.min(head)..head].to_vec();
            }
            _ => {}
        }
        // The other half has nobody to give to any more when this fails.
        if sent.send((arrives, Said::Piece(piece))).await.is_err() {
            return;
        }
        if let Some(end) = end {
            let _ = sent.send((arrives, Said::End(end))).await;
            return;
        }
    }
}

async fn give(
    to: &mut (impl AsyncWrite + Unpin),
    mut arriving: mpsc::Receiver<Arriving>,
    line: &Line,
    towards: Towards,
) -> End {
    let mut random = Rng::new();
    while let Some((arrives, said)) = arriving.recv().await {
        sleep_until(arrives).await;
        let piece = match said {
            Said::Piece(piece) => piece,
            Said::End(End::Reset) => return End::Reset,
            Said::End(End::Closed) => break,
        };
        sleep_until(line.carried(towards, piece.len())).await;
        let mut resend = RESEND_AFTER;
        while random.f64() < line.weather().loss {
            sleep(resend).await;
            resend = (resend * 2).min(RESEND_AFTER_MAX);
        }
        if to.write_all(&piece).await.is_err() {
            return End::Reset;
        }
    }
    let _ = to.shutdown().await;
    End::Closed
}
