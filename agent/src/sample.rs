//! Plain values, for tests and for fuzzing: what matters there is changed, as in `Record { tags, ..plain("key", "data") }`.

use bytes::Bytes;
use forebay_log_store::{Record, SequenceNumber, ShardIndex, Timestamp};

#[cfg(test)]
use crate::destination::Limits;

/// The first record of a stream with one shard, of a key and data.
pub(crate) fn plain(partition_key: &str, data: impl Into<Bytes>) -> Record {
    Record {
        sequence_number: SequenceNumber(1),
        shard: ShardIndex(0),
        arrival: Timestamp(0),
        arrival_trusted: true,
        partition_key: partition_key.into(),
        explicit_hash_key: None,
        tags: Vec::new(),
        data: data.into(),
    }
}

/// Of a destination in whose requests each record travels alone.
#[cfg(test)]
pub(crate) const LIMITS: Limits = Limits {
    request_records: 500,
    request_bytes: 10 << 20,
    parcel_records: 1,
    parcel_bytes: 1 << 20,
    keeps_requests: false,
    request_timeout: std::time::Duration::from_secs(30),
};
