//! The one writer of a stream: commits blocks, rolls and drops segments, keeps checkpoints. Driven by the committer.

use std::{io, sync::Arc, time::Duration};

use super::{
    Segment, StreamCore, View,
    active::{Active, write_control},
    lock,
    retention::Rules,
};
use crate::{
    batch::{Batch, Run},
    catalogue::SealedSegment,
    clock::Stamp,
    config::Durability,
    disk::is_full,
    error::{Appended, AppendedRun},
    event::{DropReason, Event},
    segment::{
        BLOCK_HEADER_BYTES, BlockHeader, BlockKind, StreamDefinition, finish_block, pack_block, padding, padding_max,
        start_block, write_run,
    },
    sequence::SequenceNumber,
    shard::ShardIndex,
};

/// An index entry is due after this many bytes of blocks, or after an eighth of a small segment.
const INDEX_EVERY_BYTES: u64 = 1 << 20;
/// A control block with moved checkpoints is due after this long, so that a lost catalogue repeats seconds, not days.
const CONTROL_EVERY: Duration = Duration::from_secs(10);
/// A stream of a small quota still has this many segments to drop from.
const SEGMENTS_PER_QUOTA: u64 = 8;
const SEGMENT_BYTES_MIN: u64 = 64 << 10;
/// More than a segment's header and first control block take, unless there are hundreds of shards.
const SEGMENT_START_BYTES: u64 = 16 << 10;
/// What is written together at the most when records in memory are brought to the disk.
pub(super) const WRITE_BYTES_MAX: u64 = 4 << 20;

/// Sizes and ages of segments.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SegmentLimits {
    pub(crate) bytes: u64,
    pub(crate) age: Duration,
}

/// Why a commit did not happen. Nothing of it is on the disk.
#[derive(Debug)]
pub(crate) enum CommitError {
    /// There is no room, for now.
    Full(String),
    /// It is larger than the stream's whole quota.
    NeverFits(String),
    /// The disk failed; the stream is poisoned.
    Poisoned(String),
}

/// What was written but not synced.
#[derive(Debug, Clone, Copy)]
pub(super) struct Unsynced {
    /// Since the boot.
    since: Duration,
    /// Of its newest block.
    newest: Stamp,
}

/// What becomes of the files of dropped segments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Files {
    Remove,
    /// One of them is kept for the next segment.
    Spare,
}

/// The writer's state.
pub(crate) struct StreamWriter {
    pub(super) core: Arc<StreamCore>,
    pub(super) limits: SegmentLimits,
    pub(super) active: Active,
    /// The number that the next record gets.
    pub(super) next: SequenceNumber,
    /// Everything before it is in the log's files, or never will be; what lies between is held in memory.
    pub(super) logged: SequenceNumber,
    /// Of the numbers that are in no file, those before this one are lost.
    pub(super) lost_before: SequenceNumber,
    /// An index entry for the next sync: a block's first number, and its place.
    pub(super) index_due: Option<(SequenceNumber, u64)>,
    /// What was written but not synced yet.
    pub(super) unsynced: Option<Unsynced>,
    /// An untrusted wall clock never goes behind this.
    pub(super) newest_wall_ms: u64,
    /// Length of the spare file, if there is one.
    pub(super) spare: Option<u64>,
    pub(super) control_written: Duration,
    pub(super) buffer: Vec<u8>,
    pub(super) poisoned: Option<String>,
    pub(super) full: Option<String>,
}

impl StreamWriter {
    pub(crate) fn core(&self) -> &Arc<StreamCore> {
        &self.core
    }

    /// Writes one block with all these batches, durably as configured. Order within a shard is the order of the batches.
    pub(crate) fn commit(&mut self, batches: &[&Batch]) -> Result<Vec<Appended>, CommitError> {
        if let Some(reason) = &self.poisoned {
            return Err(CommitError::Poisoned(reason.clone()));
        }
        match self.try_commit(batches) {
            Ok(appended) => {
                self.has_room();
                Ok(appended)
            }
            Err(error) => Err(self.met(error)),
        }
    }

