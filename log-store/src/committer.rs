//! The committer: the one thread that writes. What is queued is taken, committed as a block per stream, and the outcome told
//! by [another thread](crate::answers).

#![expect(
    clippy::disallowed_methods,
    reason = "a real thread that waits for a real queue; what it decides gets its time passed in"
)]

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use crate::{
    answers::Answers,
    batch::Batch,
    error::Error,
    event::Event,
    queue::{Entry, Queue, StreamSlot},
    room::Room,
    stream::{CommitError, Shortage, StreamWriter, Surroundings, block_bytes},
};

/// A block is written when this much waits, company or not; it bounds the memory of a commit and of a read.
const BLOCK_BYTES: usize = 1 << 20;

/// While a stream has no room, it is looked for again at least this often: others may have made some.
const ROOM_LOOKED_FOR_EVERY: Duration = Duration::from_secs(1);

/// All writers of a store, in the order of their slots, and what they share.
pub(crate) struct Writers {
    /// `None` where one was deleted: slots are never given again.
    pub(crate) streams: Vec<Option<StreamWriter>>,
    pub(crate) around: Surroundings,
    pub(crate) told_catalogue: bool,
    pub(crate) room: Room,
}

/// A walk through all streams, for one block of each that has something queued.
#[derive(Debug, Clone, Copy, Default)]
struct Round {
    /// The stream whose turn it is.
    slot: StreamSlot,
    /// Whether there may be more than what was committed.
    committed: bool,
}

/// How the thread waits.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    pub(crate) commit_delay: Duration,
    pub(crate) tick: Duration,
}

impl Writers {
    /// Commits everything that is queued, as far as there is room.
    pub(crate) fn commit_queued(&mut self, queue: &Queue) {
        loop {
            let mut round = Round::default();
            while self.commit_next(queue, &mut round) {}
            if !round.committed {
                return;
            }
        }
    }

    /// Commits the next block of a round; `false` once the round is through.
    fn commit_next(&mut self, queue: &Queue, round: &mut Round) -> bool {
        while round.slot < self.streams.len() {
            let slot = round.slot;
            // A stream that always has more must not keep the others waiting.
            round.slot += 1;
            if self.commit_block(queue, slot) {
                round.committed = true;
                return true;
            }
        }
        false
    }

    /// Commits one block of one stream; says whether there may be more to do at once.
    fn commit_block(&mut self, queue: &Queue, slot: StreamSlot) -> bool {
        let Some(writer) = &mut self.streams[slot] else { return false };
        let entries = queue.take(slot, BLOCK_BYTES.min(writer.block_bytes_max()));
        if entries.is_empty() {
            return false;
        }
        let definition = writer.core().definition();
        let entries: Vec<Entry> = entries.into_iter().map(|entry| entry.brought_up_to_date(&definition)).collect();
        let entries = writer.core().refuse_too_many_marks(entries, writer.segment_bytes());
        if entries.is_empty() {
            return true;
        }
        // A mark must be durable with its records, and before anybody sees it.
        let has_marks = entries.iter().any(|entry| !entry.batch.marks().is_empty());
        if writer.memory_first().is_some() && !has_marks {
            return self.hold(queue, slot, entries);
        }
        let batches: Vec<&Batch> = entries.iter().map(|entry| &entry.batch).collect();
        match self.with_room(slot, block_bytes(&batches), |writer| writer.commit(&batches)) {
            Ok(appended) => {
                self.around.answers.give(entries.into_iter().zip(appended.into_iter().map(Ok)));
                true
            }
            Err(error) => self.not_committed(queue, slot, entries, error),
        }
    }

    /// Keeps records in memory, and writes them if there are too many; says whether there may be more to do at once.
    fn hold(&mut self, queue: &Queue, slot: StreamSlot, entries: Vec<Entry>) -> bool {
        // While those before them cannot be written, memory must not grow.
        if let Err(error) = self.spill(slot, true) {
            return self.not_committed(queue, slot, entries, error);
        }
        // The numbers that it reserves need some room.
        let reserved = self.with_room(slot, 0, StreamWriter::reserve);
        let Some(writer) = &mut self.streams[slot] else { return false };
        match reserved {
            Ok(()) => {
                writer.hold(entries);
                self.around.answers.hand_over();
                true
            }
            Err(error) => self.not_committed(queue, slot, entries, error),
        }
    }

    /// Writes what has waited in memory long enough, and all of it if it is too much.
    fn spill(&mut self, slot: StreamSlot, only_if_too_much: bool) -> Result<(), CommitError> {
        let Some(writer) = &mut self.streams[slot] else { return Ok(()) };
        writer.release_delivered();
        let now = writer.now();
        let Some(bytes) = writer.due_to_spill(now, only_if_too_much) else { return Ok(()) };
        self.with_room(slot, bytes, |writer| writer.spill(now))
    }

    /// Refuses entries that were not committed, or lets them wait; says whether there may be more to do at once.
    fn not_committed(&self, queue: &Queue, slot: StreamSlot, entries: Vec<Entry>, error: CommitError) -> bool {
        let stream = self.streams[slot].as_ref().map_or("", |writer| writer.core().name());
        let full = |reason: &str| Error::Full { stream: stream.to_owned(), reason: reason.to_owned() };
        match error {
            CommitError::Full(reason) | CommitError::DiskFull(Shortage { limit: reason, .. }) => {
                // Whoever wants an answer gets it, also behind those who wait.
                queue.put_back(slot, entries.into_iter());
                self.around.answers.refuse(queue.take_refused(slot), || full(&reason));
                false
            }
            CommitError::NeverFits(reason) => {
                self.around.answers.refuse(entries, || full(&reason));
                true
            }
            CommitError::Poisoned(reason) => {
                queue.refuse_for_now(slot, stream, &reason);
                self.around.answers.refuse(entries, || poisoned(stream, &reason));
                true
            }
        }
    }

