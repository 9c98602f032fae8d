//! Ingest: the only door into the log.
//!
//! It waits for the shards' rate limits and for room in the stream's queue, hands the batch to the log, and tells when
//! it is durable. It keeps the order of one caller's offers. It never drops: what it cannot store it gives an error for,
//! and the caller does not acknowledge.

pub(crate) mod json_pointer;
mod origin;
mod partition_key;

use std::sync::{
    Arc,
    atomic::{
        AtomicBool,
        Ordering::{Acquire, Release},
    },
};

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use forebay_log_store::{Appended, Batch, Error, RateLimit, RateLimiter, Refused, Stream, WhenFull};
use tokio::sync::{Semaphore, oneshot};

pub use origin::Origin;
pub(crate) use partition_key::shorten;
pub use partition_key::{Fields, PLACEHOLDERS, PartitionKeyTemplate, Rendered, TemplateError};

/// The door into one stream. Clones share the stream's queue room, and the fate of [`Ingest::for_connection`].
#[derive(Clone)]
pub struct Ingest {
    stream: Stream,
    /// Set once a batch of this connection was refused, so that none behind it overtakes it.
    broken: Arc<AtomicBool>,
    /// One permit per encoded byte that may wait for the committer, so that the log's own queue never blocks a task.
    room: Arc<Semaphore>,
    queue_bytes: usize,
    /// The source's own rate limit, beside those of the shards.
    limiter: Option<Arc<Limiter>>,
}

/// A rate limit, and since when it is counted.
struct Limiter {
    began: Instant,
    state: Mutex<RateLimiter>,
}

/// A batch on its way to the disk.
#[derive(Debug)]
pub struct Pending(oneshot::Receiver<Result<Appended, Refused>>);

impl Ingest {
    /// A door into `stream`, whose store was opened with this `queue_bytes`.
    #[must_use]
    pub fn new(stream: Stream, queue_bytes: usize) -> Self {
        Self { stream, broken: Arc::default(), room: Arc::new(Semaphore::new(queue_bytes)), queue_bytes, limiter: None }
    }

    /// The same door for a source that may not bring more than this, whatever its stream takes: offers wait for it.
    #[must_use]
    pub fn limited(self, limit: RateLimit) -> Self {
        let state = Mutex::new(RateLimiter::new(limit, Duration::ZERO));
        Self { limiter: Some(Arc::new(Limiter { began: Instant::now(), state })), ..self }
    }

    /// The door for one connection, or whatever else a device repeats in order: once the log refuses a batch for another
    /// reason than [`Error::Full`], every later offer of the same connection is refused too. The device then connects
    /// again and repeats what was not acknowledged, in order.
    #[must_use]
    pub fn for_connection(&self) -> Self {
        Self { broken: Arc::default(), ..self.clone() }
    }

    /// Whether offers wait for a rate limit.
    #[must_use]
    pub fn is_limited(&self) -> bool {
        self.limiter.is_some() || self.stream.config().rate_limit.is_some()
    }

    /// The stream behind it.
    #[must_use]
    pub fn stream(&self) -> &Stream {
        &self.stream
    }

    /// An empty batch for its stream.
    #[must_use]
    pub fn batch(&self) -> Batch {
        self.stream.batch()
    }

    /// Waits for rate limits and room, then queues the batch. One caller's batches are stored in the order of its offers.
    ///
    /// # Cancel safety
    /// Dropped before it returns, it has queued nothing, though the rate limits may have been charged.
    pub async fn offer(&self, batch: Batch, when_full: WhenFull) -> Pending {
        self.admit(&batch).await;
        self.queue(batch, when_full).await
    }

    /// The first half of [`Ingest::offer`]: waits for rate limits.
    ///
    /// # Cancel safety
    /// Dropped before it returns, the rate limits may have been charged.
    pub async fn admit(&self, batch: &Batch) {
        if let Some(limiter) = &self.limiter {
            while let Err(wait) = limiter.admit(batch) {
                tokio::time::sleep(wait).await;
            }
        }
        for load in batch.load() {
            while let Err(wait) = self.stream.admit(load.shard, load.records, load.payload_bytes) {
                tokio::time::sleep(wait).await;
            }
        }
    }

    /// The second half: waits for room in the queue, and queues the batch.
    ///
    /// # Cancel safety
    /// Dropped before it returns, it has queued nothing.
    pub async fn queue(&self, batch: Batch, when_full: WhenFull) -> Pending {
        // A batch larger than the whole queue waits until the queue is empty.
        let bytes = batch.encoded_bytes().clamp(1, self.queue_bytes);
        let permits = u32::try_from(bytes).unwrap_or(u32::MAX);
        let room = Arc::clone(&self.room).acquire_many_owned(permits).await.expect("the semaphore is never closed");
        let (told, pending) = oneshot::channel();
        if self.broken.load(Acquire) {
            let error = Error::Poisoned {
                stream: self.stream.name().to_owned(),
                reason: "an earlier batch of this connection was refused".into(),
            };
            let _ = told.send(Err(Refused { error, batch }));
            return Pending(pending);
        }
        let broken = Arc::clone(&self.broken);
        self.stream.append(
            batch,
            when_full,
            Box::new(move |outcome| {
                drop(room);
                if outcome.as_ref().is_err_and(|refused| !matches!(refused.error, Error::Full { .. })) {
                    // In time: the log tells this before it takes anything more of this stream.
                    broken.store(true, Release);
                }
                // A caller that has gone away does not acknowledge, which is right whatever the outcome was.
                let _ = told.send(outcome);
            }),
        );
        Pending(pending)
    }
}

impl Pending {
    /// Resolves when the batch is durable, or was refused.
    ///
    /// # Errors
    /// [`Error::Full`] only if it was offered with [`WhenFull::Refuse`]; [`Error::Poisoned`]; [`Error::Closed`].
    ///
    /// # Cancel safety
    /// May be dropped at any time; the batch is stored all the same.
    pub async fn durable(self) -> Result<Appended, Error> {
        self.durable_or_back().await.map_err(|(error, _)| error)
    }

    /// The same for a caller whose device does not repeat anything: it gets the batch back, unless the log is gone.
    ///
    /// # Errors
    /// As [`Pending::durable`].
    ///
    /// # Cancel safety
    /// May be dropped at any time; the batch is stored all the same.
    pub async fn durable_or_back(self) -> Result<Appended, (Error, Option<Batch>)> {
        match self.0.await {
            Ok(outcome) => outcome.map_err(|Refused { error, batch }| (error, Some(batch))),
            Err(_) => Err((Error::Closed, None)),
        }
    }
}

impl Limiter {
    fn admit(&self, batch: &Batch) -> Result<(), Duration> {
        let records = u32::try_from(batch.len()).unwrap_or(u32::MAX);
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.admit(records, batch.payload_bytes(), self.began.elapsed())
    }
}
