//! The `serial` source: frames from a serial port.
//!
//! A serial device repeats nothing: what comes while forebay does not run, or while the port is gone, is lost with the
//! device. While the log has no room the port is not read; the kernel then keeps some 4 KiB, after which flow control
//! holds the device back where there is one, and bytes are lost where there is none (see [`crate::serial_port`]).
//!
//! A port that goes away is looked for again until it is back. A frame that was half there then is dropped and counted as
//! `"half-frame"`.

mod config;

use std::{sync::atomic::Ordering::Relaxed, time::Duration};

use anyhow::anyhow;
use config::{Poll, Settings};
use forebay_log_store::Error;
use tokio::time::{Instant, sleep_until, timeout};
use tracing::info;

use super::{BoxFuture, Intake, Source, SourceContext, Type, kind, reconnect::Trouble, retry::Retry};
use crate::{
    framing::{BadFrame, Framer},
    ingest::{Fields, Origin},
    serial_port::Port,
};

/// The row in the table of types.
pub(super) const TYPE: Type = Type {
    name: "serial",
    takes: "frames from a serial port, found by path or USB identity: lines, delimiter, fixed length, length prefix, COBS, SLIP \
            or silence, with NMEA or CRC-16 checksum; asks devices that have to be asked",
    acknowledged: "devices on such lines expect nothing",
    partition_key: "{source}",
    placeholders: &["port"],
    keys: config::keys,
    read: config::read,
};

/// Bytes read at once: what the kernel keeps of a port at most.
const READ_BYTES: usize = 4096;

/// How long the port may take nothing that is written to it: flow control may hold it up for ever.
const WRITE_PATIENCE: Duration = Duration::from_secs(5);

impl super::Settings for Settings {
    fn describe(&self) -> String {
        format!("serial port {} at {}", self.port.name(), self.port.line())
    }

    fn bind(&self) -> BoxFuture<'_, anyhow::Result<Box<dyn Source>>> {
        kind::at_once(self, run)
    }
}

/// How long a stop waits for room for frames that are whole.
const STOP_PATIENCE: Duration = Duration::from_millis(300);

/// Why a port is not read (or waited for) any more.
enum Ended {
    Stopped,
    Waited,
    /// Unplugged, or it does not take what is written.
    Port(anyhow::Error),
    /// Nothing is ever stored again.
    Log(Error),
}

/// Runs the source until it is stopped. Trouble with the port never ends it.
async fn run(settings: Settings, context: SourceContext) -> anyhow::Result<()> {
    let mut intake = Intake::<()>::new(&context);
    let mut retry = Retry::new(settings.max_backoff);
    let mut line =
        Line { name: settings.port.name(), settings: settings.port.line(), framer: settings.framing.framer() };
    let ended = loop {
        let opened = tokio::select! {
            opened = settings.port.open() => opened,
            () = context.stop.cancelled() => break Ok(()),
        };
        let (trouble, error) = match opened {
            Ok(port) => {
                context.stats.connections.store(1, Relaxed);
                retry.works(Instant::now());
                info!(source = &*context.name, port = line.name, line = settings.port.line(), "port is open");
                let ended = read(&port, &settings, &context, &mut intake, &mut line).await;
                context.stats.connections.store(0, Relaxed);
                match ended {
                    Ended::Stopped => break Ok(()),
                    Ended::Log(error) => break Err(error),
                    Ended::Port(error) => (Trouble::Passing, error),
                    Ended::Waited => continue,
                }
            }
            Err(refused) if refused.needs_help => (Trouble::Refused, refused.error),
            Err(passing) => (Trouble::Passing, passing.error),
        };
        line.framer.on_break();
        let pause = retry.failed(&context, trouble, &error, Instant::now());
        let over = Instant::now() + pause;
        match wait(over, &context, &mut intake, &mut line).await {
            Ended::Stopped => break Ok(()),
            Ended::Log(error) => break Err(error),
            Ended::Port(_) | Ended::Waited => {}
        }
    };
    // Half a frame is told of, and what is whole goes on its way.
    line.framer.on_break();
    let rest = async {
        while !line.drain(&context, &mut intake) {
            if intake.progress().await.is_err() {
                break;
            }
        }
    };
    let _ = timeout(STOP_PATIENCE, rest).await;
    intake.finish().await;
    ended.map_err(Into::into)
}

/// Waits until the port is to be opened again. What came before goes on its way meanwhile.
async fn wait(over: Instant, context: &SourceContext, intake: &mut Intake, line: &mut Line) -> Ended {
    loop {
        let drained = line.drain(context, intake);
        tokio::select! {
            () = context.stop.cancelled() => return Ended::Stopped,
            () = sleep_until(over), if drained => return Ended::Waited,
            progress = intake.progress() => if let Err(error) = progress {
                return Ended::Log(error);
            },
        }
    }
}

