//! The harness proves itself on the counterparts: a test that stands on it can trust what it says.

mod aggregates;
mod brokers;
mod links;
mod processes;
mod servers;
mod upstream;
