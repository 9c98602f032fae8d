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
    committer::poisoned,
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
    committer: WaitsFor,
    /// How many wait for room.
    waiting_for_room: usize,
    /// Whether the committer looks for more without a wait.
    goes_on: bool,
    /// Bytes taken since the committer last waited, or went on without.
    taken: usize,
    /// When that was.
    waited: Option<Instant>,
    rhythm: Rhythm,
}

/// What the committer waits for. It is not woken for what makes no difference to it: that costs as much as a small commit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum WaitsFor {
    #[default]
    Nothing,
    /// Anything.
    Work,
    Company(Enough),
}

/// Bytes that are worth a commit before its time: so many of one stream, or of all together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Enough {
    of_one: usize,
    of_all: Option<usize>,
}

impl State {
    fn bytes(&self) -> usize {
        self.streams.iter().map(|waiting| waiting.bytes).sum()
    }

    /// Whether the committer has what it waits for.
    fn wakes_committer(&self) -> bool {
        match self.committer {
            WaitsFor::Nothing => false,
            WaitsFor::Work => true,
            WaitsFor::Company(enough) => self.has(enough),
        }
    }

    fn has(&self, enough: Enough) -> bool {
        let of_all = || enough.of_all.is_some_and(|bytes| self.bytes() >= bytes);
        self.streams.iter().any(|waiting| waiting.bytes >= enough.of_one) || of_all()
    }
}

/// How much has to wait before one commit follows another.
///
/// Who keeps some batches in flight sends the next ones when the last ones are done. Waiting for all of them makes the fewest syncs,
/// but the disk is idle meanwhile. Where that is much of the time, because the disk is fast, half of them are committed while the
/// others are on their way.
#[derive(Debug, Default)]
struct Rhythm {
    /// How long it took after a commit until as much waited again.
    refill: Option<Duration>,
    overlaps: bool,
    commits: u32,
}

impl Rhythm {
    /// Overlapping pays if the refill takes this part of a commit.
    const REFILL_PART: u32 = 4;
    /// Every so often the refill is measured anew.
    const MEASURED_EVERY: u32 = 64;

    /// Bytes that have to wait, after a commit of `last` bytes that took `took`, while `waiting` came.
    fn wanted(&mut self, took: Duration, last: usize, waiting: usize) -> usize {
        self.commits = self.commits.wrapping_add(1);
        let is_measured = self.commits.is_multiple_of(Self::MEASURED_EVERY);
        let before = self.overlaps;
        self.overlaps = !is_measured && self.refill.is_some_and(|refill| refill * Self::REFILL_PART > took);
        match (self.overlaps, before) {
            (true, _) => (last + waiting) / 2,
            (false, true) => last + waiting,
            (false, false) => last,
        }
    }

    /// As much as was wanted waits, this long after the commit.
    fn refilled(&mut self, after: Duration) {
        if !self.overlaps {
            self.refill = Some(after);
        }
    }
}

