//! Looking at a data directory from outside: `verify` reads everything through, `dump` shows blocks and records.
//!
//! Works beside a running agent: it only reads, takes no lock, needs no catalogue, and changes nothing. What it finds is
//! therefore what the segments alone say. Beside a running agent the end of the newest segment may look torn, because a
//! block is just being written, and segments may be dropped while they are read, which is no finding.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
    io::{self, ErrorKind},
    ops::{ControlFlow, RangeInclusive},
    path::{Path, PathBuf},
};

use crate::{
    clock::{Arrival, Pass, Stamp, Timeline, Timestamp},
    cursor::decode,
    disk::{Disk, RealDisk},
    error::Error,
    record::Record,
    segment::{
        BlockHeader, BlockKind, Control, Found, SegmentHeader, SegmentReader, StreamDefinition, file_name,
        parse_file_name, salt,
    },
    sequence::SequenceNumber,
    shard::Shard,
    stream::{boots, is_stream_name, stream_dir},
};

/// A stream keeps at most this many findings; the others are only counted.
pub const FINDINGS_MAX: usize = 1000;
/// Places in one segment that are remembered until it is known whether they are damage or a torn tail.
const PENDING_MAX: usize = 1000;

/// Everything that [`verify`] found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Every stream, by name.
    pub streams: Vec<StreamReport>,
    /// Catalogues that were set aside because they could not be used.
    pub leftovers: Vec<PathBuf>,
}

impl Report {
    /// Whether no record is damaged or missing and everything could be read.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.streams.iter().all(StreamReport::is_sound)
    }
}

/// What one stream's segments hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StreamReport {
    /// Its name.
    pub name: String,
    /// Format version of its newest readable segment; `None` if there is none.
    pub format: Option<u16>,
    /// Its shards, as the newest readable segment has them.
    pub shards: Vec<Shard>,
    /// Segment files read.
    pub segments: u64,
    /// Sound blocks of records.
    pub blocks: u64,
    /// Sound control blocks.
    pub control_blocks: u64,
    /// Records in sound blocks.
    pub records: u64,
    /// Their keys and data in bytes.
    pub payload_bytes: u64,
    /// Bytes of all segments.
    pub bytes: u64,
    /// The first record's number.
    pub first: Option<SequenceNumber>,
    /// The last record's number.
    pub last: Option<SequenceNumber>,
    /// Checkpoints in the newest control block. Those in the catalogue may be further.
    pub checkpoints: BTreeMap<String, SequenceNumber>,
    /// What was found, in the order of the log; at most [`FINDINGS_MAX`].
    pub findings: Vec<Finding>,
    /// How many more there were.
    pub findings_omitted: u64,
    /// Files that recovery kept for a look: `.torn` and `.broken`. They are in nobody's way and may be removed.
    pub leftovers: Vec<PathBuf>,
    sound: bool,
}

impl StreamReport {
    /// Whether no record is damaged or missing and everything could be read. A torn tail is no damage.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.sound
    }
}

/// What kind of finding it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FindingKind {
    /// Bytes that are not what was written.
    Damage,
    /// Sequence numbers of which there is nothing at all.
    Gap,
    /// The end of the newest segment: a commit that was not finished, or that is being written at this moment.
    TornTail,
    /// What a failed commit left at the end of an older segment. Nothing in it was acknowledged, and readers ignore it.
    Unfinished,
    /// It cannot be read: of a newer format, or the disk refuses.
    Unreadable,
}

impl FindingKind {
    /// Whether it may cost records.
    #[must_use]
    pub fn is_loss(self) -> bool {
        matches!(self, Self::Damage | Self::Gap | Self::Unreadable)
    }
}

impl fmt::Display for FindingKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Damage => "damage",
            Self::Gap => "gap",
            Self::TornTail => "torn tail",
            Self::Unfinished => "unfinished commit",
            Self::Unreadable => "unreadable",
        })
    }
}

/// A place where something is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Its kind.
    pub kind: FindingKind,
    /// The segment.
    pub file: PathBuf,
    /// Where in it, in bytes.
    pub offset: u64,
    /// What does not fit.
    pub what: String,
    /// The records concerned, as far as it can be told.
    pub records: Option<RangeInclusive<SequenceNumber>>,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} at byte {}: {}", self.kind, self.file.display(), self.offset, self.what)?;
        match &self.records {
            Some(range) => write!(f, " (records {} to {})", range.start(), range.end()),
            None => Ok(()),
        }
    }
}

