//! What sysfs has: hwmon chips, thermal zones, IIO devices and 1-Wire thermometers.
//!
//! Units are those of people: °C, V, A, W, %RH, lux, hPa. sysfs has thousandths of most, as
//! <https://docs.kernel.org/hwmon/sysfs-interface.html>, the kernel's Documentation/ABI/testing/sysfs-bus-iio, /sysfs-class-thermal
//! and Documentation/w1/slaves/w1_therm.rst say.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use super::{
    reading::{Found, Measured, Reading, slug},
    tree::{Tree, name_of, number, number_if_any, text},
};

/// hwmon: beginning of the channel's name, how many of its units one of ours is, and ours.
const HWMON: [(&str, f64, &str); 8] = [
    ("temp", 1e3, "°C"),
    ("in", 1e3, "V"),
    ("curr", 1e3, "A"),
    ("power", 1e6, "W"),
    ("energy", 1e6, "J"),
    ("humidity", 1e3, "%RH"),
    ("fan", 1.0, "rpm"),
    ("freq", 1.0, "Hz"),
];

/// IIO: the same, by the channel's type.
const IIO: [(&str, f64, &str); 20] = [
    ("temp", 1e3, "°C"),
    ("voltage", 1e3, "V"),
    ("altvoltage", 1e3, "V"),
    ("current", 1e3, "A"),
    ("power", 1e3, "W"),
    ("energy", 1.0, "J"),
    ("humidityrelative", 1e3, "%RH"),
    ("pressure", 0.1, "hPa"),
    ("illuminance", 1.0, "lux"),
    ("accel", 1.0, "m/s²"),
    ("gravity", 1.0, "m/s²"),
    ("anglvel", 1.0, "rad/s"),
    ("angl", 1.0, "rad"),
    ("magn", 1.0, "G"),
    ("resistance", 1.0, "Ω"),
    ("capacitance", 1.0, "nF"),
    ("concentration", 1.0, "%"),
    ("massconcentration", 1.0, "µg/m³"),
    ("distance", 1.0, "m"),
    ("velocity", 1.0, "m/s"),
];

/// A device of a class, with a name that is its own.
struct Device {
    dir: PathBuf,
    sensor: String,
}

pub(super) fn hwmon(tree: &Tree, found: &mut Found) {
    let dirs = tree.entries("sys/class/hwmon", "hwmon", "hwmon", found);
    // Before Linux 3.15 everything stood one level deeper.
    let deeper = |dir: PathBuf| if dir.join("device/name").exists() { dir.join("device") } else { dir };
    let dirs = dirs.into_iter().map(|dir| if dir.join("name").exists() { dir } else { deeper(dir) }).collect();
    for Device { dir, sensor } in named(tree, "hwmon", dirs, "name") {
        read_files(&dir, &sensor, found, |file, found| {
            let (channel, kind) = file.rsplit_once('_')?;
            let (beginning, digits) = channel.split_at(channel.find(|c: char| c.is_ascii_digit())?);
            let (_, per_unit, unit) = HWMON.iter().find(|(known, ..)| *known == beginning)?;
            let is_value = digits.bytes().all(|b| b.is_ascii_digit())
                && (kind == "input" || (kind == "average" && !dir.join(format!("{channel}_input")).exists()));
            if !is_value {
                return None;
            }
            let label = text(dir.join(format!("{channel}_label"))).map(|label| slug(&label)).unwrap_or_default();
            let name = if label.is_empty() { channel.to_owned() } else { format!("{channel}_{label}") };
            let is_broken = number(dir.join(format!("{channel}_fault"))).is_ok_and(|fault| fault != 0.0);
            let value = if is_broken {
                Err(io::Error::other("the chip says that it is broken"))
            } else {
                number(dir.join(file))
            };
            measured(value.map(|value| value / per_unit), name, unit, &sensor, found)
        });
    }
}

pub(super) fn thermal(tree: &Tree, found: &mut Found) {
    let dirs = tree.entries("sys/class/thermal", "thermal_zone", "thermal", found);
    for Device { dir, sensor } in named(tree, "thermal", dirs, "type") {
        let temperature = number(dir.join("temp")).map(|milli| milli / 1e3);
        let value = measured(temperature, "temp".into(), "°C", &sensor, found);
        found.readings.push(Reading { sensor, values: Vec::from_iter(value) });
    }
}

