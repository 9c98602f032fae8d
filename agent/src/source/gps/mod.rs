//! The `gps` source: positions of a GPS receiver as records, and its time for the log.
//!
//! Receivers speak NMEA 0183, over a serial line, TCP or UDP, or through gpsd. What they say of one epoch becomes one fix; the dead band decides
//! which fixes become records; that the fix is lost, and geofences entered and left, are records too. Receivers repeat nothing:
//! while the log takes nothing, positions beyond what waits are dropped and counted as `"no-room"`.
//!
//! A receiver that cannot be reached, falls silent or says nothing understandable is connected to anew, for ever.

mod config;
mod epoch;
mod fix;
mod geofence;
mod gpsd;
mod lines;
mod link;
mod nmea;
mod offers;
mod tracker;
mod words;

use std::{
    future::Future,
    sync::atomic::Ordering::Relaxed,
    time::{Duration, Instant},
};

use anyhow::{Context as _, anyhow};
pub use config::{Config, Settings};
use fix::{Fix, Occasion};
use forebay_log_store::Timestamp;
use lines::Lines;
use link::{Came, Failure, Link};
use offers::{Offers, PLAUSIBLE};
use tokio::time::sleep_until;
use tracing::{info, warn};
use tracker::{Notice, Tracker};
use words::Words;

use self::config::Receiver;
use super::{BoxFuture, Intake, Source, SourceContext, Type, kind, retry::Retry};
use crate::{config::reader::keys_of, ingest::Fields};

/// The row in the table of types.
pub(super) const TYPE: Type = Type {
    name: "gps",
    takes: "positions: NMEA 0183 over a serial line, TCP or UDP, or gpsd; dead band, geofences, JSON or GeoJSON; tells the log the time",
    acknowledged: "never: receivers repeat nothing",
    // One vehicle is one source.
    partition_key: "{source}",
    placeholders: &["device", "host"],
    keys: keys_of::<Config>,
    read: kind::read::<Config>,
};

/// Silence after which an epoch is over. At 4800 bits per second its sentences follow each other at once, and the next epoch begins after a
/// second, or it says another time.
const EPOCH_QUIET: Duration = Duration::from_millis(300);

/// The largest datagram.
const BUFFER_BYTES: usize = 64 * 1024;

impl super::Settings for Settings {
    fn describe(&self) -> String {
        format!("gps receiver at {}", self.receiver)
    }

    fn bind(&self) -> BoxFuture<'_, anyhow::Result<Box<dyn Source>>> {
        // An address for datagrams that is taken is asked for again, as all that cannot be had now.
        kind::at_once(self, run)
    }
}

async fn run(settings: Settings, context: SourceContext) -> anyhow::Result<()> {
    let mut listener = Listener::new(settings, context);
    let outcome = listener.run().await;
    listener.intake.finish().await;
    outcome
}

/// What lasts over all connections.
struct Listener {
    settings: Settings,
    context: SourceContext,
    intake: Intake,
    tracker: Tracker,
    offers: Offers,
    /// What monotonic times are counted from.
    began: Instant,
    /// What went wrong since it was last understood.
    retry: Retry,
    /// Who said it, for the partition key.
    device: String,
    host: String,
}

/// How a connection ended.
enum Ended {
    Stopped,
    Failed(Failure),
    /// The log takes nothing any more.
    LogGone(anyhow::Error),
}

impl From<Failure> for Ended {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl Listener {
    fn new(settings: Settings, context: SourceContext) -> Self {
        let host = match &settings.receiver {
            Receiver::Tcp { host, .. } | Receiver::Gpsd { host, .. } => host.clone(),
            Receiver::Serial(_) | Receiver::Udp(_) => String::new(),
        };
        Self {
            intake: Intake::new(&context),
            tracker: Tracker::new(settings.dead_band.clone(), settings.geofences.clone()),
            offers: Offers::default(),
            began: Instant::now(),
            retry: Retry::new(settings.max_backoff),
            device: settings.receiver.to_string(),
            host,
            settings,
            context,
        }
    }

