//! One letter, as it is read from its stream and shown: plain data, in the same form in the API and on the command line.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use forebay_log_store::{Record, Tag};
use serde::{Deserialize, Serialize};

// Names of the tags. Persisted: never change one, only add.
pub(super) const REASON: &str = "reason";
pub(super) const ORIGIN: &str = "source-stream";
pub(super) const SEQUENCE_NUMBER: &str = "sequence-number";
pub(super) const ARRIVAL: &str = "arrival";
pub(super) const ARRIVAL_UNTRUSTED: &str = "arrival-untrusted";
pub(super) const ATTEMPTS: &str = "attempts";
pub(super) const FIRST_ATTEMPT: &str = "first-attempt";
pub(super) const LAST_ATTEMPT: &str = "last-attempt";
pub(super) const BURIED: &str = "buried";
pub(super) const REPLAYS: &str = "replays";

/// A record that a destination would not take, and all that is known about that. Times are milliseconds since 1970 (UTC).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Letter {
    /// Its number among the destination's letters.
    pub number: u64,
    /// Why it was given up.
    pub reason: String,
    /// The stream that it came in.
    pub stream: String,
    /// Its number there.
    pub sequence_number: u64,
    /// When the gateway took it.
    pub arrival_ms: u64,
    /// That time is what a clock showed that nobody vouched for.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub arrival_untrusted: bool,
    /// When it was given up.
    pub buried_ms: u64,
    /// When it was sent first; missing if it never was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_attempt_ms: Option<u64>,
    /// When it was sent last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_attempt_ms: Option<u64>,
    /// These three are what a clock showed that nobody vouched for.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub times_untrusted: bool,
    /// How often it was sent, in all its lives.
    pub attempts: u64,
    /// How often it was replayed, and came back.
    #[serde(skip_serializing_if = "is_zero")]
    pub replays: u64,
    /// As it came.
    pub partition_key: String,
    /// As it came; a decimal number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub explicit_hash_key: Option<String>,
    /// As they came.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<(String, String)>,
    /// Of key and data.
    pub bytes: u64,
    /// The data in base64, where it was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<String>,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// How many of a letter's tags are the record's own: ours begin at the last one that is called as our first.
pub(super) fn own_tags(tags: &[Tag]) -> usize {
    tags.iter().rposition(|tag| tag.name == REASON).unwrap_or(tags.len())
}

impl Letter {
    /// Of a record of a dead-letter stream, without its data. Whatever is missing is empty: somebody may have put a record
    /// there by hand.
    #[must_use]
    pub fn of(record: &Record) -> Self {
        let (own, ours) = record.tags.split_at(own_tags(&record.tags));
        let text = |name: &str| ours.iter().find(|tag| tag.name == name).map(|tag| tag.value.as_str());
        let number = |name: &str| text(name).and_then(|text| text.parse::<u64>().ok());
        // What the clock was found to be wrong by since the burial: its time was noted as it was shown then, and the log has
        // resolved that of the letter's arrival, which is the same moment.
        let shown = number(BURIED).filter(|_| record.arrival_trusted);
        let corrected = |time: u64| match shown {
            Some(shown) => (time + record.arrival.0).saturating_sub(shown),
            None => time,
        };
        Self {
            number: record.sequence_number.0,
            reason: text(REASON).unwrap_or_default().to_owned(),
            stream: text(ORIGIN).unwrap_or_default().to_owned(),
            sequence_number: number(SEQUENCE_NUMBER).unwrap_or_default(),
            arrival_ms: number(ARRIVAL).unwrap_or_default(),
            arrival_untrusted: text(ARRIVAL_UNTRUSTED).is_some(),
            buried_ms: record.arrival.0,
            first_attempt_ms: number(FIRST_ATTEMPT).map(corrected),
            last_attempt_ms: number(LAST_ATTEMPT).map(corrected),
            times_untrusted: !record.arrival_trusted,
            attempts: number(ATTEMPTS).unwrap_or_default(),
            replays: number(REPLAYS).unwrap_or_default(),
            partition_key: record.partition_key.to_string(),
            explicit_hash_key: record.explicit_hash_key.map(|key| key.to_string()),
            tags: own.iter().map(|tag| (tag.name.clone(), tag.value.clone())).collect(),
            bytes: record.payload_bytes(),
            data: None,
        }
    }

    /// With its data.
    #[must_use]
    pub fn with_data(self, record: &Record) -> Self {
        Self { data: Some(STANDARD.encode(&record.data)), ..self }
    }

    /// The data, if it is here.
    ///
    /// # Errors
    /// It is not base64, so that it does not come from us.
    pub fn bytes_of_data(&self) -> anyhow::Result<Option<Vec<u8>>> {
        let decoded = self.data.as_ref().map(|data| STANDARD.decode(data)).transpose();
        decoded.map_err(|error| anyhow::anyhow!("read letter {}: {error}", self.number))
    }
}
