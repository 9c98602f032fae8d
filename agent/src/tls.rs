//! TLS as a client: whom we trust and who we are, for whoever connects to something; [`server`] is for who is connected to.
//!
//! One provider in the whole binary: ring, named here and never taken from the process's default. Files are read when a
//! connection is made, so that a renewed certificate is used without a restart.

use std::{path::Path, sync::Arc};

use rustls::{
    CertificateError, ClientConfig, ConfigBuilder, Error, OtherError, RootCertStore, WantsVerifier,
    client::{WantsClientCert, WebPkiServerVerifier, danger::ServerCertVerifier},
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    time_provider::{DefaultTimeProvider, TimeProvider},
};

use crate::config::Problems;

pub mod server;

/// The PEM files that a configuration names.
#[derive(Debug, Clone, Copy, Default)]
pub struct ClientFiles<'a> {
    /// Certificates of the authorities to trust; those of the system if there is none.
    pub ca: Option<&'a Path>,
    /// Our own certificate, followed by the chain that leads to its authority.
    pub certificate: Option<&'a Path>,
    /// Its private key.
    pub key: Option<&'a Path>,
}

/// What is wrong with one of the files.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct TlsError {
    /// The configuration key that names it.
    pub key: &'static str,
    /// A sentence fragment, with the path.
    pub message: String,
}

impl ClientFiles<'_> {
    /// Reads the files.
    ///
    /// # Errors
    /// The first file that cannot be read, holds nothing of its kind, or does not go with the others.
    pub fn load(&self) -> Result<Arc<ClientConfig>, TlsError> {
        self.load_by(Arc::new(DefaultTimeProvider))
    }

    /// As [`ClientFiles::load`], by another clock than the machine's.
    ///
    /// # Errors
    /// As [`ClientFiles::load`].
    pub(crate) fn load_by(&self, time: Arc<dyn TimeProvider>) -> Result<Arc<ClientConfig>, TlsError> {
        self.with_client(builder(time).with_root_certificates(self.roots()?))
    }

    /// As [`ClientFiles::load_by`], with another judge of the server's certificate, which
    /// stands on [`ClientFiles::verifier`].
    ///
    /// # Errors
    /// As [`ClientFiles::load`].
    pub(crate) fn load_with(
        &self,
        time: Arc<dyn TimeProvider>,
        verifier: Arc<dyn ServerCertVerifier>,
    ) -> Result<Arc<ClientConfig>, TlsError> {
        self.with_client(builder(time).dangerous().with_custom_certificate_verifier(verifier))
    }

    /// The usual judge of servers' certificates, with the authorities of these files.
    ///
    /// # Errors
    /// As [`ClientFiles::load`].
    pub(crate) fn verifier(&self) -> Result<Arc<WebPkiServerVerifier>, TlsError> {
        let roots = Arc::new(self.roots()?);
        let verifier = WebPkiServerVerifier::builder_with_provider(roots, Arc::new(provider())).build();
        verifier.map_err(|error| TlsError { key: "ca-file", message: error.to_string() })
    }

    fn with_client(
        &self,
        builder: ConfigBuilder<ClientConfig, WantsClientCert>,
    ) -> Result<Arc<ClientConfig>, TlsError> {
        let config = match (self.certificate, self.key) {
            (None, None) => builder.with_no_client_auth(),
            (Some(certificate), Some(key)) => {
                let chain = certificates("client-cert-file", certificate)?;
                let private = private_key("client-key-file", key)?;
                builder
                    .with_client_auth_cert(chain, private)
                    .map_err(|error| unusable(("client-cert-file", certificate), ("client-key-file", key), &error))?
            }
            (Some(_), None) => return Err(alone("client-cert-file", "client-key-file")),
            (None, Some(_)) => return Err(alone("client-key-file", "client-cert-file")),
        };
        Ok(Arc::new(config))
    }

    /// Reads the files to see whether they are right, and notes all that is not, under `path`.
    pub fn validate(&self, path: &str, problems: &mut Problems) {
        let mut wrong = Vec::from_iter(self.roots().err());
        if let (Some(certificate), Some(key)) = (self.certificate, self.key) {
            wrong.extend(certificates("client-cert-file", certificate).err());
            wrong.extend(private_key("client-key-file", key).err());
        }
        // Whether they go together, when each is right.
        if wrong.iter().all(|error| error.key == "ca-file") {
            let whoever = builder(Arc::new(DefaultTimeProvider)).with_root_certificates(RootCertStore::empty());
            wrong.extend(self.with_client(whoever).err());
        }
        for error in wrong {
            problems.add(format!("{path}.{}", error.key), error.message);
        }
    }

    fn roots(&self) -> Result<RootCertStore, TlsError> {
        let (found, from) = match self.ca {
            Some(ca) => (certificates("ca-file", ca)?, ca.display().to_string()),
            // Broken ones among them are no reason to do without the others.
            None => (rustls_native_certs::load_native_certs().certs, "the system's certificate store".to_owned()),
        };
        let mut roots = RootCertStore::empty();
        let (usable, _) = roots.add_parsable_certificates(found);
        if usable == 0 {
            let message = format!("there is no usable certificate of an authority in {from}");
            return Err(TlsError { key: "ca-file", message });
        }
        Ok(roots)
    }
}

