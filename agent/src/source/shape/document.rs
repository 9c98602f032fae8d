//! A record that is JSON: its text, and where the members of its outermost object are in it.
//!
//! One pass over the text finds them and shows that it is JSON; the values stay text, so that what no step touches comes
//! out byte for byte, and numbers exactly as they were written.

use std::{borrow::Cow, cell::OnceCell, fmt};

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::field;

/// A record that is JSON.
#[derive(Debug)]
pub(super) struct Document<'a> {
    text: &'a str,
    /// Of the outermost object, once somebody looked into it; `None` if it is none.
    members: OnceCell<Option<Members<'a>>>,
}

/// A name and its value.
#[derive(Debug, Clone, Copy)]
pub(super) struct Member<'a> {
    /// With the quotes.
    pub(super) name: &'a RawValue,
    pub(super) value: &'a RawValue,
}

/// An object's members in their order.
#[derive(Debug)]
pub(super) struct Members<'a>(pub(super) Vec<Member<'a>>);

impl<'a> Document<'a> {
    /// Reads a text; the error is a sentence fragment.
    pub(super) fn parse(text: &'a str) -> Result<Self, String> {
        let members = if is_object(text) {
            Some(serde_json::from_str(text).map_err(|error| error.to_string())?)
        } else {
            serde_json::from_str::<&RawValue>(text).map_err(|error| error.to_string())?;
            None
        };
        Ok(Self { text, members: OnceCell::from(members) })
    }

    /// Reads bytes; the error is a sentence fragment.
    pub(super) fn parse_bytes(bytes: &'a [u8]) -> Result<Self, String> {
        let text = std::str::from_utf8(bytes).map_err(|error| format!("not UTF-8 at byte {}", error.valid_up_to()))?;
        Self::parse(text)
    }

    /// A text that was made here, and so is JSON.
    pub(super) fn trusted(text: &'a str) -> Self {
        Self { text, members: OnceCell::new() }
    }

    pub(super) fn text(&self) -> &'a str {
        self.text
    }

    /// Of the outermost object; `None` if it is none.
    pub(super) fn members(&self) -> Option<&[Member<'a>]> {
        let read = || serde_json::from_str(self.text).ok();
        let members = self.members.get_or_init(|| is_object(self.text).then(read).flatten());
        members.as_ref().map(|members| &*members.0)
    }
}

impl<'a> Member<'a> {
    pub(super) fn name(&self) -> Cow<'a, str> {
        field::string(self.name.get())
    }

    pub(super) fn name_is(&self, name: &str) -> bool {
        self.name() == name
    }
}

/// Whether JSON is an object, by its first character.
pub(super) fn is_object(text: &str) -> bool {
    text.trim_ascii_start().starts_with('{')
}

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collect;

        impl<'de> Visitor<'de> for Collect {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::with_capacity(16);
                while let Some((name, value)) = map.next_entry()? {
                    members.push(Member { name, value });
                }
                Ok(Members(members))
            }
        }

        deserializer.deserialize_map(Collect)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_keep_their_text() {
        let document = Document::parse(" { \"a\" : 1.50 , \"\\u00e4\" : { \"b\":[ ] } } ").expect("JSON");
        let members: Vec<_> = document.members().expect("an object").iter().collect();
        assert_eq!([members[0].value.get(), members[1].value.get()], ["1.50", "{ \"b\":[ ] }"]);
        assert_eq!([members[0].name(), members[1].name()], ["a", "ä"]);
        assert_eq!(members[1].name.get(), "\"\\u00e4\"");
    }

    #[test]
    fn what_is_not_json_is_refused() {
        for text in ["", "{", "{\"a\":1} x", "{\"a\"}", "[1,]", "nul", "{\"a\":\"\n\"}", "{1:2}"] {
            assert!(Document::parse(text).is_err(), "{text}");
        }
        assert!(Document::parse_bytes(b"\"\xff\"").is_err());
        for text in ["{}", "[1, 2]", "7", " \"x\" ", "null"] {
            assert!(Document::parse(text).is_ok(), "{text}");
        }
    }

    #[test]
    fn depth_is_no_trouble() {
        let deep = format!("{}1{}", "{\"a\":".repeat(50_000), "}".repeat(50_000));
        assert!(Document::parse(&deep).is_ok());
        assert!(Document::parse(&"[".repeat(100_000)).is_err());
    }
}
