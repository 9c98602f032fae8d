//! How far a file was read, and how to know it again: by what was read of it. Pure.
//!
//! Inodes are used again, a card's files are copied to another card, logs are truncated and grow past where they were. So beside the
//! offset stand the CRC-32s of the first and the last bytes that were read. They cover nothing behind the offset, which may
//! still change.

use std::ops::Range;

use serde::{Deserialize, Serialize};

/// So many bytes each of the two checksums covers, or fewer where fewer were read.
pub(super) const PRINT_BYTES: u64 = 1024;

/// What was read of a file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Seen {
    /// Bytes from the file's beginning; of a compressed file, of what it unpacks to.
    pub(super) offset: u64,
    head: u32,
    tail: u32,
}

impl Seen {
    /// The first `offset` bytes, whose parts [`Seen::head_of`] and [`Seen::tail_of`] these are.
    pub(super) fn new(offset: u64, head: &[u8], tail: &[u8]) -> Self {
        Self { offset, head: crc32fast::hash(head), tail: crc32fast::hash(tail) }
    }

    /// Where the first checksum's bytes are, if this much was read.
    pub(super) fn head_of(offset: u64) -> Range<u64> {
        0..offset.min(PRINT_BYTES)
    }

    /// Where the last checksum's bytes are.
    pub(super) fn tail_of(offset: u64) -> Range<u64> {
        offset.saturating_sub(PRINT_BYTES)..offset
    }

    /// What was read once it was read up to `to`; `bytes` are those of the file from `self.tail_of().start` on.
    pub(super) fn advanced(self, bytes: &[u8], to: u64) -> Self {
        let from = Self::tail_of(self.offset).start;
        let part = |range: Range<u64>| &bytes[(range.start - from) as usize..(range.end - from) as usize];
        let head = if self.offset < PRINT_BYTES { crc32fast::hash(part(Self::head_of(to))) } else { self.head };
        Self { offset: to, head, tail: crc32fast::hash(part(Self::tail_of(to))) }
    }

    /// Whether a file that begins like this is the one of which this was read, as far as its beginning says.
    pub(super) fn has_head(self, head: &[u8]) -> bool {
        head.len() as u64 == Self::head_of(self.offset).end && crc32fast::hash(head) == self.head
    }

    /// Whether these are the last bytes that were read.
    pub(super) fn has_tail(self, tail: &[u8]) -> bool {
        let Range { start, end } = Self::tail_of(self.offset);
        tail.len() as u64 == end - start && crc32fast::hash(tail) == self.tail
    }

    /// Whether enough was read that no other file begins with the same bytes, unless it is a copy.
    pub(super) fn is_telling(self) -> bool {
        self.offset >= PRINT_BYTES
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(bytes: &[u8], offset: u64) -> Seen {
        let part = |range: Range<u64>| &bytes[range.start as usize..range.end as usize];
        Seen::new(offset, part(Seen::head_of(offset)), part(Seen::tail_of(offset)))
    }

    proptest! {
        #[test]
        fn however_it_is_read_the_same_was_seen(
            bytes in proptest::collection::vec(any::<u8>(), 1..5000),
            steps in proptest::collection::vec(0u64..2000, 0..8),
        ) {
            let mut seen = Seen::new(0, &[], &[]);
            prop_assert_eq!(seen, Seen::default());
            for step in steps {
                let to = (seen.offset + step).min(bytes.len() as u64);
                seen = seen.advanced(&bytes[Seen::tail_of(seen.offset).start as usize..], to);
                prop_assert_eq!(seen, of(&bytes, to));
                prop_assert!(seen.has_head(&bytes[..to.min(PRINT_BYTES) as usize]));
                prop_assert!(seen.has_tail(&bytes[to.saturating_sub(PRINT_BYTES) as usize..to as usize]));
            }
        }

        #[test]
        fn another_byte_among_them_is_another_file(offset in 1u64..3000, at in 0usize..3000) {
            let mut bytes = vec![b'x'; 3000];
            let seen = of(&bytes, offset);
            bytes[at] = b'y';
            let covered = (at as u64) < offset && (at < 1024 || at as u64 >= offset.saturating_sub(1024));
            prop_assert_eq!(of(&bytes, offset) != seen, covered);
        }
    }
}
