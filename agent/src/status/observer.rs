//! The observer: looks at the counters of sources, streams and deliveries, and makes a status of them.
//!
//! It changes nothing and slows nobody: counters are read where they lie. Only the age of the oldest undelivered record
//! has to be read from the log, and is remembered as long as the checkpoint stays.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, atomic::Ordering::Relaxed},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use forebay_log_store::{
    DropCounts, ReadLimit, SequenceNumber, ShardIndex, Start, Store, Stream, StreamStats, Timestamp,
};

use super::{
    CatchUpStatus, CertificateStatus, ClockStatus, DestinationStatus, Down, Dropped, ErrorStatus, Flow, LinkStatus,
    Meter, ShardStatus, SourceStatus, Status, StreamStatus, Totals, WireStatus,
};
use crate::{
    credentials::{KnownTime, certificate::Period},
    delivery::{self, DeliveryStats, dead_letter::Letters},
    destination::Sent,
    links::Link,
    log_events::{LogEvents, shown},
    source::SourceStats,
    streams::Streams,
};

/// Looks at everything that the agent runs.
pub struct Observer {
    started: Instant,
    data_dir: PathBuf,
    store: Arc<Store>,
    log_events: Arc<LogEvents>,
    sources: BTreeMap<String, ObservedSource>,
    streams: Arc<Streams>,
    destinations: BTreeMap<String, ObservedDestination>,
    time: Arc<KnownTime>,
    meters: Mutex<BTreeMap<Metered, Meter>>,
    oldest_undelivered: Mutex<BTreeMap<(String, Part), OldestUndelivered>>,
}

/// A source, as far as it is looked at.
pub struct ObservedSource {
    /// Its type.
    pub kind: &'static str,
    /// Where its records go.
    pub stream: String,
    /// What it counts.
    pub stats: Arc<SourceStats>,
}

/// A destination, as far as it is looked at.
pub struct ObservedDestination {
    /// Its type.
    pub kind: &'static str,
    /// The stream whose records it gets.
    pub from: String,
    /// The link whose limits it keeps.
    pub link: Option<(String, Arc<Link>)>,
    /// What its delivery counts.
    pub stats: Arc<DeliveryStats>,
    /// What it would not take.
    pub letters: Arc<Letters>,
    /// Files with certificates of our own that it uses.
    pub certificates: Vec<PathBuf>,
}

/// Whose rate is measured.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Metered {
    Source(String),
    Stream(String),
    Shard(String, ShardIndex),
    Destination(String),
}

/// Of what a delivery has not finished.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    /// All of it.
    Backlog,
    /// What it sends first, if it has leapt over the rest.
    Live,
}

/// When the first record behind a checkpoint arrived.
#[derive(Debug, Clone, Copy)]
struct OldestUndelivered {
    checkpoint: SequenceNumber,
    /// Records may also leave by a limit.
    oldest: SequenceNumber,
    /// What is known of the clocks decides when it arrived.
    trusted_since: Option<Timestamp>,
    arrival: Timestamp,
}

impl Observer {
    /// An observer of all these.
    #[must_use]
    pub fn new(
        data_dir: PathBuf,
        store: Arc<Store>,
        log_events: Arc<LogEvents>,
        sources: BTreeMap<String, ObservedSource>,
        streams: Arc<Streams>,
        destinations: BTreeMap<String, ObservedDestination>,
        time: Arc<KnownTime>,
    ) -> Self {
        Self {
            started: Instant::now(),
            data_dir,
            store,
            log_events,
            sources,
            streams,
            destinations,
            time,
            meters: Mutex::default(),
            oldest_undelivered: Mutex::default(),
        }
    }

    /// Notes all counters, for the rates, and tells what is due of the log's events. To be called about once a second.
    pub fn sample(&self, now: Instant) {
        self.log_events.tell_due(now);
        let streams = self.streams.all();
        let mut meters = lock(&self.meters);
        // Streams and shards may be gone.
        let is_there = |metered: &Metered| match metered {
            Metered::Stream(name) => streams.contains_key(name),
            Metered::Shard(name, shard) => {
                streams.get(name).is_some_and(|open| open.stream().shards().get(*shard).is_some())
            }
            Metered::Source(_) | Metered::Destination(_) => true,
        };
        meters.retain(|metered, _| is_there(metered));
        let mut sample = |metered, totals| meters.entry(metered).or_default().sample(now, totals);
        for (name, source) in &self.sources {
            sample(Metered::Source(name.clone()), source_totals(&source.stats));
        }
        for (name, open) in &streams {
            let stats = open.stream().stats();
            let totals = Totals { records: stats.records, bytes: stats.payload_bytes };
            sample(Metered::Stream(name.clone()), totals);
            for (shard, stats) in &stats.shards {
                let totals = Totals { records: stats.records, bytes: stats.payload_bytes };
                sample(Metered::Shard(name.clone(), *shard), totals);
            }
        }
        for (name, destination) in &self.destinations {
            let counts = destination.stats.snapshot();
            sample(Metered::Destination(name.clone()), Totals { records: counts.records, bytes: counts.bytes });
        }
    }

