//! Stamps of files: two looks tell whether one was changed or replaced in between.

use std::{fs, os::unix::fs::MetadataExt as _, path::PathBuf};

/// What some files look like from outside.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Stamp(Vec<Option<(u64, u64, i64, i64)>>);

impl Stamp {
    /// As they are now. A file that is not there is something, too: it may come.
    pub(crate) fn of<'a>(files: impl IntoIterator<Item = &'a PathBuf>) -> Self {
        let look = |file: &PathBuf| {
            let metadata = fs::metadata(file).ok()?;
            Some((metadata.ino(), metadata.size(), metadata.mtime(), metadata.mtime_nsec()))
        };
        Self(files.into_iter().map(look).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_replaced_changed_or_gone_is_noticed() {
        let dir = tempfile::tempdir().expect("a directory");
        let files = [dir.path().join("keys")];
        let mut seen = vec![Stamp::of(&files)];
        let mut step = |text: Option<&str>| {
            match text {
                Some(text) => {
                    fs::write(dir.path().join("new"), text).expect("written");
                    fs::rename(dir.path().join("new"), &files[0]).expect("renamed");
                }
                None => fs::remove_file(&files[0]).expect("removed"),
            }
            let now = Stamp::of(&files);
            assert_ne!(seen.last(), Some(&now));
            assert_eq!(now, Stamp::of(&files));
            seen.push(now);
        };
        step(Some("one"));
        step(Some("two"));
        step(None);
    }
}
