//! Cursors: reading committed records in order, of a whole stream or of one shard.

use std::{collections::VecDeque, io, ops::Range, sync::Arc, time::Duration};

use bytes::Bytes;

use crate::{
    clock::{Arrival, Pass, Stamp, Timestamp},
    error::Error,
    record::{Encoded, Record},
    segment::{BlockHeader, BlockKind, Found, SegmentReader, decode_runs, salt},
    sequence::SequenceNumber,
    shard::ShardIndex,
    stream::{Segment, StreamCore},
};

/// Where a cursor begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// At the oldest record there is.
    Oldest,
    /// Behind the newest record there is.
    Latest,
    /// At this number, or at the next one that exists.
    At(SequenceNumber),
    /// Behind this number.
    After(SequenceNumber),
    /// At the first record that arrived at this time or later, by what is known of the clocks now.
    AtTime(Timestamp),
}

/// How much one read returns at the most; at least one record if there is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadLimit {
    /// Records.
    pub records: usize,
    /// Keys and data, in bytes.
    pub payload_bytes: usize,
}

/// A place that the disk refuses to read this often is passed over as damaged.
const READ_TRIES: u32 = 3;
/// How much is passed over then, before sound blocks are looked for again.
const UNREADABLE_STEP_BYTES: u64 = 64 << 10;

/// A place in a stream. Independent of other cursors; holds nothing back from retention.
pub struct Cursor {
    core: Arc<StreamCore>,
    shard: Option<ShardIndex>,
    not_before: Timestamp,
    /// Everything before it was returned, is in `pending`, or is not wanted.
    next: SequenceNumber,
    /// Decoded, but not returned yet.
    pending: VecDeque<Arc<Record>>,
    /// When the blocks of `pending` were written, each by the number behind its last record.
    stamps: VecDeque<(SequenceNumber, Stamp)>,
    /// When the records of the newest read were written: runs of so many.
    returned: Vec<(usize, Stamp)>,
    open: Option<Open>,
    failures: u32,
    pass: Pass,
}

/// The segment that the cursor is in.
struct Open {
    first: SequenceNumber,
    reader: SegmentReader,
    /// Damage met since the last sound block: where and what.
    damage: Option<(u64, &'static str)>,
}

impl Cursor {
    pub(crate) fn new(core: Arc<StreamCore>, shard: Option<ShardIndex>, start: Start) -> Self {
        let (oldest, next) = core.view(|view| (view.oldest(), view.next));
        let mut not_before = Timestamp(0);
        let next = match start {
            Start::Oldest => oldest,
            Start::Latest => next,
            Start::At(at) => at,
            Start::After(after) => after.next(),
            Start::AtTime(time) => {
                not_before = time;
                // Arrival times never run backwards, so whole segments before the time can be passed over.
                let is_late = |segment: &&Segment| core.around.time.arrival(segment.newest).at >= time;
                let first =
                    |view: &crate::stream::View| view.segments.iter().find(is_late).map(|segment| segment.first);
                core.view(first).unwrap_or(next)
            }
        };
        // Nothing of a shard lies before it was opened.
        let opened = shard.and_then(|shard| core.shards().get(shard).map(|shard| shard.starts));
        let next = next.max(opened.unwrap_or_default());
        Self {
            core,
            shard,
            not_before,
            next,
            pending: VecDeque::new(),
            stamps: VecDeque::new(),
            returned: Vec::new(),
            open: None,
            failures: 0,
            pass: Pass::default(),
        }
    }

    /// Number of the next record to be read, if it exists already.
    #[must_use]
    pub fn position(&self) -> SequenceNumber {
        self.pending.front().map_or(self.next, |record| record.sequence_number)
    }

    /// Whether it has returned everything that its shard will ever hold: the shard is closed, or gone. Its children then
    /// hold what comes behind. A cursor over a whole stream never is.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.pending.is_empty() && self.is_behind_its_shard()
    }

    fn is_behind_its_shard(&self) -> bool {
        let Some(index) = self.shard else { return false };
        match self.core.shards().get(index) {
            Some(shard) => shard.ends.is_some_and(|ends| self.next > ends),
            None => true,
        }
    }

