//! How records become records of the wire: each alone, as lines, or as an aggregate of the Kinesis Producer Library.

use std::{
    borrow::Cow,
    collections::hash_map::DefaultHasher,
    hash::{Hash as _, Hasher as _},
};

use forebay_log_store::{HashKey, Record};
use serde::Deserialize;

use super::{
    kpl::{self, hash_key, share_hash_key},
    lines,
    shards::Shards,
    tags::Tags,
};
use crate::destination::{Parcel, Place};

/// More in one record help nobody, and a consumer has to hold them.
const RECORDS_MAX: usize = 10_000;

/// How records share a record of the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Aggregation {
    /// They do not.
    #[default]
    None,
    /// Records of one key, as lines.
    Lines,
    /// Records of one shard, in the format of the Kinesis Producer Library.
    Kpl,
}

/// How a record of the wire is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Compress {
    /// It is not.
    #[default]
    None,
    /// As one gzip member.
    Gzip,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Packing {
    pub(super) aggregation: Aggregation,
    pub(super) gzip: bool,
    pub(super) tags: Tags,
    /// Data of an aggregate, before it is compressed.
    pub(super) aggregate_bytes: u64,
    /// Key and data of a record of the wire.
    pub(super) max_record: u64,
}

/// A record of the wire.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Packed<'a> {
    pub(super) data: Cow<'a, [u8]>,
    pub(super) partition_key: &'a str,
    pub(super) explicit_hash_key: Option<HashKey>,
    /// The shard that has to take it, or nobody sees all of its records.
    pub(super) shard: Option<&'a str>,
}

impl Packed<'_> {
    /// What Kinesis counts.
    pub(super) fn bytes(&self) -> u64 {
        (self.data.len() + self.partition_key.len()) as u64
    }
}

impl Packing {
    /// Records of a parcel, and what they may take.
    pub(super) fn limits(&self) -> (usize, u64) {
        match self.aggregation {
            Aggregation::None => (1, self.max_record),
            Aggregation::Lines => (RECORDS_MAX, self.aggregate_bytes),
            Aggregation::Kpl => (RECORDS_MAX, self.aggregate_bytes - kpl::AROUND),
        }
    }

    /// Why this record cannot go, for what stands around its bytes.
    pub(super) fn accepts(&self, record: &Record) -> Result<(), String> {
        let lines = || lines::bytes_max(record) - u64::from(record.data.ends_with(b"\n"));
        let data = match self.aggregation {
            Aggregation::Lines if self.gzip => lines::gzip_bytes_max(lines()),
            Aggregation::Lines => lines(),
            Aggregation::None | Aggregation::Kpl => record.data.len() as u64,
        };
        let bytes = data + record.partition_key.len() as u64;
        if bytes > self.max_record {
            return Err(format!(
                "the record has {bytes} bytes with its key; the destination takes {}",
                self.max_record
            ));
        }
        Ok(())
    }

    pub(super) fn place(&self, record: &Record, shards: Option<&Shards>) -> Place {
        match self.aggregation {
            Aggregation::None => Place::of_key(record),
            Aggregation::Lines => Place { bytes: lines::bytes_max(record), ..Place::of_key(record) },
            Aggregation::Kpl => {
                let key = || hash_key(record);
                let lane = shards.map_or_else(|| hashed(key()), |shards| shards.of(key).lane);
                Place { lane, bytes: kpl::bytes_max(record, &self.tags) }
            }
        }
    }

    /// The records of the wire that parcels of a request become, in their order. All of them are in memory: best a few at a time.
    pub(super) fn pack<'a>(&self, parcels: &'a [Parcel], shards: Option<&'a Shards>) -> Vec<Packed<'a>> {
        let mut packed: Vec<_> = parcels.iter().map(|parcel| self.unsealed(parcel, shards)).collect();
        if self.aggregation == Aggregation::Kpl {
            kpl::seal(packed.iter_mut().filter_map(|packed| match &mut packed.data {
                Cow::Owned(aggregate) => Some(aggregate),
                Cow::Borrowed(_) => None,
            }));
        }
        packed
    }

    fn unsealed<'a>(&self, parcel: &'a Parcel, shards: Option<&'a Shards>) -> Packed<'a> {
        let first = &parcel.records[0];
        let data = match self.aggregation {
            Aggregation::Lines => lines::encode(&parcel.records, self.gzip).into(),
            Aggregation::Kpl if self.worth_an_aggregate(parcel) => kpl::encode(&parcel.records, &self.tags).into(),
            Aggregation::None | Aggregation::Kpl => Cow::Borrowed(&*first.data),
        };
        // Who reads an aggregate of several hash keys skips those that are not of its shard.
        let shard = shards
            .filter(|_| self.aggregation == Aggregation::Kpl && parcel.records.len() > 1)
            .filter(|_| !parcel.records.iter().all(|record| share_hash_key(first, record)))
            .map(|shards| &*shards.of(|| hash_key(first)).id);
        Packed { data, partition_key: &first.partition_key, explicit_hash_key: first.explicit_hash_key, shard }
    }

    /// A record alone is sent as it is, unless tags ride with it and there is room for them.
    fn worth_an_aggregate(&self, parcel: &Parcel) -> bool {
        let [record] = &parcel.records[..] else { return true };
        let bytes = kpl::AROUND + kpl::bytes_max(record, &self.tags) + record.partition_key.len() as u64;
        !self.tags.are_none() && bytes <= self.max_record
    }
}

