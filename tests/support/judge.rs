//! What was published, and whether what an endpoint accepted is that, whole, in order per key and complete.

use std::collections::HashMap;

use fastrand::Rng;

use super::publisher::Published;
use super::upstream::Upstream;

/// Topics of one device.
const TOPICS: u64 = 250;

/// Of each device's topics, the first gets every n-th message: much more than the others, but not more than a delivery can
/// take one after the other.
const BUSY_TOPIC_EVERY: u64 = 50;

const PAYLOAD_BYTES_MAX: usize = 300;

/// Writes a device's message of this number; gives its topic. Both follow from the numbers, so that nobody has to keep them.
pub(crate) fn message(device: u64, number: u64, payload: &mut Vec<u8>) -> String {
    let mut random = Rng::with_seed(device << 48 | number);
    payload.extend_from_slice(&device.to_le_bytes());
    payload.extend_from_slice(&number.to_le_bytes());
    payload.resize(payload.len() + random.usize(0..PAYLOAD_BYTES_MAX), 0);
    random.fill(&mut payload[16..]);
    let topic = if number.is_multiple_of(BUSY_TOPIC_EVERY) { 0 } else { random.u64(1..TOPICS) };
    format!("device-{device}/sensor/{topic}")
}

/// Compares the devices' books with what an endpoint accepts.
pub(crate) struct Judge {
    devices: Vec<Device>,
    /// Records looked at so far.
    heard: usize,
    /// Newest number by partition key.
    newest: HashMap<String, u64>,
    /// Acknowledged messages.
    pub(crate) owed: u64,
    pub(crate) missing: u64,
    pub(crate) duplicates: u64,
    /// Messages that nobody knows of whether they arrived.
    pub(crate) forgotten: u64,
    pub(crate) forgotten_arrived: u64,
    /// Messages `fresh`.
    pub(crate) fresh: u64,
}

struct Device {
    seen: Vec<bool>,
    owed: Vec<bool>,
}

impl Judge {
    pub(crate) fn new(books: &[Published]) -> Self {
        let devices: Vec<Device> = books
            .iter()
            .map(|book| {
                let mut owed = vec![true; usize::try_from(book.end).expect("it fits memory")];
                for range in &book.forgotten {
                    owed[range.start as usize..range.end as usize].fill(false);
                }
                Device { seen: vec![false; owed.len()], owed }
            })
            .collect();
        let count = |which: bool| devices.iter().flat_map(|device| &device.owed).filter(|owed| **owed == which).count();
        let (owed, forgotten) = (count(true) as u64, count(false) as u64);
        Self {
            devices,
            heard: 0,
            newest: HashMap::new(),
            owed,
            missing: owed,
            duplicates: 0,
            forgotten,
            forgotten_arrived: 0,
            fresh: 0,
        }
    }

    /// Looks at what the upstream accepted since; says how much is still missing.
    #[track_caller]
    pub(crate) fn hear(&mut self, upstream: &Upstream) -> u64 {
        for record in upstream.accepted_since(self.heard) {
            self.heard += 1;
            self.judge(&record.partition_key, &record.data);
        }
        self.missing
    }

    /// Looks at the next record that was accepted.
    #[track_caller]
    pub(crate) fn judge(&mut self, partition_key: &str, data: &[u8]) {
        if partition_key == "fresh" && data == b"fresh" {
            self.fresh += 1;
            return;
        }
        let record = || format!("{partition_key}: {data:?}");
        let (device, number) = numbers_of(data).unwrap_or_else(|| panic!("nobody published {}", record()));
        let mut published = Vec::new();
        let topic = self
            .devices
            .get(device as usize)
            .filter(|known| number < known.seen.len() as u64)
            .map(|_| message(device, number, &mut published))
            .unwrap_or_else(|| panic!("device {device} published no message {number}: {}", record()));
        assert!(*data == published, "message {number} of device {device} is not whole: {}", record());
        assert_eq!(partition_key, topic, "message {number} of device {device}");

        let (device, place) = (&mut self.devices[device as usize], number as usize);
        if device.seen[place] {
            self.duplicates += 1;
            return;
        }
        device.seen[place] = true;
        if device.owed[place] {
            self.missing -= 1;
        } else {
            self.forgotten_arrived += 1;
        }
        if let Some(before) = self.newest.insert(topic.clone(), number) {
            assert!(before < number, "message {number} of {topic} arrived behind {before}");
        }
    }
}

fn numbers_of(data: &[u8]) -> Option<(u64, u64)> {
    let (device, rest) = data.split_first_chunk()?;
    let (number, _) = rest.split_first_chunk()?;
    Some((u64::from_le_bytes(*device), u64::from_le_bytes(*number)))
}
