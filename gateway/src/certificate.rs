//! The TLS certificate: self-signed, made at start, known to clients and engines by its fingerprint.

use ipengine_sockets::pinned;

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
    pinned::to_hex(&pinned::fingerprint(der))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_is_no_host_is_an_error() {
        assert!(matches!(
            self_signed(&["ünïcode host".to_owned()]),
            Err(Error::Certificate(_))
        ));
    }
}
