//! The map of shards that the lanes follow, and the questions it comes from.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use aws_sdk_kinesis::{Client, error::ProvideErrorMetadata as _, types::Shard};
use tokio::sync::Notify;
use tracing::{info, warn};

use super::{
    shards::Shards,
    survey::{Answer, Map, Survey},
};

/// `ListShards` says 1,000 shards at once, unless it has reasons.
const PAGES_MAX: usize = 1000;

/// So many open shards an account has at the most, unless AWS was asked for more. With closed ones among them, there is no
/// map of more: they would take more memory than sharing aggregates well is worth.
const SHARDS_MAX: usize = 20_000;

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

    /// The destination has answered a request.
    pub(super) fn heard(&self) {
        if self.lock().survey.heard(self.started.elapsed()) {
            self.asked_for.notify_one();
        }
    }

    pub(super) fn doubt(&self) {
        self.lock().survey.doubt(self.started.elapsed());
        self.asked_for.notify_one();
    }

    /// Waits for a new map to be taken. Asks nothing while the way out is `closed`: nothing goes by the map then.
    pub(super) async fn changed(&self, closed: impl Fn() -> Option<Duration>) {
        loop {
            let due = self.started + self.lock().survey.due();
            tokio::select! {
                () = tokio::time::sleep_until(due.into()) => {}
                () = self.asked_for.notified() => continue,
            }
            while let Some(time) = closed() {
                tokio::time::sleep(time).await;
                self.lock().survey.had_to_wait(self.started.elapsed());
            }
            let answer = tokio::select! {
                answer = self.ask() => answer,
                () = self.given_up() => Answer::Failed("ListShards: no answer in time".to_owned()),
            };
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

    /// Ends when parcels have waited long enough for the answer to a question that is out.
    async fn given_up(&self) {
        loop {
            let gives_up = self.lock().survey.gives_up();
            let too_late = async {
                match gives_up {
                    Some(at) => tokio::time::sleep_until((self.started + at).into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = too_late => return,
                // Perhaps a parcel went astray. What else there was to ask for, the question that is out asks for.
                () = self.asked_for.notified() => {}
            }
        }
    }

    pub(super) async fn ask(&self) -> Answer {
        let (mut listing, mut token) = (Listing::default(), None);
        for _ in 0..PAGES_MAX {
            let request = self.client.list_shards();
            let request = match token {
                Some(token) => request.next_token(token),
                None => request.stream_name(&self.stream),
            };
            match request.send().await {
                Ok(page) => {
                    token = page.next_token;
                    if let Err(why) = listing.add(page.shards.unwrap_or_default(), token.is_none()) {
                        return Answer::Failed(why);
                    }
                    if token.is_none() {
                        return Shards::of_list(&listing.shards).map_or_else(Answer::Failed, Answer::Shards);
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

/// What `ListShards` says, page by page.
#[derive(Debug, Default)]
struct Listing {
    shards: Vec<Shard>,
    ids: HashSet<String>,
}

impl Listing {
    /// # Errors
    /// It is more than can be, or does not go on.
    fn add(&mut self, page: Vec<Shard>, is_last: bool) -> Result<(), String> {
        let before = self.shards.len();
        for shard in page {
            if self.ids.insert(shard.shard_id.clone()) {
                self.shards.push(shard);
            }
            if self.shards.len() > SHARDS_MAX {
                return Err(format!("ListShards: there are more than {SHARDS_MAX} shards, closed ones among them"));
            }
        }
        if self.shards.len() == before && !is_last {
            return Err("ListShards: a page brings nothing new, and there are to be more".to_owned());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(numbers: std::ops::Range<usize>) -> Vec<Shard> {
        let shard = |number| Shard::builder().shard_id(format!("shard-{number}"));
        let range = aws_sdk_kinesis::types::HashKeyRange::builder().starting_hash_key("0").ending_hash_key("9");
        let range = range.build().expect("complete");
        let sequence = aws_sdk_kinesis::types::SequenceNumberRange::builder().starting_sequence_number("1");
        let sequence = sequence.build().expect("complete");
        numbers
            .map(|number| {
                let shard = shard(number).hash_key_range(range.clone()).sequence_number_range(sequence.clone());
                shard.build().expect("complete")
            })
            .collect()
    }

    #[test]
    fn a_list_that_does_not_go_on_is_a_failure() {
        let mut listing = Listing::default();
        listing.add(page(0..10), false).expect("new ones");
        listing.add(page(5..11), false).expect("a new one");
        assert!(listing.add(page(0..11), false).expect_err("none").contains("nothing new"));
        listing.add(Vec::new(), true).expect("it is the last");
        assert_eq!(listing.shards.len(), 11);
    }

    #[test]
    fn a_list_of_too_many_is_a_failure() {
        let mut listing = Listing::default();
        listing.add(page(0..SHARDS_MAX), false).expect("that many there may be");
        assert!(listing.add(page(SHARDS_MAX..30_000), true).expect_err("too many").contains("20000"));
    }
}
