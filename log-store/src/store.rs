//! The public handles: a store is an open data directory, a stream is one named log in it.

use std::{
    io,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread::JoinHandle,
    time::Duration,
};

use crate::{
    answers::Answers,
    batch::Batch,
    catalogue::{Catalogue, Kv, KvError, open_sled},
    clock::{Clock, ClockStatus, Now, TimeKeeper, Timestamp},
    committer::{self, Pace, Writers},
    config::{StoreConfig, StreamConfig},
    cursor::{Cursor, Start},
    disk::{Disk, RealDisk},
    error::{Appended, Error, Refused},
    event::Event,
    queue::{Entry, Queue, StreamSlot},
    room::Room,
    segment::Codec,
    sequence::SequenceNumber,
    shard::{ShardChange, ShardIndex, ShardMap},
    stats::StreamStats,
    stream::{
        Events, SegmentLimits, StreamCore, StreamWriter, Surroundings, boots, delete, finish_deletions, is_stream_name,
        note, stream_dir,
    },
};

/// What an append does when its stream has no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhenFull {
    /// It waits in its place in the queue until there is room. For sources, which can wait.
    Wait,
    /// It is refused with [`Error::Full`]. For API callers, which want an answer.
    Refuse,
}

/// Called once with the outcome of an append, on a thread of the store or, where it is refused at once, on the caller's. It must
/// neither block nor append: nobody might be left to commit.
pub type Done = Box<dyn FnOnce(Result<Appended, Refused>) + Send>;

/// A stream takes no record that is larger than this part of its quota.
const RECORDS_PER_QUOTA: u64 = 4;

/// An open data directory. Dropping it closes it, as [`Store::close`] does.
pub struct Store {
    config: StoreConfig,
    parts: Parts,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// A store without its thread: what simulations drive by hand.
pub(crate) struct Parts {
    pub(crate) around: Surroundings,
    pub(crate) writers: Arc<Mutex<Writers>>,
    pub(crate) queue: Arc<Queue>,
    /// Held until the store is closed.
    lock: Arc<Mutex<Option<Box<dyn Send + Sync>>>>,
}

impl Store {
    /// Opens a data directory, recovers what the last run left, and starts the committer.
    ///
    /// `events` is called for everything a person should hear about, from any thread; it must not call the store.
    ///
    /// # Errors
    /// [`Error::InUse`], [`Error::NewerFormat`], [`Error::Io`].
    pub fn open(
        config: StoreConfig,
        clock: Arc<dyn Clock>,
        events: impl Fn(Event) + Send + Sync + 'static,
    ) -> Result<Self, Error> {
        let parts = Parts::open(&config, Arc::new(RealDisk), &open_sled, clock, Arc::new(events))?;
        let (writers, queue) = (Arc::clone(&parts.writers), Arc::clone(&parts.queue));
        let lock = Arc::clone(&parts.lock);
        let pace = Pace { commit_delay: config.commit_delay, tick: config.checkpoint_interval };
        let answers = parts.around.answers.clone();
        answers.gather();
        let spawn = |name: &str, work: Box<dyn FnOnce() + Send>| {
            let spawned = std::thread::Builder::new().name(name.into()).spawn(work);
            spawned.map_err(|source| Error::Io { action: "start a thread for", path: config.dir.clone(), source })
        };
        let tells = answers.clone();
        let teller = spawn("answers", Box::new(move || tells.tell_all()))?;
        let commits = move || {
            committer::run(&writers, &queue, pace);
            // Nobody else may open the directory before the last byte is written.
            drop(guard(&lock).take());
            // What panics there is dealt with there.
            let _ = teller.join();
        };
        // Without this one, the other one ends.
        let thread = spawn("committer", Box::new(commits)).inspect_err(|_| answers.close())?;
        Ok(Self { config, parts, thread: Mutex::new(Some(thread)) })
    }

    /// The stream of this name, created if it does not exist. Retention and holding begin with this call. Asked for
    /// again, it takes over the new configuration.
    ///
    /// # Errors
    /// [`Error::BadStreamName`], [`Error::NewerFormat`], [`Error::Io`], [`Error::Closed`].
    pub fn stream(&self, config: StreamConfig) -> Result<Stream, Error> {
        if guard(&self.thread).as_ref().is_none_or(JoinHandle::is_finished) {
            return Err(Error::Closed);
        }
        self.parts.stream(&self.config, config)
    }