    /// Tells that there is room again, if there was none.
    pub(super) fn has_room(&mut self) {
        if self.full.take().is_some() {
            self.core.set_stopped(None);
            self.core.tell(Event::RoomAgain { stream: self.core.name().to_owned() });
        }
    }

    /// Tells that there is no room, if that is what was met and it is news.
    pub(super) fn met(&mut self, error: CommitError) -> CommitError {
        if let CommitError::Full(reason) = &error {
            if self.full.is_none() {
                self.core.set_stopped(Some(reason));
                self.core.tell(Event::Full { stream: self.core.name().to_owned(), reason: reason.clone() });
            }
            self.full = Some(reason.clone());
        }
        error
    }

    fn try_commit(&mut self, batches: &[&Batch]) -> Result<Vec<Appended>, CommitError> {
        // What was held under another configuration comes first.
        self.spill_all()?;
        let now = self.core.around.clock.now();
        let stamp = self.stamp(now);
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.clear();
        let at = start_block(&mut buffer);
        let (mut header, appended, shards) = self.gather(&mut buffer, at, batches, stamp);
        let codec = self.core.config().compression;
        pack_block(&mut buffer, at, &mut header, codec, &mut lock(&self.core.around.packer));
        let (first, end) = (header.first, header.end());
        let stored_bytes = (buffer.len() - BLOCK_HEADER_BYTES) as u64;
        let outcome = self.write_block(&mut buffer, header, now.since_boot);
        let bytes = buffer.len() as u64;
        self.buffer = buffer;
        // One very large block must not keep its memory for ever.
        self.buffer.shrink_to(2 << 20);
        let block_at = outcome?;

        self.index(first, block_at, bytes);
        (self.next, self.logged) = (end, end);
        self.advance(bytes, stamp);
        self.core.count_records(shards.into_iter());
        self.core.count_written(stored_bytes, bytes - stored_bytes);
        match self.core.config().durability {
            Durability::Interval(_) => {
                _ = self.unsynced.get_or_insert(Unsynced { since: now.since_boot, newest: stamp })
            }
            Durability::Sync | Durability::MemoryFirst { .. } => {
                self.publish(stamp);
                self.core.wake_readers();
            }
        }
        if let Some(unsynced) = &mut self.unsynced {
            unsynced.newest = stamp;
        }
        Ok(appended)
    }

    /// Writes a gathered block, with a control block before it if one is due; says where in `buffer` it begins.
    fn write_block(
        &mut self,
        buffer: &mut Vec<u8>,
        mut header: BlockHeader,
        since_boot: Duration,
    ) -> Result<u64, CommitError> {
        let bytes = buffer.len() as u64;
        let most = bytes + padding_max(bytes);
        self.roll_if_due(most)?;
        self.room_under_quota(self.active.growth(most))?;
        self.close_gap(header.first, header.arrival)?;
        // Only now is it known which segment it goes to, and where.
        let control = self.control_is_due(since_boot) || self.has_news_of_boots();
        let (mut before, mut boots_told) = (Vec::new(), self.active.boots_told);
        if control {
            let mut control = BlockHeader::new(BlockKind::Control, header.first, 0, header.arrival);
            control.together = self.unsynced.is_some();
            boots_told = write_control(&self.core, &mut before, control, self.active.salt, boots_told);
        }
        let block_at = before.len() as u64;
        header.padding = padding(self.active.len + block_at, bytes);
        header.together = self.unsynced.is_some();
        let padding = usize::from(header.padding);
        finish_block(buffer, 0, header, self.active.salt);
        buffer.resize(buffer.len() + padding, 0);
        buffer.splice(0..0, before);
        match self.core.config().durability {
            Durability::Interval(_) => self.write(buffer),
            Durability::Sync | Durability::MemoryFirst { .. } => self.write_durably(buffer),
        }?;
        if control {
            self.active.boots_told = boots_told;
            self.control_written = since_boot;
            lock(&self.core.checkpoints).moved = false;
        }
        Ok(block_at)
    }

