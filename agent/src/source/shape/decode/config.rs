//! `decode` as it is written: a format's name, or a table with its options.

use std::{fmt, path::PathBuf};

use serde::{
    Deserialize, Deserializer,
    de::{self, IntoDeserializer as _, value::MapAccessDeserializer},
};

use super::{Decode, csv::Csv, log_line, protobuf::Protobuf};
use crate::config::Problems;

/// `decode = "cbor"` or `decode = { format = "csv", ... }`.
#[derive(Debug, Clone, Default)]
pub struct Config(Table);

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
struct Table {
    format: Option<Format>,
    /// JSON: without white space between the tokens.
    minify: Option<bool>,
    /// CSV: one character of ASCII.
    delimiter: Option<String>,
    /// CSV.
    header: Option<Header>,
    /// CSV: what is written as a number becomes one.
    numbers: Option<bool>,
    /// Protobuf: a file as `protoc --descriptor_set_out=FILE --include_imports` writes it.
    descriptor_file: Option<PathBuf>,
    /// Protobuf: the message's full name.
    message: Option<String>,
}

/// What payloads are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Format {
    /// One value (RFC 8259).
    Json,
    /// One value per line.
    Ndjson,
    /// One item (RFC 8949).
    Cbor,
    /// One MessagePack object.
    Msgpack,
    /// Rows (RFC 4180).
    Csv,
    /// One message.
    Protobuf,
    /// Lines of a web server's log in the Common Log Format.
    CommonLog,
    /// The same with referer and user agent.
    CombinedLog,
    /// One message (RFC 5424 or RFC 3164).
    Syslog,
}

/// Where CSV's names are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) enum Header {
    /// In the first row.
    FirstRow,
    /// Here.
    Names(Vec<String>),
}

impl Config {
    /// JSON, and nothing changed in it.
    pub(in super::super) fn json() -> Decode {
        Decode::Json { minify: false }
    }

    /// Notes everything that is wrong.
    pub(in super::super) fn validate(&self, path: &str, problems: &mut Problems) -> Option<Decode> {
        let table = &self.0;
        let Some(format) = table.format else {
            problems.add(format!("{path}.format"), "missing; say what payloads are, such as \"csv\"");
            return None;
        };
        let options = [
            ("minify", table.minify.is_some(), Format::Json),
            ("delimiter", table.delimiter.is_some(), Format::Csv),
            ("header", table.header.is_some(), Format::Csv),
            ("numbers", table.numbers.is_some(), Format::Csv),
            ("descriptor-file", table.descriptor_file.is_some(), Format::Protobuf),
            ("message", table.message.is_some(), Format::Protobuf),
        ];
        for (key, _, _) in options.iter().filter(|(_, given, of)| *given && *of != format) {
            problems.add(format!("{path}.{key}"), "is of no use with this format");
        }
        Some(match format {
            Format::Json => Decode::Json { minify: table.minify.unwrap_or(false) },
            Format::Ndjson => Decode::Ndjson,
            Format::Cbor => Decode::Cbor,
            Format::Msgpack => Decode::Msgpack,
            Format::Csv => Decode::Csv(table.csv(path, problems)?),
            Format::Protobuf => Decode::Protobuf(table.protobuf(path, problems)?),
            Format::CommonLog => Decode::Log(log_line::Format::Common),
            Format::CombinedLog => Decode::Log(log_line::Format::Combined),
            Format::Syslog => Decode::Syslog,
        })
    }
}

impl Table {
    fn csv(&self, path: &str, problems: &mut Problems) -> Option<Csv> {
        let delimiter = match self.delimiter.as_deref().unwrap_or(",").as_bytes() {
            [byte] if byte.is_ascii() && !matches!(byte, b'"' | b'\n' | b'\r') => Some(*byte),
            _ => {
                problems.add(format!("{path}.delimiter"), "must be one character of ASCII, such as \",\" or \"\\t\"");
                None
            }
        };
        let names = match &self.header {
            None | Some(Header::FirstRow) => None,
            Some(Header::Names(names)) => {
                let twice = names.iter().enumerate().any(|(index, name)| names[..index].contains(name));
                if names.is_empty() || twice || names.iter().any(String::is_empty) {
                    problems.add(format!("{path}.header"), "needs a name for each column, every one different");
                }
                Some(names.clone())
            }
        };
        Some(Csv::new(delimiter?, names, self.numbers.unwrap_or(false)))
    }

