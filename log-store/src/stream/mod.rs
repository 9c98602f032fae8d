//! One stream: what its writer, its readers and its statistics share.

mod active;
pub(crate) mod boots;
mod control;
mod deletion;
mod dropping;
mod failure;
mod files;
mod held;
mod marks;
mod recovery;
mod reshape;
mod retention;
mod tail;
mod view;
mod writer;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    io,
    ops::RangeInclusive,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
    time::Duration,
};

pub(crate) use deletion::{delete, finish_deletions};
pub(crate) use files::{first_sound_block, free_name};
pub(crate) use recovery::note;
pub(crate) use retention::MayGo;
pub(crate) use tail::{keep_torn, torn_bytes};
pub(crate) use view::{Segment, View};
pub(crate) use writer::{CommitError, SegmentLimits, Shortage, StreamWriter, block_bytes};

use self::{held::Held, marks::StreamMarks};
use crate::{
    catalogue::Catalogue,
    clock::{Arrival, Clock, Now, Stamp, TimeKeeper},
    config::StreamConfig,
    disk::Disk,
    event::{DropReason, Event},
    gaps::Gaps,
    rate::RateLimiter,
    record::Record,
    segment::{Packer, SPARE_FILE_NAME, StreamDefinition, file_name},
    sequence::SequenceNumber,
    shard::{ShardIndex, ShardMap},
    stats::{DropTotals, ShardStats, StreamStats},
};

/// Where the log tells what a person should hear about.
pub(crate) type Events = Arc<dyn Fn(Event) + Send + Sync>;

/// What a store lends to its streams.
#[derive(Clone)]
pub(crate) struct Surroundings {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) catalogue: Arc<Catalogue>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) events: Events,
    pub(crate) time: Arc<TimeKeeper>,
    /// This boot of the machine.
    pub(crate) boot: u32,
    /// One for all streams, since one thread writes them all.
    pub(crate) packer: Arc<Mutex<Packer>>,
    /// What the whole data directory may take; no stream may take more.
    pub(crate) max_bytes: u64,
}

impl Surroundings {
    /// Asks the clock whether it can be trusted, and notes and tells what is new.
    pub(crate) fn look_at_clock(&self) {
        self.note_time(self.time.look());
    }

    /// Takes over a time that somebody knows to be right, and notes and tells what is new.
    pub(crate) fn learn_time(&self, at: Now) {
        self.note_time(self.time.learn(at, false));
    }

    fn note_time(&self, news: Option<Event>) {
        let Some(news) = news else { return };
        self.save_boots();
        (self.events)(news);
    }

    /// At once, and durably: what is known of this boot can never be learnt again once it has ended.
    pub(crate) fn save_boots(&self) {
        self.catalogue.put_boots(&self.time.boots().1);
        self.catalogue.flush();
    }
}

/// How many damaged places that cost no record are remembered as told; beyond that some are told again.
const DAMAGE_REMEMBERED_MAX: usize = 1024;

/// The part of a stream that everybody sees.
pub(crate) struct StreamCore {
    pub(crate) around: Surroundings,
    pub(crate) dir: PathBuf,
    /// Tells this stream from an earlier or other one of the same name.
    pub(crate) id: u64,
    name: String,
    definition: RwLock<Arc<StreamDefinition>>,
    config: RwLock<Arc<StreamConfig>>,
    view: RwLock<View>,
    checkpoints: Mutex<Checkpoints>,
    limiters: Mutex<BTreeMap<ShardIndex, RateLimiter>>,
    counters: Mutex<Counters>,
    marks: Mutex<StreamMarks>,
    held: Mutex<Held>,
    /// See [`Control::reserved`](crate::segment::Control).
    reserved: Mutex<SequenceNumber>,
    told_damage: Mutex<BTreeSet<(SequenceNumber, u64)>>,
    wakers: Mutex<Vec<Box<dyn Fn() + Send + Sync>>>,
}

#[derive(Default)]
struct Checkpoints {
    done: BTreeMap<String, SequenceNumber>,
    /// Consumers whose checkpoint is not in the catalogue yet.
    unsaved: BTreeSet<String>,
    /// Whether any has moved since the last control block.
    moved: bool,
}

