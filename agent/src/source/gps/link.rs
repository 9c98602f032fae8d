//! Connections to receivers: opens them and reads what comes, as bytes or as datagrams.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpStream, UdpSocket},
    time::timeout,
};

use super::{config::Receiver, gpsd};
use crate::{
    serial_port::{OpenError, Port},
    source::reconnect::Trouble,
};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A sender of datagrams that said nothing for so long has gone, and another may take its place.
const SENDER_QUIET: Duration = Duration::from_secs(10);

/// Why there is no connection (any more).
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) trouble: Trouble,
    pub(super) error: anyhow::Error,
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self { trouble: Trouble::Passing, error }
    }
}

/// An open connection.
#[derive(Debug)]
pub(super) enum Link {
    Serial(Port),
    Tcp(TcpStream),
    Udp(Datagrams),
}

/// What is listened to: one sender at a time, or the sentences of two would be mixed.
#[derive(Debug)]
pub(super) struct Datagrams {
    socket: UdpSocket,
    sender: Option<(SocketAddr, Instant)>,
}

/// What came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Came {
    /// So many bytes of a stream; 0 at its end.
    Bytes(usize),
    /// A whole datagram of so many bytes.
    Datagram(usize, IpAddr),
    /// A datagram of somebody who is not listened to now.
    Stranger,
}

impl Link {
    /// Connects to a receiver, or listens where its datagrams come.
    pub(super) async fn open(receiver: &Receiver) -> Result<Self, Failure> {
        match receiver {
            Receiver::Serial(port) => port.open().await.map(Self::Serial).map_err(|OpenError { error, needs_help }| {
                let trouble = if needs_help { Trouble::Refused } else { Trouble::Passing };
                Failure { trouble, error }
            }),
            Receiver::Tcp { host, port } => Ok(Self::Tcp(connect(host, *port).await?)),
            Receiver::Gpsd { host, port, device } => {
                let mut stream = connect(host, *port).await?;
                let watch = gpsd::watch(device.as_deref());
                stream.write_all(watch.as_bytes()).await.context("ask gpsd for reports")?;
                Ok(Self::Tcp(stream))
            }
            Receiver::Udp(address) => Ok(Self::Udp(Datagrams::bind(*address).await?)),
        }
    }

    /// Waits for something to come.
    ///
    /// # Cancel safety
    /// Nothing is lost if it is dropped.
    pub(super) async fn read(&mut self, buffer: &mut [u8]) -> io::Result<Came> {
        match self {
            Self::Serial(port) => port.read(buffer).await.map(Came::Bytes),
            Self::Tcp(stream) => stream.read(buffer).await.map(Came::Bytes),
            Self::Udp(datagrams) => {
                let (bytes, from) = datagrams.socket.recv_from(buffer).await?;
                Ok(datagrams.came(bytes, from, Instant::now()))
            }
        }
    }
}

impl Datagrams {
    pub(super) async fn bind(address: SocketAddr) -> anyhow::Result<Self> {
        let socket = UdpSocket::bind(address).await.with_context(|| format!("listen on udp://{address}"))?;
        Ok(Self { socket, sender: None })
    }

    fn came(&mut self, bytes: usize, from: SocketAddr, now: Instant) -> Came {
        // A sender may use another port for each datagram.
        if self.sender.is_some_and(|(sender, at)| sender.ip() != from.ip() && now.duration_since(at) < SENDER_QUIET) {
            return Came::Stranger;
        }
        self.sender = Some((from, now));
        Came::Datagram(bytes, from.ip())
    }
}

async fn connect(host: &str, port: u16) -> anyhow::Result<TcpStream> {
    let connected = timeout(CONNECT_TIMEOUT, TcpStream::connect((host, port))).await;
    connected
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
        .with_context(|| format!("connect to {host}:{port}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_sender_of_datagrams_is_heard_until_it_is_quiet() {
        let mut datagrams = Datagrams::bind("127.0.0.1:0".parse().expect("an address")).await.expect("a socket");
        let one = |port| SocketAddr::from(([10, 0, 0, 1], port));
        let other = SocketAddr::from(([10, 0, 0, 2], 1));
        let now = Instant::now();
        assert_eq!(datagrams.came(5, one(1), now), Came::Datagram(5, one(1).ip()));
        assert_eq!(datagrams.came(5, other, now), Came::Stranger);
        assert_eq!(datagrams.came(5, one(2), now), Came::Datagram(5, one(1).ip()));
        assert_eq!(datagrams.came(5, other, now + SENDER_QUIET), Came::Datagram(5, other.ip()));
        assert_eq!(datagrams.came(5, one(1), now + SENDER_QUIET), Came::Stranger);
    }
}
