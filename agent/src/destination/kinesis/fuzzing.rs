//! Any bytes, as what Kinesis answers.

use std::sync::{LazyLock, Mutex, PoisonError};

use forebay_log_store::HashKey;
use tokio::runtime::Runtime;

use super::{
    survey::{Answer, Survey},
    *,
};
use crate::{
    destination::aws::canned::{self, Canned, Said},
    sample::plain,
};

/// Two shards.
const HALVES: &str = r#"{"Shards":[
    {"ShardId":"low","HashKeyRange":{"StartingHashKey":"0","EndingHashKey":"9"},
        "SequenceNumberRange":{"StartingSequenceNumber":"1"}},
    {"ShardId":"high","HashKeyRange":{"StartingHashKey":"10","EndingHashKey":"340282366920938463463374607431768211455"},
        "SequenceNumberRange":{"StartingSequenceNumber":"1"}}]}"#;

/// A request in each encoding that is sent again and again: an aggregate that shard "low" has to take, and two records alone.
struct Requests {
    runtime: Runtime,
    endpoint: Canned,
    json: Kinesis,
    cbor: Kinesis,
    parcels: Vec<Parcel>,
}

static REQUESTS: LazyLock<Mutex<Requests>> = LazyLock::new(|| Mutex::new(Requests::new()));

impl Requests {
    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let endpoint = Canned::default();
        let [json, cbor] = [Encoding::Json, Encoding::Cbor].map(|encoding| {
            endpoint.say(vec![Said::well(Encoding::Json, HALVES)]);
            let kinesis = kinesis(encoding, &endpoint);
            runtime.block_on(kinesis.map_changed(|| None));
            kinesis.take_map();
            kinesis
        });
        let parcels = [&[1, 2][..], &[3], &[4]].map(|keys| Parcel { records: keys.iter().map(record).collect() });
        Self { runtime, endpoint, json, cbor, parcels: parcels.into() }
    }
}

fn kinesis(encoding: Encoding, endpoint: &Canned) -> Kinesis {
    let place = aws::Config {
        region: Some("eu-west-1".to_owned()),
        // With credentials that stand for none.
        endpoint: Some("http://127.0.0.1:1".to_owned()),
        credentials: None,
    };
    let config = Config { aws: place, stream: Some("plant".to_owned()), encoding: Some(encoding), ..Config::default() };
    let config = Config { aggregation: Aggregation::Kpl, ..config };
    let origin = Origin { gateway: "truck-7", stream: "telemetry" };
    let kinesis = Kinesis::open(&config, &origin, &Arc::default()).expect("sound settings");
    let client = Client::from_conf(kinesis.client.config().to_builder().http_client(endpoint.clone()).build());
    Kinesis { map: Some(ShardMap::new(client.clone(), "plant".to_owned(), config.shard_refresh())), client, ..kinesis }
}

fn record(hash_key: &u128) -> Arc<Record> {
    Arc::new(Record { explicit_hash_key: Some(HashKey(*hash_key)), ..plain("key", "data") })
}

/// For fuzzing: an answer to PutRecords.
pub fn fuzz_put_records(bytes: &[u8]) {
    if let Some(said) = Said::of(bytes) {
        put_records(&said);
    }
}

fn put_records(said: &Said) -> Outcome {
    let requests = REQUESTS.lock().unwrap_or_else(PoisonError::into_inner);
    let kinesis = match said.asked {
        Encoding::Json => &requests.json,
        Encoding::Cbor => &requests.cbor,
    };
    requests.endpoint.say(vec![said.clone()]);
    let before = kinesis.sent().records;
    let outcome = requests.runtime.block_on(kinesis.send(&requests.parcels));
    canned::check(said, &outcome, requests.parcels.len(), "Records", "SequenceNumber");
    let taken = match &outcome {
        Outcome::Answered(outcomes) => {
            outcomes.iter().filter(|outcome| matches!(outcome, RecordOutcome::Accepted | RecordOutcome::Astray)).count()
                as u64
        }
        Outcome::Failed(_) => 0,
    };
    assert_eq!(kinesis.sent().records - before, taken);
    outcome
}

/// For fuzzing: answers to ListShards, with a zero between pages.
pub fn fuzz_list_shards(bytes: &[u8]) {
    let Some(said) = Said::of(bytes) else { return };
    let pages: Vec<_> =
        said.body.split(|byte| *byte == 0).map(|page| Said { body: page.to_vec(), ..said.clone() }).collect();
    let requests = REQUESTS.lock().unwrap_or_else(PoisonError::into_inner);
    requests.endpoint.say(pages.clone());
    let map = requests.json.map.as_ref().expect("aggregates go by it");
    let answer = requests.runtime.block_on(map.ask());
    if let Answer::Shards(shards) = &answer {
        assert_eq!(said.status / 100, 2, "{said:?}");
        let listed: Option<Vec<_>> = pages.iter().map(|page| canned::read(&page.body, Encoding::Json)).collect();
        for key in [0, 1, 9, 10, u128::MAX / 2, u128::MAX] {
            let shard = shards.of(|| HashKey(key)).clone();
            assert!(shards.len() == 1 || shard.has(HashKey(key)), "{key} in {shards:?}");
            if let Some(listed) = &listed {
                let lists = listed.iter().flat_map(|page| canned::members(page, "Shards"));
                let ids = lists.flat_map(|list| list.as_array().into_iter().flatten());
                let mut ids = ids.flat_map(|entry| canned::members(entry, "ShardId"));
                assert!(ids.any(|id| id.as_text() == Some(&shard.id)), "{shard:?} of {listed:?}");
            }
        }
    }
    follow(&answer);
}

