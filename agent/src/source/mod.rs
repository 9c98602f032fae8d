//! Sources: what brings records in. A family: one file or folder per type, all with a `Config` and an `async fn run`.
//!
//! A source acknowledges its device only after the record is durable. It never sees the log, only [`Ingest`].

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::ingest::{Fields, Ingest, PartitionKeyTemplate, Rendered, shorten};

mod kind;
pub mod mqtt;
pub mod mqtt_broker;
pub mod shape;
pub mod stats;

pub use kind::{Settings, Source, TYPES};
pub use stats::SourceStats;

/// What every source is given.
#[derive(Clone)]
pub struct SourceContext {
    /// Its name in the configuration.
    pub name: Arc<str>,
    /// The door into its stream.
    pub ingest: Ingest,
    /// How its records get their partition keys.
    pub partition_key: PartitionKeyTemplate,
    /// What it counts.
    pub stats: Arc<SourceStats>,
    /// Cancelled when it is to stop: take nothing new, finish what is on its way to the disk, acknowledge it, return.
    pub stop: CancellationToken,
}

impl SourceContext {
    /// Writes the record's partition key to `out`: always one that the log takes, so that no record is lost for its key.
    ///
    /// A record that cannot fill the template gets its topic for a key (or its client id, or the source's name), is
    /// counted as `"key-fallback"` and told once per episode. A shortened key is counted as `"key-shortened"`.
    pub fn key_for(&self, fields: &Fields<'_>, out: &mut String) {
        let rendered = self.partition_key.render(fields, out).unwrap_or_else(|error| {
            out.clear();
            let known = [fields.topic, fields.client_id, Some(&*self.name)];
            out.push_str(known.into_iter().flatten().find(|text| !text.is_empty()).unwrap_or("-"));
            let rendered = shorten(out);
            if self.stats.refused("key-fallback") {
                tracing::warn!(source = &*self.name, %error, key = %out, "partition key cannot be made; another is used");
            }
            rendered
        });
        if rendered == Rendered::Shortened && self.stats.refused("key-shortened") {
            let reason = "key-shortened";
            tracing::warn!(source = &*self.name, reason, key = %out, "partition key has over 256 characters; it is shortened");
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
            stats: Arc::clone(&stats),
            stop: CancellationToken::new(),
        };
        let mut key = String::new();
        let keys = topics.iter().map(|topic| {
            context.key_for(&Fields { topic: *topic, client_id: None, payload: b"21.5" }, &mut key);
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