pub(super) fn iio(tree: &Tree, found: &mut Found) {
    let dirs = tree.entries("sys/bus/iio/devices", "iio:device", "iio", found);
    for Device { dir, sensor } in named(tree, "iio", dirs, "name") {
        read_files(&dir, &sensor, found, |file, found| {
            let (channel, kind) = file.strip_prefix("in_")?.rsplit_once('_')?;
            if kind != "input" && (kind != "raw" || dir.join(format!("in_{channel}_input")).exists()) {
                return None;
            }
            // `voltage0-voltage1` is a difference of voltages, `accel_x` an acceleration.
            let shared: String = channel.chars().filter(|c| !c.is_ascii_digit()).collect();
            let kind_of = shared.split(['_', '-']).next().unwrap_or_default();
            let (per_unit, unit) =
                IIO.iter().find(|(known, ..)| *known == kind_of).map_or((1.0, ""), |(_, n, unit)| (*n, *unit));
            let value = if kind == "input" {
                number(dir.join(file))
            } else {
                let attribute = |what: &str| attribute(&dir, &[channel, &shared, kind_of], what);
                // As the ABI says: (raw + offset) * scale.
                number(dir.join(file)).and_then(|raw| {
                    Ok((raw + attribute("offset")?.unwrap_or(0.0)) * attribute("scale")?.unwrap_or(1.0))
                })
            };
            let label = text(dir.join(format!("in_{channel}_label"))).map(|label| slug(&label)).unwrap_or_default();
            let name = if label.is_empty() { channel.to_owned() } else { format!("{channel}_{label}") };
            measured(value.map(|value| value / per_unit), name, unit, &sensor, found)
        });
    }
}

/// An attribute of a channel, or the one that it shares with others of its type.
fn attribute(dir: &Path, names: &[&str], what: &str) -> io::Result<Option<f64>> {
    for name in names {
        if let Some(number) = number_if_any(dir.join(format!("in_{name}_{what}")))? {
            return Ok(Some(number));
        }
    }
    Ok(None)
}

pub(super) fn one_wire(tree: &Tree, found: &mut Found) {
    for dir in tree.entries("sys/bus/w1/devices", "", "one-wire", found) {
        let sensor = format!("one-wire:{}", name_of(&dir));
        if tree.filter.passes_over(&sensor) {
            continue;
        }
        let temperature = match number_if_any(dir.join("temperature")) {
            Ok(Some(milli)) => Ok(milli),
            Ok(None) => match text(dir.join("w1_slave")) {
                Ok(text) => w1_slave(&text),
                // A bus master, or no thermometer.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => Err(error),
            },
            Err(error) => Err(error),
        };
        let value = measured(temperature.map(|milli| milli / 1e3), "temp".into(), "°C", &sensor, found);
        found.readings.push(Reading { sensor, values: Vec::from_iter(value) });
    }
}

/// Two lines of bytes in hex: the first ends with the checksum's verdict, the second with the temperature.
fn w1_slave(text: &str) -> io::Result<f64> {
    let wrong = |what| io::Error::new(io::ErrorKind::InvalidData, what);
    let (first, second) = text.split_once('\n').ok_or_else(|| wrong("no temperature"))?;
    if !first.trim_end().ends_with("YES") {
        return Err(wrong("checksum is wrong"));
    }
    let (_, milli) = second.rsplit_once("t=").ok_or_else(|| wrong("no temperature"))?;
    milli.trim().parse().ok().filter(|milli: &f64| milli.is_finite()).ok_or_else(|| wrong("no temperature"))
}

/// Notes what could not be read.
fn measured(
    value: io::Result<f64>,
    name: String,
    unit: &'static str,
    sensor: &str,
    found: &mut Found,
) -> Option<Measured> {
    match value {
        Ok(number) => Measured::gauge(name, number, unit),
        Err(error) => {
            found.fail(sensor, &name, &error);
            None
        }
    }
}

/// Reads a device file by file; those of which `read` makes nothing are no values.
fn read_files(dir: &Path, sensor: &str, found: &mut Found, read: impl Fn(&str, &mut Found) -> Option<Measured>) {
    let entries = fs::read_dir(dir).and_then(|entries| entries.map(|entry| Ok(name_of(&entry?.path()))).collect());
    let mut files: Vec<String> = match entries {
        Ok(files) => files,
        Err(error) => return found.fail(sensor, "directory", &error),
    };
    files.sort();
    let values: Vec<_> = files.iter().filter_map(|file| read(file, found)).collect();
    found.readings.push(Reading { sensor: sensor.to_owned(), values });
}