    pub(super) fn roll_if_due(&mut self, bytes: u64) -> Result<(), CommitError> {
        let too_large = self.active.len + bytes > self.segment_bytes();
        if !self.is_active_empty() && (too_large || self.is_active_old()) {
            self.spare_delivered();
            self.roll()?;
        }
        Ok(())
    }

    /// Appends the runs of all batches' records to the block that begins at `at` in `buffer`, by shard.
    pub(super) fn gather(
        &self,
        buffer: &mut Vec<u8>,
        at: usize,
        batches: &[&Batch],
        stamp: Stamp,
    ) -> (BlockHeader, Vec<Appended>, Vec<(ShardIndex, u32, u64)>) {
        debug_assert_eq!(buffer.len(), at + BLOCK_HEADER_BYTES);
        let mut runs: Vec<(usize, &Run)> =
            batches.iter().enumerate().flat_map(|(i, batch)| batch.runs().iter().map(move |run| (i, run))).collect();
        runs.sort_by_key(|(_, run)| run.shard);
        let mut places: Vec<Vec<AppendedRun>> = vec![Vec::new(); batches.len()];
        let mut shards = Vec::new();
        let mut header = BlockHeader::new(BlockKind::Records, self.next, 0, stamp);
        let mut next = self.next;
        for group in runs.chunk_by(|(_, a), (_, b)| a.shard == b.shard) {
            let shard = group[0].1.shard;
            let records = group.iter().map(|(_, run)| run.records).sum();
            header.shard_bits |= write_run(buffer, shard, records, group.iter().map(|(_, run)| run.encoded.as_slice()));
            header.records += records;
            for (batch, run) in group {
                places[*batch].push(AppendedRun { of: shard, shard, first: next, records: run.records });
                next = next.plus(u64::from(run.records));
            }
            shards.push((shard, records, group.iter().map(|(_, run)| run.payload_bytes).sum()));
        }
        let in_load_order = |(batch, mut places): (&&Batch, Vec<AppendedRun>)| {
            places.sort_by_key(|place| batch.runs().iter().position(|run| run.shard == place.shard));
            Appended { runs: places }
        };
        (header, batches.iter().zip(places).map(in_load_order).collect(), shards)
    }

    /// Writes and syncs `bytes` behind what was written; poisons the stream unless the disk is merely full.
    pub(super) fn write_durably(&mut self, bytes: &[u8]) -> Result<(), CommitError> {
        self.write(bytes)?;
        self.sync_file()
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), CommitError> {
        while let Err(error) = self.active.file.write_at(self.active.len, bytes) {
            if !is_full(&error) {
                return Err(self.poison("write to", &error));
            }
            // What was written of the block is cut off, so that nothing of it is ever taken for a record.
            if let Err(error) = self.active.file.truncate(self.active.len) {
                return Err(self.poison("cut", &error));
            }
            self.active.file_len = self.active.len;
            let reason = format!("the disk is full: {error}");
            if !self.make_room(bytes.len() as u64)? {
                return Err(CommitError::Full(reason));
            }
        }
        Ok(())
    }

    /// A failed sync is never tried again: the system may have dropped the pages and say "ok" the second time.
    fn sync_file(&mut self) -> Result<(), CommitError> {
        self.active.file.sync().map_err(|error| self.poison("sync", &error))
    }

    /// Syncs what was only written so far, and lets readers see it.
    pub(super) fn sync_written(&mut self) -> Result<(), CommitError> {
        let Some(Unsynced { newest, .. }) = self.unsynced else { return Ok(()) };
        if let Some(reason) = &self.poisoned {
            return Err(CommitError::Poisoned(reason.clone()));
        }
        self.sync_file()?;
        self.publish(newest);
        self.core.wake_readers();
        Ok(())
    }

