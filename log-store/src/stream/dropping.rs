//! What a stream gives up: segments past retention, segments that have to make room, and the spare file.

use std::sync::Arc;

use super::{
    CommitError, Segment, StreamWriter, View,
    retention::{MayGo, Rules},
    writer::SEGMENT_START_BYTES,
};
use crate::event::{DropReason, Event};

/// Removing opens them, and a process may only have so many files open.
const REMOVED_AT_ONCE: usize = 32;

/// What becomes of the files of dropped segments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Files {
    Remove,
    /// One of them is kept for the next segment.
    Spare,
}

impl StreamWriter {
    /// Sees to it that a block of this size fits under the stream's quota.
    pub(crate) fn room_under_quota(&mut self, bytes: u64) -> Result<(), CommitError> {
        self.check_not_poisoned()?;
        let quota = self.core.quota();
        if bytes + SEGMENT_START_BYTES > quota {
            return Err(CommitError::NeverFits(format!(
                "{bytes} bytes at once are more than its quota of {quota} bytes"
            )));
        }
        let taken = self.disk_bytes();
        if taken + bytes <= quota {
            return Ok(());
        }
        self.expire()?;
        // What expired may be enough, and so may the spare file.
        let missing = (self.disk_bytes() + bytes).saturating_sub(quota);
        if missing == 0 || self.drop_spare() >= missing {
            return Ok(());
        }
        let missing = (self.disk_bytes() + bytes).saturating_sub(quota);
        let rules = self.rules();
        let (_, may_be_freed) =
            self.core.view(|view| rules.for_room(view.segments.iter(), missing, rules.under_quota()));
        if may_be_freed >= missing && self.make_room(missing, rules.under_quota(), None) >= missing {
            return Ok(());
        }
        self.check_not_poisoned()?;
        Err(CommitError::Full(format!("it takes {taken} of its quota of {quota} bytes")))
    }

    /// Gives up the spare file, then the oldest segments, the one being written last, to free `bytes`, as far as they may
    /// go. Says how many bytes it freed. `limit` is the limit of the data directory that wants the room.
    pub(crate) fn make_room(&mut self, bytes: u64, may_go: MayGo, limit: Option<&str>) -> u64 {
        let spare = self.drop_spare();
        let Some(bytes) = bytes.checked_sub(spare).filter(|bytes| *bytes > 0) else { return spare };
        let rules = self.rules();
        let (mut count, mut freed) = self.core.view(|view| rules.for_room(view.sealed(), bytes, may_go));
        if freed < bytes && !self.is_active_empty() {
            let all =
                self.core.view(|view| rules.for_room(view.segments.iter(), bytes, may_go).0 == view.segments.len());
            // A full disk may have no room for the segment that takes its place.
            if all && self.poisoned.is_none() && self.roll().is_ok() {
                (count, freed) = self.core.view(|view| rules.for_room(view.sealed(), bytes, may_go));
            }
        }
        let dropped = self.drop_oldest(count, DropReason::Quota, limit, Files::Remove);
        spare + freed.min(dropped)
    }

    /// How many bytes [`Self::make_room`] would free of what is delivered.
    pub(crate) fn delivered_bytes(&self) -> u64 {
        let rules = self.rules();
        let segments = |view: &View| match self.is_active_empty() {
            true => rules.for_room(view.sealed(), u64::MAX, MayGo::Delivered).1,
            false => rules.for_room(view.segments.iter(), u64::MAX, MayGo::Delivered).1,
        };
        self.core.view(segments)
    }

    /// Removes what was kept of torn ends; says how many bytes that freed.
    pub(crate) fn remove_torn(&mut self) -> u64 {
        if !std::mem::take(&mut self.has_torn) {
            return 0;
        }
        let (disk, dir) = (&self.core.around.disk, &self.core.dir);
        let names = disk.list(dir).unwrap_or_default();
        let remove = |name: &String| {
            let path = dir.join(name);
            let bytes = disk.open_read(&path).and_then(|file| file.len()).ok()?;
            disk.remove(&path).ok().map(|()| bytes)
        };
        names.iter().filter(|name| name.ends_with(".torn")).filter_map(remove).sum()
    }

    /// What the stream takes on disk.
    pub(crate) fn disk_bytes(&self) -> u64 {
        self.core.view(View::disk_bytes)
    }

    /// Drops what nothing needs any more.
    pub(super) fn expire(&mut self) -> Result<(), CommitError> {
        let (rules, core) = (self.rules(), Arc::clone(&self.core));
        let time = &core.around.time;
        // The last segment of an idle stream goes too: an empty one takes its place and keeps the numbering.
        let all = core.view(|view| {
            time.ages(|timeline, now| view.segments.iter().all(|segment| rules.is_past(segment, timeline, now)))
        });
        if all {
            self.drop_spare();
        }
        if (all || self.is_active_old()) && !self.is_active_empty() {
            self.roll()?;
        }
        let count = core.view(|view| time.ages(|timeline, now| rules.expired(view.sealed(), timeline, now)));
        let is_idle = self.is_active_empty() && count + 1 == self.core.view(|view| view.segments.len());
        let files = if is_idle { Files::Remove } else { Files::Spare };
        self.drop_oldest(count, DropReason::Retention, None, files);
        if is_idle {
            self.give_back();
        }
        Ok(())
    }

