//! Hash keys: where a partition key falls in the 128-bit space that shards divide among them.
//!
//! As in Kinesis, the hash key is the MD5 of the UTF-8 partition key read as a big-endian unsigned integer.

use std::fmt;

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
    #[expect(clippy::big_endian_bytes, reason = "Kinesis defines the hash key as the big-endian reading of the MD5")]
    pub fn of(partition_key: &str) -> Self {
        Self(u128::from_be_bytes(Md5::digest(partition_key.as_bytes()).into()))
    }
}

impl fmt::Display for HashKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hash_key_is_the_big_endian_md5() {
        // MD5("") = d41d8cd98f00b204e9800998ecf8427e (RFC 1321, appendix A.5)
        assert_eq!(HashKey::of(""), HashKey(0xd41d_8cd9_8f00_b204_e980_0998_ecf8_427e));
        // MD5("abc") = 900150983cd24fb0d6963f7d28e17f72
        assert_eq!(HashKey::of("abc"), HashKey(0x9001_5098_3cd2_4fb0_d696_3f7d_28e1_7f72));
    }
}
