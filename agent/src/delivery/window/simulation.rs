//! Random histories of a delivery: records come, alone or in parcels, the endpoint takes, refuses, throttles, hangs and lies,
//! its shards are split and merged, the process is killed, and at the end everything works again. What the window promises
//! is checked at every step.
//!
//! `FOREBAY_HISTORIES` says how many, `FOREBAY_SEED` which one comes first.

use std::{
    cmp::Reverse,
    collections::{BTreeSet, BinaryHeap, HashMap},
    env,
    time::Duration,
};

use bytes::Bytes;
use fastrand::Rng;
use forebay_log_store::{Record, SequenceNumber, ShardIndex, Timestamp};

use super::{entries::State, *};
use crate::{
    delivery::config::Ordering,
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
/// Longer than any backoff needs that an outage of a few seconds can have built up.
const PATIENCE: Duration = Duration::from_secs(6000);

#[test]
fn every_history_keeps_the_promises() {
    let histories = number("FOREBAY_HISTORIES").unwrap_or(DEFAULT_HISTORIES);
    let first = number("FOREBAY_SEED").unwrap_or(1);
    let mut totals = Totals::default();
    for seed in first..first + histories {
        let outcome = std::panic::catch_unwind(|| World::new(seed).run());
        match outcome {
            Ok(world) => totals.add(&world),
            Err(panic) => {
                eprintln!("history {seed} failed; run it alone with FOREBAY_SEED={seed} FOREBAY_HISTORIES=1");
                std::panic::resume_unwind(panic);
            }
        }
    }
    eprintln!("{histories} histories: {totals:?}");
    // A simulation in which nothing goes wrong shows nothing.
    if histories >= 1000 {
        assert!(totals.wronged <= totals.records / 2000, "{totals:?}");
        assert!(totals.kills > 0 && totals.duplicates > 0 && totals.dead_letters > 0 && totals.out_of_order > 0);
        assert!(totals.parcels < totals.sent && totals.reshards > 0 && totals.astray > 0, "{totals:?}");
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
    /// Of the last life.
    parcels: u64,
    sent: u64,
    reshards: u64,
    astray: u64,
}

impl Totals {
    fn add(&mut self, world: &World) {
        self.records += world.log.len() as u64;
        self.requests += world.requests;
        self.kills += u64::from(world.life);
        self.duplicates += world.fates.iter().map(|fate| u64::from(fate.accepted.saturating_sub(1))).sum::<u64>();
        self.dead_letters += world.fates.iter().filter(|fate| fate.buried).count() as u64;
        self.wronged += world.wronged;
        self.out_of_order += world.window.counts().out_of_order;
        self.parcels += world.parcels;
        self.sent += world.sent;
        self.reshards += world.reshards;
        self.astray += world.astray;
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
}

#[derive(Debug, Clone, Default)]
struct Fate {
    accepted: u32,
    buried: bool,
    /// See [`World::take`].
    excused: bool,
}

#[derive(Debug)]
enum Event {
    Commit,
    MoodEnds,
    Kill,
    Read {
        life: u32,
        records: Option<Vec<Record>>,
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
    /// The endpoint splits or merges shards.
    Reshard,
    /// The delivery is told which shards there are.
    Map {
        life: u32,
    },
    Tick,
}

/// A parcel under way, and the shard that it was made for, if that was known.
#[derive(Debug, Clone)]
struct Sent {
    records: Vec<usize>,
    shard: Option<u32>,
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
    fates: Vec<Fate>,
    committed: usize,
    moods: Vec<(Duration, Mood)>,
    /// Whether it has refused everything at some time so far.
    refused_all: bool,
    refused_all_until: Option<Duration>,
    healthy_since: Duration,

    now: Duration,
    events: BinaryHeap<Reverse<(Duration, u64, usize)>>,
    pending: Vec<Option<Event>>,
    window: Window,
    /// Which start of the process this is.
    life: u32,
    cursor: usize,
    saved: Vec<SequenceNumber>,
    in_flight: HashMap<u64, Vec<usize>>,
    /// Those under way, by the outage that they belong to.
    probes: HashMap<u64, Duration>,
    witnesses: BTreeSet<(u32, u64)>,
    reaching_witness: bool,
    /// Records that were passed or buried although only the endpoint was at fault.
    wronged: u64,
    /// Requests that will get no answer.
    hanging: BTreeSet<u64>,
    /// A request has to reach the endpoint by then, because the link is back.
    promised: Option<Duration>,
    requests: u64,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let mut config = Config {
            ordering: if rng.u8(..4) == 0 { Ordering::Relaxed } else { Ordering::Strict },
            batch_records: rng.usize(1..=10),
            batch_bytes: rng.bool().then(|| rng.u64(1..=500)),
            batch_age: Duration::from_millis(rng.u64(0..=200)),
            in_flight: rng.usize(1..=5),
            window_records: rng.usize(1..=40),
            window_bytes: rng.u64(1..=2000),
            max_backoff: Duration::from_millis(rng.u64(100..=20_000)),
            ..Config::default()
        };
        let kind = *rng.choice(&[Parcels::Single, Parcels::OfKey, Parcels::OfShard, Parcels::OfShard]).expect("four");
        let limits = Limits {
            request_records: rng.usize(1..=12),
            request_bytes: rng.u64(80..=1000),
            parcel_records: if kind == Parcels::Single { 1 } else { rng.usize(1..=20) },
            parcel_bytes: rng.u64(1..=600),
            keeps_requests: rng.bool(),
            request_timeout: Duration::from_millis(rng.u64(300..=10_000)),
        };
        let keys = rng.u32(1..=12);
        let flawed = if rng.bool() { 0 } else { rng.u32(1..=30) };
        let mut sequence_number = 0;
        let log = (0..rng.usize(1..=80))
            .map(|_| {
                sequence_number += if rng.u8(..10) == 0 { rng.u64(1..=50) } else { 1 };
                let record = plain(&format!("k{}", rng.u32(..keys)), rng.usize(..=60));
                let record = Record { sequence_number: SequenceNumber(sequence_number), ..record };
                let flaw = match rng.u32(..100) {
                    n if n >= flawed => Flaw::None,
                    n => [Flaw::Refused, Flaw::Rejected, Flaw::NotAccepted, Flaw::Breaks][n as usize % 4],
                };
                (record, flaw)
            })
            .collect::<Vec<_>>();
        let mut log = log;
        let refused = log.iter().filter(|(_, flaw)| *flaw == Flaw::Refused).count();
        // Not all of a window may be at fault, or nothing shows that the endpoint takes anything.
        let flawed = log.iter().filter(|(_, flaw)| *flaw != Flaw::None).count();
        config.window_records = config.window_records.max(flawed + 2);
        config.window_bytes = config.window_bytes.max(64 * (flawed as u64 + 2));
        for _ in 0..=refused {
            sequence_number += 1;
            log.push((Record { sequence_number: SequenceNumber(sequence_number), ..plain("fresh", 1) }, Flaw::None));
        }
        let mut world = Self {
            fates: vec![Fate::default(); log.len()],
            window: Window::new(&config, &limits, SequenceNumber::ZERO, &[], rng.u64(..)),
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
            committed: 0,
            moods: Vec::new(),
            refused_all: false,
            refused_all_until: None,
            healthy_since: Duration::ZERO,
            now: Duration::ZERO,
            events: BinaryHeap::new(),
            pending: Vec::new(),
            life: 0,
            cursor: 0,
            saved: vec![SequenceNumber::ZERO],
            in_flight: HashMap::new(),
            probes: HashMap::new(),
            witnesses: BTreeSet::new(),
            reaching_witness: false,
            wronged: 0,
            hanging: BTreeSet::new(),
            promised: None,
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
                _ => Mood::Partial(self.rng.f64()),
            };
            self.moods.push((end, mood));
            self.at(end, Event::MoodEnds);
        }
        self.healthy_since = end;
        let span = end.as_millis() as u64 + 2000;
        let fresh = self.log.iter().filter(|(record, _)| &*record.partition_key == "fresh").count();
        for _ in 0..self.log.len() - fresh {
            let at = Duration::from_millis(self.rng.u64(..span));
            self.at(at, Event::Commit);
        }
        // Nothing can be found undeliverable by an endpoint that never takes anything, so something comes now and then.
        for n in 1..=fresh {
            self.at(end + Duration::from_secs(n as u64 * 60), Event::Commit);
        }
        for _ in 0..self.rng.u8(..4).saturating_sub(1) {
            let at = Duration::from_millis(self.rng.u64(..span));
            self.at(at, Event::Kill);
        }
        if self.kind == Parcels::OfShard {
            self.after(2000, Event::Map { life: 0 });
            for _ in 0..self.rng.u8(..5) {
                let at = Duration::from_millis(self.rng.u64(..span));
                self.at(at, Event::Reshard);
            }
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
        for (fate, (record, _)) in self.fates.iter().zip(&self.log) {
            let number = record.sequence_number;
            assert!(fate.accepted > 0 || fate.buried, "record {number} was never delivered: {}", self.tell());
        }
        let newest = self.log.last().expect("at least one record").0.sequence_number;
        assert_eq!(self.window.checkpoint(), newest, "{}", self.tell());
        self.window.stop();
        assert!(matches!(self.window.next(self.now), Step::Stopped));
        self
    }

    fn tell(&self) -> String {
        format!("{:?} {:?}\n{:#?}", self.config, self.limits, self.window)
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Commit => {
                self.committed += 1;
                self.window.on_commit();
            }
            Event::MoodEnds => {
                let before = self.moods.iter().rev().find(|(end, _)| *end == self.now).map(|(_, mood)| *mood);
                let down = matches!(self.window.link(), Link::Down(Down { kind: FailureKind::Unreachable, .. }));
                // What hangs since an earlier time may keep it from sending until its timeout.
                let to_send =
                    !self.window.ready.is_empty() && self.hanging.is_empty() && self.window.map == Map::Current;
                let reachable = !matches!(self.mood(), Mood::Refused | Mood::Silent);
                if before == Some(Mood::RefusesAll) {
                    self.refused_all_until = Some(self.now);
                }
                if before == Some(Mood::Refused) && down && to_send && reachable {
                    self.promised = Some(self.now + Duration::from_millis(1000 + LATENCY_MAX_MS));
                }
            }
            Event::Kill => self.kill(),
            Event::Read { life, records } if life == self.life => match records {
                Some(records) => {
                    self.cursor += records.len();
                    let flaws: HashMap<_, _> =
                        self.log.iter().map(|(record, flaw)| (record.sequence_number, *flaw)).collect();
                    let map = &self.map;
                    let place = |record: &Record| match flaws[&record.sequence_number] {
                        Flaw::NotAccepted => Err("too long".to_owned()),
                        _ => Ok(self.kind.place(map, record)),
                    };
                    let reached = records.last().map(|record| record.sequence_number);
                    let records = records.into_iter().map(|record| (record, Duration::ZERO)).collect();
                    self.window.on_read(Found { records, reached }, place, self.now);
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
                self.window.on_outcome(id, outcome, self.now);
            }
            Event::Buried { life, letters, durable } => {
                if durable {
                    for index in letters {
                        let deliverable = matches!(self.log[index].1, Flaw::None | Flaw::Breaks);
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
            Event::Map { life } if life == self.life => {
                // Whoever may not ask for the shards goes by the keys.
                self.new_map = (self.rng.u8(..6) > 0).then(|| self.shards.clone());
                self.window.on_new_map();
            }
            Event::Map { .. } | Event::Tick | Event::Read { .. } | Event::Told { .. } => {}
        }
    }

    /// The process dies and starts again from a checkpoint that had reached the disk.
    fn kill(&mut self) {
        self.life += 1;
        let durable = self.saved.len() - 1 - self.rng.usize(..self.saved.len().min(3));
        self.saved.truncate(durable + 1);
        let checkpoint = self.saved[durable];
        self.cursor = self.log.iter().filter(|(record, _)| record.sequence_number <= checkpoint).count();
        self.window = Window::new(&self.config, &self.limits, checkpoint, &[], self.rng.u64(..));
        self.in_flight.clear();
        self.probes.clear();
        self.hanging.clear();
        self.promised = None;
        (self.map, self.new_map) = (None, None);
        if self.kind == Parcels::OfShard {
            self.after(2000, Event::Map { life: self.life });
        }
    }

    /// Two shards become one, or one two.
    fn reshard(&mut self) {
        self.reshards += 1;
        let at = self.rng.usize(..self.shards.len());
        let first = if at == 0 { 0 } else { self.shards[at - 1].1 + 1 };
        let last = self.shards[at].1;
        if self.rng.bool() && at > 0 {
            self.shards.remove(at - 1);
            self.shards[at - 1].0 = self.next_shard;
        } else if first < last {
            self.shards[at].0 = self.next_shard;
            self.shards.insert(at, (self.next_shard + 1, first + (last - first) / 2));
        }
        self.next_shard += 2;
        if self.rng.bool() {
            self.after(4000, Event::Map { life: self.life });
        }
    }

    fn mood(&self) -> Mood {
        self.moods.iter().find(|(end, _)| *end > self.now).map_or(Mood::Healthy, |(_, mood)| *mood)
    }

    /// A request is at the endpoint.
    fn reaches(&mut self, parcels: &[Sent], life: u32, id: u64, answer_lost: bool) {
        let records: Vec<_> = parcels.iter().flat_map(|parcel| parcel.records.iter().copied()).collect();
        let fail = |kind| Outcome::Failed(Failure { kind, message: kind.to_string(), retry_after: None });
        let unreachable = fail(FailureKind::Unreachable);
        let flaw = |flaw| records.iter().any(|index| self.log[*index].1 == flaw);
        let breaks = flaw(Flaw::Breaks) && self.now < self.healthy_since + Duration::from_secs(20);
        let outcome = match self.mood() {
            _ if answer_lost => return self.take_all(parcels),
            Mood::Refused => unreachable,
            Mood::Silent => {
                if self.rng.bool() {
                    let late = self.limits.request_timeout.as_millis() as u64 * 2;
                    let parcels = parcels.to_vec();
                    self.after(late, Event::Reaches { parcels, life, id, answer_lost: true });
                }
                if life == self.life {
                    self.hanging.insert(id);
                }
                let timeout = self.now + self.limits.request_timeout;
                return self.at(timeout, Event::Told { life, id, outcome: unreachable });
            }
            Mood::Fails(kind) => {
                if kind == FailureKind::EndpointFailed && self.rng.bool() {
                    self.take_all(parcels);
                }
                fail(kind)
            }
            Mood::RefusesAll => {
                self.refused_all = true;
                fail(FailureKind::RequestInvalid)
            }
            _ if flaw(Flaw::Refused) => fail(FailureKind::RequestInvalid),
            _ if breaks => fail(FailureKind::EndpointFailed),
            Mood::Garbage => {
                self.take_all(parcels);
                Outcome::Answered(vec![RecordOutcome::Accepted; parcels.len() + 1])
            }
            Mood::Reset => {
                self.take_all(parcels);
                unreachable
            }
            Mood::Healthy => self.answer(parcels, 1.0),
            Mood::Partial(share) => self.answer(parcels, share),
        };
        self.after(LATENCY_MAX_MS / 2, Event::Told { life, id, outcome });
    }

    fn answer(&mut self, parcels: &[Sent], share: f64) -> Outcome {
        let mut outcomes = Vec::new();
        for parcel in parcels {
            outcomes.push(match () {
                () if parcel.records.iter().any(|index| self.log[*index].1 == Flaw::Rejected) => {
                    RecordOutcome::Rejected("never".to_owned())
                }
                () if self.rng.f64() < share => self.take_parcel(parcel),
                () if self.rng.bool() => RecordOutcome::Throttled("slower".to_owned()),
                () => RecordOutcome::Failed("something".to_owned()),
            });
        }
        Outcome::Answered(outcomes)
    }

    fn take_all(&mut self, parcels: &[Sent]) {
        for parcel in parcels {
            self.take_parcel(parcel);
        }
    }

    /// A parcel goes to the shard of its first record; nobody sees those of its records that belong to another one.
    fn take_parcel(&mut self, parcel: &Sent) -> RecordOutcome {
        let shards = self.shards.clone();
        let of = |log: &[(Record, Flaw)], index: &usize| shard_of(&shards, &log[*index].0.partition_key);
        let shard = of(&self.log, &parcel.records[0]);
        let seen: Vec<_> = parcel.records.iter().copied().filter(|index| of(&self.log, index) == shard).collect();
        self.take(&seen);
        match parcel.shard {
            Some(expected) if expected != shard => {
                self.astray += parcel.records.len() as u64;
                RecordOutcome::Astray
            }
            _ => {
                assert_eq!(seen, parcel.records, "nobody sees all of an accepted parcel");
                RecordOutcome::Accepted
            }
        }
    }

    /// The endpoint has these records now.
    fn take(&mut self, records: &[usize]) {
        for index in records {
            if matches!(self.log[*index].1, Flaw::Refused | Flaw::Rejected) {
                continue;
            }
            // Refused alone and again, a record may be passed by a later one as a witness. Should the endpoint stop refusing
            // everything just in between, the wrong one is found guilty; nothing can tell.
            let excuse = self.refused_all_until.is_some() && self.reaching_witness;
            let first = self.fates[*index].accepted == 0;
            let key = self.log[*index].0.partition_key.clone();
            for earlier in 0..*index {
                if self.log[earlier].0.partition_key != key || self.config.ordering == Ordering::Relaxed {
                    continue;
                }
                let flaw = self.log[earlier].1;
                let never = matches!(flaw, Flaw::Refused | Flaw::Rejected | Flaw::NotAccepted);
                let fate = &mut self.fates[earlier];
                let resolved = fate.accepted > 0 || fate.buried || never;
                fate.excused |= excuse && !never && !fate.buried;
                self.wronged += u64::from(first && !resolved);
                assert!(!first || resolved || fate.excused, "{index} arrived before {earlier}, both of key {key}");
            }
            self.fates[*index].accepted += 1;
        }
    }

    /// Does what the window says until it waits.
    fn drive(&mut self) {
        for _ in 0..10_000 {
            self.check_window();
            match self.window.next(self.now) {
                Step::Read(piece) => self.read(piece.limit),
                Step::Send(batch) => self.send(batch),
                Step::StoreDeadLetters(letters) => {
                    let letters = letters.iter().map(|letter| self.index(letter.record.sequence_number)).collect();
                    let (life, durable) = (self.life, self.rng.u8(..4) > 0);
                    self.after(50, Event::Buried { life, letters, durable });
                }
                Step::TakeMap => {
                    self.map = self.new_map.clone();
                    let (kind, map) = (self.kind, &self.map);
                    self.window.on_map(|record| Ok(kind.place(map, record)), self.now);
                }
                Step::Save(checkpoint) => self.save(checkpoint),
                Step::SaveFinished(_) | Step::TellExpired(_) => {}
                Step::Wait(None) => return,
                Step::Wait(Some(until)) => {
                    assert!(until > self.now, "waits for the past");
                    return self.at(until, Event::Tick);
                }
                Step::Stopped => panic!("nobody told it to stop"),
            }
        }
        panic!("no end of steps: {}", self.tell());
    }

    fn index(&self, number: SequenceNumber) -> usize {
        self.log.iter().position(|(record, _)| record.sequence_number == number).expect("a record of the log")
    }

    fn read(&mut self, limit: forebay_log_store::ReadLimit) {
        assert!(limit.records > 0 && limit.payload_bytes > 0);
        let life = self.life;
        if self.rng.u8(..20) == 0 {
            return self.after(5, Event::Read { life, records: None });
        }
        let mut bytes = 0;
        let records: Vec<_> = self.log[self.cursor..self.committed]
            .iter()
            .map(|(record, _)| record.clone())
            .take(limit.records)
            .take_while(|record| {
                let first = bytes == 0;
                bytes += record.payload_bytes() as usize;
                first || bytes <= limit.payload_bytes
            })
            .collect();
        self.after(5, Event::Read { life, records: Some(records) });
    }

    fn send(&mut self, batch: Batch) {
        self.requests += 1;
        let parcels: Vec<_> = batch
            .parcels
            .iter()
            .map(|parcel| {
                let records: Vec<_> = parcel.records.iter().map(|record| self.index(record.sequence_number)).collect();
                let shard = self.map.as_ref().map(|map| shard_of(map, &parcel.records[0].partition_key));
                Sent { records, shard }
            })
            .collect();
        let records: Vec<_> = batch.records().map(|record| self.index(record.sequence_number)).collect();
        self.check_batch(&parcels, &records);
        self.parcels += parcels.len() as u64;
        self.sent += records.len() as u64;
        if let Link::Down(down) = self.window.link() {
            assert_eq!(down.probe, Some(batch.id));
            assert!(!self.probes.values().any(|outage| *outage == down.since), "one probe at a time");
            self.probes.insert(batch.id, down.since);
        }
        if self.window.in_flight[&batch.id].witness {
            self.witnesses.insert((self.life, batch.id));
        }
        self.in_flight.insert(batch.id, records.clone());
        let (life, id) = (self.life, batch.id);
        self.after(LATENCY_MAX_MS / 2, Event::Reaches { parcels, life, id, answer_lost: false });
    }

    fn check_batch(&self, parcels: &[Sent], records: &[usize]) {
        let strict = self.config.ordering == Ordering::Strict;
        assert!(!parcels.is_empty() && parcels.len() <= self.config.batch_records.min(self.limits.request_records));
        let wire = |index: &usize| self.kind.place(&self.map, &self.log[*index].0).bytes;
        let bytes: u64 = records.iter().map(wire).sum();
        let limit = self.limits.request_bytes.min(self.config.batch_bytes.unwrap_or(u64::MAX));
        assert!(parcels.len() == 1 || bytes <= limit, "{bytes} bytes in a request");
        assert!(parcels.is_sorted_by_key(|parcel| parcel.records[0]), "oldest first");
        assert!(self.in_flight.len() < self.config.in_flight, "too many requests");
        for parcel in parcels {
            assert!(!parcel.records.is_empty() && parcel.records.len() <= self.limits.parcel_records);
            assert!(parcel.records.is_sorted(), "in the order of the stream");
            let bytes: u64 = parcel.records.iter().map(wire).sum();
            assert!(parcel.records.len() == 1 || bytes <= self.limits.parcel_bytes, "{bytes} bytes in a parcel");
            let lanes = parcel.records.iter().map(|index| self.kind.place(&self.map, &self.log[*index].0).lane);
            assert_eq!(lanes.collect::<BTreeSet<_>>().len(), 1, "one lane");
        }
        let mut keys = BTreeSet::new();
        let of = |index: &usize| self.log[*index].0.partition_key.clone();
        for records in self.in_flight.values().chain(parcels.iter().map(|parcel| &parcel.records)) {
            let own: BTreeSet<_> = records.iter().map(of).collect();
            assert!(own.iter().all(|key| !keys.contains(key)) || !strict, "a key in two parcels under way");
            keys.extend(own);
        }
        let mut numbers = BTreeSet::new();
        for index in records.iter().chain(self.in_flight.values().flatten()) {
            assert!(numbers.insert(index), "under way twice");
            assert_ne!(self.log[*index].1, Flaw::NotAccepted, "sent although it is never accepted");
        }
    }

    fn save(&mut self, checkpoint: SequenceNumber) {
        assert!(checkpoint > *self.saved.last().expect("never empty"), "a checkpoint goes forward");
        for (fate, (record, _)) in self.fates.iter().zip(&self.log) {
            let number = record.sequence_number;
            assert!(number > checkpoint || fate.accepted > 0 || fate.buried, "{checkpoint} saved, {number} unfinished");
        }
        self.saved.push(checkpoint);
    }

    fn check_window(&self) {
        let window = &self.window;
        let held = window.held();
        assert!(held.records <= self.config.window_records, "{held:?}");
        // Two records are held however large they are; none here is over 64 bytes.
        assert!(held.bytes <= (self.config.window_bytes + 64).max(128), "{held:?}");
        // Beyond that, one record for each refusal that needs to be compared with something.
        let span_max = self.config.window_records * SPAN_WINDOWS;
        assert!(
            window.stretches.live().ledger.span()
                <= span_max + window.counts().failed_requests[FailureKind::RequestInvalid.index()] as usize
        );
        if self.config.ordering == Ordering::Strict {
            window.stretches.live().lanes.check_chains(&window.entries, window.parcel_size());
        }
        let mut states = HashMap::<State, usize>::new();
        for (_, entry) in window.entries.iter() {
            *states.entry(entry.state).or_default() += 1;
        }
        let count = |state| states.get(&state).copied().unwrap_or_default();
        assert_eq!(count(State::Ready), window.ready.len());
        let ready = window.ready.iter().map(|head| window.entries[head].parcel_bytes + RECORD_OVERHEAD);
        assert_eq!(window.ready.bytes, ready.sum::<u64>());
        assert_eq!(count(State::Waiting), window.throttled.len() + window.failed.len());
        let suspects = window.suspects.iter().map(|group| group.slots.len()).sum::<usize>();
        assert_eq!(count(State::Suspect), suspects + usize::from(window.trial.is_some()));
        assert_eq!(count(State::InFlight), window.in_flight.values().map(|flight| flight.slots.len()).sum::<usize>());
        assert_eq!(count(State::Dead), window.dead.len() + window.burying.len());
    }
}
