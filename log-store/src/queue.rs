//! What waits for the committer: batches in order, per stream, bounded in bytes.

#![expect(
    clippy::disallowed_methods,
    reason = "a real thread waits here with a deadline; the simulations go around it"
)]

use std::{
    collections::VecDeque,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use crate::{
    batch::{Batch, Rerouted},
    error::{Appended, Error, Refused},
    segment::StreamDefinition,
    store::{Done, WhenFull},
};

/// Who lets a commit wait this long wants few commits, not fast ones.
const DELAY_THAT_SAVES_COMMITS: Duration = Duration::from_millis(10);

/// A batch and what is to be told of it.
pub(crate) struct Entry {
    pub(crate) batch: Batch,
    pub(crate) when_full: WhenFull,
    pub(crate) done: Done,
}

impl Entry {
    pub(crate) fn refuse(self, error: Error) {
        (self.done)(Err(Refused { error, batch: self.batch }));
    }

    /// With its records in the shards that there are now. Whoever queued it is told of them as it had them.
    pub(crate) fn brought_up_to_date(self, definition: &StreamDefinition) -> Self {
        if !self.batch.is_outdated(definition) {
            return self;
        }
        let Self { batch: first, when_full, done } = self;
        let (batch, routes) = first.rerouted(definition).into_parts();
        let told = move |outcome: Result<Appended, Refused>| match outcome {
            Ok(appended) => done(Ok(Rerouted::trace(&routes, &appended))),
            Err(refused) => done(Err(Refused { batch: first, ..refused })),
        };
        Self { batch, when_full, done: Box::new(told) }
    }
}

/// Number of a stream within its store, in the order they were asked for.
pub(crate) type StreamSlot = usize;

/// The queue between everybody and the one committer.
pub(crate) struct Queue {
    state: Mutex<State>,
    work: Condvar,
    room: Condvar,
    bytes_max: usize,
}

#[derive(Default)]
struct State {
    streams: Vec<Waiting>,
    /// Whether something changed since the committer last looked.
    changed: bool,
    closed: bool,
    /// Bytes taken since the committer last waited.
    taken: usize,
}

#[derive(Default)]
struct Waiting {
    entries: VecDeque<Entry>,
    bytes: usize,
    /// The stream was deleted.
    closed: bool,
}

impl Queue {
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self { state: Mutex::default(), work: Condvar::new(), room: Condvar::new(), bytes_max }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn add_stream(&self) -> StreamSlot {
        let mut state = self.state();
        state.streams.push(Waiting::default());
        state.streams.len() - 1
    }

    /// Adds an entry behind the others of its stream; blocks while too much waits.
    pub(crate) fn push(&self, slot: StreamSlot, entry: Entry) {
        let mut state = self.state();
        let bytes = entry.batch.encoded_bytes();
        // An entry larger than the whole queue is let in alone.
        let is_closed = |state: &State| state.closed || state.streams[slot].closed;
        while !is_closed(&state) && state.streams[slot].bytes > 0 && state.streams[slot].bytes + bytes > self.bytes_max
        {
            state = self.room.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if is_closed(&state) {
            drop(state);
            entry.refuse(Error::Closed);
            return;
        }
        state.streams[slot].entries.push_back(entry);
        state.streams[slot].bytes += bytes;
        state.changed = true;
        drop(state);
        self.work.notify_one();
    }

    /// Puts entries back in front, in their order.
    pub(crate) fn put_back(&self, slot: StreamSlot, entries: impl DoubleEndedIterator<Item = Entry>) {
        let mut state = self.state();
        for entry in entries.rev() {
            state.streams[slot].bytes += entry.batch.encoded_bytes();
            state.streams[slot].entries.push_front(entry);
        }
    }

    /// Takes the oldest entries of a stream: at least one if there is one, no more than fit into `bytes`.
    pub(crate) fn take(&self, slot: StreamSlot, bytes: usize) -> Vec<Entry> {
        let mut state = self.state();
        let waiting = &mut state.streams[slot];
        let mut taken = Vec::new();
        let mut total = 0;
        while let Some(entry) = waiting.entries.front() {
            total += entry.batch.encoded_bytes();
            if !taken.is_empty() && total > bytes {
                break;
            }
            waiting.bytes -= entry.batch.encoded_bytes();
            taken.extend(waiting.entries.pop_front());
        }
        state.taken += taken.iter().map(|entry| entry.batch.encoded_bytes()).sum::<usize>();
        drop(state);
        self.room.notify_all();
        taken
    }

    /// Makes the committer look, because something it waits for may have come.
    pub(crate) fn nudge(&self) {
        self.state().changed = true;
        self.work.notify_one();
    }

    /// Takes nothing more for this stream; what waits is refused.
    pub(crate) fn close_stream(&self, slot: StreamSlot) {
        self.state().streams[slot].closed = true;
        for entry in self.take(slot, usize::MAX) {
            entry.refuse(Error::Closed);
        }
    }

    pub(crate) fn close(&self) {
        self.state().closed = true;
        self.work.notify_all();
        self.room.notify_all();
    }

    /// Waits until there is something to do, or until `deadline`; then for company, unless much is there already: either
    /// `enough_bytes`, or as much as the last commit had, if one follows the other. Who keeps some batches in flight has
    /// sent the next ones by then, and more would not come. But a long wait for company is there to save commits, and is
    /// kept.
    ///
    /// `false` once the queue is closed.
    pub(crate) fn wait(&self, deadline: Instant, company: Duration, enough_bytes: usize) -> bool {
        let entered = Instant::now();
        let mut state = self.state();
        let last = std::mem::take(&mut state.taken);
        while !state.changed && !state.closed {
            let Some(left) = deadline.checked_duration_since(Instant::now()) else { return true };
            state = self.work.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        let came = Instant::now();
        let until = came + company;
        let follows = company < DELAY_THAT_SAVES_COMMITS && last > 0 && came.duration_since(entered) < company;
        let is_enough = |state: &State| {
            let bytes = || state.streams.iter().map(|waiting| waiting.bytes);
            bytes().max().unwrap_or(0) >= enough_bytes || follows && bytes().sum::<usize>() >= last
        };
        while !state.closed && !is_enough(&state) {
            let Some(left) = until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) else { break };
            state = self.work.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        state.changed = false;
        !state.closed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::NewRecord;

    fn push(queue: &Queue, slot: StreamSlot) {
        let mut batch = Batch::new(&StreamDefinition::sample(), usize::MAX);
        batch.push(&NewRecord::new("key", b"data")).expect("a sound record");
        queue.push(slot, Entry { batch, when_full: WhenFull::Wait, done: Box::new(|_| {}) });
    }

    #[test]
    fn a_long_wait_for_company_is_kept_though_as_much_waits_as_before() {
        let queue = Queue::new(1 << 20);
        let slot = queue.add_stream();
        let far = Instant::now() + Duration::from_secs(3600);
        for _ in 0..3 {
            push(&queue, slot);
            let begun = Instant::now();
            assert!(queue.wait(far, DELAY_THAT_SAVES_COMMITS, usize::MAX));
            assert!(begun.elapsed() >= DELAY_THAT_SAVES_COMMITS);
            assert_eq!(queue.take(slot, usize::MAX).len(), 1);
        }
    }

    #[test]
    fn enough_ends_the_wait() {
        let queue = Queue::new(1 << 20);
        let slot = queue.add_stream();
        push(&queue, slot);
        // A day of waiting would not end.
        let day = Duration::from_secs(86_400);
        assert!(queue.wait(Instant::now() + day, day, 1));
        queue.close();
        assert!(!queue.wait(Instant::now() + day, day, 1));
    }
}
