//! Any bytes, as what Firehose answers.

use std::sync::{LazyLock, Mutex, PoisonError};

use tokio::runtime::Runtime;

use super::*;
use crate::{
    destination::aws::canned::{self, Canned, Said},
    sample::plain,
};

/// A request of three records that is sent again and again.
struct Requests {
    runtime: Runtime,
    endpoint: Canned,
    firehose: Firehose,
    parcels: Vec<Parcel>,
}

static REQUESTS: LazyLock<Mutex<Requests>> = LazyLock::new(|| Mutex::new(Requests::new()));

impl Requests {
    fn new() -> Self {
        let place = aws::Config {
            region: Some("eu-west-1".to_owned()),
            // With credentials that stand for none.
            endpoint: Some("http://127.0.0.1:1".to_owned()),
            credentials: None,
        };
        let config = Config { aws: place, stream: Some("lake".to_owned()), ..Config::default() };
        let firehose = Firehose::open(&config, &Arc::default()).expect("sound settings");
        let endpoint = Canned::default();
        let client = Client::from_conf(firehose.client.config().to_builder().http_client(endpoint.clone()).build());
        let parcel = || Parcel { records: vec![Arc::new(plain("key", "data"))].into() };
        Self {
            runtime: tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime"),
            endpoint,
            firehose: Firehose { client, ..firehose },
            parcels: (0..3).map(|_| parcel()).collect(),
        }
    }
}

/// For fuzzing: an answer to PutRecordBatch.
pub fn fuzz(bytes: &[u8]) {
    let Some(said) = Said::of(bytes) else { return };
    let said = Said { asked: Encoding::Json, ..said };
    let requests = REQUESTS.lock().unwrap_or_else(PoisonError::into_inner);
    requests.endpoint.say(vec![said.clone()]);
    let before = requests.firehose.sent().records;
    let outcome = requests.runtime.block_on(requests.firehose.send(&requests.parcels));
    canned::check(&said, &outcome, requests.parcels.len(), "RequestResponses", "RecordId");
    let taken = match &outcome {
        Outcome::Answered(outcomes) => {
            outcomes.iter().filter(|outcome| **outcome == RecordOutcome::Accepted).count() as u64
        }
        Outcome::Failed(_) => 0,
    };
    assert_eq!(requests.firehose.sent().records - before, taken);
}
