//! The `stdin` source: what is piped into `forebay run`, until it ends.
//!
//! Back-pressure goes through the pipe. Nothing is acknowledged: what the agent has read and not stored when it is killed is lost.
//! The end of the input is the end of the source, and with `stop-at-end` of the agent.

use std::{
    io::{self, PipeReader},
    os::fd::OwnedFd,
    sync::Arc,
    thread,
};

use anyhow::Context as _;
use serde::Deserialize;
use tokio::{net::unix::pipe::Receiver, sync::oneshot};
use toml::Table;
use tracing::info;

use super::{
    BoxFuture, Source, SourceContext, Type, kind,
    pump::{self, End, Pump},
};
use crate::{
    config::{Problems, reader},
    framing::Framing,
    supervise::Done,
};

/// The row in the table of types.
pub(super) const TYPE: Type = Type {
    name: "stdin",
    takes: "lines or other frames that are piped into `forebay run`",
    acknowledged: "never; the pipe is held back",
    partition_key: "{source}",
    placeholders: &[],
    keys: reader::keys_of::<Config>,
    read,
};

/// The keys of `[sources.NAME]` with `type = "stdin"`, beside those of framing.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Config {
    /// Whether the agent ends, in good order, once the input has ended and all of it is stored; default `false`.
    pub stop_at_end: bool,
}

/// Settings that were found right.
#[derive(Debug, Clone)]
struct Settings {
    stop_at_end: bool,
    framing: Framing,
}

fn read(table: Table, path: &str, elsewhere: &[&str], problems: &mut Problems) -> Option<Arc<dyn super::Settings>> {
    let (framing, config) = pump::read_framed::<Config>(table, path, elsewhere, problems);
    let framing = framing.and_then(|framing| framing.validate(path, problems));
    Some(Arc::new(Settings { stop_at_end: config?.stop_at_end, framing: framing? }))
}

impl super::Settings for Settings {
    fn describe(&self) -> String {
        format!("standard input{}", if self.stop_at_end { ", whose end ends the agent" } else { "" })
    }

    fn claims(&self) -> Vec<(&'static str, String)> {
        vec![("type", "standard input".to_owned())]
    }

    fn bind(&self) -> BoxFuture<'_, anyhow::Result<Box<dyn Source>>> {
        kind::at_once(self, Self::run)
    }
}

impl Settings {
    async fn run(self, context: SourceContext) -> anyhow::Result<()> {
        let (pipe, mut copied) = copy()?;
        let mut input = Receiver::from_owned_fd(OwnedFd::from(pipe)).context("read standard input")?;
        let mut pump = Pump::new(&context, &self.framing);
        let end = pump.read(&mut input, &[], None, &context.stop).await?;
        let broken = match end {
            End::Broken(error) => Some(error),
            _ => copied.try_recv().ok().and_then(Result::err),
        };
        if let Some(error) = broken {
            context.trouble("broken", format_args!("standard input cannot be read further: {error}"));
        }
        pump.settle(&[]).await?;
        pump.finish(&[]).await;
        if !context.stop.is_cancelled() {
            info!(source = &*context.name, "standard input has ended, and all of it is stored");
            if self.stop_at_end {
                return Err(Done.into());
            }
        }
        context.stop.cancelled().await;
        Ok(())
    }
}

/// Copies standard input into a pipe of our own, and tells how that ended before it closes it.
///
/// Standard input may be a file, a terminal or a pipe that another program reads too, so it can neither be polled nor made
/// non-blocking. Reading it blocks a thread, which nothing can wake: it ends with the process.
fn copy() -> anyhow::Result<(PipeReader, oneshot::Receiver<io::Result<()>>)> {
    let (reader, mut writer) = io::pipe().context("make a pipe")?;
    let (tell, told) = oneshot::channel();
    let copy = move || {
        let outcome = io::copy(&mut io::stdin().lock(), &mut writer).map(drop);
        // Whoever does not listen any more has stopped.
        let _ = tell.send(outcome);
    };
    thread::Builder::new().name("stdin".to_owned()).spawn(copy).context("start a thread")?;
    Ok((reader, told))
}
