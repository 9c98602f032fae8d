//! Whether the streams of dead letters have room for the largest one.

use std::collections::BTreeMap;

use forebay_log_store::StreamConfig;

use super::{Problems, key_path, load::Destination, size, stream};

/// What a letter says beside the record, at the most.
const AROUND_LETTER: u64 = 64 << 10;

/// A stream takes no record of more than a quarter of its quota, and a letter that it did not take would be tried for ever.
pub(super) fn check(
    streams: &BTreeMap<String, StreamConfig>,
    destinations: &BTreeMap<String, Destination>,
    problems: &mut Problems,
) {
    for (name, destination) in destinations {
        let letters = stream::dead_letter_stream(name);
        let least = (destination.settings.largest_record() + AROUND_LETTER) * 4;
        if let Some(stream) = streams.get(&letters).filter(|stream| stream.quota < least) {
            let [_, shown] = size::show_beside([least, stream.quota]);
            let least = least.div_ceil(1 << 10);
            let message = format!(
                "must be {least}KiB or more, not {shown}: four times the largest record that `{name}` takes, and what a letter \
                 says beside it"
            );
            problems.add(format!("{}.quota", key_path("streams", &letters)), message);
        }
    }
}