#[derive(Default)]
struct Counters {
    stats: StreamStats,
    totals: DropTotals,
    /// What damage took, as far as it was told.
    gaps: Gaps,
    /// Whether gaps and counts are not in the catalogue yet.
    unsaved: bool,
}

/// State of these mutexes is whole between statements, so a panic elsewhere does not spoil it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl StreamCore {
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn definition(&self) -> Arc<StreamDefinition> {
        Arc::clone(&self.definition.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn shards(&self) -> Arc<ShardMap> {
        Arc::clone(&self.definition().shards)
    }

    /// Forgets closed shards whose last record is gone.
    fn forget_gone_shards(&self) {
        let definition = self.definition();
        let Some(shards) = definition.shards.without_gone(self.view(View::oldest)) else { return };
        let is_there = |shard: &ShardIndex| shards.get(*shard).is_some();
        lock(&self.limiters).retain(|shard, _| is_there(shard));
        lock(&self.counters).stats.shards.retain(|shard, _| is_there(shard));
        let definition = StreamDefinition { shards: Arc::new(shards), ..(*definition).clone() };
        self.around.catalogue.put_stream(&definition);
        self.set_definition(definition);
    }

    fn reserved(&self) -> SequenceNumber {
        *lock(&self.reserved)
    }

    fn set_reserved(&self, reserved: SequenceNumber) {
        let mut known = lock(&self.reserved);
        if *known != reserved {
            *known = reserved;
            self.around.catalogue.put_reserved(self.name(), reserved);
        }
    }

    /// Whether records wait in memory for consumers to be done with them.
    pub(crate) fn is_holding(&self) -> bool {
        lock(&self.held).bytes() > 0
    }

    /// Reads the first records from `from` on that are held in memory; gives the number behind them.
    pub(crate) fn read_held(
        &self,
        from: SequenceNumber,
        shard: Option<ShardIndex>,
        arrived: impl FnOnce(Stamp) -> Arrival,
        out: &mut VecDeque<Record>,
    ) -> io::Result<Option<SequenceNumber>> {
        lock(&self.held).read(from, shard, arrived, out)
    }

    fn set_definition(&self, definition: StreamDefinition) {
        *self.definition.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(definition);
    }

    pub(crate) fn path_of(&self, segment: SequenceNumber) -> PathBuf {
        self.dir.join(file_name(segment))
    }

    pub(crate) fn spare_path(&self) -> PathBuf {
        self.dir.join(SPARE_FILE_NAME)
    }

    pub(crate) fn config(&self) -> Arc<StreamConfig> {
        Arc::clone(&self.config.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn set_config(&self, config: StreamConfig) {
        lock(&self.limiters).clear();
        *self.config.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(config);
    }

    /// Bytes of disk that it may take.
    pub(crate) fn quota(&self) -> u64 {
        self.config().quota.min(self.around.max_bytes)
    }

    /// Looks at the segments.
    pub(crate) fn view<T>(&self, look: impl FnOnce(&View) -> T) -> T {
        look(&self.view.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn change_view<T>(&self, change: impl FnOnce(&mut View) -> T) -> T {
        change(&mut self.view.write().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn tell(&self, event: Event) {
        (self.around.events)(event);
    }

    pub(crate) fn on_commit(&self, wake: Box<dyn Fn() + Send + Sync>) {
        lock(&self.wakers).push(wake);
    }

    pub(crate) fn wake_readers(&self) {
        for wake in lock(&self.wakers).iter() {
            wake();
        }
    }

    pub(crate) fn admit(&self, shard: ShardIndex, records: u32, bytes: u64) -> Result<(), Duration> {
        let Some(limit) = self.config().rate_limit else { return Ok(()) };
        let now = self.around.clock.now().since_boot;
        let admitted = lock(&self.limiters)
            .entry(shard)
            .or_insert_with(|| RateLimiter::new(limit, now))
            .admit(records, bytes, now);
        if admitted.is_err() {
            lock(&self.counters).stats.shards.entry(shard).or_default().throttled += 1;
        }
        admitted
    }

    pub(crate) fn checkpoint(&self, consumer: &str) -> SequenceNumber {
        lock(&self.checkpoints).done.get(consumer).copied().unwrap_or_default()
    }

    /// Moves a checkpoint forward; says whether it moved.
    pub(crate) fn save_checkpoint(&self, consumer: &str, done: SequenceNumber) -> bool {
        // What does not exist yet cannot be done.
        let done = done.min(self.view(|view| view.next.previous()));
        let mut checkpoints = lock(&self.checkpoints);
        let checkpoints = &mut *checkpoints;
        let known = checkpoints.done.entry(consumer.to_owned()).or_default();
        let moved = done > *known;
        if moved {
            *known = done;
            checkpoints.moved = true;
            checkpoints.unsaved.insert(consumer.to_owned());
        }
        moved
    }

    /// The number up to which every consumer is done; `None` if the stream has none.
    pub(crate) fn delivered(&self) -> Option<SequenceNumber> {
        let config = self.config();
        let checkpoints = lock(&self.checkpoints);
        config.consumers.iter().map(|name| checkpoints.done.get(name).copied().unwrap_or_default()).min()
    }

    /// How many records of a range some consumer has not finished.
    fn undelivered(&self, records: &RangeInclusive<SequenceNumber>) -> u64 {
        let Some(delivered) = self.delivered() else { return 0 };
        let from = (*records.start()).max(delivered.next());
        (records.end().0 + 1).saturating_sub(from.0)
    }

    /// Whether records of this age up to this number are past `retention`, and held by nobody.
    fn is_past(&self, retention: Duration, newest: Stamp, end: SequenceNumber) -> bool {
        self.around.time.age_at_least(newest) > retention && !self.is_held(&self.config(), end)
    }

    /// Whether they are no longer to be read.
    pub(crate) fn is_out_of_reach(&self, newest: Stamp, end: SequenceNumber) -> bool {
        self.is_past(self.config().retention, newest, end)
    }

    /// Whether a consumer still needs something before `end` and the stream holds it for that.
    fn is_held(&self, config: &StreamConfig, end: SequenceNumber) -> bool {
        config.hold_undelivered && self.delivered().is_some_and(|delivered| delivered.next() < end)
    }

    /// Counts and tells damage: once for each record, also across restarts; once in a run for a place that costs none.
    pub(crate) fn damaged(
        &self,
        segment: SequenceNumber,
        offset: u64,
        what: &str,
        records: Option<RangeInclusive<SequenceNumber>>,
    ) {
        let tell = |records| {
            self.tell(Event::Damaged {
                stream: self.name().to_owned(),
                segment: self.path_of(segment),
                offset,
                what: what.to_owned(),
                records,
            });
        };
        let Some(records) = records else {
            let is_new = {
                let mut told = lock(&self.told_damage);
                let is_new = told.insert((segment, offset));
                if told.len() > DAMAGE_REMEMBERED_MAX {
                    told.pop_first();
                }
                is_new
            };
            if is_new {
                tell(None);
            }
            return;
        };
        let fresh = lock(&self.counters).gaps.add(records);
        for records in fresh {
            let undelivered = self.undelivered(&records);
            {
                let mut counters = lock(&self.counters);
                counters.totals.dropped.damage += records.end().0 + 1 - records.start().0;
                counters.totals.lost.damage += undelivered;
                counters.unsaved = true;
            }
            // It rides in the next control block too.
            lock(&self.checkpoints).moved = true;
            tell(Some(records));
        }
    }

    /// Lets go of everything, because the stream is deleted: whoever still holds it sees it empty.
    fn let_go(&self) {
        self.change_view(|view| {
            view.segments.clear();
            view.horizon = view.next;
        });
        let mut checkpoints = lock(&self.checkpoints);
        *checkpoints = Checkpoints::default();
        drop(checkpoints);
        *lock(&self.marks) = StreamMarks::default();
        self.wake_readers();
    }

    /// Counts and tells that records were dropped.
    fn dropped(&self, records: RangeInclusive<SequenceNumber>, reason: DropReason, limit: Option<String>) {
        let mut undelivered = self.undelivered(&records);
        let mut count = records.end().0 + 1 - records.start().0;
        let totals = {
            let mut counters = lock(&self.counters);
            // What damage took before was counted then.
            count -= counters.gaps.count_in(&records);
            if undelivered > 0 {
                let behind = SequenceNumber(records.end().0 + 1 - undelivered)..=*records.end();
                undelivered -= counters.gaps.count_in(&behind);
            }
            counters.gaps.forget_before(records.end().next());
            let totals = &mut counters.totals;
            totals.oldest = totals.oldest.max(records.end().next());
            let (dropped, lost) = match reason {
                DropReason::Retention => (&mut totals.dropped.retention, &mut totals.lost.retention),
                DropReason::Quota => (&mut totals.dropped.quota, &mut totals.lost.quota),
                DropReason::Damage => (&mut totals.dropped.damage, &mut totals.lost.damage),
            };
            *dropped += count;
            *lost += undelivered;
            *totals
        };
        self.around.catalogue.put_drops(self.name(), &totals);
        self.tell(Event::Dropped { stream: self.name().to_owned(), reason, records, undelivered, limit });
    }

    /// Removes a segment that is no longer in the view; says whether its file is gone.
    fn remove_segment(&self, segment: &Segment) -> bool {
        let path = self.path_of(segment.first);
        let removed = self.around.disk.remove(&path);
        // A file that stays is found and removed at the next opening, because `oldest` is noted.
        if let Err(error) = &removed {
            self.tell(Event::NotRemoved { segment: path, reason: error.to_string() });
        }
        self.around.catalogue.forget_segment(self.name(), segment.first, segment.end);
        removed.is_ok()
    }

    /// Keeps the file of a segment that is no longer in the view for the next one; says whether it could.
    fn make_spare(&self, segment: &Segment) -> bool {
        let renamed = self.around.disk.rename(&self.path_of(segment.first), &self.spare_path());
        if renamed.is_ok() {
            self.around.catalogue.forget_segment(self.name(), segment.first, segment.end);
        }
        renamed.is_ok()
    }

    pub(crate) fn stats(&self) -> StreamStats {
        let (oldest, next, segments, disk_bytes) =
            self.view(|view| (view.oldest(), view.next, view.segments.len(), view.disk_bytes()));
        let untrusted = |segment: &&Segment| !self.around.time.is_trusted(segment.newest.boot);
        let untrusted_records = self
            .view(|view| view.segments.iter().filter(untrusted).map(|segment| segment.end.0 - segment.first.0).sum());
        let counters = lock(&self.counters);
        StreamStats {
            oldest,
            next,
            segments,
            disk_bytes,
            untrusted_records,
            dropped: counters.totals.dropped,
            lost: counters.totals.lost,
            catalogue_bytes: self.around.catalogue.written_bytes(self.name()),
            checkpoints: lock(&self.checkpoints).done.clone(),
            held_bytes: lock(&self.held).bytes(),
            ..counters.stats.clone()
        }
    }

    /// Counts what was written to segments beside records.
    fn count_framing(&self, bytes: u64) {
        let stats = &mut lock(&self.counters).stats;
        stats.written_bytes += bytes;
        stats.framing_bytes += bytes;
    }

    /// Counts a write with one sync: records as they are stored, and what is around them.
    fn count_written(&self, stored_bytes: u64, framing_bytes: u64) {
        let stats = &mut lock(&self.counters).stats;
        stats.commits += 1;
        stats.written_bytes += stored_bytes + framing_bytes;
        stats.framing_bytes += framing_bytes;
    }

    fn count_records(&self, shards: impl Iterator<Item = (ShardIndex, u32, u64)>) {
        let stats = &mut lock(&self.counters).stats;
        for (shard, records, payload_bytes) in shards {
            stats.records += u64::from(records);
            stats.payload_bytes += payload_bytes;
            let shard: &mut ShardStats = stats.shards.entry(shard).or_default();
            shard.records += u64::from(records);
            shard.payload_bytes += payload_bytes;
        }
    }

    /// Whether it takes no records at the moment.
    pub(crate) fn is_stopped(&self) -> bool {
        lock(&self.counters).stats.stopped.is_some()
    }

    fn set_stopped(&self, reason: Option<&str>) {
        lock(&self.counters).stats.stopped = reason.map(str::to_owned);
    }
}

/// Whether a stream may have this name: it becomes a directory.
pub(crate) fn is_stream_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    (1..=128).contains(&name.len()) && name.bytes().all(allowed) && !name.starts_with('.')
}

/// Where a store keeps a stream.
pub(crate) fn stream_dir(data_dir: &Path, name: &str) -> PathBuf {
    data_dir.join("streams").join(name)
}
