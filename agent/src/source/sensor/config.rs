//! The settings of a `sensor` source: as they are written, and as they are once they were found right.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use serde::Deserialize;
use toml::Value;

use super::{
    report::Rule,
    tree::{Filter, Tree},
};
use crate::{
    config::{Problems, duration},
    source,
};

/// The keys of `[sources.NAME]` with `type = "sensor"`.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Config {
    /// What is read; everything by default.
    pub read: Vec<Group>,
    /// How often.
    #[serde(with = "duration")]
    pub interval: Duration,
    /// Patterns of the sensors or values that are wanted, such as `"hwmon:*"`, `"network:eth0"` or `"*/temp*"`; none: all.
    pub include: Vec<String>,
    /// Patterns of those that are not.
    pub exclude: Vec<String>,
    /// `"all"`: every reading is a record; `"changed"`: those of which a value has changed.
    pub report: Report,
    /// With `report = "changed"`: by how much a value has to differ from the recorded one; a number for all, or a table by unit, such as
    /// `{ "°C" = 0.5, "%" = 5 }`. 0: by anything.
    pub dead_band: Option<Value>,
    /// With `report = "changed"`: a record at least this often.
    #[serde(with = "duration::option")]
    pub max_silence: Option<Duration>,
    /// Where the tree of files begins.
    pub root: PathBuf,
}

/// What belongs together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Group {
    /// Chips that watch the machine: temperatures, voltages, fans.
    Hwmon,
    /// The processor's and other zones' temperatures.
    Thermal,
    /// Sensors of the Industrial I/O subsystem: climate, light, acceleration, converters.
    Iio,
    /// Thermometers on a 1-Wire bus, such as DS18B20.
    OneWire,
    /// Shares of the processors' time.
    Cpu,
    /// Memory and swap.
    Memory,
    /// Load averages and uptime.
    Load,
    /// What was read from and written to each disk.
    Disk,
    /// How full each file system is.
    Filesystem,
    /// What each interface has received and sent.
    Network,
}

impl Group {
    pub(super) const ALL: [Self; 10] = [
        Self::Hwmon,
        Self::Thermal,
        Self::Iio,
        Self::OneWire,
        Self::Cpu,
        Self::Memory,
        Self::Load,
        Self::Disk,
        Self::Filesystem,
        Self::Network,
    ];
}

/// Which readings become records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Report {
    /// Every one.
    #[default]
    All,
    /// Those that changed.
    Changed,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            read: Group::ALL.to_vec(),
            interval: Duration::from_secs(10),
            include: Vec::new(),
            exclude: Vec::new(),
            report: Report::All,
            dead_band: None,
            max_silence: None,
            root: "/".into(),
        }
    }
}

/// Settings that were found right.
#[derive(Debug, Clone)]
pub struct Settings {
    pub(super) groups: Vec<Group>,
    pub(super) interval: Duration,
    pub(super) tree: Tree,
    pub(super) rule: Rule,
}

impl source::Config for Config {
    type Settings = Settings;

    fn validate(&self, path: &str, problems: &mut Problems) -> Option<Settings> {
        let mut wrong = |key: &str, message: String| problems.add(format!("{path}.{key}"), message);
        if self.read.is_empty() {
            wrong("read", "names nothing to read".into());
        }
        if self.interval < Duration::from_millis(100) {
            wrong("interval", format!("must be at least 100ms, not {}", duration::show(self.interval)));
        }
        let changed = self.report == Report::Changed;
        for (key, is_given) in [("dead-band", self.dead_band.is_some()), ("max-silence", self.max_silence.is_some())] {
            if is_given && !changed {
                wrong(key, "is of no use without report = \"changed\"".into());
            }
        }
        if changed && self.max_silence.is_some_and(|longest| longest < self.interval) {
            wrong("max-silence", "must not be shorter than interval".into());
        }
        let mut patterns = |key: &str, texts: &[String]| {
            let parse =
                |text: &String| glob::Pattern::new(text).map_err(|error| wrong(key, format!("`{text}`: {error}"))).ok();
            texts.iter().filter_map(parse).collect()
        };
        let filter =
            Filter { include: patterns("include", &self.include), exclude: patterns("exclude", &self.exclude) };
        let (dead_band, by_unit) = match dead_bands(self.dead_band.as_ref().filter(|_| changed)) {
            Ok(bands) => bands,
            Err(message) => {
                wrong("dead-band", message);
                (0.0, BTreeMap::new())
            }
        };
        let mut groups = self.read.clone();
        groups.sort_unstable();
        groups.dedup();
        Some(Settings {
            groups,
            interval: self.interval,
            tree: Tree { root: self.root.clone(), filter },
            rule: Rule { changed, dead_band, by_unit, max_silence: self.max_silence },
        })
    }
}