/// One thing that [`dump`] shows.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Dumped {
    /// A segment begins.
    Segment {
        /// Its file.
        path: PathBuf,
        /// Its length in bytes.
        bytes: u64,
        /// The first record that it holds or will hold.
        first: SequenceNumber,
        /// When it was made, by the wall clock of that time; `None` if its header is damaged.
        created: Option<Timestamp>,
    },
    /// A sound block begins; its records follow.
    Block {
        /// Where in the segment, in bytes.
        offset: u64,
        /// Its length in bytes.
        bytes: u64,
        /// Its first record; of a control block, the record that comes next.
        first: SequenceNumber,
        /// How many records it holds.
        records: u32,
        /// When its records arrived.
        arrival: Timestamp,
        /// Which boot of the machine wrote it.
        boot: u32,
        /// The checkpoints, if it is a control block.
        checkpoints: Option<BTreeMap<String, SequenceNumber>>,
    },
    /// A record.
    Record(Record),
    /// Something that is not as it should be.
    Finding(Finding),
}

/// Reads every segment of every stream through: headers, checksums, records, numbering.
///
/// Memory does not grow with the data. Damage is no error but a [`Finding`].
///
/// # Errors
/// [`Error::Io`] with the path, if `data_dir` is no data directory or cannot be read.
pub fn verify(data_dir: &Path) -> Result<Report, Error> {
    verify_on(&RealDisk, data_dir)
}

/// Calls `show` for each segment, block and record of a stream from the record `from` on, until `limit` records were
/// shown or `show` breaks off.
///
/// # Errors
/// [`Error::Io`] with the path, if `data_dir` is no data directory, has no such stream, or cannot be read.
pub fn dump(
    data_dir: &Path,
    stream: &str,
    from: SequenceNumber,
    limit: Option<u64>,
    show: impl FnMut(Dumped) -> ControlFlow<()>,
) -> Result<(), Error> {
    dump_on(&RealDisk, data_dir, stream, from, limit, show)
}

pub(crate) fn verify_on(disk: &dyn Disk, data_dir: &Path) -> Result<Report, Error> {
    let names = stream_names(disk, data_dir)?;
    let mut report = Report::default();
    for name in names {
        report.streams.push(verify_stream(disk, data_dir, name)?);
    }
    let in_data_dir = disk.list(data_dir).map_err(|source| io_error("list", data_dir, source))?;
    report.leftovers =
        in_data_dir.iter().filter(|n| n.starts_with("catalogue.broken-")).map(|n| data_dir.join(n)).collect();
    report.leftovers.sort();
    Ok(report)
}

fn verify_stream(disk: &dyn Disk, data_dir: &Path, name: String) -> Result<StreamReport, Error> {
    let walk = Walk::new(disk, data_dir, &name)?;
    let mut report = StreamReport { sound: true, leftovers: walk.leftovers.clone(), ..StreamReport::default() };
    if let Some(definition) = &walk.definition {
        report.format = walk.version;
        report.shards = definition.shards.shards().to_vec();
    }
    // The callback never breaks off.
    let _ = walk.run(SequenceNumber::ZERO, &mut |visit| {
        match visit {
            Visit::Finding(finding) => {
                report.sound &= !finding.kind.is_loss();
                if report.findings.len() < FINDINGS_MAX {
                    report.findings.push(finding);
                } else {
                    report.findings_omitted += 1;
                }
            }
            Visit::Segment { bytes, .. } => {
                report.segments += 1;
                report.bytes += bytes;
            }
            Visit::Control { control, .. } => {
                report.control_blocks += 1;
                report.checkpoints = control.checkpoints;
            }
            Visit::Records { header, records, .. } => {
                report.blocks += 1;
                report.records += u64::from(header.records);
                report.payload_bytes += records.iter().map(Record::payload_bytes).sum::<u64>();
                report.first = report.first.or(Some(header.first));
                report.last = Some(header.end().previous());
            }
        }
        ControlFlow::Continue(())
    })?;
    report.name = name;
    Ok(report)
}

