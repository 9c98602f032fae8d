//! One request: who sends it, what is in it, and its records on their way to the log. Answered once they are durable.

use std::time::Duration;

use forebay_log_store::{Batch, WhenFull};
use http_body_util::Full;
use hyper::{Response, StatusCode, body::Bytes, header::CONTENT_TYPE, http::request::Parts};
use tokio::{
    sync::Semaphore,
    time::{Instant, timeout, timeout_at},
};

use super::{
    access::Sender,
    answer::{self, Refusal},
    body::{Coming, Packing, SMALL},
    config::Settings,
    split::{Kind, Part},
};
use crate::{
    ingest::Fields,
    source::{SourceContext, accept::Peer},
};

/// What is posted to a path, and what becomes of it.
pub(super) struct Route {
    pub(super) context: SourceContext,
    pub(super) settings: Settings,
}

impl Route {
    /// Takes a request whole or not at all.
    pub(super) async fn take(
        &self,
        head: &Parts,
        body: &mut Coming,
        peer: &Peer,
        patience: Duration,
        large: &Semaphore,
    ) -> Result<Response<Full<Bytes>>, Refusal> {
        let sender = self.settings.access.decide(&head.headers).await?;
        let packing = Packing::of(&head.headers)?;
        let content_type = head.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let kind = Kind::of(content_type);
        let body = timeout(patience, body.collect(self.settings.max_body, large)).await.map_err(|_| {
            Refusal::new(StatusCode::REQUEST_TIMEOUT, "timeout", "the body did not arrive within request-timeout")
        })??;
        let _permit = body.permit;
        let prepare = Prepare {
            context: self.context.clone(),
            settings: self.settings.clone(),
            packing,
            kind,
            peer: peer.clone(),
            sender,
        };
        let small = body.bytes.len() <= SMALL && packing == Packing::None;
        let batch = if small {
            prepare.batch(body.bytes)?
        } else {
            // Megabytes are unpacked and parsed beside what others wait for.
            let prepared = tokio::task::spawn_blocking(move || prepare.batch(body.bytes)).await;
            prepared.map_err(|error| Refusal::not_stored(format!("the body could not be worked on: {error}")))??
        };
        let outcome = self.store(batch).await;
        if outcome.is_err() {
            // The same may come again.
            self.context.shaping.forget();
        }
        outcome
    }

    async fn store(&self, batch: Batch) -> Result<Response<Full<Bytes>>, Refusal> {
        if batch.is_empty() {
            // Everything in it was left out, as the source is configured.
            return Ok(answer::stored(&forebay_log_store::Appended { runs: Vec::new() }));
        }
        let (records, bytes) = (batch.len() as u64, batch.payload_bytes());
        // Of its own, so that a failure of the log that is over by then does not count for it.
        let ingest = self.context.ingest.for_connection();
        let deadline = Instant::now() + self.settings.commit_timeout;
        timeout_at(deadline, ingest.admit(&batch)).await.map_err(|_| Refusal::rate_limited())?;
        let late =
            |_| Refusal::not_stored("the log did not take it within commit-timeout; it may be stored all the same");
        let pending = timeout_at(deadline, ingest.queue(batch, WhenFull::Refuse)).await;
        let pending = pending.map_err(|_| Refusal::not_stored("the log did not take it within commit-timeout"))?;
        let appended = timeout_at(deadline, pending.durable()).await.map_err(late)?;
        let appended = appended.map_err(|error| Refusal::of_log(&error))?;
        self.context.stats.stored(records, bytes);
        Ok(answer::stored(&appended))
    }
}

/// What is needed to make records of a body.
struct Prepare {
    context: SourceContext,
    settings: Settings,
    packing: Packing,
    kind: Kind,
    peer: Peer,
    sender: Sender,
}

impl Prepare {
    fn batch(self, packed: Bytes) -> Result<Batch, Refusal> {
        let body = self.packing.unpack(packed, self.settings.max_body)?;
        // What the source makes of records may be smaller, and is looked at afterwards.
        let max_record = if self.context.shaping.is_nothing() { self.context.max_record } else { usize::MAX };
        let parts = self.kind.split(&body, &self.settings.split, max_record)?;
        let mut named = self.peer.named();
        named.push(("path", &self.settings.path));
        named.extend(self.sender.user.as_deref().map(|user| ("user", user)));
        let mut batch = self.context.ingest.batch();
        let mut key = String::new();
        for Part { record, place } in parts {
            let fields = Fields { source: &self.context.name, named: &named, payload: record, byte: None };
            let mut first = None;
            self.context.make(&fields, &[], &mut batch, &mut key, &mut |unfit| _ = first.get_or_insert(unfit));
            if let Some(unfit) = first {
                // Those before it may come again, and must not be taken for duplicates of what was never stored.
                self.context.shaping.forget();
                return Err(Refusal::of_record(&unfit, place));
            }
        }
        Ok(batch)
    }
}
