//! JSON pointers (RFC 6901) into a payload, for partition keys and for what a source does with records.
//!
//! Only the way to the value is followed; nothing else of the document is kept, and numbers come out exactly as they
//! were written, so that long identifiers are not rounded. The whole document has to be JSON all the same.

use std::fmt;

use serde::de::{Deserialize, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// Where in a document a value is. The empty pointer is the document itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct JsonPointer {
    text: String,
    tokens: Vec<String>,
}

impl JsonPointer {
    /// Parses a pointer; the error is a sentence fragment.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut tokens = text.split('/');
        if tokens.next() != Some("") {
            return Err("needs a JSON pointer, which begins with a slash".into());
        }
        let tokens = tokens.map(unescape).collect::<Option<_>>();
        let tokens = tokens.ok_or("has a JSON pointer in which `~` is not followed by 0 or 1")?;
        Ok(Self { text: text.to_owned(), tokens })
    }

    /// What leads to the value: names of members and indices of elements. None for the document itself.
    pub(crate) fn tokens(&self) -> &[String] {
        &self.tokens
    }

    /// Appends the value to `out`: a string as it is, a number or a boolean as its JSON text.
    pub(super) fn write_scalar(&self, document: &[u8], out: &mut String) -> Result<(), String> {
        let found = find(&self.tokens, document)
            .map_err(|error| format!("not JSON ({error})"))?
            .ok_or("there is nothing there")?;
        match found.get().as_bytes().first() {
            Some(b'"') => {
                out.push_str(&serde_json::from_str::<String>(found.get()).map_err(|error| error.to_string())?)
            }
            Some(b'{') => return Err("it is an object".into()),
            Some(b'[') => return Err("it is an array".into()),
            Some(b'n') => return Err("it is null".into()),
            _ => out.push_str(found.get()),
        }
        Ok(())
    }
}

/// The text of the value that the tokens lead to, if it is there.
///
/// # Errors
/// The document is not JSON.
pub(crate) fn find<'d>(tokens: &[String], document: &'d [u8]) -> Result<Option<&'d RawValue>, serde_json::Error> {
    let mut reader = serde_json::Deserializer::from_slice(document);
    let found = Walk(tokens).deserialize(&mut reader)?;
    reader.end().map(|()| found)
}

impl fmt::Display for JsonPointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn unescape(token: &str) -> Option<String> {
    let mut parts = token.split('~');
    let mut out = parts.next()?.to_owned();
    for part in parts {
        match part.as_bytes().first()? {
            b'0' => out.push('~'),
            b'1' => out.push('/'),
            _ => return None,
        }
        out.push_str(&part[1..]);
    }
    Some(out)
}

/// Follows the tokens; yields the text of the value they lead to, if it is there.
struct Walk<'t>(&'t [String]);

impl<'de> DeserializeSeed<'de> for Walk<'_> {
    type Value = Option<&'de RawValue>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        if self.0.is_empty() {
            <&RawValue>::deserialize(deserializer).map(Some)
        } else {
            deserializer.deserialize_any(self)
        }
    }
}

/// A scalar on the way: there is nothing below it.
macro_rules! nothing_below {
    ($($visit:ident($value:ty))*) => {
        $(fn $visit<E>(self, _: $value) -> Result<Self::Value, E> { Ok(None) })*
    };
}

impl<'de> Visitor<'de> for Walk<'_> {
    type Value = Option<&'de RawValue>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    nothing_below! { visit_bool(bool) visit_i64(i64) visit_u64(u64) visit_f64(f64) visit_str(&str) }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        while let Some(wanted) = members.next_key_seed(Is(&self.0[0]))? {
            if wanted {
                // Of members with the same name the last one counts, as nearly every reader has it.
                found = members.next_value_seed(Walk(&self.0[1..]))?;
            } else {
                members.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Self::Value, A::Error> {
        let digits = &self.0[0];
        let leading_zero = digits.len() > 1 && digits.starts_with('0');
        let all_digits = digits.bytes().all(|byte| byte.is_ascii_digit());
        let wanted: Option<usize> = if leading_zero || !all_digits { None } else { digits.parse().ok() };
        let mut found = None;
        for index in 0.. {
            if Some(index) == wanted {
                let Some(value) = elements.next_element_seed(Walk(&self.0[1..]))? else { break };
                found = value;
            } else if elements.next_element::<IgnoredAny>()?.is_none() {
                break;
            }
        }
        Ok(found)
    }
}

