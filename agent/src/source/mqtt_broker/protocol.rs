//! One connection's protocol from CONNACK on: bytes in, records and answers out. Codec and session, without a socket. Pure.

use bytes::BytesMut;
use forebay_log_store::Tag;
use rmqtt_codec::v5::DisconnectReasonCode as Reason;

use super::{
    codec::{Codec, Incoming, write_pingresp},
    goodbye::{Goodbye, Violation},
    session::Session,
    tags,
};

/// Where the protocol puts what a client sends.
pub(super) trait Sink {
    /// Takes a record.
    ///
    /// # Errors
    /// It cannot be stored, so that the connection ends.
    fn store(&mut self, topic: &str, payload: &[u8], tags: &[Tag]) -> Result<(), Violation>;

    /// Whether the client may publish to a topic. If not, that is counted and told.
    fn allows(&mut self, topic: &str) -> bool;

    /// Is told that a SUBSCRIBE was refused.
    fn subscription_refused(&mut self);
}

/// Codec and session of one connection.
pub(super) struct Protocol {
    pub(super) codec: Codec,
    pub(super) session: Session,
    /// How many packets were taken.
    pub(super) packets: u32,
    /// Of the newest message.
    tags: Vec<Tag>,
}

impl Protocol {
    pub(super) fn new(codec: Codec, session: Session) -> Self {
        Self { codec, session, packets: 0, tags: Vec::new() }
    }

    /// Takes all whole packets off the front of `buffer`. Records go to `sink`; answers that wait for nothing go to `out`.
    ///
    /// # Errors
    /// Why the connection ends. What came before in `buffer` counts all the same.
    pub(super) fn advance(
        &mut self,
        buffer: &mut BytesMut,
        out: &mut BytesMut,
        sink: &mut impl Sink,
    ) -> Result<(), Goodbye> {
        while let Some(packet) = self.codec.decode(buffer).map_err(Goodbye::Violation)? {
            self.packets = self.packets.wrapping_add(1);
            self.take(packet, out, sink)?;
        }
        Ok(())
    }

    fn take(&mut self, packet: Incoming, out: &mut BytesMut, sink: &mut impl Sink) -> Result<(), Goodbye> {
        match packet {
            Incoming::Publish(publish) => {
                let allowed = |topic: &str| sink.allows(topic);
                if let Some(topic) = self.session.on_publish(&publish, allowed).map_err(Goodbye::Violation)? {
                    tags::of_publish(publish.properties.as_ref(), &mut self.tags);
                    sink.store(topic, &publish.payload, &self.tags).map_err(|violation| {
                        self.session.cannot_store(publish.qos);
                        Goodbye::Violation(violation)
                    })?;
                }
            }
            Incoming::Release(id) => self.session.on_release(id, out).map_err(Goodbye::Violation)?,
            Incoming::Subscribe { filters: 0, .. } | Incoming::Unsubscribe { filters: 0, .. } => {
                return Err(protocol_error("it sent a SUBSCRIBE or UNSUBSCRIBE without a topic filter"));
            }
            Incoming::Subscribe { id, filters } => {
                self.codec.write_suback(id, filters, out);
                sink.subscription_refused();
            }
            Incoming::Unsubscribe { id, filters } => self.codec.write_unsuback(id, filters, out),
            Incoming::Ping => write_pingresp(out),
            Incoming::Disconnect { with_will } => return Err(Goodbye::Disconnected { with_will }),
            Incoming::Stray => {}
            Incoming::Connect(_) => return Err(protocol_error("it sent a second CONNECT")),
            Incoming::NotAClients(name) => return Err(protocol_error(format!("it sent {name}"))),
        }
        Ok(())
    }
}

fn protocol_error(message: impl Into<std::borrow::Cow<'static, str>>) -> Goodbye {
    Goodbye::Violation(Violation::new(Reason::ProtocolError, "protocol-error", message))
}

#[cfg(any(test, fuzzing))]
mod fuzzing;
#[cfg(test)]
mod tests;

#[cfg(any(test, fuzzing))]
pub use fuzzing::fuzz;
