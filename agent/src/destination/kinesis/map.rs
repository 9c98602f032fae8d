//! The map of shards that the lanes follow, and the questions it comes from.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use aws_sdk_kinesis::{Client, error::ProvideErrorMetadata as _};
use tokio::sync::Notify;
use tracing::{info, warn};

use super::{
    shards::Shards,
    survey::{Answer, Map, Survey},
};

/// `ListShards` says 1,000 shards at once; a stream has at most 20,000, and closed ones beside them.
const PAGES_MAX: usize = 1000;

/// See the module.
#[derive(Debug)]
pub(super) struct ShardMap {
    client: Client,
    stream: String,
    started: Instant,
    state: Mutex<State>,
    asked_for: Notify,
}

#[derive(Debug)]
struct State {
    survey: Survey,
    next: Option<Map>,
}

impl ShardMap {
    pub(super) fn new(client: Client, stream: String, interval: Duration) -> Self {
        let state = Mutex::new(State { survey: Survey::new(interval), next: None });
        Self { client, stream, started: Instant::now(), state, asked_for: Notify::new() }
    }

    /// The map that counts.
    pub(super) fn current(&self) -> Option<Arc<Shards>> {
        self.lock().survey.current.clone()
    }

    /// The newest map counts from now on.
    pub(super) fn take(&self) {
        let mut state = self.lock();
        if let Some(map) = state.next.take() {
            state.survey.follow(map);
        }
    }

    pub(super) fn went_astray(&self) {
        self.lock().survey.went_astray(self.started.elapsed());
        self.asked_for.notify_one();
    }

    pub(super) fn doubt(&self) {
        self.lock().survey.doubt(self.started.elapsed());
        self.asked_for.notify_one();
    }

    /// Waits for a new map to be taken.
    pub(super) async fn changed(&self) {
        loop {
            let due = self.started + self.lock().survey.due();
            tokio::select! {
                () = tokio::time::sleep_until(due.into()) => {}
                () = self.asked_for.notified() => continue,
            }
            let answer = self.ask().await;
            let mut state = self.lock();
            let (map, told) = state.survey.on_answer(answer, self.started.elapsed());
            if let Some(why) = told {
                warn!(
                    stream = self.stream,
                    why, "cannot go by the shards; records share an aggregate by their keys alone"
                );
            }
            if let Some(map) = map {
                info!(
                    stream = self.stream,
                    shards = map.as_ref().map_or(0, |shards| shards.len()),
                    "new map of shards"
                );
                state.next = Some(map);
                return;
            }
        }
    }

    async fn ask(&self) -> Answer {
        let (mut listed, mut token) = (Vec::new(), None);
        for _ in 0..PAGES_MAX {
            let request = self.client.list_shards();
            let request = match token {
                Some(token) => request.next_token(token),
                None => request.stream_name(&self.stream),
            };
            match request.send().await {
                Ok(page) => {
                    listed.extend(page.shards.unwrap_or_default());
                    token = page.next_token;
                    if token.is_none() {
                        return Shards::of_list(&listed).map_or_else(Answer::Failed, Answer::Shards);
                    }
                }
                Err(error) => {
                    let why = error.code().map_or_else(
                        || "no answer".to_owned(),
                        |code| format!("ListShards: {code}: {}", error.message().unwrap_or("no reason given")),
                    );
                    let refused = error.code().is_some_and(|code| {
                        ["AccessDenied", "UnknownOperation", "InvalidAction"]
                            .iter()
                            .any(|known| code.starts_with(known))
                    });
                    return if refused { Answer::Refused(why) } else { Answer::Failed(why) };
                }
            }
        }
        Answer::Failed("the list of shards does not end".to_owned())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
