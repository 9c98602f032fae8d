//! One client's session: what its packets ask of the log, and which acknowledgements are due, in which order. Pure.
//!
//! Promises: an acknowledgement is written once, in the order of the PUBLISHes, and only after the batch that holds the
//! record is durable. A QoS 2 packet id that was stored and not yet released is not stored again, also when the client
//! comes back with it on another connection.
//!
//! A record's way: [`Session::on_publish`] says that it is to be stored; [`Session::seal`] says that everything so far
//! went off as one batch; [`Session::on_durable`] or [`Session::on_refused`] says what became of the oldest batch.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    num::NonZeroU16,
};

use bytes::BytesMut;
use rmqtt_codec::{
    types::{Publish, QoS},
    v5::DisconnectReasonCode as Reason,
};

use super::{
    codec::{
        Limits, Version, write_not_authorized, write_puback, write_pubcomp, write_pubcomp_not_found, write_pubrec,
    },
    goodbye::Violation,
};

/// QoS 2 packet ids that were stored and not released: all that a session leaves behind.
pub(super) type Unreleased = BTreeSet<NonZeroU16>;

/// The state of one connection's protocol, from CONNACK on.
pub(super) struct Session {
    version: Version,
    limits: Limits,
    aliases: Vec<Option<Box<str>>>,
    /// QoS 2 packet ids whose PUBLISH came and whose PUBREL did not.
    unreleased: BTreeMap<NonZeroU16, Exactly>,
    /// What is due, oldest first.
    acks: VecDeque<Ack>,
    /// How many of `acks` each batch on its way brings, oldest first.
    sealed: VecDeque<usize>,
    /// How many of `acks` belong to no batch yet.
    open: usize,
    /// QoS 1 and 2 messages that a version 5 client counts against our receive maximum.
    receiving: usize,
}

/// A QoS 2 message between PUBLISH and PUBREL.
#[derive(Debug, Clone, Copy)]
struct Exactly {
    stored: bool,
    /// Whether this connection's receive maximum counts it.
    counted: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ack {
    Puback(NonZeroU16),
    Pubrec(NonZeroU16),
    /// For a PUBLISH that was sent again: its record is in this batch, or in one before it.
    PubrecAgain(NonZeroU16),
    /// For a PUBLISH that no rule allows: it leaves nothing behind.
    NotAllowed {
        id: NonZeroU16,
        qos: QoS,
    },
}

impl Session {
    /// A session that goes on where an earlier connection left it.
    pub(super) fn new(version: Version, limits: Limits, unreleased: Unreleased) -> Self {
        Self {
            version,
            limits,
            aliases: Vec::new(),
            unreleased: unreleased.into_iter().map(|id| (id, Exactly { stored: true, counted: false })).collect(),
            acks: VecDeque::new(),
            sealed: VecDeque::new(),
            open: 0,
            receiving: 0,
        }
    }

