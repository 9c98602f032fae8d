//! Opening a stream: finds out what the last run left, cuts a torn tail, and never reads more than it must.
//!
//! The segments are the truth. The catalogue, however old, only saves reading: of every segment but the last the header
//! suffices, and of the last one only what lies behind its newest index entry.

use std::{
    collections::VecDeque,
    io,
    path::{Path, PathBuf},
    sync::{Arc, RwLock},
    time::Duration,
};

use super::{
    Checkpoints, Counters, Segment, StreamCore, StreamWriter, Surroundings, View,
    active::Active,
    files::{Looked, OwnFile, Ruined},
    marks::StreamMarks,
    tail::{Tail, Walked, walk},
    writer::SegmentLimits,
};
use crate::{
    catalogue::{KvError, SealedSegment},
    clock::Stamp,
    config::StreamConfig,
    error::Error,
    event::Event,
    gaps::Gaps,
    marks::Marks,
    segment::{Prospects, SPARE_FILE_NAME, SegmentHeader, StreamDefinition, file_name, parse_file_name, salt},
    sequence::SequenceNumber,
    shard::ShardMap,
    stats::{DropTotals, StreamStats},
};

impl StreamWriter {
    /// Opens the stream in `dir`, which is created if it does not exist.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::NewerFormat`]. Damage is no error: it is told, and what is sound is served.
    pub(crate) fn open(
        around: Surroundings,
        dir: PathBuf,
        config: StreamConfig,
        limits: SegmentLimits,
    ) -> Result<Self, Error> {
        let opening = Opening { around, dir, name: config.name.clone() };
        opening.run(config, limits)
    }
}

/// The work of opening, and what it needs all the way.
pub(super) struct Opening {
    pub(super) around: Surroundings,
    pub(super) dir: PathBuf,
    pub(super) name: String,
}

/// What survives of a stream besides its records.
struct Remembered {
    checkpoints: Checkpoints,
    totals: DropTotals,
    reserved: SequenceNumber,
    gaps: Gaps,
    unwritten: Gaps,
}

