//! When what is finished is saved for the next start, as far as the checkpoint does not say it: while there are gaps, soon after a
//! dead letter that the checkpoint does not reach, and at a stop. Not whenever something goes past a record that waits: that may be
//! so for days, and each time costs the flash a write.

use std::time::Duration;

use forebay_log_store::SequenceNumber;

use super::{
    Step, Window,
    stretches::{Finished, Range},
};

/// How long a change waits before it is saved, if it is at least a request's worth of records.
const SAVE_SOON: Duration = Duration::from_secs(1);

/// The same if it is less.
const SAVE_LATER: Duration = Duration::from_secs(10);

/// What was saved last, and what came since.
#[derive(Debug)]
pub(super) struct Saving {
    between: Vec<Range>,
    /// The last number inside of stretches.
    inside_to: Option<SequenceNumber>,
    /// Whether it is known what was saved.
    is_saved: bool,
    under_way: bool,
    at: Duration,
    /// Records finished by then.
    records: u64,
    /// The newest dead letter since then, and when the first was stored.
    letters: Option<(SequenceNumber, Duration)>,
    /// A save before the stop was given out.
    closed: bool,
}

impl Saving {
    pub(super) fn new(saved: &Finished) -> Self {
        Self {
            between: saved.between.clone(),
            inside_to: last_of(saved),
            is_saved: true,
            under_way: false,
            at: Duration::ZERO,
            records: 0,
            letters: None,
            closed: false,
        }
    }

    pub(super) fn is_under_way(&self) -> bool {
        self.under_way
    }

    /// The letter of this record is durable; the checkpoint has got so far.
    pub(super) fn buried(&mut self, number: SequenceNumber, checkpoint: SequenceNumber, now: Duration) {
        self.letters.take_if(|(newest, _)| *newest <= checkpoint);
        let (newest, _) = self.letters.get_or_insert((number, now));
        *newest = number.max(*newest);
    }
}

fn last_of(finished: &Finished) -> Option<SequenceNumber> {
    finished.inside.last().map(|(_, last)| *last)
}

impl Window {
    /// What is finished, if that is to be saved now.
    pub(super) fn save_due(&mut self, now: Duration) -> Option<Step> {
        let closing = self.stopping && self.in_flight.is_empty() && self.burying.is_empty();
        let at = if closing { Duration::ZERO } else { self.save_at()? };
        if at > now || self.saving.under_way {
            return None;
        }
        self.save(closing, now).map(Step::SaveFinished)
    }

    /// The same where requests under way are given up at a stop: none of their records is finished.
    pub(crate) fn last_save(&mut self, now: Duration) -> Option<Finished> {
        self.save(true, now)
    }

    fn save(&mut self, closing: bool, now: Duration) -> Option<Finished> {
        let (records, is_stale) = (self.finished_records(), self.is_stale());
        let saving = &mut self.saving;
        // Once more only for what came of letters since.
        if saving.closed && records == saving.records {
            return None;
        }
        let is_the_same = records == saving.records && !is_stale;
        (saving.closed, saving.at, saving.records, saving.letters) = (closing, now, records, None);
        if saving.is_saved && is_the_same {
            return None;
        }
        let finished = self.stretches.finished(&self.entries, &self.finished_before);
        let inside_to = last_of(&finished);
        // What was saved, and says no more than a checkpoint, stays: this one may reach the disk later.
        let says_no_more = saving.between.len() <= 1 && saving.inside_to.is_none() && finished.says_no_more();
        if saving.is_saved && says_no_more {
            return None;
        }
        saving.between.clone_from(&finished.between);
        (saving.inside_to, saving.under_way) = (inside_to, true);
        Some(finished)
    }

    /// When it is looked at again; nothing while there is nothing to be saved.
    pub(super) fn save_at(&self) -> Option<Duration> {
        let Saving { between, is_saved, under_way, at, records, letters, .. } = &self.saving;
        if *under_way {
            return None;
        }
        let checkpoint = self.stretches.checkpoint(&self.entries);
        let letters = letters.filter(|(newest, _)| *newest > checkpoint).map(|(_, since)| since + SAVE_SOON);
        let has_gaps = !self.stretches.gaps().is_empty();
        let is_due = has_gaps || between.len() > 1 || !is_saved || self.is_stale();
        let many = self.finished_records() - records >= self.request_worth() as u64;
        let is_soon = *is_saved && (many || !has_gaps);
        let due = is_due.then(|| *at + if is_soon { SAVE_SOON } else { SAVE_LATER });
        letters.into_iter().chain(due).min()
    }

    /// Whether the checkpoint has passed all that was saved. The log writes marks again and again, with its control blocks.
    fn is_stale(&self) -> bool {
        self.saving.inside_to.is_some_and(|last| last <= self.stretches.checkpoint(&self.entries))
    }

    fn finished_records(&self) -> u64 {
        self.counts.records + self.counts.dead_letters + self.counts.expired
    }

    /// What was finished is saved, or could not be.
    pub(crate) fn on_finished_saved(&mut self, durable: bool) {
        (self.saving.under_way, self.saving.is_saved) = (false, durable);
    }
}
