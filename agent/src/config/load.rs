//! The whole configuration: read from its file, section by section, into what the agent can run with.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use forebay_log_store::{StoreConfig, StreamConfig};
use serde::Deserialize;
use toml::{Table, Value};

use super::{
    Problem, Problems, agent, clock, key_path, letter_room, log, reader, references::References, stream, there_are,
};
use crate::{api, delivery, destination, ingest::PartitionKeyTemplate, links, source};

/// A configuration that was read and checked.
#[derive(Debug, Clone)]
pub struct Config {
    /// The process itself.
    pub agent: agent::Config,
    /// When the machine's clock is trusted.
    pub clock: clock::Config,
    /// Status and control.
    pub api: api::Settings,
    /// The data directory and how it is written. A relative directory is relative to the working directory.
    pub store: StoreConfig,
    /// Every stream, also those of dead letters, with the deliveries that read it as its consumers.
    pub streams: BTreeMap<String, StreamConfig>,
    /// Every way out that has limits.
    pub links: BTreeMap<String, links::Config>,
    /// Every source.
    pub sources: BTreeMap<String, Source>,
    /// Every destination.
    pub destinations: BTreeMap<String, Destination>,
}

/// Where an agent and its log are to be found. To know that takes nothing of what the agent alone has to know, such as its
/// destinations' secrets.
#[derive(Debug, Clone)]
pub struct Whereabouts {
    /// Status and control.
    pub api: api::Settings,
    /// When the machine's clock is trusted.
    pub clock: clock::Config,
    /// The data directory and how it is written.
    pub store: StoreConfig,
}

/// `[sources.NAME]`.
#[derive(Debug, Clone)]
pub struct Source {
    /// Where its records go.
    pub stream: String,
    /// How its records get their partition keys.
    pub partition_key: PartitionKeyTemplate,
    /// The same, as it was written.
    pub partition_key_text: String,
    /// What its type is called.
    pub kind: &'static str,
    /// What all types have settings for.
    pub shared: source::Shared,
    /// What is made of what comes, before it is stored.
    pub shape: source::shape::Shape,
    /// What its type has settings for.
    pub settings: Arc<dyn source::Settings>,
}

/// `[destinations.NAME]`.
#[derive(Debug, Clone)]
pub struct Destination {
    /// The stream whose records it gets.
    pub from: String,
    /// How records are taken to it.
    pub delivery: delivery::Config,
    /// What its type has settings for.
    pub settings: destination::Config,
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file could not be read.
    #[error("{0}")]
    Unreadable(io::Error),
    /// It is not TOML; the text shows line, column and the line itself.
    #[error("{0}")]
    Syntax(String),
    /// It is TOML, but not a configuration.
    #[error("{}", list(problems))]
    Problems {
        /// At least one.
        problems: Vec<Problem>,
        /// What is hardly meant in the rest of it, see [`Config::warnings`].
        warnings: Vec<Problem>,
    },
}

/// The sections; each is read by its own module.
const SECTIONS: [&str; 8] = ["agent", "api", "clock", "log", "streams", "links", "sources", "destinations"];

/// What stands above the sections.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
struct TopLevel {
    data_dir: Option<PathBuf>,
}

impl Config {
    /// Reads the file.
    ///
    /// # Errors
    /// Unreadable, not TOML, or with problems: all of them.
    pub fn load(file: &Path) -> Result<Self, Error> {
        Self::parse(&text_of(file)?)
    }

    /// Reads a text.
    ///
    /// # Errors
    /// Not TOML, or with problems: all of them.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let mut table = table_of(text)?;
        let mut problems = Problems::default();
        let [agent, api, clock, log, streams, links, sources, destinations] =
            SECTIONS.map(|name| subtable(&mut table, name, "", &mut problems));

        let Whereabouts { api, clock, store } = Whereabouts::read(table, [api, clock, log], &mut problems);
        let agent: agent::Config = reader::read(agent, "agent", &[], &mut problems).unwrap_or_default();
        agent.validate("agent", &mut problems);