    /// Names of all streams in the data directory, also of those that nobody has asked for yet.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn stream_names(&self) -> Result<Vec<String>, Error> {
        self.parts.stream_names(&self.config)
    }

    /// The note that a stream was last configured with, open or not; `None` if there is no such stream.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::NewerFormat`].
    pub fn note(&self, stream: &str) -> Result<Option<String>, Error> {
        self.parts.note(&self.config, stream)
    }

    /// Deletes a stream with all its records, checkpoints and shards; `false` if there is none of this name. Whoever still
    /// holds it reads nothing more and gets [`Error::Closed`] for what it appends. A new one may have the same name.
    ///
    /// # Errors
    /// [`Error::Io`]; it may be deleted or not then, and a second call or the next opening ends what was begun.
    /// [`Error::NewerFormat`], [`Error::Closed`].
    pub fn delete_stream(&self, stream: &str) -> Result<bool, Error> {
        if !self.is_alive() {
            return Err(Error::Closed);
        }
        self.parts.delete_stream(&self.config, stream)
    }

    /// What is known of the time.
    #[must_use]
    pub fn clock(&self) -> ClockStatus {
        self.parts.around.time.status()
    }

    /// Says what the time is, or was a moment ago: `at.wall` when the monotonic clock showed `at.since_boot`. For whoever
    /// knows it better than the machine's clock, such as a GPS receiver; the machine's clock need not be set for it.
    ///
    /// Believed as a [`Trust::Synchronised`](crate::Trust::Synchronised) clock is. Blocks for a write to the disk if it is
    /// news.
    pub fn learn_time(&self, at: Now) {
        self.parts.around.learn_time(at);
    }

    /// Whether the committer runs. It ends only by [`Store::close`], or by a bug.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        guard(&self.thread).as_ref().is_some_and(|thread| !thread.is_finished())
    }

    /// Commits what is queued, writes the checkpoints and closes the files. Later appends get [`Error::Closed`], and so do
    /// those that wait for room.
    pub fn close(&self) {
        self.parts.queue.close();
        if let Some(thread) = guard(&self.thread).take() {
            // A panic of the committer was dealt with where it happened.
            let _ = thread.join();
        }
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.close();
    }
}

/// State of these mutexes is whole between statements, so a panic elsewhere does not spoil it.
fn guard<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Opens a key-value store in a directory.
pub(crate) type OpenKv<'a> = &'a dyn Fn(&Path) -> Result<Box<dyn Kv>, KvError>;

impl Parts {
    pub(crate) fn open(
        config: &StoreConfig,
        disk: Arc<dyn Disk>,
        open_kv: OpenKv<'_>,
        clock: Arc<dyn Clock>,
        events: Events,
    ) -> Result<Self, Error> {
        let io = |action, path: &Path| {
            let path = path.to_path_buf();
            move |source| Error::Io { action, path, source }
        };
        let streams = config.dir.join("streams");
        disk.create_dir(&streams).map_err(io("create data directory", &streams))?;
        let lock = lock_data_dir(disk.as_ref(), &config.dir)?;
        let catalogue = Arc::new(open_catalogue(&config.dir, disk.as_ref(), open_kv, clock.as_ref(), &events)?);
        let recorded = catalogue.boots().unwrap_or_else(|error| {
            events(Event::CatalogueBehind { reason: error.reason });
            None
        });
        let recorded = recorded.unwrap_or_else(|| boots::in_log(disk.as_ref(), &config.dir));
        let (time, boot) = (Arc::new(TimeKeeper::new(Arc::clone(&clock), recorded)), clock.boot());
        let room = Room::new(config, Arc::clone(&disk), Arc::clone(&clock));
        let (packer, max_bytes) = (Arc::default(), config.max_bytes.unwrap_or(u64::MAX));
        let around =
            Surroundings { disk, catalogue, clock, events, time, boot, packer, answers: Answers::default(), max_bytes };
        around.save_boots();
        around.look_at_clock();
        let writers = Writers { streams: Vec::new(), around: around.clone(), told_catalogue: false, room };
        let parts = Self {
            around,
            writers: Arc::new(Mutex::new(writers)),
            queue: Arc::new(Queue::new(config.queue_bytes)),
            lock: Arc::new(Mutex::new(Some(lock))),
        };
        finish_deletions(&parts.around, &config.dir, &parts.stream_names(config)?)?;
        Ok(parts)
    }

