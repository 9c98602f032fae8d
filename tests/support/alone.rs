//! Tests that load the machine take turns, so that none of them is judged by what another one leaves it.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Waits for the turn of a heavy test, which ends when this is dropped.
pub(crate) fn alone() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    // A test that failed in its turn took nothing with it.
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}
