//! Burials: what a delivery gives up becomes letters. Key, hash key, data and tags stay as they were; ours stand behind them.

use std::time::{Duration, Instant};

use forebay_log_store::{Batch, Error, NewRecord, Stream, Tag, Timestamp};

use super::{
    super::window::DeadLetter,
    letter::{
        ARRIVAL, ARRIVAL_UNTRUSTED, ATTEMPTS, BURIED, FIRST_ATTEMPT, LAST_ATTEMPT, ORIGIN, REASON, SEQUENCE_NUMBER,
    },
    replay,
};

/// The times of a delivery: those of its window are counted since `at`.
#[derive(Debug, Clone, Copy)]
pub(in crate::delivery) struct Began {
    at: Timestamp,
    now: Timestamp,
}

impl Began {
    /// By what is known of the time now, which may be more than when it began.
    pub(in crate::delivery) fn of(stream: &Stream, started: Instant) -> Self {
        let ago = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        let now = stream.clock().now;
        Self { at: Timestamp(now.0.saturating_sub(ago)), now }
    }

    /// Milliseconds since 1970.
    fn millis(self, since: Duration) -> u128 {
        u128::from(self.at.0) + since.as_millis()
    }
}

/// The letters as one batch of the dead-letter stream.
///
/// # Errors
/// None that a record from a log can cause.
pub(in crate::delivery) fn batch(
    mut batch: Batch,
    letters: &[DeadLetter],
    from: &Stream,
    began: Began,
) -> Result<Batch, Error> {
    for letter in letters {
        batch.push(&NewRecord {
            partition_key: &letter.record.partition_key,
            explicit_hash_key: letter.record.explicit_hash_key,
            tags: &tags(letter, from.name(), began),
            data: &letter.record.data,
        })?;
    }
    Ok(batch)
}

fn tags(letter: &DeadLetter, from: &str, began: Began) -> Vec<Tag> {
    let record = &letter.record;
    // A letter that comes back keeps the story of its first life.
    let before = replay::read(record);
    let mut tags = record.tags[..before.as_ref().map_or(record.tags.len(), |before| before.own_tags)].to_vec();
    let mut tag = |name: &str, value: String| tags.push(Tag { name: name.to_owned(), value });
    let attempts = u64::from(letter.attempts);
    let first_attempt = letter.first_attempt.map(|time| began.millis(time).to_string());
    // Persisted, in this order: a reader finds the beginning by the last tag of the first name.
    tag(REASON, letter.reason.clone());
    match &before {
        Some(before) => {
            tag(ORIGIN, before.stream.clone());
            tag(SEQUENCE_NUMBER, before.sequence_number.to_string());
            tag(ARRIVAL, before.arrival_ms.to_string());
            if before.arrival_untrusted {
                tag(ARRIVAL_UNTRUSTED, "true".to_owned());
            }
            tag(ATTEMPTS, (before.attempts + attempts).to_string());
            let first = before.first_attempt_ms.map(|time| time.to_string()).or(first_attempt);
            first.into_iter().for_each(|time| tag(FIRST_ATTEMPT, time));
        }
        None => {
            tag(ORIGIN, from.to_owned());
            tag(SEQUENCE_NUMBER, record.sequence_number.to_string());
            tag(ARRIVAL, record.arrival.to_string());
            if !record.arrival_trusted {
                tag(ARRIVAL_UNTRUSTED, "true".to_owned());
            }
            tag(ATTEMPTS, attempts.to_string());
            first_attempt.into_iter().for_each(|time| tag(FIRST_ATTEMPT, time));
        }
    }
    if let Some(time) = letter.last_attempt {
        tag(LAST_ATTEMPT, began.millis(time).to_string());
    }
    tag(BURIED, began.now.to_string());
    if let Some(before) = &before {
        tag(super::letter::REPLAYS, (before.replays + 1).to_string());
    }
    tags
}
