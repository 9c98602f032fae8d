//! The walk that all looks from outside have in common: through the segments of a stream, block by block.

use std::{
    io::{self, ErrorKind},
    ops::ControlFlow,
    path::{Path, PathBuf},
};

use super::{
    Finding, FindingKind,
    files::{Head, Is, SegmentFile},
    io_error,
};
use crate::{
    clock::Timestamp,
    cursor::for_each_record,
    disk::Disk,
    error::Error,
    marks::Marks,
    segment::{BlockHeader, BlockKind, Control, Found, SegmentReader, Step, StreamDefinition, file_name, salt},
    sequence::SequenceNumber,
};

/// Places in one segment that are remembered until it is known whether they are damage or a torn tail.
const PENDING_MAX: usize = 1000;

/// What a walk meets.
pub(super) enum Visit<'a> {
    Segment {
        path: &'a Path,
        bytes: u64,
        first: SequenceNumber,
        created: Option<Timestamp>,
    },
    Control {
        offset: u64,
        header: &'a BlockHeader,
        control: Control,
    },
    /// Payload and its size are there only if the walk decodes; marks always. Without records it has marks alone.
    Records {
        offset: u64,
        header: &'a BlockHeader,
        payload: &'a [u8],
        payload_bytes: u64,
        marks: Marks,
    },
    Gap {
        offset: u64,
        header: &'a BlockHeader,
    },
    /// Numbers of records that were never written: they were delivered from memory, or there never were any.
    Unwritten {
        offset: u64,
        header: &'a BlockHeader,
    },
    Finding(Finding),
}

type Visitor<'v> = dyn FnMut(Visit<'_>) -> ControlFlow<()> + 'v;

/// All files of one stream that are named as segments, in order.
pub(super) struct Walk<'a> {
    pub(super) disk: &'a dyn Disk,
    pub(super) dir: PathBuf,
    pub(super) files: Vec<SegmentFile>,
    /// How segments under wrong names get their own.
    pub(super) renames: Vec<Step>,
    /// That its directory could not even be listed.
    pub(super) unlisted: Option<Finding>,
    /// What earlier openings and repairs kept for a look.
    pub(super) leftovers: Vec<PathBuf>,
    /// As the newest readable segment has it; `None` if no segment has a sound header.
    pub(super) definition: Option<StreamDefinition>,
    /// The stream's id: of the definition; without one, as a damaged header says it and the blocks behind that prove it.
    pub(super) id: Option<u64>,
    /// Format version of the newest readable segment.
    pub(super) format: Option<u16>,
    /// Whether it looks into the blocks, or only at their checksums.
    pub(super) decodes: bool,
}

/// A place that does not fit, until the next sound block shows what it costs.
struct Pending {
    offset: u64,
    what: &'static str,
    /// Its records, if its header is sound.
    records: Option<(SequenceNumber, SequenceNumber)>,
}

/// One segment of a walk.
struct Place<'a> {
    path: &'a Path,
    first: SequenceNumber,
    /// Where the next segment begins; `None` for the newest.
    next_segment: Option<SequenceNumber>,
    /// Whether a ruined file follows, which is told to have what is missing at the end.
    ruin_follows: bool,
}

impl Place<'_> {
    fn finding(
        &self,
        kind: FindingKind,
        offset: u64,
        what: impl Into<String>,
        (from, end): (SequenceNumber, SequenceNumber),
    ) -> Visit<'static> {
        let records = (from < end).then(|| from..=end.previous());
        Visit::Finding(Finding { kind, file: self.path.into(), offset, what: what.into(), records })
    }
}

const NO_RECORDS: (SequenceNumber, SequenceNumber) = (SequenceNumber::ZERO, SequenceNumber::ZERO);

