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
mod judge;
mod lessons;
mod lifetimes;
mod marks;
mod missing;
mod random_damage;
mod recycling;
mod resharding;
mod scenarios;
mod steps;

use std::{
    cell::Cell,
    collections::{BTreeMap, BTreeSet},
    fmt,
    num::NonZeroU32,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use self::judge::read_all;
use crate::{
    catalogue::memory::MemoryKv,
    clock::{Timestamp, manual::ManualClock},
    config::{MinFree, StoreConfig, StreamConfig},
    disk::{Disk as _, sim::SimDisk},
    event::Event,
    hash_key::HashKey,
    record::Record,
    segment::{Codec, SegmentHeader},
    sequence::SequenceNumber,
    shard::{ShardIndex, ShardMap},
    store::{Parts, Stream},
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

    pub(super) fn stream(&self) -> &Stream {
        self.running.as_ref().and_then(|(_, stream)| stream.as_ref()).expect("open")
    }

    pub(super) fn newest(&self) -> SequenceNumber {
        self.acknowledged.keys().next_back().copied().unwrap_or_default()
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
