//! CBOR (RFC 8949) and MessagePack as JSON, in one pass and without a tree in between.
//!
//! As RFC 8949, section 6.1, advises: bytes become base64url without padding, what is not finite and `undefined` become
//! null, a tag is left out and its value stays. Whole numbers are written exactly, also bignums up to 128 bits. A map's keys
//! become texts; a key that is a list or a map cannot be JSON. MessagePack's timestamps become RFC 3339, its other
//! extensions `{"type": N, "data": base64url}`. What follows the one item makes the payload undecodable.

use std::{fmt, io::Cursor};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use chrono::{DateTime, SecondsFormat};
use serde::de::{
    self, DeserializeSeed, Deserializer, EnumAccess, IgnoredAny, MapAccess, SeqAccess, VariantAccess as _, Visitor,
};

use super::super::project::push_string;

/// As deep as serde_json reads it again.
const DEPTH_MAX: usize = 128;

/// The error is a sentence fragment.
pub(super) fn cbor(payload: &[u8]) -> Result<String, String> {
    use ciborium::de::{Error, from_reader_with_recursion_limit};

    let mut rest = payload;
    let Item(out) = from_reader_with_recursion_limit(&mut rest, DEPTH_MAX).map_err(|error| match error {
        Error::Io(_) => "the item ends too early".into(),
        Error::Syntax(at) => format!("not CBOR at byte {at}"),
        Error::Semantic(_, why) => why,
        Error::RecursionLimitExceeded => too_deep(),
    })?;
    all_read(payload.len() - rest.len(), payload).map(|()| out)
}

/// The error is a sentence fragment.
pub(super) fn msgpack(payload: &[u8]) -> Result<String, String> {
    let mut out = String::with_capacity(payload.len() * 2);
    let mut reader = rmp_serde::Deserializer::new(Cursor::new(payload));
    reader.set_max_depth(DEPTH_MAX);
    Json(&mut out).deserialize(&mut reader).map_err(|error| match error {
        rmp_serde::decode::Error::DepthLimitExceeded => too_deep(),
        error => error.to_string(),
    })?;
    all_read(usize::try_from(reader.position()).unwrap_or(usize::MAX), payload).map(|()| out)
}

fn too_deep() -> String {
    format!("nested deeper than {DEPTH_MAX}")
}

fn all_read(read: usize, payload: &[u8]) -> Result<(), String> {
    if read == payload.len() { Ok(()) } else { Err(format!("something follows the item, at byte {read}")) }
}

/// An item's JSON, for a reader that wants a type rather than a visitor.
struct Item(String);

impl<'de> de::Deserialize<'de> for Item {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut out = String::new();
        Json(&mut out).deserialize(deserializer).map(|()| Self(out))
    }
}

/// Writes what it is given as JSON.
struct Json<'o>(&'o mut String);

impl<'de> DeserializeSeed<'de> for Json<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

/// Numbers as they are written in JSON.
macro_rules! as_written {
    ($($visit:ident($value:ty))*) => {
        $(fn $visit<E>(self, value: $value) -> Result<(), E> {
            self.0.push_str(&value.to_string());
            Ok(())
        })*
    };
}

impl<'de> Visitor<'de> for Json<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("what can be JSON")
    }

    as_written! { visit_bool(bool) visit_i64(i64) visit_u64(u64) visit_i128(i128) visit_u128(u128) }

    fn visit_f32<E: de::Error>(self, value: f32) -> Result<(), E> {
        // Exactly the same number, though its text is longer than the device's: 21.299999237060547 for 21.3.
        self.visit_f64(value.into())
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<(), E> {
        // Null, if it is not finite.
        self.0.push_str(&serde_json::to_string(&value).map_err(E::custom)?);
        Ok(())
    }

    fn visit_str<E>(self, text: &str) -> Result<(), E> {
        push_string(text, self.0);
        Ok(())
    }

    fn visit_bytes<E>(self, bytes: &[u8]) -> Result<(), E> {
        push_bytes(bytes, self.0);
        Ok(())
    }

    fn visit_none<E: de::Error>(self) -> Result<(), E> {
        self.visit_unit()
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        self.0.push_str("null");
        Ok(())
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        self.deserialize(deserializer)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<(), A::Error> {
        self.0.push('[');
        let begin = self.0.len();
        loop {
            let before = self.0.len();
            if before > begin {
                self.0.push(',');
            }
            if elements.next_element_seed(Json(self.0))?.is_none() {
                self.0.truncate(before);
                self.0.push(']');
                return Ok(());
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        self.0.push('{');
        let begin = self.0.len();
        loop {
            let before = self.0.len();
            if before > begin {
                self.0.push(',');
            }
            if members.next_key_seed(Key(self.0))?.is_none() {
                self.0.truncate(before);
                self.0.push('}');
                return Ok(());
            }
            self.0.push(':');
            members.next_value_seed(Json(self.0))?;
        }
    }

    /// A tag of CBOR, and its value.
    fn visit_enum<A: EnumAccess<'de>>(self, tagged: A) -> Result<(), A::Error> {
        let (IgnoredAny, tagged) = tagged.variant()?;
        tagged.tuple_variant(2, Tagged(self.0))
    }

    /// An extension of MessagePack.
    fn visit_newtype_struct<D: Deserializer<'de>>(self, extension: D) -> Result<(), D::Error> {
        extension.deserialize_any(Extension(self.0))
    }
}

/// A map's key: a text, or something that can be written as one.
struct Key<'o>(&'o mut String);

