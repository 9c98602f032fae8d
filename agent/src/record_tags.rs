//! Tags of records that only forebay itself gives: to a record that is delivered once more, to one destination alone, after it
//! was a dead letter.

use forebay_log_store::{Record, SequenceNumber, Tag};

/// What their names begin with. Sources that take names of tags from devices see to it that theirs do not.
pub const RESERVED: &str = "forebay.";

// Names of the tags. Persisted: never change one. A replayed record has its own tags, then the first of these, then others.
pub(crate) const REPLAY_TO: &str = "forebay.replay-to";
pub(crate) const STREAM: &str = "forebay.stream";
pub(crate) const SEQUENCE_NUMBER: &str = "forebay.sequence-number";

/// Whether a tag is ours, and says nothing to a destination.
#[must_use]
pub fn is_ours(tag: &Tag) -> bool {
    tag.name.starts_with(RESERVED)
}

/// The only destination that a record is meant for; `None` if it is for all.
#[must_use]
pub fn addressee(record: &Record) -> Option<&str> {
    record.tags.iter().find(|tag| tag.name == REPLAY_TO).map(|tag| tag.value.as_str())
}

/// Where a record that is delivered once more was first: its stream and its number there. This is what identifies it, however
/// often it is replayed.
#[must_use]
pub fn origin(record: &Record) -> Option<(&str, SequenceNumber)> {
    let ours = &record.tags[record.tags.iter().position(|tag| tag.name == REPLAY_TO)?..];
    let text = |name: &str| ours.iter().find(|tag| tag.name == name).map(|tag| tag.value.as_str());
    Some((text(STREAM)?, SequenceNumber(text(SEQUENCE_NUMBER)?.parse().ok()?)))
}
