//! Makes records out of messages: renders their partition keys and gathers them in a batch for the log.

use std::sync::Arc;

use forebay_log_store::Batch;
use rmqtt_codec::v5::DisconnectReasonCode as Reason;

use crate::ingest::Fields;

use super::{goodbye::Violation, listener::Shared, protocol::Sink};

/// Gathers one client's records.
pub(super) struct Recorder {
    shared: Arc<Shared>,
    client_id: Arc<str>,
    batch: Batch,
    /// The newest record's partition key: its memory is used again.
    key: String,
}

impl Recorder {
    pub(super) fn new(shared: Arc<Shared>, client_id: Arc<str>) -> Self {
        let batch = shared.context.ingest.batch();
        Self { shared, client_id, batch, key: String::new() }
    }

    /// Takes out what was gathered, if anything.
    pub(super) fn take(&mut self) -> Option<Batch> {
        if self.batch.is_empty() {
            return None;
        }
        Some(std::mem::replace(&mut self.batch, self.shared.context.ingest.batch()))
    }
}

impl Sink for Recorder {
    fn store(&mut self, topic: &str, payload: &[u8]) -> Result<(), Violation> {
        let (context, named) = (&self.shared.context, [("topic", topic), ("client-id", &*self.client_id)]);
        let fields = Fields { source: &context.name, named: &named, payload };
        context
            .add(&fields, &[], &mut self.batch, &mut self.key)
            .map_err(|error| Violation::new(Reason::ImplementationSpecificError, "not-storable", error.to_string()))
    }

    fn subscription_refused(&mut self) {
        let detail = format_args!("refused a subscription: this listener only takes messages in");
        self.shared.count("subscribe", &self.client_id, detail);
    }
}
