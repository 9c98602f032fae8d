//! The `mqtt` source: a client of any MQTT 3.1.1 or 5 broker, with a persistent session.
//!
//! A message is acknowledged after its record is durable, in the order the messages came. What was not acknowledged the
//! broker delivers again after a reconnect, so that nothing is lost and order is kept; some of it may be stored twice.
//! Of several brokers one is connected to at a time, each with a session of its own.
//! rumqttc gives the packets; its event loop is not used, see docs/decisions/0005-mqtt-client-session.md. It never
//! publishes.

mod brokers;
mod config;
mod connection;
mod handshake;
mod keep_alive;
mod load;
mod packet;
mod properties;
mod reader;
#[cfg(test)]
mod scripted;
mod session;
mod subscriptions;

use std::{
    sync::atomic::Ordering::Relaxed,
    time::{Duration, Instant},
};

use brokers::Turns;
use config::Broker;
pub use config::{Config, Settings};
use connection::Connection;
use packet::Acceptance;
#[cfg(any(test, fuzzing))]
pub use reader::fuzz;
use session::Session;
use tracing::{debug, info, warn};

use super::{
    BoxFuture, Source, SourceContext, Type, kind,
    reconnect::{Reconnect, STABLE, Trouble},
};
use crate::config::reader::keys_of;

/// The row in the table of types.
pub(super) const TYPE: Type = Type {
    name: "mqtt",
    takes: "topics of a broker, or of several in turn: MQTT 3.1.1 and 5, TLS, client certificate, password; persistent session",
    acknowledged: "PUBACK or PUBREC after the commit",
    // Devices are told apart by their topics nearly everywhere.
    partition_key: "{topic}",
    placeholders: &["topic", "client-id"],
    keys: keys_of::<Config>,
    read: kind::read::<Config>,
};

impl super::Settings for Settings {
    fn describe(&self) -> String {
        format!("mqtt client of {}", self.broker())
    }

    fn bind(&self) -> BoxFuture<'_, anyhow::Result<Box<dyn Source>>> {
        kind::at_once(self, run)
    }
}

/// A connection that ended sooner was a short one.
const SHORT: Duration = Duration::from_secs(5);

/// Two clients with one id throw each other out in turns, and nothing in MQTT 3.1.1 says so. After this many short
/// connections in a row it is worth a thought.
const SHORT_IN_A_ROW: u32 = 3;

/// Why there is no connection (any more).
struct Failure {
    trouble: Trouble,
    error: anyhow::Error,
}

impl Failure {
    fn passing(error: anyhow::Error) -> Self {
        Self { trouble: Trouble::Passing, error }
    }

    fn refused(error: anyhow::Error) -> Self {
        Self { trouble: Trouble::Refused, error }
    }
}

/// A broker, and what there is between it and us.
struct Partner<'a> {
    broker: &'a Broker,
    session: Session,
    /// The trouble that was told last.
    told: String,
}

/// Runs the source until it is stopped. Trouble with the broker or the log never ends it.
///
/// # Errors
/// None at present.
pub async fn run(settings: Settings, context: SourceContext) -> anyhow::Result<()> {
    let partner = |broker| Partner { broker, session: Session::default(), told: String::new() };
    let mut partners: Vec<_> = settings.brokers.iter().map(partner).collect();
    let mut turns = Turns::new(partners.len());
    let mut reconnect = Reconnect::new(settings.max_backoff);
    let mut short_connections = 0;
    // Of those that failed since the last pause. One that cannot be reached may be there again soon.
    let mut trouble = Trouble::Refused;
    loop {
        let partner = &mut partners[turns.at()];
        let begun = Instant::now();
        let mut lived = Duration::ZERO;
        let connected = tokio::select! {
            connected = handshake::connect(&settings, partner.broker, context.max_record) => connected,
            () = context.stop.cancelled() => return Ok(()),
        };
        let outcome = match connected {
            Ok(accepted) => {
                on_connected(&settings, &context, partner, accepted.terms);
                let connection = Connection::new(accepted, &settings, partner.broker, &context, &mut partner.session);
                let outcome = connection.run().await;
                context.stats.connections.store(0, Relaxed);
                lived = begun.elapsed();
                short_connections = if lived < SHORT { short_connections + 1 } else { 0 };
                outcome
            }
            Err(failure) => Err(failure),
        };
        let Err(mut failure) = outcome else { return Ok(()) };
        if context.stop.is_cancelled() {
            return Ok(());
        }
        if short_connections >= SHORT_IN_A_ROW {
            failure.error = failure.error.context("connections end at once; is client-id used elsewhere?");
        }
        if failure.trouble == Trouble::Passing {
            trouble = Trouble::Passing;
        }
        let mut pause = Duration::ZERO;
        if turns.failed(lived >= STABLE) {
            pause = reconnect.pause(trouble, lived, fastrand::f64());
            trouble = Trouble::Refused;
        }
        tell(&context, partner, &failure, pause);
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = context.stop.cancelled() => return Ok(()),
        }
    }
}

fn on_connected(settings: &Settings, context: &SourceContext, partner: &mut Partner<'_>, terms: Acceptance) {
    let (source, broker, session_present) = (&*context.name, partner.broker, terms.session_present);
    context.stats.connections.store(1, Relaxed);
    partner.told.clear();
    info!(source, %broker, client_id = settings.client_id, session_present, "connected to broker");
    if partner.session.on_connected(session_present) {
        context.stats.refused("session-forgotten");
        let message = "the broker has forgotten our session; what was published meanwhile is lost";
        context.stats.failed(message);
        warn!(source, %broker, "{message}");
    }
    if let Some(granted) = terms.session_expiry
        && settings.session_expiry.is_none_or(|asked| granted < asked)
    {
        warn!(source, %broker, ?granted, "broker keeps our session for less time than it was asked to");
    }
}

/// The same trouble again and again is told once.
fn tell(context: &SourceContext, partner: &mut Partner<'_>, failure: &Failure, pause: Duration) {
    let error = format!("{:#}", failure.error);
    context.stats.failed(&*error);
    if partner.told == error {
        debug!(source = &*context.name, error, ?pause, "still no connection");
    } else {
        warn!(source = &*context.name, error, ?pause, "no connection");
        partner.told = error;
    }
}
