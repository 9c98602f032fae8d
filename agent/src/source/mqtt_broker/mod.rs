//! The `mqtt-broker` source: an embedded MQTT 3.1.1 and 5 listener, over TCP, TLS and WebSocket, so that devices publish to the
//! gateway with nothing else installed.
//!
//! Promises: PUBACK and PUBREC are sent after the record is durable, in the order of the PUBLISHes. A QoS 2 message is stored
//! exactly once while the agent lives, also across reconnects; a restart of the agent in the middle of its handshake may store
//! it twice. A device that sends faster than the log takes is slowed down by not reading from it. No bytes whatever
//! end more than the connection that they came from.
//!
//! Deliberately not a broker: nothing is ever sent to a subscriber, subscriptions are refused, and a retained message is a
//! message like any other.

mod codec;
mod config;
mod connect;
mod connection;
mod credentials;
mod goodbye;
mod greeting;
mod listener;
mod pace;
mod passage;
mod protocol;
mod recorder;
mod registry;
mod reread;
mod rules;
mod session;
mod sparingly;
mod tags;
mod websocket;
mod wire;

pub use config::{Config, Settings};
pub use credentials::{Credentials, ITERATIONS, password_line};
pub use listener::Listener;
#[cfg(any(test, fuzzing))]
pub use protocol::fuzz;
pub use rules::Rule;

use std::net::SocketAddr;

use super::{BoxFuture, Source, SourceContext, Type, kind};
use crate::config::reader;

/// The row in the table of types.
pub(super) const TYPE: Type = Type {
    name: "mqtt-broker",
    takes: "devices that publish to the gateway itself: MQTT 3.1.1 and 5, TCP, TLS and WebSocket; passwords, client certificates, topic rules",
    acknowledged: "PUBACK or PUBREC after the commit",
    partition_key: "{topic}",
    placeholders: &["topic", "client-id", "user"],
    keys: reader::keys_of::<Config>,
    read: kind::read::<Config>,
};

impl super::Settings for Settings {
    fn describe(&self) -> String {
        let secure = if self.tls.is_some() { " with TLS" } else { "" };
        let places = [(self.listen, ""), (self.websocket_listen, " (WebSocket)")];
        let places = places.into_iter().filter_map(|(address, kind)| Some(format!("{}{kind}", address?)));
        format!("mqtt-broker on {}{secure}", places.collect::<Vec<_>>().join(" and "))
    }

    fn listens_on(&self) -> Vec<(&'static str, SocketAddr)> {
        let keys = [("listen", self.listen), ("websocket-listen", self.websocket_listen)];
        keys.into_iter().filter_map(|(key, address)| Some((key, address?))).collect()
    }

    fn bind(&self) -> BoxFuture<'_, anyhow::Result<Box<dyn Source>>> {
        Box::pin(async { Ok(Box::new(Listener::bind(self.clone()).await?) as Box<dyn Source>) })
    }
}

impl Source for Listener {
    fn run(self: Box<Self>, context: SourceContext) -> BoxFuture<'static, anyhow::Result<()>> {
        Box::pin(Self::run(*self, context))
    }
}

#[cfg(test)]
mod tests;