    /// Runs until it is stopped, or the log is gone.
    async fn run(&mut self) -> anyhow::Result<()> {
        let mut bound = None;
        loop {
            let ended = match self.connect(bound.take()).await {
                Ok(mut link) => {
                    self.context.stats.connections.store(1, Relaxed);
                    info!(source = &*self.context.name, receiver = %self.settings.receiver, "receiver is open");
                    let ended = self.listen(&mut link).await;
                    self.context.stats.connections.store(0, Relaxed);
                    if matches!(link, Link::Udp(_)) {
                        // Nothing was wrong with the socket.
                        bound = Some(link);
                    }
                    ended
                }
                Err(ended) => ended,
            };
            let failure = match ended {
                Ended::Stopped => return Ok(()),
                Ended::LogGone(_) if self.context.stop.is_cancelled() => return Ok(()),
                Ended::LogGone(error) => return Err(error),
                Ended::Failed(failure) => failure,
            };
            self.silent();
            self.context.stats.refused("no-connection");
            let pause = self.retry.failed(&self.context, failure.trouble, &failure.error, tokio::time::Instant::now());
            let pause = if bound.is_some() { Duration::ZERO } else { pause };
            match self.meanwhile(tokio::time::sleep(pause)).await {
                Ok(()) => {}
                Err(Ended::LogGone(error)) if !self.context.stop.is_cancelled() => return Err(error),
                Err(_) => return Ok(()),
            }
        }
    }

    async fn connect(&mut self, bound: Option<Link>) -> Result<Link, Ended> {
        if let Some(link) = bound {
            return Ok(link);
        }
        let receiver = self.settings.receiver.clone();
        Ok(self.meanwhile(Link::open(&receiver)).await??)
    }

    /// Awaits something while the records are brought to the log, unless it is stopped.
    async fn meanwhile<T>(&mut self, future: impl Future<Output = T>) -> Result<T, Ended> {
        let mut future = std::pin::pin!(future);
        loop {
            tokio::select! {
                biased;
                () = self.context.stop.cancelled() => return Err(Ended::Stopped),
                done = &mut future => return Ok(done),
                progress = self.intake.progress() => drop(progress.map_err(log_gone)?),
            }
        }
    }

    async fn listen(&mut self, link: &mut Link) -> Ended {
        match self.hear(link).await {
            Ok(()) => Ended::Stopped,
            Err(ended) => ended,
        }
    }

    async fn hear(&mut self, link: &mut Link) -> Result<(), Ended> {
        let mut words = Words::of(&self.settings.receiver);
        let mut lines = Lines::new(words.longest_line());
        let mut buffer = vec![0; BUFFER_BYTES];
        let mut understood = Instant::now();
        // When the first sentence of the epoch that is under way came, and when the last.
        let mut epoch: Option<(Instant, Instant)> = None;
        loop {
            let given_up = understood + self.settings.timeout;
            let wake = epoch.map_or(given_up, |(_, newest)| newest + EPOCH_QUIET);
            let came = tokio::select! {
                biased;
                () = self.context.stop.cancelled() => return Ok(()),
                progress = self.intake.progress() => {
                    progress.map_err(log_gone)?;
                    continue;
                }
                came = link.read(&mut buffer) => came,
                () = sleep_until(wake.into()) => {
                    if let Some((began, _)) = epoch.take()
                        && let Some((fix, device)) = words.flush()
                    {
                        self.on_fix(fix, device, began).await;
                    } else if Instant::now() >= given_up {
                        return Err(self.nothing_understood().into());
                    }
                    continue;
                }
            };
            let came = came.context("read from the receiver").map_err(Failure::from)?;
            match came {
                Came::Bytes(0) => return Err(Failure::from(anyhow!("the receiver closed the connection")).into()),
                Came::Bytes(bytes) => lines.push(&buffer[..bytes]),
                Came::Datagram(bytes, from) => {
                    self.host = from.to_string();
                    lines.push(&buffer[..bytes]);
                    lines.end();
                }
                Came::Stranger => {
                    self.refused("other-sender", "another sender than the one that is heard");
                    continue;
                }
            }
            let now = Instant::now();
            while let Some(line) = lines.next() {
                let Ok(line) = line else {
                    self.refused("noise", "a line without an end");
                    continue;
                };
                let said = words.take(line);
                for reason in &said.refused {
                    self.refused(reason, said.complaint.as_deref().unwrap_or(&String::from_utf8_lossy(line)));
                }
                if said.understood {
                    understood = now;
                    self.retry.works(now.into());
                }
                let began = if said.fix.is_some() { epoch.take() } else { None };
                if words.is_pending() {
                    epoch = Some((epoch.map_or(now, |(began, _)| began), now));
                }
                if let Some((fix, device)) = said.fix {
                    self.on_fix(fix, device, began.map_or(now, |(began, _)| began)).await;
                }
            }
        }
    }

