//! How a command reaches a stream: through the running agent, or, when none has the data directory open, in the log itself.

use std::{os::unix::fs::MetadataExt as _, sync::Arc};

use anyhow::{Context as _, anyhow, bail};
use forebay_log_store::{Error, Store, Stream, StreamConfig};

use super::{ConfigFile, client::Client};
use crate::{
    config::{Config, Destination, Whereabouts, agent::LogLevel, stream::dead_letter_stream, there_are},
    delivery::dead_letter::Letters,
    ingest::Ingest,
    log_events::LogEvents,
    logging,
};

/// Where a stream is to be found.
pub(super) enum Reach {
    /// An agent runs.
    Agent(Box<Client>),
    /// No agent runs, and none can start until this is dropped.
    Log(Box<ClosedLog>),
}

/// The log of an agent that does not run.
pub(super) struct ClosedLog {
    store: Store,
    config: Config,
}

impl Reach {
    /// Whichever way there is.
    pub(super) fn of(config: &ConfigFile) -> anyhow::Result<Self> {
        let Whereabouts { api, clock, store } = config.whereabouts()?;
        let dir = &store.dir;
        let metadata = match dir.metadata() {
            Ok(metadata) => metadata,
            Err(error) => bail!("open data directory {}: {error} (has the agent ever run?)", dir.display()),
        };
        // Files of another owner's would keep the agent from writing them.
        let (owner, user) = (metadata.uid(), rustix::process::geteuid().as_raw());
        if owner != user {
            let hint = format!("and the log itself can only be opened by its owner, user {owner}");
            return Ok(Self::Agent(Box::new(Client::of(&api)?.with_hint(hint))));
        }
        logging::init(LogLevel::Warn);
        let events = Arc::new(LogEvents::default());
        match Store::open(store, clock.open(), move |event| events.on_event(&event)) {
            // What the streams are to be is needed only here.
            Ok(store) => Ok(Self::Log(Box::new(ClosedLog { store, config: config.load()? }))),
            Err(Error::InUse { path }) => {
                let hint = format!("but another process has {} open", path.display());
                Ok(Self::Agent(Box::new(Client::of(&api)?.with_hint(hint))))
            }
            Err(error) => Err(error).context("open the log"),
        }
    }
}

impl ClosedLog {
    /// The stream, to put records into; made if the configuration has it and the log not yet.
    pub(super) fn to_put(&self, name: &str) -> anyhow::Result<Stream> {
        let config = self.config.streams.get(name).ok_or_else(|| {
            let known = there_are(self.config.streams.keys().map(String::as_str));
            anyhow!("open stream `{name}`: it is not configured; {known}")
        })?;
        self.store.stream(config.clone()).with_context(|| format!("open stream `{name}`"))
    }

    /// The letters of each destination, or of this one.
    pub(super) fn letters(&self, destination: Option<&str>) -> anyhow::Result<Vec<Letters>> {
        let destinations = &self.config.destinations;
        if let Some(name) = destination.filter(|name| !destinations.contains_key(*name)) {
            let known = there_are(destinations.keys().map(String::as_str));
            bail!("open the letters of `{name}`: there is no such destination; {known}");
        }
        let wanted = destinations.iter().filter(|(name, _)| destination.is_none_or(|wanted| wanted == *name));
        let open = |(name, settings): (&String, &Destination)| -> anyhow::Result<Letters> {
            Ok(Letters::open(name, self.door(&dead_letter_stream(name))?, self.door(&settings.from)?))
        };
        wanted.map(open).collect()
    }

    fn door(&self, stream: &str) -> anyhow::Result<Ingest> {
        Ok(Ingest::new(self.to_put(stream)?, self.config.store.queue_bytes))
    }

    /// The stream, to read from. Nothing leaves it by being looked at.
    pub(super) fn to_read(&self, name: &str) -> anyhow::Result<Stream> {
        let known = self.store.stream_names().context("open the log")?;
        if !known.iter().any(|known| known == name) {
            bail!("open stream `{name}`: the log has no such stream; {}", there_are(known.iter().map(String::as_str)));
        }
        let configured = self.config.streams.get(name).cloned();
        let lenient = StreamConfig {
            retention: std::time::Duration::MAX,
            quota: u64::MAX,
            ..configured.unwrap_or_else(|| StreamConfig::new(name))
        };
        self.store.stream(lenient).with_context(|| format!("open stream `{name}`"))
    }
}
