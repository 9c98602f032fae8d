//! The agent's streams: those of the configuration file, and those that were made while the agent ran.
//!
//! Who wins is simple. A stream that stands in the file is kept as the file says, and cannot be deleted or set otherwise
//! while the agent runs; only its shards can be changed, and stay so. Any other stream was made at run time: its settings
//! lie with it in the log, in the words of the file, and it is there again after a restart. If its name comes to stand in
//! the file, the file has it from then on.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
};

use forebay_log_store::{Error, ShardChange, ShardMap, Store, StoreConfig, Stream, StreamConfig};
use tokio::sync::watch;
use toml::Table;
use tracing::{info, warn};

use crate::{
    config::{Problem, Problems, key_path, stream},
    disk_room,
    ingest::Ingest,
};

/// The table in a stream's note that holds its settings.
const SETTINGS: &str = "stream";

/// A stream with the one door into it, and the news of its commits.
#[derive(Clone)]
pub struct OpenStream {
    /// The door into it.
    pub ingest: Ingest,
    /// Changes with every commit.
    pub commits: watch::Receiver<()>,
    /// What it was made with; `None` for a stream of the configuration file.
    pub settings: Option<Table>,
}

impl OpenStream {
    fn new(stream: Stream, queue_bytes: usize, settings: Option<Table>) -> Self {
        let (told, commits) = watch::channel(());
        stream.on_commit(move || {
            let _ = told.send(());
        });
        Self { ingest: Ingest::new(stream, queue_bytes), commits, settings }
    }

    /// The log's own handle.
    #[must_use]
    pub fn stream(&self) -> &Stream {
        self.ingest.stream()
    }
}

/// Why a stream is not made, changed or deleted.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// There is none of this name.
    #[error("there is no stream `{0}`")]
    Unknown(String),
    /// There is one of this name.
    #[error("there is a stream `{0}` already")]
    Exists(String),
    /// The configuration file says how it is kept.
    #[error("stream `{0}` stands in the configuration file: change it there")]
    Configured(String),
    /// Settings that cannot be.
    #[error("{}", .0[0])]
    Settings(Vec<Problem>),
    /// What the log says.
    #[error(transparent)]
    Log(#[from] Error),
}

/// All streams that are open. What changes them blocks: it writes to the disk.
pub struct Streams {
    store: Arc<Store>,
    settings: StoreConfig,
    configured: BTreeSet<String>,
    open: RwLock<BTreeMap<String, OpenStream>>,
    /// One change at a time.
    changing: Mutex<()>,
}

impl Streams {
    /// Opens the configured streams, and those of the data directory that were made at run time, in the store that has these
    /// settings. Blocks.
    ///
    /// # Errors
    /// What the log says.
    pub fn open(
        store: Arc<Store>,
        settings: StoreConfig,
        wanted: BTreeMap<String, StreamConfig>,
    ) -> Result<Self, Error> {
        let queue_bytes = settings.queue_bytes;
        let mut open = BTreeMap::new();
        for name in store.stream_names()?.into_iter().filter(|name| !wanted.contains_key(name)) {
            match store.note(&name)?.as_deref().and_then(settings_of) {
                Some(made_with) => {
                    let mut problems = Problems::default();
                    let config = config_of(&name, &made_with, &mut problems);
                    for problem in problems.list() {
                        warn!(stream = name, "of a setting that it was made with: {problem}");
                    }
                    let opened = store.stream(config)?;
                    open.insert(name, OpenStream::new(opened, queue_bytes, Some(made_with)));
                }
                None => {
                    warn!(
                        stream = name,
                        "the data directory holds a stream that is not configured; it is left as it is, and is there again when it is \
                         configured again (dead letters: by a destination of the old name)"
                    );
                }
            }
        }
        let configured = wanted.keys().cloned().collect();
        for (name, config) in wanted {
            if store.note(&name)?.as_deref().and_then(settings_of).is_some() {
                info!(
                    stream = name,
                    "stream was made at run time; from now on the configuration file says how it is kept"
                );
            }
            open.insert(name, OpenStream::new(store.stream(config)?, queue_bytes, None));
        }
        let (open, changing) = (RwLock::new(open), Mutex::default());
        Ok(Self { store, settings, configured, open, changing })
    }

    /// The stream of this name.
    ///
    /// # Errors
    /// [`Refusal::Unknown`].
    pub fn get(&self, name: &str) -> Result<OpenStream, Refusal> {
        let open = self.open.read().unwrap_or_else(PoisonError::into_inner);
        open.get(name).cloned().ok_or_else(|| Refusal::Unknown(name.to_owned()))
    }

