//! Batches: records of one stream, checked, routed to their shards and encoded before they reach the committer.
//!
//! Encoding and summing up happen here, in the caller's thread, so that the single committer thread only writes.

use std::sync::Arc;

use crate::{
    error::{Appended, AppendedRun, Error},
    hash_key::HashKey,
    marks::{self, Marks},
    record::{Encoded, NewRecord, PARTITION_KEY_CHARS_MAX, RECORD_BYTES_MAX},
    segment::{COPIED_BYTES_MAX, Part, StreamDefinition},
    shard::{ShardIndex, ShardMap},
};

/// Records of one stream, and marks, that are committed together: all or none.
///
/// Made by [`Stream::batch`](crate::Stream::batch). Order within a shard is the order of [`Batch::push`].
#[derive(Debug, Clone)]
pub struct Batch {
    shards: Arc<ShardMap>,
    only_shard: Option<ShardIndex>,
    /// Of the stream's definition that the shards are from.
    revision: u32,
    record_bytes_max: usize,
    runs: Vec<Run>,
    /// Boxed, since most have none and batches ride in errors.
    marks: Box<Marks>,
}

/// A batch's records of one shard, encoded one after the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) shard: ShardIndex,
    pub(crate) records: u32,
    pub(crate) payload_bytes: u64,
    pub(crate) encoded: Vec<u8>,
    /// Of what is encoded, once that is summed up.
    pub(crate) crc: Option<u32>,
}

impl Run {
    pub(crate) fn part(&self) -> Part<'_> {
        Part { bytes: &self.encoded, crc: self.crc }
    }
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
    pub(crate) fn new(definition: &StreamDefinition, record_bytes_max: usize) -> Self {
        let (shards, revision) = (Arc::clone(&definition.shards), definition.revision);
        let record_bytes_max = record_bytes_max.min(RECORD_BYTES_MAX);
        let only_shard = shards.only();
        Self { shards, only_shard, revision, record_bytes_max, runs: Vec::new(), marks: Box::default() }
    }

    /// Adds a record behind the others.
    ///
    /// # Errors
    /// [`Error::BadPartitionKey`] and [`Error::RecordTooLarge`]; the batch is then unchanged.
    pub fn push(&mut self, record: &NewRecord<'_>) -> Result<ShardIndex, Error> {
        check(record, self.record_bytes_max)?;
        let at = self.run_for(|| record.hash_key(), record.payload_bytes());
        let run = &mut self.runs[at];
        Encoded::of(record).write(&mut run.encoded);
        Ok(run.shard)
    }

    /// Sets a mark of the stream: a named value, such as how far a source has read, that is committed with the batch's
    /// records or not at all. It then stands until another batch sets it; an empty value removes it. A batch may have marks
    /// alone.
    ///
    /// [`Stream::mark`](crate::Stream::mark) gives it back. The stream refuses a batch that would bring too many marks
    /// ([`Error::TooManyMarks`]).
    ///
    /// # Errors
    /// [`Error::BadMarkName`] and [`Error::MarkTooLarge`]; the batch is then unchanged.
    pub fn set_mark(&mut self, name: &str, value: &[u8]) -> Result<(), Error> {
        marks::check(name, value)?;
        self.marks.change(name, value);
        Ok(())
    }

    /// The run that the next record goes to, which is counted there already.
    fn run_for(&mut self, hash_key: impl FnOnce() -> HashKey, payload_bytes: u64) -> usize {
        // Where there is one open shard, nothing has to be hashed.
        let shard = self.only_shard.unwrap_or_else(|| self.shards.locate(hash_key()));
        let at = self.runs.iter().position(|run| run.shard == shard).unwrap_or_else(|| {
            self.runs.push(Run { shard, records: 0, payload_bytes: 0, encoded: Vec::new(), crc: None });
            self.runs.len() - 1
        });
        self.runs[at].records += 1;
        self.runs[at].payload_bytes += payload_bytes;
        self.runs[at].crc = None;
        at
    }

    /// Sums up what is encoded, for whoever writes it as it is.
    pub(crate) fn sum_up(&mut self) {
        for run in self.runs.iter_mut().filter(|run| run.encoded.len() > COPIED_BYTES_MAX) {
            run.crc = Some(crc32fast::hash(&run.encoded));
        }
    }

    /// Whether the shards were changed since it was made.
    pub(crate) fn is_outdated(&self, definition: &StreamDefinition) -> bool {
        self.revision != definition.revision
    }

    /// The same records in the shards that there are now.
    pub(crate) fn rerouted(&self, definition: &StreamDefinition) -> Rerouted {
        let mut batch = Self { marks: self.marks.clone(), ..Self::new(definition, self.record_bytes_max) };
        let mut routes = Vec::with_capacity(self.len());
        for run in &self.runs {
            let mut rest = run.encoded.as_slice();
            while !rest.is_empty() {
                let (record, behind) = Encoded::take(rest).expect("encoded by push");
                let (bytes, payload_bytes) = (&rest[..rest.len() - behind.len()], record.payload_bytes());
                let at = batch.run_for(|| record.hash_key(), payload_bytes);
                batch.runs[at].encoded.extend_from_slice(bytes);
                routes.push((run.shard, at));
                rest = behind;
            }
        }
        Rerouted { batch, routes }
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

    /// Whether it holds neither a record nor a mark.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty() && self.marks.is_empty()
    }

    /// Keys and data in bytes.
    #[must_use]
    pub fn payload_bytes(&self) -> u64 {
        self.runs.iter().map(|run| run.payload_bytes).sum()
    }

    /// Encoded size in bytes: what it takes of a queue and, where it is not compressed, of the disk.
    #[must_use]
    pub fn encoded_bytes(&self) -> usize {
        self.runs.iter().map(|run| run.encoded.len()).sum::<usize>() + self.marks.bytes()
    }

    pub(crate) fn runs(&self) -> &[Run] {
        &self.runs
    }

    pub(crate) fn marks(&self) -> &Marks {
        &self.marks
    }
}

