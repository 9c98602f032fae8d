//! The forebay agent: sources, ingest, deliveries, destinations, the local API and the command line.
//!
//! Everything lives in this library so that tests reach it; `main.rs` only maps the outcome to an exit code.

pub mod agent;
pub mod api;
mod causes;
pub mod cli;
pub mod config;
pub mod credentials;
pub mod delivery;
pub mod demo;
pub mod destination;
pub mod disk_room;
pub mod edge_sequence;
mod file_stamp;
pub mod framing;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
pub mod ingest;
pub mod links;
pub mod log_events;
pub mod logging;
pub mod outgoing;
mod printable;
pub mod record_tags;
#[cfg(any(test, fuzzing))]
mod sample;
pub mod serial_port;
pub mod service_manager;
mod small_file;
pub mod source;
pub mod status;
pub mod streams;
pub mod supervise;
pub mod tls;
