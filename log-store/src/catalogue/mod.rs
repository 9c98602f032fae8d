//! The catalogue: an index of the segments, kept in a small key-value store. Never the only place of a record.
//!
//! Everything in it can be made again from the segments, so a change that it does not take is told and survived. Nothing
//! is written to it per record or per commit.

mod kv;
#[cfg(test)]
pub(crate) mod memory;
mod sled;

use std::{
    collections::BTreeMap,
    ops::RangeInclusive,
    sync::{Mutex, PoisonError, RwLock},
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

pub(crate) use self::{
    kv::{Kv, KvError, NoKv},
    sled::open_sled,
};
use crate::{
    clock::{Boot, Stamp},
    gaps::Gaps,
    marks::Marks,
    segment::StreamDefinition,
    sequence::SequenceNumber,
    stats::DropTotals,
};

/// What is known of a segment that takes no more records. Persisted: never change, only add a new kind of key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SealedSegment {
    /// Its last record; the number before the first if it holds none.
    pub(crate) last: SequenceNumber,
    /// Its length in bytes.
    pub(crate) bytes: u64,
    /// Time of its newest record.
    pub(crate) newest: Stamp,
}

/// Kind of the keys of stream definitions; the older one is only read.
const DEFINITION: u8 = b'S';
const DEFINITION_V1: u8 = b's';

/// The typed view of the key-value store.
pub(crate) struct Catalogue {
    /// `None` once it was closed.
    kv: RwLock<Option<Box<dyn Kv>>>,
    /// Whether it was empty when it was opened.
    pub(crate) is_new: bool,
    /// Why it no longer takes changes, once it has failed.
    failed: Mutex<Option<String>>,
    /// Bytes of keys and values put since it was opened, by stream.
    written: Mutex<BTreeMap<String, u64>>,
}

impl Catalogue {
    /// Persisted: the version of keys and values.
    pub(crate) const FORMAT_VERSION: u16 = 3;

    /// Checks the version of an open store, or sets it in an empty one.
    ///
    /// # Errors
    /// The store failed, is of a newer version (`Ok(Err(version))`), or has no version although it holds something.
    pub(crate) fn new(kv: Box<dyn Kv>) -> Result<Result<Self, u16>, KvError> {
        let is_new = match kv.get(b"format")? {
            Some(bytes) => {
                let version: u16 = decode("format", &bytes)?;
                if version > Self::FORMAT_VERSION {
                    return Ok(Err(version));
                }
                if version < Self::FORMAT_VERSION {
                    kv.put(b"format", &encode(&Self::FORMAT_VERSION))?;
                }
                false
            }
            None if kv.scan(b"")?.is_empty() => {
                kv.put(b"format", &encode(&Self::FORMAT_VERSION))?;
                // From now on one that has nothing in it is a broken one.
                kv.flush()?;
                true
            }
            None => return Err(KvError::new("it has entries but no format version")),
        };
        Ok(Ok(Self { kv: RwLock::new(Some(kv)), is_new, failed: Mutex::new(None), written: Mutex::default() }))
    }

    /// One that knows nothing and takes nothing, in place of one that cannot be opened for now.
    pub(crate) fn absent(reason: String) -> Self {
        let (kv, failed) = (RwLock::new(Some(Box::new(NoKv) as Box<dyn Kv>)), Mutex::new(Some(reason)));
        Self { kv, is_new: true, failed, written: Mutex::default() }
    }

    /// The definition of a stream, unless it is damaged.
    pub(crate) fn stream(&self, stream: &str) -> Result<Option<StreamDefinition>, KvError> {
        for (kind, version) in [(DEFINITION, 2), (DEFINITION_V1, 1)] {
            if let Some(value) = self.read(|kv| kv.get(&key(kind, stream, None)))? {
                return Ok(StreamDefinition::decode(version, &value).ok());
            }
        }
        Ok(None)
    }

    pub(crate) fn put_stream(&self, definition: &StreamDefinition) {
        self.change(|kv| {
            kv.put(&key(DEFINITION, &definition.name, None), &definition.encode(2))?;
            kv.remove(&key(DEFINITION_V1, &definition.name, None))
        });
    }

