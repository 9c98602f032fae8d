//! Random histories, on every processor: what the simulations of windows, alone and with their link, have in common.

use std::{
    env,
    fmt::Debug,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread,
};

/// Runs a history for each seed, `FOREBAY_HISTORIES` of them or this many, the first of which is `FOREBAY_SEED`; each history
/// counts for `weight`. Returns how many there were, and what they were added up to.
pub(super) fn run<H, T: Debug + Default + Send>(
    default: u64,
    weight: u64,
    history: impl Fn(u64) -> H + Sync,
    add: impl Fn(&mut T, &H) + Sync,
) -> (u64, T) {
    let histories = number("FOREBAY_HISTORIES").map_or(default, |asked| asked.div_ceil(weight));
    let first = number("FOREBAY_SEED").unwrap_or(1);
    let (next, totals) = (AtomicU64::new(first), Mutex::new(T::default()));
    let run_some = || {
        loop {
            let seed = next.fetch_add(1, Relaxed);
            if seed >= first + histories {
                return;
            }
            match catch_unwind(AssertUnwindSafe(|| history(seed))) {
                Ok(history) => add(&mut totals.lock().expect("no panic while adding"), &history),
                Err(panic) => {
                    eprintln!("history {seed} failed; run it alone with FOREBAY_SEED={seed} FOREBAY_HISTORIES=1");
                    resume_unwind(panic);
                }
            }
        }
    };
    thread::scope(|scope| {
        let threads = thread::available_parallelism().map_or(1, usize::from);
        (0..threads).for_each(|_| _ = scope.spawn(run_some));
    });
    let totals = totals.into_inner().expect("no panic while adding");
    eprintln!("{histories} histories: {totals:?}");
    (histories, totals)
}

fn number(variable: &str) -> Option<u64> {
    env::var(variable).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{variable}={text} is no number")))
}
