//! The settings of `modbus-rtu` and `modbus-tcp` sources: as they are written, and as they are once they were found right.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, LazyLock},
    time::Duration,
};

use serde::Deserialize;

use super::{
    plan::Unit,
    register::{Order, Register, Table, Type},
};
use crate::{
    config::{Problems, duration, reader},
    serial_port,
};

/// Names that the record has for itself.
const TAKEN: [&str; 2] = ["unit", "errors"];

/// The keys of both types, beside where the device is.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub(super) struct Config {
    /// Which units have the registers below; each has a record of its own.
    units: Vec<u8>,
    /// What is read.
    registers: Vec<RegisterConfig>,
    /// How often.
    #[serde(with = "duration")]
    interval: Duration,
    /// How long an answer may take.
    #[serde(with = "duration")]
    timeout: Duration,
    /// How many registers that nobody asked for may be read for the sake of one request in place of two.
    max_gap: u16,
    /// The most registers in one request; some devices take fewer than the standard's 125.
    max_request: u16,
    /// Longest pause between two attempts to reach the device.
    #[serde(with = "duration")]
    max_backoff: Duration,
}

/// The keys of a register.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub(super) struct RegisterConfig {
    /// What it is called in the record.
    name: Option<String>,
    /// From 0, as it goes over the line: what many manuals call 40001 is 0 in the table `holding`.
    address: Option<u16>,
    /// `"holding"` (the default), `"input"`, `"coil"` or `"discrete"`.
    table: Option<Table>,
    /// `"u16"` (the default), `"i16"`, ... `"f64"`, or `"bool"` (the only one for coils and discrete inputs).
    #[serde(rename = "type")]
    kind: Option<Type>,
    /// Which word comes first: the high one (`"big"`, the default) or the low one (`"little"`).
    word_order: Option<Order>,
    /// Which byte of a word comes first; the standard says the high one (`"big"`), some devices differ.
    byte_order: Option<Order>,
    /// What the number is multiplied by.
    scale: Option<f64>,
    /// What is then added.
    offset: Option<f64>,
    /// Only this unit has it.
    unit: Option<u8>,
}

/// Where a `modbus-tcp` device is.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub(super) struct TcpConfig {
    /// `"host"` or `"host:port"`; the port is 502 unless given.
    server: Option<String>,
}

/// Settings that were found right.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    pub(super) place: Place,
    pub(super) units: Vec<Unit>,
    pub(super) interval: Duration,
    pub(super) timeout: Duration,
    pub(super) max_backoff: Duration,
}

/// Where a device is.
#[derive(Debug, Clone)]
pub(super) enum Place {
    Rtu(serial_port::Settings),
    Tcp { host: String, port: u16 },
}

impl Default for Config {
    fn default() -> Self {
        Self {
            units: vec![1],
            registers: Vec::new(),
            interval: Duration::from_secs(1),
            timeout: Duration::from_secs(1),
            max_gap: 0,
            max_request: 125,
            max_backoff: Duration::from_secs(10),
        }
    }
}

/// Every key of a `modbus-rtu` table.
pub(super) fn rtu_keys() -> &'static [&'static str] {
    static KEYS: LazyLock<Vec<&'static str>> =
        LazyLock::new(|| [reader::keys_of::<Config>(), reader::keys_of::<serial_port::Config>()].concat());
    &KEYS
}

/// Every key of a `modbus-tcp` table.
pub(super) fn tcp_keys() -> &'static [&'static str] {
    static KEYS: LazyLock<Vec<&'static str>> =
        LazyLock::new(|| [reader::keys_of::<Config>(), reader::keys_of::<TcpConfig>()].concat());
    &KEYS
}

/// Reads a `modbus-rtu` table.
pub(super) fn read_rtu(
    mut table: toml::Table,
    path: &str,
    elsewhere: &[&str],
    problems: &mut Problems,
) -> Option<Arc<dyn crate::source::Settings>> {
    let port: Option<serial_port::Config> =
        reader::read(reader::split_off::<serial_port::Config>(&mut table), path, &[], problems);
    let config: Option<Config> = reader::read(table, path, &[elsewhere, rtu_keys()].concat(), problems);
    let port = port.and_then(|port| port.validate(path, problems));
    // Up to 247 are units of their own on a serial line ("MODBUS over Serial Line" V1.02, 2.2); 0 speaks to all.
    let settings = config?.validate(1..=247, path, problems);
    Some(Arc::new(settings.at(Place::Rtu(port?))))
}

/// Reads a `modbus-tcp` table.
pub(super) fn read_tcp(
    mut table: toml::Table,
    path: &str,
    elsewhere: &[&str],
    problems: &mut Problems,
) -> Option<Arc<dyn crate::source::Settings>> {
    let server: Option<TcpConfig> = reader::read(reader::split_off::<TcpConfig>(&mut table), path, &[], problems);
    let place = server.and_then(|config| config.validate(path, problems));
    let config: Option<Config> = reader::read(table, path, &[elsewhere, tcp_keys()].concat(), problems);
    // Behind a gateway as on the line; a device itself says 255, and some say 0.
    let settings = config?.validate(0..=255, path, problems);
    Some(Arc::new(settings.at(place?)))
}

