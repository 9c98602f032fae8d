//! Certificates, made on the spot.

use std::fs;
use std::path::Path;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair};

/// Who signs certificates.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    /// A new one, whose certificate goes to `NAME.crt`.
    pub(crate) fn new(name: &str, dir: &Path) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let authority = CertifiedIssuer::self_signed(params, key).expect("a certificate");
        fs::write(dir.join(format!("{name}.crt")), authority.pem()).expect("a temporary directory takes a file");
        Self(authority)
    }

    /// Writes a certificate and its key to `FILE.crt` and `FILE.key`.
    pub(crate) fn issue(&self, file: &str, name: &str, purpose: ExtendedKeyUsagePurpose, dir: &Path) {
        let mut params = CertificateParams::new(vec![name.to_owned()]).expect("a name");
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.extended_key_usages = vec![purpose];
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.0).expect("a certificate");
        fs::write(dir.join(format!("{file}.crt")), certificate.pem()).expect("a temporary directory takes a file");
        fs::write(dir.join(format!("{file}.key")), key.serialize_pem()).expect("a temporary directory takes a file");
    }
}
