//! The disk as the log sees it: a few calls, small enough to simulate.
//!
//! Every file of the log is touched through this trait, except the catalogue's own, which sled keeps. What is assumed of
//! a disk stands in `docs/format.md`.

mod real;
#[cfg(test)]
pub(crate) mod sim;

use std::{
    fmt,
    io::{self, IoSlice},
    path::Path,
};

pub(crate) use real::RealDisk;

/// A file system.
pub(crate) trait Disk: Send + Sync + fmt::Debug {
    /// Creates a directory and its missing parents, and makes their entries survive a power cut.
    fn create_dir(&self, dir: &Path) -> io::Result<()>;
    /// The names in a directory, in no order.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;
    /// Whether there is a file of this name: no directory, pipe, socket or device.
    fn is_file(&self, path: &Path) -> io::Result<bool>;
    /// Creates a file that does not exist yet.
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;
    /// Opens a file for reading and writing. What is no regular file is not opened.
    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;
    /// Opens a file for reading only. What is no regular file is not opened.
    fn open_read(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;
    /// Renames a file within its directory, replacing what has the new name.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Removes an empty directory.
    fn remove_dir(&self, dir: &Path) -> io::Result<()>;
    /// Makes creations, renames and removals inside `dir` survive a power cut.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// Size and free space of the file system that holds `dir`.
    fn space(&self, dir: &Path) -> io::Result<Space>;
    /// Bytes of all files below `dir`, by their lengths.
    fn bytes_below(&self, dir: &Path) -> io::Result<u64>;
    /// Takes the exclusive lock that this file stands for, until the result is dropped.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] if another process has it.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>>;
}

/// What a file system tells of its room, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Space {
    pub(crate) size: u64,
    /// What we could still write; what is reserved for root is not ours.
    pub(crate) free: u64,
}

/// An open file.
pub(crate) trait DiskFile: Send + Sync {
    /// Its length in bytes.
    fn len(&self) -> io::Result<u64>;
    /// Reads at most `buf.len()` bytes at `offset`; fewer only at the end of the file.
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize>;
    /// Writes all of `buf` at `offset`. After an error any part of it may have been written.
    fn write_at(&self, offset: u64, buf: &[u8]) -> io::Result<()>;
    /// The same for bytes that lie in several places. What becomes of `parts` is left open.
    fn write_parts_at(&self, offset: u64, parts: &mut [IoSlice<'_>]) -> io::Result<()> {
        let parts: Vec<&[u8]> = parts.iter().map(|part| &**part).collect();
        self.write_at(offset, &parts.concat())
    }
    /// Makes the file's bytes and length survive a power cut. Not its name: see [`Disk::sync_dir`].
    fn sync(&self) -> io::Result<()>;
    /// Cuts the file to `len` bytes.
    fn truncate(&self, len: u64) -> io::Result<()>;
}

/// Whether an error means that there is no room, which passes, rather than that the disk is failing.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge)
}
