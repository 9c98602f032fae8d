//! Sources: what brings records in. A family: one file or folder per type, all with a row in the table of [`TYPES`].
//!
//! A source acknowledges its device, or saves its position, only after the record is durable. It never sees the log, only
//! [`Ingest`]; most of them put what comes into an [`Intake`] and know no more.

use std::sync::Arc;

use forebay_log_store::{Batch, Error, NewRecord, Tag};
use tokio_util::sync::CancellationToken;

use crate::ingest::{Fields, Ingest, Origin, PartitionKeyTemplate, Rendered, shorten};

mod accept;
mod commits;
pub mod exec;
pub mod gps;
pub mod http;
mod intake;
pub mod journald;
mod kind;
mod modbus;
pub mod mqtt;
pub mod mqtt_broker;
mod mqtt_tags;
mod pump;
mod reconnect;
mod retry;
pub mod sensor;
mod serial;
pub mod shape;
mod shaping;
mod shared;
pub mod socket;
pub mod stats;
pub mod stdin;
pub mod tail;
mod trouble;

use shape::{Place, Raw, Undecodable};

pub use intake::Intake;
pub use kind::{BoxFuture, Config, Settings, Source, TYPES, Type};
pub use shaping::Shaping;
pub use shared::{Config as SharedConfig, Shared};
pub use stats::SourceStats;

/// Why a record is not stored, though nobody asked for that.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unfit {
    #[error("{}{bytes} bytes are more than max-record, which is {max_record}", Place(*number))]
    Oversize { number: Option<usize>, bytes: u64, max_record: usize },
    #[error("{}{_0}", Place(_0.number))]
    Undecodable(Undecodable),
    /// The log does not take such a record.
    #[error("{_0}")]
    NotStorable(Error),
}

impl Unfit {
    /// What it is counted by.
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::Oversize { .. } => "oversize",
            Self::Undecodable(_) => "undecodable",
            Self::NotStorable(_) => "not-storable",
        }
    }
}

/// What every source is given.
#[derive(Clone)]
pub struct SourceContext {
    /// Its name in the configuration.
    pub name: Arc<str>,
    /// The door into its stream.
    pub ingest: Ingest,
    /// How its records get their partition keys.
    pub partition_key: PartitionKeyTemplate,
    /// Largest data of a record, in bytes.
    pub max_record: usize,
    /// What is made of what comes, before it is stored.
    pub shaping: Shaping,
    /// What it counts.
    pub stats: Arc<SourceStats>,
    /// Cancelled when it is to stop: take nothing new, finish what is on its way to the disk, acknowledge it, return.
    pub stop: CancellationToken,
}

impl SourceContext {
    /// Adds to `batch` what the source is configured to make of something that came; `key` is memory that is used again.
    ///
    /// What does not fit is counted (as `"oversize"` or `"undecodable"`), told and left out. So it may add nothing, or several
    /// records. Once the log has refused a batch with something that the device sends again, call [`Shaping::forget`].
    ///
    /// # Errors
    /// The log does not take such a record; others of the same payload are added all the same.
    pub fn add(&self, fields: &Fields<'_>, tags: &[Tag], batch: &mut Batch, key: &mut String) -> Result<(), Error> {
        let mut outcome = Ok(());
        self.make(fields, tags, batch, key, &mut |unfit| match unfit {
            Unfit::NotStorable(error) => {
                if outcome.is_ok() {
                    outcome = Err(error);
                }
            }
            unfit => self.dropped(&unfit, fields.origin()),
        });
        outcome
    }

    /// The same for whoever answers for each record: calls `unfit` for what does not fit, and neither counts nor tells it.
    pub(crate) fn make(
        &self,
        fields: &Fields<'_>,
        tags: &[Tag],
        batch: &mut Batch,
        key: &mut String,
        unfit: &mut dyn FnMut(Unfit),
    ) {
        let mut push =
            |number, fields: &Fields<'_>, data: &[u8], tags: &[Tag]| self.push(number, fields, data, tags, batch, key);
        let Some((shape, now)) = self.shaping.now() else {
            return push(None, fields, fields.payload, tags).unwrap_or_else(unfit);
        };
        let raw = Raw { payload: fields.payload, tags, fields: *fields, now };
        shape.apply(&raw, &mut |outcome| {
            let pushed = outcome.map_err(Unfit::Undecodable).and_then(|shaped| {
                push(shaped.number, &Fields { payload: shaped.decoded, ..*fields }, shaped.data, shaped.tags)
            });
            pushed.unwrap_or_else(&mut *unfit);
        });
    }

