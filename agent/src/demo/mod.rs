//! The demo: the main job in under a minute, with nothing else installed, and a proof at the end.
//!
//! Simulated devices publish MQTT over loopback to a real agent in a process of its own. The demo cuts the agent's link
//! to its upstream, kills the agent with SIGKILL in the middle of the outage, starts it again, mends the link, and then
//! compares what the devices were acknowledged with what the upstream got.

mod agent_process;
mod devices;
mod ledger;
mod screen;
mod upstream;

use std::{
    net::TcpListener,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context as _, anyhow, bail};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use self::{
    agent_process::AgentProcess,
    devices::Fleet,
    ledger::{Ledger, Verdict},
    screen::Screen,
    upstream::Upstream,
};

/// What the devices do before, during and after the outage.
const CALM: Duration = Duration::from_secs(6);
const OUTAGE: Duration = Duration::from_secs(12);
const AFTERMATH: Duration = Duration::from_secs(6);
/// Far longer than the backlog of the outage takes.
const DRAIN_MAX: Duration = Duration::from_secs(25);
/// How often the screen is drawn.
const FRAME: Duration = Duration::from_millis(100);

/// Shared by devices, upstream and screen.
type SharedLedger = Arc<Mutex<Ledger>>;

/// Every change of the ledger is whole, so a panic elsewhere does not spoil it.
fn lock(ledger: &SharedLedger) -> MutexGuard<'_, Ledger> {
    ledger.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the command takes.
#[derive(Debug, clap::Args)]
#[group(skip)]
pub struct Args {
    /// Keep the agent's configuration, log and data directory for looking at
    #[arg(long)]
    keep: bool,
}

/// Runs the demo and says whether the proof held.
///
/// # Errors
/// A part of it could not be started, or something acknowledged is missing or out of order at the end.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let dir = WorkDir::create()?;
    // Whatever ends the demo ends its agent too, which goes with `play`.
    let mut hangup = signal(SignalKind::hangup()).context("listen for signals")?;
    let mut terminate = signal(SignalKind::terminate()).context("listen for signals")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listen for signals")?;
    let outcome = tokio::select! {
        outcome = play(&dir) => outcome,
        _ = hangup.recv() => Err(anyhow!("finish the demo: the terminal is gone")),
        _ = terminate.recv() => Err(anyhow!("finish the demo: it was told to stop")),
        _ = interrupt.recv() => Err(anyhow!("finish the demo: it was interrupted")),
    };
    if outcome.is_ok() && !args.keep {
        dir.remove();
    } else {
        eprintln!("the demo's files are kept in {}", dir.path.display());
    }
    outcome
}

async fn play(dir: &WorkDir) -> anyhow::Result<()> {
    let ledger = SharedLedger::default();
    let mut upstream = Upstream::start(Arc::clone(&ledger)).await?;
    let (mqtt, api) = (free_port()?, free_port()?);
    let mut agent = AgentProcess::start(&dir.path, mqtt, api, upstream.port()).await?;
    let mut screen = Screen::new();
    screen.say(&format!(
        "devices publish to 127.0.0.1:{mqtt}; the agent (process {}) keeps its log in {} and forwards to 127.0.0.1:{}",
        agent.pid(),
        dir.path.display(),
        upstream.port(),
    ));
    let stop = CancellationToken::new();
    let fleet = Fleet::start(mqtt, &ledger, &stop);

    screen.say("the link is up");
    watch(&mut screen, &ledger, &agent, CALM).await;
    upstream.cut().await;
    screen.say("the link is CUT: a backlog grows on the gateway's disk");
    watch(&mut screen, &ledger, &agent, OUTAGE / 2).await;
    agent.kill().await?;
    screen.say("the agent was KILLED with SIGKILL, in the middle of everything");
    watch(&mut screen, &ledger, &agent, OUTAGE / 6).await;
    agent.start_again().await?;
    screen.say(&format!(
        "the agent is started again (process {}); the devices repeat what was not acknowledged",
        agent.pid()
    ));
    watch(&mut screen, &ledger, &agent, OUTAGE / 3).await;
    upstream.mend().await?;
    screen.say("the link is back");
    watch(&mut screen, &ledger, &agent, AFTERMATH).await;
    stop.cancel();
    fleet.finish().await;
    screen.say("the devices have stopped; the rest is on its way");
    let begun = Instant::now();
    while lock(&ledger).verdict().lost > 0 && begun.elapsed() < DRAIN_MAX {
        watch(&mut screen, &ledger, &agent, FRAME).await;
    }
    watch(&mut screen, &ledger, &agent, FRAME).await;
    agent.terminate().await?;
    let verdict = lock(&ledger).verdict();
    screen.finish();
    println!("{verdict}");
    if !verdict.holds() {
        bail!("prove the promise: {verdict}");
    }
    Ok(())
}

/// Draws what happens for a while.
async fn watch(screen: &mut Screen, ledger: &SharedLedger, agent: &AgentProcess, span: Duration) {
    let until = Instant::now() + span;
    loop {
        let stored = agent.stored().await;
        screen.draw(&lock(ledger).totals(), stored);
        if Instant::now() >= until {
            return;
        }
        tokio::time::sleep(FRAME.min(until.saturating_duration_since(Instant::now()))).await;
    }
}

/// A port that nobody listens on at the moment.
fn free_port() -> anyhow::Result<u16> {
    let socket = TcpListener::bind(("127.0.0.1", 0)).context("find a free port")?;
    Ok(socket.local_addr().context("find a free port")?.port())
}

/// A directory of this run's own.
struct WorkDir {
    path: PathBuf,
}

impl WorkDir {
    fn create() -> anyhow::Result<Self> {
        let path = std::env::temp_dir().join(format!("forebay-demo-{}", std::process::id()));
        std::fs::create_dir_all(&path).with_context(|| format!("create {}", path.display()))?;
        Ok(Self { path })
    }

    fn remove(self) {
        if let Err(error) = std::fs::remove_dir_all(&self.path) {
            eprintln!("cannot remove {}: {error}", self.path.display());
        }
    }
}

impl Verdict {
    /// Whether the promise was kept, and there was something to keep.
    fn holds(&self) -> bool {
        self.acknowledged > 0 && self.lost == 0 && self.out_of_order == 0 && self.altered == 0
    }
}
