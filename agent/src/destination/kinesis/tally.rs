//! What was sent, as Kinesis counts and charges it.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::packing::Packed;
use crate::destination::{Parcel, Sent};

/// Kinesis charges PutRecords by units of 25 KB of each record.
const PAYLOAD_UNIT: u64 = 25_000;

#[derive(Debug, Default)]
pub(super) struct Tally {
    records: AtomicU64,
    bytes: AtomicU64,
    payload_records: AtomicU64,
    payload_bytes: AtomicU64,
    units: AtomicU64,
}

impl Tally {
    /// A parcel was sent, as this.
    pub(super) fn sent(&self, parcel: &Parcel, packed: &Packed) {
        self.records.fetch_add(1, Relaxed);
        self.bytes.fetch_add(packed.bytes(), Relaxed);
        self.payload_records.fetch_add(parcel.records.len() as u64, Relaxed);
        self.payload_bytes.fetch_add(parcel.records.iter().map(|record| record.payload_bytes()).sum(), Relaxed);
    }

    /// A record of the wire with so many bytes was taken.
    pub(super) fn taken(&self, bytes: u64) {
        self.units.fetch_add(bytes.div_ceil(PAYLOAD_UNIT).max(1), Relaxed);
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
