//! What most sources put their records into: it makes records out of what came, and brings them to the log in order.
//!
//! It is for devices that repeat nothing. A batch that the log refuses is kept and offered again, with those behind it, until
//! the log takes them; only a log that is gone ends that. While it has no room, its source takes nothing new from the device, or counts
//! what it cannot hold back.

use std::{collections::VecDeque, mem, time::Duration};

use forebay_log_store::{Batch, Error, Tag};
use tokio::time::{Instant, sleep_until};

use super::{
    SourceContext, Unfit,
    commits::{Commits, Progress},
};
use crate::ingest::Fields;

/// A batch grows up to this while the one before it is being offered. One record may be larger.
const BATCH_BYTES_MAX: usize = 512 * 1024;

/// The same in records, where a rate limit counts them: well below what a shard takes in a second, for which an offer has to wait.
const LIMITED_BATCH_RECORDS_MAX: usize = 500;

/// And where none does.
const BATCH_RECORDS_MAX: usize = 10_000;

/// Encoded bytes that may be on their way to the disk.
const IN_FLIGHT_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Pause before what the log has refused is offered again.
const AGAIN_AFTER: Duration = Duration::from_millis(200);

/// How long a stop waits for what is on its way. A full stream can take for ever.
const PATIENCE: Duration = Duration::from_millis(1500);

/// The records of one device, file or connection, on their way to the log.
pub struct Intake<T = ()> {
    context: SourceContext,
    batch: Batch,
    records_max: usize,
    /// Of the records in `batch`.
    with: T,
    commits: Commits<T>,
    /// What the log has refused and is to take first, in order.
    refused: VecDeque<(Batch, T)>,
    /// Whether what is in flight is awaited before anything is offered again.
    recovering: bool,
    /// Something came since the last batch was offered, though it may have made no record.
    touched: bool,
    /// When what was refused is offered again. Kept here, since a source that hears often drops the wait as often.
    again_at: Option<Instant>,
    key: String,
}

impl<T: Default> Intake<T> {
    /// An empty one; records that go through one intake keep their order.
    #[must_use]
    pub fn new(context: &SourceContext) -> Self {
        Self {
            batch: context.ingest.batch(),
            records_max: if context.ingest.is_limited() { LIMITED_BATCH_RECORDS_MAX } else { BATCH_RECORDS_MAX },
            with: T::default(),
            commits: Commits::new(context.ingest.for_connection()),
            refused: VecDeque::new(),
            recovering: false,
            touched: false,
            again_at: None,
            key: String::new(),
            context: context.clone(),
        }
    }

    /// Takes what came: makes records of it as the source is configured. What cannot be stored is counted and told.
    pub fn add(&mut self, fields: &Fields<'_>, tags: &[Tag]) {
        self.touched = true;
        if let Err(error) = self.context.add(fields, tags, &mut self.batch, &mut self.key) {
            self.context.dropped(&Unfit::NotStorable(error), fields.origin());
        }
    }

    /// The batch that [`Intake::add`] fills, for marks.
    pub fn batch(&mut self) -> &mut Batch {
        &mut self.batch
    }

    /// What comes back from [`Intake::progress`] once the records that were added up to now are durable.
    pub fn with(&mut self) -> &mut T {
        &mut self.with
    }