        let streams =
            named(streams, "streams", &mut problems, |name, table, problems| Some(stream::read(name, table, problems)));
        let mut references = References::default();
        references.listener("api.listen", api.listen);
        references.links_are(links.keys());
        let links = named(links, "links", &mut problems, |name, table, problems| {
            let path = key_path("links", name);
            check_name(name, &path, problems);
            let link: links::Config = reader::read(table, &path, &[], problems)?;
            link.validate(&path, problems);
            Some(link)
        });
        let sources = named(sources, "sources", &mut problems, |name, table, problems| {
            read_source(name, table, &mut references, problems)
        });
        let destinations = named(destinations, "destinations", &mut problems, |name, table, problems| {
            references.dead_letters_of(name);
            read_destination(name, table, &mut references, problems)
        });
        references.check(&streams, &mut problems);
        letter_room::check(&streams, &destinations, &mut problems);

        let streams = with_deliveries(streams, &destinations);
        let config = Self { agent, api, clock, store, streams, links, sources, destinations };
        if problems.list().is_empty() {
            return Ok(config);
        }
        let warnings = config.warnings_beside(&problems);
        Err(Error::Problems { problems: problems.into_list(), warnings })
    }

    /// What each stream may take on the disk.
    #[must_use]
    pub fn quotas(&self) -> BTreeMap<&str, u64> {
        self.streams.iter().map(|(name, stream)| (name.as_str(), stream.quota)).collect()
    }
}

impl Whereabouts {
    /// Reads them out of the file.
    ///
    /// # Errors
    /// Unreadable, not TOML, or with problems in these parts: all of them.
    pub fn load(file: &Path) -> Result<Self, Error> {
        let mut table = table_of(&text_of(file)?)?;
        let mut problems = Problems::default();
        let [_, api, clock, log, ..] = SECTIONS.map(|name| subtable(&mut table, name, "", &mut problems));
        let found = Self::read(table, [api, clock, log], &mut problems);
        if problems.list().is_empty() {
            return Ok(found);
        }
        Err(Error::Problems { problems: problems.into_list(), warnings: Vec::new() })
    }

    /// Reads them out of their sections, and what stands above all sections.
    fn read(top: Table, [api, clock, log]: [Table; 3], problems: &mut Problems) -> Self {
        let top: TopLevel = reader::read(top, "", &SECTIONS, problems).unwrap_or_default();
        let data_dir = check_data_dir(top.data_dir, problems);
        let api: api::Config = reader::read(api, "api", &[], problems).unwrap_or_default();
        let api = api.resolve("api", problems);
        let clock: clock::Config = reader::read(clock, "clock", &[], problems).unwrap_or_default();
        let log: log::Config = reader::read(log, "log", &[], problems).unwrap_or_default();
        let store = log.resolve(&data_dir, "log", problems);
        Self { api, clock, store }
    }
}

fn text_of(file: &Path) -> Result<String, Error> {
    let bytes = fs::read(file).map_err(Error::Unreadable)?;
    String::from_utf8(bytes)
        .map_err(|error| Error::Syntax(format!("not UTF-8 at byte {}", error.utf8_error().valid_up_to())))
}

fn table_of(text: &str) -> Result<Table, Error> {
    toml::from_str(text).map_err(|error| Error::Syntax(error.to_string()))
}

fn check_data_dir(given: Option<PathBuf>, problems: &mut Problems) -> PathBuf {
    match given {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => {
            problems.add("data-dir", "missing; say where the log is kept, such as \"/var/lib/forebay\"");
            PathBuf::new()
        }
    }
}

