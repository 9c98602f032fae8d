//! What a delivery has finished, where its checkpoint alone does not say it: kept as a mark of the stream, and so committed
//! like its records. Whatever it says stays true, so that an old one costs repeats and nothing else.

use forebay_log_store::{SequenceNumber, Stream, WhenFull};
use serde::{Deserialize, Serialize};

use super::window::Range;

// Name of the mark, before the destination's. Persisted: never change it.
const PREFIX: &str = "delivered/";

/// The mark. Persisted as JSON: keys may be added.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct Finished {
    /// Numbers of records that are finished: the first and the last of each range.
    ranges: Vec<(u64, u64)>,
}

/// What is known to be finished. A mark that cannot be read counts as none.
pub(super) fn load(stream: &Stream, destination: &str) -> Vec<Range> {
    let (_, head) = stream.extent();
    stream.mark(&name(destination)).map(|value| read(&value, head)).unwrap_or_default()
}

fn read(value: &[u8], head: SequenceNumber) -> Vec<Range> {
    let Finished { ranges } = serde_json::from_slice(value).unwrap_or_default();
    // What does not exist yet cannot be finished.
    let range = |(first, last)| (SequenceNumber(first), SequenceNumber(last).min(head.previous()));
    ranges.into_iter().map(range).filter(|(first, last)| first <= last).collect()
}

fn write(ranges: &[Range]) -> Vec<u8> {
    let finished = Finished { ranges: ranges.iter().map(|(first, last)| (first.0, last.0)).collect() };
    serde_json::to_vec(&finished).expect("numbers are JSON")
}

/// Saves it with the next commit; `done` is told whether that is durable. Blocks while much waits to be committed.
pub(super) fn save(stream: &Stream, destination: &str, ranges: &[Range], done: impl FnOnce(bool) + Send + 'static) {
    let mut batch = stream.batch();
    if batch.set_mark(&name(destination), &write(ranges)).is_err() {
        return done(false);
    }
    stream.append(batch, WhenFull::Refuse, Box::new(move |appended| done(appended.is_ok())));
}

fn name(destination: &str) -> String {
    format!("{PREFIX}{destination}")
}

#[cfg(test)]
mod tests {
    use forebay_log_store::MARK_VALUE_BYTES_MAX;

    use super::*;

    fn ranges(ranges: &[(u64, u64)]) -> Vec<Range> {
        ranges.iter().map(|(first, last)| (SequenceNumber(*first), SequenceNumber(*last))).collect()
    }

    #[test]
    fn what_is_written_is_read_and_all_that_there_can_be_fits() {
        let most: Vec<_> = (0..=64).map(|n| (u64::MAX - 1000 + 10 * n, u64::MAX - 999 + 10 * n)).collect();
        let value = write(&ranges(&most));
        assert!(value.len() <= MARK_VALUE_BYTES_MAX, "{} bytes", value.len());
        assert_eq!(read(&value, SequenceNumber(u64::MAX)), ranges(&most));
        assert_eq!(read(&value, SequenceNumber(100)), [], "none of it exists");
    }

    #[test]
    fn keys_may_be_added_and_what_cannot_be_read_counts_as_none() {
        let head = SequenceNumber(100);
        assert_eq!(read(br#"{"ranges":[[0,4],[9,200],[7,6]],"later":{"x":1}}"#, head), ranges(&[(0, 4), (9, 99)]));
        for broken in [&b""[..], b"?", b"[]", br#"{"ranges":[[1]]}"#, br#"{"ranges":[[-1,4]]}"#, &[0xff; 40]] {
            assert_eq!(read(broken, head), [], "{broken:?}");
        }
    }
}
