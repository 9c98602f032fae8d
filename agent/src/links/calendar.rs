//! What a clock on the wall shows: day, weekday and time of day, here or in UTC.

use std::{fmt, time::Duration};

use chrono::{Offset as _, TimeZone as _};
use forebay_log_store::Timestamp;
use serde::{Deserialize, Deserializer, de};

/// Minutes of a day.
pub(super) const DAY: u32 = 24 * 60;

/// Where the wall is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Default)]
#[serde(rename_all = "kebab-case")]
pub enum Zone {
    /// The machine's time zone, with its summer time.
    #[default]
    Local,
    /// UTC.
    Utc,
    /// For tests: so many minutes ahead of UTC.
    #[cfg(test)]
    #[serde(skip)]
    Ahead(u32),
}

impl Zone {
    fn seconds_ahead(self, at: Timestamp) -> i64 {
        match self {
            Self::Utc => 0,
            // A time that no calendar has is nobody's local time either.
            Self::Local => {
                let local = chrono::Local.timestamp_millis_opt(i64::try_from(at.0).unwrap_or(i64::MAX)).earliest();
                local.map_or(0, |local| i64::from(local.offset().fix().local_minus_utc()))
            }
            #[cfg(test)]
            Self::Ahead(minutes) => i64::from(minutes) * 60,
        }
    }
}

/// A moment, as the wall shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct WallTime {
    /// Minutes since 1970-01-01 00:00 on that wall.
    minutes: i64,
}

impl WallTime {
    pub(super) fn of(at: Timestamp, zone: Zone) -> Self {
        let seconds = i64::try_from(at.0 / 1000).unwrap_or(i64::MAX).saturating_add(zone.seconds_ahead(at));
        Self { minutes: seconds.div_euclid(60) }
    }

    /// A number for each day, if days begin at `begin`.
    pub(super) fn day(self, begin: TimeOfDay) -> i64 {
        (self.minutes - i64::from(begin.0)).div_euclid(i64::from(DAY))
    }

    /// The end of that day.
    pub(super) fn next(self, begin: TimeOfDay) -> Self {
        Self { minutes: (self.day(begin) + 1) * i64::from(DAY) + i64::from(begin.0) }
    }

    /// 0 is Monday.
    pub(super) fn weekday(self) -> usize {
        // 1970 began on a Thursday.
        usize::try_from((self.day(TimeOfDay(0)) + 3).rem_euclid(7)).expect("less than 7")
    }

    pub(super) fn minute_of_day(self) -> u32 {
        u32::try_from(self.minutes.rem_euclid(i64::from(DAY))).expect("less than a day")
    }

    /// How long after `at` it is.
    pub(super) fn after(self, at: Timestamp, zone: Zone) -> Duration {
        let now = i64::try_from(at.0).unwrap_or(i64::MAX).saturating_add(zone.seconds_ahead(at) * 1000);
        Duration::from_millis(u64::try_from(self.minutes * 60_000 - now).unwrap_or(0))
    }

    pub(super) fn plus(self, minutes: u32) -> Self {
        Self { minutes: self.minutes + i64::from(minutes) }
    }
}

impl fmt::Display for WallTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", WEEKDAYS[self.weekday()], TimeOfDay(self.minute_of_day()))
    }
}

/// As schedules write them.
pub(super) const WEEKDAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

/// A time of day, in minutes: `"06:30"`; `"24:00"` is the end of the day.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct TimeOfDay(pub(super) u32);

impl TimeOfDay {
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (hours, minutes) = text.split_once(':')?;
        let two_digits = |text: &str| text.len() == 2 && text.bytes().all(|b| b.is_ascii_digit());
        let number = |text: &str| two_digits(text).then(|| text.parse::<u32>().ok()).flatten();
        let minutes = number(hours)? * 60 + number(minutes).filter(|minutes| *minutes < 60)?;
        (minutes <= DAY).then_some(Self(minutes))
    }
}

impl fmt::Display for TimeOfDay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02}:{:02}", self.0 / 60, self.0 % 60)
    }
}

impl<'de> Deserialize<'de> for TimeOfDay {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| de::Error::custom(format!("`{text}` is no time of day such as \"06:30\"")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_weekdays_and_times() {
        // Sunday, 29 November 2026, 04:08:57 UTC.
        let at = Timestamp(1_795_925_337_000);
        let wall = WallTime::of(at, Zone::Utc);
        assert_eq!((wall.to_string().as_str(), wall.minute_of_day()), ("sun 04:08", 4 * 60 + 8));
        assert_eq!(WallTime::of(at, Zone::Ahead(20 * 60)).to_string(), "mon 00:08");
        let five = TimeOfDay::parse("05:00").expect("a time");
        assert_eq!(wall.day(five), wall.day(TimeOfDay(0)) - 1, "the day begins at five");
        assert_eq!(wall.next(five).to_string(), "sun 05:00");
        assert_eq!(wall.next(TimeOfDay(0)).to_string(), "mon 00:00");
        assert_eq!(WallTime::of(Timestamp(0), Zone::Utc).to_string(), "thu 00:00");
    }

    #[test]
    fn times_of_day_have_four_digits() {
        for (text, minutes) in [("00:00", Some(0)), ("23:59", Some(1439)), ("24:00", Some(1440)), ("06:30", Some(390))]
        {
            assert_eq!(TimeOfDay::parse(text).map(|time| time.0), minutes);
        }
        for text in ["", "6:30", "06:60", "24:01", "25:00", "06.30", "0630", "-1:00", "+6:00", "06:30:00"] {
            assert_eq!(TimeOfDay::parse(text), None, "{text}");
        }
    }
}
