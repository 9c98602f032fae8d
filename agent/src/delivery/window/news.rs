//! What a person is to hear of a delivery, each thing once: that an outage began and ended, upon how many records the endpoint
//! goes on failing, that reading has stopped for their sake and goes on.
//!
//! While it is not known yet whose fault a failure was, things go back and forth: some records are taken, others fail. That
//! is one outage, which ends when nothing is in question any more and that has lasted.

use std::time::Duration;

use super::{Link, Window, link::Down, suspects::Group};
use crate::destination::FailureKind;

/// How long records are taken without a new failure before an outage counts as over in which the endpoint answered.
pub(super) const SETTLED: Duration = Duration::from_secs(10);

/// How long a connection may be lost and found again without a warning: it happens whenever something between here and there starts
/// again.
pub(super) const BRIEF: Duration = Duration::from_secs(1);

/// How long before it is told once more that an outage goes on for a reason that was told before another one.
pub(super) const TOLD_AGAIN: Duration = Duration::from_secs(600);

/// Something to be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum News {
    /// The endpoint does not take records.
    Down(FailureKind),
    /// It still does not, but for another reason than was told.
    StillDown(FailureKind),
    /// It does again.
    Up(Outage),
    /// It did not for a moment, and took the next request.
    Brief(Outage),
    /// It goes on failing upon so many records that it is sent alone, more than before.
    Failing(usize),
    /// What waits behind them fills the window, so that nothing more is read.
    ReadingStopped(usize),
    /// It is read on.
    ReadingGoesOn,
}

/// An outage as it is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Outage {
    pub(crate) since: Duration,
    /// When records were taken again, for good.
    pub(crate) until: Duration,
    /// Requests that failed, one at a time.
    pub(crate) attempts: u32,
    /// The newest failure.
    pub(crate) kind: FailureKind,
}

impl Outage {
    /// Whether records were taken in between, and now nothing answers any more: nothing is in question about that.
    fn is_another(&self, down: &Down) -> bool {
        self.attempts > 0 && down.since >= self.until && !down.doubtful && !is_answer(down.kind)
    }
}

/// Whether the endpoint answers, so that a record may be at fault, or another one be taken the next moment.
fn is_answer(kind: FailureKind) -> bool {
    matches!(kind, FailureKind::EndpointFailed | FailureKind::RequestInvalid | FailureKind::Throttled)
}

/// One for all kinds between which things go back and forth: that nothing can be reached; that the endpoint answers and takes nothing.
fn group(kind: FailureKind) -> FailureKind {
    match kind {
        FailureKind::Throttled => FailureKind::EndpointFailed,
        kind if kind.is_silence() => FailureKind::Refused,
        kind => kind,
    }
}

/// Until when this outage is not told, because the next request may end it.
fn may_be_brief_until(down: &Down) -> Option<Duration> {
    // That one was waited for longer than that already.
    let is_silence = down.kind.is_silence() && down.kind != FailureKind::TimedOut;
    (is_silence && down.failures == 1).then_some(down.since + BRIEF)
}

/// What was told, as far as it still holds.
#[derive(Debug, Default)]
pub(super) struct Told {
    outage: Option<Outage>,
    /// The [`group`]s of kinds told in it, and when each was told last; the newest last.
    kinds: Vec<(FailureKind, Duration)>,
    /// Is to be told.
    brief: Option<Outage>,
    failing: usize,
    pub(super) reading_stopped: bool,
}

impl Told {
    /// Whether this is not what was told last, and was not told for long. It is, then.
    fn is_another_reason(&mut self, kind: FailureKind, now: Duration) -> bool {
        let kind = group(kind);
        let told = self.kinds.iter().position(|(told, _)| *told == kind);
        let is_new = match told {
            None => true,
            Some(place) => place + 1 < self.kinds.len() && now >= self.kinds[place].1 + TOLD_AGAIN,
        };
        if is_new {
            self.kinds.retain(|(told, _)| *told != kind);
            self.kinds.push((kind, now));
        }
        is_new
    }

