//! The types of destinations, and nothing else: every other question is answered by the type's own module.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use serde::Deserialize;
use toml::Table;

use super::{Destination, Origin, aws, kinesis};
use crate::{
    config::{
        Problems,
        reader::{self, keys_of},
    },
    credentials::{self, KnownTime},
    outgoing,
};

/// What `type` may say.
pub const TYPES: [&str; 1] = ["kinesis"];

/// The settings of one destination.
#[derive(Debug, Clone)]
pub enum Config {
    /// A Kinesis data stream, or what speaks like one.
    Kinesis(Box<kinesis::Config>),
}

impl Config {
    /// Reads the settings of a type out of its table, from which the keys `elsewhere` were taken. Problems are noted.
    #[must_use]
    pub fn read(kind: &str, mut table: Table, path: &str, elsewhere: &[&str], problems: &mut Problems) -> Option<Self> {
        match kind {
            "kinesis" => {
                let (way, at) = (part(&mut table, path, problems), part(&mut table, path, problems));
                let known = [elsewhere, keys_of::<outgoing::Config>(), keys_of::<aws::Config>()].concat();
                let own: kinesis::Config = reader::read(table, path, &known, problems)?;
                let config = kinesis::Config { outgoing: way?, aws: at?, ..own };
                config.validate(path, problems);
                Some(Self::Kinesis(Box::new(config)))
            }
            _ => None,
        }
    }

    /// A client with these settings; nothing is sent yet.
    ///
    /// # Errors
    /// A file that the settings name cannot be read.
    pub fn open(&self, origin: &Origin<'_>, time: &Arc<KnownTime>) -> anyhow::Result<Destination> {
        match self {
            Self::Kinesis(settings) => {
                Ok(Destination::Kinesis(Box::new(kinesis::Kinesis::open(settings, origin, time)?)))
            }
        }
    }

    /// Files with certificates of our own, whose end has to be watched.
    #[must_use]
    pub fn client_certificates(&self) -> Vec<PathBuf> {
        let (aws, outgoing) = match self {
            Self::Kinesis(settings) => (&settings.aws, &settings.outgoing),
        };
        let of_credentials = aws.credentials.as_ref().and_then(credentials::Config::client_certificate);
        outgoing.client_cert_file.as_deref().into_iter().chain(of_credentials).map(Path::to_path_buf).collect()
    }

    /// What it is, in a few words.
    #[must_use]
    pub fn describe(&self) -> String {
        match self {
            Self::Kinesis(settings) => settings.describe(),
        }
    }

    /// What `type` says.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Kinesis(_) => "kinesis",
        }
    }
}

/// The keys of a table that types share.
fn part<T: for<'de> Deserialize<'de>>(table: &mut Table, path: &str, problems: &mut Problems) -> Option<T> {
    reader::read(reader::split_off::<T>(table), path, &[], problems)
}
