//! What the `mqtt-broker` source is told in the configuration file. Stream and partition key are read by all sources alike.

use std::{net::SocketAddr, num::NonZeroU16, path::PathBuf};

use forebay_log_store::{RECORD_BYTES_MAX, RateLimit};
use serde::Deserialize;
use toml::Value;

use crate::{
    config::{Problems, key_path, stream::rate_limit},
    source,
    tls::server::ServerFiles,
};

use super::{
    connect::Door,
    credentials::Credentials,
    rules::{Rule, Rules},
    websocket,
};

/// The smallest packet limit: a client could not even send a short message below it.
const PACKET_BYTES_LEAST: u32 = 1024;

/// The largest: nothing that fits it is too large for the log.
const PACKET_BYTES_MOST: u32 = RECORD_BYTES_MAX as u32;

/// A topic's length is written in 16 bits.
const TOPIC_BYTES_MAX: u32 = 64 * 1024;

/// What a WebSocket message may have beside one packet of the largest size.
const FRAME_BYTES_MORE: usize = 64 * 1024;

/// The table of one `mqtt-broker` source.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Config {
    /// Address and port to listen on, such as `"127.0.0.1:1883"`.
    pub listen: Option<String>,
    /// The same for MQTT over WebSocket.
    pub websocket_listen: Option<String>,
    /// The only path that WebSocket requests may be for, such as `"/mqtt"`; any if left out.
    pub websocket_path: Option<String>,
    /// The only web pages whose scripts may connect, such as `"https://plant.example"`; any if left out.
    pub websocket_origins: Option<Vec<String>>,
    /// Clients that may be connected at once; default 1000.
    pub max_connections: Option<u32>,
    /// Largest packet, with topic and properties; default `"1088KiB"`: 1 MiB of payload and any topic.
    #[serde(with = "crate::config::size::option")]
    pub max_packet_size: Option<u64>,
    /// QoS 1 and 2 messages that a version 5 client may have unacknowledged; default 1024.
    pub max_in_flight: Option<u16>,
    /// Whether clients without user and password may connect. By default only on loopback, and only without `password-file`.
    pub allow_anonymous: Option<bool>,
    /// A file of `user:password` lines, as `forebay mqtt-password` and `mosquitto_passwd` make it. Read again when it changes.
    pub password_file: Option<PathBuf>,
    /// Our certificate and its chain, in PEM form: TLS is spoken on both listeners. Read again when it changes.
    pub cert_file: Option<PathBuf>,
    /// Its private key, in PEM form.
    pub key_file: Option<PathBuf>,
    /// The authorities that clients' certificates are from, in PEM form: clients have to show one.
    pub client_ca_file: Option<PathBuf>,
    /// Whether a client without a certificate is let in all the same, if its password or `allow-anonymous` says so.
    pub client_cert_optional: bool,
    /// Whether a client is the user that its certificate's common name says, and needs no password.
    pub user_from_certificate: bool,
    /// The most that one client may send, as a table as in a stream's `rate-limit`; a record is a packet here. What comes
    /// faster waits in the connection. `"off"` by default.
    pub client_rate_limit: Option<Value>,
    /// Who may publish to what; everybody to everything, if there are none.
    pub rules: Vec<Rule>,
}

/// The same, checked.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where to listen. There is this or the other.
    pub listen: Option<SocketAddr>,
    /// Where to listen for WebSocket.
    pub websocket_listen: Option<SocketAddr>,
    pub(super) websocket: websocket::Terms,
    /// Clients that may be connected at once.
    pub max_connections: usize,
    /// Largest packet in bytes.
    pub max_packet_size: u32,
    /// Announced to version 5 clients as the receive maximum.
    pub max_in_flight: NonZeroU16,
    /// Whether clients need not say who they are.
    pub allow_anonymous: bool,
    /// Who may connect.
    pub password_file: Option<PathBuf>,
    pub(super) tls: Option<Tls>,
    /// The most that one client may send.
    pub client_rate_limit: Option<RateLimit>,
    pub(super) rules: Rules,
}

/// Certificates.
#[derive(Debug, Clone)]
pub(super) struct Tls {
    pub(super) cert_file: PathBuf,
    pub(super) key_file: PathBuf,
    pub(super) client_ca_file: Option<PathBuf>,
    pub(super) client_cert_optional: bool,
    pub(super) user_from_certificate: bool,
}

impl Settings {
    /// Whom it lets in.
    pub(super) fn door(&self) -> Door {
        Door {
            anonymous: self.allow_anonymous,
            passwords: self.password_file.is_some(),
            user_from_certificate: self.tls.as_ref().is_some_and(|tls| tls.user_from_certificate),
        }
    }
}

impl Tls {
    pub(super) fn files(&self) -> ServerFiles<'_> {
        ServerFiles {
            certificate: &self.cert_file,
            key: &self.key_file,
            client_ca: self.client_ca_file.as_deref(),
            client_may_go_without: self.client_cert_optional,
        }
    }
}

impl source::Config for Config {
    type Settings = Settings;