    /// Why the agent is not healthy; nothing if it is.
    #[must_use]
    pub fn reasons(&self) -> Vec<String> {
        let mut reasons = Vec::new();
        if !self.store.is_alive() {
            reasons.push("the log's committer has ended".to_owned());
        }
        for (name, open) in self.streams.all() {
            if let Some(reason) = open.stream().stats().stopped {
                reasons.push(format!("stream `{name}` takes no records: {reason}"));
            }
        }
        reasons
    }

    /// Everything. Blocks: it may read from the disk.
    #[must_use]
    pub fn status(&self, now: Instant) -> Status {
        let reasons = self.reasons();
        let streams = self.streams.all();
        let stats: BTreeMap<_, _> = streams.iter().map(|(name, open)| (name.as_str(), open.stream().stats())).collect();
        let uptime = now.duration_since(self.started);
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            uptime_seconds: uptime.as_secs(),
            healthy: reasons.is_empty(),
            reasons,
            data_dir: self.data_dir.clone(),
            clock: clock_status(self.store.clock()),
            log_events: self.log_events.counts(),
            sources: self.sources.iter().map(|(name, source)| (name.clone(), self.source(name, source))).collect(),
            streams: streams
                .iter()
                .map(|(name, open)| (name.clone(), self.stream(name, open.stream(), &stats[name.as_str()], uptime)))
                .collect(),
            links: self
                .destinations
                .values()
                .filter_map(|destination| destination.link.as_ref())
                .map(|(name, link)| (name.clone(), link_status(link)))
                .collect(),
            destinations: self
                .destinations
                .iter()
                .map(|(name, destination)| {
                    let from = destination.from.as_str();
                    (name.clone(), self.destination(name, destination, streams[from].stream(), &stats[from]))
                })
                .collect(),
        }
    }

    fn source(&self, name: &str, source: &ObservedSource) -> SourceStatus {
        let stats = &source.stats;
        SourceStatus {
            r#type: source.kind.to_owned(),
            stream: source.stream.clone(),
            stored: self.flow(&Metered::Source(name.to_owned()), source_totals(stats)),
            connections: stats.connections.load(Relaxed),
            refused: stats.refusals().into_iter().map(|(reason, count)| (reason.to_owned(), count)).collect(),
            last_error: stats.last_error().map(|error| error_status(error.at, None, error.message)),
        }
    }

    fn stream(&self, name: &str, stream: &Stream, stats: &StreamStats, uptime: Duration) -> StreamStatus {
        let written_bytes = stats.written_bytes + stats.catalogue_bytes;
        let totals = Totals { records: stats.records, bytes: stats.payload_bytes };
        StreamStatus {
            committed: self.flow(&Metered::Stream(name.to_owned()), totals),
            oldest: stats.oldest.0,
            next: stats.next.0,
            disk_bytes: stats.disk_bytes,
            quota_bytes: stream.config().quota,
            untrusted_records: stats.untrusted_records,
            segments: stats.segments as u64,
            unwritten: stats.unwritten,
            held_bytes: stats.held_bytes as u64,
            written_bytes,
            framing_bytes: stats.framing_bytes,
            catalogue_bytes: stats.catalogue_bytes,
            written_per_payload_byte: (stats.payload_bytes > 0)
                .then(|| written_bytes as f64 / stats.payload_bytes as f64),
            written_bytes_per_day: written_per_day(written_bytes, uptime),
            commits: stats.commits,
            shards: stats
                .shards
                .iter()
                .map(|(shard, stats)| {
                    let totals = Totals { records: stats.records, bytes: stats.payload_bytes };
                    let committed = self.flow(&Metered::Shard(name.to_owned(), *shard), totals);
                    (shard.to_string(), ShardStatus { committed, throttled: stats.throttled })
                })
                .collect(),
            dropped: stats.dropped.into(),
            lost: stats.lost.into(),
            stopped: stats.stopped.clone(),
        }
    }

    fn destination(
        &self,
        name: &str,
        destination: &ObservedDestination,
        stream: &Stream,
        stats: &StreamStats,
    ) -> DestinationStatus {
        let checkpoint = stats.checkpoints.get(name).copied().unwrap_or_default();
        // A checkpoint may be ahead of a log that lost its catalogue and its newest segment.
        let kept = stream.records_between(stats.oldest, stats.next).max(1);
        let counts = destination.stats.snapshot();
        let delivery::Unfinished { gaps, live } = &counts.unfinished;
        let records = |part: &delivery::Part| part.records(stats.next, |from, end| stream.records_between(from, end));
        let gap_records: u64 = gaps.iter().map(records).sum();
        // Before the delivery has had a moment, all that is known is the checkpoint.
        let live_records = records(&delivery::Part { unread: live.unread.max(checkpoint.next()), ..*live });
        let backlog_records = gap_records + live_records;
        // What is held may be gone from the disk by now.
        let backlog_share = backlog_records.min(kept) as f64 / kept as f64;
        let lag = |part, records, from: SequenceNumber| match records {
            0 => 0.0,
            _ => self.lag(name, destination, part, from.previous(), stats),
        };
        let lag_seconds = lag(Part::Backlog, backlog_records, checkpoint.next());
        let catch_up = CatchUpStatus {
            gaps: gaps.len() as u64,
            gap_records,
            gap_lag_seconds: if gap_records == 0 { 0.0 } else { lag_seconds },
            live_records,
            live_lag_seconds: if gaps.is_empty() { lag_seconds } else { lag(Part::Live, live_records, live.from) },
        };
        let totals = Totals { records: counts.records, bytes: counts.bytes };
        let letters = destination.letters.counts();
        DestinationStatus {
            r#type: destination.kind.to_owned(),
            from: destination.from.clone(),
            delivered: self.flow(&Metered::Destination(name.to_owned()), totals),
            checkpoint: checkpoint.0,
            backlog_records,
            backlog_bytes: (stats.disk_bytes as f64 * backlog_share) as u64,
            lag_seconds,
            catch_up,
            wire_sent_bytes: counts.wire_sent,
            wire_received_bytes: counts.wire_received,
            sent_per_payload_byte: (counts.bytes > 0).then(|| counts.wire_sent as f64 / counts.bytes as f64),
            in_flight: counts.in_flight,
            window_records: counts.window_records,
            window_bytes: counts.window_bytes,
            limited_by_key_order: counts.limited_by_key_order,
            requests: counts.requests,
            failed_requests: counts.failed_requests.into_iter().map(|(k, n)| (k.to_owned(), n)).collect(),
            throttled_records: counts.throttled_records,
            failed_records: counts.failed_records,
            failing_records: counts.failing_records,
            reading_stopped: counts.reading_stopped,
            astray_records: counts.astray_records,
            wire: counts.sent.map(wire_status),
            dead_letters: counts.dead_letters,
            dead_letters_open: letters.open,
            dead_letters_replayed: letters.replayed,
            dead_letters_dropped: letters.dropped,
            out_of_order: counts.out_of_order,
            expired: counts.expired,
            client_certificates: destination.certificates.iter().map(|file| self.certificate(file)).collect(),
            link: destination.link.as_ref().map(|(name, _)| name.clone()),
            held: counts.held.map(|held| held.to_string()),
            down: counts.down.map(|down| Down {
                kind: down.kind.to_owned(),
                seconds: down.since.elapsed().as_secs(),
                attempts: down.attempts,
                next_attempt_seconds: down.next_attempt.saturating_duration_since(Instant::now()).as_secs_f64(),
            }),
            last_error: counts.last_error.map(|error| error_status(error.at, error.kind, error.message)),
        }
    }

    fn certificate(&self, file: &Path) -> CertificateStatus {
        let (expires_ms, trouble) = match Period::of_file(file) {
            Ok(period) => (Some(period.until.0), period.trouble(self.time.now())),
            Err(error) => (None, Some(error)),
        };
        CertificateStatus { file: file.to_path_buf(), expires_ms, trouble }
    }

    /// Age in seconds of the first record behind a number.
    fn lag(
        &self,
        name: &str,
        destination: &ObservedDestination,
        part: Part,
        checkpoint: SequenceNumber,
        stats: &StreamStats,
    ) -> f64 {
        let clock = self.store.clock();
        let asked = (checkpoint, stats.oldest, clock.trusted_since);
        let known = lock(&self.oldest_undelivered).get(&(name.to_owned(), part)).copied();
        let arrival = match known {
            Some(known) if (known.checkpoint, known.oldest, known.trusted_since) == asked => known.arrival,
            _ => {
                let Ok(open) = self.streams.get(&destination.from) else { return 0.0 };
                let mut cursor = open.stream().cursor(Start::After(checkpoint));
                // An unreadable place has been told by the delivery that met it.
                let read = cursor.read(ReadLimit { records: 1, payload_bytes: 1 }).unwrap_or_default();
                let Some(record) = read.first() else { return 0.0 };
                let (oldest, arrival) = (stats.oldest, record.arrival);
                let found = OldestUndelivered { checkpoint, oldest, trusted_since: clock.trusted_since, arrival };
                lock(&self.oldest_undelivered).insert((name.to_owned(), part), found);
                arrival
            }
        };
        // An untrusted clock may have been set back since; then nothing is known, and 0 is said.
        clock.now.0.saturating_sub(arrival.0) as f64 / 1000.0
    }

    fn flow(&self, metered: &Metered, totals: Totals) -> Flow {
        let (records_per_second, bytes_per_second) =
            lock(&self.meters).get(metered).map(Meter::per_second).unwrap_or_default();
        Flow { records: totals.records, bytes: totals.bytes, records_per_second, bytes_per_second }
    }
}