    /// Counts bytes that were just written as part of the segment.
    pub(super) fn advance(&mut self, bytes: u64, stamp: Stamp) {
        self.newest_wall_ms = stamp.wall_ms;
        self.active.len += bytes;
        self.active.file_len = self.active.file_len.max(self.active.len);
    }

    /// Makes everything written, and now synced, visible to readers.
    pub(super) fn publish(&mut self, newest: Stamp) {
        self.unsynced = None;
        if let Some((first, offset)) = self.index_due.take() {
            self.core.around.catalogue.put_index(self.core.name(), first, self.active.first, offset);
        }
        let (next, logged, len, reserved) = (self.next, self.logged, self.active.len, self.reserved());
        self.core.change_view(|view| {
            view.reserved = reserved;
            view.next = next;
            let active = view.segments.back_mut().expect("the segment being written is always in the view");
            active.end = logged;
            active.bytes = len;
            active.newest = newest;
        });
    }

    /// Notes where the block that begins with `first` lies, once in a while.
    pub(super) fn index(&mut self, first: SequenceNumber, block_at: u64, bytes: u64) {
        self.active.since_index += bytes;
        if self.active.since_index >= INDEX_EVERY_BYTES.min(self.segment_bytes() / 8) {
            self.active.since_index = 0;
            let offset = self.active.len + block_at;
            // An opening reads from there on, so what lies before it must be synced by then.
            self.index_due = Some((first, offset));
        }
    }

    /// When something is due that cannot wait for the next tick, since the boot.
    pub(crate) fn due(&self) -> Option<Duration> {
        let sync = match (&self.unsynced, self.core.config().durability) {
            (Some(unsynced), Durability::Interval(interval)) => Some(unsynced.since + interval),
            (Some(unsynced), _) => Some(unsynced.since),
            (None, _) => None,
        };
        [sync, self.spill_due()].into_iter().flatten().min()
    }

    /// Does what is due: syncs, and writes what has waited in memory.
    pub(crate) fn do_due(&mut self) {
        let now = self.core.around.clock.now();
        // What fails is tried again when it is due the next time; a commit that meets it tells.
        if self.unsynced.is_some() && self.due().is_some_and(|due| due <= now.since_boot) {
            let _ = self.sync_written();
        }
        let _ = self.spill(now);
    }

    /// What is due once in a while. Says whether the catalogue should be flushed.
    pub(crate) fn tick(&mut self) -> bool {
        let flush = self.save_checkpoints();
        if self.poisoned.is_none() {
            // What cannot be done now (a full disk) is tried again at the next tick, and told when a commit meets it.
            let _ = self.expire();
            let now = self.core.around.clock.now().since_boot;
            if self.control_is_due(now) || self.owes_its_boot() {
                let _ = self.commit_control(now);
            }
        }
        flush
    }

    /// Brings everything to the disk that a reopening would otherwise repeat.
    pub(crate) fn close(&mut self) {
        let _ = self.spill_all();
        let _ = self.sync_written();
        self.save_checkpoints();
        // What was reserved and not given is free again.
        let given = if self.next > self.logged { self.next } else { SequenceNumber::ZERO };
        let reserves = self.core.reserved() != given;
        self.core.set_reserved(given);
        let moved = lock(&self.core.checkpoints).moved;
        if self.poisoned.is_none() && (moved || reserves || self.owes_its_boot()) {
            let now = self.core.around.clock.now().since_boot;
            let _ = self.commit_control(now);
        }
        self.give_back();
    }

