//! Which broker's turn it is. Pure.
//!
//! In the order of the configuration: the first one is preferred, and come back to once a connection that was good ends.

/// The turns of one or more brokers.
#[derive(Debug)]
pub(super) struct Turns {
    brokers: usize,
    at: usize,
    /// Failures in a row.
    failed: usize,
}

impl Turns {
    pub(super) fn new(brokers: usize) -> Self {
        assert!(brokers > 0, "there is a broker");
        Self { brokers, at: 0, failed: 0 }
    }

    /// Whose turn it is, by its place in the configuration.
    pub(super) fn at(&self) -> usize {
        self.at
    }

    /// There is no connection any more, or was none. Whether all of them have had their turn, so that a pause is due.
    pub(super) fn failed(&mut self, was_good: bool) -> bool {
        if was_good {
            (self.at, self.failed) = (0, 0);
            return self.brokers == 1;
        }
        self.at = (self.at + 1) % self.brokers;
        self.failed += 1;
        self.failed.is_multiple_of(self.brokers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brokers_are_tried_in_order_with_a_pause_after_the_last() {
        let mut turns = Turns::new(3);
        let tried: Vec<_> = (0..7).map(|_| (turns.at(), turns.failed(false))).collect();
        assert_eq!(tried, [(0, false), (1, false), (2, true), (0, false), (1, false), (2, true), (0, false)]);
        assert!(!turns.failed(true));
        assert_eq!(turns.at(), 0, "the first one is preferred");
    }

    #[test]
    fn with_one_broker_every_failure_is_followed_by_a_pause() {
        let mut turns = Turns::new(1);
        assert!(turns.failed(false) && turns.failed(true) && turns.at() == 0);
    }
}
