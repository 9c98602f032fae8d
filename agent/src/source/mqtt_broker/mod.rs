//! The `mqtt-broker` source: an embedded MQTT 3.1.1 and 5 listener, so that devices publish to the gateway with nothing else
//! installed.
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
mod passage;
mod protocol;
mod recorder;
mod registry;
mod session;
mod sparingly;
mod wire;

pub use config::{Config, Settings};
pub use credentials::Credentials;
pub use listener::Listener;

#[cfg(test)]
mod tests;
