//! What a stream is, as far as its segments must say it. Persisted in each segment's header and in the catalogue.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::SegmentHeader;
use crate::{
    hash_key::HashKey,
    sequence::SequenceNumber,
    shard::{Shard, ShardIndex, ShardMap},
};

/// What must be known of a stream to read its segments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StreamDefinition {
    /// Tells this stream from an earlier or other one of the same name.
    pub(crate) id: u64,
    pub(crate) name: String,
    /// Counts the changes since the stream was made, from 1 on: of two, the higher one counts. 0 in version 1.
    pub(crate) revision: u32,
    pub(crate) shards: Arc<ShardMap>,
    /// As it was last configured; in version 1, when the stream was made.
    pub(crate) retention_ms: u64,
    /// As in [`StreamConfig`](crate::StreamConfig).
    pub(crate) note: String,
}

impl StreamDefinition {
    /// The persisted form of a format version; older ones say less.
    pub(crate) fn encode(&self, version: u16) -> Vec<u8> {
        let Self { id, name, revision, shards, retention_ms, note } = self;
        let (id, name, retention_ms) = (*id, name.clone(), *retention_ms);
        let shards = shards.shards().iter();
        let encoded = match version {
            0 | 1 => {
                postcard::to_allocvec(&Version1 { id, name, shards: shards.map(ShardV1::from).collect(), retention_ms })
            }
            _ => {
                let (revision, shards, note) = (*revision, shards.map(ShardV2::from).collect(), note.clone());
                postcard::to_allocvec(&Version2 { id, name, revision, shards, retention_ms, note })
            }
        };
        encoded.expect("a definition has no unserialisable part")
    }

    /// Reads the persisted form of some format version.
    ///
    /// # Errors
    /// What does not fit.
    pub(crate) fn decode(version: u16, bytes: &[u8]) -> Result<Self, String> {
        let definition = match version {
            0 | 1 => postcard::from_bytes::<Version1>(bytes).map(Self::from),
            _ => postcard::from_bytes::<Version2>(bytes).map(Self::from),
        };
        let definition = definition.map_err(|error| error.to_string())?;
        if definition.shards.is_complete() { Ok(definition) } else { Err("the shards contradict each other".into()) }
    }

    /// What a stream is by its segments' headers, newest first: one that was copied here from elsewhere must not cost
    /// all others, so the most decide whose life it is, and the newest of those what it is now.
    pub(crate) fn agreed(name: &str, headers: impl Iterator<Item = (SequenceNumber, SegmentHeader)>) -> Option<Self> {
        let own = headers.filter(|(first, header)| header.first == *first);
        Self::of_most(name, own.map(|(_, header)| header))
    }

    /// The same where no segment may have its own name.
    pub(crate) fn agreed_under_any_names(
        name: &str,
        headers: impl Iterator<Item = (SequenceNumber, SegmentHeader)>,
    ) -> Option<Self> {
        let mut astray = Vec::new();
        let own = headers.filter_map(|(first, header)| {
            if header.first == first {
                return Some(header);
            }
            astray.push(header);
            None
        });
        let agreed = Self::of_most(name, own);
        agreed.or_else(|| {
            astray.sort_by_key(|header| std::cmp::Reverse(header.first));
            Self::of_most(name, astray.into_iter())
        })
    }

    fn of_most(name: &str, headers: impl Iterator<Item = SegmentHeader>) -> Option<Self> {
        let mut lives: Vec<(usize, Self)> = Vec::new();
        for header in headers.filter(|header| header.definition.name == name) {
            match lives.iter_mut().find(|(_, life)| life.id == header.definition.id) {
                Some((segments, _)) => *segments += 1,
                None => lives.push((1, header.definition)),
            }
        }
        // Of equals the newest, which `max_by_key` takes when it comes last.
        lives.into_iter().rev().max_by_key(|(segments, _)| *segments).map(|(_, life)| life)
    }
}

/// Persisted in format version 1.
#[derive(Serialize, Deserialize)]
struct Version1 {
    id: u64,
    name: String,
    shards: Vec<ShardV1>,
    retention_ms: u64,
}

