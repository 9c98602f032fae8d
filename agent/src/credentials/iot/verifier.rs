//! Whether the provider's certificate is to be believed, also by a clock that is wrong.
//!
//! It has to lead to a trusted authority, be for the right name, and be valid now. While no clock of the gateway is trusted, and
//! only then, "now" may be unknown: then the certificate has to be valid at a time that is not before our own certificate was
//! issued, and once more at the time that the server itself says in its answer; only then is the answer believed. So validity is
//! never ignored: whoever has the key of a certificate that has expired since our own was issued could pass, as long as the
//! gateway does not know the time. `docs/credentials.md` says so.

use std::sync::{Arc, Mutex, PoisonError};

use forebay_log_store::Timestamp;
use rustls::{
    CertificateError, DigitallySignedStruct, Error, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    pki_types::{CertificateDer, ServerName, UnixTime},
};

use super::config::Config;
use crate::{
    credentials::{certificate::Period, time::KnownTime},
    tls::TlsError,
};

/// See the module. For one connection.
#[derive(Debug)]
pub(super) struct Verifier {
    inner: Arc<WebPkiServerVerifier>,
    time: Arc<KnownTime>,
    /// It is not before this.
    floor: Timestamp,
    provisional: Mutex<Option<Provisional>>,
}

/// What was found valid at some time.
#[derive(Debug)]
struct Provisional {
    end_entity: CertificateDer<'static>,
    intermediates: Vec<CertificateDer<'static>>,
    name: ServerName<'static>,
}

impl Verifier {
    pub(super) fn new(config: &Config, time: Arc<KnownTime>) -> Result<Self, TlsError> {
        let floor = Period::of_file(&config.client_cert_file)
            .map_err(|message| TlsError { key: "client-cert-file", message })?
            .from;
        Ok(Self { inner: config.files().verifier()?, time, floor, provisional: Mutex::default() })
    }

    /// Whether what was found valid at some time is so at the time that the server says.
    pub(super) fn confirm(&self, at: Option<Timestamp>) -> Result<(), Error> {
        let provisional = self.provisional.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(Provisional { end_entity, intermediates, name }) = provisional else { return Ok(()) };
        let at = at.filter(|at| *at >= self.floor).ok_or(CertificateError::NotValidYet)?;
        self.inner.verify_server_cert(&end_entity, &intermediates, &name, &[], unix(at)).map(drop)
    }

    /// The first moment at which all of these are valid, or our floor.
    fn earliest(&self, certificates: &[&CertificateDer<'_>]) -> Option<Timestamp> {
        certificates
            .iter()
            .map(|der| Period::of(der).ok().map(|period| period.from))
            .try_fold(self.floor, |latest, from| Some(latest.max(from?)))
    }
}

fn unix(at: Timestamp) -> UnixTime {
    UnixTime::since_unix_epoch(std::time::Duration::from_millis(at.0))
}

fn is_about_time(error: &Error) -> bool {
    use CertificateError as Bad;
    matches!(
        error,
        Error::InvalidCertificate(
            Bad::NotValidYet | Bad::NotValidYetContext { .. } | Bad::Expired | Bad::ExpiredContext { .. }
        )
    )
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let by_our_clock = self.inner.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        let Err(error) = by_our_clock else { return by_our_clock };
        if self.time.is_trusted() || !is_about_time(&error) {
            return Err(error);
        }
        let all: Vec<_> = std::iter::once(end_entity).chain(intermediates).collect();
        let Some(earliest) = self.earliest(&all) else { return Err(error) };
        self.inner.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, unix(earliest))?;
        let provisional = Provisional {
            end_entity: end_entity.clone().into_owned(),
            intermediates: intermediates.iter().map(|der| der.clone().into_owned()).collect(),
            name: server_name.to_owned(),
        };
        *self.provisional.lock().unwrap_or_else(PoisonError::into_inner) = Some(provisional);
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}