impl From<DropCounts> for Dropped {
    fn from(counts: DropCounts) -> Self {
        Self { retention: counts.retention, quota: counts.quota, damage: counts.damage }
    }
}

/// What a day would bring at the rate so far. Much is written at a start, so the first minute says nothing.
fn written_per_day(written_bytes: u64, uptime: Duration) -> Option<u64> {
    const DAY: f64 = 86_400.0;
    (uptime >= Duration::from_secs(60)).then(|| (written_bytes as f64 * DAY / uptime.as_secs_f64()) as u64)
}

fn source_totals(stats: &SourceStats) -> Totals {
    Totals { records: stats.records.load(Relaxed), bytes: stats.bytes.load(Relaxed) }
}

fn clock_status(clock: forebay_log_store::ClockStatus) -> ClockStatus {
    let warning = match (clock.doubted, clock.trusted_since) {
        (Some(at_least), _) => Some(format!(
            "the machine's clock claims to be right, but by what was trusted before it is at least {}: it is not believed",
            shown(at_least)
        )),
        (None, None) => Some(
            "the machine's clock was not trusted since its start: arrival times are uncertain, and what was stored \
             before that may stay longer than its retention"
                .to_owned(),
        ),
        (None, Some(_)) => None,
    };
    ClockStatus { now_ms: clock.now.0, trusted_since_ms: clock.trusted_since.map(|since| since.0), warning }
}