/// A batch whose records were routed a second time.
pub(crate) struct Rerouted {
    pub(crate) batch: Batch,
    /// For each record, in the order of the first batch's runs: its shard there, and its run here.
    routes: Vec<(ShardIndex, usize)>,
}

impl Rerouted {
    /// What became of the first batch, given what became of this one.
    pub(crate) fn trace(routes: &[(ShardIndex, usize)], appended: &Appended) -> Appended {
        let mut next: Vec<AppendedRun> = appended.runs.clone();
        let mut runs: Vec<AppendedRun> = Vec::new();
        for &(of, at) in routes {
            let AppendedRun { shard, first, .. } = next[at];
            next[at].first = first.next();
            match runs.last_mut() {
                Some(run) if (run.of, run.shard) == (of, shard) && run.first.plus(u64::from(run.records)) == first => {
                    run.records += 1;
                }
                _ => runs.push(AppendedRun { of, shard, first, records: 1 }),
            }
        }
        Appended { runs }
    }

    pub(crate) fn into_parts(self) -> (Batch, Vec<(ShardIndex, usize)>) {
        (self.batch, self.routes)
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
    use crate::sequence::SequenceNumber;

    fn definition(shards: u32, revision: u32) -> StreamDefinition {
        let shards = Arc::new(ShardMap::uniform(NonZeroU32::new(shards).expect("not zero")));
        StreamDefinition { revision, shards, ..StreamDefinition::sample() }
    }

    fn batch() -> Batch {
        Batch::new(&definition(4, 0), usize::MAX)
    }

    #[test]
    fn a_rerouted_batch_tells_where_each_record_of_the_first_one_is() {
        let mut first = batch();
        let keys: Vec<String> = (0..50).map(|i| format!("key-{}", i * i)).collect();
        let pushed: Vec<_> =
            keys.iter().map(|key| first.push(&NewRecord::new(key, key.as_bytes())).expect("fits")).collect();
        let now = definition(3, 1);
        assert!(first.is_outdated(&now) && !first.is_outdated(&definition(4, 0)));
        let (second, routes) = first.rerouted(&now).into_parts();
        assert!(!second.is_outdated(&now));
        assert_eq!((second.len(), second.encoded_bytes()), (first.len(), first.encoded_bytes()));
        assert_eq!(second.payload_bytes(), first.payload_bytes());

        // Stored shard by shard, as a commit does.
        let (mut number, mut runs, mut stored) = (SequenceNumber(1), Vec::new(), Vec::new());
        for run in second.runs() {
            runs.push(AppendedRun { of: run.shard, shard: run.shard, first: number, records: run.records });
            let mut rest = run.encoded.as_slice();
            while !rest.is_empty() {
                let (record, behind) = Encoded::take(rest).expect("sound");
                stored.push((record.partition_key().to_owned(), run.shard));
                (rest, number) = (behind, number.next());
            }
        }
        let places = Rerouted::trace(&routes, &Appended { runs }).places(&pushed);
        assert_eq!(places.len(), keys.len());
        for (key, (shard, number)) in keys.iter().zip(places) {
            assert_eq!(stored[number.0 as usize - 1], (key.clone(), shard));
        }
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
