//! Letters in a real log: given up, shown, replayed, given up again, dropped, and all that after a restart.

use std::{path::Path, sync::Arc, time::Instant};

use forebay_log_store::{
    HashKey, NewRecord, Record, Start, Store, StoreConfig, Stream, StreamConfig, SystemClock, Tag,
};

use super::{super::window::DeadLetter, *};
use crate::{
    ingest::Ingest,
    record_tags::{addressee, is_ours, origin},
};

struct Log {
    _store: Store,
    origin: Stream,
    letters: Stream,
}

impl Log {
    fn open(dir: &Path) -> Self {
        let store = Store::open(StoreConfig::new(dir), SystemClock::new(), |_| {}).expect("opens");
        let stream = |name: &str, consumers: &[&str]| {
            let consumers = consumers.iter().map(|name| (*name).to_owned()).collect();
            store.stream(StreamConfig { rate_limit: None, consumers, ..StreamConfig::new(name) }).expect("a stream")
        };
        Self { origin: stream("plant", &["cloud"]), letters: stream("dead-letter.cloud", &[SETTLED]), _store: store }
    }

    fn letters(&self) -> Arc<Letters> {
        Arc::new(Letters::open("cloud", door(&self.letters), door(&self.origin)))
    }

    fn read(stream: &Stream) -> Vec<Arc<Record>> {
        let limit = forebay_log_store::ReadLimit { records: 1000, payload_bytes: 1 << 24 };
        stream.cursor(Start::Oldest).read(limit).expect("read")
    }

    async fn bury(&self, records: Vec<Arc<Record>>, reason: &str) {
        let letter = |record| DeadLetter {
            record,
            reason: reason.to_owned(),
            attempts: 2,
            first_attempt: Some(std::time::Duration::from_millis(1)),
            last_attempt: Some(std::time::Duration::from_millis(2)),
        };
        let letters: Vec<_> = records.into_iter().map(letter).collect();
        let began = Began::of(&self.origin, Instant::now());
        let batch = batch(self.letters.batch(), &letters, &self.origin, began).expect("letters fit");
        append(&self.letters, batch).await;
    }
}

fn door(stream: &Stream) -> Ingest {
    Ingest::new(stream.clone(), 4 << 20)
}

async fn append(stream: &Stream, batch: forebay_log_store::Batch) {
    door(stream).offer(batch, forebay_log_store::WhenFull::Wait).await.durable().await.expect("durable");
}

fn tag(name: &str, value: &str) -> Tag {
    Tag { name: name.into(), value: value.into() }
}

async fn settle(letters: &Arc<Letters>, which: Selection, verb: Verb) -> Result<Settlement, LettersError> {
    let letters = Arc::clone(letters);
    tokio::task::spawn_blocking(move || letters.settle(&which, verb)).await.expect("no panic")
}

/// Five records with tags and a hash key, given up for two reasons.
async fn five(log: &Log) {
    let mut batch = log.origin.batch();
    for n in 0..5_u8 {
        let tags = [tag("site", "7"), tag("reason", "because the device says so")];
        let explicit_hash_key = (n == 2).then_some(HashKey(12));
        let key = format!("device-{n}");
        batch.push(&NewRecord { partition_key: &key, explicit_hash_key, tags: &tags, data: &[n] }).expect("fits");
    }
    append(&log.origin, batch).await;
    let mut records = Log::read(&log.origin);
    let others = records.split_off(3);
    log.bury(records, "it has 1000 bytes; 100 are taken").await;
    log.bury(others, "ValidationException: no").await;
}

#[tokio::test]
async fn a_letter_keeps_the_record_and_says_why() {
    let dir = tempfile::tempdir().expect("a directory");
    let log = Log::open(dir.path());
    five(&log).await;
    let letters = log.letters();
    let letter = letters.letter(3).expect("it is there");
    let origin = &Log::read(&log.origin)[2];
    assert_eq!((letter.stream.as_str(), letter.sequence_number), ("plant", origin.sequence_number.0));
    assert_eq!((letter.attempts, letter.partition_key.as_str()), (2, "device-2"));
    assert_eq!(letter.explicit_hash_key.as_deref(), Some("12"));
    let own: Vec<_> = letter.tags.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    assert_eq!(own, [("site", "7"), ("reason", "because the device says so")]);
    assert_eq!(letter.bytes_of_data().expect("base64").expect("asked for"), [2]);
    assert!(letter.first_attempt_ms < letter.last_attempt_ms && letter.buried_ms > 0, "{letter:?}");
    let page = letters.page(2, 2).expect("read");
    assert_eq!(page.letters.iter().map(|letter| letter.number).collect::<Vec<_>>(), [2, 3]);
    assert_eq!((page.next, letters.page(5, 2).expect("read").next), (Some(4), None));
    let summary = letters.summary().expect("read");
    assert_eq!(summary.reasons.len(), 2);
    assert_eq!(summary.reasons["it has # bytes; # are taken"], 3);
    assert_eq!(letters.counts(), Counts { open: 5, replayed: 0, dropped: 0 });
}

