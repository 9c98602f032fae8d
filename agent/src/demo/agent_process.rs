//! The agent under demonstration: this same program, run as a gateway would run it, in a process that can be killed.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use tokio::process::{Child, Command};

use crate::{cli::client::Client, status::Status};

/// A gateway on a slow card may take a while.
const START_MAX: Duration = Duration::from_secs(20);
const STOP_MAX: Duration = Duration::from_secs(20);
const STREAM: &str = "telemetry";

/// A running agent.
pub(super) struct AgentProcess {
    dir: PathBuf,
    api: Client,
    child: Child,
}

impl AgentProcess {
    /// Writes a configuration into `dir`, starts the agent with it, and waits until it is ready.
    pub(super) async fn start(dir: &Path, mqtt: u16, api: u16, upstream: u16) -> anyhow::Result<Self> {
        let config = format!(
            r#"data-dir = "{data}"

[api]
listen = "127.0.0.1:{api}"

[streams.{STREAM}]
shards = 2
quota = "256MiB"
rate-limit = "off"

[sources.devices]
type = "mqtt-broker"
listen = "127.0.0.1:{mqtt}"
stream = "{STREAM}"
partition-key = "{{topic}}"

[destinations.cloud]
type = "kinesis"
from = "{STREAM}"
stream = "plant-telemetry"
region = "eu-west-1"
endpoint = "http://127.0.0.1:{upstream}"
"#,
            data = dir.join("data").display(),
        );
        let path = dir.join("forebay.toml");
        fs::write(&path, config).with_context(|| format!("write {}", path.display()))?;
        let child = spawn(dir)?;
        let mut agent = Self { dir: dir.into(), api: Client::new(([127, 0, 0, 1], api).into(), None), child };
        agent.wait_until_ready().await?;
        Ok(agent)
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id().unwrap_or_default()
    }

    /// SIGKILL.
    pub(super) async fn kill(&mut self) -> anyhow::Result<()> {
        self.child.kill().await.context("kill the agent")
    }

    pub(super) async fn start_again(&mut self) -> anyhow::Result<()> {
        self.child = spawn(&self.dir)?;
        self.wait_until_ready().await
    }

    /// SIGTERM, and waits for the end.
    pub(super) async fn terminate(&mut self) -> anyhow::Result<()> {
        if let Some(pid) = self.child.id().and_then(|id| rustix::process::Pid::from_raw(id.cast_signed())) {
            rustix::process::kill_process(pid, rustix::process::Signal::TERM).context("stop the agent")?;
        }
        let ended = tokio::time::timeout(STOP_MAX, self.child.wait()).await;
        let status = ended.context("stop the agent")?.context("stop the agent")?;
        if !status.success() {
            bail!("stop the agent: it ended with {status}; see {}", self.log().display());
        }
        Ok(())
    }

    /// How many records its log holds or held, by the numbers it has given; `None` while it does not answer.
    pub(super) async fn stored(&self) -> Option<u64> {
        let status: Status = self.api.get("/status").await.ok()?;
        Some(status.streams.get(STREAM)?.next.saturating_sub(1))
    }

    async fn wait_until_ready(&mut self) -> anyhow::Result<()> {
        let begun = Instant::now();
        while self.api.get::<serde_json::Value>("/healthz").await.is_err() {
            if let Some(status) = self.child.try_wait().context("start the agent")? {
                bail!("start the agent: it ended with {status}; see {}", self.log().display());
            }
            if begun.elapsed() > START_MAX {
                bail!("start the agent: it was not ready after {START_MAX:?}; see {}", self.log().display());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    fn log(&self) -> PathBuf {
        self.dir.join("agent.log")
    }
}

fn spawn(dir: &Path) -> anyhow::Result<Child> {
    let program = std::env::current_exe().context("find this program")?;
    let path = dir.join("agent.log");
    let log = File::options().create(true).append(true).open(&path);
    let log = log.with_context(|| format!("write {}", path.display()))?;
    Command::new(program)
        .args(["run", "--config"])
        .arg(dir.join("forebay.toml"))
        .env_remove("NOTIFY_SOCKET")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .kill_on_drop(true)
        .spawn()
        .context("start the agent")
}
