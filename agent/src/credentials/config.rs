//! `credentials`: who we are to AWS.

use std::{
    io,
    path::{Path, PathBuf},
};

use serde::Deserialize;

use super::iot;
use crate::config::Problems;

/// Where credentials come from.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
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

impl Config {
    /// Notes what is missing or cannot be, under `path`.
    pub fn validate(&self, path: &str, problems: &mut Problems) {
        match self {
            Self::Default | Self::Placeholder => {}
            Self::File(file) => file.validate(&format!("{path}.file"), problems),
            Self::Iot(iot) => iot.validate(&format!("{path}.iot"), problems),
        }
    }

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
    use toml::Table;

    use super::*;
    use crate::config::reader;

    #[derive(Debug, Default, Deserialize)]
    #[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
    struct Destination {
        credentials: Option<Config>,
    }

    fn read(text: &str) -> (Option<Config>, Vec<String>) {
        let mut problems = Problems::default();
        let table: Table = text.parse().expect("TOML");
        let read: Destination = reader::read(table, "destinations.cloud", &[], &mut problems).expect("a table");
        if let Some(credentials) = &read.credentials {
            credentials.validate("destinations.cloud.credentials", &mut problems);
        }
        (read.credentials, problems.list().iter().map(ToString::to_string).collect())
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
}
