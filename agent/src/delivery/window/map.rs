//! Which map of the destination's shards the lanes follow. A new one counts for everything that is not finished, in the
//! order of the stream: nothing is sent before what is under way has come back, or a record could overtake one of its key
//! on the way to another shard.

use std::time::Duration;

use forebay_log_store::Record;

use super::{
    Window,
    entries::{NONE, State},
    turns::placed,
};
use crate::destination::Place;

/// See the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Map {
    Current,
    /// A parcel went astray: the shards are others by now. Nothing is sent until they are known.
    Outdated,
    /// There is one. Nothing is sent until it counts.
    New,
}

impl Window {
    pub(super) fn need_map(&mut self) {
        if self.map == Map::Current {
            self.map = Map::Outdated;
        }
    }

    /// The destination has a new map.
    pub(crate) fn on_new_map(&mut self) {
        self.map = Map::New;
    }

    /// The new map counts: `place` says where each record goes by it, or why it never can.
    pub(crate) fn on_map(&mut self, place: impl Fn(&Record) -> Result<Place, String>, now: Duration) {
        assert!(self.in_flight.is_empty() && self.burying.is_empty(), "what is under way is awaited");
        self.map = Map::Current;
        for stretch in self.stretches.iter_mut() {
            stretch.lanes = super::Lanes::default();
            stretch.relaxed.close_all();
        }
        self.ready.clear();
        self.throttled.clear();
        self.failed.clear();
        self.suspects.clear();
        self.throttles.clear();
        self.dead.clear();
        if let Some(trial) = self.trial.take() {
            self.entries[trial.accused].reason = None;
        }
        let unfinished: Vec<_> = self.stretches.iter().flat_map(|stretch| stretch.ledger.unfinished()).collect();
        for slot in unfinished {
            let entry = &mut self.entries[slot];
            let (place, reason) = placed(&entry.record, &place);
            (entry.lane, entry.wire, entry.next, entry.state) = (place.lane, place.bytes, NONE, State::Behind);
            (entry.parcel, entry.parcel_bytes) = (1, place.bytes);
            if entry.reason.is_none() {
                entry.reason = reason;
            }
            // What a failed request was divided into lies in other lanes now. Only what was found alone stays so.
            if !entry.fault.is_found() && entry.refused_alone == 0 {
                entry.apart = 0;
            }
            self.put(slot, now);
        }
    }
}