    pub(crate) fn stream(&self, store: &StoreConfig, config: StreamConfig) -> Result<Stream, Error> {
        if !is_stream_name(&config.name) {
            return Err(Error::BadStreamName { name: config.name });
        }
        let mut writers = guard(&self.writers);
        let (slot, core) = match writers.find(&config.name) {
            Some((slot, writer)) => {
                writer.configure(config)?;
                (slot, Arc::clone(writer.core()))
            }
            None => {
                let dir = stream_dir(&store.dir, &config.name);
                let limits = SegmentLimits { bytes: store.segment_bytes, age: store.segment_age };
                let writer = StreamWriter::open(self.around.clone(), dir, config, limits)?;
                let core = Arc::clone(writer.core());
                writers.streams.push(Some(writer));
                // Its files were somebody else's so far.
                writers.room.forget(true);
                (self.queue.add_stream(), core)
            }
        };
        drop(writers);
        self.around.answers.hand_over();
        Ok(Stream { core, writers: Arc::clone(&self.writers), queue: Arc::clone(&self.queue), slot })
    }
}

impl Parts {
    fn stream_names(&self, store: &StoreConfig) -> Result<Vec<String>, Error> {
        let dir = store.dir.join("streams");
        let names = self.around.disk.list(&dir);
        let mut names = names.map_err(|source| Error::Io { action: "list", path: dir, source })?;
        // A stray file is no stream. What cannot be looked at for another reason says so when it is opened.
        let is_dir = |name: &String| {
            let listed = self.around.disk.list(&stream_dir(&store.dir, name));
            !matches!(listed, Err(error) if error.kind() == io::ErrorKind::NotADirectory)
        };
        names.retain(|name| is_stream_name(name) && is_dir(name));
        names.sort();
        Ok(names)
    }

    pub(crate) fn note(&self, store: &StoreConfig, stream: &str) -> Result<Option<String>, Error> {
        match guard(&self.writers).find(stream) {
            Some((_, writer)) => Ok(Some(writer.core().definition().note.clone())),
            None if self.stream_names(store)?.iter().any(|name| name == stream) => {
                note(&self.around, &stream_dir(&store.dir, stream), stream)
            }
            None => Ok(None),
        }
    }

    pub(crate) fn delete_stream(&self, store: &StoreConfig, stream: &str) -> Result<bool, Error> {
        if !self.stream_names(store)?.iter().any(|name| name == stream) {
            return Ok(false);
        }
        let mut writers = guard(&self.writers);
        if let Some((slot, _)) = writers.find(stream) {
            self.queue.close_stream(slot);
            let writer = writers.streams[slot].take().expect("just found");
            writer.let_go();
        }
        // Under the lock, so that nobody opens it meanwhile.
        let deleted = delete(&self.around, &stream_dir(&store.dir, stream), stream);
        drop(writers);
        self.around.answers.hand_over();
        deleted.map(|()| true)
    }
}

/// Keeps others away from a data directory until the result is dropped.
pub(crate) fn lock_data_dir(disk: &dyn Disk, dir: &Path) -> Result<Box<dyn Send + Sync>, Error> {
    let path = dir.join("LOCK");
    disk.lock(&path).map_err(|source| match source.kind() {
        io::ErrorKind::WouldBlock => Error::InUse { path: dir.into() },
        _ => Error::Io { action: "lock", path, source },
    })
}

