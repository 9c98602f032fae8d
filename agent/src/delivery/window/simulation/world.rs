//! What happens, one thing after the other.

use super::*;

pub(super) struct World {
    pub(super) rng: Rng,
    pub(super) config: Config,
    pub(super) limits: Limits,
    pub(super) kind: Parcels,
    pub(super) shards: Shards,
    /// The map that the lanes follow, and a newer one.
    pub(super) map: Option<Shards>,
    pub(super) new_map: Option<Shards>,
    pub(super) next_shard: u32,
    pub(super) reshards: u64,
    pub(super) astray: u64,
    pub(super) parcels: u64,
    pub(super) sent: u64,
    pub(super) log: Vec<(Record, Flaw)>,
    /// No record takes more of the window.
    pub(super) largest: u64,
    /// How long before the beginning each record arrived, or when in it; and whether the log knows.
    pub(super) arrived: Vec<(Arrived, bool)>,
    /// The oldest record that the log still has.
    pub(super) oldest: usize,
    pub(super) fates: Vec<Fate>,
    pub(super) committed: usize,
    pub(super) moods: Vec<(Duration, Mood)>,
    /// Whether it has refused everything at some time so far.
    pub(super) refused_all: bool,
    pub(super) refused_all_until: Option<Duration>,
    pub(super) healthy_since: Duration,
    /// Whether there may be records at which it breaks for long.
    pub(super) lasts: bool,
    /// Whether it breaks at them by saying so in its answers.
    pub(super) says_so: bool,

    pub(super) now: Duration,
    pub(super) events: BinaryHeap<Reverse<(Duration, u64, usize)>>,
    pub(super) pending: Vec<Option<Event>>,
    /// When there will be a tick.
    pub(super) ticks: BTreeSet<Duration>,
    pub(super) window: Window,
    /// Which start of the process this is.
    pub(super) life: u32,
    pub(super) stopping: bool,
    pub(super) saved: Vec<SequenceNumber>,
    /// Stops after which something was known to be finished, and those of them that gave up requests or letters.
    pub(super) clean_stops: u64,
    pub(super) given_up: u64,
    /// What is finished by what is on the disk, and by what may be.
    pub(super) finished_saved: Finished,
    pub(super) finished_unsure: Option<Finished>,
    /// Finished in this life, or known to be at its beginning.
    pub(super) finished: BTreeSet<usize>,
    /// What the window holds; of that, what it was told to be finished.
    pub(super) held: BTreeSet<SequenceNumber>,
    pub(super) resolved: BTreeSet<SequenceNumber>,
    /// Records that expired in this life, and how many of them it told.
    pub(super) expired: u64,
    pub(super) told: u64,
    /// Where each life's stretches begin.
    pub(super) boundaries: Vec<BTreeSet<SequenceNumber>>,
    pub(super) leaps: u64,
    pub(super) given_back: u64,
    pub(super) overtakes: u64,
    pub(super) spared: u64,
    pub(super) in_flight: HashMap<u64, Vec<usize>>,
    /// Those under way, by the outage that they belong to.
    pub(super) probes: HashMap<u64, Duration>,
    pub(super) witnesses: BTreeSet<(u32, u64)>,
    pub(super) reaching_witness: bool,
    /// Records that were passed or buried although only the endpoint was at fault.
    pub(super) wronged: u64,
    /// Records that waited to the last for one at which the endpoint breaks, and keys that left their lanes.
    pub(super) held_up: u64,
    pub(super) parted: usize,
    /// Requests that will get no answer.
    pub(super) hanging: BTreeSet<u64>,
    /// A request has to reach the endpoint by then, because the link is back.
    pub(super) promised: Option<Duration>,
    /// Whether it was told that the endpoint is down, and that nothing more is read, and not that this is over.
    pub(super) heard: (bool, bool),
    pub(super) requests: u64,
}

impl World {
    pub(super) fn at(&mut self, time: Duration, event: Event) {
        self.pending.push(Some(event));
        let index = self.pending.len() - 1;
        // Events of the same time come in any order.
        self.events.push(Reverse((time, self.rng.u64(..), index)));
    }

    pub(super) fn after(&mut self, max_ms: u64, event: Event) {
        let delay = Duration::from_micros(self.rng.u64(..=max_ms * 1000));
        self.at(self.now + delay, event);
    }

    pub(super) fn run(mut self) -> Self {
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

    pub(super) fn tell(&self) -> String {
        format!("{:?} {:?}\n{:#?}", self.config, self.limits, self.window)
    }

    pub(super) fn happen(&mut self, event: Event) {
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
                if let Some(finished) = self.finished_unsure.take_if(|_| life == self.life)
                    && durable
                {
                    self.finished_saved = finished;
                }
                if life == self.life {
                    self.window.on_finished_saved(durable);
                }
            }
            Event::Buried { life, letters, durable } if life == self.life => self.buried(letters, durable),
            // They may have reached the disk all the same.
            Event::Buried { letters, durable, .. } if durable => self.judge_letters(letters),
            Event::Buried { .. } => {}
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
