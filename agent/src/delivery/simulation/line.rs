//! One delivery: its log, its window, and what `run` does around that.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use fastrand::Rng;
use forebay_log_store::{Record, SequenceNumber};

use super::{
    endpoint::{Flaw, Mood},
    world::{Event, World, window},
};
use crate::{
    delivery::{
        config::Config,
        way_out::WayOut,
        window::{Batch, Finished, Found, Piece, Step, Window},
    },
    destination::{Limits, Outcome, Place, RecordOutcome, WireBytes, hash},
    links::{Held, Link},
};

/// Records with their age, or nothing: the read failed.
pub(super) type Read = Option<Vec<(Arc<Record>, Duration)>>;

/// What shares a parcel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lanes {
    Single,
    OfKey,
    /// Two of them, which nobody divides.
    OfShard,
}

impl Lanes {
    pub(super) fn place(self, record: &Record) -> Place {
        let bytes = record.payload_bytes() + 3;
        match self {
            Self::Single => Place::of_key(record),
            Self::OfKey => Place { bytes, ..Place::of_key(record) },
            Self::OfShard => Place { bytes, lane: hash(&record.partition_key) % 2 },
        }
    }
}

/// What became of a record.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Fate {
    pub(super) accepted: u32,
    pub(super) buried: bool,
}

pub(super) struct Line {
    pub(super) number: usize,
    pub(super) config: Config,
    pub(super) limits: Limits,
    pub(super) lanes: Lanes,
    pub(super) log: Vec<(Record, Flaw)>,
    /// Those of them that come at any time; the others come when all is well.
    others: usize,
    index: HashMap<SequenceNumber, usize>,
    /// The records of each key, and how many of the first are resolved.
    pub(super) keys: HashMap<Arc<str>, (Vec<usize>, usize)>,
    /// When each arrived that has.
    pub(super) arrived: Vec<Duration>,
    pub(super) fates: Vec<Fate>,
    pub(super) moods: Vec<(Duration, Mood)>,
    pub(super) healthy_since: Duration,
    /// What its requests really have, for each byte that they are thought to have.
    pub(super) factor: f64,
    pub(super) latency_ms: u64,

    pub(super) window: Window,
    way_out: WayOut,
    pub(super) wire: Arc<WireBytes>,
    saved: Vec<SequenceNumber>,
    pub(super) finished: Finished,
    pub(super) held: Option<Held>,
    /// Requests under way, and how many records each of their parcels has.
    pub(super) in_flight: HashMap<u64, Vec<usize>>,
    /// Requests and records taken of this life, by what happened.
    pub(super) sent: u64,
    pub(super) taken: usize,
    /// The newest dead letters could not be stored.
    bury_failed: bool,
    /// The endpoint has asked to be left alone until then.
    pub(super) asked: Duration,
    ticks: BTreeSet<Duration>,
}

impl Line {
    pub(super) fn new(
        number: usize,
        config: Config,
        limits: Limits,
        lanes: Lanes,
        log: Vec<(Record, Flaw)>,
        others: usize,
        rng: &mut Rng,
    ) -> Self {
        let mut keys: HashMap<_, (Vec<usize>, usize)> = HashMap::new();
        for (at, (record, _)) in log.iter().enumerate() {
            keys.entry(Arc::from(&*record.partition_key)).or_default().0.push(at);
        }
        Self {
            number,
            window: Window::new(&config, &limits, SequenceNumber::ZERO, &Finished::default(), 0),
            way_out: WayOut::new(None, None, true),
            config,
            limits,
            lanes,
            index: log.iter().enumerate().map(|(at, (record, _))| (record.sequence_number, at)).collect(),
            keys,
            arrived: Vec::new(),
            fates: vec![Fate::default(); log.len()],
            others,
            log,
            moods: Vec::new(),
            healthy_since: Duration::ZERO,
            factor: 0.5 + rng.f64() * 0.7,
            latency_ms: rng.u64(20..=1000),
            wire: Arc::default(),
            saved: vec![SequenceNumber::ZERO],
            finished: Finished::default(),
            held: None,
            in_flight: HashMap::new(),
            sent: 0,
            taken: 0,
            bury_failed: false,
            asked: Duration::ZERO,
            ticks: BTreeSet::new(),
        }
    }

    /// How many records are to come at any time, and when all is well.
    pub(super) fn to_come(&self) -> (usize, usize) {
        (self.others - self.arrived.len(), self.log.len() - self.others)
    }

