//! The destination against small servers that answer well, badly and not at all.

use std::{future::Future, net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Router,
    body::Bytes,
    http::{HeaderMap, StatusCode},
    response::IntoResponse,
    routing::post,
};
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinSet};

use super::*;
use crate::{
    destination::{Failure, FailureKind, RecordOutcome},
    outgoing,
    sample::plain,
};

mod answers;
mod cbor;
mod clock;
mod connections;
mod records;
mod resharding;

const ORIGIN: Origin<'static> = Origin { gateway: "truck-7", stream: "telemetry" };

fn parcel(key: &str, data: &'static [u8]) -> Parcel {
    Parcel { records: vec![Arc::new(plain(key, data))].into() }
}

fn config(endpoint: SocketAddr) -> Config {
    Config {
        stream: Some("plant".into()),
        aws: aws::Config {
            region: Some("eu-west-1".into()),
            endpoint: Some(format!("http://{endpoint}")),
            credentials: None,
        },
        outgoing: outgoing::Config { request_timeout: Duration::from_secs(2), ..outgoing::Config::default() },
        ..Config::default()
    }
}

async fn destination(endpoint: SocketAddr) -> Kinesis {
    Kinesis::open(&config(endpoint), &ORIGIN, &Arc::default()).expect("sound settings")
}

/// What becomes of two records sent to a server that answers by `answer`.
async fn ask<A: IntoResponse, F: Future<Output = A> + Send + 'static>(
    answer: impl Fn(Value) -> F + Clone + Send + Sync + 'static,
) -> Outcome {
    let socket = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = socket.local_addr().expect("bound");
    let handler = move |body: Bytes| {
        let answer = answer(serde_json::from_slice(&body).expect("the request is JSON"));
        async move { answer.await.into_response() }
    };
    let mut server = JoinSet::new();
    server.spawn(async move { axum::serve(socket, Router::new().route("/", post(handler))).await });
    let parcels = [parcel("a", b"\x00\xff one"), parcel("b", b"two")];
    destination(address).await.send(&parcels).await
}

fn failure(outcome: Outcome) -> Failure {
    match outcome {
        Outcome::Failed(failure) => failure,
        Outcome::Answered(records) => panic!("it was answered: {records:?}"),
    }
}
