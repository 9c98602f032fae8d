//! The agent: opens the log, puts every part of the configuration to work, and takes it all down in the order of the data.
//!
//! Sources stop first, then deliveries, then the log: what was acknowledged is stored, what is under way is awaited, and
//! the deliveries' checkpoints are the last that is written.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use forebay_log_store::Store;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{
    api::{self, Api, Server},
    config::{Config, stream},
    credentials::{KnownTime, watch},
    delivery::{Delivery, DeliveryStats, dead_letter::Letters},
    destination::Origin,
    disk_room, edge_sequence,
    links::{self, Interfaces, Links},
    log_events::LogEvents,
    service_manager,
    source::{Shaping, SourceContext, SourceStats},
    status::{ObservedDestination, ObservedSource, Observer},
    streams::Streams,
    supervise::{Group, supervise},
};

/// By which part of the grace period the sources have to have ended, and the deliveries after them.
const SOURCES_END_BY: f64 = 1.0 / 3.0;
const DELIVERIES_END_BY: f64 = 0.95;

/// For which part of it a delivery awaits its requests; in what is left, it notes what came of them.
const REQUESTS_AWAITED: f64 = 0.5;

/// Runs the agent until `stop` is cancelled.
///
/// # Errors
/// The log cannot be opened, an address cannot be listened on, or a task failed.
pub async fn run(config: Config, stop: CancellationToken) -> anyhow::Result<()> {
    for problem in disk_room::problem(&config.store, &config.quotas()).into_iter().chain(config.warnings()) {
        warn!("{problem}");
    }
    let log_events = Arc::new(LogEvents::default());
    let (store, streams) = open_log(&config, Arc::clone(&log_events)).await?;
    let outcome = run_on(config, &store, streams, Arc::clone(&log_events), stop).await;
    // Also after a failure: what is queued is committed, and checkpoints reach the disk.
    let closed = tokio::task::spawn_blocking(move || store.close()).await;
    log_events.tell_all();
    outcome.and(closed.context("close the log"))?;
    info!("stopped");
    Ok(())
}

async fn open_log(config: &Config, log_events: Arc<LogEvents>) -> anyhow::Result<(Arc<Store>, Arc<Streams>)> {
    let (settings, wanted, clock) = (config.store.clone(), config.streams.clone(), config.clock.open());
    let open = move || {
        let store = Arc::new(Store::open(settings.clone(), clock, move |event| log_events.on_event(&event))?);
        let streams = Streams::open(Arc::clone(&store), settings, wanted)?;
        Ok::<_, forebay_log_store::Error>((store, Arc::new(streams)))
    };
    let begun = Instant::now();
    let opened = tokio::task::spawn_blocking(open).await.context("open the log")?.context("open the log")?;
    info!(data_dir = %config.store.dir.display(), took = ?begun.elapsed(), "log is open");
    if opened.0.clock().trusted_since.is_none() {
        info!("the machine's clock cannot be trusted yet; arrival times are uncertain until it can");
    }
    Ok(opened)
}

async fn run_on(
    config: Config,
    store: &Arc<Store>,
    streams: Arc<Streams>,
    log_events: Arc<LogEvents>,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let grace = config.agent.grace_period;
    // Everything that can be refused by the system is asked for before anything begins.
    let server = Server::bind(config.api.listen).await?;
    let (mut intake, mut outlet) = (Group::ends_by(SOURCES_END_BY), Group::ends_by(DELIVERIES_END_BY));
    let mut watchers = Group::ends_by(1.0);
    let time = Arc::new(KnownTime::new({
        let store = Arc::clone(store);
        move || store.clock()
    }));
    let (interfaces, links) = (Interfaces::listen(), Links::open(&config.links, store, &config.store.dir));
    let observed_destinations = start_deliveries(&config, &streams, &time, &links, &interfaces, &mut outlet)?;
    let certificates: Vec<_> = observed_destinations
        .iter()
        .flat_map(|(name, observed)| observed.certificates.iter().map(|file| (name.clone(), file.clone())))
        .collect();
    let letters = observed_destinations.iter().map(|(name, observed)| (name.clone(), Arc::clone(&observed.letters)));
    let letters = letters.collect();
    let observed_sources = start_sources(&config, store, &streams, &mut intake).await?;

    let observer = Arc::new(Observer::new(
        std::path::absolute(&config.store.dir).unwrap_or(config.store.dir),
        Arc::clone(store),
        log_events,
        observed_sources,
        Arc::clone(&streams),
        observed_destinations,
        Arc::clone(&time),
    ));
    // It takes records too, so it stops with the sources.
    let api = Arc::new(Api::new(Arc::clone(&observer), streams, letters, intake.stop()));
    let router = api::router(api, Arc::new(api::Access::new(config.api.token)));
    intake.spawn("api", server.run(router, intake.stop()));

    watchers.spawn("certificates", watch::run(certificates, time, watchers.stop()));
    watchers.spawn("rates", sample_rates(observer, watchers.stop()));
    watchers.spawn("links", links.run(interfaces.changes(), watchers.stop()));
    watchers.spawn("interfaces", interfaces.run(watchers.stop()));
    watchers.spawn("service manager", service_manager::watch(Arc::clone(store), stop.clone(), watchers.stop()));
    service_manager::ready();
    info!("ready");
    supervise([intake, outlet, watchers], stop, grace).await
}

