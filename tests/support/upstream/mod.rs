//! An endpoint that takes PutRecords as AWS does, remembers what it took, and misbehaves as it is told.
//!
//! It refuses what Kinesis refuses (limits, wrong protocol) unless a script says otherwise, and it is fast enough not to
//! be what a throughput test measures (on two cores, a test build takes 800,000 records of 100 bytes a second). It has one
//! stream of every name, all with the same shards, which it lists (ListShards), and never gives records back: tests that
//! read through a real client use kinesalite or moto.

mod reply;
mod server;
mod shards;
mod wire;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

pub(crate) use reply::Reply;
pub(crate) use shards::{Shard, Shards, hash_key};
pub(crate) use wire::{PutRecords, SentRecord};

use super::kpl::consumed;
use super::port::free_port;
use super::wait::eventually;

/// A record that the upstream took; in [`Upstream::accepted`] they are in the order in which it did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Accepted {
    pub(crate) stream: String,
    pub(crate) partition_key: String,
    pub(crate) explicit_hash_key: Option<String>,
    pub(crate) data: Vec<u8>,
    /// The shard that took it, as it was then.
    pub(crate) shard: Shard,
    /// Number of the request that brought it, from 0.
    pub(crate) request: u64,
}

impl Accepted {
    /// What a consumer gets of it: partition key and data of each record.
    #[track_caller]
    pub(crate) fn consumed(&self) -> Vec<(String, Vec<u8>)> {
        consumed(self.partition_key.clone(), self.data.clone(), &(self.shard.first..=self.shard.last))
    }
}

/// A request that reached the upstream, whatever became of it.
#[derive(Debug, Clone)]
pub(crate) struct Arrived {
    pub(crate) at: Instant,
    pub(crate) stream: String,
    pub(crate) records: usize,
    /// Data and partition keys, as Kinesis counts them.
    pub(crate) bytes: usize,
}

/// Whether the records themselves are kept; a long throughput test wants only their number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keep {
    Records,
    CountOnly,
}

/// A running endpoint on 127.0.0.1.
pub(crate) struct Upstream {
    port: u16,
    memory: Arc<Memory>,
    server: server::Server,
}

impl Upstream {
    /// Starts one that accepts everything, with one shard.
    pub(crate) fn start() -> Self {
        Self::start_with(Keep::Records, 1)
    }

    pub(crate) fn start_keeping(keep: Keep) -> Self {
        Self::start_with(keep, 1)
    }

    /// As [`Upstream::start`], with so many shards.
    pub(crate) fn start_divided(shards: usize) -> Self {
        Self::start_with(Keep::Records, shards)
    }

    fn start_with(keep: Keep, shards: usize) -> Self {
        let port = free_port();
        let memory = Arc::new(Memory::new(keep, shards));
        let server = server::Server::start(port, Arc::clone(&memory));
        Self { port, memory, server }
    }

    /// `http://127.0.0.1:PORT`
    pub(crate) fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Its port.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// How the next requests are answered, one reply each, after those scripted before.
    pub(crate) fn script(&self, replies: impl IntoIterator<Item = Reply>) {
        self.memory.lock().script.extend(replies);
    }

    /// How every request is answered for which nothing is scripted, from now on.
    pub(crate) fn otherwise(&self, decide: impl FnMut(&PutRecords) -> Reply + Send + 'static) {
        self.memory.lock().otherwise = Box::new(decide);
    }

    /// How every question for the shards is answered from now on; the rule is given all of them, closed ones too.
    /// [`Reply::Accept`] lists them as they are.
    pub(crate) fn listing(&self, decide: impl FnMut(&[Shard]) -> Reply + Send + 'static) {
        self.memory.lock().listing = Box::new(decide);
    }

    /// How often the shards were asked for; each page counts.
    pub(crate) fn listed(&self) -> u64 {
        self.memory.lock().listed
    }

    /// Its shards.
    pub(crate) fn shards(&self) -> Shards {
        self.memory.shards.clone()
    }

    /// Accepts everything from now on: forgets what is scripted, and ends the silence of [`Reply::Hang`] by cutting
    /// those connections.
    pub(crate) fn behave(&self) {
        {
            let mut state = self.memory.lock();
            state.script.clear();
            state.otherwise = Box::new(|_| Reply::Accept);
            state.listing = Box::new(|_| Reply::Accept);
        }
        self.server.cut_hanging();
    }

