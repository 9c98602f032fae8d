//! Records that wait in memory, because they may be delivered before they have to be written.
//!
//! They have their numbers, and cursors read them. Whoever appended them is told when all consumers are done with them, or
//! when they were written, oldest first. So the log's files hold some records in a row, and none between: for those there
//! is an [`Unwritten`](crate::segment::BlockKind::Unwritten) block.

use std::{collections::VecDeque, io, sync::Arc, time::Duration};

use super::{CommitError, StreamCore, StreamWriter, lock};
use crate::{
    batch::Batch,
    clock::{Arrival, Now, Stamp},
    config::Durability,
    cursor::decode,
    error::{Appended, Error},
    queue::Entry,
    record::Record,
    segment::{
        BLOCK_HEADER_BYTES, BlockHeader, BlockKind, Payload, finish_block, pack_block, start_block, write_absent,
    },
    sequence::SequenceNumber,
    shard::ShardIndex,
};

/// Batches that come within this time share a block, so that it compresses well; its records have one arrival time.
const GATHER: Duration = Duration::from_millis(100);
/// And up to this size.
const BLOCK_BYTES: usize = 256 << 10;
/// So many numbers are reserved at a time: a power cut costs at most so many numbers, and no record.
const RESERVED: u64 = 1 << 20;

/// What waits in memory, oldest first.
#[derive(Default)]
pub(crate) struct Held {
    blocks: VecDeque<HeldBlock>,
}

/// A block that is not written yet.
struct HeldBlock {
    header: BlockHeader,
    /// Room for the header, and the plain payload.
    image: Vec<u8>,
    /// Since the boot.
    since: Duration,
    waiting: Vec<(Entry, Appended)>,
}

impl Held {
    pub(super) fn bytes(&self) -> usize {
        self.blocks.iter().map(|block| block.image.len()).sum()
    }

    /// The first record.
    pub(super) fn first(&self) -> Option<SequenceNumber> {
        self.blocks.front().map(|block| block.header.first)
    }

    /// Decodes the first block that has something from `from` on; gives the number behind it.
    pub(crate) fn read(
        &self,
        from: SequenceNumber,
        shard: Option<ShardIndex>,
        arrived: impl FnOnce(Stamp) -> Arrival,
        out: &mut VecDeque<Arc<Record>>,
    ) -> io::Result<Option<SequenceNumber>> {
        let Some(block) = self.blocks.iter().find(|block| block.header.end() > from) else { return Ok(None) };
        let (header, payload) = (&block.header, &block.image[BLOCK_HEADER_BYTES..]);
        decode(payload, header, arrived(header.arrival), from, shard, out).map_err(io::Error::other)?;
        Ok(Some(block.header.end()))
    }
}

impl StreamCore {
    /// Refuses what waits in memory, because the stream is deleted.
    pub(super) fn refuse_held(&self) {
        let held = std::mem::take(&mut *lock(&self.held));
        let waiting = held.blocks.into_iter().flat_map(|block| block.waiting);
        self.around.answers.refuse(waiting.map(|(entry, _)| entry).collect(), || Error::Closed);
    }
}

impl StreamWriter {
    /// How records wait in memory, if they may.
    pub(crate) fn memory_first(&self) -> Option<(Duration, usize)> {
        match self.core.config().durability {
            Durability::MemoryFirst { spill_after, memory_bytes } => Some((spill_after, memory_bytes)),
            Durability::Sync | Durability::Interval(_) => None,
        }
    }

    pub(crate) fn now(&self) -> Now {
        self.core.around.clock.now()
    }

