//! Bytes in a configuration: a text, or, for what no text can say, `{ hex = "01 03 ff" }`.
//!
//! TOML has escapes for control characters: `"\r\n"`, `"\u0002READ\u0003"`. A text stands for its UTF-8 bytes, so that a
//! single byte from 0x80 on can only be written in hex.

use std::fmt;

use serde::{Deserialize, Deserializer, de};

/// Bytes that somebody wrote down.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Octets(pub Vec<u8>);

impl fmt::Debug for Octets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0.escape_ascii())
    }
}

impl<'de> Deserialize<'de> for Octets {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(OctetsVisitor)
    }
}

struct OctetsVisitor;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Hex {
    hex: String,
}

impl<'de> de::Visitor<'de> for OctetsVisitor {
    type Value = Octets;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text or bytes such as { hex = \"01 03 ff\" }")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Octets, E> {
        Ok(Octets(text.as_bytes().to_vec()))
    }

    fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<Octets, A::Error> {
        let Hex { hex } = Hex::deserialize(de::value::MapAccessDeserializer::new(map))?;
        parse_hex(&hex).map(Octets).ok_or_else(|| {
            de::Error::custom(format!("`{hex}` is not bytes in hex: two digits each, spaces between them as you like"))
        })
    }
}

fn parse_hex(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<u32> =
        text.chars().filter(|c| !c.is_ascii_whitespace()).map(|c| c.to_digit(16)).collect::<Option<_>>()?;
    let (pairs, odd) = digits.as_chunks::<2>();
    let byte = |[high, low]: &[u32; 2]| u8::try_from(high << 4 | low).ok();
    if odd.is_empty() { pairs.iter().map(byte).collect() } else { None }
}

#[cfg(test)]
mod tests {
    use toml::Table;

    use super::*;

    fn read(text: &str) -> Result<Vec<u8>, String> {
        let mut table: Table = format!("a = {text}").parse().expect("TOML");
        let value = table.remove("a").expect("there");
        value.try_into::<Octets>().map(|octets| octets.0).map_err(|error| error.message().to_owned())
    }

    #[test]
    fn bytes_are_texts_or_hex() {
        assert_eq!(read(r#""\r\n\u0002ä""#), Ok(b"\r\n\x02\xc3\xa4".to_vec()));
        assert_eq!(read("{ hex = '01 03fF' }"), Ok(vec![1, 3, 0xff]));
        assert_eq!(read("{ hex = '' }"), Ok(vec![]));
        for wrong in ["{ hex = '0' }", "{ hex = '0g' }", "{ hex = '+1' }", "{ hexa = '00' }", "{}", "7", "['a']"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
