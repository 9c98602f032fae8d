//! The one writer of a stream: commits blocks, rolls and drops segments, keeps checkpoints. Driven by the committer.

use std::{io, sync::Arc, time::Duration};

use super::{
    Segment, StreamCore, View,
    active::{Active, write_control},
    lock,
    retention::{MayGo, Rules},
};
use crate::{
    batch::{Batch, Run},
    catalogue::SealedSegment,
    clock::Stamp,
    disk::is_full,
    error::{Appended, AppendedRun},
    event::{DropReason, Event},
    segment::{BLOCK_HEADER_BYTES, BlockHeader, BlockKind, finish_block, start_block, write_run},
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
/// Removing opens them, and a process may only have so many files open.
const REMOVED_AT_ONCE: usize = 32;
/// More than a run's header takes.
const RUN_HEADER_BYTES_MAX: u64 = 20;

/// Sizes and ages of segments.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SegmentLimits {
    pub(crate) bytes: u64,
    pub(crate) age: Duration,
}

/// Why a commit did not happen. Nothing of it is on the disk.
#[derive(Debug)]
pub(crate) enum CommitError {
    /// There is no room under the stream's quota, for now.
    Full(String),
    /// The disk has no room, for now, unless something goes.
    DiskFull(Shortage),
    /// It is larger than the stream's whole quota.
    NeverFits(String),
    /// The disk failed; the stream is poisoned.
    Poisoned(String),
}

/// Room that is missing in the data directory.
#[derive(Debug)]
pub(crate) struct Shortage {
    /// How many bytes have to go before it is worth trying again.
    pub(crate) bytes: u64,
    /// Which limit, with figures.
    pub(crate) limit: String,
}

impl Shortage {
    fn of_disk(bytes: u64, error: &io::Error) -> Self {
        Self { bytes, limit: format!("the full disk ({error})") }
    }
}

/// More than these batches take as one block.
pub(crate) fn block_bytes(batches: &[&Batch]) -> u64 {
    let encoded: u64 = batches.iter().map(|batch| batch.encoded_bytes() as u64).sum();
    let runs: u64 = batches.iter().map(|batch| batch.load().count() as u64).sum();
    BLOCK_HEADER_BYTES as u64 + encoded + runs * RUN_HEADER_BYTES_MAX
}

/// The writer's state.
pub(crate) struct StreamWriter {
    pub(super) core: Arc<StreamCore>,
    pub(super) limits: SegmentLimits,
    pub(super) active: Active,
    pub(super) next: SequenceNumber,
    /// Arrival times never run backwards, whatever the wall clock does.
    pub(super) newest_wall_ms: u64,
    pub(super) control_written: Duration,
    pub(super) buffer: Vec<u8>,
    pub(super) poisoned: Option<String>,
    pub(super) full: Option<String>,
    /// Whether the opening left copies of torn ends.
    pub(super) has_torn: bool,
}

impl StreamWriter {
    pub(crate) fn core(&self) -> &Arc<StreamCore> {
        &self.core
    }

    /// Writes one block with all these batches and syncs it. Order within a shard is the order of the batches.
    pub(crate) fn commit(&mut self, batches: &[&Batch]) -> Result<Vec<Appended>, CommitError> {
        self.check_not_poisoned()?;
        let appended = self.try_commit(batches)?;
        if self.full.take().is_some() {
            self.core.set_stopped(None);
            self.core.tell(Event::RoomAgain { stream: self.core.name().to_owned() });
        }
        Ok(appended)
    }

    fn check_not_poisoned(&self) -> Result<(), CommitError> {
        self.poisoned.as_ref().map_or(Ok(()), |reason| Err(CommitError::Poisoned(reason.clone())))
    }

    /// Whether it has found no room, and not written since.
    pub(crate) fn is_full(&self) -> bool {
        self.full.is_some()
    }

    /// Notes that there is no room and that nothing goes for it; told once until a commit succeeds.
    pub(crate) fn note_full(&mut self, reason: &str) {
        if self.full.is_none() {
            self.core.tell(Event::Full { stream: self.core.name().to_owned(), reason: reason.to_owned() });
        }
        self.core.set_stopped(Some(reason));
        self.full = Some(reason.to_owned());
    }

