//! The `http` source: records that are posted to a path of a listener of its own, or of one that several sources share.
//!
//! A request is taken whole or not at all: one batch, answered with 200 once it is durable, with its sequence numbers. Anything else
//! is answered too: 400 with what is wrong and where (also if the source cannot decode it and is to drop that), 401, 413, 415, 429 with `Retry-After` when a rate limit leaves no room, 503
//! with `Retry-After` when the log does not take it in time. After a 503, and when the connection broke, a client that repeats may have its
//! records stored twice. HTTP/1.1; no CORS, and web pages are kept out where no credentials are asked for.

mod access;
mod answer;
mod body;
mod cbor;
mod config;
mod door;
mod request;
mod split;

use std::{net::SocketAddr, sync::Arc};

pub use config::{Config, Settings};

use super::{BoxFuture, Source, SourceContext, Type, kind};
use crate::config::reader;
#[cfg(any(test, fuzzing))]
pub use split::fuzz;

use door::Door;
use request::Route;

/// The row in the table of types.
pub(super) const TYPE: Type = Type {
    name: "http",
    takes: "JSON, NDJSON, CBOR, text or bytes that are posted to a path; tokens, passwords, TLS; on loopback without",
    acknowledged: "200 after the commit, with the sequence numbers",
    partition_key: "{host}",
    placeholders: &["host", "port", "path", "user"],
    keys: reader::keys_of::<Config>,
    read: kind::read::<Config>,
};

impl super::Settings for Settings {
    fn describe(&self) -> String {
        let scheme = if self.listener.tls.is_some() { "https" } else { "http" };
        format!("POST to {scheme}://{}{}", self.listener.address, self.path)
    }

    fn listens_on(&self) -> Vec<(&'static str, SocketAddr)> {
        vec![("listen", self.listener.address)]
    }

    fn shares_listener_as(&self) -> Option<String> {
        Some(self.listener.text.clone())
    }

    fn claims(&self) -> Vec<(&'static str, String)> {
        let address = self.listener.address;
        let named = (address.port() != 0).then(|| ("path", format!("http://{address}{}", self.path)));
        named.into_iter().collect()
    }

    fn bind(&self) -> BoxFuture<'_, anyhow::Result<Box<dyn Source>>> {
        Box::pin(async {
            let door = Door::at(&self.listener).await;
            Ok(Box::new(Http { door, settings: self.clone() }) as Box<dyn Source>)
        })
    }
}

/// A source whose listener is there, or was at least asked for.
struct Http {
    door: Arc<Door>,
    settings: Settings,
}

impl Source for Http {
    fn run(self: Box<Self>, context: SourceContext) -> BoxFuture<'static, anyhow::Result<()>> {
        let Self { door, settings } = *self;
        Box::pin(door.run(settings.path.clone(), Route { context, settings }))
    }
}
