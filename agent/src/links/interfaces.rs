//! The machine's network interfaces, as the kernel tells of them: whoever waits for a way out hears when there may be one.
//!
//! Heard are links that begin to run, new addresses and new routes (rtnetlink); nothing is asked and nothing set. Which
//! interface a destination would use is the kernel's business, so every one of them counts.

use std::{collections::BTreeSet, io, os::fd::OwnedFd, time::Duration};

use rustix::{
    io::Errno,
    net::{AddressFamily, RecvFlags, SocketFlags, SocketType, bind, netlink::SocketAddrNetlink, recv, socket_with},
};
use tokio::{io::unix::AsyncFd, sync::watch};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

/// `RTMGRP_LINK`, `RTMGRP_IPV4_IFADDR`, `RTMGRP_IPV4_ROUTE`, `RTMGRP_IPV6_IFADDR` and `RTMGRP_IPV6_ROUTE`.
const GROUPS: u32 = 0x1 | 0x10 | 0x40 | 0x100 | 0x400;

/// An interface that comes up says so many times, with its addresses and routes; whoever waits is told once, and once more
/// after this, when all of it is there.
const TOLD_AT_MOST_EVERY: Duration = Duration::from_millis(250);

/// Larger than any single message about an interface; what does not fit is cut, and then counts as news.
const MESSAGE_BYTES: usize = 32 << 10;

/// Whoever has this hears of every change for the better.
pub type Changes = watch::Receiver<()>;

/// Listens to the kernel.
#[derive(Debug)]
pub struct Interfaces {
    /// None where the kernel may not be asked.
    socket: Option<AsyncFd<OwnedFd>>,
    tell: watch::Sender<()>,
}

impl Interfaces {
    /// Begins to listen. Where that is not allowed, which is told, nobody ever hears anything: waits then end by time alone.
    #[must_use]
    pub fn listen() -> Self {
        let socket = open().inspect_err(|error| {
            warn!(%error, "cannot hear from the kernel when an interface comes up; destinations are tried again by time alone");
        });
        Self { socket: socket.ok(), tell: watch::Sender::default() }
    }

    /// For somebody who waits.
    #[must_use]
    pub fn changes(&self) -> Changes {
        self.tell.subscribe()
    }

    /// Tells whoever waits, until it is told to stop.
    ///
    /// # Errors
    /// None: what cannot be heard is done without.
    pub async fn run(self, stop: CancellationToken) -> anyhow::Result<()> {
        let hearing = async {
            let Some(socket) = self.socket else { return std::future::pending().await };
            if let Err(error) = hear(&socket, &self.tell).await {
                warn!(%error, "hears no more of interfaces from the kernel");
            }
            std::future::pending().await
        };
        tokio::select! {
            () = stop.cancelled() => Ok(()),
            never = hearing => never,
        }
    }
}

fn open() -> io::Result<AsyncFd<OwnedFd>> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)?;
    bind(&socket, &SocketAddrNetlink::new(0, GROUPS))?;
    #[expect(
        deprecated,
        reason = "its successor is `unsafe`, for types that do not own what they stand for; this one does"
    )]
    AsyncFd::new(socket)
}

async fn hear(socket: &AsyncFd<OwnedFd>, tell: &watch::Sender<()>) -> io::Result<()> {
    let mut seen = Seen::default();
    let mut buffer = vec![0; MESSAGE_BYTES];
    loop {
        let mut ready = socket.readable().await?;
        let mut better = false;
        // All that has come by now, together.
        while let Ok(received) = ready.try_io(|socket| Ok(recv(socket.get_ref(), &mut buffer[..], RecvFlags::empty())?))
        {
            better |= match received {
                Ok((bytes, _)) => seen.is_better(&buffer[..bytes.min(MESSAGE_BYTES)]),
                // More came than was read in time: what it was is not known.
                Err(error) if error.raw_os_error() == Some(Errno::NOBUFS.raw_os_error()) => true,
                Err(error) => return Err(error),
            };
        }
        if better {
            debug!("an interface, an address or a route has come up");
            tell.send_replace(());
            tokio::time::sleep(TOLD_AT_MOST_EVERY).await;
        }
    }
}

/// What is known of the interfaces. Pure.
#[derive(Debug, Default)]
struct Seen {
    /// Indices of those that run. One that says so again, as wireless ones do whenever they have looked around, is no news.
    running: BTreeSet<i32>,
}

/// A message's type, of `linux/rtnetlink.h`.
const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_NEWADDR: u16 = 20;
const RTM_NEWROUTE: u16 = 24;
/// `IFF_UP` and `IFF_RUNNING`.
const RUNS: u32 = 0x1 | 0x40;
/// Of `nlmsghdr`.
const HEADER_BYTES: usize = 16;

