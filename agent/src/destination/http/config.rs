//! Which endpoint, and what it is told about us.

use std::{collections::BTreeMap, path::PathBuf};

use hyper::http::HeaderValue;
use serde::Deserialize;

use crate::{
    config::{Problems, Secret, key_path},
    outgoing::{self, Variables, http_address},
};

/// The specification's limits.
const ACCESS_KEY_BYTES: usize = 4096;
const ATTRIBUTES: usize = 50;
const ATTRIBUTE_KEY_CHARS: usize = 256;
const ATTRIBUTE_VALUE_CHARS: usize = 1024;

/// More requests under way than this help nobody.
const LANES_MAX: u16 = 256;

/// The settings of an `http` destination.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Config {
    /// How it is reached.
    #[serde(skip)]
    pub outgoing: outgoing::Config,
    /// Such as `"https://ingest.example.com/firehose"`.
    pub url: Option<String>,
    /// File with the key by which the endpoint knows us.
    pub access_key_file: Option<PathBuf>,
    /// Environment variable with it.
    pub access_key_env: Option<String>,
    /// Told with each request.
    pub common_attributes: BTreeMap<String, String>,
    /// How bodies are packed.
    pub compression: Compression,
    /// Told as the Firehose stream that the records come from; left out: made of the gateway's and the stream's name.
    pub source_arn: Option<String>,
    /// Parts of the stream that are sent side by side. All records of a partition key are of the same.
    pub lanes: u16,
}

/// How bodies are packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Compression {
    /// Not at all.
    None,
    /// With gzip.
    Gzip,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            outgoing: outgoing::Config::default(),
            url: None,
            access_key_file: None,
            access_key_env: None,
            common_attributes: BTreeMap::new(),
            compression: Compression::Gzip,
            source_arn: None,
            lanes: 8,
        }
    }
}

impl Config {
    /// Notes what is missing or cannot be.
    pub fn validate(&self, path: &str, problems: &mut Problems) {
        match &self.url {
            None => problems.add(format!("{path}.url"), "is missing: such as \"https://ingest.example.com/firehose\""),
            // Not repeated: there may be a password in it.
            Some(url) if http_address(url).is_none() => problems.add(
                format!("{path}.url"),
                "is no address of a web server such as \"https://ingest.example.com/firehose\", without a user",
            ),
            Some(_) => {}
        }
        self.outgoing.validate(path, problems);
        self.access_key(path, problems);
        if self.common_attributes.len() > ATTRIBUTES {
            let count = self.common_attributes.len();
            problems.add(format!("{path}.common-attributes"), format!("must be at most {ATTRIBUTES}, not {count}"));
        }
        for (name, value) in &self.common_attributes {
            let fits = (1..=ATTRIBUTE_KEY_CHARS).contains(&name.chars().count())
                && value.chars().count() <= ATTRIBUTE_VALUE_CHARS;
            if !fits {
                problems.add(
                    key_path(&format!("{path}.common-attributes"), name),
                    format!(
                        "a name has 1 to {ATTRIBUTE_KEY_CHARS} characters, a value at most {ATTRIBUTE_VALUE_CHARS}"
                    ),
                );
            }
        }
        if self.source_arn.as_ref().is_some_and(|arn| !arn.starts_with("arn:") || HeaderValue::from_str(arn).is_err()) {
            problems.add(format!("{path}.source-arn"), "must begin with `arn:`, and be of plain text");
        }
        if !(1..=LANES_MAX).contains(&self.lanes) {
            problems.add(format!("{path}.lanes"), format!("must be 1 to {LANES_MAX}, not {}", self.lanes));
        }
    }

    /// Whether both post to one endpoint, and say the same of themselves there.
    pub(in crate::destination) fn is_same_place(&self, other: &Self) -> bool {
        let who = |config: &Self| (config.access_key_file.clone(), config.access_key_env.clone());
        self.url == other.url && who(self) == who(other) && self.common_attributes == other.common_attributes
    }

    /// What it is, and by which way it is reached in this environment, in a few words.
    #[must_use]
    pub fn describe(&self, variables: Variables<'_>) -> String {
        let url = self.url.as_deref().unwrap_or_default();
        format!("http endpoint {url}{}", self.outgoing.describe(url, variables))
    }

    /// How records travel, also where nothing was said about it.
    #[must_use]
    pub fn describe_travel(&self) -> String {
        let packed = match self.compression {
            Compression::None => "",
            Compression::Gzip => " with gzip",
        };
        format!("{} lanes, JSON{packed}", self.lanes)
    }

    /// The key by which the endpoint knows us. Problems are noted, and give none.
    pub(super) fn access_key(&self, path: &str, problems: &mut Problems) -> Option<HeaderValue> {
        let (file, variable) = (self.access_key_file.as_deref(), self.access_key_env.as_deref());
        let secret = Secret::read(path, "access-key", file, variable, problems)?;
        let value = HeaderValue::from_str(secret.expose()).ok().filter(|value| value.len() <= ACCESS_KEY_BYTES);
        let Some(mut value) = value else {
            let key = if file.is_some() { "access-key-file" } else { "access-key-env" };
            let message = format!("must hold at most {ACCESS_KEY_BYTES} bytes of plain text in one line");
            problems.add(format!("{path}.{key}"), message);
            return None;
        };
        value.set_sensitive(true);
        Some(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::destination;

    #[test]
    fn every_mistake_is_told_by_its_key() {
        let dir = tempfile::tempdir().expect("a directory");
        let key = dir.path().join("key");
        std::fs::write(&key, "two\nlines\n").expect("written");
        let long = "v".repeat(1025);
        for (text, at) in [
            (String::new(), "url"),
            ("url = 'ftp://a/b'".to_owned(), "url"),
            ("url = 'https://me:pw@a/b'".to_owned(), "url"),
            (format!("url = 'https://a/b'\naccess-key-file = '{}'", key.display()), "access-key-file"),
            ("url = 'https://a/b'\naccess-key-env = 'FOREBAY_TEST_NOT_SET'".to_owned(), "access-key-env"),
            (format!("url = 'https://a/b'\ncommon-attributes = {{ site = '{long}' }}"), "common-attributes.site"),
            ("url = 'https://a/b'\nsource-arn = 'x'".to_owned(), "source-arn"),
            ("url = 'https://a/b'\nlanes = 0".to_owned(), "lanes"),
            ("url = 'https://a/b'\nregion = 'r'".to_owned(), "region"),
        ] {
            let mut problems = Problems::default();
            let table = toml::from_str(&text).expect("TOML");
            destination::Config::read("http", table, "destinations.hub", &[], &mut problems).expect("a table");
            let found: Vec<_> = problems.list().iter().map(ToString::to_string).collect();
            assert_eq!(found.len(), 1, "{text}: {found:?}");
            assert!(found[0].starts_with(&format!("destinations.hub.{at}: ")), "{text}: {found:?}");
        }
    }
}
