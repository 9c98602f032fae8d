//! One file that is followed: opened, checked to be the one it was, and read on.
//!
//! Nothing of its content is kept between two looks, however many files there are: an unfinished line is read again.

use std::{
    fs::{self, File, Metadata},
    io,
    os::{fd::AsRawFd, unix::fs::MetadataExt},
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    content::{Content, Form},
    cut::{self, Behind, Cut, Piece, Rules},
    listing::Stamp,
    mark::{Identity, Mark},
    seen::Seen,
};

/// So many bytes are read at once.
pub(super) const WINDOW: usize = 256 * 1024;

/// A file that is followed.
pub(super) struct Tracked {
    pub(super) identity: Identity,
    /// Of its mark.
    pub(super) mark_name: Arc<str>,
    /// What is kept of it.
    pub(super) mark: Mark,
    /// As of the last look.
    pub(super) stamp: Option<Stamp>,
    /// Whether a pattern matches it.
    pub(super) listed: bool,
    /// Where it was found, if that was in this run.
    pub(super) place: Option<Place>,
    /// Files that had its name before; they are read first.
    pub(super) after: Vec<Identity>,
    /// The same, also those that were read to their ends: more may come to them.
    pub(super) predecessors: Vec<Identity>,
    /// How often in a row it was put off because something had come to those.
    pub(super) put_off: u8,
    /// Whether it was read to its end, so that those behind it may begin.
    pub(super) drained: bool,
    /// Whether a look is due.
    pub(super) queued: bool,
    /// When it was last looked at, in looks.
    pub(super) used: u64,
    /// When it last changed.
    changed: Instant,
    content: Option<Content>,
    /// Whether the content is known to be what it was since it was opened.
    verified: bool,
    /// Up to where the line is looked through that is too long, for its end.
    skipping: Option<u64>,
    window: usize,
}

/// In which scan a file was found first, and how many were found there that were written before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) scan: u64,
    pub(super) number: usize,
}

impl Place {
    /// Whether it was written before another one, as far as one scan told.
    pub(super) fn is_before(self, other: Self) -> bool {
        self.scan == other.scan && self.number < other.number
    }
}

/// What a record needs to become one.
pub(super) struct Chunk {
    /// Of the file it is from.
    pub(super) mark_name: Arc<str>,
    /// As it was before.
    mark: Mark,
    bytes: Vec<u8>,
    /// Where the records begin in the bytes.
    skip: usize,
    cut: Cut,
    /// Whether nothing follows.
    completes: bool,
}

/// A record of a chunk.
pub(super) struct Record<'a> {
    pub(super) payload: &'a [u8],
    /// Where in the file it begins.
    pub(super) byte: u64,
    /// Where in the chunk the next one begins.
    pub(super) next: usize,
}

/// When what has no end is taken as it is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Timeouts {
    pub(super) group: Option<Duration>,
    pub(super) partial_line: Option<Duration>,
}

/// What a look showed.
pub(super) enum Look {
    /// It could be read.
    Read {
        /// What was there.
        chunk: Option<Chunk>,
        /// Begins with a line that is longer than a record may be: so long is it at least.
        oversize: Option<u64>,
        /// Whether its mark changed otherwise.
        moved: bool,
        /// Whether there is more right now.
        more: bool,
        /// Something without an end is left, which becomes a record after a while.
        waiting: bool,
        /// Nothing will ever follow, and the file is deleted.
        deleted: bool,
    },
    /// It holds something else than what was read.
    Replaced {
        /// What was there and not read.
        unread: u64,
    },
    /// It is not where it was.
    Gone,
}

impl Tracked {
    pub(super) fn new(identity: Identity, mark_name: Arc<str>, mark: Mark, now: Instant) -> Self {
        Self {
            identity,
            mark_name,
            mark,
            stamp: None,
            listed: false,
            place: None,
            after: Vec::new(),
            predecessors: Vec::new(),
            put_off: 0,
            drained: false,
            queued: false,
            used: 0,
            changed: now,
            content: None,
            verified: false,
            skipping: None,
            window: WINDOW,
        }
    }

