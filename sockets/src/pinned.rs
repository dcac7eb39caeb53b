//! TLS with exactly one certificate: self-signed, made at the gateway's start, known to clients from the connection file and
//! to engines over MPI by its SHA-256. Names and chains are not looked at.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, OtherError, SignatureScheme};
use sha2::{Digest, Sha256};

/// SHA-256 of a certificate in DER.
pub type Fingerprint = [u8; 32];

/// The fingerprint of a certificate in DER.
#[must_use]
pub fn fingerprint(der: &[u8]) -> Fingerprint {
    Sha256::digest(der).into()
}

/// A fingerprint as 64 hexadecimal digits.
#[must_use]
pub fn to_hex(fingerprint: &Fingerprint) -> String {
    fingerprint.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A fingerprint from its 64 hexadecimal digits.
#[must_use]
pub fn from_hex(text: &str) -> Option<Fingerprint> {
    let mut fingerprint = Fingerprint::default();
    let digits = text.as_bytes();
    if digits.len() != 2 * fingerprint.len() || !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    for (byte, pair) in fingerprint.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(fingerprint)
}

/// A client's side of TLS that accepts only the certificate with this fingerprint.
///
/// # Errors
/// Those of the crypto provider.
pub fn client_config(pin: Fingerprint) -> Result<ClientConfig, rustls::Error> {
    let provider = Arc::new(ring::default_provider());
    let verifier = Arc::new(Pinned {
        pin,
        provider: provider.clone(),
    });
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    Ok(config)
}

/// Whether a connection failed because the other side showed another certificate.
#[must_use]
pub fn is_wrong_certificate(error: &rustls::Error) -> bool {
    match error {
        rustls::Error::InvalidCertificate(CertificateError::Other(other)) => other.0.is::<WrongPin>(),
        _ => false,
    }
}

#[derive(Debug)]
struct Pinned {
    pin: Fingerprint,
    provider: Arc<CryptoProvider>,
}

/// The certificate is another one.
#[derive(Debug, thiserror::Error)]
#[error("certificate does not have the pinned fingerprint")]
struct WrongPin;

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if fingerprint(end_entity) == self.pin {
            Ok(ServerCertVerified::assertion())
        } else {
            let wrong = CertificateError::Other(OtherError(Arc::new(WrongPin)));
            Err(rustls::Error::InvalidCertificate(wrong))
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn a_fingerprint_is_sha256_in_hexadecimal() {
        assert_eq!(to_hex(&fingerprint(b"abc")), ABC);
        assert_eq!(from_hex(ABC), Some(fingerprint(b"abc")));
    }

    #[test]
    fn what_is_no_fingerprint_is_refused() {
        let signed = format!("+a{}", &ABC[2..]);
        for text in ["", "ba", &ABC[1..], &signed, &ABC.replace('b', "\u{e9}")] {
            assert_eq!(from_hex(text), None, "{text}");
        }
    }
}
