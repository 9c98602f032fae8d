//! What the files of a stream turn out to be, before a walk goes through them. Nothing is changed.

use std::{collections::BTreeMap, io::ErrorKind, path::Path};

use super::{Finding, FindingKind, io_error, walk::Walk};
use crate::{
    clock::Stamp,
    disk::Disk,
    error::Error,
    segment::{
        BlockKind, Found, Holds, SegmentHeader, SegmentReader, Step, StreamDefinition, file_name, mend_names,
        parse_file_name, salt,
    },
    sequence::SequenceNumber,
    stream::{first_sound_block, stream_dir},
};

/// A file of which nothing is sound may be a head that was not finished, if it is not longer than this, or than twice the
/// head of another segment: the head is synced before any block follows.
const UNFINISHED_HEAD_BYTES: u64 = 1024;

/// A file with the name of a segment.
pub(super) struct SegmentFile {
    /// Where it belongs: what its name says, or should say if it is a segment that gets its own name back.
    pub(super) first: SequenceNumber,
    /// What its name says.
    pub(super) name: SequenceNumber,
    pub(super) is: Is,
}

/// What such a file turns out to be.
pub(super) enum Is {
    /// A segment of the stream.
    Segment(Head),
    /// A segment of the stream whose header is damaged, though some of its blocks are sound.
    Headless { what: String },
    /// Nothing in it is sound. If it may be `unfinished`, it may never have held a record.
    Ruined { what: String, unfinished: bool },
    /// It says that it is a segment that another file is.
    Copy { rightful: SequenceNumber },
    /// A segment of the stream under another name than its own, which something unreadable has.
    Astray { rightful: SequenceNumber },
    /// A segment of another stream.
    Foreign,
    /// The disk refuses, or it is of a newer format.
    Unreadable { what: String },
}

/// What is kept of a segment's header: a definition may be long, and there may be thousands of segments.
#[derive(Debug, Clone, Copy)]
pub(super) struct Head {
    /// Where its blocks begin.
    pub(super) start: u64,
    pub(super) created: Stamp,
    /// Up to here, what is no block of it may be left of an earlier segment.
    pub(super) recycled_bytes: u64,
}

impl SegmentFile {
    /// Whether the numbers of the file before it end where it begins.
    pub(super) fn is_part(&self) -> bool {
        matches!(self.is, Is::Segment(_) | Is::Headless { .. } | Is::Unreadable { .. })
    }
}

impl<'a> Walk<'a> {
    pub(super) fn new(disk: &'a dyn Disk, data_dir: &Path, stream: &str) -> Result<Self, Error> {
        let dir = stream_dir(data_dir, stream);
        let (names, unlisted) = match disk.list(&dir) {
            Ok(names) => (names, None),
            // Deleted by a running agent since the data directory was listed.
            Err(error) if error.kind() == ErrorKind::NotFound => Default::default(),
            Err(error) => {
                let what = format!("the stream's directory cannot be listed: {error}");
                let (kind, file) = (FindingKind::Unreadable, dir.clone());
                (Vec::new(), Some(Finding { kind, file, offset: 0, what, records: None }))
            }
        };
        let mut firsts: Vec<_> = names.iter().filter_map(|name| parse_file_name(name)).collect();
        firsts.sort_unstable();
        let kept = |name: &&String| name.ends_with(".torn") || name.ends_with(".broken");
        let mut leftovers: Vec<_> = names.iter().filter(kept).map(|name| dir.join(name)).collect();
        leftovers.sort();
        let mut walk = Self {
            disk,
            dir,
            files: Vec::new(),
            leftovers,
            unlisted,
            renames: Vec::new(),
            definition: None,
            id: None,
            format: None,
            decodes: true,
        };
        let mut looks = Vec::with_capacity(firsts.len());
        let headers = firsts.iter().rev().filter_map(|&first| {
            let path = walk.dir.join(file_name(first));
            let read = disk.open_read(&path).map_err(|source| io_error("open segment", &path, source));
            match read.and_then(|file| SegmentHeader::read(file.as_ref(), &path)) {
                Ok(header) => {
                    let (start, recycled_bytes) = (header.encoded_len(), header.recycled_bytes.into());
                    let head = Head { start, created: header.created, recycled_bytes };
                    looks.push((first, Ok((header.definition.id, header.first, head))));
                    walk.format = walk.format.or(Some(header.version));
                    Some((first, header))
                }
                // Dropped by a running agent since the directory was listed.
                Err(Error::Io { source, .. }) if source.kind() == ErrorKind::NotFound => None,
                Err(error) => {
                    looks.push((first, Err(error)));
                    None
                }
            }
        });
        walk.definition = StreamDefinition::agreed_under_any_names(stream, headers);
        let headless = looks.iter().filter(|(_, look)| matches!(look, Err(Error::Corrupt { .. })));
        let id = match &walk.definition {
            Some(definition) => Some(definition.id),
            None => headless.map(|(first, _)| *first).find_map(|first| walk.proven_id(first)),
        };
        walk.id = id;
        let known_heads = looks.iter().filter_map(|(first, look)| Some((*first, look.as_ref().ok()?.2)));
        let known_head = known_heads.take(1).find_map(|(first, head)| walk.head_bytes(first, head)).unwrap_or(0);
        let head_bytes_max = UNFINISHED_HEAD_BYTES.max(2 * known_head);
        let known_id = walk.definition.as_ref().map(|definition| definition.id);
        let mut astray = BTreeMap::new();
        for (name, look) in looks.into_iter().rev() {
            let is = match look {
                Ok((of, ..)) if Some(of) != known_id => Is::Foreign,
                Ok((_, rightful, head)) if rightful != name => {
                    astray.insert(name, head);
                    Is::Astray { rightful }
                }
                Ok((_, _, head)) => Is::Segment(head),
                Err(Error::Corrupt { what, .. }) => walk.without_header(name, head_bytes_max, what),
                Err(error) => Is::Unreadable { what: error.to_string() },
            };
            walk.files.push(SegmentFile { first: name, name, is });
        }
        walk.put_in_order(&astray);
        Ok(walk)
    }

