//! The settings of an `mqtt` source: as they are written, and as they are once they were found right.

use std::{path::PathBuf, time::Duration};

use rumqttc::mqttbytes::{self, QoS};
use serde::{Deserialize, Deserializer, de};

use crate::{
    config::{Problems, Secret, duration},
    source,
    tls::ClientFiles,
};

/// MQTT writes every text behind a length of 16 bits.
const TEXT_BYTES_MAX: usize = u16::MAX as usize;

/// The keys of `[sources.NAME]` with `type = "mqtt"`.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Config {
    /// `"mqtt://host:port"`, or `"mqtts://host:port"` for TLS. The ports are 1883 and 8883 unless given.
    pub broker: Option<String>,
    /// Several of them in place of one: they are tried in this order, and one is connected to at a time.
    pub brokers: Option<Vec<String>>,
    /// Of MQTT: `"3.1.1"` or `5`.
    pub version: Version,
    /// How long a version 5 broker keeps our session and its messages while we are away; for ever if left out, as those
    /// of version 3.1.1 do.
    #[serde(with = "duration::option")]
    pub session_expiry: Option<Duration>,
    /// Names our session at the broker, which keeps messages for it while we are away. No other client may use it.
    pub client_id: Option<String>,
    /// Topic filters, such as `"plant/+/temperature"` or `"#"`; `"$share/group/filter"` shares with others of the group.
    pub topics: Option<Vec<String>>,
    /// The highest quality of service that the broker delivers to us with: 0, 1 or 2. At 0 it keeps nothing for us.
    pub qos: u8,
    /// User name.
    pub user: Option<String>,
    /// A file that holds the password.
    pub password_file: Option<PathBuf>,
    /// An environment variable that holds the password.
    pub password_env: Option<String>,
    /// Certificates of the authorities to trust, in PEM form; those of the system if left out.
    pub ca_file: Option<PathBuf>,
    /// Our own certificate and its chain, in PEM form.
    pub client_cert_file: Option<PathBuf>,
    /// Its private key, in PEM form.
    pub client_key_file: Option<PathBuf>,
    /// After this long without traffic the broker is asked whether it is there; after twice as long it is given up.
    #[serde(with = "duration")]
    pub keep_alive: Duration,
    /// Messages that may be on their way to the disk. When there are more, the rest is left unread in the connection.
    pub max_in_flight: usize,
    /// Longest pause between two attempts to connect.
    #[serde(with = "duration")]
    pub max_backoff: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            broker: None,
            brokers: None,
            version: Version::V311,
            session_expiry: None,
            client_id: None,
            topics: None,
            qos: 1,
            user: None,
            password_file: None,
            password_env: None,
            ca_file: None,
            client_cert_file: None,
            client_key_file: None,
            // Below the five minutes after which mobile networks commonly forget an idle connection.
            keep_alive: Duration::from_secs(60),
            // Some 60 ms of the fastest broker measured: longer than nearly every sync takes.
            max_in_flight: 10_000,
            max_backoff: Duration::from_secs(30),
        }
    }
}

/// Settings that were found right.
#[derive(Debug, Clone)]
pub struct Settings {
    /// At least one.
    pub(super) brokers: Vec<Broker>,
    pub(super) version: Version,
    pub(super) session_expiry: Option<Duration>,
    pub(super) client_id: String,
    pub(super) topics: Vec<String>,
    pub(super) qos: QoS,
    pub(super) user: Option<String>,
    pub(super) password: Option<Secret>,
    pub(super) ca_file: Option<PathBuf>,
    pub(super) client_cert_file: Option<PathBuf>,
    pub(super) client_key_file: Option<PathBuf>,
    pub(super) keep_alive: Duration,
    pub(super) max_in_flight: usize,
    pub(super) max_backoff: Duration,
}

/// A version of MQTT: `"3.1.1"`, `"5"` or `5`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// 3.1.1, which every broker speaks.
    V311,
    /// 5, which brings what publishers say about their messages.
    V5,
}

impl<'de> Deserialize<'de> for Version {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct VersionVisitor;

        impl de::Visitor<'_> for VersionVisitor {
            type Value = Version;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("\"3.1.1\" or 5")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Version, E> {
                match text {
                    "3.1.1" => Ok(Version::V311),
                    "5" => Ok(Version::V5),
                    _ => Err(E::invalid_value(de::Unexpected::Str(text), &self)),
                }
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Version, E> {
                match number {
                    5 => Ok(Version::V5),
                    _ => Err(E::invalid_value(de::Unexpected::Signed(number), &self)),
                }
            }
        }

