//! All letters of a destination: counted, shown, delivered once more, and dropped.
//!
//! One change at a time. A replay is durable in the stream that the destination takes from before the letter counts as settled:
//! a kill in between leaves it open, and whoever replays it again sends it twice, with the same origin. Everything blocks,
//! and has to be called where a runtime is (`spawn_blocking`).

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use forebay_log_store::{Batch, Error, NewRecord, ReadLimit, Record, SequenceNumber, Start, WhenFull};
use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;
use tracing::{info, warn};

use super::{
    SETTLED, Summary,
    letter::Letter,
    replay,
    settled::{Changes, Settled, Totals},
    summary::is_told,
};
use crate::ingest::Ingest;

/// Letters that are read, and settled, together.
const CHUNK: ReadLimit = ReadLimit { records: 500, payload_bytes: 1 << 20 };

/// See the module.
pub struct Letters {
    destination: String,
    /// The letters.
    letters: Ingest,
    /// What the destination takes from.
    origin: Ingest,
    settled: Mutex<Settled>,
    changing: Mutex<()>,
}

/// How many there are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Neither delivered once more nor dropped.
    pub open: u64,
    /// Delivered once more, since the stream was made.
    pub replayed: u64,
    /// Dropped by a person.
    pub dropped: u64,
}

/// Open letters, without their data.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page {
    /// In order of their numbers.
    pub letters: Vec<Letter>,
    /// Where the next page begins, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<u64>,
}

/// Which letters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Selection {
    /// Every open one.
    All,
    /// Those of these numbers.
    Numbers(BTreeSet<u64>),
    /// Those whose reason contains this text, whatever the case of letters; `#` in it stands for any number.
    Reason(String),
}

/// What is done with letters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verb {
    /// They are only counted.
    Count,
    /// They are delivered once more.
    Replay,
    /// They are given up for good.
    Drop,
}

/// What was done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settlement {
    /// Letters.
    pub letters: u64,
    /// Their keys and data.
    pub bytes: u64,
}

/// Why it was not done.
#[derive(Debug, thiserror::Error)]
pub enum LettersError {
    /// There is none of this number, or it is settled.
    #[error("there is no open letter {0}")]
    Unknown(u64),
    /// What the log says.
    #[error("{source}{}", after(.done))]
    Log {
        /// Why.
        source: Error,
        /// What was done before.
        done: Settlement,
    },
}

fn after(done: &Settlement) -> String {
    match done.letters {
        0 => String::new(),
        letters => format!(", after {letters} letters that are done"),
    }
}

impl From<Error> for LettersError {
    fn from(source: Error) -> Self {
        Self::Log { source, done: Settlement::default() }
    }
}

impl Letters {
    /// The letters of `destination`, in a stream of their own; it takes records from `origin`.
    #[must_use]
    pub fn open(destination: &str, letters: Ingest, origin: Ingest) -> Self {
        let settled = Settled::read(letters.stream().marks(Settled::PREFIX));
        let opened = Self {
            destination: destination.to_owned(),
            letters,
            origin,
            settled: Mutex::new(settled),
            changing: Mutex::default(),
        };
        opened.tell_log();
        opened
    }