    /// The payload of the fields is what the partition key is made of.
    fn push(
        &self,
        number: Option<usize>,
        fields: &Fields<'_>,
        data: &[u8],
        tags: &[Tag],
        batch: &mut Batch,
        key: &mut String,
    ) -> Result<(), Unfit> {
        if data.len() > self.max_record {
            return Err(Unfit::Oversize { number, bytes: data.len() as u64, max_record: self.max_record });
        }
        self.key_for(fields, key);
        let pushed = batch.push(&NewRecord { partition_key: key, explicit_hash_key: None, tags, data });
        pushed.map(drop).map_err(Unfit::NotStorable)
    }

    /// Counts and tells that something is larger than `max-record`, so far as it is known, and is not stored.
    pub(crate) fn oversize(&self, bytes: u64, from: Origin<'_>) {
        self.dropped(&Unfit::Oversize { number: None, bytes, max_record: self.max_record }, from);
    }

    /// Counts and tells that a record is not stored.
    pub(crate) fn dropped(&self, unfit: &Unfit, from: Origin<'_>) {
        let reason = unfit.reason();
        if self.stats.refused(reason) {
            tracing::error!(source = &*self.name, reason, %from, error = %unfit, "a record is not stored; dropped");
            self.stats.failed(format!("a record of {from} is not stored: {unfit}"));
        }
    }

    /// Writes the record's partition key to `out`: always one that the log takes, so that no record is lost for its key.
    ///
    /// A record that cannot fill the template gets the first thing for a key that is known of it (its topic, its host, its file), or
    /// the source's name; it is counted as `"key-fallback"` and told once per episode. A shortened key is counted as `"key-shortened"`.
    fn key_for(&self, fields: &Fields<'_>, out: &mut String) {
        let rendered = self.partition_key.render(fields, out).unwrap_or_else(|error| {
            out.clear();
            let known = fields.named.iter().map(|(_, value)| *value);
            out.push_str(known.chain([fields.source]).find(|text| !text.is_empty()).unwrap_or("-"));
            let rendered = shorten(out);
            if self.stats.refused("key-fallback") {
                let from = fields.origin();
                tracing::warn!(source = &*self.name, %from, %error, key = %out, "partition key cannot be made; another is used");
            }
            rendered
        });
        if rendered == Rendered::Shortened && self.stats.refused("key-shortened") {
            let (reason, from) = ("key-shortened", fields.origin());
            tracing::warn!(source = &*self.name, reason, %from, key = %out, "partition key has over 256 characters; it is shortened");
        }
    }
}

#[cfg(test)]
mod tests {
    use forebay_log_store::{Store, StoreConfig, StreamConfig, SystemClock};

    use super::*;

    fn keys_of(template: &str, topics: &[Option<&str>]) -> (Vec<String>, Arc<SourceStats>) {
        let dir = tempfile::tempdir().expect("a directory");
        let store = Store::open(StoreConfig::new(dir.path()), SystemClock::new(), |_| {}).expect("a store");
        let stream = store.stream(StreamConfig::new("telemetry")).expect("a stream");
        let stats = Arc::new(SourceStats::default());
        let context = SourceContext {
            name: "plant".into(),
            ingest: Ingest::new(stream, 1 << 20),
            partition_key: PartitionKeyTemplate::parse(template).expect("a template"),
            max_record: 1 << 20,
            shaping: Shaping::default(),
            stats: Arc::clone(&stats),
            stop: CancellationToken::new(),
        };
        let mut key = String::new();
        let keys = topics.iter().map(|topic| {
            let named: Vec<_> = topic.iter().map(|topic| ("topic", *topic)).collect();
            context.key_for(&Fields { source: "plant", named: &named, payload: b"21.5", byte: None }, &mut key);
            key.clone()
        });
        (keys.collect(), stats)
    }

    #[test]
    fn a_record_that_cannot_fill_the_template_gets_another_key() {
        let long = "x".repeat(300);
        let (keys, stats) = keys_of("{json:/device}", &[Some("a/b"), Some(&long), Some(""), None]);
        assert_eq!(keys[0], "a/b");
        assert_eq!((keys[1].len(), &keys[1][..224]), (256, &*format!("{}-", "x".repeat(223))));
        assert_eq!(keys[2..], ["plant", "plant"]);
        assert_eq!(stats.refusals(), [("key-fallback", 4), ("key-shortened", 1)].into());
    }

    #[test]
    fn a_key_as_the_template_says_is_not_counted() {
        let (keys, stats) = keys_of("{topic[1]}", &[Some("a/b")]);
        assert_eq!((keys, stats.refusals().len()), (vec!["b".to_owned()], 0));
    }
}
