//! What we know of our session with the broker, across connections.
//!
//! Packet identifiers of QoS 2 messages are remembered from PUBLISH to PUBREL, so that a message is stored once even if
//! its PUBREC was lost with a connection. They are not kept across restarts: then such a message is stored twice, which
//! at-least-once allows. Pure.

use std::collections::HashMap;

/// One session.
#[derive(Debug, Default)]
pub(super) struct Session {
    /// Whether the broker ever told us of success in this run.
    known: bool,
    subscribed: bool,
    exactly_once: HashMap<u16, Stage>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// On its way to the disk.
    Storing,
    /// Durable; the broker has yet to say that it knows.
    Stored,
}

/// What to do with a QoS 2 message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Arrival {
    /// It is new: store it, then acknowledge.
    New,
    /// It is stored already: acknowledge in its turn.
    Stored,
    /// It is on its way to the disk and will be acknowledged then.
    Storing,
}

impl Session {
    /// A connection was accepted. Whether the broker has forgotten the session that we had, and what it held for us.
    pub(super) fn on_connected(&mut self, session_present: bool) -> bool {
        let forgotten = self.known && !session_present;
        self.known = true;
        if !session_present {
            self.subscribed = false;
            self.exactly_once.clear();
        }
        forgotten
    }

    /// Whether the broker has yet to be told what we subscribe to. It is told once in every run, because the
    /// configuration may have changed, and not again, because it answers each time with all retained messages.
    pub(super) fn must_subscribe(&self) -> bool {
        !self.subscribed
    }

    /// Every filter was granted.
    pub(super) fn on_subscribed(&mut self) {
        self.subscribed = true;
    }

    /// A QoS 2 message came.
    pub(super) fn on_publish(&mut self, packet_id: u16) -> Arrival {
        match self.exactly_once.get(&packet_id) {
            Some(Stage::Stored) => Arrival::Stored,
            Some(Stage::Storing) => Arrival::Storing,
            None => {
                self.exactly_once.insert(packet_id, Stage::Storing);
                Arrival::New
            }
        }
    }

    /// A QoS 2 message is durable.
    pub(super) fn on_stored(&mut self, packet_id: u16) {
        if let Some(stage) = self.exactly_once.get_mut(&packet_id) {
            *stage = Stage::Stored;
        }
    }

    /// The broker knows that we have the message, and may use its packet identifier for another.
    pub(super) fn on_release(&mut self, packet_id: u16) {
        self.exactly_once.remove(&packet_id);
    }

    /// The connection is gone and nothing is on its way any more: what is not stored will be delivered again.
    pub(super) fn on_settled(&mut self) {
        self.exactly_once.retain(|_, stage| *stage == Stage::Stored);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connected() -> Session {
        let mut session = Session::default();
        assert!(!session.on_connected(false), "a first connection has nothing to lose");
        session
    }

    #[test]
    fn a_message_delivered_again_is_stored_once() {
        let mut session = connected();
        assert_eq!(session.on_publish(7), Arrival::New);
        assert_eq!(session.on_publish(7), Arrival::Storing);
        session.on_stored(7);
        session.on_settled();
        assert!(!session.on_connected(true));
        assert_eq!(session.on_publish(7), Arrival::Stored);
        session.on_release(7);
        assert_eq!(session.on_publish(7), Arrival::New, "the identifier stands for another message now");
    }

    #[test]
    fn a_message_that_was_not_stored_is_taken_when_it_comes_again() {
        let mut session = connected();
        session.on_publish(7);
        session.on_settled();
        session.on_connected(true);
        assert_eq!(session.on_publish(7), Arrival::New);
    }

    #[test]
    fn a_forgotten_session_is_told_and_begins_anew() {
        let mut session = connected();
        session.on_subscribed();
        session.on_publish(7);
        session.on_stored(7);
        session.on_connected(true);
        assert!(!session.must_subscribe());
        assert!(session.on_connected(false));
        assert!(session.must_subscribe());
        assert_eq!(session.on_publish(7), Arrival::New);
    }

    #[test]
    fn a_release_of_what_we_never_saw_is_harmless() {
        let mut session = connected();
        session.on_release(9);
        session.on_stored(9);
        assert_eq!(session.on_publish(9), Arrival::New);
    }
}
