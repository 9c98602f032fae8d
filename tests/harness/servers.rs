//! Kinesalite and moto through boto3.

use std::time::Duration;

use crate::support::kinesis::{Kinesis, Received};
use crate::support::{Kinesalite, Moto};

const SOON: Duration = Duration::from_secs(20);

#[test]
fn kinesalite_gives_back_what_was_put() {
    let server = Kinesalite::start();
    gives_back_what_was_put(&server.kinesis());
}

#[test]
fn moto_gives_back_what_was_put() {
    let server = Moto::start();
    gives_back_what_was_put(&server.kinesis());
}

fn gives_back_what_was_put(kinesis: &Kinesis) {
    kinesis.create_stream("plant", 2);
    assert_eq!(kinesis.read("plant", 0, SOON), []);

    let answer = kinesis.put("plant", SOON, &["a=1", "b=one", "a=2", "ü=3"]);
    assert_eq!(answer["failed"], 0);

    let records = kinesis.read("plant", 4, SOON);
    assert_eq!(records.len(), 4);
    assert_eq!(data_of(&records, "a"), ["1", "2"]);
    assert_eq!(data_of(&records, "b"), ["one"]);
    assert_eq!(data_of(&records, "ü"), ["3"]);
}

fn data_of(records: &[Received], partition_key: &str) -> Vec<String> {
    records
        .iter()
        .filter(|record| record.partition_key == partition_key)
        .map(|record| String::from_utf8_lossy(&record.data).into_owned())
        .collect()
}
