//! One connection: reads messages, has them stored, acknowledges what is durable, in order.
//!
//! Nothing of it outlives it but the [`Session`]: acknowledgements that were not sent are forgotten with the connection,
//! and the broker delivers those messages again. It publishes nothing, so no packet identifier of ours can collide. It
//! never reads more than it may have in flight; the broker is held back by its own window or by TCP, and pinged meanwhile.

use std::time::{Duration, Instant};

use anyhow::anyhow;
use bytes::{Buf as _, BytesMut};
use rumqttc::mqttbytes::QoS;
use tokio::{
    io::{AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadHalf, WriteHalf},
    time::{sleep_until, timeout},
};
use tracing::{error, warn};

use super::{
    Failure,
    config::{Broker, Settings},
    handshake::{Accepted, Stream},
    keep_alive::{KeepAlive, Step},
    load::{Load, Taken},
    packet::{self, Ack, Control},
    reader::{Incoming, Reader},
    session::Session,
    subscriptions::Subscriptions,
};
use crate::source::{
    SourceContext,
    commits::{Commits, Progress},
};

/// Encoded bytes that may be on their way to the disk: what the log's own queue holds by default.
const IN_FLIGHT_BYTES_MAX: usize = 4 * 1024 * 1024;

/// How long we wait for commits in flight before we leave. A full stream can take for ever, and what is not acknowledged
/// is delivered again.
/// Less than the share that sources have of the default grace period.
const LEAVING_PATIENCE: Duration = Duration::from_secs(2);

/// How long we wait for the broker to take the last acknowledgements.
const FAREWELL_PATIENCE: Duration = Duration::from_secs(1);

/// An open connection.
pub(super) struct Connection<'a> {
    settings: &'a Settings,
    broker: &'a Broker,
    context: &'a SourceContext,
    session: &'a mut Session,
    read: ReadHalf<Box<dyn Stream>>,
    write: WriteHalf<Box<dyn Stream>>,
    reader: Reader,
    out: BytesMut,
    /// Written, but perhaps kept back by TLS.
    unflushed: bool,
    load: Load,
    commits: Commits<Taken>,
    /// Messages that are on their way to the disk.
    in_flight: usize,
    alive: KeepAlive,
    /// A load was not stored, so that nothing that came after it may be.
    store_failed: bool,
    subscriptions: Subscriptions,
    /// When to ask again for what was refused.
    ask_again: Option<Instant>,
}

impl<'a> Connection<'a> {
    pub(super) fn new(
        accepted: Accepted,
        settings: &'a Settings,
        broker: &'a Broker,
        context: &'a SourceContext,
        session: &'a mut Session,
    ) -> Self {
        let now = Instant::now();
        let (read, write) = tokio::io::split(accepted.stream);
        Self {
            settings,
            broker,
            context,
            session,
            read,
            write,
            reader: accepted.reader,
            out: BytesMut::new(),
            unflushed: false,
            load: Load::new(context.ingest.batch()),
            commits: Commits::new(context.ingest.for_connection()),
            in_flight: 0,
            alive: KeepAlive::new(accepted.terms.keep_alive.unwrap_or(settings.keep_alive), now),
            store_failed: false,
            subscriptions: Subscriptions::new(accepted.terms.packet_bytes_max),
            ask_again: None,
        }
    }

    /// Runs until the connection fails, or until the source was stopped and everything taken is settled.
    ///
    /// Afterwards nothing is on its way to the disk any more, unless a stop lost patience.
    pub(super) async fn run(mut self) -> Result<(), Failure> {
        let outcome = self.serve().await;
        if outcome.is_err() {
            self.settle().await;
        }
        outcome
    }

