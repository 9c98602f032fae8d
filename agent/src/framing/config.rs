//! The keys by which a source says how its stream is cut.

use std::{fmt, marker::PhantomData, time::Duration};

use forebay_log_store::RECORD_BYTES_MAX;
use serde::{Deserialize, Deserializer, de};

use super::{Algorithm, Checksum, Framing, LengthPrefix, Shape};
use crate::config::{Octets, Problems, duration, size};

/// What is taken for a frame unless the configuration says more.
const MAX_FRAME: usize = 64 * 1024;

/// Headers and trailers are short; this bounds what a framer holds beyond a frame.
const HEADER_BYTES_MAX: usize = 1024;

/// The keys of a source's table that say how its stream is cut. For `reader::split_off`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Config {
    /// `"line"` (the default), `"cobs"`, `"slip"`, `"syslog"`, or a table with a `type`.
    #[serde(deserialize_with = "type_or_table")]
    pub framing: Option<FramingConfig>,
    /// `"nmea"` or `"crc16-modbus"`, or a table with a `type`.
    #[serde(deserialize_with = "type_or_table")]
    pub checksum: Option<ChecksumConfig>,
    /// The longest frame in bytes, as it comes; default 64 KiB.
    #[serde(with = "size::option")]
    pub max_frame: Option<usize>,
}

/// What `type` of `framing` may say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Type {
    Line,
    Delimiter,
    Fixed,
    LengthPrefix,
    Cobs,
    Slip,
    Gap,
    Syslog,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Endian {
    Big,
    Little,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum OnBad {
    Drop,
    Keep,
}

/// The table of `framing`.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct FramingConfig {
    #[serde(rename = "type")]
    kind: Type,
    /// Ends a frame.
    delimiter: Option<Octets>,
    /// Bytes of a frame.
    length: Option<usize>,
    /// Bytes of the length: 1, 2, 4 or 8.
    bytes: Option<usize>,
    /// Which byte of the length comes first: `"big"` (the default) or `"little"`.
    endian: Option<Endian>,
    /// Whether the length counts itself and what stands before it.
    includes_prefix: Option<bool>,
    /// Bytes before the length.
    offset: Option<usize>,
    /// Bytes at the end that the length does not count, such as a checksum.
    trailer: Option<usize>,
    /// Whether the length, and what stands before it, are part of the record.
    keep_prefix: Option<bool>,
    /// A frame ends (`gap`), or half a frame is given up (`fixed`, `length-prefix`), after this long a silence.
    #[serde(default, with = "duration::option")]
    gap: Option<Duration>,
}

/// The table of `checksum`.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct ChecksumConfig {
    #[serde(rename = "type")]
    kind: Algorithm,
    /// What becomes of frames with a wrong checksum: `"drop"` (the default) or `"keep"`. They are counted either way.
    on_bad: Option<OnBad>,
    /// Whether the checksum is left out of the record.
    strip: Option<bool>,
}

/// Reads a table with a `type`; a text alone stands for a table with only that.
fn type_or_table<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    deserializer.deserialize_any(TypeOrTable(PhantomData)).map(Some)
}

struct TypeOrTable<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> de::Visitor<'de> for TypeOrTable<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a type, or a table with a `type`")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        T::deserialize(de::value::MapDeserializer::new([("type", text)].into_iter()))
    }

    fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
        T::deserialize(de::value::MapAccessDeserializer::new(map))
    }
}

impl Config {
    /// Notes everything that is wrong; what comes back is to be used only if nothing was.
    #[must_use]
    pub fn validate(&self, path: &str, problems: &mut Problems) -> Option<Framing> {
        let max_frame = self.max_frame.unwrap_or(MAX_FRAME);
        if !(1..=RECORD_BYTES_MAX).contains(&max_frame) {
            let [most, shown] = size::show_beside([RECORD_BYTES_MAX as u64, max_frame as u64]);
            let message = format!("is between 1 byte and {most}, not {shown}");
            problems.add(format!("{path}.max-frame"), message);
        }
        let shape = match &self.framing {
            None => Some(Shape::Line),
            Some(framing) => framing.validate(&format!("{path}.framing"), max_frame, problems),
        };
        let checksum = self.checksum.as_ref().map(|checksum| Checksum {
            algorithm: checksum.kind,
            keep_bad: checksum.on_bad == Some(OnBad::Keep),
            strip: checksum.strip.unwrap_or(false),
        });
        Some(Framing { shape: shape?, checksum, max_frame })
    }
}

