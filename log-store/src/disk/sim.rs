//! A disk in memory that can lose power, fail and fill up.
//!
//! What was written but not synced may, after a power cut, be there, be torn or be gone, write by write; names created,
//! renamed or removed without a `sync_dir` may be there or not, one by one. The choice comes from a seed.

use std::{
    collections::BTreeMap,
    fmt,
    io::{self, ErrorKind},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use super::{Disk, DiskFile, Space};

/// What goes wrong, and when, counted in operations that change the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The power goes at this operation: it and all after it fail, and [`SimDisk::power_up`] decides what is left.
    PowerCut { at: u64 },
    /// This one operation fails with an input/output error; a write may then be done in part.
    Fails { at: u64 },
}

/// A simulated disk; clones are the same disk.
#[derive(Debug, Clone)]
pub(crate) struct SimDisk(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    names: BTreeMap<PathBuf, u64>,
    /// Names as they are known to survive.
    durable_names: BTreeMap<PathBuf, u64>,
    name_changes: Vec<NameChange>,
    files: BTreeMap<u64, FileState>,
    next_file: u64,
    operations: u64,
    fault: Option<Fault>,
    off: bool,
    /// Counts power-ups, so that handles of an earlier life are dead.
    life: u64,
    capacity: Option<u64>,
    /// Bytes of the capacity that somebody else has taken.
    others: u64,
    locked: bool,
    /// A directory that may not be read.
    forbidden: Option<PathBuf>,
    random: fastrand::Rng,
    before_read: Hook,
}

/// What happens just before the next reading.
#[derive(Default)]
struct Hook(Option<Box<dyn FnOnce() + Send>>);

impl fmt::Debug for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "armed" } else { "none" })
    }
}

#[derive(Debug, Clone)]
struct NameChange {
    path: PathBuf,
    file: Option<u64>,
    /// A rename's other half, which survives or not with it.
    replaces: Option<PathBuf>,
}

#[derive(Debug, Clone, Default)]
struct FileState {
    live: Vec<u8>,
    durable: Vec<u8>,
    unsynced: Vec<Change>,
    is_dir: bool,
}

#[derive(Debug, Clone)]
enum Change {
    Write { offset: usize, bytes: Vec<u8> },
    Truncate(usize),
}

impl Change {
    fn apply(&self, to: &mut Vec<u8>) {
        match self {
            Self::Write { offset, bytes } => {
                if to.len() < offset + bytes.len() {
                    to.resize(offset + bytes.len(), 0);
                }
                to[*offset..offset + bytes.len()].copy_from_slice(bytes);
            }
            Self::Truncate(len) => to.truncate(*len),
        }
    }
}

impl SimDisk {
    /// An empty disk whose choices come from `seed`.
    pub(crate) fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(State {
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            name_changes: Vec::new(),
            files: BTreeMap::new(),
            next_file: 1,
            operations: 0,
            fault: None,
            off: false,
            life: 0,
            capacity: None,
            others: 0,
            locked: false,
            forbidden: None,
            random: fastrand::Rng::with_seed(seed),
            before_read: Hook::default(),
        })))
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().expect("no test panics while holding it")
    }

    /// Whether the power is off.
    pub(crate) fn is_off(&self) -> bool {
        self.state().off
    }

    /// Operations so far that changed the disk or tried to.
    pub(crate) fn operations(&self) -> u64 {
        self.state().operations
    }

    /// Arms a fault.
    pub(crate) fn set_fault(&self, fault: Option<Fault>) {
        self.state().fault = fault;
    }

    /// Which directory may not be read.
    pub(crate) fn forbid(&self, dir: Option<&Path>) {
        self.state().forbidden = dir.map(Into::into);
    }

    /// Whether one is armed.
    pub(crate) fn has_fault(&self) -> bool {
        self.state().fault.is_some()
    }

    /// Lets something happen between a reader's decision to read and its reading.
    pub(crate) fn before_next_read(&self, act: impl FnOnce() + Send + 'static) {
        self.state().before_read = Hook(Some(Box::new(act)));
    }

    /// How many bytes all files may take together.
    pub(crate) fn set_capacity(&self, capacity: Option<u64>) {
        self.state().capacity = capacity;
    }

    /// How many bytes of the capacity somebody else has taken, at this moment.
    pub(crate) fn set_others(&self, bytes: u64) {
        self.state().others = bytes;
    }

    /// What is still to be had; everything without a capacity.
    pub(crate) fn free(&self) -> u64 {
        self.state().free()
    }

    /// Bytes that all files take.
    pub(crate) fn used(&self) -> u64 {
        self.state().used()
    }

    /// Cuts the power (if it is not off yet) and comes back with what a real disk might have kept.
    pub(crate) fn power_up(&self) {
        let mut state = self.state();
        let state = &mut *state;
        for file in state.files.values_mut() {
            let mut kept = file.durable.clone();
            for change in std::mem::take(&mut file.unsynced) {
                match (state.random.u8(0..4), change) {
                    (0, _) => {}
                    (1, Change::Write { offset, bytes }) => {
                        // Torn: a part from the start, or with a hole of zeros where a sector was not written.
                        let cut = state.random.usize(0..=bytes.len());
                        let torn = if state.random.bool() {
                            bytes[..cut].to_vec()
                        } else {
                            let mut torn = bytes.clone();
                            torn[..cut].fill(0);
                            torn
                        };
                        Change::Write { offset, bytes: torn }.apply(&mut kept);
                    }
                    (_, change) => change.apply(&mut kept),
                }
            }
            file.live = kept.clone();
            file.durable = kept;
        }
        for change in std::mem::take(&mut state.name_changes) {
            if state.random.bool() {
                change.apply(&mut state.durable_names);
            }
        }
        // What lies in a directory that is gone is gone.
        let names = &state.durable_names;
        let orphans: Vec<_> = names.keys().filter(|path| !has_parents(names, path)).cloned().collect();
        for orphan in orphans {
            state.durable_names.remove(&orphan);
        }
        state.names = state.durable_names.clone();
        state.fault = None;
        state.off = false;
        state.locked = false;
        state.life += 1;
    }

    /// Changes a file's bytes behind the log's back, as failing media would.
    pub(crate) fn damage(&self, path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
        let mut state = self.state();
        let id = state.names[path];
        let file = state.files.get_mut(&id).expect("named files exist");
        change(&mut file.live);
        file.durable = file.live.clone();
        file.unsynced.clear();
    }

    /// Every file's path and length.
    pub(crate) fn files(&self) -> Vec<(PathBuf, u64)> {
        let state = self.state();
        let files = state.names.iter().filter(|(_, id)| !state.files[id].is_dir);
        files.map(|(path, id)| (path.clone(), state.files[id].live.len() as u64)).collect()
    }
}