    async fn serve(&mut self) -> Result<(), Failure> {
        if self.session.must_subscribe() {
            self.subscriptions.want(&self.settings.topics);
            self.subscribe();
        }
        let mut leaving: Option<Leaving> = None;
        loop {
            if leaving.is_none()
                && let Err(failure) = self.decode()
            {
                // What came before is to be acknowledged all the same, or it would be stored again with every attempt.
                leaving = Some(Leaving::because(Err(failure)));
            }
            self.offer();
            if self.load.is_empty()
                && self.commits.is_idle()
                && let Some(leaving) = leaving.take()
            {
                self.farewell().await;
                return leaving.outcome;
            }

            let now = Instant::now();
            let reading = leaving.is_none() && self.has_room();
            self.alive.listen(reading, now);
            let unsent = !self.out.is_empty() || self.unflushed;
            let mut wake = match self.alive.step(unsent, now) {
                Step::Wait(until) => until,
                Step::Ping => {
                    packet::write_ping(&mut self.out);
                    continue;
                }
                Step::GiveUp(silence) => {
                    return Err(Failure::passing(anyhow!("nothing moved on the connection for {silence:?}")));
                }
            };
            if let Some(at) = self.ask_again.into_iter().chain(leaving.as_ref().map(|leaving| leaving.latest)).min() {
                wake = wake.min(at);
            }

            tokio::select! {
                biased;
                () = self.context.stop.cancelled(), if leaving.is_none() => leaving = Some(Leaving::because(Ok(()))),
                progress = self.commits.progress() => self.on_progress(progress)?,
                sent = send(&mut self.write, &mut self.out), if unsent => {
                    self.unflushed = sent.map_err(|error| self.broken(error))? == Sent::Bytes;
                    self.alive.on_sent(Instant::now());
                }
                came = self.read.read_buf(self.reader.room()), if reading => {
                    if came.map_err(|error| self.broken(error))? == 0 {
                        return Err(self.closed());
                    }
                    self.alive.on_heard(Instant::now());
                }
                () = sleep_until(wake.into()) => {
                    let now = Instant::now();
                    if let Some(leaving) = leaving.take_if(|leaving| now >= leaving.latest) {
                        self.farewell().await;
                        return leaving.outcome;
                    }
                    if self.ask_again.is_some_and(|at| now >= at) {
                        self.ask_again = None;
                        self.subscriptions.want_refused();
                        self.subscribe();
                    }
                }
            }
        }
    }

    fn has_room(&self) -> bool {
        let messages = self.in_flight + self.load.taken.messages;
        let bytes = self.commits.bytes() + self.load.taken.bytes;
        !self.load.is_full() && messages < self.settings.max_in_flight && bytes < IN_FLIGHT_BYTES_MAX
    }

    /// Takes what has been read, as far as there is room.
    fn decode(&mut self) -> Result<(), Failure> {
        while self.has_room() {
            match self.reader.next().map_err(|error| Failure::passing(error.into()))? {
                None => break,
                Some(Incoming::Publish(publish)) => {
                    self.load.add(&publish, &self.settings.client_id, self.session, self.context);
                }
                Some(Incoming::Other(packet)) => self.on_packet(packet)?,
            }
        }
        Ok(())
    }

    fn on_packet(&mut self, packet: Control) -> Result<(), Failure> {
        match packet {
            Control::Pong => {}
            Control::Release(packet_id) => {
                self.session.on_release(packet_id);
                // Also for one that we do not know, or the broker would send it again with every connection.
                packet::write_complete(packet_id, &mut self.out);
            }
            Control::Subscribed(answers) if self.subscriptions.is_answered_by(&answers) => {
                for (topic, granted) in self.subscriptions.on_answer(answers) {
                    self.on_granted(&topic, granted);
                }
                self.subscribe();
            }
            Control::Goodbye { trouble, reason } => {
                return Err(Failure { trouble, error: anyhow!("{} ends the connection: {reason}", self.broker) });
            }
            Control::Subscribed(_) | Control::Answer(_) | Control::Unexpected(_) => {
                return Err(Failure::passing(anyhow!("the broker sent what we did not ask for: {packet:?}")));
            }
        }
        Ok(())
    }

    /// Asks for what is still to be asked for, or settles what was answered.
    fn subscribe(&mut self) {
        if let Some(topics) = self.subscriptions.ask() {
            packet::write_subscribe(self.settings.version, topics, self.settings.qos, &mut self.out);
            return;
        }
        let refused = self.subscriptions.refused();
        if refused.is_empty() {
            self.session.on_subscribed();
            return;
        }
        let message = format!("{} refuses the subscription of {refused}", self.broker);
        if self.context.stats.refused("subscription") {
            error!(source = &*self.context.name, "{message}");
        }
        self.context.stats.failed(message);
        self.ask_again = Some(Instant::now() + self.settings.max_backoff);
    }

