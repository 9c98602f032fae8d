//! `decode`: what a device sends, made JSON. A family: one file per format.
//!
//! One payload may hold several records (the lines of NDJSON, CSV and web server logs); each is decoded or undecodable by itself.

mod config;
mod csv;
mod log_line;
mod protobuf;
mod syslog;
mod transcode;

pub(super) use config::Config;

pub(super) use self::csv::Headers;
use super::{Arrived, document::Document};

/// How payloads are read.
#[derive(Debug, Clone)]
pub(super) enum Decode {
    Json { minify: bool },
    Ndjson,
    Cbor,
    Msgpack,
    Csv(csv::Csv),
    Protobuf(protobuf::Protobuf),
    Log(log_line::Format),
    Syslog,
}

/// What came out of a payload.
#[derive(Debug)]
pub(super) enum Row<'a> {
    /// A record.
    Json(Document<'a>),
    /// Bytes that could not be read, and why: a sentence fragment.
    Undecodable { bytes: &'a [u8], why: String },
}

/// What a decoder may know beside the payload.
#[derive(Debug, Clone, Copy)]
pub(super) struct Context<'a> {
    pub(super) now: Arrived,
    /// The headers of CSV that were seen.
    pub(super) headers: &'a Headers,
    /// The topic or file: what has a header of its own.
    pub(super) origin: &'a str,
}

impl Decode {
    /// What it is called in the configuration, and in the tag `undecodable`.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Json { .. } => "json",
            Self::Ndjson => "ndjson",
            Self::Cbor => "cbor",
            Self::Msgpack => "msgpack",
            Self::Csv(_) => "csv",
            Self::Protobuf(_) => "protobuf",
            Self::Log(format) => format.name(),
            Self::Syslog => "syslog",
        }
    }

    /// Whether a payload may hold several records.
    pub(super) fn finds_several(&self) -> bool {
        matches!(self, Self::Ndjson | Self::Csv(_) | Self::Log(_))
    }

    /// Calls `each` for every record in a payload, in their order.
    pub(super) fn each(&self, payload: &[u8], context: Context<'_>, each: &mut dyn FnMut(Row<'_>)) {
        match self {
            Self::Json { minify: false } => each(json(payload)),
            Self::Json { minify: true } => match Document::parse_bytes(payload) {
                Ok(document) => each(Row::Json(Document::trusted(&minify(document.text())))),
                Err(why) => each(Row::Undecodable { bytes: payload, why }),
            },
            Self::Ndjson => lines(payload, |line| each(json(line))),
            Self::Cbor => made(payload, transcode::cbor(payload), each),
            Self::Msgpack => made(payload, transcode::msgpack(payload), each),
            Self::Csv(csv) => csv.each(payload, context, each),
            Self::Protobuf(message) => made(payload, message.decode(payload), each),
            Self::Log(format) => lines(payload, |line| made(line, format.decode(line), each)),
            Self::Syslog => made(payload, syslog::decode(payload, context.now), each),
        }
    }
}

fn json(bytes: &[u8]) -> Row<'_> {
    match Document::parse_bytes(bytes) {
        Ok(document) => Row::Json(document),
        Err(why) => Row::Undecodable { bytes, why },
    }
}

