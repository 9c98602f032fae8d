//! What is found in the log, compared with what the model knows.

use super::*;
use crate::{
    clock::Clock as _,
    config::OnFull,
    cursor::{Cursor, ReadLimit, Start},
    event::DropReason,
};

impl Simulation {
    /// Reads everything and compares it with the model; then the model takes over what survived of the commit in doubt.
    pub(super) fn check(&mut self) {
        let stream = self.stream();
        let found = read_all(stream, 3);
        let stats = stream.stats();
        for pair in found.windows(2) {
            let numbers = [pair[0].sequence_number, pair[1].sequence_number];
            assert!(numbers[0] < numbers[1], "out of order: {numbers:?}");
            assert!(pair[0].arrival <= pair[1].arrival, "arrival times run backwards at {numbers:?}");
        }
        // Nothing that a consumer still needs may be missing, unless the policy is to drop it.
        if self.stream_config.on_full == OnFull::Reject {
            let delivered = self.delivered;
            let gone = delivered.next()..stats.oldest.max(delivered.next());
            let gone = self.acknowledged.range(gone).next();
            assert!(gone.is_none(), "{} gone, {delivered} delivered: {gone:?}", stats.oldest);
        }
        let mut found: BTreeMap<_, Known> = found
            .into_iter()
            .map(|record| {
                let judged = self.acknowledged.get(&record.sequence_number).or(self.in_doubt.first());
                let Some(judged) = judged else { panic!("a record that nobody appended: {record:?}") };
                self.judge_time(&record, judged);
                let (key, data) = (record.partition_key.to_string(), record.data.to_vec());
                (record.sequence_number, Known { key, data, ..judged.clone() })
            })
            .collect();
        for (number, known) in self.acknowledged.range(stats.oldest..) {
            match found.remove(number) {
                Some(found) => assert_eq!((&found.key, &found.data), (&known.key, &known.data), "record {number}"),
                None => assert!(
                    *number < self.dropped_before
                        || *number <= self.delivered && self.is_past(known, self.retention_min.get()),
                    "acknowledged record {number} is not there: {known:?}"
                ),
            }
        }
        let shards = ranges(&stream.shards());
        assert!(
            shards == self.shards || self.shards_in_doubt.contains(&shards),
            "shards {shards:?}, not {:?} or {:?}",
            self.shards,
            self.shards_in_doubt
        );
        (self.shards, self.shards_in_doubt) = (shards, Vec::new());
        self.judge_marks(!found.is_empty());
        // What is left can only be the commit that was under way, whole.
        if !found.is_empty() {
            let pairs = |known: Vec<Known>| -> Vec<_> {
                let mut pairs: Vec<_> = known.into_iter().map(|known| (known.key, known.data)).collect();
                pairs.sort();
                pairs
            };
            let survived = pairs(found.values().cloned().collect());
            assert!(survived == pairs(self.in_doubt.clone()), "records that nobody appended: {found:?}");
            self.acknowledged.extend(found);
        }
        self.in_doubt.clear();
        let checkpoint = stream_checkpoint(self.stream());
        assert!(checkpoint >= self.durable_checkpoint, "checkpoint {checkpoint} < {}", self.durable_checkpoint);
        assert!(checkpoint <= self.delivered, "checkpoint {checkpoint} was never saved");
        self.checkpoint = checkpoint;
        self.durable_checkpoint = SequenceNumber::ZERO;
        assert!(stats.next > self.newest(), "the next number {} was given already", stats.next);
    }

    /// As [`Simulation::check`], without a crash before it: nothing is in doubt, no checkpoint has gone back.
    pub(super) fn check_running(&mut self) {
        let durable = self.durable_checkpoint;
        self.check();
        self.durable_checkpoint = durable;
    }