    pub(super) fn is_open(&self) -> bool {
        self.content.is_some()
    }

    pub(super) fn close(&mut self) {
        self.content = None;
    }

    /// Whether all that was there at the last look was read.
    pub(super) fn is_read(&self) -> bool {
        self.mark.complete || self.stamp.is_some_and(|stamp| stamp.bytes == self.mark.seen.offset)
    }

    /// Whether nothing has changed for so long.
    pub(super) fn is_quiet(&self, for_: Duration, now: Instant) -> bool {
        now.duration_since(self.changed) >= for_
    }

    /// What the kernel says of it, if it is open: the name that it has now, and whether it is deleted.
    pub(super) fn whereabouts(&self) -> Option<(PathBuf, Stamp, bool)> {
        let file = &self.content.as_ref()?.file;
        let metadata = file.metadata().ok()?;
        let path = fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd())).ok()?;
        Some((path, Stamp::of(&metadata), metadata.nlink() == 0))
    }

    /// How long it is.
    pub(super) fn bytes_now(&self) -> Option<u64> {
        self.metadata().map(|metadata| metadata.len())
    }

    /// Whether it was written to since the last look.
    pub(super) fn has_changed(&self) -> bool {
        !self.mark.complete && self.metadata().is_some_and(|metadata| self.stamp != Some(Stamp::of(&metadata)))
    }

    fn metadata(&self) -> Option<Metadata> {
        match &self.content {
            Some(content) => content.file.metadata().ok(),
            None => fs::metadata(&self.mark.at).ok().filter(|found| Identity::of(found) == self.identity),
        }
    }

    /// Reads on from where it was read to; of a plain file no more than these first bytes, if it is said so.
    pub(super) fn look(
        &mut self,
        rules: &Rules,
        timeouts: Timeouts,
        until: Option<u64>,
        now: Instant,
    ) -> io::Result<Look> {
        if self.content.is_none() {
            let file = match File::open(&self.mark.at) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Look::Gone),
                opened => opened?,
            };
            if Identity::of(&file.metadata()?) != self.identity {
                return Ok(Look::Gone);
            }
            self.content = Some(Content::new(file, self.mark.form));
            self.verified = false;
        }
        let looked = self.look_into(rules, timeouts, until, now);
        if looked.is_err() {
            self.content = None;
        }
        looked
    }

    fn look_into(&mut self, rules: &Rules, timeouts: Timeouts, until: Option<u64>, now: Instant) -> io::Result<Look> {
        let Some(content) = &mut self.content else { return Ok(Look::Gone) };
        let metadata = content.file.metadata()?;
        let (stamp, deleted) = (Stamp::of(&metadata), metadata.nlink() == 0);
        let seen = self.mark.seen;
        let unread = self.stamp.map_or(0, |stamp| stamp.bytes.saturating_sub(seen.offset));
        if self.stamp.replace(stamp).is_none_or(|before| before != stamp) {
            self.changed = now;
        }
        let is_plain = self.mark.form == Form::Plain;
        // A compressed file is unpacked from its beginning to look there again, and nobody writes to it.
        if is_plain || !self.verified {
            let head = content.part(Seen::head_of(seen.offset))?;
            if !seen.has_head(&head) {
                return Ok(Look::Replaced { unread });
            }
            self.verified = true;
        }
        if let Some(from) = self.skipping {
            return self.skip_on(from, deleted);
        }
        let before = Seen::tail_of(seen.offset);
        let overlap = (before.end - before.start) as usize;
        let until = until.unwrap_or(stamp.bytes).min(stamp.bytes);
        let there = usize::try_from(until.saturating_sub(seen.offset)).unwrap_or(usize::MAX);
        let window = if is_plain { self.window.min(there) } else { self.window };
        let mut bytes = Vec::new();
        let end = content.read(before.start, overlap + window, &mut bytes)?;
        // Of a plain file it was said where it ends; what came since is for the next look.
        let end = if is_plain { there <= self.window && until == stamp.bytes } else { end };
        if !is_plain && !end && bytes.len() <= overlap {
            // Still being written.
            return Ok(Look::nothing(deleted));
        }
        if bytes.len() < overlap || !seen.has_tail(&bytes[..overlap]) {
            return Ok(Look::Replaced { unread });
        }
        let ends = end && (deleted || !is_plain);
        let quiet = |timeout: Option<Duration>| {
            end && timeout.is_some_and(|timeout| now.duration_since(self.changed) >= timeout)
        };
        let behind = if ends || quiet(timeouts.partial_line) {
            Behind::Nothing
        } else if quiet(timeouts.group) {
            Behind::NoLine
        } else {
            Behind::More
        };
        let cut = cut::cut(&bytes[overlap..], rules, behind);
        let left = bytes.len() - overlap - cut.done;
        let is_full = bytes.len() == overlap + self.window;
        let mut oversize = None;
        if cut.done > 0 {
            self.window = WINDOW;
        } else if cut.endless {
            self.skipping = Some(before.start + bytes.len() as u64);
            oversize = Some(left as u64);
        } else if is_full {
            // Whatever is one record fits into this.
            self.window = (self.window * 2).min(WINDOW + 2 * rules.max_record + 4);
        }
        // What is still being compressed ends somewhere, but not for good.
        let more = is_full || cut.endless || (is_plain && until < stamp.bytes);
        let (before, skip) = (self.mark.clone(), overlap);
        self.mark.seen = seen.advanced(&bytes, seen.offset + cut.done as u64);
        self.mark.complete = ends && !is_plain;
        let (mark_name, completes) = (Arc::clone(&self.mark_name), self.mark.complete);
        let chunk = (cut.done > 0).then_some(Chunk { mark_name, mark: before, bytes, skip, cut, completes });
        let moved = self.mark.complete && chunk.is_none();
        Ok(Look::Read { chunk, oversize, moved, more, waiting: left > 0, deleted: deleted && end })
    }

    /// Looks for the end of the line that is too long.
    fn skip_on(&mut self, from: u64, deleted: bool) -> io::Result<Look> {
        let Some(content) = &mut self.content else { return Ok(Look::Gone) };
        let mut bytes = Vec::new();
        let end = content.read(from, WINDOW, &mut bytes)?;
        let ends = end && (deleted || self.mark.form != Form::Plain);
        let next = match cut::end_of_line(&bytes) {
            Some(at) => Some(from + at as u64),
            None => ends.then_some(from + bytes.len() as u64),
        };
        match next {
            Some(offset) => {
                let head = content.part(Seen::head_of(offset))?;
                self.mark.seen = Seen::new(offset, &head, &content.part(Seen::tail_of(offset))?);
                self.skipping = None;
            }
            None => self.skipping = Some(from + bytes.len() as u64),
        }
        let more = bytes.len() == WINDOW || next.is_some_and(|offset| offset < from + bytes.len() as u64);
        self.mark.complete = ends && !more && self.mark.form != Form::Plain;
        Ok(Look::Read {
            chunk: None,
            oversize: None,
            moved: next.is_some(),
            more,
            waiting: false,
            deleted: deleted && end && !more,
        })
    }
}

impl Look {
    fn nothing(deleted: bool) -> Self {
        Self::Read { chunk: None, oversize: None, moved: false, more: false, waiting: false, deleted }
    }
}

impl Chunk {
    /// How much was read for it.
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Where its file was first found.
    pub(super) fn path(&self) -> &PathBuf {
        &self.mark.path
    }

    pub(super) fn records(&self) -> impl Iterator<Item = Record<'_>> {
        self.cut.pieces.iter().map(|Piece { data, next }| Record {
            payload: &self.bytes[self.skip..][data.clone()],
            byte: self.mark.seen.offset + data.start as u64,
            next: *next,
        })
    }

    /// The value of the mark once what is before `next` is stored; the whole chunk if there is no next one.
    pub(super) fn mark_at(&self, next: Option<usize>) -> Vec<u8> {
        let to = self.mark.seen.offset + next.unwrap_or(self.cut.done) as u64;
        let complete = next.is_none() && self.completes;
        Mark { seen: self.mark.seen.advanced(&self.bytes, to), complete, ..self.mark.clone() }.encode()
    }
}
