//! What a stream counts: records, bytes, and what was dropped. Nothing counts a sequence number that never stood for a
//! record: one that was delivered from memory, or was reserved and never given.

use std::ops::{Range, RangeInclusive};

use super::{Segment, StreamCore, lock};
use crate::{
    event::{DropReason, Event},
    gaps::Gaps,
    sequence::SequenceNumber,
    shard::ShardIndex,
    stats::{DropTotals, ShardStats, StreamStats},
};

/// How many damaged places that cost no record are remembered as told; beyond that some are told again.
const DAMAGE_REMEMBERED_MAX: usize = 1024;

#[derive(Default)]
pub(super) struct Counters {
    pub(super) stats: StreamStats,
    pub(super) totals: DropTotals,
    /// What damage took, as far as it was told. It has no number in common with `unwritten`.
    pub(super) gaps: Gaps,
    /// For which unwritten blocks stand.
    pub(super) unwritten: Gaps,
    /// Whether gaps and counts are not in the catalogue yet.
    pub(super) unsaved: bool,
}

impl Counters {
    /// Adds numbers for which an unwritten block stands; gives those that were not known.
    pub(super) fn add_unwritten(
        &mut self,
        numbers: &RangeInclusive<SequenceNumber>,
    ) -> Vec<RangeInclusive<SequenceNumber>> {
        // What damage took of them was counted then.
        let parts = self.gaps.outside(numbers).into_iter();
        parts.flat_map(|part| self.unwritten.add(part)).collect()
    }

    /// How many numbers of a range stand for a record, if none of `unlogged` does.
    fn records_in(&self, numbers: &RangeInclusive<SequenceNumber>, unlogged: &Range<SequenceNumber>) -> u64 {
        let known = |numbers: &RangeInclusive<SequenceNumber>| {
            let all = (numbers.end().0 + 1).saturating_sub(numbers.start().0);
            all - self.gaps.count_in(numbers) - self.unwritten.count_in(numbers)
        };
        let (first, end) = (unlogged.start.max(*numbers.start()), unlogged.end.min(numbers.end().next()));
        known(numbers) - if first < end { known(&(first..=end.previous())) } else { 0 }
    }
}

impl StreamCore {
    /// The numbers behind the log's files that stand for no record: delivered from memory since the last one was written,
    /// or reserved before a kill and never given. An unwritten block stands for them once a record comes behind them.
    fn unlogged(&self) -> Range<SequenceNumber> {
        let held = lock(&self.held);
        let first_held = held.first();
        self.view(|view| {
            let logged = view.segments.back().map_or(view.next, |active| active.end);
            logged..first_held.unwrap_or(view.next)
        })
    }

    /// How many records there are from `from` on, and before `end`: on the disk or held in memory.
    pub(crate) fn records_between(&self, from: SequenceNumber, end: SequenceNumber) -> u64 {
        let (oldest, next) = self.view(|view| (view.oldest(), view.next));
        let (from, end) = (from.max(oldest), end.min(next));
        if from >= end {
            return 0;
        }
        let unlogged = self.unlogged();
        lock(&self.counters).records_in(&(from..=end.previous()), &unlogged)
    }

    /// Notes the numbers for which an unwritten block stands.
    pub(crate) fn note_unwritten(&self, numbers: &RangeInclusive<SequenceNumber>) {
        let fresh = lock(&self.counters).add_unwritten(numbers);
        self.save_unwritten(&fresh);
    }

    /// Notes them in the catalogue, by segments: an entry goes with its segment.
    pub(super) fn save_unwritten(&self, fresh: &[RangeInclusive<SequenceNumber>]) {
        if fresh.is_empty() {
            return;
        }
        let parts = self.view(|view| {
            // The one being written may have a block that readers do not see yet.
            let lasts = view.segments.iter().skip(1).map(|segment| segment.first.previous());
            let segments = view.segments.iter().zip(lasts.chain([SequenceNumber(u64::MAX)]));
            let parts = |(segment, last): (&Segment, SequenceNumber)| {
                let part = |of: &RangeInclusive<_>| segment.first.max(*of.start())..=last.min(*of.end());
                fresh.iter().map(part).filter(|part| !part.is_empty()).collect::<Vec<_>>()
            };
            segments.flat_map(parts).collect::<Vec<_>>()
        });
        parts.iter().for_each(|part| self.around.catalogue.put_unwritten(self.name(), part));
    }

    /// The part of a range that some consumer has not finished.
    fn undelivered(&self, numbers: &RangeInclusive<SequenceNumber>) -> Option<RangeInclusive<SequenceNumber>> {
        let from = self.delivered()?.next().max(*numbers.start());
        (from <= *numbers.end()).then(|| from..=*numbers.end())
    }

