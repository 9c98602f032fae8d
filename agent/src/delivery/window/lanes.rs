//! Strict order: lanes. Each is a chain of its unfinished records in the order of the stream, and only its front may be
//! under way, one parcel. Records of a partition key are always of one lane.
//!
//! A lane is known by a number. Should two ever share one, they only wait for each other.
//!
//! A record that goes on failing is to hold up no more than its key: that leaves the lane, for one of its own, and goes back when none
//! of its records is left. Until then, which is never if it never pauses, it shares no parcels with others, and is throttled by itself
//! (`throttles.rs`), as if it were another producer's: with the lane's own rate, whichever of the two is older would keep
//! the other one from its turn. To bring it back earlier, its records would have to be put among those that the lane has by then, all
//! for the sake of a few bytes around parcels.

use std::{
    collections::{HashMap, HashSet},
    hash::{BuildHasherDefault, DefaultHasher, Hash as _, Hasher},
};

use forebay_log_store::Record;

#[cfg(test)]
use super::entries::State;
use super::{
    entries::{Entries, NONE, Slot},
    parcels::Size,
};
use crate::destination::Place;

#[derive(Debug, Default)]
pub(super) struct Lanes {
    lanes: HashMap<u64, Lane, BuildHasherDefault<AsItIs>>,
    /// Those that were made of one key's records only, because these wait for one that holds up nothing else.
    parted: HashSet<u64, BuildHasherDefault<AsItIs>>,
    behind: u64,
}

#[derive(Debug)]
struct Lane {
    /// The record whose turn it is, and the newest.
    head: Slot,
    tail: Slot,
    unfinished: u64,
    /// Whether its head waits for something else than the answer to a first request.
    held: bool,
    /// Its part of [`Lanes::behind`].
    behind: u64,
}

/// Where a record is that was put behind those of its lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Put {
    /// It is its turn.
    First,
    /// It leaves with the one whose turn it is.
    With,
    /// It waits.
    Behind,
}

impl Lanes {
    /// Adds a record behind those of its lane.
    pub(super) fn push(&mut self, slot: Slot, entries: &mut Entries, size: Size) -> Put {
        let lane = self.lanes.entry(entries[slot].lane).or_default();
        lane.append(slot, entries);
        let head = lane.head;
        if head == slot {
            return Put::First;
        }
        if entries.is_open(head)
            && u64::from(entries[head].parcel) == lane.unfinished - 1
            && entries.joins(head, slot, size)
        {
            entries.join(head, slot);
            return Put::With;
        }
        lane.recount(&mut self.behind, entries, size);
        Put::Behind
    }

    /// Takes away a lane's first records, which are finished. Returns the one whose turn it is then.
    pub(super) fn pop(&mut self, number: u64, head: Slot, records: u32, next: Slot) -> Option<Slot> {
        let lane = self.lanes.get_mut(&number).expect("a lane is known while it has records");
        assert_eq!(lane.head, head, "only a lane's front is ever finished");
        lane.unfinished -= u64::from(records);
        self.behind -= std::mem::take(&mut lane.behind);
        if lane.unfinished == 0 {
            assert_eq!(next, NONE, "the last record of a lane has none behind it");
            self.lanes.remove(&number);
            self.parted.remove(&number);
            return None;
        }
        (lane.head, lane.held) = (next, false);
        Some(next)
    }

    /// The lane of a record that belongs into this one, unless its key has left it.
    pub(super) fn lane_of(&self, record: &Record, lane: u64) -> u64 {
        if self.parted.is_empty() {
            return lane;
        }
        let own = own_lane(record, lane);
        if self.parted.contains(&own) { own } else { lane }
    }

    /// The key of a lane's front leaves it, until none of its records is unfinished: they have a lane of their own. The others
    /// move up; returns the one whose turn it is then.
    pub(super) fn part(&mut self, head: Slot, entries: &mut Entries) -> Option<Slot> {
        let number = entries[head].lane;
        if self.parted.contains(&number) || number == Place::of_key(&entries[head].record).lane {
            return None;
        }
        let own = own_lane(&entries[head].record, number);
        // Another key has the same number by chance: this one stays where it is.
        if self.lanes.contains_key(&own) {
            return None;
        }
        let lane = self.lanes.remove(&number).expect("a lane is known while it has records");
        assert_eq!(lane.head, head, "only a lane's front is ever under way");
        self.behind -= lane.behind;
        let (mut with, mut without) = (Lane::default(), Lane::default());
        let mut slot = head;
        while slot != NONE {
            let next = std::mem::replace(&mut entries[slot].next, NONE);
            if own_lane(&entries[slot].record, number) == own {
                entries[slot].lane = own;
                with.append(slot, entries);
            } else {
                without.append(slot, entries);
            }
            slot = next;
        }
        self.lanes.insert(own, with);
        self.parted.insert(own);
        let first = without.head;
        if first == NONE {
            return None;
        }
        self.lanes.insert(number, without);
        Some(first)
    }

