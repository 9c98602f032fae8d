//! MD5 (RFC 1321) of several messages side by side: an aggregate ends with its own, and that took a fifth of the time of a
//! delivery of aggregates (docs/decisions/0015-md5-side-by-side.md).
//!
//! One MD5 is a chain in which every step waits for the one before, so that a processor has little to do meanwhile. Those of
//! several messages do not wait for each other: each has a lane of a vector.

use std::ops::{BitAnd, BitOr, BitXor, Not};

use wide::u32x4;

/// How many messages are hashed at once.
pub(super) const LANES: usize = 4;

/// What a block in all lanes costs, in quarters of what one of a message by itself does (1.7 measured, on x86-64 without AVX; believed of
/// aarch64). Where `wide` has no vectors, more than all of them.
const QUARTERS_OF_LANES: usize =
    if cfg!(any(target_arch = "x86_64", target_arch = "aarch64")) { 7 } else { 4 * LANES + 1 };

const BLOCK: usize = 64;
const START: [u32; 4] = [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476];

/// The first 32 bits behind the point of |sin 1|, |sin 2| and so on.
const CONSTANTS: [u32; 64] = [
    0xd76a_a478,
    0xe8c7_b756,
    0x2420_70db,
    0xc1bd_ceee,
    0xf57c_0faf,
    0x4787_c62a,
    0xa830_4613,
    0xfd46_9501,
    0x6980_98d8,
    0x8b44_f7af,
    0xffff_5bb1,
    0x895c_d7be,
    0x6b90_1122,
    0xfd98_7193,
    0xa679_438e,
    0x49b4_0821,
    0xf61e_2562,
    0xc040_b340,
    0x265e_5a51,
    0xe9b6_c7aa,
    0xd62f_105d,
    0x0244_1453,
    0xd8a1_e681,
    0xe7d3_fbc8,
    0x21e1_cde6,
    0xc337_07d6,
    0xf4d5_0d87,
    0x455a_14ed,
    0xa9e3_e905,
    0xfcef_a3f8,
    0x676f_02d9,
    0x8d2a_4c8a,
    0xfffa_3942,
    0x8771_f681,
    0x6d9d_6122,
    0xfde5_380c,
    0xa4be_ea44,
    0x4bde_cfa9,
    0xf6bb_4b60,
    0xbebf_bc70,
    0x289b_7ec6,
    0xeaa1_27fa,
    0xd4ef_3085,
    0x0488_1d05,
    0xd9d4_d039,
    0xe6db_99e5,
    0x1fa2_7cf8,
    0xc4ac_5665,
    0xf429_2244,
    0x432a_ff97,
    0xab94_23a7,
    0xfc93_a039,
    0x655b_59c3,
    0x8f0c_cc92,
    0xffef_f47d,
    0x8584_5dd1,
    0x6fa8_7e4f,
    0xfe2c_e6e0,
    0xa301_4314,
    0x4e08_11a1,
    0xf753_7e82,
    0xbd3a_f235,
    0x2ad7_d2bb,
    0xeb86_d391,
];

type Digest = [u8; 16];

/// The digest of each of these messages, which are best of one size.
pub(super) fn of_each(messages: &[&[u8]]) -> Vec<Digest> {
    let mut digests = vec![Digest::default(); messages.len()];
    let mut longest_first: Vec<_> = (0..messages.len()).collect();
    longest_first.sort_by_key(|&place| std::cmp::Reverse(messages[place].len()));
    let mut places = &longest_first[..];
    while let Some((&first, others)) = places.split_first() {
        let group = &places[..places.len().min(LANES)];
        // The lanes are as long as the first: those of short messages run empty.
        let bytes: usize = group.iter().map(|&place| messages[place].len()).sum();
        if 4 * bytes < QUARTERS_OF_LANES * messages[first].len() {
            digests[first] = alone(messages[first]);
            places = others;
        } else {
            let found =
                side_by_side(std::array::from_fn(|lane| group.get(lane).map_or(&[][..], |&place| messages[place])));
            group.iter().zip(found).for_each(|(&place, digest)| digests[place] = digest);
            places = &places[group.len()..];
        }
    }
    digests
}