impl Walk<'_> {
    /// Walks from the segment that holds `from`; blocks before it are passed over, except that records of its first block
    /// may lie before it.
    pub(super) fn run(&self, from: SequenceNumber, visit: &mut Visitor<'_>) -> Result<ControlFlow<()>, Error> {
        if let Some(unlisted) = &self.unlisted {
            return Ok(visit(Visit::Finding(unlisted.clone())));
        }
        let begin = self.files.iter().rposition(|file| file.is_part() && file.first <= from).unwrap_or(0);
        // The number that must come next; unknown at the beginning and behind what could not be read.
        let mut expected = None;
        for at in begin..self.files.len() {
            let wrong_name = self.wrong_name(&self.files[at]);
            if wrong_name.is_some_and(|finding| visit(Visit::Finding(finding)).is_break()) {
                return Ok(ControlFlow::Break(()));
            }
            if self.file(at, from, &mut expected, visit).is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Walks through one file.
    pub(super) fn file(
        &self,
        at: usize,
        from: SequenceNumber,
        expected: &mut Option<SequenceNumber>,
        visit: &mut Visitor<'_>,
    ) -> ControlFlow<()> {
        let SegmentFile { first, name, is } = &self.files[at];
        let path = self.dir.join(file_name(*name));
        let behind = &self.files[at + 1..];
        let next = behind.iter().position(SegmentFile::is_part);
        let next_segment = next.map(|next| behind[next].first);
        let ruin_follows =
            next.is_some_and(|next| behind[..next].iter().any(|file| matches!(file.is, Is::Ruined { .. })));
        let place = Place { path: &path, first: *first, next_segment, ruin_follows };
        let damage = |what: &str| place.finding(FindingKind::Damage, 0, what, NO_RECORDS);
        // A running agent makes the file of a dropped segment into another one, under another name.
        let mut dropped = false;
        let mut visit_if_there = |met: Visit<'_>| {
            dropped |= matches!(met, Visit::Finding(_)) && self.is_gone(&path);
            if dropped { ControlFlow::Continue(()) } else { visit(met) }
        };
        let walked = match is {
            Is::Segment(head) => self.segment(&place, from, Ok(head), expected, &mut visit_if_there),
            Is::Headless { what } => self.segment(&place, from, Err(what), expected, &mut visit_if_there),
            // Dropped by a running agent since the directory was listed, and cut to nothing.
            _ if self.is_gone(&path) => {
                *expected = None;
                return ControlFlow::Continue(());
            }
            Is::Astray { rightful } => return visit(damage(&under_wrong_name(*rightful))),
            // Opening the log deals with these in the same way.
            Is::Copy { rightful } => {
                return visit(damage(&format!("it is a copy of the segment that begins with record {rightful}")));
            }
            Is::Foreign => return visit(damage("it is a segment of another stream")),
            Is::Ruined { what, unfinished: true } if next_segment.is_none() => {
                return visit(place.finding(FindingKind::TornTail, 0, what.as_str(), NO_RECORDS));
            }
            Is::Ruined { what, .. } => {
                let Some(next) = next_segment else {
                    let what = format!("{what}; which records it held cannot be told");
                    return visit(damage(&what));
                };
                let from = expected.unwrap_or(*first);
                *expected = Some(from.max(next));
                return visit(place.finding(FindingKind::Damage, 0, what.as_str(), (from, next)));
            }
            Is::Unreadable { what } => {
                *expected = None;
                return visit(place.finding(FindingKind::Unreadable, 0, what.as_str(), NO_RECORDS));
            }
        };
        if dropped {
            *expected = None;
        }
        walked.unwrap_or_else(|error| {
            *expected = None;
            match error {
                // Dropped by a running agent since the directory was listed.
                Error::Io { source, .. } if source.kind() == ErrorKind::NotFound => ControlFlow::Continue(()),
                error => visit(place.finding(FindingKind::Unreadable, 0, error.to_string(), NO_RECORDS)),
            }
        })
    }

    /// That a segment is not where it belongs. Opening the log deals with it in the same way.
    fn wrong_name(&self, file: &SegmentFile) -> Option<Finding> {
        let path = self.dir.join(file_name(file.name));
        (file.name != file.first && !self.is_gone(&path)).then(|| Finding {
            kind: FindingKind::Damage,
            file: path,
            offset: 0,
            what: under_wrong_name(file.first),
            records: None,
        })
    }

    fn is_gone(&self, path: &Path) -> bool {
        matches!(self.disk.open_read(path), Err(error) if error.kind() == ErrorKind::NotFound)
    }

    fn segment(
        &self,
        place: &Place<'_>,
        from: SequenceNumber,
        header: Result<&Head, &String>,
        expected: &mut Option<SequenceNumber>,
        visit: &mut Visitor<'_>,
    ) -> Result<ControlFlow<()>, Error> {
        let path = place.path;
        let file = self.disk.open_read(path).map_err(|source| io_error("open segment", path, source))?;
        let bytes = file.len().map_err(|source| io_error("measure segment", path, source))?;
        let created = header.ok().map(|head| Timestamp(head.created.wall_ms));
        let shown = visit(Visit::Segment { path, bytes, first: place.first, created });
        if shown.is_break() {
            return Ok(shown);
        }
        let missing = expected.map_or(NO_RECORDS, |expected| (expected, place.first));
        if missing.0 < missing.1 {
            let told = visit(place.finding(FindingKind::Gap, 0, "records before this segment are missing", missing));
            if told.is_break() {
                return Ok(told);
            }
        }
        let id = self.id.unwrap_or(0);
        let blocks = Blocks {
            from,
            reader: SegmentReader::new(file, salt(id, place.first), header.map_or(0, |head| head.start)),
            decodes: self.decodes,
            limit: bytes,
            account: Account {
                place,
                next: place.first,
                pending: Vec::new(),
                has_leftover: header.is_ok_and(|head| bytes <= head.recycled_bytes),
            },
        };
        let (walked, next) = blocks.run(header.err().cloned(), visit)?;
        *expected = Some(next);
        Ok(walked)
    }
}

