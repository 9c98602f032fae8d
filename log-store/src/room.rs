//! Room in the whole data directory: `max-bytes`, `min-free` and the end of the disk, and who gives way to whom.
//!
//! A stream's own quota is its writer's business. What is decided here is pure ([`Ceiling`]); the disk is asked once a tick
//! and every few megabytes, never for each commit.

use std::{cmp::Reverse, path::PathBuf, sync::Arc, time::Duration};

use crate::{
    clock::Clock,
    committer::Writers,
    config::{MinFree, OnFull, StoreConfig},
    disk::{Disk, Space},
    queue::StreamSlot,
    stream::{CommitError, MayGo, Shortage, StreamWriter},
};

/// What others write between two looks is noticed after this many bytes of our own at the latest.
const MEASURE_EVERY_BYTES: u64 = 4 << 20;
/// Everything in the directory that is no open stream's segment (the catalogue, files kept for a look, streams that are
/// not configured) is counted again after this long.
const COUNT_OTHERS_EVERY: Duration = Duration::from_secs(60);
/// Left for what is small and not asked about: the head of a segment, a control block, the catalogue's next pages.
const SLACK_BYTES: u64 = 128 << 10;
/// Room counts as there again when this much more is free than has to be, or this part of the disk: else every few bytes
/// that somebody frees would end one episode and begin the next.
const AGAIN_BYTES: u64 = 1 << 20;
const AGAIN_PART: u64 = 64;

/// How far the segments may grow before `min-free` is crossed.
///
/// While others have taken what was to stay free, they may not grow, but they need not shrink either: whoever drops a
/// segment then may write as much again, even if somebody was quicker to take the room. Else one block after the other would
/// cost a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Ceiling {
    /// The bytes of all segments may not pass this.
    bytes: u64,
    /// Whether there was not enough, and not clearly more since.
    short: bool,
    free: u64,
    min_free: u64,
}

impl Ceiling {
    /// After a look at the disk, when the segments took `used`.
    fn measured(before: Option<Self>, space: Space, min_free: MinFree, used: u64, segment_bytes: u64) -> Self {
        let min_free = min_free.of(space.size);
        let slack = SLACK_BYTES.min(space.size / AGAIN_PART);
        let spare = space.free.saturating_sub(min_free.saturating_add(slack));
        let again = AGAIN_BYTES.min(space.size / AGAIN_PART);
        let (bytes, short) = match before.filter(|before| before.short) {
            Some(before) if spare < again.max(1) => (before.bytes.min(used.saturating_add(segment_bytes)), true),
            _ => (used.saturating_add(spare), false),
        };
        Self { bytes, short, free: space.free, min_free }
    }

    fn shortage(&mut self, used: u64, bytes: u64) -> Option<Shortage> {
        let missing = used.saturating_add(bytes).saturating_sub(self.bytes);
        let Self { free, min_free, .. } = *self;
        self.short |= missing > 0;
        (missing > 0).then(|| Shortage {
            bytes: missing,
            limit: format!("min-free (the disk has {free} bytes free, of which {min_free} stay free)"),
        })
    }
}

/// The limits of a data directory, and what is known of its disk.
pub(crate) struct Room {
    disk: Arc<dyn Disk>,
    clock: Arc<dyn Clock>,
    dir: PathBuf,
    max_bytes: Option<u64>,
    min_free: MinFree,
    segment_bytes: u64,
    ceiling: Option<Ceiling>,
    /// What the segments took at the last look at the disk.
    looked_at: u64,
    /// Bytes of the directory that are no open stream's segments, and when they were counted.
    others: Option<(u64, Duration)>,
}

impl Room {
    pub(crate) fn new(config: &StoreConfig, disk: Arc<dyn Disk>, clock: Arc<dyn Clock>) -> Self {
        let &StoreConfig { max_bytes, min_free, .. } = config;
        let segment_bytes = config.segment_bytes.max(AGAIN_BYTES);
        let dir = config.dir.clone();
        // Neither the disk nor the directory was looked at yet.
        let (looked_at, others) = (u64::MAX, None);
        Self { disk, clock, dir, max_bytes, min_free, segment_bytes, ceiling: None, looked_at, others }
    }

    /// Looks at the disk anew before the next answer; `recount` also at the directory.
    pub(crate) fn forget(&mut self, recount: bool) {
        self.looked_at = u64::MAX;
        if recount {
            self.others = None;
        }
    }

