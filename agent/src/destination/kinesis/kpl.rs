//! The aggregate format of the Kinesis Producer Library (aggregation-format.md of awslabs/amazon-kinesis-producer): a magic
//! number, a protocol buffer with tables of keys and the records, and the MD5 of the buffer. Written by hand: three messages
//! with a handful of fields are less to read than a generated encoder, and their sizes have to be known before.

use std::{collections::HashMap, sync::Arc};

use forebay_log_store::{HashKey, Record};

use super::{md5s, tags::Tags};
use crate::destination::aws::buffers;

const MAGIC: [u8; 4] = [0xf3, 0x89, 0x9a, 0xc2];
const MD5_BYTES: usize = 16;

/// What every aggregate has around its records, with an empty hash key.
pub(super) const AROUND: u64 = (MAGIC.len() + MD5_BYTES) as u64 + 2;

/// The fields, each with its wire type: 0 is a number, 2 is bytes with their length in front.
mod field {
    pub(super) const PARTITION_KEYS: u8 = 1 << 3 | 2;
    pub(super) const HASH_KEYS: u8 = 2 << 3 | 2;
    pub(super) const RECORDS: u8 = 3 << 3 | 2;

    pub(super) const PARTITION_KEY: u8 = 1 << 3;
    pub(super) const HASH_KEY: u8 = 2 << 3;
    pub(super) const DATA: u8 = 3 << 3 | 2;
    pub(super) const TAGS: u8 = 4 << 3 | 2;

    pub(super) const TAG_KEY: u8 = 1 << 3 | 2;
    pub(super) const TAG_VALUE: u8 = 2 << 3 | 2;
}

/// What a record adds to an aggregate at the most: as if it had a key of its own, and the last places in the tables.
pub(super) fn bytes_max(record: &Record, tags: &Tags) -> u64 {
    const INDEX: usize = 1 + 3;
    let hash_key = record.explicit_hash_key.map_or(0, |key| INDEX + delimited(key.to_string().len()));
    let inner = INDEX + hash_key + delimited(record.data.len()) + tags_bytes(record, tags);
    (delimited(record.partition_key.len()) + hash_key + delimited(inner)) as u64
}

/// The aggregate of these records, in their order, without the MD5 at its end: it has to be sealed.
pub(super) fn encode(records: &[Arc<Record>], tags: &Tags) -> Vec<u8> {
    let bytes = records.iter().map(|record| bytes_max(record, tags)).sum::<u64>() + AROUND;
    let mut out = buffers::take(usize::try_from(bytes).unwrap_or(0));
    out.extend_from_slice(&MAGIC);
    let (mut keys, mut hash_keys) = (Table::default(), Table::default());
    // A widespread reader, aws_kinesis_agg, gives the first hash key to every record that has none.
    let with_hash_key = records.iter().filter(|record| record.explicit_hash_key.is_some()).count();
    if with_hash_key != 0 && with_hash_key != records.len() {
        put(&mut out, field::HASH_KEYS, b"");
        hash_keys.offset = 1;
    }
    let indices: Vec<_> = records
        .iter()
        .map(|record| {
            let key = keys.index(&*record.partition_key, |key| put(&mut out, field::PARTITION_KEYS, key.as_bytes()));
            let hash_key = record.explicit_hash_key.map(|hash_key| {
                hash_keys.index(hash_key, |key| put(&mut out, field::HASH_KEYS, key.to_string().as_bytes()))
            });
            (key, hash_key)
        })
        .collect();
    let mut inner = Vec::new();
    for (record, (key, hash_key)) in records.iter().zip(indices) {
        inner.clear();
        inner.push(field::PARTITION_KEY);
        put_number(&mut inner, key);
        if let Some(hash_key) = hash_key {
            inner.push(field::HASH_KEY);
            put_number(&mut inner, hash_key);
        }
        out.push(field::RECORDS);
        let tagged = tags_bytes(record, tags);
        put_number(&mut out, (inner.len() + delimited(record.data.len()) + tagged) as u64);
        out.extend_from_slice(&inner);
        put(&mut out, field::DATA, &record.data);
        if tagged > 0 {
            tags.each(record, |name, value| {
                out.push(field::TAGS);
                put_number(&mut out, (delimited(name.len()) + delimited(value.len())) as u64);
                put(&mut out, field::TAG_KEY, name.as_bytes());
                put(&mut out, field::TAG_VALUE, value.as_bytes());
            });
        }
    }
    out
}

