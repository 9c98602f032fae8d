//! The `mqtt` source: a client of any MQTT 3.1.1 broker, with a persistent session.
//!
//! A message is acknowledged after its record is durable, in the order the messages came. What was not acknowledged the
//! broker delivers again after a reconnect, so that nothing is lost and order is kept; some of it may be stored twice.
//! rumqttc gives the packets; its event loop is not used, see docs/decisions/0005-mqtt-client-session.md. It never
//! publishes.

mod config;
mod connection;
mod handshake;
mod keep_alive;
mod load;
mod reader;
#[cfg(test)]
mod scripted;
mod session;

use std::{
    sync::atomic::Ordering::Relaxed,
    time::{Duration, Instant},
};

pub use config::{Config, Settings};
use connection::Connection;
use session::Session;
use tracing::{debug, info, warn};

use super::{
    BoxFuture, Source, SourceContext, Type, kind,
    reconnect::{Reconnect, Trouble},
};
use crate::config::reader::keys_of;

/// The row in the table of types.
pub(super) const TYPE: Type = Type {
    name: "mqtt",
    takes: "topics of a broker: MQTT 3.1.1, TLS, client certificate, user and password; persistent session",
    acknowledged: "PUBACK or PUBREC after the commit",
    // Devices are told apart by their topics nearly everywhere.
    partition_key: "{topic}",
    placeholders: &["topic", "client-id"],
    keys: keys_of::<Config>,
    read: kind::read::<Config>,
};

/// A client that has not begun yet.
struct Client(Settings);

impl super::Settings for Settings {
    fn describe(&self) -> String {
        format!("mqtt client of {}", self.broker)
    }

    fn bind(&self) -> BoxFuture<'_, anyhow::Result<Box<dyn Source>>> {
        Box::pin(async { Ok(Box::new(Client(self.clone())) as Box<dyn Source>) })
    }
}

impl Source for Client {
    fn run(self: Box<Self>, context: SourceContext) -> BoxFuture<'static, anyhow::Result<()>> {
        Box::pin(run(self.0, context))
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

/// Runs the source until it is stopped. Trouble with the broker or the log never ends it.
///
/// # Errors
/// None at present.
pub async fn run(settings: Settings, context: SourceContext) -> anyhow::Result<()> {
    let mut session = Session::default();
    let mut reconnect = Reconnect::new(settings.max_backoff);
    let mut told = String::new();
    let mut short_connections = 0;
    loop {
        let begun = Instant::now();
        let mut lived = Duration::ZERO;
        let connected = tokio::select! {
            connected = handshake::connect(&settings, context.max_record) => connected,
            () = context.stop.cancelled() => return Ok(()),
        };
        let outcome = match connected {
            Ok(accepted) => {
                on_connected(&settings, &context, &mut session, accepted.session_present);
                told.clear();
                let outcome = Connection::new(accepted, &settings, &context, &mut session).run().await;
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
        let pause = reconnect.pause(failure.trouble, lived, fastrand::f64());
        tell(&context, &mut told, &failure, pause);
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = context.stop.cancelled() => return Ok(()),
        }
    }
}

fn on_connected(settings: &Settings, context: &SourceContext, session: &mut Session, session_present: bool) {
    let source = &*context.name;
    context.stats.connections.store(1, Relaxed);
    info!(source, broker = %settings.broker, client_id = settings.client_id, session_present, "connected to broker");
    if session.on_connected(session_present) {
        context.stats.refused("session-forgotten");
        let message = "the broker has forgotten our session; what was published meanwhile is lost";
        context.stats.failed(message);
        warn!(source, broker = %settings.broker, "{message}");
    }
}

/// The same trouble again and again is told once.
fn tell(context: &SourceContext, told: &mut String, failure: &Failure, pause: Duration) {
    let error = format!("{:#}", failure.error);
    context.stats.failed(&*error);
    if *told == error {
        debug!(source = &*context.name, error, ?pause, "still no connection");
    } else {
        warn!(source = &*context.name, error, ?pause, "no connection");
        *told = error;
    }
}
