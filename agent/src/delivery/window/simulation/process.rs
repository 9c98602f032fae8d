//! The process around the window, with its log: reads, sends, saves, and is killed.

use super::*;

impl World {
    /// Does what the window says until it waits.
    pub(super) fn drive(&mut self) {
        self.window.on_extent(self.number_of(self.oldest), self.number_of(self.committed));
        for _ in 0..10_000 {
            self.check_window();
            let step = self.window.next(self.now);
            // What has expired in between.
            self.judge_held();
            if matches!(step, Step::Wait(_)) {
                self.judge_unfinished();
            }
            match step {
                Step::Read(piece) => self.read(piece),
                Step::Send(batch) => self.send(batch),
                Step::StoreDeadLetters(letters) => {
                    let letters = letters.iter().map(|letter| self.index(letter.record.sequence_number)).collect();
                    let (life, durable) = (self.life, self.rng.u8(..4) > 0);
                    if self.stopping {
                        self.buried(letters, durable);
                    } else {
                        self.after(50, Event::Buried { life, letters, durable });
                    }
                }
                Step::TakeMap => {
                    self.map = self.new_map.clone();
                    let (kind, map) = (self.kind, &self.map);
                    self.window.on_map(|record| Ok(kind.place(map, record)), self.now);
                }
                Step::Save(checkpoint) => self.save(checkpoint),
                Step::SaveFinished(finished) => {
                    self.judge_finished(&finished.between);
                    self.judge_finished(&finished.inside);
                    self.finished_unsure = Some(finished);
                    let (life, durable) = (self.life, self.rng.u8(..4) > 0);
                    self.after(50, Event::Saved { life, durable });
                }
                Step::TellExpired(expired) => self.judge_told(&expired),
                Step::Tell(news) => self.judge_news(news),
                Step::Wait(None) => return,
                Step::Wait(Some(until)) => {
                    assert!(until > self.now, "waits for the past");
                    if self.ticks.insert(until) {
                        self.at(until, Event::Tick);
                    }
                    return;
                }
                Step::Stopped if self.stopping => return,
                Step::Stopped => panic!("nobody told it to stop"),
            }
        }
        panic!("no end of steps: {}", self.tell());
    }

    /// Reads beyond the end too, as a cursor does.
    fn read(&mut self, Piece { from, end, limit }: Piece) {
        assert!(limit.records > 0 && limit.payload_bytes > 0 && end.is_none_or(|end| from < end));
        let life = self.life;
        if self.rng.u8(..20) == 0 {
            return self.after(5, Event::Read { life, records: None, end });
        }
        let mut bytes = 0;
        let known = |index: usize| self.known_age(index);
        let records: Vec<_> = (self.oldest..self.committed)
            .filter(|index| self.log[*index].0.sequence_number >= from)
            .map(|index| (Arc::new(self.log[index].0.clone()), known(index)))
            .take(limit.records)
            .take_while(|(record, _)| {
                let first = bytes == 0;
                bytes += record.payload_bytes() as usize;
                first || bytes <= limit.payload_bytes
            })
            .collect();
        self.after(5, Event::Read { life, records: Some(records), end });
    }

    fn send(&mut self, batch: Batch) {
        self.requests += 1;
        let parcels: Vec<_> = batch
            .parcels
            .iter()
            .map(|parcel| {
                let records: Vec<_> = parcel.records.iter().map(|record| self.index(record.sequence_number)).collect();
                let shard = self.map.as_ref().map(|map| shard_of(map, &parcel.records[0].partition_key));
                Sent { records, shard, life: self.life }
            })
            .collect();
        let records: Vec<_> = batch.records().map(|record| self.index(record.sequence_number)).collect();
        self.check_batch(&parcels, &records);
        self.check_turns(batch.id, &parcels);
        self.parcels += parcels.len() as u64;
        self.sent += records.len() as u64;
        if let Link::Down(down) = self.window.link() {
            assert_eq!(down.probe, Some(batch.id));
            assert!(!self.probes.values().any(|outage| *outage == down.since), "one probe at a time");
            self.probes.insert(batch.id, down.since);
        }
        if self.window.in_flight[&batch.id].witness {
            self.witnesses.insert((self.life, batch.id));
        }
        self.in_flight.insert(batch.id, records.clone());
        let (life, id) = (self.life, batch.id);
        self.after(LATENCY_MAX_MS / 2, Event::Reaches { parcels, life, id, answer_lost: false });
    }