    /// Forgets everything about a stream.
    pub(crate) fn forget_stream(&self, stream: &str) {
        self.change(|kv| {
            for kind in [b'g', b'i', b'c', b'm', b'u'] {
                let from = prefix(kind, stream);
                let mut end = from.clone();
                *end.last_mut().expect("a prefix ends with a zero") = 1;
                kv.remove_range(&from, &end)?;
            }
            kv.remove(&key(b'd', stream, None))?;
            kv.remove(&key(b'n', stream, None))?;
            kv.remove(&key(b'l', stream, None))?;
            kv.remove(&key(b'e', stream, None))?;
            kv.remove(&key(DEFINITION_V1, stream, None))?;
            kv.remove(&key(DEFINITION, stream, None))
        });
    }

    /// What is known of a stream's sealed segments, by their first sequence numbers.
    pub(crate) fn segments(&self, stream: &str) -> Result<BTreeMap<SequenceNumber, SealedSegment>, KvError> {
        let prefix = prefix(b'g', stream);
        let entries = self.read(|kv| kv.scan(&prefix))?;
        entries
            .iter()
            .map(|(key, value)| Ok((decode_sequence(key, prefix.len())?, decode("segment", value)?)))
            .collect()
    }

    pub(crate) fn put_segment(&self, stream: &str, first: SequenceNumber, segment: &SealedSegment) {
        self.put(key(b'g', stream, Some(first)), segment);
    }

    /// Forgets a segment, and the index entries and the unwritten numbers before `end`, where the next segment begins.
    pub(crate) fn forget_segment(&self, stream: &str, first: SequenceNumber, end: SequenceNumber) {
        self.change(|kv| {
            kv.remove(&key(b'g', stream, Some(first)))?;
            kv.remove_range(&key(b'i', stream, Some(first)), &key(b'i', stream, Some(end)))?;
            kv.remove_range(&key(b'u', stream, Some(first)), &key(b'u', stream, Some(end)))
        });
    }

    /// Notes that in the segment that begins at `segment`, the block that begins with `first` lies at `offset`; and the
    /// marks that have changed since the index entry before. Together, so that whoever goes on reading there has all marks.
    pub(crate) fn put_index(
        &self,
        stream: &str,
        first: SequenceNumber,
        segment: SequenceNumber,
        offset: u64,
        marks: &Marks,
    ) {
        let mut entries = vec![(key(b'i', stream, Some(first)), Some(encode(&(segment, offset))))];
        for (name, value) in marks.iter() {
            let mut key = prefix(b'm', stream);
            key.extend_from_slice(name.as_bytes());
            entries.push((key, (!value.is_empty()).then(|| value.to_vec())));
        }
        let bytes = entries.iter().map(|(key, value)| key.len() + value.as_ref().map_or(0, Vec::len)).sum();
        self.count_written(stream, bytes);
        self.change(|kv| kv.put_all(&entries));
    }

    /// The newest index entry of a stream: the number of a block, its segment and its offset.
    pub(crate) fn newest_place(&self, stream: &str) -> Option<(SequenceNumber, SequenceNumber, u64)> {
        let (from, to) = [SequenceNumber::ZERO, SequenceNumber(u64::MAX)].map(|at| key(b'i', stream, Some(at))).into();
        let (key, value) = self.read(|kv| kv.last_in(&from, &to)).ok().flatten()?;
        let (segment, offset) = decode::<(SequenceNumber, u64)>("index", &value).ok()?;
        Some((decode_sequence(&key, prefix(b'i', stream).len()).ok()?, segment, offset))
    }

    /// Behind the newest record that was certainly durable once: an index entry, a sealed segment and a clean stop prove it,
    /// since each was noted after a sync. 1 if nothing is known.
    pub(crate) fn proven_end(&self, stream: &str) -> SequenceNumber {
        let place = self.newest_place(stream).map(|(number, ..)| number.next());
        let [from, to] = [SequenceNumber::ZERO, SequenceNumber(u64::MAX)].map(|at| key(b'g', stream, Some(at)));
        let sealed = self.read(|kv| kv.last_in(&from, &to)).ok().flatten();
        let sealed = sealed.and_then(|(_, value)| decode::<SealedSegment>("segment", &value).ok());
        let stopped = self.read(|kv| kv.get(&key(b'e', stream, None))).ok().flatten();
        let stopped = stopped.and_then(|value| decode::<SequenceNumber>("end", &value).ok());
        let ends = [place, sealed.map(|sealed| sealed.last.next()), stopped].into_iter().flatten();
        ends.max().unwrap_or_default().max(SequenceNumber(1))
    }

    /// Notes that at a clean stop all records before this number were durable.
    pub(crate) fn put_end(&self, stream: &str, end: SequenceNumber) {
        self.put(key(b'e', stream, None), &end);
    }

