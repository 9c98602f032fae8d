//! What a delivery tells about itself, for status and metrics.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::{Instant, SystemTime},
};

use super::{
    unfinished::Unfinished,
    window::{Counts, Held as InWindow, Link, Window},
};
use crate::{
    destination::{FailureKind, Sent, WireBytes},
    links::Held,
};

/// A delivery's counters, since the agent's start.
#[derive(Debug, Default)]
pub struct DeliveryStats {
    shown: Mutex<Shown>,
    wire: OnceLock<Arc<WireBytes>>,
}

/// What was true when the delivery last had a moment.
#[derive(Debug, Default)]
struct Shown {
    counts: Counts,
    in_window: InWindow,
    sent: Option<Sent>,
    checkpoint: u64,
    unfinished: Unfinished,
    down: Option<Down>,
    held: Option<Held>,
    last_error: Option<LastError>,
}

/// A look at a delivery.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// Records that the destination accepted.
    pub records: u64,
    /// Their keys and data in bytes.
    pub bytes: u64,
    /// Bytes that its sockets sent, all layers above TCP included.
    pub wire_sent: u64,
    /// Bytes that they received.
    pub wire_received: u64,
    /// Requests under way.
    pub in_flight: u64,
    /// Records read and not finished.
    pub window_records: u64,
    /// Their keys and data in bytes.
    pub window_bytes: u64,
    /// Whether it is the order per partition key that limits the rate, and neither the link nor the endpoint.
    pub limited_by_key_order: bool,
    /// Requests sent.
    pub requests: u64,
    /// Requests that failed as a whole, by [`FailureKind::as_str`]. Their records were sent again.
    pub failed_requests: BTreeMap<&'static str, u64>,
    /// Records that an answered request said were too much at once.
    pub throttled_records: u64,
    /// Records that an answered request said had failed.
    pub failed_records: u64,
    /// Records at which the destination breaks although it takes others, so that each is tried alone.
    pub failing_records: u64,
    /// Whether nothing more is read because what waits behind these fills the window.
    pub reading_stopped: bool,
    /// Records sent again because their aggregate had gone to another shard than it was made for.
    pub astray_records: u64,
    /// What was sent, as the destination counts it.
    pub sent: Option<Sent>,
    /// Records moved to the dead-letter stream.
    pub dead_letters: u64,
    /// Relaxed order: records that a failure put behind a later one of their key.
    pub out_of_order: u64,
    /// Records that were older than `max-age` when they would have been sent.
    pub expired: u64,
    /// Everything up to this sequence number is done.
    pub checkpoint: u64,
    /// What is not.
    pub unfinished: Unfinished,
    /// Since when the endpoint does not answer as it should, if so.
    pub down: Option<Down>,
    /// What its link holds it back for, if so.
    pub held: Option<Held>,
    /// The newest thing that went wrong.
    pub last_error: Option<LastError>,
}

/// An outage.
#[derive(Debug, Clone)]
pub struct Down {
    /// [`FailureKind::as_str`] of the newest failure.
    pub kind: &'static str,
    /// Since when.
    pub since: Instant,
    /// How often it was tried since.
    pub attempts: u64,
    /// When it will be tried again; past while an attempt is under way.
    pub next_attempt: Instant,
}

/// Something that went wrong.
#[derive(Debug, Clone)]
pub struct LastError {
    /// When.
    pub at: SystemTime,
    /// [`FailureKind::as_str`], if it has to do with the destination.
    pub kind: Option<&'static str>,
    /// What, as a sentence fragment.
    pub message: String,
}

impl DeliveryStats {
    /// As it is at the moment.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let shown = self.lock();
        let Shown { counts, in_window, sent, checkpoint, unfinished, down, held, last_error } = &*shown;
        let failed = FailureKind::ALL.iter().zip(counts.failed_requests).filter(|(_, count)| *count > 0);
        Snapshot {
            records: counts.records,
            bytes: counts.bytes,
            wire_sent: self.wire.get().map_or(0, |wire| wire.sent()),
            wire_received: self.wire.get().map_or(0, |wire| wire.received()),
            in_flight: in_window.in_flight as u64,
            window_records: in_window.records as u64,
            window_bytes: in_window.bytes,
            limited_by_key_order: in_window.limited_by_key_order,
            requests: counts.requests,
            failed_requests: failed.map(|(kind, count)| (kind.as_str(), count)).collect(),
            throttled_records: counts.throttled_records,
            failed_records: counts.failed_records,
            failing_records: in_window.failing as u64,
            reading_stopped: in_window.reading_stopped,
            astray_records: counts.astray_records,
            sent: *sent,
            dead_letters: counts.dead_letters,
            out_of_order: counts.out_of_order,
            expired: counts.expired,
            checkpoint: *checkpoint,
            unfinished: unfinished.clone(),
            down: down.clone(),
            held: *held,
            last_error: last_error.clone(),
        }
    }

    /// Shows what these sockets count, too.
    pub(super) fn show_wire(&self, wire: Arc<WireBytes>) {
        // A delivery has one destination all its life.
        let _ = self.wire.set(wire);
    }

    /// Shows what the window counts, whose times are since `started`, and what the link holds it back for.
    pub(super) fn show(&self, window: &Window, sent: Option<Sent>, held: Option<Held>, started: Instant) {
        let mut shown = self.lock();
        shown.counts = window.counts();
        shown.in_window = window.held();
        shown.sent = sent;
        shown.held = held;
        shown.checkpoint = window.checkpoint().0;
        shown.unfinished = window.unfinished();
        shown.down = match window.link() {
            Link::Down(down) if !down.doubtful => Some(Down {
                kind: down.kind.as_str(),
                since: started + down.since,
                attempts: u64::from(down.failures),
                next_attempt: started + down.next_probe,
            }),
            _ => None,
        };
    }

    #[expect(clippy::disallowed_methods, reason = "for a person, who compares it with the machine's clock")]
    pub(super) fn failed(&self, kind: Option<FailureKind>, message: String) {
        let kind = kind.map(FailureKind::as_str);
        self.lock().last_error = Some(LastError { at: SystemTime::now(), kind, message });
    }

    fn lock(&self) -> MutexGuard<'_, Shown> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
