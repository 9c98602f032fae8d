//! Datagrams: each is a record.
//!
//! While the log has no room, nothing is received. A Unix socket then lets its senders wait. UDP cannot: what the kernel's buffer
//! does not hold is dropped by the kernel, which counts it; we look at its counter and count the same as `"dropped-full"`.

use std::{
    fs, io,
    net::SocketAddr,
    os::fd::{AsFd, BorrowedFd},
    time::Duration,
};

use anyhow::Context as _;
use rustix::net::sockopt;
use tokio::{
    net::{UdpSocket, UnixDatagram},
    time::{MissedTickBehavior, interval},
};
use tracing::warn;

use super::config::{Listen, Settings};
use crate::{
    ingest::Fields,
    source::{
        Intake, SourceContext,
        accept::{Peer, SocketFile},
    },
};

/// How often the kernel is asked what it dropped.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// A bound socket.
pub(super) enum Datagrams {
    Udp(UdpSocket),
    Unix(UnixDatagram, #[expect(dead_code, reason = "it is there to be dropped")] SocketFile),
}

impl Datagrams {
    pub(super) async fn udp(address: SocketAddr) -> anyhow::Result<Self> {
        let socket = UdpSocket::bind(address).await.with_context(|| format!("listen on udp://{address}"))?;
        Ok(Self::Udp(socket))
    }

    pub(super) fn unix(path: &std::path::Path, mode: u32) -> anyhow::Result<Self> {
        SocketFile::make(path, mode, |path| UnixDatagram::bind(path)).map(|(socket, file)| Self::Unix(socket, file))
    }

    async fn readable(&self) -> io::Result<()> {
        match self {
            Self::Udp(socket) => socket.readable().await,
            Self::Unix(socket, _) => socket.readable().await,
        }
    }

    /// The next datagram, if there is one, and the address that it is from, if it has one.
    fn receive(&self, buffer: &mut [u8]) -> io::Result<(usize, Option<SocketAddr>)> {
        match self {
            Self::Udp(socket) => socket.try_recv_from(buffer).map(|(bytes, from)| (bytes, Some(from))),
            Self::Unix(socket, _) => socket.try_recv(buffer).map(|bytes| (bytes, None)),
        }
    }

    fn fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Udp(socket) => socket.as_fd(),
            Self::Unix(socket, _) => socket.as_fd(),
        }
    }

    /// Receives until the source is stopped.
    ///
    /// # Errors
    /// The log is gone.
    pub(super) async fn run(self, context: SourceContext, settings: &Settings) -> anyhow::Result<()> {
        if let Some(bytes) = settings.receive_buffer {
            self.set_buffer(bytes, &context);
        }
        let mut drops = Drops::of(&self, &settings.listen);
        let mut look = interval(LOOK_EVERY);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut receiver = Receiver::new(&context, settings.framing.max_frame());
        loop {
            tokio::select! {
                biased;
                () = context.stop.cancelled() => break,
                progress = receiver.intake.progress(), if !receiver.intake.is_idle() => {
                    progress?;
                }
                readable = self.readable(), if receiver.intake.has_room() => {
                    if let Err(error) = readable.and_then(|()| receiver.take_all(&self)) {
                        context.trouble("receive", format_args!("cannot receive: {error}"));
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                }
                _ = look.tick() => drops.count(&context),
            }
        }
        // What came before the stop.
        let _ = receiver.take_all(&self);
        drops.count(&context);
        receiver.intake.finish().await;
        Ok(())
    }

    fn set_buffer(&self, bytes: usize, context: &SourceContext) {
        let fd = self.fd();
        // With the right to, more than the system's limit. The kernel gives twice as much, for its own use.
        let set = sockopt::set_socket_recv_buffer_size_force(fd, bytes)
            .or_else(|_| sockopt::set_socket_recv_buffer_size(fd, bytes))
            .and_then(|()| sockopt::socket_recv_buffer_size(fd));
        match set {
            Ok(given) if given / 2 >= bytes => {}
            Ok(given) => warn!(
                source = &*context.name,
                asked = bytes,
                given = given / 2,
                "the system gives less than receive-buffer; its limit is the sysctl net.core.rmem_max"
            ),
            Err(error) => warn!(source = &*context.name, %error, "receive-buffer cannot be set"),
        }
    }
}

