//! Tells what is wrong with which file, and counts it.

use std::{
    cell::RefCell,
    collections::HashMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::source::SourceStats;

/// So many files that are in trouble are remembered.
const TOLD_MAX: usize = 10_000;

/// So many of them are logged.
const LOGGED_MAX: usize = 20;

/// Where troubles go.
pub(super) struct Teller {
    /// The source's name.
    pub(super) source: Arc<str>,
    stats: Arc<SourceStats>,
    /// What was told of a file that is still in trouble.
    told: RefCell<HashMap<PathBuf, String>>,
}

impl Teller {
    pub(super) fn new(source: Arc<str>, stats: Arc<SourceStats>) -> Self {
        Self { source, stats, told: RefCell::default() }
    }

    /// Counts a trouble, and tells it if it begins an episode.
    pub(super) fn tell(&self, reason: &'static str, path: &Path, message: &str) {
        self.stats.failed(format!("{} {message}", path.display()));
        if self.stats.refused(reason) {
            tracing::warn!(source = &*self.source, reason, "{} {message}", path.display());
        }
    }

    /// The same for a trouble that lasts: it is counted once for each file.
    pub(super) fn tell_once(&self, reason: &'static str, path: &Path, message: &str) {
        let mut told = self.told.borrow_mut();
        if told.get(path).is_some_and(|told| told == message) {
            return;
        }
        if told.len() >= TOLD_MAX {
            told.clear();
        }
        told.insert(path.to_owned(), message.to_owned());
        self.stats.refused(reason);
        self.stats.failed(format!("{} {message}", path.display()));
        // One by one, as each is another trouble, but for a folder full of them.
        if told.len() <= LOGGED_MAX {
            tracing::warn!(source = &*self.source, reason, "{} {message}", path.display());
        }
    }

    /// The file is in no trouble any more.
    pub(super) fn is_fine(&self, path: &Path) {
        let mut told = self.told.borrow_mut();
        if !told.is_empty() && told.remove(path).is_some() {
            tracing::info!(source = &*self.source, "{} can be read now", path.display());
        }
    }

    /// Tells what is no trouble.
    pub(super) fn note(&self, path: &Path, message: &str) {
        tracing::info!(source = &*self.source, "{} {message}", path.display());
    }
}
