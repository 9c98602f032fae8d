//! Simulations: the whole log on a disk that loses power, fails and fills up, judged by a simple model.
//!
//! The model knows what was acknowledged. After any crash the log must hold exactly that, in order and once, minus what
//! it was allowed to drop, plus at most the one commit that was under way.

mod clocks;
mod compression;
mod counts;
mod crashes;
mod damage;
mod durability;
mod fairness;
mod full;
mod histories;
mod lessons;
mod lifetimes;
mod marks;
mod missing;
mod random_damage;
mod recycling;
mod resharding;
mod scenarios;

use std::{
    cell::Cell,
    collections::{BTreeMap, BTreeSet},
    fmt,
    num::NonZeroU32,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use crate::{
    catalogue::{KvError, memory::MemoryKv},
    clock::{Clock, Now, Timestamp, Trust, manual::ManualClock},
    config::{MinFree, OnFull, StoreConfig, StreamConfig},
    cursor::{ReadLimit, Start},
    disk::{Disk as _, sim::SimDisk},
    error::{Appended, Error, Refused},
    event::{DropReason, Event},
    hash_key::HashKey,
    record::{NewRecord, Record},
    segment::{Codec, SegmentHeader},
    sequence::SequenceNumber,
    shard::{ShardChange, ShardIndex, ShardMap},
    store::{Parts, Stream, WhenFull},
};

pub(super) const DIR: &str = "/data";
pub(super) const YEAR_MS: u64 = 31_557_600_000;
pub(super) const CONSUMER: &str = "cloud";

/// A record as the model knows it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Known {
    key: String,
    data: Vec<u8>,
    /// When it was appended, by the true time, and in which boot.
    at: Timestamp,
    boot: u32,
    /// Behind the last record of its commit, if that is known.
    block_end: Option<SequenceNumber>,
}

impl Known {
    fn is(&self, record: &Record) -> bool {
        *self.key == *record.partition_key && *self.data == *record.data
    }
}

impl fmt::Debug for Known {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?}", self.key, String::from_utf8_lossy(&self.data[..self.data.len().min(16)]))
    }
}

/// In which state sled is found after a power cut.
#[derive(Debug, Clone, Copy)]
pub(super) enum CatalogueFound {
    /// As it was at the last moment.
    Newest,
    /// In one of the states since its last flush.
    Stale(usize),
    /// Not at all.
    Lost,
}

/// A store under test, its surroundings, and the model.
pub(super) struct Simulation {
    pub(super) disk: SimDisk,
    pub(super) kv: MemoryKv,
    /// Whether the catalogue can be opened.
    pub(super) has_room_for_catalogue: bool,
    pub(super) clock: Arc<ManualClock>,
    pub(super) events: Arc<Mutex<Vec<Event>>>,
    /// The shortest retention that ever was: what it took never comes back.
    retention_min: Cell<Duration>,
    /// How many of the events were judged.
    judged: Cell<usize>,
    /// Boots in which a trusted clock was wrong once, and those of them in which it was behind.
    lied: BTreeSet<u32>,
    lied_back: BTreeSet<u32>,
    /// Boots whose time the catalogue has taken.
    certain: BTreeSet<u32>,
    pub(super) stream_config: StreamConfig,
    pub(super) store_config: StoreConfig,
    running: Option<(Parts, Option<Stream>)>,
    /// What was acknowledged, or found to have survived.
    pub(super) acknowledged: BTreeMap<SequenceNumber, Known>,
    /// The commit under way when the power went.
    in_doubt: Vec<Known>,
    /// Whether every batch sets marks; and some have them alone.
    pub(super) with_marks: bool,
    /// As the newest acknowledged batches have set them.
    marks: BTreeMap<String, Vec<u8>>,
    /// What the commit in doubt has set.
    marks_in_doubt: Vec<(String, Vec<u8>)>,
    issued: u64,
    checkpoint: SequenceNumber,
    /// The furthest checkpoint ever: what it covers was delivered, and may go, though a power cut takes the checkpoint back.
    delivered: SequenceNumber,
    /// Ranges of the open shards, and those that a failed change may have brought all the same.
    shards: Vec<(ShardIndex, HashKey)>,
    shards_in_doubt: Vec<Vec<(ShardIndex, HashKey)>>,
    /// Everything before it was dropped by right. A power cut may undo some removals of files and keep others.
    dropped_before: SequenceNumber,
    /// What a tick has certainly made durable.
    durable_checkpoint: SequenceNumber,
    /// Whether a dropped segment's file was seen to be another segment.
    pub(super) recycled: bool,
}

