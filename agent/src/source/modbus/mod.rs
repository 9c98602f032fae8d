//! The `modbus-rtu` and `modbus-tcp` sources: registers of devices, polled, one JSON record per unit and poll.
//!
//! A record has the unit, and each register by its name: `{"unit":1,"voltage":230.1,"on":true}`. What could not be read is
//! `null`, and `"errors"` says why. A unit that said nothing at all gets no record. Everything that failed is counted:
//! `"exception"`, `"no-answer"`, `"garbled"`. A poll that is due while the log has no room, or the poll before it goes on, is
//! not made up for; the first is counted as `"not-polled"`.

mod config;
mod link;
mod plan;
mod register;

use std::{future::Future, pin::pin, sync::atomic::Ordering::Relaxed};

use anyhow::anyhow;
use config::{Place, Settings};
use forebay_log_store::Error;
use link::{Answer, Link};
use plan::Unit;
use tokio::time::{Instant, MissedTickBehavior};
use tracing::{info, warn};

use super::{BoxFuture, Intake, Source, SourceContext, Type, kind, reconnect::Trouble, retry::Retry};
use crate::ingest::Fields;

/// The row of `modbus-rtu` in the table of types.
pub(super) const RTU_TYPE: Type = Type {
    name: "modbus-rtu",
    takes: "registers of Modbus devices on a serial line, polled: named, typed, scaled, one JSON record per unit and poll",
    acknowledged: "devices are asked again, whatever became of the answer",
    partition_key: "{source}/{unit}",
    placeholders: &["port", "unit"],
    keys: config::rtu_keys,
    read: config::read_rtu,
};

/// The row of `modbus-tcp` in the table of types.
pub(super) const TCP_TYPE: Type = Type {
    name: "modbus-tcp",
    takes: "the same over TCP, also of devices behind a gateway",
    acknowledged: "devices are asked again, whatever became of the answer",
    partition_key: "{source}/{unit}",
    placeholders: &["host", "unit"],
    keys: config::tcp_keys,
    read: config::read_tcp,
};

impl super::Settings for Settings {
    fn describe(&self) -> String {
        match &self.place {
            Place::Rtu(port) => format!("modbus-rtu on {} at {}", port.name(), port.line()),
            Place::Tcp { host, port } => format!("modbus-tcp client of {host}:{port}"),
        }
    }

    fn bind(&self) -> BoxFuture<'_, anyhow::Result<Box<dyn Source>>> {
        kind::at_once(self, run)
    }
}

/// Why there is no polling any more.
enum Ended {
    Stopped,
    /// The port or the connection is gone.
    Link(Trouble, anyhow::Error),
    /// Nothing is ever stored again.
    Log(Error),
}

/// Runs the source until it is stopped. Trouble with a device never ends it.
async fn run(settings: Settings, context: SourceContext) -> anyhow::Result<()> {
    let mut intake = Intake::<()>::new(&context);
    let mut retry = Retry::new(settings.max_backoff);
    let ended = loop {
        let ended = match Box::pin(beside(&context, &mut intake, Link::open(&settings))).await {
            Ok(Ok(link)) => {
                context.stats.connections.store(1, Relaxed);
                let ended = poll_until_trouble(link, &settings, &context, &mut intake, &mut retry).await;
                context.stats.connections.store(0, Relaxed);
                ended
            }
            Ok(Err((trouble, error))) => Ended::Link(trouble, error),
            Err(ended) => ended,
        };
        let (trouble, error) = match ended {
            Ended::Stopped => break Ok(()),
            Ended::Log(error) => break Err(error),
            Ended::Link(trouble, error) => (trouble, error),
        };
        let pause = retry.failed(&context, trouble, &error, Instant::now());
        match beside(&context, &mut intake, tokio::time::sleep(pause)).await {
            Ok(()) | Err(Ended::Link(..)) => {}
            Err(Ended::Stopped) => break Ok(()),
            Err(Ended::Log(error)) => break Err(error),
        }
    };
    intake.finish().await;
    ended.map_err(Into::into)
}

