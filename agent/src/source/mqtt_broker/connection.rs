//! One client's connection: the loop around its protocol, and what happens at its end.
//!
//! Everything that one read brought goes to the log as one batch; several batches may be on their way to the disk. While
//! ingest has no room, or too much is on its way, nothing is read: that is the back-pressure. Whatever ends the connection,
//! what was taken is brought to the log, and only then the client id is given back: a client that comes again finds its
//! session as it left it, and its records in order.

use std::{convert::Infallible, io, pin::pin, sync::Arc, time::Duration};

use bytes::BytesMut;
use rmqtt_codec::v5::DisconnectReasonCode as Reason;
use tokio::time::{Instant, sleep};

use super::{
    connect::Will,
    goodbye::{Goodbye, Violation},
    listener::Shared,
    pace::Pace,
    passage::Passage,
    protocol::{Protocol, Sink},
    recorder::Recorder,
    registry::Lease,
    rules::Allowed,
    wire::{Input, Wire},
};

/// Answers that a client has not read before we read nothing more from it.
const UNREAD_BYTES_MAX: usize = 64 * 1024;

/// How long a stop, or a goodbye that comes behind acknowledgements, waits for the log. Never twice in a row once the agent
/// stops: it is less than the share that sources have of the default grace period, and the double is not.
const LOG_PATIENCE: Duration = Duration::from_millis(1500);

/// A client that was let in.
pub(super) struct Connection {
    pub(super) shared: Arc<Shared>,
    pub(super) client_id: Arc<str>,
    /// Whom it has proved to be.
    pub(super) user: Option<Arc<str>>,
    pub(super) allowed: Allowed,
    pub(super) protocol: Protocol,
    pub(super) silence_max: Option<Duration>,
    pub(super) will: Option<Will>,
    pub(super) session_expiry_secs: u32,
    pub(super) lease: Lease,
}

impl Connection {
    /// Serves the client until something ends the connection, and everything that it sent has found its end.
    pub(super) async fn serve(mut self, mut wire: Wire) {
        let recorder = Recorder::new(
            Arc::clone(&self.shared),
            Arc::clone(&self.client_id),
            self.user.clone(),
            self.allowed.clone(),
        );
        let mut passage = Passage::new(Arc::clone(&self.shared), recorder);
        let Err(goodbye) = self.exchange(&mut wire, &mut passage).await;
        self.shared.told_goodbye(&self.client_id, &goodbye);
        self.part(wire, &mut passage, &goodbye).await;
        if goodbye.publishes_will()
            && let Some(will) = self.will.take()
        {
            self.publish(will, &mut passage).await;
        }
        let unreleased = self.protocol.session.into_unreleased();
        let forgotten = self.lease.release(unreleased, self.session_expiry_secs, std::time::Instant::now());
        if forgotten > 0 {
            let detail = format_args!("forgot {forgotten} QoS 2 packet ids of the oldest sessions");
            self.shared.count("qos2-forgotten", &self.client_id, detail);
        }
    }

    /// Never ends but with a goodbye.
    async fn exchange(&mut self, wire: &mut Wire, passage: &mut Passage) -> Result<Infallible, Goodbye> {
        let Self { shared, protocol, lease, silence_max, .. } = self;
        let mut stop = pin!(shared.context.stop.cancelled());
        let mut taken_over = pin!(lease.taken_over.cancelled());
        let mut heard = Instant::now();
        // Without a keep-alive nobody listens to the alarm.
        let mut alarm = pin!(sleep(silence_max.unwrap_or_default()));

        let mut listening = true;
        let begun = Instant::now();
        let mut pace = shared.settings.client_rate_limit.map(Pace::new);
        // Without a rate limit, or within it, nobody waits for it.
        let mut paid = pin!(sleep(Duration::ZERO));

        // What came together with CONNECT.
        take_in(protocol, &mut wire.input, &mut wire.out, passage)?;
        loop {
            if let Err(error) = wire.write_now() {
                return Err(Goodbye::Gone(Some(error)));
            }
            let owes = pace.as_mut().and_then(|pace| pace.wait(begun.elapsed()));
            if let Some(wait) = owes {
                paid.as_mut().reset(Instant::now() + wait);
            }
            let listened = std::mem::replace(&mut listening, !passage.is_full() && owes.is_none());
            if !listening || !listened {
                // The client may well be talking, or have talked.
                heard = Instant::now();
            }
            let left = !wire.out.is_empty();
            let heard_out = wire.unwritten() < UNREAD_BYTES_MAX;
            tokio::select! {
                biased;
                () = &mut stop => return Err(Goodbye::Stopping),
                () = &mut taken_over => return Err(Goodbye::TakenOver),
                progress = passage.progress(&mut protocol.session, &mut wire.out), if passage.is_busy() => {
                    if let Err(error) = progress {
                        return Err(Goodbye::NotStored(error.to_string()));
                    }
                }
                written = wire.output.progress(), if wire.output.is_busy() || left => {
                    if let Err(error) = written {
                        return Err(Goodbye::Gone(Some(error)));
                    }
                }
                read = wire.input.read(), if listening && heard_out => {
                    let bytes = read.map_err(gone)?;
                    heard = Instant::now();
                    let before = protocol.packets;
                    take_in(protocol, &mut wire.input, &mut wire.out, passage)?;
                    if let Some(pace) = &mut pace {
                        pace.on_read(protocol.packets.wrapping_sub(before), bytes as u64);
                    }
                }
                () = &mut paid, if owes.is_some() => {}
                () = &mut alarm, if silence_max.is_some() => {
                    let silent_at = heard + silence_max.unwrap_or_default();
                    if listening && silent_at <= Instant::now() {
                        return Err(Goodbye::Silent);
                    }
                    // Whom we do not listen to is silent to nobody.
                    alarm.as_mut().reset(if listening { silent_at } else { Instant::now() + silence_max.unwrap_or_default() });
                }
            }
        }
    }