impl Simulation {
    pub(super) fn new(seed: u64) -> Self {
        let mut stream_config = StreamConfig::new("telemetry");
        stream_config.shards = NonZeroU32::new(3).expect("not zero");
        stream_config.retention = Duration::from_secs(1000);
        stream_config.consumers = vec![CONSUMER.into()];
        stream_config.rate_limit = None;
        // Scenarios count bytes.
        stream_config.compression = Codec::None;
        let mut store_config = StoreConfig::new(DIR);
        // The smallest that a segment may be, so that rolls are frequent.
        store_config.segment_bytes = 1;
        // The disk is full when it says so.
        store_config.min_free = MinFree::NONE;
        Self {
            disk: SimDisk::new(seed),
            kv: MemoryKv::default(),
            has_room_for_catalogue: true,
            clock: ManualClock::new(),
            events: Arc::default(),
            retention_min: Cell::new(Duration::MAX),
            judged: Cell::new(0),
            lied: BTreeSet::new(),
            lied_back: BTreeSet::new(),
            certain: BTreeSet::new(),
            stream_config,
            store_config,
            running: None,
            acknowledged: BTreeMap::new(),
            in_doubt: Vec::new(),
            with_marks: false,
            marks: BTreeMap::new(),
            marks_in_doubt: Vec::new(),
            issued: 0,
            checkpoint: SequenceNumber::ZERO,
            delivered: SequenceNumber::ZERO,
            shards: ranges(&ShardMap::uniform(NonZeroU32::new(3).expect("not zero"))),
            shards_in_doubt: Vec::new(),
            dropped_before: SequenceNumber::ZERO,
            durable_checkpoint: SequenceNumber::ZERO,
            recycled: false,
        }
    }

    pub(super) fn open(&mut self) -> Result<(), Error> {
        if !self.has_room_for_catalogue {
            self.catalogue_is_not_there();
        }
        let parts = self.open_parts()?;
        let stream = parts.stream(&self.store_config, self.stream_config.clone())?;
        self.running = Some((parts, Some(stream)));
        self.judge_drops();
        self.note_certainty();
        Ok(())
    }

    /// Opens the store, but no stream of it.
    pub(super) fn open_without_stream(&mut self) -> Result<(), Error> {
        self.running = Some((self.open_parts()?, None));
        Ok(())
    }

    fn open_parts(&self) -> Result<Parts, Error> {
        let events = Arc::clone(&self.events);
        Parts::open(
            &self.store_config,
            Arc::new(self.disk.clone()),
            &|_| match self.has_room_for_catalogue {
                true => Ok(Box::new(self.kv.clone())),
                false => Err(KvError { reason: "no space left".into(), is_full: true }),
            },
            self.clock.clone(),
            Arc::new(move |event| events.lock().expect("unpoisoned").push(event)),
        )
    }

    /// Takes over a changed configuration while it runs.
    pub(super) fn configure(&mut self) -> Result<(), Error> {
        let (parts, _) = self.running.as_ref().expect("open");
        parts.stream(&self.store_config, self.stream_config.clone()).map(drop)
    }

    pub(super) fn note(&self) -> Option<String> {
        let (parts, _) = self.running.as_ref().expect("open");
        parts.note(&self.store_config, "telemetry").expect("readable")
    }

    /// Deletes the stream; what was acknowledged is owed no more once that has returned, and may be gone before.
    pub(super) fn delete(&mut self) -> Result<bool, Error> {
        let (parts, _) = self.running.as_ref().expect("open");
        parts.delete_stream(&self.store_config, "telemetry")
    }

    pub(super) fn stream(&self) -> &Stream {
        self.running.as_ref().and_then(|(_, stream)| stream.as_ref()).expect("open")
    }

