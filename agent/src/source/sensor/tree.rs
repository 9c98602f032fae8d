//! The tree of files that sensors are read from: the machine's own, or one that stands in for it.

use std::{
    fs::{self, File},
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use super::reading::{Found, Unreadable};

/// sysfs gives at most a page, and what is read of /proc grows with the machine's processors and disks.
const TEXT_BYTES_MAX: u64 = 1024 * 1024;

/// Where it begins, and what of it is passed over.
#[derive(Debug, Clone)]
pub(super) struct Tree {
    pub(super) root: PathBuf,
    pub(super) filter: Filter,
}

/// Which sensors and values are wanted: patterns of `SENSOR` or `SENSOR/VALUE`.
#[derive(Debug, Clone, Default)]
pub(super) struct Filter {
    /// None: all.
    pub(super) include: Vec<glob::Pattern>,
    pub(super) exclude: Vec<glob::Pattern>,
}

impl Tree {
    /// A path of the machine, such as `sys/class/hwmon`.
    pub(super) fn at(&self, path: impl AsRef<Path>) -> PathBuf {
        self.root.join(path)
    }

    /// The entries of a directory whose names begin so, in order; none if there is no such directory. What else is wrong with it is noted.
    pub(super) fn entries(&self, dir: &str, beginning: &str, sensor: &str, found: &mut Found) -> Vec<PathBuf> {
        let names = fs::read_dir(self.at(dir)).and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect());
        let mut paths: Vec<PathBuf> = match names {
            Ok(paths) => paths,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => {
                found.fail(sensor, dir, &error);
                Vec::new()
            }
        };
        paths.retain(|path| name_of(path).starts_with(beginning));
        // hwmon10 behind hwmon9.
        paths.sort_by_key(|path| (name_of(path).len(), path.clone()));
        paths
    }
}

impl Filter {
    /// Whether a sensor need not even be read.
    pub(super) fn passes_over(&self, sensor: &str) -> bool {
        self.exclude.iter().any(|pattern| pattern.matches(sensor))
    }

    /// Takes the values out that are not wanted, and sensors without values.
    pub(super) fn apply(&self, found: &mut Found) {
        for reading in &mut found.readings {
            let sensor = &reading.sensor;
            reading.values.retain(|value| self.wants(sensor, &value.name));
        }
        found.readings.retain(|reading| !reading.values.is_empty());
        found.unreadable.retain(|one| self.wants(&one.sensor, &one.what));
    }

    fn wants(&self, sensor: &str, value: &str) -> bool {
        let whole = format!("{sensor}/{value}");
        let fits = |pattern: &glob::Pattern| pattern.matches(sensor) || pattern.matches(&whole);
        (self.include.is_empty() || self.include.iter().any(fits)) && !self.exclude.iter().any(fits)
    }
}

impl Found {
    pub(super) fn fail(&mut self, sensor: &str, what: &str, error: &io::Error) {
        // The text of the error alone: numbers that change would make each one new.
        self.unreadable.push(Unreadable { sensor: sensor.into(), what: what.into(), error: error.to_string() });
    }
}

/// The last part of a path.
pub(super) fn name_of(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// What stands in a file, without what surrounds it.
pub(super) fn text(path: impl AsRef<Path>) -> io::Result<String> {
    let mut bytes = Vec::new();
    File::open(path)?.take(TEXT_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).trim().to_owned())
}

/// The number that stands in a file.
pub(super) fn number(path: impl AsRef<Path>) -> io::Result<f64> {
    let text = text(path)?;
    let number = text.parse().ok().filter(|number: &f64| number.is_finite());
    number.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "no number"))
}

/// The same, if the file is there.
pub(super) fn number_if_any(path: impl AsRef<Path>) -> io::Result<Option<f64>> {
    match number(path) {
        Ok(number) => Ok(Some(number)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::reading::*, *};

    fn patterns(texts: &[&str]) -> Vec<glob::Pattern> {
        texts.iter().map(|text| glob::Pattern::new(text).expect(text)).collect()
    }

    #[test]
    fn sensors_and_values_are_chosen_by_patterns() {
        let kept = |include: &[&str], exclude: &[&str]| {
            let values = |names: &[&str]| names.iter().map(|name| Measured::count(*name, 1, "")).collect();
            let readings = vec![
                Reading { sensor: "hwmon:box".into(), values: values(&["temp1", "fan1"]) },
                Reading { sensor: "network:eth0".into(), values: values(&["rx_bytes"]) },
            ];
            let mut found = Found { readings, ..Found::default() };
            Filter { include: patterns(include), exclude: patterns(exclude) }.apply(&mut found);
            let names = |reading: Reading| {
                reading.values.into_iter().map(move |value| format!("{}/{}", reading.sensor, value.name))
            };
            found.readings.into_iter().flat_map(names).collect::<Vec<_>>()
        };
        assert_eq!(kept(&[], &[]).len(), 3);
        assert_eq!(kept(&["hwmon:*"], &["*/fan*"]), ["hwmon:box/temp1"]);
        assert_eq!(kept(&["network:eth0"], &[]), ["network:eth0/rx_bytes"]);
        assert_eq!(kept(&["*/fan1"], &[]), ["hwmon:box/fan1"]);
        assert_eq!(kept(&[], &["hwmon:box"]), ["network:eth0/rx_bytes"]);
    }
}
