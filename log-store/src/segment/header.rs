//! The segment header: makes a segment understandable without the catalogue.

use std::{io, path::Path};

use super::StreamDefinition;
use crate::{clock::Stamp, disk::DiskFile, error::Error, sequence::SequenceNumber};

/// `FBSG`, the first four bytes of a segment.
const MAGIC: [u8; 4] = *b"FBSG";
/// Persisted: the version of everything in a segment, blocks and records included.
pub(crate) const FORMAT_VERSION: u16 = 3;
/// Length of the part before the stream definition.
const FIXED_BYTES: usize = 56;
/// The longest that postcard makes of an integer of 64 bits.
const VARINT_BYTES_MAX: usize = 10;
/// A definition of 10,000 shards takes some 400 KiB; more is damage.
const DEFINITION_BYTES_MAX: u32 = 4 << 20;

/// A decoded segment header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    /// Format version of everything in the segment.
    pub(crate) version: u16,
    /// Number of the first record that this segment holds or will hold.
    pub(crate) first: SequenceNumber,
    /// Length of the dropped segment's file that was made into this one; 0 of a new file. So far, what lies behind the
    /// last block may be left of that.
    pub(crate) recycled_bytes: u32,
    /// When it was made.
    pub(crate) created: Stamp,
    pub(crate) definition: StreamDefinition,
}

impl SegmentHeader {
    /// The header's bytes.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let definition = self.definition.encode(self.version);
        let definition_len = u32::try_from(definition.len()).expect("a definition is far below 4 GiB");
        let mut out = Vec::with_capacity(FIXED_BYTES + definition.len());
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&self.version.to_le_bytes());
        out.extend_from_slice(&0u16.to_le_bytes());
        out.extend_from_slice(&definition_len.to_le_bytes());
        out.extend_from_slice(&self.created.boot.to_le_bytes());
        out.extend_from_slice(&self.first.0.to_le_bytes());
        out.extend_from_slice(&self.created.wall_ms.to_le_bytes());
        out.extend_from_slice(&self.created.since_boot_ms.to_le_bytes());
        out.extend_from_slice(&self.definition.id.to_le_bytes());
        out.extend_from_slice(&self.recycled_bytes.to_le_bytes());
        // The CRC covers everything before it and the definition behind it.
        let mut crc = crc32fast::Hasher::new();
        crc.update(&out);
        crc.update(&definition);
        out.extend_from_slice(&crc.finalize().to_le_bytes());
        out.extend_from_slice(&definition);
        out
    }

    /// Length of [`SegmentHeader::encode`] in bytes: where the first block begins.
    pub(crate) fn encoded_len(&self) -> u64 {
        self.encode().len() as u64
    }

    /// Whether everything up to `len` may be left of an earlier segment, as far as it is no block of this one.
    pub(crate) fn is_leftover(&self, len: u64) -> bool {
        len <= u64::from(self.recycled_bytes)
    }

    /// The stream ids that a header names, in plain and in the definition, though it may be damaged: the blocks behind it
    /// prove or refute them.
    pub(crate) fn claimed_ids(file: &dyn DiskFile) -> io::Result<Vec<u64>> {
        let mut bytes = [0; FIXED_BYTES + VARINT_BYTES_MAX];
        let read = file.read_at(0, &mut bytes)?;
        let plain = (read >= FIXED_BYTES).then(|| u64_at(&bytes, 40));
        let in_definition = bytes.get(FIXED_BYTES..read).and_then(|bytes| postcard::take_from_bytes(bytes).ok());
        let mut ids: Vec<u64> = plain.into_iter().chain(in_definition.map(|(id, _)| id)).collect();
        ids.dedup();
        Ok(ids)
    }

    /// Reads the header of an open segment. `path` is for messages.
    ///
    /// # Errors
    /// [`Error::Corrupt`], [`Error::NewerFormat`], [`Error::Io`].
    pub(crate) fn read(file: &dyn DiskFile, path: &Path) -> Result<Self, Error> {
        let io = |source| Error::Io { action: "read segment header", path: path.into(), source };
        let corrupt = |what: &str| Error::Corrupt { path: path.into(), offset: 0, what: what.into() };
        let mut fixed = [0; FIXED_BYTES];
        if file.read_at(0, &mut fixed).map_err(io)? < FIXED_BYTES {
            return Err(corrupt("the file is shorter than a segment header"));
        }
        if fixed[..4] != MAGIC {
            return Err(corrupt("it does not begin as a segment"));
        }
        let version = u16::from_le_bytes([fixed[4], fixed[5]]);
        let definition_len = u32_at(&fixed, 8);
        if definition_len > DEFINITION_BYTES_MAX {
            return Err(corrupt("the header's length is impossible"));
        }
        let mut definition = vec![0; definition_len as usize];
        if file.read_at(FIXED_BYTES as u64, &mut definition).map_err(io)? < definition.len() {
            return Err(corrupt("the file ends within its header"));
        }
        let mut crc = crc32fast::Hasher::new();
        crc.update(&fixed[..FIXED_BYTES - 4]);
        crc.update(&definition);
        if crc.finalize() != u32_at(&fixed, FIXED_BYTES - 4) {
            return Err(corrupt("the header's checksum does not match"));
        }
        // Every version has its checksum here, so that a flipped bit is not taken for a newer version.
        if version > FORMAT_VERSION {
            return Err(Error::NewerFormat { path: path.into(), found: version, known: FORMAT_VERSION });
        }
        let definition: StreamDefinition = StreamDefinition::decode(version, &definition)
            .map_err(|error| corrupt(&format!("the stream definition: {error}")))?;
        if definition.id != u64_at(&fixed, 40) {
            return Err(corrupt("the stream definition contradicts itself"));
        }
        Ok(Self {
            version,
            first: SequenceNumber(u64_at(&fixed, 16)),
            recycled_bytes: u32_at(&fixed, 48),
            created: Stamp { boot: u32_at(&fixed, 12), wall_ms: u64_at(&fixed, 24), since_boot_ms: u64_at(&fixed, 32) },
            definition,
        })
    }
}

