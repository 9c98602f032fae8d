//! A delivery's way out, between its window and its link: asks the link before each request, lets the window wait if so
//! told, and tells the link what passed. Without a link, nothing is asked. Has no clock of its own and does no I/O, so that
//! window and link are simulated together as they are (`simulation/`).

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use super::window::{Batch, RECORD_OVERHEAD, Step, Window};
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
    /// If the destination has sockets that count.
    passed: Option<Arc<Passed>>,
    /// Whether the destination writes data in base64.
    in_base64: bool,
    held: Option<Held>,
    /// The window waits until then.
    until: Duration,
}

#[derive(Debug)]
struct Told {
    estimate: u64,
    /// Nothing if the link's limits did not hold.
    charged: u64,
}

/// What has passed a destination's sockets, and how much of that its link was told.
#[derive(Debug)]
struct Passed {
    wire: Arc<WireBytes>,
    told: AtomicU64,
}

impl WayOut {
    /// Of a destination that has this `wire`, and writes data `in_base64` or as it is.
    pub(super) fn new(way: Option<Way>, wire: Option<Arc<WireBytes>>, in_base64: bool) -> Self {
        let passed = wire.map(|wire| Arc::new(Passed { wire, told: AtomicU64::new(0) }));
        Self { way, told: HashMap::new(), passed, in_base64, held: None, until: Duration::ZERO }
    }

    /// What the window does next, once the link lets it.
    pub(super) fn next(&mut self, window: &mut Window, now: Duration) -> Step {
        if let (Some(way), Some(passed), true) = (&self.way, &self.passed, self.told.is_empty()) {
            passed.tell(way);
        }
        match window.would_send(now) {
            Some(bytes) => {
                if let Some(wait) = self.wait(bytes) {
                    self.until = now + wait;
                    window.hold_until(self.until);
                }
            }
            // It has changed its mind.
            None if now >= self.until => self.held = None,
            None => {}
        }
        let step = window.next(now);
        if let Step::Send(batch) = &step {
            self.sent(batch);
        }
        step
    }

    /// What became of a request.
    pub(super) fn on_outcome(&mut self, window: &mut Window, request: u64, outcome: Outcome, now: Duration) {
        self.ended(request, &outcome);
        window.on_outcome(request, outcome, now);
    }

    /// Tells how long nothing may pass but what is under way, not even the little that is no request; nothing if it may.
    pub(super) fn closed(&self) -> impl Fn() -> Option<Duration> + use<> {
        let (way, passed) = (self.way.clone(), self.passed.clone());
        move || {
            let way = way.as_ref()?;
            if let Some(passed) = &passed {
                passed.tell(way);
            }
            way.closed()
        }
    }

    /// Whether a request of about so many bytes of records has to wait, and how long.
    fn wait(&mut self, bytes: u64) -> Option<Duration> {
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
    fn sent(&mut self, batch: &Batch) {
        if let Some(way) = &self.way {
            let estimate = estimate(batch, self.in_base64);
            let charged = way.sent(estimate);
            self.told.insert(batch.id, Told { estimate, charged });
        }
    }

    /// A request has ended: what was thought of it gives way to what has passed since the last one did.
    fn ended(&mut self, request: u64, outcome: &Outcome) {
        let (Some(way), Some(told)) = (&self.way, self.told.remove(&request)) else { return };
        let passed = match &self.passed {
            Some(passed) => passed.untold(),
            None if never_left(outcome) => 0,
            None => told.estimate,
        };
        way.correct(passed.cast_signed() - told.charged.cast_signed());
    }
}

impl Passed {
    /// Since the link was told last.
    fn untold(&self) -> u64 {
        let passed = self.wire.sent() + self.wire.received();
        passed - self.told.swap(passed, Relaxed)
    }

    /// Tells the link what has passed beside requests, such as a question for the shards. That is done before the next request
    /// leaves: it passed in the meantime, and if it were only counted then, that one's successor would have to wait for it.
    fn tell(&self, way: &Way) {
        let bytes = self.untold();
        if bytes > 0 {
            way.correct(bytes.cast_signed());
        }
    }
}

/// What a request will take of the link, until it is known: its records as they are encoded, with what is written around each,
/// and what is around all.
fn estimate(batch: &Batch, in_base64: bool) -> u64 {
    let encoded = |bytes: u64| if in_base64 { bytes * 4 / 3 } else { bytes };
    let records = batch.records().map(|record| encoded(record.payload_bytes()) + RECORD_OVERHEAD);
    records.sum::<u64>() + REQUEST_OVERHEAD
}

/// Whether there was no connection on which it could have left.
fn never_left(outcome: &Outcome) -> bool {
    let Outcome::Failed(failure) = outcome else { return false };
    matches!(failure.kind, FailureKind::NoRoute | FailureKind::Dns | FailureKind::Refused)
}

#[cfg(test)]
mod tests {
    use forebay_log_store::SequenceNumber;
    use tokio::sync::Notify;

