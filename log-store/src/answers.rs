//! Answers: everybody who appended is told the outcome, in the order of the commits.
//!
//! Where threads commit, answers are gathered until whoever gave them has let the next commit begin: those who are woken want to
//! work on at once, and the disk would be idle meanwhile.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::{
    error::{Appended, Error, Refused},
    queue::Entry,
};

/// A batch and its outcome.
pub(crate) type Answer = (Entry, Result<Appended, Error>);

/// Where answers are given. They are told at once, unless they are to be gathered.
#[derive(Clone, Default)]
pub(crate) struct Answers(Arc<Shared>);

#[derive(Default)]
struct Shared {
    /// Given and not told; `None` where they are told at once.
    gathered: Mutex<Option<Vec<Answer>>>,
    /// Held by whoever tells, so that answers keep their order.
    telling: Mutex<()>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Answers {
    /// From now on, answers wait for [`Answers::tell`].
    pub(crate) fn gather(&self) {
        *lock(&self.0.gathered) = Some(Vec::new());
    }

    /// Gives answers behind those given before.
    pub(crate) fn give(&self, answers: impl IntoIterator<Item = Answer>) {
        let mut gathered = lock(&self.0.gathered);
        match gathered.as_mut() {
            Some(gathered) => gathered.extend(answers),
            None => {
                drop(gathered);
                answers.into_iter().for_each(tell);
            }
        }
    }

    /// Gives back what was not taken.
    pub(crate) fn refuse(&self, entries: Vec<Entry>, error: impl Fn() -> Error) {
        self.give(entries.into_iter().map(|entry| (entry, Err(error()))));
    }

    /// Whether some are gathered that nobody tells yet.
    pub(crate) fn are_due(&self) -> bool {
        lock(&self.0.gathered).as_ref().is_some_and(|gathered| !gathered.is_empty())
    }

    /// Tells what was gathered. Nothing must be locked that they might want.
    pub(crate) fn tell(&self) {
        let _telling = lock(&self.0.telling);
        let gathered = lock(&self.0.gathered).as_mut().map(std::mem::take);
        for answer in gathered.into_iter().flatten() {
            // Who panics at an answer has to see to that itself; all others want theirs.
            let _ = catch_unwind(AssertUnwindSafe(|| tell(answer)));
        }
    }
}

fn tell((entry, outcome): Answer) {
    match outcome {
        Ok(appended) => (entry.done)(Ok(appended)),
        Err(error) => (entry.done)(Err(Refused { error, batch: entry.batch })),
    }
}
