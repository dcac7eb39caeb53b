//! The three doors: TLS on TCP, and a Unix socket each for clients and engines of this host. Each connection becomes a
//! task; strangers are limited in number and time.

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use ipengine_protocol::handshake::{EXPORTER_LABEL, Secret};
use ipengine_sockets::{LocalStream, keepalive};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::spawn_local;
use tokio::time::{Instant, sleep, timeout_at};
use tokio_rustls::TlsAcceptor;

use crate::switchboard::Switchboard;
use crate::{Config, Error, Fault, Limits, engine_link, session};

/// ALPN name of an engine's control link.
const LINK_PROTOCOL: &[u8] = b"ipengine-link/1";

/// First pause after accepting failed, for instance for want of descriptors; doubled up to a second.
const PAUSE: Duration = Duration::from_millis(50);

/// A connection whose peer has not proved itself.
pub(crate) struct Stranger<S> {
    pub(crate) stream: S,
    /// What ties the peer's proof to this channel; empty on a Unix socket.
    pub(crate) binding: Vec<u8>,
    /// When its time is over.
    pub(crate) deadline: Instant,
    /// Its process, when the kernel knows.
    pub(crate) pid: Option<i32>,
    /// Its place among the strangers, given back when it has proved itself.
    pub(crate) permit: OwnedSemaphorePermit,
}

/// What every new connection needs.
pub(crate) struct Reception {
    pub(crate) board: Rc<Switchboard>,
    pub(crate) limits: Limits,
    pub(crate) client_secret: Secret,
    pub(crate) engine_secret: Secret,
    tls: TlsAcceptor,
}

impl Reception {
    pub(crate) fn new(config: &Config, limits: Limits, board: Rc<Switchboard>) -> Result<Self, Error> {
        let secret = |hex: &str| Secret::from_hex(hex).ok_or(Error::Secret);
        Ok(Self {
            board,
            limits,
            client_secret: secret(&config.client_secret)?,
            engine_secret: secret(&config.engine_secret)?,
            tls: tls(config)?,
        })
    }
}

fn tls(config: &Config) -> Result<TlsAcceptor, Error> {
    let certificate = CertificateDer::from(config.certificate.clone());
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(config.key.clone()));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut server = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(Error::Tls)?
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .map_err(Error::Tls)?;
    server.alpn_protocols = vec![LINK_PROTOCOL.to_vec(), b"http/1.1".to_vec()];
    // Without it the exporter of TLS 1.2 does not tell two channels apart.
    server.require_ems = true;
    Ok(TlsAcceptor::from(Arc::new(server)))
}

pub(crate) async fn accept_tcp(reception: Rc<Reception>, listener: TcpListener) {
    let strangers = Arc::new(Semaphore::new(reception.limits.unproved));
    loop {
        let permit = permit(&strangers).await;
        let (stream, peer) = retry(|| listener.accept()).await;
        let reception = reception.clone();
        spawn_local(async move {
            let end = serve_tcp(&reception, stream, permit).await;
            tracing::debug!(%peer, ?end, "connection ended");
        });
    }
}

pub(crate) async fn accept_clients(reception: Rc<Reception>, listener: UnixListener) {
    let strangers = Arc::new(Semaphore::new(reception.limits.unproved));
    loop {
        let permit = permit(&strangers).await;
        let (stream, _) = retry(|| listener.accept()).await;
        let reception = reception.clone();
        spawn_local(async move {
            let end = match local(&reception, stream, permit) {
                Ok(stranger) => session::run(&reception, stranger).await,
                Err(error) => Err(error.into()),
            };
            tracing::debug!(?end, "local client's connection ended");
        });
    }
}

pub(crate) async fn accept_engines(reception: Rc<Reception>, listener: UnixListener) {
    let strangers = Arc::new(Semaphore::new(reception.limits.unproved));
    loop {
        let permit = permit(&strangers).await;
        let (stream, _) = retry(|| listener.accept()).await;
        let reception = reception.clone();
        spawn_local(async move {
            let end = match local(&reception, stream, permit) {
                Ok(stranger) => engine_link::run(&reception, stranger).await,
                Err(error) => Err(error.into()),
            };
            tracing::debug!(?end, "local engine's link ended");
        });
    }
}

async fn permit(strangers: &Arc<Semaphore>) -> OwnedSemaphorePermit {
    strangers.clone().acquire_owned().await.expect("never closed")
}

async fn retry<T, F: Future<Output = io::Result<T>>>(mut accept: impl FnMut() -> F) -> T {
    let mut pause = PAUSE;
    loop {
        match accept().await {
            Ok(accepted) => return accepted,
            // The peer is gone before it was accepted: not our trouble.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                sleep(pause).await;
                pause = (pause * 2).min(Duration::from_secs(1));
            }
        }
    }
}

fn local(
    reception: &Reception,
    stream: UnixStream,
    permit: OwnedSemaphorePermit,
) -> io::Result<Stranger<LocalStream>> {
    // The kernel says whose socket it is, in our own numbering.
    let pid = stream.peer_cred().ok().and_then(|peer| peer.pid());
    let deadline = Instant::now() + reception.limits.greeting;
    Ok(Stranger {
        stream: LocalStream::new(stream)?,
        binding: Vec::new(),
        deadline,
        pid,
        permit,
    })
}

async fn serve_tcp(
    reception: &Reception,
    stream: TcpStream,
    permit: OwnedSemaphorePermit,
) -> Result<(), Fault> {
    stream.set_nodelay(true)?;
    keepalive::CLIENT.set(&stream)?;
    let deadline = Instant::now() + reception.limits.greeting;
    let accepted = timeout_at(deadline, reception.tls.accept(stream)).await;
    let stream = accepted.map_err(|_| Fault::Slow)??;
    let (socket, channel) = stream.get_ref();
    let binding = channel
        .export_keying_material([0; 32], EXPORTER_LABEL, None)
        .map_err(Fault::Binding)?;
    let linking = channel.alpn_protocol() == Some(LINK_PROTOCOL);
    if linking {
        keepalive::ENGINE.set(socket)?;
    }
    let stranger = Stranger {
        stream,
        binding: binding.to_vec(),
        deadline,
        pid: None,
        permit,
    };
    if linking {
        engine_link::run(reception, stranger).await
    } else {
        session::run(reception, stranger).await
    }
}