/// Ends aggregates; several at a time take less.
pub(super) fn seal<'a>(aggregates: impl Iterator<Item = &'a mut Vec<u8>>) {
    let aggregates: Vec<_> = aggregates.collect();
    let digests = md5s::of_each(&aggregates.iter().map(|aggregate| &aggregate[MAGIC.len()..]).collect::<Vec<_>>());
    aggregates.into_iter().zip(digests).for_each(|(aggregate, digest)| aggregate.extend_from_slice(&digest));
}

fn tags_bytes(record: &Record, tags: &Tags) -> usize {
    let mut bytes = 0;
    tags.each(record, |name, value| bytes += delimited(delimited(name.len()) + delimited(value.len())));
    bytes
}

/// Values in the order in which they came first.
#[derive(Debug)]
struct Table<T> {
    known: HashMap<T, u64>,
    /// Places in front that are taken.
    offset: u64,
    newest: Option<(T, u64)>,
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self { known: HashMap::new(), offset: 0, newest: None }
    }
}

impl<T: Copy + Eq + std::hash::Hash> Table<T> {
    fn index(&mut self, value: T, add: impl FnOnce(T)) -> u64 {
        // Records of a key often come in a row.
        if let Some((newest, index)) = self.newest
            && newest == value
        {
            return index;
        }
        let next = self.offset + self.known.len() as u64;
        let index = *self.known.entry(value).or_insert_with(|| {
            add(value);
            next
        });
        self.newest = Some((value, index));
        index
    }
}

/// The bytes of a field of `len` bytes: its number, its length, itself.
fn delimited(len: usize) -> usize {
    1 + number_bytes(len as u64) + len
}

fn number_bytes(number: u64) -> usize {
    (64 - (number | 1).leading_zeros() as usize).div_ceil(7)
}