    /// All of its records, with what is around them.
    pub(super) fn bytes(&self) -> u64 {
        self.log.iter().map(|(record, _)| record.payload_bytes() + 1500).sum()
    }

    /// Whether there are records that are only found undeliverable by what happens to others.
    pub(super) fn is_refused_any(&self) -> bool {
        self.log.iter().any(|(_, flaw)| *flaw == Flaw::Refused)
    }

    pub(super) fn surveys(&self) -> bool {
        self.lanes == Lanes::OfShard
    }

    pub(super) fn commit(&mut self, records: usize, now: Duration) {
        self.arrived.extend(std::iter::repeat_n(now, records));
        self.window.on_commit();
    }

    pub(super) fn bury(&mut self, letters: &[usize]) {
        for index in letters {
            let (record, flaw) = &self.log[*index];
            let at_fault = matches!(flaw, Flaw::Refused | Flaw::Rejected | Flaw::NotAccepted);
            assert!(at_fault, "{} of {} is buried, and not at fault", record.sequence_number, self.number);
            self.fates[*index].buried = true;
        }
    }

    pub(super) fn is_done(&self) -> bool {
        let newest = self.log.last().expect("at least one").0.sequence_number;
        self.arrived.len() == self.log.len() && self.window.checkpoint() == newest
    }

    pub(super) fn index(&self, number: SequenceNumber) -> usize {
        self.index[&number]
    }

    /// The process is over. What it saved last may not have reached the disk, unless that was awaited.
    pub(super) fn end(&mut self, announced: bool, rng: &mut Rng) {
        let lost = if announced { 0 } else { rng.usize(..self.saved.len().min(3)) };
        self.saved.truncate(self.saved.len() - lost);
    }

    pub(super) fn start(&mut self, link: &Arc<Link>, seed: u64) {
        let checkpoint = *self.saved.last().expect("never empty");
        self.window = window(self, checkpoint, seed);
        self.wire = Arc::default();
        self.way_out = WayOut::new(Some(link.way(self.config.priority)), Some(Arc::clone(&self.wire)), true);
        self.held = None;
        self.in_flight.clear();
        self.ticks.clear();
        (self.sent, self.taken) = (0, 0);
    }

    /// The number of a record, or of the one that will be next.
    fn number_of(&self, index: usize) -> SequenceNumber {
        match index.checked_sub(1) {
            _ if index < self.arrived.len() => self.log[index].0.sequence_number,
            None => SequenceNumber(1),
            Some(newest) => self.log[newest].0.sequence_number.next(),
        }
    }

    pub(super) fn tell(&self) -> String {
        let Self { number, config, limits, lanes, moods, held, .. } = self;
        let held = held.map(|held| held.to_string());
        let (all, came) = (self.log.len(), self.arrived.len());
        let window = &self.window;
        format!(
            "{number}: {config:?} {limits:?} {lanes:?} {moods:?}\n   {came} of {all} came, {held:?}, {:?}, checkpoint {}, {:?}",
            window.held(),
            window.checkpoint(),
            window.link(),
        )
    }
}

impl World {
    /// Does what the window of a delivery says until it waits: the loop of `run`.
    pub(super) fn drive(&mut self, line: usize) {
        let of = &mut self.lines[line];
        if of.in_flight.is_empty() {
            self.judge.told(line, self.metered);
        }
        let (oldest, head) = (of.number_of(0), of.number_of(of.arrived.len()));
        of.window.on_extent(oldest, head);
        for _ in 0..10_000 {
            let since = self.since();
            let of = &mut self.lines[line];
            let asked = of.window.would_send(since);
            let step = of.way_out.next(&mut of.window, since);
            self.note_held(line);
            match step {
                Step::Read(piece) => self.read(line, &piece),
                Step::Send(batch) => self.send(line, &batch, asked.expect("it would be sent")),
                Step::StoreDeadLetters(letters) => {
                    let of = &mut self.lines[line];
                    let letters = letters.iter().map(|letter| of.index(letter.record.sequence_number)).collect();
                    let (life, durable) = (self.life, of.bury_failed || self.rng.u8(..4) > 0);
                    of.bury_failed = !durable;
                    self.after(50, Event::Buried { life, line, letters, durable });
                }
                Step::Save(checkpoint) => self.lines[line].saved.push(checkpoint),
                Step::SaveFinished(finished) => {
                    let (life, durable) = (self.life, self.rng.u8(..4) > 0);
                    self.after(50, Event::Saved { life, line, finished, durable });
                }
                Step::TellExpired(expired) => self.totals.expired += expired.records,
                Step::Tell(_) => {}
                Step::Wait(None) => return,
                Step::Wait(Some(until)) => {
                    assert!(until > since, "waits for the past");
                    if self.lines[line].ticks.insert(until) {
                        // No timer is punctual.
                        let late = Duration::from_micros(self.rng.u64(..20_000));
                        let life = self.life;
                        self.lines[line].ticks.retain(|tick| *tick >= since);
                        self.at(self.born + until + late, Event::Tick { life, line });
                    }
                    return;
                }
                Step::TakeMap => unreachable!("there is no new map"),
                Step::Stopped => unreachable!("nobody told it to stop"),
            }
        }
        panic!("no end of steps: {}", self.tell());
    }

