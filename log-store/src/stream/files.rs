//! Which of the files in a stream's directory are its segments: what is not is set aside, what has lost its name gets it
//! back, and what holds nothing is told with the numbers that are gone.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    ops::Range,
    path::{Path, PathBuf},
};

use super::recovery::Opening;
use crate::{
    catalogue::SealedSegment,
    clock::Stamp,
    disk::{Disk, DiskFile},
    error::Error,
    event::Event,
    segment::{Found, Holds, SegmentHeader, SegmentReader, Step, StreamDefinition, file_name, mend_names, salt},
    sequence::SequenceNumber,
    stream::tail::walk,
};

/// A segment of this stream, as a look at its file found it.
pub(super) struct OwnFile {
    pub(super) first: SequenceNumber,
    pub(super) bytes: u64,
    /// What the catalogue says, if the file has the length for it.
    pub(super) sealed: Option<SealedSegment>,
    /// When it was made; `None` if the header is damaged, or was not looked at.
    pub(super) created: Option<Stamp>,
    /// Whether there is nothing sound in it.
    is_empty: bool,
}

/// A file in which nothing is sound any more, and the numbers that are gone with it.
pub(super) struct Ruined {
    pub(super) first: SequenceNumber,
    pub(super) numbers: Range<SequenceNumber>,
}

/// What the files of a stream turn out to be.
pub(super) struct Looked {
    pub(super) own: Vec<OwnFile>,
    pub(super) ruined: Vec<Ruined>,
    /// Numbers of sealed segments before all others of which there is no file.
    pub(super) missing: Vec<Range<SequenceNumber>>,
}

/// What a file with the name of a segment turns out to be.
enum Look {
    Own(OwnFile),
    /// A segment of this stream that begins elsewhere than its name says.
    Misnamed(SequenceNumber),
    Foreign,
}

impl Opening {
    /// Goes through the files that are named as segments. Nothing is changed unless all could be looked at.
    pub(super) fn own_files(&self, definition: &StreamDefinition, firsts: &[SequenceNumber]) -> Result<Looked, Error> {
        let sealed = self.known(self.around.catalogue.segments(&self.name)).unwrap_or_default();
        let look = |first: SequenceNumber, is_last: bool| {
            self.look(definition, first, sealed.get(&first).filter(|_| !is_last))
        };
        let mut looks = Vec::with_capacity(firsts.len());
        for &first in firsts {
            looks.push((first, look(first, firsts.last() == Some(&first))?));
        }
        let mut own = Vec::with_capacity(looks.len());
        let (mut holds, mut wanted) = (BTreeMap::new(), BTreeSet::new());
        for (first, look) in looks {
            match look {
                Look::Own(file) => {
                    holds.insert(first, Holds::Own);
                    own.push(file);
                }
                Look::Misnamed(rightful) => {
                    holds.insert(first, Holds::Other(rightful));
                    wanted.insert(rightful);
                }
                Look::Foreign => self.put_away(first, "it belongs to another stream")?,
            }
        }
        // What holds nothing must not keep a segment from its name.
        for in_the_way in own.extract_if(.., |file| file.is_empty && wanted.contains(&file.first)) {
            holds.remove(&in_the_way.first);
            self.put_away(in_the_way.first, "nothing in it is sound")?;
        }
        for step in mend_names(&holds) {
            match step {
                Step::GiveBack { from, to, lay_as } => {
                    self.give_name_back(from, to, lay_as)?;
                    if let Look::Own(file) = look(to, false)? {
                        own.push(file);
                    }
                }
                Step::MakeWay { from, to } => self.change_name(from, to)?,
                Step::Copy { at, .. } => self.put_away(at, "it is a copy of another segment")?,
            }
        }
        own.sort_by_key(|file| file.first);
        let ruined = self.put_ruins_away(definition, &mut own)?;
        let (oldest, mut missing) = (own.first().map(|file| file.first), Vec::new());
        // What is left in the catalogue has no file any more.
        for (first, entry) in sealed {
            if own.binary_search_by_key(&first, |file| file.first).is_err() {
                // Readers tell of those between others.
                if oldest.is_none_or(|oldest| first < oldest) {
                    missing.push(first..entry.last.next());
                }
                self.around.catalogue.forget_segment(&self.name, first, entry.last.next());
            }
        }
        Ok(Looked { own, ruined, missing })
    }

    fn look(
        &self,
        definition: &StreamDefinition,
        first: SequenceNumber,
        sealed: Option<&SealedSegment>,
    ) -> Result<Look, Error> {
        let path = self.dir.join(file_name(first));
        let file = self.around.disk.open_read(&path).map_err(|source| self.io("open segment", &path, source))?;
        let bytes = file.len().map_err(|source| self.io("measure segment", &path, source))?;
        let sealed = sealed.filter(|entry| entry.bytes == bytes && entry.last.next() >= first).copied();
        let own = OwnFile { first, bytes, sealed, created: None, is_empty: false };
        if sealed.is_some() {
            return Ok(Look::Own(own));
        }
        Ok(match SegmentHeader::read(file.as_ref(), &path) {
            Ok(header) if header.definition.id != definition.id => Look::Foreign,
            Ok(header) if header.first != first => Look::Misnamed(header.first),
            Ok(header) => Look::Own(OwnFile { created: Some(header.created), ..own }),
            // The blocks behind a damaged header prove themselves; whoever reads them tells of it.
            Err(Error::Corrupt { .. }) => {
                let salt = salt(definition.id, first);
                let sound = first_sound_block(file, salt, bytes).map_err(|source| self.io("read", &path, source))?;
                Look::Own(OwnFile { is_empty: sound.is_none(), ..own })
            }
            Err(error) => return Err(error),
        })
    }

