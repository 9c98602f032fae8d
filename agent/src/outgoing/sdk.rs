//! The AWS SDK's HTTP client over our connections, so that all that holds for them holds for it.

use std::time::Duration;

use aws_smithy_runtime_api::client::{
    http::{HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector},
    orchestrator::{HttpRequest, HttpResponse},
    result::ConnectorError,
    runtime_components::RuntimeComponents,
};
use aws_smithy_types::body::SdkBody;
use http_body_util::Limited;
use hyper_util::client::legacy::Client;

use super::{Connector, ask};

/// No answer that we ask for is as large (a page of shards, the largest, has some 300 KiB); who sends more is somebody else.
const ANSWER_BYTES_MAX: usize = 2 << 20;

/// Requests of the SDK.
#[derive(Debug)]
pub(super) struct SdkClient(Client<Connector, SdkBody>);

impl SdkClient {
    pub(super) fn new(client: Client<Connector, SdkBody>) -> Self {
        Self(client)
    }
}

impl HttpClient for SdkClient {
    fn http_connector(&self, settings: &HttpConnectorSettings, _: &RuntimeComponents) -> SharedHttpConnector {
        // Only what asks for credentials gives its own limits: shorter ones, for services that may not be there.
        let limit = settings.read_timeout().map(|read| read + settings.connect_timeout().unwrap_or_default());
        SharedHttpConnector::new(Requests { client: self.0.clone(), limit })
    }
}

#[derive(Debug)]
struct Requests {
    client: Client<Connector, SdkBody>,
    limit: Option<Duration>,
}

impl HttpConnector for Requests {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let request = match request.try_into_http1x() {
            Ok(request) => request,
            Err(error) => return HttpConnectorFuture::ready(Err(ConnectorError::user(error.into()))),
        };
        let (client, limit) = (self.client.clone(), self.limit);
        HttpConnectorFuture::new(async move {
            let answering = ask(&client, request);
            let answered = match limit {
                Some(limit) => {
                    tokio::time::timeout(limit, answering).await.map_err(|late| ConnectorError::timeout(late.into()))?
                }
                None => answering.await,
            };
            let response = answered.map_err(|error| ConnectorError::io(error.into()))?;
            let bounded = response.map(|body| SdkBody::from_body_1_x(Limited::new(body, ANSWER_BYTES_MAX)));
            HttpResponse::try_from(bounded).map_err(|error| ConnectorError::other(error.into(), None))
        })
    }
}
