//! What one link allows: its schedule, its budget, its cap, and who goes first. Pure: times are passed in.
//!
//! A delivery asks before each request, says what it sent, and corrects that by the bytes that really passed. Limits are
//! kept by not beginning a request; one that is under way is never cut.

use std::{fmt, time::Duration};

use forebay_log_store::Timestamp;

use super::{
    bandwidth::Bandwidth,
    budget::{Budget, Spent},
    calendar::WallTime,
    config::{Config, WhenSpent},
    turns::Turns,
};

/// Whoever has to wait asks again after this at the latest: the wall clock may be set, and the metering change, at any time.
const ASK_AGAIN: Duration = Duration::from_secs(30);

/// How soon one asks again who has to let others go first.
const TURN: Duration = Duration::from_millis(20);

/// A moment, by both clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Moment {
    /// By the monotonic clock, since some beginning.
    pub(super) since: Duration,
    /// On the wall, if that can be trusted.
    pub(super) wall: Option<Timestamp>,
}

/// Whether a request may leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// Now.
    Now,
    /// Ask again after this.
    Wait {
        /// From now.
        time: Duration,
        /// Why.
        held: Held,
    },
}

/// What holds a delivery back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Held {
    /// No window of the schedule is open.
    Schedule {
        /// When one is.
        opens: WallTime,
    },
    /// The day's bytes are spent.
    Budget {
        /// When the next day begins, if the time is known.
        until: Option<WallTime>,
        /// The same by the monotonic clock.
        time: Duration,
    },
    /// What left before has to be paid for.
    Bandwidth,
    /// Others go first.
    Priority,
}

impl Held {
    /// Whether it is short enough to be the normal course of things.
    #[must_use]
    pub fn is_brief(self) -> bool {
        matches!(self, Self::Bandwidth | Self::Priority)
    }
}

impl fmt::Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Schedule { opens } => write!(f, "outside the schedule until {opens}"),
            Self::Budget { until: Some(until), .. } => write!(f, "budget of the day spent until {until}"),
            Self::Budget { until: None, time } => {
                let minutes = time.as_secs().div_ceil(60);
                write!(
                    f,
                    "budget of the day spent for {}h {}m, while the time is not known",
                    minutes / 60,
                    minutes % 60
                )
            }
            Self::Bandwidth => f.write_str("bandwidth"),
            Self::Priority => f.write_str("others of higher priority go first"),
        }
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Policy {
    config: Config,
    /// Whether the limits hold at the moment.
    metered: bool,
    bandwidth: Option<Bandwidth>,
    budget: Option<Budget>,
    turns: Turns,
}

impl Policy {
    /// `spent` is what a run before has left behind.
    pub(super) fn new(config: &Config, spent: Spent) -> Self {
        Self {
            bandwidth: config.bandwidth.map(|rate| Bandwidth::new(rate.bytes_per_second())),
            budget: config.daily_budget.map(|bytes| Budget::new(bytes, config.reset, config.time_zone, spent)),
            // Until somebody has looked, it may be the dear one.
            metered: true,
            turns: Turns::default(),
            config: config.clone(),
        }
    }

    /// Whether delivery `who` may send so many bytes now.
    pub(super) fn ask(&mut self, who: usize, priority: u8, bytes: u64, now: Moment) -> Answer {
        if !self.metered {
            self.turns.leave(who);
            return Answer::Now;
        }
        if let Some(held) = self.closed(priority, bytes, now) {
            self.turns.leave(who);
            return Answer::Wait { time: self.ask_again(held, now), held };
        }
        let Some(bandwidth) = &self.bandwidth else { return Answer::Now };
        let wait = bandwidth.wait(now.since);
        let first = self.turns.is_first(who, priority, now.since, now.since + wait.unwrap_or(TURN));
        match wait {
            Some(time) => {
                Answer::Wait { time: time.min(ASK_AGAIN), held: if first { Held::Bandwidth } else { Held::Priority } }
            }
            None if !first => Answer::Wait { time: TURN, held: Held::Priority },
            None => {
                self.turns.leave(who);
                Answer::Now
            }
        }
    }

    /// A request leaves, of about so many bytes.
    pub(super) fn sent(&mut self, bytes: u64, now: Moment) {
        if self.metered {
            if let Some(bandwidth) = &mut self.bandwidth {
                bandwidth.sent(bytes, now.since);
            }
            if let Some(budget) = &mut self.budget {
                budget.look(now);
                budget.take(bytes);
            }
        }
    }

    /// There were more bytes than was said, or fewer.
    pub(super) fn correct(&mut self, bytes: i64) {
        if self.metered {
            if let Some(bandwidth) = &mut self.bandwidth {
                bandwidth.correct(bytes);
            }
            if let Some(budget) = &mut self.budget {
                budget.correct(bytes);
            }
        }
    }

    /// Whether the way out costs what the limits are for.
    pub(super) fn set_metered(&mut self, metered: bool) {
        self.metered = metered;
    }

    pub(super) fn is_metered(&self) -> bool {
        self.metered
    }

    /// Spent of the day's budget, and the budget.
    pub(super) fn spent(&mut self, now: Moment) -> Option<(Spent, u64)> {
        let budget = self.budget.as_mut()?;
        budget.look(now);
        Some((budget.spent(), budget.of_bytes()))
    }

    fn closed(&mut self, priority: u8, bytes: u64, now: Moment) -> Option<Held> {
        // Without a trusted time every window is open: a gateway that only learns the time over this very link would else
        // wait for ever. The budget is kept all the same.
        if let Some(wall) = now.wall.map(|wall| WallTime::of(wall, self.config.time_zone))
            && !self.config.schedule.is_open(wall)
        {
            return Some(Held::Schedule { opens: self.config.schedule.opens(wall) });
        }
        let budget = self.budget.as_mut()?;
        budget.look(now);
        let goes_on = matches!(self.config.when_spent, WhenSpent::OnlyPriority(least) if priority >= least);
        (!budget.has(bytes) && !goes_on).then(|| {
            let (until, time) = budget.ends(now);
            Held::Budget { until, time }
        })
    }

    fn ask_again(&self, held: Held, now: Moment) -> Duration {
        let until = match held {
            Held::Schedule { opens } | Held::Budget { until: Some(opens), .. } => {
                now.wall.map(|wall| opens.after(wall, self.config.time_zone))
            }
            Held::Budget { time, .. } => Some(time),
            Held::Bandwidth | Held::Priority => None,
        };
        until.unwrap_or(ASK_AGAIN).clamp(TURN, ASK_AGAIN)
    }
}
