//! The `journald` source: entries of systemd's journal, as JSON objects with all their fields.
//!
//! systemd's own `journalctl` reads the journal: its files have changed their format several times, libsystemd cannot be linked
//! into a static binary, and no pure-Rust reader follows all of compression, keyed hashes and compact mode. It is a child process that
//! costs nothing while nothing is written. The cursor of an entry is committed in the same block as its record, so that a kill
//! neither loses nor repeats any.

mod config;
mod entry;
mod lines;
mod run;

pub use config::{Config, Settings};
#[cfg(any(test, fuzzing))]
pub use entry::fuzz;

use super::{BoxFuture, Source, Type, kind};
use crate::config::reader;

/// The row in the table of types.
pub(super) const TYPE: Type = Type {
    name: "journald",
    takes: "entries of systemd's journal as JSON, by unit, priority and boot",
    acknowledged: "cursor committed with the records",
    partition_key: "{unit}",
    placeholders: &["unit", "host"],
    keys: reader::keys_of::<Config>,
    read: kind::read::<Config>,
};

impl super::Settings for Settings {
    fn describe(&self) -> String {
        let selection: Vec<_> = self.selection.iter().map(|argument| argument.to_string_lossy()).collect();
        format!("systemd's journal {}", selection.join(" ")).trim_end().to_owned()
    }

    fn bind(&self) -> BoxFuture<'_, anyhow::Result<Box<dyn Source>>> {
        kind::at_once(self, run::run)
    }
}