fn hashed(key: HashKey) -> u64 {
    let mut hasher = DefaultHasher::new();
    key.0.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use std::{slice, sync::Arc};

    use forebay_log_store::{SequenceNumber, Timestamp};
    use proptest::prelude::*;

    use super::{
        super::{TagName, shards::tests::shards},
        *,
    };
    use crate::sample::plain;

    fn record(key: &str, explicit_hash_key: Option<u128>, data: Vec<u8>) -> Arc<Record> {
        Arc::new(Record {
            sequence_number: SequenceNumber(7),
            arrival: Timestamp(1_700_000_000_000),
            explicit_hash_key: explicit_hash_key.map(HashKey),
            ..plain(key, data)
        })
    }

    fn packing(aggregation: Aggregation, gzip: bool, names: &[TagName]) -> Packing {
        let tags = Tags::new(names, "truck-7", "telemetry");
        Packing { aggregation, gzip, tags, aggregate_bytes: 2048, max_record: 10 << 10 }
    }

    fn halves() -> Shards {
        shards(&[("low", u128::MAX / 2), ("high", u128::MAX)])
    }

    proptest! {
        /// As the window fills parcels: by what [`Packing::place`] says, up to what [`Packing::limits`] allows.
        #[test]
        fn no_record_of_the_wire_is_larger_than_it_may_be(
            aggregation in prop_oneof![Just(Aggregation::Lines), Just(Aggregation::Kpl)],
            gzip: bool,
            tagged: bool,
            records in prop::collection::vec(("[a-z]{1,30}", prop::option::of(any::<u128>()), prop::collection::vec(any::<u8>(), 0..700)), 1..50),
        ) {
            let names = if tagged { vec![TagName::Id, TagName::Arrival] } else { Vec::new() };
            let packing = packing(aggregation, gzip && aggregation == Aggregation::Lines, &names);
            let (most, bytes_max) = packing.limits();
            let (mut bytes, mut filled) = (0, Vec::new());
            for (key, hash_key, data) in records {
                let record = record(&key, hash_key, data);
                let place = packing.place(&record, None);
                if !filled.is_empty() && (bytes + place.bytes > bytes_max || filled.len() == most) {
                    break;
                }
                bytes += place.bytes;
                filled.push(record);
            }
            let parcel = Parcel { records: filled.into() };
            let parcel = [parcel];
            let packed = &packing.pack(&parcel, None)[0];
            let most = if gzip { lines::gzip_bytes_max(packing.aggregate_bytes) } else { packing.aggregate_bytes };
            prop_assert!(packed.data.len() as u64 <= most, "{} bytes", packed.data.len());
        }
    }

    #[test]
    fn lanes_are_shards_where_they_are_known_and_hash_keys_where_not() {
        let packing = packing(Aggregation::Kpl, false, &[]);
        let (low, other, high) =
            (record("a", Some(1), vec![]), record("b", Some(9), vec![]), record("a", Some(u128::MAX), vec![]));
        let lane = |record: &Record, shards: Option<&Shards>| packing.place(record, shards).lane;
        let halves = halves();
        assert_eq!(lane(&low, Some(&halves)), lane(&other, Some(&halves)));
        assert_ne!(lane(&low, Some(&halves)), lane(&high, Some(&halves)));
        assert_ne!(lane(&low, None), lane(&other, None));
        assert_eq!(lane(&low, None), lane(&record("c", Some(1), vec![1]), None));
    }

    #[test]
    fn only_an_aggregate_of_several_hash_keys_has_to_reach_a_certain_shard() {
        let packing = packing(Aggregation::Kpl, false, &[]);
        let (one, same, other) =
            (record("a", Some(1), vec![1]), record("b", Some(1), vec![]), record("c", Some(2), vec![]));
        let parcel =
            |records: &[&Arc<Record>]| Parcel { records: records.iter().map(|&one| Arc::clone(one)).collect() };
        let halves = halves();
        let shard =
            |parcel: &Parcel, shards| packing.pack(slice::from_ref(parcel), shards)[0].shard.map(ToOwned::to_owned);
        assert_eq!(shard(&parcel(&[&one, &other]), Some(&halves)).as_deref(), Some("low"));
        assert_eq!(shard(&parcel(&[&one, &same]), Some(&halves)), None);
        assert_eq!(shard(&parcel(&[&one, &same]), None), None);
        let alone = [parcel(&[&one])];
        let alone = &packing.pack(&alone, Some(&halves))[0];
        assert_eq!(
            (&alone.data[..], alone.partition_key, alone.explicit_hash_key, alone.shard),
            (&[1][..], "a", Some(HashKey(1)), None)
        );
    }

    #[test]
    fn a_record_alone_is_plain_unless_tags_ride_with_it_and_fit() {
        let tagged = packing(Aggregation::Kpl, false, &[TagName::Id]);
        let pack = |bytes: usize| {
            let parcel = [Parcel { records: vec![record("a", None, vec![0; bytes])].into() }];
            tagged.pack(&parcel, None)[0].data.len()
        };
        assert!(pack(10) > 10);
        assert_eq!(pack((10 << 10) - 1), (10 << 10) - 1);
    }
}
