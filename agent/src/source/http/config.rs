//! The settings of an `http` source: as they are written, and as they are once they were found right.

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use serde::Deserialize;

use super::{
    access::{self, Access},
    split::Split,
};
use crate::{
    config::{Problems, duration, key_path, size},
    source::{self, accept::Tls, mqtt_broker::Credentials},
};

/// A body below this could not hold much.
const BODY_BYTES_LEAST: usize = 1024;

/// Eight of these may be in memory at once, packed and unpacked.
const BODY_BYTES_MOST: usize = 64 * 1024 * 1024;

/// The keys of `[sources.NAME]` with `type = "http"`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Config {
    /// Address and port, such as `"127.0.0.1:8088"`. Sources with the same one share a listener, each with a path of its own.
    pub listen: Option<String>,
    /// What is posted to this path goes to the source's stream; default `"/"`.
    pub path: Option<String>,
    /// A file of tokens, one per line, of which a request shows one as `Authorization: Bearer TOKEN`.
    pub token_file: Option<PathBuf>,
    /// A file of `user:password` lines, of which a request shows one as basic authentication.
    pub password_file: Option<PathBuf>,
    /// Whether anybody may send who can reach it. By default only on loopback, without either file.
    pub allow_anonymous: Option<bool>,
    /// `["array"]`: a JSON array is a record per element. `["lines"]`: a `text/plain` body is a record per line. Or both.
    pub split: Vec<Split>,
    /// Largest body, also when it is unpacked; default `"8MiB"`.
    #[serde(with = "size::option")]
    pub max_body: Option<usize>,
    /// How long the log may take for a request before it is answered that it could not; default `"10s"`.
    #[serde(with = "duration::option")]
    pub commit_timeout: Option<Duration>,
    /// How long a request may take to arrive, its head and its body each, and how long a connection may lie idle; default `"30s"`.
    #[serde(with = "duration::option")]
    pub request_timeout: Option<Duration>,
    /// Connections that may be open at once; default 128.
    pub max_connections: Option<u32>,
    /// For HTTPS: our certificate and its chain, in PEM form.
    pub cert_file: Option<PathBuf>,
    /// Its private key, in PEM form.
    pub key_file: Option<PathBuf>,
    /// Authorities of clients' certificates, in PEM form: clients without one are turned away.
    pub client_ca_file: Option<PathBuf>,
}

/// Settings that were found right.
#[derive(Debug, Clone)]
pub struct Settings {
    pub(super) listener: Listener,
    pub(super) path: String,
    pub(super) access: Access,
    pub(super) split: Vec<Split>,
    pub(super) max_body: usize,
    pub(super) commit_timeout: Duration,
}

/// What is of the listener, and so of all sources that share it.
#[derive(Debug, Clone)]
pub(super) struct Listener {
    pub(super) address: SocketAddr,
    pub(super) request_timeout: Duration,
    pub(super) max_connections: usize,
    pub(super) tls: Option<Arc<Tls>>,
    /// All of it as it was written, for comparing.
    pub(super) text: String,
}

impl source::Config for Config {
    type Settings = Settings;

