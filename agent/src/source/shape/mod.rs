//! Shaping: what every source can do with a record before it is stored. All of it is optional, and per source.
//!
//! The steps, in their order, each in a file of its own: `decode`, `timestamp`, `filter`, `sample`, `deduplicate`, `select`
//! and `rename`, `tags`, `envelope`; docs/shaping.md has an example of each, and its examples are tests.
//! Pure, but for what it counts: times are passed in. A step that looks into a record takes it for JSON, so without
//! `decode` the payload has to be JSON then; it is read once and written once, and what no step touches keeps its bytes.
//! Without any step a record is stored as it came.
//!
//! Nothing is lost silently: everything that does not come out, or comes out otherwise than it should, is counted by
//! reason (see [`Shape::counted_by`]). A record that a step cannot read is kept by default.

mod config;
mod decode;
mod document;
mod envelope;
mod field;
mod filter;
mod pass;
mod project;
#[cfg(test)]
mod tests;
mod thin;
mod timestamp;

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use forebay_log_store::{Tag, Timestamp};

pub use self::config::Config;
#[cfg(any(test, fuzzing))]
pub use self::decode::fuzz;
use self::{decode::Headers, thin::Memory};
use super::SourceStats;
use crate::ingest::{Fields, PartitionKeyTemplate};

/// The steps of one source, and what they remember. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Shape {
    /// `None` if there are none.
    steps: Option<Arc<Steps>>,
    state: Arc<State>,
}

/// The steps, checked.
#[derive(Debug, Clone)]
struct Steps {
    decode: Option<decode::Decode>,
    keep_undecodable: bool,
    timestamp: Option<timestamp::Timestamp>,
    filter: Option<filter::Condition>,
    sample: Option<thin::Rule>,
    deduplicate: Option<thin::Rule>,
    project: Option<project::Projection>,
    tags: Vec<Tag>,
    envelope: bool,
}

/// What a source's steps remember.
#[derive(Debug, Default)]
struct State {
    gateway: String,
    source: String,
    /// Of the next envelope.
    sequence: AtomicU64,
    sampled: Mutex<Memory>,
    deduplicated: Mutex<Memory>,
    headers: Headers,
    stats: Option<Arc<SourceStats>>,
}

/// What came in.
#[derive(Debug, Clone, Copy)]
pub struct Raw<'a> {
    /// As the device sent it.
    pub payload: &'a [u8],
    /// What else the device, or the source, says of it.
    pub tags: &'a [Tag],
    /// For the templates of `sample` and `deduplicate`; its payload is not looked at.
    pub fields: Fields<'a>,
    /// When.
    pub now: Arrived,
}

/// A record that came out.
#[derive(Debug, Clone, Copy)]
pub struct Shaped<'a> {
    /// Which one it is of those in a payload that may hold several, from 1.
    pub number: Option<usize>,
    /// What is to be stored.
    pub data: &'a [u8],
    /// The tags that go with it.
    pub tags: &'a [Tag],
    /// The whole record, before `select`, `rename` and `envelope`: what a partition key is made of.
    pub decoded: &'a [u8],
}

/// When something arrived, by the log's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrived {
    /// The wall time, which may be wrong by decades unless it is trusted.
    pub at: Timestamp,
    /// Whether a trusted clock told it.
    pub trusted: bool,
    /// Monotonic time since any fixed moment, for windows and intervals.
    pub since_boot: Duration,
}

/// A record that could not be decoded, and is not to be kept then.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("it is not {format}: {why}")]
pub struct Undecodable {
    /// As in [`Shaped::number`].
    pub number: Option<usize>,
    /// What it was to be.
    pub format: &'static str,
    /// A sentence fragment.
    pub why: String,
}

/// Where a record stands in a payload of several, for messages.
pub struct Place(pub Option<usize>);

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.map_or(Ok(()), |number| write!(f, "record {number} in it: "))
    }
}

impl Shape {
    fn of(steps: Option<Steps>) -> Self {
        Self { steps: steps.map(Arc::new), state: Arc::default() }
    }

    /// Whether there are no steps: then every record is stored as it came, and [`Shape::apply`] need not be called.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        self.steps.is_none()
    }

    /// The templates in it and their keys, for whoever knows what its type of source can fill.
    pub fn templates(&self) -> impl Iterator<Item = (&'static str, &PartitionKeyTemplate)> {
        let rules = self
            .steps
            .iter()
            .flat_map(|steps| [("sample.per", steps.sample.as_ref()), ("deduplicate.by", steps.deduplicate.as_ref())]);
        rules.filter_map(|(key, rule)| Some((key, rule?.key.as_ref()?)))
    }

    /// Whether records are put into envelopes, which are numbered.
    #[must_use]
    pub fn has_envelope(&self) -> bool {
        self.steps.as_ref().is_some_and(|steps| steps.envelope)
    }

    /// The same steps for a source that starts, with nothing remembered yet. Its envelopes are numbered from `base`, which has
    /// to be above every number given before.
    #[must_use]
    pub fn for_source(&self, gateway: &str, source: &str, base: u64) -> Self {
        let (gateway, source) = (gateway.to_owned(), source.to_owned());
        let sequence = AtomicU64::new(base);
        Self { steps: self.steps.clone(), state: Arc::new(State { gateway, source, sequence, ..State::default() }) }
    }

    /// The same for a source that counts here what its steps do: `"filtered"`, `"sampled-out"`, `"duplicate"` because it was
    /// told to; and as trouble, told once per episode, `"undecodable"`, `"no-timestamp"`, `"no-key"`,
    /// `"not-an-object"`, `"rename-conflict"` and `"window-full"`. To be called at the start, with nothing remembered yet.
    #[must_use]
    pub fn counted_by(&self, stats: Arc<SourceStats>) -> Self {
        let State { gateway, source, sequence, .. } = &*self.state;
        let (gateway, source) = (gateway.clone(), source.clone());
        let sequence = AtomicU64::new(sequence.load(Relaxed));
        let state = State { gateway, source, sequence, stats: Some(stats), ..State::default() };
        Self { steps: self.steps.clone(), state: Arc::new(state) }
    }

    /// Calls `take` for each record that comes out: none (it was filtered, sampled out, or a duplicate), one, or several (a
    /// payload of CSV or NDJSON may hold several); and for each that is refused for a fault, which the caller counts and tells.
    pub fn apply(&self, raw: &Raw<'_>, take: &mut dyn FnMut(Result<Shaped<'_>, Undecodable>)) {
        match &self.steps {
            None => take(Ok(Shaped { number: None, data: raw.payload, tags: raw.tags, decoded: raw.payload })),
            Some(steps) => pass::Pass::new(steps, &self.state, raw, take).run(),
        }
    }

    /// Forgets which records were sampled and deduplicated. To be called when the log refused what came out: the device
    /// sends it again then, and it must not be taken for a duplicate of what was never stored.
    pub fn forget(&self) {
        for memory in [&self.state.sampled, &self.state.deduplicated] {
            *memory.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Memory::default();
        }
    }
}

impl Steps {
    /// Whether one of them looks into records.
    fn look_inside(&self) -> bool {
        self.timestamp.is_some() || self.filter.is_some() || self.project.is_some()
    }
}

impl Default for Steps {
    fn default() -> Self {
        Self {
            decode: None,
            keep_undecodable: true,
            timestamp: None,
            filter: None,
            sample: None,
            deduplicate: None,
            project: None,
            tags: Vec::new(),
            envelope: false,
        }
    }
}
