//! What becomes of a file that is not what or where it was: who holds its content now is read on in its place.

use std::{path::Path, sync::Arc, time::Instant};

use super::{
    super::{
        content::Form,
        mark::{Identity, Mark},
        succession::{self, Heir},
        tracked::Tracked,
    },
    Item, Tailer, folders_of,
};

impl Tailer {
    /// The file holds something else now: it was truncated, or its inode was given to another one. What it holds is looked at
    /// as what is found for the first time: it may be a copy of yet another one.
    pub(super) fn replaced(&mut self, identity: Identity, unread: u64, now: Instant) {
        self.rescan = true;
        let followers = self.followers_of(identity);
        let Some(file) = self.forget(identity) else { return };
        match self.heir_of(&file.mark) {
            Some(heir) => {
                let heir = self.put_heir(heir, &file.mark, false, file.after, now);
                self.put_behind(&followers, heir);
            }
            None if unread > 0 => {
                let message = format!("was truncated, and {unread} bytes that were not read are nowhere to be found");
                self.teller.tell("truncated", &file.mark.at, &message);
            }
            None => self.teller.note(&file.mark.at, "was truncated or replaced; it is read from its beginning"),
        }
    }

    /// The file is nowhere any more; `read` says whether all of it was read. Whoever holds its content goes on for it.
    pub(super) fn inherit(&mut self, identity: Identity, read: bool, now: Instant) {
        let followers = self.followers_of(identity);
        let Some(file) = self.forget(identity) else { return };
        let old = file.mark;
        if old.complete {
            return;
        }
        match self.heir_of(&old) {
            Some(heir) if read && !self.settings.matches(&heir.path) => {}
            Some(heir) => {
                let heir = self.put_heir(heir, &old, read, file.after, now);
                self.put_behind(&followers, heir);
            }
            None if !read && old.seen.offset > 0 => {
                self.teller.tell("vanished", &old.at, "is gone, and so is what was not read of it, if there was any");
            }
            None => {}
        }
    }

    /// The files whose names begin as this one's.
    pub(super) fn kin_of(&self, path: &Path) -> impl Iterator<Item = &Tracked> {
        let kin = self.kin.get(&succession::stem(path)).into_iter().flatten();
        kin.filter_map(|identity| self.files.get(identity))
    }

    pub(super) fn no_kin(&mut self, path: &Path, identity: Identity) {
        let stem = succession::stem(path);
        if let Some(kin) = self.kin.get_mut(&stem) {
            kin.retain(|known| *known != identity);
            if kin.is_empty() {
                self.kin.remove(&stem);
            }
        }
    }

    /// Those that wait for it.
    pub(super) fn followers_of(&self, identity: Identity) -> Vec<Identity> {
        let Some(file) = self.files.get(&identity) else { return Vec::new() };
        self.kin_of(&file.mark.path).filter(|file| file.after.contains(&identity)).map(|file| file.identity).collect()
    }

    fn put_behind(&mut self, followers: &[Identity], first: Identity) {
        for follower in followers {
            self.files.entry(*follower).and_modify(|file| file.after.push(first));
        }
    }

    /// Follows it no more.
    fn forget(&mut self, identity: Identity) -> Option<Tracked> {
        let file = self.files.remove(&identity)?;
        self.waiting.remove(&identity);
        self.out.push(Item::Mark(Arc::clone(&file.mark_name), Vec::new()));
        // Its number may be given to another one.
        for other in self.kin.get(&succession::stem(&file.mark.path)).into_iter().flatten() {
            self.files.entry(*other).and_modify(|file| {
                file.after.retain(|before| *before != identity);
                file.predecessors.retain(|before| *before != identity);
            });
        }
        self.no_kin(&file.mark.path, identity);
        Some(file)
    }

    /// Who holds what was read of a file that is not there any more as it was.
    fn heir_of(&self, old: &Mark) -> Option<Heir> {
        let name = old.path.file_name()?;
        let is_known = |identity| self.files.contains_key(&identity);
        succession::by_content(&folders_of(old, &self.settings), name, old.seen, is_known)
    }

    fn put_heir(&mut self, heir: Heir, old: &Mark, read: bool, after: Vec<Identity>, now: Instant) -> Identity {
        let Heir { identity, path, form } = heir;
        let complete = read && form != Form::Plain;
        let mark = Mark { seen: old.seen, complete, form, path: old.path.clone(), at: path };
        let listed = self.listed.contains(&identity);
        let file = self.follow(identity, mark, now);
        (file.listed, file.after, file.drained) = (listed, after, complete);
        self.set_mark(identity);
        identity
    }
}