    /// What the window waits for now, as status would tell it.
    fn note_held(&mut self, line: usize) {
        let of = &mut self.lines[line];
        let before = std::mem::replace(&mut of.held, of.way_out.held());
        let kind = |held: Option<Held>| match held? {
            Held::Schedule { .. } => Some(0),
            Held::Budget { .. } => Some(1),
            Held::Bandwidth => Some(2),
            Held::Priority => Some(3),
        };
        if let Some(kind) = kind(of.held).filter(|_| kind(of.held) != kind(before)) {
            self.totals.held[kind] += 1;
        }
    }

    /// Reads beyond the end too, as a cursor does.
    fn read(&mut self, line: usize, Piece { from, limit, .. }: &Piece) {
        let (life, of) = (self.life, &self.lines[line]);
        if self.rng.u8(..20) == 0 {
            return self.after(5, Event::Read { life, line, read: None });
        }
        let mut bytes = 0;
        let first = of.log.partition_point(|(record, _)| record.sequence_number < *from);
        let records = (first..of.arrived.len().max(first))
            .map(|index| (Arc::new(of.log[index].0.clone()), self.now - of.arrived[index]))
            .take(limit.records)
            .take_while(|(record, _)| {
                let first = bytes == 0;
                bytes += record.payload_bytes() as usize;
                first || bytes <= limit.payload_bytes
            })
            .collect();
        self.after(5, Event::Read { life, line, read: Some(records) });
    }

    pub(super) fn on_read(&mut self, line: usize, read: Read) {
        let since = self.since();
        let Line { window, log, index, lanes, .. } = &mut self.lines[line];
        let Some(records) = read else { return window.on_read_failed(since) };
        let reached = records.last().map(|(record, _)| record.sequence_number);
        let place = |record: &Record| match log[index[&record.sequence_number]].1 {
            Flaw::NotAccepted => Err("too long".to_owned()),
            _ => Ok(lanes.place(record)),
        };
        window.on_read(Found { records, reached }, place, since);
    }

    /// The destination asks for its shards, when it may.
    pub(super) fn survey(&mut self, line: usize) {
        self.judge.told(line, self.metered);
        let closed = self.lines[line].way_out.closed()();
        if closed.is_none() {
            self.judge_survey(line);
            let bytes = self.rng.u64(1..=1500);
            self.passes(line, 300, bytes);
        }
        let life = self.life;
        self.at(self.now + closed.unwrap_or(Duration::from_secs(600)), Event::Survey { life, line });
    }

    fn send(&mut self, line: usize, batch: &Batch, asked: u64) {
        self.judge_send(line, batch, asked);
        let (life, id) = (self.life, batch.id);
        let of = &mut self.lines[line];
        let parcels: Vec<Vec<usize>> = batch
            .parcels
            .iter()
            .map(|parcel| parcel.records.iter().map(|record| of.index(record.sequence_number)).collect())
            .collect();
        of.in_flight.insert(id, parcels.iter().map(Vec::len).collect());
        of.sent += 1;
        self.leaves(line, batch);
        self.after(self.lines[line].latency_ms, Event::Reaches { life, line, id, parcels, answer_lost: false });
    }

    /// The agent hears what became of a request.
    pub(super) fn told(&mut self, line: usize, id: u64, outcome: Outcome) {
        let since = self.since();
        let of = &mut self.lines[line];
        let parcels = of.in_flight.remove(&id).expect("it was under way");
        if let Outcome::Answered(outcomes) = &outcome
            && outcomes.len() == parcels.len()
        {
            let accepted = outcomes.iter().zip(parcels).filter(|(outcome, _)| **outcome == RecordOutcome::Accepted);
            of.taken += accepted.map(|(_, records)| records).sum::<usize>();
        }
        of.way_out.on_outcome(&mut of.window, id, outcome, since);
        self.judge.told(line, self.metered);
    }
}
