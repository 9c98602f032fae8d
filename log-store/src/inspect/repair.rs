//! `repair`: takes what is damaged out of a closed log, and leaves a gap block where records are lost for good.
//!
//! Nothing that is sound is changed, and of every file that is changed a copy stays. A power cut at any moment leaves the
//! old file or the new one. What is mended is sound: a second run finds nothing to do.

use std::{
    io,
    ops::{ControlFlow, Range, RangeInclusive},
    path::{Path, PathBuf},
};

use super::{
    Finding, FindingKind,
    files::{Is, SegmentFile},
    io_error, stream_names,
    walk::{Visit, Walk},
};
use crate::{
    clock::Stamp,
    disk::{Disk, DiskFile, RealDisk},
    error::Error,
    segment::{
        BlockHeader, BlockKind, FORMAT_VERSION, SegmentHeader, Step, StreamDefinition, file_name, finish_block, salt,
        start_block,
    },
    sequence::SequenceNumber,
    store::lock_data_dir,
    stream::{free_name, keep_torn, torn_bytes},
};

/// Copied at a time.
const CHUNK_BYTES: usize = 1 << 20;
/// What a file is called until it is whole.
const UNFINISHED: &str = "mending";

/// What [`repair`] did, or would do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RepairReport {
    /// What was mended, in the order of the log.
    pub mended: Vec<Mended>,
    /// What cannot be mended, and stays as it is.
    pub left: Vec<Finding>,
}

/// One file that was mended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mended {
    /// The file, under the name that it has now.
    pub file: PathBuf,
    /// What was done.
    pub what: String,
    /// The records that are lost for good, for which a gap block stands now.
    pub lost: Vec<RangeInclusive<SequenceNumber>>,
    /// Where what was there before is kept.
    pub kept: Option<PathBuf>,
}

/// Mends every stream of a closed log, or one.
///
/// - A segment with damage in it is written anew without it, durably, before it takes the place of the old one, of which
///   a copy stays as `.broken`.
/// - Where a whole segment is missing, or the end of one, a small segment takes its place that says so.
/// - A torn end is cut off, as opening the log does, and stays as `.torn`.
/// - A segment of another stream, a copy of another segment, and a file in which nothing is sound are renamed to
///   `.broken`. A segment under a wrong name gets its own back, if that is free.
///
/// With `dry_run` it only says what it would do. It needs no catalogue and leaves the catalogue as it is.
///
/// # Errors
/// [`Error::InUse`] if the log is open, [`Error::Io`] with the path, also if there is no such stream.
pub fn repair(data_dir: &Path, stream: Option<&str>, dry_run: bool) -> Result<RepairReport, Error> {
    repair_on(&RealDisk, data_dir, stream, dry_run)
}

pub(crate) fn repair_on(
    disk: &dyn Disk,
    data_dir: &Path,
    stream: Option<&str>,
    dry_run: bool,
) -> Result<RepairReport, Error> {
    let names = stream_names(disk, data_dir, stream)?;
    let _lock = lock_data_dir(disk, data_dir)?;
    let mut report = RepairReport::default();
    for name in &names {
        let walk = Walk::new(disk, data_dir, name)?;
        if let Some(unlisted) = walk.unlisted {
            report.left.push(unlisted);
            continue;
        }
        let mut repair = Repair { disk, dir: walk.dir.clone(), dry_run, report: &mut report };
        let begin = ruined_begin(&walk);
        repair.names(&walk, begin.as_ref())?;
        let walk = if dry_run { walk } else { Walk::new(disk, data_dir, name)? };
        if let Some(begin) = begin {
            repair.begin(&walk, begin)?;
        }
        repair.contents(&walk)?;
    }
    Ok(report)
}

struct Repair<'a> {
    disk: &'a dyn Disk,
    dir: PathBuf,
    dry_run: bool,
    report: &'a mut RepairReport,
}

/// What a segment written anew consists of.
enum Piece {
    /// Bytes of the old file.
    Kept(Range<u64>),
    /// Records that are lost, and when the one before them arrived.
    Lost(Range<SequenceNumber>, Stamp),
}

/// What is worth keeping of one segment.
struct Pieces {
    all: Vec<Piece>,
    /// The number that must come next.
    next: SequenceNumber,
    newest: Stamp,
    is_damaged: bool,
    torn_at: Option<u64>,
}

