//! Which files there are for a source: its patterns, looked up.

use std::{
    collections::{BTreeMap, HashSet},
    fs::{self, Metadata},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use super::{Settings, content::Form, mark::Identity, succession::turn};

/// What changes when a file is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    /// Seconds and nanoseconds, by the machine's clock. Only compared with others of the same file, or to order files.
    modified: (i64, i64),
    pub(super) bytes: u64,
}

impl Stamp {
    pub(super) fn of(metadata: &Metadata) -> Self {
        Self { modified: (metadata.mtime(), metadata.mtime_nsec()), bytes: metadata.len() }
    }
}

/// A file that a pattern matches.
#[derive(Debug)]
pub(super) struct Listed {
    pub(super) identity: Identity,
    pub(super) path: PathBuf,
    /// The file itself, if the path is a link.
    pub(super) real: Option<PathBuf>,
    pub(super) stamp: Stamp,
}

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Listing {
    /// Each file once, the one written longest ago first.
    pub(super) files: Vec<Listed>,
    /// What cannot be read, why, and the reason to count it under.
    pub(super) troubles: Vec<(PathBuf, &'static str, String)>,
}

/// Looks the patterns up.
pub(super) fn list(settings: &Settings) -> Listing {
    let mut listing = Listing::default();
    let mut paths = BTreeMap::new();
    for pattern in &settings.paths {
        let is_wild = pattern.contains(['*', '?', '[']);
        if !is_wild {
            paths.insert(PathBuf::from(pattern), false);
            continue;
        }
        for found in glob::glob(pattern).into_iter().flatten() {
            match found {
                Ok(path) => drop(paths.entry(path).or_insert(true)),
                Err(error) => listing.trouble(error.path(), error.error()),
            }
        }
    }
    let mut known = HashSet::new();
    for (path, is_wild) in paths.into_iter().filter(|(path, _)| settings.takes(path)) {
        match stat(&path) {
            Ok((metadata, real)) if metadata.is_file() => {
                let identity = Identity::of(&metadata);
                if known.insert(identity) {
                    listing.files.push(Listed { identity, path, real, stamp: Stamp::of(&metadata) });
                }
            }
            // A pattern for files may well match folders, but a path is meant.
            Ok((metadata, _)) if metadata.is_dir() && is_wild => {}
            Ok((metadata, _)) => {
                let what = if metadata.is_dir() { "a directory" } else { "a pipe, socket or device" };
                listing.troubles.push((path, "not-a-file", format!("is {what}, not a file")));
            }
            // It may come, or its link's target.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => listing.trouble(&path, &error),
        }
    }
    // Files written within one tick of the kernel's clock are told apart by their names; of a file and what it is just being
    // compressed into, the file comes first.
    listing
        .files
        .sort_by_cached_key(|file| (file.stamp.modified, turn(&file.path), Form::of(&file.path), file.path.clone()));
    listing
}

impl Listing {
    fn trouble(&mut self, path: &Path, error: &io::Error) {
        if error.kind() != io::ErrorKind::NotFound {
            self.troubles.push((path.to_owned(), "unreadable", format!("cannot be read: {error}")));
        }
    }
}

fn stat(path: &Path) -> io::Result<(Metadata, Option<PathBuf>)> {
    let metadata = fs::symlink_metadata(path)?;
    if metadata.is_symlink() {
        return Ok((fs::metadata(path)?, Some(fs::canonicalize(path)?)));
    }
    Ok((metadata, None))
}

#[cfg(test)]
mod tests {
    use std::{
        fs::File,
        time::{Duration, SystemTime},
    };

    use super::*;
    use crate::{
        config::Problems,
        source::{Config as _, tail::Config},
    };

    /// What a program writes just before and just after a rotation has one time, since the kernel's clock ticks in milliseconds.
    #[test]
    fn files_written_at_the_same_time_are_listed_as_they_were_rotated() {
        let dir = tempfile::tempdir().expect("a directory");
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let make = |name: &str, written: SystemTime| {
            let file = File::create(dir.path().join(name)).expect("a file");
            file.set_modified(written).expect("a time");
        };
        for name in ["app.log", "app.log.1", "app.log.2", "app.log.2.gz", "app.log.10"] {
            make(name, now);
        }
        make("app.log.3", now + Duration::from_secs(1));
        let pattern = dir.path().join("app.log*").display().to_string();
        let config = Config { paths: Some(vec![pattern]), exclude: Vec::new(), ..Config::default() };
        let settings = config.validate("s", &mut Problems::default()).expect("right");
        let names = list(&settings).files.into_iter().map(|file| file.path.file_name().expect("a name").to_owned());
        assert_eq!(
            names.collect::<Vec<_>>(),
            ["app.log.10", "app.log.2", "app.log.2.gz", "app.log.1", "app.log", "app.log.3"]
        );
    }
}
