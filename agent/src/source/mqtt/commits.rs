//! Loads on their way to the disk: offered one after the other, several in flight, settled in the order they were offered.

use std::{collections::VecDeque, future::Future, pin::Pin};

use forebay_log_store::{Appended, Batch, Error, WhenFull};

use super::load::Taken;
use crate::ingest::{Ingest, Pending};

type Boxed<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// A load that is queued; one without records has nothing to wait for but its turn.
type Queued = (Option<Boxed<Result<Appended, Error>>>, Entry);

/// The loads that are not settled.
pub(super) struct Commits {
    ingest: Ingest,
    offering: Option<(Boxed<Pending>, Entry)>,
    queue: VecDeque<Queued>,
    messages: usize,
    bytes: usize,
}

struct Entry {
    taken: Taken,
    records: u64,
    payload_bytes: u64,
}

/// What happened to a load.
pub(super) enum Progress {
    /// The newest is queued: the next one may be offered.
    Offered,
    /// The oldest is durable.
    Durable { taken: Taken, records: u64, payload_bytes: u64 },
    /// The oldest was not stored.
    Failed { taken: Taken, error: Error },
}

impl Commits {
    pub(super) fn new(ingest: Ingest) -> Self {
        Self { ingest, offering: None, queue: VecDeque::new(), messages: 0, bytes: 0 }
    }

    /// Messages that are not settled.
    pub(super) fn messages(&self) -> usize {
        self.messages
    }

    /// Their encoded size.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether there is nothing to wait for.
    pub(super) fn is_idle(&self) -> bool {
        self.offering.is_none() && self.queue.is_empty()
    }

    /// Whether the load offered last is queued, so that another may follow it.
    pub(super) fn may_offer(&self) -> bool {
        self.offering.is_none()
    }

    /// Offers a load behind the others. Only if [`Commits::may_offer`].
    pub(super) fn offer(&mut self, batch: Batch, taken: Taken) {
        assert!(self.may_offer(), "loads are offered one after the other");
        self.messages += taken.messages;
        self.bytes += taken.bytes;
        let entry = Entry { taken, records: batch.len() as u64, payload_bytes: batch.payload_bytes() };
        if batch.is_empty() {
            // Nothing to store, but its acknowledgements have to wait for their turn.
            self.queue.push_back((None, entry));
        } else {
            let ingest = self.ingest.clone();
            self.offering = Some((Box::pin(async move { ingest.offer(batch, WhenFull::Wait).await }), entry));
        }
    }

    /// Waits until something happens to a load; for ever if there is none.
    ///
    /// # Cancel safety
    /// Nothing is lost if it is dropped.
    pub(super) async fn progress(&mut self) -> Progress {
        let Self { offering, queue, .. } = self;
        let outcome = tokio::select! {
            biased;
            outcome = oldest(queue) => outcome,
            pending = offered(offering) => {
                let (_, entry) = self.offering.take().expect("it was just offered");
                self.queue.push_back((Some(Box::pin(pending.durable())), entry));
                return Progress::Offered;
            }
        };
        let (_, Entry { taken, records, payload_bytes }) = self.queue.pop_front().expect("it was just settled");
        self.messages -= taken.messages;
        self.bytes -= taken.bytes;
        match outcome {
            Ok(()) => Progress::Durable { taken, records, payload_bytes },
            Err(error) => Progress::Failed { taken, error },
        }
    }
}

async fn offered(offering: &mut Option<(Boxed<Pending>, Entry)>) -> Pending {
    match offering {
        Some((offer, _)) => offer.await,
        None => std::future::pending().await,
    }
}

async fn oldest(queue: &mut VecDeque<Queued>) -> Result<(), Error> {
    match queue.front_mut() {
        Some((Some(durable), _)) => durable.await.map(drop),
        Some((None, _)) => Ok(()),
        None => std::future::pending().await,
    }
}
