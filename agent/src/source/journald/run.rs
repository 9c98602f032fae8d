//! Runs `journalctl` and brings what it prints to the log.

use std::{
    process::Stdio,
    sync::atomic::Ordering::Relaxed,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use tokio::{
    io::{AsyncReadExt as _, BufReader},
    process::{Child, ChildStdout, Command},
    time::{sleep, timeout},
};

use super::{
    Settings,
    config::Start,
    entry::{Entry, cursor_of_beginning},
    lines::{Line, Lines},
};
use crate::{
    ingest::{Fields, Origin},
    source::{
        Intake, SourceContext,
        reconnect::{Reconnect, Trouble},
    },
};

/// So much of what is written is read at once.
const BUFFER_BYTES: usize = 128 * 1024;

/// Of what `journalctl` complains about, so much is told.
const COMPLAINT_BYTES_MAX: u64 = 4096;

/// How long a stop waits for what is on its way. What is not stored by then comes again in the next run.
const PATIENCE: Duration = Duration::from_millis(1200);

/// Runs the source until it is stopped.
///
/// # Errors
/// The log is closed or its stream is gone.
pub(super) async fn run(settings: Settings, context: SourceContext) -> anyhow::Result<()> {
    let mark = format!("journald/{}", context.name);
    let mut intake = Intake::new(&context);
    let mut reconnect = Reconnect::new(settings.max_backoff);
    let mut told = String::new();
    // What was read last, which a restart of the child goes on after. What is stored is what the mark says.
    let mut cursor = context.ingest.stream().mark(&mark).and_then(|mark| String::from_utf8(mark).ok());
    loop {
        let begun = Instant::now();
        let outcome = read(&settings, &context, &mut intake, &mark, &mut cursor, &mut told).await;
        context.stats.connections.store(0, Relaxed);
        let error = match outcome {
            Ok(()) => break,
            Err(Failure::Log(error)) => return Err(error),
            Err(Failure::Journal(error)) => format!("{error:#}"),
        };
        context.stats.failed(&*error);
        let pause = reconnect.pause(Trouble::Passing, begun.elapsed(), fastrand::f64());
        if told != error {
            tracing::warn!(source = &*context.name, error, ?pause, "the journal cannot be read");
            told = error;
        }
        let pause = sleep(pause);
        tokio::pin!(pause);
        loop {
            tokio::select! {
                () = &mut pause => break,
                () = context.stop.cancelled() => return finish(intake).await,
                progress = intake.progress() => drop(progress?),
            }
        }
    }
    finish(intake).await
}

/// What ends the reading.
enum Failure {
    /// It is tried again.
    Journal(anyhow::Error),
    /// Nothing is ever stored any more.
    Log(anyhow::Error),
}

impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Journal(error.into())
    }
}

async fn finish(mut intake: Intake) -> anyhow::Result<()> {
    let stored = async { while !intake.is_idle() && intake.progress().await.is_ok() {} };
    // What is not, the mark does not say either.
    let _ = timeout(PATIENCE, stored).await;
    Ok(())
}

/// Reads until the source is stopped.
async fn read(
    settings: &Settings,
    context: &SourceContext,
    intake: &mut Intake,
    mark: &str,
    cursor: &mut Option<String>,
    told: &mut String,
) -> Result<(), Failure> {
    if cursor.is_none() && settings.start == Start::End {
        *cursor = newest(settings).await?;
        if let Some(cursor) = cursor {
            // So that nothing is left out if the agent ends before the first entry.
            let _ = intake.batch().set_mark(mark, cursor.as_bytes());
        }
    }
    let mut command = journalctl(settings);
    command.args(["--follow", "--no-tail"]);
    if let Some(cursor) = cursor {
        command.arg(format!("--after-cursor={cursor}"));
    }
    let mut child = command.spawn().with_context(|| format!("start {}", settings.journalctl.display()))?;
    let Some(stdout) = child.stdout.take() else { bail_journal("it has no output")? };
    context.stats.connections.store(1, Relaxed);
    // Names and values of the other fields come with a message that just fits.
    let reader: BufReader<ChildStdout> = BufReader::with_capacity(BUFFER_BYTES, stdout);
    let mut lines = Lines::new(reader, context.max_record);
    loop {
        let has_room = intake.has_room();
        tokio::select! {
            () = context.stop.cancelled() => return Ok(()),
            progress = intake.progress() => drop(progress.map_err(|error| Failure::Log(error.into()))?),
            line = lines.advance(), if has_room => {
                if !line.context("read what journalctl prints")? {
                    return Err(Failure::Journal(complaint(child).await));
                }
                take(lines.line(), context, intake, mark, cursor);
                told.clear();
            }
        }
    }
}

fn bail_journal<T>(message: &str) -> Result<T, Failure> {
    Err(Failure::Journal(anyhow::anyhow!("{message}")))
}

fn take(line: Line<'_>, context: &SourceContext, intake: &mut Intake, mark: &str, cursor: &mut Option<String>) {
    let newest = match line {
        Line::TooLong(beginning, bytes) => {
            let own = cursor_of_beginning(beginning);
            let named = own.map_or(("behind cursor", cursor.as_deref().unwrap_or_default()), |own| ("cursor", own));
            context.oversize(bytes as u64, Origin::new(&context.name, &[named]));
            own.map(str::to_owned)
        }
        Line::Whole(line) => match Entry::parse(line) {
            Ok(entry) => {
                let (unit, host) = (entry.unit().unwrap_or_default(), entry.host.as_deref().unwrap_or_default());
                let named = [("unit", unit), ("host", host)];
                intake.add(&Fields { source: &context.name, named: &named, payload: line, byte: None }, &[]);
                Some(entry.cursor.into_owned())
            }
            Err(error) => {
                if context.stats.refused("malformed") {
                    tracing::warn!(source = &*context.name, %error, "journalctl printed something else than an entry");
                }
                None
            }
        },
    };
    if let Some(newest) = newest {
        if let Err(error) = intake.batch().set_mark(mark, newest.as_bytes())
            && context.stats.refused("mark")
        {
            tracing::error!(source = &*context.name, %error, "a cursor cannot be kept; a restart repeats entries");
        }
        *cursor = Some(newest);
    }
}

/// The cursor of the newest entry.
async fn newest(settings: &Settings) -> anyhow::Result<Option<String>> {
    let output = journalctl(settings).args(["--lines=1"]).output().await;
    let output = output.with_context(|| format!("start {}", settings.journalctl.display()))?;
    if !output.status.success() {
        bail!("journalctl ended with {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    let line = output.stdout.split(|byte| *byte == b'\n').next().unwrap_or_default();
    Ok(Entry::parse(line).ok().map(|entry| entry.cursor.into_owned()))
}

fn journalctl(settings: &Settings) -> Command {
    let mut command = Command::new(&settings.journalctl);
    command.args(["--output=json", "--all", "--quiet", "--no-pager"]).args(&settings.selection);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

/// Why it ended.
async fn complaint(mut child: Child) -> anyhow::Error {
    let mut text = Vec::new();
    if let Some(stderr) = child.stderr.take() {
        // What cannot be read is not told.
        let _ = stderr.take(COMPLAINT_BYTES_MAX).read_to_end(&mut text).await;
    }
    let status = child.wait().await.map_or_else(|error| error.to_string(), |status| status.to_string());
    let text = String::from_utf8_lossy(&text);
    let text = text.trim();
    anyhow::anyhow!("journalctl ended with {status}{}{text}", if text.is_empty() { "" } else { ": " })
}
