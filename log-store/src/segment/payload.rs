//! The payload of a records block, in the parts that it is made of: what lies somewhere already is written from there, and
//! what was summed up already is not read again.

use std::iter;

use crc32fast::Hasher;
use serde::Serialize;

use super::block::{RunHeader, shard_bit};
use crate::{marks::Marks, shard::ShardIndex};

/// Parts up to this length are copied: that costs less than to write them each by itself.
pub(crate) const COPIED_BYTES_MAX: usize = 2048;

/// A sample of a payload, to see whether it can be compressed, is so many bytes of each so many.
const SAMPLE_PIECE_BYTES: usize = 4 << 10;
const SAMPLE_DISTANCE: usize = 32 << 10;

/// Bytes, and their CRC if that is known.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Part<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) crc: Option<u32>,
}

impl<'a> From<&'a [u8]> for Part<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        Self { bytes, crc: None }
    }
}

/// Marks and runs of records, or what came of them when they were compressed.
#[derive(Debug, Default)]
pub(crate) struct Payload<'a> {
    copied: Vec<u8>,
    /// Parts that are not copied, each with how much of `copied` stands before it.
    lent: Vec<(usize, Part<'a>)>,
    lent_bytes: usize,
}

impl<'a> Payload<'a> {
    /// Bytes as they are.
    pub(crate) fn of(bytes: &'a [u8]) -> Self {
        let mut payload = Self::default();
        payload.push(bytes.into());
        payload
    }

    /// Appends the marks with which a payload begins.
    pub(crate) fn push_marks(&mut self, marks: &Marks) {
        let marks = postcard::to_allocvec(marks).expect("a Vec takes any number of bytes");
        self.encode(serde_bytes::Bytes::new(&marks));
    }

    /// Appends one shard's records, which come in parts; returns the shard's bit.
    pub(crate) fn push_run(
        &mut self,
        shard: ShardIndex,
        records: u32,
        parts: impl Iterator<Item = Part<'a>> + Clone,
    ) -> u64 {
        let bytes = parts.clone().map(|part| part.bytes.len()).sum::<usize>();
        let bytes = u32::try_from(bytes).expect("a block stays below PAYLOAD_BYTES_MAX");
        self.encode(&RunHeader { shard, records, bytes });
        parts.for_each(|part| self.push(part));
        shard_bit(shard)
    }

    fn encode(&mut self, value: &(impl Serialize + ?Sized)) {
        let copied = std::mem::take(&mut self.copied);
        self.copied = postcard::to_extend(value, copied).expect("a Vec takes any number of bytes");
    }

    fn push(&mut self, part: Part<'a>) {
        if part.bytes.len() <= COPIED_BYTES_MAX {
            self.copied.extend_from_slice(part.bytes);
        } else {
            self.lent.push((self.copied.len(), part));
            self.lent_bytes += part.bytes.len();
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.copied.len() + self.lent_bytes
    }

    /// Its bytes, in parts.
    pub(crate) fn parts(&self) -> impl Iterator<Item = Part<'_>> {
        let mut at = 0;
        let lent = self.lent.iter().flat_map(move |&(behind, lent)| {
            let copied = &self.copied[at..behind];
            at = behind;
            [copied.into(), lent]
        });
        let last = self.lent.last().map_or(0, |&(behind, _)| behind);
        lent.chain(iter::once(self.copied[last..].into())).filter(|part| !part.bytes.is_empty())
    }

    /// Appends its bytes to `out`.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        out.reserve(self.len());
        self.parts().for_each(|part| out.extend_from_slice(part.bytes));
    }

    /// Appends some of its bytes to `out`: pieces of [`SAMPLE_PIECE_BYTES`] that lie [`SAMPLE_DISTANCE`] apart, since it may hold records of
    /// many kinds.
    pub(crate) fn write_sample(&self, out: &mut Vec<u8>) {
        let mut at = 0;
        for Part { bytes, .. } in self.parts() {
            let end = at + bytes.len();
            let mut piece = at / SAMPLE_DISTANCE * SAMPLE_DISTANCE;
            while piece < end {
                let (from, to) = (piece.max(at), (piece + SAMPLE_PIECE_BYTES).min(end));
                if from < to {
                    out.extend_from_slice(&bytes[from - at..to - at]);
                }
                piece += SAMPLE_DISTANCE;
            }
            at = end;
        }
    }

    /// The CRC of its bytes, begun with `salt`.
    pub(super) fn crc(&self, salt: u32) -> u32 {
        let mut all = Hasher::new_with_initial(salt);
        for Part { bytes, crc } in self.parts() {
            match crc {
                Some(crc) => all.combine(&Hasher::new_with_initial_len(crc, bytes.len() as u64)),
                None => all.update(bytes),
            }
        }
        all.finalize()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::segment::decode_runs;

    /// Short and long parts, summed up or not.
    fn parts() -> impl Strategy<Value = Vec<(Vec<u8>, bool)>> {
        let lengths = prop_oneof![0..40usize, COPIED_BYTES_MAX - 1..COPIED_BYTES_MAX + 3, 0..9000usize];
        let part = lengths.prop_flat_map(|len| (prop::collection::vec(any::<u8>(), len), any::<bool>()));
        prop::collection::vec(part, 0..12)
    }

    proptest! {
        #[test]
        fn parts_are_the_same_bytes_with_the_same_checksum(parts in parts(), salt: u32) {
            let mut payload = Payload::default();
            let lend = |(bytes, summed): &'_ (Vec<u8>, bool)| (bytes.clone(), summed.then(|| crc32fast::hash(bytes)));
            let lent: Vec<_> = parts.iter().map(lend).collect();
            let of = |range: std::ops::Range<usize>| {
                lent[range].iter().map(|(bytes, crc)| Part { bytes, crc: *crc })
            };
            let middle = parts.len() / 2;
            payload.push_run(ShardIndex(1), 1, of(0..middle));
            payload.push_run(ShardIndex(2), 2, of(middle..parts.len()));
            let mut bytes = Vec::new();
            payload.write(&mut bytes);
            prop_assert_eq!(payload.len(), bytes.len());
            let mut sample = Vec::new();
            payload.write_sample(&mut sample);
            let pieces = bytes.chunks(SAMPLE_DISTANCE).map(|chunk| &chunk[..chunk.len().min(SAMPLE_PIECE_BYTES)]);
            prop_assert_eq!(sample, pieces.collect::<Vec<_>>().concat());
            let mut summed = Hasher::new_with_initial(salt);
            summed.update(&bytes);
            prop_assert_eq!(payload.crc(salt), summed.finalize());
            let whole = |range: std::ops::Range<usize>| parts[range].iter().flat_map(|(bytes, _)| bytes.clone()).collect::<Vec<u8>>();
            let runs: Vec<_> = decode_runs(&bytes).map(|run| run.expect("sound")).collect();
            prop_assert_eq!(runs[0].encoded, whole(0..middle));
            prop_assert_eq!(runs[1].encoded, whole(middle..parts.len()));
        }
    }
}
