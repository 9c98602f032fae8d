//! What is kept of a file in the stream's marks, beside the records that were read of it. Pure.

use std::{
    ffi::OsStr,
    fmt,
    fs::Metadata,
    os::unix::{ffi::OsStrExt, fs::MetadataExt},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{content::Form, seen::Seen};

/// The first byte of every value. A later version may add others.
const VERSION: u8 = 1;

/// Which file, as the kernel has it. A number may be used again once its file is deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Identity {
    pub(super) device: u64,
    pub(super) inode: u64,
}

impl Identity {
    pub(super) fn of(metadata: &Metadata) -> Self {
        Self { device: metadata.dev(), inode: metadata.ino() }
    }

    fn parse(text: &str) -> Option<Self> {
        let (device, inode) = text.split_once('-')?;
        let number = |text| u64::from_str_radix(text, 16).ok();
        Some(Self { device: number(device)?, inode: number(inode)? })
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}-{:x}", self.device, self.inode)
    }
}

/// What is kept of one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) seen: Seen,
    /// Whether it is read to its end, and will not grow.
    pub(super) complete: bool,
    pub(super) form: Form,
    /// Where it was first found; names its records.
    pub(super) path: PathBuf,
    /// Where it was last found.
    pub(super) at: PathBuf,
}

/// The same as it is written: behind the version in postcard's encoding.
#[derive(Serialize, Deserialize)]
struct Written<'a> {
    seen: Seen,
    complete: bool,
    form: Form,
    path: &'a [u8],
    /// Empty if it is the same.
    at: &'a [u8],
}

/// What the names of all marks of a source begin with.
pub(super) fn prefix(source: &str) -> String {
    format!("tail/{source}/")
}

/// The mark that says that the source has looked for files before.
pub(super) fn began(source: &str) -> String {
    format!("tail/{source}/began")
}

/// The name of a file's mark.
pub(super) fn name(source: &str, identity: Identity) -> String {
    format!("tail/{source}/{identity}")
}

/// The file that a mark is of.
pub(super) fn identity(source: &str, name: &str) -> Option<Identity> {
    Identity::parse(name.strip_prefix(&prefix(source))?)
}

impl Mark {
    pub(super) fn encode(&self) -> Vec<u8> {
        let path = self.path.as_os_str().as_bytes();
        let at = if self.at == self.path { &[] } else { self.at.as_os_str().as_bytes() };
        let written = Written { seen: self.seen, complete: self.complete, form: self.form, path, at };
        postcard::to_extend(&written, vec![VERSION]).unwrap_or_default()
    }

    pub(super) fn decode(value: &[u8]) -> Option<Self> {
        let (VERSION, rest) = value.split_first().map(|(version, rest)| (*version, rest))? else { return None };
        let Written { seen, complete, form, path, at } = postcard::from_bytes(rest).ok()?;
        let path_of = |bytes: &[u8]| Path::new(OsStr::from_bytes(bytes)).to_owned();
        Some(Self { seen, complete, form, path: path_of(path), at: path_of(if at.is_empty() { path } else { at }) })
    }
}

/// For fuzzing: a mark of any bytes is none, or is one that can be written and read again.
#[cfg(any(test, fuzzing))]
pub fn fuzz(bytes: &[u8]) {
    if let Some(mark) = Mark::decode(bytes) {
        assert_eq!(Mark::decode(&mark.encode()), Some(mark));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_read_as_it_was_written() {
        let mark = Mark {
            seen: Seen::new(5, b"12345", b"12345"),
            complete: false,
            form: Form::Plain,
            path: "/var/log/a.log".into(),
            at: "/var/log/a.log.1".into(),
        };
        assert_eq!(Mark::decode(&mark.encode()), Some(mark.clone()));
        let mark = Mark { at: mark.path.clone(), complete: true, form: Form::Gzip, ..mark };
        assert_eq!(Mark::decode(&mark.encode()), Some(mark.clone()));
        // 10,000 of them have to fit into a stream's marks.
        assert!(mark.encode().len() <= 32, "{}", mark.encode().len());
        for wrong in [&[][..], &[2], &[1], &[1, 0, 0]] {
            assert_eq!(Mark::decode(wrong), None);
        }
    }

    #[test]
    fn a_name_gives_its_file_back() {
        let file = Identity { device: 0xfd00, inode: 77 };
        assert_eq!(name("logs", file), "tail/logs/fd00-4d");
        assert_eq!(identity("logs", "tail/logs/fd00-4d"), Some(file));
        assert_eq!(identity("logs", &began("logs")), None);
        assert_eq!(identity("log", "tail/logs/fd00-4d"), None);
    }
}
