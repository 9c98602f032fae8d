//! A disk that fails: the stream takes no more records until what is durable was left behind and a new segment was begun.

use std::io;

use super::{CommitError, StreamWriter, lock};
use crate::event::Event;

impl StreamWriter {
    pub(super) fn poison(&mut self, action: &'static str, error: &io::Error) -> CommitError {
        let path = self.core.path_of(self.active.first);
        let reason = format!("{action} {}: {error}", path.display());
        self.core.set_stopped(Some(&reason));
        self.core.tell(Event::Poisoned { stream: self.core.name().to_owned(), reason: reason.clone() });
        self.poisoned = Some(reason.clone());
        CommitError::Poisoned(reason)
    }

    /// What the failure was, after one.
    pub(crate) fn poisoned(&self) -> Option<String> {
        self.poisoned.clone()
    }

    /// After a failure, leaves the file that failed behind and goes on in a new one; says whether the disk let it.
    pub(crate) fn recover(&mut self) -> bool {
        // Cutting is best effort: what lies behind the durable part has numbers that the next segment takes over,
        // and readers ignore such blocks.
        self.forget_unsynced();
        let _ = self.active.file.truncate(self.active.len);
        if self.replace_active().is_err() {
            return false;
        }
        self.poisoned = None;
        self.full = None;
        self.core.set_stopped(None);
        self.core.tell(Event::Recovered { stream: self.core.name().to_owned() });
        true
    }

    /// After a failed sync nobody knows what is left of what was only written: it is lost, and told.
    fn forget_unsynced(&mut self) {
        if self.unsynced.take().is_none() {
            return;
        }
        lock(&self.core.marks).forget_unsynced();
        let (end, bytes) = self.core.view(|view| {
            let active = view.segments.back().expect("never empty");
            (active.end, active.bytes)
        });
        (self.active.len, self.index_due) = (bytes, None);
        if end < self.logged {
            let lost = end..=self.logged.previous();
            self.core.damaged(self.active.first, bytes, "the disk failed before these records were synced", Some(lost));
        }
        (self.gap_before, self.logged) = (self.logged, end);
        // Their numbers are not given again: the next segment's head says so.
        self.core.set_reserved(self.core.reserved().max(self.next));
    }

    fn replace_active(&mut self) -> io::Result<()> {
        let definition = self.core.definition();
        let active = self.create_segment(&definition)?;
        self.install(active);
        Ok(())
    }
}