fn has_parents(names: &BTreeMap<PathBuf, u64>, path: &Path) -> bool {
    path.ancestors().skip(1).filter(|dir| *dir != Path::new("/")).all(|dir| names.contains_key(dir))
}

impl NameChange {
    fn apply(&self, names: &mut BTreeMap<PathBuf, u64>) {
        if let Some(old) = &self.replaces {
            names.remove(old);
        }
        match self.file {
            Some(file) => names.insert(self.path.clone(), file),
            None => names.remove(&self.path),
        };
    }
}

impl State {
    fn used(&self) -> u64 {
        self.names.values().map(|id| self.files[id].live.len() as u64).sum()
    }

    fn free(&self) -> u64 {
        let taken = self.used() + self.others;
        self.capacity.map_or(u64::MAX, |capacity| capacity.saturating_sub(taken))
    }

    /// Counts an operation; says whether it may happen.
    fn step(&mut self) -> io::Result<()> {
        if self.off {
            return Err(io::Error::other("the power is off"));
        }
        self.operations += 1;
        match self.fault {
            Some(Fault::PowerCut { at }) if self.operations >= at => {
                self.off = true;
                Err(io::Error::other("the power went"))
            }
            Some(Fault::Fails { at }) if self.operations == at => Err(io::Error::other("input/output error")),
            _ => Ok(()),
        }
    }

    fn alive(&self) -> io::Result<()> {
        if self.off { Err(io::Error::other("the power is off")) } else { Ok(()) }
    }

    fn change_name(&mut self, change: NameChange) {
        change.apply(&mut self.names);
        self.name_changes.push(change);
    }

    fn id(&self, path: &Path) -> io::Result<u64> {
        self.names.get(path).copied().ok_or_else(|| ErrorKind::NotFound.into())
    }

    fn make(&mut self, path: &Path, is_dir: bool) -> io::Result<u64> {
        if !has_parents(&self.names, path) {
            return Err(ErrorKind::NotFound.into());
        }
        if self.names.contains_key(path) {
            return Err(ErrorKind::AlreadyExists.into());
        }
        let id = self.next_file;
        self.next_file += 1;
        self.files.insert(id, FileState { is_dir, ..FileState::default() });
        self.change_name(NameChange { path: path.into(), file: Some(id), replaces: None });
        Ok(id)
    }

    fn sync_names(&mut self, dir: &Path) {
        let (synced, kept): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.name_changes).into_iter().partition(|change| change.path.parent() == Some(dir));
        for change in synced {
            change.apply(&mut self.durable_names);
        }
        self.name_changes = kept;
    }
}

