//! Fields: the parts of a record that a step looks at, by name or by JSON pointer.

use std::{borrow::Cow, cmp::Ordering, fmt};

use serde_json::value::RawValue;

use super::document::Document;
use crate::ingest::json_pointer::{self, JsonPointer};

/// Where in a record a value is: the name of a member of the outermost object, or a JSON pointer (RFC 6901).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Field(JsonPointer);

impl Field {
    /// What begins with a slash is a pointer, everything else a name. The error is a sentence fragment.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("must not be empty: name a member, or point into the record as in \"/device/id\"".into());
        }
        let pointer = if text.starts_with('/') {
            JsonPointer::parse(text).map_err(|why| format!("`{text}` {why}"))?
        } else {
            let escaped = text.replace('~', "~0").replace('/', "~1");
            JsonPointer::parse(&format!("/{escaped}")).map_err(|why| format!("`{text}` {why}"))?
        };
        Ok(Self(pointer))
    }

    /// The way to it: at least one name.
    pub(super) fn tokens(&self) -> &[String] {
        self.0.tokens()
    }

    /// Its value, if it is there. Of members with the same name the last one counts.
    pub(super) fn find<'d>(&self, document: &Document<'d>) -> Option<&'d RawValue> {
        let (first, rest) = self.tokens().split_first()?;
        let Some(members) = document.members() else {
            return json_pointer::find(self.tokens(), document.text().as_bytes()).ok().flatten();
        };
        let value = members.iter().rev().find(|member| member.name_is(first))?.value;
        if rest.is_empty() { Some(value) } else { json_pointer::find(rest, value.get().as_bytes()).ok().flatten() }
    }
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A value as far as steps look at it.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value<'a> {
    Text(Cow<'a, str>),
    Number(Number),
    Bool(bool),
    Null,
    /// An object or an array.
    Compound,
}

impl<'a> Value<'a> {
    pub(super) fn of(raw: &'a RawValue) -> Self {
        let text = raw.get();
        match text.as_bytes().first() {
            Some(b'"') => Self::Text(string(text)),
            Some(b'{' | b'[') | None => Self::Compound,
            Some(b't') => Self::Bool(true),
            Some(b'f') => Self::Bool(false),
            Some(b'n') => Self::Null,
            Some(_) => Number::parse(text).map_or(Self::Compound, Self::Number),
        }
    }

    /// As a number; a text that is one counts too, because log formats and CSV have nothing else.
    pub(super) fn number(&self) -> Option<Number> {
        match self {
            Self::Number(number) => Some(*number),
            Self::Text(text) => Number::parse(text),
            _ => None,
        }
    }
}

/// What a JSON string says; `text` is its JSON, with the quotes.
pub(super) fn string(text: &str) -> Cow<'_, str> {
    match text.get(1..text.len().saturating_sub(1)) {
        Some(inner) if !inner.contains('\\') => Cow::Borrowed(inner),
        // Nothing but a lone surrogate is left to be wrong in what was found to be JSON.
        _ => serde_json::from_str(text).map_or_else(|_| Cow::Borrowed(text), Cow::Owned),
    }
}

/// A number, whole ones exactly.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Number {
    Whole(i128),
    Other(f64),
}

impl Number {
    /// A number as JSON writes it.
    pub(super) fn parse(text: &str) -> Option<Self> {
        // Rust reads more than JSON has, such as `inf`.
        let begins = text.bytes().next().is_some_and(|byte| byte == b'-' || byte.is_ascii_digit());
        let rest = |byte: u8| byte.is_ascii_digit() || matches!(byte, b'-' | b'+' | b'.' | b'e' | b'E');
        if !begins || !text.bytes().all(rest) {
            return None;
        }
        let whole = text.parse().ok().map(Self::Whole);
        whole.or_else(|| text.parse().ok().filter(|number: &f64| number.is_finite()).map(Self::Other))
    }

    pub(super) fn as_f64(self) -> f64 {
        match self {
            Self::Whole(number) => number as f64,
            Self::Other(number) => number,
        }
    }

    pub(super) fn compare(self, other: Self) -> Option<Ordering> {
        match (self, other) {
            (Self::Whole(a), Self::Whole(b)) => Some(a.cmp(&b)),
            (a, b) => a.as_f64().partial_cmp(&b.as_f64()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find<'d>(field: &str, text: &'d str) -> Option<&'d str> {
        let read = Document::parse(text).expect("JSON");
        let unread = Document::trusted(text);
        let field = Field::parse(field).expect("a field");
        let found = field.find(&read).map(RawValue::get);
        assert_eq!(found, field.find(&unread).map(RawValue::get));
        found
    }

    #[test]
    fn a_field_is_a_name_or_a_pointer() {
        let text = r#"{"a":1,"b":{"c":[5,6.50]},"a/b":7,"\u0065":8,"~":9,"a":2}"#;
        for (field, value) in [
            ("a", Some("2")),
            ("/a", Some("2")),
            ("/b/c/1", Some("6.50")),
            ("a/b", Some("7")),
            ("/a~1b", Some("7")),
            ("e", Some("8")),
            ("~", Some("9")),
            ("c", None),
            ("/b/d", None),
            ("/a/b", None),
        ] {
            assert_eq!(find(field, text), value, "{field}");
        }
        assert_eq!(find("/1", "[1,2]"), Some("2"));
        assert_eq!(find("a", "7"), None);
        for wrong in ["", "/a~2"] {
            assert!(Field::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn whole_numbers_are_compared_exactly() {
        let number = |text| Number::parse(text).expect("a number");
        assert_eq!(number("9007199254740993").compare(number("9007199254740992")), Some(Ordering::Greater));
        assert_eq!(number("2").compare(number("2.0")), Some(Ordering::Equal));
        assert_eq!(number("-1e3").compare(number("-999")), Some(Ordering::Less));
        for wrong in ["inf", "NaN", "+1", "", "0x1", "1_000", "--1"] {
            assert_eq!(Number::parse(wrong), None, "{wrong}");
        }
    }
}