impl Seen {
    /// Whether what the kernel says may mean a way out that was not there before.
    fn is_better(&mut self, mut messages: &[u8]) -> bool {
        let mut better = false;
        while let Some((message, rest)) = split_message(messages) {
            messages = rest;
            better |= match message.kind {
                RTM_NEWLINK => match link(message.body) {
                    Some((index, flags)) if flags & RUNS == RUNS => self.running.insert(index),
                    Some((index, _)) => {
                        self.running.remove(&index);
                        false
                    }
                    None => false,
                },
                RTM_DELLINK => {
                    if let Some((index, _)) = link(message.body) {
                        self.running.remove(&index);
                    }
                    false
                }
                RTM_NEWADDR | RTM_NEWROUTE => true,
                _ => false,
            };
        }
        better
    }
}

struct Message<'a> {
    kind: u16,
    body: &'a [u8],
}

/// `nlmsghdr`: length, type, and ten bytes of no interest here; the next one begins at a multiple of four.
fn split_message(bytes: &[u8]) -> Option<(Message<'_>, &[u8])> {
    let length = usize::try_from(word(bytes, 0)?).ok()?;
    let kind = number(bytes.get(4..6)?.try_into().ok()?);
    let body = bytes.get(HEADER_BYTES..length)?;
    Some((Message { kind, body }, &bytes[length.next_multiple_of(4).min(bytes.len())..]))
}

/// `ifinfomsg`: index and flags of a link.
fn link(body: &[u8]) -> Option<(i32, u32)> {
    Some((word(body, 4)?.cast_signed(), word(body, 8)?))
}

#[expect(clippy::host_endian_bytes, reason = "netlink speaks the machine's own order, to nobody else")]
fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

#[expect(clippy::host_endian_bytes, reason = "as above")]
fn number(bytes: [u8; 2]) -> u16 {
    u16::from_ne_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[expect(clippy::host_endian_bytes, reason = "what the kernel would say")]
    fn message(kind: u16, body: &[u32]) -> Vec<u8> {
        let length = HEADER_BYTES + body.len() * 4;
        let mut bytes = u32::try_from(length).expect("short").to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.resize(HEADER_BYTES, 0);
        bytes.extend(body.iter().flat_map(|word| word.to_ne_bytes()));
        bytes
    }

    fn link_message(kind: u16, index: u32, flags: u32) -> Vec<u8> {
        message(kind, &[0, index, flags, 0])
    }

    #[test]
    fn a_link_that_begins_to_run_is_told_once() {
        let mut seen = Seen::default();
        assert!(!seen.is_better(&link_message(RTM_NEWLINK, 2, 0x1)), "up, but no cable");
        assert!(seen.is_better(&link_message(RTM_NEWLINK, 2, 0x1 | 0x40)));
        assert!(!seen.is_better(&link_message(RTM_NEWLINK, 2, 0x1 | 0x40)), "as before");
        assert!(seen.is_better(&link_message(RTM_NEWLINK, 3, 0x1 | 0x40)), "another one");
        assert!(!seen.is_better(&link_message(RTM_NEWLINK, 2, 0x1)));
        assert!(seen.is_better(&link_message(RTM_NEWLINK, 2, 0x1 | 0x40)), "again");
        assert!(!seen.is_better(&link_message(RTM_DELLINK, 2, 0x1 | 0x40)));
        assert!(seen.is_better(&link_message(RTM_NEWLINK, 2, 0x1 | 0x40)), "a new one of the same number");
    }

    #[test]
    fn addresses_and_routes_are_news_and_their_end_is_not() {
        let mut seen = Seen::default();
        let told = |kind| seen.is_better(&[link_message(RTM_DELLINK, 9, 0), message(kind, &[0; 5])].concat());
        assert_eq!([RTM_NEWADDR, 21, RTM_NEWROUTE, 25, 28].map(told), [true, false, true, false, false]);
    }

    proptest! {
        #[test]
        fn anything_may_come(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            Seen::default().is_better(&bytes);
        }
    }

    /// The real kernel tells of what happens in a network namespace of the test's own: tests/links has that.
    #[tokio::test]
    async fn the_kernel_may_be_listened_to() {
        let interfaces = Interfaces::listen();
        assert!(interfaces.socket.is_some(), "no netlink socket");
        let stop = CancellationToken::new();
        stop.cancel();
        interfaces.run(stop).await.expect("it stops");
    }
}
