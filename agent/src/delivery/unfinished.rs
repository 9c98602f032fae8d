//! What a delivery has not finished, so that it can be counted without looking at each record: of every part what lies in the
//! log unread, and how many records are held.

use forebay_log_store::SequenceNumber;

/// What a delivery has not finished.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Unfinished {
    /// What it has leapt over, oldest first.
    pub gaps: Vec<Part>,
    /// What it is to send first, or what there is if it never leapt.
    pub live: Part,
}

/// A part of the log in which there are records that are not finished.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Part {
    /// The first number that is not finished.
    pub from: SequenceNumber,
    /// The first number that is not read.
    pub unread: SequenceNumber,
    /// The number behind the last one; nothing if it goes to the end of the log.
    pub end: Option<SequenceNumber>,
    /// Records that were read and are not finished.
    pub held: u64,
}

impl Part {
    /// How many records of it are not finished: `between` knows how many the log has from one number on and before another, and
    /// `head` is the one behind the newest. What is held and dropped from the log
    /// since counts as dropped, unless it cannot be told from what was finished behind it.
    #[must_use]
    pub fn records(&self, head: SequenceNumber, between: impl Fn(SequenceNumber, SequenceNumber) -> u64) -> u64 {
        self.held.min(between(self.from, self.unread)) + between(self.unread, self.end.unwrap_or(head))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_and_dropped_is_not_counted_and_what_is_finished_neither() {
        let part = |held| Part { from: SequenceNumber(11), unread: SequenceNumber(31), end: None, held };
        // A log of the numbers from `oldest` on.
        let records = |part: Part, oldest: u64| {
            part.records(SequenceNumber(41), |from, end| end.0.saturating_sub(from.0.max(oldest)))
        };
        assert_eq!(records(part(20), 1), 20 + 10);
        assert_eq!(records(part(5), 1), 5 + 10, "the others are finished");
        assert_eq!(records(part(20), 21), 10 + 10);
        assert_eq!(records(part(20), 36), 5);
    }
}
