//! The `tail` source: lines of files, over rotation, truncation, compression and kills.
//!
//! Promises: every line of a file that stays readable long enough becomes a record once, in order; how far a file was read is committed
//! in the same block as the records that were read of it (`mark.rs`), so that a kill neither loses nor repeats any. A file is its
//! inode and what was read of it (`seen.rs`), never its name. docs/tail.md says what is promised of which rotation.
//!
//! `cut.rs` (pure) cuts records, `tracked.rs` reads one file, `tailer.rs` decides over all of them, `succession.rs` finds what became of
//! one, `run.rs` brings records to the log. Nothing of a file's content is in memory but what is on its way.

mod config;
mod content;
mod cut;
#[cfg(test)]
mod histories;
mod listing;
mod mark;
mod run;
mod seen;
mod succession;
mod tailer;
mod tell;
mod tracked;
mod watch;

pub use config::{Config, Settings};
#[cfg(any(test, fuzzing))]
pub use cut::fuzz as fuzz_lines;
#[cfg(any(test, fuzzing))]
pub use mark::fuzz as fuzz_mark;

use super::{BoxFuture, Source, Type, kind};
use crate::config::reader;

/// The row in the table of types.
pub(super) const TYPE: Type = Type {
    name: "tail",
    takes: "lines of files, by patterns; rotated, truncated, compressed; records of several lines",
    acknowledged: "position committed with the records",
    // Lines of one file keep their order.
    partition_key: "{file}",
    placeholders: &["file"],
    keys: reader::keys_of::<Config>,
    read: kind::read::<Config>,
};

impl super::Settings for Settings {
    fn describe(&self) -> String {
        format!("tail of {}", self.paths.join(", "))
    }

    fn warnings(&self) -> Vec<(&'static str, String)> {
        let absent = self.paths.iter().map(|pattern| config::folder_of(pattern)).filter(|folder| !folder.is_dir());
        absent.map(|folder| ("paths", format!("there is no folder {}", folder.display()))).collect()
    }

    fn bind(&self) -> BoxFuture<'_, anyhow::Result<Box<dyn Source>>> {
        kind::at_once(self, run::run)
    }
}
