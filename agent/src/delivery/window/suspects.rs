//! Requests that failed in a way that may be the fault of a record in them. They are kept together, sent apart from
//! everything else, and halved until the record is alone.
//!
//! A refusal that comes while nothing else is accepted may as well be the endpoint's fault, so that such groups go one by
//! one, and ever more slowly once records are refused alone; the first acceptance of anything ends that. The halves of what was
//! refused go first, so that a record is soon alone, and its neighbours are soon accepted. A group that fails while others pass
//! has a backoff of its own. Else the oldest turn goes first, so that no group keeps the others from being tried.
//!
//! Where nothing shows that others pass, because all of them wait behind what failed, a group is halved after a few failures all the
//! same. In an outage that finds records alone that are not at fault, so with each of them it takes one failure more.

use std::{collections::BTreeMap, time::Duration};

use fastrand::Rng;

use super::entries::Slot;

/// A group that failed so often in a row is halved, whether or not others pass.
const HALVED_AFTER: u32 = 3;

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
    /// How often the endpoint failed upon it since, with nothing to show that others pass.
    pub(super) failures: u32,
    /// How many records had been accepted when it failed last.
    pub(super) accepted: u64,
}

impl History {
    /// Of a group that begins when so many records were accepted.
    pub(super) fn beginning(accepted: u64) -> Self {
        Self { accepted, ..Self::default() }
    }

    /// The same for records that were in a larger request that failed: the next failure is not their first.
    pub(super) fn continued(accepted: u64) -> Self {
        Self { failures: HALVED_AFTER - 1, ..Self::beginning(accepted) }
    }
}

#[derive(Debug, Default)]
pub(super) struct Suspects {
    /// By the time before which it must not be sent, then by age; halves that may go at any time the newest first.
    groups: BTreeMap<(Duration, i64), Group>,
    next: i64,
    /// Refusals of records alone since anything was accepted.
    pub(super) refusals: u32,
    /// How many records were found alone since, with nothing to show that others pass.
    pub(super) found: u32,
    /// Nothing goes before this.
    gate: Duration,
}

impl Suspects {
    pub(super) fn add(&mut self, group: Group, not_before: Duration) {
        self.next += 1;
        let place = if not_before.is_zero() { -self.next } else { self.next };
        self.groups.insert((not_before, place), group);
    }

    /// One more refusal, and nothing accepted in between: no group before `until`.
    pub(super) fn refused(&mut self, refusals: u32, until: Duration) {
        (self.refusals, self.gate) = (refusals, until);
    }

    /// Whether a group has failed so often that it is halved although nothing shows that others pass.
    pub(super) fn is_enough(&self, failures: u32) -> bool {
        failures >= HALVED_AFTER.saturating_add(self.found)
    }

    /// Something was accepted.
    pub(super) fn accepted(&mut self) {
        (self.refusals, self.found) = (0, 0);
        self.gate = Duration::ZERO;
    }

    /// No group waits for longer than `longest` from now on: what made one of them fail for long is over.
    pub(super) fn soon(&mut self, now: Duration, longest: Duration, rng: &mut Rng) {
        let late = self.groups.split_off(&(now + longest, i64::MIN));
        for ((_, place), group) in late {
            // Not all at once: it may be over for that one alone.
            self.groups.insert((now + longest.mul_f64(rng.f64()), place), group);
        }
    }

    /// When the next group may go.
    pub(super) fn due(&self) -> Option<Duration> {
        self.groups.first_key_value().map(|((not_before, _), _)| (*not_before).max(self.gate))
    }

    /// The one that goes next.
    pub(super) fn first(&self) -> Option<&Group> {
        self.groups.values().next()
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

    pub(super) fn len(&self) -> usize {
        self.groups.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Group> {
        self.groups.values()
    }
}
