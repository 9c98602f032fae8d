//! Configuration: TOML read into plain data, then checked once; every problem is reported, with its key path.
//!
//! Each module owns its own `Config`; this one composes them, and checks what one section says about another. It opens
//! nothing but the configuration itself and the files that hold secrets.

pub mod agent;
pub mod clock;
pub mod distinct;
pub mod duration;
mod letter_room;
mod load;
pub mod log;
pub mod min_free;
pub mod octets;
mod problem;
pub mod reader;
mod references;
mod secret;
pub mod size;
pub mod stream;
#[cfg(test)]
mod tests;
mod warnings;

pub use load::{Config, Destination, Error, Source, Whereabouts};
pub use octets::Octets;
pub use problem::{Problem, Problems, key_path, names, there_are};
pub use secret::Secret;
