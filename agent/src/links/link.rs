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
use forebay_log_store::{ClockStatus, Store};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{
    Answer, Changes, Config,
    budget::Spent,
    metered::Meter,
    policy::{Moment, Policy},
    spent,
};

/// How often it is looked whether a link is metered, and whether what was spent is to be written.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// What is written lies ahead of what is spent by this share of the budget, and is written again when that is used up: a
/// hundred small writes a day, and after a kill a budget has lost that much and never gained any.
const AHEAD: u64 = 100;

/// All links.
#[derive(Debug)]
pub struct Links {
    links: BTreeMap<String, Arc<Link>>,
    data_dir: PathBuf,
    written: BTreeMap<String, Spent>,
}

/// A way out of the gateway that has limits.
pub struct Link {
    policy: Mutex<Policy>,
    clock: Box<dyn Fn() -> ClockStatus + Send + Sync>,
    started: Instant,
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
        let open = |(name, config): (&String, &Config)| {
            let store = Arc::clone(store);
            let spent = written.get(name).copied().unwrap_or_default();
            (name.clone(), Arc::new(Link::new(config, spent, move || store.clock())))
        };
        Self { links: configs.iter().map(open).collect(), data_dir: data_dir.to_owned(), written }
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
        loop {
            tokio::select! {
                () = stop.cancelled() => {
                    self.write(0).await;
                    return Ok(());
                }
                _ = look.tick() => {}
                Ok(()) = changes.changed() => {}
            }
            let links = self.all();
            let looking = tokio::task::spawn_blocking(move || links.iter().for_each(|(name, link)| link.look(name)));
            looking.await.context("look at links")?;
            self.write(AHEAD).await;
        }
    }

    /// Writes what is spent, if that is due; `ahead` of 0: exactly, and at once.
    async fn write(&mut self, ahead: u64) {
        let mut due = false;
        let mut spent = BTreeMap::new();
        for (name, link) in &self.links {
            let Some((now, budget)) = link.lock().spent(link.now()) else { continue };
            let written = self.written.get(name).copied().unwrap_or_default();
            due |= match ahead {
                0 => now != written,
                _ => {
                    now.day != written.day
                        || now.bytes > written.bytes
                        || now.bytes + budget / ahead * 2 < written.bytes
                }
            };
            let bytes = now.bytes.saturating_add(budget.checked_div(ahead).unwrap_or(0));
            spent.insert(name.clone(), Spent { bytes, ..now });
        }
        if !due {
            return;
        }
        let (data_dir, to_write) = (self.data_dir.clone(), spent.clone());
        let writing = tokio::task::spawn_blocking(move || spent::write(&data_dir, &to_write));
        match writing.await.map_err(anyhow::Error::from).and_then(|written| written) {
            Ok(()) => self.written = spent,
            Err(error) => {
                warn!(error = format!("{error:#}"), "cannot keep what is spent of daily budgets; trying again")
            }
        }
    }
}

impl Link {
    pub(super) fn new(config: &Config, spent: Spent, clock: impl Fn() -> ClockStatus + Send + Sync + 'static) -> Self {
        Self {
            policy: Mutex::new(Policy::new(config, spent)),
            clock: Box::new(clock),
            started: Instant::now(),
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
        let budget = policy.spent(self.now()).map(|(spent, budget)| (spent.bytes, budget));
        LinkStats { metered: policy.is_metered(), budget }
    }

    /// Looks whether its limits hold.
    fn look(&self, name: &str) {
        let Some(meter) = &self.meter else { return };
        let metered = meter.look();
        let mut policy = self.lock();
        if policy.is_metered() != metered {
            policy.set_metered(metered);
            info!(link = name, metered, "{}", if metered { "its limits hold" } else { "its limits do not hold now" });
        }
    }

    fn now(&self) -> Moment {
        let clock = (self.clock)();
        let wall = clock.trusted_since.map(|_| clock.now);
        Moment { since: self.started.elapsed(), wall }
    }

    fn lock(&self) -> MutexGuard<'_, Policy> {
        self.policy.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Way {
    /// Whether a request of about so many bytes may leave.
    #[must_use]
    pub fn ask(&self, bytes: u64) -> Answer {
        self.link.lock().ask(self.who, self.priority, bytes, self.link.now())
    }

    /// It leaves.
    pub fn sent(&self, bytes: u64) {
        self.link.lock().sent(bytes, self.link.now());
    }

    /// What it really took, or did until now.
    pub fn correct(&self, bytes: i64) {
        self.link.lock().correct(bytes);
    }
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link").field("stats", &self.stats()).finish_non_exhaustive()
    }
}
