//! Makes records out of messages: renders their partition keys and gathers them in a batch for the log.

use std::sync::Arc;

use forebay_log_store::{Batch, Tag};
use rmqtt_codec::v5::DisconnectReasonCode as Reason;

use crate::ingest::Fields;

use super::{goodbye::Violation, listener::Shared, protocol::Sink, rules::Allowed};

/// Gathers one client's records.
pub(super) struct Recorder {
    shared: Arc<Shared>,
    client_id: Arc<str>,
    /// Whom the client has proved to be.
    user: Option<Arc<str>>,
    allowed: Allowed,
    batch: Batch,
    /// The newest record's partition key: its memory is used again.
    key: String,
}

impl Recorder {
    pub(super) fn new(shared: Arc<Shared>, client_id: Arc<str>, user: Option<Arc<str>>, allowed: Allowed) -> Self {
        let batch = shared.context.ingest.batch();
        Self { shared, client_id, user, allowed, batch, key: String::new() }
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
    fn store(&mut self, topic: &str, payload: &[u8], tags: &[Tag]) -> Result<(), Violation> {
        let (context, user) = (&self.shared.context, self.user.as_deref());
        let named = [("topic", topic), ("client-id", &*self.client_id), ("user", user.unwrap_or_default())];
        let named = &named[..if user.is_some() { 3 } else { 2 }];
        let fields = Fields { source: &context.name, named, payload, byte: None };
        context
            .add(&fields, tags, &mut self.batch, &mut self.key)
            .map_err(|error| Violation::new(Reason::ImplementationSpecificError, "not-storable", error.to_string()))
    }

    fn allows(&mut self, topic: &str) -> bool {
        let allowed = self.allowed.includes(topic);
        if !allowed {
            let user = self.user.as_deref().unwrap_or("nobody");
            let detail = format_args!("no rule lets it, user {user}, publish to `{topic}`; not stored");
            self.shared.count("not-allowed", &self.client_id, detail);
        }
        allowed
    }

    fn subscription_refused(&mut self) {
        let detail = format_args!("refused a subscription: this listener only takes messages in");
        self.shared.count("subscribe", &self.client_id, detail);
    }
}
