//! What a delivery has finished, where its checkpoint alone does not say it: kept as a mark of the stream, and so committed
//! like its records. Whatever it says stays true, so that an old one costs repeats and nothing else.

use std::{
    cmp::Reverse,
    io::{Read as _, Write as _},
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use flate2::{Compression, read::DeflateDecoder, write::DeflateEncoder};
use forebay_log_store::{MARK_VALUE_BYTES_MAX, SequenceNumber, Stream, WhenFull};
use serde::{Deserialize, Serialize};

use super::window::{Finished, Range};

// Name of the mark, before the destination's. Persisted: never change it.
const PREFIX: &str = "delivered/";

/// What lies inside takes no more than this of the mark: sources keep their positions in marks of the same stream, and a small
/// stream has little room for all of them.
const INSIDE_BYTES_MAX: usize = 2 << 10;

/// No more of it is read, in bytes after it was unpacked.
const UNPACKED_BYTES_MAX: u64 = 1 << 20;

/// The mark. Persisted as JSON: keys may be added.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct Mark {
    /// Numbers of records that are finished: the first and the last of each range. What lies between is delivered apart.
    ranges: Vec<(u64, u64)>,
    /// More of them, in between which everything is delivered in one order: for each range how many numbers lie before it, and how
    /// many it has, as numbers of postcard, in one stream of deflate, in base64.
    #[serde(skip_serializing_if = "String::is_empty")]
    inside: String,
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
    let ranges = ranges.into_iter().filter_map(exists).collect();
    Finished { between: ranges, inside: unpacked(&inside).into_iter().filter_map(exists).collect() }
}

fn unpacked(packed: &str) -> Vec<(u64, u64)> {
    let packed = BASE64_STANDARD.decode(packed).unwrap_or_default();
    let mut numbers = Vec::new();
    // What is cut off, or broken, ends it.
    let _ = DeflateDecoder::new(&*packed).take(UNPACKED_BYTES_MAX).read_to_end(&mut numbers);
    let (mut rest, mut next) = (&numbers[..], 0_u64);
    let mut ranges = Vec::new();
    while let Ok(((before, has), left)) = postcard::take_from_bytes::<(u64, u64)>(rest) {
        let first = next.checked_add(before);
        let Some((first, end)) = first.and_then(|first| Some((first, first.checked_add(has)?))) else { break };
        if end > first {
            ranges.push((first, end - 1));
        }
        (rest, next) = (left, end);
    }
    ranges
}

fn packed(ranges: &[Range]) -> String {
    if ranges.is_empty() {
        return String::new();
    }
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::default());
    let mut next = 0;
    for (first, last) in ranges {
        let numbers = (first.0 - next, last.0 - first.0 + 1);
        encoder.write_all(&postcard::to_allocvec(&numbers).expect("two numbers")).expect("memory takes it");
        next = last.0 + 1;
    }
    BASE64_STANDARD.encode(encoder.finish().expect("memory takes it"))
}

