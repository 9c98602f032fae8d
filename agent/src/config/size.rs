//! Sizes in a configuration, such as `"1GiB"` or `"1MB"`: for `#[serde(with = "crate::config::size")]`.
//!
//! As in the units' standard: kB, MB and GB are powers of 1000, KiB, MiB and GiB powers of 1024. A bare number is bytes.

use std::{fmt, marker::PhantomData};

use bytesize::ByteSize;
use serde::{Deserializer, de};

/// Reads a size in bytes.
///
/// # Errors
/// Not a size, or larger than `T` can hold (which happens on a 32-bit machine).
pub fn deserialize<'de, D: Deserializer<'de>, T: TryFrom<u64>>(deserializer: D) -> Result<T, D::Error> {
    deserializer.deserialize_any(SizeVisitor(PhantomData))
}

/// A size for messages, as it is written in a configuration: `1.0 GiB`.
#[must_use]
pub fn show(bytes: u64) -> String {
    ByteSize(bytes).display().iec().to_string()
}

/// Sizes that one message compares: as [`show`] has them, but to the byte where two that differ would read the same.
#[must_use]
pub fn show_beside<const N: usize>(sizes: [u64; N]) -> [String; N] {
    let shown = sizes.map(show);
    let is_unclear =
        |(one, text): (usize, &String)| (0..one).any(|other| sizes[other] != sizes[one] && shown[other] == *text);
    if shown.iter().enumerate().any(is_unclear) { sizes.map(|bytes| format!("{bytes} B")) } else { shown }
}

/// For optional keys.
pub mod option {
    use super::Deserializer;

    /// Reads a size that may be left out (together with `#[serde(default)]`).
    ///
    /// # Errors
    /// Not a size, or larger than `T` can hold.
    pub fn deserialize<'de, D: Deserializer<'de>, T: TryFrom<u64>>(deserializer: D) -> Result<Option<T>, D::Error> {
        super::deserialize(deserializer).map(Some)
    }
}

struct SizeVisitor<T>(PhantomData<T>);

impl<T: TryFrom<u64>> de::Visitor<'_> for SizeVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a size such as \"64KiB\" or \"1GiB\"")
    }

    fn visit_i64<E: de::Error>(self, bytes: i64) -> Result<T, E> {
        let size = u64::try_from(bytes).ok().and_then(|bytes| T::try_from(bytes).ok());
        size.ok_or_else(|| E::invalid_value(de::Unexpected::Signed(bytes), &self))
    }

    fn visit_u64<E: de::Error>(self, bytes: u64) -> Result<T, E> {
        T::try_from(bytes).map_err(|_| E::invalid_value(de::Unexpected::Unsigned(bytes), &self))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        let size = text.parse::<ByteSize>().ok().and_then(|size| T::try_from(size.as_u64()).ok());
        size.ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_value_reads_like_the_limit_that_it_misses() {
        assert_eq!(show_beside([4096, 4095]), ["4096 B", "4095 B"]);
        assert_eq!(show_beside([1 << 10, 10 << 20, (10 << 20) + 1]), ["1024 B", "10485760 B", "10485761 B"]);
        assert_eq!(show_beside([4096, 4000]), ["4.0 KiB", "3.9 KiB"]);
        assert_eq!(show_beside([4096, 5, 4096]), ["4.0 KiB", "5 B", "4.0 KiB"]);
    }
}
