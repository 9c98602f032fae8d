//! The local API: health, status and metrics of the agent, and records put into its streams and read from them, over HTTP.
//!
//! HTTP/1.1, and HTTP/2 with prior knowledge. Off loopback every request must carry the token; on loopback without one,
//! requests that a web page could have made a browser send are refused. Everything is bounded: connections, bodies,
//! answers, waiting, and how many puts and reads there are at a time.

mod access;
mod body;
mod config;
mod dead_letters;
mod error;
mod health;
mod put;
mod read;
mod serve;
mod streams;
pub mod wire;

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    Router,
    extract::DefaultBodyLimit,
    middleware,
    routing::{get, post},
};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

pub use access::Access;
pub(crate) use access::is_loopback;
pub use config::{Config, Settings, parse_address};
pub use serve::Server;

use crate::{
    config::there_are,
    delivery::dead_letter::Letters,
    status::Observer,
    streams::{OpenStream, Streams},
};
use error::ApiError;

/// Puts and reads at a time. Each may take some ten times its records' bytes for a moment: base64, JSON, the batch.
const PUTS_AT_A_TIME: usize = 2;
const READS_AT_A_TIME: usize = 2;

/// What the API serves.
pub struct Api {
    observer: Arc<Observer>,
    streams: Arc<Streams>,
    /// By destination.
    letters: BTreeMap<String, Arc<Letters>>,
    puts: Semaphore,
    reads: Semaphore,
    /// Cancelled when whoever waits for a record is to be sent away.
    stop: CancellationToken,
}

impl Api {
    /// An API over these.
    #[must_use]
    pub fn new(
        observer: Arc<Observer>,
        streams: Arc<Streams>,
        letters: BTreeMap<String, Arc<Letters>>,
        stop: CancellationToken,
    ) -> Self {
        let (puts, reads) = (Semaphore::new(PUTS_AT_A_TIME), Semaphore::new(READS_AT_A_TIME));
        Self { observer, streams, letters, puts, reads, stop }
    }

    fn stream(&self, name: &str) -> Result<OpenStream, ApiError> {
        self.streams.get(name).map_err(|_| {
            let all = self.streams.all();
            let known = there_are(all.keys().map(String::as_str));
            ApiError::not_found(format!("there is no stream `{name}`; {known}"))
        })
    }
}

/// All requests and who answers them.
pub fn router(api: Arc<Api>, access: Arc<Access>) -> Router {
    Router::new()
        .route("/healthz", get(health::healthz))
        .route("/status", get(health::status))
        .route("/metrics", get(health::metrics))
        .route("/streams", get(streams::list))
        .route("/streams/{name}", get(streams::show).put(streams::create).patch(streams::set).delete(streams::delete))
        .route("/streams/{name}/shards", post(streams::change_shards))
        .route("/streams/{name}/records", post(put::put).get(read::read))
        .route("/dead-letters", get(dead_letters::list))
        .route("/dead-letters/{destination}", get(dead_letters::page))
        .route("/dead-letters/{destination}/letters/{number}", get(dead_letters::show))
        .route("/dead-letters/{destination}/settle", post(dead_letters::settle))
        .method_not_allowed_fallback(error::method_not_allowed)
        .fallback(error::nothing_here)
        .layer(DefaultBodyLimit::max(wire::PUT_BODY_BYTES_MAX))
        .layer(middleware::from_fn_with_state(access, access::check))
        .with_state(api)
}
