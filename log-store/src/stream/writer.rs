//! The one writer of a stream: commits blocks, rolls and drops segments, keeps checkpoints. Driven by the committer.

use std::{
    io::{self, IoSlice},
    iter::once,
    sync::Arc,
    time::Duration,
};

use super::{
    StreamCore,
    active::{Active, write_control},
    lock,
};
use crate::{
    batch::{Batch, Run},
    catalogue::SealedSegment,
    clock::Stamp,
    config::Durability,
    disk::is_full,
    error::{Appended, AppendedRun},
    event::Event,
    marks::Marks,
    segment::{
        BLOCK_HEADER_BYTES, BlockHeader, BlockKind, Codec, PADDING_BYTES_MAX, Payload, Prospects, StreamDefinition,
        Try, pack, padding, padding_max,
    },
    sequence::SequenceNumber,
    shard::ShardIndex,
};

/// An index entry is due after this many bytes of blocks, or after an eighth of a small segment.
const INDEX_EVERY_BYTES: u64 = 1 << 20;
/// A stream of a small quota still has this many segments to drop from.
const SEGMENTS_PER_QUOTA: u64 = 8;
const SEGMENT_BYTES_MIN: u64 = 64 << 10;
/// More than a segment's header and first control block take, unless there are hundreds of shards or marks.
pub(super) const SEGMENT_START_BYTES: u64 = 16 << 10;
/// What is written together at the most when records in memory are brought to the disk.
pub(super) const WRITE_BYTES_MAX: u64 = 4 << 20;
/// More than what stands before a run or a mark.
const PART_HEADER_BYTES_MAX: u64 = 20;

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

/// What was written but not synced.
#[derive(Debug, Clone, Copy)]
pub(super) struct Unsynced {
    /// Since the boot.
    since: Duration,
    /// Of its newest block.
    pub(super) newest: Stamp,
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
    pub(super) fn of_disk(bytes: u64, error: &io::Error) -> Self {
        Self { bytes, limit: format!("the full disk ({error})") }
    }
}

/// A block that was written, maybe behind a control block.
struct Written {
    /// Where it begins among the bytes.
    block_at: u64,
    /// All of them.
    bytes: u64,
}

/// More than these batches take as one block.
pub(crate) fn block_bytes(batches: &[&Batch]) -> u64 {
    let encoded: u64 = batches.iter().map(|batch| batch.encoded_bytes() as u64).sum();
    let parts: u64 = batches.iter().map(|batch| (batch.load().count() + batch.marks().len() + 1) as u64).sum();
    BLOCK_HEADER_BYTES as u64 + encoded + parts * PART_HEADER_BYTES_MAX
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
    pub(super) gap_before: SequenceNumber,
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
    pub(super) prospects: Prospects,
    pub(super) poisoned: Option<String>,
    pub(super) full: Option<String>,
    /// Whether the opening left copies of torn ends.
    pub(super) has_torn: bool,
    /// The highest revision of the definition that was ever written, or was to be.
    pub(super) revision_tried: u32,
}

impl StreamWriter {
    pub(crate) fn core(&self) -> &Arc<StreamCore> {
        &self.core
    }

    /// Writes one block with all these batches, durably as configured. Order within a shard is the order of the batches.
    pub(crate) fn commit(&mut self, batches: &[&Batch]) -> Result<Vec<Appended>, CommitError> {
        self.check_not_poisoned()?;
        let appended = self.try_commit(batches)?;
        self.has_room();
        Ok(appended)
    }