    /// Puts files away that hold nothing, unless they are the last ones, which were never used.
    fn put_ruins_away(&self, definition: &StreamDefinition, own: &mut Vec<OwnFile>) -> Result<Vec<Ruined>, Error> {
        let used = own.iter().rposition(|file| !file.is_empty).map_or(0, |last| last + 1);
        let mut ruined = Vec::new();
        let mut sound: Vec<OwnFile> = Vec::with_capacity(own.len());
        let files: Vec<_> = std::mem::take(own);
        let next_first: Vec<_> = files.iter().skip(1).map(|file| Some(file.first)).chain([None]).collect();
        for (i, (file, next)) in files.into_iter().zip(next_first).enumerate() {
            if !file.is_empty || i >= used {
                sound.push(file);
                continue;
            }
            let from = match sound.last() {
                Some(OwnFile { sealed: Some(entry), .. }) => entry.last.next(),
                Some(before) => {
                    let path = self.dir.join(file_name(before.first));
                    walk(&self.around, definition, before.first, 0, before.bytes, &path, None)?.end
                }
                None => file.first,
            };
            self.rename(file.first, "broken")?;
            ruined.push(Ruined { first: file.first, numbers: from..next.unwrap_or(file.first) });
        }
        *own = sound;
        Ok(ruined)
    }

    fn give_name_back(
        &self,
        from: SequenceNumber,
        rightful: SequenceNumber,
        lay_as: SequenceNumber,
    ) -> Result<(), Error> {
        self.change_name(from, rightful)?;
        let (stream, segment) = (self.name.clone(), self.dir.join(file_name(rightful)));
        let what = format!("it lay there under the name {} and has its own again", file_name(lay_as));
        self.tell(Event::Damaged { stream, segment, offset: 0, what, records: None });
        Ok(())
    }

    fn change_name(&self, from: SequenceNumber, to: SequenceNumber) -> Result<(), Error> {
        let [from, to] = [from, to].map(|first| self.dir.join(file_name(first)));
        let disk = &self.around.disk;
        let renamed = disk.rename(&from, &to).and_then(|()| disk.sync_dir(&self.dir));
        renamed.map_err(|source| self.io("rename", &from, source))
    }

    /// Keeps a file that is not a segment of this stream under another name.
    pub(super) fn put_away(&self, first: SequenceNumber, what: &str) -> Result<(), Error> {
        let kept = self.rename(first, "broken")?;
        let stream = self.name.clone();
        self.tell(Event::Damaged { stream, segment: kept, offset: 0, what: what.into(), records: None });
        Ok(())
    }

    /// Renames a segment to `.broken`, beside others of that name, or to `.torn`, of which the newest is enough.
    pub(super) fn rename(&self, first: SequenceNumber, extension: &str) -> Result<PathBuf, Error> {
        let path = self.dir.join(file_name(first));
        let disk = &self.around.disk;
        let kept = match extension {
            "torn" => path.with_extension(extension),
            _ => free_name(disk.as_ref(), &path, extension),
        };
        let renamed = disk.rename(&path, &kept).and_then(|()| disk.sync_dir(&self.dir));
        renamed.map_err(|source| self.io("put away", &path, source))?;
        Ok(kept)
    }
}

/// `<first>.<extension>`, or `<first>.<n>.<extension>` if that is there already: what was kept stays.
pub(crate) fn free_name(disk: &dyn Disk, segment: &Path, extension: &str) -> PathBuf {
    let names = (1u64..).map(|n| match n {
        1 => segment.with_extension(extension),
        n => segment.with_extension(format!("{n}.{extension}")),
    });
    let is_free = |path: &PathBuf| matches!(disk.open_read(path).map(drop), Err(error) if error.kind() == io::ErrorKind::NotFound);
    // A disk that cannot even say so gets the next name, and the error of what is done with it.
    names.take(1000).find(is_free).unwrap_or_else(|| segment.with_extension(extension))
}

/// The first block of a segment whose header and payload are sound.
pub(crate) fn first_sound_block(file: Box<dyn DiskFile>, salt: u32, bytes: u64) -> io::Result<Option<u64>> {
    let mut reader = SegmentReader::new(file, salt, 0);
    loop {
        match reader.next(bytes)? {
            Found::End => return Ok(None),
            Found::Damaged { .. } => {}
            Found::Block { offset, header } => {
                if reader.is_sound(offset, &header)? {
                    return Ok(Some(offset));
                }
            }
        }
    }
}
