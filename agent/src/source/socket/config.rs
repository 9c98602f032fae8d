//! The settings of a `socket` source: as they are written, and as they are once they were found right.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use serde::Deserialize;
use toml::Table;

use crate::{
    config::{Problems, duration, key_path, size},
    framing::Framing,
    source::{self, accept::Tls, pump},
};

/// The keys of `[sources.NAME]` with `type = "socket"`, beside those of framing.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Config {
    /// `"tcp://127.0.0.1:5140"`, `"udp://127.0.0.1:5140"`, `"unix:///run/forebay/in.sock"` or `"unix-datagram:///run/forebay/log.sock"`.
    pub listen: Option<String>,
    /// Connections that may be open at once; default 256. Each takes up to `max-frame` and 1 MiB of memory while the log is slower.
    pub max_connections: Option<u32>,
    /// A connection from which nothing came for so long is closed. Without it, only ones whose other end is gone are.
    #[serde(with = "duration::option")]
    pub idle_timeout: Option<Duration>,
    /// The kernel's memory for datagrams that wait for us; its own default unless given.
    #[serde(with = "size::option")]
    pub receive_buffer: Option<usize>,
    /// Who may write to a Unix socket, as the mode of its file in octal digits; default `"0660"`.
    pub mode: Option<String>,
    /// For TLS over TCP: our certificate and its chain, in PEM form.
    pub cert_file: Option<PathBuf>,
    /// Its private key, in PEM form.
    pub key_file: Option<PathBuf>,
    /// Authorities of clients' certificates, in PEM form: clients without one are turned away.
    pub client_ca_file: Option<PathBuf>,
    /// Whether anybody may send who can reach it. By default only on loopback, without `client-ca-file`, and through a Unix socket.
    pub allow_anonymous: Option<bool>,
}

/// Settings that were found right.
#[derive(Debug, Clone)]
pub struct Settings {
    pub(super) listen: Listen,
    pub(super) max_connections: usize,
    pub(super) idle_timeout: Option<Duration>,
    pub(super) receive_buffer: Option<usize>,
    pub(super) mode: u32,
    pub(super) tls: Option<Arc<Tls>>,
    pub(super) framing: Framing,
}

/// Where to listen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Listen {
    Tcp(SocketAddr),
    Udp(SocketAddr),
    Unix(PathBuf),
    UnixDatagram(PathBuf),
}

impl Listen {
    fn parse(text: &str) -> Option<Self> {
        let (scheme, rest) = text.split_once("://")?;
        let path = || (!rest.is_empty()).then(|| PathBuf::from(rest));
        match scheme {
            "tcp" => rest.parse().ok().map(Self::Tcp),
            "udp" => rest.parse().ok().map(Self::Udp),
            "unix" => path().map(Self::Unix),
            "unix-datagram" => path().map(Self::UnixDatagram),
            _ => None,
        }
    }

    /// Whether programs on other machines cannot reach it.
    fn is_local(&self) -> bool {
        match self {
            Self::Tcp(address) | Self::Udp(address) => address.ip().is_loopback(),
            Self::Unix(_) | Self::UnixDatagram(_) => true,
        }
    }

    pub(super) fn path(&self) -> Option<&Path> {
        match self {
            Self::Unix(path) | Self::UnixDatagram(path) => Some(path),
            Self::Tcp(_) | Self::Udp(_) => None,
        }
    }

    fn is_stream(&self) -> bool {
        matches!(self, Self::Tcp(_) | Self::Unix(_))
    }
}

impl std::fmt::Display for Listen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "tcp://{address}"),
            Self::Udp(address) => write!(f, "udp://{address}"),
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::UnixDatagram(path) => write!(f, "unix-datagram://{}", path.display()),
        }
    }
}

/// Reads the keys, with those of framing.
pub(super) fn read(
    table: Table,
    path: &str,
    elsewhere: &[&str],
    problems: &mut Problems,
) -> Option<Arc<dyn source::Settings>> {
    let (framing, config) = pump::read_framed::<Config>(table, path, elsewhere, problems);
    let cut = framing.as_ref().and_then(|framing| framing.validate(path, problems));
    let settings = config.and_then(|config| config.validate(cut, path, problems));
    if let (Some(framing), Some(Settings { listen, .. })) = (&framing, &settings)
        && !listen.is_stream()
    {
        for (key, given) in [("framing", framing.framing.is_some()), ("checksum", framing.checksum.is_some())] {
            if given {
                problems.add(key_path(path, key), format!("is of no use with {listen}: each datagram is a record"));
            }
        }
    }
    Some(Arc::new(settings?))
}

