//! The log on the machine's own disk, with sled: what simulations cannot show.
//!
//! Most tests drive the writer by hand, so that they are the same every time; the store with its own thread is opened in
//! a thread with a deadline, so that a hang is a failure and not a wait.

mod backlog;
mod broken_catalogue;
mod concurrency;
mod damaged_files;
mod documents;
mod golden;
mod refused;
mod room;
mod strangers;
mod watched_disk;

use std::{
    fs,
    num::NonZeroU32,
    path::Path,
    sync::{Arc, Mutex, mpsc},
    time::Duration,
};

use crate::{
    catalogue::open_sled,
    clock::{Clock, manual::ManualClock},
    config::{StoreConfig, StreamConfig},
    cursor::{Cursor, ReadLimit},
    disk::{Disk, RealDisk},
    error::{Appended, Error},
    event::Event,
    record::{NewRecord, Record},
    segment::Codec,
    store::{Parts, Store, Stream, WhenFull},
};

/// Far more than an opening takes on a slow and busy machine.
const DEADLINE: Duration = Duration::from_secs(60);
const CONSUMER: &str = "cloud";

fn store_config(dir: &Path) -> StoreConfig {
    let mut config = StoreConfig::new(dir);
    // The smallest there is, so that little data makes many segments.
    config.segment_bytes = 1;
    config.commit_delay = Duration::ZERO;
    config
}

fn stream_config(name: &str) -> StreamConfig {
    let mut config = StreamConfig::new(name);
    config.shards = NonZeroU32::new(3).expect("not zero");
    config.consumers = vec![CONSUMER.into()];
    config.rate_limit = None;
    // Tests count bytes and segments.
    config.compression = Codec::None;
    config
}

/// A store without its thread.
struct ByHand {
    config: StoreConfig,
    parts: Parts,
}

impl ByHand {
    fn open(config: StoreConfig, clock: Arc<ManualClock>) -> Self {
        Self::open_on(Arc::new(RealDisk), config, clock)
    }

    fn open_on(disk: Arc<dyn Disk>, config: StoreConfig, clock: Arc<dyn Clock>) -> Self {
        let events = Arc::new(|event| panic!("nothing to tell: {event}"));
        let parts = Parts::open(&config, disk, &open_sled, clock, events).expect("opens");
        Self { config, parts }
    }

    fn stream(&self, config: StreamConfig) -> Stream {
        self.parts.stream(&self.config, config).expect("opens")
    }

    fn append(&self, stream: &Stream, records: &[NewRecord<'_>]) -> Appended {
        self.append_with_marks(stream, records, &[])
    }

    fn append_with_marks(&self, stream: &Stream, records: &[NewRecord<'_>], marks: &[(&str, &str)]) -> Appended {
        let mut batch = stream.batch();
        for (name, value) in marks {
            batch.set_mark(name, value.as_bytes()).expect("a sound mark");
        }
        for record in records {
            batch.push(record).expect("a sound record");
        }
        let (tell, told) = mpsc::channel();
        stream.append(batch, WhenFull::Refuse, Box::new(move |outcome| tell.send(outcome).expect("awaited")));
        self.parts.writers.lock().expect("unpoisoned").commit_queued(&self.parts.queue);
        told.try_recv().expect("answered").expect("taken")
    }

    fn tick(&self) {
        self.parts.writers.lock().expect("unpoisoned").tick(&self.parts.queue);
    }

    /// Also gives the directory's lock back.
    fn close(self) {
        self.parts.writers.lock().expect("unpoisoned").close(&self.parts.queue);
    }
}

/// A running store, one of its streams, and what it told while it opened.
struct Opened {
    store: Store,
    stream: Stream,
    events: Vec<Event>,
}

/// Opens a store and a stream; a panic or a hang fails the test.
fn open_in_time(config: StoreConfig, stream: StreamConfig) -> Result<Opened, Error> {
    let (tell, told) = mpsc::channel();
    let what = config.dir.display().to_string();
    std::thread::spawn(move || {
        let events = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&events);
        let tell_event = move |event| heard.lock().expect("unpoisoned").push(event);
        let opened = Store::open(config, ManualClock::new(), tell_event).and_then(|store| {
            let stream = store.stream(stream)?;
            let events = std::mem::take(&mut *events.lock().expect("unpoisoned"));
            Ok(Opened { store, stream, events })
        });
        let _ = tell.send(opened);
    });
    told.recv_timeout(DEADLINE).unwrap_or_else(|error| panic!("opening {what}: {error}"))
}

/// Closes a store; a hang fails the test.
fn close_in_time(store: Store) {
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || {
        drop(store);
        let _ = tell.send(());
    });
    told.recv_timeout(DEADLINE).expect("it closes");
}

fn drain(mut cursor: Cursor) -> Vec<Arc<Record>> {
    let mut all = Vec::new();
    loop {
        let some = cursor.read(ReadLimit { records: 1000, payload_bytes: 1 << 20 }).expect("readable");
        if some.is_empty() {
            return all;
        }
        all.extend(some);
    }
}

/// Copies a directory and everything in it.
fn copy_dir(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("mkdir");
    for entry in fs::read_dir(from).expect("listed") {
        let entry = entry.expect("listed");
        let target = to.join(entry.file_name());
        match entry.file_type().expect("known").is_dir() {
            true => copy_dir(&entry.path(), &target),
            false => _ = fs::copy(entry.path(), target).expect("copied"),
        }
    }
}