impl<'de> DeserializeSeed<'de> for Key<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

macro_rules! quoted {
    ($($visit:ident($value:ty))*) => {
        $(fn $visit<E>(self, value: $value) -> Result<(), E> {
            push_string(&value.to_string(), self.0);
            Ok(())
        })*
    };
}

impl<'de> Visitor<'de> for Key<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key that can be a text")
    }

    quoted! { visit_bool(bool) visit_i64(i64) visit_u64(u64) visit_i128(i128) visit_u128(u128) visit_f64(f64) visit_str(&str) }

    fn visit_bytes<E>(self, bytes: &[u8]) -> Result<(), E> {
        push_bytes(bytes, self.0);
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        push_string("null", self.0);
        Ok(())
    }

    fn visit_none<E: de::Error>(self) -> Result<(), E> {
        self.visit_unit()
    }

    fn visit_enum<A: EnumAccess<'de>>(self, tagged: A) -> Result<(), A::Error> {
        struct Inside<'o>(&'o mut String);

        impl<'de> Visitor<'de> for Inside<'_> {
            type Value = ();

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a tag and a key that can be a text")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut parts: A) -> Result<(), A::Error> {
                parts.next_element::<IgnoredAny>()?;
                parts.next_element_seed(Key(self.0))?.ok_or_else(|| de::Error::custom("a tag without a value"))
            }
        }

        let (IgnoredAny, tagged) = tagged.variant()?;
        tagged.tuple_variant(2, Inside(self.0))
    }
}

/// The two parts of a tagged value.
struct Tagged<'o>(&'o mut String);

impl<'de> Visitor<'de> for Tagged<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a tag and its value")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut parts: A) -> Result<(), A::Error> {
        let tag: Option<u64> = parts.next_element()?;
        let before = self.0.len();
        parts.next_element_seed(Json(self.0))?.ok_or_else(|| de::Error::custom("a tag without a value"))?;
        // Without its tag a bignum would be bytes, or lose its sign.
        let bytes = self.0[before..].starts_with('"');
        if matches!(tag, Some(2 | 3)) && bytes {
            return Err(de::Error::custom("a whole number of more than 128 bits"));
        }
        Ok(())
    }
}

/// The type and the bytes of an extension.
struct Extension<'o>(&'o mut String);

impl<'de> Visitor<'de> for Extension<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an extension")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut parts: A) -> Result<(), A::Error> {
        let none = || de::Error::custom("an extension without its parts");
        let kind: i8 = parts.next_element()?.ok_or_else(none)?;
        let Bytes(bytes) = parts.next_element()?.ok_or_else(none)?;
        match (kind, time(&bytes)) {
            (-1, Some(time)) => push_string(&time, self.0),
            _ => {
                self.0.push_str(&format!("{{\"type\":{kind},\"data\":"));
                push_bytes(&bytes, self.0);
                self.0.push('}');
            }
        }
        Ok(())
    }
}

/// Owned bytes.
struct Bytes(Vec<u8>);

impl<'de> de::Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collect;

        impl Visitor<'_> for Collect {
            type Value = Bytes;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("bytes")
            }

            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Bytes, E> {
                Ok(Bytes(bytes.to_vec()))
            }
        }

        deserializer.deserialize_any(Collect)
    }
}

/// MessagePack's timestamps of 32, 64 and 96 bits, big-endian by its specification.
#[expect(clippy::big_endian_bytes, reason = "MessagePack is")]
fn time(bytes: &[u8]) -> Option<String> {
    let (seconds, nanoseconds) = match *bytes {
        [a, b, c, d] => (i64::from(u32::from_be_bytes([a, b, c, d])), 0),
        [a, b, c, d, e, f, g, h] => {
            let both = u64::from_be_bytes([a, b, c, d, e, f, g, h]);
            (i64::try_from(both & ((1 << 34) - 1)).ok()?, u32::try_from(both >> 34).ok()?)
        }
        [a, b, c, d, ref rest @ ..] => (i64::from_be_bytes(rest.try_into().ok()?), u32::from_be_bytes([a, b, c, d])),
        _ => return None,
    };
    let time = DateTime::from_timestamp(seconds, nanoseconds)?;
    Some(time.to_rfc3339_opts(SecondsFormat::AutoSi, true))
}