impl Config {
    fn validate(&self, framing: Option<Framing>, path: &str, problems: &mut Problems) -> Option<Settings> {
        let before = problems.list().len();
        let mut wrong = |key: &str, message: &str| problems.add(key_path(path, key), message);
        let listen = self.listen.as_deref().map(Listen::parse);
        match listen {
            Some(Some(_)) => {}
            Some(None) => wrong(
                "listen",
                "must be \"tcp://ADDRESS:PORT\", \"udp://ADDRESS:PORT\", \"unix://PATH\" or \"unix-datagram://PATH\", with an IP address",
            ),
            None => wrong("listen", "missing; such as \"tcp://127.0.0.1:5140\" or \"unix:///run/forebay/in.sock\""),
        }
        let listen = listen.flatten();
        if let Some(listen) = &listen {
            self.refuse_useless(listen, &mut wrong);
        }
        let max_connections = self.max_connections.unwrap_or(256);
        if max_connections == 0 {
            wrong("max-connections", "must be at least 1");
        }
        if self.idle_timeout.is_some_and(|idle| idle < Duration::from_secs(1)) {
            wrong("idle-timeout", "must be at least 1s");
        }
        if self.receive_buffer.is_some_and(|bytes| !(4096..=1 << 30).contains(&bytes)) {
            wrong("receive-buffer", "must be between 4KiB and 1GiB");
        }
        let mode = u32::from_str_radix(self.mode.as_deref().unwrap_or("0660"), 8).ok().filter(|mode| *mode <= 0o777);
        if mode.is_none() {
            wrong("mode", "must be octal digits such as \"0660\"");
        }
        let tls = Tls::of(
            self.cert_file.as_ref(),
            self.key_file.as_ref(),
            self.client_ca_file.as_ref(),
            self.allow_anonymous == Some(true),
            &mut wrong,
        );
        let reachable = listen.as_ref().is_some_and(|listen| !listen.is_local());
        if reachable && self.client_ca_file.is_none() && self.allow_anonymous.is_none() {
            wrong(
                "allow-anonymous",
                "a listener that others can reach needs `client-ca-file`, or `allow-anonymous = true` to let anybody in",
            );
        }
        if self.allow_anonymous == Some(false) && self.client_ca_file.is_none() {
            wrong("allow-anonymous", "without `client-ca-file` nobody could send");
        }
        if problems.list().len() > before {
            return None;
        }
        Some(Settings {
            listen: listen?,
            max_connections: max_connections as usize,
            idle_timeout: self.idle_timeout,
            receive_buffer: self.receive_buffer,
            mode: mode?,
            tls,
            framing: framing?,
        })
    }

    /// A key that does nothing there is a mistake, not something to pass over.
    fn refuse_useless(&self, listen: &Listen, wrong: &mut impl FnMut(&str, &str)) {
        let (stream, tcp) = (listen.is_stream(), matches!(listen, Listen::Tcp(_)));
        for (key, given, useful) in [
            ("max-connections", self.max_connections.is_some(), stream),
            ("idle-timeout", self.idle_timeout.is_some(), stream),
            ("receive-buffer", self.receive_buffer.is_some(), !stream),
            ("mode", self.mode.is_some(), listen.path().is_some()),
            ("cert-file", self.cert_file.is_some(), tcp),
            ("key-file", self.key_file.is_some(), tcp),
            ("client-ca-file", self.client_ca_file.is_some(), tcp),
        ] {
            if given && !useful {
                wrong(key, &format!("is of no use with {listen}"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems_of(text: &str) -> Vec<String> {
        let mut problems = Problems::default();
        let settings = read(text.parse().expect("TOML"), "sources.s", &[], &mut problems);
        assert!(settings.is_some() || !problems.list().is_empty());
        problems.list().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn every_kind_of_address_can_be_written() {
        for (text, listen) in [
            ("tcp://127.0.0.1:5140", Listen::Tcp(([127, 0, 0, 1], 5140).into())),
            ("udp://[::1]:514", Listen::Udp("[::1]:514".parse().expect("an address"))),
            ("unix:///run/in.sock", Listen::Unix("/run/in.sock".into())),
            ("unix-datagram://in.sock", Listen::UnixDatagram("in.sock".into())),
        ] {
            assert_eq!(Listen::parse(text).as_ref(), Some(&listen));
            assert_eq!(listen.to_string(), text);
            assert_eq!(problems_of(&format!("listen = '{text}'")), [""; 0]);
        }
        for text in ["127.0.0.1:5140", "tcp://localhost:1", "tls://127.0.0.1:1", "unix://", "udp://127.0.0.1"] {
            assert_eq!(Listen::parse(text), None, "{text}");
        }
        assert_eq!(problems_of("listen = 'tcp://127.0.0.1:1'\nframing = 'syslog'\nmax-frame = '8KiB'"), [""; 0]);
    }

    #[test]
    fn off_loopback_it_has_to_be_said() {
        for scheme in ["tcp", "udp"] {
            let listen = format!("listen = '{scheme}://0.0.0.0:5140'");
            let problems = problems_of(&listen);
            assert!(
                problems.len() == 1 && problems[0].contains("allow-anonymous: a listener that others"),
                "{problems:?}"
            );
            assert_eq!(problems_of(&format!("{listen}\nallow-anonymous = true")), [""; 0]);
            let nobody = problems_of(&format!("{listen}\nallow-anonymous = false"));
            assert_eq!(nobody, ["sources.s.allow-anonymous: without `client-ca-file` nobody could send"]);
        }
    }

    #[test]
    fn all_mistakes_are_told_at_once() {
        let text = "listen = 'udp://127.0.0.1:5140'\nmax-connections = 0\nreceive-buffer = 1\nmode = '0999'\nkey-file = 'k'\n\
                    idle-timeout = '1ms'\nmax-conections = 1";
        assert_eq!(
            problems_of(text),
            [
                "sources.s.max-conections: unknown key, did you mean `max-connections`?",
                "sources.s.max-connections: is of no use with udp://127.0.0.1:5140",
                "sources.s.idle-timeout: is of no use with udp://127.0.0.1:5140",
                "sources.s.mode: is of no use with udp://127.0.0.1:5140",
                "sources.s.key-file: is of no use with udp://127.0.0.1:5140",
                "sources.s.max-connections: must be at least 1",
                "sources.s.idle-timeout: must be at least 1s",
                "sources.s.receive-buffer: must be between 4KiB and 1GiB",
                "sources.s.mode: must be octal digits such as \"0660\"",
                "sources.s.cert-file: missing; `key-file` needs it",
            ]
        );
        assert_eq!(
            problems_of("listen = 'udp://127.0.0.1:1'\nframing = 'line'"),
            ["sources.s.framing: is of no use with udp://127.0.0.1:1: each datagram is a record"]
        );
        assert!(problems_of("")[0].starts_with("sources.s.listen: missing"));
    }
}
