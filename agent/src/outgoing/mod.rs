//! Connections that go out over HTTP: one way for the AWS SDK and for everything that speaks HTTP itself.
//!
//! Name, TCP, proxy and TLS are here, each with an error of its own, so that whoever is told that something cannot be
//! reached is told what; and every byte that passes a socket is counted. What is said over a connection is not here.

mod address;
mod asking;
mod config;
mod connector;
mod error;
mod proxy;
mod sdk;
mod socks;
mod stream;
mod tcp;
mod trust;
mod tunnel;
mod wire_bytes;

#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

use aws_smithy_runtime_api::client::http::SharedHttpClient;
use hyper::http::Uri;
use hyper_util::{
    client::legacy::{Builder, Client},
    rt::{TokioExecutor, TokioTimer},
};
use rustls::time_provider::TimeProvider;

pub use self::{
    address::http_address,
    asking::{Answer, ask},
    config::Config,
    connector::Connector,
    error::{ConnectError, ProxyTrouble},
    proxy::{Variables, is_loopback},
    stream::Counted,
    wire_bytes::WireBytes,
};
use crate::config::Problems;

/// How long a connection stays open without a request: most servers close it about then, or before.
const IDLE: Duration = Duration::from_secs(90);

/// HTTP/2 keeps all requests on one connection, which may hang long before the first of them is given up. So the connection
/// itself is asked, while requests wait on it, whether it still lives.
const STILL_THERE: Duration = Duration::from_secs(10);

/// A way out. Clones share the count of bytes.
#[derive(Debug, Clone)]
pub struct Outgoing {
    connector: Connector,
    wire: Arc<WireBytes>,
}

impl Outgoing {
    /// By these settings, which were validated.
    ///
    /// # Errors
    /// The proxy's password cannot be read (any more).
    pub fn open(config: &Config) -> anyhow::Result<Self> {
        let mut problems = Problems::default();
        let proxies = config.proxies("", &mut problems);
        if let Some(problem) = problems.list().first() {
            anyhow::bail!("{}", problem.to_string().trim_start_matches('.'));
        }
        let wire = Arc::<WireBytes>::default();
        Ok(Self { connector: Connector::new(config, proxies, Arc::clone(&wire)), wire })
    }

    /// A client for requests with bodies of type `B`, with connections of its own.
    #[must_use]
    pub fn client<B>(&self) -> Client<Connector, B>
    where
        B: hyper::body::Body + Send,
        B::Data: Send,
    {
        Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .http2_keep_alive_interval(STILL_THERE)
            .http2_keep_alive_timeout(STILL_THERE)
            .build(self.connector.clone())
    }

    /// The same for the AWS SDK.
    #[must_use]
    pub fn sdk_client(&self) -> SharedHttpClient {
        SharedHttpClient::new(sdk::SdkClient::new(self.client()))
    }

    /// The same, where certificates are judged by another clock than the machine's.
    #[must_use]
    pub fn judged_by(self, time: Arc<dyn TimeProvider>) -> Self {
        self.connector.judge_by(time);
        self
    }

    /// A connection to a host and its port, through a proxy if there is one, on which nothing is said yet.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn reach(&self, destination: Uri) -> Result<Counted, ConnectError> {
        self.connector.reach(destination).await
    }

    /// What passed the sockets until now.
    #[must_use]
    pub fn wire_bytes(&self) -> Arc<WireBytes> {
        Arc::clone(&self.wire)
    }
}