/// Names devices by what they say they are. Numbers such as `hwmon3` are not the same after a restart, so two of one name are told apart by
/// the device behind them, if there is one.
fn named(tree: &Tree, group: &str, dirs: Vec<PathBuf>, file: &str) -> Vec<Device> {
    let names: Vec<_> = dirs.iter().map(|dir| text(dir.join(file)).ok().filter(|name| !name.is_empty())).collect();
    let mut count = BTreeMap::new();
    names.iter().flatten().for_each(|name| *count.entry(name.clone()).or_insert(0) += 1);
    let device =
        |dir: &Path| fs::read_link(dir.join("device")).map(|link| name_of(&link)).unwrap_or_else(|_| name_of(dir));
    let named = dirs.into_iter().zip(names).map(|(dir, name)| {
        let name = match name {
            None => name_of(&dir),
            Some(name) if count.get(&name) == Some(&1) => name,
            Some(name) => format!("{name}@{}", device(&dir)),
        };
        Device { dir, sensor: format!("{group}:{name}") }
    });
    named.filter(|device| !tree.filter.passes_over(&device.sensor)).collect()
}

#[cfg(test)]
mod tests {
    use super::{
        super::{reading::Amount, tree::Filter},
        *,
    };

    /// A directory of files, by their paths.
    fn tree(files: &[(&str, &str)]) -> (tempfile::TempDir, Tree) {
        let dir = tempfile::tempdir().expect("a directory");
        for (path, text) in files {
            let path = dir.path().join("sys").join(path);
            fs::create_dir_all(path.parent().expect("one")).expect("made");
            fs::write(path, text).expect("written");
        }
        let tree = Tree { root: dir.path().to_owned(), filter: Filter::default() };
        (dir, tree)
    }

