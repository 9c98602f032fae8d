//! Records that are too old to be sent, by `max-age`: they are finished, counted, and told in runs.
//!
//! How old a record is, is known when it is read, from the log; it then ages by our own clock. What is under way does not
//! expire, since it may have been accepted; once its request has failed, it does. Nor do dead letters, and those that a trial
//! is about. What waits for the link, its turn, a backoff or as a suspect does, also while the endpoint is away, so that
//! the window moves on.

use std::{cmp::Reverse, time::Duration};

use forebay_log_store::SequenceNumber;

use super::{
    super::config::Ordering,
    Window,
    entries::{NONE, Slot},
    pace::RECORD_OVERHEAD,
};

/// A run of expired records is told when none came for so long.
const QUIET: Duration = Duration::from_secs(5);

/// It is told after so long in any case, and another one begins.
const TOLD_AFTER: Duration = Duration::from_secs(60);

/// Records expire together in steps of this share of `max-age`, so that not each of them has to be looked for alone.
const STEPS: u32 = 1000;
const STEP_MIN: Duration = Duration::from_millis(1);
const STEP_MAX: Duration = Duration::from_secs(1);

/// Records that expired one after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Expired {
    pub(crate) first: SequenceNumber,
    pub(crate) last: SequenceNumber,
    /// How many of these numbers; others were sent.
    pub(crate) records: u64,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Expiry {
    max_age: Option<Duration>,
    /// Something expires then.
    due: Option<Duration>,
    /// Something has expired, but is under way.
    overdue: bool,
    run: Option<Expired>,
    run_began: Duration,
    run_ended: Duration,
}

impl Expiry {
    pub(super) fn new(max_age: Option<Duration>) -> Self {
        Self { max_age, ..Self::default() }
    }

    /// When a record of this age expires, if not before; nothing if it has.
    fn expires(&self, age: Duration, now: Duration) -> Option<Duration> {
        let Some(max_age) = self.max_age else { return Some(Duration::MAX) };
        let left = max_age.checked_sub(age).filter(|left| !left.is_zero())?;
        let step = (max_age / STEPS).clamp(STEP_MIN, STEP_MAX).as_nanos();
        let steps = now.saturating_add(left).as_nanos().div_ceil(step);
        Some(u64::try_from(steps * step).map_or(Duration::MAX, Duration::from_nanos))
    }

    fn note(&mut self, number: SequenceNumber, now: Duration) {
        self.run_ended = now;
        let run = match &mut self.run {
            Some(run) => run,
            run @ None => {
                self.run_began = now;
                run.insert(Expired { first: number, last: number, records: 0 })
            }
        };
        (run.first, run.last) = (run.first.min(number), run.last.max(number));
        run.records += 1;
    }

    /// A run that is to be told.
    pub(super) fn take_run(&mut self, now: Duration, stopping: bool) -> Option<Expired> {
        let due = stopping || self.tell_at().is_some_and(|at| at <= now);
        self.run.take_if(|_| due)
    }

    fn tell_at(&self) -> Option<Duration> {
        self.run.map(|_| (self.run_ended + QUIET).min(self.run_began + TOLD_AFTER))
    }

    pub(super) fn wake_at(&self) -> Option<Duration> {
        [self.due, self.tell_at()].into_iter().flatten().min()
    }

    /// What was under way may not be any more.
    pub(super) fn look_again(&mut self, now: Duration) {
        if std::mem::take(&mut self.overdue) {
            self.due = Some(now);
        }
    }
}

impl Window {
    /// A record was read: when it expires. Nothing if it has, and is not to be sent.
    pub(super) fn expires(
        &mut self,
        stretch: u32,
        number: SequenceNumber,
        age: Duration,
        now: Duration,
    ) -> Option<Duration> {
        let Some(expires) = self.expiry.expires(age, now) else {
            self.stretches[stretch].ledger.gone(number);
            self.counts.expired += 1;
            self.expiry.note(number, now);
            return None;
        };
        // Nothing is held to be older than what came before it.
        let newest = &mut self.stretches[stretch].expires;
        *newest = expires.max(*newest);
        if *newest != Duration::MAX {
            self.expiry.due = Some(self.expiry.due.map_or(*newest, |due| due.min(*newest)));
        }
        Some(*newest)
    }

    /// What has expired and was not told yet.
    pub(crate) fn untold(&mut self, now: Duration) -> Option<Expired> {
        self.expiry.take_run(now, true)
    }

    pub(super) fn has_expired(&self, slot: Slot, now: Duration) -> bool {
        self.entries[slot].expires <= now
    }

    /// Finishes what has expired by now and is not under way.
    pub(super) fn expire(&mut self, now: Duration) {
        if self.expiry.due.is_none_or(|due| due > now) {
            return;
        }
        let entries = &self.entries;
        let old = |slot: Slot| entries[slot].expires <= now;
        let mut heads = self.ready.take_out(old);
        self.ready.bytes -= heads.iter().map(|head| entries[*head].parcel_bytes + RECORD_OVERHEAD).sum::<u64>();
        for waiting in [&mut self.throttled, &mut self.failed] {
            heads.extend(waiting.iter().map(|Reverse((_, slot))| *slot).filter(|slot| old(*slot)));
            waiting.retain(|Reverse((_, slot))| !old(*slot));
        }
        heads.extend(self.suspects.take_out(old));
        for head in heads {
            self.expire_from(head, now);
        }
        self.expiry.overdue = false;
        self.expiry.due = None;
        for stretch in self.stretches.iter() {
            for slot in stretch.ledger.unfinished() {
                let expires = self.entries[slot].expires;
                if expires > now {
                    let due = self.expiry.due.map_or(expires, |due| due.min(expires));
                    self.expiry.due = (due != Duration::MAX).then_some(due);
                    break;
                }
                self.expiry.overdue = true;
            }
        }
    }

    /// Finishes a record that has expired, and those that have behind it in its lane. It waits for nothing any more.
    pub(super) fn expire_from(&mut self, head: Slot, now: Duration) {
        let (mut records, mut next) = (0, head);
        while next != NONE && self.has_expired(next, now) && self.entries[next].reason.is_none() {
            self.expiry.note(self.entries[next].record.sequence_number, now);
            records += 1;
            next = self.entries[next].next;
        }
        assert!(records > 0, "only called for what has expired");
        self.counts.expired += u64::from(records);
        let entry = &mut self.entries[head];
        entry.parcel = records;
        let (stretch, lane) = (entry.stretch, entry.lane);
        self.stretches[stretch].relaxed.close(lane, head);
        self.finish(head, false, now);
        if self.config.ordering == Ordering::Relaxed && next != NONE {
            self.make_ready(next, now);
        }
    }
}
