//! What the `mqtt-broker` source is told in the configuration file. Stream and partition key are read by all sources alike.

use std::{net::SocketAddr, num::NonZeroU16, path::PathBuf};

use forebay_log_store::RECORD_BYTES_MAX;
use serde::Deserialize;

use crate::{
    config::{Problems, key_path},
    source,
};

use super::credentials::Credentials;

/// The smallest packet limit: a client could not even send a short message below it.
const PACKET_BYTES_LEAST: u32 = 1024;

/// The largest: nothing that fits it is too large for the log.
const PACKET_BYTES_MOST: u32 = RECORD_BYTES_MAX as u32;

/// A topic's length is written in 16 bits.
const TOPIC_BYTES_MAX: u32 = 64 * 1024;

/// The table of one `mqtt-broker` source.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Config {
    /// Address and port to listen on, such as `"127.0.0.1:1883"`.
    pub listen: Option<String>,
    /// Clients that may be connected at once; default 1000.
    pub max_connections: Option<u32>,
    /// Largest packet, with topic and properties; default `"1088KiB"`: 1 MiB of payload and any topic.
    #[serde(with = "crate::config::size::option")]
    pub max_packet_size: Option<u64>,
    /// QoS 1 and 2 messages that a version 5 client may have unacknowledged; default 1024.
    pub max_in_flight: Option<u16>,
    /// Whether clients without user and password may connect. By default only on loopback, and only without `password-file`.
    pub allow_anonymous: Option<bool>,
    /// A file of `user:password` lines. Read at the start.
    pub password_file: Option<PathBuf>,
}

/// The same, checked.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where to listen.
    pub listen: SocketAddr,
    /// Clients that may be connected at once.
    pub max_connections: usize,
    /// Largest packet in bytes.
    pub max_packet_size: u32,
    /// Announced to version 5 clients as the receive maximum.
    pub max_in_flight: NonZeroU16,
    /// Whether clients need not say who they are.
    pub allow_anonymous: bool,
    /// Who may connect.
    pub credentials: Credentials,
}

impl source::Config for Config {
    type Settings = Settings;