impl Opening {
    fn run(self, config: StreamConfig, limits: SegmentLimits) -> Result<StreamWriter, Error> {
        let created = self.around.disk.create_dir(&self.dir);
        created.map_err(|source| self.io("create stream directory", &self.dir, source))?;
        self.set_others_aside()?;
        let mut files = self.segment_files()?;
        let definition = self.definition(&config, &mut files)?;
        let proven = self.around.catalogue.proven_end(&self.name);
        let Looked { own: mut files, ruined, missing } = self.own_files(&definition, &files)?;
        let tail = self.read_tail(&definition, &mut files)?;
        let mut segments = self.list_segments(&definition, &files, tail.as_ref())?;
        self.merge_boots(tail.as_ref(), &segments);
        let mut remembered = self.remembered(&definition, tail.as_ref(), &segments);
        let marks = self.marks(&definition, tail.as_ref(), &segments);
        // Without a control block the newest segment relies on those before it, which may go.
        remembered.checkpoints.moved |= tail.as_ref().is_some_and(|tail| !tail.tells_marks());
        self.remove_dropped(&mut segments, remembered.totals.oldest);
        // The next segment that is dropped will be another one.
        let _ = self.around.disk.remove(&self.dir.join(SPARE_FILE_NAME));
        let has_torn = self.remove_old_torn(remembered.totals.oldest);

        // Segments may have been taken away from outside: a number once given is not given again.
        let done = remembered.checkpoints.done.values().copied().max().unwrap_or_default();
        let end = tail.as_ref().map_or(SequenceNumber(1), |tail| tail.segment.end);
        // Of blocks that are gone: the newest entry says from where on all marks are read.
        self.around.catalogue.forget_places(&self.name, end);
        let written = end.max(proven);
        let known = written.max(done.next()).max(remembered.totals.oldest);
        // Of these some were given to records that never had to be written.
        let reserved = if remembered.reserved > written { remembered.reserved } else { SequenceNumber::ZERO };
        let (logged, next) = if reserved > written { (written, known.max(reserved)) } else { (known, known) };
        let behind = tail.as_ref().map_or((logged, 0), |tail| (tail.segment.first, tail.segment.bytes));

        let mut counters = Counters {
            stats: StreamStats::default(),
            totals: remembered.totals,
            gaps: remembered.gaps,
            unwritten: self.known(self.around.catalogue.unwritten(&self.name, next)).unwrap_or_default(),
            unsaved: false,
        };
        let unwritten = remembered.unwritten.ranges();
        let unwritten: Vec<_> = unwritten.flat_map(|numbers| counters.add_unwritten(&numbers)).collect();
        let id = definition.id;
        let core = Arc::new(StreamCore {
            around: self.around.clone(),
            dir: self.dir.clone(),
            definition: RwLock::new(Arc::new(definition)),
            id,
            name: self.name.clone(),
            config: RwLock::new(Arc::new(config.clone())),
            view: RwLock::new(View { segments: VecDeque::new(), horizon: remembered.totals.oldest, next, unused: 0 }),
            checkpoints: remembered.checkpoints.into(),
            limiters: Default::default(),
            marks: StreamMarks::found(marks, &self.known(self.around.catalogue.marks(&self.name)).unwrap_or_default())
                .into(),
            held: Default::default(),
            reserved: reserved.into(),
            counters: counters.into(),
            told_damage: Default::default(),
            wakers: Default::default(),
        });
        let newest_wall_ms = tail.as_ref().map_or(0, |tail| tail.segment.newest.wall_ms);
        let active = match tail {
            Some(tail) if tail.segment.end == logged && tail.is_of_today => {
                segments.push(tail.segment);
                tail.into_active(&core)
            }
            behind => {
                // One without records has the name that its successor has now.
                segments.extend(behind.map(|tail| tail.segment).filter(|segment| segment.first != logged));
                let created = self.around.time.stamp(self.around.clock.now(), newest_wall_ms);
                let active = Active::create(&core, &core.definition(), logged, created, false)
                    .map_err(|source| self.io("create segment", &core.path_of(logged), source))?;
                segments.push(active.empty_segment());
                active
            }
        };
        core.change_view(|view| view.segments = segments.into());
        let begin = core.view(|view| view.segments.front().map_or(next, |segment| segment.first));
        core.around.catalogue.forget_unwritten_outside(core.name(), begin, next);
        core.save_unwritten(&unwritten);
        // What some consumer has finished was there, and so was what the catalogue noted after it was durable.
        let gone = end.max(remembered.totals.oldest);
        if gone < logged {
            let (last, at) = behind;
            core.damaged(last, at, "records are missing at the end of the log", Some(gone..=logged.previous()));
        }
        for Ruined { first, numbers } in ruined {
            let from = numbers.start.max(remembered.totals.oldest);
            let records = (from < numbers.end).then(|| from..=numbers.end.previous());
            core.damaged(first, 0, "nothing in it is sound; it was set aside as .broken", records);
        }
        // What was dropped by right lies before `oldest`: that was noted before a file was removed.
        for numbers in missing {
            let from = numbers.start.max(remembered.totals.oldest);
            if from < numbers.end {
                let records = from..=numbers.end.previous();
                core.damaged(numbers.start, 0, "the oldest records are missing", Some(records));
            }
        }
        let mut writer = StreamWriter {
            core,
            limits,
            active,
            next,
            logged,
            gap_before: SequenceNumber::ZERO,
            index_due: None,
            unsynced: None,
            newest_wall_ms,
            spare: None,
            control_written: Duration::ZERO,
            buffer: Vec::new(),
            prospects: Prospects::default(),
            poisoned: None,
            full: None,
            has_torn,
            revision_tried: 0,
        };
        writer.configure(config)?;
        Ok(writer)
    }

    /// The stream's segment files, by their first sequence numbers.
    fn segment_files(&self) -> Result<Vec<SequenceNumber>, Error> {
        let mut firsts = self.named_as_segments()?;
        // What cannot be looked at says so when it is opened.
        firsts.retain(|&first| !matches!(self.around.disk.is_file(&self.dir.join(file_name(first))), Ok(false)));
        Ok(firsts)
    }

    fn named_as_segments(&self) -> Result<Vec<SequenceNumber>, Error> {
        let names = self.around.disk.list(&self.dir).map_err(|source| self.io("list", &self.dir, source))?;
        let mut firsts: Vec<_> = names.iter().filter_map(|name| parse_file_name(name)).collect();
        firsts.sort_unstable();
        Ok(firsts)
    }