/// One for all, or by unit.
fn dead_bands(value: Option<&Value>) -> Result<(f64, BTreeMap<String, f64>), String> {
    #[expect(clippy::cast_precision_loss, reason = "nobody writes a dead band of 53 bits")]
    let number = |value: &Value| {
        let number = value.as_float().or_else(|| value.as_integer().map(|number| number as f64));
        number.filter(|number| (0.0..f64::INFINITY).contains(number))
    };
    let form =
        || "is a number that is not negative, or a table of such by unit: { \"°C\" = 0.5, \"%\" = 5 }".to_owned();
    match value {
        None => Ok((0.0, BTreeMap::new())),
        Some(Value::Table(table)) => {
            let bands = table.iter().map(|(unit, value)| Some((unit.clone(), number(value)?)));
            Ok((0.0, bands.collect::<Option<_>>().ok_or_else(form)?))
        }
        Some(value) => Ok((number(value).ok_or_else(form)?, BTreeMap::new())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config::reader, source::Config as _};

    fn read(toml: &str) -> (Option<Settings>, Vec<String>) {
        let mut problems = Problems::default();
        let config = reader::read::<Config>(toml.parse().expect("TOML"), "sources.box", &[], &mut problems);
        let settings = config.and_then(|config| config.validate("sources.box", &mut problems));
        (settings, problems.list().iter().map(ToString::to_string).collect())
    }

    #[test]
    fn everything_is_read_unless_said_otherwise() {
        let (settings, problems) = read("");
        assert_eq!((settings.expect("right").groups.len(), problems), (10, vec![]));
        let (settings, problems) =
            read("read = ['cpu', 'hwmon', 'cpu']\nreport = 'changed'\ndead-band = { '°C' = 0.5, '%' = 5 }");
        let settings = settings.expect("right");
        assert_eq!((settings.groups, problems), (vec![Group::Hwmon, Group::Cpu], vec![]));
        assert_eq!(settings.rule.by_unit, [("°C".to_owned(), 0.5), ("%".to_owned(), 5.0)].into());
    }

    #[test]
    fn every_mistake_is_told_with_its_key() {
        let (_, found) = read(
            "read = []\ninterval = '1ms'\ninclude = ['***']\nexclude = ['[']\ndead-band = -1\nmax-silence = '0s'\nreport = 'all'",
        );
        let wanted = ["read", "interval", "dead-band", "max-silence", "include", "exclude"];
        let keys: Vec<_> = found.iter().map(|problem| problem.split(": ").next().expect("a key")).collect();
        assert_eq!(keys, wanted.map(|key| format!("sources.box.{key}")), "{found:#?}");
        for (text, key) in [
            ("read = ['gpu']", "read"),
            ("report = 'changed'\ndead-band = -1", "dead-band"),
            ("report = 'changed'\nmax-silence = '1s'", "max-silence"),
        ] {
            let (_, found) = read(text);
            assert!(found.len() == 1 && found[0].starts_with(&format!("sources.box.{key}")), "{found:?}");
        }
    }
}