    /// Numbers the records of these entries and keeps them in memory. After [`Self::reserve`].
    pub(crate) fn hold(&mut self, entries: Vec<Entry>) {
        let now = self.core.around.clock.now();
        let stamp = self.stamp(now);
        let mut image = Vec::new();
        start_block(&mut image);
        let batches: Vec<&Batch> = entries.iter().map(|entry| &entry.batch).collect();
        let mut payload = Payload::default();
        let (added, appended, shards) = self.gather(&mut payload, &batches, stamp);
        payload.write(&mut image);
        let waiting: Vec<_> = entries.into_iter().zip(appended).collect();
        {
            let mut held = lock(&self.core.held);
            match held.blocks.back_mut() {
                Some(block)
                    if now.since_boot.saturating_sub(block.since) < GATHER
                        && block.header.end() == added.first
                        && block.image.len() + image.len() < BLOCK_BYTES =>
                {
                    block.header.records += added.records;
                    block.header.shard_bits |= added.shard_bits;
                    block.image.extend_from_slice(&image[BLOCK_HEADER_BYTES..]);
                    block.waiting.extend(waiting);
                }
                _ => held.blocks.push_back(HeldBlock { header: added.clone(), image, since: now.since_boot, waiting }),
            }
        }
        self.next = added.end();
        self.newest_wall_ms = stamp.wall_ms;
        let next = self.next;
        self.core.change_view(|view| view.next = next);
        self.core.count_records(shards.into_iter());
        self.core.wake_readers();
    }

    /// Tells who waits for records that every consumer is done with by now; they are never written.
    pub(crate) fn release_delivered(&mut self) {
        let Some(delivered) = self.core.delivered() else { return };
        let mut done = Vec::new();
        {
            let mut held = lock(&self.core.held);
            while held.blocks.front().is_some_and(|block| block.header.end() <= delivered.next()) {
                done.extend(held.blocks.pop_front());
            }
        }
        if done.is_empty() {
            return;
        }
        let records = done.iter().map(|block| u64::from(block.header.records)).sum::<u64>();
        lock(&self.core.counters).stats.unwritten += records;
        self.answer(done);
    }

    /// Tells who waits for these records that they are safe.
    fn answer(&self, done: Vec<HeldBlock>) {
        let waiting = done.into_iter().flat_map(|block| block.waiting);
        self.core.around.answers.give(waiting.map(|(entry, appended)| (entry, Ok(appended))));
    }

    /// When the next record has waited in memory long enough, since the boot.
    pub(super) fn spill_due(&self) -> Option<Duration> {
        let oldest = lock(&self.core.held).blocks.front().map(|block| block.since)?;
        // Also what was held under another configuration.
        Some(oldest + self.memory_first().map_or(Duration::ZERO, |(spill_after, _)| spill_after))
    }

    /// How many bytes have to be written by now, at most, because they have waited long enough or are too much together;
    /// `None` if there are none. `only_if_too_much` leaves out what has waited long enough.
    pub(crate) fn due_to_spill(&self, now: Now, only_if_too_much: bool) -> Option<u64> {
        let count = self.blocks_to_spill(now, only_if_too_much);
        let held = lock(&self.core.held);
        let bytes: u64 = held.blocks.iter().take(count).map(|block| block.image.len() as u64).sum();
        (count > 0).then_some(bytes)
    }

    fn blocks_to_spill(&self, now: Now, only_if_too_much: bool) -> usize {
        let (spill_after, memory_bytes) = self.memory_first().unwrap_or((Duration::ZERO, 0));
        let held = lock(&self.core.held);
        if held.bytes() > memory_bytes {
            held.blocks.len()
        } else if only_if_too_much {
            0
        } else {
            held.blocks.iter().take_while(|block| now.since_boot >= block.since + spill_after).count()
        }
    }

    /// Writes what has waited long enough, and everything if there is too much of it.
    pub(crate) fn spill(&mut self, now: Now) -> Result<(), CommitError> {
        self.spill_oldest(self.blocks_to_spill(now, false))
    }

    /// Writes everything that waits.
    pub(crate) fn spill_all(&mut self) -> Result<(), CommitError> {
        self.release_delivered();
        let count = lock(&self.core.held).blocks.len();
        self.spill_oldest(count)
    }

    fn spill_oldest(&mut self, mut count: usize) -> Result<(), CommitError> {
        if count == 0 {
            return Ok(());
        }
        while count > 0 {
            self.check_not_poisoned()?;
            match self.spill_some(count) {
                Ok(written) => count -= written,
                Err(CommitError::NeverFits(reason)) => {
                    // The oldest one is larger than the whole quota.
                    let block = lock(&self.core.held).blocks.pop_front().expect("some were to be written");
                    let full = || Error::Full { stream: self.core.name().to_owned(), reason: reason.clone() };
                    let entries = block.waiting.into_iter().map(|(entry, _)| entry).collect();
                    self.core.around.answers.refuse(entries, full);
                    count -= 1;
                }
                Err(error) => return Err(error),
            }
        }
        self.has_room();
        Ok(())
    }

