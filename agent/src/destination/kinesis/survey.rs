//! When the destination is asked for its shards, and what follows from its answer: which map is to count next. Pure.
//!
//! Without a map, records of one hash key travel together, which is right whatever the shards are. So nothing ever waits for a
//! right answer: parcels that went astray wait for one answer, and if that is of no use they go by their keys until a better
//! one comes.

use std::{sync::Arc, time::Duration};

use super::shards::Shards;

/// Between two questions that something gave rise to.
const AGAIN: Duration = Duration::from_secs(1);

/// The longest wait after questions that got no answer.
const AGAIN_MAX: Duration = Duration::from_secs(60);

/// Parcels wait no longer than this for an answer.
const AWAITED: Duration = Duration::from_secs(5);

/// After so many useless answers in a row a person is told.
const PATIENCE: u32 = 3;

/// What became of a question.
#[derive(Debug, Clone)]
pub(super) enum Answer {
    Shards(Shards),
    /// It may not be asked.
    Refused(String),
    /// It did not answer, for now.
    Failed(String),
}

/// A map, or none.
pub(super) type Map = Option<Arc<Shards>>;

/// See the module.
#[derive(Debug)]
pub(super) struct Survey {
    interval: Duration,
    /// The map that counts.
    pub(super) current: Map,
    /// When to ask next.
    next: Duration,
    asked: Option<Duration>,
    /// A parcel went to another shard than the map says: until then parcels wait for an answer.
    awaited: Option<Duration>,
    /// How many answers in a row were of no use.
    vain: u32,
    /// The newest question got no answer, and no request has got one since.
    silent: bool,
    /// How often in a row a question got no answer although requests got theirs.
    ignored: u32,
    /// The newest map by which a parcel went astray although it was what the destination listed.
    distrusted: Map,
    /// The newest list.
    listed: Map,
    /// A list was taken for a map because parcels waited for one, and since then none was the same as the one before it. The
    /// next is taken when it is: one that is another each time would send the same parcels astray for ever.
    hasty: bool,
    /// Whether a person was told that there is no map.
    told: bool,
}

impl Survey {
    pub(super) fn new(interval: Duration) -> Self {
        Self {
            interval,
            current: None,
            next: Duration::ZERO,
            asked: None,
            awaited: None,
            vain: 0,
            silent: false,
            ignored: 0,
            distrusted: None,
            listed: None,
            hasty: false,
            told: false,
        }
    }

    pub(super) fn due(&self) -> Duration {
        self.next
    }

    /// When a question that is out counts as failed, because parcels wait for it.
    pub(super) fn gives_up(&self) -> Option<Duration> {
        self.awaited
    }

    /// A parcel went to another shard than it was made for.
    pub(super) fn went_astray(&mut self, now: Duration) {
        self.hint(now, AGAIN);
        self.awaited.get_or_insert(self.next.max(now) + AWAITED);
    }

    /// Nobody could be asked until now. Nothing was sent either, so that parcels have not waited for the answer yet.
    pub(super) fn had_to_wait(&mut self, now: Duration) {
        self.awaited = self.awaited.map(|awaited| awaited.max(now + AWAITED));
    }

    /// This map counts from now on. Nothing is under way by an older one, so that nothing more goes astray by that.
    pub(super) fn follow(&mut self, map: Map) {
        self.current = map;
        self.awaited = None;
    }

    /// Something speaks for other shards than are known.
    pub(super) fn doubt(&mut self, now: Duration) {
        self.hint(now, AGAIN_MAX);
    }

    /// A request got its answer: if the newest question got none, the next one may. Tells whether that is of interest.
    pub(super) fn heard(&mut self, now: Duration) -> bool {
        let was_silent = std::mem::take(&mut self.silent);
        if was_silent {
            self.hint(now, AGAIN * ((1 << self.ignored.min(6)) - 1));
            self.ignored = self.ignored.saturating_add(1);
        }
        was_silent
    }

    fn hint(&mut self, now: Duration, apart: Duration) {
        let earliest = self.asked.map_or(now, |asked| asked + apart).max(now);
        self.next = self.next.min(earliest);
    }