fn link_status(link: &Link) -> LinkStatus {
    let stats = link.stats();
    LinkStatus {
        metered: stats.metered,
        budget_bytes: stats.budget.map(|(_, budget)| budget),
        spent_bytes: stats.budget.map_or(0, |(spent, _)| spent),
    }
}

fn error_status(at: SystemTime, kind: Option<&str>, message: String) -> ErrorStatus {
    ErrorStatus { at_ms: milliseconds(at), kind: kind.map(str::to_owned), message }
}

fn milliseconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // What is kept here are numbers for show; half an update does no harm.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn wire_status(sent: Sent) -> WireStatus {
    let per = |count: u64, of: u64| if of == 0 { 0.0 } else { count as f64 / of as f64 };
    WireStatus {
        aggregated: sent.aggregated,
        records: sent.records,
        bytes: sent.bytes,
        records_each: per(sent.payload_records, sent.records),
        bytes_per_payload_byte: per(sent.bytes, sent.payload_bytes),
        payload_units: sent.payload_units,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_not_trusted_is_a_warning() {
        let (now, since) = (Timestamp(1_790_000_000_000), Some(Timestamp(1_789_999_000_000)));
        let warning = |trusted_since, doubted| {
            clock_status(forebay_log_store::ClockStatus { now, trusted_since, doubted }).warning.unwrap_or_default()
        };
        assert_eq!(warning(since, None), "");
        assert!(warning(None, None).contains("was not trusted since its start"));
        assert!(warning(since, Some(now)).contains("at least 2026-09-21T14:13:20Z: it is not believed"));
    }

    #[test]
    fn a_day_is_told_after_a_minute() {
        assert_eq!(written_per_day(1_000_000, Duration::from_secs(59)), None);
        assert_eq!(written_per_day(1_000_000, Duration::from_secs(60)), Some(1_440_000_000));
        assert_eq!(written_per_day(1_000_000, Duration::from_secs(2 * 86_400)), Some(500_000));
    }
}
