//! `[api]`: where status and control are served, and who may ask.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
};

use serde::Deserialize;

use crate::config::{Problems, Secret};

/// Kinesis' local stand-ins like this port, and so do we.
const DEFAULT_PORT: u16 = 4567;

/// The table as it is written.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Config {
    /// Address and port; port 0 takes any that is free.
    pub listen: Option<String>,
    /// A file that holds the token which requests must carry.
    pub token_file: Option<PathBuf>,
}

/// The table, checked.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where to listen.
    pub listen: SocketAddr,
    /// What requests must carry, as `Authorization: Bearer TOKEN`; nothing is demanded without.
    pub token: Option<Secret>,
}

impl Config {
    /// Checks it. Problems give the default, so that the rest can be checked too.
    pub fn resolve(&self, path: &str, problems: &mut Problems) -> Settings {
        let listen = self.listen.as_ref().and_then(|text| match parse_address(text) {
            Some(address) => Some(address),
            None => {
                let message =
                    format!("must be an address and a port such as \"127.0.0.1:{DEFAULT_PORT}\", not {text:?}");
                problems.add(format!("{path}.listen"), message);
                None
            }
        });
        let listen = listen.unwrap_or(SocketAddr::from((Ipv4Addr::LOCALHOST, DEFAULT_PORT)));
        if !listen.ip().is_loopback() && self.token_file.is_none() {
            problems.add(
                format!("{path}.token-file"),
                format!("missing; {listen} can be reached from other machines, which must then show a token"),
            );
        }
        let token = Secret::read(path, "token", self.token_file.as_deref(), None, problems);
        if let Some(token) = &token
            && !token.expose().bytes().all(|b| b.is_ascii_graphic())
        {
            problems.add(format!("{path}.token-file"), "a token has no blanks, line breaks or letters outside ASCII");
        }
        Settings { listen, token }
    }
}

/// Reads `ADDRESS:PORT`; `localhost` is understood without asking a name server.
#[must_use]
pub fn parse_address(text: &str) -> Option<SocketAddr> {
    match text.strip_prefix("localhost:") {
        Some(port) => Some(SocketAddr::from((Ipv4Addr::LOCALHOST, port.parse().ok()?))),
        None => text.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(listen: Option<&str>, token_file: Option<PathBuf>) -> (Settings, Vec<String>) {
        let mut problems = Problems::default();
        let config = Config { listen: listen.map(str::to_owned), token_file };
        let settings = config.resolve("api", &mut problems);
        (settings, problems.list().iter().map(ToString::to_string).collect())
    }

    #[test]
    fn loopback_needs_no_token() {
        for (given, listens) in [
            (None, "127.0.0.1:4567"),
            (Some("127.0.0.1:0"), "127.0.0.1:0"),
            (Some("[::1]:80"), "[::1]:80"),
            (Some("localhost:81"), "127.0.0.1:81"),
        ] {
            let (settings, problems) = resolve(given, None);
            assert_eq!((settings.listen.to_string().as_str(), problems), (listens, vec![]));
        }
    }

    #[test]
    fn other_machines_must_show_a_token() {
        let (_, problems) = resolve(Some("0.0.0.0:4567"), None);
        assert_eq!(
            problems,
            ["api.token-file: missing; 0.0.0.0:4567 can be reached from other machines, which must then show a token"]
        );
        let file = tempfile::NamedTempFile::new().expect("temporary file");
        std::fs::write(&file, "t0ken\n").expect("write");
        let (settings, problems) = resolve(Some("0.0.0.0:4567"), Some(file.path().to_owned()));
        assert_eq!((settings.token, problems), (Some(Secret::new("t0ken")), vec![]));
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for text in ["4567", "127.0.0.1", "here:4567", "127.0.0.1:70000"] {
            let (_, problems) = resolve(Some(text), None);
            let expected =
                format!("api.listen: must be an address and a port such as \"127.0.0.1:4567\", not {text:?}");
            assert_eq!(problems, [expected]);
        }
    }
}