    /// Says how many bytes the dropped segments took.
    fn drop_oldest(&mut self, count: usize, reason: DropReason, limit: Option<&str>, files: Files) -> u64 {
        let count = self.keep_control(count);
        if count == 0 {
            return 0;
        }
        let oldest = self.core.view(|view| view.oldest());
        let mut gone: Vec<Segment> = self.core.change_view(|view| view.segments.drain(..count).collect());
        let bytes = gone.iter().map(|segment| segment.bytes).sum();
        // What lies before the horizon was counted when that moved.
        let (first, end) = (gone[0].first.max(oldest), gone[count - 1].end);
        if first < end {
            self.core.dropped(first..=end.previous(), reason, limit.map(str::to_owned));
        }
        // A file that is gone must be known as dropped, or the next opening takes it for damage.
        if limit.is_none() {
            self.core.around.catalogue.flush();
        }
        let may_be_spare =
            |segment: &&Segment| files == Files::Spare && self.spare.is_none() && segment.bytes <= self.segment_bytes();
        let spare = gone.iter().filter(may_be_spare).max_by_key(|segment| segment.bytes).copied();
        let spare = spare.filter(|segment| self.core.make_spare(segment));
        gone.retain(|segment| Some(*segment) != spare);
        // Also when there is none to remove: the spare's old name may not come back when there is another head in it.
        let mut synced = gone.is_empty() && self.core.around.disk.sync_dir(&self.core.dir).is_ok();
        for some in gone.chunks(REMOVED_AT_ONCE) {
            synced = self.remove_segments(some);
        }
        self.core.forget_gone_shards();
        self.spare = self.spare.or(spare.map(|segment| segment.bytes));
        if spare.is_some() && !synced {
            self.drop_spare();
        }
        // A full disk may have room for that only now.
        if limit.is_some() {
            self.core.around.catalogue.flush();
        }
        self.note_unused();
        bytes
    }

    /// How many of the oldest `count` segments may go: of those with a control block, the last one stays until the segment
    /// being written has one.
    fn keep_control(&mut self, count: usize) -> usize {
        let sealed = self.core.view(|view| view.sealed().count());
        let relies_on_sealed = !self.active.has_control && count > 0 && count == sealed;
        let now = self.now().since_boot;
        let stays = relies_on_sealed && (self.poisoned.is_some() || self.commit_control(now).is_err());
        count - usize::from(stays)
    }

    /// Says whether their removal would survive a power cut.
    fn remove_segments(&self, gone: &[Segment]) -> bool {
        let disk = &self.core.around.disk;
        let remove = |segment: &Segment| {
            let file = disk.open(&self.core.path_of(segment.first)).ok();
            // One that could not be removed stays whole: the next opening may have nothing else to go by.
            file.filter(|_| self.core.remove_segment(segment))
        };
        let removed: Vec<_> = gone.iter().filter_map(remove).collect();
        // One more sync for a whole segment; without it, removals that a power cut undoes would be counted again.
        let synced = disk.sync_dir(&self.core.dir).is_ok();
        if synced {
            // A reader that stands still in one of them would keep its room taken for as long.
            for file in removed {
                let _ = file.truncate(0);
            }
        }
        synced
    }

    /// Bytes of files that are only there for what comes next.
    pub(super) fn unused(&self) -> u64 {
        self.spare.unwrap_or(0) + self.active.unused()
    }

    pub(super) fn note_unused(&self) {
        let unused = self.unused();
        self.core.change_view(|view| view.unused = unused);
    }

    /// Gives everything back that is only there for what comes next.
    pub(super) fn give_back(&mut self) {
        self.drop_spare();
        self.active.cut_unused();
        self.note_unused();
    }

    /// Gives the spare file's room back; says how much that was.
    fn drop_spare(&mut self) -> u64 {
        let Some(bytes) = self.spare.take() else { return 0 };
        let path = self.core.spare_path();
        if let Err(error) = self.core.around.disk.remove(&path) {
            self.core.tell(Event::NotRemoved { segment: path, reason: error.to_string() });
        }
        self.note_unused();
        bytes
    }

    /// Drops the oldest segment for its file, if the next one would not fit under the quota and nobody needs it.
    pub(super) fn spare_delivered(&mut self) {
        let is_pressed = self.disk_bytes() + self.segment_bytes() > self.core.quota();
        // What is past its retention goes for that, and may leave a spare file.
        if is_pressed && self.spare.is_none() {
            let _ = self.expire();
        }
        let rules = self.rules();
        let may_go = |view: &View| view.sealed().next().is_some_and(|oldest| rules.is_delivered(oldest));
        if is_pressed && self.spare.is_none() && self.core.view(may_go) {
            self.drop_oldest(1, DropReason::Quota, None, Files::Spare);
        }
    }

    fn rules(&self) -> Rules {
        let config = self.core.config();
        Rules {
            retention: config.retention,
            on_full: config.on_full,
            hold_undelivered: config.hold_undelivered,
            keep_delivered: config.keep_delivered,
            delivered: self.core.delivered(),
        }
    }
}
