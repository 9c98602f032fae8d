//! The ways out of the gateway: what is known of them, and what may be asked of them.
//!
//! `interfaces` hears from the kernel when one comes up. The rest is `[links.NAME]`: `policy` decides (pure, with
//! `schedule`, `budget`, `bandwidth` and `turns`), `link` is what deliveries share of it, `metered` looks whether the limits
//! hold at the moment, and `spent` keeps what a day has cost over a restart. docs/links.md is for the user.

mod bandwidth;
mod budget;
mod calendar;
mod config;
mod interfaces;
mod link;
mod metered;
mod policy;
mod rate;
mod schedule;
#[cfg(test)]
mod simulation;
mod spent;
mod turns;

pub use config::{Config, WhenSpent};
pub use interfaces::{Changes, Interfaces};
pub use link::{Link, LinkStats, Links, Way};
pub use policy::{Answer, Held};
#[cfg(test)]
pub(crate) use {budget::Spent, policy::Moment};
