//! Episodes in which a stream loses records that nobody has delivered: told when one begins, and then in sums, so that a stream
//! that goes on losing does not fill the log. Pure.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    time::{Duration, Instant},
};

use forebay_log_store::{DropReason, Event};

/// After the first loss of an episode is told, so long until the next; each time it is twice as long.
const WAIT: Duration = Duration::from_secs(10);

/// But never longer than this. Without a loss for so long, an episode is over.
const WAIT_MAX: Duration = Duration::from_secs(600);

/// Records of a stream that were dropped, some of them undelivered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Loss {
    pub(super) stream: String,
    pub(super) reason: DropReason,
    /// Of several, the newest.
    pub(super) limit: Option<String>,
    pub(super) first: u64,
    pub(super) last: u64,
    pub(super) count: u64,
    pub(super) undelivered: u64,
}

/// What is lost, by stream and cause.
#[derive(Debug, Default)]
pub(super) struct Losses(BTreeMap<(String, String), Episode>);

#[derive(Debug)]
struct Episode {
    untold: Option<Loss>,
    wait: Duration,
    /// When what is untold is told.
    due: Instant,
    newest: Instant,
}

impl Loss {
    /// If an event is one.
    pub(super) fn of(event: &Event) -> Option<Self> {
        let Event::Dropped { stream, reason, records, count, undelivered, limit } = event else { return None };
        (*undelivered > 0).then(|| Self {
            stream: stream.clone(),
            reason: *reason,
            limit: limit.clone(),
            first: records.start().0,
            last: records.end().0,
            count: *count,
            undelivered: *undelivered,
        })
    }

    /// The reason and the limit, without the figures that the limit has behind its name.
    fn cause(&self) -> String {
        let limit = self.limit.as_deref().and_then(|limit| limit.split('(').next());
        format!("{} {}", self.reason, limit.unwrap_or_default())
    }

    fn and(self, newer: Self) -> Self {
        Self {
            limit: newer.limit.or(self.limit),
            first: self.first.min(newer.first),
            last: self.last.max(newer.last),
            count: self.count + newer.count,
            undelivered: self.undelivered + newer.undelivered,
            ..self
        }
    }
}

impl Losses {
    /// Notes a loss. Gives what is to be told now: it, if an episode begins with it.
    pub(super) fn add(&mut self, loss: Loss, now: Instant) -> Vec<Loss> {
        let mut told = self.due(now);
        match self.0.entry((loss.stream.clone(), loss.cause())) {
            Entry::Occupied(mut episode) => {
                let episode = episode.get_mut();
                episode.newest = now;
                episode.untold = Some(match episode.untold.take() {
                    Some(older) => older.and(loss),
                    None => loss,
                });
            }
            Entry::Vacant(none) => {
                none.insert(Episode { untold: None, wait: WAIT, due: now + WAIT, newest: now });
                told.push(loss);
            }
        }
        told
    }

    /// What has waited long enough. To be asked now and then.
    pub(super) fn due(&mut self, now: Instant) -> Vec<Loss> {
        let told = self.0.values_mut().filter_map(|episode| episode.due(now)).collect();
        self.0.retain(|_, episode| episode.untold.is_some() || now < episode.newest + WAIT_MAX);
        told
    }

    /// Everything that is untold, at the end.
    pub(super) fn take(&mut self) -> Vec<Loss> {
        std::mem::take(&mut self.0).into_values().filter_map(|episode| episode.untold).collect()
    }
}

impl Episode {
    fn due(&mut self, now: Instant) -> Option<Loss> {
        let untold = self.untold.take_if(|_| now >= self.due)?;
        self.wait = (self.wait * 2).min(WAIT_MAX);
        self.due = now + self.wait;
        Some(untold)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loss(stream: &str, reason: DropReason, numbers: std::ops::RangeInclusive<u64>) -> Loss {
        let (first, last) = (*numbers.start(), *numbers.end());
        let count = last + 1 - first;
        Loss { stream: stream.to_owned(), reason, limit: None, first, last, count, undelivered: count }
    }

    fn quota(numbers: std::ops::RangeInclusive<u64>) -> Loss {
        loss("a", DropReason::Quota, numbers)
    }

    #[test]
    fn an_episode_is_told_when_it_begins_and_then_in_sums() {
        let (mut losses, begun) = (Losses::default(), Instant::now());
        let at = |seconds: u64| begun + Duration::from_secs(seconds);
        assert_eq!(losses.add(quota(1..=10), at(0)), [quota(1..=10)]);
        for n in 1..=50 {
            assert_eq!(losses.add(quota(n * 10 + 1..=n * 10 + 10), at(n / 10)), []);
        }
        assert_eq!(losses.due(at(9)), []);
        assert_eq!(losses.due(at(10)), [quota(11..=510)]);
        assert_eq!(losses.due(at(29)), []);
        // The next wait began when the last was told.
        assert_eq!(losses.add(quota(511..=520), at(29)), []);
        assert_eq!(losses.due(at(30)), [quota(511..=520)]);
        // After a pause it begins anew.
        assert_eq!(losses.due(at(640)), []);
        assert_eq!(losses.add(quota(521..=530), at(641)), [quota(521..=530)]);
        assert_eq!(losses.take(), []);
    }

    #[test]
    fn what_goes_on_for_a_day_is_told_a_few_times_an_hour_and_whole() {
        let (mut losses, begun) = (Losses::default(), Instant::now());
        let mut told = Vec::new();
        for second in 0..24 * 3600_u64 {
            let now = begun + Duration::from_secs(second);
            if second % 60 == 0 {
                told.extend(losses.add(quota(second + 1..=second + 60), now));
            }
            told.extend(losses.due(now));
        }
        told.extend(losses.take());
        assert!((140..160).contains(&told.len()), "{}", told.len());
        let mut next = 1;
        for loss in &told {
            assert_eq!((loss.first, loss.count), (next, loss.last + 1 - loss.first), "{loss:?}");
            next = loss.last + 1;
        }
        assert_eq!(next, 24 * 3600 + 1);
    }

    #[test]
    fn streams_and_reasons_are_told_apart_and_nothing_is_left_untold() {
        let (mut losses, now) = (Losses::default(), Instant::now());
        let by_age = |numbers| loss("a", DropReason::Retention, numbers);
        let of_other = |numbers| loss("b", DropReason::Quota, numbers);
        assert_eq!(losses.add(quota(1..=2), now), [quota(1..=2)]);
        assert_eq!(losses.add(of_other(1..=2), now), [of_other(1..=2)]);
        assert_eq!(losses.add(quota(3..=4), now), []);
        assert_eq!(losses.add(of_other(3..=4), now), []);
        let by_limit = |limit: &str, numbers| Loss { limit: Some(limit.to_owned()), ..quota(numbers) };
        assert_eq!(losses.add(by_age(5..=6), now), [by_age(5..=6)]);
        assert_eq!(losses.add(by_limit("min-free (9 of 10)", 7..=8), now), [by_limit("min-free (9 of 10)", 7..=8)]);
        // They take turns, and none is told anew for that.
        assert_eq!(losses.add(by_age(9..=9), now), []);
        assert_eq!(losses.add(by_limit("min-free (8 of 10)", 10..=11), now), []);
        assert_eq!(losses.add(by_limit("min-free (7 of 10)", 12..=12), now), []);
        let sum = by_limit("min-free (7 of 10)", 10..=12);
        assert_eq!(losses.take(), [quota(3..=4), sum, by_age(9..=9), of_other(3..=4)]);
        assert_eq!(losses.take(), []);
    }
}
