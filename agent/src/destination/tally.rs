//! What was taken, as the other side counts and charges it. What failed is none of it, however often it was sent.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::{Parcel, Sent};

/// Counters that only grow.
#[derive(Debug)]
pub(super) struct Tally {
    unit_bytes: u64,
    records: AtomicU64,
    bytes: AtomicU64,
    payload_records: AtomicU64,
    payload_bytes: AtomicU64,
    units: AtomicU64,
}

impl Tally {
    /// For a service that charges each record of the wire by whole units of so many bytes.
    pub(super) fn by_units_of(unit_bytes: u64) -> Self {
        let zero = AtomicU64::default;
        Self {
            unit_bytes,
            records: zero(),
            bytes: zero(),
            payload_records: zero(),
            payload_bytes: zero(),
            units: zero(),
        }
    }

    /// A parcel was taken, as a record of the wire with so many bytes.
    pub(super) fn taken(&self, parcel: &Parcel, bytes: u64) {
        self.records.fetch_add(1, Relaxed);
        self.bytes.fetch_add(bytes, Relaxed);
        self.payload_records.fetch_add(parcel.records.len() as u64, Relaxed);
        self.payload_bytes.fetch_add(parcel.records.iter().map(|record| record.payload_bytes()).sum(), Relaxed);
        self.units.fetch_add(bytes.div_ceil(self.unit_bytes).max(1), Relaxed);
    }

    pub(super) fn so_far(&self, aggregated: bool) -> Sent {
        Sent {
            aggregated,
            records: self.records.load(Relaxed),
            bytes: self.bytes.load(Relaxed),
            payload_records: self.payload_records.load(Relaxed),
            payload_bytes: self.payload_bytes.load(Relaxed),
            payload_units: self.units.load(Relaxed),
        }
    }
}

#[cfg(test)]
mod tests {
    use smallvec::SmallVec;

    use super::*;

    #[test]
    fn every_record_is_rounded_up() {
        let tally = Tally::by_units_of(5 << 10);
        let parcel = Parcel { records: SmallVec::new() };
        [0, 1, 5 << 10, (5 << 10) + 1].into_iter().for_each(|bytes| tally.taken(&parcel, bytes));
        assert_eq!(tally.so_far(false).payload_units, 1 + 1 + 1 + 2);
    }
}