fn read_source(name: &str, mut table: Table, references: &mut References, problems: &mut Problems) -> Option<Source> {
    let path = key_path("sources", name);
    check_name(name, &path, problems);
    let kind = text(&mut table, "type", &path, problems);
    let stream = text(&mut table, "stream", &path, problems);
    let partition_key_text = text(&mut table, "partition-key", &path, problems);

    match &stream {
        Given::Text(stream) => references.stream(format!("{path}.stream"), stream),
        Given::Nothing => problems.add(format!("{path}.stream"), "missing; name the stream that its records go to"),
        Given::Wrong => {}
    }
    let shared = reader::read(reader::split_off::<source::SharedConfig>(&mut table), &path, &[], problems);
    let shared = shared.map(|shared: source::SharedConfig| shared.validate(&path, problems));
    let shape: Option<source::shape::Config> =
        reader::read(reader::split_off::<source::shape::Config>(&mut table), &path, &[], problems);
    let shape = shape.and_then(|shape| shape.validate(&path, problems));
    let names: Vec<_> = source::TYPES.iter().map(|kind| kind.name).collect();
    let kind =
        kind_of(kind, &names, &path, problems).and_then(|name| source::TYPES.iter().find(|kind| kind.name == name));
    let partition_key_text = match partition_key_text.into_option() {
        Some(text) => text,
        None => kind?.partition_key.to_owned(),
    };
    let partition_key = PartitionKeyTemplate::parse(&partition_key_text)
        .map_err(|error| problems.add(format!("{path}.partition-key"), error.to_string()))
        .ok();
    let kind = kind?;
    let templates = partition_key.iter().map(|template| ("partition-key", template));
    for (key, template) in templates.chain(shape.iter().flat_map(source::shape::Shape::templates)) {
        if let Some(name) = template.unknown_among(kind.placeholders) {
            let known = kind.placeholders.iter().copied().chain(["source", "json:/pointer"]);
            let message = format!("a source of type `{}` knows no `{name}`; {}", kind.name, there_are(known));
            problems.add(format!("{path}.{key}"), message);
        }
    }
    let common: [&[&str]; 3] = [
        &["type", "stream", "partition-key"],
        reader::keys_of::<source::SharedConfig>(),
        reader::keys_of::<source::shape::Config>(),
    ];
    let elsewhere = common.concat();
    let settings = (kind.read)(table, &path, &elsewhere, problems);
    for (key, address) in settings.iter().flat_map(|settings| settings.listens_on()) {
        let shared = settings.as_ref().and_then(|settings| settings.shares_listener_as());
        references.shared_listener(format!("{path}.{key}"), address, shared);
    }
    for (key, what) in settings.iter().flat_map(|settings| settings.claims()) {
        references.claim(format!("{path}.{key}"), what);
    }
    Some(Source {
        stream: stream.into_option()?,
        partition_key: partition_key?,
        partition_key_text,
        kind: kind.name,
        shared: shared?,
        shape: shape?,
        settings: settings?,
    })
}

fn read_destination(
    name: &str,
    mut table: Table,
    references: &mut References,
    problems: &mut Problems,
) -> Option<Destination> {
    let path = key_path("destinations", name);
    check_name(name, &path, problems);
    let kind = text(&mut table, "type", &path, problems);
    let from = text(&mut table, "from", &path, problems);
    match &from {
        Given::Text(from) if *from == stream::dead_letter_stream(name) => problems.add(
            format!("{path}.from"),
            "a destination cannot take its own dead letters: it would refuse them again and again",
        ),
        Given::Text(from) => references.stream(format!("{path}.from"), from),
        Given::Nothing => problems.add(format!("{path}.from"), "missing; name the stream whose records it gets"),
        Given::Wrong => {}
    }
    let shared = reader::split_off::<delivery::Config>(&mut table);
    let delivery: Option<delivery::Config> = reader::read(shared, &path, &[], problems);
    if let Some(delivery) = &delivery {
        delivery.validate(&path, problems);
        if let Some(link) = &delivery.link {
            references.link(format!("{path}.link"), link);
        }
    }
    let elsewhere: Vec<_> = ["type", "from"].iter().chain(reader::keys_of::<delivery::Config>()).copied().collect();
    let settings = kind_of(kind, &destination::TYPES, &path, problems)
        .and_then(|kind| destination::Config::read(kind, table, &path, &elsewhere, problems));
    if let Some(delivery) = &delivery {
        delivery.validate_requests(&path, settings.as_ref().map(destination::Config::request_bytes), problems);
    }
    Some(Destination { from: from.into_option()?, delivery: delivery?, settings: settings? })
}