    /// Appends records of one batch and commits. Their sizes are mixed, their keys few.
    pub(super) fn append(&mut self, count: usize, bytes: usize) -> Result<Appended, Refused> {
        self.append_across(count, bytes, |_| {})
    }

    /// The same, and something happens while the batch waits.
    pub(super) fn append_across(
        &mut self,
        count: usize,
        bytes: usize,
        meanwhile: impl FnOnce(&mut Self),
    ) -> Result<Appended, Refused> {
        let (at, boot) = (self.clock.truth(), self.clock.boot());
        let mut batch = self.stream().batch();
        let (mut known, mut pushed) = (Vec::new(), Vec::new());
        for _ in 0..count {
            self.issued += 1;
            let key = format!("key-{}", self.issued % 7);
            let mut data = format!("record {} ", self.issued).into_bytes();
            let mut random = fastrand::Rng::with_seed(self.issued);
            // Half of them can be compressed.
            let filling = match self.issued.is_multiple_of(2) {
                true => b'.'..=b'.',
                false => 0..=255,
            };
            data.resize_with(data.len().max(bytes), || random.u8(filling.clone()));
            pushed.push(batch.push(&NewRecord::new(&key, &data)).expect("a sound record"));
            known.push(Known { key, data, at, boot, block_end: None });
        }
        let marks = if self.with_marks { marks::of_batch(self.issued) } else { Vec::new() };
        for (name, value) in &marks {
            batch.set_mark(name, value).expect("a sound mark");
        }
        meanwhile(self);
        let stream = self.stream();
        let told = Arc::new(Mutex::new(None));
        let tell = Arc::clone(&told);
        let done = Box::new(move |outcome| *tell.lock().expect("unpoisoned") = Some(outcome));
        stream.append(batch, WhenFull::Refuse, done);
        self.commit_queued();
        let outcome = told.lock().expect("unpoisoned").take().expect("every append is answered");
        match &outcome {
            Ok(appended) => {
                marks::apply(&mut self.marks, marks);
                let places = appended.places(&pushed);
                assert_eq!(places.len(), known.len());
                let end = places.iter().map(|(_, number)| number.next()).max();
                for ((_, number), record) in places.into_iter().zip(known) {
                    let record = Known { block_end: end, ..record };
                    assert!(self.acknowledged.insert(number, record).is_none(), "number {number} was given twice");
                }
            }
            // A full disk leaves nothing of the commit behind.
            Err(Refused { error: Error::Full { .. }, .. }) => {}
            Err(_) => (self.in_doubt, self.marks_in_doubt) = (known, marks),
        }
        self.judge_drops();
        outcome
    }

    pub(super) fn save_checkpoint(&mut self, at: SequenceNumber) {
        self.stream().save_checkpoint(CONSUMER, at);
        self.checkpoint = self.checkpoint.max(at.min(self.newest()));
        self.delivered = self.delivered.max(self.checkpoint);
    }

    /// Changes the shards as `choose` says, if it can be done.
    pub(super) fn change_shards(&mut self, choose: impl FnOnce(&ShardMap) -> ShardChange) -> Result<(), Error> {
        let change = choose(&self.stream().shards());
        match self.stream().change_shards(change) {
            Ok(shards) => {
                (self.shards, self.shards_in_doubt) = (ranges(&shards), Vec::new());
                Ok(())
            }
            Err(Error::Shards { .. }) => Ok(()),
            Err(error) => {
                let changed = self.stream().shards().changed(change, SequenceNumber::ZERO);
                self.shards_in_doubt.extend(changed.ok().map(|changed| ranges(&changed)));
                Err(error)
            }
        }
    }

    /// What the committer does between ticks.
    pub(super) fn do_due(&self) {
        let (parts, _) = self.running.as_ref().expect("open");
        parts.writers.lock().expect("unpoisoned").do_due();
    }

    /// Lets the stream take over a changed configuration.
    pub(super) fn reconfigure(&mut self) {
        let (parts, _) = self.running.as_ref().expect("open");
        parts.stream(&self.store_config, self.stream_config.clone()).expect("it is there");
    }

    pub(super) fn commit_queued(&self) {
        let (parts, _) = self.running.as_ref().expect("open");
        parts.writers.lock().expect("unpoisoned").commit_queued(&parts.queue);
    }