impl FramingConfig {
    fn validate(&self, path: &str, max_frame: usize, problems: &mut Problems) -> Option<Shape> {
        self.refuse_others(path, problems);
        let mut wrong = |key: &str, message: String| problems.add(format!("{path}.{key}"), message);
        match self.kind {
            Type::Line => Some(Shape::Line),
            Type::Cobs => Some(Shape::Cobs),
            Type::Slip => Some(Shape::Slip),
            Type::Syslog => Some(Shape::Syslog),
            Type::Delimiter => match &self.delimiter {
                None => {
                    wrong("delimiter", "missing; such as \"\\r\" or { hex = \"ff fe\" }".into());
                    None
                }
                Some(Octets(delimiter)) if delimiter.is_empty() || delimiter.len() > HEADER_BYTES_MAX => {
                    wrong("delimiter", format!("has 1 to {HEADER_BYTES_MAX} bytes, not {}", delimiter.len()));
                    None
                }
                Some(Octets(delimiter)) => Some(Shape::Delimiter(delimiter.as_slice().into())),
            },
            Type::Fixed => {
                let gap = self.checked_gap(&mut wrong);
                match self.length {
                    None => {
                        wrong("length", "missing; how many bytes a frame has".into());
                        None
                    }
                    Some(length) if !(1..=max_frame).contains(&length) => {
                        wrong("length", format!("is between 1 and max-frame, which is {max_frame}, not {length}"));
                        None
                    }
                    Some(length) => Some(Shape::Fixed { length, gap }),
                }
            }
            Type::LengthPrefix => {
                let bytes = self.bytes.unwrap_or(2);
                if !matches!(bytes, 1 | 2 | 4 | 8) {
                    wrong("bytes", format!("is 1, 2, 4 or 8, not {bytes}"));
                }
                let mut short = |key: &str, given: Option<usize>| {
                    let given = given.unwrap_or(0);
                    if given > HEADER_BYTES_MAX {
                        wrong(key, format!("is at most {HEADER_BYTES_MAX}, not {given}"));
                    }
                    given
                };
                let (offset, trailer) = (short("offset", self.offset), short("trailer", self.trailer));
                Some(Shape::LengthPrefix(LengthPrefix {
                    offset,
                    bytes,
                    little_endian: self.endian == Some(Endian::Little),
                    includes_prefix: self.includes_prefix.unwrap_or(false),
                    trailer,
                    keep_prefix: self.keep_prefix.unwrap_or(false),
                    gap: self.checked_gap(&mut wrong),
                }))
            }
            Type::Gap => {
                if self.gap.is_none() {
                    wrong("gap", "missing; how long a silence ends a frame, such as \"20ms\"".into());
                }
                self.checked_gap(&mut wrong).map(Shape::Gap)
            }
        }
    }

    fn checked_gap(&self, wrong: &mut impl FnMut(&str, String)) -> Option<Duration> {
        if let Some(gap) = self.gap
            && !(Duration::from_millis(1)..=Duration::from_secs(3600)).contains(&gap)
        {
            wrong("gap", format!("is between 1ms and 1h, not {}", duration::show(gap)));
        }
        self.gap
    }

    /// A key of another type is a mistake, not something to pass over.
    fn refuse_others(&self, path: &str, problems: &mut Problems) {
        use Type::{Delimiter, Fixed, Gap, LengthPrefix};
        let keys: [(&str, bool, &[Type]); 9] = [
            ("delimiter", self.delimiter.is_some(), &[Delimiter]),
            ("length", self.length.is_some(), &[Fixed]),
            ("bytes", self.bytes.is_some(), &[LengthPrefix]),
            ("endian", self.endian.is_some(), &[LengthPrefix]),
            ("includes-prefix", self.includes_prefix.is_some(), &[LengthPrefix]),
            ("offset", self.offset.is_some(), &[LengthPrefix]),
            ("trailer", self.trailer.is_some(), &[LengthPrefix]),
            ("keep-prefix", self.keep_prefix.is_some(), &[LengthPrefix]),
            ("gap", self.gap.is_some(), &[Gap, Fixed, LengthPrefix]),
        ];
        for (key, given, types) in keys {
            if given && !types.contains(&self.kind) {
                problems.add(format!("{path}.{key}"), format!("is of no use with `type = \"{}\"`", self.kind.name()));
            }
        }
    }
}

