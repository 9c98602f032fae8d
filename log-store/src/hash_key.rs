//! Hash keys: where a partition key falls in the 128-bit space that shards divide among them.
//!
//! As in Kinesis, the hash key is the MD5 of the UTF-8 partition key read as a big-endian unsigned integer.

use std::{cell::RefCell, fmt};

use md5::{Digest, Md5};
use serde::{Deserialize, Serialize};

/// A point in the 128-bit hash-key space.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct HashKey(pub u128);

impl HashKey {
    /// The lowest hash key.
    pub const MIN: Self = Self(0);
    /// The highest hash key.
    pub const MAX: Self = Self(u128::MAX);

    /// The hash key of a partition key.
    #[must_use]
    pub fn of(partition_key: &str) -> Self {
        KNOWN.with_borrow_mut(|known| known.of(partition_key.as_bytes(), md5))
    }
}

#[expect(clippy::big_endian_bytes, reason = "Kinesis defines the hash key as the big-endian reading of the MD5")]
fn md5(partition_key: &[u8]) -> HashKey {
    HashKey(u128::from_be_bytes(Md5::digest(partition_key).into()))
}

thread_local! {
    /// Devices name few keys, again and again, and the MD5 of each was a twentieth of what it takes to store and to forward a
    /// small record.
    static KNOWN: RefCell<Known> = const { RefCell::new(Known { places: Vec::new(), asked: 0 }) };
}

/// Longer keys are not remembered.
const KNOWN_BYTES_MAX: usize = 47;
/// So many keys, of 64 bytes each, in every thread that asks often.
const KNOWN_KEYS: usize = 2048;
/// A thread that has asked as often is one of those.
const OFTEN: u32 = 5000;

/// Hash keys that were asked for lately, each in the place that its partition key chooses.
#[derive(Default)]
struct Known {
    places: Vec<Place>,
    asked: u32,
}

#[derive(Clone, Copy)]
struct Place {
    /// None if there is no key yet: the empty one is not remembered.
    len: u8,
    key: [u8; KNOWN_BYTES_MAX],
    hash_key: HashKey,
}

impl Known {
    fn of(&mut self, key: &[u8], hash: impl FnOnce(&[u8]) -> HashKey) -> HashKey {
        if key.is_empty() || key.len() > KNOWN_BYTES_MAX {
            return hash(key);
        }
        if self.places.is_empty() {
            self.asked += 1;
            if self.asked < OFTEN {
                return hash(key);
            }
            self.places = vec![Place { len: 0, key: [0; KNOWN_BYTES_MAX], hash_key: HashKey(0) }; KNOWN_KEYS];
        }
        let place = &mut self.places[crc32fast::hash(key) as usize % KNOWN_KEYS];
        if place.key[..usize::from(place.len)] != *key {
            place.len = key.len() as u8;
            place.key[..key.len()].copy_from_slice(key);
            place.hash_key = hash(key);
        }
        place.hash_key
    }
}

impl fmt::Display for HashKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Also when keys share a place, and when they are too long for one.
        #[test]
        fn what_is_remembered_is_what_would_be_computed(
            keys in prop::collection::vec("[ab]{0,2}|[a-z]{45,50}|[a-z0-9]{1,20}", 1..5000),
        ) {
            let mut known = Known { asked: OFTEN - 100, ..Known::default() };
            for key in keys {
                prop_assert_eq!(known.of(key.as_bytes(), md5), md5(key.as_bytes()));
            }
        }
    }

    #[test]
    fn a_key_that_comes_again_is_not_hashed_again() {
        let mut known = Known::default();
        for _ in 0..OFTEN {
            assert_eq!(known.of(b"a", |_| HashKey(7)), HashKey(7));
        }
        assert_eq!(known.of(b"a", |_| panic!("it is known")), HashKey(7));
    }

    #[test]
    fn hash_key_is_the_big_endian_md5() {
        // MD5("") = d41d8cd98f00b204e9800998ecf8427e (RFC 1321, appendix A.5)
        assert_eq!(HashKey::of(""), HashKey(0xd41d_8cd9_8f00_b204_e980_0998_ecf8_427e));
        // MD5("abc") = 900150983cd24fb0d6963f7d28e17f72
        assert_eq!(HashKey::of("abc"), HashKey(0x9001_5098_3cd2_4fb0_d696_3f7d_28e1_7f72));
    }
}