    pub(super) fn newest(&self) -> SequenceNumber {
        self.acknowledged.keys().next_back().copied().unwrap_or_default()
    }

    pub(super) fn tick(&mut self) {
        let (parts, _) = self.running.as_ref().expect("open");
        parts.writers.lock().expect("unpoisoned").tick(&parts.queue);
        self.judge_drops();
        self.note_certainty();
        let (parts, _) = self.running.as_ref().expect("open");
        if parts.around.catalogue.failure().is_none() {
            self.durable_checkpoint = self.checkpoint;
        }
    }

    /// A clean stop.
    pub(super) fn close(&mut self) {
        let (parts, stream) = self.running.take().expect("open");
        parts.writers.lock().expect("unpoisoned").close(&parts.queue);
        self.judge_drops();
        self.dropped_before = self.dropped_before.max(stream.expect("open").stats().oldest);
        if parts.around.catalogue.failure().is_none() {
            self.durable_checkpoint = self.checkpoint;
        }
    }

    /// The power goes, and comes back.
    pub(super) fn power_cut(&mut self, catalogue: CatalogueFound) {
        if let Some((_, Some(stream))) = self.running.take() {
            self.dropped_before = self.dropped_before.max(stream.stats().oldest);
        }
        self.disk.power_up();
        match catalogue {
            CatalogueFound::Newest => self.kv.go_back_to(self.kv.states() - 1),
            CatalogueFound::Stale(choice) => self.kv.go_back_to(choice % self.kv.states()),
            CatalogueFound::Lost => {
                self.kv = MemoryKv::default();
                self.catalogue_is_not_there();
            }
        }
    }

    /// From now on the catalogue takes no change, if it could be opened.
    pub(super) fn fail_catalogue(&self) {
        let (parts, _) = self.running.as_ref().expect("open");
        if parts.around.catalogue.failure().is_none() {
            self.kv.fail();
        }
    }

    /// Checkpoints then come from the control blocks, as far as those were written.
    fn catalogue_is_not_there(&mut self) {
        self.certain.clear();
        self.durable_checkpoint = SequenceNumber::ZERO;
    }

    /// What the catalogue has once taken of a boot's time is known for ever.
    fn note_certainty(&mut self) {
        let taken = self.running.as_ref().is_some_and(|(parts, _)| parts.around.catalogue.failure().is_none());
        if taken && self.is_clock_trusted() {
            self.certain.insert(self.clock.boot());
        }
    }

    /// Whether the time of this boot is known.
    pub(super) fn is_clock_trusted(&self) -> bool {
        self.running.as_ref().expect("open").0.around.time.status().trusted_since.is_some()
    }

    pub(super) fn learn_time(&self, at: Now) {
        self.running.as_ref().expect("open").0.around.learn_time(at);
    }

    pub(super) fn offer_time(&self, wall: Timestamp) -> Result<(), Timestamp> {
        self.running.as_ref().expect("open").0.around.offer_time(wall)
    }

    /// The clock is set, and something vouches for it for a moment. Only where it was right before: of two trusted times
    /// one must be right, or nobody could tell.
    pub(super) fn lie(&mut self, hours: i64) {
        if self.is_clock_trusted() {
            self.lied.insert(self.clock.boot());
            if hours < 0 {
                self.lied_back.insert(self.clock.boot());
            }
            self.claim(Timestamp(self.clock.truth().0.saturating_add_signed(hours * 3_600_000)));
        }
    }

    /// Something vouches for a wall time for a moment.
    pub(super) fn claim(&mut self, wall: Timestamp) {
        self.clock.set_wall(wall);
        self.clock.set_trust(Trust::Synchronised);
        self.tick();
        self.clock.set_wall(self.clock.truth());
    }