impl TcpConfig {
    fn validate(&self, path: &str, problems: &mut Problems) -> Option<Place> {
        let Some(server) = self.server.as_deref() else {
            problems.add(format!("{path}.server"), "missing; such as \"192.168.1.20:502\"");
            return None;
        };
        let (host, port) = match server.strip_prefix('[') {
            Some(rest) => rest.split_once(']').map_or(("", "x"), |(host, rest)| match rest.strip_prefix(':') {
                Some(port) => (host, port),
                None => (host, if rest.is_empty() { "502" } else { "x" }),
            }),
            None => server.split_once(':').unwrap_or((server, "502")),
        };
        match port.parse().ok().filter(|port| *port != 0) {
            Some(port) if !host.is_empty() && !host.contains(['/', ' ']) => {
                Some(Place::Tcp { host: host.to_owned(), port })
            }
            _ => {
                problems
                    .add(format!("{path}.server"), format!("`{server}` is not of the form \"host\" or \"host:port\""));
                None
            }
        }
    }
}

/// All but the place.
struct Polled {
    units: Vec<Unit>,
    config: Config,
}

impl Polled {
    fn at(self, place: Place) -> Settings {
        let Config { interval, timeout, max_backoff, .. } = self.config;
        Settings { place, units: self.units, interval, timeout, max_backoff }
    }
}

impl Config {
    fn validate(self, range: std::ops::RangeInclusive<u8>, path: &str, problems: &mut Problems) -> Polled {
        let mut wrong = |key: &str, message: String| problems.add(format!("{path}.{key}"), message);
        let allowed = |unit: u8| range.contains(&unit);
        let form = |unit: u8| format!("a unit is between {} and {}, not {unit}", range.start(), range.end());
        for unit in self.units.iter().filter(|unit| !allowed(**unit)) {
            wrong("units", form(*unit));
        }
        if self.units.is_empty() && self.registers.iter().any(|register| register.unit.is_none()) {
            wrong("units", "names none, and not every register says which `unit` has it".into());
        }
        if self.registers.is_empty() {
            wrong("registers", "names none; such as [{ name = \"voltage\", address = 0, type = \"f32\" }]".into());
        }
        if self.interval < Duration::from_millis(10) {
            wrong("interval", format!("is at least 10ms, not {}", duration::show(self.interval)));
        }
        if self.timeout < Duration::from_millis(1) {
            wrong("timeout", format!("is at least 1ms, not {}", duration::show(self.timeout)));
        }
        if !(1..=125).contains(&self.max_request) {
            wrong("max-request", format!("is between 1 and 125, not {}", self.max_request));
        }
        if self.max_backoff.is_zero() {
            wrong("max-backoff", "must be longer than 0".into());
        }
        let mut units: BTreeMap<u8, Vec<Register>> = BTreeMap::new();
        for (nth, config) in self.registers.iter().enumerate() {
            let register = config.validate(|key, message| wrong(&format!("registers[{nth}].{key}"), message));
            if let Some(unit) = config.unit.filter(|unit| !allowed(*unit)) {
                wrong(&format!("registers[{nth}].unit"), form(unit));
            }
            let ids: BTreeSet<u8> =
                config.unit.map_or_else(|| self.units.iter().copied().collect(), |unit| [unit].into());
            for id in ids {
                let registers = units.entry(id).or_default();
                if !register.name.is_empty() && registers.iter().any(|other| other.name == register.name) {
                    wrong(
                        &format!("registers[{nth}].name"),
                        format!("unit {id} has another one called `{}`", register.name),
                    );
                }
                registers.push(register.clone());
            }
        }
        let units = units
            .into_iter()
            .map(|(id, registers)| Unit::new(id, registers, self.max_gap, self.max_request.clamp(1, 125)))
            .collect();
        Polled { units, config: self }
    }
}