    /// What is missing for `bytes` more, when the segments take `used`.
    fn shortage(&mut self, used: u64, bytes: u64) -> Option<Shortage> {
        self.shortage_under_max(used, bytes).or_else(|| self.shortage_on_disk(used, bytes))
    }

    fn shortage_under_max(&mut self, used: u64, bytes: u64) -> Option<Shortage> {
        let max = self.max_bytes?;
        let others = self.count_others(used);
        let missing = used.saturating_add(others).saturating_add(bytes).saturating_sub(max);
        (missing > 0).then(|| Shortage {
            bytes: missing,
            limit: format!(
                "max-bytes (the data directory takes {} of {max} bytes, {others} of them for other things than records)",
                used.saturating_add(others)
            ),
        })
    }

    fn count_others(&mut self, used: u64) -> u64 {
        let now = self.clock.now().since_boot;
        match self.others {
            Some((bytes, counted)) if now.saturating_sub(counted) < COUNT_OTHERS_EVERY => bytes,
            before => {
                // A directory that cannot be looked at has no room to be sure of, but stopping for that would help nobody.
                let all = self.disk.bytes_below(&self.dir).ok();
                let bytes = all.map_or(before.map_or(0, |(bytes, _)| bytes), |all| all.saturating_sub(used));
                self.others = Some((bytes, now));
                bytes
            }
        }
    }

    fn shortage_on_disk(&mut self, used: u64, bytes: u64) -> Option<Shortage> {
        if self.min_free.bytes == 0 || self.min_free.percent == 0 {
            return None;
        }
        let is_due = self.looked_at.abs_diff(used) >= MEASURE_EVERY_BYTES;
        let known = self.ceiling.as_mut().filter(|_| !is_due);
        if known.is_some_and(|ceiling| ceiling.shortage(used, bytes).is_none()) {
            return None;
        }
        // Also before it is said that there is none: there may be more room by now.
        match self.disk.space(&self.dir) {
            Ok(space) => {
                self.looked_at = used;
                let measured = Ceiling::measured(self.ceiling, space, self.min_free, used, self.segment_bytes);
                self.ceiling.insert(measured).shortage(used, bytes)
            }
            // A disk that does not tell says so when it is full.
            Err(_) => None,
        }
    }
}

impl Writers {
    /// Lets a stream write, making room for so many bytes as far as its policy allows. Never returns
    /// [`CommitError::DiskFull`].
    pub(crate) fn with_room<T>(
        &mut self,
        slot: StreamSlot,
        bytes: u64,
        mut write: impl FnMut(&mut StreamWriter) -> Result<T, CommitError>,
    ) -> Result<T, CommitError> {
        let error = loop {
            let used = self.used();
            let Some(writer) = &mut self.streams[slot] else {
                return Err(CommitError::Poisoned("the stream was deleted".to_owned()));
            };
            let outcome = match self.room.shortage(used, bytes) {
                None => write(writer),
                // Nobody gives way to a stream that has no room under its own quota.
                Some(shortage) => writer.room_under_quota(bytes).and(Err(CommitError::DiskFull(shortage))),
            };
            match outcome {
                // What has expired meanwhile may be all that could go.
                Err(CommitError::DiskFull(shortage)) if self.make_room(slot, &shortage) > 0 || self.used() < used => {}
                Err(CommitError::DiskFull(shortage)) => {
                    break CommitError::Full(format!("no room is left by {}", shortage.limit));
                }
                Err(error) => break error,
                written => return written,
            }
        };
        if let (CommitError::Full(reason), Some(writer)) = (&error, &mut self.streams[slot]) {
            writer.note_full(reason);
        }
        Err(error)
    }

    /// What the segments of all streams take.
    fn used(&self) -> u64 {
        self.streams.iter().flatten().map(StreamWriter::disk_bytes).sum()
    }

