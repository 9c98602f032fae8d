//! The types of sources: a table, and what each row has to bring. Every other question is answered by the type's own module.

use std::{fmt, future::Future, net::SocketAddr, pin::Pin, sync::Arc};

use serde::de::DeserializeOwned;
use toml::Table;

use super::{SourceContext, exec, gps, http, journald, modbus, mqtt, mqtt_broker, sensor, serial, socket, stdin, tail};
use crate::config::{Problems, reader};

/// A future that a trait object can give.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// All types, by name. README's table of sources says the same.
pub const TYPES: &[Type] = &[
    mqtt::TYPE,
    mqtt_broker::TYPE,
    serial::TYPE,
    modbus::RTU_TYPE,
    modbus::TCP_TYPE,
    gps::TYPE,
    sensor::TYPE,
    socket::TYPE,
    http::TYPE,
    exec::TYPE,
    stdin::TYPE,
    tail::TYPE,
    journald::TYPE,
];

/// A type of source.
pub struct Type {
    /// What `type` says in the configuration.
    pub name: &'static str,
    /// What it takes, in README's words.
    pub takes: &'static str,
    /// When the device learns that its record is stored, in README's words.
    pub acknowledged: &'static str,
    /// The partition key of its records where none is configured.
    pub partition_key: &'static str,
    /// What a partition-key template may ask of it, besides `{source}` and `{json:…}`.
    pub placeholders: &'static [&'static str],
    /// Its own keys, beside those of [`super::Shared`].
    pub keys: fn() -> &'static [&'static str],
    /// Reads its own keys out of a table, from which the keys `elsewhere` were taken. Problems are noted.
    pub read: Read,
}

/// Reads a source's own keys, which stand at the path.
pub(super) type Read = fn(Table, &str, &[&str], &mut Problems) -> Option<Arc<dyn Settings>>;

/// The keys of one type of source, as they are in the file.
pub trait Config: DeserializeOwned {
    /// The same, checked.
    type Settings: Settings + 'static;

    /// Notes everything that is wrong; what comes back is to be used only if nothing was.
    fn validate(&self, path: &str, problems: &mut Problems) -> Option<Self::Settings>;
}

/// The settings of one source, checked.
pub trait Settings: fmt::Debug + Send + Sync {
    /// What it is, in a few words.
    fn describe(&self) -> String;

    /// Which keys name an address to listen on, and which.
    fn listens_on(&self) -> Vec<(&'static str, SocketAddr)> {
        Vec::new()
    }

    /// For a listener that several sources may share: what they have to say alike, so that there can be one for all of them.
    fn shares_listener_as(&self) -> Option<String> {
        None
    }

    /// Which keys name something else that only one source can have, and what that is called.
    fn claims(&self) -> Vec<(&'static str, String)> {
        Vec::new()
    }

    /// What can be done, but is hardly meant, such as to read from where nothing is: which key, and a sentence fragment. It may be
    /// there later, so that it keeps no gateway from coming up.
    fn warnings(&self) -> Vec<(&'static str, String)> {
        Vec::new()
    }

    /// Takes what has to be its own before anything else begins, such as the address that it listens on.
    ///
    /// # Errors
    /// The system does not let it.
    fn bind(&self) -> BoxFuture<'_, anyhow::Result<Box<dyn Source>>>;
}

/// A source that can begin at once.
pub trait Source: Send {
    /// Runs until `context.stop` is cancelled; then ends within two seconds, after what it took is stored or given up.
    ///
    /// # Errors
    /// What no waiting and trying again can mend: it ends the agent.
    fn run(self: Box<Self>, context: SourceContext) -> BoxFuture<'static, anyhow::Result<()>>;
}

/// [`Settings::bind`] of a source that needs nothing before it begins: runs with a copy of its settings.
pub(super) fn at_once<S, F>(
    settings: &S,
    run: fn(S, SourceContext) -> F,
) -> BoxFuture<'static, anyhow::Result<Box<dyn Source>>>
where
    S: Clone + Send + 'static,
    F: Future<Output = anyhow::Result<()>> + Send + 'static,
{
    let source: Box<dyn Source> = Box::new(AtOnce { settings: settings.clone(), run });
    Box::pin(std::future::ready(Ok(source)))
}

struct AtOnce<S, F> {
    settings: S,
    run: fn(S, SourceContext) -> F,
}

impl<S: Send, F: Future<Output = anyhow::Result<()>> + Send + 'static> Source for AtOnce<S, F> {
    fn run(self: Box<Self>, context: SourceContext) -> BoxFuture<'static, anyhow::Result<()>> {
        Box::pin((self.run)(self.settings, context))
    }
}

/// [`Type::read`] of any type.
pub(super) fn read<C: Config>(
    table: Table,
    path: &str,
    elsewhere: &[&str],
    problems: &mut Problems,
) -> Option<Arc<dyn Settings>> {
    let config: C = reader::read(table, path, elsewhere, problems)?;
    Some(Arc::new(config.validate(path, problems)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table of sources is where users look first, and the code is what they get.
    #[test]
    fn the_readme_lists_every_type() {
        let readme = include_str!("../../../README.md");
        let (_, table) = readme.split_once("| source | what it takes | acknowledged |\n").expect("the table");
        let rows: Vec<&str> = table.lines().skip(1).take_while(|line| line.starts_with('|')).collect();
        let wanted: Vec<String> = TYPES
            .iter()
            .map(|Type { name, takes, acknowledged, .. }| format!("| `{name}` | {takes} | {acknowledged} |"))
            .collect();
        assert_eq!(rows, wanted);
    }

    #[test]
    fn every_type_has_keys_and_a_key_that_it_can_fill() {
        for kind in TYPES {
            assert!(!(kind.keys)().is_empty(), "{}", kind.name);
            let template = crate::ingest::PartitionKeyTemplate::parse(kind.partition_key).expect(kind.name);
            assert_eq!(template.unknown_among(kind.placeholders), None, "{}", kind.name);
        }
    }
}
