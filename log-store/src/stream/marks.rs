//! A stream's marks: what is written, what of it is durable, and what of that the catalogue has.

use std::collections::BTreeSet;

use super::{StreamCore, lock};
use crate::{
    error::Error,
    marks::{MARKS_BYTES_MAX, MARKS_MAX, Marks},
    queue::Entry,
};

/// Marks take no more than this part of a segment, since each segment begins with all of them.
const MARKS_PER_SEGMENT: u64 = 8;

/// The marks of an open stream.
#[derive(Debug, Default)]
pub(super) struct StreamMarks {
    /// As the log's files have them, synced or not.
    written: Marks,
    /// As everybody sees them.
    durable: Marks,
    /// What was written since, oldest first.
    unsynced: Vec<Marks>,
    /// Names of marks that are others in the catalogue.
    unsaved: BTreeSet<String>,
}

impl StreamMarks {
    /// As an opening found them in the log, and in the catalogue.
    pub(super) fn found(marks: Marks, catalogue: &Marks) -> Self {
        let differs = |name: &&str| marks.get(name) != catalogue.get(name);
        let names = marks.iter().chain(catalogue.iter()).map(|(name, _)| name);
        let unsaved = names.filter(differs).map(str::to_owned).collect();
        Self { written: marks.clone(), durable: marks, unsynced: Vec::new(), unsaved }
    }

    pub(super) fn written(&self) -> &Marks {
        &self.written
    }

    /// Notes what was written.
    pub(super) fn write(&mut self, changes: Marks) {
        if !changes.is_empty() {
            self.written.apply(&changes);
            self.unsynced.push(changes);
        }
    }

    /// Notes that what was written is synced.
    pub(super) fn publish(&mut self) {
        for changes in self.unsynced.drain(..) {
            self.durable.apply(&changes);
            self.unsaved.extend(changes.iter().map(|(name, _)| name.to_owned()));
        }
    }

    /// Forgets what was written and not synced.
    pub(super) fn forget_unsynced(&mut self) {
        if !self.unsynced.is_empty() {
            self.unsynced.clear();
            self.written = self.durable.clone();
        }
    }

    /// What the catalogue does not have yet, as changes of it.
    pub(super) fn take_unsaved(&mut self) -> Marks {
        let mut changes = Marks::default();
        for name in std::mem::take(&mut self.unsaved) {
            changes.change(&name, self.durable.get(&name).unwrap_or_default());
        }
        changes
    }
}

impl StreamCore {
    /// A mark, as it was last committed.
    pub(crate) fn mark(&self, name: &str) -> Option<Vec<u8>> {
        lock(&self.marks).durable.get(name).map(<[u8]>::to_vec)
    }

    /// The marks whose names begin with `prefix`.
    pub(crate) fn marks(&self, prefix: &str) -> Vec<(String, Vec<u8>)> {
        let marks = lock(&self.marks);
        marks.durable.starting_with(prefix).map(|(name, value)| (name.to_owned(), value.to_vec())).collect()
    }

    /// Refuses batches with marks that are too many for a stream with segments of this size, and gives the others.
    pub(crate) fn refuse_too_many_marks(&self, entries: Vec<Entry>, segment_bytes: u64) -> Vec<Entry> {
        let share = usize::try_from(segment_bytes / MARKS_PER_SEGMENT).unwrap_or(usize::MAX);
        let bytes_max = MARKS_BYTES_MAX.min(share);
        let (mut changes, mut taken) = (Marks::default(), Vec::with_capacity(entries.len()));
        for entry in entries {
            if !entry.batch.marks().is_empty() {
                let mut with = changes.clone();
                with.change_all(entry.batch.marks());
                let (before, after) = {
                    let marks = lock(&self.marks);
                    (marks.written.size_with(&changes), marks.written.size_with(&with))
                };
                // Where they are too many already, because the quota became smaller, they may still change.
                let is_over = |after: usize, before: usize, max: usize| after > max && after > before;
                if is_over(after.0, before.0, MARKS_MAX) || is_over(after.1, before.1, bytes_max) {
                    let stream = self.name().to_owned();
                    let error = Error::TooManyMarks { stream, count: after.0, bytes: after.1, bytes_max };
                    self.around.answers.give([(entry, Err(error))]);
                    continue;
                }
                changes = with;
            }
            taken.push(entry);
        }
        taken
    }
}
