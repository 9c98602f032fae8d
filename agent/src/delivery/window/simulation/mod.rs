//! Random histories of a delivery: records come, alone or in parcels, the endpoint takes, refuses, throttles, hangs and lies,
//! its shards are split and merged, the process is killed, and at the end everything works again. What the window promises
//! is checked at every step.
//!
//! `FOREBAY_HISTORIES` says how many, `FOREBAY_SEED` which one comes first.

mod endpoint;
mod judge;
mod process;

use std::{
    cmp::Reverse,
    collections::{BTreeSet, BinaryHeap, HashMap},
    env,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

use bytes::Bytes;
use fastrand::Rng;
use forebay_log_store::{Record, SequenceNumber, ShardIndex, Timestamp};

use super::{
    entries::{Fault, State},
    link::Down,
    stretches::Stretch,
    *,
};
use crate::{
    delivery::{
        config::{CatchUp, Ordering},
        unfinished::Unfinished,
    },
    destination::{RecordOutcome, hash},
};

const DEFAULT_HISTORIES: u64 = 5_000;
const LATENCY_MAX_MS: u64 = 200;
/// Why requests fail for a while through no fault of their records.
const PASSING: [FailureKind; 7] = [
    FailureKind::CredentialsRefused,
    FailureKind::Throttled,
    FailureKind::EndpointFailed,
    FailureKind::Misconfigured,
    FailureKind::Clock,
    FailureKind::TlsWrongHost,
    FailureKind::TimedOut,
];
/// For so long after everything else is healthy the endpoint breaks at some records; and then all that need not wait for them was
/// to be delivered.
const LASTING: Duration = Duration::from_secs(4000);
const LASTING_JUDGED: Duration = Duration::from_secs(3900);
/// Longer than any backoff needs that an outage of a few seconds can have built up.
const PATIENCE: Duration = Duration::from_secs(6000);

#[test]
fn every_history_keeps_the_promises() {
    let histories = number("FOREBAY_HISTORIES").unwrap_or(DEFAULT_HISTORIES);
    let first = number("FOREBAY_SEED").unwrap_or(1);
    let (next, totals) = (AtomicU64::new(first), Mutex::new(Totals::default()));
    let run_some = || {
        loop {
            let seed = next.fetch_add(1, Relaxed);
            if seed >= first + histories {
                return;
            }
            match std::panic::catch_unwind(|| World::new(seed).run()) {
                Ok(world) => totals.lock().expect("no panic while adding").add(&world),
                Err(panic) => {
                    eprintln!("history {seed} failed; run it alone with FOREBAY_SEED={seed} FOREBAY_HISTORIES=1");
                    std::panic::resume_unwind(panic);
                }
            }
        }
    };
    thread::scope(|scope| {
        let threads = thread::available_parallelism().map_or(1, usize::from);
        (0..threads).for_each(|_| _ = scope.spawn(run_some));
    });
    let totals = totals.into_inner().expect("no panic while adding");
    eprintln!("{histories} histories: {totals:?}");
    // A simulation in which nothing goes wrong shows nothing.
    if histories >= 1000 {
        assert!(totals.wronged <= totals.records / 2000, "{totals:?}");
        assert!(totals.kills > 0 && totals.duplicates > 0 && totals.dead_letters > 0 && totals.out_of_order > 0);
        assert!(totals.parcels < totals.sent && totals.reshards > 0 && totals.astray > 0, "{totals:?}");
        assert!(totals.expired > 0 && totals.dropped > 0 && totals.spared > 0 && totals.given_back > 0, "{totals:?}");
        assert!(totals.held_up > 0 && totals.parted > 0, "{totals:?}");
        let [_, newest_first, split] = totals.overtakes;
        assert!(totals.leaps > histories / 4 && newest_first > histories && split > histories / 4, "{totals:?}");
    }
}

fn plain(partition_key: &str, bytes: usize) -> Record {
    Record {
        sequence_number: SequenceNumber::ZERO,
        shard: ShardIndex(0),
        arrival: Timestamp(0),
        arrival_trusted: true,
        partition_key: partition_key.into(),
        explicit_hash_key: None,
        tags: Vec::new(),
        data: Bytes::from(vec![0; bytes]),
    }
}

fn number(variable: &str) -> Option<u64> {
    env::var(variable).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{variable}={text} is no number")))
}

#[derive(Debug, Default)]
struct Totals {
    records: u64,
    requests: u64,
    kills: u64,
    duplicates: u64,
    dead_letters: u64,
    out_of_order: u64,
    wronged: u64,
    held_up: u64,
    parted: u64,
    /// Of the last life.
    parcels: u64,
    sent: u64,
    reshards: u64,
    astray: u64,
    expired: u64,
    dropped: u64,
    leaps: u64,
    given_back: u64,
    /// Records that arrived before an earlier one was resolved, by `catch-up`.
    overtakes: [u64; 3],
    /// Records that a restart knew to be finished beyond the checkpoint.
    spared: u64,
}

impl Totals {
    fn add(&mut self, world: &World) {
        self.records += world.log.len() as u64;
        self.requests += world.requests;
        self.kills += u64::from(world.life);
        self.duplicates += world.fates.iter().map(|fate| u64::from(fate.accepted.saturating_sub(1))).sum::<u64>();
        self.dead_letters += world.fates.iter().filter(|fate| fate.buried).count() as u64;
        self.wronged += world.wronged;
        self.held_up += world.held_up;
        self.parted += world.parted as u64;
        self.out_of_order += world.window.counts().out_of_order;
        self.parcels += world.parcels;
        self.sent += world.sent;
        self.reshards += world.reshards;
        self.astray += world.astray;
        self.expired += world.fates.iter().filter(|fate| fate.expired).count() as u64;
        self.dropped += (0..world.oldest).filter(|index| world.fates[*index] == Fate::default()).count() as u64;
        self.leaps += world.leaps;
        self.given_back += world.given_back;
        self.overtakes[world.config.catch_up as usize] += world.overtakes;
        self.spared += world.spared;
    }
}

/// How the endpoint behaves for a while.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Mood {
    Healthy,
    /// Nothing can be reached, and that is noticed at once.
    Refused,
    /// Requests get no answer; half of them are taken all the same, perhaps much later.
    Silent,
    /// Answers are lost.
    Reset,
    Fails(FailureKind),
    /// Finds fault with everything.
    RefusesAll,
    /// Answers that each record failed.
    FailsEach,
    /// Answers with the wrong number of entries.
    Garbage,
    /// Takes each record with this probability.
    Partial(f64),
}