impl Repair<'_> {
    /// Mends names; but where the beginning is ruined, the file whose place a gap is to take stays until then.
    fn names(&mut self, walk: &Walk<'_>, begin: Option<&Range<SequenceNumber>>) -> Result<(), Error> {
        // These first: what holds nothing must not keep a segment from its name.
        let used = walk.files.iter().rposition(|file| !matches!(file.is, Is::Ruined { .. })).map_or(0, |at| at + 1);
        for (at, SegmentFile { name, is, .. }) in walk.files.iter().enumerate() {
            let (what, extension) = match is {
                Is::Foreign => ("set aside: it is a segment of another stream", "broken"),
                // Without any sound header nothing can be told of the others.
                Is::Ruined { .. } if walk.definition.is_none() => continue,
                Is::Ruined { .. } if begin.is_some_and(|begin| begin.start == *name) => continue,
                Is::Ruined { .. } if at >= used => ("set aside: nothing in it is whole", "torn"),
                Is::Ruined { .. } => ("set aside: nothing in it is sound", "broken"),
                _ => continue,
            };
            let path = self.path(*name);
            self.set_aside(&path, &path, what, extension)?;
        }
        for step in &walk.renames {
            match *step {
                Step::GiveBack { from, to, lay_as } => {
                    let what = format!("got its name back; it lay there as {}", file_name(lay_as));
                    self.rename(&self.path(from), &self.path(to))?;
                    self.mended(self.path(to), what, Vec::new(), None);
                }
                Step::MakeWay { from, to } => self.rename(&self.path(from), &self.path(to))?,
                Step::Copy { at, lay_as } => {
                    let what = "set aside: it is a copy of another segment";
                    self.set_aside(&self.path(at), &self.path(lay_as), what, "broken")?;
                }
            }
        }
        Ok(())
    }

    /// Keeps a file under the name that it had, with another extension.
    fn set_aside(&mut self, path: &Path, named: &Path, what: &str, extension: &str) -> Result<(), Error> {
        let kept = free_name(self.disk, named, extension);
        self.rename(path, &kept)?;
        self.mended(named.into(), what.into(), Vec::new(), Some(kept));
        Ok(())
    }

    /// Puts a gap in the place of the first segments, of which nothing is sound.
    fn begin(&mut self, walk: &Walk<'_>, lost: Range<SequenceNumber>) -> Result<(), Error> {
        let Some(definition) = &walk.definition else { return Ok(()) };
        let next = walk.files.iter().find(|file| file.first == lost.end);
        let created = match next.map(|file| &file.is) {
            Some(Is::Segment(head)) => head.created,
            _ => Stamp::default(),
        };
        // Nothing else tells that there was anything: so the file goes when the gap takes its place, and not before.
        let path = self.path(lost.start);
        let kept = free_name(self.disk, &path, "broken");
        if !self.dry_run {
            self.copy(&path, &kept)?;
        }
        self.make_gap(lost, created, definition, Some(kept))
    }

    /// Makes a small segment that says which records are lost.
    fn make_gap(
        &mut self,
        lost: Range<SequenceNumber>,
        created: Stamp,
        definition: &StreamDefinition,
        kept: Option<PathBuf>,
    ) -> Result<(), Error> {
        let (path, first) = (self.path(lost.start), lost.start);
        let told = vec![lost.start..=lost.end.previous()];
        if !self.dry_run {
            let definition = definition.clone();
            let header = SegmentHeader { version: FORMAT_VERSION, first, recycled_bytes: 0, created, definition };
            self.write(&path, &header, &[Piece::Lost(lost, created)], None)?;
        }
        self.mended(path, "made in place of what is missing".into(), told, kept);
        Ok(())
    }

    /// Mends what is in the segments.
    fn contents(&mut self, walk: &Walk<'_>) -> Result<(), Error> {
        let mut expected = None;
        for (at, file) in walk.files.iter().enumerate() {
            let next_segment = walk.files[at + 1..].iter().find(|file| file.is_part()).map(|file| file.first);
            let is_headless = matches!(file.is, Is::Headless { .. });
            let created = match (&file.is, &walk.definition) {
                (Is::Segment(head), _) => head.created,
                (Is::Headless { .. }, Some(_)) => Stamp::default(),
                // Its header cannot be made anew without the definition.
                (Is::Unreadable { .. } | Is::Astray { .. }, _) | (Is::Ruined { .. } | Is::Headless { .. }, None) => {
                    let mut left = |visit: Visit<'_>| {
                        if let Visit::Finding(finding) = visit {
                            self.report.left.push(finding);
                        }
                        ControlFlow::Continue(())
                    };
                    let _ = walk.file(at, SequenceNumber::ZERO, &mut expected, &mut left);
                    continue;
                }
                _ => continue,
            };
            let mut pieces =
                Pieces { all: Vec::new(), next: file.first, newest: created, is_damaged: is_headless, torn_at: None };
            let mut unreadable = Vec::new();
            let _ = walk.file(at, SequenceNumber::ZERO, &mut expected, &mut |visit| {
                match visit {
                    Visit::Finding(finding) if finding.kind == FindingKind::Unreadable => unreadable.push(finding),
                    visit => pieces.take(visit),
                }
                ControlFlow::Continue(())
            });
            if !unreadable.is_empty() {
                self.report.left.append(&mut unreadable);
                continue;
            }
            let Some(definition) = &walk.definition else { continue };
            self.segment(file, pieces, next_segment, definition)?;
        }
        Ok(())
    }

    fn segment(
        &mut self,
        &SegmentFile { first, name, .. }: &SegmentFile,
        mut pieces: Pieces,
        next_segment: Option<SequenceNumber>,
        definition: &StreamDefinition,
    ) -> Result<(), Error> {
        let path = self.path(first);
        let missing = next_segment.filter(|next| pieces.next < *next).map(|next| pieces.next..next);
        if pieces.is_damaged || pieces.all.iter().any(|piece| matches!(piece, Piece::Lost(..))) {
            pieces.all.extend(missing.map(|missing| Piece::Lost(missing, pieces.newest)));
            let lost = pieces.lost();
            let kept = free_name(self.disk, &path, "broken");
            if !self.dry_run {
                self.copy(&path, &kept)?;
                self.write_anew(first, &pieces, definition)?;
            }
            self.mended(path, "written anew without what is damaged".into(), lost, Some(kept));
        } else if let Some(offset) = pieces.torn_at {
            // In a dry run it may still lie under another name.
            let kept = self.cut(&self.path(name), &path, offset)?;
            self.mended(path, format!("cut off behind the last whole block, at byte {offset}"), Vec::new(), kept);
        } else if let Some(missing) = missing {
            self.make_gap(missing, pieces.newest, definition, None)?;
        }
        Ok(())
    }

    fn write_anew(&self, first: SequenceNumber, pieces: &Pieces, definition: &StreamDefinition) -> Result<(), Error> {
        let path = &self.path(first);
        let old = self.disk.open_read(path).map_err(|source| io_error("open segment", path, source))?;
        let header = match SegmentHeader::read(old.as_ref(), path) {
            // A gap block may be in it from now on.
            Ok(header) => SegmentHeader { version: FORMAT_VERSION, recycled_bytes: 0, ..header },
            Err(Error::Corrupt { .. }) => {
                let (created, definition) = (pieces.newest, definition.clone());
                SegmentHeader { version: FORMAT_VERSION, first, recycled_bytes: 0, created, definition }
            }
            Err(error) => return Err(error),
        };
        self.write(path, &header, &pieces.all, Some(old.as_ref()))
    }

    /// Writes a segment and puts it in the place of what is there, durably.
    fn write(
        &self,
        path: &Path,
        header: &SegmentHeader,
        pieces: &[Piece],
        old: Option<&dyn DiskFile>,
    ) -> Result<(), Error> {
        let salt = salt(header.definition.id, header.first);
        self.replace(path, |file| {
            let mut at = 0;
            let mut append = |bytes: &[u8]| {
                file.write_at(at, bytes)?;
                at += bytes.len() as u64;
                io::Result::Ok(())
            };
            append(&header.encode())?;
            for piece in pieces {
                match (piece, old) {
                    (Piece::Kept(range), Some(old)) => read_through(old, range.clone(), &mut append)?,
                    (Piece::Kept(_), None) => {}
                    (Piece::Lost(numbers, arrival), _) => append(&gap_blocks(numbers.clone(), *arrival, salt))?,
                }
            }
            Ok(())
        })
    }

    fn copy(&self, from: &Path, to: &Path) -> Result<(), Error> {
        self.replace(to, |file| {
            let old = self.disk.open_read(from)?;
            let mut at = 0;
            read_through(old.as_ref(), 0..old.len()?, &mut |bytes| {
                file.write_at(at, bytes)?;
                at += bytes.len() as u64;
                Ok(())
            })
        })
    }

    /// Makes a file under another name, and gives it its name when it is whole.
    fn replace(&self, path: &Path, fill: impl FnOnce(&dyn DiskFile) -> io::Result<()>) -> Result<(), Error> {
        let unfinished = path.with_extension(UNFINISHED);
        let made = || {
            match self.disk.remove(&unfinished) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let file = self.disk.create(&unfinished)?;
            fill(file.as_ref())?;
            file.sync()?;
            self.disk.rename(&unfinished, path)?;
            self.disk.sync_dir(&self.dir)
        };
        made().map_err(|source| {
            // What is half done is of no use to anybody.
            let _ = self.disk.remove(&unfinished);
            io_error("write", path, source)
        })
    }

    fn cut(&self, lies: &Path, path: &Path, offset: u64) -> Result<Option<PathBuf>, Error> {
        let file = self.disk.open(lies).map_err(|source| io_error("open segment", path, source))?;
        let len = file.len().map_err(|source| io_error("measure segment", path, source))?;
        if self.dry_run {
            return Ok(torn_bytes(file.as_ref(), offset, len).map(|_| path.with_extension("torn")));
        }
        let kept = keep_torn(self.disk, file.as_ref(), path, offset, len);
        let cut = file.truncate(offset).and_then(|()| file.sync());
        cut.map_err(|source| io_error("cut the torn end off", path, source))?;
        Ok(kept)
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<(), Error> {
        if self.dry_run {
            return Ok(());
        }
        let renamed = self.disk.rename(from, to).and_then(|()| self.disk.sync_dir(&self.dir));
        renamed.map_err(|source| io_error("rename", from, source))
    }

    fn path(&self, first: SequenceNumber) -> PathBuf {
        self.dir.join(file_name(first))
    }

    fn mended(
        &mut self,
        file: PathBuf,
        what: String,
        lost: Vec<RangeInclusive<SequenceNumber>>,
        kept: Option<PathBuf>,
    ) {
        self.report.mended.push(Mended { file, what, lost, kept });
    }
}