struct Receiver<'a> {
    context: &'a SourceContext,
    intake: Intake,
    /// One byte more than the largest, so that a larger one shows.
    buffer: Vec<u8>,
    /// Most datagrams are from where the one before was from.
    from: Option<SocketAddr>,
    peer: Peer,
}

impl<'a> Receiver<'a> {
    fn new(context: &'a SourceContext, max_frame: usize) -> Self {
        let buffer = vec![0; max_frame + 1];
        Self { context, intake: Intake::new(context), buffer, from: None, peer: Peer::local() }
    }

    fn take_all(&mut self, socket: &Datagrams) -> io::Result<()> {
        while self.intake.has_room() {
            let (bytes, from) = match socket.receive(&mut self.buffer) {
                Ok(received) => received,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            };
            if from != self.from {
                self.peer = from.map_or_else(Peer::local, Peer::of);
                self.from = from;
            }
            let max_frame = self.buffer.len() - 1;
            if bytes > max_frame {
                let from = &self.peer;
                let detail =
                    format_args!("a datagram of {from} is longer than max-frame, which is {max_frame} bytes; dropped");
                self.context.trouble("oversize", detail);
            } else if bytes > 0 {
                let fields = Fields {
                    source: &self.context.name,
                    named: &self.peer.named(),
                    payload: &self.buffer[..bytes],
                    byte: None,
                };
                self.intake.add(&fields, &[]);
            } else {
                self.context
                    .trouble("empty", format_args!("a datagram of {} without anything in it; dropped", self.peer));
            }
        }
        Ok(())
    }
}

/// What the kernel dropped because its buffer was full.
struct Drops {
    /// The table that names the socket, and how.
    from: Option<(&'static str, u64)>,
    counted: u32,
}

impl Drops {
    fn of(socket: &Datagrams, listen: &Listen) -> Self {
        let table = match listen {
            Listen::Udp(SocketAddr::V4(_)) => "/proc/net/udp",
            Listen::Udp(SocketAddr::V6(_)) => "/proc/net/udp6",
            _ => return Self { from: None, counted: 0 },
        };
        let inode = rustix::fs::fstat(socket.fd()).map(|stat| stat.st_ino).ok();
        let mut drops = Self { from: inode.map(|inode| (table, inode)), counted: 0 };
        if drops.now().is_none() {
            warn!("{table} does not name our socket: what the kernel drops of its datagrams is not counted");
            drops.from = None;
        }
        drops
    }

    fn now(&self) -> Option<u32> {
        let (table, inode) = self.from?;
        dropped(&fs::read_to_string(table).ok()?, inode)
    }

    fn count(&mut self, context: &SourceContext) {
        let Some(now) = self.now() else { return };
        let new = now.wrapping_sub(self.counted);
        self.counted = now;
        if new > 0 && context.stats.refused_many("dropped-full", u64::from(new)) {
            let message =
                format!("{new} datagrams came faster than they could be stored, and were dropped by the kernel");
            warn!(source = &*context.name, reason = "dropped-full", "{message}");
            context.stats.failed(message);
        }
    }
}

/// The `drops` of a socket in `/proc/net/udp` (proc(5)): the last column, `inode` being the tenth.
fn dropped(table: &str, inode: u64) -> Option<u32> {
    table.lines().skip(1).find_map(|line| {
        let mut columns = line.split_ascii_whitespace();
        (columns.nth(9)?.parse() == Ok(inode)).then(|| columns.next_back()?.parse().ok()).flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_counter_is_found_by_inode() {
        let table = "   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops\n\
            123: 0100007F:1414 00000000:0000 07 00000000:00000000 00:00000000 00000000  1000        0 4711 2 00000000 17\n\
            456: 0100007F:1415 00000000:0000 07 00000000:00034A00 00:00000000 00000000     0        0 4712 2 00000000 4294967295\n";
        assert_eq!([4711, 4712, 17].map(|inode| dropped(table, inode)), [Some(17), Some(u32::MAX), None]);
        assert_eq!(dropped("", 1), None);
        assert_eq!(dropped("head\n1 2 3\n", 1), None);
    }
}
