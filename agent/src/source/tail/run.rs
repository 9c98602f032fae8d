//! Brings what the files hold to the log, and waits for more.

use std::{
    io,
    os::fd::OwnedFd,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use tokio::{
    io::{Interest, unix::AsyncFd},
    task::{JoinHandle, spawn_blocking},
    time::{sleep, timeout},
};

use super::{
    Settings,
    config::Watch,
    mark,
    tailer::{Item, Step, Tailer},
    tell::Teller,
    tracked::Record,
    watch::Watcher,
};
use crate::{
    ingest::{Fields, Origin},
    source::{Intake, SourceContext},
};

/// Who writes often is not looked at more often than this.
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(20);

/// And looking for files is not repeated sooner than this, nor sooner than twenty times as long as it takes.
const SCAN_AGAIN_AFTER: Duration = Duration::from_millis(100);

/// How often what waits for its end is looked at.
const WAITING_AGAIN_AFTER: Duration = Duration::from_millis(100);

/// How long a stop waits for what is on its way. What is not stored by then is read again by the next run.
const PATIENCE: Duration = Duration::from_millis(1200);

/// Everything that blocks.
struct Reader {
    tailer: Tailer,
    watcher: Option<Watcher>,
    poll_interval: Duration,
    scanned: Option<Instant>,
    scan_took: Duration,
    /// Whether something has happened that a scan will find.
    scan_wanted: bool,
}

/// What one round of it brought.
struct Round {
    step: Step,
    /// When there is a reason to look without being told of one.
    again: Duration,
}

/// Runs the source until it is stopped.
///
/// # Errors
/// The log is closed or its stream is gone.
pub(super) async fn run(settings: Settings, context: SourceContext) -> anyhow::Result<()> {
    let source = Arc::clone(&context.name);
    let watcher = match settings.watch {
        Watch::Poll => None,
        Watch::Inotify => match Watcher::new() {
            Ok(watcher) => Some(watcher),
            Err(error) => {
                tracing::warn!(source = &*source, %error, "the kernel does not watch files; they are polled");
                None
            }
        },
    };
    let told = watcher.as_ref().map(|watcher| readiness(watcher.fd())).transpose().context("watch files")?;
    let marks = context.ingest.stream().marks(&mark::prefix(&source));
    let poll_interval = settings.poll_interval;
    let teller = Teller::new(Arc::clone(&source), Arc::clone(&context.stats));
    let tailer = Tailer::new(settings, context.max_record, teller, marks, Instant::now());
    let reader = Reader { tailer, watcher, poll_interval, scanned: None, scan_took: Duration::ZERO, scan_wanted: true };

    let mut intake = Intake::new(&context);
    let mut reading = begin(reader);
    loop {
        let (reader, Round { step, again }) = loop {
            tokio::select! {
                round = &mut reading => break round.context("read files")?,
                progress = intake.progress() => drop(progress.context("store lines")?),
            }
        };
        let all_stored = if step.more {
            // What was read is stored while the next is read.
            reading = begin(reader);
            store(step.items, &context, &mut intake).await?
        } else {
            let all_stored = store(step.items, &context, &mut intake).await?;
            if all_stored {
                wait(told.as_ref(), again, &context, &mut intake).await?;
            }
            reading = begin(reader);
            all_stored
        };
        if !all_stored || context.stop.is_cancelled() {
            break;
        }
    }
    let stored = async { while !intake.is_idle() && intake.progress().await.is_ok() {} };
    // What is not, the marks do not say either.
    let _ = timeout(PATIENCE, stored).await;
    Ok(())
}

#[expect(
    deprecated,
    reason = "its successor is unsafe for those whose descriptor may change or be closed; an Arc<OwnedFd> is neither"
)]
fn readiness(inotify: Arc<OwnedFd>) -> io::Result<AsyncFd<Arc<OwnedFd>>> {
    AsyncFd::with_interest(inotify, Interest::READABLE)
}

fn begin(mut reader: Reader) -> JoinHandle<(Reader, Round)> {
    spawn_blocking(move || {
        let round = reader.round(Instant::now());
        (reader, round)
    })
}

