//! The machine's file system.

#![expect(clippy::disallowed_methods, reason = "this is where the real files are touched")]

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, ErrorKind, IoSlice},
    os::unix::fs::FileExt,
    path::Path,
};

use super::{Disk, DiskFile, Space};

/// So many parts Linux takes at a time.
const PARTS_MAX: usize = 1024;

/// The machine's file system.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RealDisk;

impl Disk for RealDisk {
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        if dir.is_dir() {
            return Ok(());
        }
        if let Some(parent) = dir.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            self.create_dir(parent)?;
        }
        match fs::create_dir(dir) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        match dir.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => self.sync_dir(parent),
            _ => self.sync_dir(Path::new(".")),
        }
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        // A name that is not UTF-8 is none of ours.
        fs::read_dir(dir)?
            .filter_map(|entry| entry.map(|entry| entry.file_name().into_string().ok()).transpose())
            .collect()
    }

    fn is_file(&self, path: &Path) -> io::Result<bool> {
        Ok(fs::metadata(path)?.is_file())
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(OpenOptions::new().read(true).write(true).create_new(true).open(path)?))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        must_be_regular(path)?;
        Ok(Box::new(OpenOptions::new().read(true).write(true).open(path)?))
    }

    fn open_read(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        must_be_regular(path)?;
        Ok(Box::new(File::open(path)?))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn remove_dir(&self, dir: &Path) -> io::Result<()> {
        fs::remove_dir(dir)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        File::open(dir)?.sync_all()
    }

    fn space(&self, dir: &Path) -> io::Result<Space> {
        let told = rustix::fs::statvfs(dir)?;
        let bytes = |blocks: u64| blocks.saturating_mul(told.f_frsize);
        Ok(Space { size: bytes(told.f_blocks), free: bytes(told.f_bavail) })
    }

    fn bytes_below(&self, dir: &Path) -> io::Result<u64> {
        let mut bytes = 0;
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            // What was removed meanwhile takes nothing.
            bytes += match entry.metadata() {
                Ok(metadata) if metadata.is_dir() => self.bytes_below(&entry.path()).or_else(gone_is_nothing)?,
                Ok(metadata) => metadata.len(),
                Err(error) => gone_is_nothing(error)?,
            };
        }
        Ok(bytes)
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        match file.try_lock() {
            Ok(()) => Ok(Box::new(file)),
            Err(TryLockError::WouldBlock) => Err(ErrorKind::WouldBlock.into()),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}

/// Before it is opened: opening a pipe waits for whoever opens its other end.
fn must_be_regular(path: &Path) -> io::Result<()> {
    match fs::metadata(path)?.is_file() {
        true => Ok(()),
        false => Err(io::Error::new(ErrorKind::InvalidInput, "it is no regular file")),
    }
}

fn gone_is_nothing(error: io::Error) -> io::Result<u64> {
    if error.kind() == ErrorKind::NotFound { Ok(0) } else { Err(error) }
}

impl DiskFile for File {
    fn len(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buf.len() {
            match FileExt::read_at(self, &mut buf[filled..], offset + filled as u64) {
                Ok(0) => break,
                Ok(n) => filled += n,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }

    fn write_at(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        self.write_all_at(buf, offset)
    }

    fn write_parts_at(&self, mut offset: u64, mut parts: &mut [IoSlice<'_>]) -> io::Result<()> {
        // Those without a byte would look as if nothing could be written.
        IoSlice::advance_slices(&mut parts, 0);
        while !parts.is_empty() {
            let together = parts.len().min(PARTS_MAX);
            match rustix::io::pwritev(self, &parts[..together], offset) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(written) => {
                    IoSlice::advance_slices(&mut parts, written);
                    offset += written as u64;
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        // fdatasync: the length is metadata needed to read the bytes back, so it is included.
        self.sync_data()
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.set_len(len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_number_of_parts_is_written_one_behind_the_other() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = RealDisk.create(&dir.path().join("file")).expect("created");
        let pieces: Vec<Vec<u8>> = (0..3 * PARTS_MAX + 1).map(|i| vec![i as u8; i % 5]).collect();
        let mut parts: Vec<_> = pieces.iter().map(|piece| IoSlice::new(piece)).collect();
        file.write_parts_at(3, &mut parts).expect("written");
        let nothing = [0; 0];
        file.write_parts_at(0, &mut [IoSlice::new(&nothing), IoSlice::new(b"abc"), IoSlice::new(&nothing)])
            .expect("written");
        let mut read = vec![0; usize::try_from(file.len().expect("known")).expect("small")];
        file.read_at(0, &mut read).expect("read");
        assert_eq!(read, [b"abc".to_vec(), pieces.concat()].concat());
    }
}
