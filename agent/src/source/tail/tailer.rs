//! All files that are followed: which there are, which is looked at next, and what becomes of one that was rotated, truncated or
//! deleted. Synchronous: it is told the time and when to look, and gives what it found, in order.

mod arrivals;
mod departures;

use std::{
    collections::{HashMap, HashSet, VecDeque},
    fs::{self, File},
    io, mem,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    Settings,
    config::Start,
    content::{Content, Form},
    cut::Rules,
    listing::{Stamp, list},
    mark::{self, Identity, Mark},
    succession,
    tell::Teller,
    tracked::{Chunk, Look, Place, Timeouts, Tracked, WINDOW},
};

/// A step takes so many bytes, or a little more.
const STEP_BYTES: usize = 4 * WINDOW;

/// And so many looks, which may each open a file.
const STEP_LOOKS: usize = 250;

/// A file that is still written to after it was renamed does not hold up the new one more often than this.
const PUT_OFF_MAX: u8 = 3;

/// Nor does one that was not written to for so long.
const LATE_MAX: Duration = Duration::from_secs(600);

/// All marks of a source together take at most so much, of the mebibyte that a stream has.
const MARKS_BYTES_MAX: usize = 768 * 1024;

/// What a mark takes beside its paths.
const MARK_BYTES: usize = 60;

/// The files of one source.
pub(super) struct Tailer {
    settings: Settings,
    rules: Rules,
    timeouts: Timeouts,
    teller: Teller,
    files: HashMap<Identity, Tracked>,
    /// Whether the source has looked for files in an earlier life, or in this one.
    began: bool,
    /// In this one.
    scanned: bool,
    queue: VecDeque<Identity>,
    /// Waiting for those that had their names before.
    blocked: Vec<Identity>,
    /// With something that has no end yet.
    waiting: HashSet<Identity>,
    /// The files that may have to do with each other, by what their names begin with.
    kin: HashMap<Vec<u8>, Vec<Identity>>,
    /// What a pattern matched at the last scan, by path, and by the path behind a link.
    by_path: HashMap<PathBuf, Identity>,
    listed: HashSet<Identity>,
    scans: u64,
    /// Of files that a scan has found and that are not begun yet: which scan, and their place in it.
    put_off: HashMap<Identity, Place>,
    looks: u64,
    /// Whether there is something to be found by a scan.
    rescan: bool,
    out: Vec<Item>,
}

/// What is to be done, in this order.
pub(super) enum Item {
    /// Records to be stored, with the mark that they end with.
    Chunk(Chunk),
    /// A mark to be set; removed, if it is empty. Marks that follow each other belong together.
    Mark(Arc<str>, Vec<u8>),
    /// A line that is no record, because it has so many bytes at least.
    Oversize {
        /// Where its file was first found.
        file: PathBuf,
        /// Where in it the line begins.
        byte: u64,
        bytes: u64,
    },
}

/// What a step brought.
pub(super) struct Step {
    pub(super) items: Vec<Item>,
    /// Whether the next one will bring more.
    pub(super) more: bool,
    /// Whether a look may bring something without anything being written.
    pub(super) waiting: bool,
    /// Whether a scan will find something.
    pub(super) rescan: bool,
}

impl Tailer {
    /// Goes on where the marks say that the source was.
    pub(super) fn new(
        settings: Settings,
        max_record: usize,
        teller: Teller,
        marks: Vec<(String, Vec<u8>)>,
        now: Instant,
    ) -> Self {
        let source = Arc::clone(&teller.source);
        let began = mark::began(&source);
        let mut files = HashMap::new();
        let mut kin: HashMap<_, Vec<_>> = HashMap::new();
        let mut has_begun = false;
        for (name, value) in marks {
            if name == began {
                has_begun = true;
            } else if let Some((identity, mark)) = mark::identity(&source, &name).zip(Mark::decode(&value)) {
                kin.entry(succession::stem(&mark.path)).or_default().push(identity);
                files.insert(identity, Tracked::new(identity, name.into(), mark, now));
            } else {
                teller.tell("unreadable-mark", Path::new(&name), "is a mark of another version; its file is read anew");
            }
        }
        Self {
            rules: Rules { max_record, keep_empty: settings.keep_empty, group: settings.group.clone() },
            timeouts: Timeouts {
                group: settings.group.is_some().then_some(settings.group_timeout),
                partial_line: settings.partial_line_timeout,
            },
            settings,
            teller,
            files,
            kin,
            began: has_begun,
            scanned: false,
            queue: VecDeque::new(),
            blocked: Vec::new(),
            waiting: HashSet::new(),
            by_path: HashMap::new(),
            listed: HashSet::new(),
            scans: 0,
            put_off: HashMap::new(),
            looks: 0,
            rescan: false,
            out: Vec::new(),
        }
    }

