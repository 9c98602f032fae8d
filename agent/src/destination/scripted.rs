//! A destination for tests that answers what it is told to.

use std::time::Duration;

use forebay_log_store::Record;

use super::{Limits, Outcome, Parcel};

/// Answers what its function says.
pub struct Scripted {
    /// Its limits.
    pub limits: Limits,
    /// What it takes at all.
    pub accepts: fn(&Record) -> Result<(), String>,
    /// What becomes of a request, and after how long.
    #[expect(clippy::type_complexity, reason = "named once")]
    pub answer: Box<dyn Fn(&[Parcel]) -> (Duration, Outcome) + Send + Sync>,
}

impl std::fmt::Debug for Scripted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Scripted")
    }
}

impl Scripted {
    pub(crate) fn limits(&self) -> Limits {
        self.limits
    }

    pub(crate) fn accepts(&self, record: &Record) -> Result<(), String> {
        (self.accepts)(record)
    }

    pub(crate) async fn send(&self, parcels: &[Parcel]) -> Outcome {
        let (after, outcome) = (self.answer)(parcels);
        if !after.is_zero() {
            tokio::time::sleep(after).await;
        }
        outcome
    }
}
