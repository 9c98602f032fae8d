//! Blocks: what one group commit wrote. The unit of checksum, compression and index.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{
    codec::{Codec, Packer},
    header::{u32_at, u64_at},
    payload::Payload,
};
use crate::{
    clock::{Boot, Stamp},
    gaps::Gaps,
    marks::Marks,
    sequence::SequenceNumber,
    shard::ShardIndex,
    stats::DropTotals,
};

/// `FBLK`, the first four bytes of a block.
pub(super) const MAGIC: [u8; 4] = *b"FBLK";
/// Bit of the kind's byte for [`BlockHeader::together`].
const TOGETHER: u8 = 0x80;
/// Bit of the kind's byte for [`BlockHeader::marked`].
const MARKED: u8 = 0x40;
/// Length of a block's header.
pub(crate) const BLOCK_HEADER_BYTES: usize = 64;
/// No block is longer: one batch of the largest record is well below. More is damage.
pub(crate) const PAYLOAD_BYTES_MAX: u32 = 64 << 20;

/// What the device writes at a time. A block that ends within such a page has it written again by the next one.
const PAGE_BYTES: u64 = 4096;
/// No padding is longer.
pub(crate) const PADDING_BYTES_MAX: usize = PAGE_BYTES as usize - 1;
/// A block is filled up to the end of its page if that costs no more than this part of it.
const PADDING_PART: u64 = 8;

/// What a block holds. Persisted: never renumber.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BlockKind {
    /// Marks, if the header says so, and runs of records, none if there are marks alone.
    Records = 1,
    /// A [`Control`].
    Control = 2,
    /// Nothing: it stands for the records that damage took from here, as a repair found. Since format version 2.
    Gap = 3,
    /// Nothing: its records were delivered from memory, or their numbers were never given. Since format version 2.
    Unwritten = 4,
}

/// A decoded block header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BlockHeader {
    pub(crate) kind: BlockKind,
    /// Whether nothing was synced between the block before it and this one: that it is there does not mean that the other
    /// one was. Since format version 2.
    pub(crate) together: bool,
    /// Whether its payload begins with marks; only of records blocks. Since format version 3.
    pub(crate) marked: bool,
    pub(crate) codec: Codec,
    /// Bytes of payload on disk.
    pub(crate) stored_bytes: u32,
    /// Bytes of payload once decompressed.
    pub(crate) raw_bytes: u32,
    /// Number of its first record; of a control block, of the next record.
    pub(crate) first: SequenceNumber,
    /// How many records it holds.
    pub(crate) records: u32,
    /// When its records arrived.
    pub(crate) arrival: Stamp,
    /// Bit `i % 64` is set if it holds records of shard `i`.
    pub(crate) shard_bits: u64,
    /// Bytes behind the payload that mean nothing.
    pub(crate) padding: u16,
    pub(super) payload_crc: u32,
}

impl BlockHeader {
    /// Number behind its last record.
    pub(crate) fn end(&self) -> SequenceNumber {
        SequenceNumber(self.first.0.saturating_add(u64::from(self.records)))
    }

    /// Header, payload and padding on disk.
    pub(crate) fn total_bytes(&self) -> u64 {
        BLOCK_HEADER_BYTES as u64 + u64::from(self.stored_bytes) + u64::from(self.padding)
    }

    /// Whether the segment that begins with `next` has its numbers: then it is what a failed commit left.
    pub(crate) fn is_taken_over(&self, next: SequenceNumber) -> bool {
        self.kind != BlockKind::Control && (self.first > next || self.first == next && self.records > 0)
    }

