//! The `socket` source: bytes that other programs and devices send over TCP, UDP or a Unix socket, syslog among them.
//!
//! A connection's bytes are cut into frames ([`crate::framing`]); a datagram is a record. Order is kept per connection, and among
//! all datagrams. Nothing is acknowledged: over TCP and Unix sockets a sender is held back while the log has no room, over UDP what
//! does not fit is dropped and counted. What a sender had written when the agent was killed and what was not stored is lost to both.
//! A listener that cannot be had (the port is in use, no permission) is asked for again until it can.

mod config;
mod datagram;

use std::net::SocketAddr;

use tracing::{debug, info};

pub use config::{Config, Settings};

use super::{
    BoxFuture, Source, SourceContext, Type,
    accept::{Acceptor, Io, Peer},
    pump::{End, Pump},
};
use crate::config::reader;
use config::Listen;
use datagram::Datagrams;

/// The row in the table of types.
pub(super) const TYPE: Type = Type {
    name: "socket",
    takes: "lines, syslog or other frames over TCP (TLS, client certificates) and Unix sockets, and datagrams; others must be allowed to reach it",
    acknowledged: "never; TCP and Unix senders are held back, UDP is dropped and counted",
    partition_key: "{host}",
    placeholders: &["host", "port"],
    keys: reader::keys_of::<Config>,
    read: config::read,
};

impl super::Settings for Settings {
    fn describe(&self) -> String {
        format!("socket on {}{}", self.listen, if self.tls.is_some() { " with TLS" } else { "" })
    }

    fn listens_on(&self) -> Vec<(&'static str, SocketAddr)> {
        match self.listen {
            Listen::Tcp(address) => vec![("listen", address)],
            _ => Vec::new(),
        }
    }

    fn claims(&self) -> Vec<(&'static str, String)> {
        match &self.listen {
            Listen::Udp(address) if address.port() != 0 => vec![("listen", self.listen.to_string())],
            Listen::Unix(path) | Listen::UnixDatagram(path) => vec![("listen", path.display().to_string())],
            _ => Vec::new(),
        }
    }

    fn bind(&self) -> BoxFuture<'_, anyhow::Result<Box<dyn Source>>> {
        Box::pin(async {
            let first = self.bound().await;
            Ok(Box::new(Socket { settings: self.clone(), first }) as Box<dyn Source>)
        })
    }
}

/// A source whose first attempt to listen was made.
struct Socket {
    settings: Settings,
    first: anyhow::Result<Bound>,
}

enum Bound {
    Connections(Acceptor),
    Datagrams(Datagrams),
}

impl Settings {
    async fn bound(&self) -> anyhow::Result<Bound> {
        Ok(match &self.listen {
            Listen::Tcp(address) => Bound::Connections(Acceptor::tcp(*address).await?),
            Listen::Unix(path) => Bound::Connections(Acceptor::unix(path, self.mode)?),
            Listen::Udp(address) => Bound::Datagrams(Datagrams::udp(*address).await?),
            Listen::UnixDatagram(path) => Bound::Datagrams(Datagrams::unix(path, self.mode)?),
        })
    }
}

impl Source for Socket {
    fn run(self: Box<Self>, context: SourceContext) -> BoxFuture<'static, anyhow::Result<()>> {
        let Self { settings, first } = *self;
        Box::pin(async move {
            let Some(bound) = context.until_given("cannot-listen", first, || settings.bound()).await else {
                return Ok(());
            };
            info!(source = &*context.name, listen = %settings.listen, "socket listens");
            match bound {
                Bound::Datagrams(datagrams) => datagrams.run(context, &settings).await,
                Bound::Connections(acceptor) => {
                    let serve = |io, peer| serve(context.clone(), settings.clone(), io, peer);
                    acceptor.serve(settings.max_connections, std::slice::from_ref(&context), serve).await
                }
            }
        })
    }
}

/// One connection, to its end and until what it brought is stored.
async fn serve(context: SourceContext, settings: Settings, io: Io, peer: Peer) -> anyhow::Result<()> {
    let named = peer.named();
    let mut io = match &settings.tls {
        None => io,
        Some(tls) => {
            let handshake = tokio::select! {
                biased;
                () = context.stop.cancelled() => return Ok(()),
                handshake = tls.handshake(io) => handshake,
            };
            match handshake {
                Ok(io) => io,
                Err(error) => {
                    context.trouble("tls-handshake", format_args!("no TLS with {peer}: {error:#}"));
                    return Ok(());
                }
            }
        }
    };
    let mut pump = Pump::new(&context, &settings.framing);
    let end = pump.read(&mut io, &named, settings.idle_timeout, &context.stop).await?;
    debug!(source = &*context.name, %peer, ?end, "connection ended");
    if matches!(end, End::Silent) {
        context
            .trouble("idle", format_args!("closed the connection of {peer}, from which nothing came for idle-timeout"));
    }
    drop(io);
    pump.settle(&named).await?;
    pump.finish(&named).await;
    Ok(())
}
