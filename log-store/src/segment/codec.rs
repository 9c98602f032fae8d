//! Codecs: how a block's payload is compressed. Every block by itself, so that damage to one costs no other
//! (docs/decisions/0006-compression.md).

use zstd::{
    bulk::{Compressor, Decompressor},
    zstd_safe::get_frame_content_size,
};

/// The fastest level of the usual ones; sensor records get no smaller with the next ones.
const ZSTD_LEVEL: i32 = 1;
/// No byte of lz4 stands for more bytes than this; a few more come with the block's end.
const LZ4_RATIO_MAX: usize = 255;
/// A block is stored as it is unless it gets smaller by one part in so many: less is not worth that readers decompress it.
const WORTH_PART: usize = 16;
/// Blocks that are stored untried after as many in a row that were not worth it; never more than this.
const UNTRIED_MAX: u32 = 15;
/// One try in so many behind those that were not worth it is of a whole block, the others of a sample.
const WHOLE_EVERY: u32 = 4;
/// One very large block must not keep its memory for ever.
const KEPT_BYTES_MAX: usize = 2 << 20;

/// How records are compressed on the disk. A block that would get smaller by less than a sixteenth is stored as it is.
///
/// Persisted: never renumber.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Codec {
    /// Not at all.
    None = 0,
    /// A third of the size for JSON, at the least cost.
    Lz4 = 1,
    /// A seventh of the size for JSON.
    Zstd = 2,
}

impl Codec {
    /// What people call it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        }
    }

    pub(crate) fn from_byte(byte: u8) -> Option<Self> {
        [Self::None, Self::Lz4, Self::Zstd].into_iter().find(|codec| *codec as u8 == byte)
    }
}

/// Whether compressing a stream's next block is likely to be worth it: after noise, ever fewer blocks are tried.
#[derive(Debug, Default)]
pub(crate) struct Prospects {
    /// Tries in a row that were not worth it.
    in_vain: u32,
    /// Blocks to be left untried before the next try.
    untried: u32,
}

/// What is tried of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Try {
    Nothing,
    /// A part, and the whole if that is worth it.
    Sample,
    Whole,
}

impl Prospects {
    /// What is to be tried of the next block.
    pub(crate) fn next_try(&mut self) -> Try {
        let tries = self.untried == 0;
        self.untried = self.untried.saturating_sub(1);
        match self.in_vain % WHOLE_EVERY {
            _ if !tries => Try::Nothing,
            0 => Try::Whole,
            _ => Try::Sample,
        }
    }

    /// What became of a try.
    pub(crate) fn learn(&mut self, worth_it: bool) {
        self.in_vain = if worth_it { 0 } else { self.in_vain.saturating_add(1) };
        self.untried = self.in_vain.min(UNTRIED_MAX);
    }
}

/// Compresses blocks, one after the other.
#[derive(Default)]
pub(crate) struct Packer {
    zstd: Option<Compressor<'static>>,
    packed: Vec<u8>,
}

impl Packer {
    /// `payload` compressed; `None` if that is not worth it.
    pub(crate) fn pack(&mut self, codec: Codec, payload: &[u8]) -> Option<&[u8]> {
        if codec == Codec::None || payload.is_empty() {
            return None;
        }
        self.packed.shrink_to(KEPT_BYTES_MAX);
        let room = lz4_flex::block::get_maximum_output_size(payload.len());
        if self.packed.len() < room {
            self.packed.resize(room, 0);
        }
        let len = match codec {
            Codec::None => None,
            Codec::Lz4 => lz4_flex::block::compress_into(payload, &mut self.packed).ok(),
            // It fails for want of memory or of room, and room for more than the payload is not needed.
            Codec::Zstd => {
                if self.zstd.is_none() {
                    self.zstd = Compressor::new(ZSTD_LEVEL).ok();
                }
                self.zstd.as_mut()?.compress_to_buffer(payload, &mut self.packed[..payload.len()]).ok()
            }
        };
        len.filter(|len| *len <= payload.len() - payload.len().div_ceil(WORTH_PART)).map(|len| &self.packed[..len])
    }
}

/// Decompresses blocks, one after the other.
#[derive(Default)]
pub(crate) struct Unpacker {
    zstd: Option<Decompressor<'static>>,
    plain: Vec<u8>,
}