/// Puts what was read into the intake, as it has room. Whether that was done before the source was stopped.
async fn store(items: Vec<Item>, context: &SourceContext, intake: &mut Intake) -> anyhow::Result<bool> {
    for item in items {
        match item {
            Item::Mark(name, value) => set_mark(&name, &value, context, intake),
            Item::Oversize { file, byte, bytes } => {
                let file = file.to_string_lossy();
                context.oversize(bytes, Origin::new(&context.name, &[("file", &*file)]).at_byte(Some(byte)));
            }
            Item::Chunk(chunk) => {
                let file = chunk.path().to_string_lossy();
                let named = [("file", &*file)];
                for Record { payload, byte, next } in chunk.records() {
                    intake.add(&Fields { source: &context.name, named: &named, payload, byte: Some(byte) }, &[]);
                    if !intake.has_room() {
                        // Records and the mark that covers them stay together, whatever happens.
                        set_mark(&chunk.mark_name, &chunk.mark_at(Some(next)), context, intake);
                        if !make_room(context, intake).await? {
                            return Ok(false);
                        }
                    }
                }
                set_mark(&chunk.mark_name, &chunk.mark_at(None), context, intake);
            }
        }
    }
    Ok(true)
}

/// Waits for room. Whether there is some before the source is stopped.
async fn make_room(context: &SourceContext, intake: &mut Intake) -> anyhow::Result<bool> {
    while !intake.has_room() {
        tokio::select! {
            progress = intake.progress() => drop(progress.context("store lines")?),
            () = context.stop.cancelled() => return Ok(false),
        }
    }
    Ok(true)
}

fn set_mark(name: &str, value: &[u8], context: &SourceContext, intake: &mut Intake) {
    if let Err(error) = intake.batch().set_mark(name, value)
        && context.stats.refused("mark")
    {
        tracing::error!(source = &*context.name, %error, mark = name, "a position cannot be kept; a restart repeats lines");
    }
}

/// Waits until there is a reason to look at files.
async fn wait(
    told: Option<&AsyncFd<Arc<OwnedFd>>>,
    again: Duration,
    context: &SourceContext,
    intake: &mut Intake,
) -> anyhow::Result<()> {
    let told = async {
        match told {
            Some(told) => told.readable().await.map(|mut ready| ready.clear_ready()),
            None => std::future::pending().await,
        }
    };
    let reason = async {
        tokio::select! {
            told = told => { told?; sleep(LOOK_AGAIN_AFTER).await }
            () = sleep(again) => {}
        }
        io::Result::Ok(())
    };
    tokio::pin!(reason);
    loop {
        tokio::select! {
            reason = &mut reason => return reason.context("watch files"),
            () = context.stop.cancelled() => return Ok(()),
            progress = intake.progress() => drop(progress.context("store lines")?),
        }
    }
}

impl Reader {
    fn round(&mut self, now: Instant) -> Round {
        if let Some(watcher) = &mut self.watcher {
            let happened = watcher.read();
            self.scan_wanted |= happened.changed;
            for path in happened.written {
                // What nobody knows may be a file that came before its folder was watched.
                self.scan_wanted |= !self.tailer.written(&path);
            }
        }
        let since = self.scanned.map_or(Duration::MAX, |scanned| now.duration_since(scanned));
        let pause = SCAN_AGAIN_AFTER.max(20 * self.scan_took).min(self.poll_interval);
        if since >= self.poll_interval || (self.scan_wanted && since >= pause) {
            self.scan(now);
        }
        let step = self.tailer.step(now);
        self.scan_wanted |= step.rescan;
        let since = self.scanned.map_or(Duration::ZERO, |scanned| scanned.elapsed());
        let mut again = if self.scan_wanted { pause } else { self.poll_interval }.saturating_sub(since);
        if step.waiting {
            again = again.min(WAITING_AGAIN_AFTER);
        }
        Round { step, again: again.max(LOOK_AGAIN_AFTER) }
    }

    fn scan(&mut self, now: Instant) {
        self.scan_wanted = false;
        self.tailer.scan(now);
        if let Some(watcher) = &mut self.watcher
            && let Err(error) = watcher.watch(&self.tailer.folders())
        {
            self.tailer.note_unwatched(error.into());
        }
        let done = Instant::now();
        (self.scanned, self.scan_took) = (Some(done), done.duration_since(now));
    }
}
