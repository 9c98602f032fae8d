//! gpsd's JSON protocol (<https://gpsd.gitlab.io/gpsd/gpsd_json.html>): its reports, and fixes made of them. Pure.
//!
//! gpsd reports a position (TPV) more than once in an epoch while it does not know yet with which sentence an epoch ends; the last one of a
//! time counts. What it says of the satellites (SKY) is kept for the fixes that follow.

use serde::Deserialize;

use super::fix::{Fix, Mode, Position, Quality, finite};

/// Longest line: a SKY of a hundred satellites has some 10 KB.
pub(super) const LINE_BYTES_MAX: usize = 64 * 1024;

/// What gpsd is asked for.
pub(super) fn watch(device: Option<&str>) -> String {
    let watch = match device {
        Some(device) => serde_json::json!({"enable": true, "json": true, "device": device}),
        None => serde_json::json!({"enable": true, "json": true}),
    };
    format!("?WATCH={watch};\n")
}

/// A line of gpsd.
#[derive(Debug, PartialEq, Deserialize)]
#[serde(tag = "class")]
pub(super) enum Report {
    #[serde(rename = "VERSION")]
    Version { release: Option<String> },
    #[serde(rename = "TPV")]
    Position(Tpv),
    #[serde(rename = "SKY")]
    Sky(Sky),
    #[serde(rename = "ERROR")]
    Error { message: Option<String> },
    #[serde(other)]
    Other,
}

/// Time, position, velocity.
#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(super) struct Tpv {
    device: Option<String>,
    /// 0 and 1: no fix; 2: without altitude; 3: with it.
    mode: u8,
    status: Option<u8>,
    time: Option<String>,
    lat: Option<f64>,
    lon: Option<f64>,
    #[serde(rename = "altMSL")]
    alt_msl: Option<f64>,
    /// Of older gpsd.
    alt: Option<f64>,
    /// Metres per second.
    speed: Option<f64>,
    track: Option<f64>,
}

/// The satellites.
#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(super) struct Sky {
    hdop: Option<f64>,
    #[serde(rename = "uSat")]
    used: Option<u32>,
    satellites: Vec<Satellite>,
}

#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
struct Satellite {
    used: bool,
}

/// Reads a line.
pub(super) fn read(line: &[u8]) -> Option<Report> {
    serde_json::from_slice(line).ok()
}

/// The fix under way, and what is known of the satellites.
#[derive(Debug, Default)]
pub(super) struct Reports {
    current: Option<(Fix, Option<String>)>,
    given: Option<(u64, Option<String>)>,
    hdop: Option<f64>,
    satellites: Option<u32>,
}

impl Reports {
    /// Takes a report; gives the fix before, if this is the first of another epoch.
    pub(super) fn take(&mut self, report: Report) -> Option<(Fix, Option<String>)> {
        match report {
            Report::Position(tpv) => {
                let (fix, device) = (tpv.fix(), tpv.device);
                if tpv.mode >= 2 && fix.position.is_none() {
                    // gpsd has joined in the middle of an epoch and does not know yet where it is.
                    return None;
                }
                // While gpsd does not know the date yet it says no time; what has one then is of the same epoch, unless there was silence.
                let is_same =
                    |(current, of): &(Fix, _)| *of == device && (current.time.is_none() || current.time == fix.time);
                if self.current.as_ref().is_some_and(is_same) {
                    self.current = Some((fix, device));
                    return None;
                }
                let before = self.flush();
                // Said again after the silence: it was given.
                if fix.time.is_none_or(|time| self.given.as_ref() != Some(&(time, device.clone()))) {
                    self.current = Some((fix, device));
                }
                before
            }
            Report::Sky(sky) => {
                self.hdop = sky.hdop.and_then(finite).or(self.hdop);
                let used = sky.satellites.iter().filter(|satellite| satellite.used).count();
                let counted = (!sky.satellites.is_empty()).then(|| u32::try_from(used).unwrap_or(u32::MAX));
                self.satellites = sky.used.or(counted).or(self.satellites);
                None
            }
            Report::Version { .. } | Report::Error { .. } | Report::Other => None,
        }
    }

    pub(super) fn is_pending(&self) -> bool {
        self.current.is_some()
    }

    /// Gives the fix that is under way, and the device that it is of.
    pub(super) fn flush(&mut self) -> Option<(Fix, Option<String>)> {
        let (fix, device) = self.current.take()?;
        self.given = fix.time.map(|time| (time, device.clone()));
        let hdop = self.hdop.filter(|_| fix.position.is_some());
        Some((Fix { satellites: self.satellites, hdop, ..fix }, device))
    }
}

