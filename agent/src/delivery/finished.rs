//! What a delivery has finished, where its checkpoint alone does not say it: kept as a mark of the stream, and so committed
//! like its records. Whatever it says stays true, so that an old one costs repeats and nothing else.

use forebay_log_store::{MARK_VALUE_BYTES_MAX, SequenceNumber, Stream, WhenFull};
use serde::{Deserialize, Serialize};

use super::window::{Finished, Range};

// Name of the mark, before the destination's. Persisted: never change it.
const PREFIX: &str = "delivered/";

/// The mark. Persisted as JSON: keys may be added.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct Mark {
    /// Numbers of records that are finished: the first and the last of each range. What lies between is delivered apart.
    ranges: Vec<(u64, u64)>,
    /// More of them, as how many numbers lie between one and the next, and how many it has: what lies between is delivered in one order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    inside: Vec<(u64, u64)>,
}

/// What is known to be finished. A mark that cannot be read counts as none.
pub(super) fn load(stream: &Stream, destination: &str) -> Finished {
    let (_, head) = stream.extent();
    stream.mark(&name(destination)).map(|value| read(&value, head)).unwrap_or_default()
}

fn read(value: &[u8], head: SequenceNumber) -> Finished {
    let Mark { ranges, inside } = serde_json::from_slice(value).unwrap_or_default();
    // What does not exist yet cannot be finished.
    let exists = |(first, last): (u64, u64)| {
        let (first, last) = (SequenceNumber(first), SequenceNumber(last).min(head.previous()));
        (first <= last).then_some((first, last))
    };
    let mut next = 0_u64;
    let absolute = |(between, numbers): (u64, u64)| {
        let first = next.checked_add(between)?;
        next = first.checked_add(numbers)?;
        Some((first, next.checked_sub(1)?))
    };
    Finished {
        between: ranges.into_iter().filter_map(exists).collect(),
        inside: inside.into_iter().map_while(absolute).filter_map(exists).collect(),
    }
}

/// As much of it as a mark holds: some hundred ranges inside of what is not finished, the largest.
fn write(finished: &Finished) -> Vec<u8> {
    let numbers = |(first, last): &Range| last.0 - first.0;
    let mut inside = finished.inside.clone();
    loop {
        let mut next = 0;
        let relative = |(first, last): &Range| {
            let between = first.0 - std::mem::replace(&mut next, last.0 + 1);
            (between, last.0 - first.0 + 1)
        };
        let mark = Mark {
            ranges: finished.between.iter().map(|(first, last)| (first.0, last.0)).collect(),
            inside: inside.iter().map(relative).collect(),
        };
        let value = serde_json::to_vec(&mark).expect("numbers are JSON");
        if value.len() <= MARK_VALUE_BYTES_MAX || inside.is_empty() {
            return value;
        }
        inside.sort_unstable_by_key(|range| std::cmp::Reverse(numbers(range)));
        inside.truncate(inside.len() * 9 / 10);
        inside.sort_unstable();
    }
}

/// Saves it with the next commit; `done` is told whether that is durable. Blocks while much waits to be committed.
pub(super) fn save(stream: &Stream, destination: &str, finished: &Finished, done: impl FnOnce(bool) + Send + 'static) {
    let mut batch = stream.batch();
    if batch.set_mark(&name(destination), &write(finished)).is_err() {
        return done(false);
    }
    stream.append(batch, WhenFull::Refuse, Box::new(move |appended| done(appended.is_ok())));
}

fn name(destination: &str) -> String {
    format!("{PREFIX}{destination}")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ranges(ranges: &[(u64, u64)]) -> Vec<Range> {
        ranges.iter().map(|(first, last)| (SequenceNumber(*first), SequenceNumber(*last))).collect()
    }

    fn between(between: &[(u64, u64)]) -> Finished {
        Finished { between: ranges(between), inside: Vec::new() }
    }

    #[test]
    fn what_is_written_is_read_and_all_that_there_can_be_fits() {
        let most: Vec<_> = (0..=64).map(|n| (u64::MAX - 1000 + 10 * n, u64::MAX - 999 + 10 * n)).collect();
        let value = write(&between(&most));
        assert!(value.len() <= MARK_VALUE_BYTES_MAX, "{} bytes", value.len());
        assert_eq!(read(&value, SequenceNumber(u64::MAX)), between(&most));
        assert_eq!(read(&value, SequenceNumber(100)), Finished::default(), "none of it exists");
    }

    #[test]
    fn keys_may_be_added_and_what_cannot_be_read_counts_as_none() {
        let head = SequenceNumber(100);
        let read = |value: &[u8]| read(value, head);
        assert_eq!(read(br#"{"ranges":[[0,4],[9,200],[7,6]],"later":{"x":1}}"#), between(&[(0, 4), (9, 99)]));
        for broken in [&b""[..], b"?", b"[]", br#"{"ranges":[[1]]}"#, br#"{"ranges":[[-1,4]]}"#, &[0xff; 40]] {
            assert_eq!(read(broken), Finished::default(), "{broken:?}");
        }
        let inside = |text: &str| read(format!(r#"{{"inside":{text}}}"#).as_bytes()).inside;
        assert_eq!(inside("[[7,2],[0,1],[1,500]]"), ranges(&[(7, 8), (9, 9), (11, 99)]));
        assert_eq!(inside("[[7,2],[18446744073709551615,1],[1,1]]"), ranges(&[(7, 8)]), "there are no such numbers");
        assert_eq!(inside("[[0,0]]"), [], "nor is there a range of none at the beginning");
    }

    proptest! {
        #[test]
        fn of_more_than_fits_the_largest_are_kept(steps in prop::collection::vec((1..50u64, 1..50u64), 0..3000), from: u32) {
            let mut next = u64::from(from);
            let inside: Vec<_> = steps
                .iter()
                .map(|(between, numbers)| {
                    let first = next + between;
                    next = first + numbers;
                    (first, next - 1)
                })
                .collect();
            let value = write(&Finished { inside: ranges(&inside), ..Finished::default() });
            prop_assert!(value.len() <= MARK_VALUE_BYTES_MAX);
            let kept = read(&value, SequenceNumber(u64::MAX)).inside;
            prop_assert!(kept.is_sorted() && kept.iter().all(|(first, last)| inside.contains(&(first.0, last.0))));
            prop_assert!(kept.len() == inside.len() || kept.len() > 300, "{} of {}", kept.len(), inside.len());
            let numbers = |(first, last): &Range| last.0 - first.0;
            let least = kept.iter().map(numbers).min().unwrap_or(0);
            let more = ranges(&inside).iter().filter(|range| numbers(range) > least).count();
            prop_assert!(more <= kept.len());
        }
    }
}