    /// Writes the oldest blocks, at most `count`, as many as fit into the segment; says how many.
    fn spill_some(&mut self, count: usize) -> Result<usize, CommitError> {
        let config = self.core.config();
        let limit = self.segment_bytes();
        let (mut packed, mut bytes) = (Vec::new(), BLOCK_HEADER_BYTES as u64);
        {
            let held = lock(&self.core.held);
            let mut packer = lock(&self.core.around.packer);
            for block in held.blocks.iter().take(count) {
                let (mut image, mut header) = (block.image.clone(), block.header.clone());
                pack_block(&mut image, 0, &mut header, config.compression, &mut packer);
                if !packed.is_empty() && bytes + image.len() as u64 > limit.min(super::writer::WRITE_BYTES_MAX) {
                    break;
                }
                bytes += image.len() as u64;
                packed.push((header, image));
            }
        }
        self.roll_if_due(bytes)?;
        self.room_under_quota(self.active.growth(bytes))?;
        let oldest = &packed.first().expect("at least one").0;
        self.close_gap(oldest.first, oldest.arrival)?;
        let mut buffer = Vec::with_capacity(usize::try_from(bytes).unwrap_or(0));
        let mut block_at = 0;
        for (header, image) in &packed {
            block_at = buffer.len();
            buffer.extend_from_slice(image);
            let mut header = header.clone();
            header.together = block_at > 0 || self.unsynced.is_some();
            finish_block(&mut buffer, block_at, header, self.active.salt);
        }
        self.write_durably(&buffer)?;
        let newest = &packed.last().expect("at least one").0;
        self.active.since_index += buffer.len() as u64;
        self.index(newest.first, block_at as u64);
        self.logged = newest.end();
        let newest = newest.arrival;
        self.advance(buffer.len() as u64, newest);
        self.publish(newest);
        let stored: usize = packed.iter().map(|(_, image)| image.len() - BLOCK_HEADER_BYTES).sum();
        self.core.count_written(stored as u64, (buffer.len() - stored) as u64);
        let done: Vec<HeldBlock> = lock(&self.core.held).blocks.drain(..packed.len()).collect();
        self.core.wake_readers();
        let written = done.len();
        self.answer(done);
        Ok(written)
    }

    /// Writes and syncs a block for the numbers between what is in the log and `first`, if there are any. By itself: torn
    /// together with the records behind it, it would leave a gap that looks like damage.
    pub(super) fn close_gap(&mut self, first: SequenceNumber, stamp: Stamp) -> Result<(), CommitError> {
        if self.logged >= first {
            return Ok(());
        }
        let (mut buffer, mut logged, mut unwritten) = (Vec::new(), self.logged, None);
        while logged < first {
            let (kind, end) = match logged < self.gap_before {
                true => (BlockKind::Gap, first.min(self.gap_before)),
                false => (BlockKind::Unwritten, first),
            };
            if kind == BlockKind::Unwritten {
                unwritten.get_or_insert(logged..=first.previous());
            }
            logged = write_absent(&mut buffer, kind, logged, end, stamp, self.active.salt);
        }
        self.write_durably(&buffer)?;
        self.logged = logged;
        // At no moment are they taken for records.
        if let Some(unwritten) = unwritten {
            self.core.note_unwritten(&unwritten);
        }
        self.advance(buffer.len() as u64, stamp);
        self.publish(stamp);
        self.core.count_framing(buffer.len() as u64);
        Ok(())
    }

    /// Makes sure that after a power cut no number is given twice, although its record was never written.
    pub(crate) fn reserve(&mut self) -> Result<(), CommitError> {
        self.check_not_poisoned()?;
        // A batch has far fewer records than are reserved.
        if self.next.plus(RESERVED / 2) < self.core.reserved() {
            return Ok(());
        }
        let before = self.core.reserved();
        self.core.set_reserved(self.next.plus(RESERVED));
        let now = self.core.around.clock.now().since_boot;
        match self.commit_control(now) {
            Ok(()) => Ok(()),
            Err(error) => {
                self.core.set_reserved(before);
                Err(error)
            }
        }
    }
}
