//! What the kernel tells of the folders that files are in.

use std::{
    collections::{HashMap, HashSet},
    ffi::OsStr,
    mem::MaybeUninit,
    os::{fd::OwnedFd, unix::ffi::OsStrExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use rustix::{
    fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags},
    io::Errno,
};

/// So many folders are watched; what happens in others is noticed when they are looked at.
const FOLDERS_MAX: usize = 4096;

/// Watches folders.
pub(super) struct Watcher {
    inotify: Arc<OwnedFd>,
    folders: HashMap<PathBuf, i32>,
    by_watch: HashMap<i32, PathBuf>,
}

/// What has happened.
#[derive(Debug, Default)]
pub(super) struct Happened {
    /// Files that were written to.
    pub(super) written: HashSet<PathBuf>,
    /// Whether files came, went or were renamed, or more than can be told.
    pub(super) changed: bool,
}

impl Watcher {
    pub(super) fn new() -> Result<Self, Errno> {
        let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        Ok(Self { inotify: Arc::new(inotify), folders: HashMap::new(), by_watch: HashMap::new() })
    }

    /// Becomes readable when something happens.
    pub(super) fn fd(&self) -> Arc<OwnedFd> {
        Arc::clone(&self.inotify)
    }

    /// Watches these folders and no others. Those that cannot be watched are left to looking.
    ///
    /// # Errors
    /// The first one, if it is of the system's limits.
    pub(super) fn watch(&mut self, wanted: &HashSet<PathBuf>) -> Result<(), Errno> {
        let unwanted: Vec<_> = self.folders.extract_if(|folder, _| !wanted.contains(folder)).collect();
        for (_, watch) in unwanted {
            self.by_watch.remove(&watch);
            // It may have gone with its folder.
            let _ = inotify::remove_watch(&self.inotify, watch);
        }
        let flags = WatchFlags::MODIFY
            | WatchFlags::CREATE
            | WatchFlags::DELETE
            | WatchFlags::MOVE
            | WatchFlags::ATTRIB
            | WatchFlags::DELETE_SELF
            | WatchFlags::MOVE_SELF
            | WatchFlags::ONLYDIR;
        let mut limit = None;
        for folder in wanted {
            if self.folders.contains_key(folder) || self.folders.len() >= FOLDERS_MAX {
                continue;
            }
            match inotify::add_watch(&self.inotify, folder.as_path(), flags) {
                Ok(watch) => {
                    self.folders.insert(folder.clone(), watch);
                    // Two names of one folder have one watch.
                    self.by_watch.entry(watch).or_insert_with(|| folder.clone());
                }
                Err(error @ (Errno::NOSPC | Errno::NOMEM)) => limit = Some(error),
                Err(_) => {}
            }
        }
        limit.map_or(Ok(()), Err)
    }

    /// All that has happened since the last call.
    pub(super) fn read(&mut self) -> Happened {
        let mut happened = Happened::default();
        let mut buffer = [MaybeUninit::uninit(); 16 * 1024];
        let inotify = Arc::clone(&self.inotify);
        let mut reader = inotify::Reader::new(&*inotify, &mut buffer);
        loop {
            let event = match reader.next() {
                Ok(event) => event,
                Err(Errno::INTR) => continue,
                Err(_) => return happened,
            };
            let (watch, flags) = (event.wd(), event.events());
            if flags.intersects(ReadFlags::IGNORED | ReadFlags::UNMOUNT) {
                self.by_watch.remove(&watch);
                self.folders.retain(|_, known| *known != watch);
            }
            let quiet = flags.intersection(ReadFlags::MODIFY | ReadFlags::ATTRIB) == flags;
            match (self.by_watch.get(&watch), event.file_name()) {
                (Some(folder), Some(name)) if quiet => {
                    let name = Path::new(OsStr::from_bytes(name.to_bytes()));
                    let path = if folder == Path::new(".") { name.to_owned() } else { folder.join(name) };
                    happened.changed |= flags.contains(ReadFlags::ATTRIB) && !happened.written.contains(&path);
                    happened.written.insert(path);
                }
                _ => happened.changed = true,
            }
        }
    }
}
