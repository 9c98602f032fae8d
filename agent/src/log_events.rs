//! The log's events: written to the agent's log with fields, and counted by kind.
//!
//! Error is what a person must act upon, because records are gone or not taken; warn is what was unexpected but was dealt
//! with; info is the good news after either. Losses are told by episodes (`losses`), and counted each.

mod losses;

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, UNIX_EPOCH},
};

use forebay_log_store::{Event, Timestamp};
use tracing::{error, info, warn};

use self::losses::{Loss, Losses};

/// Counts what the log told.
#[derive(Debug, Default)]
pub struct LogEvents {
    counts: Mutex<BTreeMap<&'static str, u64>>,
    losses: Mutex<Losses>,
}

impl LogEvents {
    /// Writes and counts one event.
    pub fn on_event(&self, event: &Event) {
        let kind = match Loss::of(event) {
            Some(loss) => {
                lock(&self.losses).add(loss, Instant::now()).iter().for_each(tell_loss);
                "records-lost"
            }
            None => tell(event),
        };
        *lock(&self.counts).entry(kind).or_default() += 1;
    }

    /// Tells the sums that are due. To be called about once a second.
    pub fn tell_due(&self, now: Instant) {
        lock(&self.losses).due(now).iter().for_each(tell_loss);
    }

    /// Tells what has not been told: nothing more comes.
    pub fn tell_all(&self) {
        lock(&self.losses).take().iter().for_each(tell_loss);
    }

    /// How many of each kind there were.
    #[must_use]
    pub fn counts(&self) -> BTreeMap<String, u64> {
        lock(&self.counts).iter().map(|(kind, count)| ((*kind).to_owned(), *count)).collect()
    }
}

/// Each is sound at any time: a panic breaks nothing in it.
fn lock<T>(it: &Mutex<T>) -> MutexGuard<'_, T> {
    it.lock().unwrap_or_else(PoisonError::into_inner)
}

fn tell_loss(loss: &Loss) {
    let Loss { stream, reason, limit, first, last, count, undelivered } = loss;
    error!(stream, %reason, limit, count, first, last, undelivered, "records were dropped that had not been delivered");
}

/// Writes an event that is no loss, and gives its kind.
fn tell(event: &Event) -> &'static str {
    match event {
        Event::CatalogueRebuilt { set_aside, reason } => {
            let set_aside = set_aside.as_ref().map(|path| path.display().to_string());
            warn!(reason, set_aside, "the catalogue was rebuilt from the segments");
            "catalogue-rebuilt"
        }
        Event::CatalogueBehind { reason } => {
            warn!(reason, "the catalogue did not take a change; the next start rebuilds what is missing");
            "catalogue-behind"
        }
        Event::TailTorn { stream, segment, offset, bytes, kept } => {
            let (segment, kept) = (segment.display(), kept.as_ref().map(|path| path.display().to_string()));
            warn!(stream, %segment, offset, bytes, kept, "segment ended in an unfinished commit, which was cut off");
            "tail-torn"
        }
        Event::Damaged { stream, segment, offset, what, records } => {
            let segment = segment.display();
            let (first, last) = records.as_ref().map(|range| (range.start().0, range.end().0)).unzip();
            error!(stream, %segment, offset, what, first, last, "segment is damaged; what is around is served");
            "damaged"
        }
        Event::Dropped { stream, reason, records, count, limit, .. } => {
            let (first, last) = (records.start().0, records.end().0);
            info!(stream, %reason, limit, count, first, last, "records were dropped");
            "records-dropped"
        }
        Event::NotRemoved { segment, reason } => {
            let segment = segment.display();
            warn!(%segment, reason, "segment could not be removed; the next start tries again");
            "not-removed"
        }
        Event::Full { stream, reason } => {
            warn!(stream, reason, "stream is full");
            "full"
        }
        Event::RoomAgain { stream } => {
            info!(stream, "stream has room again");
            "room-again"
        }
        Event::Poisoned { stream, reason } => {
            error!(stream, reason, "stream takes no records after a disk failure");
            "poisoned"
        }
        Event::Recovered { stream } => {
            info!(stream, "stream takes records again");
            "recovered"
        }
        Event::ShardCountKept { stream, has, asked } => {
            warn!(stream, has, asked, "stream keeps its number of shards");
            "shard-count-kept"
        }
        Event::ClockTrusted { wall } => {
            info!(now = shown(*wall), "the machine's clock can be trusted; arrival times since its start are known");
            "clock-trusted"
        }
        Event::ClockStepped { from, to } => {
            warn!(from = shown(*from), to = shown(*to), "the machine's clock was set; arrival times follow it");
            "clock-stepped"
        }
        Event::ClockDoubted { wall, at_least } => {
            let (shows, at_least) = (shown(*wall), shown(*at_least));
            warn!(shows, at_least, "the machine's clock claims to be right, but cannot be; it is not believed");
            "clock-doubted"
        }
        other => {
            warn!(event = %other, "the log has something to tell");
            "other"
        }
    }
}

/// A time as it is written in logs and status; the year 10,000 and what is behind it is shown as the end of time.
#[must_use]
pub fn shown(time: Timestamp) -> String {
    const LAST_SECOND: u64 = 253_402_300_799;
    let time = UNIX_EPOCH + Duration::from_secs((time.0 / 1000).min(LAST_SECOND));
    humantime::format_rfc3339_seconds(time).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_time_can_be_shown() {
        assert_eq!(shown(Timestamp(1_790_000_000_123)), "2026-09-21T14:13:20Z");
        assert_eq!(shown(Timestamp(u64::MAX)), "9999-12-31T23:59:59Z");
    }

    #[test]
    fn events_are_counted_by_kind() {
        let events = LogEvents::default();
        for _ in 0..2 {
            events.on_event(&Event::RoomAgain { stream: "telemetry".into() });
        }
        events.on_event(&Event::Full { stream: "telemetry".into(), reason: "quota".into() });
        assert_eq!(events.counts(), BTreeMap::from([("room-again".into(), 2), ("full".into(), 1)]));
    }
}
