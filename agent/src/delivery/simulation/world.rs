//! What happens, one thing after the other; and the agent, which is killed, stopped and started again.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    sync::{Arc, Mutex},
    time::Duration,
};

use fastrand::Rng;
use forebay_log_store::{SequenceNumber, Timestamp};
use futures_util::FutureExt as _;
use tokio::sync::Notify;

use super::{
    Totals,
    judge::Judge,
    line::{Line, Read},
    plan::Limit,
};
use crate::{
    delivery::window::{Finished, Window},
    destination::Outcome,
    links::{Link, Moment, Spent},
};

/// As in `Links::run`.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Monday, 2 November 2026, 00:00 UTC.
const BEGIN: u64 = 1_793_577_600_000;

#[derive(Debug)]
pub(super) enum Event {
    Commit {
        line: usize,
        records: usize,
    },
    /// The endpoint behaves otherwise from now on.
    Mood,
    Kill,
    /// The same, announced.
    Stop,
    Start,
    Metered(bool),
    /// An interface comes up.
    Interface,
    Read {
        life: u32,
        line: usize,
        read: Read,
    },
    Reaches {
        life: u32,
        line: usize,
        id: u64,
        parcels: Vec<Vec<usize>>,
        answer_lost: bool,
    },
    Told {
        life: u32,
        line: usize,
        id: u64,
        outcome: Outcome,
    },
    Buried {
        life: u32,
        line: usize,
        letters: Vec<usize>,
        durable: bool,
    },
    /// What is finished beyond the checkpoint reached the disk, or did not.
    Saved {
        life: u32,
        line: usize,
        finished: Finished,
        durable: bool,
    },
    /// What is spent has reached the disk.
    Kept {
        life: u32,
        spent: Spent,
    },
    /// The destination asks for its shards.
    /// It is looked at what is spent.
    Look {
        life: u32,
    },
    Survey {
        life: u32,
        line: usize,
    },
    Tick {
        life: u32,
        line: usize,
    },
}

pub(super) struct World {
    pub(super) rng: Rng,
    pub(super) limit: Limit,
    pub(super) lines: Vec<Line>,
    pub(super) now: Duration,
    events: BinaryHeap<Reverse<(Duration, u64, usize)>>,
    pending: Vec<Option<Event>>,

    /// Which start of the agent this is, when it was, and whether it runs.
    pub(super) life: u32,
    pub(super) born: Duration,
    pub(super) runs: bool,
    /// When the clock is trusted in each life.
    pub(super) trusted_after: Duration,
    clock: Arc<Mutex<Moment>>,
    pub(super) link: Arc<Link>,
    /// Is told that more is spent than is on the disk.
    spending: Arc<Notify>,
    /// When it is looked at untold, and whether there will be an event for it.
    look_at: Duration,
    looks: bool,
    /// What is on the disk of what is spent, and whether it is being written.
    kept: Spent,
    keeping: bool,
    pub(super) metered: bool,

    pub(super) judge: Judge,
    pub(super) totals: Totals,
}

impl World {
    pub(super) fn new(seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let limit = Limit::draw(&mut rng);
        let lines = (0..rng.usize(1..=3)).map(|number| Line::draw(number, &limit, &mut rng)).collect::<Vec<_>>();
        let clock = Arc::new(Mutex::new(Moment { since: Duration::ZERO, wall: None }));
        let trusted_after = match rng.u8(..6) {
            0 => Duration::from_secs(rng.u64(1..=6 * 3600)),
            1 => Duration::MAX,
            _ => Duration::ZERO,
        };
        let mut world = Self {
            link: link(&limit, Spent::default(), &clock, &Arc::default()),
            spending: Arc::default(),
            look_at: Duration::ZERO,
            looks: false,
            judge: Judge::new(lines.len()),
            limit,
            lines,
            now: Duration::ZERO,
            events: BinaryHeap::new(),
            pending: Vec::new(),
            life: 0,
            born: Duration::ZERO,
            runs: false,
            trusted_after,
            clock,
            kept: Spent::default(),
            keeping: false,
            metered: true,
            totals: Totals::default(),
            rng,
        };
        world.plan();
        world.start();
        world
    }

    pub(super) fn at(&mut self, time: Duration, event: Event) {
        self.pending.push(Some(event));
        // Events of the same time come in any order.
        self.events.push(Reverse((time, self.rng.u64(..), self.pending.len() - 1)));
    }

    pub(super) fn after(&mut self, max_ms: u64, event: Event) {
        let delay = Duration::from_micros(self.rng.u64(..=max_ms * 1000));
        self.at(self.now + delay, event);
    }

    /// Since the agent was started.
    pub(super) fn since(&self) -> Duration {
        self.now - self.born
    }

    pub(super) fn run(mut self) -> Totals {
        let deadline = self.deadline();
        while let Some(Reverse((time, _, index))) = self.events.pop() {
            self.judge_flow(time);
            self.now = time;
            self.look_at_clocks();
            let event = self.pending[index].take().expect("each event happens once");
            self.happen(event);
            self.keep();
            self.judge_spent();
            if self.is_over() {
                break;
            }
            assert!(self.now < deadline, "no end after {:?}: {}", self.now, self.tell());
        }
        self.judge_all();
        self.totals
    }