#[tokio::test]
async fn a_replayed_letter_is_the_record_again_for_its_destination_alone() {
    let dir = tempfile::tempdir().expect("a directory");
    let log = Log::open(dir.path());
    five(&log).await;
    let before = Log::read(&log.origin);
    let letters = log.letters();
    let by_reason = Selection::Reason("ValidationException".into());
    assert_eq!(settle(&letters, by_reason.clone(), Verb::Count).await.expect("counted").letters, 2);
    assert_eq!(settle(&letters, by_reason.clone(), Verb::Replay).await.expect("replayed").letters, 2);
    assert_eq!(settle(&letters, by_reason, Verb::Replay).await.expect("nothing left").letters, 0);
    let replayed = Log::read(&log.origin).split_off(5);
    assert_eq!(replayed.len(), 2);
    for (again, first) in replayed.iter().zip(&before[3..]) {
        assert_eq!((&again.partition_key, &again.data), (&first.partition_key, &first.data));
        assert_eq!(addressee(again), Some("cloud"));
        assert_eq!(origin(again), Some(("plant", first.sequence_number)));
        let own: Vec<_> = again.tags.iter().filter(|tag| !is_ours(tag)).cloned().collect();
        assert_eq!(own, first.tags);
    }
    assert!(before.iter().all(|record| addressee(record).is_none() && origin(record).is_none()));

    // Given up once more, it is the same letter still.
    log.bury(replayed, "ValidationException: still no").await;
    let letter = letters.letter(6).expect("it is there");
    assert_eq!((letter.sequence_number, letter.attempts, letter.replays), (before[3].sequence_number.0, 4, 1));
    assert_eq!(letter.tags.len(), 2, "{:?}", letter.tags);
    assert_eq!(settle(&letters, Selection::Numbers([6].into()), Verb::Replay).await.expect("replayed").letters, 1);
    assert_eq!(origin(Log::read(&log.origin).last().expect("one")), Some(("plant", before[3].sequence_number)));
    assert_eq!(letters.counts(), Counts { open: 4, replayed: 3, dropped: 0 });
}

#[tokio::test]
async fn what_is_settled_stays_so_and_what_is_unknown_changes_nothing() {
    let dir = tempfile::tempdir().expect("a directory");
    {
        let log = Log::open(dir.path());
        five(&log).await;
        let letters = log.letters();
        let settled = settle(&letters, Selection::Numbers([1, 3].into()), Verb::Drop).await.expect("dropped");
        assert_eq!(settled, Settlement { letters: 2, bytes: 18 });
        let unknown = settle(&letters, Selection::Numbers([2, 3].into()), Verb::Replay).await.expect_err("settled");
        assert_eq!(unknown.to_string(), "there is no open letter 3");
        assert!(matches!(letters.letter(9), Err(LettersError::Unknown(9))));
        assert_eq!(log.letters.checkpoint(SETTLED).0, 1);
    }
    let log = Log::open(dir.path());
    let letters = log.letters();
    assert_eq!(letters.counts(), Counts { open: 3, replayed: 0, dropped: 2 });
    let numbers = |page: Page| page.letters.iter().map(|letter| letter.number).collect::<Vec<_>>();
    assert_eq!(numbers(letters.page(0, 10).expect("read")), [2, 4, 5]);
    assert_eq!(settle(&letters, Selection::All, Verb::Drop).await.expect("dropped").letters, 3);
    assert_eq!((letters.counts().open, log.letters.checkpoint(SETTLED).0), (0, 5));
    assert_eq!(Log::read(&log.origin).len(), 5, "nothing was replayed");
}