impl Type {
    fn name(self) -> &'static str {
        match self {
            Self::Line => "line",
            Self::Delimiter => "delimiter",
            Self::Fixed => "fixed",
            Self::LengthPrefix => "length-prefix",
            Self::Cobs => "cobs",
            Self::Slip => "slip",
            Self::Gap => "gap",
            Self::Syslog => "syslog",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::reader;

    fn read(text: &str) -> Result<Framing, Vec<String>> {
        let mut problems = Problems::default();
        let mut table = text.parse().expect("TOML");
        let table = reader::split_off::<Config>(&mut table);
        let config: Option<Config> = reader::read(table, "s", &[], &mut problems);
        let framing = config.and_then(|config| config.validate("s", &mut problems));
        let list: Vec<_> = problems.list().iter().map(ToString::to_string).collect();
        if list.is_empty() { framing.ok_or_else(|| vec!["nothing".into()]) } else { Err(list) }
    }

    #[test]
    fn every_type_can_be_written() {
        let with = |shape| Framing { shape, checksum: None, max_frame: MAX_FRAME };
        assert_eq!(read(""), Ok(with(Shape::Line)));
        assert_eq!(read("framing = 'line'\nmax-frame = '1KiB'").map(|framing| framing.max_frame()), Ok(1024));
        assert_eq!(read("framing = 'cobs'"), Ok(with(Shape::Cobs)));
        assert_eq!(read("framing = 'syslog'"), Ok(with(Shape::Syslog)));
        assert_eq!(read("framing = { type = 'slip' }"), Ok(with(Shape::Slip)));
        let delimiter = Shape::Delimiter([3].as_slice().into());
        assert_eq!(read("framing = { type = 'delimiter', delimiter = { hex = '03' } }"), Ok(with(delimiter.clone())));
        assert_eq!(read("framing = { type = 'delimiter', delimiter = \"\\u0003\" }"), Ok(with(delimiter)));
        let gap = Duration::from_millis(20);
        assert_eq!(read("framing = { type = 'gap', gap = '20ms' }"), Ok(with(Shape::Gap(gap))));
        let fixed = Shape::Fixed { length: 12, gap: Some(gap) };
        assert_eq!(read("framing = { type = 'fixed', length = 12, gap = '20ms' }"), Ok(with(fixed)));
        let text = "framing = { type = 'length-prefix', bytes = 4, endian = 'little', includes-prefix = true, \
                    offset = 1, trailer = 2, keep-prefix = true }";
        let prefix = LengthPrefix {
            offset: 1,
            bytes: 4,
            little_endian: true,
            includes_prefix: true,
            trailer: 2,
            keep_prefix: true,
            gap: None,
        };
        assert_eq!(read(text), Ok(with(Shape::LengthPrefix(prefix))));
        let checksum = |algorithm, keep_bad, strip| Some(Checksum { algorithm, keep_bad, strip });
        let nmea = read("checksum = 'nmea'").expect("right");
        assert_eq!(nmea.checksum, checksum(Algorithm::Nmea, false, false));
        let modbus = read("checksum = { type = 'crc16-modbus', on-bad = 'keep', strip = true }").expect("right");
        assert_eq!(modbus.checksum, checksum(Algorithm::Crc16Modbus, true, true));
    }

    #[test]
    fn what_is_wrong_is_told_with_its_key() {
        for (text, told) in [
            ("framing = 'lines'", "s.framing: must be one of `line`, `delimiter`"),
            ("framing = { type = 'lines' }", "s.framing.type: must be one of `line`"),
            ("framing = {}", "s.framing: `type` is missing"),
            ("framing = { type = 'fixd', length = 3 }", "s.framing.type: must be one of"),
            ("framing = 3", "s.framing: must be a type, or a table with a `type`, not integer `3`"),
            ("framing = 'delimiter'", "s.framing.delimiter: missing"),
            ("framing = { type = 'delimiter', delimiter = '' }", "s.framing.delimiter: has 1 to 1024 bytes, not 0"),
            ("framing = { type = 'delimiter', delimiter = { hex = '0' } }", "s.framing.delimiter: `0` is not bytes"),
            ("framing = 'fixed'", "s.framing.length: missing"),
            ("framing = { type = 'fixed', length = 0 }", "s.framing.length: is between 1 and max-frame"),
            ("framing = { type = 'fixed', length = 65537 }", "s.framing.length: is between 1 and max-frame"),
            ("framing = { type = 'length-prefix', bytes = 3 }", "s.framing.bytes: is 1, 2, 4 or 8, not 3"),
            ("framing = { type = 'length-prefix', offset = 1025 }", "s.framing.offset: is at most 1024"),
            (
                "framing = { type = 'length-prefix', lenght = 3 }",
                "s.framing.lenght: unknown key, did you mean `length`?",
            ),
            ("framing = 'gap'", "s.framing.gap: missing"),
            ("framing = { type = 'gap', gap = '0ms' }", "s.framing.gap: is between 1ms and 1h"),
            ("framing = { type = 'cobs', bytes = 2 }", "s.framing.bytes: is of no use with `type = \"cobs\"`"),
            ("checksum = 'crc'", "s.checksum: must be `nmea` or `crc16-modbus`, not `crc`"),
            ("checksum = { type = 'nmea', on-bad = 'tag' }", "s.checksum.on-bad: must be `drop` or `keep`, not `tag`"),
            ("max-frame = 0", "s.max-frame: is between 1 byte"),
            ("max-frame = '1GiB'", "s.max-frame: is between 1 byte"),
        ] {
            let found = read(text).expect_err(text);
            assert!(found.len() == 1 && found[0].starts_with(told), "{text}: {found:#?}");
        }
    }
}