#[derive(Serialize, Deserialize)]
struct ShardV1 {
    index: ShardIndex,
    first: HashKey,
    last: HashKey,
    parents: Vec<ShardIndex>,
    open: bool,
}

/// Persisted since format version 2.
#[derive(Serialize, Deserialize)]
struct Version2 {
    id: u64,
    name: String,
    revision: u32,
    shards: Vec<ShardV2>,
    retention_ms: u64,
    note: String,
}

#[derive(Serialize, Deserialize)]
struct ShardV2 {
    index: ShardIndex,
    first: HashKey,
    last: HashKey,
    parents: Vec<ShardIndex>,
    starts: SequenceNumber,
    ends: Option<SequenceNumber>,
}

impl From<Version1> for StreamDefinition {
    fn from(Version1 { id, name, shards, retention_ms }: Version1) -> Self {
        let shards = shards.into_iter().map(|ShardV1 { index, first, last, parents, open }| {
            // Shards could not be changed then: all were open.
            let ends = (!open).then_some(SequenceNumber::ZERO);
            Shard { index, first, last, parents, starts: SequenceNumber(1), ends }
        });
        let shards = Arc::new(ShardMap::from_shards(shards.collect()));
        Self { id, name, revision: 0, shards, retention_ms, note: String::new() }
    }
}

impl From<Version2> for StreamDefinition {
    fn from(Version2 { id, name, revision, shards, retention_ms, note }: Version2) -> Self {
        let shards = shards.into_iter().map(|ShardV2 { index, first, last, parents, starts, ends }| Shard {
            index,
            first,
            last,
            parents,
            starts,
            ends,
        });
        let shards = Arc::new(ShardMap::from_shards(shards.collect()));
        Self { id, name, revision, shards, retention_ms, note }
    }
}

impl From<&Shard> for ShardV1 {
    fn from(shard: &Shard) -> Self {
        let open = shard.is_open();
        let Shard { index, first, last, parents, .. } = shard.clone();
        Self { index, first, last, parents, open }
    }
}

impl From<&Shard> for ShardV2 {
    fn from(shard: &Shard) -> Self {
        let Shard { index, first, last, parents, starts, ends } = shard.clone();
        Self { index, first, last, parents, starts, ends }
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;
    use crate::shard::ShardChange;

    impl StreamDefinition {
        pub(crate) fn sample() -> Self {
            let count = |count| NonZeroU32::new(count).expect("not zero");
            let shards = ShardMap::uniform(count(3));
            let shards = shards.changed(ShardChange::Count(count(4)), SequenceNumber(42)).expect("possible");
            Self {
                id: 7,
                name: "telemetry".into(),
                revision: 1,
                shards: Arc::new(shards),
                retention_ms: 86_400_000,
                note: "made by hand".into(),
            }
        }
    }

    #[test]
    fn a_definition_reads_back() {
        let sample = StreamDefinition::sample();
        assert_eq!(StreamDefinition::decode(2, &sample.encode(2)), Ok(sample));
    }

    #[test]
    fn version_1_is_read() {
        let old = Version1 {
            id: 7,
            name: "telemetry".into(),
            shards: vec![ShardV1 {
                index: ShardIndex(0),
                first: HashKey::MIN,
                last: HashKey::MAX,
                parents: Vec::new(),
                open: true,
            }],
            retention_ms: 5,
        };
        let read = StreamDefinition::decode(1, &postcard::to_allocvec(&old).expect("encodes")).expect("sound");
        assert_eq!(read.shards.as_ref(), &ShardMap::uniform(NonZeroU32::MIN));
        assert_eq!((read.id, read.revision, read.retention_ms), (7, 0, 5));
    }

    #[test]
    fn shards_with_a_gap_are_damage() {
        let mut sample = StreamDefinition::sample();
        let mut shards = sample.shards.shards().to_vec();
        shards.pop();
        sample.shards = Arc::new(ShardMap::from_shards(shards));
        assert!(StreamDefinition::decode(2, &sample.encode(2)).is_err());
    }
}
