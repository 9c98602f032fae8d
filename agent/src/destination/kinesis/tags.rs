//! What rides with a record inside an aggregate, where the settings ask for it.

use std::fmt::{self, Write as _};

use forebay_log_store::Record;
use serde::Deserialize;

use crate::record_tags::{SEQUENCE_NUMBER, is_ours};

/// One of the tags that can be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TagName {
    /// `sequence-number`: the record's number in the gateway's stream.
    SequenceNumber,
    /// `arrival`: when the gateway took it, in milliseconds since 1970; `arrival-untrusted` if no trusted clock told it.
    Arrival,
    /// `id`: the same for every copy of the record, and for no other record: gateway, stream and sequence number.
    Id,
    /// The tags that the source gave it, under their own names.
    Own,
}

/// As it is written in the configuration.
impl fmt::Display for TagName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::SequenceNumber => "sequence-number",
            Self::Arrival => "arrival",
            Self::Id => "id",
            Self::Own => "own",
        })
    }
}

/// The tags of a destination's records.
#[derive(Debug, Clone, Default)]
pub(super) struct Tags {
    names: Vec<TagName>,
    /// An id is this and the sequence number.
    id: String,
}

impl Tags {
    pub(super) fn new(names: &[TagName], gateway: &str, stream: &str) -> Self {
        Self { names: names.to_vec(), id: format!("{gateway}/{stream}/") }
    }

    pub(super) fn are_none(&self) -> bool {
        self.names.is_empty()
    }

    /// Tells name and value of each.
    pub(super) fn each(&self, record: &Record, mut tell: impl FnMut(&str, &str)) {
        let mut value = String::new();
        for name in &self.names {
            value.clear();
            match name {
                TagName::SequenceNumber => {
                    let _ = write!(value, "{}", record.sequence_number);
                    tell("sequence-number", &value);
                }
                TagName::Arrival => {
                    let _ = write!(value, "{}", record.arrival);
                    tell(if record.arrival_trusted { "arrival" } else { "arrival-untrusted" }, &value);
                }
                TagName::Id => {
                    // A replayed dead letter has another number in the log, and is the same record.
                    let first = record.tags.iter().find(|tag| tag.name == SEQUENCE_NUMBER);
                    let _ = match first {
                        Some(first) => write!(value, "{}{}", self.id, first.value),
                        None => write!(value, "{}{}", self.id, record.sequence_number),
                    };
                    tell("id", &value);
                }
                TagName::Own => {
                    let own = record.tags.iter().filter(|tag| !is_ours(tag));
                    own.for_each(|tag| tell(&tag.name, &tag.value));
                }
            }
        }
    }
}