    /// Drops segments for the stream in `slot`, in the order that [`OnFull`] says. Returns how many bytes that freed.
    fn make_room(&mut self, slot: StreamSlot, shortage: &Shortage) -> u64 {
        // Before any record, copies of what never became one.
        let torn: u64 = self.streams.iter_mut().flatten().map(StreamWriter::remove_torn).sum();
        if torn > 0 {
            self.room.forget(true);
            return torn;
        }
        let limit = Some(shortage.limit.as_str());
        let on_full = self.streams[slot].as_ref().map_or(OnFull::Reject, |writer| writer.core().config().on_full);
        if on_full == OnFull::DropOldest {
            return self.give(slot, shortage.bytes, MayGo::Anything, limit);
        }
        let mut freed = self.give(slot, shortage.bytes, MayGo::Delivered, limit);
        while freed < shortage.bytes {
            // One segment of whoever has most to give, so that nobody's history goes while others keep theirs.
            let has = |other: &StreamSlot| self.streams[*other].as_ref().map_or(0, StreamWriter::delivered_bytes);
            let mut others: Vec<StreamSlot> = (0..self.streams.len()).filter(|other| *other != slot).collect();
            others.sort_by_key(|other| Reverse(has(other)));
            let mut given = others.into_iter().map(|other| self.give(other, 1, MayGo::Delivered, limit));
            match given.find(|bytes| *bytes > 0) {
                Some(bytes) => freed += bytes,
                None => break,
            }
        }
        if freed < shortage.bytes && on_full == OnFull::DropDeliveredFirst {
            freed += self.give(slot, shortage.bytes - freed, MayGo::Anything, limit);
        }
        freed
    }

    fn give(&mut self, slot: StreamSlot, bytes: u64, may_go: MayGo, limit: Option<&str>) -> u64 {
        self.streams[slot].as_mut().map_or(0, |writer| writer.make_room(bytes, may_go, limit))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;
    const MIN_FREE: MinFree = MinFree { bytes: 50 * MIB, percent: 100 };

    fn measured(before: Option<Ceiling>, free: u64, used: u64) -> Ceiling {
        Ceiling::measured(before, Space { size: 1000 * MIB, free }, MIN_FREE, used, 8 * MIB)
    }

    #[test]
    fn min_free_is_the_smaller_of_bytes_and_percent() {
        assert_eq!(MinFree::DEFAULT.of(1000 * MIB), 50 * MIB);
        assert_eq!(MinFree::DEFAULT.of(1 << 40), 256 * MIB);
        assert_eq!(MinFree { bytes: u64::MAX, percent: 10 }.of(u64::MAX), u64::MAX / 10);
        assert_eq!(MinFree::NONE.of(1 << 40), 0);
    }

    #[test]
    fn the_log_grows_until_min_free_is_left() {
        let mut ceiling = measured(None, 70 * MIB, 30 * MIB);
        assert_eq!(ceiling.bytes, 50 * MIB - SLACK_BYTES);
        assert!(ceiling.shortage(40 * MIB, 5 * MIB).is_none());
        let shortage = ceiling.shortage(45 * MIB, 5 * MIB).expect("too much");
        assert_eq!(shortage.bytes, SLACK_BYTES);
        assert!(shortage.limit.contains("73400320 bytes free") && shortage.limit.contains("52428800"), "{shortage:?}");
    }

    #[test]
    fn what_others_took_is_not_given_back_and_what_was_dropped_may_be_written_again() {
        let plenty = measured(None, 500 * MIB, 100 * MIB);
        // Somebody takes nearly everything.
        let mut short = measured(Some(plenty), 10 * MIB, 100 * MIB);
        assert_eq!(short.shortage(100 * MIB, 5).expect("no room").bytes, 5);
        // A segment of 8 MiB was dropped: as much may be written, however often the disk is looked at in between.
        let mut later = measured(Some(short), 18 * MIB, 92 * MIB);
        assert!(later.shortage(92 * MIB, 8 * MIB).is_none());
        let mut still = measured(Some(later), 14 * MIB, 96 * MIB);
        assert!(still.shortage(96 * MIB, 4 * MIB).is_none());
        assert!(still.shortage(100 * MIB, 1).is_some());
        // But what retention freed meanwhile, and others took, is not there to be written again.
        let expired = measured(Some(still), 14 * MIB, 20 * MIB);
        assert_eq!(expired.bytes, 28 * MIB);
    }

    #[test]
    fn an_episode_ends_when_clearly_more_is_free() {
        let mut short = measured(None, 50 * MIB, 10 * MIB);
        assert!(short.shortage(10 * MIB, 1).is_some());
        let mut hardly = measured(Some(short), 50 * MIB + SLACK_BYTES + AGAIN_BYTES - 1, 10 * MIB);
        assert!(hardly.shortage(10 * MIB, 1).is_some());
        let mut over = measured(Some(hardly), 50 * MIB + SLACK_BYTES + AGAIN_BYTES, 10 * MIB);
        assert!(over.shortage(10 * MIB, AGAIN_BYTES).is_none() && !over.short);
    }
}
