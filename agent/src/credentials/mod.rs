//! Credentials for AWS, fit for a device: found, kept, and found again in time.
//!
//! Where they come from is a [`Source`]: the SDK's chain, a file, or the AWS IoT credentials provider, which gives them for a
//! client certificate. A [`Keeper`] holds what a source gave, and asks it again when a file has changed, before they expire,
//! and after an endpoint would not have them. Nothing here prints a secret. `docs/credentials.md` says what a person sets.

pub mod certificate;
mod chain;
mod config;
mod held;
pub mod iot;
mod keeper;
mod time;
pub mod watch;

pub use chain::Way;
pub use config::{Config, FileConfig, Written};
pub use keeper::{Keeper, Source};
pub use time::KnownTime;
