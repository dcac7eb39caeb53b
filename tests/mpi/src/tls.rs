//! TLS without a look at the certificate, and a man in the middle: what an attacker on a shared host could do.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use ipengine_protocol::handshake::EXPORTER_LABEL;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, ServerConfig, ServerConnection, SignatureScheme,
    StreamOwned,
};

use crate::waiting::LIMIT;

/// How long the man in the middle listens to one side before he turns to the other.
const TURN: Duration = Duration::from_millis(5);

/// A TLS connection of ours.
pub type Tls = StreamOwned<ClientConnection, TcpStream>;

/// Connects; returns the channel's binding too.
///
/// # Panics
/// When there is no TLS there.
#[must_use]
pub fn connect(address: SocketAddr) -> (Tls, Vec<u8>) {
    let provider = Arc::new(ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring has them")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Blind))
        .with_no_client_auth();
    let name = ServerName::try_from("gateway").expect("a valid name");
    let mut tls = ClientConnection::new(Arc::new(config), name).expect("a valid configuration");
    let mut tcp = TcpStream::connect(address).expect("somebody listens");
    tcp.set_read_timeout(Some(LIMIT)).expect("a limit");
    tls.complete_io(&mut tcp).expect("TLS");
    let binding = tls
        .export_keying_material(vec![0; 32], EXPORTER_LABEL, None)
        .expect("TLS 1.2 or newer");
    (StreamOwned::new(tls, tcp), binding)
}

/// Relays one client to the gateway with a certificate of its own, reading everything. Returns its address.
///
/// # Panics
/// When it cannot listen.
#[must_use]
pub fn man_in_the_middle(gateway: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("an address");
    thread::spawn(move || {
        // A side that hangs up ends the relay: that is what the test waits for.
        if let Ok((victim, _)) = listener.accept() {
            let _ = relay(victim, gateway);
        }
    });
    address
}

fn relay(victim: TcpStream, gateway: SocketAddr) -> io::Result<()> {
    let (mut inner, _) = connect(gateway);
    let server = ServerConnection::new(Arc::new(own_config())).map_err(io::Error::other)?;
    let mut outer = StreamOwned::new(server, victim);
    inner.sock.set_read_timeout(Some(TURN))?;
    outer.sock.set_read_timeout(Some(TURN))?;
    loop {
        pass(&mut outer, &mut inner)?;
        pass(&mut inner, &mut outer)?;
    }
}

fn pass(from: &mut impl Read, to: &mut impl Write) -> io::Result<()> {
    let mut buffer = [0; 4096];
    match from.read(&mut buffer) {
        Ok(0) => Err(ErrorKind::UnexpectedEof.into()),
        Ok(length) => to.write_all(&buffer[..length]).and_then(|()| to.flush()),
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => Ok(()),
        Err(error) => Err(error),
    }
}

fn own_config() -> ServerConfig {
    let own = rcgen::generate_simple_self_signed(vec!["gateway".to_owned()]).expect("a certificate");
    let key = PrivatePkcs8KeyDer::from(own.signing_key.serialize_der());
    ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("ring has them")
        .with_no_client_auth()
        .with_single_cert(vec![own.cert.der().clone()], key.into())
        .expect("key and certificate belong together")
}

/// Accepts every certificate.
#[derive(Debug)]
struct Blind;

impl ServerCertVerifier for Blind {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        ring::default_provider()
            .signature_verification_algorithms
            .supported_schemes()
    }
}