    /// The marks of a records block, given its payload.
    ///
    /// # Errors
    /// What does not fit.
    pub(crate) fn marks(&self, payload: &[u8]) -> Result<Marks, &'static str> {
        let (marks, _) = self.split(payload)?;
        let marks = marks.map_or(Ok(Marks::default()), postcard::from_bytes);
        marks.map_err(|_| "the block's marks cannot be read")
    }

    /// The runs of a records block, given its payload.
    ///
    /// # Errors
    /// What does not fit.
    pub(crate) fn runs<'a>(&self, payload: &'a [u8]) -> Result<&'a [u8], &'static str> {
        Ok(self.split(payload)?.1)
    }

    fn split<'a>(&self, payload: &'a [u8]) -> Result<(Option<&'a [u8]>, &'a [u8]), &'static str> {
        if !self.marked {
            return Ok((None, payload));
        }
        let taken = postcard::take_from_bytes::<&serde_bytes::Bytes>(payload);
        let (marks, runs) = taken.map_err(|_| "the block's marks cannot be read")?;
        Ok((Some(marks), runs))
    }

    /// Whether it may hold records of this shard.
    pub(crate) fn may_hold(&self, shard: ShardIndex) -> bool {
        self.shard_bits & shard_bit(shard) != 0
    }

    fn encode(&self, salt: u32) -> [u8; BLOCK_HEADER_BYTES] {
        let mut out = [0; BLOCK_HEADER_BYTES];
        out[..4].copy_from_slice(&MAGIC);
        out[4] = self.kind as u8 | if self.together { TOGETHER } else { 0 } | if self.marked { MARKED } else { 0 };
        out[5] = self.codec as u8;
        out[6..8].copy_from_slice(&self.padding.to_le_bytes());
        out[8..12].copy_from_slice(&self.stored_bytes.to_le_bytes());
        out[12..16].copy_from_slice(&self.raw_bytes.to_le_bytes());
        out[16..24].copy_from_slice(&self.first.0.to_le_bytes());
        out[24..28].copy_from_slice(&self.records.to_le_bytes());
        out[28..32].copy_from_slice(&self.arrival.boot.to_le_bytes());
        out[32..40].copy_from_slice(&self.arrival.wall_ms.to_le_bytes());
        out[40..48].copy_from_slice(&self.arrival.since_boot_ms.to_le_bytes());
        out[48..56].copy_from_slice(&self.shard_bits.to_le_bytes());
        out[56..60].copy_from_slice(&self.payload_crc.to_le_bytes());
        let crc = salted_crc(salt, &out[..60]);
        out[60..].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// Decodes a header of the segment that `salt` belongs to.
    ///
    /// # Errors
    /// What does not fit.
    pub(crate) fn decode(bytes: &[u8; BLOCK_HEADER_BYTES], salt: u32) -> Result<Self, &'static str> {
        if bytes[..4] != MAGIC {
            return Err("no block begins here");
        }
        if salted_crc(salt, &bytes[..60]) != u32_at(bytes, 60) {
            return Err("the block header's checksum does not match");
        }
        let marked = bytes[4] & MARKED != 0;
        let kind = match bytes[4] & !(TOGETHER | MARKED) {
            1 => BlockKind::Records,
            2 if !marked => BlockKind::Control,
            3 if !marked => BlockKind::Gap,
            4 if !marked => BlockKind::Unwritten,
            _ => return Err("the block is of an unknown kind"),
        };
        let codec = Codec::from_byte(bytes[5]).ok_or("the block is compressed in an unknown way")?;
        let header = Self {
            kind,
            together: bytes[4] & TOGETHER != 0,
            marked,
            codec,
            stored_bytes: u32_at(bytes, 8),
            raw_bytes: u32_at(bytes, 12),
            first: SequenceNumber(u64_at(bytes, 16)),
            records: u32_at(bytes, 24),
            arrival: Stamp { boot: u32_at(bytes, 28), wall_ms: u64_at(bytes, 32), since_boot_ms: u64_at(bytes, 40) },
            shard_bits: u64_at(bytes, 48),
            padding: u16::from_le_bytes([bytes[6], bytes[7]]),
            payload_crc: u32_at(bytes, 56),
        };
        if header.stored_bytes > PAYLOAD_BYTES_MAX || header.raw_bytes > PAYLOAD_BYTES_MAX {
            return Err("the block's length is impossible");
        }
        if header.codec == Codec::None && header.raw_bytes != header.stored_bytes {
            return Err("the block's lengths contradict each other");
        }
        Ok(header)
    }

    /// Whether `payload` is what was written.
    pub(crate) fn fits(&self, payload: &[u8], salt: u32) -> bool {
        payload.len() == self.stored_bytes as usize && salted_crc(salt, payload) == self.payload_crc
    }
}