    /// The folders in which something may happen: of its files, and of those that links lead to.
    pub(super) fn folders(&self) -> HashSet<PathBuf> {
        let files = self.by_path.keys().filter_map(|path| path.parent());
        let patterns = self.settings.paths.iter().map(|pattern| {
            let wild = pattern.find(['*', '?', '[']).unwrap_or(pattern.len());
            pattern[..wild].rfind('/').map_or(Path::new("."), |slash| Path::new(&pattern[..slash.max(1)]))
        });
        let folder = |path: &Path| if path.as_os_str().is_empty() { ".".into() } else { path.to_owned() };
        files.chain(patterns).map(folder).collect()
    }

    /// Tells that not every folder can be watched.
    pub(super) fn note_unwatched(&self, error: io::Error) {
        let message = format!("cannot be watched, its files are polled: {error} (see fs.inotify.max_user_watches)");
        self.teller.tell_once("unwatched", Path::new("a folder"), &message);
    }

    /// Notes that the file at a path was written to; whether it is one of ours.
    pub(super) fn written(&mut self, path: &Path) -> bool {
        let identity = self.by_path.get(path).copied();
        identity.map(|identity| self.enqueue(identity)).is_some()
    }

    /// Looks at what is due.
    pub(super) fn step(&mut self, now: Instant) -> Step {
        if let Some(least) = [self.timeouts.group, self.timeouts.partial_line].into_iter().flatten().min() {
            let due = |identity: &&Identity| self.files.get(identity).is_some_and(|file| file.is_quiet(least, now));
            let due: Vec<_> = self.waiting.iter().filter(due).copied().collect();
            due.into_iter().for_each(|identity| self.enqueue(identity));
        }
        let mut bytes = 0;
        for _ in 0..STEP_LOOKS {
            let Some(identity) = self.queue.pop_front() else { break };
            bytes += self.look_at(identity, now);
            if bytes >= STEP_BYTES {
                break;
            }
        }
        let unblocked: Vec<_> = mem::take(&mut self.blocked);
        for identity in unblocked {
            if self.is_blocked(identity) { self.blocked.push(identity) } else { self.queue.push_back(identity) }
        }
        self.close_some();
        let has_timeouts = self.timeouts.group.is_some() || self.timeouts.partial_line.is_some();
        Step {
            items: mem::take(&mut self.out),
            more: !self.queue.is_empty(),
            waiting: has_timeouts && !self.waiting.is_empty(),
            rescan: mem::take(&mut self.rescan),
        }
    }

    /// Looks for files that are new, gone, renamed or written to.
    pub(super) fn scan(&mut self, now: Instant) {
        let listing = list(&self.settings);
        for (path, reason, message) in listing.troubles {
            self.teller.tell_once(reason, &path, &message);
        }
        self.by_path.clear();
        self.listed.clear();
        self.files.values_mut().for_each(|file| file.listed = false);
        let mut unknown = Vec::new();
        for found in listing.files {
            self.by_path.insert(found.path.clone(), found.identity);
            self.by_path.extend(found.real.clone().map(|real| (real, found.identity)));
            self.listed.insert(found.identity);
            let form = Form::of(&found.path);
            if let Some(file) = self.files.get(&found.identity)
                && file.mark.form != form
            {
                // The inode of a deleted file, given to another one.
                let read = file.is_read();
                self.inherit(found.identity, read, now);
            }
            match self.files.get_mut(&found.identity) {
                Some(file) => {
                    file.listed = true;
                    file.mark.at.clone_from(&found.path);
                    let is_due = file.stamp != Some(found.stamp) && !file.mark.complete;
                    if file.mark.seen.offset == 0 && file.mark.path != found.path {
                        // Nothing says that it is the same.
                        let path = mem::replace(&mut file.mark.path, found.path.clone());
                        self.no_kin(&path, found.identity);
                        self.kin.entry(succession::stem(&found.path)).or_default().push(found.identity);
                    }
                    if is_due {
                        self.enqueue(found.identity);
                    }
                }
                None => unknown.push(found),
            }
        }
        let unlisted: Vec<_> = self.files.values().filter(|file| !file.listed).map(|file| file.identity).collect();
        for identity in unlisted {
            self.find_again(identity, now);
        }
        if !mem::replace(&mut self.scanned, true) {
            self.order();
        }
        let at_end = !self.began && self.settings.start == Start::End;
        self.scans += 1;
        let mut put_off = mem::take(&mut self.put_off);
        let mut fresh = Vec::with_capacity(unknown.len());
        for (number, found) in unknown.into_iter().enumerate() {
            let identity = found.identity;
            let place = put_off.remove(&identity).unwrap_or(Place { scan: self.scans, number });
            self.begin(found, place, &fresh, at_end, now);
            fresh.push(identity);
        }
        if !mem::replace(&mut self.began, true) {
            self.out.push(Item::Mark(mark::began(&self.teller.source).into(), vec![1]));
        }
    }

