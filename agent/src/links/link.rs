//! Links as they are shared: each has its policy, which the deliveries over it ask in turn.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use anyhow::Context as _;
use forebay_log_store::Store;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{
    Answer, Changes, Config,
    budget::Spent,
    metered::Meter,
    policy::{Moment, Policy},
    spent,
};

/// How often it is looked whether a link is metered, and whether what was spent is to be written although nothing was sent.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// All links.
#[derive(Debug)]
pub struct Links {
    links: BTreeMap<String, Arc<Link>>,
    data_dir: PathBuf,
    written: BTreeMap<String, Spent>,
    /// Some of them have spent what is to be written.
    spending: Arc<Notify>,
}

/// A way out of the gateway that has limits.
pub struct Link {
    policy: Mutex<Policy>,
    now: Box<dyn Fn() -> Moment + Send + Sync>,
    spending: Arc<Notify>,
    meter: Option<Meter>,
    ways: AtomicUsize,
}

/// What a link tells about itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LinkStats {
    /// Whether its limits hold at the moment.
    pub metered: bool,
    /// Bytes of the day's budget that are spent, and the budget.
    pub budget: Option<(u64, u64)>,
}

/// A delivery's way over a link.
#[derive(Debug, Clone)]
pub struct Way {
    link: Arc<Link>,
    who: usize,
    priority: u8,
}

impl Links {
    /// Links with these settings, and what their budgets had left when the agent ran last.
    #[must_use]
    pub fn open(configs: &BTreeMap<String, Config>, store: &Arc<Store>, data_dir: &Path) -> Self {
        let written = if configs.is_empty() { BTreeMap::new() } else { spent::read(data_dir) };
        let spending = Arc::new(Notify::new());
        let open = |(name, config): (&String, &Config)| {
            let (store, started) = (Arc::clone(store), Instant::now());
            let spent = written.get(name).copied().unwrap_or_default();
            let now = move || Moment::of(store.clock(), started.elapsed());
            (name.clone(), Arc::new(Link::new(config, spent, now, &spending)))
        };
        Self { links: configs.iter().map(open).collect(), data_dir: data_dir.to_owned(), written, spending }
    }

    /// The link of this name.
    ///
    /// # Panics
    /// There is none, which the configuration has checked.
    #[must_use]
    pub fn get(&self, name: &str) -> Arc<Link> {
        Arc::clone(self.links.get(name).expect("every reference to a link was checked"))
    }

    /// All of them, by name.
    #[must_use]
    pub fn all(&self) -> BTreeMap<String, Arc<Link>> {
        self.links.clone()
    }

    /// Looks whether limits hold, and keeps what is spent, until it is told to stop.
    ///
    /// # Errors
    /// None: what cannot be written is told and tried again.
    pub async fn run(mut self, mut changes: Changes, stop: CancellationToken) -> anyhow::Result<()> {
        if self.links.is_empty() {
            stop.cancelled().await;
            return Ok(());
        }
        let mut look = tokio::time::interval(LOOK_EVERY);
        let spending = Arc::clone(&self.spending);
        let mut written = true;
        loop {
            tokio::select! {
                () = stop.cancelled() => {
                    self.write(true).await;
                    return Ok(());
                }
                _ = look.tick() => {}
                // What cannot be written is not tried again with every request.
                () = spending.notified(), if written => {
                    written = self.write(false).await;
                    continue;
                }
                Ok(()) = changes.changed() => {}
            }
            let links = self.all();
            let looking = tokio::task::spawn_blocking(move || links.iter().for_each(|(name, link)| link.look(name)));
            looking.await.context("look at links")?;
            written = self.write(false).await;
        }
    }

    /// Writes what is spent, if that is due; at the end exactly. Whether nothing is left to be written.
    async fn write(&mut self, at_end: bool) -> bool {
        let mut due = false;
        let mut spent = BTreeMap::new();
        for (name, link) in &self.links {
            let Some((to_keep, is_due)) = link.to_keep(at_end) else { continue };
            due |= is_due || (at_end && self.written.get(name) != Some(&to_keep));
            spent.insert(name.clone(), to_keep);
        }
        if !due {
            return true;
        }
        let (data_dir, to_write) = (self.data_dir.clone(), spent.clone());
        let writing = tokio::task::spawn_blocking(move || spent::write(&data_dir, &to_write));
        match writing.await.map_err(anyhow::Error::from).and_then(|written| written) {
            Ok(()) => {
                for (name, kept) in &spent {
                    self.links[name].keep(*kept);
                }
                self.written = spent;
                true
            }
            Err(error) => {
                warn!(error = format!("{error:#}"), "cannot keep what is spent of daily budgets; trying again");
                false
            }
        }
    }
}