    /// Forgets index entries of blocks that begin with `from` or later, because there are none.
    pub(crate) fn forget_places(&self, stream: &str, from: SequenceNumber) {
        let mut end = prefix(b'i', stream);
        *end.last_mut().expect("a prefix ends with a zero") = 1;
        self.change(|kv| kv.remove_range(&key(b'i', stream, Some(from)), &end));
    }

    /// A stream's marks as of its newest index entry.
    pub(crate) fn marks(&self, stream: &str) -> Result<Marks, KvError> {
        let prefix = prefix(b'm', stream);
        let mut marks = Marks::default();
        for (key, value) in self.read(|kv| kv.scan(&prefix))? {
            let name = str::from_utf8(&key[prefix.len()..]).map_err(|_| KvError::new("a key is not UTF-8"))?;
            marks.change(name, &value);
        }
        Ok(marks)
    }

    /// The last known place of a block at or before `wanted` in this segment.
    pub(crate) fn place(&self, stream: &str, segment: SequenceNumber, wanted: SequenceNumber) -> Option<u64> {
        let found = self.read(|kv| kv.last_in(&key(b'i', stream, Some(segment)), &key(b'i', stream, Some(wanted))));
        // Without an entry, and if the catalogue fails, the segment is read from its start.
        let (_, value) = found.ok().flatten()?;
        let (in_segment, offset) = decode::<(SequenceNumber, u64)>("index", &value).ok()?;
        (in_segment == segment).then_some(offset)
    }

    /// A stream's checkpoints by consumer.
    pub(crate) fn checkpoints(&self, stream: &str) -> Result<BTreeMap<String, SequenceNumber>, KvError> {
        self.section(&prefix(b'c', stream))
    }

    pub(crate) fn put_checkpoint(&self, stream: &str, consumer: &str, done: SequenceNumber) {
        let mut key = prefix(b'c', stream);
        key.extend_from_slice(consumer.as_bytes());
        self.put(key, &done);
    }

    /// What a stream has dropped; `None` if nothing was ever noted.
    pub(crate) fn drops(&self, stream: &str) -> Result<Option<DropTotals>, KvError> {
        self.read(|kv| kv.get(&key(b'd', stream, None)))?.map(|value| decode("drops", &value)).transpose()
    }

    pub(crate) fn put_drops(&self, stream: &str, drops: &DropTotals) {
        self.put(key(b'd', stream, None), drops);
    }

    /// The boots of the machine; `None` if nothing was ever noted.
    pub(crate) fn boots(&self) -> Result<Option<Vec<Boot>>, KvError> {
        self.read(|kv| kv.get(b"boots"))?.map(|value| decode("boots", &value)).transpose()
    }

    pub(crate) fn put_boots(&self, boots: &[Boot]) {
        self.put(b"boots".to_vec(), &boots);
    }

    /// Numbers before this one may have been given to records that were never written; zero if that was never noted.
    pub(crate) fn reserved(&self, stream: &str) -> Result<SequenceNumber, KvError> {
        let found = self.read(|kv| kv.get(&key(b'n', stream, None)))?;
        found.map_or(Ok(SequenceNumber::ZERO), |value| decode("reserved", &value))
    }

    pub(crate) fn put_reserved(&self, stream: &str, reserved: SequenceNumber) {
        self.put(key(b'n', stream, None), &reserved);
    }

    /// The numbers before `end` that are unwritten: they stand for no record of the segments.
    pub(crate) fn unwritten(&self, stream: &str, end: SequenceNumber) -> Result<Gaps, KvError> {
        let prefix = prefix(b'u', stream);
        let mut unwritten = Gaps::default();
        for (key, value) in self.read(|kv| kv.scan(&prefix))? {
            unwritten.add(decode_sequence(&key, prefix.len())?..=decode("unwritten", &value)?);
        }
        unwritten.forget_from(end);
        Ok(unwritten)
    }

    /// Notes the numbers for which an unwritten block of a segment stands.
    pub(crate) fn put_unwritten(&self, stream: &str, numbers: &RangeInclusive<SequenceNumber>) {
        self.put(key(b'u', stream, Some(*numbers.start())), numbers.end());
    }

    /// Forgets unwritten numbers before `begin`, where the first segment begins, and from `next` on, where there is nothing.
    pub(crate) fn forget_unwritten_outside(&self, stream: &str, begin: SequenceNumber, next: SequenceNumber) {
        let [from, begin, next, end] =
            [SequenceNumber::ZERO, begin, next, SequenceNumber(u64::MAX)].map(|at| key(b'u', stream, Some(at)));
        self.change(|kv| {
            kv.remove_range(&from, &begin)?;
            kv.remove_range(&next, &end)
        });
    }

