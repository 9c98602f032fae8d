//! Our own certificate: until when it holds, and what is said when that is not long any more.

use std::{fs, path::Path};

use forebay_log_store::Timestamp;
use rustls::pki_types::{CertificateDer, pem::PemObject as _};
use x509_parser::parse_x509_certificate;

use crate::log_events::shown;

/// So long before its end it is told that a certificate has to be renewed.
const WARN_AHEAD_MS: u64 = 30 * DAY_MS;
const DAY_MS: u64 = 86_400_000;

/// When a certificate holds, in milliseconds since 1970 (UTC).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Period {
    /// From here on.
    pub from: Timestamp,
    /// Until here.
    pub until: Timestamp,
}

/// How it stands with a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It holds for long.
    Sound,
    /// It has to be renewed.
    Expiring,
    /// It does not hold any more.
    Expired,
    /// It does not hold yet.
    NotYet,
}

impl Period {
    /// Of the first certificate of a PEM file.
    ///
    /// # Errors
    /// A sentence fragment with the path.
    pub fn of_file(path: &Path) -> Result<Self, String> {
        let pem = fs::read(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
        let first = CertificateDer::pem_slice_iter(&pem).next();
        let certificate = first.ok_or_else(|| format!("{} holds no certificate in PEM form", path.display()))?;
        let certificate = certificate.map_err(|error| format!("cannot read {}: {error}", path.display()))?;
        Self::of(&certificate).map_err(|error| format!("cannot read the certificate in {}: {error}", path.display()))
    }

    /// Of a certificate in DER.
    ///
    /// # Errors
    /// It is none.
    pub fn of(der: &[u8]) -> Result<Self, String> {
        let (_, certificate) = parse_x509_certificate(der).map_err(|error| error.to_string())?;
        let validity = certificate.validity();
        let millis = |seconds: i64| Timestamp(u64::try_from(seconds).unwrap_or(0).saturating_mul(1000));
        Ok(Self { from: millis(validity.not_before.timestamp()), until: millis(validity.not_after.timestamp()) })
    }

    /// How it stands at `now`.
    #[must_use]
    pub fn standing(&self, now: Timestamp) -> Standing {
        if now > self.until {
            Standing::Expired
        } else if now < self.from {
            Standing::NotYet
        } else if now.0 + WARN_AHEAD_MS >= self.until.0 {
            Standing::Expiring
        } else {
            Standing::Sound
        }
    }

    /// What a person should know of it, if anything.
    #[must_use]
    pub fn trouble(&self, now: Timestamp) -> Option<String> {
        let days = self.until.0.saturating_sub(now.0) / DAY_MS;
        match self.standing(now) {
            Standing::Sound => None,
            Standing::Expiring => Some(format!("expires in {days} days, on {}: renew it", shown(self.until))),
            Standing::Expired => Some(format!("has expired on {}: nobody takes it any more", shown(self.until))),
            Standing::NotYet => Some(format!("holds only from {} on", shown(self.from))),
        }
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    use super::*;

    #[test]
    fn an_end_is_told_thirty_days_ahead_with_its_date() {
        let mut params = CertificateParams::new(vec!["gateway-7".to_owned()]).expect("a name");
        (params.not_before, params.not_after) = (date_time_ymd(2026, 1, 1), date_time_ymd(2026, 12, 31));
        let key = KeyPair::generate().expect("a key");
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("gateway.crt");
        fs::write(&file, params.self_signed(&key).expect("a certificate").pem()).expect("written");
        let period = Period::of_file(&file).expect("read");
        assert_eq!(
            (shown(period.from).as_str(), shown(period.until).as_str()),
            ("2026-01-01T00:00:00Z", "2026-12-31T00:00:00Z")
        );
        let before_end = |days: u64| period.trouble(Timestamp(period.until.0 - days * DAY_MS));
        assert_eq!(before_end(31), None);
        assert_eq!(before_end(30).as_deref(), Some("expires in 30 days, on 2026-12-31T00:00:00Z: renew it"));
        assert!(
            period
                .trouble(Timestamp(period.until.0 + 1))
                .is_some_and(|text| text.contains("has expired on 2026-12-31"))
        );
        assert!(period.trouble(Timestamp(0)).is_some_and(|text| text.contains("only from 2026-01-01")));
    }

    #[test]
    fn what_is_no_certificate_is_told_with_its_path() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("gateway.crt");
        assert!(Period::of_file(&file).is_err_and(|error| error.contains("gateway.crt")));
        for text in ["hello", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
            fs::write(&file, text).expect("written");
            assert!(Period::of_file(&file).is_err_and(|error| error.contains("gateway.crt")), "{text}");
        }
        assert!(Period::of(b"").is_err());
    }
}