#[derive(Default)]
struct Waiting {
    entries: VecDeque<Entry>,
    bytes: usize,
    /// The stream was deleted.
    closed: bool,
    /// Why nothing is taken for now: the stream's name, and what its disk did.
    refusing: Option<(String, String)>,
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
        let is_full = |waiting: &Waiting| waiting.bytes > 0 && waiting.bytes + bytes > self.bytes_max;
        let error = loop {
            let waiting = &state.streams[slot];
            if state.closed || waiting.closed {
                break Some(Error::Closed);
            }
            if let Some((stream, reason)) = &waiting.refusing {
                break Some(poisoned(stream, reason));
            }
            if !is_full(waiting) {
                break None;
            }
            state.waiting_for_room += 1;
            state = self.room.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.waiting_for_room -= 1;
        };
        if let Some(error) = error {
            drop(state);
            entry.refuse(error);
            return;
        }
        state.streams[slot].entries.push_back(entry);
        state.streams[slot].bytes += bytes;
        state.changed = true;
        let wakes = state.wakes_committer();
        drop(state);
        if wakes {
            self.work.notify_one();
        }
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
        if state.goes_on && !taken.is_empty() {
            (state.goes_on, state.taken, state.waited) = (false, 0, Some(Instant::now()));
        }
        state.taken += taken.iter().map(|entry| entry.batch.encoded_bytes()).sum::<usize>();
        self.tell_of_room(state);
        taken
    }

    /// Takes the entries of a stream that are not to wait for room, wherever they stand.
    pub(crate) fn take_refused(&self, slot: StreamSlot) -> Vec<Entry> {
        let mut state = self.state();
        let waiting = &mut state.streams[slot];
        let entries = std::mem::take(&mut waiting.entries).into_iter();
        let (refused, kept): (VecDeque<_>, _) = entries.partition(|entry| entry.when_full == WhenFull::Refuse);
        waiting.entries = kept;
        waiting.bytes -= refused.iter().map(|entry| entry.batch.encoded_bytes()).sum::<usize>();
        self.tell_of_room(state);
        refused.into()
    }

    fn tell_of_room(&self, state: MutexGuard<'_, State>) {
        let anybody = state.waiting_for_room > 0;
        drop(state);
        if anybody {
            self.room.notify_all();
        }
    }

    /// Makes the committer look, because something it waits for may have come.
    pub(crate) fn nudge(&self) {
        let mut state = self.state();
        state.changed = true;
        let waits = state.committer == WaitsFor::Work;
        drop(state);
        if waits {
            self.work.notify_one();
        }
    }

    /// Says that the committer goes on without a wait, if there is more to take.
    pub(crate) fn go_on(&self) {
        self.state().goes_on = true;
    }

    /// Refuses what comes for this stream, until [`Queue::take_again`]. What waits stays.
    pub(crate) fn refuse_for_now(&self, slot: StreamSlot, stream: &str, reason: &str) {
        self.state().streams[slot].refusing = Some((stream.to_owned(), reason.to_owned()));
        self.room.notify_all();
    }

    /// Takes what comes for this stream again.
    pub(crate) fn take_again(&self, slot: StreamSlot) {
        self.state().streams[slot].refusing = None;
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
    /// `enough_bytes`, or as much as its [`Rhythm`] wants, if one commit follows the other. A long wait for company is there to save commits, and is
    /// kept.
    ///
    /// `false` once the queue is closed.
    pub(crate) fn wait(&self, deadline: Instant, company: Duration, enough_bytes: usize) -> bool {
        let entered = Instant::now();
        let mut state = self.state();
        let last = std::mem::take(&mut state.taken);
        let took = state.waited.map_or(Duration::ZERO, |waited| entered.duration_since(waited));
        let waiting = state.bytes();
        while !state.changed && !state.closed {
            let Some(left) = deadline.checked_duration_since(Instant::now()) else { return true };
            state = self.committer_waits(state, WaitsFor::Work, left);
        }
        let came = Instant::now();
        let until = came + company;
        let follows = company < DELAY_THAT_SAVES_COMMITS && last > 0 && came.duration_since(entered) < company;
        let wanted = follows.then(|| state.rhythm.wanted(took, last, waiting));
        let enough = Enough { of_one: enough_bytes, of_all: wanted };
        while !state.closed && !state.has(enough) {
            let Some(left) = until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) else { break };
            state = self.committer_waits(state, WaitsFor::Company(enough), left);
        }
        let returns = Instant::now();
        if wanted.is_some_and(|wanted| state.bytes() >= wanted) {
            state.rhythm.refilled(returns.duration_since(entered));
        }
        (state.waited, state.goes_on) = (Some(returns), false);
        state.changed = false;
        !state.closed
    }

    fn committer_waits<'a>(
        &self,
        mut state: MutexGuard<'a, State>,
        waits: WaitsFor,
        left: Duration,
    ) -> MutexGuard<'a, State> {
        state.committer = waits;
        let (mut state, _) = self.work.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner);
        state.committer = WaitsFor::Nothing;
        state
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{Arc, mpsc},
        thread,
    };

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
    fn what_is_taken_without_a_wait_is_counted_anew() {
        let queue = Queue::new(1 << 20);
        let slot = queue.add_stream();
        let far = Instant::now() + Duration::from_secs(3600);
        push(&queue, slot);
        let bytes = queue.state().bytes();
        assert!(queue.wait(far, Duration::ZERO, usize::MAX));
        queue.take(slot, usize::MAX);
        for _ in 0..2 {
            queue.go_on();
            push(&queue, slot);
            queue.take(slot, usize::MAX);
            // Nothing was left: what came last is still what counts.
            queue.go_on();
            queue.take(slot, usize::MAX);
            assert_eq!(queue.state().taken, bytes);
        }
    }

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_slow_disk_waits_for_all_and_a_fast_one_for_half() {
        let mut rhythm = Rhythm::default();
        // A commit of 800 bytes takes 10 ms, the next 800 bytes come within 1 ms.
        for _ in 0..200 {
            assert_eq!(rhythm.wanted(10 * MS, 800, 0), 800);
            rhythm.refilled(MS);
        }
        // A commit takes 2 ms: half is committed while the other half comes.
        let mut rhythm = Rhythm::default();
        assert_eq!(rhythm.wanted(2 * MS, 800, 0), 800);
        rhythm.refilled(MS);
        assert_eq!(rhythm.wanted(2 * MS, 800, 0), 400);
        rhythm.refilled(MS / 2);
        assert_eq!(rhythm.wanted(2 * MS, 400, 400), 400);
        // The disk becomes slow.
        assert_eq!(rhythm.wanted(20 * MS, 400, 400), 800);
        rhythm.refilled(MS);
        assert_eq!(rhythm.wanted(20 * MS, 800, 0), 800);
    }

    #[test]
    fn the_refill_is_measured_again_and_again() {
        let mut rhythm = Rhythm::default();
        rhythm.refilled(MS);
        let wanted: Vec<_> = (0..640).map(|_| rhythm.wanted(MS, 400, 400)).collect();
        assert_eq!(wanted.iter().filter(|wanted| **wanted == 800).count(), 10);
        assert_eq!(wanted.iter().filter(|wanted| **wanted == 400).count(), 630);
    }

    #[test]
    fn what_comes_while_the_disk_failed_is_refused_at_once_and_what_comes_later_is_taken() {
        let queue = Queue::new(1 << 20);
        let slot = queue.add_stream();
        let refused = |queue: &Queue| {
            let (tell, told) = mpsc::channel();
            let mut batch = Batch::new(&StreamDefinition::sample(), usize::MAX);
            batch.push(&NewRecord::new("key", b"data")).expect("a sound record");
            let done: Done = Box::new(move |outcome| tell.send(outcome.err().map(|it| it.error)).expect("awaited"));
            queue.push(slot, Entry { batch, when_full: WhenFull::Wait, done });
            told.try_recv().ok().flatten()
        };
        assert!(refused(&queue).is_none());
        queue.refuse_for_now(slot, "telemetry", "sync failed");
        assert!(
            matches!(refused(&queue), Some(Error::Poisoned { stream, reason }) if stream == "telemetry" && reason == "sync failed")
        );
        assert_eq!(queue.take(slot, usize::MAX).len(), 1, "what had come before stays");
        queue.take_again(slot);
        assert!(refused(&queue).is_none());
        assert_eq!(queue.take(slot, usize::MAX).len(), 1);
    }

    #[test]
    fn the_committer_is_woken_for_what_it_waits_for_and_nothing_else() {
        let queue = Queue::new(usize::MAX);
        let slots = [queue.add_stream(), queue.add_stream()];
        push(&queue, slots[0]);
        let bytes = queue.state().bytes();
        let wakes = |committer| {
            let mut state = queue.state();
            state.committer = committer;
            state.wakes_committer()
        };
        let company = |of_one, of_all| WaitsFor::Company(Enough { of_one, of_all });
        let enough = [company(bytes, None), company(2 * bytes, None), company(usize::MAX, Some(2 * bytes))];
        assert_eq!([WaitsFor::Nothing, WaitsFor::Work].map(wakes), [false, true]);
        assert_eq!(enough.map(wakes), [true, false, false]);
        push(&queue, slots[1]);
        assert_eq!(enough.map(wakes), [true, false, true], "of all streams together");
        push(&queue, slots[1]);
        assert_eq!(enough.map(wakes), [true, true, true]);
    }

    #[test]
    fn nobody_is_forgotten_who_waits() {
        const ENTRIES: usize = 2000;
        const PRODUCERS: usize = 4;
        let day = Duration::from_secs(86_400);
        // Room for one at a time, and each is enough; room for all, and three are.
        for (room, enough) in [(1, 1), (usize::MAX, 3)] {
            let queue = Arc::new(Queue::new(room));
            let slot = queue.add_stream();
            push(&queue, slot);
            let bytes = queue.take(slot, usize::MAX)[0].batch.encoded_bytes();
            for _ in 0..PRODUCERS {
                let queue = Arc::clone(&queue);
                thread::spawn(move || (0..ENTRIES).for_each(|_| push(&queue, slot)));
            }
            let (tell, told) = mpsc::channel();
            thread::spawn(move || {
                let mut left = ENTRIES * PRODUCERS;
                while left >= enough && queue.wait(Instant::now() + day, day, enough * bytes) {
                    left -= queue.take(slot, usize::MAX).len();
                }
                tell.send(left)
            });
            let left = told.recv_timeout(Duration::from_secs(60)).expect("nobody waits for what is there");
            assert!(left < enough);
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
