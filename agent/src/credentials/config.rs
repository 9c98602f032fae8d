//! `credentials`: who we are to AWS.

use std::{
    fmt, io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Deserializer, de};

use super::iot;
use crate::config::Problems;

/// `credentials` as it is written: a word, or a table. One that says several things at once is read all the same, so that what
/// is wrong in each of them is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Written {
    /// What needs no settings.
    Word(Config),
    /// What does.
    Table(Table),
}

/// One of these.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Table {
    /// A file as AWS's tools have it.
    pub file: Option<FileConfig>,
    /// The AWS IoT credentials provider.
    pub iot: Option<iot::Config>,
}

/// Where credentials come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Config {
    /// The SDK's chain: environment, profile files, web identity, container, instance metadata.
    Default,
    /// Fixed and worthless ones, for local stand-ins that want any at all. Real ones are then never sent to them.
    Placeholder,
    /// A file as AWS's tools have it.
    File(FileConfig),
    /// The AWS IoT credentials provider.
    Iot(iot::Config),
}

/// A file of credentials, in the format of `~/.aws/credentials`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct FileConfig {
    /// The file.
    pub path: PathBuf,
    /// The profile in it; left out: `default`.
    pub profile: Option<String>,
}

impl Written {
    /// Notes what is missing or cannot be, under `path`.
    pub fn validate(&self, path: &str, problems: &mut Problems) {
        let Self::Table(table) = self else { return };
        match table {
            Table { file: None, iot: None } => problems.add(path, "is an empty table"),
            Table { file: Some(_), iot: Some(_) } => {
                problems.add_of_table(path, "has `file` and `iot`; give one of them, not several at once");
            }
            _ => {}
        }
        if let Some(file) = &table.file {
            file.validate(&format!("{path}.file"), problems);
        }
        if let Some(iot) = &table.iot {
            iot.validate(&format!("{path}.iot"), problems);
        }
    }

    /// What it says, once it was found right.
    #[must_use]
    pub fn meant(&self) -> Config {
        match self {
            Self::Word(config) => config.clone(),
            Self::Table(Table { iot: Some(iot), .. }) => Config::Iot(iot.clone()),
            Self::Table(Table { file, .. }) => Config::File(file.clone().unwrap_or_default()),
        }
    }
}

impl<'de> Deserialize<'de> for Written {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(WrittenVisitor)
    }
}

struct WrittenVisitor;

impl<'de> de::Visitor<'de> for WrittenVisitor {
    type Value = Written;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("`default`, `placeholder`, or a table with `file` or `iot`")
    }

    fn visit_str<E: de::Error>(self, word: &str) -> Result<Written, E> {
        match word {
            "default" => Ok(Written::Word(Config::Default)),
            "placeholder" => Ok(Written::Word(Config::Placeholder)),
            _ => Err(E::invalid_value(de::Unexpected::Str(word), &self)),
        }
    }

    fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<Written, A::Error> {
        Table::deserialize(de::value::MapAccessDeserializer::new(map)).map(Written::Table)
    }
}

impl Config {
    /// The file with the certificate that credentials are got by.
    #[must_use]
    pub fn client_certificate(&self) -> Option<&Path> {
        match self {
            Self::Iot(iot) => Some(&iot.client_cert_file),
            Self::Default | Self::Placeholder | Self::File(_) => None,
        }
    }

    /// In a few words; nothing for the usual ones.
    #[must_use]
    pub fn describe(&self) -> Option<String> {
        match self {
            Self::Default | Self::Placeholder => None,
            Self::File(file) => Some(format!("credentials of {}", file.path.display())),
            Self::Iot(iot) => Some(format!("credentials by certificate, role alias {}", iot.role_alias)),
        }
    }
}

