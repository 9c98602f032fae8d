//! The settings of a `serial` source: as they are written, and as they are once they were found right.

use std::{
    fmt,
    sync::{Arc, LazyLock},
    time::Duration,
};

use serde::{Deserialize, Deserializer, de};
use toml::Table;

use crate::{
    config::{Octets, Problems, duration, reader},
    framing::{self, Framing},
    serial_port,
};

/// The keys of `[sources.NAME]` with `type = "serial"`, beside those of the port and of the framing.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub(super) struct Config {
    /// What is written as soon as the port is open: a text, or `{ hex = "..." }`.
    pub write_on_open: Option<Octets>,
    /// What a device that has to be asked is asked, and how often; a table, or a list of them.
    #[serde(deserialize_with = "one_or_many")]
    pub poll: Vec<PollConfig>,
    /// Longest pause between two attempts to open the port.
    #[serde(with = "duration")]
    pub max_backoff: Duration,
}

/// The keys of `poll`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub(super) struct PollConfig {
    /// What is written: a text, or `{ hex = "..." }`.
    command: Option<Octets>,
    /// How often.
    #[serde(with = "duration::option")]
    interval: Option<Duration>,
}

/// Settings that were found right.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    pub(super) port: serial_port::Settings,
    pub(super) framing: Framing,
    pub(super) write_on_open: Vec<u8>,
    pub(super) polls: Vec<Poll>,
    pub(super) max_backoff: Duration,
}

/// A question to the device.
#[derive(Debug, Clone)]
pub(super) struct Poll {
    pub(super) command: Vec<u8>,
    pub(super) interval: Duration,
    /// After opening; questions are spread, since a device answers one at a time.
    pub(super) first_after: Duration,
}

impl Default for Config {
    fn default() -> Self {
        // Looking whether a port is there costs next to nothing.
        Self { write_on_open: None, poll: Vec::new(), max_backoff: Duration::from_secs(5) }
    }
}

/// Every key of the table.
pub(super) fn keys() -> &'static [&'static str] {
    static KEYS: LazyLock<Vec<&'static str>> = LazyLock::new(|| {
        let (port, framing) = (reader::keys_of::<serial_port::Config>(), reader::keys_of::<framing::Config>());
        [reader::keys_of::<Config>(), port, framing].concat()
    });
    &KEYS
}

/// Reads the table.
pub(super) fn read(
    mut table: Table,
    path: &str,
    elsewhere: &[&str],
    problems: &mut Problems,
) -> Option<Arc<dyn crate::source::Settings>> {
    let port = reader::split_off::<serial_port::Config>(&mut table);
    let port: Option<serial_port::Config> = reader::read(port, path, &[], problems);
    let framing = reader::split_off::<framing::Config>(&mut table);
    let framing: Option<framing::Config> = reader::read(framing, path, &[], problems);
    let config: Option<Config> = reader::read(table, path, &[elsewhere, keys()].concat(), problems);
    let port = port.and_then(|port| port.validate(path, problems));
    let framing = framing.and_then(|framing| framing.validate(path, problems));
    let config = config?;
    config.validate(path, problems);
    let parts = u32::try_from(config.poll.len()).unwrap_or(u32::MAX).max(1);
    let polls = config.poll.into_iter().zip(0..).filter_map(|(PollConfig { command, interval }, nth)| {
        let (Octets(command), interval) = command.zip(interval)?;
        Some(Poll { command, interval, first_after: interval / parts * nth })
    });
    Some(Arc::new(Settings {
        port: port?,
        framing: framing?,
        write_on_open: config.write_on_open.map(|Octets(bytes)| bytes).unwrap_or_default(),
        polls: polls.collect(),
        max_backoff: config.max_backoff,
    }))
}