        deserializer.deserialize_any(VersionVisitor)
    }
}

/// Where the broker is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Broker {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) tls: bool,
}

impl source::Config for Config {
    type Settings = Settings;

    fn validate(&self, path: &str, problems: &mut Problems) -> Option<Settings> {
        let mut wrong = |key: &str, message: String| problems.add(format!("{path}.{key}"), message);
        let (known, brokers) = self.brokers(&mut wrong);
        match self.client_id.as_deref() {
            None => wrong("client-id", "missing; the broker keeps our messages under it".into()),
            Some(text) => check_text("client-id", text, &mut wrong),
        }
        match self.topics.as_deref() {
            None => wrong("topics", "missing; such as [\"plant/#\"]".into()),
            Some([]) => wrong("topics", "names no topic".into()),
            Some(topics) => {
                for (place, topic) in topics.iter().enumerate() {
                    let no_filter = |why: &str| format!("`{topic}` is not a topic filter: {why}");
                    let message = wrong_with_text(topic).or_else(|| wrong_with_filter(topic).map(no_filter));
                    message.into_iter().for_each(|message| wrong(&format!("topics[{place}]"), message));
                }
            }
        }
        let qos = mqttbytes::qos(self.qos).ok();
        if qos.is_none() {
            wrong("qos", format!("is 0, 1 or 2, not {}", self.qos));
        }
        if let Some(user) = &self.user {
            check_text("user", user, &mut wrong);
        } else if self.password_file.is_some() || self.password_env.is_some() {
            wrong("user", "missing; MQTT has no password without a user".into());
        }
        if !(Duration::from_secs(1)..=Duration::from_secs(65535)).contains(&self.keep_alive) {
            wrong("keep-alive", format!("is between 1s and 18h, not {}", duration::show(self.keep_alive)));
        }
        match self.session_expiry {
            Some(_) if self.version != Version::V5 => {
                wrong("session-expiry", "is of no use without `version = 5`: 3.1.1 has none".into());
            }
            // The largest number stands for ever.
            Some(expiry) if expiry.as_secs() == 0 || expiry.as_secs() >= u64::from(u32::MAX) => {
                wrong("session-expiry", format!("is between 1s and 136 years, not {}", duration::show(expiry)));
            }
            _ => {}
        }
        if self.max_in_flight == 0 {
            wrong("max-in-flight", "must be at least 1".into());
        }
        if self.max_backoff.is_zero() {
            wrong("max-backoff", "must be longer than 0".into());
        }
        let password =
            Secret::read(path, "password", self.password_file.as_deref(), self.password_env.as_deref(), problems);
        self.validate_tls(&known, brokers.is_some(), path, problems);
        Some(Settings {
            brokers: brokers?,
            version: self.version,
            session_expiry: self.session_expiry,
            client_id: self.client_id.clone()?,
            topics: self.topics.clone()?,
            qos: qos?,
            user: self.user.clone(),
            password,
            ca_file: self.ca_file.clone(),
            client_cert_file: self.client_cert_file.clone(),
            client_key_file: self.client_key_file.clone(),
            // The broker is told whole seconds.
            keep_alive: Duration::from_secs(self.keep_alive.as_secs()),
            max_in_flight: self.max_in_flight,
            max_backoff: self.max_backoff,
        })
    }
}

impl Config {
    /// The brokers that are right, and all of them in their order if there is nothing wrong with any.
    fn brokers(&self, wrong: &mut impl FnMut(&str, String)) -> (Vec<Broker>, Option<Vec<Broker>>) {
        match (&self.broker, self.brokers.as_deref()) {
            (Some(_), Some(_)) => wrong("brokers", "there is `broker` already: write all of them here".into()),
            (None, None) => wrong("broker", "missing; such as \"mqtt://127.0.0.1:1883\"".into()),
            (None, Some([])) => wrong("brokers", "names no broker".into()),
            _ => {}
        }
        let mut parse = |key, text: &String| Broker::parse(text).map_err(|message| wrong(key, message)).ok();
        let one = self.broker.iter().map(|text| parse("broker", text)).collect::<Vec<_>>();
        let several: Vec<_> = self.brokers.iter().flatten().map(|text| parse("brokers", text)).collect();
        for (at, broker) in several.iter().enumerate().filter(|(at, broker)| several[..*at].contains(broker)) {
            let Some(broker) = broker else { continue };
            wrong("brokers", format!("{broker} stands there again at place {}", at + 1));
        }
        let all: Vec<_> = one.into_iter().chain(several).collect();
        let known: Vec<Broker> = all.iter().flatten().cloned().collect();
        let is_right = self.broker.is_some() != self.brokers.is_some() && !all.is_empty() && all.len() == known.len();
        (known.clone(), is_right.then_some(known))
    }

