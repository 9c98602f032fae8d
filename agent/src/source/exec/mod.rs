//! The `exec` source: the output of a program, which is kept running or run at intervals.
//!
//! Back-pressure goes through the pipe of its standard output. What it writes to standard error is told as warnings, so much and no
//! more. It runs in a process group of its own, which is ended with it, and when the source stops: SIGTERM, then SIGKILL. A SIGKILL of
//! the agent leaves it to write into a closed pipe (under systemd, the unit's control group ends it).

mod complaints;
mod config;
mod restart;

use std::{
    io,
    process::{ExitStatus, Stdio},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::{
    process::{Child, ChildStdout, Command},
    time::{sleep, sleep_until},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

pub use config::{Config, Settings};

use super::{
    BoxFuture, Source, SourceContext, Type, kind,
    pump::{End, Pump},
};
use crate::config::{duration, reader};
use complaints::Complaints;
use restart::{Next, Schedule};

/// What a program gets to write its last words in after SIGTERM, before SIGKILL: a stop has two seconds for everything.
const LAST_WORDS: Duration = Duration::from_millis(400);

/// How long the output of a program that has ended is read on, if another process that it left behind holds it open.
const LEFT_BEHIND: Duration = Duration::from_secs(1);

/// The row in the table of types.
pub(super) const TYPE: Type = Type {
    name: "exec",
    takes: "lines or other frames that a program prints; started again when it ends, or run at intervals",
    acknowledged: "never; the program's pipe is held back",
    partition_key: "{source}",
    placeholders: &[],
    keys: reader::keys_of::<Config>,
    read: config::read,
};

impl super::Settings for Settings {
    fn describe(&self) -> String {
        let when = self.interval.map(|interval| format!(" every {}", duration::show(interval))).unwrap_or_default();
        format!("output of `{}`{when}", self.program)
    }

    fn warnings(&self) -> Vec<(&'static str, String)> {
        self.not_there().into_iter().collect()
    }

    fn bind(&self) -> BoxFuture<'_, anyhow::Result<Box<dyn Source>>> {
        kind::at_once(self, keep_running)
    }
}

async fn keep_running(settings: Settings, context: SourceContext) -> anyhow::Result<()> {
    let mut schedule = Schedule::new(&settings);
    let mut pump = Pump::new(&context, &settings.framing);
    while !context.stop.is_cancelled() {
        let begun = Instant::now();
        let success = match start(&settings) {
            Ok(program) => program.run(&settings, &context, &mut pump).await?,
            Err(error) => {
                // The system says the same of a program and of a folder that are not there.
                let why = match settings.not_there() {
                    Some(("working-dir", why)) => why,
                    _ => error.to_string(),
                };
                context.trouble("cannot-start", format_args!("cannot start `{}`: {why}", settings.program));
                false
            }
        };
        if context.stop.is_cancelled() {
            break;
        }
        let pause = match schedule.next(success, begun.elapsed(), fastrand::f64()) {
            Next::Never => {
                info!(source = &*context.name, "the program is not started again");
                None
            }
            Next::After(pause) => {
                debug!(source = &*context.name, ?pause, "the program is started again");
                Some(pause)
            }
        };
        // What it printed is not to wait for its next start.
        pump.settle(&[]).await?;
        let wake = async {
            match pause {
                Some(pause) => sleep(pause).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = context.stop.cancelled() => {}
            () = wake => {}
        }
    }
    pump.finish(&[]).await;
    Ok(())
}

fn start(settings: &Settings) -> io::Result<Program> {
    let mut command = Command::new(&settings.program);
    command.args(&settings.arguments).envs(&settings.env);
    if let Some(dir) = &settings.working_dir {
        command.current_dir(dir);
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    let mut child = command.spawn()?;
    let stdout = child.stdout.take().expect("it is piped");
    let stderr = child.stderr.take().expect("it is piped");
    let group = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    Ok(Program { child, group: Group(group), stdout, complaints: Complaints::of(stderr) })
}

/// A program that runs.
struct Program {
    child: Child,
    group: Group,
    stdout: ChildStdout,
    complaints: Complaints,
}

/// Its process group, which is killed when this is dropped.
struct Group(Option<Pid>);

impl Group {
    fn signal(&self, signal: Signal) {
        if let Some(group) = self.0 {
            // Nobody left in the group is as good as signalled.
            let _ = kill_process_group(group, signal);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
    }
}

impl Program {
    /// Reads what it prints until it has ended, and tells how it ended: whether with success.
    async fn run(
        self,
        settings: &Settings,
        context: &SourceContext,
        pump: &mut Pump,
    ) -> Result<bool, forebay_log_store::Error> {
        let Self { mut child, group, mut stdout, mut complaints } = self;
        let begun = Instant::now();
        // What a program that is told to stop still prints is read, so this is not the source's own token.
        let enough = CancellationToken::new();
        let mut deadline = None;
        let end = {
            let mut reading = std::pin::pin!(pump.read(&mut stdout, &[], None, &enough));
            let mut late = std::pin::pin!(sleep(settings.timeout.unwrap_or_default()));
            let (mut exited, mut timed_out, mut stopping) = (false, false, false);
            loop {
                tokio::select! {
                    biased;
                    () = context.stop.cancelled(), if !stopping => {
                        stopping = true;
                        group.signal(Signal::TERM);
                        deadline = Some(tokio::time::Instant::now() + LAST_WORDS);
                    }
                    end = &mut reading => break end?,
                    () = complaints.tell(context) => {}
                    _ = child.wait(), if !exited => {
                        exited = true;
                        deadline.get_or_insert(tokio::time::Instant::now() + LEFT_BEHIND);
                    }
                    () = &mut late, if settings.timeout.is_some() && !timed_out => {
                        timed_out = true;
                        let most = duration::show(settings.timeout.unwrap_or_default());
                        context.trouble("timeout", format_args!("`{}` took longer than {most}; ended", settings.program));
                        group.signal(Signal::KILL);
                    }
                    () = until(deadline), if deadline.is_some() && !enough.is_cancelled() => enough.cancel(),
                }
            }
        };
        if let End::Broken(error) = &end {
            context.trouble("broken", format_args!("cannot read what `{}` prints: {error}", settings.program));
        }
        // It has closed its output, or it is time. A program that ends gets a moment for that.
        let patience =
            tokio::time::Instant::now() + if context.stop.is_cancelled() { Duration::ZERO } else { LEFT_BEHIND };
        let status = loop {
            tokio::select! {
                biased;
                status = child.wait() => break status,
                () = complaints.tell(context) => {}
                () = until(Some(patience)) => {
                    group.signal(Signal::KILL);
                    break child.wait().await;
                }
            }
        };
        complaints.finish(context).await;
        Ok(told_end(&status, begun.elapsed(), settings, context))
    }
}

async fn until(deadline: Option<tokio::time::Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// Tells how a program ended: whether with success.
fn told_end(status: &io::Result<ExitStatus>, lived: Duration, settings: &Settings, context: &SourceContext) -> bool {
    let program = &settings.program;
    match status {
        Ok(status) if status.success() || context.stop.is_cancelled() => {
            debug!(source = &*context.name, %status, ?lived, "`{program}` ended");
            true
        }
        Ok(status) => {
            context.trouble("program-failed", format_args!("`{program}` ended with {status} after {lived:.1?}"));
            false
        }
        Err(error) => {
            context.trouble("program-failed", format_args!("cannot tell how `{program}` ended: {error}"));
            false
        }
    }
}