/// By this clock.
fn builder(time: Arc<dyn TimeProvider>) -> ConfigBuilder<ClientConfig, WantsVerifier> {
    ClientConfig::builder_with_details(Arc::new(provider()), time)
        .with_safe_default_protocol_versions()
        .expect("ring offers what every supported version of TLS needs")
}

fn provider() -> CryptoProvider {
    ring::default_provider()
}

fn certificates(key: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let certificates = read.map_err(|error| unreadable(key, path, "certificates", &error))?;
    if certificates.is_empty() {
        return Err(TlsError { key, message: format!("{} holds no certificate in PEM form", path.display()) });
    }
    Ok(certificates)
}

fn private_key(key: &'static str, path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_file(path).map_err(|error| unreadable(key, path, "private key", &error))
}

fn unreadable(key: &'static str, path: &Path, what: &str, error: &rustls::pki_types::pem::Error) -> TlsError {
    TlsError { key, message: format!("cannot read {what} from {}: {error}", path.display()) }
}

/// For a certificate and a private key, each readable, that rustls does not take together: which of the two is to blame.
fn unusable(certificate: (&'static str, &Path), key: (&'static str, &Path), error: &rustls::Error) -> TlsError {
    let shown = certificate.1.display();
    let Error::InvalidCertificate(fault) = error else {
        return TlsError { key: key.0, message: format!("{} does not go with {shown}: {error}", key.1.display()) };
    };
    let message = if is_of_old_version(fault) {
        format!(
            "{shown} holds a certificate of an old version of X.509, most likely 1, which cannot be used: have one of \
             version 3 made, as it is with extensions"
        )
    } else {
        format!("{shown} holds a certificate that cannot be used: {error}")
    };
    TlsError { key: certificate.0, message }
}

/// Whether a certificate is refused for being older than version 3, as one is that was signed without extensions.
fn is_of_old_version(fault: &CertificateError) -> bool {
    let CertificateError::Other(OtherError(fault)) = fault else { return false };
    matches!(fault.downcast_ref(), Some(webpki::Error::UnsupportedCertVersion))
}