    /// Takes away a record that is not its lane's first one; `before` is in front of it.
    pub(super) fn remove_behind(&mut self, number: u64, before: Slot, slot: Slot) {
        let lane = self.lanes.get_mut(&number).expect("a lane is known while it has records");
        assert!(lane.held && lane.head != slot, "only behind a record that is held");
        lane.unfinished -= 1;
        if lane.tail == slot {
            lane.tail = before;
        }
    }

    /// Takes away all records of this ordinal and above.
    pub(super) fn cut(&mut self, ordinal: u64, entries: &mut Entries) {
        let Self { lanes, parted, behind } = self;
        lanes.retain(|_, lane| {
            *behind -= std::mem::take(&mut lane.behind);
            if entries[lane.head].ordinal >= ordinal {
                return false;
            }
            (lane.tail, lane.unfinished) = (lane.head, 1);
            while let next = entries[lane.tail].next
                && next != NONE
                && entries[next].ordinal < ordinal
            {
                lane.tail = next;
                lane.unfinished += 1;
            }
            entries[lane.tail].next = NONE;
            true
        });
        parted.retain(|number| lanes.contains_key(number));
    }

    /// Counts anew how many records wait for others, after parcels have changed.
    pub(super) fn recount(&mut self, entries: &Entries, size: Size) {
        let Self { lanes, behind, .. } = self;
        lanes.values_mut().for_each(|lane| lane.recount(behind, entries, size));
    }

    /// Whether the lane's front waits for something of its own: then those behind it are not held up by order alone.
    pub(super) fn hold(&mut self, number: u64, held: bool, entries: &Entries, size: Size) {
        let lane = self.lanes.get_mut(&number).expect("a lane is known while it has records");
        lane.held = held;
        lane.recount(&mut self.behind, entries, size);
    }

    /// The lane's front has left, or has become smaller.
    pub(super) fn changed(&mut self, number: u64, entries: &Entries, size: Size) {
        // A record that travels alone makes no difference to those behind it.
        if size.records > 1
            && let Some(lane) = self.lanes.get_mut(&number)
        {
            lane.recount(&mut self.behind, entries, size);
        }
    }

    /// How many records wait for nothing but a parcel in front of them. Those that gather behind one that is under way are
    /// not counted where they may leave together after it.
    pub(super) fn behind(&self) -> u64 {
        self.behind
    }
}

impl Default for Lane {
    fn default() -> Self {
        Self { head: NONE, tail: NONE, unfinished: 0, held: false, behind: 0 }
    }
}

impl Lane {
    fn append(&mut self, slot: Slot, entries: &mut Entries) {
        if self.unfinished == 0 {
            self.head = slot;
        } else {
            entries[self.tail].next = slot;
        }
        self.tail = slot;
        self.unfinished += 1;
    }

    fn recount(&mut self, total: &mut u64, entries: &Entries, size: Size) {
        let gathers = size.records > 1 && !entries.is_open(self.head);
        let behind =
            if self.held || gathers { 0 } else { self.unfinished.saturating_sub(entries[self.head].parcel.into()) };
        *total = *total - self.behind + behind;
        self.behind = behind;
    }
}

/// The lane of a record whose key has left this one. Not of the key alone: that may be of several, by explicit hash keys.
fn own_lane(record: &Record, lane: u64) -> u64 {
    let mut hasher = DefaultHasher::new();
    (lane, &*record.partition_key).hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
impl Lanes {
    /// How many keys have left their lanes.
    pub(super) fn parted(&self) -> usize {
        self.parted.len()
    }

    /// Panics if the chains do not agree with the entries. For simulations: looks at everything.
    pub(super) fn check_chains(&self, entries: &Entries, size: Size) {
        let mut behind = 0;
        assert!(self.parted.iter().all(|number| self.lanes.contains_key(number)), "a key is out without records");
        for (number, lane) in &self.lanes {
            let mut slot = lane.head;
            let mut count = 0;
            while slot != NONE {
                let entry = &entries[slot];
                assert_eq!(entry.lane, *number);
                let witness = entry.state == State::InFlight && lane.held;
                let fits = witness || (entry.state == State::Behind) == (count > 0);
                assert!(fits, "{:?} at place {count} of its lane", entry.state);
                count += 1;
                slot = entry.next;
            }
            assert_eq!(count, lane.unfinished);
            let head = &entries[lane.head];
            let own = matches!(head.state, State::Waiting | State::Dead | State::Suspect);
            assert!(lane.held || !own, "{:?} but not held", head.state);
            let counts = !lane.held && (size.records == 1 || head.state == State::Ready);
            assert_eq!(lane.behind, if counts { count - u64::from(head.parcel) } else { 0 });
            behind += lane.behind;
        }
        assert_eq!(self.behind, behind);
    }
}

/// For numbers that are hashes already.
#[derive(Debug, Default)]
pub(super) struct AsItIs(u64);

impl Hasher for AsItIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("only used for u64, which come hashed already")
    }

    fn write_u64(&mut self, hashed: u64) {
        self.0 = hashed;
    }
}