    /// Takes a PUBLISH. Gives the topic under which its payload is to be stored, or nothing if it is stored already, or not
    /// `allowed` to be.
    ///
    /// If it cannot be stored after all, [`Session::cannot_store`] takes the acknowledgement back.
    pub(super) fn on_publish<'a>(
        &'a mut self,
        publish: &'a Publish,
        allowed: impl FnOnce(&str) -> bool,
    ) -> Result<Option<&'a str>, Violation> {
        let topic = self.topic(publish)?;
        let stored_already =
            publish.packet_id.is_some_and(|id| publish.qos == QoS::ExactlyOnce && self.unreleased.contains_key(&id));
        if !stored_already && !allowed(self.text(topic, publish)) {
            if let Some(id) = publish.packet_id {
                self.receive()?;
                self.due(Ack::NotAllowed { id, qos: publish.qos });
            }
            return Ok(None);
        }
        match (publish.qos, publish.packet_id) {
            (QoS::AtLeastOnce, Some(id)) => {
                self.receive()?;
                self.due(Ack::Puback(id));
            }
            (QoS::ExactlyOnce, Some(id)) if self.unreleased.contains_key(&id) => {
                self.due(Ack::PubrecAgain(id));
                return Ok(None);
            }
            (QoS::ExactlyOnce, Some(id)) => {
                self.receive()?;
                self.unreleased.insert(id, Exactly { stored: false, counted: true });
                self.due(Ack::Pubrec(id));
            }
            _ => {}
        }
        Ok(Some(self.text(topic, publish)))
    }

    /// The record of the PUBLISH that was taken last cannot be stored: it is not acknowledged, and the connection must end.
    pub(super) fn cannot_store(&mut self, qos: QoS) {
        if qos == QoS::AtMostOnce {
            return;
        }
        // A QoS 2 packet id stays behind as one that was not stored, which is nothing to be remembered.
        self.acks.pop_back();
        self.open -= 1;
    }

    /// Takes a PUBREL, and writes its PUBCOMP.
    pub(super) fn on_release(&mut self, id: NonZeroU16, out: &mut BytesMut) -> Result<(), Violation> {
        match self.unreleased.get(&id) {
            Some(Exactly { stored: false, .. }) => {
                return Err(Violation::new(
                    Reason::ProtocolError,
                    "protocol-error",
                    "it released a message before that was acknowledged",
                ));
            }
            Some(Exactly { counted, .. }) => {
                self.receiving -= usize::from(*counted);
                self.unreleased.remove(&id);
                write_pubcomp(id, out);
            }
            None if self.version == Version::V5 => write_pubcomp_not_found(id, out),
            None => write_pubcomp(id, out),
        }
        Ok(())
    }

    /// Says that the records of every PUBLISH since the last call went off together, behind those before.
    pub(super) fn seal(&mut self) {
        self.sealed.push_back(std::mem::take(&mut self.open));
    }

    /// Says that the PUBLISHes since the last [`Session::seal`] brought no record. What is due for them is written at once,
    /// or with the newest batch on its way.
    pub(super) fn nothing_to_seal(&mut self, out: &mut BytesMut) {
        let open = std::mem::take(&mut self.open);
        match self.sealed.back_mut() {
            Some(newest) => *newest += open,
            None => self.acknowledge(open, out),
        }
    }

    /// The oldest batch on its way is durable: writes its acknowledgements.
    pub(super) fn on_durable(&mut self, out: &mut BytesMut) {
        let acks = self.sealed.pop_front().expect("an outcome follows a seal");
        self.acknowledge(acks, out);
    }

    /// The oldest batch on its way was not stored: nothing of it is acknowledged, and the connection must end.
    pub(super) fn on_refused(&mut self) {
        let acks = self.sealed.pop_front().expect("an outcome follows a seal");
        self.acks.drain(..acks);
    }

    /// What the session leaves behind for the client's next connection. What was not stored is a new message when it is
    /// sent again.
    pub(super) fn into_unreleased(self) -> Unreleased {
        self.unreleased.into_iter().filter(|(_, exactly)| exactly.stored).map(|(id, _)| id).collect()
    }

    /// Number of acknowledgements that are not written yet.
    #[cfg(test)]
    pub(super) fn acknowledgements_due(&self) -> usize {
        self.acks.len()
    }

    fn due(&mut self, ack: Ack) {
        self.acks.push_back(ack);
        self.open += 1;
    }

    fn acknowledge(&mut self, acks: usize, out: &mut BytesMut) {
        out.reserve(4 * acks);
        for ack in self.acks.drain(..acks) {
            match ack {
                Ack::Puback(id) => {
                    self.receiving -= 1;
                    write_puback(id, out);
                }
                Ack::Pubrec(id) => {
                    if let Some(exactly) = self.unreleased.get_mut(&id) {
                        exactly.stored = true;
                    }
                    write_pubrec(id, out);
                }
                Ack::PubrecAgain(id) => write_pubrec(id, out),
                Ack::NotAllowed { id, qos } => {
                    self.receiving -= 1;
                    match (self.version, qos) {
                        (Version::V5, QoS::ExactlyOnce) => write_not_authorized(0x50, id, out),
                        (Version::V5, _) => write_not_authorized(0x40, id, out),
                        // 3.1.1 can only acknowledge, or end the connection, and the device would come back with the same
                        // message for ever.
                        (Version::V3, QoS::ExactlyOnce) => write_pubrec(id, out),
                        (Version::V3, _) => write_puback(id, out),
                    }
                }
            }
        }
    }

    /// Counts a message that has to be acknowledged.
    fn receive(&mut self) -> Result<(), Violation> {
        // 3.1.1 knows no such limit; there, what is in flight is bounded by bytes, by not reading.
        if self.version == Version::V5 && self.receiving >= usize::from(self.limits.receive_max.get()) {
            return Err(Violation::new(
                Reason::ReceiveMaximumExceeded,
                "receive-maximum",
                format!("over {} of its messages are unacknowledged", self.limits.receive_max),
            ));
        }
        self.receiving += 1;
        Ok(())
    }

    fn text<'a>(&'a self, topic: Topic, publish: &'a Publish) -> &'a str {
        match topic {
            Topic::OfPacket => &publish.topic,
            Topic::Alias(index) => self.aliases[index].as_deref().expect("it was looked up"),
        }
    }

    /// The topic of a PUBLISH, which in version 5 may be an alias.
    fn topic(&mut self, publish: &Publish) -> Result<Topic, Violation> {
        let properties = publish.properties.as_ref();
        if properties.is_some_and(|properties| !properties.subscription_ids.is_empty()) {
            return Err(Violation::new(
                Reason::ProtocolError,
                "protocol-error",
                "it published with a subscription identifier",
            ));
        }
        let Some(alias) = properties.and_then(|properties| properties.topic_alias) else {
            check_topic(&publish.topic)?;
            return Ok(Topic::OfPacket);
        };
        if alias.get() > self.limits.topic_alias_max {
            return Err(Violation::new(
                Reason::TopicAliasInvalid,
                "topic-alias",
                format!("its topic alias {alias} is over {}", self.limits.topic_alias_max),
            ));
        }
        self.aliases.resize(usize::from(self.limits.topic_alias_max), None);
        let index = usize::from(alias.get()) - 1;
        let known = &mut self.aliases[index];
        if !publish.topic.is_empty() {
            check_topic(&publish.topic)?;
            if known.as_deref() != Some(&*publish.topic) {
                // Copied: a part of the read buffer would keep all of it.
                *known = Some(Box::from(&*publish.topic));
            }
        } else if known.is_none() {
            return Err(Violation::new(
                Reason::ProtocolError,
                "topic-alias",
                format!("its topic alias {alias} has no topic"),
            ));
        }
        Ok(Topic::Alias(index))
    }
}

/// Where a PUBLISH's topic is.
#[derive(Debug, Clone, Copy)]
enum Topic {
    OfPacket,
    Alias(usize),
}

/// Whether a topic may be published to.
pub(super) fn check_topic(topic: &str) -> Result<(), Violation> {
    if topic.is_empty() || topic.bytes().any(|byte| matches!(byte, 0 | b'#' | b'+')) {
        return Err(Violation::new(
            Reason::TopicNameInvalid,
            "bad-topic",
            "it published to a topic that is empty or holds a wildcard or NUL",
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
