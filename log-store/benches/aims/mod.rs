//! What a benchmark aims at: it says at its end what falls short of that, and fails.

use std::{
    ops::{Bound, RangeBounds},
    process::ExitCode,
};

/// The aims that were missed so far.
#[derive(Default)]
pub(crate) struct Aims {
    missed: Vec<String>,
}

impl Aims {
    /// A figure that should lie within `aim`; one that is no number does not.
    pub(crate) fn judge(&mut self, what: &str, figure: f64, aim: impl RangeBounds<f64>) {
        if !aim.contains(&figure) {
            let bound = |bound: Bound<&f64>, named: &str| match bound {
                Bound::Included(bound) | Bound::Excluded(bound) => format!(" {named} {bound}"),
                Bound::Unbounded => String::new(),
            };
            let (least, most) = (bound(aim.start_bound(), "at least"), bound(aim.end_bound(), "at most"));
            self.missed.push(format!("{what}: {figure:.2}, which should be{least}{most}"));
        }
    }

    /// Says what was missed.
    pub(crate) fn outcome(self) -> ExitCode {
        for miss in &self.missed {
            eprintln!("missed: {miss}");
        }
        if self.missed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}
