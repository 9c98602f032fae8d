//! Supervision: every task of the agent lives here, and none outlives it.
//!
//! Tasks come in groups, in the direction that data flows. When somebody asks to stop, or when any task ends by itself, the
//! groups are stopped one after the other: what still brings records ends before what takes them away. By some part of the grace
//! period each group has to have ended; whoever is late is named, and ended.

use std::{collections::HashMap, future::Future, time::Duration};

use anyhow::anyhow;
use tokio::{
    task::{Id, JoinError, JoinSet},
    time::Instant,
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info};

/// What a task returns as its error when it has nothing left to do, and with it the agent: everything stops in good order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it is done")]
pub struct Done;

/// Tasks that are stopped together.
pub struct Group {
    stop: CancellationToken,
    tasks: JoinSet<anyhow::Result<()>>,
    names: HashMap<Id, String>,
    /// By which part of the grace period its tasks are to have ended.
    by: f64,
}

impl Group {
    /// A group without tasks, which are to have ended by this part of the grace period, from 0 to 1.
    #[must_use]
    pub fn ends_by(by: f64) -> Self {
        Self { stop: CancellationToken::new(), tasks: JoinSet::new(), names: HashMap::new(), by }
    }

    /// Cancelled when the group's tasks are to stop.
    #[must_use]
    pub fn stop(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Starts a task, which is to end soon after [`Group::stop`] is cancelled and not before.
    pub fn spawn(&mut self, name: impl Into<String>, task: impl Future<Output = anyhow::Result<()>> + Send + 'static) {
        let id = self.tasks.spawn(task).id();
        self.names.insert(id, name.into());
    }

    /// The next task that ends, by name; waits for ever when there is none.
    ///
    /// # Cancel safety
    /// May be dropped at any time; no end is missed.
    async fn next_end(&mut self) -> (String, anyhow::Result<()>) {
        match self.tasks.join_next_with_id().await {
            Some(ended) => self.outcome(ended),
            None => std::future::pending().await,
        }
    }

    /// Asks the tasks to stop and waits for them until `deadline`. The first error, if any.
    async fn drain(&mut self, deadline: Instant, first: &mut Option<anyhow::Error>) {
        self.stop.cancel();
        while !self.tasks.is_empty() {
            match tokio::time::timeout_at(deadline, self.tasks.join_next_with_id()).await {
                Ok(Some(ended)) => {
                    let (name, outcome) = self.outcome(ended);
                    debug!(task = name, "stopped");
                    keep_first(first, name, outcome);
                }
                Ok(None) => break,
                Err(_) => {
                    let mut late: Vec<_> = self.names.drain().map(|(_, name)| name).collect();
                    late.sort_unstable();
                    let late = late.join(", ");
                    error!(late, "did not stop within the grace period");
                    first.get_or_insert(anyhow!("stop within the grace period: still running: {late}"));
                    self.tasks.abort_all();
                    while self.tasks.join_next().await.is_some() {}
                }
            }
        }
    }

    fn outcome(&mut self, ended: Result<(Id, anyhow::Result<()>), JoinError>) -> (String, anyhow::Result<()>) {
        let (id, outcome) = match ended {
            Ok((id, outcome)) => (id, outcome),
            Err(error) => (error.id(), Err(panicked(error))),
        };
        (self.names.remove(&id).expect("every task is spawned with a name"), outcome)
    }
}

/// Runs until `stop` is cancelled or a task ends by itself (with [`Done`], as it may), then stops `groups` in their order.
///
/// # Errors
/// The first error of a task, a task that ended early, or tasks that did not stop within `grace`.
pub async fn supervise<const N: usize>(
    mut groups: [Group; N],
    stop: CancellationToken,
    grace: Duration,
) -> anyhow::Result<()> {
    let mut first = None;
    tokio::select! {
        () = stop.cancelled() => {}
        (name, outcome) = any_end(&mut groups) => {
            if outcome.as_ref().is_err_and(|error| error.is::<Done>()) {
                info!(task = name, "done; everything stops");
            }
            let outcome = outcome.and_then(|()| Err(anyhow!("it ended though nobody had asked it to")));
            keep_first(&mut first, name, outcome);
        }
    }
    let asked = Instant::now();
    for group in &mut groups {
        group.drain(asked + grace.mul_f64(group.by), &mut first).await;
    }
    first.map_or(Ok(()), Err)
}

async fn any_end<const N: usize>(groups: &mut [Group; N]) -> (String, anyhow::Result<()>) {
    let mut ends: Vec<_> = groups.iter_mut().map(|group| Box::pin(group.next_end())).collect();
    std::future::poll_fn(|context| {
        for end in &mut ends {
            if let std::task::Poll::Ready(ended) = end.as_mut().poll(context) {
                return std::task::Poll::Ready(ended);
            }
        }
        std::task::Poll::Pending
    })
    .await
}

fn keep_first(first: &mut Option<anyhow::Error>, name: String, outcome: anyhow::Result<()>) {
    let Err(error) = outcome else { return };
    if error.is::<Done>() {
        return;
    }
    if first.is_none() {
        *first = Some(error.context(format!("run {name}")));
    } else {
        error!(task = name, error = format!("{error:#}"), "failed while stopping");
    }
}

fn panicked(error: JoinError) -> anyhow::Error {
    let Ok(payload) = error.try_into_panic() else { return anyhow!("it was ended") };
    let message = payload
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_default();
    anyhow!("it panicked, which is a defect of forebay: {message}")
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    const GRACE: Duration = Duration::from_secs(10);

    /// Ends when told to, and says so.
    fn obedient(group: &mut Group, name: &'static str, ended: &Arc<Mutex<Vec<&'static str>>>) {
        let (stop, ended) = (group.stop(), Arc::clone(ended));
        group.spawn(name, async move {
            stop.cancelled().await;
            ended.lock().expect("no test panics with it").push(name);
            Ok(())
        });
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_failure_stops_everybody_and_is_what_the_caller_sees() {
        let ended: Arc<Mutex<Vec<_>>> = Arc::default();
        let mut groups = [Group::ends_by(1.0), Group::ends_by(1.0)];
        obedient(&mut groups[0], "source a", &ended);
        groups[1].spawn("delivery b", async { Err(anyhow!("boom")) });
        obedient(&mut groups[1], "delivery c", &ended);
        let error = supervise(groups, CancellationToken::new(), GRACE).await.expect_err("b failed");
        assert_eq!(format!("{error:#}"), "run delivery b: boom");
        assert_eq!(*ended.lock().expect("unpoisoned"), ["source a", "delivery c"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_is_done_stops_everybody_and_is_no_failure() {
        let ended: Arc<Mutex<Vec<_>>> = Arc::default();
        let mut groups = [Group::ends_by(1.0), Group::ends_by(1.0)];
        groups[0].spawn("source a", async { Err(Done.into()) });
        obedient(&mut groups[1], "delivery b", &ended);
        supervise(groups, CancellationToken::new(), GRACE).await.expect("all is done");
        assert_eq!(*ended.lock().expect("unpoisoned"), ["delivery b"]);
    }

    #[tokio::test(start_paused = true)]
    async fn groups_stop_in_their_order() {
        let ended: Arc<Mutex<Vec<_>>> = Arc::default();
        let mut groups = [Group::ends_by(1.0), Group::ends_by(1.0), Group::ends_by(1.0)];
        // Spawned the other way round, so that the order is not that of spawning.
        obedient(&mut groups[2], "third", &ended);
        obedient(&mut groups[1], "second", &ended);
        obedient(&mut groups[0], "first", &ended);
        let stop = CancellationToken::new();
        stop.cancel();
        supervise(groups, stop, GRACE).await.expect("all obey");
        assert_eq!(*ended.lock().expect("unpoisoned"), ["first", "second", "third"]);
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_is_late_is_named_and_the_others_still_get_their_share() {
        let ended: Arc<Mutex<Vec<_>>> = Arc::default();
        let mut groups = [Group::ends_by(0.5), Group::ends_by(1.0)];
        groups[0].spawn("source deaf", std::future::pending());
        let (stop, log) = (groups[1].stop(), Arc::clone(&ended));
        groups[1].spawn("delivery slow", async move {
            stop.cancelled().await;
            tokio::time::sleep(Duration::from_secs(4)).await;
            log.lock().expect("no test panics with it").push("delivery slow");
            Ok(())
        });
        let stop = CancellationToken::new();
        stop.cancel();
        let error = supervise(groups, stop, GRACE).await.expect_err("one is deaf");
        assert_eq!(format!("{error:#}"), "stop within the grace period: still running: source deaf");
        assert_eq!(*ended.lock().expect("unpoisoned"), ["delivery slow"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_panic_and_an_early_end_are_failures() {
        for (task, expected) in [
            (true, "run source a: it panicked, which is a defect of forebay: boom"),
            (false, "run source a: it ended though nobody had asked it to"),
        ] {
            let mut group = Group::ends_by(1.0);
            group.spawn("source a", async move { if task { panic!("boom") } else { Ok(()) } });
            let error = supervise([group], CancellationToken::new(), GRACE).await.expect_err("it ended");
            assert_eq!(format!("{error:#}"), expected);
        }
    }
}