    /// All of them, by name.
    #[must_use]
    pub fn all(&self) -> BTreeMap<String, OpenStream> {
        self.open.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Makes a stream, which is there again after a restart. Blocks.
    ///
    /// # Errors
    /// [`Refusal::Exists`], [`Refusal::Settings`], [`Refusal::Log`].
    pub fn create(&self, name: &str, settings: Table) -> Result<OpenStream, Refusal> {
        let _changing = self.changing();
        // Also one that lies in the data directory only: its records are not to get into somebody's new stream.
        if self.store.stream_names()?.iter().any(|known| known == name) {
            return Err(Refusal::Exists(name.to_owned()));
        }
        let opened = self.keep(name, settings)?;
        info!(stream = name, "stream was made");
        Ok(opened)
    }

    /// Changes some settings of a stream that was made at run time. Blocks.
    ///
    /// # Errors
    /// [`Refusal::Unknown`], [`Refusal::Configured`], [`Refusal::Settings`], [`Refusal::Log`].
    pub fn set(&self, name: &str, changes: Table) -> Result<OpenStream, Refusal> {
        let _changing = self.changing();
        let mut settings = self.made_at_run_time(name)?;
        if changes.contains_key("shards") {
            let message = "is only for a new stream; a stream's shards are changed by splits and merges".to_owned();
            return Err(Refusal::Settings(vec![Problem {
                path: key_path(&key_path("streams", name), "shards"),
                message,
            }]));
        }
        settings.extend(changes);
        let opened = self.keep(name, settings)?;
        info!(stream = name, "stream has other settings");
        Ok(opened)
    }

    /// Deletes a stream that was made at run time, with all its records. Blocks.
    ///
    /// # Errors
    /// [`Refusal::Unknown`], [`Refusal::Configured`], [`Refusal::Log`].
    pub fn delete(&self, name: &str) -> Result<(), Refusal> {
        let _changing = self.changing();
        self.made_at_run_time(name)?;
        self.open.write().unwrap_or_else(PoisonError::into_inner).remove(name);
        self.store.delete_stream(name)?;
        info!(stream = name, "stream was deleted");
        Ok(())
    }

    /// Splits, merges or recounts the shards of any stream. Blocks.
    ///
    /// # Errors
    /// [`Refusal::Unknown`], [`Refusal::Log`].
    pub fn change_shards(&self, name: &str, change: ShardChange) -> Result<Arc<ShardMap>, Refusal> {
        let _changing = self.changing();
        let shards = self.get(name)?.stream().change_shards(change)?;
        info!(stream = name, ?change, open = shards.open().len(), "shards were changed");
        Ok(shards)
    }

    /// Opens a stream with these settings, or lets an open one take them over.
    fn keep(&self, name: &str, settings: Table) -> Result<OpenStream, Refusal> {
        let mut problems = Problems::default();
        let config = config_of(name, &settings, &mut problems);
        if !problems.list().is_empty() {
            return Err(Refusal::Settings(problems.into_list()));
        }
        self.check_disk(name, config.quota)?;
        let opened = self.store.stream(config)?;
        let mut open = self.open.write().unwrap_or_else(PoisonError::into_inner);
        let kept = match open.get(name) {
            Some(known) => OpenStream { settings: Some(settings), ..known.clone() },
            None => OpenStream::new(opened, self.settings.queue_bytes, Some(settings)),
        };
        open.insert(name.to_owned(), kept.clone());
        Ok(kept)
    }

    /// Refuses a quota that the disk cannot hold beside the others, as `forebay check` does. A smaller one than before is none
    /// the worse for that.
    fn check_disk(&self, name: &str, quota: u64) -> Result<(), Refusal> {
        let open = self.all();
        let mut quotas: BTreeMap<_, _> =
            open.iter().map(|(name, open)| (name.as_str(), open.stream().config().quota)).collect();
        let before = quotas.insert(name, quota).unwrap_or(0);
        match disk_room::problem(&self.settings, &quotas) {
            Some(problem) if quota > before => Err(Refusal::Settings(vec![problem])),
            _ => Ok(()),
        }
    }

    /// The settings of a stream that may be changed.
    fn made_at_run_time(&self, name: &str) -> Result<Table, Refusal> {
        if self.configured.contains(name) {
            return Err(Refusal::Configured(name.to_owned()));
        }
        Ok(self.get(name)?.settings.unwrap_or_default())
    }

    fn changing(&self) -> MutexGuard<'_, ()> {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The configuration of a stream that was made at run time; its settings lie in its note.
fn config_of(name: &str, settings: &Table, problems: &mut Problems) -> StreamConfig {
    let config = stream::read(name, settings.clone(), problems);
    let note = Table::from_iter([(SETTINGS.to_owned(), settings.clone().into())]);
    StreamConfig { note: note.to_string(), ..config }
}

/// The settings in a note; `None` for the note of a configured stream.
fn settings_of(note: &str) -> Option<Table> {
    match note.parse::<Table>().ok()?.remove(SETTINGS)? {
        toml::Value::Table(settings) => Some(settings),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use forebay_log_store::SystemClock;

    use super::*;

    fn open(dir: &std::path::Path, configured: &[&str]) -> Streams {
        let settings = StoreConfig::new(dir);
        let store = Store::open(settings.clone(), SystemClock::new(), |_| {}).expect("opens");
        let wanted = configured.iter().map(|name| ((*name).to_owned(), StreamConfig::new(*name))).collect();
        Streams::open(Arc::new(store), settings, wanted).expect("opens")
    }

    fn table(text: &str) -> Table {
        text.parse().expect("TOML")
    }

    #[test]
    fn a_stream_made_at_run_time_is_there_again() {
        let dir = tempfile::tempdir().expect("a directory");
        let settings = table("shards = 3\nretention = \"48h\"\nquota = \"5MiB\"\non-full = \"drop-oldest\"");
        {
            let streams = open(dir.path(), &["telemetry"]);
            streams.create("video", settings.clone()).expect("made");
            assert!(matches!(streams.create("video", Table::new()), Err(Refusal::Exists(_))));
            assert!(matches!(streams.create("telemetry", Table::new()), Err(Refusal::Exists(_))));
            let set = streams.set("video", table("retention = \"72h\"")).expect("set");
            assert_eq!(set.stream().config().retention.as_secs(), 72 * 3600);
            let count = ShardChange::Count(NonZeroU32::new(5).expect("not zero"));
            assert_eq!(streams.change_shards("video", count).expect("changed").open().len(), 5);
        }
        let streams = open(dir.path(), &["telemetry"]);
        let video = streams.get("video").expect("there again");
        let config = video.stream().config();
        assert_eq!((config.retention.as_secs(), config.quota), (72 * 3600, 5 << 20));
        assert_eq!(video.stream().shards().open().len(), 5);
        assert_eq!(video.settings.expect("kept")["retention"].as_str(), Some("72h"));

        streams.delete("video").expect("deleted");
        assert!(matches!(streams.get("video"), Err(Refusal::Unknown(_))));
        assert!(matches!(streams.delete("video"), Err(Refusal::Unknown(_))));
        drop(streams);
        assert_eq!(open(dir.path(), &["telemetry"]).all().into_keys().collect::<Vec<_>>(), ["telemetry"]);
    }

    #[test]
    fn the_file_has_what_stands_in_it() {
        let dir = tempfile::tempdir().expect("a directory");
        {
            let streams = open(dir.path(), &["telemetry"]);
            assert!(matches!(streams.delete("telemetry"), Err(Refusal::Configured(_))));
            assert!(matches!(streams.set("telemetry", Table::new()), Err(Refusal::Configured(_))));
            streams.change_shards("telemetry", ShardChange::Count(NonZeroU32::MIN.saturating_add(1))).expect("changed");
            streams.create("video", table("retention = \"48h\"")).expect("made");
        }
        let streams = open(dir.path(), &["video"]);
        assert_eq!(streams.get("video").expect("configured").stream().config().retention.as_secs(), 24 * 3600);
        assert!(matches!(streams.delete("video"), Err(Refusal::Configured(_))));
        // A stream that stood in the file only is not touched, and no other one takes its records.
        assert!(matches!(streams.get("telemetry"), Err(Refusal::Unknown(_))));
        assert!(matches!(streams.create("telemetry", Table::new()), Err(Refusal::Exists(_))));
        drop(streams);
        let streams = open(dir.path(), &["telemetry"]);
        assert_eq!(streams.get("telemetry").expect("configured").stream().shards().open().len(), 2);
        assert!(matches!(streams.get("video"), Err(Refusal::Unknown(_))), "the file had it");
    }

    #[test]
    fn every_wrong_setting_is_told() {
        let dir = tempfile::tempdir().expect("a directory");
        let streams = open(dir.path(), &[]);
        let refused = streams.create("video", table("retention = \"1h\"\nquotta = 5")).err().expect("refused");
        let Refusal::Settings(problems) = refused else { panic!("{refused}") };
        let paths: Vec<_> = problems.iter().map(|problem| problem.path.as_str()).collect();
        assert_eq!(paths, ["streams.video.quotta", "streams.video.retention"]);
        assert!(streams.all().is_empty());
        assert!(matches!(streams.create("../video", Table::new()), Err(Refusal::Settings(_))));
        let refused = streams.create("video", table("quota = \"8PiB\"")).err().expect("refused").to_string();
        assert!(refused.starts_with("streams: the quotas add up to 8.0 PiB (video 8.0 PiB)"), "{refused}");
        streams.create("video", Table::new()).expect("made");
        let refused = streams.set("video", table("quota = \"8PiB\"")).err().expect("refused").to_string();
        assert!(refused.contains("but the disk of"), "{refused}");
        assert_eq!(streams.get("video").expect("there").stream().config().quota, StreamConfig::new("x").quota);
        let refused = streams.set("video", table("shards = 4")).err().expect("refused");
        assert!(refused.to_string().starts_with("streams.video.shards: is only for a new stream"), "{refused}");
    }
}
