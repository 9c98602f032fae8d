//! Who goes first where several deliveries share a link that is scarce: the highest priority, and among equals whoever has
//! waited longest. Pure.

use std::{cmp::Reverse, collections::BTreeMap, time::Duration};

/// Who says no more that it wants to send, this long after it was to ask again, has changed its mind.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
pub(super) struct Turns {
    waiting: BTreeMap<usize, Waiting>,
}

#[derive(Debug, Clone, Copy)]
struct Waiting {
    priority: u8,
    since: Duration,
    asks_again: Duration,
}

impl Turns {
    /// `who` wants to send, and asks again at `asks_again` unless it may: whether nobody goes before it.
    pub(super) fn is_first(&mut self, who: usize, priority: u8, now: Duration, asks_again: Duration) -> bool {
        self.waiting.retain(|_, waiting| waiting.asks_again + FORGOTTEN_AFTER > now);
        let mine = self.waiting.entry(who).or_insert(Waiting { priority, since: now, asks_again });
        (mine.priority, mine.asks_again) = (priority, asks_again);
        let first =
            self.waiting.iter().max_by_key(|(who, waiting)| (waiting.priority, Reverse(waiting.since), Reverse(**who)));
        first.is_some_and(|(first, _)| *first == who)
    }

    /// It sends, or wants to no more.
    pub(super) fn leave(&mut self, who: usize) {
        self.waiting.remove(&who);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn priority_first_and_then_patience() {
        let mut turns = Turns::default();
        assert!(turns.is_first(1, 0, ms(0), ms(100)));
        assert!(!turns.is_first(2, 0, ms(1), ms(100)), "it came later");
        assert!(turns.is_first(3, 7, ms(2), ms(100)), "it is more important");
        assert!(!turns.is_first(1, 0, ms(3), ms(100)));
        turns.leave(3);
        assert!(turns.is_first(1, 0, ms(4), ms(100)));
        turns.leave(1);
        assert!(!turns.is_first(1, 0, ms(5), ms(100)), "the other one waits since earlier");
        assert!(turns.is_first(2, 0, ms(6), ms(100)));
    }

    #[test]
    fn who_went_away_holds_up_nobody() {
        let mut turns = Turns::default();
        assert!(turns.is_first(1, 9, ms(0), ms(100)));
        assert!(!turns.is_first(2, 0, ms(1000), ms(1100)));
        assert!(turns.is_first(2, 0, ms(1101), ms(1200)));
    }
}
