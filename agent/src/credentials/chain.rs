//! The SDK's own ways to credentials. Each asking begins anew, because what the SDK has once read of a file it never reads
//! again.

use std::{
    env,
    path::PathBuf,
    time::{Duration, SystemTime},
};

use aws_config::{
    Region, default_provider::credentials::DefaultCredentialsChain, imds, profile::ProfileFileCredentialsProvider,
    provider_config::ProviderConfig,
};
use aws_credential_types::{
    Credentials,
    provider::{ProvideCredentials as _, error::CredentialsError},
};
use aws_runtime::env_config::file::{EnvConfigFileKind, EnvConfigFiles};
use aws_smithy_runtime_api::client::http::SharedHttpClient;

use super::FileConfig;
use crate::outgoing::Outgoing;

/// How the SDK reaches what it has to ask.
#[derive(Debug, Clone)]
pub struct Way {
    /// Where AWS is.
    pub region: Region,
    /// By which HTTP.
    pub http: SharedHttpClient,
    /// For whoever speaks HTTP itself.
    pub outgoing: Outgoing,
}

impl Way {
    fn surroundings(&self) -> ProviderConfig {
        ProviderConfig::default().with_region(Some(self.region.clone())).with_http_client(self.http.clone())
    }
}

/// Of environment, profile files, web identity, container or instance metadata, whichever has some first.
pub(super) async fn ask(way: &Way) -> Result<Credentials, CredentialsError> {
    // A gateway is seldom an EC2 instance: asking for its metadata once, briefly, is enough to know.
    let imds = imds::Client::builder().configure(&way.surroundings()).max_attempts(1);
    let imds = imds.connect_timeout(Duration::from_secs(1)).build();
    let chain = DefaultCredentialsChain::builder().configure(way.surroundings()).region(way.region.clone());
    chain.imds_client(imds).build().await.provide_credentials().await
}

/// Of one file.
pub(super) async fn read(file: &FileConfig, way: &Way) -> Result<Credentials, CredentialsError> {
    let files = EnvConfigFiles::builder().with_file(EnvConfigFileKind::Credentials, &file.path).build();
    let mut provider = ProfileFileCredentialsProvider::builder().configure(&way.surroundings()).profile_files(files);
    provider = provider.profile_name(file.profile.as_deref().unwrap_or("default"));
    provider.build().provide_credentials().await
}

/// The files that the chain reads.
pub(super) fn files() -> Vec<PathBuf> {
    let home = env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
    let file = |variable: &str, usual: &str| env::var_os(variable).map_or_else(|| home.join(usual), PathBuf::from);
    vec![
        file("AWS_SHARED_CREDENTIALS_FILE", ".aws/credentials"),
        file("AWS_CONFIG_FILE", ".aws/config"),
        env::var_os("AWS_WEB_IDENTITY_TOKEN_FILE").map(PathBuf::from).unwrap_or_default(),
    ]
}

/// How long they hold: whoever gave them went by the same clock as the SDK, which is the machine's.
#[expect(clippy::disallowed_methods, reason = "what the SDK computed with the machine's clock is undone with it")]
pub(super) fn lifetime(credentials: &Credentials) -> Option<Duration> {
    credentials.expiry().map(|expiry| expiry.duration_since(SystemTime::now()).unwrap_or_default())
}
