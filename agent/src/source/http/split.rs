//! What records a body has: decided by its content type. Pure. A body is taken whole or not at all, so the first mistake ends it.

use serde::{Deserialize, de::IgnoredAny};
use serde_json::value::RawValue;

use super::cbor;

/// What a content type says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// One JSON value (RFC 8259).
    Json,
    /// A JSON value per line.
    JsonLines,
    /// One CBOR item (RFC 8949).
    Cbor,
    /// CBOR items, one behind the other (RFC 8742).
    CborSequence,
    /// Text.
    Text,
    /// Whatever it is, it is one record.
    Raw,
}

/// What is split further than its content type says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Split {
    /// A JSON array is a record per element.
    Array,
    /// A text is a record per line.
    Lines,
}

/// Why a body is not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wrong {
    /// Where: a line or a record, from 1.
    pub(super) place: Option<Place>,
    pub(super) message: String,
    /// Whether it is for its size.
    pub(super) too_large: bool,
}

/// A record in a body.
#[derive(Debug, Clone, Copy)]
pub(super) struct Part<'a> {
    pub(super) record: &'a [u8],
    pub(super) place: Option<Place>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Line(usize),
    Record(usize),
}

impl Kind {
    /// Of a `Content-Type` header.
    pub(super) fn of(content_type: &str) -> Self {
        let essence = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        match &*essence {
            "application/x-ndjson"
            | "application/ndjson"
            | "application/jsonl"
            | "application/x-jsonlines"
            | "application/json-lines" => Self::JsonLines,
            "application/cbor-seq" => Self::CborSequence,
            "application/json" => Self::Json,
            "application/cbor" => Self::Cbor,
            _ if essence.ends_with("+json") => Self::Json,
            _ if essence.ends_with("+cbor") => Self::Cbor,
            _ if essence.starts_with("text/") => Self::Text,
            _ => Self::Raw,
        }
    }

    /// The records of a body, and where each stands if there may be several; at least one.
    pub(super) fn split<'a>(self, body: &'a [u8], splits: &[Split], max_record: usize) -> Result<Vec<Part<'a>>, Wrong> {
        let mut records = Records { found: Vec::new(), max_record };
        match self {
            Self::Json => {
                let text = json(body, None)?;
                match text.as_bytes() {
                    [b'[', ..] if splits.contains(&Split::Array) => {
                        let elements: Vec<&RawValue> =
                            serde_json::from_str(text).map_err(|error| malformed(None, error))?;
                        for (i, element) in elements.into_iter().enumerate() {
                            records.add(element.get().as_bytes(), Some(Place::Record(i + 1)))?;
                        }
                    }
                    text => records.add(text, None)?,
                }
            }
            Self::JsonLines => {
                for (line, at) in lines(body) {
                    let line = line.trim_ascii();
                    if !line.is_empty() {
                        records.add(json(line, Some(at))?.as_bytes(), Some(at))?;
                    }
                }
            }
            Self::Cbor => {
                if item(body, 1)? < body.len() {
                    return Err(malformed(
                        None,
                        "there is more behind the CBOR item; a sequence is application/cbor-seq",
                    ));
                }
                records.add(body, None)?;
            }
            Self::CborSequence => {
                let mut rest = body;
                while !rest.is_empty() {
                    let number = records.found.len() + 1;
                    let (record, behind) = rest.split_at(item(rest, number)?);
                    records.add(record, Some(Place::Record(number)))?;
                    rest = behind;
                }
            }
            Self::Text if splits.contains(&Split::Lines) => {
                for (line, at) in lines(body) {
                    let line = line.strip_suffix(b"\r").unwrap_or(line);
                    if !line.is_empty() {
                        records.add(line, Some(at))?;
                    }
                }
            }
            Self::Text | Self::Raw if body.is_empty() => {}
            Self::Text | Self::Raw => records.add(body, None)?,
        }
        if records.found.is_empty() {
            return Err(malformed(None, "there is no record in it"));
        }
        Ok(records.found)
    }
}

struct Records<'a> {
    found: Vec<Part<'a>>,
    max_record: usize,
}

impl<'a> Records<'a> {
    fn add(&mut self, record: &'a [u8], place: Option<Place>) -> Result<(), Wrong> {
        if record.len() > self.max_record {
            let message = format!("a record of {} bytes; at most {} are taken", record.len(), self.max_record);
            return Err(Wrong { place, message, too_large: true });
        }
        self.found.push(Part { record, place });
        Ok(())
    }
}

/// The text of a JSON value, without blanks around it.
fn json(bytes: &[u8], place: Option<Place>) -> Result<&str, Wrong> {
    let text = std::str::from_utf8(bytes.trim_ascii()).map_err(|error| malformed(place, error))?;
    if text.is_empty() {
        return Err(malformed(place, "there is no record in it"));
    }
    serde_json::from_str::<IgnoredAny>(text).map_err(|error| match place {
        // The line within the line is always the first.
        Some(_) => malformed(place, error.to_string().replace(" at line 1 column ", " at column ")),
        None => malformed(None, error),
    })?;
    Ok(text)
}

fn item(bytes: &[u8], number: usize) -> Result<usize, Wrong> {
    cbor::item_length(bytes).map_err(|why| malformed(Some(Place::Record(number)), format!("not CBOR: {why}")))
}