impl RegisterConfig {
    fn validate(&self, mut wrong: impl FnMut(&str, String)) -> Register {
        let table = self.table.unwrap_or(Table::Holding);
        let kind = self.kind.unwrap_or(if table.has_bits() { Type::Bool } else { Type::U16 });
        let (scale, offset) = (self.scale.unwrap_or(1.0), self.offset.unwrap_or(0.0));
        let register = Register {
            name: self.name.clone().unwrap_or_default(),
            table,
            address: self.address.unwrap_or_default(),
            kind,
            word_order: self.word_order.unwrap_or(Order::Big),
            byte_order: self.byte_order.unwrap_or(Order::Big),
            scale,
            offset,
        };
        match self.name.as_deref() {
            None | Some("") => wrong("name", "missing; what the number is called in the record".into()),
            Some(name) if TAKEN.contains(&name) => {
                wrong("name", format!("`{name}` cannot be a name: the record has its own `unit` and `errors`"));
            }
            Some(_) => {}
        }
        if self.address.is_none() {
            wrong("address", "missing; from 0, as it goes over the line".into());
        }
        if table.has_bits() && kind != Type::Bool {
            wrong("type", "a coil or a discrete input is a `bool`".into());
        }
        if u32::from(register.address) + u32::from(register.len()) > 65536 {
            wrong("address", "its last word is behind the last address, 65535".into());
        }
        if !scale.is_finite() || scale == 0.0 {
            wrong("scale", format!("{scale} makes nothing of any number"));
        }
        if !offset.is_finite() {
            wrong("offset", format!("{offset} makes nothing of any number"));
        }
        register
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems_of(text: &str) -> Vec<String> {
        let mut problems = Problems::default();
        let read = if text.contains("device") { read_rtu } else { read_tcp };
        let settings = read(text.parse().expect("TOML"), "s", &["stream"], &mut problems);
        assert!(settings.is_some() || !problems.list().is_empty());
        problems.list().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn registers_belong_to_units() {
        let text = "server = 'meter'\nunits = [1, 3]\nregisters = [
            { name = 'a', address = 0 }, { name = 'b', address = 1, unit = 3 }, { name = 'b', address = 7, unit = 9, type = 'f32' }]";
        let mut problems = Problems::default();
        let config: Config = reader::read(
            {
                let mut table = text.parse().expect("TOML");
                let _ = reader::split_off::<TcpConfig>(&mut table);
                table
            },
            "s",
            &[],
            &mut problems,
        )
        .expect("right");
        let polled = config.validate(0..=255, "s", &mut problems);
        assert_eq!(problems.list(), []);
        let names = |unit: &Unit| unit.registers.iter().map(|register| register.name.clone()).collect::<String>();
        let units: Vec<_> = polled.units.iter().map(|unit| (unit.id, names(unit), unit.blocks.len())).collect();
        assert_eq!(units, [(1, "a".into(), 1), (3, "ab".into(), 1), (9, "b".into(), 1)]);
    }

    #[test]
    fn what_is_wrong_is_told_with_its_key() {
        let good = "registers = [{ name = 'a', address = 0 }]";
        for (text, told) in [
            (format!("server = 'h'\n{good}"), ""),
            (format!("server = '[::1]:5020'\n{good}"), ""),
            (format!("device = '/dev/ttyS0'\nbaud = 19200\n{good}"), ""),
            (good.into(), "s.server: missing"),
            (format!("server = 'h:x'\n{good}"), "s.server: `h:x` is not of the form"),
            (format!("server = 'tcp://h'\n{good}"), "s.server: `tcp://h` is not of the form"),
            (format!("server = '[::1'\n{good}"), "s.server: `[::1` is not of the form"),
            ("server = 'h'".into(), "s.registers: names none"),
            (format!("device = '/dev/ttyS0'\nunits = [0]\n{good}"), "s.units: a unit is between 1 and 247, not 0"),
            (format!("server = 'h'\ninterval = '1ms'\n{good}"), "s.interval: is at least 10ms"),
            (format!("server = 'h'\nmax-request = 126\n{good}"), "s.max-request: is between 1 and 125"),
            (format!("server = 'h'\nbaud = 9600\n{good}"), "s.baud: unknown key"),
            (
                "server = 'h'\nregisters = [{ name = 'unit', address = 0 }]".into(),
                "s.registers[0].name: `unit` cannot be",
            ),
            ("server = 'h'\nregisters = [{ name = 'a' }]".into(), "s.registers[0].address: missing"),
            (format!("server = 'h'\nunits = []\n{good}"), "s.units: names none"),
            (
                "server = 'h'\nregisters = [{ name = 'a', address = 65535, type = 'u32' }]".into(),
                "s.registers[0].address: its last",
            ),
            (
                "server = 'h'\nregisters = [{ name = 'a', address = 0, type = 'u32', table = 'coil' }]".into(),
                "s.registers[0].type: a coil",
            ),
            (
                "server = 'h'\nregisters = [{ name = 'a', address = 0, scale = 0.0 }]".into(),
                "s.registers[0].scale: 0 makes",
            ),
            (
                "server = 'h'\nregisters = [{ name = 'a', address = 0 }, { name = 'a', address = 1 }]".into(),
                "s.registers[1].name: unit 1 has another",
            ),
        ] {
            let found = problems_of(&text);
            assert_eq!(found.is_empty(), told.is_empty(), "{text}: {found:#?}");
            assert!(found.first().is_none_or(|found| found.starts_with(told)), "{text}: {found:#?}");
            assert!(found.len() <= 1, "one mistake is told once: {found:#?}");
        }
    }

    #[test]
    fn no_mistake_hides_another() {
        let text = "sever = 'h'\nunits = 'one'\nregisters = [{ name = 3, address = 0 }, { adress = 1, name = 'b', type = 'u17' },
            { name = 'c', address = 65536 }, { address = 4, scale = 0.0 }]";
        let told: Vec<_> =
            problems_of(text).into_iter().map(|told| told.split_once(": ").expect("a path").0.to_owned()).collect();
        let keys = [
            "registers[0].name",
            "registers[1].adress",
            "registers[1].type",
            "registers[2].address",
            "sever",
            "units",
            "registers[3].name",
            "registers[3].scale",
        ];
        assert_eq!(told, keys.map(|key| format!("s.{key}")));
    }
}