    fn protobuf(&self, path: &str, problems: &mut Problems) -> Option<Protobuf> {
        if self.message.is_none() {
            problems
                .add(format!("{path}.message"), "missing; give the message's full name, such as \"plant.v1.Reading\"");
        }
        let Some(file) = &self.descriptor_file else {
            let help = "missing; name the file that `protoc --descriptor_set_out=FILE --include_imports` wrote";
            problems.add(format!("{path}.descriptor-file"), help);
            return None;
        };
        let pool = Protobuf::read(file);
        let pool = pool.map_err(|why| problems.add(format!("{path}.descriptor-file"), why)).ok()?;
        let message = Protobuf::new(&pool, self.message.as_deref()?);
        message.map_err(|why| problems.add(format!("{path}.message"), why)).ok()
    }
}

impl<'de> Deserialize<'de> for Config {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Config;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the name of a format, or a table with `format` and its options")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Config, E> {
                let format = Format::deserialize(text.into_deserializer())?;
                Ok(Config(Table { format: Some(format), ..Table::default() }))
            }

            fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<Config, A::Error> {
                Table::deserialize(MapAccessDeserializer::new(map)).map(Config)
            }
        }

        deserializer.deserialize_any(Visitor)
    }
}

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Header;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`true` (the first row is the header) or a list of names")
            }

            fn visit_bool<E: de::Error>(self, first_row: bool) -> Result<Header, E> {
                let wrong = || E::invalid_value(de::Unexpected::Bool(false), &self);
                if first_row { Ok(Header::FirstRow) } else { Err(wrong()) }
            }

            fn visit_seq<A: de::SeqAccess<'de>>(self, mut names: A) -> Result<Header, A::Error> {
                let mut list = Vec::new();
                while let Some(name) = names.next_element()? {
                    list.push(name);
                }
                Ok(Header::Names(list))
            }
        }

        deserializer.deserialize_any(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::reader;

    #[derive(Debug, Deserialize)]
    struct Whole {
        decode: Config,
    }

    fn problems_of(toml: &str) -> Vec<String> {
        let mut problems = Problems::default();
        if let Some(whole) = reader::read::<Whole>(toml.parse().expect(toml), "s", &[], &mut problems) {
            let decode = whole.decode.validate("s.decode", &mut problems);
            assert!(decode.is_some() || !problems.list().is_empty());
        }
        problems.list().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_name_or_a_table_is_enough() {
        for toml in [
            "decode = 'json'",
            "decode = 'csv'",
            "decode = 'combined-log'",
            "decode = { format = 'json', minify = true }",
            "decode = { format = 'csv', delimiter = '\t', header = true, numbers = true }",
            "decode = { format = 'csv', header = ['a', 'b'] }",
        ] {
            assert_eq!(problems_of(toml), [""; 0], "{toml}");
        }
    }

    #[test]
    fn every_mistake_is_told_with_its_key() {
        for (toml, key) in [
            ("decode = 'jsn'", "s.decode: must be one of `json`"),
            ("decode = 7", "s.decode: must be the name of a format"),
            ("decode = {}", "s.decode.format: missing"),
            ("decode = { format = 'x' }", "s.decode.format: must be one of"),
            ("decode = { format = 'cbor', header = true }", "s.decode.header: is of no use"),
            (
                "decode = { format = 'csv', delimeter = ';' }",
                "s.decode.delimeter: unknown key, did you mean `delimiter`?",
            ),
            ("decode = { format = 'csv', delimiter = 'ä' }", "s.decode.delimiter: must be one"),
            ("decode = { format = 'csv', header = ['a', 'a'] }", "s.decode.header: needs"),
            ("decode = { format = 'csv', header = [] }", "s.decode.header: needs"),
            ("decode = { format = 'csv', header = false }", "s.decode.header: must be `true`"),
            ("decode = { format = 'protobuf', message = 'a' }", "s.decode.descriptor-file: missing"),
            (
                "decode = { format = 'protobuf', descriptor-file = '/nowhere', message = 'a' }",
                "s.decode.descriptor-file: /nowhere",
            ),
        ] {
            let told = problems_of(toml);
            assert!(told.first().is_some_and(|told| told.starts_with(key)), "{toml}: {told:?}");
        }
        assert_eq!(problems_of("decode = 'protobuf'").len(), 2);
    }
}