    fn found(files: &[(&str, &str)], read: fn(&Tree, &mut Found)) -> (Vec<(String, f64, &'static str)>, Vec<String>) {
        let (_dir, tree) = tree(files);
        let mut found = Found::default();
        read(&tree, &mut found);
        let values = |reading: Reading| {
            reading.values.into_iter().map(move |value| {
                let Amount::Gauge(number) = value.amount else { panic!("a gauge") };
                (format!("{}/{}", reading.sensor, value.name), number, value.unit)
            })
        };
        let unreadable = found.unreadable.into_iter().map(|one| format!("{}/{}: {}", one.sensor, one.what, one.error));
        (found.readings.into_iter().flat_map(values).collect(), unreadable.collect())
    }

    #[test]
    fn hwmon_chips_have_labels_and_faults() {
        let (values, unreadable) = found(
            &[
                ("class/hwmon/hwmon0/name", "coretemp\n"),
                ("class/hwmon/hwmon0/temp1_input", "45000\n"),
                ("class/hwmon/hwmon0/temp1_label", "Package id 0\n"),
                ("class/hwmon/hwmon0/temp1_max", "100000\n"),
                ("class/hwmon/hwmon0/temp2_input", "0\n"),
                ("class/hwmon/hwmon0/temp2_fault", "1\n"),
                ("class/hwmon/hwmon0/in0_input", "garbage"),
                ("class/hwmon/hwmon1/name", "ina2xx"),
                ("class/hwmon/hwmon1/in1_input", "3312"),
                ("class/hwmon/hwmon1/curr1_input", "-250"),
                ("class/hwmon/hwmon1/power1_average", "1500000"),
                ("class/hwmon/hwmon1/humidity1_input", "55500"),
                ("class/hwmon/hwmon1/fan1_input", "1200"),
                ("class/hwmon/hwmon10/name", "ina2xx"),
                ("class/hwmon/hwmon10/in1_input", "5000"),
            ],
            hwmon,
        );
        let wanted = [
            ("hwmon:coretemp/temp1_package_id_0", 45.0, "°C"),
            ("hwmon:ina2xx@hwmon1/curr1", -0.25, "A"),
            ("hwmon:ina2xx@hwmon1/fan1", 1200.0, "rpm"),
            ("hwmon:ina2xx@hwmon1/humidity1", 55.5, "%RH"),
            ("hwmon:ina2xx@hwmon1/in1", 3.312, "V"),
            ("hwmon:ina2xx@hwmon1/power1", 1.5, "W"),
            ("hwmon:ina2xx@hwmon10/in1", 5.0, "V"),
        ];
        assert_eq!(values, wanted.map(|(name, number, unit)| (name.to_owned(), number, unit)));
        assert_eq!(
            unreadable,
            ["hwmon:coretemp/in0: no number", "hwmon:coretemp/temp2: the chip says that it is broken"]
        );
    }

    #[test]
    fn iio_channels_are_raw_or_not() {
        let (values, unreadable) = found(
            &[
                ("bus/iio/devices/iio:device0/name", "bme280"),
                ("bus/iio/devices/iio:device0/in_temp_input", "21500"),
                ("bus/iio/devices/iio:device0/in_pressure_input", "101.325"),
                ("bus/iio/devices/iio:device0/in_humidityrelative_input", "45250"),
                ("bus/iio/devices/iio:device1/name", "ads1015"),
                ("bus/iio/devices/iio:device1/in_voltage0_raw", "1000"),
                ("bus/iio/devices/iio:device1/in_voltage0_scale", "2"),
                ("bus/iio/devices/iio:device1/in_voltage0-voltage1_raw", "-500"),
                ("bus/iio/devices/iio:device1/in_voltage-voltage_scale", "3"),
                ("bus/iio/devices/iio:device1/in_temp_raw", "100"),
                ("bus/iio/devices/iio:device1/in_temp_offset", "50"),
                ("bus/iio/devices/iio:device1/in_temp_scale", "100"),
                ("bus/iio/devices/iio:device1/in_accel_x_raw", "10"),
                ("bus/iio/devices/iio:device1/in_accel_scale", "0.5"),
                ("bus/iio/devices/iio:device1/in_illuminance_input", "320"),
                ("bus/iio/devices/iio:device1/in_illuminance_raw", "7"),
                ("bus/iio/devices/iio:device1/in_current0_raw", "7"),
                ("bus/iio/devices/iio:device1/in_current0_scale", "many"),
            ],
            iio,
        );
        let wanted = [
            ("iio:bme280/humidityrelative", 45.25, "%RH"),
            ("iio:bme280/pressure", 1013.25, "hPa"),
            ("iio:bme280/temp", 21.5, "°C"),
            ("iio:ads1015/accel_x", 5.0, "m/s²"),
            ("iio:ads1015/illuminance", 320.0, "lux"),
            ("iio:ads1015/temp", 15.0, "°C"),
            ("iio:ads1015/voltage0-voltage1", -1.5, "V"),
            ("iio:ads1015/voltage0", 2.0, "V"),
        ];
        assert_eq!(values, wanted.map(|(name, number, unit)| (name.to_owned(), number, unit)));
        assert_eq!(unreadable, ["iio:ads1015/current0: no number"]);
    }

    #[test]
    fn thermometers_on_a_wire_and_zones() {
        let (values, unreadable) = found(
            &[
                ("bus/w1/devices/28-000005e2fdc3/temperature", "23125\n"),
                (
                    "bus/w1/devices/28-000005e2fdc4/w1_slave",
                    "72 01 4b 46 7f ff 0e 10 57 : crc=57 YES\n72 01 4b 46 7f ff 0e 10 57 t=-1250\n",
                ),
                ("bus/w1/devices/28-000005e2fdc5/w1_slave", "00 : crc=57 NO\n00 t=85000\n"),
                ("bus/w1/devices/28-000005e2fdc6/temperature", ""),
                ("bus/w1/devices/w1_bus_master1/name", "x"),
            ],
            one_wire,
        );
        assert_eq!(
            values,
            [
                ("one-wire:28-000005e2fdc3/temp".to_owned(), 23.125, "°C"),
                ("one-wire:28-000005e2fdc4/temp".to_owned(), -1.25, "°C"),
            ]
        );
        assert_eq!(
            unreadable,
            ["one-wire:28-000005e2fdc5/temp: checksum is wrong", "one-wire:28-000005e2fdc6/temp: no number",]
        );
        let (values, _) = found(
            &[
                ("class/thermal/thermal_zone0/type", "cpu-thermal"),
                ("class/thermal/thermal_zone0/temp", "48312"),
                ("class/thermal/cooling_device0/type", "Fan"),
            ],
            thermal,
        );
        assert_eq!(values, [("thermal:cpu-thermal/temp".to_owned(), 48.312, "°C")]);
        assert_eq!(found(&[], hwmon), (vec![], vec![]));
    }
}