    /// Sets aside what has a segment's name and is no file: a directory, or a pipe, which is never opened.
    fn set_others_aside(&self) -> Result<(), Error> {
        for first in self.named_as_segments()? {
            if matches!(self.around.disk.is_file(&self.dir.join(file_name(first))), Ok(false)) {
                self.put_away(first, "it has a segment's name, but is no file")?;
            }
        }
        Ok(())
    }

    /// What the stream is: from the catalogue if any segment agrees, else from the segments, else new.
    fn definition(&self, config: &StreamConfig, files: &mut Vec<SequenceNumber>) -> Result<StreamDefinition, Error> {
        let known = self.known(self.around.catalogue.stream(&self.name)).flatten();
        let mut headers = Vec::new();
        let mut all_sound = true;
        for &first in files.iter().rev() {
            match self.header(first) {
                // Usually the newest one agrees, and no more are read.
                Ok(header) if known.as_ref().is_some_and(|known| is_own(&header, known, first)) => {
                    let known = known.expect("it agreed");
                    // The catalogue may have missed the last change.
                    let newest = if header.definition.revision > known.revision { header.definition } else { known };
                    return Ok(self.checked(newest, config));
                }
                Ok(header) => headers.push((first, header)),
                Err(Error::Corrupt { .. }) => all_sound = false,
                Err(error) => return Err(error),
            }
        }
        let agreed = StreamDefinition::agreed(&self.name, headers.into_iter());
        match (known, agreed) {
            (Some(known), None) => return Ok(self.checked(known, config)),
            // The segment that would agree with the catalogue may be the damaged one.
            (Some(known), Some(_)) if !all_sound => return Ok(self.checked(known, config)),
            (known, Some(definition)) => {
                if known.is_some() {
                    // Its checkpoints and places are of another log: following them would pass over records.
                    self.around.catalogue.forget_stream(&self.name);
                    let reason = format!("its stream `{}` is another than that of the segments", self.name);
                    self.tell(Event::CatalogueRebuilt { set_aside: None, reason });
                }
                self.around.catalogue.put_stream(&definition);
                return Ok(self.checked(definition, config));
            }
            (None, None) => {}
        }
        // Without any sound header the files cannot be told from another stream's: they are kept, but not read.
        for first in std::mem::take(files) {
            self.put_away(first, "no segment of the stream has a sound header")?;
        }
        let now = self.around.clock.now();
        let definition = StreamDefinition {
            // Wall time tells two lives of one name apart, unless it is wrong in the same way twice; uptime is mixed in.
            id: now.wall.0 ^ u64::try_from(now.since_boot.as_micros()).unwrap_or(0).rotate_left(32),
            name: self.name.clone(),
            revision: 1,
            note: config.note.clone(),
            shards: Arc::new(ShardMap::uniform(config.shards)),
            retention_ms: u64::try_from(config.retention.as_millis()).unwrap_or(u64::MAX),
        };
        self.around.catalogue.put_stream(&definition);
        Ok(definition)
    }

    fn checked(&self, definition: StreamDefinition, config: &StreamConfig) -> StreamDefinition {
        let has = definition.shards.open().len();
        // Whoever has changed them knows.
        let is_first = definition.shards.shards().iter().all(|shard| shard.parents.is_empty());
        if is_first && has != config.shards.get() as usize {
            self.tell(Event::ShardCountKept { stream: self.name.clone(), has, asked: config.shards.get() });
        }
        definition
    }