    /// Checks everything, and reads the password file.
    fn validate(&self, path: &str, problems: &mut Problems) -> Option<Settings> {
        let before = problems.list().len();
        let mut wrong = |key: &str, message: &str| problems.add(key_path(path, key), message);

        let listen = match self.listen.as_deref().map(str::parse::<SocketAddr>) {
            Some(Ok(listen)) => Some(listen),
            Some(Err(_)) => {
                wrong("listen", "must be an IP address and a port, such as \"127.0.0.1:1883\"");
                None
            }
            None => {
                wrong("listen", "missing; such as \"127.0.0.1:1883\"");
                None
            }
        };
        let credentials = match self.password_file.as_deref().map(Credentials::from_file) {
            None => Credentials::default(),
            Some(Ok(credentials)) => credentials,
            Some(Err(message)) => {
                wrong("password-file", &message);
                Credentials::default()
            }
        };
        let max_connections = self.max_connections.unwrap_or(1000);
        if max_connections == 0 {
            wrong("max-connections", "must be at least 1");
        }
        let max_packet_size = self.max_packet_size.unwrap_or(1024 * 1024 + u64::from(TOPIC_BYTES_MAX));
        let max_packet_size = u32::try_from(max_packet_size).unwrap_or(u32::MAX);
        if !(PACKET_BYTES_LEAST..=PACKET_BYTES_MOST).contains(&max_packet_size) {
            wrong("max-packet-size", &format!("must be from {PACKET_BYTES_LEAST} to {PACKET_BYTES_MOST} bytes"));
        }
        let max_in_flight = NonZeroU16::new(self.max_in_flight.unwrap_or(1024));
        if max_in_flight.is_none() {
            wrong("max-in-flight", "must be at least 1");
        }
        let loopback = listen.is_none_or(|listen| listen.ip().is_loopback());
        if !loopback && self.password_file.is_none() && self.allow_anonymous.is_none() {
            wrong(
                "allow-anonymous",
                "a listener that others can reach needs `password-file`, or `allow-anonymous = true` to let anybody in",
            );
        }
        if self.allow_anonymous == Some(false) && self.password_file.is_none() {
            wrong("allow-anonymous", "without `password-file` nobody could connect");
        }
        if problems.list().len() > before {
            return None;
        }
        Some(Settings {
            listen: listen?,
            max_connections: max_connections as usize,
            max_packet_size,
            max_in_flight: max_in_flight?,
            allow_anonymous: self.allow_anonymous.unwrap_or(self.password_file.is_none()),
            credentials,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config::reader, source::Config as _};

    fn settings(text: &str) -> Result<Settings, Vec<String>> {
        let mut problems = Problems::default();
        let table = text.parse().expect("TOML");
        let settings = reader::read::<Config>(table, "sources.devices", &[], &mut problems)
            .and_then(|config| config.validate("sources.devices", &mut problems));
        if problems.list().is_empty() {
            Ok(settings.expect("nothing is wrong"))
        } else {
            Err(problems.list().iter().map(ToString::to_string).collect())
        }
    }

    #[test]
    fn an_address_is_all_that_is_needed_on_loopback() {
        for listen in ["127.0.0.1:1883", "[::1]:1883"] {
            let settings = settings(&format!("listen = '{listen}'")).expect("it is enough");
            assert!(settings.allow_anonymous);
            assert_eq!((settings.max_connections, settings.max_packet_size), (1000, 1_114_112));
            assert_eq!((settings.max_in_flight.get(), settings.credentials.is_empty()), (1024, true));
        }
    }

    #[test]
    fn elsewhere_it_takes_credentials_or_leave_for_anybody() {
        let problems = settings("listen = '0.0.0.0:1883'").expect_err("anybody could write");
        assert!(
            problems[0].starts_with("sources.devices.allow-anonymous: a listener that others can reach"),
            "{problems:?}"
        );
        let problems = settings("listen = '0.0.0.0:1883'\nallow-anonymous = false").expect_err("nobody could write");
        assert_eq!(problems, ["sources.devices.allow-anonymous: without `password-file` nobody could connect"]);
        assert!(settings("listen = '0.0.0.0:1883'\nallow-anonymous = true").expect("it says so").allow_anonymous);

        let dir = tempfile::tempdir().expect("temporary directory");
        let file = dir.path().join("users");
        std::fs::write(&file, "anna:secret\n").expect("write");
        let text = format!("listen = '0.0.0.0:1883'\npassword-file = '{}'", file.display());
        assert!(!settings(&text).expect("there are credentials").allow_anonymous);
        assert!(settings(&format!("{text}\nallow-anonymous = true")).expect("it says so").allow_anonymous);
    }

    #[test]
    fn all_mistakes_are_told_at_once() {
        let text = "listen = 'localhost'\nmax-connections = 0\nmax-packet-size = '20MiB'\nmax-in-flight = 0\n\
                    password-file = '/nowhere/users'\nmax-conections = 3";
        assert_eq!(
            settings(text).expect_err("six mistakes"),
            [
                "sources.devices.max-conections: unknown key, did you mean `max-connections`?",
                "sources.devices.listen: must be an IP address and a port, such as \"127.0.0.1:1883\"",
                "sources.devices.password-file: cannot read /nowhere/users: No such file or directory (os error 2)",
                "sources.devices.max-connections: must be at least 1",
                "sources.devices.max-packet-size: must be from 1024 to 10485760 bytes",
                "sources.devices.max-in-flight: must be at least 1",
            ]
        );
        assert_eq!(settings("").expect_err("none"), ["sources.devices.listen: missing; such as \"127.0.0.1:1883\""]);
    }
}