fn under_wrong_name(rightful: SequenceNumber) -> String {
    format!("it is the segment that begins with record {rightful}, in a file under a wrong name")
}

/// The blocks of one segment.
struct Blocks<'a> {
    from: SequenceNumber,
    decodes: bool,
    reader: SegmentReader,
    limit: u64,
    account: Account<'a>,
}

/// What is accounted for of one segment.
struct Account<'a> {
    place: &'a Place<'a>,
    /// The number that must come next.
    next: SequenceNumber,
    pending: Vec<Pending>,
    /// Whether what lies behind the last block may be left of an earlier segment.
    has_leftover: bool,
}

impl Blocks<'_> {
    /// Returns the number that must come next.
    fn run(
        mut self,
        header_damage: Option<String>,
        visit: &mut Visitor<'_>,
    ) -> Result<(ControlFlow<()>, SequenceNumber), Error> {
        let io = |source| io_error("read segment", self.account.place.path, source);
        let mut header_damage = header_damage;
        loop {
            let walked = match self.reader.next(self.limit).map_err(io)? {
                Found::End => return Ok((self.account.end(self.limit, header_damage, visit), self.account.next)),
                // That the header is damaged says it all, up to the first block.
                Found::Damaged { bytes, .. } if bytes.start == 0 && header_damage.is_some() => {
                    ControlFlow::Continue(())
                }
                Found::Damaged { bytes, what } => {
                    self.account.remember(Pending { offset: bytes.start, what, records: None });
                    ControlFlow::Continue(())
                }
                Found::Block { offset, header } => {
                    if let Some(what) = header_damage.take() {
                        let told = visit(self.account.place.finding(FindingKind::Damage, 0, what, NO_RECORDS));
                        if told.is_break() {
                            return Ok((told, self.account.next));
                        }
                    }
                    self.block(offset, &header, visit).map_err(io)?
                }
            };
            if walked.is_break() {
                return Ok((walked, self.account.next));
            }
        }
    }

    fn block(&mut self, offset: u64, header: &BlockHeader, visit: &mut Visitor<'_>) -> io::Result<ControlFlow<()>> {
        let records = Some((header.first, header.end()));
        if self.account.place.next_segment.is_some_and(|next| header.is_taken_over(next)) {
            let what = "the next segment has the numbers of this block";
            self.account.remember(Pending { offset, what, records });
            return Ok(ControlFlow::Continue(()));
        }
        if !self.reader.is_sound(offset, header)? {
            let what = "the block's checksum does not match";
            self.account.remember(Pending { offset, what, records });
            return Ok(ControlFlow::Continue(()));
        }
        enum Content<'p> {
            Control(Control),
            Records(&'p [u8], u64, Marks),
            Gap,
            Unwritten,
        }
        let payload = match header.kind {
            BlockKind::Records if !self.decodes && !header.marked => Ok([].as_slice()),
            _ => self.reader.payload(offset, header)?,
        };
        let content = payload.and_then(|payload| match header.kind {
            BlockKind::Control => {
                Control::decode(payload).map(Content::Control).map_err(|_| "the control block cannot be read")
            }
            BlockKind::Gap => Ok(Content::Gap),
            BlockKind::Unwritten => Ok(Content::Unwritten),
            BlockKind::Records if !self.decodes => Ok(Content::Records(&[], 0, header.marks(payload)?)),
            BlockKind::Records => {
                let mut bytes = 0;
                for_each_record(payload, header, header.first, None, |_, _, record| bytes += record.payload_bytes())?;
                Ok(Content::Records(payload, bytes, header.marks(payload)?))
            }
        });
        if let ControlFlow::Break(()) = self.account.tell_pending(offset, header.first, visit) {
            return Ok(ControlFlow::Break(()));
        }
        let what = match &content {
            Err(what) => Some(*what),
            Ok(Content::Control(_)) => None,
            Ok(_) if header.first < self.account.next => Some("the block repeats numbers of earlier ones"),
            Ok(_) => None,
        };
        self.account.next = self.account.next.max(header.end());
        if let Some(what) = what {
            return Ok(visit(self.account.place.finding(
                FindingKind::Damage,
                offset,
                what,
                (header.first, header.end()),
            )));
        }
        Ok(match content {
            Ok(Content::Control(control)) => visit(Visit::Control { offset, header, control }),
            Ok(Content::Gap) => visit(Visit::Gap { offset, header }),
            Ok(Content::Unwritten) => visit(Visit::Unwritten { offset, header }),
            Ok(Content::Records(payload, payload_bytes, marks))
                if header.end() > self.from || header.records == 0 && header.end() == self.from =>
            {
                visit(Visit::Records { offset, header, payload, payload_bytes, marks })
            }
            _ => ControlFlow::Continue(()),
        })
    }
}