impl Pieces {
    fn take(&mut self, visit: Visit<'_>) {
        match visit {
            Visit::Segment { .. } => {}
            Visit::Control { offset, header, .. }
            | Visit::Records { offset, header, .. }
            | Visit::Gap { offset, header }
            | Visit::Unwritten { offset, header } => self.keep(offset, header),
            Visit::Finding(finding) => match finding.kind {
                FindingKind::Damage => self.is_damaged = true,
                FindingKind::TornTail => self.torn_at = Some(finding.offset),
                // A gap shows in the numbers. What readers ignore is in nobody's way.
                FindingKind::Gap | FindingKind::Unfinished | FindingKind::Unreadable => {}
            },
        }
    }

    fn keep(&mut self, offset: u64, header: &BlockHeader) {
        if self.newest == Stamp::default() {
            // A damaged header does not say when the segment was made.
            self.newest = header.arrival;
        }
        if self.next < header.first {
            self.all.push(Piece::Lost(self.next..header.first, self.newest));
        }
        let end = offset + header.total_bytes();
        match self.all.last_mut() {
            Some(Piece::Kept(range)) if range.end == offset => range.end = end,
            _ => self.all.push(Piece::Kept(offset..end)),
        }
        self.next = self.next.max(header.end());
        self.newest = header.arrival;
    }

