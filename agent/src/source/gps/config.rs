//! The settings of a `gps` source: as they are written, and as they are once they were found right.

use std::{fmt, net::SocketAddr, time::Duration};

use serde::Deserialize;

use super::{
    fix::{Format, Position},
    geofence::{Area, Geofence},
    tracker::DeadBand,
};
use crate::{
    config::{Problems, duration},
    serial_port, source,
};

/// gpsd's own port.
const GPSD_PORT: u16 = 2947;

const FORMS: &str = "\"/dev/ttyACM0\", \"gpsd://127.0.0.1:2947\", \"tcp://host:port\" or \"udp://0.0.0.0:10110\"";

/// The keys of `[sources.NAME]` with `type = "gps"`.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Config {
    /// Where positions come from: a serial device, such as `"/dev/ttyACM0"`, `"gpsd://host:port"` or `"gpsd://host:port/dev/ttyACM0"` for one of
    /// its devices; `"tcp://host:port"` to connect to and `"udp://address:port"` to listen on for NMEA 0183.
    pub receiver: Option<String>,
    /// Speed of a serial device in bits per second. NMEA says 4800, most modules say 9600, and USB does not care.
    pub baud: u32,
    /// `"json"`, a flat object, or `"geojson"`, a Feature with a Point.
    pub format: Format,
    /// Metres that a position must be away from the last recorded one; 0 records them all.
    pub min_distance: f64,
    /// Time that must have passed since the last recorded position.
    #[serde(with = "duration")]
    pub min_interval: Duration,
    /// A position at least this often, also if it does not move. Left out: never for that alone.
    #[serde(with = "duration::option")]
    pub max_interval: Option<Duration>,
    /// Areas of which entering and leaving is recorded.
    pub geofences: Vec<GeofenceConfig>,
    /// Whether the receiver's time may tell the log the true time, beside a clock that cannot be trusted. `true` by default, but for UDP, where
    /// anybody may send.
    pub offer_time: Option<bool>,
    /// After this long without an understandable word the receiver is given up and connected to anew.
    #[serde(with = "duration")]
    pub timeout: Duration,
    /// Longest pause between two attempts to connect.
    #[serde(with = "duration")]
    pub max_backoff: Duration,
}

/// `[[sources.NAME.geofences]]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct GeofenceConfig {
    /// Stands in the records.
    pub name: Option<String>,
    /// Of a circle's middle, in degrees.
    pub latitude: Option<f64>,
    /// Of a circle's middle, in degrees.
    pub longitude: Option<f64>,
    /// Of a circle, in metres.
    pub radius: Option<f64>,
    /// Or the corners of a polygon, each `[latitude, longitude]`.
    pub polygon: Option<Vec<[f64; 2]>>,
    /// It is left so many metres outside of its border.
    pub hysteresis: f64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            receiver: None,
            baud: 9600,
            format: Format::Json,
            min_distance: 0.0,
            min_interval: Duration::ZERO,
            max_interval: None,
            geofences: Vec::new(),
            offer_time: None,
            timeout: Duration::from_secs(10),
            max_backoff: Duration::from_secs(30),
        }
    }
}

impl Default for GeofenceConfig {
    fn default() -> Self {
        // What a receiver errs by under an open sky, and some more.
        Self { name: None, latitude: None, longitude: None, radius: None, polygon: None, hysteresis: 20.0 }
    }
}

/// Settings that were found right.
#[derive(Debug, Clone)]
pub struct Settings {
    pub(super) receiver: Receiver,
    pub(super) format: Format,
    pub(super) dead_band: DeadBand,
    pub(super) geofences: Vec<Geofence>,
    pub(super) offer_time: bool,
    pub(super) timeout: Duration,
    pub(super) max_backoff: Duration,
}

/// Where positions come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Receiver {
    Serial(serial_port::Settings),
    Tcp { host: String, port: u16 },
    Udp(SocketAddr),
    Gpsd { host: String, port: u16, device: Option<String> },
}

impl source::Config for Config {
    type Settings = Settings;

