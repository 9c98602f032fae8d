//! Which segments may go. Pure: segments, time and checkpoints in, a count out.

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
    /// Up to where every consumer is done; `None` without consumers.
    pub(crate) delivered: Option<SequenceNumber>,
}

impl Rules {
    /// How many of the oldest segments are past retention and held by nobody.
    pub(crate) fn expired<'a>(&self, segments: impl Iterator<Item = &'a Segment>, time: &Timeline, now: Now) -> usize {
        let gone = |segment: &&Segment| {
            time.age_at_least(segment.newest, now) > self.retention
                && (!self.hold_undelivered || self.delivered.is_none() || self.is_delivered(segment))
        };
        segments.take_while(gone).count()
    }

    /// How many of the oldest segments must and may go so that at least `bytes` are freed; `None` if that cannot be had.
    ///
    /// Under [`OnFull::Reject`] only what every consumer has finished may go: a quota is a stronger limit than retention,
    /// but it never costs an undelivered record.
    pub(crate) fn make_room<'a>(&self, segments: impl Iterator<Item = &'a Segment>, bytes: u64) -> Option<usize> {
        let (mut freed, mut count) = (0, 0);
        for segment in segments {
            if freed >= bytes {
                break;
            }
            if self.on_full == OnFull::Reject && !self.is_delivered(segment) {
                return None;
            }
            freed += segment.bytes;
            count += 1;
        }
        (freed >= bytes).then_some(count)
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
    fn rejecting_never_drops_what_is_not_delivered() {
        let segments = segments(3);
        assert_eq!(rules(OnFull::Reject, Some(10)).make_room(segments.iter(), 50), Some(1));
        assert_eq!(rules(OnFull::Reject, Some(10)).make_room(segments.iter(), 150), None);
        assert_eq!(rules(OnFull::Reject, None).make_room(segments.iter(), 50), None);
    }

    #[test]
    fn dropping_takes_as_few_as_it_needs() {
        let segments = segments(3);
        assert_eq!(rules(OnFull::DropOldest, Some(0)).make_room(segments.iter(), 150), Some(2));
        assert_eq!(rules(OnFull::DropOldest, None).make_room(segments.iter(), 301), None);
    }
}
