//! A client of the running agent's API, for the commands that ask it something.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use anyhow::{Context as _, anyhow, bail};
use axum::http::{Method, Request, StatusCode, header};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::{
    client::legacy::{Client as HttpClient, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde::{Serialize, de::DeserializeOwned};

use super::ConfigFile;
use crate::{
    api::{
        Settings, parse_address,
        wire::{Refusal, WAIT_SECONDS_MAX},
    },
    config::Secret,
};

/// Longer than the agent waits for anything.
const PATIENCE: Duration = Duration::from_secs(WAIT_SECONDS_MAX + 30);
/// An answer of 10,000 small records or of one large one.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// Which agent is asked.
#[derive(Debug, clap::Args)]
pub(super) struct ApiAddress {
    /// Ask the agent at this address, such as 127.0.0.1:4567, in place of the one in the configuration
    #[arg(long, global = true, value_name = "ADDRESS", value_parser = address)]
    pub(super) api: Option<SocketAddr>,
    /// File with the token for --api
    #[arg(long, global = true, value_name = "FILE", requires = "api")]
    pub(super) token_file: Option<PathBuf>,
}

impl ApiAddress {
    /// A client for the address given, or else for the configured one.
    pub(super) fn client(&self, config: &ConfigFile) -> anyhow::Result<Client> {
        let Some(api) = self.api else { return Client::of(&config.whereabouts()?.api) };
        let token = self.token_file.as_deref().map(Secret::from_file).transpose();
        Ok(Client::new(api, token.map_err(|message| anyhow!("use --token-file: {message}"))?))
    }
}

fn address(text: &str) -> Result<SocketAddr, String> {
    parse_address(text).ok_or_else(|| "an address and a port are needed, such as 127.0.0.1:4567".to_owned())
}

/// Asks one agent.
pub(crate) struct Client {
    agent: SocketAddr,
    token: Option<Secret>,
    http: HttpClient<HttpConnector, Full<Bytes>>,
    /// What to say when nobody listens.
    hint: String,
}

impl Client {
    pub(crate) fn new(agent: SocketAddr, token: Option<Secret>) -> Self {
        let http = HttpClient::builder(TokioExecutor::new()).build_http();
        Self { agent, token, http, hint: "is it running?".to_owned() }
    }

    /// A client of the agent that serves this.
    pub(super) fn of(api: &Settings) -> anyhow::Result<Self> {
        let mut agent = api.listen;
        if agent.port() == 0 {
            bail!("reach the agent: the configuration lets it take any port; say with --api which one it took");
        }
        // An agent that listens on every address listens on this machine's own.
        match agent.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => agent.set_ip(Ipv4Addr::LOCALHOST.into()),
            IpAddr::V6(ip) if ip.is_unspecified() => agent.set_ip(Ipv6Addr::LOCALHOST.into()),
            _ => {}
        }
        Ok(Self::new(agent, api.token.clone()))
    }

    /// The same, with another thing to say when nobody listens.
    pub(super) fn with_hint(self, hint: impl Into<String>) -> Self {
        Self { hint: hint.into(), ..self }
    }

    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        self.ask(Method::GET, path, Bytes::new()).await
    }

    pub(super) async fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> anyhow::Result<T> {
        self.send(Method::POST, path, body).await
    }

    pub(super) async fn send<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: &impl Serialize,
    ) -> anyhow::Result<T> {
        self.ask(method, path, serde_json::to_vec(body)?.into()).await
    }

    async fn ask<T: DeserializeOwned>(&self, method: Method, path: &str, body: Bytes) -> anyhow::Result<T> {
        let what = || format!("ask the agent on {}", self.agent);
        let mut request = Request::builder()
            .method(method)
            .uri(format!("http://{}{path}", self.agent))
            .header(header::CONTENT_TYPE, "application/json");
        if let Some(token) = &self.token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {}", token.expose()));
        }
        let request = request.body(Full::new(body)).context("make a request")?;
        let answer = async {
            let response = self.http.request(request).await.map_err(|error| self.explain(error))?;
            let status = response.status();
            let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
            Ok::<_, anyhow::Error>((status, body.map_err(|error| anyhow!(error))?.to_bytes()))
        };
        let (status, body) = tokio::time::timeout(PATIENCE, answer)
            .await
            .map_err(|_| anyhow!("no answer within {} seconds", PATIENCE.as_secs()))
            .flatten()
            .with_context(what)?;
        if status != StatusCode::OK {
            return Err(refused(status, &body)).with_context(what);
        }
        serde_json::from_slice(&body).context("the answer is not that of a forebay").with_context(what)
    }

    fn explain(&self, error: hyper_util::client::legacy::Error) -> anyhow::Error {
        let error = anyhow!(error);
        if refused_connection(&error) { anyhow!("nobody listens there; {}", self.hint) } else { error }
    }
}

fn refused_connection(error: &anyhow::Error) -> bool {
    let refused = |error: &io::Error| error.kind() == io::ErrorKind::ConnectionRefused;
    error.chain().any(|cause| cause.downcast_ref::<io::Error>().is_some_and(refused))
}

fn refused(status: StatusCode, body: &[u8]) -> anyhow::Error {
    match serde_json::from_slice::<Refusal>(body) {
        Ok(Refusal { error, field: Some(field) }) => anyhow!("{field}: {error}"),
        Ok(Refusal { error, field: None }) => anyhow!("{error}"),
        Err(_) => anyhow!("it answered {status}"),
    }
}