    fn validate(&self, path: &str, problems: &mut Problems) -> Option<Settings> {
        let receiver = self.receiver(path, problems);
        let mut wrong = |key: &str, message: String| problems.add(format!("{path}.{key}"), message);
        if !(0.0..=1e7).contains(&self.min_distance) {
            wrong("min-distance", format!("is between 0 and 10000000 metres, not {}", self.min_distance));
        }
        if self.max_interval.is_some_and(|longest| longest.is_zero() || longest < self.min_interval) {
            wrong("max-interval", "must be longer than 0 and no shorter than min-interval".into());
        }
        if self.timeout < Duration::from_secs(1) {
            wrong("timeout", format!("must be at least 1s, not {}", duration::show(self.timeout)));
        }
        if self.max_backoff.is_zero() {
            wrong("max-backoff", "must be longer than 0".into());
        }
        let mut geofences = Vec::new();
        for (number, geofence) in self.geofences.iter().enumerate() {
            geofences.extend(geofence.validate(&format!("{path}.geofences[{number}]"), problems));
        }
        let receiver = receiver?;
        Some(Settings {
            format: self.format,
            dead_band: DeadBand {
                min_distance: self.min_distance,
                min_interval: self.min_interval,
                max_interval: self.max_interval,
            },
            geofences,
            offer_time: self.offer_time.unwrap_or(!matches!(receiver, Receiver::Udp(_))),
            timeout: self.timeout,
            max_backoff: self.max_backoff,
            receiver,
        })
    }
}

impl Config {
    fn receiver(&self, path: &str, problems: &mut Problems) -> Option<Receiver> {
        let device = self.receiver.as_deref().filter(|text| text.starts_with('/'));
        // Noted also where no serial device is meant: it is wrong all the same.
        let line = serial_port::Config {
            device: Some(device.unwrap_or("/dev/ttyACM0").into()),
            baud: self.baud,
            ..serial_port::Config::default()
        };
        let line = line.validate(path, problems);
        let wrong = match self.receiver.as_deref() {
            None => format!("missing; such as {FORMS}"),
            Some(_) if device.is_some() => return line.map(Receiver::Serial),
            Some(text) => match Receiver::parse(text) {
                Some(receiver) => return Some(receiver),
                None => format!("`{text}` is not of the form {FORMS}"),
            },
        };
        problems.add(format!("{path}.receiver"), wrong);
        None
    }
}

impl GeofenceConfig {
    fn validate(&self, path: &str, problems: &mut Problems) -> Option<Geofence> {
        let mut wrong = |key: &str, message: &str| problems.add(format!("{path}.{key}"), message);
        if self.name.as_deref().is_none_or(str::is_empty) {
            wrong("name", "missing; it stands in the records");
        }
        if !(0.0..=1e6).contains(&self.hysteresis) {
            wrong("hysteresis", "is between 0 and 1000000 metres");
        }
        let area = match (&self.polygon, self.latitude, self.longitude, self.radius) {
            (Some(corners), None, None, None) => {
                let corners: Vec<_> = corners.iter().filter_map(|[a, b]| Position::new(*a, *b)).collect();
                if corners.len() < 3 || Some(corners.len()) != self.polygon.as_ref().map(Vec::len) {
                    wrong("polygon", "has at least 3 corners, each [latitude, longitude] in degrees");
                }
                Area::Polygon(corners)
            }
            (Some(_), ..) => {
                wrong("polygon", "is a fence of its own: leave it out, or latitude, longitude and radius");
                return None;
            }
            (None, latitude, longitude, radius) => {
                for (key, given) in [("latitude", latitude), ("longitude", longitude), ("radius", radius)] {
                    if given.is_none() {
                        wrong(key, "missing; a fence has latitude, longitude and radius, or a polygon");
                    }
                }
                if radius.is_some_and(|radius| !(1.0..=1e7).contains(&radius)) {
                    wrong("radius", "is between 1 and 10000000 metres");
                }
                let centre = Position::new(latitude?, longitude?);
                if centre.is_none() {
                    wrong("latitude", "and longitude are no position: -90 to 90 and -180 to 180 degrees");
                }
                Area::Circle { centre: centre?, radius: radius? }
            }
        };
        Some(Geofence { name: self.name.clone()?, area, hysteresis: self.hysteresis })
    }
}

impl Receiver {
    /// An address; a path is a serial device's.
    fn parse(text: &str) -> Option<Self> {
        let (scheme, rest) = text.split_once("://")?;
        match scheme {
            "tcp" => {
                let (host, port) = host_and_port(rest.strip_suffix('/').unwrap_or(rest))?;
                Some(Self::Tcp { host, port: port? })
            }
            "udp" => Some(Self::Udp(rest.parse().ok()?)),
            "gpsd" => {
                let (address, device) = match rest.find('/') {
                    Some(at) => (&rest[..at], Some(&rest[at..]).filter(|device| device.len() > 1)),
                    None => (rest, None),
                };
                let (host, port) = host_and_port(address)?;
                Some(Self::Gpsd { host, port: port.unwrap_or(GPSD_PORT), device: device.map(str::to_owned) })
            }
            _ => None,
        }
    }
}

