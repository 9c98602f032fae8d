//! The loop of a delivery: does what its window says, and tells it what came of it. Decides nothing.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::{Duration, Instant},
};

use forebay_log_store::{Error, Record, Stream, WhenFull};
use tokio::{
    sync::{Notify, oneshot},
    task::{Id, JoinError, JoinSet},
    time::sleep_until,
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::{
    Config, DeliveryStats,
    cursors::{Cursors, Reading},
    dead_letter::{self, Began},
    finished,
    way_out::WayOut,
    window::{Batch, DeadLetter, Expired, Finished, Found, News, Piece, Step, Window},
};
use crate::{
    destination::{Destination, Failure, FailureKind, Outcome, RecordOutcome},
    ingest::Ingest,
    links::{Changes, Way},
    record_tags::addressee,
};

/// Takes one stream's records to one destination.
pub struct Delivery {
    /// The destination's name: what the checkpoint is kept under.
    pub name: Arc<str>,
    /// Where the records come from.
    pub stream: Stream,
    /// Where records go that the destination will never take.
    pub dead_letters: Ingest,
    /// Where all others go.
    pub destination: Destination,
    /// How.
    pub config: Config,
    /// The way out, if that has limits.
    pub way: Option<Way>,
    /// Tells when an interface comes up.
    pub interfaces: Changes,
    /// What it tells about itself.
    pub stats: Arc<DeliveryStats>,
    /// Cancelled when it is to stop.
    pub stop: CancellationToken,
    /// How long it then waits for requests under way.
    pub grace: Duration,
}

type Read = (Reading, Result<Vec<(Arc<Record>, Duration)>, Error>);

struct Loop {
    name: Arc<str>,
    stream: Stream,
    dead_letters: Ingest,
    destination: Arc<Destination>,
    stats: Arc<DeliveryStats>,
    window: Window,
    way_out: WayOut,
    started: Instant,
    cursors: Cursors,
    reads: JoinSet<Read>,
    sends: JoinSet<Outcome>,
    /// The request that a task of `sends` carries.
    requests: HashMap<Id, u64>,
    burials: JoinSet<Result<(), Error>>,
    saves: JoinSet<bool>,
    /// The newest thing that went wrong with a request, of each kind.
    problems: BTreeMap<FailureKind, String>,
    /// Whether the newest read, burial, or save failed: only the first failure in a row is told.
    read_failed: bool,
    burial_failed: bool,
    save_failed: bool,
}

impl Delivery {
    /// Delivers until it is told to stop.
    ///
    /// When it returns, everything that is known to be delivered is behind the checkpoint.
    ///
    /// # Errors
    /// None: whatever fails is tried again.
    pub async fn run(self) -> anyhow::Result<()> {
        let commits = Arc::new(Notify::new());
        self.stream.on_commit({
            let commits = Arc::clone(&commits);
            move || commits.notify_one()
        });
        if let Some(wire) = self.destination.wire_bytes() {
            self.stats.show_wire(wire);
        }
        let checkpoint = self.stream.checkpoint(&self.name);
        let finished = finished::load(&self.stream, &self.name);
        let mut delivery = Loop {
            window: Window::new(&self.config, &self.destination.limits(), checkpoint, &finished, fastrand::u64(..)),
            cursors: Cursors::default(),
            way_out: WayOut::new(self.way, self.destination.wire_bytes(), self.destination.writes_base64()),
            name: self.name,
            stream: self.stream,
            dead_letters: self.dead_letters,
            destination: Arc::new(self.destination),
            stats: self.stats,
            started: Instant::now(),
            reads: JoinSet::new(),
            sends: JoinSet::new(),
            requests: HashMap::new(),
            burials: JoinSet::new(),
            saves: JoinSet::new(),
            problems: BTreeMap::new(),
            read_failed: false,
            burial_failed: false,
            save_failed: false,
        };
        delivery.run(&commits, self.interfaces, &self.stop, self.grace).await;
        Ok(())
    }
}

impl Loop {
    async fn run(&mut self, commits: &Notify, mut interfaces: Changes, stop: &CancellationToken, grace: Duration) {
        let mut give_up = None;
        let destination = Arc::clone(&self.destination);
        // Asked for once and kept: what it has begun is not begun again whenever something else happens.
        let closed = self.way_out.closed();
        let mut new_map = Box::pin(destination.map_changed(&closed));
        loop {
            let Some(wake) = self.drive() else { return };
            self.stats.show(&self.window, self.destination.sent(), self.way_out.held(), self.started);
            let timer = async {
                match wake {
                    Some(wake) => sleep_until((self.started + wake).into()).await,
                    None => std::future::pending().await,
                }
            };
            let too_late = async {
                match give_up {
                    Some(give_up) => sleep_until(give_up).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = stop.cancelled(), if give_up.is_none() => {
                    self.window.stop();
                    give_up = Some(tokio::time::Instant::now() + grace);
                }
                () = too_late => {
                    while let Some(ended) = self.sends.try_join_next_with_id() {
                        self.on_sent(ended);
                    }
                    // What these answered is noted like any other; they may have been the last.
                    if self.drive().is_none() {
                        return;
                    }
                    let requests = self.sends.len();
                    // Nobody will know what becomes of them, so they are sent again after the next start.
                    debug!(destination = %self.name, requests, "gave up requests under way in order to stop");
                    if let Some(expired) = self.window.untold(self.started.elapsed()) {
                        self.tell_expired(&expired);
                    }
                    // Much less is left for it: the log is not far.
                    _ = tokio::time::timeout(grace / 5, self.save_at_last()).await;
                    return;
                }
                Some(ended) = self.sends.join_next_with_id() => self.on_sent(ended),
                Some(ended) = self.reads.join_next() => self.on_read(ended),
                Some(ended) = self.burials.join_next() => self.on_buried(ended),
                Some(ended) = self.saves.join_next() => self.on_saved(ended.unwrap_or(false)),
                () = commits.notified() => self.window.on_commit(),
                Ok(()) = interfaces.changed() => self.window.probe_now(self.started.elapsed()),
                () = &mut new_map => {
                    self.window.on_new_map();
                    new_map = Box::pin(destination.map_changed(&closed));
                }
                () = timer => {}
            }
            // What has ended by now is told before the window decides again, so that it sees all of it together.
            while let Some(ended) = self.sends.try_join_next_with_id() {
                self.on_sent(ended);
            }
        }
    }

    /// Does what the window says. Returns until when it waits; nothing once it has stopped.
    fn drive(&mut self) -> Option<Option<Duration>> {
        let (oldest, head) = self.stream.extent();
        self.window.on_extent(oldest, head);
        loop {
            let now = self.started.elapsed();
            match self.way_out.next(&mut self.window, now) {
                Step::Read(piece) => self.read(piece),
                Step::Send(batch) => self.send(batch),
                Step::StoreDeadLetters(letters) => self.bury(letters),
                Step::TakeMap => {
                    self.destination.take_map();
                    self.window.on_map(|record| self.destination.place(record), self.started.elapsed());
                }
                Step::Save(checkpoint) => self.stream.save_checkpoint(&self.name, checkpoint),
                Step::SaveFinished(finished) => self.save_finished(finished),
                Step::TellExpired(expired) => self.tell_expired(&expired),
                Step::Tell(news) => self.tell(news),
                Step::Wait(wake) => return Some(wake),
                Step::Stopped => {
                    self.stats.show(&self.window, self.destination.sent(), None, self.started);
                    return None;
                }
            }
        }
    }

    fn read(&mut self, piece: Piece) {
        let reading = self.cursors.begin(piece, &self.stream);
        self.reads.spawn_blocking(move || reading.read());
    }

    fn on_read(&mut self, ended: Result<Read, JoinError>) {
        let now = self.started.elapsed();
        let error = match ended {
            Ok((reading, read)) => {
                self.cursors.end(reading);
                match read {
                    Ok(mut records) => {
                        self.read_failed = false;
                        let reached = records.last().map(|(record, _)| record.sequence_number);
                        records.retain(|(record, _)| addressee(record).is_none_or(|name| *name == *self.name));
                        let found = Found { records, reached };
                        self.window.on_read(found, |record| self.destination.place(record), now);
                        return;
                    }
                    Err(error) => error.to_string(),
                }
            }
            Err(panic) => panic.to_string(),
        };
        self.window.on_read_failed(now);
        self.stats.failed(None, format!("read stream: {error}"));
        if !std::mem::replace(&mut self.read_failed, true) {
            warn!(destination = %self.name, stream = self.stream.name(), error, "cannot read; trying again");
        }
    }

    fn send(&mut self, batch: Batch) {
        let destination = Arc::clone(&self.destination);
        let task = self.sends.spawn(async move { destination.send(&batch.parcels).await });
        self.requests.insert(task.id(), batch.id);
    }

    fn on_sent(&mut self, ended: Result<(Id, Outcome), JoinError>) {
        let (task, outcome) = match ended {
            Ok(ended) => ended,
            Err(panic) => {
                let message = format!("sending panicked, which is a defect of forebay: {panic}");
                let kind = FailureKind::EndpointFailed;
                (panic.id(), Outcome::Failed(Failure { kind, message, retry_after: None }))
            }
        };
        let request = self.requests.remove(&task).expect("every task carries a request");
        let problem = problem(&outcome);
        self.way_out.on_outcome(&mut self.window, request, outcome, self.started.elapsed());
        if let Some((kind, error)) = problem {
            self.problems.insert(kind, error.clone());
            self.stats.failed(Some(kind), error);
        }
    }

    fn tell(&self, news: News) {
        let destination = &self.name;
        let error = |kind| self.problems.get(&kind).map_or("", String::as_str);
        let failing_error = error(FailureKind::EndpointFailed);
        match news {
            News::Down(kind) => {
                warn!(%destination, %kind, error = error(kind), "destination does not take records; trying again");
            }
            News::StillDown(kind) => {
                warn!(%destination, %kind, error = error(kind), "destination still does not take records, for another reason");
            }
            News::Up(outage) => {
                let (lasted, attempts) = (outage.until.saturating_sub(outage.since), outage.attempts);
                info!(%destination, ?lasted, attempts, "destination takes records again");
            }
            News::Brief(outage) => {
                let (lasted, kind) = (outage.until.saturating_sub(outage.since), outage.kind);
                info!(%destination, %kind, ?lasted, error = error(kind), "destination failed for a moment, and took the next request");
            }
            News::Failing(records) => warn!(
                %destination, records, error = failing_error,
                "destination fails upon records that it is sent alone, and takes others; those go on, and these are tried again"
            ),
            News::ReadingStopped(failing) => warn!(
                %destination, stream = self.stream.name(), failing, error = failing_error,
                "no more records are read: what waits behind those upon which the destination goes on failing fills the window"
            ),
            News::ReadingGoesOn => info!(%destination, stream = self.stream.name(), "records are read again"),
        }
    }

    fn bury(&mut self, letters: Vec<DeadLetter>) {
        // A door of its own each time: a batch that is refused is offered again, in the same order.
        let (door, from, began) =
            (self.dead_letters.for_connection(), self.stream.clone(), Began::of(&self.stream, self.started));
        let [first, ..] = &letters[..] else { return };
        let (number, reason) = (first.record.sequence_number, first.reason.clone());
        self.stats.failed(Some(FailureKind::RecordInvalid), format!("record {number}: {reason}"));
        warn!(
            destination = %self.name, records = letters.len(), first = %number, reason,
            dead_letters = self.dead_letters.stream().name(), "records can never be delivered; setting them aside"
        );
        self.burials.spawn(async move {
            let batch = dead_letter::batch(door.batch(), &letters, &from, began)?;
            door.offer(batch, WhenFull::Refuse).await.durable().await.map(|_| ())
        });
    }

    fn save_finished(&mut self, finished: Finished) {
        let (name, stream, (done, durable)) = (Arc::clone(&self.name), self.stream.clone(), oneshot::channel());
        self.saves.spawn(async move {
            // Nobody waits for it any more when the delivery has given up.
            let save = move || finished::save(&stream, &name, &finished, |durable| _ = done.send(durable));
            tokio::task::spawn_blocking(save).await.is_ok() && durable.await.unwrap_or(false)
        });
    }

    /// What is finished though requests are given up, behind what is being saved.
    async fn save_at_last(&mut self) {
        while self.saves.join_next().await.is_some() {}
        if let Some(finished) = self.window.last_save(self.started.elapsed()) {
            self.save_finished(finished);
        }
        while self.saves.join_next().await.is_some() {}
    }

    fn on_saved(&mut self, durable: bool) {
        self.window.on_finished_saved(durable);
        if !std::mem::replace(&mut self.save_failed, !durable) && !durable {
            let (destination, stream) = (&self.name, self.stream.name());
            warn!(%destination, stream, "cannot note what is delivered behind records that wait: a restart would repeat it; trying again");
        }
    }

    fn tell_expired(&self, expired: &Expired) {
        let Expired { first, last, records } = expired;
        warn!(
            destination = %self.name, stream = self.stream.name(), records, %first, %last,
            "records were older than max-age; they are not sent any more"
        );
    }

    fn on_buried(&mut self, ended: Result<Result<(), Error>, JoinError>) {
        let outcome = match ended {
            Ok(outcome) => outcome.map_err(|error| error.to_string()),
            Err(panic) => Err(panic.to_string()),
        };
        let failed = outcome.is_err();
        self.window.on_dead_letters(!failed, self.started.elapsed());
        if let Err(error) = outcome {
            self.stats.failed(None, format!("store dead letters: {error}"));
            if !self.burial_failed {
                warn!(destination = %self.name, error, "cannot store dead letters; trying again");
            }
        }
        self.burial_failed = failed;
    }
}

/// What went wrong with a request, if anything did.
fn problem(outcome: &Outcome) -> Option<(FailureKind, String)> {
    match outcome {
        Outcome::Failed(failure) => Some((failure.kind, failure.to_string())),
        Outcome::Answered(outcomes) => outcomes.iter().find_map(|outcome| match outcome {
            RecordOutcome::Accepted | RecordOutcome::Astray => None,
            RecordOutcome::Throttled(message) => Some((FailureKind::Throttled, format!("throttled: {message}"))),
            RecordOutcome::Failed(message) => Some((FailureKind::EndpointFailed, format!("record failed: {message}"))),
            RecordOutcome::Rejected(message) => {
                Some((FailureKind::RecordInvalid, format!("record rejected: {message}")))
            }
        }),
    }
}
