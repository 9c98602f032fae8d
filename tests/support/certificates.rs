//! Certificates, made on the spot.

use std::fs;
use std::path::Path;
use std::time::SystemTime;

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
        self.issue_for(None, file, name, purpose, dir);
    }

    /// The same for a certificate that holds from the one time to the other.
    pub(crate) fn issue_for(
        &self,
        period: Option<(SystemTime, SystemTime)>,
        file: &str,
        name: &str,
        purpose: ExtendedKeyUsagePurpose,
        dir: &Path,
    ) {
        let mut params = CertificateParams::new(vec![name.to_owned()]).expect("a name");
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.extended_key_usages = vec![purpose];
        if let Some((from, until)) = period {
            (params.not_before, params.not_after) = (from.into(), until.into());
        }
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.0).expect("a certificate");
        fs::write(dir.join(format!("{file}.crt")), certificate.pem()).expect("a temporary directory takes a file");
        fs::write(dir.join(format!("{file}.key")), key.serialize_pem()).expect("a temporary directory takes a file");
    }
}
