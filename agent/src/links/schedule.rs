//! When a link may be used: windows of the week. Pure.

use std::fmt;

use serde::{Deserialize, Deserializer, de};

use super::calendar::{DAY, TimeOfDay, WEEKDAYS, WallTime};

/// Minutes of a week.
const WEEK: u32 = 7 * DAY;

/// `"mon-fri 22:00-06:00"`: on which days a window begins, when, and how long it lasts. Without days: on all of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Window {
    days: [bool; 7],
    begin: TimeOfDay,
    minutes: u32,
    text: String,
}

/// Windows; without any, it is always open.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(transparent)]
pub struct Schedule {
    windows: Vec<Window>,
}

impl Schedule {
    pub(super) fn is_open(&self, at: WallTime) -> bool {
        self.windows.is_empty() || self.windows.iter().any(|window| window.is_open(at))
    }

    /// When it opens next, if it is closed now.
    pub(super) fn opens(&self, at: WallTime) -> WallTime {
        let now = week_minute(at.weekday(), at.minute_of_day());
        let begins = self.windows.iter().flat_map(|window| {
            let begin = window.begin.0;
            (0..7).filter(|day| window.days[*day]).map(move |day| week_minute(day, begin))
        });
        at.plus(begins.map(|begin| (begin + WEEK - now) % WEEK).min().unwrap_or(0))
    }

    /// Windows that say nothing new, or not all that they say: each one's place, and why. Those of other days may overlap: the
    /// night of a Friday and all of Saturday are written like that.
    pub(super) fn in_vain(&self) -> Vec<(usize, String)> {
        let minutes: Vec<_> = self.windows.iter().map(Window::minutes).collect();
        let in_vain = |place: usize| {
            let (window, own) = (&self.windows[place], &minutes[place]);
            let others = || self.windows.iter().zip(&minutes).enumerate().filter(|(other, _)| *other != place);
            let around = others().find(|(other, (_, theirs))| {
                let adds_nothing = own.iter().zip(*theirs).all(|(own, theirs)| own & !theirs == 0);
                adds_nothing && (own != *theirs || *other < place)
            });
            if let Some((_, (other, theirs))) = around {
                let how = if own == theirs { "is the same as" } else { "adds nothing to" };
                return Some(format!("`{window}` {how} `{other}`"));
            }
            let mut before = others().take(place).filter(|(_, (other, _))| other.days == window.days);
            let (_, (other, _)) = before.find(|(_, (_, theirs))| {
                let shared = || own.iter().zip(*theirs).map(|(own, theirs)| own & theirs);
                shared().any(|minutes| minutes != 0) && shared().zip(*theirs).any(|(shared, theirs)| shared != *theirs)
            })?;
            Some(format!("`{window}` overlaps with `{other}`: one window can say both"))
        };
        (0..self.windows.len()).filter_map(|place| Some((place, in_vain(place)?))).collect()
    }

    /// Whether there are windows, and they leave out nothing.
    pub(super) fn is_always_open(&self) -> bool {
        let mut open = vec![0; WEEK.div_ceil(u64::BITS) as usize];
        for window in &self.windows {
            open.iter_mut().zip(window.minutes()).for_each(|(open, minutes)| *open |= minutes);
        }
        open.iter().map(|minutes: &u64| minutes.count_ones()).sum::<u32>() == WEEK
    }

    /// Whether there is nothing to keep.
    pub(super) fn is_empty(&self) -> bool {
        self.windows.is_empty()
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let texts: Vec<_> = self.windows.iter().map(ToString::to_string).collect();
        f.write_str(&texts.join(", "))
    }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn week_minute(day: usize, minute: u32) -> u32 {
    (u32::try_from(day).expect("less than 7") * DAY + minute) % WEEK
}

impl Window {
    fn parse(text: &str) -> Option<Self> {
        let (days, times) = match text.trim().rsplit_once(' ') {
            Some((days, times)) => (parse_days(days)?, times),
            None => ([true; 7], text.trim()),
        };
        let (begin, end) = times.split_once('-')?;
        let (begin, end) = (TimeOfDay::parse(begin)?, TimeOfDay::parse(end)?);
        // The end of one day is the beginning of another: as a beginning it would only be a riddle.
        let minutes = if end > begin { end.0 - begin.0 } else { end.0 + DAY - begin.0 };
        (begin.0 < DAY && begin != end).then(|| Self { days, begin, minutes, text: text.trim().to_owned() })
    }

    fn is_open(&self, at: WallTime) -> bool {
        self.has(at.weekday(), at.minute_of_day())
    }

    fn has(&self, today: usize, minute: u32) -> bool {
        let since_today = minute.checked_sub(self.begin.0).is_some_and(|since| since < self.minutes);
        let since_yesterday = minute + DAY - self.begin.0 < self.minutes;
        self.days[today] && since_today || self.days[(today + 6) % 7] && since_yesterday
    }

