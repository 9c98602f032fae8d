//! `envelope`: a record's data within an object that also says where it comes from.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use forebay_log_store::Tag;

use super::{Arrived, document::Document, project::push_string, timestamp};

/// What an envelope says beside the data.
#[derive(Debug, Clone, Copy)]
pub(super) struct Envelope<'a> {
    pub(super) gateway: &'a str,
    pub(super) source: &'a str,
    pub(super) sequence: u64,
    pub(super) arrived: Arrived,
    pub(super) timestamp: Option<&'a str>,
    pub(super) tags: &'a [Tag],
}

/// A record's data, as far as it is known what it is.
#[derive(Debug, Clone, Copy)]
pub(super) enum Data<'a> {
    /// JSON.
    Json(&'a str),
    /// Anything; it may be JSON all the same.
    Bytes(&'a [u8]),
    /// Anything but what was wanted: it was found not to be JSON, or not to be what it should have been.
    Undecodable(&'a [u8]),
}

impl<'a> Data<'a> {
    pub(super) fn bytes(self) -> &'a [u8] {
        match self {
            Self::Json(text) => text.as_bytes(),
            Self::Bytes(bytes) | Self::Undecodable(bytes) => bytes,
        }
    }
}

impl Envelope<'_> {
    /// The envelope with the data in it: JSON as it is; else a text with `"encoding": "text"`, or `"base64"`.
    pub(super) fn write(&self, data: Data<'_>) -> String {
        let mut out = String::with_capacity(data.bytes().len() + 256);
        out.push_str("{\"gateway\":");
        push_string(self.gateway, &mut out);
        out.push_str(",\"source\":");
        push_string(self.source, &mut out);
        out.push_str(&format!(",\"sequence\":{}", self.sequence));
        out.push_str(&format!(",\"arrived\":\"{}\"", timestamp::show_ms(self.arrived.at.0)));
        out.push_str(&format!(",\"clock-trusted\":{}", self.arrived.trusted));
        if let Some(timestamp) = self.timestamp {
            out.push_str(",\"timestamp\":");
            push_string(timestamp, &mut out);
        }
        if !self.tags.is_empty() {
            out.push_str(",\"tags\":");
            let mut before = '{';
            for (index, tag) in self.tags.iter().enumerate() {
                // A device may send the same name twice, an object may not have it.
                if self.tags[index + 1..].iter().any(|later| later.name == tag.name) {
                    continue;
                }
                out.push(before);
                push_string(&tag.name, &mut out);
                out.push(':');
                push_string(&tag.value, &mut out);
                before = ',';
            }
            out.push('}');
        }
        let text = std::str::from_utf8(data.bytes());
        match (data, text) {
            (Data::Json(text), _) => push_data(text, &mut out),
            (Data::Bytes(_), Ok(text)) if Document::parse(text).is_ok() => push_data(text, &mut out),
            (_, Ok(text)) => {
                out.push_str(",\"encoding\":\"text\",\"data\":");
                push_string(text, &mut out);
            }
            (data, Err(_)) => {
                out.push_str(",\"encoding\":\"base64\",\"data\":\"");
                STANDARD.encode_string(data.bytes(), &mut out);
                out.push('"');
            }
        }
        out.push('}');
        out
    }
}

fn push_data(json: &str, out: &mut String) {
    out.push_str(",\"data\":");
    out.push_str(json.trim_ascii());
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use forebay_log_store::Timestamp;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn envelope(tags: &[Tag], data: Data<'_>) -> String {
        let arrived = Arrived { at: Timestamp(1_700_000_000_123), trusted: true, since_boot: Duration::ZERO };
        Envelope { gateway: "truck \"7\"", source: "plant", sequence: 9, arrived, timestamp: None, tags }.write(data)
    }

    #[test]
    fn json_stays_json_and_the_rest_is_said_to_be_something_else() {
        let head = r#"{"gateway":"truck \"7\"","source":"plant","sequence":9,"arrived":"2023-11-14T22:13:20.123Z","clock-trusted":true"#;
        for (data, end) in [
            (Data::Json("{\"a\": 1.50}"), r#","data":{"a": 1.50}}"#),
            (Data::Bytes(b" {\"a\": 1.50}\n"), r#","data":{"a": 1.50}}"#),
            (Data::Bytes(b"21.5"), r#","data":21.5}"#),
            (Data::Undecodable(b"21.5"), r#","encoding":"text","data":"21.5"}"#),
            (Data::Bytes(b"hot\n"), r#","encoding":"text","data":"hot\n"}"#),
            (Data::Bytes(b"\xff\x00"), r#","encoding":"base64","data":"/wA="}"#),
        ] {
            assert_eq!(envelope(&[], data), format!("{head}{end}"));
        }
    }

    #[test]
    fn of_tags_with_one_name_the_last_one_counts() {
        let tag = |name: &str, value: &str| Tag { name: name.into(), value: value.into() };
        let value: Value =
            serde_json::from_str(&envelope(&[tag("a", "1"), tag("b", "\""), tag("a", "2")], Data::Json("1")))
                .expect("JSON");
        assert_eq!(value["tags"], json!({ "a": "2", "b": "\"" }));
    }

    proptest! {
        #[test]
        fn an_envelope_is_always_json(data in proptest::collection::vec(any::<u8>(), 0..40), name in ".{0,5}", value in ".{0,5}") {
            let text = envelope(&[Tag { name, value }], Data::Bytes(&data));
            let value: Value = serde_json::from_str(&text).expect("JSON");
            match value["encoding"].as_str() {
                Some("base64") => prop_assert_eq!(STANDARD.decode(value["data"].as_str().expect("text")).expect("base64"), data),
                Some("text") => prop_assert_eq!(value["data"].as_str().expect("text").as_bytes(), data),
                _ => prop_assert_eq!(&value["data"], &serde_json::from_slice::<Value>(&data).expect("JSON")),
            }
        }
    }
}