    /// All segments but the last.
    fn list_segments(
        &self,
        definition: &StreamDefinition,
        files: &[OwnFile],
        tail: Option<&Tail>,
    ) -> Result<Vec<Segment>, Error> {
        let mut segments: Vec<Segment> = Vec::with_capacity(files.len() + 1);
        // Whether the segment before has no entry: then it ends where the next begins, and is no newer than that.
        let mut open_ended = false;
        for &OwnFile { first, bytes, sealed, created, .. } in files {
            let created = created.unwrap_or_else(|| Stamp::new(self.around.boot, self.around.clock.now()));
            let (end, newest) = sealed.map_or((first, created), |entry| (entry.last.next(), entry.newest));
            if open_ended {
                self.close_open_end(&mut segments, first, newest);
            }
            open_ended = sealed.is_none();
            segments.push(Segment { first, end, bytes, newest });
        }
        if let (true, Some(tail)) = (open_ended, tail) {
            self.close_open_end(&mut segments, tail.segment.first, tail.created);
        } else if open_ended && let Some(last) = segments.pop() {
            // There is no tail, so this one has to be read through to know where it ends.
            let path = self.dir.join(file_name(last.first));
            let walked = walk(&self.around, definition, last.first, 0, last.bytes, &path, None)?;
            segments.push(Segment { end: walked.end.max(last.first), ..last });
        }
        Ok(segments)
    }

    fn close_open_end(&self, segments: &mut [Segment], end: SequenceNumber, newest: Stamp) {
        let Some(segment) = segments.last_mut() else { return };
        *segment = Segment { end, newest, ..*segment };
        let entry = SealedSegment { last: end.previous(), bytes: segment.bytes, newest };
        self.around.catalogue.put_segment(&self.name, segment.first, &entry);
    }

    /// What the log tells of the machine's boots is news when the catalogue was lost or did not take it.
    fn merge_boots(&self, tail: Option<&Tail>, segments: &[Segment]) {
        let recorded = tail.map(|tail| tail.boots.clone()).unwrap_or_default();
        let stamps = segments.iter().chain(tail.map(|tail| &tail.segment)).map(|segment| segment.newest);
        if self.around.time.merge(recorded, stamps) {
            self.around.catalogue.put_boots(&self.around.time.boots().1);
        }
    }

    /// Checkpoints and counts: the newer of what the catalogue and the newest control block say.
    fn remembered(&self, definition: &StreamDefinition, tail: Option<&Tail>, segments: &[Segment]) -> Remembered {
        let catalogue = &self.around.catalogue;
        let done = self.known(catalogue.checkpoints(&self.name)).unwrap_or_default();
        let mut checkpoints = Checkpoints { done, ..Checkpoints::default() };
        let mut totals = self.known(catalogue.drops(&self.name)).flatten().unwrap_or_default();
        let mut gaps = self.known(catalogue.gaps(&self.name)).flatten().unwrap_or_default();
        let mut control = tail.and_then(|tail| tail.control.clone());
        // Of a segment that the power left without its first block, the one before it tells what counts.
        let is_bare = tail.is_none_or(|tail| tail.segment.is_empty());
        let mut unwritten = tail.map(|tail| tail.unwritten.clone()).unwrap_or_default();
        if control.is_none() && (is_bare || checkpoints.done.is_empty()) {
            let walked = segments.last().and_then(|segment| self.walk_sealed(definition, segment)).unwrap_or_default();
            unwritten.add_all(&walked.unwritten);
            control = walked.control;
        }
        let mut reserved = self.known(catalogue.reserved(&self.name)).unwrap_or_default();
        if let Some(control) = control {
            reserved = reserved.max(control.reserved);
            for (consumer, done) in control.checkpoints {
                let known = checkpoints.done.entry(consumer.clone()).or_default();
                if done > *known {
                    *known = done;
                    checkpoints.unsaved.insert(consumer);
                }
            }
            totals = totals.newest(control.totals);
            gaps.add_all(&control.gaps);
        }
        // A file that a power cut brought back holds records of shards that are gone.
        totals.oldest = totals.oldest.max(definition.shards.oldest());
        gaps.forget_before(totals.oldest);
        Remembered { checkpoints, totals, gaps, unwritten, reserved }
    }

    fn walk_sealed(&self, definition: &StreamDefinition, segment: &Segment) -> Option<Walked> {
        let path = self.dir.join(file_name(segment.first));
        let start = self.header(segment.first).map_or(0, |header| header.encoded_len());
        walk(&self.around, definition, segment.first, start, segment.bytes, &path, Some(segment.end)).ok()
    }

