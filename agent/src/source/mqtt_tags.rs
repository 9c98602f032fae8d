//! What MQTT 5 publishers say about a message besides its topic, as the tags of its record: for both MQTT sources.
//!
//! User properties become tags of their own names, in their order; the properties that the specification names become
//! `content-type`, `response-topic` and `correlation-data`. Correlation data is bytes: text is kept as it is, anything else
//! in base64. Names that begin with `forebay.` are ours, and get an underscore in front: a device cannot say of its record
//! what only forebay says of one.

use base64::prelude::{BASE64_STANDARD, Engine as _};
use forebay_log_store::Tag;

use crate::record_tags::RESERVED;

/// Version 5's content type.
pub(super) const CONTENT_TYPE: &str = "content-type";
/// Version 5's response topic.
pub(super) const RESPONSE_TOPIC: &str = "response-topic";
/// Version 5's correlation data.
pub(super) const CORRELATION_DATA: &str = "correlation-data";

/// A tag.
pub(super) fn tag(name: &str, value: impl Into<String>) -> Tag {
    Tag { name: name.to_owned(), value: value.into() }
}

/// A user property as a tag.
pub(super) fn user_property(name: &str, value: impl Into<String>) -> Tag {
    if name.starts_with(RESERVED) { tag(&format!("_{name}"), value) } else { tag(name, value) }
}

/// Correlation data as a tag.
pub(super) fn correlation(data: &[u8]) -> Tag {
    match std::str::from_utf8(data) {
        Ok(text) => tag(CORRELATION_DATA, text),
        Err(_) => tag(CORRELATION_DATA, BASE64_STANDARD.encode(data)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_cannot_speak_for_forebay() {
        assert_eq!(user_property("site", "7").name, "site");
        assert_eq!(user_property("forebay.replay-to", "nobody").name, "_forebay.replay-to");
    }
}
