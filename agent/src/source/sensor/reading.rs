//! What a sensor was read to be, and the record that is made of it.

use serde_json::{Map, Number, Value};

/// What one sensor (a chip, a zone, an interface) showed at one poll.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Reading {
    /// `GROUP:NAME`, or the group alone where it has only one.
    pub(super) sensor: String,
    pub(super) values: Vec<Measured>,
}

/// One of its values.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Measured {
    pub(super) name: String,
    pub(super) amount: Amount,
    /// `""` for what has none.
    pub(super) unit: &'static str,
}

/// How much.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Amount {
    /// Something measured: finite.
    Gauge(f64),
    /// Something counted.
    Count(u64),
}

/// What a poll of a group found.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) readings: Vec<Reading>,
    /// What could not be read, and why.
    pub(super) unreadable: Vec<Unreadable>,
}

/// A sensor or one of its values that could not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Unreadable {
    pub(super) sensor: String,
    /// The value's name or the file's.
    pub(super) what: String,
    pub(super) error: String,
}

impl Amount {
    #[expect(clippy::cast_precision_loss, reason = "for comparing with what it was before, and no counter has 53 bits")]
    pub(super) fn as_f64(self) -> f64 {
        match self {
            Self::Gauge(number) => number,
            Self::Count(count) => count as f64,
        }
    }
}

impl Measured {
    /// A measurement, if it is a number.
    pub(super) fn gauge(name: impl Into<String>, number: f64, unit: &'static str) -> Option<Self> {
        // Steps of a thousandth of a thousandth keep 0.1 + 0.2 from being shown.
        let rounded = (number * 1e6).round() / 1e6;
        let number = if rounded.is_finite() { rounded } else { number };
        number.is_finite().then(|| Self { name: name.into(), amount: Amount::Gauge(number), unit })
    }

    pub(super) fn count(name: impl Into<String>, count: u64, unit: &'static str) -> Self {
        Self { name: name.into(), amount: Amount::Count(count), unit }
    }
}

impl Reading {
    /// The record of it: its values, and their units.
    pub(super) fn record(&self) -> Vec<u8> {
        let (mut values, mut units) = (Map::new(), Map::new());
        for Measured { name, amount, unit } in &self.values {
            let number = match amount {
                Amount::Gauge(number) => Number::from_f64(*number),
                Amount::Count(count) => Some(Number::from(*count)),
            };
            values.insert(name.clone(), number.map_or(Value::Null, Value::Number));
            if !unit.is_empty() {
                units.insert(name.clone(), (*unit).into());
            }
        }
        let record = serde_json::json!({ "sensor": self.sensor, "values": values, "units": units });
        record.to_string().into_bytes()
    }
}

/// A label as part of a name: `Package id 0` is `package_id_0`.
pub(super) fn slug(label: &str) -> String {
    let mut slug = String::new();
    for c in label.trim().chars().take(64) {
        if c.is_alphanumeric() || c == '+' || c == '-' {
            slug.extend(c.to_lowercase());
        } else if !slug.is_empty() && !slug.ends_with('_') {
            slug.push('_');
        }
    }
    slug.truncate(slug.trim_end_matches('_').len());
    slug
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_has_values_and_their_units() {
        let values = vec![
            Measured::gauge("temp1", 21.125, "°C").expect("finite"),
            Measured::count("rx_packets", 18_446_744_073_709_551_615, ""),
        ];
        let reading = Reading { sensor: "hwmon:box".into(), values };
        assert_eq!(
            String::from_utf8(reading.record()).expect("UTF-8"),
            r#"{"sensor":"hwmon:box","units":{"temp1":"°C"},"values":{"rx_packets":18446744073709551615,"temp1":21.125}}"#
        );
        assert_eq!(Measured::gauge("x", f64::NAN, ""), None);
        assert_eq!(Measured::gauge("x", 0.1 + 0.2, "V").expect("finite").amount, Amount::Gauge(0.3));
    }

    #[test]
    fn labels_become_names() {
        assert_eq!(slug("Package id 0"), "package_id_0");
        assert_eq!(slug(" +3.3V  (VCC) "), "+3_3v_vcc");
        assert_eq!(slug("\u{0}"), "");
    }
}
