//! What would be lost with the catalogue, written into the log now and then: checkpoints, counts, boots, marks.

use std::time::Duration;

use super::{CommitError, StreamWriter, active::write_control, lock};
use crate::{
    clock::Stamp,
    segment::{BlockHeader, BlockKind},
};

/// A control block with moved checkpoints is due after this long, so that a lost catalogue repeats seconds, not days.
const CONTROL_EVERY: Duration = Duration::from_secs(10);

impl StreamWriter {
    pub(super) fn save_checkpoints(&self) -> bool {
        let mut checkpoints = lock(&self.core.checkpoints);
        let unsaved = std::mem::take(&mut checkpoints.unsaved);
        for consumer in &unsaved {
            let done = checkpoints.done[consumer];
            self.core.around.catalogue.put_checkpoint(self.core.name(), consumer, done);
        }
        drop(checkpoints);
        let mut counters = lock(&self.core.counters);
        let damaged = std::mem::take(&mut counters.unsaved);
        if damaged {
            self.core.around.catalogue.put_gaps(self.core.name(), &counters.gaps.persisted());
            self.core.around.catalogue.put_drops(self.core.name(), &counters.totals);
        }
        damaged || !unsaved.is_empty()
    }

    pub(super) fn control_is_due(&self, now: Duration) -> bool {
        lock(&self.core.checkpoints).moved && now.saturating_sub(self.control_written) >= CONTROL_EVERY
    }

    /// Whether the log does not have yet all that is known of the machine's boots.
    pub(super) fn has_news_of_boots(&self) -> bool {
        self.active.boots_told != self.core.around.time.changes()
    }

    /// Whether there are records whose time would be lost with the catalogue. Of a boot without records nothing is owed.
    pub(super) fn owes_its_boot(&self) -> bool {
        let newest = self.core.view(|view| view.segments.iter().rev().find(|segment| !segment.is_empty()).copied());
        self.has_news_of_boots() && newest.is_some_and(|segment| segment.newest.boot == self.core.around.boot)
    }

    pub(super) fn commit_control(&mut self, now: Duration) -> Result<(), CommitError> {
        let stamp = self.stamp(self.core.around.clock.now());
        let mut buffer = Vec::new();
        let mut header = BlockHeader::new(BlockKind::Control, self.logged, 0, stamp);
        header.together = self.unsynced.is_some();
        let boots_told = write_control(&self.core, &mut buffer, header, self.active.salt, self.active.boots_told);
        self.write_durably(&buffer)?;
        (self.active.boots_told, self.active.has_control) = (boots_told, true);
        lock(&self.core.checkpoints).moved = false;
        self.control_written = now;
        let newest = self.newest_record(stamp);
        self.advance(buffer.len() as u64, Stamp { wall_ms: self.newest_wall_ms.max(newest.wall_ms), ..newest });
        self.publish(newest);
        self.core.count_framing(buffer.len() as u64);
        Ok(())
    }

    /// When the newest record of the segment being written arrived; if there is no segment, `stamp`.
    pub(super) fn newest_record(&self, stamp: Stamp) -> Stamp {
        let newest = self.core.view(|view| view.segments.back().map(|active| active.newest));
        self.unsynced.as_ref().map(|unsynced| unsynced.newest).or(newest).unwrap_or(stamp)
    }
}
