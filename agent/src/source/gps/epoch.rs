//! Puts the sentences of one epoch together. Pure.
//!
//! Sentences that say the time tell epochs apart; those that do not belong to the epoch that is under way. A sentence of a
//! kind that the epoch has already, without a time, begins the next one. So does silence, which the caller notices.
//!
//! Only RMC and ZDA say the date; for an epoch without them it is reckoned from the last one that had it.

use chrono::{NaiveDate, NaiveTime, TimeDelta};

use super::{
    fix::{Fix, Position},
    nmea::{Kind, Part},
};

/// An epoch under way, and what is remembered from the one before.
#[derive(Debug, Default)]
pub(super) struct Epochs {
    current: Draft,
    /// The kinds and the time of the epoch that was given last: what comes late belongs to it.
    given: Option<(NaiveTime, Vec<Kind>)>,
    /// The newest date that is known, and the time of day that belongs to it.
    known: Option<(NaiveDate, NaiveTime)>,
}

#[derive(Debug, Default)]
struct Draft {
    kinds: Vec<Kind>,
    time: Option<NaiveTime>,
    date: Option<NaiveDate>,
    valid: Option<bool>,
    position: Option<Position>,
    /// Those that GSA counts, for receivers that say it nowhere else; one for each constellation.
    counted: Option<u32>,
    fix: Fix,
}

impl Epochs {
    /// Takes a sentence; gives the epoch before, if this is the first of another.
    pub(super) fn take(&mut self, part: Part) -> Option<Fix> {
        let repeats = part.kind != Kind::Gsa && self.current.kinds.contains(&part.kind);
        let is_next = match (self.current.time, part.time) {
            (Some(current), Some(time)) => current != time,
            _ => repeats,
        };
        let given = if is_next { self.flush() } else { None };
        let is_late = self.current.kinds.is_empty()
            && self.given.as_ref().is_some_and(|(time, kinds)| Some(*time) == part.time && !kinds.contains(&part.kind));
        if !is_late {
            self.current.take(part);
        }
        given
    }

    /// Whether an epoch is under way.
    pub(super) fn is_pending(&self) -> bool {
        !self.current.kinds.is_empty()
    }

    /// Gives the epoch that is under way: nothing more of it comes. One that said nothing of a fix is none.
    pub(super) fn flush(&mut self) -> Option<Fix> {
        let draft = std::mem::take(&mut self.current);
        if let (Some(date), Some(time)) = (draft.date, draft.time) {
            self.known = Some((date, time));
        }
        self.given = draft.time.map(|time| (time, draft.kinds));
        let valid = draft.valid?;
        let time = draft.time.and_then(|time| self.time_of(draft.date, time));
        if valid && let Some(position) = draft.position {
            let satellites = draft.fix.satellites.or(draft.counted);
            return Some(Fix { time, position: Some(position), satellites, ..draft.fix });
        }
        Some(Fix { time, satellites: draft.fix.satellites, ..Fix::default() })
    }

    fn time_of(&mut self, date: Option<NaiveDate>, time: NaiveTime) -> Option<u64> {
        let date = match (date, self.known) {
            (Some(date), _) => date,
            (None, None) => return None,
            (None, Some((date, before))) => {
                // Past midnight, and not a sentence that came out of turn.
                let date = if before - time > TimeDelta::hours(12) { date.succ_opt()? } else { date };
                self.known = Some((date, time));
                date
            }
        };
        u64::try_from(date.and_time(time).and_utc().timestamp_millis()).ok()
    }
}