    /// Says goodbye, and brings what was taken to the log.
    async fn part(&mut self, mut wire: Wire, passage: &mut Passage, goodbye: &Goodbye) {
        let stopping = matches!(goodbye, Goodbye::Stopping);
        if goodbye.awaits_acknowledgements() {
            tokio::select! {
                biased;
                finished = passage.finish(&mut self.protocol.session, &mut wire.out) => {
                    if let Err(error) = finished {
                        self.shared.told_goodbye(&self.client_id, &Goodbye::NotStored(error.to_string()));
                    }
                }
                () = self.shared.context.stop.cancelled(), if !stopping => {}
                () = sleep(LOG_PATIENCE) => {}
            }
        }
        if let Some(reason) = goodbye.reason() {
            self.protocol.codec.write_disconnect(reason, goodbye.explanation(), &mut wire.out);
        }
        let close = async {
            if !matches!(goodbye, Goodbye::Gone(_)) {
                wire.close().await;
            }
        };
        // A stop has waited by now.
        let patience = if stopping { Duration::ZERO } else { LOG_PATIENCE };
        tokio::join!(close, self.finish(passage, patience));
    }

    /// Waits for the outcomes of all that is on its way, but once the agent stops only for this long.
    async fn finish(&mut self, passage: &mut Passage, patience: Duration) {
        let stopped = async {
            self.shared.context.stop.cancelled().await;
            sleep(patience).await;
        };
        let mut nobody = BytesMut::new();
        tokio::select! {
            biased;
            finished = passage.finish(&mut self.protocol.session, &mut nobody) => {
                if let Err(error) = finished {
                    self.shared.told_goodbye(&self.client_id, &Goodbye::NotStored(error.to_string()));
                }
                return;
            }
            () = stopped => {}
        }
        let detail = format_args!("stopped while {} of its messages were not stored yet", passage.records());
        self.shared.count("stopped", &self.client_id, detail);
    }

    /// Publishes the client's will, unless it comes back before its delay is over.
    async fn publish(&mut self, will: Will, passage: &mut Passage) {
        if will.delay_secs > 0 && self.session_expiry_secs > 0 {
            // The end of the session ends the delay, too.
            let delay = Duration::from_secs(will.delay_secs.min(self.session_expiry_secs).into());
            tokio::select! {
                biased;
                () = self.lease.taken_over.cancelled() => return,
                () = self.shared.context.stop.cancelled() => return,
                () = sleep(delay) => {}
            }
        }
        if let Err(violation) = passage.recorder.store(&will.topic, &will.payload, &will.tags) {
            self.shared.count(violation.count, &self.client_id, format_args!("its will: {}", violation.message));
        }
        if !passage.is_busy() {
            passage.send(&mut self.protocol.session, &mut BytesMut::new());
            self.finish(passage, LOG_PATIENCE).await;
        }
    }
}

/// Takes in what was read: records go off to the log, answers to `out`.
fn take_in(
    protocol: &mut Protocol,
    input: &mut Input,
    out: &mut BytesMut,
    passage: &mut Passage,
) -> Result<(), Goodbye> {
    let taken = protocol.advance(&mut input.buffer, out, &mut passage.recorder);
    input.let_go();
    // Also before a goodbye: what came before it counts.
    passage.send(&mut protocol.session, out);
    taken
}

/// What a failed read means.
fn gone(error: io::Error) -> Goodbye {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => Goodbye::Gone(None),
        // Of TLS or WebSocket: the client speaks neither right.
        io::ErrorKind::InvalidData => {
            Goodbye::Violation(Violation::new(Reason::MalformedPacket, "malformed", error.to_string()))
        }
        _ => Goodbye::Gone(Some(error)),
    }
}