/// As much of it as there is room for: inside of what is not finished some 700 ranges, or thousands that are alike; of more the
/// largest.
fn write(finished: &Finished) -> Vec<u8> {
    let ranges: Vec<_> = finished.between.iter().map(|(first, last)| (first.0, last.0)).collect();
    let mut kept = finished.inside.clone();
    loop {
        let mark = Mark { ranges: ranges.clone(), inside: packed(&kept) };
        let value = serde_json::to_vec(&mark).expect("numbers and text are JSON");
        let fits = mark.inside.len() <= INSIDE_BYTES_MAX && value.len() <= MARK_VALUE_BYTES_MAX;
        if fits || kept.is_empty() {
            return value;
        }
        kept.sort_unstable_by_key(|(first, last)| Reverse(last.0 - first.0));
        kept.truncate(kept.len() * 9 / 10);
        kept.sort_unstable();
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
        let mut random = fastrand::Rng::with_seed(1);
        let mut next = 0;
        let mut apart = || {
            let first = next + random.u64(1..1 << 40);
            next = first + random.u64(1..1 << 40);
            (first, next - 1)
        };
        let inside: Vec<_> = std::iter::repeat_with(&mut apart).take(3000).collect();
        for inside in [Vec::new(), ranges(&inside)] {
            let value = write(&Finished { inside, ..between(&most) });
            assert!(value.len() <= MARK_VALUE_BYTES_MAX, "{} bytes", value.len());
            assert_eq!(read(&value, SequenceNumber(u64::MAX)).between, ranges(&most));
        }
        let value = write(&between(&most));
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
    }

    #[test]
    fn what_lies_inside_is_read_as_it_was_written_and_a_broken_one_as_far_as_it_goes() {
        let head = SequenceNumber(100);
        let inside = |text: &str| read(format!(r#"{{"inside":"{text}"}}"#).as_bytes(), head).inside;
        let numbers = |numbers: &[u64]| {
            let mut encoder = DeflateEncoder::new(Vec::new(), Compression::none());
            numbers
                .iter()
                .for_each(|n| encoder.write_all(&postcard::to_allocvec(n).expect("a number")).expect("memory"));
            BASE64_STANDARD.encode(encoder.finish().expect("memory"))
        };
        assert_eq!(inside(&numbers(&[7, 2, 0, 1, 1, 500])), ranges(&[(7, 8), (9, 9), (11, 99)]));
        assert_eq!(inside(&numbers(&[7, 2, u64::MAX, 1, 1, 1])), ranges(&[(7, 8)]), "there are no such numbers");
        assert_eq!(inside(&numbers(&[0, 0, 3, 0, 1, 1])), ranges(&[(4, 4)]), "nor ranges of none");
        assert_eq!(inside(&numbers(&[7, 2, 5])), ranges(&[(7, 8)]));
        // As it has to be read for ever: a block of deflate with the bytes 7, 2, 2, 2.
        assert_eq!(inside("AQQA+/8HAgIC"), ranges(&[(7, 8), (11, 12)]));
        let whole = packed(&ranges(&[(7, 8), (11, 12)]));
        assert_eq!(inside(&whole), ranges(&[(7, 8), (11, 12)]));
        assert_eq!(inside(&whole[..4]), ranges(&[(7, 8)]), "a part of it is that part");
        for broken in ["", "?", "AAAA", &whole[..3]] {
            assert_eq!(inside(broken), [], "{broken}");
        }
        // A page that unpacks to gigabytes.
        let mut bomb = DeflateEncoder::new(Vec::new(), Compression::best());
        bomb.write_all(&vec![1; 64 << 20]).expect("memory");
        let unpacked = unpacked(&BASE64_STANDARD.encode(bomb.finish().expect("memory")));
        assert_eq!(unpacked.len() as u64, UNPACKED_BYTES_MAX / 2);
    }

    /// A key that waits, and has a tenth of what comes: as far apart as it happens, or in turn.
    #[test]
    fn hundreds_of_places_fit_and_thousands_if_they_are_alike() {
        let mut random = fastrand::Rng::with_seed(1);
        for (in_turn, fits) in [(true, 10_000), (false, 700)] {
            let waiting = (1..100_000_u64).filter(|n| if in_turn { n % 10 == 0 } else { random.u8(..10) == 0 });
            let waiting: Vec<_> = waiting.collect();
            let between =
                waiting.windows(2).map(|pair| (pair[0] + 1, pair[1] - 1)).filter(|(first, last)| first <= last);
            let inside = ranges(&between.collect::<Vec<_>>());
            let value = write(&Finished { inside: inside.clone(), ..Finished::default() });
            let kept = read(&value, SequenceNumber(u64::MAX)).inside;
            assert!(kept.len() >= fits.min(inside.len()), "{in_turn}: {} of {}", kept.len(), inside.len());
        }
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
            prop_assert!(value.len() <= INSIDE_BYTES_MAX + 100);
            let kept = read(&value, SequenceNumber(u64::MAX)).inside;
            prop_assert!(kept.is_sorted() && kept.iter().all(|(first, last)| inside.contains(&(first.0, last.0))));
            prop_assert!(kept.len() == inside.len() || kept.len() > 600, "{} of {}", kept.len(), inside.len());
            let numbers = |(first, last): &Range| last.0 - first.0;
            let least = kept.iter().map(numbers).min().unwrap_or(0);
            let all = ranges(&inside);
            let mut larger = all.iter().filter(|range| numbers(range) > least);
            prop_assert!(larger.all(|range| kept.binary_search(range).is_ok()));
        }
    }
}