    /// The marks: those of the newest control block, or of the catalogue where the reading began, and what was set since.
    fn marks(&self, definition: &StreamDefinition, tail: Option<&Tail>, segments: &[Segment]) -> Marks {
        let Some(tail) = tail else { return Marks::default() };
        let control = tail.control.as_ref().map(|control| control.marks.clone());
        let before = control.or_else(|| tail.marks_before.clone());
        let mut marks = before.unwrap_or_else(|| self.marks_at_end(definition, segments));
        marks.apply(&tail.marks_set);
        marks
    }

    /// The marks at the end of these segments. Needed only when the head of the last one is damaged.
    fn marks_at_end(&self, definition: &StreamDefinition, segments: &[Segment]) -> Marks {
        let (mut marks, mut set_since) = (Marks::default(), Vec::new());
        for walked in segments.iter().rev().filter_map(|segment| self.walk_sealed(definition, segment)) {
            set_since.push(walked.marks_set);
            if let Some(control) = walked.control {
                marks = control.marks;
                break;
            }
        }
        set_since.iter().rev().for_each(|changes| marks.apply(changes));
        marks
    }

    /// Removes again what a power cut brought back after it had been dropped.
    fn remove_dropped(&self, segments: &mut Vec<Segment>, oldest: SequenceNumber) {
        segments.retain(|segment| {
            if segment.end > oldest {
                return true;
            }
            let path = self.dir.join(file_name(segment.first));
            if let Err(error) = self.around.disk.remove(&path) {
                self.tell(Event::NotRemoved { segment: path, reason: error.to_string() });
            }
            self.around.catalogue.forget_segment(&self.name, segment.first, segment.end);
            false
        });
    }

    /// Removes what was kept of torn ends of segments that are gone: nobody else would ever. Says whether others are kept.
    fn remove_old_torn(&self, oldest: SequenceNumber) -> bool {
        let disk = &self.around.disk;
        let mut has_torn = false;
        for name in disk.list(&self.dir).unwrap_or_default() {
            let torn = name.strip_suffix("torn").and_then(|name| parse_file_name(&format!("{name}seg")));
            let Some(first) = torn else { continue };
            // One that stays is tried again at the next opening.
            has_torn |= first >= oldest || disk.remove(&self.dir.join(name)).is_err();
        }
        has_torn
    }

    pub(super) fn header(&self, first: SequenceNumber) -> Result<SegmentHeader, Error> {
        let path = self.dir.join(file_name(first));
        let file = self.around.disk.open_read(&path).map_err(|source| self.io("open segment", &path, source))?;
        SegmentHeader::read(file.as_ref(), &path)
    }

    pub(super) fn tell(&self, event: Event) {
        (self.around.events)(event);
    }

    /// What the catalogue knows; nothing if it fails, which is told.
    pub(super) fn known<T>(&self, asked: Result<T, KvError>) -> Option<T> {
        asked.map_err(|error| self.tell(Event::CatalogueBehind { reason: error.reason })).ok()
    }

    pub(super) fn io(&self, action: &'static str, path: &Path, source: io::Error) -> Error {
        Error::Io { action, path: path.into(), source }
    }
}

/// The note of a stream that is not open; `None` if there is no such stream.
pub(crate) fn note(around: &Surroundings, dir: &Path, name: &str) -> Result<Option<String>, Error> {
    let opening = Opening { around: around.clone(), dir: dir.into(), name: name.into() };
    let files = opening.segment_files()?;
    let newest = files.iter().rev().find_map(|&first| opening.header(first).ok());
    let known = opening.known(around.catalogue.stream(name)).flatten();
    let definitions = newest.map(|header| header.definition).into_iter().chain(known);
    Ok(definitions.max_by_key(|definition| definition.revision).map(|definition| definition.note))
}

/// Whether a segment is where it belongs.
pub(super) fn is_own(header: &SegmentHeader, definition: &StreamDefinition, first: SequenceNumber) -> bool {
    header.definition.id == definition.id && header.first == first
}

impl Tail {
    fn into_active(self, core: &StreamCore) -> Active {
        let has_control = self.tells_marks();
        Active {
            file: self.file,
            first: self.segment.first,
            salt: salt(core.id, self.segment.first),
            created: self.created,
            len: self.segment.bytes,
            file_len: self.segment.bytes,
            since_index: self.since_index,
            boots_told: 0,
            has_control,
        }
    }
}