fn push_bytes(bytes: &[u8], out: &mut String) {
    out.push('"');
    URL_SAFE_NO_PAD.encode_string(bytes, out);
    out.push('"');
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    /// Examples of RFC 8949, appendix A.
    #[test]
    fn cbor_becomes_json_as_the_rfc_advises() {
        for (hex, expected) in [
            ("00", "0"),
            ("1bffffffffffffffff", "18446744073709551615"),
            ("c249010000000000000000", "18446744073709551616"),
            ("3bffffffffffffffff", "-18446744073709551616"),
            ("c349010000000000000000", "-18446744073709551617"),
            ("f93c00", "1.0"),
            ("fb3ff199999999999a", "1.1"),
            ("fa47c35000", "100000.0"),
            ("f97e00", "null"),
            ("f97c00", "null"),
            ("f4", "false"),
            ("f6", "null"),
            ("f7", "null"),
            ("c074323031332d30332d32315432303a30343a30305a", "\"2013-03-21T20:04:00Z\""),
            ("c11a514b67b0", "1363896240"),
            ("d74401020304", "\"AQIDBA\""),
            ("4401020304", "\"AQIDBA\""),
            ("5f42010243030405ff", "\"AQIDBAU\""),
            ("7f657374726561646d696e67ff", "\"streaming\""),
            ("62225c", r#""\"\\""#),
            ("80", "[]"),
            ("83010203", "[1,2,3]"),
            ("9f018202039f0405ffff", "[1,[2,3],[4,5]]"),
            ("a0", "{}"),
            ("a201020304", r#"{"1":2,"3":4}"#),
            ("a26161016162820203", r#"{"a":1,"b":[2,3]}"#),
            ("a1c10a01", r#"{"10":1}"#),
            ("a1420102f5", r#"{"AQI":true}"#),
            ("bf6346756ef563416d7421ff", r#"{"Fun":true,"Amt":-2}"#),
        ] {
            assert_eq!(cbor(&bytes(hex)).as_deref(), Ok(expected), "{hex}");
        }
    }

    #[test]
    fn what_is_no_item_or_cannot_be_json_is_refused() {
        for hex in [
            "",
            "18",
            "82",
            "8201",
            "ff",
            "62c328",
            "a1",
            "a18001",
            "0000",
            "5bffffffffffffffff00",
            "9bffffffffffffffff",
            "c2510100000000000000000000000000000000",
        ] {
            assert!(cbor(&bytes(hex)).is_err(), "{hex}: {:?}", cbor(&bytes(hex)));
        }
        assert!(cbor(&[0x81; 10_000]).expect_err("deep").contains("deeper"));
        for hex in ["", "c1", "92", "9201", "d9ff", "81a1", "0000", "dfffffffff", "ddffffffff", "81900190"] {
            assert!(msgpack(&bytes(hex)).is_err(), "{hex}: {:?}", msgpack(&bytes(hex)));
        }
        assert!(msgpack(&[0x91; 10_000]).expect_err("deep").contains("deeper"));
    }

    #[test]
    fn messagepack_becomes_json() {
        for (hex, expected) in [
            ("c0", "null"),
            ("82a7636f6d70616374c3a6736368656d6100", r#"{"compact":true,"schema":0}"#),
            ("cfffffffffffffffff", "18446744073709551615"),
            ("d38000000000000000", "-9223372036854775808"),
            ("ca41aa6666", "21.299999237060547"),
            ("cb40354ccccccccccd", "21.3"),
            ("c403010203", "\"AQID\""),
            ("8101c2", r#"{"1":false}"#),
            ("d6ff00000001", "\"1970-01-01T00:00:01Z\""),
            ("d7ff1dcd650000000001", "\"1970-01-01T00:00:01.125Z\""),
            ("c70cff00000000ffffffffffffffff", "\"1969-12-31T23:59:59Z\""),
            ("d405aa", r#"{"type":5,"data":"qg"}"#),
        ] {
            assert_eq!(msgpack(&bytes(hex)).as_deref(), Ok(expected), "{hex}");
        }
    }

    fn bytes(hex: &str) -> Vec<u8> {
        (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex")).collect()
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            any::<f64>().prop_filter("finite", |number| number.is_finite()).prop_map(|number| json!(number)),
            ".{0,8}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 40, 6, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                proptest::collection::btree_map(".{0,3}", inner, 0..5)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_was_encoded_is_decoded_to_the_same(value in any_json()) {
            let mut encoded = Vec::new();
            ciborium::into_writer(&value, &mut encoded).expect("CBOR");
            prop_assert_eq!(cbor(&encoded), Ok(value.to_string()));
            let encoded = rmp_serde::to_vec_named(&value).expect("MessagePack");
            prop_assert_eq!(msgpack(&encoded), Ok(value.to_string()));
        }

        #[test]
        fn half_an_item_is_refused(value in any_json(), cut in 1..20_usize) {
            let mut encoded = Vec::new();
            ciborium::into_writer(&value, &mut encoded).expect("CBOR");
            prop_assert!(cbor(&encoded[..encoded.len().saturating_sub(cut)]).is_err());
            let encoded = rmp_serde::to_vec_named(&value).expect("MessagePack");
            prop_assert!(msgpack(&encoded[..encoded.len().saturating_sub(cut)]).is_err());
        }
    }
}