    /// The next records; none when it has reached the end. Never returns what is not durable.
    ///
    /// Records that were dropped, and damaged blocks, are passed over: the log has counted and told them. So is what is
    /// past retention and held by nobody.
    ///
    /// # Errors
    /// [`Error::Io`]; the cursor has not moved. A place that fails again and again is passed over as damaged.
    pub fn read(&mut self, limit: ReadLimit) -> Result<Vec<Arc<Record>>, Error> {
        self.returned.clear();
        let records = self.read_records(limit)?;
        for record in &records {
            while self.stamps.front().is_some_and(|(end, _)| *end <= record.sequence_number) {
                self.stamps.pop_front();
            }
            let (_, stamp) = *self.stamps.front().expect("every block that is decoded leaves its stamp");
            match self.returned.last_mut() {
                Some((count, same)) if *same == stamp => *count += 1,
                _ => self.returned.push((1, stamp)),
            }
        }
        Ok(records)
    }

    /// How old each record of the newest read is now, at the least and by what is known of the clocks: what retention goes
    /// by. `docs/time.md` has the rules.
    #[must_use]
    pub fn ages(&self) -> Vec<Duration> {
        let time = &self.core.around.time;
        self.returned.iter().flat_map(|(count, stamp)| std::iter::repeat_n(time.age_at_least(*stamp), *count)).collect()
    }

    fn read_records(&mut self, limit: ReadLimit) -> Result<Vec<Arc<Record>>, Error> {
        let mut records = Vec::new();
        let mut bytes = 0;
        loop {
            while let Some(record) = self.pending.front() {
                bytes += usize::try_from(record.payload_bytes()).unwrap_or(usize::MAX);
                if !records.is_empty() && (records.len() >= limit.records || bytes > limit.payload_bytes) {
                    return Ok(records);
                }
                records.extend(self.pending.pop_front());
            }
            match self.load() {
                Ok(true) => self.failures = 0,
                Ok(false) => return Ok(records),
                // What was read is returned first; the next call meets the error again.
                Err(_) if !records.is_empty() => return Ok(records),
                Err(source) => {
                    let segment = self.open.as_ref().map_or(self.next, |open| open.first);
                    self.pass_over_unreadable();
                    return Err(Error::Io { action: "read segment", path: self.core.path_of(segment), source });
                }
            }
        }
    }

    /// Decodes the next block into `pending`, or moves on; `false` at the end.
    fn load(&mut self) -> io::Result<bool> {
        if self.is_behind_its_shard() {
            return Ok(false);
        }
        let (horizon, segment, newest) = self.core.view(|view| {
            let newest = view.segments.back().map_or(SequenceNumber::ZERO, |segment| segment.first);
            (view.horizon, view.segment_for(self.next.max(view.horizon)), newest)
        });
        // What was dropped is passed over, although a segment may still have it.
        self.next = self.next.max(horizon);
        let Some(segment) = segment else {
            // So is what was dropped right before the newest segment, which holds nothing yet.
            self.next = self.next.max(newest);
            return self.load_held();
        };
        if self.open.as_ref().is_none_or(|open| open.first != segment.first) && !self.enter(segment)? {
            return Ok(true);
        }
        let open = self.open.as_mut().expect("entered");
        let found = open.reader.next(segment.bytes)?;
        if !matches!(found, Found::Block { .. }) && self.leave_if_dropped(segment.first) {
            return Ok(true);
        }
        let open = self.open.as_mut().expect("not left");
        match found {
            Found::End => {
                let damage = open.damage.take().unwrap_or((segment.bytes, "records are missing"));
                self.lose(segment.first, damage, self.next..segment.end);
                Ok(true)
            }
            Found::Damaged { bytes, what } => {
                open.damage.get_or_insert((bytes.start, what));
                Ok(true)
            }
            Found::Block { offset, header } => {
                // A block with later numbers is what a failed commit left; the next segment has those numbers.
                if header.end() <= self.next || header.kind == BlockKind::Control || header.is_taken_over(segment.end) {
                    return Ok(true);
                }
                self.read_block(segment, offset, &header)?;
                Ok(true)
            }
        }
    }

