//! What is drawn beforehand: settings, records, what goes wrong with the endpoint, and when.

use super::*;
use crate::sample::plain;

impl World {
    pub(super) fn new(seed: u64) -> Self {
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
                let key = format!("k{}", rng.u32(..keys));
                let record = record(sequence_number, &key, rng.usize(..=60 * scale as usize));
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
            log.push((record(sequence_number, "fresh", 1), Flaw::None));
        }
        // A backlog from before, of boots whose time is known or not.
        let committed = if rng.bool() { 0 } else { rng.usize(..=others) };
        let known = rng.bool();
        let mut ages: Vec<_> = (0..committed).map(|_| Duration::from_millis(rng.u64(..40_000))).collect();
        ages.sort_unstable_by_key(|age| Reverse(*age));
        let arrived = ages.into_iter().map(|age| (Arrived::Before(age), known || rng.bool())).collect();
        let mut world = Self {
            fates: vec![Fate::default(); log.len()],
            window: Window::new(&config, &limits, SequenceNumber::ZERO, &Finished::default(), rng.u64(..)),
            arrived,
            oldest: 0,
            clean_stops: 0,
            given_up: 0,
            finished_saved: Finished::default(),
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
            says_so: rng.u8(..4) == 0,
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
    pub(super) fn plan(&mut self) {
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
}

fn record(sequence_number: u64, key: &str, bytes: usize) -> Record {
    Record { sequence_number: SequenceNumber(sequence_number), ..plain(key, vec![0; bytes]) }
}

/// Whether a record is one at which the endpoint breaks for long, or has to wait for one.
pub(super) fn is_held_up(log: &[(Record, Flaw)], ordering: Ordering, index: usize) -> bool {
    let (record, flaw) = &log[index];
    let of_key =
        |(earlier, flaw): &(Record, Flaw)| *flaw == Flaw::Lasts && earlier.partition_key == record.partition_key;
    *flaw == Flaw::Lasts || ordering == Ordering::Strict && log[..index].iter().any(of_key)
}
