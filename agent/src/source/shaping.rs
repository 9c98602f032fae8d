//! A source's steps between what comes and what is stored, and the clock that they go by.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use forebay_log_store::{ClockStatus, Timestamp};

use super::shape::{Arrived, Shape};

/// The steps of one source. By default there are none.
#[derive(Clone, Default)]
pub struct Shaping(Option<Arc<Steps>>);

struct Steps {
    shape: Shape,
    clock: Box<dyn Fn() -> ClockStatus + Send + Sync>,
    began: Instant,
}

impl Shaping {
    /// These steps, with the times that the log's clock tells.
    pub fn new(shape: Shape, clock: impl Fn() -> ClockStatus + Send + Sync + 'static) -> Self {
        if shape.is_nothing() {
            return Self::default();
        }
        Self(Some(Arc::new(Steps { shape, clock: Box::new(clock), began: Instant::now() })))
    }

    /// The steps and the time now; `None` if a record is to be stored as it came.
    pub(super) fn now(&self) -> Option<(&Shape, Arrived)> {
        let steps = self.0.as_deref()?;
        let ClockStatus { now: Timestamp(at), trusted_since, .. } = (steps.clock)();
        let since_boot: Duration = steps.began.elapsed();
        Some((&steps.shape, Arrived { at: Timestamp(at), trusted: trusted_since.is_some(), since_boot }))
    }

    /// Whether a record is stored as it came.
    pub(super) fn is_nothing(&self) -> bool {
        self.0.is_none()
    }

    /// The log has refused what a device sends again: see [`Shape::forget`].
    pub fn forget(&self) {
        if let Some(steps) = &self.0 {
            steps.shape.forget();
        }
    }
}

impl fmt::Debug for Shaping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Shaping").field(&self.0.as_ref().map(|steps| &steps.shape)).finish()
    }
}
