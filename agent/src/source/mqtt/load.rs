//! A load: the messages that are taken from the broker together, stored together and acknowledged together.
//!
//! Whatever a broker sends becomes a record, or is counted, told and acknowledged: a message that cannot be stored must
//! not come back for ever.

use std::borrow::Cow;

use forebay_log_store::{Batch, Tag};
use rumqttc::mqttbytes::QoS;
use tracing::warn;

use super::{
    packet::Ack,
    properties,
    reader::{Payload, Publish},
    session::{Arrival, Session},
};
use crate::{
    ingest::{Fields, Origin},
    source::{SourceContext, Unfit},
};

/// A load is offered as soon as the one before it is queued; while it waits it grows up to this. It should be well below
/// what a shard takes in a second, for which an offer has to wait.
const MESSAGES_MAX: usize = 500;

/// The same in encoded bytes, well below the log's queue. One record may be larger.
const BYTES_MAX: usize = 512 * 1024;

/// Messages that wait to be offered.
pub(super) struct Load {
    pub(super) batch: Batch,
    pub(super) taken: Taken,
    key: String,
    /// Of the newest record.
    tags: Vec<Tag>,
}

/// What is to be done once a load is durable.
#[derive(Debug, Default)]
pub(super) struct Taken {
    /// In the order in which the messages came.
    pub(super) acks: Vec<Ack>,
    pub(super) messages: usize,
    /// Encoded.
    pub(super) bytes: usize,
    /// Messages that will not be delivered again, because they were sent at QoS 0.
    pub(super) unrepeatable: usize,
}

impl Load {
    pub(super) fn new(batch: Batch) -> Self {
        Self { batch, taken: Taken::default(), key: String::new(), tags: Vec::new() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.taken.messages == 0
    }

    pub(super) fn is_full(&self) -> bool {
        self.taken.messages >= MESSAGES_MAX || self.taken.bytes >= BYTES_MAX
    }

    /// Takes the messages out, to be offered; `batch` is for those to come.
    pub(super) fn take(&mut self, batch: Batch) -> (Batch, Taken) {
        (std::mem::replace(&mut self.batch, batch), std::mem::take(&mut self.taken))
    }

    /// Adds a message behind the others.
    pub(super) fn add(
        &mut self,
        publish: &Publish<'_>,
        client_id: &str,
        session: &mut Session,
        context: &SourceContext,
    ) {
        self.taken.messages += 1;
        match publish.qos {
            QoS::AtMostOnce => self.taken.unrepeatable += 1,
            QoS::AtLeastOnce => self.taken.acks.push(Ack::Received(publish.packet_id)),
            QoS::ExactlyOnce => {
                let arrival = session.on_publish(publish.packet_id);
                if arrival != Arrival::Storing {
                    self.taken.acks.push(Ack::ReceivedOnce(publish.packet_id));
                }
                if arrival != Arrival::New {
                    return;
                }
            }
        }
        let topic = String::from_utf8_lossy(publish.topic);
        if matches!(topic, Cow::Owned(_)) && context.stats.refused("topic-not-utf8") {
            warn!(source = &*context.name, %topic, "topic is not UTF-8; stored with its broken bytes replaced");
        }
        let named = [("topic", &*topic), ("client-id", client_id)];
        let payload = match publish.payload {
            Payload::Whole(payload) => payload,
            Payload::TooLarge { bytes } => return context.oversize(bytes as u64, Origin::new(&context.name, &named)),
        };
        self.tags.clear();
        if !properties::tags(publish.properties, &mut self.tags) && context.stats.refused("bad-properties") {
            warn!(source = &*context.name, %topic, "message properties are malformed; stored with those before the mistake");
        }
        let before = self.batch.encoded_bytes();
        let fields = Fields { source: &context.name, named: &named, payload, byte: None };
        match context.add(&fields, &self.tags, &mut self.batch, &mut self.key) {
            Ok(()) => self.taken.bytes += self.batch.encoded_bytes() - before,
            Err(error) => context.dropped(&Unfit::NotStorable(error), fields.origin()),
        }
    }
}