/// Compares a member's name without keeping it.
struct Is<'t>(&'t str);

impl<'de> DeserializeSeed<'de> for Is<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Is<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a member's name")
    }

    fn visit_str<E>(self, name: &str) -> Result<bool, E> {
        Ok(name == self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn find(pointer: &str, document: &str) -> Result<String, String> {
        let mut out = String::new();
        JsonPointer::parse(pointer)?.write_scalar(document.as_bytes(), &mut out).map(|()| out)
    }

    #[test]
    fn the_examples_of_the_rfc_are_found() {
        let document = r#"{"foo":["bar","baz"],"":0,"a/b":1,"c%d":2,"e^f":3,"g|h":4,"i\\j":5,"k\"l":6," ":7,"m~n":8}"#;
        for (pointer, value) in [
            ("/foo/0", "bar"),
            ("/", "0"),
            ("/a~1b", "1"),
            ("/c%d", "2"),
            ("/e^f", "3"),
            ("/g|h", "4"),
            ("/i\\j", "5"),
            ("/k\"l", "6"),
            ("/ ", "7"),
            ("/m~0n", "8"),
        ] {
            assert_eq!(find(pointer, document).as_deref(), Ok(value), "{pointer}");
        }
        assert_eq!(find("", r#" "whole" "#).as_deref(), Ok("whole"));
    }

    #[test]
    fn numbers_are_not_rounded_and_strings_are_unescaped() {
        assert_eq!(find("/a", r#"{"a":12345678901234567890123}"#).as_deref(), Ok("12345678901234567890123"));
        assert_eq!(find("/a", r#"{"a": 1.500 }"#).as_deref(), Ok("1.500"));
        assert_eq!(find("/a", r#"{"a":"\u00e4\"\n"}"#).as_deref(), Ok("ä\"\n"));
    }

    #[test]
    fn what_is_not_there_or_no_scalar_or_no_json_is_refused() {
        for (pointer, document) in [
            ("/a/b", r#"{"a":"text"}"#),
            ("/a/b", r#"{"a":7}"#),
            ("/a/b", r#"{"a":null}"#),
            ("/a/2", r#"{"a":[1,2]}"#),
            ("/a/01", r#"{"a":[1,2]}"#),
            ("/a/+1", r#"{"a":[1,2]}"#),
            ("/a/-", r#"{"a":[1,2]}"#),
            ("/a", r#"{"a":1} trailing"#),
            ("/a", r#"{"a":1"#),
            ("/a", r#"{"a":"\ud800"}"#),
            ("/a", ""),
            ("", "[]"),
        ] {
            find(pointer, document).expect_err(document);
        }
        JsonPointer::parse("/a")
            .expect("fine")
            .write_scalar(b"{\"a\":\"\xff\"}", &mut String::new())
            .expect_err("UTF-8");
    }

    #[test]
    fn a_deeply_nested_payload_is_no_trouble() {
        let deep = "[".repeat(100_000);
        find("/a", &deep).expect_err("not closed");
        find("/0/0", &deep).expect_err("not closed");
        find(&"/0".repeat(50_000), &deep).expect_err("not closed");
    }

    proptest! {
        /// `Value::pointer` is the model (for documents without long numbers).
        #[test]
        fn it_finds_what_serde_json_finds(
            document in "\\{\"a\":(\\[1,\"x\",\\{\"b\":true\\}\\]|\\{\"b\":\"y\",\"0\":2\\}|3),\"b\":[0-9]\\}",
            pointer in "(/(a|b|0|1|2)){0,3}",
        ) {
            let value: Value = serde_json::from_str(&document).expect("made to be JSON");
            let model = value.pointer(&pointer).and_then(|value| match value {
                Value::String(text) => Some(text.clone()),
                Value::Number(_) | Value::Bool(_) => Some(value.to_string()),
                _ => None,
            });
            prop_assert_eq!(find(&pointer, &document).ok(), model);
        }

        #[test]
        fn any_payload_is_read_or_refused(document in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = JsonPointer::parse("/a/0").expect("fine").write_scalar(&document, &mut String::new());
        }
    }
}
