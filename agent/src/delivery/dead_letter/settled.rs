//! Which letters of a destination are settled: delivered once more, or dropped. Pure.
//!
//! Numbers of letters are dense, so a bit for each of them is enough; what lies below the lowest open one needs none. It is
//! kept as marks of the letters' own stream, and so changes in one commit or not at all.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Letters of one mark. A mark takes up to 4 KiB; each segment begins with all of them, so they are kept small.
const PER_CHUNK: u64 = 4096;
const BYTES: usize = (PER_CHUNK / 8) as usize;

// Names of the marks. Persisted: never change one.
const TOTALS: &str = "letters/totals";
const CHUNK: &str = "letters/settled/";

/// What is behind all of it, in one mark. Persisted as JSON: keys may be added.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Totals {
    /// Every letter before this number is settled, or gone.
    pub(super) below: u64,
    /// Letters delivered once more, since the stream was made.
    pub(super) replayed: u64,
    /// Letters dropped by a person.
    pub(super) dropped: u64,
}

/// See the module.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Settled {
    pub(super) totals: Totals,
    /// Bits by the number of their chunk.
    chunks: BTreeMap<u64, [u8; BYTES]>,
}

/// Marks to set; an empty value removes one.
pub(super) type Changes = BTreeMap<String, Vec<u8>>;

impl Settled {
    /// As its marks say. One that cannot be read counts as none: a letter is then shown again.
    pub(super) fn read(marks: Vec<(String, Vec<u8>)>) -> Self {
        let mut settled = Self::default();
        for (name, value) in marks {
            if name == TOTALS {
                settled.totals = serde_json::from_slice(&value).unwrap_or_default();
            } else if let Some(chunk) = name.strip_prefix(CHUNK).and_then(|number| number.parse().ok())
                && let Ok(bits) = <[u8; BYTES]>::try_from(&value[..])
            {
                settled.chunks.insert(chunk, bits);
            }
        }
        settled
    }

    /// What all marks of ours begin with.
    pub(super) const PREFIX: &str = "letters/";

    pub(super) fn contains(&self, number: u64) -> bool {
        let (chunk, byte, bit) = place(number);
        number < self.totals.below || self.chunks.get(&chunk).is_some_and(|bits| bits[byte] & bit != 0)
    }

    /// How many letters of `from..end` are settled.
    pub(super) fn count(&self, from: u64, end: u64) -> u64 {
        let below = self.totals.below.min(end).saturating_sub(from);
        let from = from.max(self.totals.below);
        let chunks = self.chunks.range(from / PER_CHUNK..).take_while(|(chunk, _)| *chunk * PER_CHUNK < end);
        let settled = chunks.map(|(chunk, bits)| {
            let first = chunk * PER_CHUNK;
            if first >= from && first + PER_CHUNK <= end {
                return bits.iter().map(|byte| u64::from(byte.count_ones())).sum();
            }
            (first.max(from)..(first + PER_CHUNK).min(end)).filter(|number| self.contains(*number)).count() as u64
        });
        below + settled.sum::<u64>()
    }

    /// Notes letters as settled. `oldest` is the first that there still is, `next` the number of the one to come.
    /// Gives the marks that say so.
    pub(super) fn settle(&mut self, numbers: impl IntoIterator<Item = u64>, oldest: u64, next: u64) -> Changes {
        let mut changes = Changes::new();
        let mut changed = std::collections::BTreeSet::new();
        for number in numbers {
            let (chunk, byte, bit) = place(number);
            self.chunks.entry(chunk).or_insert([0; BYTES])[byte] |= bit;
            changed.insert(chunk);
        }
        let mut below = self.totals.below.max(oldest);
        while below < next && self.contains(below) {
            below += 1;
        }
        self.totals.below = below;
        while let Some(first) = self.chunks.first_entry().filter(|first| (first.key() + 1) * PER_CHUNK <= below) {
            changes.insert(format!("{CHUNK}{}", first.key()), Vec::new());
            first.remove();
        }
        for chunk in changed {
            if let Some(bits) = self.chunks.get(&chunk) {
                changes.insert(format!("{CHUNK}{chunk}"), bits.to_vec());
            }
        }
        changes.insert(TOTALS.to_owned(), serde_json::to_vec(&self.totals).expect("numbers are JSON"));
        changes
    }
}

fn place(number: u64) -> (u64, usize, u8) {
    let within = number % PER_CHUNK;
    (number / PER_CHUNK, (within / 8) as usize, 1 << (within % 8))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    /// Applies changes as a stream would.
    fn apply(marks: &mut BTreeMap<String, Vec<u8>>, changes: Changes) {
        for (name, value) in changes {
            if value.is_empty() {
                marks.remove(&name)
            } else {
                marks.insert(name, value)
            };
        }
    }

    #[test]
    fn what_all_is_settled_takes_no_room() {
        let mut settled = Settled::default();
        let mut marks = BTreeMap::new();
        for first in (1..20_001).step_by(100) {
            let changes = settled.settle(first..first + 100, 1, 20_001);
            apply(&mut marks, changes);
        }
        assert_eq!((settled.totals.below, marks.len()), (20_001, 2), "the totals and the newest chunk");
        assert_eq!(settled.count(1, 20_001), 20_000);
    }

    #[test]
    fn marks_of_another_kind_are_passed_over() {
        let marks = ["letters/totals", "letters/settled/x", "letters/settled/3", "letters/new"];
        let settled = Settled::read(marks.map(|name| (name.to_owned(), b"?".to_vec())).to_vec());
        assert_eq!(settled, Settled::default());
    }

    proptest! {
        #[test]
        fn it_is_a_set_that_survives(steps in proptest::collection::vec((proptest::collection::vec(0_u64..10_000, 1..20), 0_u64..500), 1..20)) {
            let (mut settled, mut marks, mut model) = (Settled::default(), BTreeMap::new(), BTreeSet::new());
            let (mut oldest, next) = (0, 10_000);
            for (numbers, dropped) in steps {
                oldest += dropped;
                let numbers: Vec<_> = numbers.into_iter().filter(|number| *number >= oldest).collect();
                model.extend(numbers.iter().copied());
                let changes = settled.settle(numbers, oldest, next);
                apply(&mut marks, changes);
                prop_assert_eq!(&Settled::read(marks.clone().into_iter().collect()), &settled);
                for number in oldest..next {
                    prop_assert_eq!(settled.contains(number), model.contains(&number), "{}", number);
                }
                let (from, end) = (oldest + 3, next - 4000);
                if from < end {
                    prop_assert_eq!(settled.count(from, end), model.range(from..end).count() as u64);
                }
            }
        }
    }
}