    fn look_at_clocks(&mut self) {
        let since = self.since();
        let wall = (since >= self.trusted_after).then(|| Timestamp(BEGIN + self.now.as_millis() as u64));
        *self.clock.lock().expect("no panic while it is held") = Moment { since, wall };
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Commit { line, records } => {
                self.lines[line].commit(records, self.now);
                self.drive_if_it_runs(line);
            }
            Event::Mood => {}
            Event::Kill | Event::Stop if !self.runs => {}
            Event::Kill => self.end(false),
            Event::Stop => self.end(true),
            Event::Start => self.start(),
            Event::Metered(metered) => {
                self.metered = metered;
                self.judge_unsure();
                self.link.set_metered("modem", metered);
            }
            Event::Interface => {
                let since = self.since();
                for line in 0..self.lines.len() {
                    self.lines[line].window.probe_now(since);
                    self.drive_if_it_runs(line);
                }
            }
            // Whatever the agent has sent arrives, even if that is no more.
            Event::Reaches { life, line, id, parcels, answer_lost } => {
                self.reaches(life, line, id, &parcels, answer_lost);
            }
            Event::Buried { life, line, letters, durable } => {
                if durable {
                    self.lines[line].bury(&letters);
                }
                if life == self.life && self.runs {
                    let since = self.since();
                    self.lines[line].window.on_dead_letters(durable, since);
                    self.drive(line);
                }
            }
            Event::Saved { life, line, finished, durable } => {
                if durable && (life == self.life || self.rng.bool()) {
                    self.lines[line].finished = finished;
                }
                if life == self.life && self.runs {
                    self.lines[line].window.on_finished_saved(durable);
                    self.drive(line);
                }
            }
            Event::Read { life, .. }
            | Event::Told { life, .. }
            | Event::Kept { life, .. }
            | Event::Survey { life, .. }
            | Event::Look { life }
            | Event::Tick { life, .. }
                if life != self.life || !self.runs => {}
            Event::Read { line, read, .. } => {
                self.on_read(line, read);
                self.drive(line);
            }
            Event::Told { line, id, outcome, .. } => {
                self.told(line, id, outcome);
                self.drive(line);
            }
            Event::Kept { spent, .. } => {
                (self.kept, self.keeping) = (spent, false);
                self.link.keep(spent);
            }
            Event::Survey { line, .. } => self.survey(line),
            // It is looked at after each event.
            Event::Look { .. } => self.looks = false,
            Event::Tick { line, .. } => self.drive(line),
        }
    }

    fn drive_if_it_runs(&mut self, line: usize) {
        if self.runs {
            self.drive(line);
        }
    }

    /// What `Links::run` does, when it is told and every few seconds.
    fn keep(&mut self) {
        if !self.runs || self.keeping {
            return;
        }
        let told = self.spending.notified().now_or_never().is_some();
        if !told && self.now < self.look_at {
            if !self.looks && self.link.to_keep(false).is_some_and(|(_, is_due)| is_due) {
                self.looks = true;
                self.at(self.look_at, Event::Look { life: self.life });
            }
            return;
        }
        (self.looks, self.look_at) = (false, self.now + LOOK_EVERY);
        if let Some((spent, true)) = self.link.to_keep(false) {
            self.keeping = true;
            let life = self.life;
            self.after(100, Event::Kept { life, spent });
        }
    }

    /// The agent is no more, for a while.
    fn end(&mut self, announced: bool) {
        self.judge_life();
        if announced {
            self.totals.stops += 1;
            self.kept = self.link.to_keep(true).expect("there is a budget").0;
        } else {
            self.totals.kills += 1;
        }
        self.runs = false;
        for line in &mut self.lines {
            line.end(announced, &mut self.rng);
        }
        let down = if self.rng.bool() { 0 } else { self.rng.u64(..=3_600_000) };
        self.after(down, Event::Start);
    }

    fn start(&mut self) {
        self.life += 1;
        (self.born, self.runs, self.keeping) = (self.now, true, false);
        self.look_at_clocks();
        self.spending = Arc::default();
        self.link = link(&self.limit, self.kept, &self.clock, &self.spending);
        (self.looks, self.look_at) = (false, self.now);
        self.link.set_metered("modem", self.metered);
        self.judge.begin(self.kept, self.now);
        for line in 0..self.lines.len() {
            let seed = self.rng.u64(..);
            self.lines[line].start(&self.link, seed);
            if self.lines[line].surveys() {
                let life = self.life;
                self.after(2000, Event::Survey { life, line });
            }
            self.drive(line);
        }
    }

    /// Everything has happened that was planned, and everything is delivered.
    pub(super) fn is_over(&self) -> bool {
        self.runs && self.now >= self.limit.planned && self.lines.iter().all(Line::is_done)
    }

    pub(super) fn tell(&self) -> String {
        let lines: Vec<_> = self.lines.iter().map(Line::tell).collect();
        format!(
            "{:?} at {:?} (life {} from {:?}), {:?}\n{}",
            self.limit,
            self.now,
            self.life,
            self.born,
            self.link,
            lines.join("\n")
        )
    }
}

fn link(limit: &Limit, spent: Spent, clock: &Arc<Mutex<Moment>>, spending: &Arc<Notify>) -> Arc<Link> {
    let clock = Arc::clone(clock);
    let now = move || *clock.lock().expect("no panic while it is held");
    Arc::new(Link::new(&limit.config(), spent, now, spending))
}

/// A window that begins behind `checkpoint`.
pub(super) fn window(line: &Line, checkpoint: SequenceNumber, seed: u64) -> Window {
    Window::new(&line.config, &line.limits, checkpoint, &line.finished, seed)
}