    fn save_checkpoints(&self) -> bool {
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

    fn control_is_due(&self, now: Duration) -> bool {
        lock(&self.core.checkpoints).moved && now.saturating_sub(self.control_written) >= CONTROL_EVERY
    }

    /// Whether the log does not have yet all that is known of the machine's boots.
    fn has_news_of_boots(&self) -> bool {
        self.active.boots_told != self.core.around.time.changes()
    }

    /// Whether there are records whose time would be lost with the catalogue. Of a boot without records nothing is owed.
    fn owes_its_boot(&self) -> bool {
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
        self.active.boots_told = boots_told;
        lock(&self.core.checkpoints).moved = false;
        self.control_written = now;
        let newest = self.core.view(|view| view.segments.back().map(|active| active.newest));
        let newest = self.unsynced.as_ref().map(|unsynced| unsynced.newest).or(newest).unwrap_or(stamp);
        self.advance(buffer.len() as u64, Stamp { wall_ms: self.newest_wall_ms.max(newest.wall_ms), ..newest });
        self.publish(newest);
        self.core.count_framing(buffer.len() as u64);
        Ok(())
    }

    /// Seals the segment being written and begins the next one.
    fn roll(&mut self) -> Result<(), CommitError> {
        self.roll_as(&self.core.definition())
    }

    /// The same, and what the stream is from now on stands in the header of the new one.
    pub(super) fn roll_as(&mut self, definition: &StreamDefinition) -> Result<(), CommitError> {
        self.sync_written()?;
        let active = match self.create_segment(definition) {
            Ok(active) => active,
            Err(error) if is_full(&error) && !self.is_active_empty() => {
                if !self.make_room(SEGMENT_BYTES_MIN)? {
                    return Err(CommitError::Full(format!("the disk is full: {error}")));
                }
                self.create_segment(definition).map_err(|error| match is_full(&error) {
                    true => CommitError::Full(format!("the disk is full: {error}")),
                    false => self.poison("create", &error),
                })?
            }
            Err(error) => return Err(self.poison("create", &error)),
        };
        let sealed = self.core.view(|view| *view.segments.back().expect("never empty"));
        if sealed.is_empty() {
            // It had the name that its successor has now.
            self.core.change_view(|view| _ = view.segments.pop_back());
        } else {
            let entry = SealedSegment { last: sealed.end.previous(), bytes: sealed.bytes, newest: sealed.newest };
            self.core.around.catalogue.put_segment(self.core.name(), sealed.first, &entry);
        }
        self.install(active);
        Ok(())
    }

    fn create_segment(&mut self, definition: &StreamDefinition) -> io::Result<Active> {
        let has_spare = self.spare.take().is_some();
        let created = self.stamp(self.core.around.clock.now());
        Active::create(&self.core, definition, self.logged, created, has_spare)
    }

    fn install(&mut self, active: Active) {
        let segment = active.empty_segment();
        self.active.cut_unused();
        self.active = active;
        self.core.change_view(|view| view.segments.push_back(segment));
        self.note_reserved();
    }

    fn reserved(&self) -> u64 {
        self.spare.unwrap_or(0) + self.active.unused()
    }

    fn note_reserved(&self) {
        let reserved = self.reserved();
        self.core.change_view(|view| view.reserved = reserved);
    }

    /// Gives everything back that is only there for what comes next.
    fn give_back(&mut self) {
        self.drop_spare();
        self.active.cut_unused();
        self.note_reserved();
    }

    /// Gives the spare file's room back; says how much that was.
    fn drop_spare(&mut self) -> u64 {
        let Some(bytes) = self.spare.take() else { return 0 };
        let path = self.core.spare_path();
        if let Err(error) = self.core.around.disk.remove(&path) {
            self.core.tell(Event::NotRemoved { segment: path, reason: error.to_string() });
        }
        self.note_reserved();
        bytes
    }

    /// Drops the oldest segment for its file, if the next one would not fit under the quota and nobody needs it.
    fn spare_delivered(&mut self) {
        let taken = self.core.view(View::disk_bytes);
        let is_pressed = taken + self.segment_bytes() > self.core.config().quota;
        let rules = self.rules();
        let may_go = |view: &View| view.sealed().next().is_some_and(|oldest| rules.is_delivered(oldest));
        if is_pressed && self.spare.is_none() && self.core.view(may_go) {
            self.drop_oldest(1, DropReason::Quota, Files::Spare);
        }
    }

    pub(super) fn room_under_quota(&mut self, bytes: u64) -> Result<(), CommitError> {
        let quota = self.core.config().quota;
        if bytes + SEGMENT_START_BYTES > quota {
            return Err(CommitError::NeverFits(format!(
                "{bytes} bytes at once are more than its quota of {quota} bytes"
            )));
        }
        let taken = self.core.view(|view| view.disk_bytes());
        let missing = (taken + bytes).saturating_sub(quota);
        if missing == 0 {
            return Ok(());
        }
        self.expire()?;
        if self.make_room_for(missing)? {
            return Ok(());
        }
        Err(CommitError::Full(format!("it takes {taken} of its quota of {quota} bytes")))
    }

    /// Drops segments, the one being written too, until `bytes` are freed, if the policy allows; says whether it did.
    fn make_room_for(&mut self, bytes: u64) -> Result<bool, CommitError> {
        if self.make_room(bytes)? {
            return Ok(true);
        }
        let rules = self.rules();
        let all = self.core.view(|view| rules.make_room(view.segments.iter(), bytes).is_some());
        if all && !self.is_active_empty() {
            self.roll()?;
            return self.make_room(bytes);
        }
        Ok(false)
    }

    /// Drops sealed segments until `bytes` are freed, if the policy allows; says whether it did.
    fn make_room(&mut self, bytes: u64) -> Result<bool, CommitError> {
        let bytes = bytes.saturating_sub(self.drop_spare());
        if bytes == 0 {
            return Ok(true);
        }
        let rules = self.rules();
        match self.core.view(|view| rules.make_room(view.sealed(), bytes)) {
            Some(count) => {
                self.drop_oldest(count, DropReason::Quota, Files::Remove);
                Ok(count > 0)
            }
            None => Ok(false),
        }
    }

    /// Drops what is past retention and held by nobody.
    fn expire(&mut self) -> Result<(), CommitError> {
        let (rules, core) = (self.rules(), Arc::clone(&self.core));
        let expired = |segments: &mut dyn Iterator<Item = &Segment>| {
            core.around.time.ages(|timeline, now| rules.expired(segments, timeline, now))
        };
        // The last segment of an idle stream goes too: an empty one takes its place and keeps the numbering.
        let all = self.core.view(|view| expired(&mut view.segments.iter()) == view.segments.len());
        if all {
            self.drop_spare();
        }
        if (all || self.is_active_old()) && !self.is_active_empty() {
            self.roll()?;
        }
        let count = self.core.view(|view| expired(&mut view.sealed()));
        let is_idle = self.is_active_empty() && count + 1 == self.core.view(|view| view.segments.len());
        self.drop_oldest(count, DropReason::Retention, if is_idle { Files::Remove } else { Files::Spare });
        if is_idle {
            self.give_back();
        }
        Ok(())
    }

    fn drop_oldest(&mut self, count: usize, reason: DropReason, files: Files) {
        if count == 0 {
            return;
        }
        let oldest = self.core.view(|view| view.oldest());
        let gone: Vec<Segment> = self.core.change_view(|view| view.segments.drain(..count).collect());
        // What lies before the horizon was counted when that moved.
        let (first, end) = (gone[0].first.max(oldest), gone[count - 1].end);
        if first < end {
            self.core.dropped(first..=end.previous(), reason);
        }
        let may_be_spare =
            |segment: &&Segment| files == Files::Spare && self.spare.is_none() && segment.bytes <= self.segment_bytes();
        let spare = gone.iter().filter(may_be_spare).max_by_key(|segment| segment.bytes).copied();
        let spare = spare.filter(|segment| self.core.make_spare(segment));
        for segment in gone.iter().filter(|segment| Some(**segment) != spare) {
            self.core.remove_segment(segment);
        }
        self.core.forget_gone_shards();
        // One more sync for a whole segment; without it, removals that a power cut undoes would be counted again, and
        // a spare file's old name might come back when there is another head in it.
        let synced = self.core.around.disk.sync_dir(&self.core.dir);
        self.spare = self.spare.or(spare.map(|segment| segment.bytes));
        if spare.is_some() && synced.is_err() {
            self.drop_spare();
        }
        self.note_reserved();
    }

    pub(super) fn poison(&mut self, action: &'static str, error: &io::Error) -> CommitError {
        let path = self.core.path_of(self.active.first);
        let reason = format!("{action} {}: {error}", path.display());
        self.core.set_stopped(Some(&reason));
        self.core.tell(Event::Poisoned { stream: self.core.name().to_owned(), reason: reason.clone() });
        self.poisoned = Some(reason.clone());
        CommitError::Poisoned(reason)
    }

    /// After a failure, leaves the file that failed behind and goes on in a new one, if the disk lets it. Says what the
    /// failure was.
    pub(crate) fn recover_if_poisoned(&mut self) -> Option<String> {
        let reason = self.poisoned.clone()?;
        // Cutting is best effort: what lies behind the durable part has numbers that the next segment takes over,
        // and readers ignore such blocks.
        self.forget_unsynced();
        let _ = self.active.file.truncate(self.active.len);
        if self.replace_active().is_ok() {
            self.poisoned = None;
            self.full = None;
            self.core.set_stopped(None);
            self.core.tell(Event::Recovered { stream: self.core.name().to_owned() });
        }
        Some(reason)
    }

    /// After a failed sync nobody knows what is left of what was only written: it is lost, and told.
    fn forget_unsynced(&mut self) {
        if self.unsynced.take().is_none() {
            return;
        }
        let (end, bytes) = self.core.view(|view| {
            let active = view.segments.back().expect("never empty");
            (active.end, active.bytes)
        });
        (self.active.len, self.index_due) = (bytes, None);
        if end < self.logged {
            let lost = end..=self.logged.previous();
            self.core.damaged(self.active.first, bytes, "the disk failed before these records were synced", Some(lost));
        }
        (self.lost_before, self.logged) = (self.logged, end);
        // Their numbers are not given again: the next segment's head says so.
        self.core.set_reserved(self.core.reserved().max(self.next));
    }

    fn replace_active(&mut self) -> io::Result<()> {
        let definition = self.core.definition();
        let active = self.create_segment(&definition)?;
        // A segment without records had the name that its successor has now.
        if self.is_active_empty() {
            self.core.change_view(|view| _ = view.segments.pop_back());
        }
        self.install(active);
        Ok(())
    }

    fn rules(&self) -> Rules {
        let config = self.core.config();
        Rules {
            retention: config.retention,
            on_full: config.on_full,
            hold_undelivered: config.hold_undelivered,
            delivered: self.core.delivered(),
        }
    }

    pub(super) fn stamp(&self, now: crate::clock::Now) -> Stamp {
        self.core.around.time.stamp(now, self.newest_wall_ms)
    }

    fn is_active_empty(&self) -> bool {
        self.logged == self.active.first
    }

    fn is_active_old(&self) -> bool {
        self.core.around.time.age_at_least(self.active.created) > self.limits.age
    }

    /// How much one commit may take, so that no commit needs more than a segment's share of the quota.
    pub(crate) fn block_bytes_max(&self) -> usize {
        usize::try_from(self.segment_bytes()).unwrap_or(usize::MAX)
    }

    pub(super) fn segment_bytes(&self) -> u64 {
        (self.core.config().quota / SEGMENTS_PER_QUOTA)
            .clamp(SEGMENT_BYTES_MIN, self.limits.bytes.max(SEGMENT_BYTES_MIN))
    }
}