impl Disk for SimDisk {
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.state();
        let missing: Vec<_> = dir.ancestors().filter(|dir| *dir != Path::new("/")).collect();
        for dir in missing.into_iter().rev() {
            if !state.names.contains_key(dir) {
                state.step()?;
                state.make(dir, true)?;
                state.step()?;
                state.sync_names(dir.parent().expect("not the root"));
            }
        }
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let state = self.state();
        state.alive()?;
        state.id(dir)?;
        if state.forbidden.as_deref() == Some(dir) {
            return Err(ErrorKind::PermissionDenied.into());
        }
        let inside = state.names.keys().filter(|path| path.parent() == Some(dir));
        Ok(inside.filter_map(|path| Some(path.file_name()?.to_str()?.to_owned())).collect())
    }

    fn is_file(&self, path: &Path) -> io::Result<bool> {
        let state = self.state();
        state.alive()?;
        Ok(!state.files[&state.id(path)?].is_dir)
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let mut state = self.state();
        state.step()?;
        // A name takes room too, of which a disk may have none left.
        if state.free() == 0 {
            return Err(ErrorKind::StorageFull.into());
        }
        let id = state.make(path, false)?;
        Ok(Box::new(SimFile { disk: self.clone(), id, life: state.life }))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let state = self.state();
        state.alive()?;
        Ok(Box::new(SimFile { disk: self.clone(), id: state.id(path)?, life: state.life }))
    }

    fn open_read(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        self.open(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.step()?;
        let id = state.id(from)?;
        state.change_name(NameChange { path: to.into(), file: Some(id), replaces: Some(from.into()) });
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.step()?;
        state.id(path)?;
        state.change_name(NameChange { path: path.into(), file: None, replaces: None });
        Ok(())
    }

    fn remove_dir(&self, dir: &Path) -> io::Result<()> {
        let is_empty = !self.state().names.keys().any(|path| path.parent() == Some(dir));
        if is_empty { self.remove(dir) } else { Err(ErrorKind::DirectoryNotEmpty.into()) }
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.step()?;
        state.id(dir)?;
        state.sync_names(dir);
        Ok(())
    }

    fn space(&self, dir: &Path) -> io::Result<Space> {
        let state = self.state();
        state.alive()?;
        state.id(dir)?;
        Ok(Space { size: state.capacity.unwrap_or(u64::MAX), free: state.free() })
    }

    fn bytes_below(&self, dir: &Path) -> io::Result<u64> {
        let state = self.state();
        state.alive()?;
        state.id(dir)?;
        let below = state.names.iter().filter(|(path, _)| path.starts_with(dir));
        Ok(below.map(|(_, id)| state.files[id].live.len() as u64).sum())
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>> {
        let mut state = self.state();
        state.step()?;
        if state.locked {
            return Err(ErrorKind::WouldBlock.into());
        }
        if state.id(path).is_err() {
            state.make(path, false)?;
        }
        state.locked = true;
        Ok(Box::new(SimLock { disk: self.clone(), life: state.life }))
    }
}

struct SimLock {
    disk: SimDisk,
    life: u64,
}

impl Drop for SimLock {
    fn drop(&mut self) {
        let mut state = self.disk.state();
        if state.life == self.life {
            state.locked = false;
        }
    }
}

struct SimFile {
    disk: SimDisk,
    id: u64,
    life: u64,
}

impl SimFile {
    fn with<T>(&self, changes: bool, act: impl FnOnce(&mut State, io::Result<()>) -> io::Result<T>) -> io::Result<T> {
        let mut state = self.disk.state();
        if state.life != self.life {
            return Err(io::Error::other("a handle from before the power cut"));
        }
        let allowed = if changes { state.step() } else { state.alive() };
        act(&mut state, allowed)
    }
}

impl DiskFile for SimFile {
    fn len(&self) -> io::Result<u64> {
        self.with(false, |state, allowed| allowed.map(|()| state.files[&self.id].live.len() as u64))
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let before = self.disk.state().before_read.0.take();
        if let Some(act) = before {
            act();
        }
        self.with(false, |state, allowed| {
            allowed?;
            let live = &state.files[&self.id].live;
            let from = usize::try_from(offset).expect("small").min(live.len());
            let n = buf.len().min(live.len() - from);
            buf[..n].copy_from_slice(&live[from..from + n]);
            Ok(n)
        })
    }

    fn write_at(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        self.with(true, |state, allowed| {
            let end = offset + buf.len() as u64;
            let grows = end.saturating_sub(state.files[&self.id].live.len() as u64);
            let room = state.free();
            let outcome = match allowed {
                Ok(()) if grows > room => Err(ErrorKind::StorageFull.into()),
                other => other,
            };
            // A write that fails may have been done in part.
            let done = match &outcome {
                Ok(()) => buf.len(),
                Err(_) => state.random.usize(0..=buf.len()).min(usize::try_from(room).unwrap_or(usize::MAX)),
            };
            let change = Change::Write { offset: usize::try_from(offset).expect("small"), bytes: buf[..done].to_vec() };
            let file = state.files.get_mut(&self.id).expect("open files exist");
            change.apply(&mut file.live);
            file.unsynced.push(change);
            outcome
        })
    }

    fn sync(&self) -> io::Result<()> {
        self.with(true, |state, allowed| {
            let file = state.files.get_mut(&self.id).expect("open files exist");
            if allowed.is_err() {
                // As Linux does: the pages are dropped or kept, but marked clean; a second sync proves nothing.
                if !state.off {
                    file.unsynced.retain(|_| state.random.bool());
                }
                return allowed;
            }
            file.durable = file.live.clone();
            file.unsynced.clear();
            Ok(())
        })
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.with(true, |state, allowed| {
            allowed?;
            let change = Change::Truncate(usize::try_from(len).expect("small"));
            let file = state.files.get_mut(&self.id).expect("open files exist");
            change.apply(&mut file.live);
            file.unsynced.push(change);
            Ok(())
        })
    }
}
