//! A connection's socket and its two buffers. Bytes only; knows nothing of MQTT.
//!
//! One system call per read and per write, whatever number of packets that is. A connection that sends nothing holds no
//! read buffer, and one that sends little holds a small one.

use std::{
    future::{Future, poll_fn},
    io,
    pin::pin,
    task::Poll,
    time::Duration,
};

use bytes::{Buf, BytesMut};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

/// Room for one read from a connection that sends little.
const READ_BYTES_MIN: usize = 2 * 1024;

/// Room for one read from a connection that sends much: some hundred small messages, one batch for the log.
const READ_BYTES_MAX: usize = 64 * 1024;

/// How long a goodbye may take to be delivered.
const CLOSE_PATIENCE: Duration = Duration::from_secs(1);

/// A socket with what was read and not yet understood, and what is to be written.
pub(super) struct Wire {
    /// Only to wait for: reading and writing are the methods' business.
    pub(super) stream: TcpStream,
    /// Read, and not yet taken.
    pub(super) buffer: BytesMut,
    /// To be written.
    pub(super) out: BytesMut,
    /// Room for the next read: doubles while reads fill it, halves while they do not.
    room: usize,
}

impl Wire {
    pub(super) fn new(stream: TcpStream) -> Self {
        Self { stream, buffer: BytesMut::new(), out: BytesMut::new(), room: READ_BYTES_MIN }
    }

    /// Reads what is there, if anything.
    ///
    /// # Errors
    /// The connection's end is one, too: [`io::ErrorKind::UnexpectedEof`].
    pub(super) async fn read_now(&mut self) -> io::Result<()> {
        self.buffer.reserve(self.room);
        // By polling once, rather than with `try_read`: only that way a short read tells tokio that the socket is empty, and
        // the call that would come back with nothing is saved.
        let read = {
            let mut read = pin!(self.stream.read_buf(&mut self.buffer));
            poll_fn(|cx| match read.as_mut().poll(cx) {
                Poll::Ready(read) => Poll::Ready(Some(read)),
                Poll::Pending => Poll::Ready(None),
            })
            .await
        };
        match read.transpose()? {
            Some(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Some(read) if read >= self.room => self.room = (self.room * 2).min(READ_BYTES_MAX),
            Some(read) if read < self.room / 4 => self.room = (self.room / 2).max(READ_BYTES_MIN),
            Some(_) => {}
            // A false alarm, or tokio wants other tasks to have their turn.
            None => tokio::task::yield_now().await,
        }
        Ok(())
    }

    /// Lets go of the read buffer if nothing is left in it.
    pub(super) fn let_go(&mut self) {
        if self.buffer.is_empty() {
            self.buffer = BytesMut::new();
        }
    }

    /// Writes what can be written without waiting.
    pub(super) fn write_now(&mut self) -> io::Result<()> {
        while !self.out.is_empty() {
            match self.stream.try_write(&self.out) {
                Ok(written) => self.out.advance(written),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
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
            self.stream.write_all(&self.out).await?;
            self.stream.shutdown().await?;
            self.out = BytesMut::zeroed(READ_BYTES_MAX);
            while self.stream.read(&mut self.out).await? > 0 {}
            io::Result::Ok(())
        };
        // Whether it was heard is not ours to know.
        let _ = timeout(CLOSE_PATIENCE, goodbye).await;
    }
}