/// What a control block holds: what would be lost with the catalogue. Persisted: only add at the end.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Control {
    pub(crate) checkpoints: BTreeMap<String, SequenceNumber>,
    pub(crate) totals: DropTotals,
    /// What damage took, as far as it was told. Since format version 2.
    pub(crate) gaps: Gaps,
    /// Numbers before this one may have been given to records that were never written. Since format version 2.
    pub(crate) reserved: SequenceNumber,
    /// The boots of the machine, if they have changed since the last control block. Since format version 2.
    pub(crate) boots: Vec<Boot>,
    /// All marks that were set before it. Since format version 3.
    pub(crate) marks: Marks,
    /// Numbers before the segment that stand for no record of it; only in the first block of a segment. Since format version 3.
    pub(crate) unwritten: Gaps,
}

impl Control {
    /// Decodes a payload; what an older version did not write is empty.
    pub(crate) fn decode(payload: &[u8]) -> Result<Self, postcard::Error> {
        let ((checkpoints, totals), added) = postcard::take_from_bytes(payload)?;
        let ((gaps, reserved, boots), added) = take_or_default(added)?;
        let (marks, added) = take_or_default(added)?;
        let (unwritten, _) = take_or_default(added)?;
        Ok(Self { checkpoints, totals, gaps, reserved, boots, marks, unwritten })
    }
}

/// What a later version added at the end; the default where there is nothing.
fn take_or_default<T: Default + DeserializeOwned>(added: &[u8]) -> Result<(T, &[u8]), postcard::Error> {
    if added.is_empty() { Ok(Default::default()) } else { postcard::take_from_bytes(added) }
}

/// What stands before a run's records.
#[derive(Serialize, Deserialize)]
pub(super) struct RunHeader {
    pub(super) shard: ShardIndex,
    pub(super) records: u32,
    pub(super) bytes: u32,
}

/// A block's records of one shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DecodedRun<'a> {
    pub(crate) shard: ShardIndex,
    pub(crate) records: u32,
    pub(crate) encoded: &'a [u8],
}

/// Leaves room for a block's header at the end of `out` and returns where.
pub(crate) fn start_block(out: &mut Vec<u8>) -> usize {
    let at = out.len();
    out.resize(at + BLOCK_HEADER_BYTES, 0);
    at
}

/// Appends a block without a payload that stands for the records from `first` up to, but without, `end`; at most 2^32 - 1
/// of them. Gives the number behind it.
pub(crate) fn write_absent(
    out: &mut Vec<u8>,
    kind: BlockKind,
    first: SequenceNumber,
    end: SequenceNumber,
    arrival: Stamp,
    salt: u32,
) -> SequenceNumber {
    let records = u32::try_from(end.0 - first.0).unwrap_or(u32::MAX);
    let at = start_block(out);
    finish_block(out, at, BlockHeader::new(kind, first, records, arrival), salt);
    first.plus(records.into())
}

/// Compresses the payload behind the header that [`start_block`] began at `at`, if that makes it smaller.
pub(crate) fn pack_block(out: &mut Vec<u8>, at: usize, header: &mut BlockHeader, codec: Codec, packer: &mut Packer) {
    let payload_at = at + BLOCK_HEADER_BYTES;
    let Some(packed) = pack(&out[payload_at..], header, codec, packer) else { return };
    out.truncate(payload_at);
    out.extend_from_slice(packed);
}

/// Compresses a payload, if that makes it smaller; the header then says so.
pub(crate) fn pack<'a>(
    payload: &[u8],
    header: &mut BlockHeader,
    codec: Codec,
    packer: &'a mut Packer,
) -> Option<&'a [u8]> {
    let packed = packer.pack(codec, payload)?;
    (header.codec, header.raw_bytes) = (codec, length(payload));
    Some(packed)
}

