//! Deliveries and their link together, simulated over days: several windows share one policy, as `run` joins them, through
//! endpoints that fail, throttle, fall silent and break; the agent is killed and stopped in between.
//!
//! What windows promise of single records is judged more closely by `window/simulation`, and months of the policy by
//! `links/simulation.rs`. Here it is judged that nothing is lost and order kept while requests wait for the link; that what
//! passes keeps the cap, the budget and the schedule; that the higher priority goes first; that what is counted is what has
//! passed; and that nothing stands still that may go.
//!
//! `FOREBAY_HISTORIES` says how many, in twenties: one of days takes as long as that many of a window alone. `FOREBAY_SEED` says
//! which one comes first.

mod endpoint;
mod judge;
mod line;
mod plan;
mod world;

use self::world::World;
use super::histories;

const DEFAULT_HISTORIES: u64 = 200;

#[test]
fn deliveries_and_their_link_keep_their_promises_together() {
    let (histories, totals) = histories::run(DEFAULT_HISTORIES, 20, |seed| World::new(seed).run(), Totals::add);
    // A simulation in which nothing is held back and nothing goes wrong shows nothing.
    if histories >= 100 {
        let Totals { days, kills, stops, duplicates, buried, groups, witnesses, .. } = totals;
        assert!(days > histories / 2 && kills > histories / 4 && stops > 0 && duplicates > 0, "{totals:?}");
        assert!(buried > 0 && groups > 0 && witnesses > 0 && totals.never_left > 0, "{totals:?}");
        assert!(totals.held.iter().all(|held| *held > histories / 4), "{totals:?}");
        assert!(totals.yielded > 0 && totals.spent_days > histories / 50 && totals.exactly > histories, "{totals:?}");
    }
}

/// What happened, so that it is seen that something did.
#[derive(Debug, Default)]
struct Totals {
    days: u64,
    records: u64,
    requests: u64,
    kills: u64,
    stops: u64,
    duplicates: u64,
    buried: u64,
    expired: u64,
    /// Requests of suspects, and of witnesses.
    groups: u64,
    witnesses: u64,
    /// Requests that found no connection.
    never_left: u64,
    /// How often a delivery began to wait: for the schedule, the budget, the cap, others.
    held: [u64; 4],
    /// Requests that left while one of lower priority waited.
    yielded: u64,
    /// Days at the end of which somebody waited for the next one.
    spent_days: u64,
    /// How often what is spent was compared with what has passed.
    exactly: u64,
}

impl Totals {
    fn add(&mut self, other: &Self) {
        self.days += other.days;
        self.records += other.records;
        self.requests += other.requests;
        self.kills += other.kills;
        self.stops += other.stops;
        self.duplicates += other.duplicates;
        self.buried += other.buried;
        self.expired += other.expired;
        self.groups += other.groups;
        self.witnesses += other.witnesses;
        self.never_left += other.never_left;
        self.held.iter_mut().zip(other.held).for_each(|(mine, its)| *mine += its);
        self.yielded += other.yielded;
        self.spent_days += other.spent_days;
        self.exactly += other.exactly;
    }
}
