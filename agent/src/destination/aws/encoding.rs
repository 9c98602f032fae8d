//! How a request to AWS and its answer are written.

use std::fmt;

use serde::Deserialize;

/// Kinesis Data Streams speaks both; of others that speak like it, not all know CBOR.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Encoding {
    /// JSON 1.1, with data in base64: a third more bytes.
    Json,
    /// CBOR 1.1 (RFC 8949), with data as it is.
    Cbor,
}

impl fmt::Display for Encoding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Json => "JSON",
            Self::Cbor => "CBOR",
        })
    }
}

impl Encoding {
    pub(super) fn content_type(self) -> &'static str {
        match self {
            Self::Json => "application/x-amz-json-1.1",
            Self::Cbor => "application/x-amz-cbor-1.1",
        }
    }

    /// What an answer is written in that says this of itself: services answer as they were asked, but whatever stands in front
    /// of them may speak for itself, and an answer that passed there may say nothing.
    pub(super) fn of_answer(self, content_type: Option<&str>) -> Self {
        let Some(name) = content_type.map(str::trim_start) else { return self };
        let is_cbor = name.get(..Self::Cbor.content_type().len());
        if is_cbor.is_some_and(|name| name.eq_ignore_ascii_case(Self::Cbor.content_type())) {
            Self::Cbor
        } else {
            Self::Json
        }
    }
}
