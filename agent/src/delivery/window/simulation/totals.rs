//! What happened in all histories, so that it is seen that something did.

use super::*;

#[derive(Debug, Default)]
pub(super) struct Totals {
    pub(super) records: u64,
    pub(super) requests: u64,
    pub(super) kills: u64,
    pub(super) clean_stops: u64,
    pub(super) given_up: u64,
    pub(super) duplicates: u64,
    pub(super) dead_letters: u64,
    pub(super) out_of_order: u64,
    pub(super) wronged: u64,
    pub(super) held_up: u64,
    pub(super) parted: u64,
    /// Of the last life.
    pub(super) parcels: u64,
    pub(super) sent: u64,
    pub(super) reshards: u64,
    pub(super) astray: u64,
    pub(super) expired: u64,
    pub(super) dropped: u64,
    pub(super) leaps: u64,
    pub(super) given_back: u64,
    /// Records that arrived before an earlier one was resolved, by `catch-up`.
    pub(super) overtakes: [u64; 3],
    /// Records that a restart knew to be finished beyond the checkpoint.
    pub(super) spared: u64,
}

impl Totals {
    pub(super) fn add(&mut self, world: &World) {
        self.records += world.log.len() as u64;
        self.requests += world.requests;
        self.kills += u64::from(world.life);
        self.clean_stops += world.clean_stops;
        self.given_up += world.given_up;
        self.duplicates += world.fates.iter().map(|fate| u64::from(fate.accepted.saturating_sub(1))).sum::<u64>();
        self.dead_letters += world.fates.iter().filter(|fate| fate.buried).count() as u64;
        self.wronged += world.wronged;
        self.held_up += world.held_up;
        self.parted += world.parted as u64;
        self.out_of_order += world.window.counts().out_of_order;
        self.parcels += world.parcels;
        self.sent += world.sent;
        self.reshards += world.reshards;
        self.astray += world.astray;
        self.expired += world.fates.iter().filter(|fate| fate.expired).count() as u64;
        self.dropped += (0..world.oldest).filter(|index| world.fates[*index] == Fate::default()).count() as u64;
        self.leaps += world.leaps;
        self.given_back += world.given_back;
        self.overtakes[world.config.catch_up as usize] += world.overtakes;
        self.spared += world.spared;
    }
}
