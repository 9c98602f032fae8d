//! Bad input and bad surroundings: each gets a clear message, costs nothing that was acknowledged, and the agent goes on.

mod configuration;
mod data_dir;
mod endpoint;
mod full_disk;
mod listener;
mod small_quota;
