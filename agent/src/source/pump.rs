//! What all sources do that hear a stream of bytes: read, cut into frames, put them into an [`Intake`], and read nothing more
//! while that has no room.

use std::{io, time::Duration};

use forebay_log_store::Error;
use serde::de::DeserializeOwned;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _},
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;
use toml::Table;

use super::{Intake, SourceContext};
use crate::{
    config::{Problems, reader},
    framing::{self, Framer, Framing},
    ingest::Fields,
};

/// What one read brings at most.
const READ_BYTES_MAX: usize = 64 * 1024;

/// One stream after another, on its way to the log. Records keep their order.
pub(super) struct Pump {
    context: SourceContext,
    framer: Framer,
    intake: Intake,
    buffer: Vec<u8>,
    /// Whether the framer has nothing to give until more comes.
    starved: bool,
}

/// Why nothing more is read.
#[derive(Debug)]
pub(super) enum End {
    /// The stream ended in good order.
    Whole,
    /// It broke off.
    Broken(io::Error),
    /// Nothing came for as long as was to be waited.
    Silent,
    /// It was asked to stop.
    Stopped,
}

impl Pump {
    pub(super) fn new(context: &SourceContext, framing: &Framing) -> Self {
        Self {
            framer: framing.framer(),
            intake: Intake::new(context),
            buffer: Vec::new(),
            starved: true,
            context: context.clone(),
        }
    }

    /// Reads until the stream ends, breaks, or is silent for `silence_max`, or until `stop` is cancelled. What was read may not be
    /// stored yet. `named` is what is known of the stream's records.
    ///
    /// # Errors
    /// The log is gone.
    pub(super) async fn read(
        &mut self,
        stream: &mut (impl AsyncRead + Unpin),
        named: &[(&'static str, &str)],
        silence_max: Option<Duration>,
        stop: &CancellationToken,
    ) -> Result<End, Error> {
        self.buffer.resize(READ_BYTES_MAX, 0);
        let mut heard = Instant::now();
        let end = loop {
            self.take(named);
            let listens = self.starved && self.intake.has_room();
            if !listens {
                // It may well be talking.
                heard = Instant::now();
            }
            let gap = self.framer.gap();
            let alarm = [gap, silence_max].into_iter().flatten().min().filter(|_| listens).map(|quiet| heard + quiet);
            tokio::select! {
                biased;
                () = stop.cancelled() => break End::Stopped,
                progress = self.intake.progress(), if !self.intake.is_idle() => {
                    progress?;
                }
                read = stream.read(&mut self.buffer), if listens => match read {
                    Ok(0) => break End::Whole,
                    Ok(bytes) => {
                        heard = Instant::now();
                        self.framer.push(&self.buffer[..bytes]);
                    }
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => break End::Broken(error),
                },
                () = sleep_until(alarm.unwrap_or(heard)), if alarm.is_some() => {
                    if gap.is_some_and(|gap| heard.elapsed() >= gap) {
                        self.framer.on_silence();
                    }
                    if silence_max.is_some_and(|most| heard.elapsed() >= most) {
                        break End::Silent;
                    }
                }
            }
        };
        match end {
            End::Whole => self.framer.on_end(),
            End::Broken(_) | End::Silent | End::Stopped => self.framer.on_break(),
        }
        // Connections that lie idle at their end keep no memory.
        self.buffer = Vec::new();
        self.take(named);
        Ok(end)
    }

    /// Waits until everything that was read is stored, but when the source is stopped not for long. Records that a stream's end
    /// left are `named` so.
    ///
    /// # Errors
    /// The log is gone.
    pub(super) async fn settle(&mut self, named: &[(&'static str, &str)]) -> Result<(), Error> {
        let stop = self.context.stop.clone();
        loop {
            self.take(named);
            if self.starved && self.intake.is_idle() {
                return Ok(());
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                progress = self.intake.progress() => {
                    progress?;
                }
            }
        }
    }

    /// Stores what was read, as far as that is possible within the time that a stop has, and ends.
    pub(super) async fn finish(mut self, named: &[(&'static str, &str)]) {
        while !self.starved {
            self.take_frames(named, |_| true);
        }
        self.intake.finish().await;
    }

    /// Takes what the framer has, as long as there is room.
    fn take(&mut self, named: &[(&'static str, &str)]) {
        self.take_frames(named, Intake::has_room);
    }

    fn take_frames(&mut self, named: &[(&'static str, &str)], room: impl Fn(&Intake) -> bool) {
        let Self { context, framer, intake, starved, .. } = self;
        while room(intake) {
            let frame = framer.next(|bad| context.bad_frame(bad, named));
            *starved = frame.is_none();
            match frame {
                Some(payload) => intake.add(&Fields { source: &context.name, named, payload, byte: None }, &[]),
                None => return,
            }
        }
        *starved = false;
    }
}

/// Reads the keys of a type of source whose stream is cut into frames: those of framing, and its own.
pub(super) fn read_framed<C: DeserializeOwned>(
    mut table: Table,
    path: &str,
    elsewhere: &[&str],
    problems: &mut Problems,
) -> (Option<framing::Config>, Option<C>) {
    let framing = reader::read(reader::split_off::<framing::Config>(&mut table), path, &[], problems);
    let elsewhere: Vec<_> = elsewhere.iter().chain(reader::keys_of::<framing::Config>()).copied().collect();
    (framing, reader::read(table, path, &elsewhere, problems))
}