/// What is wrong with a record.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Flaw {
    None,
    /// Every request with it is refused.
    Refused,
    /// The endpoint says of it alone that it will never take it.
    Rejected,
    /// The destination knows without asking.
    NotAccepted,
    /// The endpoint fails upon every request with it, until it has been healthy for a while.
    Breaks,
    /// The same, for [`LASTING`]: for ever, as far as those behind it are concerned.
    Lasts,
}

#[derive(Debug, Clone, Default, PartialEq)]
struct Fate {
    accepted: u32,
    buried: bool,
    expired: bool,
    /// See [`World::take`].
    excused: bool,
}

/// When a record arrived.
#[derive(Debug, Clone, Copy)]
enum Arrived {
    /// So long before the beginning.
    Before(Duration),
    At(Duration),
}

#[derive(Debug)]
enum Event {
    Commit,
    MoodEnds,
    Kill,
    Read {
        life: u32,
        records: Option<Vec<(Record, Duration)>>,
        end: Option<SequenceNumber>,
    },
    Reaches {
        parcels: Vec<Sent>,
        life: u32,
        id: u64,
        answer_lost: bool,
    },
    Told {
        life: u32,
        id: u64,
        outcome: Outcome,
    },
    Buried {
        life: u32,
        letters: Vec<usize>,
        durable: bool,
    },
    /// The log loses so many of its oldest records.
    Drop(usize),
    /// What is finished reached the disk, or could not be saved.
    Saved {
        life: u32,
        durable: bool,
    },
    /// The endpoint splits or merges shards.
    Reshard,
    /// The delivery is told which shards there are.
    Map {
        life: u32,
    },
    /// What need not wait for records at which the endpoint breaks has been delivered.
    Flows,
    Tick,
}

