//! MD5 (RFC 1321) of several messages side by side: an aggregate ends with its own, and that took a fifth of the time of a
//! delivery of aggregates (docs/decisions/0015-md5-side-by-side.md).
//!
//! One MD5 is a chain in which every step waits for the one before, so that a processor has little to do meanwhile. Those of
//! several messages do not wait for each other: each has a lane of a vector.

use md5::{Digest as _, Md5};
use wide::u32x8;

/// How many messages are hashed at once.
pub(super) const LANES: usize = 8;

/// A block in all lanes costs about this many of one message by itself (1.4 measured, on x86-64 without AVX).
const COST_OF_LANES: usize = 2;

const BLOCK: usize = 64;
const START: [u32; 4] = [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476];

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
        if bytes < COST_OF_LANES * messages[first].len() {
            digests[first] = Md5::digest(messages[first]).into();
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

fn side_by_side(messages: [&[u8]; LANES]) -> [Digest; LANES] {
    let lanes = messages.map(Padded::new);
    let blocks = lanes.iter().map(Padded::blocks).max().unwrap_or(0);
    let mut state = START.map(u32x8::splat);
    let mut digests = [Digest::default(); LANES];
    for number in 0..blocks {
        compress(&mut state, std::array::from_fn(|lane| lanes[lane].block(number)));
        if lanes.iter().any(|lane| lane.blocks() == number + 1) {
            let words = state.map(u32x8::to_array);
            for (lane, digest) in digests.iter_mut().enumerate().filter(|&(lane, _)| lanes[lane].blocks() == number + 1)
            {
                let (bytes, _) = digest.as_chunks_mut::<4>();
                bytes.iter_mut().zip(words).for_each(|(bytes, word)| *bytes = word[lane].to_le_bytes());
            }
        }
    }
    digests
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

/// Takes the next block of each message.
fn compress(state: &mut [u32x8; 4], blocks: [&[u8; BLOCK]; LANES]) {
    let words: [u32x8; BLOCK / 4] =
        std::array::from_fn(|word| u32x8::new(blocks.map(|block| u32::from_le_bytes(block.as_chunks().0[word]))));
    let [mut a, mut b, mut c, mut d] = *state;
    // The function, the shifts of four steps in turn, and for each step its word and its constant.
    macro_rules! round {
        ($mix:ident, $s0:literal, $s1:literal, $s2:literal, $s3:literal;
         $(($w0:literal, $k0:literal), ($w1:literal, $k1:literal), ($w2:literal, $k2:literal), ($w3:literal, $k3:literal);)*) => {
            $(
                a = step($mix, [a, b, c, d], words[$w0], $k0, $s0);
                d = step($mix, [d, a, b, c], words[$w1], $k1, $s1);
                c = step($mix, [c, d, a, b], words[$w2], $k2, $s2);
                b = step($mix, [b, c, d, a], words[$w3], $k3, $s3);
            )*
        };
    }
    round!(f, 7, 12, 17, 22;
        (0, 0xd76a_a478), (1, 0xe8c7_b756), (2, 0x2420_70db), (3, 0xc1bd_ceee);
        (4, 0xf57c_0faf), (5, 0x4787_c62a), (6, 0xa830_4613), (7, 0xfd46_9501);
        (8, 0x6980_98d8), (9, 0x8b44_f7af), (10, 0xffff_5bb1), (11, 0x895c_d7be);
        (12, 0x6b90_1122), (13, 0xfd98_7193), (14, 0xa679_438e), (15, 0x49b4_0821);
    );
    round!(g, 5, 9, 14, 20;
        (1, 0xf61e_2562), (6, 0xc040_b340), (11, 0x265e_5a51), (0, 0xe9b6_c7aa);
        (5, 0xd62f_105d), (10, 0x0244_1453), (15, 0xd8a1_e681), (4, 0xe7d3_fbc8);
        (9, 0x21e1_cde6), (14, 0xc337_07d6), (3, 0xf4d5_0d87), (8, 0x455a_14ed);
        (13, 0xa9e3_e905), (2, 0xfcef_a3f8), (7, 0x676f_02d9), (12, 0x8d2a_4c8a);
    );
    round!(h, 4, 11, 16, 23;
        (5, 0xfffa_3942), (8, 0x8771_f681), (11, 0x6d9d_6122), (14, 0xfde5_380c);
        (1, 0xa4be_ea44), (4, 0x4bde_cfa9), (7, 0xf6bb_4b60), (10, 0xbebf_bc70);
        (13, 0x289b_7ec6), (0, 0xeaa1_27fa), (3, 0xd4ef_3085), (6, 0x0488_1d05);
        (9, 0xd9d4_d039), (12, 0xe6db_99e5), (15, 0x1fa2_7cf8), (2, 0xc4ac_5665);
    );
    round!(i, 6, 10, 15, 21;
        (0, 0xf429_2244), (7, 0x432a_ff97), (14, 0xab94_23a7), (5, 0xfc93_a039);
        (12, 0x655b_59c3), (3, 0x8f0c_cc92), (10, 0xffef_f47d), (1, 0x8584_5dd1);
        (8, 0x6fa8_7e4f), (15, 0xfe2c_e6e0), (6, 0xa301_4314), (13, 0x4e08_11a1);
        (4, 0xf753_7e82), (11, 0xbd3a_f235), (2, 0x2ad7_d2bb), (9, 0xeb86_d391);
    );
    for (before, now) in state.iter_mut().zip([a, b, c, d]) {
        *before += now;
    }
}

#[inline(always)]
fn step(
    mix: impl Fn(u32x8, u32x8, u32x8) -> u32x8,
    [a, b, c, d]: [u32x8; 4],
    word: u32x8,
    constant: u32,
    shift: u32,
) -> u32x8 {
    let mixed = a + u32x8::splat(constant) + word + mix(b, c, d);
    ((mixed << shift) | (mixed >> (32 - shift))) + b
}

fn f(b: u32x8, c: u32x8, d: u32x8) -> u32x8 {
    (b & (c ^ d)) ^ d
}

fn g(b: u32x8, c: u32x8, d: u32x8) -> u32x8 {
    (b & d) | (c & !d)
}

fn h(b: u32x8, c: u32x8, d: u32x8) -> u32x8 {
    b ^ c ^ d
}

fn i(b: u32x8, c: u32x8, d: u32x8) -> u32x8 {
    c ^ (b | !d)
}

#[cfg(test)]
mod tests {
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
        let padded = side_by_side(std::array::from_fn(|lane| messages[lane * 31]));
        assert_eq!(
            padded.to_vec(),
            (0..LANES).map(|lane| Md5::digest(messages[lane * 31]).into()).collect::<Vec<Digest>>()
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
