//! Black-box tests: the real `forebay` binary between real devices' traffic and real Kinesis servers.
//!
//! `tests/run` installs what they run against. Every test starts its own instances on free ports, waits for conditions
//! rather than for time to pass, and stops what it started by process id. One binary, one module per behaviour.

#![allow(clippy::big_endian_bytes, reason = "MQTT and what else comes over a network is big-endian")]

mod aggregation;
mod api;
mod backlog;
mod bad_input;
mod catch_up;
mod cli;
mod clock;
mod connections;
mod dead_letter_life;
mod dead_letters;
mod duplicates;
mod durability;
mod firehose_destination;
mod gps_source;
mod harness;
mod hearing;
mod hostile;
mod http_destination;
mod iot_credentials;
mod journald_source;
mod lifecycle;
mod links;
mod log;
mod modbus_source;
mod mqtt_listener;
mod mqtt_source;
mod oracle;
mod pipeline;
mod restart;
mod sensor_source;
mod serial_source;
mod shaping;
mod streams;
#[allow(
    dead_code,
    unused_imports,
    reason = "the harness offers a whole vocabulary, of which a test uses what it needs"
)]
mod support;
mod tail_source;
mod truck;
mod ways_out;
