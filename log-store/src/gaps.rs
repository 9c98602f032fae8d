//! Gaps: sequence numbers for which there is no record. Those that damage took are told and counted once, also across
//! restarts. Those that are unwritten never stood for a record of the log's files, so that they are never counted as one.

use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

use crate::sequence::SequenceNumber;

/// More separate gaps than this are not remembered: of the oldest some are told again then.
const GAPS_MAX: usize = 4096;
/// So many, the newest, are persisted.
const PERSISTED_MAX: usize = 256;

/// A set of sequence numbers as ranges, sorted and apart from each other. Persisted: pairs of first and last number.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Vec<(SequenceNumber, SequenceNumber)>")]
pub(crate) struct Gaps(Vec<(SequenceNumber, SequenceNumber)>);

impl From<Vec<(SequenceNumber, SequenceNumber)>> for Gaps {
    fn from(pairs: Vec<(SequenceNumber, SequenceNumber)>) -> Self {
        let mut gaps = Self::default();
        for (first, last) in pairs {
            gaps.add(first..=last);
        }
        gaps
    }
}

impl Gaps {
    /// The ranges, in order.
    pub(crate) fn ranges(&self) -> impl Iterator<Item = RangeInclusive<SequenceNumber>> {
        self.0.iter().map(|&(first, last)| first..=last)
    }

    /// Those ranges that have or touch numbers of this range, which is not empty.
    fn touched(&self, first: SequenceNumber, last: SequenceNumber) -> std::ops::Range<usize> {
        let from = self.0.partition_point(|gap| gap.1.0.saturating_add(1) < first.0);
        let to = self.0.partition_point(|gap| gap.0.0 <= last.0.saturating_add(1));
        from..to
    }

    /// Which parts of a range are not in the set.
    pub(crate) fn outside(&self, range: &RangeInclusive<SequenceNumber>) -> Vec<RangeInclusive<SequenceNumber>> {
        let (first, last) = (*range.start(), *range.end());
        if first > last {
            return Vec::new();
        }
        let touched = &self.0[self.touched(first, last)];
        let mut outside = Vec::new();
        let mut next = first.0;
        for gap in touched {
            if next < gap.0.0 && next <= last.0 {
                outside.push(SequenceNumber(next)..=gap.0.previous().min(last));
            }
            next = next.max(gap.1.0.saturating_add(1));
        }
        if next <= last.0 && touched.last().is_none_or(|gap| gap.1 < last) {
            outside.push(SequenceNumber(next)..=last);
        }
        outside
    }

    /// Adds a range and says which parts of it were not in the set.
    pub(crate) fn add(&mut self, range: RangeInclusive<SequenceNumber>) -> Vec<RangeInclusive<SequenceNumber>> {
        let fresh = self.outside(&range);
        let (first, last) = range.into_inner();
        if first > last {
            return fresh;
        }
        let touched_at = self.touched(first, last);
        let touched = &self.0[touched_at.clone()];
        let whole =
            (touched.first().map_or(first, |gap| gap.0.min(first)), touched.last().map_or(last, |gap| gap.1.max(last)));
        self.0.splice(touched_at, [whole]);
        if self.0.len() > GAPS_MAX {
            self.0.remove(0);
        }
        fresh
    }

    /// Adds all of another set.
    pub(crate) fn add_all(&mut self, other: &Self) {
        for range in other.ranges() {
            self.add(range);
        }
    }

    /// How many numbers of a range are in the set.
    pub(crate) fn count_in(&self, range: &RangeInclusive<SequenceNumber>) -> u64 {
        let common = |gap: &(SequenceNumber, SequenceNumber)| {
            let (first, last) = (gap.0.max(*range.start()), gap.1.min(*range.end()));
            (last.0 + 1).saturating_sub(first.0)
        };
        let from = self.0.partition_point(|gap| gap.1 < *range.start());
        self.0[from..].iter().take_while(|gap| gap.0 <= *range.end()).map(common).sum()
    }

