//! Batches on their way to the disk: offered one after the other, several in flight, settled in the order they were offered.
//!
//! With each goes what is to be done once it is settled, such as acknowledgements: a `T` of the source's own.

use std::{collections::VecDeque, future::Future, pin::Pin};

use forebay_log_store::{Appended, Batch, Error, WhenFull};

use crate::ingest::{Ingest, Pending};

type Boxed<T> = Pin<Box<dyn Future<Output = T> + Send>>;

type Outcome = Result<Appended, (Error, Option<Batch>)>;

/// A batch that is queued; one without records has nothing to wait for but its turn.
type Queued<T> = (Option<Boxed<Outcome>>, Entry<T>);

/// The batches that are not settled.
pub(super) struct Commits<T> {
    ingest: Ingest,
    offering: Option<(Boxed<Pending>, Entry<T>)>,
    queue: VecDeque<Queued<T>>,
    bytes: usize,
}

struct Entry<T> {
    with: T,
    bytes: usize,
    records: u64,
    payload_bytes: u64,
}

/// What happened to a batch.
pub(super) enum Progress<T> {
    /// The newest is queued: the next one may be offered.
    Offered,
    /// The oldest is durable.
    Durable { with: T, records: u64, payload_bytes: u64 },
    /// The oldest was not stored. It comes back, unless the log is gone.
    Failed { with: T, error: Error, batch: Option<Batch> },
}

impl<T> Commits<T> {
    pub(super) fn new(ingest: Ingest) -> Self {
        Self { ingest, offering: None, queue: VecDeque::new(), bytes: 0 }
    }

    /// Encoded size of the batches that are not settled.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Records of the batches that are not settled.
    pub(super) fn records(&self) -> u64 {
        let offering = self.offering.iter().map(|(_, entry)| entry);
        offering.chain(self.queue.iter().map(|(_, entry)| entry)).map(|entry| entry.records).sum()
    }

    /// Whether there is nothing to wait for.
    pub(super) fn is_idle(&self) -> bool {
        self.offering.is_none() && self.queue.is_empty()
    }

    /// Whether the batch offered last is queued, so that another may follow it.
    pub(super) fn may_offer(&self) -> bool {
        self.offering.is_none()
    }

    /// Offers a batch behind the others. Only if [`Commits::may_offer`].
    pub(super) fn offer(&mut self, batch: Batch, with: T) {
        assert!(self.may_offer(), "batches are offered one after the other");
        let bytes = batch.encoded_bytes();
        self.bytes += bytes;
        let entry = Entry { with, bytes, records: batch.len() as u64, payload_bytes: batch.payload_bytes() };
        if batch.is_empty() {
            // Nothing to store, but its acknowledgements have to wait for their turn.
            self.queue.push_back((None, entry));
        } else {
            let ingest = self.ingest.clone();
            self.offering = Some((Box::pin(async move { ingest.offer(batch, WhenFull::Wait).await }), entry));
        }
    }

    /// Waits until something happens to a batch; for ever if there is none.
    ///
    /// # Cancel safety
    /// Nothing is lost if it is dropped.
    pub(super) async fn progress(&mut self) -> Progress<T> {
        let Self { offering, queue, .. } = self;
        let outcome = tokio::select! {
            biased;
            outcome = oldest(queue) => outcome,
            pending = offered(offering) => {
                let (_, entry) = self.offering.take().expect("it was just offered");
                self.queue.push_back((Some(Box::pin(pending.durable_or_back())), entry));
                return Progress::Offered;
            }
        };
        let (_, Entry { with, bytes, records, payload_bytes }) = self.queue.pop_front().expect("it was just settled");
        self.bytes -= bytes;
        match outcome {
            Ok(()) => Progress::Durable { with, records, payload_bytes },
            Err((error, batch)) => Progress::Failed { with, error, batch },
        }
    }
}

async fn offered<T>(offering: &mut Option<(Boxed<Pending>, Entry<T>)>) -> Pending {
    match offering {
        Some((offer, _)) => offer.await,
        None => std::future::pending().await,
    }
}

async fn oldest<T>(queue: &mut VecDeque<Queued<T>>) -> Result<(), (Error, Option<Batch>)> {
    match queue.front_mut() {
        Some((Some(durable), _)) => durable.await.map(drop),
        Some((None, _)) => Ok(()),
        None => std::future::pending().await,
    }
}