/// What the checksums of a segment's blocks begin with, so that a block of another segment is never taken for its own.
pub(crate) fn salt(stream_id: u64, first: SequenceNumber) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&stream_id.to_le_bytes());
    crc.update(&first.0.to_le_bytes());
    crc.finalize()
}

/// The name of a dropped segment whose file will be the next one.
pub(crate) const SPARE_FILE_NAME: &str = "spare";

/// The name of the segment that begins at `first`.
pub(crate) fn file_name(first: SequenceNumber) -> String {
    format!("{:020}.seg", first.0)
}

/// The first sequence number in a segment's name; `None` if it is not a segment's name.
pub(crate) fn parse_file_name(name: &str) -> Option<SequenceNumber> {
    let digits = name.strip_suffix(".seg")?;
    (digits.len() == 20 && digits.bytes().all(|b| b.is_ascii_digit()))
        .then(|| digits.parse().ok().map(SequenceNumber))?
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

#[cfg(test)]
mod tests {
    use std::{num::NonZeroU32, sync::Arc};

    use super::*;
    use crate::{
        disk::{Disk, sim::SimDisk},
        shard::ShardMap,
    };

    fn header() -> SegmentHeader {
        SegmentHeader {
            version: FORMAT_VERSION,
            first: SequenceNumber(42),
            recycled_bytes: 4321,
            created: Stamp { boot: 3, since_boot_ms: 5, wall_ms: 1_700_000_000_000 },
            definition: StreamDefinition::sample(),
        }
    }

    fn read(bytes: &[u8]) -> Result<SegmentHeader, Error> {
        let disk = SimDisk::new(0);
        disk.create_dir(Path::new("/d")).expect("mkdir");
        let file = disk.create(Path::new("/d/f")).expect("create");
        file.write_at(0, bytes).expect("write");
        SegmentHeader::read(file.as_ref(), Path::new("/d/f"))
    }

    #[test]
    fn a_header_reads_back() {
        assert_eq!(read(&header().encode()).expect("sound"), header());
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let sound = header().encode();
        for bit in 0..sound.len() * 8 {
            let mut bytes = sound.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(read(&bytes).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn every_cut_is_noticed() {
        let sound = header().encode();
        for len in 0..sound.len() {
            assert!(matches!(read(&sound[..len]), Err(Error::Corrupt { .. })), "{len} bytes");
        }
    }

    #[test]
    fn an_older_version_reads_back() {
        let definition = StreamDefinition {
            revision: 0,
            note: String::new(),
            shards: Arc::new(ShardMap::uniform(NonZeroU32::MIN)),
            ..header().definition
        };
        let older = SegmentHeader { version: 1, definition, ..header() };
        assert_eq!(read(&older.encode()).expect("sound"), older);
    }

    #[test]
    fn a_newer_version_is_named_as_such() {
        let newer = SegmentHeader { version: FORMAT_VERSION + 1, ..header() };
        assert!(matches!(read(&newer.encode()), Err(Error::NewerFormat { found: 4, known: 3, .. })));
        let mut bytes = header().encode();
        bytes[4] = 4;
        assert!(matches!(read(&bytes), Err(Error::Corrupt { .. })), "a flipped bit is no newer version");
    }

    #[test]
    fn only_segment_names_are_segment_names() {
        assert_eq!(parse_file_name(&file_name(SequenceNumber(12))), Some(SequenceNumber(12)));
        for name in [
            "12.seg",
            "00000000000000000012.torn",
            "000000000000000000x2.seg",
            "99999999999999999999.seg",
            "+0000000000000000012.seg",
        ] {
            assert_eq!(parse_file_name(name), None, "{name}");
        }
    }
}