    /// How many there are.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let stream = self.letters.stream();
        let stats = stream.stats();
        let settled = self.settled();
        let Totals { replayed, dropped, .. } = settled.totals;
        let gone = settled.count(stats.oldest.0, stats.next.0);
        Counts { open: stream.records_between(stats.oldest, stats.next).saturating_sub(gone), replayed, dropped }
    }

    /// What the open ones are, all together. Reads every letter.
    ///
    /// # Errors
    /// What the log says.
    pub fn summary(&self) -> Result<Summary, LettersError> {
        let Totals { replayed, dropped, .. } = self.settled().totals;
        let mut summary = Summary { destination: self.destination.clone(), replayed, dropped, ..Summary::default() };
        self.each(&Selection::All, |letters| {
            letters.iter().for_each(|(letter, _)| summary.add(letter));
            Ok(())
        })?;
        Ok(summary)
    }

    /// At most `limit` open letters from number `from` on.
    ///
    /// # Errors
    /// What the log says.
    pub fn page(&self, from: u64, limit: usize) -> Result<Page, LettersError> {
        let mut page = Page::default();
        let mut cursor = self.letters.stream().cursor(Start::At(SequenceNumber(from)));
        loop {
            let records = cursor.read(CHUNK)?;
            if records.is_empty() {
                return Ok(page);
            }
            let settled = self.settled();
            for record in records.iter().filter(|record| !settled.contains(record.sequence_number.0)) {
                if page.letters.len() == limit {
                    page.next = Some(record.sequence_number.0);
                    return Ok(page);
                }
                page.letters.push(Letter::of(record));
            }
        }
    }

    /// One open letter with its data.
    ///
    /// # Errors
    /// [`LettersError::Unknown`]; what the log says.
    pub fn letter(&self, number: u64) -> Result<Letter, LettersError> {
        let record = self.open_record(number)?;
        Ok(Letter::of(&record).with_data(&record))
    }

    /// Does something with letters. Those that come meanwhile stay as they are. Blocks until it is durable.
    ///
    /// # Errors
    /// [`LettersError::Unknown`], and nothing was done; what the log says, with what was done before.
    pub fn settle(&self, which: &Selection, verb: Verb) -> Result<Settlement, LettersError> {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        if let Selection::Numbers(numbers) = which {
            numbers.iter().try_for_each(|number| self.open_record(*number).map(drop))?;
        }
        let mut done = Settlement::default();
        let outcome = self.each(which, |letters| {
            match verb {
                Verb::Count => {}
                Verb::Replay => self.replay(letters)?,
                Verb::Drop => self.note(letters, |totals| totals.dropped += letters.len() as u64)?,
            }
            done.letters += letters.len() as u64;
            done.bytes += letters.iter().map(|(letter, _)| letter.bytes).sum::<u64>();
            Ok(())
        });
        let (destination, Settlement { letters, bytes }) = (&self.destination, done);
        match verb {
            Verb::Replay if letters > 0 => info!(destination, letters, bytes, "dead letters are delivered once more"),
            Verb::Drop if letters > 0 => {
                warn!(destination, letters, bytes, "dead letters were dropped, as was asked for")
            }
            _ => {}
        }
        match outcome {
            Ok(()) => Ok(done),
            Err(LettersError::Log { source, .. }) => Err(LettersError::Log { source, done }),
            Err(error) => Err(error),
        }
    }

    fn replay(&self, letters: &[(Letter, Arc<Record>)]) -> Result<(), LettersError> {
        let mut batch = self.origin.batch();
        for (letter, record) in letters {
            batch.push(&NewRecord {
                partition_key: &record.partition_key,
                explicit_hash_key: record.explicit_hash_key,
                tags: &replay::tags(letter, &self.destination),
                data: &record.data,
            })?;
        }
        store(&self.origin, batch)?;
        self.note(letters, |totals| totals.replayed += letters.len() as u64)
    }

    /// Notes letters as settled, durably.
    fn note(&self, letters: &[(Letter, Arc<Record>)], count: impl FnOnce(&mut Totals)) -> Result<(), LettersError> {
        let stats = self.letters.stream().stats();
        let mut settled = self.settled().clone();
        count(&mut settled.totals);
        let numbers = letters.iter().map(|(letter, _)| letter.number);
        let changes: Changes = settled.settle(numbers, stats.oldest.0, stats.next.0);
        let mut batch = self.letters.batch();
        for (name, value) in &changes {
            batch.set_mark(name, value)?;
        }
        store(&self.letters, batch)?;
        *self.settled() = settled;
        self.tell_log();
        Ok(())
    }

    /// Lets the log know what is settled, so that it can tell what would be lost.
    fn tell_log(&self) {
        if let Some(below) = self.settled().totals.below.checked_sub(1) {
            self.letters.stream().save_checkpoint(SETTLED, SequenceNumber(below));
        }
    }

    /// Hands on the open letters that were there at the beginning, some at a time.
    fn each(
        &self,
        which: &Selection,
        mut take: impl FnMut(&[(Letter, Arc<Record>)]) -> Result<(), LettersError>,
    ) -> Result<(), LettersError> {
        let end = self.letters.stream().stats().next;
        let from = match which {
            Selection::Numbers(numbers) => Start::At(SequenceNumber(numbers.first().copied().unwrap_or(end.0))),
            _ => Start::Oldest,
        };
        let mut cursor = self.letters.stream().cursor(from);
        loop {
            let records = cursor.read(CHUNK)?;
            let is_last = records.last().is_none_or(|last| last.sequence_number.next() >= end);
            let chosen: Vec<_> = {
                let settled = self.settled();
                let open =
                    |record: &Arc<Record>| record.sequence_number < end && !settled.contains(record.sequence_number.0);
                let records = records.into_iter().filter(open).map(|record| (Letter::of(&record), record));
                records.filter(|(letter, _)| which.takes(letter)).collect()
            };
            if !chosen.is_empty() {
                take(&chosen)?;
            }
            if is_last {
                return Ok(());
            }
        }
    }

    fn open_record(&self, number: u64) -> Result<Arc<Record>, LettersError> {
        let mut cursor = self.letters.stream().cursor(Start::At(SequenceNumber(number)));
        let read = cursor.read(ReadLimit { records: 1, payload_bytes: 1 })?;
        let found = read.into_iter().find(|record| record.sequence_number.0 == number);
        found.filter(|_| !self.settled().contains(number)).ok_or(LettersError::Unknown(number))
    }

    fn settled(&self) -> MutexGuard<'_, Settled> {
        // It is replaced whole.
        self.settled.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Selection {
    fn takes(&self, letter: &Letter) -> bool {
        match self {
            Self::All => true,
            Self::Numbers(numbers) => numbers.contains(&letter.number),
            Self::Reason(text) => is_told(&letter.reason, text),
        }
    }
}

/// Waits until a batch is durable.
fn store(ingest: &Ingest, batch: Batch) -> Result<(), Error> {
    let stored = async { ingest.for_connection().offer(batch, WhenFull::Refuse).await.durable().await };
    Handle::current().block_on(stored).map(drop)
}