    fn try_commit(&mut self, batches: &[&Batch]) -> Result<Vec<Appended>, CommitError> {
        let now = self.core.around.clock.now();
        let block_bytes = block_bytes(batches);
        let too_large = self.active.len + block_bytes > self.segment_bytes();
        if !self.is_active_empty() && (too_large || self.is_active_old()) {
            self.roll()?;
        }
        self.room_under_quota(block_bytes)?;

        let stamp = self.stamp(now);
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.clear();
        let control = self.control_is_due(now.since_boot);
        if control {
            write_control(&self.core, &mut buffer, self.next, stamp, self.active.salt);
        }
        let at = buffer.len();
        let (appended, shards) = self.write_records(&mut buffer, batches, stamp);
        let outcome = self.write_durably(&buffer);
        let bytes = buffer.len() as u64;
        self.buffer = buffer;
        // One very large block must not keep its memory for ever.
        self.buffer.shrink_to(2 << 20);
        outcome?;

        if control {
            self.control_written = now.since_boot;
            lock(&self.core.checkpoints).moved = false;
        }
        self.index(at as u64, bytes);
        self.publish(shards.iter().map(|shard| u64::from(shard.1)).sum(), bytes, stamp);
        self.core.count_commit(bytes, shards.into_iter());
        self.core.wake_readers();
        Ok(appended)
    }