    /// Forgets what lies before `oldest`, where nothing is read any more.
    pub(crate) fn forget_before(&mut self, oldest: SequenceNumber) {
        self.0.retain(|gap| gap.1 >= oldest);
    }

    /// Forgets the numbers from `next` on.
    pub(crate) fn forget_from(&mut self, next: SequenceNumber) {
        self.0.retain(|gap| gap.0 < next);
        if let Some(newest) = self.0.last_mut() {
            newest.1 = newest.1.min(next.previous());
        }
    }

    /// As much of it as is persisted.
    pub(crate) fn persisted(&self) -> Self {
        Self(self.0[self.0.len().saturating_sub(PERSISTED_MAX)..].to_vec())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn range(first: u64, last: u64) -> RangeInclusive<SequenceNumber> {
        SequenceNumber(first)..=SequenceNumber(last)
    }

    proptest! {
        #[test]
        fn ranges_are_the_set_of_their_numbers(added in prop::collection::vec((0u64..60, 0u64..9), 0..20), asked in (0u64..60, 0u64..30)) {
            let (mut gaps, mut model) = (Gaps::default(), BTreeSet::new());
            for (first, more) in added {
                let fresh: Vec<u64> = gaps.add(range(first, first + more)).into_iter()
                    .flat_map(|range| range.start().0..=range.end().0).collect();
                let expected: Vec<u64> = (first..=first + more).filter(|number| model.insert(*number)).collect();
                prop_assert_eq!(fresh, expected);
            }
            prop_assert!(gaps.0.windows(2).all(|pair| pair[0].1.0 + 1 < pair[1].0.0), "{:?}", gaps);
            let numbers: Vec<u64> = gaps.ranges().flat_map(|range| range.start().0..=range.end().0).collect();
            prop_assert_eq!(&numbers, &model.iter().copied().collect::<Vec<_>>());
            let (first, last) = (asked.0, asked.0 + asked.1);
            prop_assert_eq!(gaps.count_in(&range(first, last)) as usize, model.range(first..=last).count());
            let outside: Vec<u64> = gaps.outside(&range(first, last)).into_iter()
                .flat_map(|range| range.start().0..=range.end().0).collect();
            prop_assert_eq!(outside, (first..=last).filter(|number| !model.contains(number)).collect::<Vec<_>>());
            let mut before = gaps.clone();
            before.forget_from(SequenceNumber(first));
            let expected: Vec<u64> = model.range(..first).copied().collect();
            prop_assert_eq!(before.ranges().flat_map(|range| range.start().0..=range.end().0).collect::<Vec<_>>(), expected);
            let bytes = postcard::to_allocvec(&gaps).expect("encodes");
            prop_assert_eq!(postcard::from_bytes::<Gaps>(&bytes).expect("decodes"), gaps);
        }
    }

    #[test]
    fn ends_of_the_number_space_are_ranges_like_others() {
        let mut gaps = Gaps::default();
        assert_eq!(gaps.add(range(0, 0)), [range(0, 0)]);
        assert_eq!(gaps.add(range(u64::MAX - 1, u64::MAX)), [range(u64::MAX - 1, u64::MAX)]);
        assert_eq!(gaps.add(range(u64::MAX, u64::MAX)), []);
        assert_eq!(gaps.add(range(5, 4)), []);
    }

    #[test]
    fn there_is_a_bound_and_the_oldest_go_first() {
        let mut gaps = Gaps::default();
        for i in 0..2 * GAPS_MAX as u64 {
            gaps.add(range(10 * i, 10 * i + 1));
        }
        assert_eq!((gaps.0.len(), gaps.persisted().0.len()), (GAPS_MAX, PERSISTED_MAX));
        assert_eq!(gaps.0.last(), gaps.persisted().0.last());
        gaps.forget_before(SequenceNumber(10 * (2 * GAPS_MAX as u64 - 1)));
        assert_eq!(gaps.0.len(), 1);
    }
}
