//! What all destinations at AWS share: where it is, who we are to it, and the SDK's settings.
//!
//! The SDK signs, encodes and sends, once; its own retries are off, because the delivery decides. Credentials are kept by a
//! keeper of ours, because the SDK's own cache goes by the wall clock and never reads a file again.

pub(super) mod answer;
pub(super) mod body;
pub(super) mod buffers;
#[cfg(any(test, fuzzing))]
pub(super) mod canned;
mod config;
mod encoding;
pub(super) mod entries;

use std::{sync::Arc, time::SystemTime};

use aws_config::{
    BehaviorVersion, Region, SdkConfig, identity::IdentityCache, retry::RetryConfig,
    stalled_stream_protection::StalledStreamProtectionConfig, timeout::TimeoutConfig,
};
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_smithy_async::time::TimeSource;
use aws_smithy_types::retry::ReconnectMode;

pub use self::{config::Config, encoding::Encoding};
use crate::{
    credentials::{Keeper, KnownTime, Way},
    outgoing::{self, Outgoing},
};

/// Settings for a client of any of the services, and the keeper of its credentials.
pub(super) fn sdk_config(
    config: &Config,
    way: &outgoing::Config,
    outgoing: &Outgoing,
    time: &Arc<KnownTime>,
) -> (SdkConfig, Keeper) {
    let region = Region::new(config.region.clone().unwrap_or_default());
    let http = outgoing.sdk_client();
    let to_credentials = Way { region: region.clone(), http: http.clone(), outgoing: outgoing.clone() };
    let keeper = Keeper::of(&config.credentials(), to_credentials, time);
    let mut settings = SdkConfig::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(region)
        .http_client(http)
        // It knows nothing of our connections, and would complain of that with each 5xx.
        .retry_config(RetryConfig::disabled().with_reconnect_mode(ReconnectMode::ReuseAllConnections))
        // The request timeout is the whole truth; an answer is small.
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
        .timeout_config(TimeoutConfig::builder().operation_timeout(way.request_timeout).build())
        .time_source(Signing(Arc::clone(time)))
        .identity_cache(IdentityCache::no_cache())
        .credentials_provider(SharedCredentialsProvider::new(keeper.clone()));
    if let Some(endpoint) = &config.endpoint {
        settings = settings.endpoint_url(endpoint);
    }
    (settings.build(), keeper)
}

/// The time that requests are signed with.
#[derive(Debug)]
struct Signing(Arc<KnownTime>);

impl TimeSource for Signing {
    fn now(&self) -> SystemTime {
        self.0.of_servers()
    }
}