/// The most that [`padding`] gives.
pub(crate) fn padding_max(bytes: u64) -> u64 {
    (bytes / PADDING_PART).min(PAGE_BYTES - 1)
}

/// How many bytes would fill up the page in which a block of `bytes` ends that is written at `at`; none if they are too many.
pub(crate) fn padding(at: u64, bytes: u64) -> u16 {
    let missing = (at + bytes).next_multiple_of(PAGE_BYTES) - (at + bytes);
    if missing > padding_max(bytes) { 0 } else { u16::try_from(missing).expect("less than a page") }
}

/// Fills in the header of the block that [`start_block`] began at `at`; the payload is everything behind it.
///
/// The header's lengths and checksum are set here, except for what [`pack_block`] has set.
pub(crate) fn finish_block(out: &mut [u8], at: usize, header: BlockHeader, salt: u32) {
    let payload = &out[at + BLOCK_HEADER_BYTES..];
    let head = header.sealed(length(payload), salted_crc(salt, payload), salt);
    out[at..at + BLOCK_HEADER_BYTES].copy_from_slice(&head);
}

impl BlockHeader {
    /// A header for [`finish_block`], which sets what depends on the payload.
    pub(crate) fn new(kind: BlockKind, first: SequenceNumber, records: u32, arrival: Stamp) -> Self {
        Self {
            kind,
            together: false,
            marked: false,
            codec: Codec::None,
            stored_bytes: 0,
            raw_bytes: 0,
            first,
            records,
            arrival,
            shard_bits: 0,
            padding: 0,
            payload_crc: 0,
        }
    }

    /// The header that stands before this payload, as [`finish_block`] would make it.
    pub(crate) fn before(self, payload: &Payload<'_>, salt: u32) -> [u8; BLOCK_HEADER_BYTES] {
        let bytes = u32::try_from(payload.len()).expect("a block stays below PAYLOAD_BYTES_MAX");
        self.sealed(bytes, payload.crc(salt), salt)
    }

    fn sealed(mut self, stored_bytes: u32, payload_crc: u32, salt: u32) -> [u8; BLOCK_HEADER_BYTES] {
        (self.stored_bytes, self.payload_crc) = (stored_bytes, payload_crc);
        if self.codec == Codec::None {
            self.raw_bytes = stored_bytes;
        }
        self.encode(salt)
    }
}

/// Changes the header at the start of `bytes`, checksum and all, as a writer would that lies.
#[cfg(test)]
pub(crate) fn rewrite_header(bytes: &mut [u8], salt: u32, change: impl FnOnce(&mut BlockHeader)) {
    let head = bytes.first_chunk_mut().expect("a header");
    let mut header = BlockHeader::decode(head, salt).expect("sound");
    change(&mut header);
    *head = header.encode(salt);
}

/// Makes the checksums of the block at the start of `bytes` right, and its length if that is too long.
#[cfg(any(test, fuzzing))]
pub(crate) fn seal(bytes: &mut [u8], salt: u32) {
    let Some((head, behind)) = bytes.split_at_mut_checked(BLOCK_HEADER_BYTES) else { return };
    let stored = (u32_at(head, 8) as usize).min(behind.len());
    head[..4].copy_from_slice(&MAGIC);
    head[8..12].copy_from_slice(&u32::try_from(stored).unwrap_or(0).to_le_bytes());
    let crc = salted_crc(salt, &behind[..stored]);
    head[56..60].copy_from_slice(&crc.to_le_bytes());
    let crc = salted_crc(salt, &head[..60]);
    head[60..].copy_from_slice(&crc.to_le_bytes());
}

/// The runs of a records block's payload; `None` stands for bytes that are not a run, and ends it.
pub(crate) fn decode_runs(payload: &[u8]) -> impl Iterator<Item = Option<DecodedRun<'_>>> {
    let mut rest = payload;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let run = postcard::take_from_bytes::<RunHeader>(rest).ok().and_then(|(header, behind)| {
            let (encoded, behind) = behind.split_at_checked(header.bytes as usize)?;
            rest = behind;
            Some(DecodedRun { shard: header.shard, records: header.records, encoded })
        });
        if run.is_none() {
            rest = &[];
        }
        Some(run)
    })
}

