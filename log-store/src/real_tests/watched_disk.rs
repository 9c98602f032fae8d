//! A disk that counts what is read, knows what is durable, and can be told not to sync for real.

use std::{
    fmt, io,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use crate::disk::{Disk, DiskFile, RealDisk, Space};

/// The machine's disk, watched. Clones watch together.
#[derive(Debug, Clone, Default)]
pub(super) struct WatchedDisk {
    pub(super) counts: Arc<Counts>,
    /// Whether syncs reach the disk: a test of reading does not need them.
    pub(super) syncs: bool,
    /// How long a sync takes at the least, so that what happens before its end can be seen.
    pub(super) sync_takes: Duration,
    pub(super) before_read: Hook,
}

/// What happens once, after some reads and before the next.
#[derive(Clone, Default)]
pub(super) struct Hook(Arc<Mutex<Option<(u32, Act)>>>);

type Act = Box<dyn FnOnce() + Send>;

impl Hook {
    pub(super) fn set(&self, after_reads: u32, act: impl FnOnce() + Send + 'static) {
        *self.0.lock().expect("unpoisoned") = Some((after_reads, Box::new(act)));
    }

    pub(super) fn is_set(&self) -> bool {
        self.0.lock().expect("unpoisoned").is_some()
    }

    fn run(&self) {
        let due = self.0.lock().expect("unpoisoned").take_if(|(reads, _)| {
            let due = *reads == 0;
            *reads = reads.saturating_sub(1);
            due
        });
        if let Some((_, act)) = due {
            act();
        }
    }
}

impl fmt::Debug for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hook")
    }
}

#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) bytes_read: AtomicU64,
    pub(super) opened: AtomicU64,
    /// Files that are open now, and the most that were at once.
    pub(super) open_now: AtomicU64,
    pub(super) open_most: AtomicU64,
    /// Behind the last record whose block was synced.
    pub(super) durable_end: AtomicU64,
}

struct WatchedFile {
    file: Box<dyn DiskFile>,
    disk: WatchedDisk,
    /// Behind the last record written.
    written_end: AtomicU64,
}

impl WatchedDisk {
    pub(super) fn take_bytes_read(&self) -> u64 {
        self.counts.bytes_read.swap(0, Ordering::SeqCst)
    }

    fn watch(&self, file: io::Result<Box<dyn DiskFile>>) -> io::Result<Box<dyn DiskFile>> {
        self.counts.opened.fetch_add(1, Ordering::SeqCst);
        let file = file?;
        let open = self.counts.open_now.fetch_add(1, Ordering::SeqCst) + 1;
        self.counts.open_most.fetch_max(open, Ordering::SeqCst);
        Ok(Box::new(WatchedFile { file, disk: self.clone(), written_end: AtomicU64::new(0) }))
    }
}

impl Drop for WatchedFile {
    fn drop(&mut self) {
        self.disk.counts.open_now.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Disk for WatchedDisk {
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        RealDisk.create_dir(dir)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        RealDisk.list(dir)
    }

    fn is_file(&self, path: &Path) -> io::Result<bool> {
        RealDisk.is_file(path)
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        self.watch(RealDisk.create(path))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        self.watch(RealDisk.open(path))
    }

    fn open_read(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        self.watch(RealDisk.open_read(path))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        RealDisk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        RealDisk.remove(path)
    }

    fn remove_dir(&self, dir: &Path) -> io::Result<()> {
        RealDisk.remove_dir(dir)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        if self.syncs { RealDisk.sync_dir(dir) } else { Ok(()) }
    }

    fn space(&self, dir: &Path) -> io::Result<Space> {
        RealDisk.space(dir)
    }

    fn bytes_below(&self, dir: &Path) -> io::Result<u64> {
        RealDisk.bytes_below(dir)
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>> {
        RealDisk.lock(path)
    }
}

impl DiskFile for WatchedFile {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        self.disk.before_read.run();
        let read = self.file.read_at(offset, buf)?;
        self.disk.counts.bytes_read.fetch_add(read as u64, Ordering::SeqCst);
        Ok(read)
    }

    fn write_at(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        // The blocks in the bytes, as docs/format.md has them.
        let u32_at = |at: usize| u32::from_le_bytes(buf[at..at + 4].try_into().expect("four bytes"));
        let mut at = 0;
        while buf[at..].starts_with(b"FBLK") {
            let first = u64::from_le_bytes(buf[at + 16..at + 24].try_into().expect("eight bytes"));
            self.written_end.fetch_max(first + u64::from(u32_at(at + 24)), Ordering::SeqCst);
            at += 64 + u32_at(at + 8) as usize;
        }
        self.file.write_at(offset, buf)
    }

    fn sync(&self) -> io::Result<()> {
        let end = self.written_end.load(Ordering::SeqCst);
        if self.disk.syncs {
            self.file.sync()?;
        }
        std::thread::sleep(self.disk.sync_takes);
        self.disk.counts.durable_end.fetch_max(end, Ordering::SeqCst);
        Ok(())
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.file.truncate(len)
    }
}
