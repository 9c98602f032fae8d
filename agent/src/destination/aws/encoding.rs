//! How a request to AWS and its answer are written.

use serde::Deserialize;

/// Kinesis Data Streams speaks both; of others that speak like it, not all know CBOR.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Encoding {
    /// JSON 1.1, with data in base64: a third more bytes.
    #[default]
    Json,
    /// CBOR 1.1 (RFC 8949), with data as it is.
    Cbor,
}

impl Encoding {
    pub(super) fn content_type(self) -> &'static str {
        match self {
            Self::Json => "application/x-amz-json-1.1",
            Self::Cbor => "application/x-amz-cbor-1.1",
        }
    }

    /// What an answer is written in that says this of itself: services answer as they were asked, but whatever stands in front
    /// of them may speak for itself.
    pub(super) fn of(content_type: Option<&str>) -> Self {
        match content_type {
            Some(name) if name.trim_start().starts_with(Self::Cbor.content_type()) => Self::Cbor,
            _ => Self::Json,
        }
    }
}