/// Whatever the answer was, the next question has its time, and no parcel waits for ever.
fn follow(answer: &Answer) {
    const INTERVAL: Duration = Duration::from_secs(600);
    let mut survey = Survey::new(INTERVAL);
    let mut now = Duration::ZERO;
    for _ in 0..3 {
        let (map, _) = survey.on_answer(answer.clone(), now);
        if let Some(map) = map {
            survey.follow(map);
        }
        assert_eq!(survey.gives_up(), None, "they had their answer");
        assert!(survey.due() > now && survey.due() <= now + INTERVAL, "{survey:?}");
        now += Duration::from_secs(1);
        survey.went_astray(now);
        assert!(survey.gives_up().is_some_and(|at| at > now), "{survey:?}");
    }
}

#[cfg(test)]
mod tests {
    use ciborium::Value;
    use proptest::{collection::vec, option, prelude::*, sample::Index};

    use super::*;

    /// What an entry says: nothing of a member, null, or a text.
    type Member = Option<Option<String>>;

    fn member(text: &'static str) -> impl Strategy<Value = Member> {
        option::of(option::of(text))
    }

    fn entry() -> impl Strategy<Value = [Member; 4]> {
        let code =
            option::weighted(0.3, option::of("ProvisionedThroughputExceededException|InternalFailure|\\PC{0,9}"));
        let number = option::weighted(0.9, option::weighted(0.9, "[0-9]{1,56}"));
        (number, member("low|high"), code, member("\\PC{0,9}")).prop_map(<[Member; 4]>::from)
    }

    const MEMBERS: [&str; 4] = ["SequenceNumber", "ShardId", "ErrorCode", "ErrorMessage"];

    fn body(entries: &[[Member; 4]], turned: bool) -> Value {
        let text = |text: &String| Value::Text(text.clone());
        let entry = |entry: &[Member; 4]| {
            let members = MEMBERS
                .iter()
                .zip(entry)
                .filter_map(|(name, said)| Some(((*name).into(), said.as_ref()?.as_ref().map_or(Value::Null, text))));
            let mut members: Vec<_> = members.chain([("More".into(), Value::Array(vec![1.into()]))]).collect();
            if turned {
                members.reverse();
            }
            Value::Map(members)
        };
        let entries = Value::Array(entries.iter().map(entry).collect());
        Value::Map(vec![("FailedRecordCount".into(), 0.into()), ("Records".into(), entries)])
    }

    fn written(body: &Value, encoding: Encoding) -> Vec<u8> {
        let mut written = Vec::new();
        match encoding {
            Encoding::Json => serde_json::to_writer(&mut written, body).expect("memory"),
            Encoding::Cbor => ciborium::into_writer(body, &mut written).expect("memory"),
        }
        written
    }

    /// What is to become of a record: a letter for each kind.
    fn meant([number, shard, code, _]: &[Member; 4], at: usize) -> char {
        let shard = shard.as_ref().and_then(|shard| shard.as_deref());
        match (code, number) {
            (Some(Some(code)), _) if code.starts_with("Provisioned") => 'T',
            (Some(Some(_)), _) => 'F',
            // Only the first is for a certain shard.
            (_, Some(Some(_))) if at == 0 && shard != Some("low") => 'S',
            (_, Some(Some(_))) => 'A',
            _ => 'F',
        }
    }

    fn kinds(outcome: &Outcome) -> Option<String> {
        let Outcome::Answered(outcomes) = outcome else { return None };
        let kind = |outcome: &RecordOutcome| match outcome {
            RecordOutcome::Accepted => 'A',
            RecordOutcome::Astray => 'S',
            RecordOutcome::Throttled(_) => 'T',
            RecordOutcome::Failed(_) => 'F',
            RecordOutcome::Rejected(_) => 'R',
        };
        Some(outcomes.iter().map(kind).collect())
    }

    proptest! {
        #[test]
        fn each_record_has_the_outcome_that_its_entry_says(
            entries in prop_oneof![4 => vec(entry(), 3), 1 => vec(entry(), 0..6)],
            encoding in prop_oneof![Just(Encoding::Json), Just(Encoding::Cbor)],
            turned: bool,
            changes in vec((any::<Index>(), any::<u8>()), 1..4),
        ) {
            let mut said = Said::well(encoding, "");
            said.body = written(&body(&entries, turned), encoding);
            let meant = entries.iter().enumerate().map(|(at, entry)| meant(entry, at)).collect::<String>();
            prop_assert_eq!(kinds(&put_records(&said)), (entries.len() == 3).then_some(meant));
            // With a few bytes changed it may say something else, but nothing is made up.
            for (at, byte) in changes {
                let at = at.index(said.body.len());
                said.body[at] ^= byte;
                put_records(&said);
            }
        }
    }
}