fn lines(body: &[u8]) -> impl Iterator<Item = (&[u8], Place)> {
    (1..).zip(body.split(|byte| *byte == b'\n')).map(|(number, line)| (line, Place::Line(number)))
}

fn malformed(place: Option<Place>, message: impl ToString) -> Wrong {
    Wrong { place, message: message.to_string(), too_large: false }
}

/// For fuzzing: the first byte chooses the kind of the body that follows. Records are parts of it.
#[cfg(any(test, fuzzing))]
pub fn fuzz(bytes: &[u8]) {
    let Some((kind, body)) = bytes.split_first() else { return };
    let kind =
        [Kind::Json, Kind::JsonLines, Kind::Cbor, Kind::CborSequence, Kind::Text, Kind::Raw][usize::from(kind % 6)];
    if let Ok(parts) = kind.split(body, &[Split::Array, Split::Lines], 100) {
        assert!(!parts.is_empty() && parts.iter().all(|part| part.record.len() <= 100));
        assert!(parts.iter().map(|part| part.record.len()).sum::<usize>() <= body.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split<'a>(content_type: &str, body: &'a [u8], splits: &[Split]) -> Result<Vec<&'a [u8]>, Wrong> {
        let parts = Kind::of(content_type).split(body, splits, 20)?;
        Ok(parts.into_iter().map(|part| part.record).collect())
    }

    fn texts(content_type: &str, body: &'static str, splits: &[Split]) -> Vec<&'static str> {
        let records = split(content_type, body.as_bytes(), splits).expect("records");
        records.into_iter().map(|record| std::str::from_utf8(record).expect("text")).collect()
    }

    #[test]
    fn the_content_type_decides() {
        for (content_type, kind) in [
            ("application/json", Kind::Json),
            ("Application/JSON; charset=utf-8", Kind::Json),
            ("application/geo+json", Kind::Json),
            ("application/x-ndjson", Kind::JsonLines),
            ("application/cbor", Kind::Cbor),
            ("application/senml+cbor", Kind::Cbor),
            ("application/cbor-seq", Kind::CborSequence),
            ("text/plain; charset=ascii", Kind::Text),
            ("", Kind::Raw),
            ("application/x-www-form-urlencoded", Kind::Raw),
            ("image/jpeg", Kind::Raw),
        ] {
            assert_eq!(Kind::of(content_type), kind, "{content_type}");
        }
    }

    #[test]
    fn a_body_is_a_record_unless_its_type_says_more() {
        assert_eq!(texts("application/json", " {\"a\":1}\n", &[]), ["{\"a\":1}"]);
        assert_eq!(texts("application/json", "[1,2]", &[]), ["[1,2]"]);
        assert_eq!(texts("application/json", "[ 1, {\"b\": 2} ]", &[Split::Array]), ["1", "{\"b\": 2}"]);
        assert_eq!(texts("application/json", "{}", &[Split::Array]), ["{}"]);
        assert_eq!(texts("application/x-ndjson", "{\"a\":1}\r\n\n 2 \n\"c\"", &[]), ["{\"a\":1}", "2", "\"c\""]);
        assert_eq!(texts("text/plain", "a\nb\n", &[]), ["a\nb\n"]);
        assert_eq!(texts("text/plain", "a\r\n\nb\n", &[Split::Lines]), ["a", "b"]);
        assert_eq!(texts("application/octet-stream", "a\nb\n", &[Split::Lines]), ["a\nb\n"]);
        assert_eq!(texts("application/cbor", "\u{1}", &[]), ["\u{1}"]);
        let sequence = split("application/cbor-seq", b"\x01\x82\x02\x03\x60", &[]).expect("three items");
        assert_eq!(sequence, [&b"\x01"[..], b"\x82\x02\x03", b"\x60"]);
    }

    #[test]
    fn a_mistake_is_told_with_its_place() {
        for (content_type, body, place, message) in [
            ("application/json", &b"{\"a\":"[..], None, "EOF while parsing a value at line 1 column 5"),
            ("application/json", b"{} {}", None, "trailing characters at line 1 column 4"),
            ("application/json", b"\"\xff\"", None, "invalid utf-8 sequence"),
            ("application/json", b" ", None, "there is no record in it"),
            ("application/json", b"[]", None, "there is no record in it"),
            ("application/x-ndjson", b"{}\n\n{\"a\" 1}", Some(Place::Line(3)), "expected `:` at column 6"),
            ("application/x-ndjson", b"\n\n", None, "there is no record in it"),
            (
                "application/x-ndjson",
                b"1\n\"012345678901234567890\"",
                Some(Place::Line(2)),
                "a record of 23 bytes; at most 20",
            ),
            ("application/cbor", b"\x01\x02", None, "there is more behind the CBOR item"),
            ("application/cbor", b"", Some(Place::Record(1)), "not CBOR: it ends in the middle of an item"),
            (
                "application/cbor-seq",
                b"\x01\x82\x02",
                Some(Place::Record(2)),
                "not CBOR: it ends in the middle of an item",
            ),
            ("application/octet-stream", b"", None, "there is no record in it"),
            ("image/jpeg", &[0; 21], None, "a record of 21 bytes; at most 20 are taken"),
        ] {
            let wrong = split(content_type, body, &[Split::Array]).expect_err(message);
            assert_eq!(wrong.place, place, "{message}");
            assert!(wrong.message.starts_with(message), "{}", wrong.message);
            assert_eq!(wrong.too_large, message.starts_with("a record of"));
        }
    }
}