pub(crate) fn dump_on(
    disk: &dyn Disk,
    data_dir: &Path,
    stream: &str,
    from: SequenceNumber,
    limit: Option<u64>,
    mut show: impl FnMut(Dumped) -> ControlFlow<()>,
) -> Result<(), Error> {
    if !stream_names(disk, data_dir)?.iter().any(|name| name == stream) {
        let source = io::Error::new(ErrorKind::NotFound, "there is no such stream");
        return Err(io_error("dump", &stream_dir(data_dir, stream), source));
    }
    let mut left = limit.unwrap_or(u64::MAX);
    if left == 0 {
        return Ok(());
    }
    let timeline = Timeline::recorded(boots::in_stream(disk, &stream_dir(data_dir, stream)));
    let mut pass = Pass::default();
    let mut arrived = |stamp: Stamp| pass.next(timeline.arrival(stamp), 0);
    let block = |offset, header: &BlockHeader, arrival, checkpoints| Dumped::Block {
        offset,
        bytes: header.total_bytes(),
        first: header.first,
        records: header.records,
        arrival,
        boot: header.arrival.boot,
        checkpoints,
    };
    let walked = Walk::new(disk, data_dir, stream)?.run(from, &mut |visit| match visit {
        Visit::Finding(finding) => show(Dumped::Finding(finding)),
        Visit::Segment { path, bytes, first, header } => {
            let created = header.map(|header| Timestamp(header.created.wall_ms));
            show(Dumped::Segment { path: path.into(), bytes, first, created })
        }
        Visit::Control { offset, header, control } => {
            let arrival = timeline.arrival(header.arrival);
            show(block(offset, header, arrival.at, Some(control.checkpoints)))
        }
        Visit::Records { offset, header, records } => {
            let arrival = arrived(header.arrival);
            show(block(offset, header, arrival.at, None))?;
            for record in records {
                show(Dumped::Record(Record { arrival: arrival.at, arrival_trusted: arrival.trusted, ..record }))?;
                left -= 1;
                if left == 0 {
                    return ControlFlow::Break(());
                }
            }
            ControlFlow::Continue(())
        }
    });
    walked.map(drop)
}

fn stream_names(disk: &dyn Disk, data_dir: &Path) -> Result<Vec<String>, Error> {
    let listed = disk.list(&data_dir.join("streams")).map_err(|source| {
        let source = match source.kind() {
            ErrorKind::NotFound | ErrorKind::NotADirectory => {
                io::Error::new(source.kind(), "it is no data directory: it has no directory `streams`")
            }
            _ => source,
        };
        io_error("read data directory", data_dir, source)
    });
    let mut names = listed?;
    names.retain(|name| is_stream_name(name));
    names.sort();
    Ok(names)
}

fn io_error(action: &'static str, path: &Path, source: io::Error) -> Error {
    Error::Io { action, path: path.into(), source }
}

/// What a walk meets.
enum Visit<'a> {
    Segment { path: &'a Path, bytes: u64, first: SequenceNumber, header: Option<&'a SegmentHeader> },
    Control { offset: u64, header: &'a BlockHeader, control: Control },
    Records { offset: u64, header: &'a BlockHeader, records: VecDeque<Record> },
    Finding(Finding),
}

type Visitor<'v> = dyn FnMut(Visit<'_>) -> ControlFlow<()> + 'v;

/// A walk through all segments of one stream.
struct Walk<'a> {
    disk: &'a dyn Disk,
    dir: PathBuf,
    files: Vec<SequenceNumber>,
    leftovers: Vec<PathBuf>,
    /// As the newest readable segment has it; `None` if no segment has a sound header.
    definition: Option<StreamDefinition>,
    /// Format version of the newest readable segment.
    version: Option<u16>,
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

impl<'a> Walk<'a> {
    fn new(disk: &'a dyn Disk, data_dir: &Path, stream: &str) -> Result<Self, Error> {
        let dir = stream_dir(data_dir, stream);
        let names = disk.list(&dir).map_err(|source| io_error("list", &dir, source))?;
        let mut files: Vec<_> = names.iter().filter_map(|name| parse_file_name(name)).collect();
        files.sort_unstable();
        let kept = |name: &&String| name.ends_with(".torn") || name.ends_with(".broken");
        let mut leftovers: Vec<_> = names.iter().filter(kept).map(|name| dir.join(name)).collect();
        leftovers.sort();
        let mut walk = Self { disk, dir, files, leftovers, definition: None, version: None };
        let mut version = None;
        let headers = walk.files.iter().rev().filter_map(|&first| {
            let path = walk.dir.join(file_name(first));
            Some((first, SegmentHeader::read(disk.open_read(&path).ok()?.as_ref(), &path).ok()?))
        });
        let headers = headers.inspect(|(_, header)| _ = version.get_or_insert(header.version));
        walk.definition = StreamDefinition::agreed(stream, headers);
        walk.version = version;
        Ok(walk)
    }