    /// Whether the source may take more from its device.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.batch.encoded_bytes() < BATCH_BYTES_MAX
            && self.batch.len() < self.records_max
            && self.commits.bytes() < IN_FLIGHT_BYTES_MAX
            && self.refused.is_empty()
    }

    /// Whether everything that was taken is durable.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.batch.is_empty() && !self.touched && self.refused.is_empty() && self.commits.is_idle()
    }

    /// Sends off what was added as far as that is possible now, and waits until something happens to what was sent: gives
    /// what [`Intake::with`] held once its batch is durable. For ever if there is nothing.
    ///
    /// # Errors
    /// The log is closed or its stream is gone: nothing more is ever stored.
    ///
    /// # Cancel safety
    /// Nothing is lost if it is dropped. It belongs into the source's `select!`, beside the device.
    pub async fn progress(&mut self) -> Result<Option<T>, Error> {
        self.send();
        if self.recovering && self.commits.is_idle() {
            sleep_until(*self.again_at.get_or_insert_with(|| Instant::now() + AGAIN_AFTER)).await;
            self.again_at = None;
            // A new door: the old one lets nothing through any more.
            self.commits = Commits::new(self.context.ingest.for_connection());
            self.recovering = false;
            return Ok(None);
        }
        match self.commits.progress().await {
            Progress::Offered => Ok(None),
            Progress::Durable { with, records, payload_bytes } => {
                self.context.stats.stored(records, payload_bytes);
                Ok(Some(with))
            }
            Progress::Failed { with, error, batch } => {
                let gone = matches!(error, Error::Closed);
                let Some(batch) = batch.filter(|_| !gone) else { return Err(error) };
                self.recovering = true;
                self.refused.push_back((batch, with));
                self.context.stats.failed(format!("the log refused records, which wait for it: {error}"));
                Ok(None)
            }
        }
    }

    /// Waits until everything is durable, when the source stops. What is not by then is counted as `"stopped"`.
    pub async fn finish(mut self) {
        let all = async {
            while !self.is_idle() {
                if self.progress().await.is_err() {
                    break;
                }
            }
        };
        if tokio::time::timeout(PATIENCE, all).await.is_err() || !self.is_idle() {
            let waiting = self.batch.len() + self.refused.iter().map(|(batch, _)| batch.len()).sum::<usize>();
            // Of those under way some may be stored all the same.
            let records = waiting as u64 + self.commits.records();
            self.context.stats.refused_many("stopped", records);
            let source = &*self.context.name;
            tracing::warn!(source, records, "stopped before everything that came was stored");
        }
    }

    fn send(&mut self) {
        if self.recovering || !self.commits.may_offer() {
            return;
        }
        if let Some((batch, with)) = self.refused.pop_front() {
            self.commits.offer(batch, with);
        } else if !self.batch.is_empty() || self.touched {
            // Also without a record, as when all were filtered out: what goes with it has its turn.
            self.touched = false;
            let batch = mem::replace(&mut self.batch, self.context.ingest.batch());
            self.commits.offer(batch, mem::take(&mut self.with));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use forebay_log_store::{
        OnFull, RateLimit, ReadLimit, Start, Store, StoreConfig, Stream, StreamConfig, SystemClock,
    };
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::{
        ingest::{Ingest, PartitionKeyTemplate},
        source::SourceStats,
    };

    struct Gateway {
        context: SourceContext,
        store: Store,
        stream: Stream,
        _dir: tempfile::TempDir,
    }

    fn gateway(limit: Option<RateLimit>, quota: u64) -> Gateway {
        let dir = tempfile::tempdir().expect("a directory");
        let store = Store::open(StoreConfig::new(dir.path()), SystemClock::new(), |_| {}).expect("a store");
        let config =
            StreamConfig { rate_limit: None, quota, on_full: OnFull::Reject, ..StreamConfig::new("telemetry") };
        let stream = store.stream(config).expect("a stream");
        let ingest = Ingest::new(stream.clone(), 1 << 20);
        let context = SourceContext {
            name: "plant".into(),
            ingest: limit.map_or(ingest.clone(), |limit| ingest.limited(limit)),
            partition_key: PartitionKeyTemplate::parse("{source}").expect("a template"),
            max_record: 1000,
            shaping: Default::default(),
            stats: Arc::new(SourceStats::default()),
            stop: CancellationToken::new(),
        };
        Gateway { context, store, stream, _dir: dir }
    }

    impl Gateway {
        fn stored(&self) -> Vec<String> {
            let mut cursor = self.stream.cursor(Start::Oldest);
            let mut stored = Vec::new();
            loop {
                let records = cursor.read(ReadLimit { records: 1000, payload_bytes: 1 << 20 }).expect("readable");
                if records.is_empty() {
                    return stored;
                }
                stored.extend(records.iter().map(|record| String::from_utf8_lossy(&record.data).into_owned()));
            }
        }
    }

    fn add<T: Default>(intake: &mut Intake<T>, payload: &str) {
        intake.add(&Fields { source: "plant", named: &[], payload: payload.as_bytes(), byte: None }, &[]);
    }

    #[tokio::test]
    async fn what_was_added_is_stored_in_order_and_then_told() {
        let gateway = gateway(None, 1 << 30);
        let mut intake = Intake::<u32>::new(&gateway.context);
        let mut done = 0;
        for number in 0..5000 {
            while !intake.has_room() {
                done = intake.progress().await.expect("an open log").unwrap_or(done);
            }
            add(&mut intake, &number.to_string());
            *intake.with() = number + 1;
        }
        add(&mut intake, &"x".repeat(1001));
        while !intake.is_idle() {
            done = intake.progress().await.expect("an open log").unwrap_or(done);
        }
        assert_eq!(done, 5000);
        assert_eq!(gateway.stored(), (0..5000).map(|number| number.to_string()).collect::<Vec<_>>());
        assert_eq!(gateway.context.stats.refusals(), [("oversize", 1)].into());
        gateway.store.close();
    }

    #[tokio::test(start_paused = true)]
    async fn a_source_may_bring_no_more_than_its_limit() {
        let limit = RateLimit { records_per_second: 10, bytes_per_second: 1 << 20 };
        let gateway = gateway(Some(limit), 1 << 30);
        let mut intake = Intake::<()>::new(&gateway.context);
        // Eleven batches of one record: a second's worth at once, and one that has to wait.
        for number in 0..11 {
            add(&mut intake, &number.to_string());
            let mut offered = std::pin::pin!(intake.progress());
            let waits = std::future::poll_fn(|cx| std::task::Poll::Ready(offered.as_mut().poll(cx).is_pending())).await;
            assert_eq!(waits, number == 10, "{number}");
        }
        gateway.store.close();
    }

    #[tokio::test]
    async fn a_closed_log_ends_it() {
        let gateway = gateway(None, 1 << 30);
        let mut intake = Intake::<()>::new(&gateway.context);
        gateway.store.close();
        add(&mut intake, "too late");
        let outcome = loop {
            match intake.progress().await {
                Ok(_) => {}
                Err(error) => break error,
            }
        };
        assert!(matches!(outcome, Error::Closed), "{outcome}");
    }
}
