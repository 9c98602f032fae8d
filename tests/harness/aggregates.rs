//! The judge's reader of aggregates, on what AWS's own library for Python writes.

use std::panic::catch_unwind;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

use crate::support::kpl::{Inner, consumed, records_of};
use crate::support::python::python_with;
use crate::support::upstream::hash_key;

const SCRIPT: &str = r#"
import base64, json, sys
from aws_kinesis_agg.aggregator import RecordAggregator
aggregator = RecordAggregator()
for key, hash_key, data in json.loads(sys.argv[1]):
    aggregator.add_user_record(key, data, hash_key)
print(json.dumps(base64.b64encode(aggregator.clear_and_get().get_contents()[2]).decode()))
"#;

fn aggregate(records: &[(&str, String, String)]) -> Vec<u8> {
    let records = serde_json::to_string(records).expect("strings are always JSON");
    let printed = python_with("kpl-python", SCRIPT, &[&records]).pop().expect("one line");
    BASE64_STANDARD.decode(printed.as_str().expect("text")).expect("base64")
}

#[test]
fn reads_every_record_of_an_aggregate() {
    let long = "x".repeat(70_000);
    let records: Vec<_> = (0..300)
        .map(|number| {
            let key = ["a", "ü", "plant/7"][number % 3];
            let data = if number == 150 { long.clone() } else { number.to_string() };
            (key, (u128::MAX - number as u128 % 200).to_string(), data)
        })
        .collect();
    let expected = records.iter().map(|(key, hash_key, data)| Inner {
        partition_key: (*key).to_owned(),
        explicit_hash_key: Some(hash_key.clone()),
        data: data.clone().into_bytes(),
        tags: Vec::new(),
    });
    assert_eq!(records_of(&aggregate(&records)).expect("an aggregate"), expected.collect::<Vec<_>>());
}

#[test]
fn leaves_out_what_belongs_to_other_shards() {
    let record = |hash_key: u128| ("a", hash_key.to_string(), hash_key.to_string());
    let data = aggregate(&[record(1), record(9), record(5)]);
    let got = consumed("a".to_owned(), data, &(2..=9));
    assert_eq!(got, [("a".to_owned(), b"9".to_vec()), ("a".to_owned(), b"5".to_vec())]);
    let plain = consumed("a".to_owned(), b"plain".to_vec(), &(2..=9));
    assert_eq!(plain, [("a".to_owned(), b"plain".to_vec())], "whoever sent it alone chose its shard by its key");
    assert_eq!(hash_key("a"), 0x0cc1_75b9_c0f1_b6a8_31c3_99e2_6977_2661, "as the MD5 of RFC 1321");
}

#[test]
fn takes_no_aggregate_with_another_digest() {
    let mut data = aggregate(&[("a", "1".to_owned(), "data".to_owned())]);
    let last = data.len() - 20;
    data[last] ^= 1;
    assert!(catch_unwind(|| records_of(&data)).is_err());
}
