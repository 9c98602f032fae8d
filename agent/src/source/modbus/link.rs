//! The way to a device: one request at a time, with a time limit.
//!
//! tokio-modbus gives the protocol. Its readers of registers take the answer's length on trust, so that requests go through
//! `Client::call`, and the length is looked at here.

use std::{io, time::Duration};

use anyhow::{Context as _, anyhow};
use tokio::{net::TcpStream, time::timeout};
use tokio_modbus::{
    Error, ExceptionCode, Request, Response, Slave,
    client::{Client as _, Context, rtu, tcp},
    slave::SlaveContext as _,
};

use super::{
    config::{Place, Settings},
    plan::Block,
    register::Table,
};
use crate::{serial_port::Port, source::reconnect::Trouble};

/// How long a connection may take.
const CONNECT_PATIENCE: Duration = Duration::from_secs(5);

/// An open port or a connection.
pub(super) struct Link {
    context: Context,
    line: Option<Line>,
}

/// A serial line behind it.
struct Line {
    port: Port,
    /// Frames are apart by this much.
    gap: Duration,
}

/// What became of a request.
pub(super) enum Answer {
    /// Words, or bits as 0 and 1: as many as were asked for.
    Words(Vec<u16>),
    /// The device says why not.
    Exception(ExceptionCode),
    /// Nothing came in time.
    Silent,
    /// Something else came.
    Garbled(String),
    /// The port or the connection is gone.
    Gone(io::Error),
}

impl Link {
    /// Opens the port, or connects.
    pub(super) async fn open(settings: &Settings) -> Result<Self, (Trouble, anyhow::Error)> {
        match &settings.place {
            Place::Rtu(port) => {
                // At least 3.5 characters, and 1.75 ms above 19200 baud ("MODBUS over Serial Line" V1.02, 2.5.1.1).
                let gap = (port.character() * 7 / 2).max(Duration::from_micros(1750));
                let port = port.open().await.map_err(|refused| {
                    let trouble = if refused.needs_help { Trouble::Refused } else { Trouble::Passing };
                    (trouble, refused.error)
                })?;
                let line = Line { port, gap };
                let context = line.attach().map_err(|error| (Trouble::Passing, error.into()))?;
                Ok(Self { context, line: Some(line) })
            }
            Place::Tcp { host, port } => {
                let connected = timeout(CONNECT_PATIENCE, TcpStream::connect((&**host, *port))).await;
                let stream = match connected {
                    Ok(connected) => connected.with_context(|| format!("connect to {host}:{port}")),
                    Err(_) => Err(anyhow!("{host}:{port} did not answer within {} s", CONNECT_PATIENCE.as_secs())),
                };
                let stream = stream.map_err(|error| (Trouble::Passing, error))?;
                // A request is one small packet, and the answer is waited for. Without it, it is only slower.
                let _ = stream.set_nodelay(true);
                Ok(Self { context: tcp::attach_slave(stream, Slave::tcp_device()), line: None })
            }
        }
    }

    /// Whether it can be asked again after silence or rubbish. A connection cannot: the answer that is missing may still
    /// come, in front of the next.
    pub(super) fn outlives_trouble(&self) -> bool {
        self.line.is_some()
    }

    /// Asks a unit for a block.
    pub(super) async fn read(&mut self, unit: u8, block: &Block, patience: Duration) -> Answer {
        if let Some(line) = &self.line {
            tokio::time::sleep(line.gap).await;
            // What came too late belongs to an earlier request.
            if let Err(error) = line.port.discard_input() {
                return Answer::Gone(error);
            }
        }
        self.context.set_slave(Slave(unit));
        let (address, len) = (block.address, block.len);
        let request = match block.table {
            Table::Holding => Request::ReadHoldingRegisters(address, len),
            Table::Input => Request::ReadInputRegisters(address, len),
            Table::Coil => Request::ReadCoils(address, len),
            Table::Discrete => Request::ReadDiscreteInputs(address, len),
        };
        let answer = match timeout(patience, self.context.call(request)).await {
            Err(_) => Answer::Silent,
            Ok(Ok(Err(exception))) => Answer::Exception(exception),
            Ok(Ok(Ok(response))) => words(response, usize::from(len)),
            Ok(Err(Error::Protocol(error))) => Answer::Garbled(error.to_string()),
            Ok(Err(Error::Transport(error))) if error.kind() == io::ErrorKind::InvalidData => {
                Answer::Garbled(error.to_string())
            }
            // The codec says nothing else of a connection that ends within an answer.
            Ok(Err(Error::Transport(error))) if error.to_string() == "bytes remaining on stream" => {
                Answer::Gone(io::Error::new(io::ErrorKind::UnexpectedEof, "the connection ended within an answer"))
            }
            Ok(Err(Error::Transport(error))) => Answer::Gone(error),
        };
        if matches!(answer, Answer::Silent | Answer::Garbled(_))
            && let Some(line) = &self.line
        {
            // Half an answer is kept within.
            match line.attach() {
                Ok(context) => self.context = context,
                Err(error) => return Answer::Gone(error),
            }
        }
        answer
    }
}

impl Line {
    fn attach(&self) -> io::Result<Context> {
        Ok(rtu::attach_slave(self.port.try_clone()?, Slave::min_device()))
    }
}

fn words(response: Response, len: usize) -> Answer {
    let words: Vec<u16> = match response {
        Response::ReadHoldingRegisters(words) | Response::ReadInputRegisters(words) if words.len() == len => words,
        // Bits come in whole bytes.
        Response::ReadCoils(bits) | Response::ReadDiscreteInputs(bits) if bits.len() >= len => {
            bits.into_iter().take(len).map(u16::from).collect()
        }
        _ => return Answer::Garbled("the answer has another length than was asked for".into()),
    };
    Answer::Words(words)
}