    /// What goes by retention must be past it by the true time, or be delivered and not to be kept.
    fn judge_drops(&self) {
        self.retention_min.set(self.retention_min.get().min(self.stream_config.retention));
        let events = self.events.lock().expect("unpoisoned");
        for event in &events[self.judged.get()..] {
            if let Event::Dropped { reason: DropReason::Retention, records, .. } = event {
                for (number, known) in self.acknowledged.range(records.clone()) {
                    let goes_delivered = !self.stream_config.keep_delivered && *number <= self.delivered;
                    let is_past = self.is_past(known, self.retention_min.get());
                    assert!(is_past || goes_delivered, "record {number} is not past retention: {known:?}");
                }
            }
        }
        self.judged.set(events.len());
    }

    fn is_past(&self, known: &Known, retention: Duration) -> bool {
        Duration::from_millis(self.clock.truth().0 - known.at.0) > retention
    }

    /// Where a trusted clock told a record's time, it is right; where two did, it is not served past its retention.
    fn judge_time(&self, record: &Record, known: &Known) {
        assert!(record.arrival_trusted || !self.certain.contains(&known.boot), "{record:?} has lost its time");
        if !record.arrival_trusted || self.lied.contains(&known.boot) {
            return;
        }
        // Where a later boot seems to have begun too early, one of the two is wrong, and the log cannot tell which.
        if self.lied_back.range(known.boot..).next().is_none() {
            assert_eq!(record.arrival, known.at, "the arrival of record {}", record.sequence_number);
        }
        let done = stream_checkpoint(self.stream()).next();
        let is_known = self.is_clock_trusted() && !self.lied_back.contains(&self.clock.boot());
        if is_known && known.block_end.is_some_and(|end| end <= done) {
            let is_past = self.is_past(known, self.stream_config.retention);
            assert!(!is_past, "record {} is past retention and still served", record.sequence_number);
        }
    }

    /// As [`Simulation::check`], without a crash before it: nothing is in doubt, no checkpoint has gone back.
    pub(super) fn check_running(&mut self) {
        let durable = self.durable_checkpoint;
        self.check();
        self.durable_checkpoint = durable;
    }

    /// Reads everything and compares it with the model; then the model takes over what survived of the commit in doubt.
    pub(super) fn check(&mut self) {
        let stream = self.stream();
        let found = read_all(stream, 3);
        let stats = stream.stats();
        for pair in found.windows(2) {
            let numbers = [pair[0].sequence_number, pair[1].sequence_number];
            assert!(numbers[0] < numbers[1], "out of order: {numbers:?}");
            assert!(pair[0].arrival <= pair[1].arrival, "arrival times run backwards at {numbers:?}");
        }
        // Nothing that a consumer still needs may be missing, unless the policy is to drop it.
        if self.stream_config.on_full == OnFull::Reject {
            let delivered = self.delivered;
            let gone = delivered.next()..stats.oldest.max(delivered.next());
            let gone = self.acknowledged.range(gone).next();
            assert!(gone.is_none(), "{} gone, {delivered} delivered: {gone:?}", stats.oldest);
        }
        let mut found: BTreeMap<_, Known> = found
            .into_iter()
            .map(|record| {
                let judged = self.acknowledged.get(&record.sequence_number).or(self.in_doubt.first());
                let Some(judged) = judged else { panic!("a record that nobody appended: {record:?}") };
                self.judge_time(&record, judged);
                let (key, data) = (record.partition_key.to_string(), record.data.to_vec());
                (record.sequence_number, Known { key, data, ..judged.clone() })
            })
            .collect();
        for (number, known) in self.acknowledged.range(stats.oldest..) {
            match found.remove(number) {
                Some(found) => assert_eq!((&found.key, &found.data), (&known.key, &known.data), "record {number}"),
                None => assert!(
                    *number < self.dropped_before
                        || *number <= self.delivered && self.is_past(known, self.retention_min.get()),
                    "acknowledged record {number} is not there: {known:?}"
                ),
            }
        }
        let shards = ranges(&stream.shards());
        assert!(
            shards == self.shards || self.shards_in_doubt.contains(&shards),
            "shards {shards:?}, not {:?} or {:?}",
            self.shards,
            self.shards_in_doubt
        );
        (self.shards, self.shards_in_doubt) = (shards, Vec::new());
        self.judge_marks(!found.is_empty());
        // What is left can only be the commit that was under way, whole.
        if !found.is_empty() {
            let pairs = |known: Vec<Known>| -> Vec<_> {
                let mut pairs: Vec<_> = known.into_iter().map(|known| (known.key, known.data)).collect();
                pairs.sort();
                pairs
            };
            let survived = pairs(found.values().cloned().collect());
            assert!(survived == pairs(self.in_doubt.clone()), "records that nobody appended: {found:?}");
            self.acknowledged.extend(found);
        }
        self.in_doubt.clear();
        let checkpoint = stream_checkpoint(self.stream());
        assert!(checkpoint >= self.durable_checkpoint, "checkpoint {checkpoint} < {}", self.durable_checkpoint);
        assert!(checkpoint <= self.delivered, "checkpoint {checkpoint} was never saved");
        self.checkpoint = checkpoint;
        self.durable_checkpoint = SequenceNumber::ZERO;
        assert!(stats.next > self.newest(), "the next number {} was given already", stats.next);
    }

