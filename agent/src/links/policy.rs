//! What one link allows: its schedule, its budget, its cap, and who goes first. Pure: times are passed in.
//!
//! A delivery asks before each request, says what it sent, and corrects that by the bytes that really passed. Limits are
//! kept by not beginning a request; one that is under way is never cut.

use std::{fmt, time::Duration};

use forebay_log_store::{ClockStatus, Timestamp};

use super::{
    bandwidth::{Bandwidth, SAVED},
    budget::{Budget, Spent},
    calendar::WallTime,
    config::{Config, WhenSpent},
    turns::Turns,
};

/// Whoever has to wait asks again after this at the latest: the wall clock may be set, and the metering change, at any time.
const ASK_AGAIN: Duration = Duration::from_secs(30);

/// How soon one asks again who has to let others go first.
const TURN: Duration = Duration::from_millis(20);

/// What passes beside requests takes about as much.
const LITTLE: u64 = 4 << 10;

/// A moment, by both clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Moment {
    /// By the monotonic clock, since some beginning.
    pub(crate) since: Duration,
    /// On the wall, if that can be trusted.
    pub(crate) wall: Option<Timestamp>,
}

impl Moment {
    /// So long after that beginning, by what is known of the time.
    pub(super) fn of(clock: ClockStatus, since: Duration) -> Self {
        Self { since, wall: clock.trusted_since.map(|_| clock.now) }
    }
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
        // What left before may turn out to be less: looking again so often, nothing of the cap is lost by that.
        let wait = bandwidth.wait(now.since).map(|wait| wait.min(SAVED));
        let first = self.turns.is_first(who, priority, now.since, now.since + wait.unwrap_or(TURN));
        match wait {
            Some(time) => Answer::Wait { time, held: if first { Held::Bandwidth } else { Held::Priority } },
            None if !first => Answer::Wait { time: TURN, held: Held::Priority },
            None => {
                self.turns.leave(who);
                Answer::Now
            }
        }
    }

    /// How long schedule and budget keep a delivery from what is no request, and is too little for the cap to matter.
    pub(super) fn closed_for(&mut self, priority: u8, now: Moment) -> Option<Duration> {
        let held = if self.metered { self.closed(priority, LITTLE, now)? } else { return None };
        Some(self.ask_again(held, now))
    }

    /// A request leaves, of about so many bytes. Returns how many of them are charged: none if the limits do not hold.
    pub(super) fn sent(&mut self, bytes: u64, now: Moment) -> u64 {
        if !self.metered {
            return 0;
        }
        if let Some(bandwidth) = &mut self.bandwidth {
            bandwidth.sent(bytes, now.since);
        }
        if let Some(budget) = &mut self.budget {
            budget.look(now);
            budget.take(bytes);
        }
        bytes
    }

    /// There were more bytes than were charged, or fewer.
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

    /// What of the budget is to be kept over a restart.
    pub(super) fn what_to_keep(&mut self, now: Moment) -> Option<Spent> {
        let budget = self.budget.as_mut()?;
        budget.look(now);
        Some(budget.to_keep())
    }

    /// Whether that is to be written now.
    pub(super) fn is_to_be_kept(&self) -> bool {
        self.budget.as_ref().is_some_and(Budget::is_to_be_kept)
    }

    /// A restart would go on from this now.
    pub(super) fn keep(&mut self, kept: Spent) {
        if let Some(budget) = &mut self.budget {
            budget.keep(kept);
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_never_charged_is_not_given_back() {
        let config: Config = toml::from_str("daily-budget = '1MB'").expect("it works");
        let mut policy = Policy::new(&config, Spent { day: None, bytes: 500_000 });
        let now = Moment { since: Duration::ZERO, wall: None };
        let mut spent_after = |metered_before, metered_after| {
            policy.set_metered(metered_before);
            let charged = policy.sent(100_000, now);
            policy.set_metered(metered_after);
            // It never got out.
            policy.correct(-charged.cast_signed());
            policy.spent(now).expect("there is a budget").0.bytes
        };
        assert_eq!(spent_after(false, true), 500_000);
        assert_eq!(spent_after(true, true), 500_000);
        assert_eq!(spent_after(false, false), 500_000);
        assert_eq!(spent_after(true, false), 600_000, "what is charged is only corrected while the limits hold");
    }

    #[test]
    fn who_waited_for_what_was_given_back_and_went_away_holds_up_nobody() {
        let config: Config = toml::from_str("bandwidth = '100B/s'").expect("it works");
        let mut policy = Policy::new(&config, Spent::default());
        let at = |seconds| Moment { since: Duration::from_secs(seconds), wall: None };
        let charged = policy.sent(100_000, at(10));
        let waits = |answer| matches!(answer, Answer::Wait { time, .. } if time <= SAVED);
        assert!(waits(policy.ask(0, 9, 1000, at(10))) && waits(policy.ask(1, 0, 1000, at(10))));
        // It never got out, and who would go first sends nothing any more.
        policy.correct(-charged.cast_signed());
        assert!(waits(policy.ask(1, 0, 1000, at(11))), "the other one may still come");
        assert_eq!(policy.ask(1, 0, 1000, at(13)), Answer::Now);
    }

    #[test]
    fn what_is_no_request_keeps_to_schedule_and_budget() {
        let config: Config =
            toml::from_str("schedule = ['22:00-06:00']\ntime-zone = 'utc'\ndaily-budget = '1MB'").expect("it works");
        let mut policy = Policy::new(&config, Spent::default());
        let at =
            |hour: u64| Moment { since: Duration::from_secs(hour * 3600), wall: Some(Timestamp(hour * 3_600_000)) };
        assert_eq!(policy.closed_for(0, at(12)), Some(ASK_AGAIN));
        assert_eq!(policy.closed_for(0, at(23)), None);
        policy.sent(1_000_000, at(23));
        assert_eq!(policy.closed_for(0, at(23)), Some(ASK_AGAIN));
        policy.set_metered(false);
        assert_eq!(policy.closed_for(0, at(12)), None);
        let nothing: Config = toml::from_str("daily-budget = '0B'").expect("it works");
        assert!(Policy::new(&nothing, Spent::default()).closed_for(0, at(12)).is_some());
    }
}