    /// Stops listening and resets every connection: the endpoint cannot be reached.
    pub(crate) fn link_down(&self) {
        self.server.link_down();
    }

    /// Listens again, on the same port.
    pub(crate) fn link_up(&self) {
        self.server.link_up();
    }

    /// All records taken so far, in the order in which they were.
    pub(crate) fn accepted(&self) -> Vec<Accepted> {
        self.memory.lock().accepted.clone()
    }

    /// As [`Upstream::accepted`], without the first ones.
    pub(crate) fn accepted_since(&self, place: usize) -> Vec<Accepted> {
        self.memory.lock().accepted[place..].to_vec()
    }

    /// How many records were taken, those counted too that are not kept.
    pub(crate) fn accepted_count(&self) -> u64 {
        self.memory.lock().accepted_count
    }

    /// All requests so far.
    pub(crate) fn arrived(&self) -> Vec<Arrived> {
        self.memory.lock().arrived.clone()
    }

    /// Waits until at least this many records were taken.
    #[track_caller]
    pub(crate) fn wait_for(&self, count: u64, within: Duration) {
        eventually(within, &format!("{count} records reach the upstream"), || self.accepted_count() >= count);
    }
}

/// What the endpoint knows and how it is told to behave; shared with the connections.
struct Memory {
    state: Mutex<State>,
    shards: Shards,
}

/// Says how a question for the shards is answered, given all there are.
type ListingRule = Box<dyn FnMut(&[Shard]) -> Reply + Send>;

struct State {
    keep: Keep,
    script: VecDeque<Reply>,
    otherwise: Box<dyn FnMut(&PutRecords) -> Reply + Send>,
    listing: ListingRule,
    listed: u64,
    accepted: Vec<Accepted>,
    accepted_count: u64,
    arrived: Vec<Arrived>,
}

impl Memory {
    fn new(keep: Keep, shards: usize) -> Self {
        Self {
            shards: Shards::new(shards),
            state: Mutex::new(State {
                keep,
                script: VecDeque::new(),
                otherwise: Box::new(|_| Reply::Accept),
                listing: Box::new(|_| Reply::Accept),
                listed: 0,
                accepted: Vec::new(),
                accepted_count: 0,
                arrived: Vec::new(),
            }),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("a test's rules do not panic")
    }

    /// Chooses how to answer a question for the shards.
    fn list(&self) -> Reply {
        let mut state = self.lock();
        state.listed += 1;
        (state.listing)(&self.shards.all())
    }

    /// Takes those records of a request that are not refused; says per record what became of it.
    fn take(
        &self,
        number: u64,
        request: PutRecords,
        refused: impl Fn(usize) -> Option<&'static str>,
    ) -> Vec<wire::Outcome> {
        let mut state = self.lock();
        let PutRecords { stream, records, .. } = request;
        let mut outcomes = Vec::with_capacity(records.len());
        for (index, record) in records.into_iter().enumerate() {
            if let Some(code) = refused(index) {
                outcomes.push(wire::Outcome::Refused { code });
                continue;
            }
            let shard = self.shards.of(&record.partition_key, record.explicit_hash_key.as_deref());
            outcomes
                .push(wire::Outcome::Taken { sequence_number: state.accepted_count, shard_id: Arc::clone(&shard.id) });
            state.accepted_count += 1;
            if state.keep == Keep::Records {
                state.accepted.push(Accepted {
                    stream: stream.clone(),
                    partition_key: record.partition_key,
                    explicit_hash_key: record.explicit_hash_key,
                    data: record.data,
                    shard,
                    request: number,
                });
            }
        }
        outcomes
    }
}

impl State {
    /// Notes a request and chooses how to answer it.
    fn decide(&mut self, request: &PutRecords) -> (u64, Reply) {
        let number = self.arrived.len() as u64;
        self.arrived.push(Arrived {
            at: Instant::now(),
            stream: request.stream.clone(),
            records: request.records.len(),
            bytes: request.bytes(),
        });
        let reply = self.script.pop_front().unwrap_or_else(|| (self.otherwise)(request));
        (number, reply)
    }
}