/// Streams as the log needs them: with those of dead letters, and with the deliveries whose progress holds records.
fn with_deliveries(
    mut streams: BTreeMap<String, StreamConfig>,
    destinations: &BTreeMap<String, Destination>,
) -> BTreeMap<String, StreamConfig> {
    for name in destinations.keys().map(|destination| stream::dead_letter_stream(destination)) {
        let letters = streams.entry(name.clone()).or_insert_with(|| stream::defaults(&name));
        letters.consumers.push(delivery::dead_letter::SETTLED.to_owned());
    }
    for (name, destination) in destinations {
        // That every reference leads to a stream was checked, and what does not was noted.
        if let Some(stream) = streams.get_mut(&destination.from) {
            stream.consumers.push(name.clone());
        }
    }
    streams
}

/// Reads each table of a section of named tables.
fn named<T>(
    section: Table,
    path: &str,
    problems: &mut Problems,
    mut read: impl FnMut(&str, Table, &mut Problems) -> Option<T>,
) -> BTreeMap<String, T> {
    let mut found = BTreeMap::new();
    for (name, value) in section {
        match value {
            Value::Table(table) => found.extend(read(&name, table, problems).map(|one| (name, one))),
            other => problems.add(key_path(path, &name), format!("must be a table, not {other}")),
        }
    }
    found
}

/// Takes a section out of the top level; an empty one if it is missing.
fn subtable(table: &mut Table, key: &str, path: &str, problems: &mut Problems) -> Table {
    match table.remove(key) {
        None => Table::new(),
        Some(Value::Table(table)) => table,
        Some(other) => {
            problems.add(key_path(path, key), format!("must be a table, not {other}"));
            Table::new()
        }
    }
}

/// What stands at a key that every source or destination has.
enum Given {
    Text(String),
    Nothing,
    /// And the problem was noted.
    Wrong,
}

impl Given {
    fn into_option(self) -> Option<String> {
        match self {
            Self::Text(text) => Some(text),
            Self::Nothing | Self::Wrong => None,
        }
    }
}

fn text(table: &mut Table, key: &str, path: &str, problems: &mut Problems) -> Given {
    match table.remove(key) {
        Some(Value::String(text)) => Given::Text(text),
        None => Given::Nothing,
        Some(other) => {
            problems.add(format!("{path}.{key}"), format!("must be a string, not {other}"));
            Given::Wrong
        }
    }
}

fn kind_of(given: Given, types: &[&'static str], path: &str, problems: &mut Problems) -> Option<&'static str> {
    let (message, hint) = match given {
        Given::Text(text) => match types.iter().find(|kind| **kind == text) {
            Some(kind) => return Some(*kind),
            None => (format!("there is no type `{text}`"), reader::nearest(&text, types.iter().copied())),
        },
        Given::Nothing => ("missing".to_owned(), None),
        Given::Wrong => return None,
    };
    let help = match hint {
        Some(near) => format!("{message}, did you mean `{near}`?"),
        None => format!("{message}; {}", there_are(types.iter().copied())),
    };
    problems.add(format!("{path}.type"), help);
    None
}

/// Names of sources and destinations stand in metrics, in checkpoints and in the names of dead letters' streams.
fn check_name(name: &str, path: &str, problems: &mut Problems) {
    let fits =
        (1..=64).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'));
    if !fits {
        problems.add(path, "a name has 1 to 64 characters of a-z A-Z 0-9 _ -");
    }
}

fn list(problems: &[Problem]) -> String {
    let lines: Vec<_> = problems.iter().map(|problem| format!("\n  {problem}")).collect();
    let count = if problems.len() == 1 { "1 problem".to_owned() } else { format!("{} problems", problems.len()) };
    format!("{count}:{}", lines.concat())
}
