//! What happens to the log: it is opened, appended to, changed, told the time and closed, and its power is cut.

use super::*;
use crate::{
    catalogue::KvError,
    clock::{Clock as _, Now, Trust},
    error::{Appended, Error, Refused},
    record::NewRecord,
    shard::ShardChange,
    store::WhenFull,
};

impl Simulation {
    pub(super) fn open(&mut self) -> Result<(), Error> {
        if !self.has_room_for_catalogue {
            self.catalogue_is_not_there();
        }
        let parts = self.open_parts()?;
        let stream = parts.stream(&self.store_config, self.stream_config.clone())?;
        self.running = Some((parts, Some(stream)));
        self.judge_drops();
        self.note_certainty();
        Ok(())
    }

    /// Opens the store, but no stream of it.
    pub(super) fn open_without_stream(&mut self) -> Result<(), Error> {
        self.running = Some((self.open_parts()?, None));
        Ok(())
    }

    fn open_parts(&self) -> Result<Parts, Error> {
        let events = Arc::clone(&self.events);
        Parts::open(
            &self.store_config,
            Arc::new(self.disk.clone()),
            &|_| match self.has_room_for_catalogue {
                true => Ok(Box::new(self.kv.clone())),
                false => Err(KvError { reason: "no space left".into(), is_full: true }),
            },
            self.clock.clone(),
            Arc::new(move |event| events.lock().expect("unpoisoned").push(event)),
        )
    }

    /// Takes over a changed configuration while it runs.
    pub(super) fn configure(&mut self) -> Result<(), Error> {
        let (parts, _) = self.running.as_ref().expect("open");
        parts.stream(&self.store_config, self.stream_config.clone()).map(drop)
    }

    pub(super) fn note(&self) -> Option<String> {
        let (parts, _) = self.running.as_ref().expect("open");
        parts.note(&self.store_config, "telemetry").expect("readable")
    }

    /// Deletes the stream; what was acknowledged is owed no more once that has returned, and may be gone before.
    pub(super) fn delete(&mut self) -> Result<bool, Error> {
        let (parts, _) = self.running.as_ref().expect("open");
        parts.delete_stream(&self.store_config, "telemetry")
    }

    /// Appends records of one batch and commits. Their sizes are mixed, their keys few.
    pub(super) fn append(&mut self, count: usize, bytes: usize) -> Result<Appended, Refused> {
        self.append_across(count, bytes, |_| {})
    }

    /// The same, and something happens while the batch waits.
    pub(super) fn append_across(
        &mut self,
        count: usize,
        bytes: usize,
        meanwhile: impl FnOnce(&mut Self),
    ) -> Result<Appended, Refused> {
        let (at, boot) = (self.clock.truth(), self.clock.boot());
        let mut batch = self.stream().batch();
        let (mut known, mut pushed) = (Vec::new(), Vec::new());
        for _ in 0..count {
            self.issued += 1;
            let key = format!("key-{}", self.issued % 7);
            let mut data = format!("record {} ", self.issued).into_bytes();
            let mut random = fastrand::Rng::with_seed(self.issued);
            // Half of them can be compressed.
            let filling = match self.issued.is_multiple_of(2) {
                true => b'.'..=b'.',
                false => 0..=255,
            };
            data.resize_with(data.len().max(bytes), || random.u8(filling.clone()));
            pushed.push(batch.push(&NewRecord::new(&key, &data)).expect("a sound record"));
            known.push(Known { key, data, at, boot, block_end: None });
        }
        let marks = if self.with_marks { marks::of_batch(self.issued) } else { Vec::new() };
        for (name, value) in &marks {
            batch.set_mark(name, value).expect("a sound mark");
        }
        meanwhile(self);
        let stream = self.stream();
        let told = Arc::new(Mutex::new(None));
        let tell = Arc::clone(&told);
        let done = Box::new(move |outcome| *tell.lock().expect("unpoisoned") = Some(outcome));
        stream.append(batch, WhenFull::Refuse, done);
        self.commit_queued();
        let outcome = told.lock().expect("unpoisoned").take().expect("every append is answered");
        match &outcome {
            Ok(appended) => {
                marks::apply(&mut self.marks, marks);
                let places = appended.places(&pushed);
                assert_eq!(places.len(), known.len());
                let end = places.iter().map(|(_, number)| number.next()).max();
                for ((_, number), record) in places.into_iter().zip(known) {
                    let record = Known { block_end: end, ..record };
                    assert!(self.acknowledged.insert(number, record).is_none(), "number {number} was given twice");
                }
            }
            // A full disk leaves nothing of the commit behind.
            Err(Refused { error: Error::Full { .. }, .. }) => {}
            Err(_) => (self.in_doubt, self.marks_in_doubt) = (known, marks),
        }
        self.judge_drops();
        outcome
    }

