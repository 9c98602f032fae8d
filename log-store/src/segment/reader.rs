//! Walks the blocks of one segment, and finds the next sound one behind damage.

use std::{io, ops::Range};

use super::{
    block::{BLOCK_HEADER_BYTES, BlockHeader, MAGIC},
    codec::Unpacker,
};
use crate::disk::DiskFile;

/// Read at a time: many small blocks in one call, little memory per reader.
const CHUNK_BYTES: usize = 128 << 10;
/// After so many reads of no more than that, what a large block took is given back.
const SMALL_READS_MAX: u32 = 16;

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
    /// Where the newest call ended: nothing behind it is to be read yet.
    limit: u64,
    chunk: Chunk,
    unpacker: Unpacker,
}

/// Bytes of the file that were read. The buffer is as long as it has ever been needed lately, and not cleared in between.
#[derive(Default)]
struct Chunk {
    buffer: Vec<u8>,
    /// Where in the file it begins.
    at: u64,
    /// How much of the buffer is of the file.
    filled: usize,
    /// Reads in a row for which a small buffer would have done.
    small_reads: u32,
}

impl Chunk {
    fn end(&self) -> u64 {
        self.at + self.filled as u64
    }

    /// Makes it begin at `offset`, and room for `len` bytes; what it has of them is kept. Returns how much that is.
    fn move_to(&mut self, offset: u64, len: usize) -> usize {
        let kept = match offset.checked_sub(self.at) {
            Some(passed) if offset < self.end() => {
                let passed = usize::try_from(passed).expect("within the chunk");
                self.buffer.copy_within(passed..self.filled, 0);
                self.filled - passed
            }
            _ => 0,
        };
        (self.at, self.filled) = (offset, kept);
        self.small_reads = if len > CHUNK_BYTES { 0 } else { self.small_reads.saturating_add(1) };
        if self.small_reads > SMALL_READS_MAX && self.buffer.len() > CHUNK_BYTES && kept <= CHUNK_BYTES {
            self.buffer.truncate(CHUNK_BYTES);
            self.buffer.shrink_to_fit();
        }
        if self.buffer.len() < len {
            self.buffer.resize(len, 0);
        }
        kept
    }
}

impl SegmentReader {
    /// Begins at `offset`, where a block must begin.
    pub(crate) fn new(file: Box<dyn DiskFile>, salt: u32, offset: u64) -> Self {
        Self { file, salt, offset, limit: 0, chunk: Chunk::default(), unpacker: Unpacker::default() }
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
        self.limit = limit;
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
        Ok(self.unpacker.unpack(header.codec, &self.chunk.buffer[stored], header.raw_bytes))
    }

    /// Where in the chunk the payload lies, if its checksum matches.
    fn stored(&mut self, offset: u64, header: &BlockHeader) -> io::Result<Option<Range<usize>>> {
        let at = offset + BLOCK_HEADER_BYTES as u64;
        // With the next block's header, so that it takes no read of its own.
        let ahead = usize::try_from(header.total_bytes()).unwrap_or(usize::MAX);
        let place = self.load(at, header.stored_bytes as usize, self.limit, ahead)?;
        Ok(place.filter(|place| header.fits(&self.chunk.buffer[place.clone()], self.salt)))
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
            let left = self.chunk.end().checked_sub(at).filter(|_| at >= self.chunk.at);
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
        Ok(self.load(offset, len, limit, len)?.map(|place| &self.chunk.buffer[place]))
    }

    /// Brings `len` bytes at `offset` into the chunk and says where they are; `None` if they are not all there. Reads `ahead`
    /// bytes, or a whole chunk, where they end before the limit.
    fn load(&mut self, offset: u64, len: usize, limit: u64, ahead: usize) -> io::Result<Option<Range<usize>>> {
        if offset < self.chunk.at || offset + len as u64 > self.chunk.end() {
            let within = usize::try_from(limit.saturating_sub(offset)).unwrap_or(usize::MAX);
            let want = ahead.max(CHUNK_BYTES).min(within).max(len);
            // What is there of the wanted bytes is kept, so that a large block is not read twice.
            let kept = self.chunk.move_to(offset, want);
            let mut read = self.file.read_at(offset + kept as u64, &mut self.chunk.buffer[kept..want]);
            if read.is_err() && want > len {
                // What the disk does not give may lie behind what is wanted.
                read = self.file.read_at(offset + kept as u64, &mut self.chunk.buffer[kept..len]);
            }
            self.chunk.filled = read.as_ref().map_or(0, |read| kept + read);
            read?;
        }
        let start = usize::try_from(offset - self.chunk.at).expect("within the chunk");
        Ok((start + len <= self.chunk.filled).then_some(start..start + len))
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

    /// A file of which the disk gives nothing from a place on.
    struct Bad(Box<dyn DiskFile>, u64);

    impl DiskFile for Bad {
        fn len(&self) -> io::Result<u64> {
            self.0.len()
        }

        fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
            if offset + buf.len() as u64 > self.1 {
                return Err(io::Error::other("a bad sector"));
            }
            self.0.read_at(offset, buf)
        }

        fn write_at(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
            self.0.write_at(offset, buf)
        }

        fn sync(&self) -> io::Result<()> {
            self.0.sync()
        }

        fn truncate(&self, len: u64) -> io::Result<()> {
            self.0.truncate(len)
        }
    }

    #[test]
    fn what_lies_in_front_of_a_bad_sector_is_read() {
        let (mut bytes, offsets) = blocks(400);
        bytes.resize(bytes.len() + 10_000, 0);
        let bad = offsets[399];
        let disk = SimDisk::new(0);
        disk.create_dir(Path::new("/d")).expect("mkdir");
        let file = disk.create(Path::new("/d/f")).expect("create");
        file.write_at(0, &bytes).expect("write");
        let mut reader = SegmentReader::new(Box::new(Bad(file, bad)), 9, 0);
        for expected in &offsets[..399] {
            let found = reader.next(bytes.len() as u64).expect("it lies in front of it");
            let Found::Block { offset, header } = found else { panic!("{found:?}") };
            assert_eq!(offset, *expected);
            assert!(reader.is_sound(offset, &header).expect("so does its payload"));
        }
        assert!(reader.next(bytes.len() as u64).is_err());
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