/// A parcel under way, and the shard that it was made for, if that was known.
#[derive(Debug, Clone)]
struct Sent {
    records: Vec<usize>,
    shard: Option<u32>,
    /// The life that sent it.
    life: u32,
}

/// How records are put into parcels.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Parcels {
    Single,
    OfKey,
    OfShard,
}

/// The number of each shard and where its range of the hash space ends.
type Shards = Vec<(u32, u8)>;

/// The shard of a partition key.
fn shard_of(shards: &Shards, key: &str) -> u32 {
    let at = hash(key) as u8;
    shards.iter().find(|(_, last)| at <= *last).expect("the last one ends at the end").0
}

impl Parcels {
    fn place(self, map: &Option<Shards>, record: &Record) -> Place {
        match (self, map) {
            (Self::Single, _) => Place::of_key(record),
            (Self::OfShard, Some(map)) => {
                Place { lane: shard_of(map, &record.partition_key).into(), bytes: record.payload_bytes() + 3 }
            }
            _ => Place { bytes: record.payload_bytes() + 3, ..Place::of_key(record) },
        }
    }
}

/// Whether a record is one at which the endpoint breaks for long, or has to wait for one.
fn is_held_up(log: &[(Record, Flaw)], ordering: Ordering, index: usize) -> bool {
    let (record, flaw) = &log[index];
    let of_key =
        |(earlier, flaw): &(Record, Flaw)| *flaw == Flaw::Lasts && earlier.partition_key == record.partition_key;
    *flaw == Flaw::Lasts || ordering == Ordering::Strict && log[..index].iter().any(of_key)
}

struct World {
    rng: Rng,
    config: Config,
    limits: Limits,
    kind: Parcels,
    shards: Shards,
    /// The map that the lanes follow, and a newer one.
    map: Option<Shards>,
    new_map: Option<Shards>,
    next_shard: u32,
    reshards: u64,
    astray: u64,
    parcels: u64,
    sent: u64,
    log: Vec<(Record, Flaw)>,
    /// No record takes more of the window.
    largest: u64,
    /// How long before the beginning each record arrived, or when in it; and whether the log knows.
    arrived: Vec<(Arrived, bool)>,
    /// The oldest record that the log still has.
    oldest: usize,
    fates: Vec<Fate>,
    committed: usize,
    moods: Vec<(Duration, Mood)>,
    /// Whether it has refused everything at some time so far.
    refused_all: bool,
    refused_all_until: Option<Duration>,
    healthy_since: Duration,
    /// Whether there may be records at which it breaks for long.
    lasts: bool,

