//! Whom we trust and who we are, from files that may be renewed at any time.
//!
//! The files are looked at for each new connection, and read again when they changed. Else the settings stay the same, for
//! the sake of resumed TLS sessions: a full handshake brings the whole chain of certificates over a metered link.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::{Duration, Instant},
};

use rustls::{ClientConfig, time_provider::TimeProvider};

use super::Config;
use crate::{
    file_stamp::Stamp,
    tls::{ClientFiles, TlsError},
};

/// The system's certificates are many files, which change with an upgrade now and then.
const SYSTEM_AGE: Duration = Duration::from_secs(3600);

/// Offered to the server, most wanted first.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// Settings for TLS, as of their files.
#[derive(Debug)]
pub(super) struct Trust {
    ca: Option<PathBuf>,
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
    loaded: Mutex<Option<Loaded>>,
    /// What certificates are judged by, if that is not the machine's clock.
    time: OnceLock<Arc<dyn TimeProvider>>,
}

#[derive(Debug)]
struct Loaded {
    /// Of the files, just before they were read.
    stamp: Stamp,
    at: Instant,
    settings: Arc<ClientConfig>,
}

impl Trust {
    pub(super) fn new(config: &Config) -> Self {
        let (ca, certificate) = (config.ca_file.clone(), config.client_cert_file.clone());
        Self { ca, certificate, key: config.client_key_file.clone(), loaded: Mutex::default(), time: OnceLock::new() }
    }

    /// From now on certificates are judged by this.
    pub(super) fn judge_by(&self, time: Arc<dyn TimeProvider>) {
        // It is said once, where destinations are opened.
        let _ = self.time.set(time);
    }

    /// The settings for a new connection. Reads files.
    ///
    /// # Errors
    /// The first file that cannot be read, or does not go with the others. It may be about to be renewed: the next
    /// connection tries again.
    pub(super) fn current(&self) -> Result<Arc<ClientConfig>, TlsError> {
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        let stamp = Stamp::of([&self.ca, &self.certificate, &self.key].into_iter().flatten());
        if let Some(loaded) = &*loaded
            && loaded.stamp == stamp
            && (self.ca.is_some() || loaded.at.elapsed() < SYSTEM_AGE)
        {
            return Ok(Arc::clone(&loaded.settings));
        }
        let files =
            ClientFiles { ca: self.ca.as_deref(), certificate: self.certificate.as_deref(), key: self.key.as_deref() };
        let loaded_by = match self.time.get() {
            Some(time) => files.load_by(Arc::clone(time))?,
            None => files.load()?,
        };
        let mut settings = Arc::unwrap_or_clone(loaded_by);
        settings.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
        let settings = Arc::new(settings);
        *loaded = Some(Loaded { stamp, at: Instant::now(), settings: Arc::clone(&settings) });
        Ok(settings)
    }
}
