//! The `sensor` source: what the machine's own sensors show, polled. One record per sensor (a chip, a zone, a thermometer, an
//! interface) and poll, with its values and their units.
//!
//! Each group is polled by a thread of its own, since a read of sysfs waits for the hardware: one that hangs holds up no other group, and
//! no stop. A poll that is not over when the next one is due is counted as `"late"`. What cannot be read is counted each time as
//! `"unreadable"`, told once until it can be read again, and everything else goes on.

mod chips;
mod config;
mod machine;
mod reading;
mod report;
mod tree;

use std::{
    collections::BTreeMap,
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use anyhow::Context as _;
pub use config::{Config, Group, Report, Settings};
use machine::Ticks;
use reading::Found;
use report::{Reporter, Verdict};
use tokio::time::MissedTickBehavior;
use tracing::{info, warn};
use tree::Tree;

use super::{BoxFuture, Intake, Source, SourceContext, Type, kind};
use crate::{config::reader::keys_of, ingest::Fields};

/// The row in the table of types.
pub(super) const TYPE: Type = Type {
    name: "sensor",
    takes: "the machine's own sensors, polled: hwmon, thermal zones, IIO, 1-Wire, processor, memory, load, disks, file systems, network; all or changes",
    acknowledged: "never: they are polled",
    partition_key: "{sensor}",
    placeholders: &["sensor"],
    keys: keys_of::<Config>,
    read: kind::read::<Config>,
};

/// Reading files needs little.
const STACK_BYTES: usize = 256 * 1024;

impl super::Settings for Settings {
    fn describe(&self) -> String {
        let every = crate::config::duration::show(self.interval);
        format!("{} groups of sensors below {}, every {every}", self.groups.len(), self.tree.root.display())
    }

    fn warnings(&self) -> Vec<(&'static str, String)> {
        let root = &self.tree.root;
        let absent = !root.is_dir();
        absent.then(|| ("root", format!("there is no folder {}", root.display()))).into_iter().collect()
    }

    fn bind(&self) -> BoxFuture<'_, anyhow::Result<Box<dyn Source>>> {
        kind::at_once(self, run)
    }
}

/// A group, as its thread is known to us.
struct Polled {
    orders: mpsc::Sender<()>,
    is_busy: bool,
    reporter: Reporter,
}

/// A poll that is over.
type Answer = (Group, Found);

async fn run(settings: Settings, context: SourceContext) -> anyhow::Result<()> {
    let mut intake = Intake::<()>::new(&context);
    let outcome = poll_all(&settings, &context, &mut intake).await;
    intake.finish().await;
    outcome
}

async fn poll_all(settings: &Settings, context: &SourceContext, intake: &mut Intake) -> anyhow::Result<()> {
    // A group is asked again only after its answer was taken.
    let (answer, mut answers) = tokio::sync::mpsc::channel::<Answer>(Group::ALL.len());
    let mut groups = BTreeMap::new();
    for group in &settings.groups {
        let orders = start(*group, settings.tree.clone(), answer.clone())?;
        groups.insert(*group, Polled { orders, is_busy: false, reporter: Reporter::default() });
    }
    let began = Instant::now();
    let mut ticks = tokio::time::interval(settings.interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        tokio::select! {
            biased;
            () = context.stop.cancelled() => return Ok(()),
            progress = intake.progress() => match progress {
                Err(_) if context.stop.is_cancelled() => return Ok(()),
                progress => drop(progress.context("store records")?),
            },
            Some((group, found)) = answers.recv() => {
                let Some(polled) = groups.get_mut(&group) else { continue };
                polled.is_busy = false;
                let verdict = judge(settings, context, polled, found, began.elapsed());
                store(context, intake, &verdict);
            }
            _ = ticks.tick() => order(context, intake, &mut groups),
        }
    }
}

/// Orders a poll of every group.
fn order(context: &SourceContext, intake: &Intake, groups: &mut BTreeMap<Group, Polled>) {
    let source = &*context.name;
    if !intake.has_room() {
        if context.stats.refused("no-room") {
            warn!(source, "the log takes nothing at present; sensors are not polled");
        }
        return;
    }
    for (group, polled) in groups {
        // A thread that is gone never answers.
        if polled.is_busy || polled.orders.send(()).is_err() {
            if context.stats.refused("late") {
                warn!(source, ?group, "a poll is not over when the next one is due; it is left out");
            }
        } else {
            polled.is_busy = true;
        }
    }
}

fn judge(
    settings: &Settings,
    context: &SourceContext,
    polled: &mut Polled,
    mut found: Found,
    now: Duration,
) -> Verdict {
    settings.tree.filter.apply(&mut found);
    for _ in &found.unreadable {
        context.stats.refused("unreadable");
    }
    let verdict = polled.reporter.judge(&settings.rule, found.readings, found.unreadable, now);
    let source = &*context.name;
    for one in &verdict.tell {
        let (sensor, what, error) = (&one.sensor, &one.what, &one.error);
        context.stats.failed(format!("{sensor} {what} cannot be read: {error}"));
        warn!(source, sensor, what, error, "cannot be read");
    }
    for sensor in &verdict.vanished {
        context.stats.refused("vanished");
        info!(source, sensor, "a sensor is not there any more");
    }
    verdict
}

fn store(context: &SourceContext, intake: &mut Intake, verdict: &Verdict) {
    for reading in &verdict.record {
        let payload = reading.record();
        let named = [("sensor", reading.sensor.as_str())];
        intake.add(&Fields { source: &context.name, named: &named, payload: &payload, byte: None }, &[]);
    }
}

/// Starts the thread of a group, which ends when the orders do. Nobody waits for it: a read that hangs may never end.
fn start(group: Group, tree: Tree, answer: tokio::sync::mpsc::Sender<Answer>) -> anyhow::Result<mpsc::Sender<()>> {
    let (orders, ordered) = mpsc::channel();
    let mut ticks: Option<Ticks> = None;
    let poll = move || {
        while ordered.recv().is_ok() {
            let found = read(group, &tree, &mut ticks);
            if answer.blocking_send((group, found)).is_err() {
                return;
            }
        }
    };
    let builder = thread::Builder::new().name(format!("sensor {group:?}")).stack_size(STACK_BYTES);
    builder.spawn(poll).context("start a thread for polling sensors")?;
    Ok(orders)
}

fn read(group: Group, tree: &Tree, ticks: &mut Option<Ticks>) -> Found {
    let mut found = Found::default();
    match group {
        Group::Hwmon => chips::hwmon(tree, &mut found),
        Group::Thermal => chips::thermal(tree, &mut found),
        Group::Iio => chips::iio(tree, &mut found),
        Group::OneWire => chips::one_wire(tree, &mut found),
        Group::Cpu => machine::cpu(tree, ticks, &mut found),
        Group::Memory => machine::memory(tree, &mut found),
        Group::Load => machine::load(tree, &mut found),
        Group::Disk => machine::disk(tree, &mut found),
        Group::Filesystem => machine::filesystem(tree, &mut found),
        Group::Network => machine::network(tree, &mut found),
    }
    found
}
