//! Batches: records of one stream, checked, routed to their shards and encoded before they reach the committer.
//!
//! Encoding happens here, in the caller's thread, so that the single committer thread only concatenates.

use std::sync::Arc;

use crate::{
    error::Error,
    record::{Encoded, NewRecord, PARTITION_KEY_CHARS_MAX, RECORD_BYTES_MAX},
    shard::{ShardIndex, ShardMap},
};

/// Records of one stream that are committed together: all or none.
///
/// Made by [`Stream::batch`](crate::Stream::batch). Order within a shard is the order of [`Batch::push`].
#[derive(Debug, Clone)]
pub struct Batch {
    shards: Arc<ShardMap>,
    record_bytes_max: usize,
    runs: Vec<Run>,
}

/// A batch's records of one shard, encoded one after the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) shard: ShardIndex,
    pub(crate) records: u32,
    pub(crate) payload_bytes: u64,
    pub(crate) encoded: Vec<u8>,
}

/// What a batch brings to one shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Load {
    /// The shard.
    pub shard: ShardIndex,
    /// Number of records.
    pub records: u32,
    /// Keys and data in bytes.
    pub payload_bytes: u64,
}

impl Batch {
    /// `record_bytes_max` is the stream's own limit, where that is below [`RECORD_BYTES_MAX`].
    pub(crate) fn new(shards: Arc<ShardMap>, record_bytes_max: usize) -> Self {
        Self { shards, record_bytes_max: record_bytes_max.min(RECORD_BYTES_MAX), runs: Vec::new() }
    }

    /// Adds a record behind the others.
    ///
    /// # Errors
    /// [`Error::BadPartitionKey`] and [`Error::RecordTooLarge`]; the batch is then unchanged.
    pub fn push(&mut self, record: &NewRecord<'_>) -> Result<ShardIndex, Error> {
        check(record, self.record_bytes_max)?;
        let shard = self.shards.locate(record.hash_key());
        let run = match self.runs.iter().position(|run| run.shard == shard) {
            Some(i) => &mut self.runs[i],
            None => {
                self.runs.push(Run { shard, records: 0, payload_bytes: 0, encoded: Vec::new() });
                self.runs.last_mut().expect("just pushed")
            }
        };
        Encoded::of(record).write(&mut run.encoded);
        run.records += 1;
        run.payload_bytes += record.payload_bytes();
        Ok(shard)
    }

    /// What it brings to each of its shards.
    pub fn load(&self) -> impl Iterator<Item = Load> + '_ {
        self.runs.iter().map(|run| Load { shard: run.shard, records: run.records, payload_bytes: run.payload_bytes })
    }

    /// Number of records.
    #[must_use]
    pub fn len(&self) -> usize {
        self.runs.iter().map(|run| run.records as usize).sum()
    }

    /// Whether it holds no record.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// Keys and data in bytes.
    #[must_use]
    pub fn payload_bytes(&self) -> u64 {
        self.runs.iter().map(|run| run.payload_bytes).sum()
    }

    /// Encoded size in bytes: what it takes of a queue and, where it is not compressed, of the disk.
    #[must_use]
    pub fn encoded_bytes(&self) -> usize {
        self.runs.iter().map(|run| run.encoded.len()).sum()
    }

    pub(crate) fn runs(&self) -> &[Run] {
        &self.runs
    }
}

fn check(record: &NewRecord<'_>, record_bytes_max: usize) -> Result<(), Error> {
    let key = record.partition_key;
    // Bytes are no fewer than characters, so the count is only taken where it can matter.
    if key.is_empty() || (key.len() > PARTITION_KEY_CHARS_MAX && key.chars().count() > PARTITION_KEY_CHARS_MAX) {
        return Err(Error::BadPartitionKey { chars: key.chars().count() });
    }
    if record.data.len() > record_bytes_max {
        return Err(Error::RecordTooLarge { bytes: record.data.len(), max: record_bytes_max });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;

    fn batch() -> Batch {
        Batch::new(Arc::new(ShardMap::uniform(NonZeroU32::new(4).expect("not zero"))), usize::MAX)
    }

    #[test]
    fn a_refused_record_leaves_the_batch_as_it_was() {
        let mut batch = batch();
        batch.push(&NewRecord::new("k", b"v")).expect("fits");
        let long_key = "ä".repeat(257);
        assert!(matches!(batch.push(&NewRecord::new(&long_key, b"")), Err(Error::BadPartitionKey { chars: 257 })));
        assert!(matches!(batch.push(&NewRecord::new("", b"")), Err(Error::BadPartitionKey { chars: 0 })));
        let big = vec![0; RECORD_BYTES_MAX + 1];
        assert!(matches!(batch.push(&NewRecord::new("k", &big)), Err(Error::RecordTooLarge { .. })));
        assert_eq!((batch.len(), batch.payload_bytes()), (1, 2));
    }

    #[test]
    fn a_stream_may_take_less_than_the_log_could() {
        let mut batch = Batch { record_bytes_max: 10, ..batch() };
        batch.push(&NewRecord::new("k", &[0; 10])).expect("just fits");
        assert!(matches!(
            batch.push(&NewRecord::new("k", &[0; 11])),
            Err(Error::RecordTooLarge { bytes: 11, max: 10 })
        ));
    }

    #[test]
    fn a_key_of_256_wide_characters_is_taken() {
        batch().push(&NewRecord::new(&"ä".repeat(256), b"v")).expect("256 characters are allowed");
    }

    #[test]
    fn records_of_one_key_share_a_run() {
        let mut batch = batch();
        for key in ["a", "b", "a", "c", "a"] {
            batch.push(&NewRecord::new(key, b"v")).expect("fits");
        }
        assert_eq!(batch.load().map(|load| load.records).sum::<u32>(), 5);
        assert!(batch.load().count() <= 3);
    }
}