    now: Duration,
    events: BinaryHeap<Reverse<(Duration, u64, usize)>>,
    pending: Vec<Option<Event>>,
    /// When there will be a tick.
    ticks: BTreeSet<Duration>,
    window: Window,
    /// Which start of the process this is.
    life: u32,
    stopping: bool,
    saved: Vec<SequenceNumber>,
    /// What is finished by what is on the disk, and by what may be.
    finished_saved: Vec<Range>,
    finished_unsure: Option<Vec<Range>>,
    /// Finished in this life, or known to be at its beginning.
    finished: BTreeSet<usize>,
    /// What the window holds; of that, what it was told to be finished.
    held: BTreeSet<SequenceNumber>,
    resolved: BTreeSet<SequenceNumber>,
    /// Records that expired in this life, and how many of them it told.
    expired: u64,
    told: u64,
    /// Where each life's stretches begin.
    boundaries: Vec<BTreeSet<SequenceNumber>>,
    leaps: u64,
    given_back: u64,
    overtakes: u64,
    spared: u64,
    in_flight: HashMap<u64, Vec<usize>>,
    /// Those under way, by the outage that they belong to.
    probes: HashMap<u64, Duration>,
    witnesses: BTreeSet<(u32, u64)>,
    reaching_witness: bool,
    /// Records that were passed or buried although only the endpoint was at fault.
    wronged: u64,
    /// Records that waited to the last for one at which the endpoint breaks, and keys that left their lanes.
    held_up: u64,
    parted: usize,
    /// Requests that will get no answer.
    hanging: BTreeSet<u64>,
    /// A request has to reach the endpoint by then, because the link is back.
    promised: Option<Duration>,
    /// Whether it was told that the endpoint is down, and that nothing more is read, and not that this is over.
    heard: (bool, bool),
    requests: u64,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        // Large ones meet what a slow link makes of requests.
        let scale = if rng.u8(..4) == 0 { 10 } else { 1 };
        let mut config = Config {
            ordering: if rng.u8(..4) == 0 { Ordering::Relaxed } else { Ordering::Strict },
            batch_records: rng.usize(1..=10),
            batch_bytes: rng.bool().then(|| rng.u64(1..=500 * scale)),
            batch_age: Duration::from_millis(rng.u64(0..=200)),
            in_flight: rng.usize(1..=5),
            window_records: rng.usize(1..=40),
            window_bytes: rng.u64(1..=2000 * scale),
            max_backoff: Duration::from_millis(rng.u64(100..=20_000)),
            catch_up: [CatchUp::OldestFirst, CatchUp::NewestFirst, CatchUp::Split][rng.usize(..3)],
            max_age: (rng.u8(..3) == 0).then(|| Duration::from_millis(rng.u64(1000..=30_000))),
            ..Config::default()
        };
        let leaps = config.catch_up != CatchUp::OldestFirst;
        let kind = *rng.choice(&[Parcels::Single, Parcels::OfKey, Parcels::OfShard, Parcels::OfShard]).expect("four");
        let limits = Limits {
            request_records: rng.usize(1..=12),
            request_bytes: rng.u64(80 * scale..=1000 * scale),
            parcel_records: if kind == Parcels::Single { 1 } else { rng.usize(1..=20) },
            parcel_bytes: rng.u64(1..=600 * scale),
            keeps_requests: rng.bool(),
            request_timeout: Duration::from_millis(rng.u64(300..=10_000)),
        };
        let keys = rng.u32(1..=12);
        let flawed = if rng.bool() { 0 } else { rng.u32(1..=30) };
        let mut sequence_number = 0;
        let lasts = rng.u8(..4) == 0;
        let log = (0..rng.usize(1..=if leaps { 160 } else { 80 }))
            .map(|_| {
                sequence_number += if rng.u8(..10) == 0 { rng.u64(1..=50) } else { 1 };
                let record = plain(&format!("k{}", rng.u32(..keys)), rng.usize(..=60 * scale as usize));
                let record = Record { sequence_number: SequenceNumber(sequence_number), ..record };
                let flaw = match rng.u32(..100) {
                    n if n >= flawed => Flaw::None,
                    n if lasts && n % 8 == 7 => Flaw::Lasts,
                    n => [Flaw::Refused, Flaw::Rejected, Flaw::NotAccepted, Flaw::Breaks][n as usize % 4],
                };
                (record, flaw)
            })
            .collect::<Vec<_>>();
        let mut log = log;
        let refused = log.iter().filter(|(_, flaw)| *flaw == Flaw::Refused).count();
        // Not all of a window may be at fault, or nothing shows that the endpoint takes anything.
        let flawed = log.iter().filter(|(_, flaw)| *flaw != Flaw::None).count();
        let shares = if leaps { 2 } else { 1 };
        config.window_records = config.window_records.max(shares * (flawed + 2));
        config.window_bytes = config.window_bytes.max(64 * scale * (shares * (flawed + 2)) as u64);
        if lasts {
            // Nor may the window be full of what waits for records at which the endpoint breaks.
            let held_up = (0..log.len()).filter(|index| is_held_up(&log, config.ordering, *index)).count();
            // What is free of it is only used an eighth at a time.
            // Half of it is for gaps, and those there may be after any restart.
            let records = (2 * (flawed + held_up + 2) * 5 / 4).max(log.len() / SPAN_WINDOWS + 2);
            config.window_records = config.window_records.max(records);
            config.window_bytes = config.window_bytes.max(64 * scale * records as u64);
            // Else the simulation would be of nothing but records that are tried again.
            config.max_backoff = config.max_backoff.max(Duration::from_secs(5));
        }
        let others = log.len();
        // Some of them come when the endpoint takes everything.
        for _ in 0..(refused + 1) * if lasts { 2 } else { 1 } {
            sequence_number += 1;
            log.push((Record { sequence_number: SequenceNumber(sequence_number), ..plain("fresh", 1) }, Flaw::None));
        }
        // A backlog from before, of boots whose time is known or not.
        let committed = if rng.bool() { 0 } else { rng.usize(..=others) };
        let known = rng.bool();
        let mut ages: Vec<_> = (0..committed).map(|_| Duration::from_millis(rng.u64(..40_000))).collect();
        ages.sort_unstable_by_key(|age| Reverse(*age));
        let arrived = ages.into_iter().map(|age| (Arrived::Before(age), known || rng.bool())).collect();
        let mut world = Self {
            fates: vec![Fate::default(); log.len()],
            window: Window::new(&config, &limits, SequenceNumber::ZERO, &[], rng.u64(..)),
            arrived,
            oldest: 0,
            finished_saved: Vec::new(),
            finished_unsure: None,
            finished: BTreeSet::new(),
            held: BTreeSet::new(),
            resolved: BTreeSet::new(),
            expired: 0,
            told: 0,
            boundaries: vec![BTreeSet::new()],
            leaps: 0,
            given_back: 0,
            overtakes: 0,
            spared: 0,
            config,
            limits,
            kind,
            shards: vec![(0, 127), (1, 255)],
            map: None,
            new_map: None,
            next_shard: 2,
            reshards: 0,
            astray: 0,
            parcels: 0,
            sent: 0,
            log,
            largest: 64 * scale,
            committed,
            moods: Vec::new(),
            refused_all: false,
            refused_all_until: None,
            healthy_since: Duration::ZERO,
            lasts,
            now: Duration::ZERO,
            events: BinaryHeap::new(),
            pending: Vec::new(),
            ticks: BTreeSet::new(),
            life: 0,
            stopping: false,
            saved: vec![SequenceNumber::ZERO],
            in_flight: HashMap::new(),
            probes: HashMap::new(),
            witnesses: BTreeSet::new(),
            reaching_witness: false,
            wronged: 0,
            held_up: 0,
            parted: 0,
            hanging: BTreeSet::new(),
            promised: None,
            heard: (false, false),
            requests: 0,
            rng,
        };
        world.plan();
        world
    }

    /// What happens from outside.
    fn plan(&mut self) {
        let mut end = Duration::ZERO;
        let mut refused_all = false;
        for _ in 0..self.rng.usize(..=6) {
            end += Duration::from_millis(self.rng.u64(1..=8000));
            let mood = match self.rng.u8(..12) {
                0..3 => Mood::Healthy,
                3 => Mood::Refused,
                4 => Mood::Silent,
                5 => Mood::Reset,
                6 => Mood::Fails(*self.rng.choice(&PASSING).expect("five")),
                // More than one such time with a healthy one in between cannot be told from a record that is at fault.
                7 if !refused_all => {
                    refused_all = true;
                    Mood::RefusesAll
                }
                8 => Mood::Garbage,
                9 => Mood::FailsEach,
                _ => Mood::Partial(self.rng.f64()),
            };
            self.moods.push((end, mood));
            self.at(end, Event::MoodEnds);
        }
        self.healthy_since = end;
        if self.lasts {
            self.at(end + LASTING_JUDGED, Event::Flows);
        }
        let span = end.as_millis() as u64 + 2000;
        let fresh = self.log.iter().filter(|(record, _)| &*record.partition_key == "fresh").count();
        for _ in self.committed..self.log.len() - fresh {
            let at = Duration::from_millis(self.rng.u64(..span));
            self.at(at, Event::Commit);
        }
        // Nothing can be found undeliverable by an endpoint that never takes anything, so something comes now and then.
        for n in 1..=fresh {
            let (n, after) = if self.lasts && n * 2 > fresh { (n - fresh / 2, LASTING) } else { (n, Duration::ZERO) };
            self.at(end + after + Duration::from_secs(n as u64 * 60), Event::Commit);
        }
        for _ in 0..self.rng.u8(..4).saturating_sub(1) {
            let at = Duration::from_millis(self.rng.u64(..span));
            self.at(at, Event::Kill);
        }
        if self.rng.u8(..4) == 0 {
            let at = Duration::from_millis(self.rng.u64(..span));
            let records = self.rng.usize(..self.log.len());
            self.at(at, Event::Drop(records));
        }
        if self.kind == Parcels::OfShard {
            self.after(2000, Event::Map { life: 0 });
            for _ in 0..self.rng.u8(..5) {
                let at = Duration::from_millis(self.rng.u64(..span));
                self.at(at, Event::Reshard);
            }
        }
    }

    /// Whatever need not wait for a record at which the endpoint breaks is finished by now.
    fn judge_flow(&mut self) {
        for (index, (record, _)) in self.log.iter().enumerate().take(self.committed).skip(self.oldest) {
            let is_held_up = is_held_up(&self.log, self.config.ordering, index);
            let is_finished = self.fates[index] != Fate::default();
            let number = record.sequence_number;
            assert!(is_finished || is_held_up, "record {number} was held up by another: {}", self.tell());
            self.held_up += u64::from(!is_finished);
        }
    }

    fn at(&mut self, time: Duration, event: Event) {
        self.pending.push(Some(event));
        let index = self.pending.len() - 1;
        // Events of the same time come in any order.
        self.events.push(Reverse((time, self.rng.u64(..), index)));
    }

    fn after(&mut self, max_ms: u64, event: Event) {
        let delay = Duration::from_micros(self.rng.u64(..=max_ms * 1000));
        self.at(self.now + delay, event);
    }

    fn run(mut self) -> Self {
        self.drive();
        while let Some(Reverse((time, _, index))) = self.events.pop() {
            assert!(
                self.promised.is_none_or(|by| time <= by),
                "the link was back, but nothing came by {:?}",
                self.promised
            );
            self.now = time;
            let event = self.pending[index].take().expect("each event happens once");
            self.happen(event);
            self.drive();
            assert!(self.now < self.healthy_since + PATIENCE, "no end after {:?}: {}", self.now, self.tell());
        }
        for (index, (record, _)) in self.log.iter().enumerate() {
            let (number, is_there) = (record.sequence_number, index >= self.oldest);
            let is_lost = self.fates[index] == Fate::default() && is_there;
            assert!(!is_lost, "record {number} was never delivered: {}", self.tell());
        }
        let newest = self.log.last().expect("at least one record").0.sequence_number;
        assert_eq!(self.window.checkpoint(), newest, "{}", self.tell());
        let (down, stopped) = self.heard;
        assert!(!(stopped || down && *self.window.link() == Link::Up), "nobody heard of the end: {}", self.tell());
        self.stop();
        self
    }

    fn tell(&self) -> String {
        format!("{:?} {:?}\n{:#?}", self.config, self.limits, self.window)
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Commit => {
                self.committed += 1;
                self.arrived.push((Arrived::At(self.now), true));
                self.window.on_commit();
            }
            Event::MoodEnds => {
                let before = self.moods.iter().rev().find(|(end, _)| *end == self.now).map(|(_, mood)| *mood);
                let down = matches!(self.window.link(), Link::Down(Down { kind: FailureKind::Unreachable, .. }));
                // What hangs since an earlier time may keep it from sending until its timeout.
                let to_send = self.config.max_age.is_none()
                    && !self.window.ready.is_empty()
                    && self.hanging.is_empty()
                    && self.window.map == Map::Current;
                let reachable = !matches!(self.mood(), Mood::Refused | Mood::Silent);
                if before == Some(Mood::RefusesAll) {
                    self.refused_all_until = Some(self.now);
                }
                if before == Some(Mood::Refused) && down && to_send && reachable {
                    self.promised = Some(self.now + Duration::from_millis(1000 + LATENCY_MAX_MS));
                }
            }
            Event::Kill => self.kill(),
            Event::Read { life, records, end } if life == self.life => match records {
                Some(records) => {
                    let flaws: HashMap<_, _> =
                        self.log.iter().map(|(record, flaw)| (record.sequence_number, *flaw)).collect();
                    let map = &self.map;
                    let place = |record: &Record| match flaws[&record.sequence_number] {
                        Flaw::NotAccepted => Err("too long".to_owned()),
                        _ => Ok(self.kind.place(map, record)),
                    };
                    let reached = records.last().map(|(record, _)| record.sequence_number);
                    let found = Found { records: records.clone(), reached };
                    self.window.on_read(found, place, self.now);
                    self.judge_read(&records, end);
                }
                None => self.window.on_read_failed(self.now),
            },
            Event::Reaches { parcels, life, id, answer_lost } => {
                self.promised = None;
                self.reaching_witness = self.witnesses.contains(&(life, id));
                self.reaches(&parcels, life, id, answer_lost);
            }
            Event::Told { life, id, outcome } if life == self.life => {
                self.in_flight.remove(&id);
                self.probes.remove(&id);
                self.hanging.remove(&id);
                if matches!(&outcome, Outcome::Answered(all) if all.contains(&RecordOutcome::Astray)) {
                    self.after(2000, Event::Map { life });
                }
                self.resolve(id, &outcome);
                self.window.on_outcome(id, outcome, self.now);
            }
            Event::Drop(records) => self.oldest = (self.oldest + records).min(self.committed),
            Event::Saved { life, durable } => {
                if let Some(ranges) = self.finished_unsure.take_if(|_| life == self.life)
                    && durable
                {
                    self.finished_saved = ranges;
                }
                if life == self.life {
                    self.window.on_finished_saved(durable);
                }
            }
            Event::Buried { life, letters, durable } => {
                if durable && life == self.life {
                    self.resolved.extend(letters.iter().map(|index| self.log[*index].0.sequence_number));
                }
                if durable {
                    for index in letters {
                        let deliverable = matches!(self.log[index].1, Flaw::None | Flaw::Breaks | Flaw::Lasts);
                        self.wronged += u64::from(deliverable);
                        let excused = self.fates[index].excused || self.refused_all;
                        assert!(!deliverable || excused, "record {index} is buried: {}", self.tell());
                        self.fates[index].buried = true;
                    }
                }
                if life == self.life {
                    self.window.on_dead_letters(durable, self.now);
                }
            }
            Event::Reshard => self.reshard(),
            Event::Flows => self.judge_flow(),
            Event::Map { life } if life == self.life => {
                // Whoever may not ask for the shards goes by the keys.
                self.new_map = (self.rng.u8(..6) > 0).then(|| self.shards.clone());
                self.window.on_new_map();
            }
            Event::Tick => assert!(self.ticks.remove(&self.now)),
            Event::Map { .. } | Event::Read { .. } | Event::Told { .. } => {}
        }
    }
}