fn alone(message: &[u8]) -> Digest {
    // The compiler is not to know them: it would make them parts of instructions that take longer (580 MB/s in place of 700).
    let constants = std::hint::black_box(&CONSTANTS);
    let message = Padded::new(message);
    let mut state = START;
    for number in 0..message.blocks() {
        let block = message.block(number);
        compress(&mut state, std::array::from_fn(|place| word(block, place)), constants);
    }
    digest(state)
}

fn side_by_side(messages: [&[u8]; LANES]) -> [Digest; LANES] {
    let lanes = messages.map(Padded::new);
    let blocks = lanes.iter().map(Padded::blocks).max().unwrap_or(0);
    let mut state = START.map(u32x4::splat);
    let mut digests = [Digest::default(); LANES];
    for number in 0..blocks {
        let blocks = lanes.each_ref().map(|lane| lane.block(number));
        let words = std::array::from_fn(|place| u32x4::new(blocks.map(|block| word(block, place))));
        compress(&mut state, words, &CONSTANTS);
        if lanes.iter().any(|lane| lane.blocks() == number + 1) {
            let words = state.map(u32x4::to_array);
            let ended = digests.iter_mut().enumerate().filter(|&(lane, _)| lanes[lane].blocks() == number + 1);
            ended.for_each(|(lane, ended)| *ended = digest(words.map(|lanes| lanes[lane])));
        }
    }
    digests
}

fn word(block: &[u8; BLOCK], place: usize) -> u32 {
    u32::from_le_bytes(block.as_chunks().0[place])
}

fn digest(state: [u32; 4]) -> Digest {
    let mut digest = Digest::default();
    digest.as_chunks_mut().0.iter_mut().zip(state).for_each(|(bytes, word)| *bytes = word.to_le_bytes());
    digest
}

/// A message in blocks: followed by a bit, zeros, and its length in bits.
struct Padded<'a> {
    whole: &'a [[u8; BLOCK]],
    end: [[u8; BLOCK]; 2],
    end_blocks: usize,
}

impl<'a> Padded<'a> {
    fn new(message: &'a [u8]) -> Self {
        let (whole, rest) = message.as_chunks();
        let mut end = [[0; BLOCK]; 2];
        let end_blocks = if rest.len() < BLOCK - 8 { 1 } else { 2 };
        end[0][..rest.len()].copy_from_slice(rest);
        end[0][rest.len()] = 0x80;
        end[end_blocks - 1][BLOCK - 8..].copy_from_slice(&(message.len() as u64).wrapping_mul(8).to_le_bytes());
        Self { whole, end, end_blocks }
    }

    fn blocks(&self) -> usize {
        self.whole.len() + self.end_blocks
    }

    /// Behind the last one it is any: nobody looks at what becomes of it.
    fn block(&self, number: usize) -> &[u8; BLOCK] {
        self.whole.get(number).unwrap_or_else(|| &self.end[(number - self.whole.len()).min(1)])
    }
}

/// A word of one message, or of each.
trait Words: Copy + BitAnd<Output = Self> + BitOr<Output = Self> + BitXor<Output = Self> + Not<Output = Self> {
    fn each(word: u32) -> Self;
    fn plus(self, other: Self) -> Self;
    fn turned(self, by: u32) -> Self;
}

impl Words for u32 {
    fn each(word: u32) -> Self {
        word
    }

    fn plus(self, other: Self) -> Self {
        self.wrapping_add(other)
    }

    fn turned(self, by: u32) -> Self {
        self.rotate_left(by)
    }
}

impl Words for u32x4 {
    fn each(word: u32) -> Self {
        Self::splat(word)
    }

    fn plus(self, other: Self) -> Self {
        self + other
    }

    fn turned(self, by: u32) -> Self {
        (self << by) | (self >> (32 - by))
    }
}