fn made(bytes: &[u8], decoded: Result<String, String>, each: &mut dyn FnMut(Row<'_>)) {
    match decoded {
        Ok(text) => each(Row::Json(Document::trusted(&text))),
        Err(why) => each(Row::Undecodable { bytes, why }),
    }
}

/// Lines that are not blank, without their ends.
fn lines(payload: &[u8], mut each: impl FnMut(&[u8])) {
    for line in payload.split(|byte| *byte == b'\n') {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if !line.trim_ascii().is_empty() {
            each(line);
        }
    }
}

/// JSON without the white space between its tokens, and so on one line.
fn minify(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(['"', ' ', '\n', '\r', '\t']) {
        out.push_str(&rest[..at]);
        if !rest[at..].starts_with('"') {
            rest = &rest[at + 1..];
            continue;
        }
        // To the end of the string; it is JSON, so that it has one.
        let mut escaped = false;
        let end = rest[at + 1..].find(|c| {
            let ends = c == '"' && !escaped;
            escaped = c == '\\' && !escaped;
            ends
        });
        let end = end.map_or(rest.len(), |end| at + 1 + end + 1);
        out.push_str(&rest[at..end]);
        rest = &rest[end..];
    }
    out.push_str(rest);
    out
}

/// For fuzzing: the first byte chooses the format of the payload that follows. What is decoded is JSON.
#[cfg(any(test, fuzzing))]
pub fn fuzz(bytes: &[u8]) {
    use std::time::Duration;

    use forebay_log_store::Timestamp;

    let Some((format, payload)) = bytes.split_first() else { return };
    let decode = match format % 9 {
        0 => Decode::Json { minify: true },
        1 => Decode::Ndjson,
        2 => Decode::Cbor,
        3 => Decode::Msgpack,
        4 => Decode::Csv(csv::Csv::new(b',', None, true)),
        5 => Decode::Csv(csv::Csv::new(b';', Some(vec!["a".into(), "b".into()]), false)),
        6 => Decode::Log(log_line::Format::Common),
        7 => Decode::Log(log_line::Format::Combined),
        _ => Decode::Syslog,
    };
    let now = Arrived { at: Timestamp(1_700_000_000_000), trusted: true, since_boot: Duration::ZERO };
    let headers = Headers::default();
    decode.each(payload, Context { now, headers: &headers, origin: "" }, &mut |row| match row {
        Row::Json(document) => {
            serde_json::from_str::<serde::de::IgnoredAny>(document.text()).expect("what is decoded is JSON");
        }
        Row::Undecodable { why, .. } => assert!(!why.is_empty()),
    });
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::Duration;

    use forebay_log_store::Timestamp;
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    /// What came out of a payload: JSON, or the bytes that did not.
    pub(super) fn rows(decode: &Decode, headers: &Headers, payload: &[u8]) -> Vec<Result<String, Vec<u8>>> {
        let now = Arrived { at: Timestamp(1_700_000_000_000), trusted: true, since_boot: Duration::ZERO };
        let mut rows = Vec::new();
        decode.each(payload, Context { now, headers, origin: "" }, &mut |row| {
            rows.push(match row {
                Row::Json(document) => Ok(document.text().to_owned()),
                Row::Undecodable { bytes, why } => {
                    assert!(!why.is_empty());
                    Err(bytes.to_owned())
                }
            });
        });
        rows
    }

    pub(super) fn row(decode: &Decode, payload: &[u8]) -> Result<String, Vec<u8>> {
        let mut rows = rows(decode, &Headers::default(), payload);
        assert_eq!(rows.len(), 1);
        rows.remove(0)
    }

    fn everything() -> Vec<Decode> {
        let mut all = vec![
            Decode::Json { minify: false },
            Decode::Json { minify: true },
            Decode::Ndjson,
            Decode::Cbor,
            Decode::Msgpack,
            Decode::Log(log_line::Format::Common),
            Decode::Log(log_line::Format::Combined),
            Decode::Syslog,
            Decode::Protobuf(protobuf::tests::reading()),
        ];
        all.extend([true, false].map(|numbers| Decode::Csv(csv::Csv::new(b',', None, numbers))));
        all.push(Decode::Csv(csv::Csv::new(b';', Some(vec!["a".into(), "b".into()]), true)));
        all
    }

    #[test]
    fn json_is_left_as_it_is_unless_it_is_minified() {
        let text = "{ \"a b\" : [ 1.50 ,\t\"\\\" \\\\\" , \"x\\\\\" ] ,\r\n \"c\" : null }";
        assert_eq!(row(&Decode::Json { minify: false }, text.as_bytes()), Ok(text.into()));
        let small = r#"{"a b":[1.50,"\" \\","x\\"],"c":null}"#;
        assert_eq!(row(&Decode::Json { minify: true }, text.as_bytes()), Ok(small.into()));
        assert_eq!(row(&Decode::Json { minify: true }, b"{\"a\":1"), Err(b"{\"a\":1".to_vec()));
    }

    #[test]
    fn lines_of_ndjson_are_records_of_their_own() {
        let payload = b"{\"a\":1}\r\n\n  \n[2]\n{\"b\"\n\"\xff\"\n3";
        let expected = [
            Ok("{\"a\":1}".into()),
            Ok("[2]".into()),
            Err(b"{\"b\"".to_vec()),
            Err(b"\"\xff\"".to_vec()),
            Ok("3".into()),
        ];
        assert_eq!(rows(&Decode::Ndjson, &Headers::default(), payload), expected);
    }

    fn hostile() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..120),
            "[ -~\n\r]{0,120}".prop_map(String::into_bytes),
            "<[0-9]{1,4}>(1 )?(Oct 11 22:14:15|2003-10-11T22:14:15Z|-) [a-z -]{0,9}(\\[[a-z0-9]{0,3}\\])?: ?[ -~]{0,20}".prop_map(String::into_bytes),
            "[0-9.]{1,9} [a-z-]{1,3} [a-z-]{1,3} \\[[ -~]{0,12}\\] \"[ -~]{0,9}\" [0-9-]{1,4} [0-9-]{1,4}[ -~]{0,12}".prop_map(String::into_bytes),
        ]
    }

    proptest! {
        #[test]
        fn any_payload_is_decoded_to_json_or_given_back(payload in hostile()) {
            for decode in everything() {
                for row in rows(&decode, &Headers::default(), &payload) {
                    match row {
                        Ok(text) => prop_assert!(serde_json::from_str::<Box<serde_json::value::RawValue>>(&text).is_ok(), "{decode:?}: {text}"),
                        Err(bytes) => prop_assert!(bytes.is_empty() || payload.windows(bytes.len()).any(|part| part == bytes)),
                    }
                }
            }
        }

        #[test]
        fn minifying_changes_no_value(text in "[ \n]{0,2}\\{ ?\"[a \\t]{0,3}\" ?: ?(\"[ a]{0,4}(\\\\\\\\)?(\\\\\")?\"|\\[ 1 , -2\\.5e3 \\]) ?\\}\n?") {
            let Ok(value) = serde_json::from_str::<Value>(&text) else { return Ok(()) };
            prop_assert_eq!(minify(&text), value.to_string().replace("-2500.0", "-2.5e3"));
        }
    }
}
