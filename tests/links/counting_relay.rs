//! A relay in front of an endpoint that counts what passes, in both directions, and when the machine did nothing at all.

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// So often the relay looks at the clock.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Later than that, and nobody got to work, because of builds or other tests.
const STALL: Duration = Duration::from_millis(100);

/// Bytes that passed, and when.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Passed {
    pub(crate) at: Instant,
    pub(crate) bytes: usize,
}

/// On a port of its own; it lasts as long as the process.
pub(crate) struct CountingRelay {
    address: SocketAddr,
    passed: Arc<Mutex<Vec<Passed>>>,
    stalls: Arc<Mutex<Vec<(Instant, Instant)>>>,
    /// Ends the looks at the clock when it is dropped.
    _looking: mpsc::Sender<()>,
}

impl CountingRelay {
    /// In front of `http://127.0.0.1:PORT`.
    pub(crate) fn to(endpoint: &str) -> Self {
        let server: SocketAddr = endpoint.trim_start_matches("http://").parse().expect("an address");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("bound");
        let passed = Arc::new(Mutex::new(Vec::new()));
        let (looking, ended) = mpsc::channel();
        let relay = Self { address, passed: Arc::clone(&passed), stalls: Arc::default(), _looking: looking };
        let stalls = Arc::clone(&relay.stalls);
        thread::spawn(move || look_at_the_clock(&stalls, &ended));
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let Ok(server) = TcpStream::connect(server) else { continue };
                let (there, back) = (client.try_clone().expect("a handle"), server.try_clone().expect("a handle"));
                for (from, to) in [(there, server), (back, client)] {
                    let passed = Arc::clone(&passed);
                    thread::spawn(move || carry(from, to, &passed));
                }
            }
        });
        relay
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Everything until now.
    pub(crate) fn passed(&self) -> Vec<Passed> {
        self.passed.lock().expect("nobody panics with it").clone()
    }

    pub(crate) fn bytes(&self) -> usize {
        self.passed().iter().map(|passed| passed.bytes).sum()
    }

    /// How long, in this time, no program could do anything, each time that it was so.
    pub(crate) fn stalls(&self, from: Instant, to: Instant) -> Vec<Duration> {
        let stalls = self.stalls.lock().expect("nobody panics with it");
        stalls.iter().map(|(begin, end)| (*end).min(to).saturating_duration_since((*begin).max(from))).collect()
    }
}

fn look_at_the_clock(stalls: &Mutex<Vec<(Instant, Instant)>>, ended: &mpsc::Receiver<()>) {
    let mut before = Instant::now();
    while ended.recv_timeout(LOOK_EVERY) == Err(RecvTimeoutError::Timeout) {
        let now = Instant::now();
        if now - before > STALL {
            stalls.lock().expect("nobody panics with it").push((before, now));
        }
        before = now;
    }
}

fn carry(mut from: TcpStream, mut to: TcpStream, passed: &Mutex<Vec<Passed>>) -> io::Result<()> {
    let mut buffer = [0; 64 << 10];
    loop {
        let bytes = from.read(&mut buffer)?;
        if bytes == 0 {
            return to.shutdown(Shutdown::Write);
        }
        passed.lock().expect("nobody panics with it").push(Passed { at: Instant::now(), bytes });
        to.write_all(&buffer[..bytes])?;
    }
}