    /// Goes on with what waits in memory. Whatever lies before that was delivered and is gone, unless it was written just now.
    fn load_held(&mut self) -> io::Result<bool> {
        let mut found = VecDeque::new();
        let (core, pass) = (&self.core, &mut self.pass);
        let mut written = Stamp::default();
        let arrived = |stamp| {
            written = stamp;
            pass.next(core.around.time.arrival(stamp), core.around.time.changes())
        };
        let end = core.read_held(self.next, self.shard, arrived, &mut found)?;
        // It is visible in the log before it leaves the memory.
        if self.core.view(|view| view.segment_for(self.next)).is_some() {
            return Ok(true);
        }
        let Some(end) = end else { return Ok(false) };
        found.retain(|record| record.arrival >= self.not_before);
        if !found.is_empty() {
            self.stamps.push_back((end, written));
        }
        self.pending.extend(found);
        self.next = end;
        Ok(true)
    }

    fn read_block(&mut self, segment: Segment, offset: u64, header: &BlockHeader) -> io::Result<()> {
        let open = self.open.as_mut().expect("a block was found in it");
        if let Some(damage) = open.damage.take() {
            self.lose(segment.first, damage, self.next..header.first);
        } else if header.first > self.next {
            self.lose(segment.first, (offset, "records are missing"), self.next..header.first);
        }
        if header.kind == BlockKind::Gap {
            self.lose(segment.first, (offset, "the records were lost before a repair"), header.first..header.end());
            return Ok(());
        }
        if header.kind == BlockKind::Unwritten {
            // Of a log of an older version nobody else has.
            self.core.note_unwritten(&(header.first..=header.end().previous()));
            self.next = header.end();
            return Ok(());
        }
        let time = &self.core.around.time;
        let arrival = self.pass.next(time.arrival(header.arrival), time.changes());
        let wanted = self.shard.is_none_or(|shard| header.may_hold(shard)) && arrival.at >= self.not_before;
        if !wanted || self.core.is_out_of_reach(header.arrival, header.end()) {
            self.next = header.end();
            return Ok(());
        }
        let open = self.open.as_mut().expect("a block was found in it");
        let decoded = match open.reader.payload(offset, header) {
            Ok(payload) => {
                payload.and_then(|payload| decode(payload, header, arrival, self.next, self.shard, &mut self.pending))
            }
            Err(error) => {
                open.reader.go_to(offset);
                return Err(error);
            }
        };
        match decoded {
            Ok(()) => {
                if !self.pending.is_empty() {
                    self.stamps.push_back((header.end(), header.arrival));
                }
                self.next = header.end();
            }
            Err(_) if self.leave_if_dropped(segment.first) => self.pending.clear(),
            Err(what) => {
                self.pending.clear();
                self.lose(segment.first, (offset, what), header.first..header.end());
            }
        }
        Ok(())
    }

    /// Leaves a segment that was dropped while it was read: its file may be another segment by now.
    fn leave_if_dropped(&mut self, segment: SequenceNumber) -> bool {
        let is_there = self.core.view(|view| view.segments.iter().any(|other| other.first == segment));
        if !is_there {
            self.open = None;
        }
        !is_there
    }