    /// Returns the map that is to count next, if it is not the one that does, and what a person should be told.
    pub(super) fn on_answer(&mut self, answer: Answer, now: Duration) -> (Option<Map>, Option<String>) {
        self.asked = Some(now);
        self.next = now + self.interval;
        self.silent = matches!(answer, Answer::Failed(_));
        match answer {
            Answer::Shards(shards) => {
                self.ignored = 0;
                let is_current = self.current.as_deref() == Some(&shards);
                let waits = self.awaited.is_some();
                if is_current && waits {
                    self.distrusted = self.current.clone();
                }
                let is_again = self.listed.as_deref() == Some(&shards);
                let shards = Arc::new(shards);
                self.listed = Some(Arc::clone(&shards));
                if self.distrusted.as_deref() == Some(&*shards) {
                    // Perhaps it is only late.
                    return self.in_vain("the shards that take records are not those that it lists", now);
                }
                if self.hasty && !is_again {
                    return self.in_vain("it lists other shards each time that it is asked", now);
                }
                self.hasty = waits;
                (self.vain, self.told) = (0, false);
                (if is_current { None } else { self.take(Some(shards)) }, None)
            }
            Answer::Refused(why) => (self.take(None), self.tell(&why)),
            Answer::Failed(why) => self.in_vain(&why, now),
        }
    }

    fn in_vain(&mut self, why: &str, now: Duration) -> (Option<Map>, Option<String>) {
        self.vain = self.vain.saturating_add(1);
        self.next = now + (AGAIN * (1 << self.vain.min(6))).min(AGAIN_MAX).min(self.interval);
        let taken = if self.awaited.is_some() { self.take(None) } else { None };
        (taken, if self.vain >= PATIENCE { self.tell(why) } else { None })
    }

    /// A map to count next, unless there is none and nobody waits for one.
    fn take(&mut self, map: Map) -> Option<Map> {
        let waits = self.awaited.take().is_some();
        (waits || map != self.current).then_some(map)
    }