/// Reads an open port until something ends that.
async fn read(
    port: &Port,
    settings: &Settings,
    context: &SourceContext,
    intake: &mut Intake,
    line: &mut Line,
) -> Ended {
    if let Some(ended) = write(port, &settings.write_on_open, context).await {
        return ended;
    }
    let mut questions = Questions::new(&settings.polls, Instant::now());
    let mut buffer = vec![0; READ_BYTES];
    let mut quiet_since = Instant::now();
    loop {
        let reads = line.drain(context, intake) && intake.has_room();
        if !reads {
            // A silence that nobody listens to is none.
            quiet_since = Instant::now();
        }
        let silence = line.framer.gap().map(|gap| quiet_since + gap);
        let question = questions.next();
        tokio::select! {
            biased;
            () = context.stop.cancelled() => return Ended::Stopped,
            progress = intake.progress() => if let Err(error) = progress {
                return Ended::Log(error);
            },
            read = port.read(&mut buffer), if reads => match read {
                Ok(0) => return Ended::Port(anyhow!("{} is gone", line.name)),
                Ok(bytes) => {
                    quiet_since = Instant::now();
                    line.framer.push(&buffer[..bytes]);
                }
                Err(error) => return Ended::Port(anyhow!(error).context(format!("read {}", line.name))),
            },
            () = sleep_until(silence.unwrap_or(quiet_since)), if reads && silence.is_some() => line.framer.on_silence(),
            () = sleep_until(question.unwrap_or(quiet_since)), if question.is_some() => {
                for command in questions.due(Instant::now()) {
                    if let Some(ended) = write(port, command, context).await {
                        return ended;
                    }
                }
            }
        }
    }
}

async fn write(port: &Port, bytes: &[u8], context: &SourceContext) -> Option<Ended> {
    let written = tokio::select! {
        written = timeout(WRITE_PATIENCE, port.write_all(bytes)) => written,
        () = context.stop.cancelled() => return Some(Ended::Stopped),
    };
    match written {
        Ok(Ok(())) => None,
        Ok(Err(error)) => Some(Ended::Port(anyhow!(error).context("write to the port"))),
        Err(_) => Some(Ended::Port(anyhow!("the port takes nothing: does flow control hold it up?"))),
    }
}

/// What comes from the port, cut into frames.
struct Line {
    /// Of the port.
    name: String,
    /// Speed and form of a character: where they are wrong, only noise comes.
    settings: String,
    framer: Framer,
}

impl Line {
    /// Puts frames into the intake while it has room. Whether all went in.
    fn drain(&mut self, context: &SourceContext, intake: &mut Intake) -> bool {
        while intake.has_room() {
            let named = [("port", &*self.name)];
            let told = |bad: BadFrame| {
                let (from, line) = (Origin::new(&context.name, &named), &self.settings);
                context.trouble(bad.reason(), format_args!("{bad}; from {from}, which is read at {line}"));
            };
            let Some(payload) = self.framer.next(told) else { return true };
            intake.add(&Fields { source: &context.name, named: &named, payload, byte: None }, &[]);
        }
        false
    }
}

/// When the device is asked what. Pure.
struct Questions<'a>(Vec<(Instant, &'a Poll)>);

impl<'a> Questions<'a> {
    fn new(polls: &'a [Poll], now: Instant) -> Self {
        Self(polls.iter().map(|poll| (now + poll.first_after, poll)).collect())
    }

    fn next(&self) -> Option<Instant> {
        self.0.iter().map(|(due, _)| *due).min()
    }

    /// What is to be asked now. What was not asked in time is not made up for.
    fn due(&mut self, now: Instant) -> Vec<&'a [u8]> {
        let mut commands = Vec::new();
        for (due, poll) in self.0.iter_mut().filter(|(due, _)| *due <= now) {
            commands.push(&*poll.command);
            *due = (*due + poll.interval).max(now);
        }
        commands
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_are_spread_and_not_made_up_for() {
        let second = Duration::from_secs(1);
        let poll = |command: &[u8], first_after| Poll { command: command.to_vec(), interval: second, first_after };
        let polls = [poll(b"a", Duration::ZERO), poll(b"b", second / 2)];
        let start = Instant::now();
        let mut questions = Questions::new(&polls, start);
        assert_eq!((questions.next(), questions.due(start)), (Some(start), vec![&b"a"[..]]));
        assert_eq!((questions.next(), questions.due(start)), (Some(start + second / 2), vec![]));
        // Held up for a minute.
        let late = start + 60 * second;
        assert_eq!(questions.due(late), [&b"a"[..], b"b"]);
        assert_eq!(questions.due(late), [&b"a"[..], b"b"], "due again at once, and once only");
    }
}
