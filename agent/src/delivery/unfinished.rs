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
    /// How many records of it are not finished: `between` knows how many there are from one number on and before another, and
    /// `head` is the one behind the newest.
    #[must_use]
    pub fn records(&self, head: SequenceNumber, between: impl Fn(SequenceNumber, SequenceNumber) -> u64) -> u64 {
        self.held + between(self.unread, self.end.unwrap_or(head))
    }
}