    /// Makes of a fix what is to be made of it; its first word came at `began`.
    async fn on_fix(&mut self, mut fix: Fix, device: Option<String>, began: Instant) {
        if let Some(device) = device {
            self.device = device;
        }
        if let Some(time) = fix.time.filter(|time| !PLAUSIBLE.contains(time)) {
            self.refused(
                "time-implausible",
                &format!("{time} ms since 1970: perhaps its count of weeks has begun anew"),
            );
            fix.time = None;
        }
        let now = began.saturating_duration_since(self.began);
        match fix.time.filter(|_| fix.position.is_some() && self.settings.offer_time) {
            Some(time) => {
                if self.offers.take(time, now) {
                    self.offer(time, began).await;
                }
            }
            None => self.offers.forget(),
        }
        for notice in self.tracker.on_fix(&fix, now) {
            self.record(&fix, notice);
        }
    }

    /// Says to the log that it was `time` at `at`.
    async fn offer(&mut self, time: u64, at: Instant) {
        let stream = self.context.ingest.stream().clone();
        let offer = move || {
            let passed = u64::try_from(at.elapsed().as_millis()).unwrap_or(u64::MAX);
            stream.offer_time(Timestamp(time.saturating_add(passed)))
        };
        if let Ok(Err(at_least)) = tokio::task::spawn_blocking(offer).await {
            let at_least = crate::log_events::shown(at_least);
            self.refused("time-doubted", &format!("by what was trusted before it is at least {at_least}"));
        }
    }

    fn record(&mut self, fix: &Fix, notice: Notice) {
        if !self.intake.has_room() {
            self.refused("no-room", "the log takes nothing at present");
            return;
        }
        let occasion = match notice {
            Notice::Position => Occasion::Position,
            Notice::FixLost => Occasion::FixLost,
            Notice::Entered(fence) => Occasion::Enter(self.tracker.fence(fence)),
            Notice::Left(fence) => Occasion::Leave(self.tracker.fence(fence)),
        };
        let payload = fix.record(occasion, self.settings.format);
        let named = [("device", self.device.as_str()), ("host", self.host.as_str())];
        // What is not known fills no template.
        let known = if self.host.is_empty() { &named[..1] } else { &named[..] };
        self.intake.add(&Fields { source: &self.context.name, named: known, payload: &payload, byte: None }, &[]);
    }

    /// The receiver is not heard any more.
    fn silent(&mut self) {
        self.offers.forget();
        if self.tracker.on_silence() {
            self.record(&Fix::default(), Notice::FixLost);
        }
    }

    fn nothing_understood(&self) -> Failure {
        let waited = crate::config::duration::show(self.settings.timeout);
        let hint = match self.settings.receiver {
            Receiver::Serial(ref port) => format!("; does it speak at {}?", port.line()),
            Receiver::Gpsd { .. } => "; has gpsd a receiver?".to_owned(),
            Receiver::Tcp { .. } | Receiver::Udp(_) => String::new(),
        };
        anyhow!("nothing understandable came for {waited}{hint}").into()
    }

    /// Counts what was not taken, and tells it once per episode.
    fn refused(&self, reason: &'static str, what: &str) {
        if self.context.stats.refused(reason) {
            let what: String = what.chars().take(200).collect();
            warn!(source = &*self.context.name, reason, what, "not taken from the receiver");
        }
    }
}

fn log_gone(error: forebay_log_store::Error) -> Ended {
    Ended::LogGone(anyhow::Error::new(error).context("store records"))
}

/// Whatever a receiver says, in whatever pieces, troubles nobody. For fuzzing.
pub fn hear_anything(bytes: &[u8]) {
    let gpsd = Receiver::Gpsd { host: String::new(), port: 1, device: None };
    let nmea = Receiver::Tcp { host: String::new(), port: 1 };
    for receiver in [gpsd, nmea] {
        let mut words = Words::of(&receiver);
        let mut lines = Lines::new(words.longest_line());
        for piece in bytes.chunks(100) {
            lines.push(piece);
            while let Some(line) = lines.next() {
                if let Ok(line) = line {
                    let fix = words.take(line).fix;
                    fix.iter().for_each(|(fix, _)| drop(fix.record(Occasion::Position, fix::Format::GeoJson)));
                }
            }
        }
        drop(words.flush());
    }
}