    /// The block of all batches' records, by shard; says where each batch's records are, and what each shard got.
    fn write_records(
        &self,
        buffer: &mut Vec<u8>,
        batches: &[&Batch],
        stamp: Stamp,
    ) -> (Vec<Appended>, Vec<(ShardIndex, u32, u64)>) {
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
                places[*batch].push(AppendedRun { shard, first: next, records: run.records });
                next = next.plus(u64::from(run.records));
            }
            shards.push((shard, records, group.iter().map(|(_, run)| run.payload_bytes).sum()));
        }
        finish_block(buffer, at, header, self.active.salt);
        let in_load_order = |(batch, mut places): (&&Batch, Vec<AppendedRun>)| {
            places.sort_by_key(|place| batch.runs().iter().position(|run| run.shard == place.shard));
            Appended { runs: places }
        };
        (batches.iter().zip(places).map(in_load_order).collect(), shards)
    }

    /// Writes and syncs `bytes` behind the durable part; poisons the stream unless the disk is merely full.
    fn write_durably(&mut self, bytes: &[u8]) -> Result<(), CommitError> {
        if let Err(error) = self.active.file.write_at(self.active.len, bytes) {
            if !is_full(&error) {
                return Err(self.poison("write to", &error));
            }
            // What was written of the block is cut off, so that nothing of it is ever taken for a record.
            if let Err(error) = self.active.file.truncate(self.active.len) {
                return Err(self.poison("cut", &error));
            }
            return Err(CommitError::DiskFull(Shortage::of_disk(bytes.len() as u64, &error)));
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
            if self.control_is_due(now) {
                let _ = self.commit_control(now);
            }
        }
        flush
    }

    /// Brings everything to the disk that a reopening would otherwise repeat.
    pub(crate) fn close(&mut self) {
        self.save_checkpoints();
        let moved = lock(&self.core.checkpoints).moved;
        if self.poisoned.is_none() && moved {
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
        !unsaved.is_empty()
    }

    fn control_is_due(&self, now: Duration) -> bool {
        lock(&self.core.checkpoints).moved && now.saturating_sub(self.control_written) >= CONTROL_EVERY
    }

    fn commit_control(&mut self, now: Duration) -> Result<(), CommitError> {
        let stamp = self.stamp(self.core.around.clock.now());
        let mut buffer = Vec::new();
        write_control(&self.core, &mut buffer, self.next, stamp, self.active.salt);
        self.write_durably(&buffer)?;
        lock(&self.core.checkpoints).moved = false;
        self.control_written = now;
        let newest = self.core.view(|view| view.segments.back().map(|active| active.newest));
        self.publish(0, buffer.len() as u64, newest.unwrap_or(stamp));
        lock(&self.core.counters).stats.written_bytes += buffer.len() as u64;
        Ok(())
    }

    /// Seals the segment being written and begins the next one.
    fn roll(&mut self) -> Result<(), CommitError> {
        let active = self.create_segment().map_err(|error| match is_full(&error) {
            true => CommitError::DiskFull(Shortage::of_disk(SEGMENT_START_BYTES, &error)),
            false => self.poison("create", &error),
        })?;
        let sealed = self.core.view(|view| *view.segments.back().expect("never empty"));
        let catalogue = &self.core.around.catalogue;
        let entry = SealedSegment { last: sealed.end.previous(), bytes: sealed.bytes, newest: sealed.newest };
        catalogue.put_segment(self.core.name(), sealed.first, &entry);
        self.install(active);
        Ok(())
    }

    fn create_segment(&self) -> io::Result<Active> {
        Active::create(&self.core, self.next, self.stamp(self.core.around.clock.now()))
    }

    fn install(&mut self, active: Active) {
        let segment = active.empty_segment();
        self.active = active;
        self.core.change_view(|view| view.segments.push_back(segment));
    }

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
        // What expired may be enough.
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

    /// Drops the oldest segments to free `bytes`, the one being written last, as far as they may go. Says how many bytes
    /// it freed. `limit` is the limit of the data directory that wants the room.
    pub(crate) fn make_room(&mut self, bytes: u64, may_go: MayGo, limit: Option<&str>) -> u64 {
        let rules = self.rules();
        let sealed = self.core.view(|view| rules.for_room(view.sealed(), bytes, may_go));
        let (mut count, mut freed) = sealed;
        if freed < bytes && !self.is_active_empty() {
            let all =
                self.core.view(|view| rules.for_room(view.segments.iter(), bytes, may_go).0 == view.segments.len());
            // A full disk may have no room for the segment that takes its place.
            if all && self.poisoned.is_none() && self.roll().is_ok() {
                (count, freed) = self.core.view(|view| rules.for_room(view.sealed(), bytes, may_go));
            }
        }
        self.drop_oldest(count, DropReason::Quota, limit);
        freed
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
    fn expire(&mut self) -> Result<(), CommitError> {
        let (rules, boot, now) = (self.rules(), self.core.around.boot, self.core.around.clock.now());
        let expired = |segments: &mut dyn Iterator<Item = &Segment>| rules.expired(segments, boot, now);
        // The last segment of an idle stream goes too: an empty one takes its place and keeps the numbering.
        let all = self.core.view(|view| view.segments.iter().all(|segment| rules.is_past(segment, boot, now)));
        if (all || self.is_active_old()) && !self.is_active_empty() {
            self.roll()?;
        }
        let count = self.core.view(|view| expired(&mut view.sealed()));
        self.drop_oldest(count, DropReason::Retention, None);
        Ok(())
    }

    fn drop_oldest(&mut self, count: usize, reason: DropReason, limit: Option<&str>) {
        if count == 0 {
            return;
        }
        let gone: Vec<Segment> = self.core.change_view(|view| view.segments.drain(..count).collect());
        let (first, end) = (gone[0].first, gone[count - 1].end);
        if first < end {
            self.core.dropped(first..=end.previous(), reason, limit.map(str::to_owned));
        }
        for some in gone.chunks(REMOVED_AT_ONCE) {
            self.remove_segments(some);
        }
    }

    fn remove_segments(&self, gone: &[Segment]) {
        let disk = &self.core.around.disk;
        let remove = |segment: &Segment| {
            let file = disk.open(&self.core.path_of(segment.first)).ok();
            // One that could not be removed stays whole: the next opening may have nothing else to go by.
            file.filter(|_| self.core.remove_segment(segment))
        };
        let removed: Vec<_> = gone.iter().filter_map(remove).collect();
        // One more sync for a whole segment; without it, removals that a power cut undoes would be counted again.
        if disk.sync_dir(&self.core.dir).is_ok() {
            // A reader that stands still in one of them would keep its room taken for as long.
            for file in removed {
                let _ = file.truncate(0);
            }
        }
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
        let active = self.create_segment()?;
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
            keep_delivered: config.keep_delivered,
            delivered: self.core.delivered(),
        }
    }

    fn stamp(&self, now: crate::clock::Now) -> Stamp {
        let stamp = Stamp::new(self.core.around.boot, now);
        Stamp { wall_ms: stamp.wall_ms.max(self.newest_wall_ms), ..stamp }
    }

    fn is_active_empty(&self) -> bool {
        self.next == self.active.first
    }

    fn is_active_old(&self) -> bool {
        self.active.created.age_at_least(self.core.around.boot, self.core.around.clock.now()) > self.limits.age
    }

    /// How much one commit may take, so that no commit needs more than a segment's share of the quota.
    pub(crate) fn block_bytes_max(&self) -> usize {
        usize::try_from(self.segment_bytes()).unwrap_or(usize::MAX)
    }

    fn segment_bytes(&self) -> u64 {
        (self.core.quota() / SEGMENTS_PER_QUOTA).clamp(SEGMENT_BYTES_MIN, self.limits.bytes.max(SEGMENT_BYTES_MIN))
    }
}
