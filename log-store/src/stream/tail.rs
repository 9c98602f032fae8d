//! The last segment of a stream at opening: read behind its newest index entry, its torn end cut off and kept.

use std::path::{Path, PathBuf};

use super::{Segment, Surroundings, files::OwnFile, recovery::Opening};
use crate::{
    clock::{Boot, Stamp},
    disk::{Disk, DiskFile},
    error::Error,
    event::Event,
    gaps::Gaps,
    marks::Marks,
    segment::{
        BlockKind, Control, FORMAT_VERSION, Found, SegmentHeader, SegmentReader, StreamDefinition, file_name, salt,
    },
    sequence::SequenceNumber,
};

/// What of a torn end is kept for a look: far more than a commit is.
const TORN_KEPT_BYTES_MAX: u64 = 64 << 20;

/// The last segment, read and cut.
pub(super) struct Tail {
    pub(super) file: Box<dyn DiskFile>,
    pub(super) segment: Segment,
    pub(super) created: Stamp,
    /// Whether its format is today's, so that it may go on. A segment is of one version from its head to its end.
    pub(super) is_of_today: bool,
    /// The newest control block among what was read.
    pub(super) control: Option<Control>,
    /// What the blocks behind that have set; without one, all that were read.
    pub(super) marks_set: Marks,
    /// The marks before what was read, if that began in the middle, where the catalogue knows them.
    pub(super) marks_before: Option<Marks>,
    /// The newest list of the machine's boots among what was read.
    pub(super) boots: Vec<Boot>,
    /// The unwritten numbers that it tells of.
    pub(super) unwritten: Gaps,
    pub(super) since_index: u64,
}

/// What reading a segment through found.
#[derive(Clone, Default)]
pub(super) struct Walked {
    /// The sound block where the reading began, if there was one.
    found_at_start: Option<SequenceNumber>,
    blocks: u64,
    /// Behind the last sound block.
    end_offset: u64,
    /// Whether a block header of this segment lies behind the last sound block.
    has_torn_block: bool,
    pub(super) end: SequenceNumber,
    newest: Option<Stamp>,
    pub(super) control: Option<Control>,
    /// What the blocks behind that have set.
    pub(super) marks_set: Marks,
    boots: Vec<Boot>,
    /// The unwritten numbers of which it tells.
    pub(super) unwritten: Gaps,
}

impl Tail {
    /// Whether what was read of it tells all marks.
    pub(super) fn tells_marks(&self) -> bool {
        self.control.is_some() || self.marks_before.is_some()
    }
}

impl Opening {
    /// Reads the last segment and cuts its torn end. A file in which nothing is whole was never used and is put away;
    /// then the one before is the last.
    pub(super) fn read_tail(
        &self,
        definition: &StreamDefinition,
        files: &mut Vec<OwnFile>,
    ) -> Result<Option<Tail>, Error> {
        while let Some(OwnFile { first, .. }) = files.pop() {
            let header = match self.header(first) {
                Ok(header) => Some(header),
                Err(Error::Corrupt { .. }) => None,
                Err(error) => return Err(error),
            };
            if let Some(tail) = self.open_tail(definition, first, header)? {
                return Ok(Some(tail));
            }
        }
        Ok(None)
    }

    fn open_tail(
        &self,
        definition: &StreamDefinition,
        first: SequenceNumber,
        header: Option<SegmentHeader>,
    ) -> Result<Option<Tail>, Error> {
        let path = self.dir.join(file_name(first));
        let file = self.around.disk.open(&path).map_err(|source| self.io("open segment", &path, source))?;
        let len = file.len().map_err(|source| self.io("measure segment", &path, source))?;
        let start = header.as_ref().map_or(0, SegmentHeader::encoded_len);
        let from_start = || walk(&self.around, definition, first, start, len, &path, None);
        let catalogue = &self.around.catalogue;
        let place = catalogue.newest_place(&self.name).filter(|(_, segment, _)| *segment == first);
        let place = place.filter(|(.., offset)| (start..len).contains(offset));
        let known = place.and_then(|place| Some((place, self.known(catalogue.marks(&self.name))?)));
        let (from, walked, marks_before) = match known {
            Some(((number, _, place), marks)) => {
                let walked = walk(&self.around, definition, first, place, len, &path, None)?;
                // An entry that points into nowhere, or at another block, is as good as none.
                if walked.found_at_start == Some(number) {
                    (place, walked, Some(marks))
                } else {
                    (start, from_start()?, None)
                }
            }
            None => (start, from_start()?, None),
        };
        if header.is_none() && walked.blocks == 0 {
            let kept = self.rename(first, "torn")?;
            self.tell_torn(&path, 0, len, Some(kept));
            return Ok(None);
        }
        let cut = walked.end_offset;
        if cut < len {
            // What an earlier segment left in a recycled file is no commit of this one.
            let is_leftover = !walked.has_torn_block && header.as_ref().is_some_and(|header| header.is_leftover(len));
            let kept = match is_leftover {
                true => None,
                false => keep_torn(self.around.disk.as_ref(), file.as_ref(), &path, cut, len),
            };
            file.truncate(cut).map_err(|source| self.io("cut the torn end off", &path, source))?;
            if !is_leftover {
                self.tell_torn(&path, cut, len - cut, kept);
            }
        }
        // A killed process may have left what it had not synced: whoever reads that now must not lose it to a power cut.
        file.sync().map_err(|source| self.io("sync", &path, source))?;
        // Behind a damaged header, whatever it said, go on with a new segment.
        let is_of_today = header.as_ref().is_some_and(|header| header.version == FORMAT_VERSION);
        let created =
            header.map_or_else(|| Stamp::new(self.around.boot, self.around.clock.now()), |header| header.created);
        let newest = walked.newest.unwrap_or(created);
        let segment = Segment { first, end: walked.end.max(first), bytes: cut, newest };
        let Walked { control, marks_set, boots, unwritten, .. } = walked;
        let since_index = cut - from;
        Ok(Some(Tail {
            file,
            segment,
            created,
            is_of_today,
            control,
            marks_set,
            marks_before,
            boots,
            unwritten,
            since_index,
        }))
    }