/// Starts the sources, after every one of them has what it listens on.
async fn start_sources(
    config: &Config,
    store: &Arc<Store>,
    streams: &Streams,
    group: &mut Group,
) -> anyhow::Result<BTreeMap<String, ObservedSource>> {
    let mut bound = Vec::new();
    let mut observed = BTreeMap::new();
    let gateway = config.agent.gateway_id();
    let numbered = config.sources.values().any(|source| source.shape.has_envelope());
    let base = if numbered { edge_sequence::base(&config.store.dir).context("number envelopes")? } else { 0 };
    for (name, config) in config.sources.clone() {
        let source = config.settings.bind().await.with_context(|| format!("start source {name}"))?;
        let stats = Arc::new(SourceStats::default());
        let ingest = streams.get(&config.stream)?.ingest;
        let context = SourceContext {
            name: name.as_str().into(),
            ingest: match config.shared.rate_limit {
                Some(limit) => ingest.limited(limit),
                None => ingest,
            },
            partition_key: config.partition_key,
            max_record: config.shared.max_record,
            shaping: {
                let shape = config.shape.for_source(&gateway, &name, base).counted_by(Arc::clone(&stats));
                let store = Arc::clone(store);
                Shaping::new(shape, move || store.clock())
            },
            stats: Arc::clone(&stats),
            stop: group.stop(),
        };
        bound.push((format!("source {name}"), source, context));
        observed.insert(name, ObservedSource { kind: config.kind, stream: config.stream, stats });
    }
    for (name, source, context) in bound {
        group.spawn(name, source.run(context));
    }
    Ok(observed)
}

fn start_deliveries(
    config: &Config,
    streams: &Streams,
    time: &Arc<KnownTime>,
    links: &Links,
    interfaces: &Interfaces,
    group: &mut Group,
) -> anyhow::Result<BTreeMap<String, ObservedDestination>> {
    let mut observed = BTreeMap::new();
    let gateway = config.agent.gateway_id();
    for (name, destination) in &config.destinations {
        let origin = Origin { gateway: &gateway, stream: &destination.from };
        let opened = destination.settings.open(&origin, time).with_context(|| format!("start destination {name}"))?;
        let stats = Arc::new(DeliveryStats::default());
        let (from, dead_letters) = (streams.get(&destination.from)?, streams.get(&stream::dead_letter_stream(name))?);
        let letters = Arc::new(Letters::open(name, dead_letters.ingest.clone(), from.ingest.clone()));
        let settings = &destination.delivery;
        let limits = settings.link.as_ref().map(|link| &config.links[link]);
        let delivery = Delivery {
            name: name.as_str().into(),
            stream: from.stream().clone(),
            dead_letters: dead_letters.ingest,
            destination: opened,
            config: settings.clone().with_requests_of(limits.and_then(links::Config::request_bytes)),
            way: settings.link.as_ref().map(|link| links.get(link).way(settings.priority)),
            interfaces: interfaces.changes(),
            stats: Arc::clone(&stats),
            stop: group.stop(),
            grace: config.agent.grace_period.mul_f64(REQUESTS_AWAITED),
        };
        group.spawn(format!("delivery to {name}"), delivery.run());
        let observe = ObservedDestination {
            kind: destination.settings.kind(),
            from: destination.from.clone(),
            link: settings.link.as_ref().map(|link| (link.clone(), links.get(link))),
            stats,
            letters,
            certificates: destination.settings.client_certificates(),
        };
        observed.insert(name.clone(), observe);
    }
    Ok(observed)
}

/// Rates are measured over some seconds, and so the counters are looked at every second.
async fn sample_rates(observer: Arc<Observer>, stop: CancellationToken) -> anyhow::Result<()> {
    let mut every_second = tokio::time::interval(Duration::from_secs(1));
    loop {
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            _ = every_second.tick() => observer.sample(Instant::now()),
        }
    }
}