    /// Counts and tells damage: once for each record, also across restarts; once in a run for a place that costs none.
    pub(crate) fn damaged(
        &self,
        segment: SequenceNumber,
        offset: u64,
        what: &str,
        records: Option<RangeInclusive<SequenceNumber>>,
    ) {
        let tell = |records| {
            self.tell(Event::Damaged {
                stream: self.name().to_owned(),
                segment: self.path_of(segment),
                offset,
                what: what.to_owned(),
                records,
            });
        };
        let unwritten = |numbers: &RangeInclusive<_>| lock(&self.counters).unwritten.outside(numbers);
        let records: Vec<_> = records.as_ref().map(unwritten).unwrap_or_default();
        if records.is_empty() {
            let is_new = {
                let mut told = lock(&self.told_damage);
                let is_new = told.insert((segment, offset));
                if told.len() > DAMAGE_REMEMBERED_MAX {
                    told.pop_first();
                }
                is_new
            };
            if is_new {
                tell(None);
            }
            return;
        }
        let fresh: Vec<_> = {
            let mut counters = lock(&self.counters);
            records.into_iter().flat_map(|records| counters.gaps.add(records)).collect()
        };
        for records in fresh {
            let count = |records: &RangeInclusive<SequenceNumber>| records.end().0 + 1 - records.start().0;
            let undelivered = self.undelivered(&records).as_ref().map_or(0, count);
            {
                let mut counters = lock(&self.counters);
                counters.totals.dropped.damage += count(&records);
                counters.totals.lost.damage += undelivered;
                counters.unsaved = true;
            }
            // It rides in the next control block too.
            lock(&self.checkpoints).moved = true;
            tell(Some(records));
        }
    }

    /// Counts and tells that records were dropped.
    pub(super) fn dropped(&self, records: RangeInclusive<SequenceNumber>, reason: DropReason, limit: Option<String>) {
        let (undelivered, unlogged) = (self.undelivered(&records), self.unlogged());
        let (totals, count, undelivered) = {
            let mut counters = lock(&self.counters);
            // What damage took before was counted then.
            let count = counters.records_in(&records, &unlogged);
            let undelivered = undelivered.map_or(0, |records| counters.records_in(&records, &unlogged));
            counters.gaps.forget_before(records.end().next());
            counters.unwritten.forget_before(records.end().next());
            let totals = &mut counters.totals;
            totals.oldest = totals.oldest.max(records.end().next());
            let (dropped, lost) = match reason {
                DropReason::Retention => (&mut totals.dropped.retention, &mut totals.lost.retention),
                DropReason::Quota => (&mut totals.dropped.quota, &mut totals.lost.quota),
                DropReason::Damage => (&mut totals.dropped.damage, &mut totals.lost.damage),
            };
            *dropped += count;
            *lost += undelivered;
            (*totals, count, undelivered)
        };
        self.around.catalogue.put_drops(self.name(), &totals);
        self.tell(Event::Dropped { stream: self.name().to_owned(), reason, records, count, undelivered, limit });
    }

    pub(crate) fn stats(&self) -> StreamStats {
        let (oldest, next, segments, disk_bytes) =
            self.view(|view| (view.oldest(), view.next, view.segments.len(), view.disk_bytes()));
        let untrusted = |segment: &&Segment| !self.around.time.is_trusted(segment.newest.boot);
        let untrusted: Vec<_> = self.view(|view| view.segments.iter().filter(untrusted).copied().collect());
        let unlogged = self.unlogged();
        let counters = lock(&self.counters);
        let records = |segment: &Segment| counters.records_in(&(segment.first..=segment.end.previous()), &unlogged);
        let untrusted_records = untrusted.iter().map(records).sum();
        StreamStats {
            oldest,
            next,
            segments,
            disk_bytes,
            untrusted_records,
            dropped: counters.totals.dropped,
            lost: counters.totals.lost,
            catalogue_bytes: self.around.catalogue.written_bytes(self.name()),
            checkpoints: lock(&self.checkpoints).done.clone(),
            held_bytes: lock(&self.held).bytes(),
            ..counters.stats.clone()
        }
    }

    /// Counts what was written to segments beside records.
    pub(super) fn count_framing(&self, bytes: u64) {
        let stats = &mut lock(&self.counters).stats;
        stats.written_bytes += bytes;
        stats.framing_bytes += bytes;
    }

    /// Counts a write with one sync: records as they are stored, and what is around them.
    pub(super) fn count_written(&self, stored_bytes: u64, framing_bytes: u64) {
        let stats = &mut lock(&self.counters).stats;
        stats.commits += 1;
        stats.written_bytes += stored_bytes + framing_bytes;
        stats.framing_bytes += framing_bytes;
    }

    pub(super) fn count_records(&self, shards: impl Iterator<Item = (ShardIndex, u32, u64)>) {
        let stats = &mut lock(&self.counters).stats;
        for (shard, records, payload_bytes) in shards {
            stats.records += u64::from(records);
            stats.payload_bytes += payload_bytes;
            let shard: &mut ShardStats = stats.shards.entry(shard).or_default();
            shard.records += u64::from(records);
            shard.payload_bytes += payload_bytes;
        }
    }
}