/// The catalogue, or a new one in its place if it cannot be used.
fn open_catalogue(
    dir: &Path,
    disk: &dyn Disk,
    open_kv: OpenKv<'_>,
    clock: &dyn Clock,
    events: &Events,
) -> Result<Catalogue, Error> {
    let path = dir.join("catalogue");
    let newer = |found| Error::NewerFormat { path: path.clone(), found, known: Catalogue::FORMAT_VERSION };
    // What is no directory is as broken as a directory of rubbish.
    let failed = |action, source| Error::Io { action, path: path.clone(), source };
    let listed = disk.list(&path);
    let existed = !matches!(&listed, Err(error) if error.kind() == io::ErrorKind::NotFound);
    let had_files = listed.is_ok_and(|names| !names.is_empty());
    let has_streams = || disk.list(&dir.join("streams")).is_ok_and(|names| !names.is_empty());
    let reason = match open_kv(&path).and_then(Catalogue::new) {
        // sled makes an empty one of files that are damaged at their beginning, or cut.
        Ok(Ok(catalogue)) if catalogue.is_new && had_files && has_streams() => {
            catalogue.close();
            "nothing in it can be read".to_owned()
        }
        Ok(Ok(catalogue)) => {
            if catalogue.is_new && has_streams() {
                let reason = if existed { "it was empty" } else { "it was missing" };
                events(Event::CatalogueRebuilt { set_aside: None, reason: reason.into() });
            }
            return Ok(catalogue);
        }
        Ok(Err(version)) => return Err(newer(version)),
        // A full disk says nothing against it: setting it aside would cost its checkpoints, and free nothing. But what
        // the log holds must be delivered, or there would never be room again.
        Err(error) if error.is_full => return Ok(Catalogue::absent(format!("it cannot be opened: {}", error.reason))),
        Err(error) => error.reason,
    };
    if !existed {
        // Nothing to set aside: the directory cannot be written, say.
        return Err(failed("create", io::Error::other(reason)));
    }
    let aside = (0..)
        .map(|n| dir.join(format!("catalogue.broken-{}", clock.now().wall.0 + n)))
        .find(|path| disk.list(path).is_err())
        .expect("some name is free");
    disk.rename(&path, &aside).map_err(|source| failed("set aside", source))?;
    let fresh =
        open_kv(&path).and_then(Catalogue::new).map_err(|error| failed("create", io::Error::other(error.reason)))?;
    let catalogue = fresh.map_err(newer)?;
    events(Event::CatalogueRebuilt { set_aside: Some(aside), reason });
    Ok(catalogue)
}

/// One stream of an open store. Cheap to clone.
#[derive(Clone)]
pub struct Stream {
    core: Arc<StreamCore>,
    writers: Arc<Mutex<Writers>>,
    queue: Arc<Queue>,
    slot: StreamSlot,
}