impl Config {
    fn validate(&self, path: &str, problems: &mut Problems) {
        if self.max_backoff.is_zero() {
            problems.add(format!("{path}.max-backoff"), "must be longer than 0");
        }
        for (nth, poll) in self.poll.iter().enumerate() {
            let path = if self.poll.len() == 1 { format!("{path}.poll") } else { format!("{path}.poll[{nth}]") };
            match &poll.command {
                None => {
                    problems.add(format!("{path}.command"), "missing; what the device is asked, such as \"READ?\\r\"")
                }
                Some(Octets(command)) if command.is_empty() => {
                    problems.add(format!("{path}.command"), "asks nothing");
                }
                Some(_) => {}
            }
            match poll.interval {
                None => {
                    problems.add(format!("{path}.interval"), "missing; how often the device is asked, such as \"1s\"")
                }
                Some(interval) if interval < Duration::from_millis(1) => {
                    problems.add(format!("{path}.interval"), "must be at least 1ms");
                }
                Some(_) => {}
            }
        }
    }
}

/// A table, or a list of tables.
fn one_or_many<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<PollConfig>, D::Error> {
    struct OneOrMany;

    impl<'de> de::Visitor<'de> for OneOrMany {
        type Value = Vec<PollConfig>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a table with `command` and `interval`, or a list of them")
        }

        fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
            PollConfig::deserialize(de::value::MapAccessDeserializer::new(map)).map(|poll| vec![poll])
        }

        fn visit_seq<A: de::SeqAccess<'de>>(self, seq: A) -> Result<Self::Value, A::Error> {
            Vec::deserialize(de::value::SeqAccessDeserializer::new(seq))
        }
    }
    deserializer.deserialize_any(OneOrMany)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_text(text: &str) -> (Option<String>, Vec<String>) {
        let mut problems = Problems::default();
        let settings = read(text.parse().expect("TOML"), "s", &["stream"], &mut problems);
        let list = problems.list().iter().map(ToString::to_string).collect();
        (settings.map(|settings| format!("{settings:?}")), list)
    }

    #[test]
    fn a_device_may_be_asked() {
        let device = "device = '/dev/ttyS0'\nframing = 'cobs'";
        let one = format!(
            "{device}\nwrite-on-open = \"\\u0002ON\\r\"\npoll = {{ command = {{ hex = '05' }}, interval = '1s' }}"
        );
        let (settings, problems) = read_text(&one);
        let settings = settings.expect("right");
        assert_eq!(problems, Vec::<String>::new());
        assert!(settings.contains("command: [5]") && settings.contains("write_on_open: [2, 79, 78, 13]"), "{settings}");
        let two =
            format!("{device}\npoll = [{{ command = 'A', interval = '1s' }}, {{ command = 'B', interval = '1s' }}]");
        assert!(read_text(&two).0.expect("right").contains("first_after: 500ms"));
    }

    #[test]
    fn what_is_wrong_is_told_with_its_key() {
        let (_, problems) = read_text(
            "baud = 'fast'\nframing = 'lines'\npoll = [{ command = '', interval = '0s' }, {}]\nmax-backoff = '0s'\nstreem = 'x'\nparty = 'even'",
        );
        let mut keys: Vec<_> = problems.iter().filter_map(|problem| problem.split(": ").next()).collect();
        keys.sort_unstable();
        let wanted = [
            "s.baud",
            "s.device",
            "s.framing",
            "s.max-backoff",
            "s.party",
            "s.poll[0].command",
            "s.poll[0].interval",
            "s.poll[1].command",
            "s.poll[1].interval",
            "s.streem",
        ];
        assert_eq!(keys, wanted, "{problems:#?}");
        assert!(problems.iter().any(|problem| problem.ends_with("did you mean `parity`?")), "{problems:#?}");
        for (text, told) in [
            ("devise = '/dev/ttyS0'", "s.devise: unknown key, did you mean `device`?"),
            ("usb = '0403:6001'", "s.usb: must be a table, not string \"0403:6001\""),
            (
                "device = '/dev/ttyS0'\npoll = { command = 'A' }",
                "s.poll.interval: missing; how often the device is asked, such as \"1s\"",
            ),
        ] {
            assert_eq!(read_text(text).1, [told], "one mistake is told once");
        }
        assert!(
            read_text("device = '/dev/ttyS0'\npoll = 3").1[0].starts_with("s.poll: must be a table with `command`")
        );
    }
}
