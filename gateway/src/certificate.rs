//! The TLS certificate: self-signed, made at start, known to clients and engines by its fingerprint.

use sha2::{Digest, Sha256};

use crate::Error;

/// Makes a certificate for these host names and addresses; returns it and its key (PKCS 8), both DER.
///
/// # Errors
/// [`Error::Certificate`] when a name cannot stand in a certificate or no key could be made.
pub fn self_signed(hosts: &[String]) -> Result<(Vec<u8>, Vec<u8>), Error> {
    let made = rcgen::generate_simple_self_signed(hosts).map_err(Error::Certificate)?;
    Ok((made.cert.der().to_vec(), made.signing_key.serialize_der()))
}

/// SHA-256 of the certificate's DER, 64 hexadecimal digits: what the other side pins.
#[must_use]
pub fn fingerprint(der: &[u8]) -> String {
    Sha256::digest(der)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fingerprint_is_sha256_in_hexadecimal() {
        assert_eq!(
            fingerprint(b"abc"),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }

    #[test]
    fn a_name_that_is_no_host_is_an_error() {
        assert!(matches!(
            self_signed(&["ünïcode host".to_owned()]),
            Err(Error::Certificate(_))
        ));
    }
}