    fn tell(&mut self, why: &str) -> Option<String> {
        (!std::mem::replace(&mut self.told, true)).then(|| why.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::{super::shards::tests::shards, *};

    const INTERVAL: Duration = Duration::from_secs(600);

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn two() -> Shards {
        shards(&[("a", 9), ("b", u128::MAX)])
    }

    fn three() -> Shards {
        shards(&[("a", 9), ("c", 99), ("d", u128::MAX)])
    }

    impl Survey {
        /// The answer, and the map taken if there is one.
        fn hear(&mut self, answer: Answer, now: u64) -> Option<Map> {
            let (map, _) = self.on_answer(answer, s(now));
            if let Some(map) = &map {
                self.follow(map.clone());
            }
            map
        }
    }

    #[test]
    fn a_map_is_asked_for_at_once_and_counts_when_it_is_another() {
        let mut survey = Survey::new(INTERVAL);
        assert_eq!(survey.due(), s(0));
        assert_eq!(survey.hear(Answer::Shards(two()), 1), Some(Some(Arc::new(two()))));
        assert_eq!(survey.due(), s(601));
        assert_eq!(survey.hear(Answer::Shards(two()), 601), None);
        assert_eq!(survey.hear(Answer::Shards(three()), 1201), Some(Some(Arc::new(three()))));
    }

    #[test]
    fn a_parcel_that_went_astray_has_the_shards_asked_for_again() {
        let mut survey = Survey::new(INTERVAL);
        survey.hear(Answer::Shards(two()), 0);
        survey.went_astray(s(100));
        assert_eq!(survey.due(), s(100));
        assert!(survey.hear(Answer::Shards(three()), 101).is_some());
    }

    #[test]
    fn who_could_not_be_asked_is_awaited_as_long_as_anybody() {
        let mut survey = Survey::new(INTERVAL);
        survey.had_to_wait(s(3));
        assert_eq!(survey.gives_up(), None, "nothing waits for it");
        survey.hear(Answer::Shards(two()), 10);
        survey.went_astray(s(100));
        assert_eq!(survey.gives_up(), Some(s(105)));
        survey.had_to_wait(s(3600));
        assert_eq!(survey.gives_up(), Some(s(3605)));
    }

    #[test]
    fn by_a_list_that_is_late_nobody_goes_and_it_is_asked_for_again() {
        let mut survey = Survey::new(INTERVAL);
        survey.hear(Answer::Shards(two()), 0);
        survey.went_astray(s(100));
        assert_eq!(survey.hear(Answer::Shards(two()), 100), Some(None), "parcels go by their keys, and at once");
        for (at, due) in [(100, 102), (102, 106)] {
            assert_eq!(survey.due(), s(due), "after {at}");
            assert_eq!(survey.hear(Answer::Shards(two()), due), None, "that one is not trusted any more");
        }
        assert!(survey.hear(Answer::Shards(three()), 114).expect("another").is_some());
        assert_eq!(survey.due(), s(714));
        assert_eq!(survey.hear(Answer::Shards(two()), 714), None, "a list that is late again changes nothing");
        assert_eq!((survey.current.is_some(), survey.due()), (true, s(716)));
    }

    #[test]
    fn a_list_that_stays_wrong_is_told_once() {
        let mut survey = Survey::new(INTERVAL);
        survey.hear(Answer::Shards(two()), 0);
        survey.went_astray(s(100));
        let told = (0..10).map(|_| survey.on_answer(Answer::Shards(two()), survey.due()).1);
        assert_eq!(
            told.map(|told| told.is_some()).collect::<Vec<_>>(),
            [[false; 2].as_slice(), &[true], &[false; 7]].concat()
        );
    }

    #[test]
    fn by_lists_that_change_each_time_nobody_goes_until_one_is_told_twice() {
        let list = |number: u32| shards(&[(&format!("a{number}"), 9), (&format!("b{number}"), u128::MAX)]);
        let mut survey = Survey::new(INTERVAL);
        survey.hear(Answer::Shards(list(0)), 0);
        survey.went_astray(s(100));
        assert!(survey.hear(Answer::Shards(list(1)), 100).expect("at once").is_some(), "a list that is new is trusted");
        survey.went_astray(s(102));
        assert_eq!(survey.hear(Answer::Shards(list(2)), 102), Some(None), "but not one after the other");
        for (number, due) in [(3, 104), (4, 108), (5, 116)] {
            assert_eq!(survey.due(), s(due));
            assert_eq!(survey.hear(Answer::Shards(list(number)), due), None);
        }
        assert!(survey.hear(Answer::Shards(list(5)), 132).expect("it stays").is_some());
        survey.went_astray(s(200));
        assert!(survey.hear(Answer::Shards(list(6)), 200).expect("at once").is_some(), "all is as at the beginning");
        assert_eq!(survey.hear(Answer::Shards(list(6)), 800), None);
        assert!(survey.hear(Answer::Shards(list(7)), 1400).expect("another").is_some(), "it was told twice before");
    }

    #[test]
    fn whoever_may_not_ask_goes_by_the_keys_and_is_told_once() {
        let mut survey = Survey::new(INTERVAL);
        let refused = Answer::Refused("AccessDenied".to_owned());
        assert_eq!(survey.on_answer(refused.clone(), s(0)), (None, Some("AccessDenied".to_owned())));
        assert_eq!(survey.on_answer(refused, s(600)), (None, None));
        assert!(survey.hear(Answer::Shards(two()), 1200).is_some(), "it may by now");
    }

    #[test]
    fn parcels_wait_for_one_answer_and_a_map_is_kept_while_none_waits() {
        let mut survey = Survey::new(INTERVAL);
        survey.hear(Answer::Shards(two()), 0);
        let failed = || Answer::Failed("no route".to_owned());
        assert_eq!(survey.hear(failed(), 600), None);
        assert_eq!(survey.due(), s(602));
        assert!(survey.hear(Answer::Shards(two()), 602).is_none() && survey.current.is_some());
        // The list cannot be had for a long time, and then the shards change.
        (700..710).for_each(|at| assert_eq!(survey.hear(failed(), at), None));
        survey.went_astray(s(720));
        assert_eq!((survey.due(), survey.gives_up()), (s(720), Some(s(725))));
        survey.went_astray(s(722));
        assert_eq!(survey.gives_up(), Some(s(725)), "the first one has waited since");
        assert_eq!(survey.hear(failed(), 725), Some(None));
        assert_eq!(survey.gives_up(), None);
        assert!(survey.due() > s(726), "nobody waits for it now");
        assert!(survey.hear(Answer::Shards(three()), 785).expect("another").is_some());
    }

    #[test]
    fn an_answer_that_never_comes_is_told_once_though_nobody_waits() {
        let mut survey = Survey::new(INTERVAL);
        let mut told = (0..10).map(|at| survey.on_answer(Answer::Failed("no route".to_owned()), s(at)).1);
        assert_eq!(told.by_ref().take(3).collect::<Vec<_>>(), [None, None, Some("no route".to_owned())]);
        assert_eq!(told.flatten().count(), 0);
    }

    #[test]
    fn who_is_back_is_asked_at_once_and_who_answers_all_else_more_and_more_seldom() {
        let mut survey = Survey::new(INTERVAL);
        let failed = || Answer::Failed("no route".to_owned());
        for at in [0, 2, 6, 14, 30, 62] {
            survey.hear(failed(), at);
        }
        assert_eq!(survey.due(), s(122));
        survey.heard(s(90));
        assert_eq!(survey.due(), s(90), "the endpoint is back");
        for (at, due) in [(90, 91), (91, 94), (94, 101)] {
            survey.hear(failed(), at);
            survey.heard(s(at));
            survey.heard(s(at));
            assert_eq!(survey.due(), s(due));
        }
        survey.hear(Answer::Shards(two()), 101);
        survey.heard(s(105));
        assert_eq!(survey.due(), s(701));
    }
}
