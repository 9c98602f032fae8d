//! The types of destinations, and nothing else: every other question is answered by the type's own module.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use serde::Deserialize;
use toml::Table;

use super::{Destination, Origin, aws, firehose, http, kinesis};
use crate::{
    config::{
        Problems,
        reader::{self, keys_of},
    },
    credentials::{self, KnownTime},
    outgoing::{self, Variables},
};

/// What `type` may say. README's table of destinations says the same.
pub const TYPES: [&str; 3] = ["kinesis", "firehose", "http"];

/// The settings of one destination.
#[derive(Debug, Clone)]
pub enum Config {
    /// A Kinesis data stream, or what speaks like one.
    Kinesis(Box<kinesis::Config>),
    /// A Firehose stream, or what speaks like one.
    Firehose(Box<firehose::Config>),
    /// An endpoint by Firehose's specification.
    Http(Box<http::Config>),
}

impl Config {
    /// Reads the settings of a type out of its table, from which the keys `elsewhere` were taken. Problems are noted.
    #[must_use]
    pub fn read(kind: &str, mut table: Table, path: &str, elsewhere: &[&str], problems: &mut Problems) -> Option<Self> {
        let outgoing = part::<outgoing::Config>(&mut table, path, problems);
        let shared = [elsewhere, keys_of::<outgoing::Config>()].concat();
        let with_aws = [&shared[..], keys_of::<aws::Config>()].concat();
        Some(match kind {
            "kinesis" => {
                let aws = part(&mut table, path, problems);
                let own: kinesis::Config = reader::read(table, path, &with_aws, problems)?;
                let config = kinesis::Config { outgoing: outgoing?, aws: aws?, ..own };
                config.validate(path, problems);
                Self::Kinesis(Box::new(config))
            }
            "firehose" => {
                let aws = part(&mut table, path, problems);
                let own: firehose::Config = reader::read(table, path, &with_aws, problems)?;
                let config = firehose::Config { outgoing: outgoing?, aws: aws?, ..own };
                config.validate(path, problems);
                Self::Firehose(Box::new(config))
            }
            "http" => {
                let own: http::Config = reader::read(table, path, &shared, problems)?;
                let config = http::Config { outgoing: outgoing?, ..own };
                config.validate(path, problems);
                Self::Http(Box::new(config))
            }
            _ => return None,
        })
    }

    /// A client with these settings; nothing is sent yet.
    ///
    /// # Errors
    /// A file that the settings name cannot be read.
    pub fn open(&self, origin: &Origin<'_>, time: &Arc<KnownTime>) -> anyhow::Result<Destination> {
        Ok(match self {
            Self::Kinesis(settings) => Destination::Kinesis(Box::new(kinesis::Kinesis::open(settings, origin, time)?)),
            Self::Firehose(settings) => Destination::Firehose(Box::new(firehose::Firehose::open(settings, time)?)),
            Self::Http(settings) => Destination::Http(Box::new(http::Http::open(settings, origin, time)?)),
        })
    }

    /// Files with certificates of our own, whose end has to be watched.
    #[must_use]
    pub fn client_certificates(&self) -> Vec<PathBuf> {
        let (aws, outgoing) = match self {
            Self::Kinesis(settings) => (Some(&settings.aws), &settings.outgoing),
            Self::Firehose(settings) => (Some(&settings.aws), &settings.outgoing),
            Self::Http(settings) => (None, &settings.outgoing),
        };
        let credentials = aws.and_then(|aws| aws.credentials.as_ref()).map(credentials::Written::meant);
        let of_credentials = credentials.as_ref().and_then(credentials::Config::client_certificate);
        outgoing.client_cert_file.as_deref().into_iter().chain(of_credentials).map(Path::to_path_buf).collect()
    }

    /// How large a record may be, as far as the settings say.
    #[must_use]
    pub fn largest_record(&self) -> u64 {
        match self {
            Self::Kinesis(settings) => settings.max_record,
            Self::Firehose(_) | Self::Http(_) => 1 << 20,
        }
    }

