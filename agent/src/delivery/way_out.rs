//! A delivery's way out: asks its link before each request, and tells it what passed. Without a link, nothing is asked.

use std::{collections::HashMap, sync::Arc, time::Duration};

use super::window::{Batch, RECORD_OVERHEAD};
use crate::{
    destination::{FailureKind, Outcome, WireBytes},
    links::{Answer, Held, Way},
};

/// Headers of a request and of its answer, roughly.
const REQUEST_OVERHEAD: u64 = 1 << 10;

#[derive(Debug)]
pub(super) struct WayOut {
    way: Option<Way>,
    /// What the link was told of each request under way.
    told: HashMap<u64, Told>,
    /// What the destination's sockets count, if it has any.
    wire: Option<Arc<WireBytes>>,
    /// Of that, what the link has been told of.
    counted: u64,
    held: Option<Held>,
}

#[derive(Debug)]
struct Told {
    estimate: u64,
    /// Nothing if the link's limits did not hold.
    charged: u64,
}

impl WayOut {
    pub(super) fn new(way: Option<Way>, wire: Option<Arc<WireBytes>>) -> Self {
        Self { way, told: HashMap::new(), wire, counted: 0, held: None }
    }

    /// Whether a request of about so many bytes of records has to wait, and how long.
    pub(super) fn wait(&mut self, bytes: u64) -> Option<Duration> {
        let answer = self.way.as_ref()?.ask(bytes + REQUEST_OVERHEAD);
        let (wait, held) = match answer {
            Answer::Now => (None, None),
            Answer::Wait { time, held } => (Some(time), Some(held)),
        };
        self.held = held;
        wait
    }

    /// What holds it back.
    pub(super) fn held(&self) -> Option<Held> {
        self.held
    }

    /// A request leaves.
    pub(super) fn sent(&mut self, batch: &Batch) {
        if let Some(way) = &self.way {
            let estimate = estimate(batch);
            let charged = way.sent(estimate);
            self.told.insert(batch.id, Told { estimate, charged });
        }
    }

    /// A request has ended: what was thought of it gives way to what has passed since the last one did.
    pub(super) fn ended(&mut self, request: u64, outcome: &Outcome) {
        let (Some(way), Some(told)) = (&self.way, self.told.remove(&request)) else { return };
        let passed = match &self.wire {
            Some(wire) => {
                let before = std::mem::replace(&mut self.counted, wire.sent() + wire.received());
                self.counted - before
            }
            None if never_left(outcome) => 0,
            None => told.estimate,
        };
        way.correct(passed.cast_signed() - told.charged.cast_signed());
    }
}

/// What a request will take of the link, until it is known: its records in base64, with what is written around each, and what is around all.
fn estimate(batch: &Batch) -> u64 {
    let records = batch.records().map(|record| record.payload_bytes() * 4 / 3 + RECORD_OVERHEAD);
    records.sum::<u64>() + REQUEST_OVERHEAD
}

/// Whether there was no connection on which it could have left.
fn never_left(outcome: &Outcome) -> bool {
    let Outcome::Failed(failure) = outcome else { return false };
    matches!(failure.kind, FailureKind::NoRoute | FailureKind::Dns | FailureKind::Refused)
}