impl Tpv {
    fn fix(&self) -> Fix {
        let time = self.time.as_deref().and_then(|time| humantime::parse_rfc3339(time).ok());
        let time = time.and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok());
        let time = time.and_then(|time| u64::try_from(time.as_millis()).ok());
        let mode = match self.mode {
            2 => Some(Mode::Flat),
            3 => Some(Mode::Spatial),
            _ => None,
        };
        let position = self.lat.zip(self.lon).and_then(|(latitude, longitude)| Position::new(latitude, longitude));
        let (Some(mode), Some(position)) = (mode, position) else { return Fix { time, ..Fix::default() } };
        let altitude = self.alt_msl.or(self.alt).and_then(finite).filter(|_| mode == Mode::Spatial);
        Fix {
            time,
            position: Some(position),
            mode: Some(mode),
            quality: Some(match self.status {
                Some(2) => Quality::Dgps,
                Some(3) => Quality::Rtk,
                Some(4) => Quality::FloatRtk,
                Some(5 | 6) => Quality::Estimated,
                Some(8) => Quality::Simulated,
                Some(9) => Quality::Pps,
                _ => Quality::Gps,
            }),
            altitude,
            speed: self.speed.and_then(finite),
            course: self.track.and_then(finite),
            ..Fix::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    // As gpsd 3.22 says it.
    const TPV: &str = r#"{"class":"TPV","device":"/dev/pts/1","mode":3,"time":"2026-11-25T12:00:00.000Z","ept":0.005,"lat":52.520000000,"lon":13.405000000,"altHAE":79.2000,"altMSL":34.5000,"alt":34.5000,"track":90.0000,"magtrack":93.9,"magvar":3.9,"speed":13.889,"climb":0.0,"eph":19.0}"#;
    const SKY: &str = r#"{"class":"SKY","device":"/dev/pts/1","xdop":0.6,"hdop":0.9,"pdop":1.5,"satellites":[{"PRN":1,"el":40.0,"az":83.0,"ss":46.0,"used":true},{"PRN":2,"used":false}]}"#;

    fn say(reports: &mut Reports, line: &str) -> Option<(Fix, Option<String>)> {
        reports.take(read(line.as_bytes()).expect(line))
    }

    #[test]
    fn reports_of_one_time_are_one_fix() {
        let mut reports = Reports::default();
        assert_eq!(say(&mut reports, r#"{"class":"VERSION","release":"3.22","proto_major":3}"#), None);
        assert_eq!(
            say(
                &mut reports,
                r#"{"class":"TPV","device":"/dev/pts/1","mode":3,"time":"2026-11-25T12:00:00.000Z","lat":52.5,"lon":13.4}"#
            ),
            None
        );
        assert_eq!(say(&mut reports, SKY), None);
        assert_eq!(say(&mut reports, TPV), None);
        let (fix, device) = reports.flush().expect("a fix");
        assert_eq!(device.as_deref(), Some("/dev/pts/1"));
        assert_eq!(
            fix,
            Fix {
                time: Some(1_795_608_000_000),
                position: Position::new(52.52, 13.405),
                mode: Some(Mode::Spatial),
                quality: Some(Quality::Gps),
                altitude: Some(34.5),
                speed: Some(13.889),
                course: Some(90.0),
                satellites: Some(1),
                hdop: Some(0.9),
            }
        );
        assert_eq!(say(&mut reports, TPV), None);
        assert!(!reports.is_pending(), "it was given already");
        // Without the date, and then with it.
        let line = TPV.replace("12:00:00", "12:00:01");
        let without = line.replace(r#""time":"2026-11-25T12:00:01.000Z","#, "");
        assert!(say(&mut reports, &without).is_none() && say(&mut reports, &line).is_none());
        assert_eq!(reports.flush().expect("one fix").0.time, Some(1_795_608_001_000));
        // The first that gpsd says of a receiver which speaks already.
        let first = r#"{"class":"TPV","device":"/dev/pts/1","mode":3,"epv":27.600,"eph":17.100,"sep":28.500}"#;
        assert!(say(&mut reports, first).is_none() && !reports.is_pending());
        assert_eq!(say(&mut reports, r#"{"class":"TPV","device":"/dev/pts/1","mode":1}"#), None);
        assert!(reports.flush().is_some_and(|(fix, _)| fix.position.is_none()));
    }

    #[test]
    fn only_one_device_may_be_asked_for() {
        assert_eq!(watch(None), "?WATCH={\"enable\":true,\"json\":true};\n");
        assert_eq!(watch(Some("/dev/a")), "?WATCH={\"device\":\"/dev/a\",\"enable\":true,\"json\":true};\n");
    }

    proptest! {
        #[test]
        fn garbage_never_panics(line in prop::collection::vec(any::<u8>(), 0..200), cut in 0..400_usize, put: char) {
            let mut reports = Reports::default();
            let mut changed = TPV.to_owned();
            changed.replace_range(cut.min(TPV.len() - 1)..=cut.min(TPV.len() - 1), &put.to_string());
            for line in [&line[..], &TPV.as_bytes()[..cut.min(TPV.len())], changed.as_bytes()] {
                if let Some(report) = read(line) {
                    reports.take(report);
                }
            }
            reports.flush();
        }
    }
}