    fn validate(&self, path: &str, problems: &mut Problems) -> Option<Settings> {
        let before = problems.list().len();
        let mut wrong = |key: &str, message: &str| problems.add(key_path(path, key), message);
        let listen = match self.listen.as_deref().map(str::parse::<SocketAddr>) {
            Some(Ok(listen)) => Some(listen),
            Some(Err(_)) => {
                wrong("listen", "must be an IP address and a port, such as \"127.0.0.1:8088\"");
                None
            }
            None => {
                wrong("listen", "missing; such as \"127.0.0.1:8088\"");
                None
            }
        };
        let route = self.path.as_deref().unwrap_or("/");
        if !route.starts_with('/') || !route.bytes().all(|byte| byte.is_ascii_graphic() && !b"?#\"<>".contains(&byte)) {
            wrong("path", "must begin with `/`, and be as it stands in a URL");
        }
        let tokens = self.token_file.as_deref().map_or(Ok(Vec::new()), access::tokens).unwrap_or_else(|message| {
            wrong("token-file", &message);
            Vec::new()
        });
        let credentials = self.password_file.as_deref().map_or(Ok(Credentials::default()), Credentials::from_file);
        let credentials = credentials.unwrap_or_else(|message| {
            wrong("password-file", &message);
            Credentials::default()
        });
        let loopback = listen.is_none_or(|listen| listen.ip().is_loopback());
        let asks = self.token_file.is_some() || self.password_file.is_some();
        match self.allow_anonymous {
            None if !loopback && !asks && self.client_ca_file.is_none() => wrong(
                "allow-anonymous",
                "a listener that others can reach needs `token-file`, `password-file` or `client-ca-file`, or `allow-anonymous = true` \
                 to let anybody in",
            ),
            Some(false) if !asks && self.client_ca_file.is_none() => {
                wrong("allow-anonymous", "without `token-file`, `password-file` or `client-ca-file` nobody could send");
            }
            Some(true) if asks => {
                wrong("allow-anonymous", "is of no use with `token-file` or `password-file`, which are then asked for");
            }
            _ => {}
        }
        let max_body = self.max_body.unwrap_or(8 * 1024 * 1024);
        if !(BODY_BYTES_LEAST..=BODY_BYTES_MOST).contains(&max_body) {
            wrong("max-body", "must be between 1KiB and 64MiB");
        }
        let timeouts = [("commit-timeout", self.commit_timeout, 10), ("request-timeout", self.request_timeout, 30)];
        let [commit_timeout, request_timeout] = timeouts.map(|(key, given, default)| {
            if given.is_some_and(|given| given < Duration::from_millis(100)) {
                wrong(key, "must be at least 100ms");
            }
            given.unwrap_or(Duration::from_secs(default))
        });
        let max_connections = self.max_connections.unwrap_or(128);
        if max_connections == 0 {
            wrong("max-connections", "must be at least 1");
        }
        let tls = Tls::of(
            self.cert_file.as_ref(),
            self.key_file.as_ref(),
            self.client_ca_file.as_ref(),
            self.allow_anonymous == Some(true),
            &mut wrong,
        );
        if problems.list().len() > before {
            return None;
        }
        let address = listen?;
        let files = [&self.cert_file, &self.key_file, &self.client_ca_file];
        let listener = Listener {
            address,
            request_timeout,
            max_connections: max_connections as usize,
            tls,
            text: format!("{request_timeout:?} {max_connections} {files:?} {:?}", self.allow_anonymous),
        };
        // A client that shows a certificate is somebody, whatever name it calls us by.
        let only_loopback = loopback && self.client_ca_file.is_none();
        Some(Settings {
            listener,
            path: route.to_owned(),
            access: Access::new(tokens, credentials, only_loopback),
            split: self.split.clone(),
            max_body,
            commit_timeout,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config::reader, source::Config as _};

    fn problems_of(text: &str) -> Vec<String> {
        let mut problems = Problems::default();
        let config = reader::read::<Config>(text.parse().expect("TOML"), "sources.h", &[], &mut problems);
        let settings = config.and_then(|config| config.validate("sources.h", &mut problems));
        assert!(settings.is_some() || !problems.list().is_empty());
        problems.list().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn an_address_is_all_that_is_needed_on_loopback() {
        assert_eq!(problems_of("listen = '127.0.0.1:8088'"), [""; 0]);
        assert_eq!(
            problems_of("listen = '[::1]:8088'\npath = '/a/b'\nsplit = ['array', 'lines']\nmax-body = '1MiB'"),
            [""; 0]
        );
    }

    #[test]
    fn elsewhere_it_takes_credentials_or_leave_for_anybody() {
        let problems = problems_of("listen = '0.0.0.0:8088'");
        assert!(problems.len() == 1 && problems[0].contains("allow-anonymous: a listener that others"), "{problems:?}");
        assert_eq!(problems_of("listen = '0.0.0.0:8088'\nallow-anonymous = true"), [""; 0]);
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("tokens");
        std::fs::write(&file, "abc\n").expect("written");
        let with_token = format!("listen = '0.0.0.0:8088'\ntoken-file = '{}'", file.display());
        assert_eq!(problems_of(&with_token), [""; 0]);
        let both = problems_of(&format!("{with_token}\nallow-anonymous = true"));
        assert!(both[0].contains("is of no use with `token-file`"), "{both:?}");
    }

    #[test]
    fn all_mistakes_are_told_at_once() {
        let text = "listen = 'here'\npath = 'a b'\ntoken-file = '/nowhere/tokens'\nmax-body = 1\ncommit-timeout = '1ms'\n\
                    max-connections = 0\nsplit = ['words']\nkey-file = 'k'";
        assert_eq!(
            problems_of(text),
            [
                "sources.h.split[0]: must be `array` or `lines`, not `words`",
                "sources.h.listen: must be an IP address and a port, such as \"127.0.0.1:8088\"",
                "sources.h.path: must begin with `/`, and be as it stands in a URL",
                "sources.h.token-file: cannot read /nowhere/tokens: No such file or directory (os error 2)",
                "sources.h.max-body: must be between 1KiB and 64MiB",
                "sources.h.commit-timeout: must be at least 100ms",
                "sources.h.max-connections: must be at least 1",
                "sources.h.cert-file: missing; `key-file` needs it",
            ]
        );
    }
}
