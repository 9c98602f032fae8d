//! Random histories of a delivery: records come, alone or in parcels, the endpoint takes, refuses, throttles, hangs and lies,
//! its shards are split and merged, the process is killed, and at the end everything works again. What the window promises
//! is checked at every step.
//!
//! `FOREBAY_HISTORIES` says how many, `FOREBAY_SEED` which one comes first.

mod endpoint;
mod events;
mod judge;
mod parcels;
mod plan;
mod process;
mod totals;
mod world;

use std::{
    cmp::Reverse,
    collections::{BTreeSet, BinaryHeap, HashMap},
    time::Duration,
};

use fastrand::Rng;
use forebay_log_store::{Record, SequenceNumber};

use self::{
    events::*,
    parcels::{Parcels, Shards, shard_of},
    plan::is_held_up,
    totals::Totals,
    world::World,
};
use super::{
    entries::{Fault, State},
    link::Down,
    stretches::Stretch,
    *,
};
use crate::{
    delivery::{
        config::{CatchUp, Ordering},
        histories,
        unfinished::Unfinished,
    },
    destination::{RecordOutcome, hash},
};

const DEFAULT_HISTORIES: u64 = 5_000;
const LATENCY_MAX_MS: u64 = 200;
/// Why requests fail for a while through no fault of their records.
const PASSING: [FailureKind; 7] = [
    FailureKind::CredentialsRefused,
    FailureKind::Throttled,
    FailureKind::EndpointFailed,
    FailureKind::Misconfigured,
    FailureKind::Clock,
    FailureKind::TlsWrongHost,
    FailureKind::TimedOut,
];
/// For so long after everything else is healthy the endpoint breaks at some records; and then all that need not wait for them was
/// to be delivered.
const LASTING: Duration = Duration::from_secs(4000);
const LASTING_JUDGED: Duration = Duration::from_secs(3900);
/// Longer than any backoff needs that an outage of a few seconds can have built up.
const PATIENCE: Duration = Duration::from_secs(6000);

#[test]
fn every_history_keeps_the_promises() {
    let (histories, totals) = histories::run(DEFAULT_HISTORIES, 1, |seed| World::new(seed).run(), Totals::add);
    // A simulation in which nothing goes wrong shows nothing.
    if histories >= 1000 {
        assert!(totals.wronged <= totals.records / 2000, "{totals:?}");
        assert!(totals.clean_stops > histories / 10 && totals.given_up > histories / 10, "{totals:?}");
        assert!(totals.kills > 0 && totals.duplicates > 0 && totals.dead_letters > 0 && totals.out_of_order > 0);
        assert!(totals.parcels < totals.sent && totals.reshards > 0 && totals.astray > 0, "{totals:?}");
        assert!(totals.expired > 0 && totals.dropped > 0 && totals.spared > 0 && totals.given_back > 0, "{totals:?}");
        assert!(totals.held_up > 0 && totals.parted > 0, "{totals:?}");
        let [_, newest_first, split] = totals.overtakes;
        assert!(totals.leaps > histories / 4 && newest_first > histories && split > histories / 4, "{totals:?}");
    }
}
