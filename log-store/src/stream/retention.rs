//! Which segments may go. Pure: segments, time and checkpoints in, a count out.
//!
//! A stream is read and delivered in order, so what is delivered is always the oldest part of it.

use std::time::Duration;

use super::Segment;
use crate::{
    clock::{Now, Timeline},
    config::OnFull,
    sequence::SequenceNumber,
};

/// What decides about a segment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rules {
    pub(crate) retention: Duration,
    pub(crate) on_full: OnFull,
    pub(crate) hold_undelivered: bool,
    pub(crate) keep_delivered: bool,
    /// Up to where every consumer is done; `None` without consumers.
    pub(crate) delivered: Option<SequenceNumber>,
}

/// What may go to make room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MayGo {
    /// What every consumer has finished: a limit of room is stronger than retention, but costs no undelivered record.
    Delivered,
    /// Everything. What is delivered still goes first, because it is the oldest.
    Anything,
}

impl Rules {
    /// How many of the oldest segments nothing needs any more.
    pub(crate) fn expired<'a>(&self, segments: impl Iterator<Item = &'a Segment>, time: &Timeline, now: Now) -> usize {
        let gone =
            |segment: &&Segment| self.is_past(segment, time, now) || !self.keep_delivered && self.is_delivered(segment);
        segments.take_while(gone).count()
    }

    /// Whether a segment is past retention and held by nobody.
    pub(crate) fn is_past(&self, segment: &Segment, time: &Timeline, now: Now) -> bool {
        time.age_at_least(segment.newest, now) > self.retention
            && (!self.hold_undelivered || self.delivered.is_none() || self.is_delivered(segment))
    }

    /// What may go for room under the stream's own quota.
    pub(crate) fn under_quota(&self) -> MayGo {
        match self.on_full {
            OnFull::Reject => MayGo::Delivered,
            OnFull::DropOldest | OnFull::DropDeliveredFirst => MayGo::Anything,
        }
    }

    /// The oldest segments that go to free `bytes`: as few as do, or else all that may. Their number and their bytes.
    pub(crate) fn for_room<'a>(
        &self,
        segments: impl Iterator<Item = &'a Segment>,
        bytes: u64,
        may_go: MayGo,
    ) -> (usize, u64) {
        let (mut count, mut freed) = (0, 0);
        for segment in segments {
            if freed >= bytes || may_go == MayGo::Delivered && !self.is_delivered(segment) {
                break;
            }
            freed += segment.bytes;
            count += 1;
        }
        (count, freed)
    }

    pub(crate) fn is_delivered(&self, segment: &Segment) -> bool {
        self.delivered.is_some_and(|delivered| delivered.next() >= segment.end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{Stamp, Timestamp};

    const NOW: Now = Now { wall: Timestamp(0), since_boot: Duration::from_secs(1000) };

    /// Segments of ten records and 100 bytes each, made 100 s apart since 100 s after the boot.
    fn segments(count: u64) -> Vec<Segment> {
        let segment = |i| Segment {
            first: SequenceNumber(i * 10 + 1),
            end: SequenceNumber(i * 10 + 11),
            bytes: 100,
            newest: Stamp { boot: 1, since_boot_ms: (i + 1) * 100_000, wall_ms: 0 },
        };
        (0..count).map(segment).collect()
    }

    fn rules(on_full: OnFull, delivered: Option<u64>) -> Rules {
        Rules {
            retention: Duration::from_secs(650),
            on_full,
            hold_undelivered: true,
            keep_delivered: true,
            delivered: delivered.map(SequenceNumber),
        }
    }

    #[test]
    fn past_retention_goes_unless_undelivered() {
        let segments = segments(9);
        let expired =
            |delivered| rules(OnFull::Reject, delivered).expired(segments.iter(), &Timeline::new(1, Vec::new()), NOW);
        assert_eq!(expired(None), 3);
        assert_eq!(expired(Some(90)), 3);
        assert_eq!(expired(Some(19)), 1, "the second segment's last record is not delivered");
        assert_eq!(expired(Some(20)), 2);
        assert_eq!(expired(Some(0)), 0);
        let careless = Rules { hold_undelivered: false, ..rules(OnFull::Reject, Some(0)) };
        assert_eq!(careless.expired(segments.iter(), &Timeline::new(1, Vec::new()), NOW), 3);
    }

    #[test]
    fn an_unknown_boot_is_only_as_old_as_this_one() {
        let expired = |now| rules(OnFull::Reject, None).expired(segments(3).iter(), &Timeline::new(2, Vec::new()), now);
        assert_eq!(expired(NOW), 3);
        let just_booted = Now { since_boot: Duration::from_secs(600), ..NOW };
        assert_eq!(expired(just_booted), 0);
    }

    #[test]
    fn what_is_delivered_goes_early_if_it_is_not_to_be_kept() {
        let segments = segments(9);
        let rules = |delivered| Rules { keep_delivered: false, ..rules(OnFull::Reject, delivered) };
        assert_eq!(rules(Some(55)).expired(segments.iter(), &Timeline::new(1, Vec::new()), NOW), 5);
        assert_eq!(
            rules(Some(19)).expired(segments.iter(), &Timeline::new(1, Vec::new()), NOW),
            1,
            "held past its retention"
        );
        assert_eq!(
            rules(None).expired(segments.iter(), &Timeline::new(1, Vec::new()), NOW),
            3,
            "without a consumer retention alone counts"
        );
    }

    #[test]
    fn only_what_is_delivered_goes_where_nothing_else_may() {
        let segments = segments(3);
        let freed =
            |delivered, bytes| rules(OnFull::Reject, delivered).for_room(segments.iter(), bytes, MayGo::Delivered);
        assert_eq!(freed(Some(10), 50), (1, 100));
        assert_eq!(freed(Some(10), 150), (1, 100), "all that may go");
        assert_eq!(freed(Some(9), 50), (0, 0));
        assert_eq!(freed(None, 50), (0, 0), "without a consumer nothing counts as delivered");
    }

    #[test]
    fn as_few_go_as_have_to() {
        let segments = segments(3);
        let freed = |bytes| rules(OnFull::DropOldest, Some(0)).for_room(segments.iter(), bytes, MayGo::Anything);
        assert_eq!(freed(0), (0, 0));
        assert_eq!(freed(150), (2, 200));
        assert_eq!(freed(301), (3, 300));
    }

    #[test]
    fn rejecting_alone_spares_what_is_undelivered() {
        assert_eq!(rules(OnFull::Reject, None).under_quota(), MayGo::Delivered);
        assert_eq!(rules(OnFull::DropOldest, None).under_quota(), MayGo::Anything);
        assert_eq!(rules(OnFull::DropDeliveredFirst, None).under_quota(), MayGo::Anything);
    }
}