    /// Finds the places of segments that are under wrong names.
    fn put_in_order(&mut self, heads: &BTreeMap<SequenceNumber, Head>) {
        let holds = |file: &SegmentFile| match file.is {
            Is::Segment(_) | Is::Headless { .. } => Some(Holds::Own),
            Is::Astray { rightful } => Some(Holds::Other(rightful)),
            Is::Unreadable { .. } => Some(Holds::Unknown),
            Is::Ruined { .. } | Is::Copy { .. } | Is::Foreign => None,
        };
        self.renames = mend_names(&self.files.iter().filter_map(|file| Some((file.name, holds(file)?))).collect());
        for step in &self.renames {
            let (name, place) = match *step {
                Step::GiveBack { to, lay_as, .. } => (lay_as, Some(to)),
                Step::Copy { lay_as, .. } => (lay_as, None),
                Step::MakeWay { .. } => continue,
            };
            let Ok(at) = self.files.binary_search_by_key(&name, |file| file.name) else { continue };
            let file = &mut self.files[at];
            match (place, &file.is) {
                (Some(place), _) => (file.first, file.is) = (place, Is::Segment(heads[&name])),
                (None, Is::Astray { rightful }) => file.is = Is::Copy { rightful: *rightful },
                (None, _) => {}
            }
        }
        // What is ruined comes before what is to have its name.
        self.files.sort_by_key(|file| (file.first, file.is_part()));
    }

    fn without_header(&self, first: SequenceNumber, head_bytes_max: u64, what: String) -> Is {
        let file = self.disk.open_read(&self.dir.join(file_name(first)));
        let found = file.and_then(|file| {
            let bytes = file.len()?;
            let unfinished = bytes <= head_bytes_max;
            // Without any sound header, and no id that blocks prove, their checksums cannot be checked.
            let Some(id) = self.id else { return Ok(Is::Ruined { what: what.clone(), unfinished }) };
            Ok(match first_sound_block(file, salt(id, first), bytes)? {
                Some(_) => Is::Headless { what: what.clone() },
                None => Is::Ruined { what: format!("{what}, and nothing behind it is sound"), unfinished },
            })
        });
        found.unwrap_or_else(|error| Is::Unreadable { what: error.to_string() })
    }

    /// The stream's id, if a damaged header still names it: then some block behind it is sound.
    fn proven_id(&self, first: SequenceNumber) -> Option<u64> {
        let open = || self.disk.open_read(&self.dir.join(file_name(first)));
        let claimed = open().and_then(|file| SegmentHeader::claimed_ids(file.as_ref())).ok()?;
        let is_proven = |id: &u64| {
            let sound = open().and_then(|file| {
                let bytes = file.len()?;
                first_sound_block(file, salt(*id, first), bytes)
            });
            matches!(sound, Ok(Some(_)))
        };
        claimed.into_iter().find(is_proven)
    }

    /// Length of a segment's header and of the control block with which the log begins it.
    fn head_bytes(&self, first: SequenceNumber, head: Head) -> Option<u64> {
        let file = self.disk.open_read(&self.dir.join(file_name(first))).ok()?;
        let bytes = file.len().ok()?;
        match SegmentReader::new(file, salt(self.id?, first), head.start).next(bytes) {
            Ok(Found::Block { offset, header }) if header.kind == BlockKind::Control => {
                Some(offset + header.total_bytes())
            }
            _ => Some(head.start),
        }
    }
}
