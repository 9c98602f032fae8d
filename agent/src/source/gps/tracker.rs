//! Decides which fixes become records: the dead band, lost fixes, geofences. Pure; `now` is any time that only goes forward.

use std::time::Duration;

use super::{
    fix::{Fix, Position},
    geofence::{Crossing, Geofence, distance},
};

/// Receivers and cables are not exact to the millisecond: a fix of every fifth second is none too soon for `min-interval = "5s"`.
const SLACK: Duration = Duration::from_millis(100);

/// Which fixes are worth a record.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct DeadBand {
    /// Metres that it has to be away from the last record.
    pub(super) min_distance: f64,
    /// Time that has to have passed since the last record.
    pub(super) min_interval: Duration,
    /// A record at least this often, wherever it is.
    pub(super) max_interval: Option<Duration>,
}

/// A record to be made of a fix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Notice {
    Position,
    FixLost,
    /// The fence of this number.
    Entered(usize),
    Left(usize),
}

/// What is remembered of the fixes before.
#[derive(Debug)]
pub(super) struct Tracker {
    dead_band: DeadBand,
    fences: Vec<Geofence>,
    inside: Vec<Option<bool>>,
    has_fix: Option<bool>,
    recorded: Option<(Position, Duration)>,
}

impl Tracker {
    pub(super) fn new(dead_band: DeadBand, fences: Vec<Geofence>) -> Self {
        let inside = vec![None; fences.len()];
        Self { dead_band, fences, inside, has_fix: None, recorded: None }
    }

    pub(super) fn fence(&self, number: usize) -> &str {
        &self.fences[number].name
    }

    /// The records to be made of a fix, in order: nothing if it is within the dead band and crosses no fence. That there is no fix is told once,
    /// the first one after that always.
    pub(super) fn on_fix(&mut self, fix: &Fix, now: Duration) -> Vec<Notice> {
        let Some(position) = fix.position else {
            return Vec::from_iter((self.has_fix.replace(false) != Some(false)).then_some(Notice::FixLost));
        };
        let is_new = self.has_fix.replace(true) != Some(true);
        let mut notices = Vec::new();
        if is_new || self.is_worth_a_record(position, now) {
            self.recorded = Some((position, now));
            notices.push(Notice::Position);
        }
        for (number, (fence, inside)) in self.fences.iter().zip(&mut self.inside).enumerate() {
            let (is_inside, crossing) = fence.crossing(*inside, position);
            *inside = Some(is_inside);
            notices.extend(crossing.map(|crossing| match crossing {
                Crossing::Entered => Notice::Entered(number),
                Crossing::Left => Notice::Left(number),
            }));
        }
        notices
    }

    /// Nothing is heard any more of the receiver; whether that is to be told.
    pub(super) fn on_silence(&mut self) -> bool {
        let had_fix = self.has_fix == Some(true);
        if had_fix {
            self.has_fix = Some(false);
        }
        had_fix
    }

    fn is_worth_a_record(&self, position: Position, now: Duration) -> bool {
        let Some((before, at)) = self.recorded else { return true };
        let passed = now.saturating_sub(at) + SLACK;
        let DeadBand { min_distance, min_interval, max_interval } = self.dead_band;
        let has_moved = min_distance <= 0.0 || distance(before, position) >= min_distance;
        (has_moved && (min_interval.is_zero() || passed >= min_interval))
            || max_interval.is_some_and(|longest| passed >= longest)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::geofence::Area, *};

    fn metres_north(metres: f64) -> Fix {
        Fix { position: Position::new(52.52 + metres * 0.000_008_993, 13.405), ..Fix::default() }
    }

    fn tracker(min_distance: f64, min_interval: u64, max_interval: Option<u64>) -> Tracker {
        let seconds = Duration::from_secs;
        let fence = Geofence {
            name: "depot".into(),
            area: Area::Circle { centre: metres_north(0.0).position.expect("one"), radius: 50.0 },
            hysteresis: 10.0,
        };
        let dead_band =
            DeadBand { min_distance, min_interval: seconds(min_interval), max_interval: max_interval.map(seconds) };
        Tracker::new(dead_band, vec![fence])
    }

    #[test]
    fn what_does_not_move_is_recorded_seldom() {
        let mut tracker = tracker(10.0, 0, Some(60));
        let recorded: Vec<u32> = (0..=120)
            .filter(|second| {
                tracker
                    .on_fix(&metres_north(2.0 * f64::from(second % 2)), Duration::from_secs(u64::from(*second)))
                    .contains(&Notice::Position)
            })
            .collect();
        assert_eq!(recorded, [0, 60, 120]);
    }

    #[test]
    fn what_moves_is_recorded_every_so_many_metres_and_not_too_often() {
        let times = |min_distance, min_interval| {
            let mut tracker = tracker(min_distance, min_interval, None);
            // 10 m/s, at 5 Hz, and a little too early each time.
            let fix_at = |tick: u32| metres_north(2.001 * f64::from(tick));
            let now = |tick: u32| Duration::from_millis(u64::from(tick) * 199);
            (0..50)
                .filter(|tick| tracker.on_fix(&fix_at(*tick), now(*tick)).contains(&Notice::Position))
                .collect::<Vec<_>>()
        };
        assert_eq!(times(20.0, 0), [0, 10, 20, 30, 40]);
        assert_eq!(times(0.0, 5), [0, 25]);
        assert_eq!(times(20.0, 5), [0, 25]);
        assert_eq!(times(0.0, 0).len(), 50);
    }

    #[test]
    fn a_lost_fix_is_told_once_and_the_next_one_always() {
        let mut tracker = tracker(1000.0, 3600, None);
        let second = Duration::from_secs;
        let lost = Fix::default();
        assert_eq!(tracker.on_fix(&lost, second(0)), [Notice::FixLost]);
        assert_eq!(tracker.on_fix(&lost, second(1)), []);
        assert!(!tracker.on_silence());
        assert_eq!(tracker.on_fix(&metres_north(0.0), second(2)), [Notice::Position, Notice::Entered(0)]);
        assert_eq!(tracker.on_fix(&metres_north(1.0), second(3)), []);
        assert!(tracker.on_silence() && !tracker.on_silence());
        assert_eq!(tracker.on_fix(&lost, second(4)), []);
        assert_eq!(tracker.on_fix(&metres_north(1.0), second(5)), [Notice::Position]);
        assert_eq!(tracker.on_fix(&metres_north(70.0), second(6)), [Notice::Left(0)]);
    }

    proptest! {
        /// No record is nearer than `min-distance` and sooner than `min-interval`, and none is missing for longer than `max-interval`.
        #[test]
        fn the_dead_band_is_kept(steps in prop::collection::vec((-30.0..30.0_f64, 1..20_u64), 1..80)) {
            let mut tracker = tracker(25.0, 5, Some(60));
            let (mut north, mut now) = (0.0, 0);
            let mut recorded: Option<(f64, u64)> = None;
            for (step, seconds) in steps {
                north += step;
                now += seconds;
                let is_recorded = tracker.on_fix(&metres_north(north), Duration::from_secs(now)).contains(&Notice::Position);
                let allowed = recorded.is_none_or(|(at, then)| {
                    ((north - at).abs() > 24.9 && now - then >= 5) || now - then >= 60
                });
                let due = recorded.is_none_or(|(at, then)| {
                    ((north - at).abs() > 25.1 && now - then >= 5) || now - then >= 60
                });
                prop_assert!(!is_recorded || allowed);
                prop_assert!(is_recorded || !due);
                if is_recorded {
                    recorded = Some((north, now));
                }
            }
        }
    }
}
