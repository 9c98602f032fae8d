//! The one writer of a stream: commits blocks, rolls and drops segments, keeps checkpoints. Driven by the committer.

use std::{io, sync::Arc, time::Duration};

use super::{
    Segment, StreamCore,
    active::{Active, write_control},
    lock,
    retention::Rules,
};
use crate::{
    batch::{Batch, Run},
    catalogue::SealedSegment,
    clock::Stamp,
    disk::is_full,
    error::{Appended, AppendedRun},
    event::{DropReason, Event},
    segment::{BlockHeader, BlockKind, StreamDefinition, finish_block, pack_block, start_block, write_run},
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

/// A block before it is known where it goes.
struct Gathered {
    header: BlockHeader,
    /// Where each batch's records are.
    appended: Vec<Appended>,
    /// What each shard got: records, and keys and data in bytes.
    shards: Vec<(ShardIndex, u32, u64)>,
}

/// The writer's state.
pub(crate) struct StreamWriter {
    pub(super) core: Arc<StreamCore>,
    pub(super) limits: SegmentLimits,
    pub(super) active: Active,
    pub(super) next: SequenceNumber,
    /// An untrusted wall clock never goes behind this.
    pub(super) newest_wall_ms: u64,
    pub(super) control_written: Duration,
    pub(super) buffer: Vec<u8>,
    pub(super) poisoned: Option<String>,
    pub(super) full: Option<String>,
}

impl StreamWriter {
    pub(crate) fn core(&self) -> &Arc<StreamCore> {
        &self.core
    }

    /// Writes one block with all these batches and syncs it. Order within a shard is the order of the batches.
    pub(crate) fn commit(&mut self, batches: &[&Batch]) -> Result<Vec<Appended>, CommitError> {
        if let Some(reason) = &self.poisoned {
            return Err(CommitError::Poisoned(reason.clone()));
        }
        match self.try_commit(batches) {
            Ok(appended) => {
                if self.full.take().is_some() {
                    self.core.set_stopped(None);
                    self.core.tell(Event::RoomAgain { stream: self.core.name().to_owned() });
                }
                Ok(appended)
            }
            Err(CommitError::Full(reason)) => {
                if self.full.is_none() {
                    self.core.set_stopped(Some(&reason));
                    self.core.tell(Event::Full { stream: self.core.name().to_owned(), reason: reason.clone() });
                }
                self.full = Some(reason.clone());
                Err(CommitError::Full(reason))
            }
            Err(other) => Err(other),
        }
    }

    fn try_commit(&mut self, batches: &[&Batch]) -> Result<Vec<Appended>, CommitError> {
        let now = self.core.around.clock.now();
        let stamp = self.stamp(now);
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.clear();
        let gathered = self.gather(&mut buffer, batches, stamp);
        let outcome = self.write_block(&mut buffer, gathered.header, now.since_boot);
        let bytes = buffer.len() as u64;
        self.buffer = buffer;
        // One very large block must not keep its memory for ever.
        self.buffer.shrink_to(2 << 20);
        let block_at = outcome?;

        self.index(block_at, bytes);
        self.publish(gathered.shards.iter().map(|shard| u64::from(shard.1)).sum(), bytes, stamp);
        self.core.count_commit(bytes, gathered.shards.into_iter());
        self.core.wake_readers();
        Ok(gathered.appended)
    }

    /// Writes a gathered block durably, with a control block before it if one is due; says where in `buffer` it begins.
    fn write_block(
        &mut self,
        buffer: &mut Vec<u8>,
        header: BlockHeader,
        since_boot: Duration,
    ) -> Result<u64, CommitError> {
        let bytes = buffer.len() as u64;
        let too_large = self.active.len + bytes > self.segment_bytes();
        if !self.is_active_empty() && (too_large || self.is_active_old()) {
            self.roll()?;
        }
        self.room_under_quota(bytes)?;
        let (control, stamp) = (self.control_is_due(since_boot) || self.has_news_of_boots(), header.arrival);
        // Only now is it known which segment it goes to.
        finish_block(buffer, 0, header, self.active.salt);
        let (mut block_at, mut boots_told) = (0, self.active.boots_told);
        if control {
            let mut before = Vec::new();
            boots_told = self.write_control(&mut before, stamp);
            block_at = before.len() as u64;
            buffer.splice(0..0, before);
        }
        self.write_durably(buffer)?;
        if control {
            self.active.boots_told = boots_told;
            self.control_written = since_boot;
            lock(&self.core.checkpoints).moved = false;
        }
        Ok(block_at)
    }

    /// The block of all batches' records, by shard, compressed, all but its header.
    fn gather(&self, buffer: &mut Vec<u8>, batches: &[&Batch], stamp: Stamp) -> Gathered {
        let mut runs: Vec<(usize, &Run)> =
            batches.iter().enumerate().flat_map(|(i, batch)| batch.runs().iter().map(move |run| (i, run))).collect();
        runs.sort_by_key(|(_, run)| run.shard);
        let mut places: Vec<Vec<AppendedRun>> = vec![Vec::new(); batches.len()];
        let mut shards = Vec::new();
        let mut header = BlockHeader::new(BlockKind::Records, self.next, 0, stamp);
        let at = start_block(buffer);
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
        let mut packer = lock(&self.core.around.packer);
        pack_block(buffer, at, &mut header, self.core.config().compression, &mut packer);
        let in_load_order = |(batch, mut places): (&&Batch, Vec<AppendedRun>)| {
            places.sort_by_key(|place| batch.runs().iter().position(|run| run.shard == place.shard));
            Appended { runs: places }
        };
        Gathered { header, appended: batches.iter().zip(places).map(in_load_order).collect(), shards }
    }

    /// Writes and syncs `bytes` behind the durable part; poisons the stream unless the disk is merely full.
    fn write_durably(&mut self, bytes: &[u8]) -> Result<(), CommitError> {
        while let Err(error) = self.active.file.write_at(self.active.len, bytes) {
            if !is_full(&error) {
                return Err(self.poison("write to", &error));
            }
            // What was written of the block is cut off, so that nothing of it is ever taken for a record.
            if let Err(error) = self.active.file.truncate(self.active.len) {
                return Err(self.poison("cut", &error));
            }
            let reason = format!("the disk is full: {error}");
            if !self.make_room(bytes.len() as u64)? {
                return Err(CommitError::Full(reason));
            }
        }
        // A failed sync is never tried again: the system may have dropped the pages and say "ok" the second time.
        self.active.file.sync().map_err(|error| self.poison("sync", &error))
    }

    /// Makes the block just written visible to readers.
    fn publish(&mut self, records: u64, bytes: u64, stamp: Stamp) {
        self.next = self.next.plus(records);
        self.newest_wall_ms = stamp.wall_ms;
        self.active.len += bytes;
        let (next, len) = (self.next, self.active.len);
        self.core.change_view(|view| {
            view.next = next;
            let active = view.segments.back_mut().expect("the segment being written is always in the view");
            active.end = next;
            active.bytes = len;
            active.newest = stamp;
        });
    }

    fn index(&mut self, block_at: u64, bytes: u64) {
        self.active.since_index += bytes;
        if self.active.since_index >= INDEX_EVERY_BYTES.min(self.segment_bytes() / 8) {
            self.active.since_index = 0;
            let offset = self.active.len + block_at;
            self.core.around.catalogue.put_index(self.core.name(), self.next, self.active.first, offset);
        }
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
        self.save_checkpoints();
        let moved = lock(&self.core.checkpoints).moved;
        if self.poisoned.is_none() && (moved || self.owes_its_boot()) {
            let now = self.core.around.clock.now().since_boot;
            let _ = self.commit_control(now);
        }
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

    fn write_control(&self, out: &mut Vec<u8>, stamp: Stamp) -> u64 {
        write_control(&self.core, out, self.next, stamp, self.active.salt, self.active.boots_told)
    }

    fn commit_control(&mut self, now: Duration) -> Result<(), CommitError> {
        let stamp = self.stamp(self.core.around.clock.now());
        let mut buffer = Vec::new();
        let boots_told = self.write_control(&mut buffer, stamp);
        self.write_durably(&buffer)?;
        self.active.boots_told = boots_told;
        lock(&self.core.checkpoints).moved = false;
        self.control_written = now;
        let newest = self.core.view(|view| view.segments.back().map(|active| active.newest));
        self.publish(0, buffer.len() as u64, newest.unwrap_or(stamp));
        lock(&self.core.counters).stats.written_bytes += buffer.len() as u64;
        Ok(())
    }

    /// Seals the segment being written and begins the next one.
    fn roll(&mut self) -> Result<(), CommitError> {
        self.roll_as(&self.core.definition())
    }

    /// The same, and what the stream is from now on stands in the header of the new one.
    pub(super) fn roll_as(&mut self, definition: &StreamDefinition) -> Result<(), CommitError> {
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

    fn create_segment(&self, definition: &StreamDefinition) -> io::Result<Active> {
        Active::create(&self.core, definition, self.next, self.stamp(self.core.around.clock.now()))
    }

    fn install(&mut self, active: Active) {
        let segment = active.empty_segment();
        self.active = active;
        self.core.change_view(|view| view.segments.push_back(segment));
    }

    fn room_under_quota(&mut self, bytes: u64) -> Result<(), CommitError> {
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
        let rules = self.rules();
        match self.core.view(|view| rules.make_room(view.sealed(), bytes)) {
            Some(count) => {
                self.drop_oldest(count, DropReason::Quota);
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
        if (all || self.is_active_old()) && !self.is_active_empty() {
            self.roll()?;
        }
        let count = self.core.view(|view| expired(&mut view.sealed()));
        self.drop_oldest(count, DropReason::Retention);
        Ok(())
    }

    fn drop_oldest(&mut self, count: usize, reason: DropReason) {
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
        for segment in gone {
            self.core.remove_segment(&segment);
        }
        self.core.forget_gone_shards();
        // One more sync for a whole segment; without it, removals that a power cut undoes would be counted again.
        let _ = self.core.around.disk.sync_dir(&self.core.dir);
    }

    fn poison(&mut self, action: &'static str, error: &io::Error) -> CommitError {
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
        let _ = self.active.file.truncate(self.active.len);
        if self.replace_active().is_ok() {
            self.poisoned = None;
            self.full = None;
            self.core.set_stopped(None);
            self.core.tell(Event::Recovered { stream: self.core.name().to_owned() });
        }
        Some(reason)
    }

    fn replace_active(&mut self) -> io::Result<()> {
        let active = self.create_segment(&self.core.definition())?;
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

    fn stamp(&self, now: crate::clock::Now) -> Stamp {
        self.core.around.time.stamp(now, self.newest_wall_ms)
    }

    fn is_active_empty(&self) -> bool {
        self.next == self.active.first
    }

    fn is_active_old(&self) -> bool {
        self.core.around.time.age_at_least(self.active.created) > self.limits.age
    }

    /// How much one commit may take, so that no commit needs more than a segment's share of the quota.
    pub(crate) fn block_bytes_max(&self) -> usize {
        usize::try_from(self.segment_bytes()).unwrap_or(usize::MAX)
    }

    fn segment_bytes(&self) -> u64 {
        (self.core.config().quota / SEGMENTS_PER_QUOTA)
            .clamp(SEGMENT_BYTES_MIN, self.limits.bytes.max(SEGMENT_BYTES_MIN))
    }
}
