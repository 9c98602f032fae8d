//! What all destinations at AWS share: where it is, who we are to it, and the SDK's settings.
//!
//! The SDK signs, encodes and sends, once; its own retries are off, because the delivery decides.

pub(super) mod answer;
mod config;

use aws_config::{
    BehaviorVersion, Region, SdkConfig, default_provider::credentials::DefaultCredentialsChain, imds,
    provider_config::ProviderConfig, retry::RetryConfig, stalled_stream_protection::StalledStreamProtectionConfig,
    timeout::TimeoutConfig,
};
use aws_credential_types::{Credentials as Keys, provider::SharedCredentialsProvider};
use aws_smithy_runtime_api::client::http::SharedHttpClient;

pub use self::config::{Config, Credentials};
use crate::outgoing::{self, Outgoing};

/// Settings for a client of any of the services.
pub(super) async fn sdk_config(config: &Config, way: &outgoing::Config, outgoing: &Outgoing) -> SdkConfig {
    let region = Region::new(config.region.clone().unwrap_or_default());
    let http = outgoing.sdk_client();
    let mut settings = SdkConfig::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(region.clone())
        .http_client(http.clone())
        .retry_config(RetryConfig::disabled())
        // The request timeout is the whole truth; an answer is small.
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
        .timeout_config(TimeoutConfig::builder().operation_timeout(way.request_timeout).build())
        .credentials_provider(credentials(config, region, http).await);
    if let Some(endpoint) = &config.endpoint {
        settings = settings.endpoint_url(endpoint);
    }
    settings.build()
}

async fn credentials(config: &Config, region: Region, http: SharedHttpClient) -> SharedCredentialsProvider {
    match config.credentials() {
        Credentials::Placeholder => {
            SharedCredentialsProvider::new(Keys::new("placeholder", "placeholder", None, None, "forebay"))
        }
        Credentials::Default => {
            let surroundings = ProviderConfig::default().with_region(Some(region.clone())).with_http_client(http);
            // A gateway is seldom an EC2 instance: asking for its metadata once, briefly, is enough to know.
            let imds = imds::Client::builder().configure(&surroundings).max_attempts(1);
            let imds = imds.connect_timeout(std::time::Duration::from_secs(1)).build();
            let chain = DefaultCredentialsChain::builder().configure(surroundings).region(region).imds_client(imds);
            SharedCredentialsProvider::new(chain.build().await)
        }
    }
}
