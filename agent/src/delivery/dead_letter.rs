//! Dead letters: records that a destination will never take, kept in a stream of their own with the reason, so that a
//! person can look at them and nothing else waits for them.

use std::time::{Duration, Instant};

use forebay_log_store::{Batch, Error, NewRecord, Stream, Tag, Timestamp};

use super::window::DeadLetter;

/// The times of a delivery: those of its window are counted since `at`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Began {
    at: Timestamp,
}

impl Began {
    /// By what is known of the time now, which may be more than when it began.
    pub(super) fn of(stream: &Stream, started: Instant) -> Self {
        let ago = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        Self { at: Timestamp(stream.clock().now.0.saturating_sub(ago)) }
    }

    /// Milliseconds since 1970.
    fn millis(self, since: Duration) -> u128 {
        u128::from(self.at.0) + since.as_millis()
    }
}

/// The letters as one batch of the dead-letter stream: key, hash key, data and tags as they were, and ours behind them.
///
/// # Errors
/// None that a record from a log can cause.
pub(super) fn batch(mut batch: Batch, letters: &[DeadLetter], from: &Stream, began: Began) -> Result<Batch, Error> {
    for letter in letters {
        let record = &letter.record;
        let mut tags = record.tags.clone();
        let mut tag = |name: &str, value: String| tags.push(Tag { name: name.to_owned(), value });
        tag("reason", letter.reason.clone());
        tag("source-stream", from.name().to_owned());
        tag("sequence-number", record.sequence_number.to_string());
        tag("arrival", record.arrival.to_string());
        tag("attempts", letter.attempts.to_string());
        for (name, time) in [("first-attempt", letter.first_attempt), ("last-attempt", letter.last_attempt)] {
            if let Some(time) = time {
                tag(name, began.millis(time).to_string());
            }
        }
        batch.push(&NewRecord {
            partition_key: &record.partition_key,
            explicit_hash_key: record.explicit_hash_key,
            tags: &tags,
            data: &record.data,
        })?;
    }
    Ok(batch)
}
