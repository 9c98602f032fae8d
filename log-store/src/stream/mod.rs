//! One stream: what its writer, its readers and its statistics share.

mod active;
pub(crate) mod boots;
mod control;
mod counts;
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

use self::{counts::Counters, held::Held, marks::StreamMarks};
use crate::{
    answers::Answers,
    catalogue::Catalogue,
    clock::{Arrival, Clock, Now, Stamp, TimeKeeper, Timestamp},
    config::StreamConfig,
    disk::Disk,
    event::Event,
    rate::RateLimiter,
    record::Record,
    segment::{Packer, SPARE_FILE_NAME, StreamDefinition, file_name},
    sequence::SequenceNumber,
    shard::{ShardIndex, ShardMap},
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
    /// For everybody who appends.
    pub(crate) answers: Answers,
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

    /// Takes over what somebody beside the machine's clock says, as [`TimeKeeper::offer`] does, and notes and tells what is new.
    pub(crate) fn offer_time(&self, wall: Timestamp) -> Result<(), Timestamp> {
        self.time.offer(wall).map(|news| self.note_time(news))
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
        out: &mut VecDeque<Arc<Record>>,
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