/// Takes the next block.
#[inline(always)]
fn compress<W: Words>(state: &mut [W; 4], words: [W; BLOCK / 4], constants: &[u32; 64]) {
    let [mut a, mut b, mut c, mut d] = *state;
    // The function, the shifts of four steps in turn, and for each step its word and the number of its constant.
    macro_rules! round {
        ($mix:ident, $s0:literal, $s1:literal, $s2:literal, $s3:literal;
         $(($w0:literal, $k0:literal), ($w1:literal, $k1:literal), ($w2:literal, $k2:literal), ($w3:literal, $k3:literal);)*) => {
            $(
                a = step($mix, [a, b, c, d], words[$w0], constants[$k0], $s0);
                d = step($mix, [d, a, b, c], words[$w1], constants[$k1], $s1);
                c = step($mix, [c, d, a, b], words[$w2], constants[$k2], $s2);
                b = step($mix, [b, c, d, a], words[$w3], constants[$k3], $s3);
            )*
        };
    }
    round!(f, 7, 12, 17, 22;
        (0, 0), (1, 1), (2, 2), (3, 3);
        (4, 4), (5, 5), (6, 6), (7, 7);
        (8, 8), (9, 9), (10, 10), (11, 11);
        (12, 12), (13, 13), (14, 14), (15, 15);
    );
    round!(g, 5, 9, 14, 20;
        (1, 16), (6, 17), (11, 18), (0, 19);
        (5, 20), (10, 21), (15, 22), (4, 23);
        (9, 24), (14, 25), (3, 26), (8, 27);
        (13, 28), (2, 29), (7, 30), (12, 31);
    );
    round!(h, 4, 11, 16, 23;
        (5, 32), (8, 33), (11, 34), (14, 35);
        (1, 36), (4, 37), (7, 38), (10, 39);
        (13, 40), (0, 41), (3, 42), (6, 43);
        (9, 44), (12, 45), (15, 46), (2, 47);
    );
    round!(i, 6, 10, 15, 21;
        (0, 48), (7, 49), (14, 50), (5, 51);
        (12, 52), (3, 53), (10, 54), (1, 55);
        (8, 56), (15, 57), (6, 58), (13, 59);
        (4, 60), (11, 61), (2, 62), (9, 63);
    );
    for (before, now) in state.iter_mut().zip([a, b, c, d]) {
        *before = before.plus(now);
    }
}

/// The sum is made in this order, so that what the step before gave comes in late.
#[inline(always)]
fn step<W: Words>(mix: impl Fn(W, W, W, W) -> W, [a, b, c, d]: [W; 4], word: W, constant: u32, shift: u32) -> W {
    mix(a.plus(W::each(constant)).plus(word), b, c, d).turned(shift).plus(b)
}

fn f<W: Words>(sum: W, b: W, c: W, d: W) -> W {
    sum.plus((b & (c ^ d)) ^ d)
}

fn g<W: Words>(sum: W, b: W, c: W, d: W) -> W {
    sum.plus(c & !d).plus(b & d)
}

fn h<W: Words>(sum: W, b: W, c: W, d: W) -> W {
    sum.plus(b ^ (c ^ d))
}

fn i<W: Words>(sum: W, b: W, c: W, d: W) -> W {
    sum.plus(c ^ (b | !d))
}

#[cfg(test)]
mod tests {
    use md5::{Digest as _, Md5};
    use proptest::prelude::*;

    use super::*;

    fn expected(messages: &[&[u8]]) -> Vec<Digest> {
        messages.iter().map(|message| Md5::digest(message).into()).collect()
    }

    /// Around every length at which padding takes another block.
    #[test]
    fn messages_of_every_length_have_their_md5() {
        let bytes: Vec<u8> = (0..=255).collect();
        let messages: Vec<&[u8]> = (0..=bytes.len()).map(|length| &bytes[..length]).collect();
        assert_eq!(of_each(&messages), expected(&messages));
        assert_eq!(of_each(&[]), [] as [Digest; 0]);
        let padded = side_by_side(std::array::from_fn(|lane| messages[lane * 85]));
        assert_eq!(
            padded.to_vec(),
            (0..LANES).map(|lane| Md5::digest(messages[lane * 85]).into()).collect::<Vec<Digest>>()
        );
    }

    proptest! {
        #[test]
        fn it_is_the_md5_of_each_whatever_is_beside_it(
            messages in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..3000), 0..30),
            long in prop::option::of(prop::collection::vec(any::<u8>(), 20_000..30_000)),
        ) {
            let messages: Vec<&[u8]> = messages.iter().chain(&long).map(|message| &message[..]).collect();
            prop_assert_eq!(of_each(&messages), expected(&messages));
        }
    }
}
