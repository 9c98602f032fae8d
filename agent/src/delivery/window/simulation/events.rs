//! The words of the simulation: how the endpoint behaves, what is wrong with records, and what happens.

use super::*;

/// How the endpoint behaves for a while.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Mood {
    Healthy,
    /// Nothing can be reached, and that is noticed at once.
    Refused,
    /// Requests get no answer; half of them are taken all the same, perhaps much later.
    Silent,
    /// Answers are lost.
    Reset,
    Fails(FailureKind),
    /// Finds fault with everything.
    RefusesAll,
    /// Answers that each record failed.
    FailsEach,
    /// Answers with the wrong number of entries.
    Garbage,
    /// Takes each record with this probability.
    Partial(f64),
}

/// What is wrong with a record.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Flaw {
    None,
    /// Every request with it is refused.
    Refused,
    /// The endpoint says of it alone that it will never take it.
    Rejected,
    /// The destination knows without asking.
    NotAccepted,
    /// The endpoint fails upon every request with it, until it has been healthy for a while.
    Breaks,
    /// The same, for [`LASTING`]: for ever, as far as those behind it are concerned.
    Lasts,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Fate {
    pub(super) accepted: u32,
    pub(super) buried: bool,
    pub(super) expired: bool,
    /// See [`World::take`].
    pub(super) excused: bool,
}

/// When a record arrived.
#[derive(Debug, Clone, Copy)]
pub(super) enum Arrived {
    /// So long before the beginning.
    Before(Duration),
    At(Duration),
}

#[derive(Debug)]
pub(super) enum Event {
    Commit,
    MoodEnds,
    Kill,
    Read {
        life: u32,
        records: Option<Vec<(Arc<Record>, Duration)>>,
        end: Option<SequenceNumber>,
    },
    Reaches {
        parcels: Vec<Sent>,
        life: u32,
        id: u64,
        answer_lost: bool,
    },
    Told {
        life: u32,
        id: u64,
        outcome: Outcome,
    },
    Buried {
        life: u32,
        letters: Vec<usize>,
        durable: bool,
    },
    /// The log loses so many of its oldest records.
    Drop(usize),
    /// What is finished reached the disk, or could not be saved.
    Saved {
        life: u32,
        durable: bool,
    },
    /// The endpoint splits or merges shards.
    Reshard,
    /// The delivery is told which shards there are.
    Map {
        life: u32,
    },
    /// What need not wait for records at which the endpoint breaks has been delivered.
    Flows,
    Tick,
}

/// A parcel under way, and the shard that it was made for, if that was known.
#[derive(Debug, Clone)]
pub(super) struct Sent {
    pub(super) records: Vec<usize>,
    pub(super) shard: Option<u32>,
    /// The life that sent it.
    pub(super) life: u32,
}
