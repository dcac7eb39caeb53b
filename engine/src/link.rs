//! The control link: finding the gateway, TLS with a pinned certificate, the handshake, frames in and out.

use std::net::SocketAddr;
use std::os::fd::{AsRawFd, RawFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use ipengine_protocol::handshake::{ClientSide, EXPORTER_LABEL, Role, SERVER_HELLO_LEN, Secret, VERDICT_LEN};
use ipengine_protocol::{Frame, frame};
use ipengine_sockets::{LocalStream, keepalive, pinned};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

use crate::error::Error;
use crate::interfaces;

/// Time for one address: connection, TLS and handshake.
const ATTEMPT: Duration = Duration::from_secs(5);
/// Head start of each address before the next is tried beside it.
const HEAD_START: Duration = Duration::from_millis(250);
/// The application protocol that tells a control link from a client on the same port.
const ALPN: &[u8] = b"ipengine-link/1";
/// Room for one read. Below the allocator's threshold for memory of its own pages.
const READ: usize = 64 << 10;
/// A frame up to this length is copied out, so that the read buffer is used again instead of a new one.
const SMALL: usize = 4 << 10;
/// What is gathered for one write.
const WRITE: usize = 256 << 10;

/// The link's socket, for forked children of the user's code to close; -1 without a link.
static SOCKET: AtomicI32 = AtomicI32::new(-1);

/// The link is gone, and its descriptor's number may soon mean something else.
pub fn forget_socket() {
    SOCKET.store(-1, Ordering::SeqCst);
}

/// In a forked child: gives up the engine's link, which must end when the engine does.
pub fn close_in_forked_child() {
    let socket = SOCKET.swap(-1, Ordering::SeqCst);
    if socket >= 0 {
        // Nothing in the child uses it: threads do not survive a fork.
        let _ = nix::unistd::close(socket);
    }
}

/// Where the gateway is and how to prove oneself; travels over MPI from rank 0 to every rank.
#[derive(Clone, Serialize, Deserialize)]
pub struct GatewayAddress {
    /// The gateway's host: only there its socket file means anything.
    pub host: String,
    /// The Unix socket; `None` where it is not to be used.
    pub socket: Option<PathBuf>,
    /// TLS addresses.
    pub addresses: Vec<SocketAddr>,
    /// SHA-256 of the certificate.
    pub fingerprint: String,
    /// The engines' secret.
    pub secret: String,
}

/// Anything that carries bytes both ways.
trait Stream: AsyncRead + AsyncWrite + Unpin {}
impl<T: AsyncRead + AsyncWrite + Unpin> Stream for T {}

/// An authenticated connection.
pub struct Connection {
    /// Frames from the gateway.
    pub reader: Reader,
    /// Frames to the gateway.
    pub writer: Writer,
}

/// Reads frames.
pub struct Reader {
    stream: ReadHalf<Box<dyn Stream>>,
    buffer: BytesMut,
}

/// Writes frames.
pub struct Writer {
    stream: WriteHalf<Box<dyn Stream>>,
    buffer: BytesMut,
}

impl GatewayAddress {
    /// Connects by the Unix socket on the gateway's own host, else by the address that answers first.
    ///
    /// # Errors
    /// [`Error::Link`] with the reason of every way tried.
    pub async fn connect(self: &Arc<Self>, this_host: &str) -> Result<Connection, Error> {
        let mut reasons = Vec::new();
        let local = self
            .socket
            .as_deref()
            .filter(|socket| self.host == this_host && socket.exists());
        if let Some(socket) = local {
            match limited(self.connect_unix(socket)).await {
                Ok(connection) => return Ok(connection.keep()),
                Err(error) => reasons.push(format!("{}: {}", socket.display(), crate::error::chain(&error))),
            }
        }
        let addresses = interfaces::nearest_first(&self.addresses, self.host == this_host);
        match self.first_to_answer(&addresses).await {
            Ok(connection) => Ok(connection.keep()),
            Err(failed) => {
                reasons.extend(failed);
                Err(Error::Link {
                    reason: reasons.join("; "),
                })
            }
        }
    }

    /// Tries the addresses, each with a head start before the next is tried beside it: those of networks that this host is
    /// not on do not answer at all.
    async fn first_to_answer(self: &Arc<Self>, addresses: &[SocketAddr]) -> Result<Linked, Vec<String>> {
        let mut attempts = JoinSet::new();
        for (place, address) in (0..).zip(addresses.iter().copied()) {
            let this = Arc::clone(self);
            attempts.spawn_local(async move {
                tokio::time::sleep(HEAD_START * place).await;
                let result = limited(this.connect_tls(address)).await;
                result.map_err(|error| (place, format!("{address}: {}", crate::error::chain(&error))))
            });
        }
        let mut failed = Vec::new();
        while let Some(joined) = attempts.join_next().await {
            match joined {
                Ok(Ok(connection)) => return Ok(connection),
                Ok(Err(reason)) => failed.push(reason),
                Err(error) => failed.push((u32::MAX, error.to_string())),
            }
        }
        failed.sort();
        Err(failed.into_iter().map(|(_, reason)| reason).collect())
    }

    async fn connect_unix(&self, socket: &Path) -> Result<Linked, Error> {
        let stream = UnixStream::connect(socket).await.map_err(Error::io("connect"))?;
        let descriptor = stream.as_raw_fd();
        let stream = LocalStream::new(stream).map_err(Error::io("watch the socket"))?;
        let connection = self.greet(Box::new(stream), &[]).await?;
        Ok(Linked {
            connection,
            descriptor,
        })
    }

    async fn connect_tls(&self, address: SocketAddr) -> Result<Linked, Error> {
        let stream = TcpStream::connect(address).await.map_err(Error::io("connect"))?;
        stream.set_nodelay(true).map_err(Error::io("set TCP_NODELAY"))?;
        keepalive::ENGINE
            .set(&stream)
            .map_err(Error::io("watch over the connection"))?;
        let descriptor = stream.as_raw_fd();
        let name = ServerName::from(address.ip());
        let connector = TlsConnector::from(Arc::new(self.tls_config()?));
        let stream = connector
            .connect(name, stream)
            .await
            .map_err(Error::io("agree on TLS"))?;
        let mut binding = [0; 32];
        let (_, session) = stream.get_ref();
        session
            .export_keying_material(&mut binding, EXPORTER_LABEL, None)
            .map_err(|e| Error::io("bind the TLS channel")(std::io::Error::other(e)))?;
        let connection = self.greet(Box::new(stream), &binding).await?;
        Ok(Linked {
            connection,
            descriptor,
        })
    }

    fn tls_config(&self) -> Result<ClientConfig, Error> {
        let fault = |reason: &str| Error::Link {
            reason: reason.to_owned(),
        };
        let pin = pinned::from_hex(&self.fingerprint).ok_or_else(|| fault("no fingerprint"))?;
        let mut config = pinned::client_config(pin)
            .map_err(|error| Error::io("set up TLS")(std::io::Error::other(error)))?;
        config.alpn_protocols = vec![ALPN.to_vec()];
        Ok(config)
    }

    async fn greet(&self, mut stream: Box<dyn Stream>, binding: &[u8]) -> Result<Connection, Error> {
        let secret = Secret::from_hex(&self.secret).ok_or_else(|| Error::Link {
            reason: "no secret".to_owned(),
        })?;
        let mut nonce = [0; 32];
        getrandom::fill(&mut nonce)
            .map_err(|e| Error::io("draw random bytes")(std::io::Error::other(e.to_string())))?;
        let side = ClientSide::new(Role::Engine, secret, binding, nonce);
        let talk = "talk to the gateway";
        stream.write_all(&side.hello()).await.map_err(Error::io(talk))?;
        stream.flush().await.map_err(Error::io(talk))?;
        let mut answer = [0; SERVER_HELLO_LEN];
        stream.read_exact(&mut answer).await.map_err(Error::io(talk))?;
        let (proof, _version) = side.on_server_hello(&answer)?;
        stream.write_all(&proof).await.map_err(Error::io(talk))?;
        stream.flush().await.map_err(Error::io(talk))?;
        let mut verdict = [0; VERDICT_LEN];
        stream.read_exact(&mut verdict).await.map_err(Error::io(talk))?;
        side.on_verdict(&verdict)?;
        let (reader, writer) = tokio::io::split(stream);
        Ok(Connection {
            reader: Reader {
                stream: reader,
                buffer: BytesMut::new(),
            },
            writer: Writer {
                stream: writer,
                buffer: BytesMut::new(),
            },
        })
    }
}

/// A connection that may yet lose to a better one.
struct Linked {
    connection: Connection,
    descriptor: RawFd,
}

impl Linked {
    fn keep(self) -> Connection {
        SOCKET.store(self.descriptor, Ordering::SeqCst);
        self.connection
    }
}

async fn limited(attempt: impl Future<Output = Result<Linked, Error>>) -> Result<Linked, Error> {
    match tokio::time::timeout(ATTEMPT, attempt).await {
        Ok(result) => result,
        Err(_) => Err(Error::Link {
            reason: format!("no answer within {} s", ATTEMPT.as_secs()),
        }),
    }
}

impl Reader {
    /// The next frame, without its length prefix; `None` when the gateway has closed the link between two frames.
    ///
    /// # Errors
    /// [`Error::Io`] or [`Error::Decode`].
    pub async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        if !self.fill(4).await? {
            return Ok(None);
        }
        let prefix = u32::from_le_bytes(self.buffer[..4].try_into().expect("four bytes"));
        let length = frame::check_prefix(prefix)?;
        self.buffer.advance(4);
        if !self.fill(length).await? {
            return Err(Error::io("read a whole frame")(
                std::io::ErrorKind::UnexpectedEof.into(),
            ));
        }
        if length <= SMALL {
            let frame = Bytes::copy_from_slice(&self.buffer[..length]);
            self.buffer.advance(length);
            return Ok(Some(frame));
        }
        Ok(Some(self.buffer.split_to(length).freeze()))
    }

    /// Reads until `length` bytes are there; false at the end of the stream.
    async fn fill(&mut self, length: usize) -> Result<bool, Error> {
        while self.buffer.len() < length {
            self.buffer.reserve((length - self.buffer.len()).max(READ));
            let read = self
                .stream
                .read_buf(&mut self.buffer)
                .await
                .map_err(Error::io("read from the gateway"))?;
            if read == 0 {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

impl Writer {
    /// Adds a frame to what the next [`Self::flush`] writes.
    pub fn add(&mut self, frame: &Frame) {
        frame.append_prefixed(&mut self.buffer);
    }

    /// Whether enough is gathered for one write.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.buffer.len() >= WRITE
    }

    /// Writes what was added.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub async fn flush(&mut self) -> Result<(), Error> {
        let failed = "write to the gateway";
        self.stream
            .write_all_buf(&mut self.buffer)
            .await
            .map_err(Error::io(failed))?;
        self.buffer.clear();
        self.stream.flush().await.map_err(Error::io(failed))
    }
}
