//! What consumers make of records: they read aggregates of the Kinesis Producer Library, as aggregation-format.md of awslabs/amazon-kinesis-producer has
//! them. It shares no code with what writes them.

use std::ops::RangeInclusive;

use md5::{Digest as _, Md5};

use super::upstream::hash_key;

const MAGIC: [u8; 4] = [0xf3, 0x89, 0x9a, 0xc2];
const MD5_BYTES: usize = 16;
/// What a consumer gets of a record that lies in a shard of this range: of an aggregate it leaves out, as the Kinesis Client
/// Library does, what belongs to other shards.
#[track_caller]
pub(crate) fn consumed(partition_key: String, data: Vec<u8>, shard: &RangeInclusive<u128>) -> Vec<(String, Vec<u8>)> {
    let Some(records) = records_of(&data) else { return vec![(partition_key, data)] };
    let belongs = |record: &Inner| shard.contains(&record.hash_key());
    records.into_iter().filter(belongs).map(|record| (record.partition_key, record.data)).collect()
}

/// A record of an aggregate.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Inner {
    pub(crate) partition_key: String,
    pub(crate) explicit_hash_key: Option<String>,
    pub(crate) data: Vec<u8>,
    pub(crate) tags: Vec<(String, Option<String>)>,
}

impl Inner {
    /// Where it belongs.
    fn hash_key(&self) -> u128 {
        let explicit = self.explicit_hash_key.as_ref();
        explicit.map_or_else(|| hash_key(&self.partition_key), |key| key.parse().expect("a hash key"))
    }
}

/// The records of an aggregate; nothing if it is none. Panics where it begins as one and is not.
#[track_caller]
pub(crate) fn records_of(data: &[u8]) -> Option<Vec<Inner>> {
    let rest = data.strip_prefix(&MAGIC)?;
    let (message, digest) = rest.split_at_checked(rest.len().wrapping_sub(MD5_BYTES)).expect("a digest at its end");
    assert_eq!(Md5::digest(message)[..], *digest, "the digest of an aggregate of {} bytes", data.len());
    let (mut keys, mut hash_keys, mut records) = (Vec::new(), Vec::new(), Vec::new());
    for field in fields(message) {
        match field {
            (1, Value::Bytes(key)) => keys.push(text(key)),
            (2, Value::Bytes(key)) => hash_keys.push(text(key)),
            (3, Value::Bytes(record)) => records.push(record),
            other => panic!("a field of an aggregate that is not known: {other:?}"),
        }
    }
    assert!(!records.is_empty(), "an aggregate of nothing");
    Some(records.into_iter().map(|record| inner(record, &keys, &hash_keys)).collect())
}

#[track_caller]
fn inner(record: &[u8], keys: &[String], hash_keys: &[String]) -> Inner {
    let (mut partition_key, mut data) = (None, None);
    let mut inner = Inner::default();
    for field in fields(record) {
        match field {
            (1, Value::Number(index)) => partition_key = Some(keys[index as usize].clone()),
            (2, Value::Number(index)) => inner.explicit_hash_key = Some(hash_keys[index as usize].clone()),
            (3, Value::Bytes(bytes)) => data = Some(bytes.to_vec()),
            (4, Value::Bytes(tag)) => inner.tags.push(self::tag(tag)),
            other => panic!("a field of a record that is not known: {other:?}"),
        }
    }
    let (Some(partition_key), Some(data)) = (partition_key, data) else { panic!("a record without key or data") };
    Inner { partition_key, data, ..inner }
}

#[track_caller]
fn tag(message: &[u8]) -> (String, Option<String>) {
    let (mut key, mut value) = (None, None);
    for field in fields(message) {
        match field {
            (1, Value::Bytes(bytes)) => key = Some(text(bytes)),
            (2, Value::Bytes(bytes)) => value = Some(text(bytes)),
            other => panic!("a field of a tag that is not known: {other:?}"),
        }
    }
    (key.expect("a tag has a key"), value)
}

#[derive(Debug)]
enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// The fields of a protocol buffer in their order, by number.
#[track_caller]
fn fields(mut rest: &[u8]) -> Vec<(u64, Value<'_>)> {
    let mut fields = Vec::new();
    while !rest.is_empty() {
        let tag = number(&mut rest);
        let value = match (tag & 7, number(&mut rest)) {
            (0, value) => Value::Number(value),
            (2, length) => {
                let (bytes, behind) = rest.split_at_checked(length as usize).expect("as many bytes as it says");
                rest = behind;
                Value::Bytes(bytes)
            }
            (other, _) => panic!("wire type {other}, which an aggregate does not have"),
        };
        fields.push((tag >> 3, value));
    }
    fields
}

/// A number of seven bits a byte, the lowest first.
#[track_caller]
fn number(rest: &mut &[u8]) -> u64 {
    let mut value = 0;
    for place in 0..10 {
        let (byte, behind) = rest.split_first().expect("a number ends");
        *rest = behind;
        value |= u64::from(byte & 0x7f) << (7 * place);
        if byte & 0x80 == 0 {
            return value;
        }
    }
    panic!("a number of more than ten bytes");
}

#[track_caller]
fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("text")
}
