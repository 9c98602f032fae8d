//! Requests that failed in a way that may be the fault of a record in them. They are kept together, sent apart from
//! everything else, and halved until the record is alone.
//!
//! A refusal that comes while nothing else is accepted may as well be the endpoint's fault, so that such groups go one by
//! one and ever more slowly; the first acceptance of anything ends that. A group that fails while others pass has a
//! backoff of its own. Oldest turn first, so that no group keeps the others from being tried.

use std::{collections::BTreeMap, time::Duration};

use super::entries::Slot;

/// Records of one request that failed.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) slots: Vec<Slot>,
    pub(super) history: History,
}

/// What a group went through.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct History {
    /// How often it failed although others passed in between.
    pub(super) strikes: u32,
    /// How many records had been accepted when it failed last.
    pub(super) accepted: u64,
}

#[derive(Debug, Default)]
pub(super) struct Suspects {
    /// By the time before which it must not be sent, then by age.
    groups: BTreeMap<(Duration, u64), Group>,
    next: u64,
    /// Refusals since anything was accepted.
    pub(super) refusals: u32,
    /// Nothing goes before this.
    gate: Duration,
}

impl Suspects {
    pub(super) fn add(&mut self, group: Group, not_before: Duration) {
        self.next += 1;
        self.groups.insert((not_before, self.next), group);
    }

    /// One more refusal, and nothing accepted in between: no group before `until`.
    pub(super) fn refused(&mut self, until: Duration) {
        self.refusals = self.refusals.saturating_add(1);
        self.gate = until;
    }

    /// Something was accepted.
    pub(super) fn accepted(&mut self) {
        self.refusals = 0;
        self.gate = Duration::ZERO;
    }

    /// When the next group may go.
    pub(super) fn due(&self) -> Option<Duration> {
        self.groups.first_key_value().map(|((not_before, _), _)| (*not_before).max(self.gate))
    }

    pub(super) fn take(&mut self) -> Option<Group> {
        self.groups.pop_first().map(|(_, group)| group)
    }

    /// Takes out of their groups those that are `unwanted`.
    pub(super) fn take_out(&mut self, unwanted: impl Fn(Slot) -> bool) -> Vec<Slot> {
        let mut out = Vec::new();
        for group in self.groups.values_mut() {
            out.extend(group.slots.extract_if(.., |slot| unwanted(*slot)));
        }
        if !out.is_empty() {
            self.groups.retain(|_, group| !group.slots.is_empty());
        }
        out
    }

    /// Forgets the groups.
    pub(super) fn clear(&mut self) {
        self.groups.clear();
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Group> {
        self.groups.values()
    }
}
