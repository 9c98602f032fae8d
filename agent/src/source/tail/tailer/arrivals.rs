//! What becomes of a file that a pattern matches and that was not known: it is new, or a copy of a known one.

use std::{fs::File, io, ops::Range, path::Path, time::Instant};

use super::{
    super::{
        content::{Content, Form},
        listing::{Listed, Stamp},
        mark::{Identity, Mark},
        seen::Seen,
        succession,
        tracked::{Place, Tracked, WINDOW},
    },
    Tailer,
};

impl Tailer {
    /// A file that was not known; nor were the `fresh` ones, which were written before it.
    pub(super) fn begin(&mut self, found: Listed, place: Place, fresh: &[Identity], at_end: bool, now: Instant) {
        // Meanwhile it may have become the heir of another one.
        if let Some(file) = self.files.get_mut(&found.identity) {
            file.listed = true;
            return;
        }
        let form = Form::of(&found.path);
        if !at_end && self.is_copy(&found, form, now) {
            self.put_off.insert(found.identity, place);
            return;
        }
        if let Some(file) = self.files.get_mut(&found.identity) {
            file.listed = true;
            return;
        }
        if !self.has_room_for(&found.path) {
            let message = "is not followed: there are as many files as `max-files`, or as a stream has marks for";
            self.teller.tell_once("too-many-files", &found.path, message);
            return;
        }
        let before = self.before(&found.path, place, fresh);
        for identity in &before {
            if let Some(file) = self.files.get_mut(identity) {
                file.drained = file.mark.complete;
            }
            self.enqueue(*identity);
        }
        let mut mark = Mark { seen: Seen::default(), complete: false, form, path: found.path.clone(), at: found.path };
        if at_end {
            match end_of(&mark) {
                Ok(seen) => (mark.seen, mark.complete) = (seen, form != Form::Plain),
                Err(error) => {
                    self.teller.tell_once("unreadable", &mark.at, &format!("cannot be read: {error}"));
                    return;
                }
            }
        }
        let file = self.follow(found.identity, mark, now);
        (file.listed, file.predecessors, file.after) = (true, before.clone(), before);
        file.place = Some(place);
        // Also of a file of which nothing is read yet: it may be renamed before that.
        self.set_mark(found.identity);
    }

    /// Whom a file comes behind that was not known: those that had its name, and those of its rotation that have lost theirs or were
    /// written before it, also if they were begun by an earlier scan, when this one had to wait for its turn. More than one rotation may have passed unseen.
    fn before(&self, path: &Path, place: Place, fresh: &[Identity]) -> Vec<Identity> {
        let name = path.file_name().unwrap_or_default();
        let is_before = |file: &&Tracked| {
            let found_before = file.place.is_some_and(|other| other.is_before(place));
            let is_older = file.mark.at != file.mark.path || found_before || fresh.contains(&file.identity);
            let of = file.mark.path.file_name().unwrap_or_default();
            file.mark.path == path || is_older && succession::is_rotated_name(of, name)
        };
        self.kin_of(path).filter(is_before).map(|file| file.identity).collect()
    }

    /// Whether a file that was not known holds what was read of a known one, which is still there with it: then it waits.
    ///
    /// Compressing and copying leave both for a moment. The known one may be truncated already, in which case the
    /// new one becomes its heir here.
    fn is_copy(&mut self, found: &Listed, form: Form, now: Instant) -> bool {
        let Some(name) = found.path.file_name() else { return false };
        let is_related = |file: &&Tracked| {
            let of = file.mark.path.file_name();
            !file.mark.complete && of.is_some_and(|of| succession::is_rotated_name(of, name))
        };
        let related: Vec<_> = self.kin_of(&found.path).filter(is_related).map(|file| file.identity).collect();
        for identity in &related {
            // Of what nothing was read, nothing can be known again.
            if self.files.get(identity).is_some_and(|file| file.mark.seen.offset == 0) {
                self.look_at(*identity, now);
                if self.is_blocked(*identity) {
                    // More is known as soon as it has had its turn.
                    self.rescan = true;
                    return true;
                }
            }
        }
        let related: Vec<_> = related
            .iter()
            .filter_map(|identity| self.files.get(identity))
            .filter(|file| file.mark.seen.is_telling() || (form != Form::Plain && file.mark.seen.offset > 0))
            .map(|file| (file.identity, file.mark.clone()))
            .collect();
        if related.is_empty() {
            return false;
        }
        let Ok(mut content) = File::open(&found.path).map(|file| Content::new(file, form)) else { return false };
        for (identity, mark) in related {
            let seen = mark.seen;
            if !may_hold(&mut content, seen, &found.stamp, form) {
                continue;
            }
            let opened = File::open(&mark.at).and_then(|file| Ok((file.metadata()?, file)));
            let intact = match opened {
                Ok((metadata, file)) if Identity::of(&metadata) == identity => {
                    succession::holds(&mut Content::new(file, mark.form), seen).unwrap_or(true)
                }
                // The next scan knows more.
                _ => true,
            };
            if intact {
                return true;
            }
            if found.stamp.bytes < seen.offset && form == Form::Plain {
                // All of it was read from the other one.
                let mut read = || {
                    let head = content.part(Seen::head_of(found.stamp.bytes))?;
                    let tail = content.part(Seen::tail_of(found.stamp.bytes))?;
                    io::Result::Ok(Seen::new(found.stamp.bytes, &head, &tail))
                };
                if let Ok(seen) = read() {
                    let mark = Mark { seen, form, path: mark.path, at: found.path.clone(), complete: false };
                    self.follow(found.identity, mark, now).listed = true;
                    self.set_mark(found.identity);
                }
                return true;
            }
            // It leaves what was read of it to this one.
            self.replaced(identity, 0, now);
            return self.files.contains_key(&found.identity);
        }
        false
    }
}

/// What is not read of a file that is begun at its end: all but its last line, if that has no end yet.
fn end_of(mark: &Mark) -> io::Result<Seen> {
    if mark.form != Form::Plain {
        return Ok(Seen::default());
    }
    let file = File::open(&mark.at)?;
    let size = file.metadata()?.len();
    let mut content = Content::new(file, mark.form);
    let last = content.part(size.saturating_sub(WINDOW as u64)..size)?;
    let unfinished = memchr::memrchr(b'\n', &last).map_or(0, |at| last.len() - at - 1);
    let offset = size - unfinished as u64;
    Ok(Seen::new(offset, &content.part(Seen::head_of(offset))?, &content.part(Seen::tail_of(offset))?))
}

/// Whether the content begins with what was read, as far as there is content.
fn may_hold(content: &mut Content, seen: Seen, stamp: &Stamp, form: Form) -> bool {
    let mut read = |range: Range<u64>| {
        let (mut bytes, len) = (Vec::new(), (range.end - range.start) as usize);
        let ends = content.read(range.start, len, &mut bytes).ok()?;
        // Of a plain file less may be there, because the one that it is a copy of has grown since. A compressed one may not be finished.
        let short = bytes.len() < len && if form == Form::Plain { stamp.bytes < seen.offset } else { !ends };
        Some((bytes, short))
    };
    match read(Seen::head_of(seen.offset)) {
        Some((_, true)) => form != Form::Plain,
        Some((head, false)) => {
            seen.has_head(&head)
                && read(Seen::tail_of(seen.offset)).is_some_and(|(tail, short)| short || seen.has_tail(&tail))
        }
        None => false,
    }
}