/// An IPv6 address stands in brackets, because of its colons.
fn host_and_port(text: &str) -> Option<(String, Option<u16>)> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']')?;
            host.parse::<std::net::Ipv6Addr>().ok()?;
            (host, if port.is_empty() { None } else { Some(port.strip_prefix(':')?) })
        }
        None => text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port))),
    };
    let in_host = |c: char| c.is_alphanumeric() || matches!(c, '.' | '-' | '_' | ':');
    if host.is_empty() || !host.chars().all(in_host) {
        return None;
    }
    let port = match port {
        None => None,
        Some(port) => Some(port.parse().ok().filter(|port| *port != 0)?),
    };
    Some((host.to_owned(), port))
}

impl fmt::Display for Receiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bracketed = |host: &str| if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
        match self {
            Self::Serial(port) => f.write_str(&port.name()),
            Self::Tcp { host, port } => write!(f, "tcp://{}:{port}", bracketed(host)),
            Self::Udp(address) => write!(f, "udp://{address}"),
            Self::Gpsd { host, port, device } => {
                write!(f, "gpsd://{}:{port}{}", bracketed(host), device.as_deref().unwrap_or_default())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config::reader, source::Config as _};

    fn read(toml: &str) -> (Option<Settings>, Vec<String>) {
        let mut problems = Problems::default();
        let config = reader::read::<Config>(toml.parse().expect("TOML"), "sources.truck", &[], &mut problems);
        let settings = config.and_then(|config| config.validate("sources.truck", &mut problems));
        (settings, problems.list().iter().map(ToString::to_string).collect())
    }

    #[test]
    fn receivers_are_paths_and_addresses() {
        for (text, shown) in [
            ("/dev/ttyACM0", "/dev/ttyACM0"),
            ("tcp://10.0.0.1:10110", "tcp://10.0.0.1:10110"),
            ("tcp://[::1]:1/", "tcp://[::1]:1"),
            ("udp://0.0.0.0:10110", "udp://0.0.0.0:10110"),
            ("udp://[::]:10110", "udp://[::]:10110"),
            ("gpsd://localhost", "gpsd://localhost:2947"),
            ("gpsd://localhost:3000/dev/ttyUSB0", "gpsd://localhost:3000/dev/ttyUSB0"),
        ] {
            let (settings, problems) = read(&format!("receiver = '{text}'"));
            assert_eq!(problems, [""; 0], "{text}");
            let settings = settings.expect(text);
            assert_eq!(settings.receiver.to_string(), shown);
            assert_eq!(settings.offer_time, !text.starts_with("udp"));
        }
        for text in ["ttyUSB0", "tcp://host", "udp://host:1", "tcp://h:0", "gpsd://", "http://h:1", "tcp://[h]:1", ""] {
            let (settings, problems) = read(&format!("receiver = '{text}'"));
            assert!(
                settings.is_none() && problems.len() == 1 && problems[0].contains("sources.truck.receiver"),
                "{text}"
            );
        }
    }

    #[test]
    fn every_mistake_is_told_with_its_key() {
        let (_, found) = read(
            "baud = 0\nformat = 'xml'\nmin-distance = -1\nmin-interval = '5s'\nmax-interval = '1s'\ntimeout = '1ms'\nmax-backoff = '0s'\n\
             [[geofences]]\nname = ''\nlatitude = 100\nlongitude = 1\nradius = 0\n\
             [[geofences]]\nname = 'a'\npolygon = [[1, 2], [3, 4]]\nhysteresis = -1\n\
             [[geofences]]\nname = 'b'\nradius = 5\npolygon = []\n[[geofences]]\nname = 'c'\nlongitude = 1.0",
        );
        for key in [
            "receiver: missing",
            "baud: ",
            "format: ",
            "min-distance: ",
            "max-interval: ",
            "timeout: ",
            "max-backoff: ",
            "geofences[0].name: ",
            "geofences[0].latitude: ",
            "geofences[0].radius: ",
            "geofences[1].polygon: ",
            "geofences[1].hysteresis: ",
            "geofences[2].polygon: ",
            "geofences[3].latitude: ",
            "geofences[3].radius: ",
        ] {
            let wanted = format!("sources.truck.{key}");
            assert_eq!(
                found.iter().filter(|problem| problem.starts_with(&wanted)).count(),
                1,
                "{wanted} in {found:#?}"
            );
        }
        assert_eq!(found.len(), 15, "{found:#?}");
    }
}
