//! Answers: everybody who appended is told the outcome, in the order of the commits, by a thread of its own. The committer writes
//! on meanwhile; it would wait long for those whom it wakes, who want to work on at once.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
};

use crate::{
    error::{Appended, Error, Refused},
    queue::Entry,
};

/// Who is slow to take its answers holds up the commits, and no memory, after so many of them.
const COMMITS_AHEAD: usize = 8;

/// A batch and its outcome.
pub(crate) type Answer = (Entry, Result<Appended, Error>);

/// Where answers are given. Without a thread they are told at once.
#[derive(Clone, Default)]
pub(crate) struct Answers {
    to: Arc<Mutex<Option<SyncSender<Vec<Answer>>>>>,
}

/// What the thread takes its answers from.
pub(crate) struct Given(Receiver<Vec<Answer>>);

impl Answers {
    /// From now on, answers are for whoever runs what this gives.
    pub(crate) fn to_thread(&self) -> Given {
        let (sender, receiver) = sync_channel(COMMITS_AHEAD);
        *self.to.lock().unwrap_or_else(PoisonError::into_inner) = Some(sender);
        Given(receiver)
    }

    /// Gives answers behind those given before.
    pub(crate) fn give(&self, answers: impl IntoIterator<Item = Answer>) {
        let answers: Vec<Answer> = answers.into_iter().collect();
        if answers.is_empty() {
            return;
        }
        let to = self.to.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let told_here = match to {
            Some(thread) => thread.send(answers).err().map(|unsent| unsent.0),
            None => Some(answers),
        };
        told_here.into_iter().flatten().for_each(tell);
    }

    /// Gives back what was not taken.
    pub(crate) fn refuse(&self, entries: Vec<Entry>, error: impl Fn() -> Error) {
        self.give(entries.into_iter().map(|entry| (entry, Err(error()))));
    }

    /// Lets the thread end behind what was given.
    pub(crate) fn close(&self) {
        self.to.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

impl Given {
    /// Tells everything that is given, until the answers are closed.
    pub(crate) fn tell_all(self) {
        for answer in self.0.into_iter().flatten() {
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
