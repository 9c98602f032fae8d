//! Stretches: the parts of the log that a delivery has not finished, each delivered in its own order. The newest is the
//! live one, which has no end; the others are gaps, which were leapt over. Without a leap there is only the live one.
//!
//! What lies between two of them is finished. So the end of each and how far each has got say all that there is to know.

use std::{ops, time::Duration};

use forebay_log_store::SequenceNumber;

use super::{entries::Entries, lanes::Lanes, ledger::Ledger, relaxed::Relaxed};

/// Numbers of records that are finished: the first and the last.
pub(crate) type Range = (SequenceNumber, SequenceNumber);

/// What is finished, as far as the checkpoint does not say it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Finished {
    /// What lies between stretches, and in front of the first.
    pub(crate) between: Vec<Range>,
    /// What lies inside of them, behind a record that is not finished; in order.
    pub(crate) inside: Vec<Range>,
}

impl Finished {
    /// Whether the checkpoint says as much.
    pub(super) fn says_no_more(&self) -> bool {
        self.between.len() <= 1 && self.inside.is_empty()
    }

    /// Whether this record lies inside, and is finished.
    pub(super) fn has(&self, number: SequenceNumber) -> bool {
        let place = self.inside.partition_point(|(_, last)| *last < number);
        self.inside.get(place).is_some_and(|(first, _)| *first <= number)
    }
}

/// A part of the log that is not finished.
#[derive(Debug)]
pub(super) struct Stretch {
    /// Grows with the sequence numbers.
    pub(super) id: u32,
    /// The number behind its last record; nothing for the live one.
    pub(super) end: Option<SequenceNumber>,
    pub(super) ledger: Ledger,
    pub(super) lanes: Lanes,
    pub(super) relaxed: Relaxed,
    /// Its unfinished records that are held in memory, and what they take.
    pub(super) records: usize,
    pub(super) bytes: u64,
    /// When the newest record read expires. None behind it expires earlier.
    pub(super) expires: Duration,
}

impl Stretch {
    fn new(id: u32, done: SequenceNumber, end: Option<SequenceNumber>) -> Self {
        Self {
            id,
            end,
            ledger: Ledger::new(done),
            lanes: Lanes::default(),
            relaxed: Relaxed::default(),
            records: 0,
            bytes: 0,
            expires: Duration::ZERO,
        }
    }

    /// The number of the next record to be read.
    pub(super) fn next_read(&self) -> SequenceNumber {
        self.ledger.last_read().next()
    }

    /// Whether all of it is read. The live one never is.
    pub(super) fn is_read(&self) -> bool {
        self.end.is_some_and(|end| self.next_read() >= end)
    }

    /// There is nothing more in it up to here.
    pub(super) fn pass(&mut self, last: SequenceNumber) {
        self.ledger.pass(self.end.map_or(last, |end| last.min(end.previous())));
    }

    /// The number up to which it is finished.
    pub(super) fn done(&self, entries: &Entries) -> SequenceNumber {
        self.ledger.checkpoint(entries)
    }
}

/// All stretches, oldest first; never none.
#[derive(Debug)]
pub(super) struct Stretches(Vec<Stretch>);

impl Stretches {
    /// Everything up to `checkpoint` is finished, and so are these ranges.
    pub(super) fn new(checkpoint: SequenceNumber, finished: &[Range]) -> Self {
        let mut finished = finished.to_vec();
        finished.sort_unstable();
        let (mut stretches, mut id, mut done) = (Vec::new(), 0, checkpoint);
        for (first, last) in finished {
            if last <= done {
                continue;
            }
            if first > done.next() {
                stretches.push(Stretch::new(id, done, Some(first)));
                id += 1;
            }
            done = last;
        }
        stretches.push(Stretch::new(id, done, None));
        Self(stretches)
    }

    pub(super) fn live(&self) -> &Stretch {
        self.0.last().expect("never none")
    }

    pub(super) fn live_mut(&mut self) -> &mut Stretch {
        self.0.last_mut().expect("never none")
    }

