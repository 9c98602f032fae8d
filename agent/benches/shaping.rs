//! What a source's steps cost: records per second of one core, by step, for a sensor's record of some 170 bytes.
//!
//! `cargo bench -p forebay --bench shaping`. Compare rows with each other, not with another machine.

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use forebay::{
    config::{Problems, reader},
    ingest::Fields,
    source::shape::{Arrived, Config, Raw},
};
use forebay_log_store::Timestamp;

const RECORD: &str = r#"{"device":{"id":"sensor-0042","kind":"pump"},"ts":1795608000250,"temp":21.53,"humidity":48.2,"pressure":1013.25,"battery":3.71,"position":{"lat":48.7758,"lon":9.1829}}"#;

const STEPS: [(&str, &str); 9] = [
    ("nothing", ""),
    ("tags", "tags = { site = 'a' }"),
    ("decode json", "decode = 'json'"),
    ("filter", "filter = { field = 'temp', above = 20 }"),
    ("select, rename", "select = ['temp', 'ts', '/device/id']\nrename = { temp = 't' }"),
    ("timestamp", "timestamp = { field = 'ts', format = 'unix-ms' }"),
    ("deduplicate", "deduplicate = { window = '1s', by = '{json:/ts}' }"),
    ("envelope", "envelope = true"),
    (
        "all of these",
        "tags = { site = 'a' }\nfilter = { field = 'temp', above = 20 }\nselect = ['temp', 'ts', '/device/id']\nrename = { temp = 't' }\n\
         timestamp = { field = 'ts', format = 'unix-ms' }\ndeduplicate = { window = '1s', by = '{json:/n}' }\nenvelope = true",
    ),
];

fn main() {
    println!("| steps | records/s | MB/s |\n|---|---|---|");
    for (name, toml) in STEPS {
        measure(name, toml, RECORD.as_bytes());
    }
    let value: serde_json::Value = serde_json::from_str(RECORD).expect("JSON");
    let mut cbor = Vec::new();
    ciborium::into_writer(&value, &mut cbor).expect("CBOR");
    measure("decode cbor", "decode = 'cbor'", &cbor);
    measure(
        "decode cbor, filter, select",
        "decode = 'cbor'\nfilter = { field = 'temp', above = 20 }\nselect = ['temp']",
        &cbor,
    );
    let line = b"sensor-0042,pump,1795608000250,21.53,48.2,1013.25,3.71,48.7758,9.1829";
    measure(
        "decode csv",
        "decode = { format = 'csv', header = ['a','b','c','d','e','f','g','h','i'], numbers = true }",
        line,
    );
}

fn measure(name: &str, toml: &str, payload: &[u8]) {
    let mut problems = Problems::default();
    let config: Option<Config> = reader::read(toml.parse().expect("TOML"), "s", &[], &mut problems);
    let shape = config.and_then(|config| config.validate("s", &mut problems)).expect("right");
    let shape = shape.for_source("gateway", "plant", 0);
    let fields = Fields { source: "plant", named: &[], payload, byte: None };
    let (began, mut records) = (Instant::now(), 0_u64);
    while began.elapsed() < Duration::from_secs(1) {
        for _ in 0..1000 {
            records += 1;
            // A window of its own for each record, so that none is a duplicate.
            let now = Arrived { at: Timestamp(records), trusted: true, since_boot: Duration::from_secs(records) };
            let raw = Raw { payload, tags: &[], fields, now };
            shape.apply(&raw, &mut |shaped| _ = black_box(shaped.expect("taken").data));
        }
    }
    let per_second = records as f64 / began.elapsed().as_secs_f64();
    println!("| {name} | {per_second:.0} | {:.0} |", per_second * payload.len() as f64 / 1e6);
}
