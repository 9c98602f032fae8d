//! The types of sources, and nothing else: every other question is answered by the type's own module.

use std::net::SocketAddr;

use toml::Table;

use super::{SourceContext, mqtt, mqtt_broker};
use crate::config::{Problems, reader};

/// What `type` may say.
pub const TYPES: [&str; 2] = ["mqtt", "mqtt-broker"];

/// The settings of one source, checked.
#[derive(Debug, Clone)]
pub enum Settings {
    /// A client of a broker.
    Mqtt(Box<mqtt::Settings>),
    /// A listener for devices.
    MqttBroker(Box<mqtt_broker::Settings>),
}

/// A source that can begin at once: what it listens on is its own already.
pub enum Source {
    /// A client of a broker.
    Mqtt(Box<mqtt::Settings>),
    /// A listener for devices.
    MqttBroker(Box<mqtt_broker::Listener>),
}

impl Settings {
    /// Reads the settings of a type out of its table, from which the keys `elsewhere` were taken. Problems are noted.
    #[must_use]
    pub fn read(kind: &str, table: Table, path: &str, elsewhere: &[&str], problems: &mut Problems) -> Option<Self> {
        match kind {
            "mqtt" => {
                let config: mqtt::Config = reader::read(table, path, elsewhere, problems)?;
                config.validate(path, problems).map(Box::new).map(Self::Mqtt)
            }
            "mqtt-broker" => {
                let config: mqtt_broker::Config = reader::read(table, path, elsewhere, problems)?;
                config.validate(path, problems).map(Box::new).map(Self::MqttBroker)
            }
            _ => None,
        }
    }

    /// What `type` says.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Mqtt(_) => "mqtt",
            Self::MqttBroker(_) => "mqtt-broker",
        }
    }

    /// What it is, in a few words.
    #[must_use]
    pub fn describe(&self) -> String {
        match self {
            Self::Mqtt(settings) => format!("mqtt client of {}", settings.broker()),
            Self::MqttBroker(settings) => format!("mqtt-broker on {}", settings.listen),
        }
    }

    /// Where it listens, if it does.
    #[must_use]
    pub fn listens_on(&self) -> Option<SocketAddr> {
        match self {
            Self::Mqtt(_) => None,
            Self::MqttBroker(settings) => Some(settings.listen),
        }
    }
}

impl Source {
    /// Takes what it listens on, so that its trouble is known before anything else begins.
    ///
    /// # Errors
    /// The address cannot be listened on.
    pub async fn bind(settings: Settings) -> anyhow::Result<Self> {
        Ok(match settings {
            Settings::Mqtt(settings) => Self::Mqtt(settings),
            Settings::MqttBroker(settings) => Self::MqttBroker(Box::new(mqtt_broker::Listener::bind(*settings).await?)),
        })
    }

    /// Runs until it is told to stop.
    ///
    /// # Errors
    /// What no waiting and trying again can mend.
    pub async fn run(self, context: SourceContext) -> anyhow::Result<()> {
        match self {
            Self::Mqtt(settings) => mqtt::run(*settings, context).await,
            Self::MqttBroker(listener) => listener.run(context).await,
        }
    }
}
