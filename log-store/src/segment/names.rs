//! Which names the files of a stream should have. Pure, and one for the opening and for repairs.

use std::collections::{BTreeMap, BTreeSet};

use crate::sequence::SequenceNumber;

/// What a file with the name of a segment turns out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Holds {
    /// The segment of that name.
    Own,
    /// The segment that begins here instead.
    Other(SequenceNumber),
    /// It cannot be read: it stays where it is.
    Unknown,
}

/// One renaming. After each of them every file still has the name of a segment, so that a power cut in between costs
/// nothing: who comes next goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// A segment gets its own name back, which is free; before all steps it `lay_as` another one.
    GiveBack { from: SequenceNumber, to: SequenceNumber, lay_as: SequenceNumber },
    /// Of segments that have each other's names one takes a free one, so that the others can get theirs.
    MakeWay { from: SequenceNumber, to: SequenceNumber },
    /// It is to be set aside: another file is the segment that it claims to be.
    Copy { at: SequenceNumber, lay_as: SequenceNumber },
}

/// What is to be done, in this order. Files that hold nothing of the stream have no say: they are left out of `files`, and
/// are to be set aside before. A segment whose name something unknown has is left alone.
pub(crate) fn mend_names(files: &BTreeMap<SequenceNumber, Holds>) -> Vec<Step> {
    let named = |what: Holds| files.iter().filter(move |(_, holds)| **holds == what).map(|(name, _)| *name);
    let (mut owned, unknown): (BTreeSet<_>, BTreeSet<_>) =
        (named(Holds::Own).collect(), named(Holds::Unknown).collect());
    // By their names now: what they should be called, and what they were called at first.
    let mut astray: BTreeMap<SequenceNumber, (SequenceNumber, SequenceNumber)> = BTreeMap::new();
    for (&name, &holds) in files {
        if let Holds::Other(rightful) = holds {
            astray.insert(name, (rightful, name));
        }
    }
    let mut steps = Vec::new();
    loop {
        let is_taken =
            |name: &SequenceNumber| owned.contains(name) || unknown.contains(name) || astray.contains_key(name);
        let find = |fits: &dyn Fn(&SequenceNumber) -> bool| {
            astray
                .iter()
                .find(|(_, (rightful, _))| fits(rightful))
                .map(|(&name, &(rightful, lay_as))| (name, rightful, lay_as))
        };
        // One that gets its name back may free that of another.
        if let Some((from, to, lay_as)) = find(&|rightful| !is_taken(rightful)) {
            steps.push(Step::GiveBack { from, to, lay_as });
            astray.remove(&from);
            owned.insert(to);
        } else if let Some((at, _, lay_as)) = find(&|rightful| owned.contains(rightful)) {
            steps.push(Step::Copy { at, lay_as });
            astray.remove(&at);
        } else if let Some((from, (rightful, lay_as))) = on_circle(&astray) {
            let mut to = rightful.next();
            while is_taken(&to) {
                to = to.next();
            }
            steps.push(Step::MakeWay { from, to });
            astray.remove(&from);
            astray.insert(to, (rightful, lay_as));
        } else {
            return steps;
        }
    }
}

type Astray = (SequenceNumber, (SequenceNumber, SequenceNumber));

/// One of the files of which each has the next one's name, all around.
fn on_circle(astray: &BTreeMap<SequenceNumber, (SequenceNumber, SequenceNumber)>) -> Option<Astray> {
    let walk = |start: SequenceNumber| {
        // After as many steps as there are files, whoever still walks goes in a circle.
        (0..astray.len()).try_fold(start, |at, _| astray.get(&at).map(|(rightful, _)| *rightful))
    };
    let at = astray.keys().find_map(|start| walk(*start).filter(|at| astray.contains_key(at)))?;
    Some((at, astray[&at]))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn files(files: &[(u64, Holds)]) -> BTreeMap<SequenceNumber, Holds> {
        files.iter().map(|&(name, holds)| (SequenceNumber(name), holds)).collect()
    }

    fn other(rightful: u64) -> Holds {
        Holds::Other(SequenceNumber(rightful))
    }

    #[test]
    fn swapped_names_are_swapped_back_over_a_free_one() {
        let [five, nine, ten] = [5, 9, 10].map(SequenceNumber);
        assert_eq!(
            mend_names(&files(&[(1, Holds::Own), (5, other(9)), (9, other(5))])),
            [
                Step::MakeWay { from: five, to: ten },
                Step::GiveBack { from: nine, to: five, lay_as: nine },
                Step::GiveBack { from: ten, to: nine, lay_as: five },
            ]
        );
    }

    #[test]
    fn only_what_another_file_is_already_is_a_copy() {
        let steps = mend_names(&files(&[(1, Holds::Own), (5, other(1)), (7, other(5))]));
        let [five, seven] = [5, 7].map(SequenceNumber);
        assert_eq!(
            steps,
            [Step::Copy { at: five, lay_as: five }, Step::GiveBack { from: seven, to: five, lay_as: seven }]
        );
        assert_eq!(mend_names(&files(&[(1, Holds::Unknown), (5, other(1))])), []);
    }

    fn holds() -> impl Strategy<Value = Holds> {
        prop_oneof![
            2 => Just(Holds::Own),
            6 => (1u64..12).prop_map(other),
            1 => Just(Holds::Unknown),
        ]
    }

    proptest! {
        #[test]
        fn no_segment_is_overwritten_and_each_gets_its_name_unless_it_is_taken(
            files in prop::collection::btree_map((1u64..12).prop_map(SequenceNumber), holds(), 0..12)
        ) {
            // A file that says that it belongs where it lies is no stray.
            let files: BTreeMap<_, _> = files
                .into_iter()
                .map(|(name, holds)| (name, if holds == Holds::Other(name) { Holds::Own } else { holds }))
                .collect();
            let mut now: BTreeMap<_, _> = files.clone();
            for step in mend_names(&files) {
                match step {
                    Step::GiveBack { from, to, lay_as } => {
                        prop_assert_eq!(now.remove(&from), Some(Holds::Other(to)));
                        prop_assert_eq!(files[&lay_as], Holds::Other(to));
                        prop_assert_eq!(now.insert(to, Holds::Own), None);
                    }
                    Step::MakeWay { from, to } => {
                        let moved = now.remove(&from).expect("there");
                        prop_assert_eq!(now.insert(to, moved), None);
                    }
                    Step::Copy { at, lay_as } => {
                        let Some(Holds::Other(rightful)) = now.remove(&at) else { panic!("{at} is no stray") };
                        prop_assert_eq!(files[&lay_as], Holds::Other(rightful));
                        prop_assert_eq!(now.get(&rightful), Some(&Holds::Own));
                    }
                }
            }
            for (name, holds) in &files {
                match holds {
                    Holds::Other(rightful) => prop_assert!(now.contains_key(rightful)),
                    _ => prop_assert_eq!(now.get(name), Some(holds)),
                }
            }
            // What is left astray waits for something unknown.
            let left = now.values().filter(|holds| matches!(holds, Holds::Other(_))).count();
            prop_assert!(left == 0 || files.values().any(|holds| *holds == Holds::Unknown));
        }
    }
}