impl Unpacker {
    /// The payload of `raw_bytes` that was stored as `stored`.
    ///
    /// No memory is taken for a length that cannot be: the caller bounds `raw_bytes`, and `stored` must agree with it.
    ///
    /// # Errors
    /// What does not fit.
    pub(crate) fn unpack<'a>(
        &'a mut self,
        codec: Codec,
        stored: &'a [u8],
        raw_bytes: u32,
    ) -> Result<&'a [u8], &'static str> {
        let raw_bytes = raw_bytes as usize;
        let is_possible = match codec {
            Codec::None => stored.len() == raw_bytes,
            Codec::Lz4 => raw_bytes <= stored.len().saturating_mul(LZ4_RATIO_MAX),
            Codec::Zstd => get_frame_content_size(stored).is_ok_and(|says| says == Some(raw_bytes as u64)),
        };
        if !is_possible {
            return Err("the block's length when decompressed is impossible");
        }
        if codec == Codec::None {
            return Ok(stored);
        }
        if self.plain.len() > KEPT_BYTES_MAX {
            self.plain.truncate(KEPT_BYTES_MAX);
            self.plain.shrink_to_fit();
        }
        // It is not cleared in between.
        if self.plain.len() < raw_bytes {
            self.plain.resize(raw_bytes, 0);
        }
        let plain = &mut self.plain[..raw_bytes];
        let len = match codec {
            Codec::None => None,
            Codec::Lz4 => lz4_flex::block::decompress_into(stored, plain).ok(),
            Codec::Zstd => {
                if self.zstd.is_none() {
                    self.zstd = Decompressor::new().ok();
                }
                let zstd = self.zstd.as_mut().ok_or("there is no memory to decompress the block")?;
                zstd.decompress_to_buffer(stored, plain).ok()
            }
        };
        match len {
            Some(len) if len == raw_bytes => Ok(plain),
            _ => Err("the block cannot be decompressed"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn codec() -> impl Strategy<Value = Codec> {
        prop_oneof![Just(Codec::None), Just(Codec::Lz4), Just(Codec::Zstd)]
    }

    /// From noise to one byte again and again, so that blocks shrink and blocks do not.
    fn payload() -> impl Strategy<Value = Vec<u8>> {
        (1u8..=255, 0usize..3000).prop_flat_map(|(values, len)| prop::collection::vec(0..values, len))
    }

    #[test]
    fn after_noise_ever_fewer_blocks_are_tried_until_one_gets_smaller() {
        let mut prospects = Prospects::default();
        let mut tried = |worth_it| {
            let tries = prospects.next_try() != Try::Nothing;
            if tries {
                prospects.learn(worth_it);
            }
            tries
        };
        let tries: Vec<_> = (0..40).filter(|_| tried(false)).collect();
        assert_eq!(tries, [0, 2, 5, 9, 14, 20, 27, 35]);
        for _ in 0..200 {
            tried(false);
        }
        let until_worth_it = (0..).find(|_| tried(true)).expect("some time");
        assert!(until_worth_it <= UNTRIED_MAX, "{until_worth_it}");
        assert!((0..10).all(|_| tried(true)), "and from then on each");
    }

    #[test]
    fn now_and_then_a_whole_block_is_tried_behind_noise() {
        let mut prospects = Prospects::default();
        let mut tries = Vec::new();
        while tries.len() < 9 {
            match prospects.next_try() {
                Try::Nothing => {}
                tried => {
                    prospects.learn(false);
                    tries.push(tried == Try::Whole);
                }
            }
        }
        assert_eq!(tries, [true, false, false, false, true, false, false, false, true]);
    }

    #[test]
    fn a_block_that_hardly_gets_smaller_is_left_alone() {
        let mut random = fastrand::Rng::with_seed(1);
        let mut block: Vec<u8> = std::iter::repeat_with(|| random.u8(..)).take(5000).collect();
        block.extend([7; 200]);
        let mut packer = Packer::default();
        assert_eq!(packer.pack(Codec::Zstd, &block), None);
        block.extend([7; 400]);
        assert!(packer.pack(Codec::Zstd, &block).is_some());
    }

    #[test]
    fn what_repeats_gets_smaller_and_noise_is_left_alone() {
        let mut random = fastrand::Rng::with_seed(1);
        let noise: Vec<u8> = std::iter::repeat_with(|| random.u8(..)).take(5000).collect();
        let mut packer = Packer::default();
        for codec in [Codec::Lz4, Codec::Zstd] {
            assert!(packer.pack(codec, &[7; 5000]).expect("smaller").len() < 50);
            assert_eq!(packer.pack(codec, &noise), None);
            assert_eq!(packer.pack(codec, b""), None);
        }
        assert_eq!(packer.pack(Codec::None, &[7; 5000]), None);
    }

    #[test]
    fn a_length_that_cannot_be_takes_no_memory() {
        let mut packer = Packer::default();
        for codec in [Codec::Lz4, Codec::Zstd] {
            let packed = packer.pack(codec, &[7; 5000]).expect("smaller").to_vec();
            let mut unpacker = Unpacker::default();
            assert!(unpacker.unpack(codec, &packed, 64 << 20).is_err());
            assert_eq!(unpacker.plain.capacity(), 0);
        }
    }

    proptest! {
        #[test]
        fn what_is_packed_is_unpacked(payloads in prop::collection::vec((codec(), payload()), 1..8)) {
            let (mut packer, mut unpacker) = (Packer::default(), Unpacker::default());
            for (codec, payload) in payloads {
                let Some(packed) = packer.pack(codec, &payload) else { continue };
                prop_assert!(packed.len() < payload.len());
                let raw_bytes = payload.len() as u32;
                prop_assert_eq!(unpacker.unpack(codec, packed, raw_bytes), Ok(payload.as_slice()));
                for wrong in [raw_bytes - 1, raw_bytes + 1] {
                    prop_assert!(unpacker.unpack(codec, packed, wrong).is_err());
                }
            }
        }

        #[test]
        fn any_bytes_are_unpacked_or_refused(codec in codec(), stored: Vec<u8>, raw_bytes in 0u32..100_000) {
            if let Ok(plain) = Unpacker::default().unpack(codec, &stored, raw_bytes) {
                prop_assert_eq!(plain.len(), raw_bytes as usize);
            }
        }

        #[test]
        fn changed_bytes_are_unpacked_or_refused(
            codec in codec(),
            payload in payload(),
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
            cut: prop::sample::Index,
        ) {
            let mut packer = Packer::default();
            let Some(packed) = packer.pack(codec, &payload) else { return Ok(()) };
            let mut packed = packed.to_vec();
            for (at, byte) in changes {
                let at = at.index(packed.len());
                packed[at] = byte;
            }
            let mut unpacker = Unpacker::default();
            for stored in [&packed[..], &packed[..cut.index(packed.len())]] {
                if let Ok(plain) = unpacker.unpack(codec, stored, payload.len() as u32) {
                    prop_assert_eq!(plain.len(), payload.len());
                }
            }
        }
    }
}