    fn on_granted(&self, topic: &str, granted: QoS) {
        if granted < self.settings.qos {
            let [asked, granted] = [self.settings.qos, granted].map(|qos| qos as u8);
            warn!(source = &*self.context.name, topic, asked, granted, "broker grants a lower quality of service");
        }
    }

    fn offer(&mut self) {
        if self.commits.may_offer() && !self.load.is_empty() {
            let (batch, taken) = self.load.take(self.context.ingest.batch());
            self.in_flight += taken.messages;
            self.commits.offer(batch, taken);
        }
    }

    fn on_progress(&mut self, progress: Progress<Taken>) -> Result<(), Failure> {
        match progress {
            Progress::Offered => Ok(()),
            Progress::Durable { with: taken, records, payload_bytes } => {
                self.in_flight -= taken.messages;
                self.context.stats.stored(records, payload_bytes);
                for ack in taken.acks {
                    self.on_stored(ack);
                    packet::write_ack(ack, &mut self.out);
                }
                Ok(())
            }
            Progress::Failed { with: taken, error, .. } => {
                self.in_flight -= taken.messages;
                self.store_failed = true;
                self.context.shaping.forget();
                self.not_stored(taken.unrepeatable);
                Err(Failure::passing(anyhow::Error::new(error).context("store what came")))
            }
        }
    }

    fn on_stored(&mut self, ack: Ack) {
        if let Ack::ReceivedOnce(packet_id) = ack {
            self.session.on_stored(packet_id);
        }
    }

    fn not_stored(&self, unrepeatable: usize) {
        for _ in 0..unrepeatable {
            self.context.stats.refused("not-stored");
        }
    }

    /// Waits for what is on its way to the disk, without acknowledging: it is another connection that would have to.
    ///
    /// Before that no new connection is made, or a full stream and a bad link together would pile up copies.
    async fn settle(&mut self) {
        loop {
            if self.store_failed {
                let (_, taken) = self.load.take(self.context.ingest.batch());
                self.not_stored(taken.unrepeatable);
            }
            self.offer();
            if self.commits.is_idle() {
                break;
            }
            let progress = tokio::select! {
                progress = self.commits.progress() => progress,
                () = self.context.stop.cancelled() => return,
            };
            match progress {
                Progress::Offered => {}
                Progress::Durable { with: taken, records, payload_bytes } => {
                    self.in_flight -= taken.messages;
                    self.context.stats.stored(records, payload_bytes);
                    taken.acks.into_iter().for_each(|ack| self.on_stored(ack));
                }
                Progress::Failed { with: taken, .. } => {
                    self.in_flight -= taken.messages;
                    self.store_failed = true;
                    self.context.shaping.forget();
                    self.not_stored(taken.unrepeatable);
                }
            }
        }
        self.session.on_settled();
    }

    /// Sends what is left to send, and takes leave. If the broker does not take it, it delivers again: no harm.
    async fn farewell(&mut self) {
        packet::write_goodbye(&mut self.out);
        let last = async {
            self.write.write_all_buf(&mut self.out).await?;
            self.write.shutdown().await
        };
        let _ = timeout(FAREWELL_PATIENCE, last).await;
    }

    fn broken(&self, error: std::io::Error) -> Failure {
        Failure::passing(anyhow::Error::new(error).context(format!("connection to {}", self.broker)))
    }

    fn closed(&self) -> Failure {
        Failure::passing(anyhow!("{} closed the connection", self.broker))
    }
}

/// Nothing more is read; what was taken is acknowledged if it is durable in time.
struct Leaving {
    outcome: Result<(), Failure>,
    latest: Instant,
}

impl Leaving {
    fn because(outcome: Result<(), Failure>) -> Self {
        Self { outcome, latest: Instant::now() + LEAVING_PATIENCE }
    }
}

#[derive(PartialEq, Eq)]
enum Sent {
    Bytes,
    Flush,
}

/// Cancel safe: bytes leave `out` as they are taken.
async fn send(write: &mut (impl AsyncWrite + Unpin), out: &mut BytesMut) -> std::io::Result<Sent> {
    if out.has_remaining() {
        write.write_buf(out).await?;
        Ok(Sent::Bytes)
    } else {
        write.flush().await?;
        Ok(Sent::Flush)
    }
}