    /// The process dies and starts again from a checkpoint that had reached the disk.
    pub(super) fn kill(&mut self) {
        let is_clean = self.rng.bool();
        let finished_before = if is_clean { self.stop_and_save() } else { BTreeSet::new() };
        self.life += 1;
        let lost = if is_clean { 0 } else { self.rng.usize(..self.saved.len().min(3)) };
        let durable = self.saved.len() - 1 - lost;
        self.saved.truncate(durable + 1);
        let checkpoint = self.saved[durable];
        if let Some(finished) = self.finished_unsure.take()
            && self.rng.bool()
        {
            self.finished_saved = finished;
        }
        if self.rng.u8(..3) == 0 {
            self.config.catch_up = [CatchUp::OldestFirst, CatchUp::NewestFirst, CatchUp::Split][self.rng.usize(..3)];
        }
        let finished = self.finished_saved.clone();
        self.window = Window::new(&self.config, &self.limits, checkpoint, &finished, self.rng.u64(..));
        let ranges = finished.between.iter().chain(&finished.inside);
        let is_finished =
            |number| number <= checkpoint || ranges.clone().any(|(first, last)| *first <= number && number <= *last);
        self.finished = (0..self.log.len()).filter(|index| is_finished(self.log[*index].0.sequence_number)).collect();
        assert!(finished_before.is_subset(&self.finished), "after a clean stop nothing is sent again");
        self.clean_stops += u64::from(!finished_before.is_empty());
        let beyond = |index: &&usize| {
            self.log[**index].0.sequence_number > self.window.stretches.checkpoint(&self.window.entries)
        };
        self.spared += self.finished.iter().filter(beyond).count() as u64;
        self.held.clear();
        self.resolved.clear();
        (self.expired, self.told) = (0, 0);
        self.boundaries.push(BTreeSet::new());
        self.in_flight.clear();
        self.probes.clear();
        self.hanging.clear();
        self.promised = None;
        self.heard = (false, false);
        (self.map, self.new_map) = (None, None);
        if self.kind == Parcels::OfShard {
            self.after(2000, Event::Map { life: self.life });
        }
    }

    /// Letters of this life are stored, or could not be.
    pub(super) fn buried(&mut self, letters: Vec<usize>, durable: bool) {
        if durable {
            self.resolved.extend(letters.iter().map(|index| self.log[*index].0.sequence_number));
            self.judge_letters(letters);
        }
        self.window.on_dead_letters(durable, self.now);
    }

    /// It is told to stop, and gives up what is under way. Returns what was finished, as far as all of it is to be known.
    fn stop_and_save(&mut self) -> BTreeSet<usize> {
        if let Some(finished) = self.finished_unsure.take() {
            self.window.on_finished_saved(true);
            self.finished_saved = finished;
        }
        if self.window.in_flight.is_empty() && self.window.burying.is_empty() {
            self.stop();
        } else {
            self.stopping = true;
            self.window.stop();
            self.drive();
            self.given_up += 1;
        }
        self.stopping = false;
        let last = self.window.last_save(self.now);
        for finished in self.finished_unsure.take().into_iter().chain(last) {
            self.judge_finished(&finished.between);
            self.judge_finished(&finished.inside);
            self.finished_saved = finished;
        }
        if self.window.entries.iter().any(|(_, entry)| entry.was_passed) {
            return BTreeSet::new();
        }
        std::mem::take(&mut self.finished)
    }

    /// Told to stop while nothing is under way, it stops, and has told everything.
    pub(super) fn stop(&mut self) {
        self.stopping = true;
        self.window.stop();
        self.drive();
        if self.finished_unsure.is_some() {
            self.window.on_finished_saved(true);
            self.drive();
        }
        assert!(matches!(self.window.next(self.now), Step::Stopped));
        assert_eq!(self.told, self.expired, "every record that expired is told");
    }

    /// The number of a record, or of the one that will be next.
    pub(super) fn number_of(&self, index: usize) -> SequenceNumber {
        let committed = index < self.committed;
        let before = |index: usize| self.log[index].0.sequence_number.next();
        if committed {
            self.log[index].0.sequence_number
        } else {
            index.checked_sub(1).map_or(SequenceNumber(1), before)
        }
    }

    /// How old a record is, as far as the log knows.
    pub(super) fn known_age(&self, index: usize) -> Duration {
        match self.arrived[index] {
            (Arrived::Before(age), true) => self.now + age,
            // It is certain that it arrived before this boot.
            (Arrived::Before(_), false) => self.now,
            (Arrived::At(at), _) => self.now - at,
        }
    }

    pub(super) fn index(&self, number: SequenceNumber) -> usize {
        self.log.iter().position(|(record, _)| record.sequence_number == number).expect("a record of the log")
    }
}