    /// Of the files of an earlier run, those that have lost their names since are read first.
    fn order(&mut self) {
        let mut rotated: HashMap<PathBuf, Vec<Identity>> = HashMap::new();
        for file in self.files.values().filter(|file| file.mark.at != file.mark.path && !file.mark.complete) {
            rotated.entry(file.mark.path.clone()).or_default().push(file.identity);
        }
        for file in self.files.values_mut().filter(|file| file.mark.at == file.mark.path) {
            file.after = rotated.get(&file.mark.path).cloned().unwrap_or_default();
            file.predecessors.clone_from(&file.after);
        }
    }

    /// A file that no pattern matches (any more): renamed or deleted.
    fn find_again(&mut self, identity: Identity, now: Instant) {
        let Some(file) = self.files.get_mut(&identity) else { return };
        if let Some((path, stamp, deleted)) = file.whereabouts() {
            if !deleted {
                file.mark.at = path;
            }
            if deleted || file.stamp != Some(stamp) {
                self.enqueue(identity);
            }
            return;
        }
        let at = &file.mark.at;
        let is_there = |path: &Path| fs::metadata(path).ok().filter(|found| Identity::of(found) == identity);
        let found = is_there(at).map(|metadata| (at.clone(), metadata)).or_else(|| {
            let path = succession::by_identity(&folders_of(&file.mark, &self.settings), identity)?;
            let metadata = is_there(&path)?;
            // The number of a deleted file is soon given to another one.
            let mut content = Content::new(File::open(&path).ok()?, file.mark.form);
            succession::holds(&mut content, file.mark.seen).ok()?.then_some((path, metadata))
        });
        match found {
            Some((path, metadata)) => {
                file.mark.at = path;
                if file.stamp != Some(Stamp::of(&metadata)) && !file.mark.complete {
                    self.enqueue(identity);
                }
            }
            None => {
                let read = file.is_read();
                self.inherit(identity, read, now);
            }
        }
    }

    /// Looks at one file; gives the bytes that were taken of it.
    fn look_at(&mut self, identity: Identity, now: Instant) -> usize {
        if self.is_blocked(identity) {
            // It counts as queued, so that it stands here once.
            self.blocked.push(identity);
            return 0;
        }
        let until = match self.until_predecessors(identity, now) {
            Ok(until) => until,
            Err(changed) => {
                for identity in &changed {
                    self.files.entry(*identity).and_modify(|file| file.drained = false);
                    self.enqueue(*identity);
                }
                self.files.entry(identity).and_modify(|file| {
                    file.after.extend(changed);
                    file.put_off += 1;
                });
                self.blocked.push(identity);
                return 0;
            }
        };
        self.looks += 1;
        let Some(file) = self.files.get_mut(&identity) else { return 0 };
        (file.queued, file.used, file.put_off) = (false, self.looks, 0);
        let was_complete = file.mark.complete;
        match file.look(&self.rules, self.timeouts, until, now) {
            Ok(Look::Read { chunk, oversize, moved, more, waiting, deleted }) => {
                file.drained = !more;
                let complete = file.mark.complete && !was_complete;
                let bytes = chunk.as_ref().map_or(0, Chunk::len);
                self.teller.is_fine(&file.mark.at);
                if complete {
                    file.close();
                }
                if waiting {
                    self.waiting.insert(identity)
                } else {
                    self.waiting.remove(&identity)
                };
                self.out.extend(chunk.map(Item::Chunk));
                let (path, byte) = (&file.mark.path, file.mark.seen.offset);
                self.out.extend(oversize.map(|bytes| Item::Oversize { file: path.clone(), byte, bytes }));
                if moved {
                    self.set_mark(identity);
                }
                if more {
                    self.enqueue(identity);
                } else if deleted {
                    self.inherit(identity, true, now);
                }
                bytes
            }
            Ok(Look::Replaced { unread }) => {
                self.replaced(identity, unread, now);
                0
            }
            Ok(Look::Gone) => {
                // The next scan finds it, or finds that it is nowhere.
                file.stamp = None;
                file.drained = false;
                file.close();
                if !self.listed.contains(&identity) {
                    self.find_again(identity, now);
                }
                0
            }
            Err(error) => {
                // It must not hold up who comes after it; the next scan tries again.
                file.drained = true;
                file.stamp = None;
                let at = file.mark.at.clone();
                self.teller.tell_once("unreadable", &at, &format!("cannot be read: {error}"));
                0
            }
        }
    }