    use super::*;
    use crate::{
        delivery::window::Finished,
        destination::Parcel,
        links::{Config, Link, Moment, Spent},
        sample::{LIMITS, plain},
    };

    fn link(text: &str, now: &Arc<AtomicU64>) -> Arc<Link> {
        let config: Config = toml::from_str(text).expect("it works");
        let now = Arc::clone(now);
        let now = move || Moment { since: Duration::from_secs(now.load(Relaxed)), wall: None };
        Arc::new(Link::new(&config, Spent::default(), now, &Arc::new(Notify::new())))
    }

    /// Such as lists of shards, while a delivery has nothing to send.
    #[test]
    fn what_passed_beside_requests_is_counted_and_no_request_waits_for_it() {
        let now = Arc::new(AtomicU64::new(0));
        let link = link("bandwidth = '1KB/s'\ndaily-budget = '1MB'", &now);
        let wire = Arc::new(WireBytes::default());
        let mut way_out = WayOut::new(Some(link.way(0)), Some(Arc::clone(&wire)), true);
        let closed = way_out.closed();
        let spent = || link.stats().budget.expect("there is one").0;
        for hour in 1..=9 {
            now.store(hour * 3600, Relaxed);
            assert_eq!(closed(), None);
            assert_eq!(spent(), (hour - 1) * 100_000, "by the next one at the latest");
            wire.count_received(100_000);
        }
        now.store(10 * 3600, Relaxed);
        let mut window =
            Window::new(&super::super::Config::default(), &LIMITS, SequenceNumber::ZERO, &Finished::default(), 7);
        assert!(matches!(way_out.next(&mut window, Duration::ZERO), Step::Read(_)));
        assert_eq!(spent(), 900_000);
        assert_eq!(way_out.wait(1000), None, "it was paid for while it passed");
        let batch = Batch { id: 1, parcels: Vec::new() };
        way_out.sent(&batch);
        wire.count_sent(900);
        way_out.ended(1, &Outcome::Answered(Vec::new()));
        assert_eq!(spent(), 900_900);
        assert_eq!(way_out.wait(1000), None);
        now.store(11 * 3600, Relaxed);
        wire.count_sent(100_000);
        assert!(closed().is_some(), "now the budget is spent");
    }

    #[test]
    fn nothing_holds_what_sends_no_more() {
        let now = Arc::new(AtomicU64::new(0));
        let link = link("daily-budget = '0B'", &now);
        let mut way_out = WayOut::new(Some(link.way(0)), None, true);
        let mut window =
            Window::new(&super::super::Config::default(), &LIMITS, SequenceNumber::ZERO, &Finished::default(), 7);
        assert!(way_out.wait(1000).is_some());
        way_out.until = Duration::from_secs(30);
        way_out.next(&mut window, Duration::from_secs(29));
        assert!(way_out.held().is_some(), "it may want to");
        way_out.next(&mut window, Duration::from_secs(30));
        assert_eq!(way_out.held(), None);
    }

    /// A budget would else be held back for what never passes.
    #[test]
    fn what_is_under_way_counts_as_it_is_encoded() {
        let record = Arc::new(plain("key", vec![7; 30_000 - 3]));
        let batch = Batch { id: 1, parcels: vec![Parcel { records: [record].into_iter().collect() }] };
        for (in_base64, bytes) in [(true, 40_000), (false, 30_000)] {
            let now = Arc::new(AtomicU64::new(0));
            let link = link("daily-budget = '1MB'", &now);
            let mut way_out = WayOut::new(Some(link.way(0)), None, in_base64);
            way_out.sent(&batch);
            let spent = link.stats().budget.expect("there is one").0;
            assert_eq!(spent, bytes + RECORD_OVERHEAD + REQUEST_OVERHEAD);
        }
    }
}
