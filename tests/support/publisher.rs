//! A device that publishes numbered messages at QoS 1 as fast as it is let, through any number of broken connections, and
//! knows at every moment what was acknowledged: that is what the gateway owes.

use std::collections::VecDeque;
use std::io::{self, Read as _, Write as _};
use std::net::TcpStream;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use super::device::{DISCONNECT, Device, PUBACK, Version, write_publish};
use super::wait::eventually_some;

/// Duplicate delivery, QoS 1.
const QOS_1: u8 = 0b0010;
const AGAIN: u8 = 0b1000;

/// For a gateway that is started again and again meanwhile.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a device does with what was not acknowledged when its connection broke.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Memory {
    /// It publishes that again, in order, before anything new.
    Keeps,
    /// It goes on with what is new, as simple devices do.
    Forgets,
}

/// How it publishes.
#[derive(Debug, Clone)]
pub(crate) struct Publishing {
    pub(crate) port: u16,
    pub(crate) version: Version,
    pub(crate) client_id: String,
    /// Messages that may be unacknowledged.
    pub(crate) window: usize,
    pub(crate) memory: Memory,
}

/// What the test sees of it, and how the test ends it.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    /// Messages acknowledged so far.
    pub(crate) acknowledged: AtomicU64,
    /// Publish nothing new, and return once everything has been acknowledged or forgotten.
    pub(crate) stop: AtomicBool,
}

/// What it did.
#[derive(Debug)]
pub(crate) struct Published {
    /// It published the messages 0 to here, this one not included.
    pub(crate) end: u64,
    /// Of these nobody knows whether they arrived; everything else was acknowledged.
    pub(crate) forgotten: Vec<Range<u64>>,
    /// Connections that broke.
    pub(crate) breaks: u32,
}

impl Published {
    /// Whether the message was acknowledged.
    pub(crate) fn is_owed(&self, number: u64) -> bool {
        number < self.end && !self.forgotten.iter().any(|range| range.contains(&number))
    }
}

/// Publishes messages 0 to `count`, or until it is stopped. `message` writes a message's payload into the cleared buffer and
/// gives its topic.
pub(crate) fn publish_numbered(
    how: &Publishing,
    count: u64,
    progress: &Arc<Progress>,
    mut message: impl FnMut(u64, &mut Vec<u8>) -> String,
) -> Published {
    assert!(how.window < 60_000, "packet ids have to tell the messages of a window apart");
    let mut published = Published { end: 0, forgotten: Vec::new(), breaks: 0 };
    let mut unacknowledged = VecDeque::new();
    loop {
        let what = format!("{} connects", how.client_id);
        let device =
            eventually_some(PATIENCE, &what, || Device::try_connect(how.port, how.version, &how.client_id).ok());
        let mut run = Connection {
            how,
            count,
            progress,
            message: &mut message,
            published: &mut published,
            unacknowledged: &mut unacknowledged,
            stream: device.into_stream(),
        };
        match run.publish() {
            Ok(()) => return published,
            Err(error) => {
                assert!(error.kind() != io::ErrorKind::InvalidData, "{}: {error}", how.client_id);
                published.breaks += 1;
            }
        }
        if how.memory == Memory::Forgets
            && let (Some(&first), Some(&last)) = (unacknowledged.front(), unacknowledged.back())
        {
            published.forgotten.push(first..last + 1);
            unacknowledged.clear();
        }
    }
}

struct Connection<'a, M> {
    how: &'a Publishing,
    count: u64,
    progress: &'a Progress,
    message: &'a mut M,
    published: &'a mut Published,
    /// Oldest first, without gaps.
    unacknowledged: &'a mut VecDeque<u64>,
    stream: TcpStream,
}

impl<M: FnMut(u64, &mut Vec<u8>) -> String> Connection<'_, M> {
    /// Until everything is acknowledged and there is nothing more to do, or the connection breaks.
    fn publish(&mut self) -> io::Result<()> {
        let mut out = Vec::new();
        for number in self.unacknowledged.clone() {
            self.write(number, QOS_1 | AGAIN, &mut out);
        }
        let mut acks = Acks::default();
        loop {
            while self.unacknowledged.len() < self.how.window && !self.is_done() {
                let number = self.published.end;
                self.write(number, QOS_1, &mut out);
                self.unacknowledged.push_back(number);
                self.published.end += 1;
            }
            self.stream.write_all(&out)?;
            out.clear();
            if self.unacknowledged.is_empty() && self.is_done() {
                return Ok(());
            }
            // Enough for the next write to be worth its while.
            for _ in 0..self.unacknowledged.len().min(self.how.window / 4).max(1) {
                let id = acks.next(&mut self.stream)?;
                let oldest = self.unacknowledged.front().copied();
                if oldest.map(packet_id) != Some(id) {
                    let message = format!("PUBACK of {id}, but the oldest unacknowledged message is {oldest:?}");
                    return Err(io::Error::new(io::ErrorKind::InvalidData, message));
                }
                self.unacknowledged.pop_front();
                self.progress.acknowledged.fetch_add(1, Relaxed);
            }
        }
    }

    fn write(&mut self, number: u64, flags: u8, out: &mut Vec<u8>) {
        let mut payload = Vec::new();
        let topic = (self.message)(number, &mut payload);
        write_publish(self.how.version, flags, packet_id(number), topic.as_bytes(), &payload, out);
    }

    fn is_done(&self) -> bool {
        self.published.end == self.count || self.progress.stop.load(Relaxed)
    }
}

/// 1 to 65535, over and over.
fn packet_id(number: u64) -> u16 {
    u16::try_from(number % 65_535 + 1).expect("at most 65535")
}

/// The PUBACKs that came.
#[derive(Default)]
struct Acks {
    buffer: Vec<u8>,
    taken: usize,
}

impl Acks {
    /// Packet id of the next one.
    fn next(&mut self, stream: &mut TcpStream) -> io::Result<u16> {
        while self.buffer.len() < self.taken + 4 {
            self.buffer.drain(..self.taken);
            self.taken = 0;
            let mut read = [0; 16 * 1024];
            match stream.read(&mut read)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                length => self.buffer.extend_from_slice(&read[..length]),
            }
        }
        match self.buffer[self.taken..self.taken + 4] {
            // Also in version 5: a success without properties is as short.
            [PUBACK, 2, high, low] => {
                self.taken += 4;
                Ok(u16::from_be_bytes([high, low]))
            }
            // A version 5 server says why it ends the connection.
            [DISCONNECT, ..] => Err(io::ErrorKind::ConnectionAborted.into()),
            ref other => {
                Err(io::Error::new(io::ErrorKind::InvalidData, format!("{other:?} is not a PUBACK without a reason")))
            }
        }
    }
}
