//! What one connection's records pass through on their way to the log, and how their outcome comes back.
//!
//! A batch is first offered, which waits for rate limits and room; then it is in flight until it is durable or refused. Batches
//! keep their order. Nothing here is lost by dropping a future: outcomes are taken in only when they are there.

use std::{
    collections::VecDeque,
    future::{Future, poll_fn},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::BytesMut;
use forebay_log_store::{Appended, Batch, Error, WhenFull};

use crate::ingest::{Ingest, Pending};

use super::{listener::Shared, recorder::Recorder, session::Session};

/// Encoded records of one connection that may be in flight. With a sync of 30 ms that allows 30 MB/s.
const IN_FLIGHT_BYTES_MAX: usize = 1024 * 1024;

/// Records of one connection, from the protocol to the disk.
pub(super) struct Passage {
    shared: Arc<Shared>,
    /// Of this connection: behind a batch that was refused, none overtakes it.
    ingest: Ingest,
    pub(super) recorder: Recorder,
    /// The batch that waits for rate limits and room. At most one: nothing is read meanwhile.
    offered: Option<Offered>,
    /// Oldest first.
    in_flight: VecDeque<InFlight>,
    in_flight_bytes: usize,
}

struct Offered {
    pending: Pin<Box<dyn Future<Output = Pending> + Send>>,
    load: Load,
}

struct InFlight {
    outcome: Pin<Box<dyn Future<Output = Result<Appended, Error>> + Send>>,
    load: Load,
}

/// What a batch counts for.
#[derive(Debug, Clone, Copy)]
struct Load {
    records: u64,
    payload_bytes: u64,
    encoded_bytes: usize,
}

impl Passage {
    pub(super) fn new(shared: Arc<Shared>, recorder: Recorder) -> Self {
        let ingest = shared.context.ingest.for_connection();
        Self { shared, ingest, recorder, offered: None, in_flight: VecDeque::new(), in_flight_bytes: 0 }
    }

    /// Sends off what the recorder gathered. Not while [`Passage::is_full`].
    pub(super) fn send(&mut self, session: &mut Session, out: &mut BytesMut) {
        assert!(self.offered.is_none(), "one batch is offered at a time");
        let Some(batch) = self.recorder.take() else {
            session.nothing_to_seal(out);
            return;
        };
        session.seal();
        let load = Load {
            records: batch.len() as u64,
            payload_bytes: batch.payload_bytes(),
            encoded_bytes: batch.encoded_bytes(),
        };
        self.offered = Some(Offered { pending: Box::pin(offer(self.ingest.clone(), batch)), load });
    }

    /// Whether nothing more should be taken from the client for now.
    pub(super) fn is_full(&self) -> bool {
        self.offered.is_some() || self.in_flight_bytes >= IN_FLIGHT_BYTES_MAX
    }

    /// Whether there is something whose outcome is not known.
    pub(super) fn is_busy(&self) -> bool {
        self.offered.is_some() || !self.in_flight.is_empty()
    }

    /// Number of records whose outcome is not known.
    pub(super) fn records(&self) -> u64 {
        let offered = self.offered.iter().map(|offered| offered.load.records);
        offered.chain(self.in_flight.iter().map(|in_flight| in_flight.load.records)).sum()
    }

    /// Waits for progress, and takes in all there is: writes the acknowledgements of what has become durable.
    ///
    /// # Errors
    /// The oldest batch was refused. It is no longer in flight then, and others may still be.
    ///
    /// # Cancel safety
    /// Safe.
    pub(super) async fn progress(&mut self, session: &mut Session, out: &mut BytesMut) -> Result<(), Error> {
        poll_fn(|cx| self.poll_progress(cx, session, out)).await
    }

    /// Waits until nothing is on its way any more, writing the acknowledgements to `out`.
    ///
    /// # Errors
    /// The first batch that was refused, once the outcomes of all are known. Nothing behind it is acknowledged.
    ///
    /// # Cancel safety
    /// Safe, but for that error.
    pub(super) async fn finish(&mut self, session: &mut Session, out: &mut BytesMut) -> Result<(), Error> {
        while self.is_busy() {
            if let Err(error) = self.progress(session, out).await {
                let mut nowhere = BytesMut::new();
                while self.is_busy() {
                    // The first one is the cause of the others.
                    let _ = self.progress(session, &mut nowhere).await;
                    nowhere.clear();
                }
                return Err(error);
            }
        }
        Ok(())
    }

    fn poll_progress(
        &mut self,
        cx: &mut Context<'_>,
        session: &mut Session,
        out: &mut BytesMut,
    ) -> Poll<Result<(), Error>> {
        let mut progressed = false;
        while let Some(oldest) = self.in_flight.front_mut()
            && let Poll::Ready(outcome) = oldest.outcome.as_mut().poll(cx)
        {
            let Load { records, payload_bytes, encoded_bytes } = oldest.load;
            self.in_flight.pop_front();
            self.in_flight_bytes -= encoded_bytes;
            match outcome {
                Ok(_) => {
                    session.on_durable(out);
                    self.shared.context.stats.stored(records, payload_bytes);
                }
                Err(error) => {
                    self.shared.context.shaping.forget();
                    session.on_refused();
                    return Poll::Ready(Err(error));
                }
            }
            progressed = true;
        }
        if let Some(offered) = &mut self.offered
            && let Poll::Ready(pending) = offered.pending.as_mut().poll(cx)
        {
            let load = offered.load;
            self.offered = None;
            self.in_flight_bytes += load.encoded_bytes;
            self.in_flight.push_back(InFlight { outcome: Box::pin(pending.durable()), load });
            progressed = true;
        }
        if progressed { Poll::Ready(Ok(())) } else { Poll::Pending }
    }
}

async fn offer(ingest: Ingest, batch: Batch) -> Pending {
    ingest.offer(batch, WhenFull::Wait).await
}