    fn lost(&self) -> Vec<RangeInclusive<SequenceNumber>> {
        let lost = self.all.iter().filter_map(|piece| match piece {
            Piece::Lost(numbers, _) => Some(numbers.start..=numbers.end.previous()),
            Piece::Kept(_) => None,
        });
        lost.collect()
    }
}

/// The records of the first files if nothing in those is sound, up to where the first segment begins.
fn ruined_begin(walk: &Walk<'_>) -> Option<Range<SequenceNumber>> {
    let next = walk.files.iter().position(SegmentFile::is_part)?;
    let ruined = walk.files[..next].iter().find(|file| matches!(file.is, Is::Ruined { .. }))?;
    Some(ruined.first..walk.files[next].first).filter(|lost| !lost.is_empty())
}

/// Blocks that stand for lost records.
fn gap_blocks(numbers: Range<SequenceNumber>, arrival: Stamp, salt: u32) -> Vec<u8> {
    let mut out = Vec::new();
    let mut next = numbers.start;
    while next < numbers.end {
        let records = u32::try_from(numbers.end.0 - next.0).unwrap_or(u32::MAX);
        let at = start_block(&mut out);
        finish_block(&mut out, at, BlockHeader::new(BlockKind::Gap, next, records, arrival), salt);
        next = next.plus(u64::from(records));
    }
    out
}

fn read_through(
    file: &dyn DiskFile,
    range: Range<u64>,
    take: &mut dyn FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<()> {
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut at = range.start;
    while at < range.end {
        let want = usize::try_from(range.end - at).unwrap_or(CHUNK_BYTES).min(CHUNK_BYTES);
        let mut read = file.read_at(at, &mut chunk[..want])?;
        if read == 0 {
            // Of a sound block only padding can be missing.
            chunk[..want].fill(0);
            read = want;
        }
        take(&chunk[..read])?;
        at += read as u64;
    }
    Ok(())
}