fn put(out: &mut Vec<u8>, field: u8, bytes: &[u8]) {
    out.push(field);
    put_number(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Seven bits a byte, the lowest first, and a bit that says that more come.
fn put_number(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// Where a record belongs among the shards.
pub(super) fn hash_key(record: &Record) -> HashKey {
    record.explicit_hash_key.unwrap_or_else(|| HashKey::of(&record.partition_key))
}

/// Whether two records have one hash key. That is an MD5, so it is only taken of keys that differ.
pub(super) fn share_hash_key(one: &Record, other: &Record) -> bool {
    match (one.explicit_hash_key, other.explicit_hash_key) {
        (Some(one), Some(other)) => one == other,
        (None, None) if one.partition_key == other.partition_key => true,
        _ => hash_key(one) == hash_key(other),
    }
}

#[cfg(test)]
mod tests {
    use forebay_log_store::{SequenceNumber, Tag, Timestamp};
    use md5::{Digest as _, Md5};
    use proptest::prelude::*;
    use prost_reflect::{DescriptorPool, DynamicMessage, Value};

    use super::*;
    use crate::{destination::kinesis::tags::TagName, sample::plain};

    /// What aggregation-format.md says, as a descriptor.
    fn schema() -> prost_reflect::MessageDescriptor {
        use prost_reflect::prost_types::{
            DescriptorProto, FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet,
            field_descriptor_proto::{Label, Type},
        };
        let field = |name: &str, number, label: Label, kind: Type, of: Option<&str>| FieldDescriptorProto {
            name: Some(name.into()),
            number: Some(number),
            label: Some(label.into()),
            r#type: Some(kind.into()),
            type_name: of.map(Into::into),
            ..FieldDescriptorProto::default()
        };
        let message =
            |name: &str, field| DescriptorProto { name: Some(name.into()), field, ..DescriptorProto::default() };
        let file = FileDescriptorProto {
            name: Some("kpl.proto".into()),
            syntax: Some("proto2".into()),
            message_type: vec![
                message(
                    "AggregatedRecord",
                    vec![
                        field("partition_key_table", 1, Label::Repeated, Type::String, None),
                        field("explicit_hash_key_table", 2, Label::Repeated, Type::String, None),
                        field("records", 3, Label::Repeated, Type::Message, Some(".Record")),
                    ],
                ),
                message(
                    "Record",
                    vec![
                        field("partition_key_index", 1, Label::Required, Type::Uint64, None),
                        field("explicit_hash_key_index", 2, Label::Optional, Type::Uint64, None),
                        field("data", 3, Label::Required, Type::Bytes, None),
                        field("tags", 4, Label::Repeated, Type::Message, Some(".Tag")),
                    ],
                ),
                message(
                    "Tag",
                    vec![
                        field("key", 1, Label::Required, Type::String, None),
                        field("value", 2, Label::Optional, Type::String, None),
                    ],
                ),
            ],
            ..FileDescriptorProto::default()
        };
        let pool = DescriptorPool::from_file_descriptor_set(FileDescriptorSet { file: vec![file] }).expect("a schema");
        pool.get_message_by_name("AggregatedRecord").expect("it is there")
    }

    /// Partition key, hash key, data and tags of each record, read by somebody else's decoder.
    type Read = (String, Option<String>, Vec<u8>, Vec<(String, String)>);

    fn decode(schema: &prost_reflect::MessageDescriptor, aggregate: &[u8]) -> Vec<Read> {
        let buffer = aggregate.strip_prefix(&MAGIC).expect("the magic number");
        let (buffer, digest) = buffer.split_at(buffer.len() - MD5_BYTES);
        assert_eq!(Md5::digest(buffer)[..], *digest);
        let message = DynamicMessage::decode(schema.clone(), buffer).expect("a message");
        let list = |message: &DynamicMessage, name: &str| -> Vec<Value> {
            message.get_field_by_name(name).expect("a field").as_list().expect("repeated").to_vec()
        };
        let texts = |name: &str| -> Vec<String> {
            list(&message, name).iter().map(|text| text.as_str().expect("text").to_owned()).collect()
        };
        let (keys, hash_keys) = (texts("partition_key_table"), texts("explicit_hash_key_table"));
        let at = |record: &DynamicMessage, name: &str| {
            record
                .has_field_by_name(name)
                .then(|| record.get_field_by_name(name).expect("a field").as_u64().expect("u64"))
        };
        let read = |record: &Value| {
            let record = record.as_message().expect("a record");
            let tags = list(record, "tags");
            let text = |tag: &Value, name: &str| {
                let tag = tag.as_message().expect("a tag");
                tag.get_field_by_name(name).expect("a field").as_str().expect("text").to_owned()
            };
            (
                keys[at(record, "partition_key_index").expect("required") as usize].clone(),
                at(record, "explicit_hash_key_index").map(|index| hash_keys[index as usize].clone()),
                record.get_field_by_name("data").expect("a field").as_bytes().expect("bytes").to_vec(),
                tags.iter().map(|tag| (text(tag, "key"), text(tag, "value"))).collect(),
            )
        };
        list(&message, "records").iter().map(read).collect()
    }

    fn record() -> impl Strategy<Value = Arc<Record>> {
        let key = prop_oneof!["[a-c]", "\\PC{1,40}", "x{200}"];
        let hash_key = prop::option::weighted(0.3, prop_oneof![Just(0), Just(u128::MAX), any::<u128>()]);
        let data =
            prop_oneof![prop::collection::vec(any::<u8>(), 0..200), prop::collection::vec(any::<u8>(), 100..20_000)];
        (key, hash_key, data, any::<u64>(), any::<u64>(), any::<bool>()).prop_map(
            |(key, hash_key, data, number, arrival, trusted)| {
                Arc::new(Record {
                    sequence_number: SequenceNumber(number),
                    arrival: Timestamp(arrival),
                    arrival_trusted: trusted,
                    explicit_hash_key: hash_key.map(HashKey),
                    tags: vec![Tag { name: "topic".into(), value: "a/b".into() }],
                    ..plain(&key, data)
                })
            },
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]
        #[test]
        fn every_aggregate_holds_exactly_its_records_and_is_no_larger_than_reckoned(
            records in prop::collection::vec(record(), 1..60),
            names in prop::sample::subsequence(vec![TagName::SequenceNumber, TagName::Arrival, TagName::Id, TagName::Own], 0..=4),
        ) {
            let tags = Tags::new(&names, "truck \"7\"", "telemetry");
            let mut aggregate = encode(&records, &tags);
            seal([&mut aggregate].into_iter());
            let reckoned = records.iter().map(|record| bytes_max(record, &tags)).sum::<u64>() + AROUND;
            prop_assert!(aggregate.len() as u64 <= reckoned, "{} bytes, {reckoned} reckoned", aggregate.len());
            let expected: Vec<Read> = records
                .iter()
                .map(|record| {
                    let mut told = Vec::new();
                    tags.each(record, |name, value| told.push((name.to_owned(), value.to_owned())));
                    let hash_key = record.explicit_hash_key.map(|key| key.to_string());
                    (record.partition_key.to_string(), hash_key, record.data.to_vec(), told)
                })
                .collect();
            prop_assert_eq!(decode(&schema(), &aggregate), expected);
        }
    }

    #[test]
    fn numbers_are_as_long_as_they_say() {
        for number in [0, 1, 127, 128, 16_383, 16_384, 1 << 21, u64::from(u32::MAX), u64::MAX] {
            let mut out = Vec::new();
            put_number(&mut out, number);
            assert_eq!(out.len(), number_bytes(number), "{number}");
        }
    }
}
