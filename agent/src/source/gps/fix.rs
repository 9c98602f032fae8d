//! What a receiver knows at one moment, and the record that is made of it.
//!
//! Units: degrees (WGS 84), metres above mean sea level, metres per second, degrees from true north. Times are milliseconds
//! since 1970 UTC, by the receiver.

use std::time::{Duration, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// Where something is, in degrees: always finite and in range.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Position {
    pub(super) latitude: f64,
    pub(super) longitude: f64,
}

/// Whether a fix has an altitude.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(super) enum Mode {
    #[serde(rename = "2d")]
    Flat,
    #[serde(rename = "3d")]
    Spatial,
}

/// By what means a fix was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Quality {
    Gps,
    Dgps,
    Pps,
    Rtk,
    FloatRtk,
    Estimated,
    Manual,
    Simulated,
}

/// What one epoch told.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Fix {
    /// When, by the receiver. `None` if it does not know, or says what cannot be.
    pub(super) time: Option<u64>,
    /// Where; `None` if the receiver has no fix.
    pub(super) position: Option<Position>,
    pub(super) mode: Option<Mode>,
    pub(super) quality: Option<Quality>,
    pub(super) altitude: Option<f64>,
    pub(super) speed: Option<f64>,
    pub(super) course: Option<f64>,
    pub(super) satellites: Option<u32>,
    pub(super) hdop: Option<f64>,
}

/// How a record is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// A flat object.
    #[default]
    Json,
    /// A GeoJSON Feature (RFC 7946) with a Point; one without a position has no geometry.
    GeoJson,
}

/// Why a record is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Occasion<'a> {
    Position,
    FixLost,
    Enter(&'a str),
    Leave(&'a str),
}

#[derive(Serialize)]
struct Flat<'a> {
    event: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    geofence: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    time: Option<String>,
    fix: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    latitude: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    longitude: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    altitude: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    speed: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    course: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mode: Option<Mode>,
    #[serde(skip_serializing_if = "Option::is_none")]
    quality: Option<Quality>,
    #[serde(skip_serializing_if = "Option::is_none")]
    satellites: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hdop: Option<f64>,
}

#[derive(Serialize)]
struct Feature<'a> {
    r#type: &'static str,
    geometry: Option<Point>,
    properties: Flat<'a>,
}

#[derive(Serialize)]
struct Point {
    r#type: &'static str,
    coordinates: Vec<f64>,
}

impl Position {
    /// A position, if these are coordinates. Minutes beyond 60 of a broken sentence may well add up to none.
    pub(super) fn new(latitude: f64, longitude: f64) -> Option<Self> {
        let is_one = (-90.0..=90.0).contains(&latitude) && (-180.0..=180.0).contains(&longitude);
        is_one.then_some(Self { latitude, longitude })
    }
}

impl Fix {
    /// The record of this fix.
    pub(super) fn record(&self, occasion: Occasion<'_>, format: Format) -> Vec<u8> {
        let (event, geofence) = match occasion {
            Occasion::Position => ("position", None),
            Occasion::FixLost => ("fix-lost", None),
            Occasion::Enter(name) => ("geofence-enter", Some(name)),
            Occasion::Leave(name) => ("geofence-leave", Some(name)),
        };
        let flat = Flat {
            event,
            geofence,
            time: self.time.map(shown),
            fix: self.position.is_some(),
            // Seven decimals are a centimetre.
            latitude: self.position.map(|position| rounded(position.latitude, 1e7)),
            longitude: self.position.map(|position| rounded(position.longitude, 1e7)),
            altitude: self.altitude.map(|altitude| rounded(altitude, 1e3)),
            speed: self.speed.map(|speed| rounded(speed, 1e3)),
            course: self.course.map(|course| rounded(course, 1e3)),
            mode: self.mode,
            quality: self.quality,
            satellites: self.satellites,
            hdop: self.hdop.map(|hdop| rounded(hdop, 1e3)),
        };
        let written = match format {
            Format::Json => serde_json::to_vec(&flat),
            Format::GeoJson => {
                let point = flat.longitude.zip(flat.latitude).map(|(longitude, latitude)| Point {
                    r#type: "Point",
                    coordinates: [longitude, latitude].into_iter().chain(flat.altitude).collect(),
                });
                let properties = Flat { latitude: None, longitude: None, altitude: None, ..flat };
                serde_json::to_vec(&Feature { r#type: "Feature", geometry: point, properties })
            }
        };
        written.expect("numbers and texts can always be written")
    }
}

/// Only what is finite is a measurement.
pub(super) fn finite(number: f64) -> Option<f64> {
    number.is_finite().then_some(number)
}

fn rounded(number: f64, steps: f64) -> f64 {
    (number * steps).round() / steps
}

fn shown(time: u64) -> String {
    humantime::format_rfc3339_millis(UNIX_EPOCH + Duration::from_millis(time)).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fix() -> Fix {
        Fix {
            time: Some(1_790_000_000_500),
            position: Position::new(52.123_456_789, -13.5),
            mode: Some(Mode::Spatial),
            quality: Some(Quality::FloatRtk),
            altitude: Some(f64::from(101.2_f32)),
            speed: Some(13.888_88),
            course: None,
            satellites: Some(9),
            hdop: Some(0.9),
        }
    }

    #[test]
    fn records_are_flat_json_or_features() {
        let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
        assert_eq!(
            text(fix().record(Occasion::Position, Format::Json)),
            r#"{"event":"position","time":"2026-09-21T14:13:20.500Z","fix":true,"latitude":52.1234568,"longitude":-13.5,"altitude":101.2,"speed":13.889,"mode":"3d","quality":"float-rtk","satellites":9,"hdop":0.9}"#
        );
        assert_eq!(
            text(fix().record(Occasion::Enter("depot"), Format::GeoJson)),
            r#"{"type":"Feature","geometry":{"type":"Point","coordinates":[-13.5,52.1234568,101.2]},"properties":{"event":"geofence-enter","geofence":"depot","time":"2026-09-21T14:13:20.500Z","fix":true,"speed":13.889,"mode":"3d","quality":"float-rtk","satellites":9,"hdop":0.9}}"#
        );
        let none = Fix { satellites: Some(2), ..Fix::default() };
        assert_eq!(
            text(none.record(Occasion::FixLost, Format::Json)),
            r#"{"event":"fix-lost","fix":false,"satellites":2}"#
        );
        assert!(text(none.record(Occasion::FixLost, Format::GeoJson)).contains(r#""geometry":null"#));
    }

    #[test]
    fn coordinates_are_on_the_earth() {
        assert_eq!(Position::new(f64::NAN, 0.0), None);
        assert_eq!(Position::new(0.0, f64::INFINITY), None);
        assert_eq!(Position::new(90.1, 0.0), None);
        assert!(Position::new(-90.0, 180.0).is_some());
    }
}