    fn tell_torn(&self, segment: &Path, offset: u64, bytes: u64, kept: Option<PathBuf>) {
        self.tell(Event::TailTorn { stream: self.name.clone(), segment: segment.into(), offset, bytes, kept });
    }
}

/// A copy of a torn end for whoever wants to look; not worth failing for.
pub(crate) fn keep_torn(disk: &dyn Disk, file: &dyn DiskFile, path: &Path, offset: u64, len: u64) -> Option<PathBuf> {
    let bytes = torn_bytes(file, offset, len)?;
    let kept = path.with_extension("torn");
    // Only the newest of a segment is kept: a gateway whose power is cut daily must not collect them.
    let _ = disk.remove(&kept);
    let copied = disk.create(&kept).and_then(|copy| copy.write_at(0, &bytes));
    if copied.is_err() {
        // Half a copy would only take room, which may be what was missing.
        let _ = disk.remove(&kept);
        return None;
    }
    Some(kept)
}

/// What of a torn end is worth keeping; nothing if it is all zeros.
pub(crate) fn torn_bytes(file: &dyn DiskFile, offset: u64, len: u64) -> Option<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from((len - offset).min(TORN_KEPT_BYTES_MAX)).ok()?];
    let read = file.read_at(offset, &mut bytes).ok()?;
    bytes.truncate(read);
    bytes.iter().any(|byte| *byte != 0).then_some(bytes)
}

/// Reads the blocks of a segment from `from` on, checksums and all.
///
/// Damage between sound blocks is passed over here; readers tell of it. What lies behind the last sound block is a torn
/// end: a commit that never finished, so that nobody was told of it. So is all from a place that does not fit on, if nothing
/// shows that it was ever synced: no block behind it was begun after a sync.
///
/// `next` is where the next segment begins, if there is one.
pub(super) fn walk(
    around: &Surroundings,
    definition: &StreamDefinition,
    first: SequenceNumber,
    from: u64,
    len: u64,
    path: &Path,
    next: Option<SequenceNumber>,
) -> Result<Walked, Error> {
    let io = |source| Error::Io { action: "read segment", path: path.into(), source };
    let file = around.disk.open_read(path).map_err(io)?;
    let mut reader = SegmentReader::new(file, salt(definition.id, first), from);
    let mut walked = Walked { end_offset: from.min(len), end: first, ..Walked::default() };
    // As it was before the first such place.
    let mut unfinished: Option<Walked> = None;
    loop {
        match reader.next(len).map_err(io)? {
            // Its own blocks lie behind that place, so that it is no leftover of a recycled file.
            Found::End => {
                return Ok(unfinished.map_or(walked, |unfinished| Walked { has_torn_block: true, ..unfinished }));
            }
            Found::Damaged { .. } => {}
            Found::Block { offset, header } => {
                walked.has_torn_block = !reader.is_sound(offset, &header).map_err(io)?;
                if walked.has_torn_block {
                    continue;
                }
                if !header.together {
                    unfinished = None;
                } else if offset > walked.end_offset {
                    unfinished.get_or_insert_with(|| walked.clone());
                }
                if offset == from {
                    walked.found_at_start = Some(header.first);
                }
                if header.kind == BlockKind::Control {
                    let payload = reader.payload(offset, &header).map_err(io)?.ok();
                    if let Some(control) = payload.and_then(|payload| Control::decode(payload).ok()) {
                        if !control.boots.is_empty() {
                            walked.boots.clone_from(&control.boots);
                        }
                        walked.unwritten.add_all(&control.unwritten);
                        walked.marks_set = Marks::default();
                        walked.control = Some(control);
                    }
                }
                // What a failed commit left stands in a segment that another one follows.
                let is_own = next.is_none_or(|next| !header.is_taken_over(next));
                if header.kind == BlockKind::Unwritten && is_own {
                    walked.unwritten.add(header.first..=header.end().previous());
                }
                if header.marked && is_own {
                    let payload = reader.payload(offset, &header).map_err(io)?.ok();
                    if let Some(marks) = payload.and_then(|payload| header.marks(payload).ok()) {
                        walked.marks_set.change_all(&marks);
                    }
                }
                walked.newest = Some(header.arrival);
                walked.blocks += 1;
                walked.end_offset = offset + header.total_bytes();
                walked.end = walked.end.max(header.end());
            }
        }
    }
}