    /// What goes by retention must be past it by the true time, or be delivered and not to be kept.
    pub(super) fn judge_drops(&self) {
        self.retention_min.set(self.retention_min.get().min(self.stream_config.retention));
        let events = self.events.lock().expect("unpoisoned");
        for event in &events[self.judged.get()..] {
            if let Event::Dropped { reason: DropReason::Retention, records, .. } = event {
                for (number, known) in self.acknowledged.range(records.clone()) {
                    let goes_delivered = !self.stream_config.keep_delivered && *number <= self.delivered;
                    let is_past = self.is_past(known, self.retention_min.get());
                    assert!(is_past || goes_delivered, "record {number} is not past retention: {known:?}");
                }
            }
        }
        self.judged.set(events.len());
    }

    /// Where a trusted clock told a record's time, it is right; where two did, it is not served past its retention.
    fn judge_time(&self, record: &Record, known: &Known) {
        assert!(record.arrival_trusted || !self.certain.contains(&known.boot), "{record:?} has lost its time");
        if !record.arrival_trusted || self.lied.contains(&known.boot) {
            return;
        }
        // Where a later boot seems to have begun too early, one of the two is wrong, and the log cannot tell which.
        if self.lied_back.range(known.boot..).next().is_none() {
            assert_eq!(record.arrival, known.at, "the arrival of record {}", record.sequence_number);
        }
        let done = stream_checkpoint(self.stream()).next();
        let is_known = self.is_clock_trusted() && !self.lied_back.contains(&self.clock.boot());
        if is_known && known.block_end.is_some_and(|end| end <= done) {
            let is_past = self.is_past(known, self.stream_config.retention);
            assert!(!is_past, "record {} is past retention and still served", record.sequence_number);
        }
    }

    fn is_past(&self, known: &Known, retention: Duration) -> bool {
        Duration::from_millis(self.clock.truth().0 - known.at.0) > retention
    }

    /// What the catalogue has once taken of a boot's time is known for ever.
    pub(super) fn note_certainty(&mut self) {
        let taken = self.running.as_ref().is_some_and(|(parts, _)| parts.around.catalogue.failure().is_none());
        if taken && self.is_clock_trusted() {
            self.certain.insert(self.clock.boot());
        }
    }

    /// Whether the time of this boot is known.
    pub(super) fn is_clock_trusted(&self) -> bool {
        self.running.as_ref().expect("open").0.around.time.status().trusted_since.is_some()
    }
}

fn stream_checkpoint(stream: &Stream) -> SequenceNumber {
    stream.checkpoint(CONSUMER)
}

/// All records of a stream, read in small steps; and the same again shard by shard, which must give the same.
pub(super) fn read_all(stream: &Stream, step: usize) -> Vec<Arc<Record>> {
    let limit = ReadLimit { records: step, payload_bytes: 1 << 20 };
    let drain = |cursor: &mut Cursor| {
        let mut all = Vec::new();
        loop {
            let some = cursor.read(limit).expect("readable");
            if some.is_empty() {
                return all;
            }
            all.extend(some);
        }
    };
    let all = drain(&mut stream.cursor(Start::Oldest));
    let mut by_shard: Vec<Arc<Record>> = Vec::new();
    for shard in stream.shards().shards() {
        let mut cursor = stream.shard_cursor(shard.index, Start::Oldest);
        let records = drain(&mut cursor);
        assert_eq!(cursor.is_finished(), !shard.is_open());
        for record in &records {
            let (key, number) = (HashKey::of(&record.partition_key), record.sequence_number);
            assert!(shard.first <= key && key <= shard.last, "{number} is in {}", shard.index);
            assert!(shard.starts <= number && shard.ends.is_none_or(|ends| number <= ends), "{number}: {shard:?}");
        }
        by_shard.extend(records);
    }
    by_shard.sort_by_key(|record| record.sequence_number);
    assert_eq!(all.len(), by_shard.len(), "the shards together are the stream");
    for (record, alone) in all.iter().zip(by_shard) {
        // Where clocks contradict each other, a pass through the whole stream meets later times before this record.
        assert!(record.arrival >= alone.arrival, "{record:?} is {alone:?} in its shard");
        assert_eq!(**record, Record { arrival: record.arrival, ..Record::clone(&alone) });
    }
    all
}