    /// What damage took of a stream, as far as it was told.
    pub(crate) fn gaps(&self, stream: &str) -> Result<Option<Gaps>, KvError> {
        self.read(|kv| kv.get(&key(b'l', stream, None)))?.map(|value| decode("gaps", &value)).transpose()
    }

    pub(crate) fn put_gaps(&self, stream: &str, gaps: &Gaps) {
        self.put(key(b'l', stream, None), gaps);
    }

    /// Makes all changes so far survive a power cut.
    pub(crate) fn flush(&self) {
        self.change(|kv| kv.flush());
    }

    /// Why it takes no more changes, if so.
    pub(crate) fn failure(&self) -> Option<String> {
        self.failed.lock().expect("held only to read or set it").clone()
    }

    /// Lets go of the files, whoever still holds a stream of this store: then the directory can be opened again. What is
    /// asked later fails, which readers of old segments survive.
    pub(crate) fn close(&self) {
        *self.kv.write().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn read<T>(&self, act: impl FnOnce(&dyn Kv) -> Result<T, KvError>) -> Result<T, KvError> {
        let kv = self.kv.read().unwrap_or_else(PoisonError::into_inner);
        act(kv.as_deref().ok_or_else(|| KvError::new("it is closed"))?)
    }

    fn section<T: DeserializeOwned>(&self, prefix: &[u8]) -> Result<BTreeMap<String, T>, KvError> {
        let entries = self.read(|kv| kv.scan(prefix))?;
        let named = entries.iter().map(|(key, value)| {
            let name = str::from_utf8(&key[prefix.len()..]).map_err(|_| KvError::new("a key is not UTF-8"))?;
            Ok((name.to_owned(), decode(name, value)?))
        });
        named.collect()
    }

    /// How many bytes of keys and values were put for a stream since the catalogue was opened.
    pub(crate) fn written_bytes(&self, stream: &str) -> u64 {
        let written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        written.get(stream).copied().unwrap_or(0)
    }

    fn put(&self, key: Vec<u8>, value: &impl Serialize) {
        let value = encode(value);
        // `<kind>/<stream>`, then a zero or nothing.
        let name = key.get(2..).and_then(|name| name.split(|byte| *byte == 0).next()).unwrap_or_default();
        self.count_written(&String::from_utf8_lossy(name), key.len() + value.len());
        self.change(|kv| kv.put(&key, &value));
    }

    fn count_written(&self, stream: &str, bytes: usize) {
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        *written.entry(stream.to_owned()).or_default() += bytes as u64;
    }

    /// After the first failure nothing more is changed: what is there stays a sound earlier state, which recovery knows
    /// how to bring up to date.
    fn change(&self, act: impl FnOnce(&dyn Kv) -> Result<(), KvError>) {
        let mut failed = self.failed.lock().expect("held only to read or set it");
        if failed.is_none() {
            *failed = self.read(act).err().map(|error| error.reason);
        }
    }
}

/// `<kind>/<stream>\0`: a stream's name holds neither a slash nor a zero.
fn prefix(kind: u8, stream: &str) -> Vec<u8> {
    let mut key = vec![kind, b'/'];
    key.extend_from_slice(stream.as_bytes());
    key.push(0);
    key
}

#[expect(clippy::big_endian_bytes, reason = "the order of keys is the order of their bytes")]
fn key(kind: u8, name: &str, sequence: Option<SequenceNumber>) -> Vec<u8> {
    let mut key = prefix(kind, name);
    match sequence {
        Some(sequence) => key.extend_from_slice(&sequence.0.to_be_bytes()),
        None => _ = key.pop(),
    }
    key
}

#[expect(clippy::big_endian_bytes, reason = "the order of keys is the order of their bytes")]
fn decode_sequence(key: &[u8], at: usize) -> Result<SequenceNumber, KvError> {
    let bytes = key.get(at..).and_then(|bytes| bytes.try_into().ok());
    bytes.map(|bytes| SequenceNumber(u64::from_be_bytes(bytes))).ok_or_else(|| KvError::new("a key has a wrong length"))
}

fn encode(value: &impl Serialize) -> Vec<u8> {
    postcard::to_allocvec(value).expect("catalogue values have no unserialisable part")
}

fn decode<T: DeserializeOwned>(what: &str, bytes: &[u8]) -> Result<T, KvError> {
    postcard::from_bytes(bytes).map_err(|error| KvError::new(format!("the entry `{what}` is damaged: {error}")))
}
