//! Whether what arrived is what was put in: all of it, and in order within each key, but for repetitions.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{Load, member};
use crate::support::kinesis::Received;

/// What came of it.
pub(super) struct Verdict {
    /// Records that arrived more than once.
    pub(super) repeated: usize,
}

/// Judges; panics with what is wrong.
#[track_caller]
pub(super) fn judge(load: &Load, received: &[Received]) -> Verdict {
    let mut by_key: BTreeMap<&str, Vec<&[u8]>> = BTreeMap::new();
    for record in received {
        by_key.entry(&record.partition_key).or_default().push(&record.data);
    }
    let mut repeated = 0;
    let mut take = |key: &str, number: &dyn Fn(&[u8]) -> u64| {
        let records = by_key.remove(key).unwrap_or_else(|| panic!("nothing arrived under {key}"));
        let mut numbers: Vec<u64> = Vec::with_capacity(records.len());
        for record in records {
            let number = number(record);
            // A request that was cut off before its answer is sent again, all of it: one record of a key at a time.
            if numbers.last().is_some_and(|last| *last >= number) {
                assert!(
                    numbers.binary_search(&number).is_ok(),
                    "{number} of {key} arrived behind {:?}",
                    numbers.last()
                );
                repeated += 1;
            } else {
                numbers.push(number);
            }
        }
        numbers
    };

    for (sensor, published) in load.sensors.iter().enumerate() {
        let mut all = Vec::new();
        for channel in super::equipment::CHANNELS {
            all.extend(take(&format!("truck/sensor-{sensor}/{channel}"), &|data| number(&json(data), "/n")));
        }
        all.sort_unstable();
        assert!(all.iter().copied().eq(0..*published), "sensor {sensor} published {published}: {} arrived", all.len());
    }
    // The truck moves by the second.
    let positions = take("position", &|data| {
        let time = member(&json(data), "/time");
        let time = humantime::parse_rfc3339(time.as_str().expect("a text")).expect("a time");
        time.duration_since(std::time::UNIX_EPOCH).expect("this century").as_secs()
    });
    let first = positions.first().copied().unwrap_or(0);
    assert!(positions.iter().copied().eq(first..first + load.positions), "{} of {}", positions.len(), load.positions);
    let polls = take("engine/1", &|data| number(&json(data), "/sequence"));
    assert_eq!(polls.len() as u64, load.polls, "polls");
    assert!(polls.windows(2).all(|pair| pair[0] + 1 == pair[1]), "polls are missing");
    for (path, written) in &load.lines {
        let lines =
            take(path, &|data| std::str::from_utf8(&data[..8]).expect("text").parse().expect("a numbered line"));
        assert!(lines.iter().copied().eq(0..*written), "{path}: {} of {written}", lines.len());
    }
    assert!(by_key.is_empty(), "nobody sent {:?}", by_key.keys());
    Verdict { repeated }
}

fn json(data: &[u8]) -> Value {
    serde_json::from_slice(data).expect("these records are JSON")
}

#[track_caller]
fn number(record: &Value, pointer: &str) -> u64 {
    member(record, pointer).as_u64().expect("a number")
}
