//! Walks the blocks of one segment, and finds the next sound one behind damage.

use std::{io, ops::Range};

use super::{
    block::{BLOCK_HEADER_BYTES, BlockHeader, MAGIC},
    codec::Unpacker,
};
use crate::disk::DiskFile;

/// Read at a time: many small blocks in one call, little memory per reader.
const CHUNK_BYTES: usize = 128 << 10;

/// What lies at a place of a segment.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// A block whose header is sound and whose payload lies within the limit.
    Block { offset: u64, header: BlockHeader },
    /// Bytes that are no block; the next call goes on behind them.
    Damaged { bytes: Range<u64>, what: &'static str },
    /// The limit.
    End,
}

/// A place in a segment.
pub(crate) struct SegmentReader {
    file: Box<dyn DiskFile>,
    salt: u32,
    offset: u64,
    chunk: Vec<u8>,
    chunk_at: u64,
    unpacker: Unpacker,
}

impl SegmentReader {
    /// Begins at `offset`, where a block must begin.
    pub(crate) fn new(file: Box<dyn DiskFile>, salt: u32, offset: u64) -> Self {
        Self { file, salt, offset, chunk: Vec::new(), chunk_at: 0, unpacker: Unpacker::default() }
    }

    /// Where the next call looks.
    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }

    /// Makes the next call look elsewhere.
    pub(crate) fn go_to(&mut self, offset: u64) {
        self.offset = offset;
    }

    /// Finds what comes next before `limit` and moves behind it.
    pub(crate) fn next(&mut self, limit: u64) -> io::Result<Found> {
        if self.offset >= limit {
            return Ok(Found::End);
        }
        let offset = self.offset;
        match self.header_at(offset, limit)? {
            Ok(header) => {
                self.offset += header.total_bytes();
                Ok(Found::Block { offset, header })
            }
            Err(what) => {
                self.offset = self.resync(offset + 1, limit)?;
                Ok(Found::Damaged { bytes: offset..self.offset, what })
            }
        }
    }

    /// Whether the payload of the block that was found at `offset` is what was written.
    pub(crate) fn is_sound(&mut self, offset: u64, header: &BlockHeader) -> io::Result<bool> {
        Ok(self.stored(offset, header)?.is_some())
    }

    /// The payload of the block that was found at `offset`, decompressed; else what does not fit.
    pub(crate) fn payload(&mut self, offset: u64, header: &BlockHeader) -> io::Result<Result<&[u8], &'static str>> {
        let Some(stored) = self.stored(offset, header)? else {
            return Ok(Err("the block's checksum does not match"));
        };
        Ok(self.unpacker.unpack(header.codec, &self.chunk[stored], header.raw_bytes))
    }

    /// Where in the chunk the payload lies, if its checksum matches.
    fn stored(&mut self, offset: u64, header: &BlockHeader) -> io::Result<Option<Range<usize>>> {
        let at = offset + BLOCK_HEADER_BYTES as u64;
        let place = self.load(at, header.stored_bytes as usize, at + u64::from(header.stored_bytes))?;
        Ok(place.filter(|place| header.fits(&self.chunk[place.clone()], self.salt)))
    }

    fn header_at(&mut self, offset: u64, limit: u64) -> io::Result<Result<BlockHeader, &'static str>> {
        let salt = self.salt;
        let Some(bytes) = self.bytes(offset, BLOCK_HEADER_BYTES, limit)? else {
            return Ok(Err("the file ends within a block header"));
        };
        let decoded = BlockHeader::decode(bytes.try_into().expect("asked for that many bytes"), salt);
        Ok(decoded.and_then(|header| {
            // Padding may be missing: nothing is lost with it.
            if offset + header.total_bytes() - u64::from(header.padding) > limit {
                Err("the file ends within a block")
            } else {
                Ok(header)
            }
        }))
    }

    /// The first place at `from` or behind where a sound block header is, or `limit`.
    fn resync(&mut self, from: u64, limit: u64) -> io::Result<u64> {
        let mut at = from;
        while at < limit {
            // What is left of the chunk comes first: reading it anew for every false start would take for ever.
            let left = (self.chunk_at + self.chunk.len() as u64).checked_sub(at).filter(|_| at >= self.chunk_at);
            let ahead = left.filter(|left| *left > MAGIC.len() as u64).unwrap_or(CHUNK_BYTES as u64);
            let want = usize::try_from(ahead.min(limit - at)).unwrap_or(CHUNK_BYTES);
            let Some(bytes) = self.bytes(at, want, limit)? else { return Ok(limit) };
            match bytes.windows(MAGIC.len()).position(|window| window == MAGIC) {
                Some(skip) => {
                    at += skip as u64;
                    if self.header_at(at, limit)?.is_ok() {
                        return Ok(at);
                    }
                    at += 1;
                }
                // The magic may lie across the edge of two chunks.
                None if at + want as u64 >= limit => return Ok(limit),
                None => at += (want - (MAGIC.len() - 1)) as u64,
            }
        }
        Ok(limit)
    }

    /// `len` bytes at `offset`; `None` if they are not all there.
    fn bytes(&mut self, offset: u64, len: usize, limit: u64) -> io::Result<Option<&[u8]>> {
        Ok(self.load(offset, len, limit)?.map(|place| &self.chunk[place]))
    }

    /// Brings `len` bytes at `offset` into the chunk and says where they are; `None` if they are not all there.
    fn load(&mut self, offset: u64, len: usize, limit: u64) -> io::Result<Option<Range<usize>>> {
        let chunk_end = self.chunk_at + self.chunk.len() as u64;
        if offset < self.chunk_at || offset + len as u64 > chunk_end {
            // What is there of the wanted bytes is kept, so that a large block is not read twice.
            let kept = if (self.chunk_at..chunk_end).contains(&offset) {
                self.chunk.drain(..usize::try_from(offset - self.chunk_at).expect("within the chunk"));
                self.chunk.len()
            } else {
                0
            };
            let ahead = usize::try_from(limit.saturating_sub(offset)).unwrap_or(usize::MAX).min(CHUNK_BYTES);
            self.chunk.resize(ahead.max(len), 0);
            self.chunk.shrink_to(CHUNK_BYTES.max(len));
            let read = self.file.read_at(offset + kept as u64, &mut self.chunk[kept..]);
            self.chunk.truncate(read.as_ref().map_or(0, |read| kept + read));
            self.chunk_at = offset;
            read?;
        }
        let start = usize::try_from(offset - self.chunk_at).expect("within the chunk");
        Ok((start + len <= self.chunk.len()).then_some(start..start + len))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::{
        clock::Stamp,
        disk::{Disk, sim::SimDisk},
        segment::{BlockKind, finish_block, start_block},
        sequence::SequenceNumber,
    };

    /// Blocks of growing payload, and where each begins.
    fn blocks(count: u64) -> (Vec<u8>, Vec<u64>) {
        let (mut bytes, mut offsets) = (Vec::new(), Vec::new());
        for i in 0..count {
            let at = start_block(&mut bytes);
            offsets.push(at as u64);
            bytes.extend((0..i * 7).map(|b| b as u8));
            finish_block(
                &mut bytes,
                at,
                BlockHeader::new(BlockKind::Records, SequenceNumber(i), 1, Stamp::default()),
                9,
            );
        }
        (bytes, offsets)
    }

    fn walk(bytes: &[u8]) -> Vec<Found> {
        let disk = SimDisk::new(0);
        disk.create_dir(Path::new("/d")).expect("mkdir");
        let file = disk.create(Path::new("/d/f")).expect("create");
        file.write_at(0, bytes).expect("write");
        let mut reader = SegmentReader::new(file, 9, 0);
        let mut found = Vec::new();
        loop {
            match reader.next(bytes.len() as u64).expect("readable") {
                Found::End => return found,
                other => found.push(other),
            }
        }
    }

    #[test]
    fn sound_blocks_are_all_found() {
        let (bytes, offsets) = blocks(20);
        let found: Vec<_> = walk(&bytes)
            .into_iter()
            .map(|found| match found {
                Found::Block { offset, .. } => offset,
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(found, offsets);
    }

    #[test]
    fn a_damaged_header_costs_its_block_alone() {
        let (mut bytes, offsets) = blocks(20);
        bytes[offsets[7] as usize + 20] ^= 1;
        let found = walk(&bytes);
        assert_eq!(found.len(), 20);
        assert!(matches!(&found[7], Found::Damaged { bytes, .. } if *bytes == (offsets[7]..offsets[8])));
    }

    #[test]
    fn a_torn_end_is_damage_up_to_the_end() {
        let (bytes, offsets) = blocks(5);
        for cut in offsets[4] as usize + 1..bytes.len() {
            let found = walk(&bytes[..cut]);
            assert_eq!(found.len(), 5, "cut at {cut}");
            assert!(matches!(&found[4], Found::Damaged { bytes, .. } if *bytes == (offsets[4]..cut as u64)));
        }
    }

    #[test]
    fn a_megabyte_of_rubbish_is_passed_over() {
        let (sound, _) = blocks(3);
        let mut bytes = sound.clone();
        bytes.extend(MAGIC.iter().cycle().take(1 << 20));
        let tail = bytes.len() as u64;
        bytes.extend(&sound);
        let found = walk(&bytes);
        assert!(matches!(&found[3], Found::Damaged { bytes, .. } if bytes.end == tail));
        assert_eq!(found.len(), 7);
    }
}