    /// Checks everything, and reads the password file.
    fn validate(&self, path: &str, problems: &mut Problems) -> Option<Settings> {
        let before = problems.list().len();
        let tls = self.tls(path, problems);
        let rules = Rules::validate(&self.rules, &key_path(path, "rules"), problems);
        let client_rate_limit = self.client_rate_limit.clone();
        let client_rate_limit =
            client_rate_limit.and_then(|limit| rate_limit(limit, &key_path(path, "client-rate-limit"), problems));
        let mut wrong = |key: &str, message: &str| problems.add(key_path(path, key), message);

        let mut address = |key: &str, text: &Option<String>, example: &str| match text.as_deref().map(str::parse) {
            Some(Err(_)) => {
                wrong(key, &format!("must be an IP address and a port, such as \"{example}\""));
                None
            }
            Some(Ok(address)) => Some(address),
            None => None::<SocketAddr>,
        };
        let listen = address("listen", &self.listen, "127.0.0.1:1883");
        let websocket_listen = address("websocket-listen", &self.websocket_listen, "127.0.0.1:9001");
        if self.listen.is_none() && self.websocket_listen.is_none() {
            wrong("listen", "missing; such as \"127.0.0.1:1883\"");
        }
        if self.websocket_listen.is_none() {
            for (key, given) in [
                ("websocket-path", self.websocket_path.is_some()),
                ("websocket-origins", self.websocket_origins.is_some()),
            ] {
                if given {
                    wrong(key, "is of no use without `websocket-listen`");
                }
            }
        }
        if self.websocket_path.as_ref().is_some_and(|path| !path.starts_with('/')) {
            wrong("websocket-path", "begins with a slash, such as \"/mqtt\"");
        }
        if let Some(Err(message)) = self.password_file.as_deref().map(Credentials::from_file) {
            wrong("password-file", &message);
        }
        let max_connections = self.max_connections.unwrap_or(1000);
        if max_connections == 0 {
            wrong("max-connections", "must be at least 1");
        }
        let max_packet_size = self.max_packet_size.unwrap_or(1024 * 1024 + u64::from(TOPIC_BYTES_MAX));
        let max_packet_size = u32::try_from(max_packet_size).unwrap_or(u32::MAX);
        if !(PACKET_BYTES_LEAST..=PACKET_BYTES_MOST).contains(&max_packet_size) {
            wrong(
                "max-packet-size",
                &format!("must be from {PACKET_BYTES_LEAST} to {PACKET_BYTES_MOST} bytes, not {max_packet_size}"),
            );
        }
        let max_in_flight = NonZeroU16::new(self.max_in_flight.unwrap_or(1024));
        if max_in_flight.is_none() {
            wrong("max-in-flight", "must be at least 1");
        }
        let loopback = [listen, websocket_listen].into_iter().flatten().all(|address| address.ip().is_loopback());
        let certified = self.client_ca_file.is_some() && !self.client_cert_optional;
        if !loopback && self.password_file.is_none() && !certified && self.allow_anonymous.is_none() {
            wrong(
                "allow-anonymous",
                "a listener that others can reach needs `password-file`, `client-ca-file`, or `allow-anonymous = true` \
                 to let anybody in",
            );
        }
        if self.allow_anonymous == Some(false) && self.password_file.is_none() && !self.user_from_certificate {
            wrong("allow-anonymous", "without `password-file` or `user-from-certificate` nobody could connect");
        }
        if problems.list().len() > before {
            return None;
        }
        Some(Settings {
            listen,
            websocket_listen,
            websocket: websocket::Terms {
                path: self.websocket_path.clone(),
                origins: self.websocket_origins.clone(),
                // A packet, or as many as a client puts into one frame.
                message_bytes_max: max_packet_size as usize + FRAME_BYTES_MORE,
            },
            max_connections: max_connections as usize,
            max_packet_size,
            max_in_flight: max_in_flight?,
            allow_anonymous: self
                .allow_anonymous
                .unwrap_or(self.password_file.is_none() && (certified || !self.user_from_certificate)),
            password_file: self.password_file.clone(),
            tls,
            client_rate_limit,
            rules,
        })
    }
}

impl Config {
    fn tls(&self, path: &str, problems: &mut Problems) -> Option<Tls> {
        let mut wrong = |key: &str, message: &str| problems.add(key_path(path, key), message);
        if self.client_ca_file.is_none() {
            for (key, given) in [
                ("client-cert-optional", self.client_cert_optional),
                ("user-from-certificate", self.user_from_certificate),
            ] {
                if given {
                    wrong(key, "is of no use without `client-ca-file`, whose certificates it is about");
                }
            }
        }
        let (cert_file, key_file) = match (&self.cert_file, &self.key_file) {
            (Some(cert_file), Some(key_file)) => (cert_file.clone(), key_file.clone()),
            (Some(_), None) => {
                wrong("cert-file", "needs `key-file` with it");
                return None;
            }
            (None, Some(_)) => {
                wrong("key-file", "needs `cert-file` with it");
                return None;
            }
            (None, None) => {
                if self.client_ca_file.is_some() {
                    wrong("client-ca-file", "is of no use without TLS: `cert-file` and `key-file`");
                }
                return None;
            }
        };
        let tls = Tls {
            cert_file,
            key_file,
            client_ca_file: self.client_ca_file.clone(),
            client_cert_optional: self.client_cert_optional,
            user_from_certificate: self.user_from_certificate,
        };
        for error in tls.files().mistakes() {
            wrong(error.key, &error.message);
        }
        Some(tls)
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
            assert_eq!((settings.max_in_flight.get(), settings.password_file.is_none()), (1024, true));
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
        assert_eq!(
            problems,
            [
                "sources.devices.allow-anonymous: without `password-file` or `user-from-certificate` nobody could connect"
            ]
        );
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
                "sources.devices.max-packet-size: must be from 1024 to 10485760 bytes, not 20971520",
                "sources.devices.max-in-flight: must be at least 1",
            ]
        );
        assert_eq!(settings("").expect_err("none"), ["sources.devices.listen: missing; such as \"127.0.0.1:1883\""]);
    }
}