impl Link {
    /// A link with what a run before has left behind. `now` tells the time; `spending` hears when [`Link::to_keep`] has
    /// something new.
    pub(crate) fn new(
        config: &Config,
        spent: Spent,
        now: impl Fn() -> Moment + Send + Sync + 'static,
        spending: &Arc<Notify>,
    ) -> Self {
        Self {
            policy: Mutex::new(Policy::new(config, spent)),
            now: Box::new(now),
            spending: Arc::clone(spending),
            meter: Meter::of(config),
            ways: AtomicUsize::new(0),
        }
    }

    /// A way over it, for one more delivery.
    #[must_use]
    pub fn way(self: &Arc<Self>, priority: u8) -> Way {
        Way { link: Arc::clone(self), who: self.ways.fetch_add(1, Relaxed), priority }
    }

    /// As it is at the moment.
    #[must_use]
    pub fn stats(&self) -> LinkStats {
        let mut policy = self.lock();
        let budget = policy.spent((self.now)()).map(|(spent, budget)| (spent.bytes, budget));
        LinkStats { metered: policy.is_metered(), budget }
    }

    /// More of its budget may be spent than a restart would know of.
    fn spent(&self, policy: &Policy) {
        if policy.is_to_be_kept() {
            self.spending.notify_one();
        }
    }

    /// What is to be kept of its budget over a restart, at the end exactly; and whether that is to be written now.
    pub(crate) fn to_keep(&self, at_end: bool) -> Option<(Spent, bool)> {
        let (mut policy, now) = (self.lock(), (self.now)());
        let to_keep = if at_end { policy.spent(now).map(|(spent, _)| spent) } else { policy.what_to_keep(now) };
        to_keep.map(|to_keep| (to_keep, policy.is_to_be_kept()))
    }

    /// A restart would go on from this now.
    pub(crate) fn keep(&self, kept: Spent) {
        self.lock().keep(kept);
    }

    /// Looks whether its limits hold.
    fn look(&self, name: &str) {
        let Some(meter) = &self.meter else { return };
        self.set_metered(name, meter.look());
    }

    /// Whether its limits hold from now on.
    pub(crate) fn set_metered(&self, name: &str, metered: bool) {
        let mut policy = self.lock();
        if policy.is_metered() != metered {
            policy.set_metered(metered);
            info!(link = name, metered, "{}", if metered { "its limits hold" } else { "its limits do not hold now" });
        }
    }

    fn lock(&self) -> MutexGuard<'_, Policy> {
        self.policy.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Way {
    /// Whether a request of about so many bytes may leave.
    #[must_use]
    pub fn ask(&self, bytes: u64) -> Answer {
        self.link.lock().ask(self.who, self.priority, bytes, (self.link.now)())
    }

    /// How long not even a little may pass beside requests; nothing if it may.
    #[must_use]
    pub fn closed(&self) -> Option<Duration> {
        self.link.lock().closed_for(self.priority, (self.link.now)())
    }

    /// It leaves. Returns what it is charged with until that is corrected.
    #[must_use]
    pub fn sent(&self, bytes: u64) -> u64 {
        let mut policy = self.link.lock();
        let charged = policy.sent(bytes, (self.link.now)());
        self.link.spent(&policy);
        charged
    }

    /// What it really took, or did until now, less what it was charged with.
    pub fn correct(&self, bytes: i64) {
        let mut policy = self.link.lock();
        policy.correct(bytes);
        self.link.spent(&policy);
    }
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link").field("stats", &self.stats()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A budget may be spent within seconds.
    #[tokio::test(start_paused = true)]
    async fn what_is_spent_at_once_is_written_at_once() {
        let dir = tempfile::tempdir().expect("a directory");
        let config: Config = toml::from_str("daily-budget = '1MB'").expect("it works");
        let spending = Arc::new(Notify::new());
        let now = || Moment { since: Duration::ZERO, wall: None };
        let link = Arc::new(Link::new(&config, Spent::default(), now, &spending));
        let links = Links {
            links: BTreeMap::from([("lte".to_owned(), Arc::clone(&link))]),
            data_dir: dir.path().to_owned(),
            written: BTreeMap::new(),
            spending,
        };
        let written = || spent::read(dir.path()).get("lte").map_or(0, |spent| spent.bytes);
        let (stop, interfaces) = (CancellationToken::new(), super::super::Interfaces::listen());
        let mut running = tokio::task::JoinSet::new();
        running.spawn(links.run(interfaces.changes(), stop.clone()));
        let way = link.way(0);
        let begun = tokio::time::Instant::now();
        for sent in 1..=500 {
            assert_eq!(way.sent(1000), 1000);
            while written() < sent * 1000 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
        assert!(begun.elapsed() < LOOK_EVERY, "{:?}", begun.elapsed());
        stop.cancel();
        running.join_next().await.expect("a task").expect("no panic").expect("no error");
        assert_eq!(written(), 500_000, "exactly, at the end");
    }
}
