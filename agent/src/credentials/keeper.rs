//! The keeper of credentials: gives those it holds, and gets others when it is time.
//!
//! It is time when they are about to expire, when a file that they came from has changed, and when an endpoint would not have
//! them. Requests go on with those that still hold while one of them asks for others; a try that fails costs nobody anything as
//! long as they do.

use std::{
    fmt,
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use aws_credential_types::{
    Credentials,
    provider::{ProvideCredentials, error::CredentialsError, future},
};
use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::{
    Config, FileConfig,
    chain::{self, Way},
    held::{Due, Life, RETRY},
    iot,
    time::KnownTime,
};
use crate::{causes::causes, file_stamp::Stamp};

/// So often files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Where credentials come from.
pub enum Source {
    /// Worthless ones.
    Placeholder,
    /// The SDK's chain.
    Chain(Way),
    /// One file.
    File(FileConfig, Way),
    /// The AWS IoT credentials provider.
    Iot(iot::Client),
}

/// See the module. Clones are one.
#[derive(Clone)]
pub struct Keeper(Arc<Inner>);

struct Inner {
    source: Source,
    files: Vec<PathBuf>,
    began: Instant,
    state: Mutex<State>,
    /// Held by whoever is asking the source.
    asking: tokio::sync::Mutex<()>,
    refused: AtomicBool,
}

#[derive(Default)]
struct State {
    held: Option<Held>,
    /// When the source was last asked, since it was last asked with success. Whoever asks may go away before there is an
    /// answer, and that is a failure, too.
    failed: Option<Duration>,
    /// What its files were then.
    tried: Option<Stamp>,
    /// When it was last asked because of a refusal.
    replaced: Option<Duration>,
    /// Whether a failure was told since the last success.
    told: bool,
    looked: Duration,
    /// Counts what was got.
    number: u64,
}

#[derive(Clone)]
struct Held {
    credentials: Credentials,
    life: Life,
    stamp: Stamp,
}

impl Keeper {
    /// A keeper of what `config` says, with nothing yet.
    #[must_use]
    pub fn of(config: &Config, way: Way, time: &Arc<KnownTime>) -> Self {
        Self::new(match config {
            Config::Placeholder => Source::Placeholder,
            Config::Default => Source::Chain(way),
            Config::File(file) => Source::File(file.clone(), way),
            Config::Iot(config) => Source::Iot(iot::Client::new(config.clone(), Arc::clone(time), way.outgoing)),
        })
    }

    fn new(source: Source) -> Self {
        let files = match &source {
            Source::Placeholder => Vec::new(),
            Source::Chain(_) => chain::files(),
            Source::File(file, _) => vec![file.path.clone()],
            Source::Iot(client) => client.files(),
        };
        Self(Arc::new(Inner {
            source,
            files,
            began: Instant::now(),
            state: Mutex::default(),
            asking: tokio::sync::Mutex::default(),
            refused: AtomicBool::new(false),
        }))
    }

    /// An endpoint would not have what was given last: the source is asked anew before the next use, but only once in a
    /// while if nothing suggests that it has others, since they may simply not be allowed what they are used for.
    pub fn refused(&self) {
        self.0.refused.store(true, Relaxed);
    }
}

impl Inner {
    async fn give(&self) -> Result<Credentials, CredentialsError> {
        let (held, due, number) = self.look();
        match (held, due) {
            (Some(held), Due::Nothing) => Ok(held.credentials),
            // Somebody else is at it already.
            (Some(held), Due::Renewal) => match self.asking.try_lock() {
                Err(_) => Ok(held.credentials),
                Ok(_asking) => match self.ask().await {
                    Ok(credentials) => Ok(credentials),
                    Err(_) => Ok(held.credentials),
                },
            },
            _ => {
                let _asking = self.asking.lock().await;
                // Whoever was at it may have got them.
                match self.got_since(number) {
                    Some(credentials) => Ok(credentials),
                    None => self.ask().await,
                }
            }
        }
    }

    /// What was got since so many were.
    fn got_since(&self, number: u64) -> Option<Credentials> {
        let state = self.lock();
        state.held.as_ref().filter(|_| state.number > number).map(|held| held.credentials.clone())
    }

    /// What is held, what is to be done with it, and how many were got before.
    fn look(&self) -> (Option<Held>, Due, u64) {
        let now = self.began.elapsed();
        let mut state = self.lock();
        let Some(held) = state.held.clone() else { return (None, Due::Replacement, state.number) };
        let may_ask = |last: Option<Duration>| last.is_none_or(|last| now >= last + RETRY);
        let is_new = |stamp: &Stamp| state.tried.as_ref() != Some(stamp);
        if self.refused.load(Relaxed) && (may_ask(state.replaced) || is_new(&Stamp::of(&self.files))) {
            return (Some(held), Due::Replacement, state.number);
        }
        let mut due = held.life.due(now, state.failed);
        if due == Due::Nothing && !self.files.is_empty() && now >= state.looked + LOOK_EVERY {
            let stamp = Stamp::of(&self.files);
            if stamp != held.stamp && (may_ask(state.failed) || is_new(&stamp)) {
                debug!("a file that credentials come from has changed");
                due = Due::Renewal;
            }
            state.looked = now;
        }
        (Some(held), due, state.number)
    }

    /// From now on nobody asks for a while as long as what is held holds, even if no answer is ever waited for.
    fn is_asked(&self, stamp: Stamp) {
        let now = self.began.elapsed();
        let mut state = self.lock();
        state.failed = Some(now);
        state.tried = Some(stamp);
        if self.refused.load(Relaxed) {
            state.replaced = Some(now);
        }
    }

    async fn ask(&self) -> Result<Credentials, CredentialsError> {
        // Before it is read, so that what changes meanwhile is noticed.
        let stamp = Stamp::of(&self.files);
        self.is_asked(stamp.clone());
        let asked = match &self.source {
            Source::Placeholder => Ok((Credentials::new("placeholder", "placeholder", None, None, "forebay"), None)),
            Source::Chain(way) => chain::ask(way).await.map(with_lifetime),
            Source::File(file, way) => chain::read(file, way).await.map(with_lifetime),
            Source::Iot(client) => client.ask().await.map_err(CredentialsError::provider_error),
        };
        let now = self.began.elapsed();
        let mut state = self.lock();
        match asked {
            Ok((credentials, lifetime)) => {
                let life = Life::new(now, lifetime, fastrand::f64());
                let told = matches!(self.source, Source::Placeholder) || (state.held.is_some() && !state.told);
                if told {
                    debug!(source = %self.source, ?lifetime, "got credentials");
                } else {
                    info!(source = %self.source, ?lifetime, "got credentials");
                }
                *state = State {
                    held: Some(Held { credentials: credentials.clone(), life, stamp }),
                    failed: None,
                    looked: now,
                    number: state.number + 1,
                    told: false,
                    tried: state.tried.take(),
                    replaced: state.replaced,
                };
                self.refused.store(false, Relaxed);
                Ok(credentials)
            }
            Err(error) => {
                if !std::mem::replace(&mut state.told, true) {
                    let why = said(&error);
                    warn!(source = %self.source, error = why, "cannot get credentials; trying again");
                }
                state.failed = Some(now);
                Err(error)
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        // It is replaced whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn with_lifetime(credentials: Credentials) -> (Credentials, Option<Duration>) {
    let lifetime = chain::lifetime(&credentials);
    (credentials, lifetime)
}

/// An error with its causes, of which none is said that was said before.
fn said(error: &CredentialsError) -> String {
    causes(error).map(ToString::to_string).fold(String::new(), |said, cause| match said.as_str() {
        "" => cause,
        _ if said.contains(&cause) => said,
        _ => format!("{said}: {cause}"),
    })
}

impl ProvideCredentials for Keeper {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(self.0.give())
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Placeholder => f.write_str("placeholder"),
            Self::Chain(_) => f.write_str("the SDK's chain"),
            Self::File(file, _) => write!(f, "{}", file.path.display()),
            Self::Iot(client) => write!(f, "{client}"),
        }
    }
}

impl fmt::Debug for Keeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keeper").field("source", &format_args!("{}", self.0.source)).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use aws_config::Region;

    use super::*;
    use crate::outgoing::{self, Outgoing};

    fn file(text: &str) -> (tempfile::TempDir, PathBuf, Keeper) {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("keys");
        write(&path, text);
        let outgoing = Outgoing::open(&outgoing::Config::default()).expect("no files");
        let way = Way { region: Region::new("eu-west-1"), http: outgoing.sdk_client(), outgoing };
        let keeper = Keeper::new(Source::File(FileConfig { path: path.clone(), profile: None }, way));
        (dir, path, keeper)
    }

    fn write(path: &std::path::Path, key: &str) {
        let text = format!("[default]\naws_access_key_id = {key}\naws_secret_access_key = secret-of-{key}\n");
        std::fs::write(path.with_extension("new"), text).expect("written");
        std::fs::rename(path.with_extension("new"), path).expect("renamed");
    }

    async fn given(keeper: &Keeper) -> String {
        keeper.provide_credentials().await.expect("there are some").access_key_id().to_owned()
    }

    #[tokio::test(start_paused = true)]
    async fn a_rotated_key_is_used_without_a_restart() {
        let (_dir, path, keeper) = file("one");
        assert_eq!((given(&keeper).await.as_str(), given(&keeper).await.as_str()), ("one", "one"));
        write(&path, "two");
        assert_eq!(given(&keeper).await, "one", "nobody looks at files for each request");
        tokio::time::advance(LOOK_EVERY).await;
        assert_eq!(given(&keeper).await, "two");
    }

    #[tokio::test]
    async fn what_was_refused_is_read_again_before_the_next_use() {
        let (_dir, path, keeper) = file("one");
        assert_eq!(given(&keeper).await, "one");
        write(&path, "two");
        keeper.refused();
        assert_eq!(given(&keeper).await, "two");
        std::fs::remove_file(&path).expect("it was there");
        keeper.refused();
        keeper.provide_credentials().await.expect_err("there are none");
        write(&path, "three");
        assert_eq!(given(&keeper).await, "three");
    }

    #[tokio::test]
    async fn one_refusal_after_the_other_does_not_ask_again_and_again() {
        let (_dir, path, keeper) = file("one");
        let number = || keeper.0.lock().number;
        given(&keeper).await;
        for _ in 0..3 {
            keeper.refused();
            assert_eq!((given(&keeper).await.as_str(), number()), ("one", 2));
        }
        write(&path, "two");
        assert_eq!((given(&keeper).await.as_str(), number()), ("two", 3), "there are others");
    }

    #[tokio::test]
    async fn whoever_goes_away_while_asking_has_asked_in_vain() {
        let (_dir, _path, keeper) = file("one");
        given(&keeper).await;
        keeper.refused();
        // It was refused, and whoever asked for others is gone.
        keeper.0.is_asked(Stamp::of(&keeper.0.files));
        let (held, due, number) = keeper.0.look();
        assert!(held.is_some() && due == Due::Nothing && number == 1, "{due:?}");
    }

    #[tokio::test]
    async fn nothing_prints_a_secret() {
        let (_dir, _path, keeper) = file("one");
        given(&keeper).await;
        let shown = format!("{keeper:?}");
        assert!(!shown.contains("secret-of") && shown.contains("keys"), "{shown}");
    }
}