impl Draft {
    fn take(&mut self, part: Part) {
        // Several constellations and talkers say the same of one epoch.
        if !self.kinds.contains(&part.kind) {
            self.kinds.push(part.kind);
        }
        self.time = self.time.or(part.time);
        self.date = part.date.or(self.date);
        // If they differ, the warning counts.
        self.valid = match (self.valid, part.valid) {
            (Some(one), Some(other)) => Some(one && other),
            (one, other) => one.or(other),
        };
        self.position = self.position.or(part.position);
        let fix = &mut self.fix;
        fix.altitude = fix.altitude.or(part.altitude);
        fix.speed = fix.speed.or(part.speed);
        fix.course = fix.course.or(part.course);
        fix.hdop = fix.hdop.or(part.hdop);
        fix.mode = fix.mode.max(part.mode);
        // GGA tells apart what the letter in RMC does not, RTK and PPS.
        fix.quality = if part.kind == Kind::Gga { part.quality.or(fix.quality) } else { fix.quality.or(part.quality) };
        if part.kind == Kind::Gsa {
            self.counted = Some(self.counted.unwrap_or(0).saturating_add(part.satellites.unwrap_or(0)));
        } else {
            fix.satellites = fix.satellites.or(part.satellites);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{
        super::{
            fix::{Mode, Quality},
            nmea::{read, sentence},
        },
        *,
    };

    fn say(epochs: &mut Epochs, body: &str) -> Option<Fix> {
        epochs.take(read(sentence(body).as_bytes()).outcome.expect(body).expect(body))
    }

    const MIDNIGHT_2026_11_26: u64 = 1_795_651_200_000;

    #[test]
    fn sentences_of_one_time_are_one_fix() {
        let mut epochs = Epochs::default();
        for body in [
            "GNRMC,235959.00,A,5231.2,N,01324.3,E,19.44,270.5,251126,,,A",
            "GNVTG,270.5,T,,M,19.44,N,36.0,K,A",
            "GNGGA,235959.00,5231.2,N,01324.3,E,4,08,0.9,34.5,M,45,M,,",
            "GNGSA,A,3,01,02,03,04,,,,,,,,,1.5,0.9,1.2,1",
            "GNGSA,A,3,65,66,,,,,,,,,,,1.5,0.9,1.2,2",
        ] {
            assert_eq!(say(&mut epochs, body), None, "{body}");
        }
        let fix =
            say(&mut epochs, "GNGGA,000000.00,5231.2,N,01324.3,E,1,08,0.9,34.5,M,45,M,,").expect("the one before");
        assert_eq!(fix.time, Some(MIDNIGHT_2026_11_26 - 1000));
        assert_eq!((fix.mode, fix.quality, fix.satellites), (Some(Mode::Spatial), Some(Quality::Rtk), Some(8)));
        assert!((fix.speed.expect("a speed") - 10.0).abs() < 0.01 && fix.course == Some(270.5));
        // The day after has begun, which GGA does not say.
        let fix = epochs.flush().expect("a fix");
        assert_eq!((fix.time, fix.speed, fix.mode), (Some(MIDNIGHT_2026_11_26), None, None));
        assert!(!epochs.is_pending() && epochs.flush().is_none());
    }

    #[test]
    fn what_comes_after_the_silence_is_late_and_no_second_fix() {
        let mut epochs = Epochs::default();
        say(&mut epochs, "GNRMC,120000.00,A,5231.2,N,01324.3,E,19.44,270.5,251126,,,A");
        assert!(epochs.flush().is_some());
        say(&mut epochs, "GNGGA,120000.00,5231.2,N,01324.3,E,1,08,0.9,34.5,M,45,M,,");
        assert!(!epochs.is_pending());
        // A receiver whose time stands still is heard all the same.
        say(&mut epochs, "GNRMC,120000.00,A,5231.2,N,01324.3,E,19.44,270.5,251126,,,A");
        assert!(epochs.flush().is_some());
    }

    #[test]
    fn without_a_fix_there_is_no_position_whatever_stands_in_it() {
        let mut epochs = Epochs::default();
        say(&mut epochs, "GPRMC,120000.00,V,5231.2,N,01324.3,E,,,251126,,,N");
        say(&mut epochs, "GPGGA,120000.00,5231.2,N,01324.3,E,1,03,9.9,34.5,M,45,M,,");
        let fix = epochs.flush().expect("an epoch");
        assert_eq!((fix.position, fix.satellites), (None, Some(3)));
        // A receiver that knows nothing says no time: the same sentence again is the next epoch.
        assert_eq!(say(&mut epochs, "GPRMC,,V,,,,,,,,,,N"), None);
        assert_eq!(say(&mut epochs, "GPRMC,,V,,,,,,,,,,N"), Some(Fix::default()));
        // What says nothing of a fix is none.
        let mut epochs = Epochs::default();
        say(&mut epochs, "GNVTG,270.5,T,,M,19.44,N,36.0,K,A");
        assert!(epochs.is_pending() && epochs.flush().is_none());
    }

    proptest! {
        /// Whatever the order within an epoch: as many fixes as times, each with its own time.
        #[test]
        fn every_epoch_is_one_fix(orders in prop::collection::vec(Just(vec![0, 1, 2, 3]).prop_shuffle(), 1..20)) {
            let mut epochs = Epochs::default();
            let mut found = Vec::new();
            for (second, order) in orders.iter().enumerate() {
                for which in order {
                    let body = match which {
                        0 => format!("GPRMC,1200{second:02}.00,A,5231.2,N,01324.3,E,1.0,,251126,,,A"),
                        1 => format!("GPGGA,1200{second:02}.00,5231.2,N,01324.3,E,1,08,0.9,34.5,M,45,M,,"),
                        2 => format!("GPGLL,5231.2,N,01324.3,E,1200{second:02}.00,A,A"),
                        _ => "GPGSA,A,3,01,02,03,04,,,,,,,,,1.5,0.9,1.2".to_owned(),
                    };
                    found.extend(say(&mut epochs, &body));
                }
            }
            found.extend(epochs.flush());
            let noon = MIDNIGHT_2026_11_26 - 12 * 3_600_000;
            let wanted: Vec<_> = (0..orders.len() as u64).map(|second| Some(noon + second * 1000)).collect();
            let times: Vec<_> = found.iter().map(|fix| fix.time).collect();
            prop_assert_eq!(times, wanted);
        }
    }
}
