//! Deliveries: the task between one stream and one destination.
//!
//! A delivery decides when and what is sent, and sent again; a destination only encodes, sends, and tells what became of
//! it. All deciding is done by `window`, which is pure; `run` is the loop around it.

mod backoff;
mod config;
mod cursors;
pub mod dead_letter;
mod finished;
#[cfg(test)]
mod histories;
mod run;
#[cfg(test)]
mod simulation;
mod stats;
#[cfg(test)]
mod tests;
mod unfinished;
mod way_out;
mod window;

pub use config::{CatchUp, Config, Ordering};
pub use run::Delivery;
pub use stats::{DeliveryStats, Down, LastError, Snapshot};
pub use unfinished::{Part, Unfinished};
