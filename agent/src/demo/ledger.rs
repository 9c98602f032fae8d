//! What was published, acknowledged and delivered, and what follows from it. Pure.

use std::{collections::BTreeMap, fmt};

/// The book of one demo. Messages of a device are numbered from 0 without gaps.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    devices: BTreeMap<String, Device>,
    duplicates: u64,
    out_of_order: u64,
    altered: u64,
}

#[derive(Debug, Default)]
struct Device {
    published: u64,
    acknowledged: u64,
    /// Whether each message was delivered.
    delivered: Vec<bool>,
    /// Behind the newest message delivered.
    next: u64,
}

/// Sums over all devices.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Totals {
    pub(super) published: u64,
    pub(super) acknowledged: u64,
    pub(super) delivered: u64,
    pub(super) duplicates: u64,
}

/// The outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Verdict {
    pub(super) acknowledged: u64,
    /// Of the acknowledged ones.
    pub(super) delivered: u64,
    pub(super) lost: u64,
    pub(super) out_of_order: u64,
    pub(super) duplicates: u64,
    /// Delivered, but with another key or other bytes than were published.
    pub(super) altered: u64,
}

impl Ledger {
    /// A device has sent this message for the first time.
    pub(super) fn published(&mut self, device: &str, number: u64) {
        let device = self.device(device);
        device.published = device.published.max(number + 1);
    }

    /// A device was acknowledged this message, and with it all before.
    pub(super) fn acknowledged(&mut self, device: &str, number: u64) {
        let device = self.device(device);
        device.acknowledged = device.acknowledged.max(number + 1);
    }

    /// The upstream took a record.
    pub(super) fn delivered(&mut self, device: &str, number: u64) {
        if self.devices.get(device).is_none_or(|device| number >= device.published) {
            self.altered += 1;
            return;
        }
        let entry = self.device(device);
        let at = usize::try_from(number).expect("a demo is short");
        if entry.delivered.len() <= at {
            entry.delivered.resize(at + 1, false);
        }
        let again = std::mem::replace(&mut entry.delivered[at], true);
        let late = !again && number < entry.next;
        entry.next = entry.next.max(number + 1);
        self.duplicates += u64::from(again);
        self.out_of_order += u64::from(late);
    }

    /// The upstream took a record that no device published like this.
    pub(super) fn altered(&mut self) {
        self.altered += 1;
    }

    pub(super) fn totals(&self) -> Totals {
        let mut totals = Totals { duplicates: self.duplicates, ..Totals::default() };
        for device in self.devices.values() {
            totals.published += device.published;
            totals.acknowledged += device.acknowledged;
            totals.delivered += device.delivered.iter().filter(|delivered| **delivered).count() as u64;
        }
        totals
    }

    pub(super) fn verdict(&self) -> Verdict {
        let acknowledged = self.devices.values().map(|device| device.acknowledged).sum();
        let delivered = self.devices.values().map(Device::acknowledged_and_delivered).sum();
        Verdict {
            acknowledged,
            delivered,
            lost: acknowledged - delivered,
            out_of_order: self.out_of_order,
            duplicates: self.duplicates,
            altered: self.altered,
        }
    }

    fn device(&mut self, name: &str) -> &mut Device {
        self.devices.entry(name.to_owned()).or_default()
    }
}

impl Device {
    fn acknowledged_and_delivered(&self) -> u64 {
        let obliged = usize::try_from(self.acknowledged).expect("a demo is short");
        self.delivered.iter().take(obliged).filter(|delivered| **delivered).count() as u64
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { acknowledged, delivered, lost, out_of_order, duplicates, altered } = self;
        write!(
            f,
            "acknowledged {acknowledged}, delivered {delivered}, lost {lost}, out of order {out_of_order}, \
             duplicates {duplicates}"
        )?;
        if *altered > 0 {
            write!(f, ", altered {altered}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A device that published ten messages and was acknowledged eight.
    fn ledger() -> Ledger {
        let mut ledger = Ledger::default();
        for number in 0..10 {
            ledger.published("truck", number);
        }
        ledger.acknowledged("truck", 7);
        ledger
    }

    fn deliver(numbers: impl IntoIterator<Item = u64>) -> Verdict {
        let mut ledger = ledger();
        for number in numbers {
            ledger.delivered("truck", number);
        }
        ledger.verdict()
    }

    #[test]
    fn everything_in_order_holds() {
        let verdict = deliver(0..10);
        assert_eq!(verdict.to_string(), "acknowledged 8, delivered 8, lost 0, out of order 0, duplicates 0");
        assert!(verdict.holds());
    }

    #[test]
    fn a_missing_one_is_lost_only_if_it_was_acknowledged() {
        assert!(deliver(0..8).holds());
        let verdict = deliver([0, 1, 2, 4, 5, 6, 7]);
        assert_eq!((verdict.lost, verdict.holds()), (1, false));
    }

    #[test]
    fn a_repeated_one_is_a_duplicate_and_no_disorder() {
        let verdict = deliver((0..8).chain(3..8));
        assert_eq!((verdict.duplicates, verdict.out_of_order, verdict.holds()), (5, 0, true));
    }

    #[test]
    fn one_that_comes_late_is_out_of_order() {
        let verdict = deliver([0, 1, 3, 2, 4, 5, 6, 7]);
        assert_eq!((verdict.out_of_order, verdict.holds()), (1, false));
    }

    #[test]
    fn what_nobody_published_is_noticed() {
        assert!(!deliver((0..8).chain([99])).holds());
    }

    #[test]
    fn nothing_at_all_proves_nothing() {
        assert!(!Ledger::default().verdict().holds());
    }
}
