//! The AWS IoT credentials provider: temporary credentials for whoever has the client certificate of a registered device, by a
//! role alias, over mutual TLS.
//!
//! How long they hold is the difference of two times of the server's own, the end that it names and the `Date` of its answer,
//! and is counted by the monotonic clock: the gateway's wall clock may be wrong by years.

mod answer;
mod config;
mod fetch;
mod verifier;

use std::{fmt, path::PathBuf, sync::Arc, time::Duration};

use aws_credential_types::Credentials;

pub use self::config::Config;
use self::{answer::Answer, fetch::Error};
use super::time::KnownTime;
use crate::outgoing::Outgoing;

/// Asks for credentials.
pub struct Client {
    config: Config,
    time: Arc<KnownTime>,
    outgoing: Outgoing,
}

impl Client {
    pub(super) fn new(config: Config, time: Arc<KnownTime>, outgoing: Outgoing) -> Self {
        Self { config, time, outgoing }
    }

    /// Credentials, and how long they hold.
    pub(super) async fn ask(&self) -> Result<(Credentials, Option<Duration>), Error> {
        let heard = fetch::get(&self.config, &self.time, &self.outgoing).await?;
        let Answer { credentials, lifetime, at } = answer::read(&self.config, &heard)?;
        self.time.learn(at);
        Ok((credentials, Some(lifetime)))
    }

    /// What it reads each time.
    pub(super) fn files(&self) -> Vec<PathBuf> {
        vec![self.config.client_cert_file.clone(), self.config.client_key_file.clone()]
    }
}

impl fmt::Display for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the AWS IoT credentials provider at {}", self.config.endpoint)
    }
}
