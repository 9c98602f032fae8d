//! The types of destinations, and nothing else: every other question is answered by the type's own module.

use toml::Table;

use super::{Destination, Origin, kinesis};
use crate::config::{Problems, reader};

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
    pub fn read(kind: &str, table: Table, path: &str, elsewhere: &[&str], problems: &mut Problems) -> Option<Self> {
        match kind {
            "kinesis" => {
                let config: kinesis::Config = reader::read(table, path, elsewhere, problems)?;
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
    pub async fn open(&self, origin: &Origin<'_>) -> anyhow::Result<Destination> {
        match self {
            Self::Kinesis(settings) => {
                Ok(Destination::Kinesis(Box::new(kinesis::Kinesis::open(settings, origin).await?)))
            }
        }
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
