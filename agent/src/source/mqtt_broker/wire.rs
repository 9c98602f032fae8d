//! A connection's socket and its two buffers. Bytes only; knows nothing of MQTT.
//!
//! On plain TCP, one system call per read and per write, whatever number of packets that is. A connection that sends nothing
//! holds no read buffer, and one that sends little holds a small one. TLS and WebSocket stand between as a stream of their own.

use std::{
    future::{Future, poll_fn},
    io,
    pin::pin,
    task::Poll,
    time::Duration,
};

use bytes::{Buf, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf},
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    time::timeout,
};

/// Room for one read from a connection that sends little.
const READ_BYTES_MIN: usize = 2 * 1024;

/// Room for one read from a connection that sends much: some hundred small messages, one batch for the log.
const READ_BYTES_MAX: usize = 64 * 1024;

/// How long a goodbye may take to be delivered.
const CLOSE_PATIENCE: Duration = Duration::from_secs(1);

/// What stands between the socket and MQTT.
pub(super) trait Wrapped: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Wrapped for T {}

/// A socket with what was read and not yet understood, and what is to be written.
pub(super) struct Wire {
    pub(super) input: Input,
    pub(super) output: Output,
    /// To be written.
    pub(super) out: BytesMut,
}

/// The reading side.
pub(super) struct Input {
    from: Reading,
    /// Read, and not yet taken.
    pub(super) buffer: BytesMut,
    /// Room for the next read: doubles while reads fill it, halves while they do not.
    room: usize,
}

enum Reading {
    Tcp(OwnedReadHalf),
    Wrapped(ReadHalf<Box<dyn Wrapped>>),
}

/// The writing side.
pub(super) enum Output {
    /// Written to without waiting, so that nothing is kept here.
    Tcp(OwnedWriteHalf),
    Wrapped {
        to: WriteHalf<Box<dyn Wrapped>>,
        /// Handed over, and on its way.
        pending: BytesMut,
        /// Written, but perhaps kept back.
        unflushed: bool,
    },
}

impl Wire {
    pub(super) fn new(stream: TcpStream) -> Self {
        let (from, to) = stream.into_split();
        Self::of(Reading::Tcp(from), Output::Tcp(to))
    }

    /// Over something that stands between.
    pub(super) fn wrapped(stream: Box<dyn Wrapped>) -> Self {
        let (from, to) = tokio::io::split(stream);
        Self::of(Reading::Wrapped(from), Output::Wrapped { to, pending: BytesMut::new(), unflushed: false })
    }

    fn of(from: Reading, output: Output) -> Self {
        let input = Input { from, buffer: BytesMut::new(), room: READ_BYTES_MIN };
        Self { input, output, out: BytesMut::new() }
    }

    /// Bytes that the client has not taken yet.
    pub(super) fn unwritten(&self) -> usize {
        self.out.len() + self.output.pending()
    }

    /// Writes what can be written without waiting; the rest is for [`Output::progress`].
    pub(super) fn write_now(&mut self) -> io::Result<()> {
        match &mut self.output {
            Output::Tcp(to) => {
                while !self.out.is_empty() {
                    match to.try_write(&self.out) {
                        Ok(written) => self.out.advance(written),
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                        Err(error) => return Err(error),
                    }
                }
            }
            Output::Wrapped { pending, .. } if pending.is_empty() => std::mem::swap(pending, &mut self.out),
            Output::Wrapped { pending, .. } => pending.extend_from_slice(&self.out),
        }
        self.out.clear();
        Ok(())
    }

    /// Writes what is left and closes, in a second at most.
    ///
    /// What the client still sends is read and thrown away: closing with unread bytes would reset the connection, and take
    /// the goodbye with it.
    pub(super) async fn close(mut self) {
        let goodbye = async {
            match &mut self.output {
                Output::Tcp(to) => {
                    to.write_all(&self.out).await?;
                    to.shutdown().await?;
                }
                Output::Wrapped { to, pending, .. } => {
                    to.write_all(pending).await?;
                    to.write_all(&self.out).await?;
                    to.flush().await?;
                    to.shutdown().await?;
                }
            }
            let mut nowhere = vec![0; READ_BYTES_MAX];
            while self.input.from.read(&mut nowhere).await? > 0 {}
            io::Result::Ok(())
        };
        // Whether it was heard is not ours to know.
        let _ = timeout(CLOSE_PATIENCE, goodbye).await;
    }
}

impl Input {
    /// Waits until something comes, and reads it. Gives the number of bytes, which is 0 for a false alarm.
    ///
    /// # Errors
    /// The connection's end is one, too: [`io::ErrorKind::UnexpectedEof`].
    ///
    /// # Cancel safety
    /// Safe.
    pub(super) async fn read(&mut self) -> io::Result<usize> {
        let read = match &mut self.from {
            Reading::Tcp(from) => {
                from.readable().await?;
                self.buffer.reserve(self.room);
                // By polling once, rather than with `try_read`: only that way a short read tells tokio that the socket is
                // empty, and the call that would come back with nothing is saved.
                let mut read = pin!(from.read_buf(&mut self.buffer));
                let read = poll_fn(|cx| match read.as_mut().poll(cx) {
                    Poll::Ready(read) => Poll::Ready(Some(read)),
                    Poll::Pending => Poll::Ready(None),
                });
                match read.await.transpose()? {
                    Some(read) => read,
                    // A false alarm, or tokio wants other tasks to have their turn.
                    None => {
                        tokio::task::yield_now().await;
                        return Ok(0);
                    }
                }
            }
            Reading::Wrapped(from) => {
                self.buffer.reserve(self.room);
                from.read_buf(&mut self.buffer).await?
            }
        };
        match read {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read if read >= self.room => self.room = (self.room * 2).min(READ_BYTES_MAX),
            read if read < self.room / 4 => self.room = (self.room / 2).max(READ_BYTES_MIN),
            _ => {}
        }
        Ok(read)
    }

    /// Lets go of the read buffer if nothing is left in it.
    pub(super) fn let_go(&mut self) {
        if self.buffer.is_empty() {
            self.buffer = BytesMut::new();
        }
    }
}

impl Reading {
    async fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(from) => from.read(buffer).await,
            Self::Wrapped(from) => from.read(buffer).await,
        }
    }
}

impl Output {
    /// Bytes that were handed over and are not written yet.
    fn pending(&self) -> usize {
        match self {
            Self::Tcp(_) => 0,
            Self::Wrapped { pending, .. } => pending.len(),
        }
    }

    /// Whether there is something to wait for, though nothing is left to be handed over.
    pub(super) fn is_busy(&self) -> bool {
        match self {
            Self::Tcp(_) => false,
            Self::Wrapped { pending, unflushed, .. } => !pending.is_empty() || *unflushed,
        }
    }

    /// Writes some of what was handed over, or waits until something can be.
    ///
    /// # Cancel safety
    /// Safe: bytes leave `pending` as they are taken.
    pub(super) async fn progress(&mut self) -> io::Result<()> {
        match self {
            Self::Tcp(to) => to.writable().await,
            Self::Wrapped { to, pending, unflushed } if !pending.is_empty() => {
                *unflushed = true;
                to.write_buf(pending).await.map(drop)
            }
            Self::Wrapped { to, unflushed, .. } => {
                to.flush().await?;
                *unflushed = false;
                Ok(())
            }
        }
    }
}