    /// The gaps, oldest first.
    pub(super) fn gaps(&self) -> &[Stretch] {
        &self.0[..self.0.len() - 1]
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Stretch> {
        self.0.iter()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Stretch> {
        self.0.iter_mut()
    }

    /// What lies before `at` is a gap from now on, and a live stretch begins there.
    pub(super) fn leap(&mut self, at: SequenceNumber, entries: &Entries) {
        let live = self.live_mut();
        live.end = Some(at);
        let (id, untouched) = (live.id + 1, live.records == 0 && live.ledger.span() == 0);
        // Two gaps with nothing finished between them are one.
        if let [.., gap, live] = &mut self.0[..]
            && untouched
            && gap.end == Some(live.done(entries).next())
        {
            gap.end = Some(at);
            self.0.pop();
        }
        self.0.push(Stretch::new(id, at.previous(), None));
    }

    /// Forgets the gaps that are finished.
    pub(super) fn forget_finished(&mut self) {
        self.0.retain(|stretch| !stretch.is_read() || stretch.ledger.span() > 0);
    }

    /// The number up to which everything is finished.
    pub(super) fn checkpoint(&self, entries: &Entries) -> SequenceNumber {
        self.0[0].done(entries)
    }

    /// All that is finished, if this was before anything was read.
    pub(super) fn finished(&self, entries: &Entries, before: &Finished) -> Finished {
        Finished { between: self.between(entries), inside: self.inside(entries, before) }
    }

    /// One range up to the checkpoint, and those between stretches.
    fn between(&self, entries: &Entries) -> Vec<Range> {
        let pairs = self.0.iter().zip(&self.0[1..]);
        let between = |(before, behind): (&Stretch, &Stretch)| {
            let (first, last) = (before.end.expect("a gap has an end"), behind.done(entries));
            (first <= last).then_some((first, last))
        };
        std::iter::once((SequenceNumber::ZERO, self.checkpoint(entries))).chain(pairs.filter_map(between)).collect()
    }

    fn inside(&self, entries: &Entries, before: &Finished) -> Vec<Range> {
        let mut inside = Vec::new();
        for stretch in &self.0 {
            let mut unfinished = stretch.ledger.unfinished().map(|slot| &entries[slot]);
            let unread = stretch.next_read();
            let mut last = unfinished.next();
            while let Some(entry) = last {
                // Its letter is not stored: another run may find that it is taken, and then what passed it has to come again.
                if entry.was_passed {
                    break;
                }
                last = unfinished.next();
                let next = last.map_or(unread, |entry| entry.record.sequence_number);
                inside.push((entry.record.sequence_number.next(), next.previous()));
            }
            let end = stretch.end.unwrap_or(SequenceNumber(u64::MAX)).previous();
            let clip = |(first, last): &Range| ((*first).max(unread), (*last).min(end));
            inside.extend(before.inside.iter().map(clip));
        }
        inside.retain(|(first, last)| first <= last);
        inside
    }

    fn place(&self, id: u32) -> usize {
        self.0.binary_search_by_key(&id, |stretch| stretch.id).expect("a stretch is known while it has records")
    }
}

impl ops::Index<u32> for Stretches {
    type Output = Stretch;

    fn index(&self, id: u32) -> &Stretch {
        &self.0[self.place(id)]
    }
}

impl ops::IndexMut<u32> for Stretches {
    fn index_mut(&mut self, id: u32) -> &mut Stretch {
        let place = self.place(id);
        &mut self.0[place]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(number: u64) -> SequenceNumber {
        SequenceNumber(number)
    }

    fn ranges(ranges: &[(u64, u64)]) -> Vec<Range> {
        ranges.iter().map(|(first, last)| (number(*first), number(*last))).collect()
    }

    #[test]
    fn what_is_finished_is_what_lies_between() {
        let entries = Entries::default();
        let finished = ranges(&[(30, 39), (11, 15), (0, 8), (40, 50)]);
        let stretches = Stretches::new(number(10), &finished);
        let gaps: Vec<_> = stretches.gaps().iter().map(|gap| (gap.next_read().0, gap.end.map(|end| end.0))).collect();
        assert_eq!(gaps, [(16, Some(30))], "what touches is one, what is behind the checkpoint is nothing");
        assert_eq!((stretches.live().next_read(), stretches.checkpoint(&entries)), (number(51), number(15)));
        assert_eq!(stretches.between(&entries), ranges(&[(0, 15), (30, 50)]));
    }

    #[test]
    fn what_was_finished_before_and_is_not_read_again_yet_stays_so() {
        let entries = Entries::default();
        let before = Finished { between: Vec::new(), inside: ranges(&[(12, 14), (16, 18), (45, 55), (70, 80)]) };
        let mut stretches = Stretches::new(number(10), &ranges(&[(51, 60)]));
        assert_eq!(stretches.finished(&entries, &before).inside, ranges(&[(12, 14), (16, 18), (45, 50), (70, 80)]));
        stretches[0].pass(number(16));
        stretches.live_mut().pass(number(75));
        assert_eq!(stretches.finished(&entries, &before).inside, ranges(&[(17, 18), (45, 50), (76, 80)]));
        assert!(before.has(number(12)) && before.has(number(14)) && before.has(number(80)));
        assert!(![11, 15, 19, 56, 81].map(|outside| before.has(number(outside))).contains(&true));
    }

    #[test]
    fn a_gap_that_is_passed_leaves_nothing() {
        let entries = Entries::default();
        let mut stretches = Stretches::new(number(10), &[]);
        stretches.leap(number(50), &entries);
        assert_eq!(stretches.checkpoint(&entries), number(10));
        stretches.live_mut().pass(number(60));
        assert_eq!(stretches.between(&entries), ranges(&[(0, 10), (50, 60)]));
        stretches[0].pass(number(70));
        stretches.forget_finished();
        assert_eq!((stretches.gaps().len(), stretches.checkpoint(&entries)), (0, number(60)));
    }

    #[test]
    fn leaps_with_nothing_finished_between_them_make_one_gap() {
        let entries = Entries::default();
        let mut stretches = Stretches::new(number(10), &[]);
        stretches.leap(number(50), &entries);
        stretches.leap(number(80), &entries);
        assert_eq!((stretches.gaps().len(), stretches.gaps()[0].end), (1, Some(number(80))));
        stretches.live_mut().pass(number(80));
        stretches.leap(number(90), &entries);
        assert_eq!(stretches.gaps().len(), 2);
        assert_eq!(stretches.between(&entries), ranges(&[(0, 10), (80, 80)]));
    }
}
