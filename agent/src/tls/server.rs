//! TLS as a server: who we are, and whom we ask who they are.

use std::{path::Path, sync::Arc};

use rustls::{
    RootCertStore, ServerConfig,
    pki_types::{PrivateKeyDer, pem::PemObject as _},
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
};

use super::{TlsError, certificates, provider, unreadable};

/// The PEM files that a configuration names.
#[derive(Debug, Clone, Copy)]
pub struct ServerFiles<'a> {
    /// Our certificate, followed by the chain that leads to its authority.
    pub certificate: &'a Path,
    /// Its private key.
    pub key: &'a Path,
    /// Certificates of the authorities that clients' certificates are from; clients are not asked for one if there is none.
    pub client_ca: Option<&'a Path>,
    /// Whether a client without a certificate is let in all the same.
    pub client_may_go_without: bool,
}

impl ServerFiles<'_> {
    /// Reads the files.
    ///
    /// # Errors
    /// The first file that cannot be read, holds nothing of its kind, or does not go with the others.
    pub fn load(&self) -> Result<Arc<ServerConfig>, TlsError> {
        let provider = Arc::new(provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .expect("ring offers what every supported version of TLS needs");
        let builder = match self.client_ca {
            None => builder.with_no_client_auth(),
            Some(ca) => builder.with_client_cert_verifier(self.verifier(ca, provider)?),
        };
        let chain = certificates("cert-file", self.certificate)?;
        let key = PrivateKeyDer::from_pem_file(self.key)
            .map_err(|error| unreadable("key-file", self.key, "private key", &error))?;
        let config = builder.with_single_cert(chain, key).map_err(|error| TlsError {
            key: "key-file",
            message: format!("{} does not go with {}: {error}", self.key.display(), self.certificate.display()),
        })?;
        Ok(Arc::new(config))
    }

    fn verifier(
        &self,
        ca: &Path,
        provider: Arc<rustls::crypto::CryptoProvider>,
    ) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(certificates("client-ca-file", ca)?);
        let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
        let builder = if self.client_may_go_without { builder.allow_unauthenticated() } else { builder };
        builder.build().map_err(|error| TlsError {
            key: "client-ca-file",
            message: format!("there is no usable certificate of an authority in {}: {error}", ca.display()),
        })
    }
}