fn alone(key: &'static str, other: &str) -> TlsError {
    TlsError { key, message: format!("needs `{other}` with it") }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    /// A self-signed certificate and its key, as files.
    fn pair(dir: &Path, name: &str) -> (std::path::PathBuf, std::path::PathBuf) {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(vec![name.to_owned()]).expect("a name");
        let certificate = params.self_signed(&key).expect("a certificate");
        let (cert_path, key_path) = (dir.join(format!("{name}.crt")), dir.join(format!("{name}.key")));
        fs::write(&cert_path, certificate.pem()).expect("written");
        fs::write(&key_path, key.serialize_pem()).expect("written");
        (cert_path, key_path)
    }

    fn key_of(files: ClientFiles<'_>) -> (&'static str, String) {
        let error = files.load().expect_err("something is wrong");
        (error.key, error.message)
    }

    #[test]
    fn good_files_are_taken() {
        let dir = tempfile::tempdir().expect("a directory");
        let (cert, key) = pair(dir.path(), "localhost");
        ClientFiles { ca: Some(&cert), ..Default::default() }.load().expect("an authority is enough");
        ClientFiles { ca: Some(&cert), certificate: Some(&cert), key: Some(&key) }.load().expect("with a client");
    }

    #[test]
    fn a_wrong_file_is_told_by_key_and_path() {
        let dir = tempfile::tempdir().expect("a directory");
        let (cert, key) = pair(dir.path(), "localhost");
        let (_, other_key) = pair(dir.path(), "other");
        let missing = dir.path().join("missing.pem");
        let ca = Some(cert.as_path());

        let (at, message) = key_of(ClientFiles { ca: Some(&missing), ..Default::default() });
        assert!(at == "ca-file" && message.contains("missing.pem"), "{at}: {message}");
        let (at, message) = key_of(ClientFiles { ca: Some(&key), ..Default::default() });
        assert!(at == "ca-file" && message.contains("no certificate"), "{at}: {message}");
        let (at, message) = key_of(ClientFiles { ca, certificate: Some(&cert), key: None });
        assert!(at == "client-cert-file" && message.contains("client-key-file"), "{at}: {message}");
        let (at, _) = key_of(ClientFiles { ca, certificate: None, key: Some(&key) });
        assert_eq!(at, "client-key-file");
        let (at, message) = key_of(ClientFiles { ca, certificate: Some(&cert), key: Some(&cert) });
        assert!(at == "client-key-file" && message.contains("localhost.crt"), "{at}: {message}");
        let (at, message) = key_of(ClientFiles { ca, certificate: Some(&cert), key: Some(&other_key) });
        assert!(at == "client-key-file" && message.contains("does not go with"), "{at}: {message}");
    }

    /// A certificate of version 1 with its key, and both as PEM. rustls does not ask whether our own is signed well.
    pub(super) fn of_version_1() -> (String, String) {
        let key = KeyPair::generate().expect("a key");
        let made = CertificateParams::default().self_signed(&key).expect("a certificate");
        let mut der = made.der().to_vec();
        // [0] { INTEGER 2 }, which is version 3.
        let at = der.windows(5).position(|bytes| bytes == [0xa0, 3, 2, 1, 2]).expect("a version");
        der[at + 4] = 0;
        let base64 = base64::Engine::encode(&base64::prelude::BASE64_STANDARD, der);
        (format!("-----BEGIN CERTIFICATE-----\n{base64}\n-----END CERTIFICATE-----\n"), key.serialize_pem())
    }

    #[test]
    fn a_certificate_that_cannot_be_used_is_not_blamed_on_its_key() {
        let dir = tempfile::tempdir().expect("a directory");
        let (ca, _) = pair(dir.path(), "localhost");
        let (cert, key) = (dir.path().join("old.crt"), dir.path().join("old.key"));
        let (certificate, private) = of_version_1();
        fs::write(&cert, certificate).expect("written");
        fs::write(&key, private).expect("written");
        let files = ClientFiles { ca: Some(&ca), certificate: Some(&cert), key: Some(&key) };
        let (at, message) = key_of(files);
        assert!(at == "client-cert-file" && message.contains("old.crt"), "{at}: {message}");
        assert!(message.contains("version 3") && !message.contains("UnsupportedCertVersion"), "{message}");
        let mut problems = Problems::default();
        files.validate("s", &mut problems);
        assert_eq!(problems.list().iter().map(|problem| &*problem.path).collect::<Vec<_>>(), ["s.client-cert-file"]);
    }

    #[test]
    fn every_wrong_file_is_told() {
        let dir = tempfile::tempdir().expect("a directory");
        let (cert, key) = pair(dir.path(), "localhost");
        let (_, other_key) = pair(dir.path(), "other");
        let missing = Some(Path::new("/nowhere.pem"));
        for (ca, certificate, key, expected) in [
            (Some(&*cert), Some(&*cert), Some(&*key), &[][..]),
            (missing, missing, missing, &["s.ca-file", "s.client-cert-file", "s.client-key-file"]),
            (missing, Some(&*cert), Some(&*other_key), &["s.ca-file", "s.client-key-file"]),
            (missing, missing, None, &["s.ca-file", "s.client-cert-file"]),
            (Some(&*cert), Some(&*cert), missing, &["s.client-key-file"]),
        ] {
            let mut problems = Problems::default();
            let files = ClientFiles { ca, certificate, key };
            files.validate("s", &mut problems);
            let told: Vec<_> = problems.list().iter().map(|problem| &*problem.path).collect();
            assert_eq!(told, expected, "{files:?}: {problems:?}");
        }
    }

    #[test]
    fn problems_carry_the_key_path() {
        let mut problems = Problems::default();
        ClientFiles { ca: Some(Path::new("/nowhere/ca.pem")), ..Default::default() }
            .validate("sources.a", &mut problems);
        assert_eq!(problems.list()[0].path, "sources.a.ca-file");
    }
}