    /// For these brokers, or these and others that are not known.
    fn validate_tls(&self, brokers: &[Broker], are_all: bool, path: &str, problems: &mut Problems) {
        if brokers.iter().any(|broker| broker.tls) {
            client_files(&self.ca_file, &self.client_cert_file, &self.client_key_file).validate(path, problems);
            return;
        }
        if !are_all {
            return;
        }
        let files = [
            ("ca-file", &self.ca_file),
            ("client-cert-file", &self.client_cert_file),
            ("client-key-file", &self.client_key_file),
        ];
        for (key, _) in files.iter().filter(|(_, file)| file.is_some()) {
            problems.add(format!("{path}.{key}"), "is of no use without TLS: write the broker as \"mqtts://...\"");
        }
    }
}

impl Settings {
    /// The brokers, as they are written in the configuration.
    #[must_use]
    pub fn broker(&self) -> String {
        self.brokers.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    }

    pub(super) fn client_files(&self) -> ClientFiles<'_> {
        client_files(&self.ca_file, &self.client_cert_file, &self.client_key_file)
    }
}

impl Broker {
    fn parse(text: &str) -> Result<Self, String> {
        let form = || format!("`{text}` is not of the form \"mqtt://host:port\" or \"mqtts://host:port\"");
        let (scheme, rest) = text.split_once("://").ok_or_else(form)?;
        let (tls, default_port) = match scheme {
            "mqtt" => (false, 1883),
            "mqtts" => (true, 8883),
            _ => return Err(form()),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        if rest.contains('@') {
            return Err("takes no user or password: there are `user`, `password-file` and `password-env`".into());
        }
        // An IPv6 address stands in brackets, because of its colons.
        let (host, port) = match rest.strip_prefix('[') {
            Some(rest) => {
                let (host, port) = rest.split_once(']').ok_or_else(form)?;
                host.parse::<std::net::Ipv6Addr>().map_err(|_| form())?;
                (host, if port.is_empty() { None } else { Some(port.strip_prefix(':').ok_or_else(form)?) })
            }
            None => match rest.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (rest, None),
            },
        };
        let in_host = |c: char| c.is_alphanumeric() || matches!(c, '.' | '-' | '_');
        if host.is_empty() || (!rest.starts_with('[') && !host.chars().all(in_host)) {
            return Err(form());
        }
        let port =
            port.map_or(Ok(default_port), |port| port.parse().ok().filter(|port| *port != 0).ok_or_else(form))?;
        Ok(Self { host: host.to_owned(), port, tls })
    }
}

impl std::fmt::Display for Broker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let scheme = if self.tls { "mqtts" } else { "mqtt" };
        let Self { host, port, .. } = self;
        if host.contains(':') { write!(f, "{scheme}://[{host}]:{port}") } else { write!(f, "{scheme}://{host}:{port}") }
    }
}

/// What is wrong with a topic filter, if anything.
fn wrong_with_filter(topic: &str) -> Option<&'static str> {
    const FORM: &str = "`+` and `#` stand alone between slashes, `#` last";
    let Some(shared) = topic.strip_prefix("$share/") else {
        return (!mqttbytes::valid_filter(topic)).then_some(FORM);
    };
    match shared.split_once('/') {
        Some((group, filter)) if !group.is_empty() && !group.contains(['+', '#']) && !filter.is_empty() => {
            (!mqttbytes::valid_filter(filter)).then_some(FORM)
        }
        _ => Some("a shared one is \"$share/group/filter\", with no wildcard in the group"),
    }
}

fn check_text(key: &str, text: &str, wrong: &mut impl FnMut(&str, String)) {
    wrong_with_text(text).into_iter().for_each(|message| wrong(key, message));
}

