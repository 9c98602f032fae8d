//! The upstream inside the demo: takes PutRecords and writes down what came. Its link can be cut.

use std::net::Ipv4Addr;

use anyhow::Context as _;
use axum::{Json, Router, body::Bytes, extract::State, http::StatusCode, routing::post};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
    service::TowerToHyperService,
};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinSet};

use super::{SharedLedger, lock};

/// An endpoint on loopback.
pub(super) struct Upstream {
    port: u16,
    router: Router,
    /// The listener and its connections; none while the link is cut.
    tasks: JoinSet<()>,
}

impl Upstream {
    /// Listens on a free port.
    pub(super) async fn start(ledger: SharedLedger) -> anyhow::Result<Self> {
        let router = Router::new().route("/", post(put_records)).with_state(ledger);
        let mut upstream = Self { port: 0, router, tasks: JoinSet::new() };
        upstream.mend().await?;
        Ok(upstream)
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// Closes the listener and every connection, whatever is under way.
    pub(super) async fn cut(&mut self) {
        self.tasks.shutdown().await;
    }

    /// Listens again.
    pub(super) async fn mend(&mut self) -> anyhow::Result<()> {
        let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, self.port)).await;
        let socket = socket.context("listen as the demo's upstream")?;
        self.port = socket.local_addr().context("listen as the demo's upstream")?.port();
        let router = self.router.clone();
        self.tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = socket.accept().await {
                let service = TowerToHyperService::new(router.clone());
                connections.spawn(async move {
                    // A connection's end, whatever it is, is the agent's business to notice.
                    let _ =
                        auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        Ok(())
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct PutRecords {
    records: Vec<PutRecord>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct PutRecord {
    data: String,
    partition_key: String,
}

/// What a device's payload must say.
#[derive(Deserialize)]
struct Reading {
    device: String,
    n: u64,
}

async fn put_records(State(ledger): State<SharedLedger>, body: Bytes) -> (StatusCode, Json<Value>) {
    let Ok(request) = serde_json::from_slice::<PutRecords>(&body) else {
        return (StatusCode::BAD_REQUEST, Json(json!({ "__type": "SerializationException" })));
    };
    let mut taken = Vec::with_capacity(request.records.len());
    let mut ledger = lock(&ledger);
    for (i, record) in request.records.iter().enumerate() {
        match read(record) {
            Some(reading) => ledger.delivered(&reading.device, reading.n),
            None => ledger.altered(),
        }
        taken.push(json!({ "SequenceNumber": format!("{}", i + 1), "ShardId": "shardId-000000000000" }));
    }
    (StatusCode::OK, Json(json!({ "FailedRecordCount": 0, "Records": taken })))
}

/// The reading in a record, if the record is as the device published it.
fn read(record: &PutRecord) -> Option<Reading> {
    let data = BASE64_STANDARD.decode(&record.data).ok()?;
    let reading: Reading = serde_json::from_slice(&data).ok()?;
    (reading.device == record.partition_key).then_some(reading)
}
