//! The open shards of the destination's stream, and which one a hash key belongs to. Pure.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use aws_sdk_kinesis::types;
use forebay_log_store::HashKey;

/// Open shards, which divide the whole hash-key space among them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Shards {
    /// In the order of their ranges.
    open: Vec<Shard>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Shard {
    pub(super) id: String,
    first: u128,
    last: u128,
    /// Number of its lane.
    pub(super) lane: u64,
}

impl Shard {
    /// Whether a hash key is of its range.
    #[cfg(any(test, fuzzing))]
    pub(super) fn has(&self, key: HashKey) -> bool {
        (self.first..=self.last).contains(&key.0)
    }
}

impl Shards {
    /// What `ListShards` said, closed shards among them.
    ///
    /// # Errors
    /// What it said cannot be: there are gaps or overlaps.
    pub(super) fn of_list(listed: &[types::Shard]) -> Result<Self, String> {
        let is_open = |shard: &&types::Shard| {
            shard.sequence_number_range().is_none_or(|range| range.ending_sequence_number().is_none())
        };
        let mut open = Vec::new();
        for shard in listed.iter().filter(is_open) {
            // Where one is left out, the SDK says this. No record could be known to have reached such a shard.
            if shard.shard_id().is_empty() {
                return Err("a shard without an id".to_owned());
            }
            let range = shard.hash_key_range().ok_or("a shard without a range")?;
            let key = |text: &str| text.parse::<u128>().map_err(|_| format!("`{text}` is no hash key"));
            let mut hasher = DefaultHasher::new();
            shard.shard_id().hash(&mut hasher);
            open.push(Shard {
                id: shard.shard_id().to_owned(),
                first: key(range.starting_hash_key())?,
                last: key(range.ending_hash_key())?,
                lane: hasher.finish(),
            });
        }
        open.sort_by_key(|shard| shard.first);
        let mut next = Some(0);
        for shard in &open {
            if next != Some(shard.first) || shard.last < shard.first {
                return Err(format!("the open shards do not adjoin at {}", shard.id));
            }
            next = shard.last.checked_add(1);
        }
        if open.is_empty() || next.is_some() {
            return Err("the open shards do not cover the whole hash-key space".to_owned());
        }
        Ok(Self { open })
    }

    pub(super) fn len(&self) -> usize {
        self.open.len()
    }

    /// Which one has this hash key, which is asked for only where that makes a difference.
    pub(super) fn of(&self, key: impl FnOnce() -> HashKey) -> &Shard {
        if let [only] = &self.open[..] {
            return only;
        }
        let key = key();
        // The first one begins at 0.
        &self.open[self.open.partition_point(|shard| shard.first <= key.0) - 1]
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Shards with these ids and last hash keys, and closed ones between them.
    pub(crate) fn shards(open: &[(&str, u128)]) -> Shards {
        Shards::of_list(&listed(open)).expect("they adjoin")
    }

    fn listed(open: &[(&str, u128)]) -> Vec<types::Shard> {
        let mut first = 0;
        let mut all = vec![shard("closed", 0, u128::MAX, Some("9"))];
        for (id, last) in open {
            all.insert(0, shard(id, first, *last, None));
            first = last.wrapping_add(1);
        }
        all
    }

    fn shard(id: &str, first: u128, last: u128, ends: Option<&str>) -> types::Shard {
        let range =
            types::HashKeyRange::builder().starting_hash_key(first.to_string()).ending_hash_key(last.to_string());
        let numbers = types::SequenceNumberRange::builder()
            .starting_sequence_number("1")
            .set_ending_sequence_number(ends.map(str::to_owned));
        types::Shard::builder()
            .shard_id(id)
            .hash_key_range(range.build().expect("complete"))
            .sequence_number_range(numbers.build().expect("complete"))
            .build()
            .expect("complete")
    }

    #[test]
    fn every_hash_key_has_its_shard() {
        let shards = shards(&[("a", 9), ("b", 1000), ("c", u128::MAX)]);
        for (key, id) in [(0, "a"), (9, "a"), (10, "b"), (1000, "b"), (1001, "c"), (u128::MAX, "c")] {
            assert_eq!(shards.of(|| HashKey(key)).id, id, "{key}");
        }
    }

    #[test]
    fn an_only_shard_has_every_key() {
        assert_eq!(shards(&[("a", u128::MAX)]).of(|| panic!("it need not be known")).id, "a");
    }

    /// Aggregates for it would count as astray wherever they went.
    #[test]
    fn a_shard_without_an_id_is_part_of_no_map() {
        let list = [shard("a", 0, 9, None), shard("", 10, u128::MAX, None)];
        assert_eq!(Shards::of_list(&list), Err("a shard without an id".to_owned()));
        assert!(Shards::of_list(&[shard("a", 0, u128::MAX, None), shard("", 0, 9, Some("9"))]).is_ok(), "a closed one");
    }

    #[test]
    fn gaps_and_overlaps_are_no_map() {
        assert!(Shards::of_list(&[]).is_err());
        assert!(Shards::of_list(&listed(&[("a", 9)])).is_err(), "the end is missing");
        let mut gap = listed(&[("a", 9), ("b", 20), ("c", u128::MAX)]);
        gap.retain(|shard| shard.shard_id() != "b");
        assert!(Shards::of_list(&gap).is_err());
        let overlap = [shard("a", 0, u128::MAX, None), shard("b", 5, u128::MAX, None)];
        assert!(Shards::of_list(&overlap).is_err());
    }
}