/// Why MQTT cannot have such a text, if so.
fn wrong_with_text(text: &str) -> Option<String> {
    if text.is_empty() {
        Some("must not be empty".into())
    } else if text.len() > TEXT_BYTES_MAX {
        Some(format!("is at most {TEXT_BYTES_MAX} bytes long, not {}", text.len()))
    } else if text.contains('\0') {
        Some("must not contain U+0000, which MQTT forbids".into())
    } else {
        None
    }
}

fn client_files<'a>(
    ca: &'a Option<PathBuf>,
    certificate: &'a Option<PathBuf>,
    key: &'a Option<PathBuf>,
) -> ClientFiles<'a> {
    ClientFiles { ca: ca.as_deref(), certificate: certificate.as_deref(), key: key.as_deref() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config::reader, source::Config as _};

    fn problems_of(toml: &str) -> Vec<String> {
        let mut problems = Problems::default();
        let table = toml.parse().expect("TOML");
        if let Some(config) = reader::read::<Config>(table, "sources.plant", &[], &mut problems) {
            let settings = config.validate("sources.plant", &mut problems);
            assert!(settings.is_some() || !problems.list().is_empty(), "nothing was told");
        }
        problems.list().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_least_configuration_is_enough() {
        let toml = "broker = 'mqtt://127.0.0.1:1883'\nclient-id = 'gateway-7'\ntopics = ['plant/#']";
        assert_eq!(problems_of(toml), [""; 0]);
    }

    #[test]
    fn every_mistake_is_told_with_its_key() {
        let found = problems_of(
            "broker = 'http://x'\nclient-id = ''\ntopics = ['a/#/b', 'ok']\nqos = 3\npassword-env = 'FOREBAY_TEST_NOT_SET'\n\
             keep-alive = '100ms'\nmax-in-flight = 0\nmax-backoff = '0s'\nretain = true",
        );
        for key in [
            "broker: `http://x`",
            "client-id: must not be empty",
            "topics[0]: `a/#/b`",
            "qos: is 0, 1 or 2, not 3",
            "user: missing",
            "password-env: ",
            "keep-alive: ",
            "max-in-flight: ",
            "max-backoff: ",
            "retain: ",
        ] {
            let wanted = format!("sources.plant.{key}");
            assert_eq!(
                found.iter().filter(|problem| problem.starts_with(&wanted)).count(),
                1,
                "{wanted} in {found:#?}"
            );
        }
        assert_eq!(found.len(), 10, "{found:#?}");
        assert_eq!(problems_of("").len(), 3);
    }

    #[test]
    fn shared_subscriptions_are_topics() {
        for right in ["$share/g/#", "$share/g/plant/+/x", "$share/g//", "$SYS/#"] {
            assert_eq!(wrong_with_filter(right), None, "{right}");
        }
        for wrong in ["$share/g", "$share/g/", "$share//a", "$share/+/a", "$share/g#/a", "$share/g/a#"] {
            assert!(wrong_with_filter(wrong).is_some(), "{wrong}");
        }
    }

    #[test]
    fn of_topics_each_mistake_is_told_once_and_at_its_place() {
        let found = problems_of("broker = 'mqtt://a'\nclient-id = 'a'\ntopics = ['b', '', 'a/#/b', \"a\\u0000b\"]");
        assert_eq!(
            found,
            [
                "sources.plant.topics[1]: must not be empty",
                "sources.plant.topics[2]: `a/#/b` is not a topic filter: `+` and `#` stand alone between slashes, `#` last",
                "sources.plant.topics[3]: must not contain U+0000, which MQTT forbids",
            ]
        );
    }

    #[test]
    fn of_a_broker_beside_brokers_all_mistakes_are_told() {
        let rest = "client-id = 'a'\ntopics = ['b']\nca-file = '/nowhere/ca.pem'";
        let brokers = "['mqtts://b', 'x', 'mqtts://b:8883', 'x']";
        let found = problems_of(&format!("broker = 'http://a'\nbrokers = {brokers}\n{rest}"));
        let expected = [
            "brokers: there is `broker` already",
            "broker: `http://a` is not of the form",
            "brokers: `x` is not of the form",
            "brokers: `x` is not of the form",
            "brokers: mqtts://b:8883 stands there again at place 3",
            "ca-file: ",
        ];
        assert_eq!(found.len(), expected.len(), "{found:#?}");
        for (found, expected) in found.iter().zip(expected) {
            assert!(found.starts_with(&format!("sources.plant.{expected}")), "{found} is not {expected}");
        }
    }

    #[test]
    fn several_brokers_are_a_list() {
        let rest = "client-id = 'a'\ntopics = ['b']";
        assert_eq!(problems_of(&format!("brokers = ['mqtt://a', 'mqtts://b:1']\n{rest}")), [""; 0]);
        let found = problems_of(&format!("brokers = []\n{rest}"));
        assert_eq!(found, ["sources.plant.brokers: names no broker"]);
        let found = problems_of(&format!("broker = 'mqtt://a'\nbrokers = ['mqtt://b']\n{rest}"));
        assert!(found.len() == 1 && found[0].contains("there is `broker` already"), "{found:?}");
        let found = problems_of(&format!("brokers = ['http://a', 'mqtt://b', 'x']\n{rest}"));
        assert!(found.len() == 2 && found[1].contains("`x` is not of the form"), "{found:?}");
        let found = problems_of(&format!("brokers = ['mqtt://b', 'mqtt://b:1883']\n{rest}"));
        assert!(found.len() == 1 && found[0].contains("stands there again"), "{found:?}");
    }

    #[test]
    fn versions_are_named_and_only_5_has_an_expiry() {
        let rest = "broker = 'mqtt://a'\nclient-id = 'a'\ntopics = ['b']";
        assert_eq!(problems_of(&format!("version = '5'\nsession-expiry = '7d'\n{rest}")), [""; 0]);
        assert_eq!(problems_of(&format!("version = '3.1.1'\n{rest}")), [""; 0]);
        assert_eq!(problems_of(&format!("version = 5\n{rest}")), [""; 0]);
        for wrong in ["session-expiry = '7d'", "version = '5'\nsession-expiry = '0s'", "version = '4'"] {
            assert_eq!(problems_of(&format!("{wrong}\n{rest}")).len(), 1, "{wrong}");
        }
    }

    #[test]
    fn files_for_tls_need_tls_and_have_to_be_there() {
        let rest = "client-id = 'a'\ntopics = ['b']\nca-file = '/nowhere/ca.pem'";
        let found = problems_of(&format!("broker = 'mqtt://h'\n{rest}"));
        assert!(found.len() == 1 && found[0].contains("of no use without TLS"), "{found:?}");
        let found = problems_of(&format!("broker = 'mqtts://h'\n{rest}"));
        assert!(found.len() == 1 && found[0].contains("/nowhere/ca.pem"), "{found:?}");
    }

    #[test]
    fn a_password_is_never_printed() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("password");
        std::fs::write(&file, "hunter2\n").expect("written");
        let config = Config {
            broker: Some("mqtt://h".into()),
            client_id: Some("a".into()),
            topics: Some(vec!["b".into()]),
            user: Some("u".into()),
            password_file: Some(file),
            ..Config::default()
        };
        let settings = config.validate("s", &mut Problems::default()).expect("right");
        assert_eq!(settings.password.as_ref().map(Secret::expose), Some("hunter2"));
        assert!(!format!("{settings:?}").contains("hunter2"));
    }

    #[test]
    fn brokers_are_hosts_and_ports() {
        let broker = |host: &str, port, tls| Ok(Broker { host: host.into(), port, tls });
        assert_eq!(Broker::parse("mqtt://broker.example"), broker("broker.example", 1883, false));
        assert_eq!(Broker::parse("mqtts://broker.example/"), broker("broker.example", 8883, true));
        assert_eq!(Broker::parse("mqtt://10.0.0.1:1884"), broker("10.0.0.1", 1884, false));
        assert_eq!(Broker::parse("mqtts://[::1]:1"), broker("::1", 1, true));
        assert_eq!(Broker::parse("mqtt://[::1]"), broker("::1", 1883, false));
        for wrong in [
            "host:1883",
            "tcp://h",
            "mqtt://",
            "mqtt://:1",
            "mqtt://h:",
            "mqtt://h:0",
            "mqtt://h:65536",
            "mqtt://::1",
            "mqtt://[::1",
            "mqtt://[::1]1",
            "mqtt://h/path",
            "mqtt://h h",
            "mqtt://[h]:1",
        ] {
            assert!(Broker::parse(wrong).is_err(), "{wrong}");
        }
        assert!(Broker::parse("mqtt://user:secret@h").expect_err("user").contains("password-file"));
        for text in ["mqtt://h:1", "mqtts://[::1]:2"] {
            assert_eq!(Broker::parse(text).expect(text).to_string(), text);
        }
    }
}
