//! Streams of one store, side by side: none keeps the others waiting.

use std::sync::mpsc;

use super::{Simulation, full::other_stream};
use crate::{
    record::NewRecord,
    store::{Stream, WhenFull},
};

#[test]
fn a_stream_with_much_to_commit_lets_the_others_in_between() {
    let mut sim = Simulation::new(1);
    sim.open().expect("opens");
    let (busy, quiet) = (sim.stream().clone(), other_stream(&sim, "quiet", &[]));
    let (tell, told) = mpsc::channel();
    // Larger than what a block takes beside another one.
    let queue = |stream: &Stream, name: &'static str, bytes: usize| {
        let mut batch = stream.batch();
        batch.push(&NewRecord::new("key", &vec![b'.'; bytes])).expect("a sound record");
        let tell = tell.clone();
        stream.append(
            batch,
            WhenFull::Wait,
            Box::new(move |outcome| tell.send((name, outcome.is_ok())).expect("awaited")),
        );
    };
    for _ in 0..3 {
        queue(&busy, "busy", 40_000);
    }
    queue(&quiet, "quiet", 10);
    sim.commit_queued();
    let order: Vec<_> = told.try_iter().collect();
    assert_eq!(order, [("busy", true), ("quiet", true), ("busy", true), ("busy", true)]);
}