    /// Follows a file from now on.
    fn follow(&mut self, identity: Identity, mark: Mark, now: Instant) -> &mut Tracked {
        let name: Arc<str> = mark::name(&self.teller.source, identity).into();
        self.kin.entry(succession::stem(&mark.path)).or_default().push(identity);
        if !mark.complete {
            self.queue.push_back(identity);
        }
        let mut file = Tracked::new(identity, name, mark, now);
        file.queued = !file.mark.complete;
        self.files.entry(identity).insert_entry(file).into_mut()
    }

    fn enqueue(&mut self, identity: Identity) {
        if let Some(file) = self.files.get_mut(&identity)
            && !file.mark.complete
            && !mem::replace(&mut file.queued, true)
        {
            self.queue.push_back(identity);
        }
    }

    /// Who writes to a file that was renamed, and then to the new one, has written to the new one what comes later. So the
    /// new one is read as far as it goes before it is made sure that nothing has come to the old ones.
    ///
    /// # Errors
    /// Something has come to these.
    fn until_predecessors(&self, identity: Identity, now: Instant) -> Result<Option<u64>, Vec<Identity>> {
        let Some(file) = self.files.get(&identity).filter(|file| !file.predecessors.is_empty()) else {
            return Ok(None);
        };
        let until = file.bytes_now();
        if file.put_off >= PUT_OFF_MAX {
            return Ok(None);
        }
        let now_and_then = |before: &&Tracked| !before.is_quiet(LATE_MAX, now);
        let before = file.predecessors.iter().filter_map(|before| self.files.get(before)).filter(now_and_then);
        let changed: Vec<_> = before.filter(|before| before.has_changed()).map(|before| before.identity).collect();
        if changed.is_empty() { Ok(until) } else { Err(changed) }
    }

    /// Whether somebody else is to be read first.
    fn is_blocked(&mut self, identity: Identity) -> bool {
        let Some(file) = self.files.get_mut(&identity) else { return false };
        let mut after = mem::take(&mut file.after);
        after.retain(|before| self.files.get(before).is_some_and(|before| !before.drained));
        let blocked = !after.is_empty();
        if let Some(file) = self.files.get_mut(&identity) {
            file.after = after;
        }
        blocked
    }

    fn set_mark(&mut self, identity: Identity) {
        if let Some(file) = self.files.get(&identity) {
            self.out.push(Item::Mark(Arc::clone(&file.mark_name), file.mark.encode()));
        }
    }

    fn has_room_for(&self, path: &Path) -> bool {
        self.files.len() < self.settings.max_files && {
            let of = |path: &Path| MARK_BYTES + self.teller.source.len() + 2 * path.as_os_str().len();
            // Counted only where it can matter.
            self.files.len() * 200 < MARKS_BYTES_MAX
                || self.files.values().map(|file| of(&file.mark.path)).sum::<usize>() + of(path) <= MARKS_BYTES_MAX
        }
    }

    /// Closes those files that were not written to for longest, where too many are open.
    fn close_some(&mut self) {
        let open = self.files.values().filter(|file| file.is_open()).count();
        if open <= self.settings.max_open {
            return;
        }
        let mut drained: Vec<_> =
            self.files.values_mut().filter(|file| file.is_open() && file.drained && !file.queued).collect();
        drained.sort_by_key(|file| file.used);
        // Some more, so that it is not done each time.
        let enough = open - self.settings.max_open + self.settings.max_open / 8;
        drained.into_iter().take(enough).for_each(Tracked::close);
    }
}

fn folders_of(mark: &Mark, settings: &Settings) -> Vec<PathBuf> {
    let mut folders: Vec<PathBuf> = Vec::new();
    let of_file = [&mark.path, &mark.at]
        .into_iter()
        .filter_map(|path| path.parent())
        .map(|folder| if folder.as_os_str().is_empty() { Path::new(".") } else { folder });
    for folder in of_file.chain(settings.rotated_into.iter().map(PathBuf::as_path)) {
        if !folders.iter().any(|known| known == folder) {
            folders.push(folder.to_owned());
        }
    }
    folders
}