    /// Does what cannot wait for the next tick; gives the time until the next such thing.
    pub(crate) fn do_due(&mut self) -> Option<Duration> {
        for slot in 0..self.streams.len() {
            let Some(writer) = &mut self.streams[slot] else { continue };
            writer.sync_if_due();
            // What fails is tried again when it is due the next time.
            let _ = self.spill(slot, false);
        }
        let writers = self.streams.iter().flatten();
        writers.filter_map(|writer| Some(writer.due()?.saturating_sub(writer.now().since_boot))).min()
    }

    /// The stream of this name, and its slot.
    pub(crate) fn find(&mut self, name: &str) -> Option<(StreamSlot, &mut StreamWriter)> {
        let mut streams = self.streams.iter_mut().enumerate();
        streams.find_map(|(slot, writer)| Some((slot, writer.as_mut().filter(|writer| writer.core().name() == name)?)))
    }

    /// What is due once in a while: a look at the clock, checkpoints, retention, recovery of poisoned streams.
    pub(crate) fn tick(&mut self, queue: &Queue) {
        self.around.look_at_clock();
        self.room.forget(false);
        self.do_due();
        let mut flush = false;
        for (slot, writer) in self.streams.iter_mut().enumerate() {
            let Some(writer) = writer else { continue };
            if let Some(reason) = writer.poisoned() {
                // What is queued may follow something that was refused: taking it would break the order. Whoever hears of that
                // does so before anything more is taken.
                queue.refuse_for_now(slot, writer.core().name(), &reason);
                let entries = queue.take(slot, usize::MAX);
                self.around.answers.refuse(entries, || poisoned(writer.core().name(), &reason));
                self.around.answers.tell();
                if writer.recover() {
                    queue.take_again(slot);
                }
            }
            flush |= writer.tick();
        }
        if flush {
            self.around.catalogue.flush();
        }
        self.tell_catalogue_failure();
    }

    /// The last things before the files are closed. What still waits is refused.
    pub(crate) fn close(&mut self, queue: &Queue) {
        self.commit_queued(queue);
        for (slot, writer) in self.streams.iter_mut().enumerate() {
            self.around.answers.refuse(queue.take(slot, usize::MAX), || Error::Closed);
            if let Some(writer) = writer {
                writer.close();
            }
        }
        self.around.time.close();
        self.around.save_boots();
        self.tell_catalogue_failure();
        self.streams.clear();
        self.around.catalogue.close();
    }

    fn tell_catalogue_failure(&mut self) {
        if let Some(reason) = self.around.catalogue.failure().filter(|_| !self.told_catalogue) {
            self.told_catalogue = true;
            (self.around.events)(Event::CatalogueBehind { reason });
        }
    }
}

pub(crate) fn poisoned(stream: &str, reason: &str) -> Error {
    Error::Poisoned { stream: stream.to_owned(), reason: reason.to_owned() }
}

/// What the thread is at.
struct Committer {
    next_tick: Instant,
    /// When something is due before that.
    next_due: Option<Instant>,
    /// The one that is not through.
    round: Option<Round>,
}

impl Committer {
    /// Waits until there is something to do, and does it: one block, or what comes when all streams had their turn. `false` once the
    /// queue is closed and everything is written.
    fn step(&mut self, writers: &Mutex<Writers>, queue: &Queue, answers: &Answers, pace: Pace) -> bool {
        if self.round.is_none() {
            // Nothing is on its way to the disk.
            answers.hand_over();
            let wake = self.next_due.map_or(self.next_tick, |due| due.min(self.next_tick));
            if !queue.wait(wake, pace.commit_delay, BLOCK_BYTES / 2) {
                lock(writers).close(queue);
                return false;
            }
        }
        let mut writers = lock(writers);
        let round = self.round.get_or_insert_default();
        if writers.commit_next(queue, round) {
            return true;
        }
        let mut again = round.committed;
        self.next_due = writers.do_due().map(|due| Instant::now() + due);
        if Instant::now() >= self.next_tick {
            // It may take long.
            answers.hand_over();
            writers.tick(queue);
            // Streams that had no room may have some now.
            again = true;
            self.next_tick = Instant::now() + pace.tick;
        }
        if writers.streams.iter().flatten().any(StreamWriter::is_full) {
            self.next_tick = self.next_tick.min(Instant::now() + ROOM_LOOKED_FOR_EVERY);
        }
        self.round = again.then(|| {
            queue.go_on();
            Round::default()
        });
        true
    }
}

/// State of these mutexes is whole between statements; after a panic everything ends.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The thread's loop; returns when the queue is closed and everything is written. The answers then are closed.
pub(crate) fn run(writers: &Mutex<Writers>, queue: &Queue, pace: Pace) {
    let answers = lock(writers).around.answers.clone();
    let mut committer = Committer { next_tick: Instant::now() + pace.tick, next_due: None, round: None };
    loop {
        match catch_unwind(AssertUnwindSafe(|| committer.step(writers, queue, &answers, pace))) {
            Ok(true) => answers.keep_few(),
            Ok(false) => break,
            // That would be a bug; sources must then not wait for ever for what never comes.
            Err(_) => {
                give_up(&mut lock(writers), queue);
                break;
            }
        }
    }
    answers.close();
}

fn give_up(writers: &mut Writers, queue: &Queue) {
    queue.close();
    for slot in 0..writers.streams.len() {
        writers.around.answers.refuse(queue.take(slot, usize::MAX), || Error::Closed);
    }
    writers.streams.clear();
    writers.around.catalogue.close();
}