    /// Opens a segment at or before the wanted record; `false` if it is not there (any more).
    fn enter(&mut self, segment: Segment) -> io::Result<bool> {
        // A gap before it: either what lay there was dropped, or a segment is missing.
        if segment.first > self.next {
            let dropped = self.core.view(|view| view.oldest()) == segment.first;
            if !dropped {
                self.lose(segment.first, (0, "records before this segment are missing"), self.next..segment.first);
            }
            self.next = segment.first;
        }
        let path = self.core.path_of(segment.first);
        let file = match self.core.around.disk.open_read(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // Dropped between the look at the view and the opening, or taken away from outside.
                if self.core.view(|view| view.segments.iter().any(|other| other.first == segment.first)) {
                    self.lose(segment.first, (0, "the file is missing"), self.next..segment.end);
                }
                return Ok(false);
            }
            Err(error) => return Err(error),
        };
        // A damaged header costs no record, since each block proves itself.
        let header = crate::segment::SegmentHeader::read(file.as_ref(), &path);
        if matches!(header, Err(Error::Corrupt { .. })) && !self.leave_if_dropped(segment.first) {
            self.core.damaged(segment.first, 0, "its header is damaged", None);
        }
        let start = header.map_or(0, |header| header.encoded_len());
        let mut reader = SegmentReader::new(file, salt(self.core.id, segment.first), start);
        if let Some(place) = self.core.around.catalogue.place(self.core.name(), segment.first, self.next) {
            reader.go_to(place);
            // An entry that points into nowhere, or behind the wanted record, is as good as none.
            let sound =
                matches!(reader.next(segment.bytes), Ok(Found::Block { header, .. }) if header.first <= self.next);
            reader.go_to(if sound { place } else { start });
        }
        self.open = Some(Open { first: segment.first, reader, damage: None });
        Ok(true)
    }

    /// Goes on behind `lost`, and tells of it.
    fn lose(&mut self, segment: SequenceNumber, (offset, what): (u64, &'static str), lost: Range<SequenceNumber>) {
        let records = (lost.start < lost.end).then(|| lost.start..=lost.end.previous());
        // One that was dropped under our feet is not damaged, and what it held was told.
        let is_there = self.core.view(|view| view.segments.iter().any(|other| other.first == segment));
        // That of the segment's header, at its start, was told when it was entered.
        if is_there && (records.is_some() || offset > 0) {
            self.core.damaged(segment, offset, what, records);
        }
        self.next = self.next.max(lost.end);
    }

    fn pass_over_unreadable(&mut self) {
        self.failures += 1;
        if self.failures >= READ_TRIES
            && let Some(open) = &mut self.open
        {
            self.failures = 0;
            let offset = open.reader.offset();
            open.damage.get_or_insert((offset, "the disk does not give these bytes"));
            open.reader.go_to(offset + UNREADABLE_STEP_BYTES);
        }
    }
}

/// The wanted records of a block.
pub(crate) fn decode(
    payload: &[u8],
    header: &BlockHeader,
    arrival: Arrival,
    from: SequenceNumber,
    shard: Option<ShardIndex>,
    out: &mut VecDeque<Arc<Record>>,
) -> Result<(), &'static str> {
    for_each_record(payload, header, from, shard, |number, shard, encoded| {
        out.push_back(record(encoded, number, shard, arrival));
    })
}

/// Calls `take` for the wanted records of a block, as they lie there.
pub(crate) fn for_each_record<'a>(
    payload: &'a [u8],
    header: &BlockHeader,
    from: SequenceNumber,
    shard: Option<ShardIndex>,
    mut take: impl FnMut(SequenceNumber, ShardIndex, Encoded<'a>),
) -> Result<(), &'static str> {
    let mut next = header.first;
    for run in decode_runs(header.runs(payload)?) {
        let run = run.ok_or("the block's runs cannot be read")?;
        let end = next.0.checked_add(u64::from(run.records)).ok_or("the block's numbers are impossible")?;
        let end = SequenceNumber(end);
        if end > from && shard.is_none_or(|shard| shard == run.shard) {
            let mut rest = run.encoded;
            for _ in 0..run.records {
                let (encoded, behind) = Encoded::take(rest).map_err(|_| "a record cannot be read")?;
                rest = behind;
                if next >= from {
                    take(next, run.shard, encoded);
                }
                next = next.next();
            }
        }
        next = end;
    }
    if next == header.end() { Ok(()) } else { Err("the block does not hold as many records as it says") }
}

/// Copies, so that one record that is kept does not keep its whole block.
fn record(encoded: Encoded<'_>, sequence_number: SequenceNumber, shard: ShardIndex, arrival: Arrival) -> Arc<Record> {
    let (partition_key, explicit_hash_key, tags, data) = match encoded {
        Encoded::Plain { partition_key, data } => (partition_key, None, Vec::new(), data),
        Encoded::Full { partition_key, explicit_hash_key, tags, data } => {
            (partition_key, explicit_hash_key, tags, data)
        }
    };
    Arc::new(Record {
        sequence_number,
        shard,
        arrival: arrival.at,
        arrival_trusted: arrival.trusted,
        partition_key: partition_key.into(),
        explicit_hash_key,
        tags,
        data: Bytes::copy_from_slice(data),
    })
}