    pub(super) fn save_checkpoint(&mut self, at: SequenceNumber) {
        self.stream().save_checkpoint(CONSUMER, at);
        self.checkpoint = self.checkpoint.max(at.min(self.newest()));
        self.delivered = self.delivered.max(self.checkpoint);
    }

    /// Changes the shards as `choose` says, if it can be done.
    pub(super) fn change_shards(&mut self, choose: impl FnOnce(&ShardMap) -> ShardChange) -> Result<(), Error> {
        let change = choose(&self.stream().shards());
        match self.stream().change_shards(change) {
            Ok(shards) => {
                (self.shards, self.shards_in_doubt) = (ranges(&shards), Vec::new());
                Ok(())
            }
            Err(Error::Shards { .. }) => Ok(()),
            Err(error) => {
                let changed = self.stream().shards().changed(change, SequenceNumber::ZERO);
                self.shards_in_doubt.extend(changed.ok().map(|changed| ranges(&changed)));
                Err(error)
            }
        }
    }

    /// What the committer does between ticks.
    pub(super) fn do_due(&self) {
        let (parts, _) = self.running.as_ref().expect("open");
        parts.writers.lock().expect("unpoisoned").do_due();
    }

    /// Lets the stream take over a changed configuration.
    pub(super) fn reconfigure(&mut self) {
        let (parts, _) = self.running.as_ref().expect("open");
        parts.stream(&self.store_config, self.stream_config.clone()).expect("it is there");
    }

    pub(super) fn commit_queued(&self) {
        let (parts, _) = self.running.as_ref().expect("open");
        parts.writers.lock().expect("unpoisoned").commit_queued(&parts.queue);
    }

    pub(super) fn tick(&mut self) {
        let (parts, _) = self.running.as_ref().expect("open");
        parts.writers.lock().expect("unpoisoned").tick(&parts.queue);
        self.judge_drops();
        self.note_certainty();
        let (parts, _) = self.running.as_ref().expect("open");
        if parts.around.catalogue.failure().is_none() {
            self.durable_checkpoint = self.checkpoint;
        }
    }

    /// A clean stop.
    pub(super) fn close(&mut self) {
        let (parts, stream) = self.running.take().expect("open");
        parts.writers.lock().expect("unpoisoned").close(&parts.queue);
        self.judge_drops();
        self.dropped_before = self.dropped_before.max(stream.expect("open").stats().oldest);
        if parts.around.catalogue.failure().is_none() {
            self.durable_checkpoint = self.checkpoint;
        }
    }

    /// The power goes, and comes back.
    pub(super) fn power_cut(&mut self, catalogue: CatalogueFound) {
        if let Some((_, Some(stream))) = self.running.take() {
            self.dropped_before = self.dropped_before.max(stream.stats().oldest);
        }
        self.disk.power_up();
        match catalogue {
            CatalogueFound::Newest => self.kv.go_back_to(self.kv.states() - 1),
            CatalogueFound::Stale(choice) => self.kv.go_back_to(choice % self.kv.states()),
            CatalogueFound::Lost => {
                self.kv = MemoryKv::default();
                self.catalogue_is_not_there();
            }
        }
    }

    /// From now on the catalogue takes no change, if it could be opened.
    pub(super) fn fail_catalogue(&self) {
        let (parts, _) = self.running.as_ref().expect("open");
        if parts.around.catalogue.failure().is_none() {
            self.kv.fail();
        }
    }

    /// Checkpoints then come from the control blocks, as far as those were written.
    fn catalogue_is_not_there(&mut self) {
        self.certain.clear();
        self.durable_checkpoint = SequenceNumber::ZERO;
    }

    pub(super) fn learn_time(&self, at: Now) {
        self.running.as_ref().expect("open").0.around.learn_time(at);
    }

    pub(super) fn offer_time(&self, wall: Timestamp) -> Result<(), Timestamp> {
        self.running.as_ref().expect("open").0.around.offer_time(wall)
    }

    /// The clock is set, and something vouches for it for a moment. Only where it was right before: of two trusted times
    /// one must be right, or nobody could tell.
    pub(super) fn lie(&mut self, hours: i64) {
        if self.is_clock_trusted() {
            self.lied.insert(self.clock.boot());
            if hours < 0 {
                self.lied_back.insert(self.clock.boot());
            }
            self.claim(Timestamp(self.clock.truth().0.saturating_add_signed(hours * 3_600_000)));
        }
    }

    /// Something vouches for a wall time for a moment.
    pub(super) fn claim(&mut self, wall: Timestamp) {
        self.clock.set_wall(wall);
        self.clock.set_trust(Trust::Synchronised);
        self.tick();
        self.clock.set_wall(self.clock.truth());
    }
}
