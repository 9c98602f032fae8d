//! Answers: everybody who appended is told the outcome, in the order of the commits.
//!
//! Where a thread commits, another one tells, and it is woken when the next block is on its way to the disk: those whom it wakes
//! want to work on at once, and the disk would be idle meanwhile.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
};

use crate::{
    error::{Appended, Error, Refused},
    queue::Entry,
};

/// A batch and its outcome.
pub(crate) type Answer = (Entry, Result<Appended, Error>);

/// Who is slow to take its answers holds up the commits, and no memory, after so many of them.
const COMMITS_AHEAD: usize = 8;

/// Where answers are given. They are told at once, unless they are to be gathered.
#[derive(Clone, Default)]
pub(crate) struct Answers(Arc<Shared>);

#[derive(Default)]
struct Shared {
    gathered: Mutex<Gathered>,
    /// That some are handed over, or that there will be none.
    handed_over: Condvar,
    /// Held by whoever tells, so that answers keep their order.
    telling: Mutex<()>,
}

#[derive(Default)]
struct Gathered {
    /// Given and not told.
    answers: Vec<Answer>,
    /// How often some were given to them.
    commits: usize,
    /// Whether there is a thread that tells.
    has_thread: bool,
    is_handed_over: bool,
    is_closed: bool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Answers {
    /// From now on, answers wait for the thread that runs [`Answers::tell_all`].
    pub(crate) fn gather(&self) {
        lock(&self.0.gathered).has_thread = true;
    }

    /// Gives answers behind those given before.
    pub(crate) fn give(&self, answers: impl IntoIterator<Item = Answer>) {
        let mut gathered = lock(&self.0.gathered);
        if gathered.has_thread {
            gathered.answers.extend(answers);
            gathered.commits += 1;
        } else {
            drop(gathered);
            answers.into_iter().for_each(tell);
        }
    }

    /// Gives back what was not taken.
    pub(crate) fn refuse(&self, entries: Vec<Entry>, error: impl Fn() -> Error) {
        self.give(entries.into_iter().map(|entry| (entry, Err(error()))));
    }

    /// Lets the thread tell what was given.
    pub(crate) fn hand_over(&self) {
        let mut gathered = lock(&self.0.gathered);
        if !gathered.answers.is_empty() {
            gathered.is_handed_over = true;
            drop(gathered);
            self.0.handed_over.notify_one();
        }
    }

    /// Tells what was given, here and now. Nothing must be locked that they might want.
    pub(crate) fn tell(&self) {
        let _telling = lock(&self.0.telling);
        let answers = {
            let mut gathered = lock(&self.0.gathered);
            (gathered.commits, gathered.is_handed_over) = (0, false);
            std::mem::take(&mut gathered.answers)
        };
        for answer in answers {
            // Who panics at an answer has to see to that itself; all others want theirs.
            let _ = catch_unwind(AssertUnwindSafe(|| tell(answer)));
        }
    }

    /// Waits for the thread if it is far behind.
    pub(crate) fn keep_few(&self) {
        if lock(&self.0.gathered).commits > COMMITS_AHEAD {
            self.tell();
        }
    }

    /// The thread: tells what is handed over, until they are closed.
    pub(crate) fn tell_all(&self) {
        loop {
            let gathered = lock(&self.0.gathered);
            let waits = |gathered: &mut Gathered| !gathered.is_handed_over && !gathered.is_closed;
            let gathered = self.0.handed_over.wait_while(gathered, waits).unwrap_or_else(PoisonError::into_inner);
            let is_closed = gathered.is_closed;
            drop(gathered);
            self.tell();
            if is_closed {
                return;
            }
        }
    }

    /// Lets the thread end, behind what was given.
    pub(crate) fn close(&self) {
        lock(&self.0.gathered).is_closed = true;
        self.0.handed_over.notify_one();
    }
}

fn tell((entry, outcome): Answer) {
    match outcome {
        Ok(appended) => (entry.done)(Ok(appended)),
        Err(error) => (entry.done)(Err(Refused { error, batch: entry.batch })),
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::mpsc, thread};

    use super::*;
    use crate::{batch::Batch, segment::StreamDefinition, store::WhenFull};

    /// Gives an answer that says its name when it is told.
    fn give(answers: &Answers, name: usize, told: &mpsc::Sender<usize>) {
        let told = told.clone();
        let done = Box::new(move |_| told.send(name).expect("awaited"));
        let entry =
            Entry { batch: Batch::new(&StreamDefinition::sample(), usize::MAX), when_full: WhenFull::Wait, done };
        answers.refuse(vec![entry], || Error::Closed);
    }

    #[test]
    fn the_thread_tells_in_order_what_is_handed_over_and_at_the_end_the_rest() {
        let answers = Answers::default();
        answers.gather();
        let (tell, told) = mpsc::channel();
        thread::scope(|scope| {
            scope.spawn(|| answers.tell_all());
            give(&answers, 0, &tell);
            give(&answers, 1, &tell);
            assert!(told.try_recv().is_err(), "nothing is told before it is handed over");
            answers.hand_over();
            assert_eq!([told.recv(), told.recv()], [Ok(0), Ok(1)]);
            give(&answers, 2, &tell);
            answers.close();
        });
        assert_eq!(told.try_iter().collect::<Vec<_>>(), [2]);
    }

    #[test]
    fn answers_that_nobody_takes_are_few() {
        let answers = Answers::default();
        answers.gather();
        let (tell, told) = mpsc::channel();
        for name in 0..=COMMITS_AHEAD {
            assert!(told.try_recv().is_err());
            give(&answers, name, &tell);
            answers.keep_few();
        }
        assert_eq!(told.try_iter().count(), COMMITS_AHEAD + 1);
    }
}