    pub(super) fn outage_ended(&mut self, down: &Down, now: Duration) {
        if down.doubtful {
            return;
        }
        if let Some(outage) = self.outage.as_mut() {
            (outage.until, outage.kind) = (now, down.kind);
            outage.attempts = outage.attempts.saturating_add(down.failures);
        } else if may_be_brief_until(down).is_some() {
            self.brief = Some(Outage { since: down.since, until: now, attempts: down.failures, kind: down.kind });
        }
    }
}

impl Window {
    /// What is to be told of the link, and of records.
    pub(super) fn news(&mut self, now: Duration) -> Option<News> {
        if let Some(outage) = self.told.brief.take() {
            return Some(News::Brief(outage));
        }
        match &self.link {
            Link::Down(Down { since, kind, doubtful: false, .. })
                if self.told.outage.is_none() && self.outage_begins_at().is_none_or(|at| at <= now) =>
            {
                self.told.outage = Some(Outage { since: *since, until: *since, attempts: 0, kind: *kind });
                self.told.kinds = vec![(group(*kind), now)];
                return Some(News::Down(*kind));
            }
            Link::Down(down) if self.told.outage.is_some_and(|outage| outage.is_another(down)) => {
                return self.told.outage.take().map(News::Up);
            }
            Link::Down(Down { kind, doubtful: false, .. })
                if self.told.outage.is_some() && self.told.is_another_reason(*kind, now) =>
            {
                return Some(News::StillDown(*kind));
            }
            _ if self.outage_ends_at().is_some_and(|at| at <= now) => {
                return self.told.outage.take().map(News::Up);
            }
            _ => {}
        }
        let failing = self.entries.failing();
        let before = std::mem::replace(&mut self.told.failing, failing);
        (failing > before).then_some(News::Failing(failing))
    }

    /// When an outage is to be told that may be over by then.
    pub(super) fn outage_begins_at(&self) -> Option<Duration> {
        match &self.link {
            Link::Down(down) if !down.doubtful && self.told.outage.is_none() => may_be_brief_until(down),
            _ => None,
        }
    }

    /// When it is to be told that an outage is over, if nothing happens.
    pub(super) fn outage_ends_at(&self) -> Option<Duration> {
        if matches!(self.link, Link::Down(Down { doubtful: false, .. })) {
            return None;
        }
        let Outage { until, kind, .. } = self.told.outage?;
        if is_answer(kind) { (!self.is_in_question()).then_some(until + SETTLED) } else { Some(until) }
    }

    /// Whether there are records that failed, and may fail again.
    fn is_in_question(&self) -> bool {
        let in_flight = || {
            let mut groups = self.in_flight.values().filter(|flight| flight.group.is_some());
            groups.any(|flight| !self.is_failing(&flight.slots))
        };
        let is_searched = |group: &Group| !self.is_failing(&group.slots);
        self.entries.failed() > 0 || self.trial.is_some() || in_flight() || self.suspects.iter().any(is_searched)
    }

    /// What is to be told of reading, when there is nothing else to be done.
    pub(super) fn news_of_reading(&mut self, now: Duration) -> Option<News> {
        let failing = self.entries.failing();
        if self.told.reading_stopped {
            // That nothing fails any more is not enough: what waits behind it has to make room first.
            let goes_on = !self.reads_later(now);
            self.told.reading_stopped = !goes_on;
            return goes_on.then_some(News::ReadingGoesOn);
        }
        let is_stuck = failing > 0 && !self.stopping && self.only_failing_left() && self.reads_later(now);
        if !is_stuck || now < self.read_not_before {
            return None;
        }
        // Its end is told first, or records would seem to be read again. Nothing else is left that could fail.
        if self.outage_ends_at().is_some() {
            return self.told.outage.take().map(News::Up);
        }
        self.told.reading_stopped = true;
        Some(News::ReadingStopped(failing))
    }

    /// Whether nothing in the window moves but records upon which the endpoint goes on failing.
    fn only_failing_left(&self) -> bool {
        let waiting =
            self.ready.len() + self.throttled.len() + self.failed.len() + self.dead.len() + self.burying.len();
        // Each of them is a group of its own.
        let groups = self.suspects.len() + self.in_flight.len();
        waiting == 0 && self.trial.is_none() && groups <= self.entries.failing()
    }
}