/// Awaits something while what was taken goes on its way to the log.
async fn beside<T>(context: &SourceContext, intake: &mut Intake, future: impl Future<Output = T>) -> Result<T, Ended> {
    let mut future = pin!(future);
    loop {
        tokio::select! {
            biased;
            () = context.stop.cancelled() => return Err(Ended::Stopped),
            output = &mut future => return Ok(output),
            progress = intake.progress() => if let Err(error) = progress {
                return Err(Ended::Log(error));
            },
        }
    }
}

async fn poll_until_trouble(
    mut link: Link,
    settings: &Settings,
    context: &SourceContext,
    intake: &mut Intake,
    retry: &mut Retry,
) -> Ended {
    let source = &*context.name;
    let device = match &settings.place {
        Place::Rtu(port) => ("port", port.name()),
        Place::Tcp { host, .. } => ("host", host.clone()),
    };
    info!(source, device = device.1, "device can be asked");
    let mut ticks = tokio::time::interval(settings.interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        if let Err(ended) = beside(context, intake, ticks.tick()).await {
            return ended;
        }
        if !intake.has_room() {
            if context.stats.refused("not-polled") {
                warn!(source, reason = "not-polled", "the log has no room; devices are not asked");
            }
            continue;
        }
        for unit in &settings.units {
            let asked = match beside(context, intake, ask(link, unit, settings, context)).await {
                Ok(asked) => asked,
                Err(ended) => return ended,
            };
            if let Some(payload) = &asked.record {
                retry.works(Instant::now());
                let named = [("unit", &*unit.id.to_string()), (device.0, &*device.1)];
                intake.add(&Fields { source, named: &named, payload, byte: None }, &[]);
            }
            link = match asked.link {
                Ok(link) => link,
                Err((trouble, error)) => return Ended::Link(trouble, error),
            };
        }
    }
}

/// What became of asking a unit.
struct Asked {
    record: Option<Vec<u8>>,
    link: Result<Link, (Trouble, anyhow::Error)>,
}

/// Asks a unit for all its registers.
async fn ask(mut link: Link, unit: &Unit, settings: &Settings, context: &SourceContext) -> Asked {
    let mut reading = unit.reading();
    let mut broken = None;
    for (nth, block) in unit.blocks.iter().enumerate() {
        let (reason, why, goes_on) = match link.read(unit.id, block, settings.timeout).await {
            Answer::Words(words) => {
                reading.came(block, &words);
                continue;
            }
            Answer::Exception(exception) => ("exception", exception.to_string(), true),
            Answer::Garbled(why) => ("garbled", format!("garbled answer: {why}"), link.outlives_trouble()),
            // The unit is not there: its other registers would only take time from the other units.
            Answer::Silent => ("no-answer", "no answer".to_owned(), false),
            Answer::Gone(error) => {
                let why = error.to_string();
                broken = Some((Trouble::Passing, anyhow!(error).context(format!("ask unit {}", unit.id))));
                ("no-answer", why, false)
            }
        };
        let (id, table, first, last) = (unit.id, block.table.name(), block.address, block.address + (block.len - 1));
        let error = format!("unit {id}: {table} {first} to {last}: {why}");
        if context.stats.refused(reason) {
            warn!(source = &*context.name, reason, error, "registers cannot be read");
        }
        context.stats.failed(error);
        if goes_on {
            reading.failed(block, &why);
        } else {
            unit.blocks[nth..].iter().for_each(|block| reading.failed(block, &why));
            if broken.is_none() && !link.outlives_trouble() {
                match Link::open(settings).await {
                    Ok(again) => link = again,
                    Err(error) => broken = Some(error),
                }
            }
            break;
        }
    }
    let record = if reading.has_values() { serde_json::to_vec(&reading).ok() } else { None };
    Asked { record, link: broken.map_or(Ok(link), Err) }
}
