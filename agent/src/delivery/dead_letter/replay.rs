//! Replays: a letter is delivered once more by being appended to the stream that its destination takes from, addressed to
//! that destination alone. Every other delivery passes over it. So a replay is as durable, as ordered and as well counted as
//! any other record, and needs no second way to the destination.

use forebay_log_store::{Record, Tag};

use super::letter::Letter;
use crate::record_tags::{REPLAY_TO as TO, SEQUENCE_NUMBER, STREAM};

// Names of the other tags, which no device can give. Persisted: never change one, only add.
const OF: &str = "forebay.replay-of";
const ARRIVAL: &str = "forebay.arrival";
const ARRIVAL_UNTRUSTED: &str = "forebay.arrival-untrusted";
const ATTEMPTS: &str = "forebay.attempts";
const FIRST_ATTEMPT: &str = "forebay.first-attempt";
const REPLAYS: &str = "forebay.replays";

/// What a replayed record tells of its first life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Before {
    /// So many of its tags are its own.
    pub(super) own_tags: usize,
    pub(super) stream: String,
    pub(super) sequence_number: u64,
    pub(super) arrival_ms: u64,
    pub(super) arrival_untrusted: bool,
    pub(super) attempts: u64,
    pub(super) first_attempt_ms: Option<u64>,
    pub(super) replays: u64,
}

/// The tags of a letter that is delivered once more to `destination`: its own, and ours.
pub(super) fn tags(letter: &Letter, destination: &str) -> Vec<Tag> {
    let own = letter.tags.iter().map(|(name, value)| Tag { name: name.clone(), value: value.clone() });
    let mut tags: Vec<_> = own.collect();
    let mut tag = |name: &str, value: String| tags.push(Tag { name: name.to_owned(), value });
    tag(TO, destination.to_owned());
    tag(OF, letter.number.to_string());
    tag(STREAM, letter.stream.clone());
    tag(SEQUENCE_NUMBER, letter.sequence_number.to_string());
    tag(ARRIVAL, letter.arrival_ms.to_string());
    if letter.arrival_untrusted {
        tag(ARRIVAL_UNTRUSTED, "true".to_owned());
    }
    tag(ATTEMPTS, letter.attempts.to_string());
    if let Some(first) = letter.first_attempt_ms {
        tag(FIRST_ATTEMPT, first.to_string());
    }
    tag(REPLAYS, letter.replays.to_string());
    tags
}

/// What a record tells of its first life, if it is a replayed one.
pub(super) fn read(record: &Record) -> Option<Before> {
    let own_tags = record.tags.iter().position(|tag| tag.name == TO)?;
    let ours = &record.tags[own_tags..];
    let text = |name: &str| ours.iter().find(|tag| tag.name == name).map(|tag| tag.value.as_str());
    let number = |name: &str| text(name).and_then(|text| text.parse::<u64>().ok());
    Some(Before {
        own_tags,
        stream: text(STREAM).unwrap_or_default().to_owned(),
        sequence_number: number(SEQUENCE_NUMBER).unwrap_or_default(),
        arrival_ms: number(ARRIVAL).unwrap_or_default(),
        arrival_untrusted: text(ARRIVAL_UNTRUSTED).is_some(),
        attempts: number(ATTEMPTS).unwrap_or_default(),
        first_attempt_ms: number(FIRST_ATTEMPT),
        replays: number(REPLAYS).unwrap_or_default(),
    })
}