impl FileConfig {
    fn validate(&self, path: &str, problems: &mut Problems) {
        if self.path.as_os_str().is_empty() {
            problems.add(format!("{path}.path"), "missing; name the file");
        } else if let Err(error) =
            std::fs::File::open(&self.path).and_then(|mut file| io::copy(&mut file, &mut io::sink()))
        {
            problems.add(format!("{path}.path"), format!("cannot read {}: {error}", self.path.display()));
        }
        if self.profile.as_deref().is_some_and(str::is_empty) {
            problems.add(format!("{path}.profile"), "is empty");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::reader;

    #[derive(Debug, Default, Deserialize)]
    #[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
    struct Destination {
        credentials: Option<Written>,
    }

    fn read(text: &str) -> (Option<Config>, Vec<String>) {
        let mut problems = Problems::default();
        let table: toml::Table = text.parse().expect("TOML");
        let read: Destination = reader::read(table, "destinations.cloud", &[], &mut problems).expect("a table");
        if let Some(credentials) = &read.credentials {
            credentials.validate("destinations.cloud.credentials", &mut problems);
        }
        (read.credentials.as_ref().map(Written::meant), problems.list().iter().map(ToString::to_string).collect())
    }

    #[test]
    fn a_word_or_a_table() {
        assert_eq!(read("credentials = 'default'"), (Some(Config::Default), vec![]));
        assert_eq!(read("credentials = 'placeholder'"), (Some(Config::Placeholder), vec![]));
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("keys");
        std::fs::write(&path, "[default]\n").expect("written");
        let (found, problems) = read(&format!("credentials = {{ file = {{ path = '{}' }} }}", path.display()));
        assert_eq!((found, problems), (Some(Config::File(FileConfig { path, profile: None })), vec![]));
    }

    #[test]
    fn every_mistake_is_told_at_its_place() {
        for (text, expected) in [
            ("credentials = 'defautl'", "destinations.cloud.credentials: "),
            ("credentials = 7", "destinations.cloud.credentials: "),
            ("credentials = { file = {} }", "destinations.cloud.credentials.file.path: missing"),
            (
                "credentials = { file = { path = '/nowhere/keys' } }",
                "destinations.cloud.credentials.file.path: cannot read /nowhere/keys",
            ),
            (
                "credentials = { file = { pth = '/x' } }",
                "destinations.cloud.credentials.file.pth: unknown key, did you mean `path`?",
            ),
            (
                "credentials = { file = { path = '/x' }, iot = {} }",
                "destinations.cloud.credentials: has `file` and `iot`; give one of them, not several at once",
            ),
            ("credentials = {}", "destinations.cloud.credentials: is an empty table"),
            ("credentials = { iot = {} }", "destinations.cloud.credentials.iot.endpoint: missing"),
            (
                "credentials = { iot = { rol-alias = 'x' } }",
                "destinations.cloud.credentials.iot.rol-alias: unknown key, did you mean `role-alias`?",
            ),
        ] {
            let (_, problems) = read(text);
            assert!(problems.first().is_some_and(|problem| problem.starts_with(expected)), "{text}: {problems:#?}");
        }
    }

    #[test]
    fn of_two_that_are_given_at_once_each_mistake_is_told() {
        let told = |text: &str| {
            let (_, problems) = read(text);
            let paths = problems.iter().filter_map(|problem| problem.split_once(": "));
            paths.map(|(path, _)| path.replace("destinations.cloud.credentials", "")).collect::<Vec<_>>()
        };
        let found = told(
            "credentials = { file = { path = '/nowhere/keys', profile = '' }, iot = { thing-name = 'my thing' } }",
        );
        let expected = [
            "",
            ".file.path",
            ".file.profile",
            ".iot.endpoint",
            ".iot.role-alias",
            ".iot.thing-name",
            ".iot.client-cert-file",
            ".iot.client-key-file",
        ];
        assert_eq!(found, expected);
        // Together with what cannot be read.
        let found = told("credentials = { file = { pth = '/x', profile = 7 }, iot = { endpoint = 'a b' } }");
        let expected = [
            ".file.profile",
            ".file.pth",
            "",
            ".iot.endpoint",
            ".iot.role-alias",
            ".iot.client-cert-file",
            ".iot.client-key-file",
        ];
        assert_eq!(found, expected);
    }
}
