//! An open serial port, read and written without holding up a thread.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use serial2::SerialPort;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf, unix::AsyncFd};

/// An open port. It is let go when it is dropped.
#[derive(Debug)]
pub struct Port {
    io: AsyncFd<SerialPort>,
}

impl Port {
    #[expect(
        deprecated,
        reason = "what replaces it is unsafe to call; a SerialPort keeps its descriptor, as is asked there"
    )]
    pub(super) fn new(port: SerialPort) -> io::Result<Self> {
        Ok(Self { io: AsyncFd::new(port)? })
    }

    /// Another handle of the same port.
    ///
    /// # Errors
    /// Too many files are open.
    pub fn try_clone(&self) -> io::Result<Self> {
        Self::new(self.io.get_ref().try_clone()?)
    }

    /// Waits until something came and reads it; 0 if the device is gone.
    ///
    /// # Errors
    /// The device is gone, as a rule.
    ///
    /// # Cancel safety
    /// Nothing was read if it is dropped.
    pub async fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.io.async_io(Interest::READABLE, |port| Ok(rustix::io::read(port, &mut *buffer)?)).await
    }

    /// Writes all of it.
    ///
    /// # Errors
    /// The device is gone, as a rule.
    pub async fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let written = self.io.async_io(Interest::WRITABLE, |port| Ok(rustix::io::write(port, bytes)?)).await?;
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            bytes = &bytes[written..];
        }
        Ok(())
    }

    /// Forgets what came and was not read.
    ///
    /// # Errors
    /// The device is gone, as a rule.
    pub fn discard_input(&self) -> io::Result<()> {
        self.io.get_ref().discard_input_buffer()
    }
}

impl AsyncRead for Port {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            let mut guard = ready!(self.io.poll_read_ready(cx))?;
            if let Ok(read) = guard.try_io(|port| Ok(rustix::io::read(port.get_ref(), buf.initialize_unfilled())?)) {
                buf.advance(read?);
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl AsyncWrite for Port {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            let mut guard = ready!(self.io.poll_write_ready(cx))?;
            if let Ok(written) = guard.try_io(|port| Ok(rustix::io::write(port.get_ref(), bytes)?)) {
                return Poll::Ready(written);
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // What is written is the kernel's to send.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