fn length(payload: &[u8]) -> u32 {
    u32::try_from(payload.len()).expect("a block stays below PAYLOAD_BYTES_MAX")
}

pub(super) fn shard_bit(shard: ShardIndex) -> u64 {
    1 << (shard.0 % 64)
}

fn salted_crc(salt: u32, bytes: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new_with_initial(salt);
    crc.update(bytes);
    crc.finalize()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn block(salt: u32) -> Vec<u8> {
        let mut out = b"before".to_vec();
        let at = start_block(&mut out);
        let mut payload = Payload::default();
        let bits = payload.push_run(ShardIndex(1), 2, [b"ab".as_slice().into(), b"cde".as_slice().into()].into_iter())
            | payload.push_run(ShardIndex(65), 1, std::iter::once(b"f".as_slice().into()));
        payload.write(&mut out);
        let mut header = BlockHeader::new(BlockKind::Records, SequenceNumber(10), 3, Stamp::default());
        header.shard_bits = bits;
        finish_block(&mut out, at, header, salt);
        out.split_off(at)
    }

    fn decode(bytes: &[u8], salt: u32) -> Result<BlockHeader, &'static str> {
        BlockHeader::decode(bytes[..BLOCK_HEADER_BYTES].try_into().expect("64 bytes"), salt)
    }

    #[test]
    fn a_block_reads_back() {
        let bytes = block(5);
        let header = decode(&bytes, 5).expect("sound");
        let payload = &bytes[BLOCK_HEADER_BYTES..];
        assert!(header.fits(payload, 5));
        assert_eq!(
            (header.first, header.end(), header.total_bytes()),
            (SequenceNumber(10), SequenceNumber(13), bytes.len() as u64)
        );
        assert!(header.may_hold(ShardIndex(1)) && !header.may_hold(ShardIndex(2)));
        let runs: Vec<_> = decode_runs(payload).map(|run| run.expect("sound")).collect();
        assert_eq!(runs[0], DecodedRun { shard: ShardIndex(1), records: 2, encoded: b"abcde" });
        assert_eq!(runs[1], DecodedRun { shard: ShardIndex(65), records: 1, encoded: b"f" });
    }

    #[test]
    fn lengths_that_contradict_each_other_are_refused() {
        let changes: [fn(&mut BlockHeader); 3] = [
            |header| header.raw_bytes += 1,
            |header| (header.codec, header.raw_bytes) = (Codec::Zstd, PAYLOAD_BYTES_MAX + 1),
            |header| header.stored_bytes = PAYLOAD_BYTES_MAX + 1,
        ];
        for change in changes {
            let mut bytes = block(5);
            rewrite_header(&mut bytes, 5, change);
            assert!(decode(&bytes, 5).is_err());
        }
    }

    #[test]
    fn a_block_is_filled_up_to_its_page_where_that_is_little() {
        assert_eq!(padding(0, 4096), 0);
        assert_eq!(padding(4096, 4000), 96);
        assert_eq!(padding(96, 8000), 96);
        assert_eq!((padding(0, 9 * 455), padding(0, 100)), (1, 0));
        // An eighth, and a little more than that.
        assert_eq!((padding(512, 4096 * 7), padding(513, 4096 * 7)), (3584, 3583));
        assert_eq!((padding(0, 3641), padding(0, 3640)), (455, 0));
    }

    #[test]
    fn a_block_of_another_segment_is_refused() {
        assert!(decode(&block(5), 6).is_err());
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let sound = block(5);
        for bit in 0..sound.len() * 8 {
            let mut bytes = sound.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let noticed = decode(&bytes, 5).map_or(true, |header| !header.fits(&bytes[BLOCK_HEADER_BYTES..], 5));
            assert!(noticed, "bit {bit}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_as_runs_end_without_a_panic(payload: Vec<u8>) {
            let runs: Vec<_> = decode_runs(&payload).collect();
            prop_assert!(runs.iter().rev().skip(1).all(Option::is_some));
        }
    }
}