    /// What is set without effect, or hardly meant: which key, and a sentence fragment.
    #[must_use]
    pub fn warnings(&self) -> Vec<(&'static str, String)> {
        match self {
            Self::Kinesis(settings) => [settings.aws.warnings(), settings.warnings()].concat(),
            Self::Firehose(settings) => [settings.aws.warnings(), settings.warnings()].concat(),
            Self::Http(_) => Vec::new(),
        }
    }

    /// How many parcels a request has at most, and why, for a message.
    #[must_use]
    pub fn request_records(&self) -> (usize, &'static str) {
        match self {
            Self::Kinesis(_) => (kinesis::REQUEST_RECORDS, "PutRecords takes no more"),
            Self::Firehose(_) => (firehose::REQUEST_RECORDS, "PutRecordBatch takes no more"),
            Self::Http(settings) => (
                usize::from(settings.lanes),
                "all records of one of the `lanes` count as one; `batch-bytes` makes requests smaller",
            ),
        }
    }

    /// How many bytes a request has at most, and why, for a message.
    #[must_use]
    pub fn request_bytes(&self) -> (u64, &'static str) {
        match self {
            Self::Kinesis(_) => (kinesis::REQUEST_BYTES, "PutRecords takes no more"),
            Self::Firehose(_) => (firehose::REQUEST_BYTES, "PutRecordBatch takes no more"),
            Self::Http(_) => (http::REQUEST_BYTES, "Firehose's specification of HTTP endpoints allows no more"),
        }
    }

    /// What it is, and by which way it is reached in this environment, in a few words.
    #[must_use]
    pub fn describe(&self, variables: Variables<'_>) -> String {
        match self {
            Self::Kinesis(settings) => settings.describe(variables),
            Self::Firehose(settings) => settings.describe(variables),
            Self::Http(settings) => settings.describe(variables),
        }
    }

    /// How records travel there, also where nothing was said about it, in a few words.
    #[must_use]
    pub fn describe_travel(&self) -> String {
        match self {
            Self::Kinesis(settings) => settings.describe_travel(),
            Self::Firehose(settings) => settings.describe_travel(),
            Self::Http(settings) => settings.describe_travel(),
        }
    }

    /// Whether both are the same place, as the same client, so that it gets twice what both get.
    #[must_use]
    pub fn is_same_place(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Kinesis(one), Self::Kinesis(other)) => one.stream == other.stream && one.aws == other.aws,
            (Self::Firehose(one), Self::Firehose(other)) => one.stream == other.stream && one.aws == other.aws,
            (Self::Http(one), Self::Http(other)) => one.is_same_place(other),
            _ => false,
        }
    }

    /// What `type` says.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Kinesis(_) => "kinesis",
            Self::Firehose(_) => "firehose",
            Self::Http(_) => "http",
        }
    }
}

/// The keys of a table that types share.
fn part<T: for<'de> Deserialize<'de>>(table: &mut Table, path: &str, problems: &mut Problems) -> Option<T> {
    reader::read(reader::split_off::<T>(table), path, &[], problems)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table of destinations is where users look first, and the code is what they get.
    #[test]
    fn the_readme_and_its_page_list_every_type() {
        let readme = include_str!("../../../README.md");
        let (_, table) = readme.split_once("| destination | what it does |\n").expect("the table");
        let rows = table.lines().skip(1).take_while(|line| line.starts_with('|'));
        let named: Vec<&str> = rows.filter_map(|row| row.split('`').nth(1)).collect();
        assert_eq!(named, TYPES);
        let page = include_str!("../../../docs/destinations.md");
        for kind in TYPES {
            assert!(page.contains(&format!("\n## `{kind}`\n")), "docs/destinations.md has no section for {kind}");
        }
    }

    /// A key that the page does not speak of is found by nobody.
    #[test]
    fn the_page_speaks_of_every_key() {
        let page = include_str!("../../../docs/destinations.md");
        let keys = [
            keys_of::<outgoing::Config>(),
            keys_of::<aws::Config>(),
            keys_of::<firehose::Config>(),
            keys_of::<http::Config>(),
        ];
        for key in keys.concat() {
            assert!(page.contains(&format!("`{key}`")), "docs/destinations.md does not speak of `{key}`");
        }
    }
}
