//! Bytes per second in a configuration, as links are sold (`"200kbit/s"`) or as files are counted (`"25KB/s"`).

use std::fmt;

use bytesize::ByteSize;
use serde::{Deserialize, Deserializer, de};

use crate::config::size;

/// How fast, in bits per second: what is told of a rate is what was written, also if that is no whole byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate(u64);

impl Rate {
    /// In whole bytes.
    #[must_use]
    pub fn bytes_per_second(self) -> u64 {
        self.0 / 8
    }

    /// In bits.
    #[must_use]
    pub fn bits_per_second(self) -> u64 {
        self.0
    }

    fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let per_second = text.strip_suffix("/s");
        let amount = per_second.unwrap_or(text).trim_end();
        let bits = match amount.strip_suffix("bit") {
            Some(bits) => bits_of(bits)?,
            // Whoever writes "400kb/s" or "400k/s" may mean bits, and would get eight times as much.
            None if !amount.ends_with('B') => return None,
            None => per_second.and(amount.parse::<ByteSize>().ok())?.as_u64().saturating_mul(8),
        };
        Some(Self(bits))
    }
}

/// A number with nothing, `k`, `M` or `G` behind it: powers of 1000, as everywhere where bits are counted.
fn bits_of(text: &str) -> Option<u64> {
    let number = text.trim_end_matches(['k', 'M', 'G']);
    let factor = match &text[number.len()..] {
        "" => 1.0,
        "k" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        _ => return None,
    };
    let number = number.trim();
    let plain = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    let bits = number.parse::<f64>().ok().filter(|_| plain)? * factor;
    (bits <= 1e15).then_some(bits as u64)
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/s", size::show(self.bytes_per_second()))
    }
}

impl<'de> Deserialize<'de> for Rate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| {
            de::Error::custom(format!("`{text}` is no rate such as \"200kbit/s\", \"2Mbit/s\" or \"25KB/s\""))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_and_bytes() {
        for (text, bytes) in [
            ("200kbit/s", 25_000),
            ("200kbit", 25_000),
            ("2 Mbit/s", 250_000),
            ("0.5Mbit/s", 62_500),
            ("1Gbit", 125_000_000),
            ("64bit/s", 8),
            ("1bit/s", 0),
            ("25KB/s", 25_000),
            ("25KiB/s", 25_600),
            ("1 MB/s", 1_000_000),
        ] {
            assert_eq!(Rate::parse(text).map(Rate::bytes_per_second), Some(bytes), "{text}");
        }
        for text in [
            "",
            "25KB",
            "400kb/s",
            "400k/s",
            "400/s",
            "2M/s",
            "1Mb/s",
            "200",
            "kbit/s",
            "-1kbit/s",
            "1e3kbit/s",
            "1kMbit/s",
            "200kbits",
            "fast",
            "infbit",
            "/s",
        ] {
            assert_eq!(Rate::parse(text), None, "{text}");
        }
    }
}