impl Stream {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.core.name()
    }

    /// Its shards.
    #[must_use]
    pub fn shards(&self) -> Arc<ShardMap> {
        self.core.shards()
    }

    /// How it is kept.
    #[must_use]
    pub fn config(&self) -> Arc<StreamConfig> {
        self.core.config()
    }

    /// What is known of the time; as [`Store::clock`].
    #[must_use]
    pub fn clock(&self) -> ClockStatus {
        self.core.around.time.status()
    }

    /// Says what the time is at this moment, for whoever knows it beside the machine's clock, such as a GPS receiver; as
    /// [`Store::learn_time`], but while the machine's own clock is believed, nothing is learnt from it. Blocks for a write to
    /// the disk if it is news.
    ///
    /// # Errors
    /// It is not believed: by what was trusted before it is at least as late as is given back.
    pub fn offer_time(&self, wall: Timestamp) -> Result<(), Timestamp> {
        self.core.around.offer_time(wall)
    }

    /// An empty batch for this stream.
    #[must_use]
    pub fn batch(&self) -> Batch {
        // A record that takes most of the quota would wait for room that never comes, and everything behind it too.
        let share = self.core.quota() / RECORDS_PER_QUOTA;
        Batch::new(&self.core.definition(), usize::try_from(share).unwrap_or(usize::MAX))
    }

    /// Splits, merges or recounts its shards, durably; gives the new ones. Batches that are queued or made already are
    /// routed anew when they are committed. Order per partition key is kept: whatever comes later has a higher number.
    /// Blocks while a commit is under way.
    ///
    /// # Errors
    /// [`Error::Shards`] if it cannot be done; [`Error::Full`], [`Error::Poisoned`], [`Error::Closed`].
    pub fn change_shards(&self, change: ShardChange) -> Result<Arc<ShardMap>, Error> {
        let mut writers = guard(&self.writers);
        let writer = writers.streams.get_mut(self.slot).and_then(Option::as_mut);
        let changed = writer.ok_or(Error::Closed)?.change_shards(change);
        drop(writers);
        self.core.around.answers.hand_over();
        changed.map(|_| self.core.shards())
    }

    /// Takes `records` and `payload_bytes` out of a shard's write limit.
    ///
    /// # Errors
    /// How long to wait before asking again; nothing was taken then.
    pub fn admit(&self, shard: ShardIndex, records: u32, payload_bytes: u64) -> Result<(), Duration> {
        self.core.admit(shard, records, payload_bytes)
    }

    /// Queues a batch behind those queued before it. `done` is called once it is durable, or refused.
    ///
    /// Batches are committed in the order of these calls; one that is refused is passed over, and those behind it are
    /// committed all the same. An empty batch is done at once. Blocks while more than [`StoreConfig::queue_bytes`] wait; a
    /// caller that must not block counts what it has queued.
    pub fn append(&self, mut batch: Batch, when_full: WhenFull, done: Done) {
        if batch.is_empty() {
            done(Ok(Appended { runs: Vec::new() }));
            return;
        }
        if self.core.config().compression == Codec::None {
            batch.sum_up();
        }
        self.queue.push(self.slot, Entry { batch, when_full, done });
    }

    /// A cursor over all shards, in order of sequence numbers.
    #[must_use]
    pub fn cursor(&self, start: Start) -> Cursor {
        Cursor::new(Arc::clone(&self.core), None, start)
    }

    /// A cursor over one shard.
    #[must_use]
    pub fn shard_cursor(&self, shard: ShardIndex, start: Start) -> Cursor {
        Cursor::new(Arc::clone(&self.core), Some(shard), start)
    }

    /// Calls `wake` after every commit, so that readers at the end know when to read again. It must not block.
    pub fn on_commit(&self, wake: impl Fn() + Send + Sync + 'static) {
        self.core.on_commit(Box::new(wake));
    }

    /// A consumer's checkpoint; [`SequenceNumber::ZERO`] if it has none.
    #[must_use]
    pub fn checkpoint(&self, consumer: &str) -> SequenceNumber {
        self.core.checkpoint(consumer)
    }

    /// Says that `consumer` is done with everything up to and including `sequence_number`. Never moves backwards.
    ///
    /// Takes effect at once in memory; on disk within [`StoreConfig::checkpoint_interval`], and at [`Store::close`].
    pub fn save_checkpoint(&self, consumer: &str, sequence_number: SequenceNumber) {
        // Delivered records may make room for those that wait.
        if self.core.save_checkpoint(consumer, sequence_number) && (self.core.is_stopped() || self.core.is_holding()) {
            self.queue.nudge();
        }
    }

    /// A mark, as the newest batch that is durable has set it; see [`Batch::set_mark`]. After a power cut it is that of the
    /// newest batch that survived: never behind a record that is there, never ahead of one that is lost.
    #[must_use]
    pub fn mark(&self, name: &str) -> Option<Vec<u8>> {
        self.core.mark(name)
    }

    /// All marks whose names begin with `prefix`, in the order of their names.
    #[must_use]
    pub fn marks(&self, prefix: &str) -> Vec<(String, Vec<u8>)> {
        self.core.marks(prefix)
    }

    /// How many records there are from `from` on, and before `end`. Some numbers stand for no record: those of damaged ones,
    /// and those that a [memory-first](crate::Durability::MemoryFirst) stream has not written or never given.
    #[must_use]
    pub fn records_between(&self, from: SequenceNumber, end: SequenceNumber) -> u64 {
        self.core.records_between(from, end)
    }

    /// The oldest record that is there, and the number that the next one will get.
    #[must_use]
    pub fn extent(&self) -> (SequenceNumber, SequenceNumber) {
        self.core.view(|view| (view.oldest(), view.next))
    }

    /// A snapshot of its counters.
    #[must_use]
    pub fn stats(&self) -> StreamStats {
        self.core.stats()
    }
}
