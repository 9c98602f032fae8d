//! TLS as a server: who we are, and whom we ask who they are.

use std::{path::Path, sync::Arc};

use rustls::{
    RootCertStore, ServerConfig,
    pki_types::CertificateDer,
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
};

use super::{TlsError, certificates, private_key, provider, unusable};

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
        let key = private_key("key-file", self.key)?;
        let config = builder.with_single_cert(chain, key);
        Ok(Arc::new(config.map_err(|error| unusable(("cert-file", self.certificate), ("key-file", self.key), &error))?))
    }

    /// Everything that is wrong with the files, for whoever checks a configuration.
    pub fn mistakes(&self) -> Vec<TlsError> {
        let mut wrong = Vec::from_iter(self.client_ca.and_then(|ca| self.verifier(ca, Arc::new(provider())).err()));
        wrong.extend(certificates("cert-file", self.certificate).err());
        wrong.extend(private_key("key-file", self.key).err());
        // Whether they go together, when each is right.
        if wrong.iter().all(|error| error.key == "client-ca-file") {
            wrong.extend(Self { client_ca: None, ..*self }.load().err());
        }
        wrong
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

/// The common name of whom a certificate is about: the last, if there are several. Only to be asked of a certificate that was
/// verified.
#[must_use]
pub fn common_name(certificate: &CertificateDer<'_>) -> Option<String> {
    let certificate = webpki::EndEntityCert::try_from(certificate).ok()?;
    subject_common_name(certificate.subject())
}

/// Looks through a name: a sequence of sets of sequences of an object identifier and a text (RFC 5280, section 4.1.2.4).
fn subject_common_name(mut subject: &[u8]) -> Option<String> {
    const SEQUENCE: u8 = 0x30;
    const SET: u8 = 0x31;
    const OBJECT_IDENTIFIER: u8 = 0x06;
    const UTF8_STRING: u8 = 0x0c;
    const PRINTABLE_STRING: u8 = 0x13;
    const IA5_STRING: u8 = 0x16;
    // 2.5.4.3
    const COMMON_NAME: [u8; 3] = [0x55, 0x04, 0x03];

    let mut found = None;
    while !subject.is_empty() {
        let (mut set, rest) = element(SET, subject)?;
        subject = rest;
        while !set.is_empty() {
            let (attribute, rest) = element(SEQUENCE, set)?;
            set = rest;
            let (kind, value) = element(OBJECT_IDENTIFIER, attribute)?;
            if kind != COMMON_NAME {
                continue;
            }
            // In other kinds of strings nobody has written a name for decades.
            let text = [UTF8_STRING, PRINTABLE_STRING, IA5_STRING].into_iter().find_map(|tag| element(tag, value));
            let (text, _) = text?;
            found = Some(std::str::from_utf8(text).ok()?.to_owned());
        }
    }
    found.filter(|name| !name.is_empty())
}

/// The contents of the DER element at the front, if it has this tag, and what is behind it.
fn element(tag: u8, bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let [found, length, rest @ ..] = bytes else { return None };
    if *found != tag {
        return None;
    }
    let (length, rest) = match length {
        0..=0x7f => (usize::from(*length), rest),
        0x81 => (usize::from(*rest.first()?), rest.get(1..)?),
        0x82 => (usize::from(*rest.first()?) << 8 | usize::from(*rest.get(1)?), rest.get(2..)?),
        // No name is that long.
        _ => return None,
    };
    rest.split_at_checked(length)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use proptest::prelude::*;
    use rcgen::{CertificateParams, DnType, KeyPair};

    use super::*;

    fn certificate(names: &[(DnType, &str)]) -> CertificateDer<'static> {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        for (kind, name) in names {
            params.distinguished_name.push(kind.clone(), *name);
        }
        let key = KeyPair::generate().expect("a key");
        params.self_signed(&key).expect("a certificate").der().clone()
    }

    #[test]
    fn a_certificates_common_name_is_found_among_others() {
        let names =
            [(DnType::OrganizationName, "Werk 7"), (DnType::CommonName, "Gerät-12"), (DnType::CountryName, "DE")];
        assert_eq!(common_name(&certificate(&names)).as_deref(), Some("Gerät-12"));
        let long = "n".repeat(300);
        assert_eq!(common_name(&certificate(&[(DnType::CommonName, &long)])), Some(long));
        assert_eq!(common_name(&certificate(&[(DnType::OrganizationName, "Werk 7")])), None);
        assert_eq!(common_name(&certificate(&[])), None);
        assert_eq!(common_name(&CertificateDer::from(&b"garbage"[..])), None);
    }

    #[test]
    fn files_are_read_and_wrong_ones_told() {
        let dir = tempfile::tempdir().expect("a directory");
        let write = |name: &str, text: String| {
            let path = dir.path().join(name);
            fs::write(&path, text).expect("written");
            path
        };
        let (key, other) = (KeyPair::generate().expect("a key"), KeyPair::generate().expect("a key"));
        let pem = CertificateParams::default().self_signed(&key).expect("a certificate").pem();
        let (cert, key) = (write("cert", pem), write("key", key.serialize_pem()));
        let other = write("other", other.serialize_pem());
        let files = ServerFiles { certificate: &cert, key: &key, client_ca: None, client_may_go_without: false };
        files.load().expect("enough");
        ServerFiles { client_ca: Some(&cert), ..files }.load().expect("with clients");
        let wrong = |files: ServerFiles<'_>| files.load().expect_err("something is wrong").key;
        assert_eq!(wrong(ServerFiles { key: &other, ..files }), "key-file");
        assert_eq!(wrong(ServerFiles { certificate: &key, ..files }), "cert-file");
        assert_eq!(wrong(ServerFiles { client_ca: Some(&key), ..files }), "client-ca-file");
        let (old, its_key) = super::super::tests::of_version_1();
        let (old, its_key) = (write("old", old), write("old-key", its_key));
        assert_eq!(wrong(ServerFiles { certificate: &old, key: &its_key, ..files }), "cert-file");
        let mistakes = |files: ServerFiles<'_>| files.mistakes().iter().map(|error| error.key).collect::<Vec<_>>();
        assert_eq!(mistakes(ServerFiles { client_ca: Some(&cert), ..files }), [""; 0]);
        let all = ServerFiles { certificate: &key, key: &cert, client_ca: Some(&key), ..files };
        assert_eq!(mistakes(all), ["client-ca-file", "cert-file", "key-file"]);
        let two = ServerFiles { key: &other, client_ca: Some(&key), ..files };
        assert_eq!(mistakes(two), ["client-ca-file", "key-file"]);
    }

    proptest! {
        #[test]
        fn any_subject_is_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = subject_common_name(&bytes);
        }
    }
}