    /// Walks from the segment that holds `from`; blocks and records before it are passed over.
    fn run(&self, from: SequenceNumber, visit: &mut Visitor<'_>) -> Result<ControlFlow<()>, Error> {
        let begin = self.files.partition_point(|first| *first <= from).saturating_sub(1);
        // The number that must come next; unknown at the beginning and behind what could not be read.
        let mut expected = None;
        for (i, &first) in self.files.iter().enumerate().skip(begin) {
            let path = self.dir.join(file_name(first));
            let place = Place { path: &path, first, next_segment: self.files.get(i + 1).copied() };
            match self.segment(&place, from, &mut expected, visit) {
                Ok(ControlFlow::Continue(())) => {}
                Ok(broken_off) => return Ok(broken_off),
                // Dropped by a running agent since the directory was listed.
                Err(Error::Io { source, .. }) if source.kind() == ErrorKind::NotFound => expected = None,
                Err(error) => {
                    expected = None;
                    if visit(place.finding(FindingKind::Unreadable, 0, error.to_string(), NO_RECORDS)).is_break() {
                        return Ok(ControlFlow::Break(()));
                    }
                }
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    fn segment(
        &self,
        place: &Place<'_>,
        from: SequenceNumber,
        expected: &mut Option<SequenceNumber>,
        visit: &mut Visitor<'_>,
    ) -> Result<ControlFlow<()>, Error> {
        let path = place.path;
        let file = self.disk.open_read(path).map_err(|source| io_error("open segment", path, source))?;
        let bytes = file.len().map_err(|source| io_error("measure segment", path, source))?;
        let header = match SegmentHeader::read(file.as_ref(), path) {
            Ok(header) => Ok(header),
            Err(Error::Corrupt { what, .. }) => Err(what),
            Err(error) => return Err(error),
        };
        let id = self.definition.as_ref().map(|definition| definition.id);
        if header.as_ref().is_ok_and(|header| header.first != place.first || Some(header.definition.id) != id) {
            // Opening the log will set it aside.
            let what = "the segment belongs to another stream or place";
            return Ok(visit(place.finding(FindingKind::Damage, 0, what, NO_RECORDS)));
        }
        let shown = visit(Visit::Segment { path, bytes, first: place.first, header: header.as_ref().ok() });
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
        *expected = Some(place.first);
        let start = header.as_ref().map_or(0, SegmentHeader::encoded_len);
        let Some(id) = id else {
            // Without any sound header the blocks' checksums cannot be checked.
            let what = header.err().unwrap_or_default();
            let kind = if place.next_segment.is_none() { FindingKind::TornTail } else { FindingKind::Damage };
            return Ok(visit(place.finding(kind, 0, what, (place.first, place.next_segment.unwrap_or(place.first)))));
        };
        let blocks = Blocks {
            place,
            from,
            reader: SegmentReader::new(file, salt(id, place.first), start),
            limit: bytes,
            next: place.first,
            pending: Vec::new(),
        };
        let (walked, next) = blocks.run(header.err(), visit)?;
        *expected = Some(next);
        Ok(walked)
    }
}

/// The blocks of one segment.
struct Blocks<'a> {
    place: &'a Place<'a>,
    from: SequenceNumber,
    reader: SegmentReader,
    limit: u64,
    next: SequenceNumber,
    pending: Vec<Pending>,
}

impl Blocks<'_> {
    /// Returns the number that must come next.
    fn run(
        mut self,
        header_damage: Option<String>,
        visit: &mut Visitor<'_>,
    ) -> Result<(ControlFlow<()>, SequenceNumber), Error> {
        let io = |source| io_error("read segment", self.place.path, source);
        let mut header_damage = header_damage;
        loop {
            let walked = match self.reader.next(self.limit).map_err(io)? {
                Found::End => return Ok((self.end(header_damage, visit), self.next)),
                // That the header is damaged says it all, up to the first block.
                Found::Damaged { bytes, .. } if bytes.start == 0 && header_damage.is_some() => {
                    ControlFlow::Continue(())
                }
                Found::Damaged { bytes, what } => {
                    self.remember(Pending { offset: bytes.start, what, records: None });
                    ControlFlow::Continue(())
                }
                Found::Block { offset, header } => {
                    if let Some(what) = header_damage.take() {
                        let told = visit(self.place.finding(FindingKind::Damage, 0, what, NO_RECORDS));
                        if told.is_break() {
                            return Ok((told, self.next));
                        }
                    }
                    self.block(offset, &header, visit).map_err(io)?
                }
            };
            if walked.is_break() {
                return Ok((walked, self.next));
            }
        }
    }

    fn remember(&mut self, pending: Pending) {
        if self.pending.len() < PENDING_MAX {
            self.pending.push(pending);
        }
    }

    fn block(&mut self, offset: u64, header: &BlockHeader, visit: &mut Visitor<'_>) -> io::Result<ControlFlow<()>> {
        let records = Some((header.first, header.end()));
        let is_control = header.kind == BlockKind::Control;
        if !is_control && self.place.next_segment.is_some_and(|next| header.first >= next) {
            let what = "the next segment has the numbers of this block";
            self.remember(Pending { offset, what, records });
            return Ok(ControlFlow::Continue(()));
        }
        let Some(payload) = self.reader.payload(offset, header)? else {
            let what = "the block's checksum does not match";
            self.remember(Pending { offset, what, records });
            return Ok(ControlFlow::Continue(()));
        };
        let mut decoded = VecDeque::new();
        let control = if is_control {
            Control::decode(payload).map(Some).map_err(|_| "the control block cannot be read")
        } else {
            // As it was written; `dump` knows better.
            let arrival = Arrival { at: Timestamp(header.arrival.wall_ms), trusted: false };
            decode(payload, header, arrival, header.first.max(self.from), None, &mut decoded).map(|()| None)
        };
        if let ControlFlow::Break(()) = self.tell_pending(offset, header.first, visit) {
            return Ok(ControlFlow::Break(()));
        }
        let what = match &control {
            Err(what) => Some(*what),
            Ok(_) if !is_control && header.first < self.next => Some("the block repeats numbers of earlier ones"),
            Ok(_) => None,
        };
        self.next = self.next.max(header.end());
        if let Some(what) = what {
            return Ok(visit(self.place.finding(FindingKind::Damage, offset, what, (header.first, header.end()))));
        }
        Ok(match control {
            Ok(Some(control)) => visit(Visit::Control { offset, header, control }),
            _ if header.end() <= self.from => ControlFlow::Continue(()),
            _ => visit(Visit::Records { offset, header, records: decoded }),
        })
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
    fn end(&mut self, header_damage: Option<String>, visit: &mut Visitor<'_>) -> ControlFlow<()> {
        let Some(next_segment) = self.place.next_segment else {
            let torn = self.pending.first().map(|pending| pending.offset).or(header_damage.as_ref().map(|_| 0));
            let Some(offset) = torn else { return ControlFlow::Continue(()) };
            let bytes = self.limit - offset;
            let what = format!("{bytes} bytes of a commit that was not finished, or is just being written");
            return visit(self.place.finding(FindingKind::TornTail, offset, what, NO_RECORDS));
        };
        if let Some(what) = header_damage {
            visit(self.place.finding(FindingKind::Damage, 0, what, (self.next, next_segment)))?;
            self.next = self.next.max(next_segment);
        }
        if self.next >= next_segment {
            let Some(pending) = self.pending.first() else { return ControlFlow::Continue(()) };
            let what = format!("{} bytes that readers ignore", self.limit - pending.offset);
            return visit(self.place.finding(FindingKind::Unfinished, pending.offset, what, NO_RECORDS));
        }
        if self.pending.is_empty() {
            let missing = (self.next, next_segment);
            let what = "records between here and the next segment are missing";
            self.next = next_segment;
            return visit(self.place.finding(FindingKind::Gap, self.limit, what, missing));
        }
        self.tell_pending(self.limit, next_segment, visit)
    }
}