    pub(super) fn take_events(&self) -> Vec<Event> {
        self.judged.set(0);
        std::mem::take(&mut self.events.lock().expect("unpoisoned"))
    }

    /// What the stream's segments take on the disk, and the spare file.
    pub(super) fn disk_bytes(&self) -> u64 {
        let is_counted = |path: &Path| path.extension().is_none_or(|ext| ext == "seg");
        let files = self.disk.files().into_iter();
        files.filter(|(path, _)| path.starts_with(self.stream_dir()) && is_counted(path)).map(|(_, len)| len).sum()
    }

    pub(super) fn segments(&self) -> Vec<(PathBuf, u64)> {
        self.disk.files().into_iter().filter(|(path, _)| path.extension().is_some_and(|ext| ext == "seg")).collect()
    }

    /// Looks whether a segment was made of a dropped one's file.
    pub(super) fn note_recycled(&mut self) {
        for (path, _) in self.segments() {
            let Ok(file) = self.disk.open_read(&path) else { continue };
            let header = SegmentHeader::read(file.as_ref(), &path);
            self.recycled |= header.is_ok_and(|header| header.recycled_bytes > 0);
        }
    }

    pub(super) fn stream_dir(&self) -> PathBuf {
        Path::new(DIR).join("streams/telemetry")
    }
}

fn ranges(shards: &ShardMap) -> Vec<(ShardIndex, HashKey)> {
    shards.open().into_iter().map(|shard| (shard.index, shard.first)).collect()
}

fn stream_checkpoint(stream: &Stream) -> SequenceNumber {
    stream.checkpoint(CONSUMER)
}

/// All records of a stream, read in small steps; and the same again shard by shard, which must give the same.
pub(super) fn read_all(stream: &Stream, step: usize) -> Vec<Arc<Record>> {
    let limit = ReadLimit { records: step, payload_bytes: 1 << 20 };
    let drain = |cursor: &mut crate::cursor::Cursor| {
        let mut all = Vec::new();
        loop {
            let some = cursor.read(limit).expect("readable");
            if some.is_empty() {
                return all;
            }
            all.extend(some);
        }
    };
    let all = drain(&mut stream.cursor(Start::Oldest));
    let mut by_shard: Vec<Arc<Record>> = Vec::new();
    for shard in stream.shards().shards() {
        let mut cursor = stream.shard_cursor(shard.index, Start::Oldest);
        let records = drain(&mut cursor);
        assert_eq!(cursor.is_finished(), !shard.is_open());
        for record in &records {
            let (key, number) = (HashKey::of(&record.partition_key), record.sequence_number);
            assert!(shard.first <= key && key <= shard.last, "{number} is in {}", shard.index);
            assert!(shard.starts <= number && shard.ends.is_none_or(|ends| number <= ends), "{number}: {shard:?}");
        }
        by_shard.extend(records);
    }
    by_shard.sort_by_key(|record| record.sequence_number);
    assert_eq!(all.len(), by_shard.len(), "the shards together are the stream");
    for (record, alone) in all.iter().zip(by_shard) {
        // Where clocks contradict each other, a pass through the whole stream meets later times before this record.
        assert!(record.arrival >= alone.arrival, "{record:?} is {alone:?} in its shard");
        assert_eq!(**record, Record { arrival: record.arrival, ..Record::clone(&alone) });
    }
    all
}