    /// A bit for each minute of the week.
    fn minutes(&self) -> Vec<u64> {
        let mut minutes = vec![0; WEEK.div_ceil(u64::BITS) as usize];
        for minute in 0..WEEK {
            if self.has((minute / DAY) as usize, minute % DAY) {
                minutes[(minute / u64::BITS) as usize] |= 1 << (minute % u64::BITS);
            }
        }
        minutes
    }
}

/// `mon-fri`, `sat,sun`, `mon,wed-fri`; `fri-mon` goes over the week's end.
fn parse_days(text: &str) -> Option<[bool; 7]> {
    let mut days = [false; 7];
    let day = |name: &str| WEEKDAYS.iter().position(|day| day.eq_ignore_ascii_case(name));
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (mut first, last) = (day(first.trim())?, day(last.trim())?);
        days[first] = true;
        while first != last {
            first = (first + 1) % 7;
            days[first] = true;
        }
    }
    Some(days)
}

impl<'de> Deserialize<'de> for Window {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| {
            de::Error::custom(format!(
                "`{text}` is no window such as \"22:00-06:00\", \"mon-fri 22:00-06:00\" or \"sat,sun 00:00-24:00\""
            ))
        })
    }
}

#[cfg(test)]
mod tests {
    use forebay_log_store::Timestamp;
    use proptest::prelude::*;

    use super::{super::calendar::Zone, *};

    fn schedule(windows: &[&str]) -> Schedule {
        let windows = windows.iter().map(|text| Window::parse(text).unwrap_or_else(|| panic!("{text}"))).collect();
        Schedule { windows }
    }

    /// So many minutes after Monday, 00:00.
    fn at(minutes: u64) -> WallTime {
        WallTime::of(Timestamp((4 * 24 * 60 + minutes) * 60_000), Zone::Utc)
    }

    #[test]
    fn a_night_belongs_to_the_day_on_which_it_begins() {
        let nights = schedule(&["mon-fri 22:00-06:00"]);
        for (day, hour, open) in [
            (0, 5, false),
            (0, 22, true),
            (1, 5, true),
            (1, 6, false),
            (4, 23, true),
            (5, 5, true),
            (5, 22, false),
            (6, 3, false),
        ] {
            assert_eq!(nights.is_open(at((day * 24 + hour) * 60)), open, "{day} {hour}");
        }
        assert_eq!(nights.opens(at((5 * 24 + 6) * 60)).to_string(), "mon 22:00");
        assert_eq!(nights.opens(at(12 * 60)).to_string(), "mon 22:00");
    }

    #[test]
    fn several_windows_and_none() {
        let weekend = schedule(&["12:00-13:00", "sat,sun 00:00-24:00"]);
        assert!(weekend.is_open(at((5 * 24 + 3) * 60)) && weekend.is_open(at(12 * 60 + 59)));
        assert!(!weekend.is_open(at(13 * 60)) && !weekend.is_open(at(7 * 24 * 60)));
        assert_eq!(weekend.opens(at((4 * 24 + 13) * 60)).to_string(), "sat 00:00");
        assert!(Schedule::default().is_open(at(0)));
    }

    #[test]
    fn a_schedule_may_leave_out_nothing() {
        for (windows, always) in [
            (&[][..], false),
            (&["00:00-24:00"], true),
            (&["mon-sun 00:00-23:59"], false),
            (&["22:00-06:00", "06:00-22:00"], true),
            (&["mon-thu 06:00-23:00", "fri-wed 00:00-24:00", "thu 00:00-12:00", "thu 12:00-24:00"], true),
        ] {
            assert_eq!(schedule(windows).is_always_open(), always, "{windows:?}");
        }
    }

    #[test]
    fn what_is_no_window() {
        for text in [
            "",
            "mon",
            "22:00",
            "mon 22:00",
            "mon-fri",
            "mo 22:00-23:00",
            "22:00-22:00",
            "24:00-01:00",
            "mon- 1:00-2:00",
        ] {
            assert_eq!(Window::parse(text), None, "{text}");
        }
        assert_eq!(parse_days("FRI-mon"), Some([true, false, false, false, true, true, true]));
    }

    proptest! {
        #[test]
        fn it_opens_when_it_says_and_not_before(
            begin in 0..DAY, minutes in 1..=DAY, days in any::<[bool; 7]>(), now in 0_u64..20_160,
        ) {
            prop_assume!(days.contains(&true));
            let window = Window { days, begin: TimeOfDay(begin), minutes, text: String::new() };
            let schedule = Schedule { windows: vec![window] };
            prop_assume!(!schedule.is_open(at(now)));
            let opens = schedule.opens(at(now));
            let first = (now..).map(at).find(|at| schedule.is_open(*at));
            prop_assert_eq!(first, Some(opens));
        }
    }
}