impl Account<'_> {
    fn remember(&mut self, pending: Pending) {
        if self.pending.len() < PENDING_MAX {
            self.pending.push(pending);
        }
    }

    /// Tells what lies between the last sound block and the place `at`, where the record `end` comes.
    fn tell_pending(&mut self, at: u64, end: SequenceNumber, visit: &mut Visitor<'_>) -> ControlFlow<()> {
        let pending = std::mem::take(&mut self.pending);
        if pending.is_empty() && self.next < end {
            visit(self.place.finding(FindingKind::Gap, at, "records are missing before here", (self.next, end)))?;
        }
        for (i, Pending { offset, what, records }) in pending.iter().enumerate() {
            let next_known = pending[i + 1..].iter().find_map(|pending| pending.records).map_or(end, |range| range.0);
            let (from, behind) = records.unwrap_or((self.next, next_known.min(end)));
            visit(self.place.finding(FindingKind::Damage, *offset, *what, (from, behind)))?;
            self.next = self.next.max(behind);
        }
        self.next = self.next.max(end);
        ControlFlow::Continue(())
    }

    /// What comes behind the last sound block: of the newest segment a torn tail, of others damage, unless all records are there.
    fn end(&mut self, limit: u64, header_damage: Option<String>, visit: &mut Visitor<'_>) -> ControlFlow<()> {
        if self.has_leftover && self.pending.iter().all(|pending| pending.records.is_none()) {
            self.pending.clear();
        }
        let Some(next_segment) = self.place.next_segment else {
            let torn = self.pending.first().map(|pending| pending.offset).or(header_damage.as_ref().map(|_| 0));
            let Some(offset) = torn else { return ControlFlow::Continue(()) };
            let bytes = limit - offset;
            let what = format!("{bytes} bytes of a commit that was not finished, or is just being written");
            return visit(self.place.finding(FindingKind::TornTail, offset, what, NO_RECORDS));
        };
        if let Some(what) = header_damage {
            visit(self.place.finding(FindingKind::Damage, 0, what, (self.next, next_segment)))?;
            self.next = self.next.max(next_segment);
        }
        if self.next >= next_segment {
            let Some(pending) = self.pending.first() else { return ControlFlow::Continue(()) };
            let what = format!("{} bytes that readers ignore", limit - pending.offset);
            return visit(self.place.finding(FindingKind::Unfinished, pending.offset, what, NO_RECORDS));
        }
        if self.pending.is_empty() && self.place.ruin_follows {
            return ControlFlow::Continue(());
        }
        if self.pending.is_empty() {
            let missing = (self.next, next_segment);
            let what = "records between here and the next segment are missing";
            self.next = next_segment;
            return visit(self.place.finding(FindingKind::Gap, limit, what, missing));
        }
        self.tell_pending(limit, next_segment, visit)
    }
}