    pub(super) fn check_not_poisoned(&self) -> Result<(), CommitError> {
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

    /// Tells that there is room again, if there was none.
    pub(super) fn has_room(&mut self) {
        if self.full.take().is_some() {
            self.core.set_stopped(None);
            self.core.tell(Event::RoomAgain { stream: self.core.name().to_owned() });
        }
    }

    fn try_commit(&mut self, batches: &[&Batch]) -> Result<Vec<Appended>, CommitError> {
        // What was held under another configuration comes first.
        self.spill_all()?;
        let now = self.core.around.clock.now();
        let stamp = self.stamp(now);
        let mut marks = Marks::default();
        batches.iter().for_each(|batch| marks.change_all(batch.marks()));
        let mut payload = Payload::default();
        if !marks.is_empty() {
            payload.push_marks(&marks);
        }
        let (mut header, appended, shards) = self.gather(&mut payload, batches, stamp);
        header.marked = !marks.is_empty();
        let (first, end) = (header.first, header.end());
        let packed = self.pack(&payload, &mut header);
        let payload = packed.as_deref().map_or(payload, Payload::of);
        let stored_bytes = payload.len() as u64;
        let Written { block_at, bytes } = self.write_block(&payload, header, now.since_boot)?;

        lock(&self.core.marks).write(marks);
        self.active.since_index += bytes;
        // Without records, a segment's newest record stays what it was, and its number is not that of a place.
        let newest = if first < end { stamp } else { self.newest_record(stamp) };
        if first < end {
            self.index(first, block_at);
        }
        (self.next, self.logged) = (end, end);
        self.advance(bytes, stamp);
        self.core.count_records(shards.into_iter());
        self.core.count_written(stored_bytes, bytes - stored_bytes);
        match self.core.config().durability {
            Durability::Interval(_) => _ = self.unsynced.get_or_insert(Unsynced { since: now.since_boot, newest }),
            Durability::Sync | Durability::MemoryFirst { .. } => {
                self.publish(newest);
                self.core.wake_readers();
            }
        }
        if let Some(unsynced) = &mut self.unsynced {
            unsynced.newest = newest;
        }
        Ok(appended)
    }

    /// The payload compressed as configured, if that is worth it; the header then says so.
    fn pack(&mut self, payload: &Payload<'_>, header: &mut BlockHeader) -> Option<Vec<u8>> {
        let codec = self.core.config().compression;
        if codec == Codec::None {
            return None;
        }
        let tried = self.prospects.next_try();
        if tried == Try::Nothing {
            return None;
        }
        let mut plain = std::mem::take(&mut self.buffer);
        let mut packer = lock(&self.core.around.packer);
        let mut worth_it = true;
        if tried == Try::Sample {
            plain.clear();
            payload.write_sample(&mut plain);
            worth_it = packer.pack(codec, &plain).is_some();
        }
        let packed = worth_it.then(|| {
            plain.clear();
            payload.write(&mut plain);
            pack(&plain, header, codec, &mut packer).map(<[u8]>::to_vec)
        });
        let packed = packed.flatten();
        self.prospects.learn(packed.is_some());
        // One very large block must not keep its memory for ever.
        plain.shrink_to(2 << 20);
        self.buffer = plain;
        packed
    }

    /// Writes a gathered block, with a control block before it if one is due.
    fn write_block(
        &mut self,
        payload: &Payload<'_>,
        mut header: BlockHeader,
        since_boot: Duration,
    ) -> Result<Written, CommitError> {
        let bytes = (BLOCK_HEADER_BYTES + payload.len()) as u64;
        let most = bytes + padding_max(bytes);
        self.roll_if_due(most)?;
        self.room_under_quota(self.active.growth(most))?;
        self.close_gap(header.first, header.arrival)?;
        // Only now is it known which segment it goes to, and where.
        let control = self.control_is_due(since_boot) || self.has_news_of_boots();
        let (mut head, mut boots_told) = (Vec::new(), self.active.boots_told);
        if control {
            let mut control = BlockHeader::new(BlockKind::Control, header.first, 0, header.arrival);
            control.together = self.unsynced.is_some();
            boots_told = write_control(&self.core, &mut head, control, self.active.salt, boots_told);
        }
        let block_at = head.len() as u64;
        header.padding = padding(self.active.len + block_at, bytes);
        header.together = self.unsynced.is_some();
        let padding = &[0; PADDING_BYTES_MAX][..header.padding.into()];
        head.extend_from_slice(&header.before(payload, self.active.salt));
        let parts = payload.parts().map(|part| IoSlice::new(part.bytes));
        let mut parts: Vec<_> = once(IoSlice::new(&head)).chain(parts).chain(once(IoSlice::new(padding))).collect();
        let bytes = parts.iter().map(|part| part.len() as u64).sum();
        self.write(bytes, &mut parts)?;
        match self.core.config().durability {
            Durability::Interval(_) => {}
            Durability::Sync | Durability::MemoryFirst { .. } => self.sync_file()?,
        }
        if control {
            (self.active.boots_told, self.active.has_control) = (boots_told, true);
            self.control_written = since_boot;
            lock(&self.core.checkpoints).moved = false;
        }
        Ok(Written { block_at, bytes })
    }

    pub(super) fn roll_if_due(&mut self, bytes: u64) -> Result<(), CommitError> {
        let too_large = self.active.len + bytes > self.segment_bytes();
        // Marks without records may fill a segment too: the next one has them at its head, under the same name.
        let only_marks = too_large && self.active.len > self.segment_bytes() / 2;
        if only_marks || !self.is_active_empty() && (too_large || self.is_active_old()) {
            self.spare_delivered();
            self.roll()?;
        }
        Ok(())
    }

    /// Appends the runs of all batches' records to a payload, by shard.
    pub(super) fn gather<'a>(
        &self,
        payload: &mut Payload<'a>,
        batches: &[&'a Batch],
        stamp: Stamp,
    ) -> (BlockHeader, Vec<Appended>, Vec<(ShardIndex, u32, u64)>) {
        let mut runs: Vec<(usize, &'a Run)> =
            batches.iter().enumerate().flat_map(|(i, &batch)| batch.runs().iter().map(move |run| (i, run))).collect();
        runs.sort_by_key(|(_, run)| run.shard);
        let mut places: Vec<Vec<AppendedRun>> = vec![Vec::new(); batches.len()];
        let mut shards = Vec::new();
        let mut header = BlockHeader::new(BlockKind::Records, self.next, 0, stamp);
        let mut next = self.next;
        for group in runs.chunk_by(|(_, a), (_, b)| a.shard == b.shard) {
            let shard = group[0].1.shard;
            let records = group.iter().map(|(_, run)| run.records).sum();
            header.shard_bits |= payload.push_run(shard, records, group.iter().map(|(_, run)| run.part()));
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
        self.write(bytes.len() as u64, &mut [IoSlice::new(bytes)])?;
        self.sync_file()
    }

    fn write(&mut self, bytes: u64, parts: &mut [IoSlice<'_>]) -> Result<(), CommitError> {
        if let Err(error) = self.active.file.write_parts_at(self.active.len, parts) {
            if !is_full(&error) {
                return Err(self.poison("write to", &error));
            }
            // What was written of the block is cut off, durably, so that nothing of it is ever taken for a record: if only its
            // padding found no room, all of it is there.
            if let Err(error) = self.active.file.truncate(self.active.len).and_then(|()| self.active.file.sync()) {
                return Err(self.poison("cut", &error));
            }
            self.active.file_len = self.active.len;
            return Err(CommitError::DiskFull(Shortage::of_disk(bytes, &error)));
        }
        // Whoever is told of what was committed before works while this is synced.
        self.core.around.answers.hand_over();
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
        lock(&self.core.marks).publish();
        if let Some((first, offset)) = self.index_due.take() {
            let marks = lock(&self.core.marks).take_unsaved();
            self.core.around.catalogue.put_index(self.core.name(), first, self.active.first, offset, &marks);
        }
        let (next, logged, len, unused) = (self.next, self.logged, self.active.len, self.unused());
        self.core.change_view(|view| {
            view.unused = unused;
            view.next = next;
            let active = view.segments.back_mut().expect("the segment being written is always in the view");
            active.end = logged;
            active.bytes = len;
            active.newest = newest;
        });
    }

    /// Notes where the block that begins with `first` lies, once in a while.
    pub(super) fn index(&mut self, first: SequenceNumber, block_at: u64) {
        if self.active.since_index >= INDEX_EVERY_BYTES.min(self.segment_bytes() / 8) {
            self.active.since_index = 0;
            let offset = self.active.len + block_at;
            // An opening reads from there on, so what lies before it must be synced by then.
            self.index_due = Some((first, offset));
        }
    }

    /// When something is due that cannot wait for the next tick, since the boot.
    pub(crate) fn due(&self) -> Option<Duration> {
        [self.sync_due(), self.spill_due()].into_iter().flatten().min()
    }

    fn sync_due(&self) -> Option<Duration> {
        let since = self.unsynced.as_ref()?.since;
        match self.core.config().durability {
            Durability::Interval(interval) => Some(since + interval),
            Durability::Sync | Durability::MemoryFirst { .. } => Some(since),
        }
    }

    /// Syncs what was only written, if that is due. What fails is told by the next commit that meets it.
    pub(crate) fn sync_if_due(&mut self) {
        let now = self.core.around.clock.now().since_boot;
        if self.sync_due().is_some_and(|due| due <= now) {
            let _ = self.sync_written();
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
        if self.spill_all().is_err() {
            self.core.refuse_held();
        }
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
        // What is missing behind this stop is damage, and no torn end.
        let end = self.core.view(|view| view.segments.back().expect("never empty").end);
        self.core.around.catalogue.put_end(self.core.name(), end);
        self.give_back();
    }

    /// Seals the segment being written and begins the next one.
    pub(super) fn roll(&mut self) -> Result<(), CommitError> {
        self.roll_as(&self.core.definition())
    }

    /// The same, and what the stream is from now on stands in the header of the new one.
    pub(super) fn roll_as(&mut self, definition: &StreamDefinition) -> Result<(), CommitError> {
        self.sync_written()?;
        let active =
            self.create_segment(definition).map_err(|error| match is_full(&error) && !self.is_active_empty() {
                true => CommitError::DiskFull(Shortage::of_disk(SEGMENT_START_BYTES, &error)),
                false => self.poison("create", &error),
            })?;
        let sealed = self.core.view(|view| *view.segments.back().expect("never empty"));
        if !sealed.is_empty() {
            let entry = SealedSegment { last: sealed.end.previous(), bytes: sealed.bytes, newest: sealed.newest };
            self.core.around.catalogue.put_segment(self.core.name(), sealed.first, &entry);
        }
        self.install(active);
        Ok(())
    }

    pub(super) fn create_segment(&mut self, definition: &StreamDefinition) -> io::Result<Active> {
        let has_spare = self.spare.take().is_some();
        let created = self.stamp(self.core.around.clock.now());
        Active::create(&self.core, definition, self.logged, created, has_spare)
    }

    /// From now on it is written to this segment.
    pub(super) fn install(&mut self, active: Active) {
        let segment = active.empty_segment();
        self.active.cut_unused();
        self.active = active;
        // In one step: readers must never see a stream without a segment.
        self.core.change_view(|view| {
            // One without records had the name that its successor has now.
            if view.segments.back().is_some_and(|last| last.is_empty()) {
                view.segments.pop_back();
            }
            view.segments.push_back(segment);
        });
        self.note_unused();
    }

    pub(super) fn stamp(&self, now: crate::clock::Now) -> Stamp {
        self.core.around.time.stamp(now, self.newest_wall_ms)
    }

    pub(super) fn is_active_empty(&self) -> bool {
        self.logged == self.active.first
    }

    pub(super) fn is_active_old(&self) -> bool {
        self.core.around.time.age_at_least(self.active.created) > self.limits.age
    }

    /// How much one commit may take, so that no commit needs more than a segment's share of the quota.
    pub(crate) fn block_bytes_max(&self) -> usize {
        usize::try_from(self.segment_bytes()).unwrap_or(usize::MAX)
    }

    /// How large a segment becomes.
    pub(crate) fn segment_bytes(&self) -> u64 {
        (self.core.quota() / SEGMENTS_PER_QUOTA).clamp(SEGMENT_BYTES_MIN, self.limits.bytes.max(SEGMENT_BYTES_MIN))
    }
}
