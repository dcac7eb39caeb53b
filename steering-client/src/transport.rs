//! From an address to a WebSocket whose other end has proved that it holds the token. Runs on the I/O thread.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use ipengine_protocol::frame::MAX_FRAME_LEN;
use ipengine_protocol::handshake::{ClientSide, EXPORTER_LABEL, Role, Secret};
use ipengine_sockets::{LocalStream, pinned};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::{Message, protocol::WebSocketConfig};

use crate::Error;
use crate::access::{Access, Address};
use crate::error::{Attempt, AttemptError};

/// How long one address may take, TLS, upgrade and proofs included.
const ADDRESS_LIMIT: Duration = Duration::from_secs(5);

/// Head start of each address before the next is tried beside it: many addresses of a node are routable only inside
/// the cluster, and those do not answer at all.
const HEAD_START: Duration = Duration::from_millis(250);

/// A WebSocket to a proven gateway.
pub(crate) type Socket = WebSocketStream<Stream>;

/// The byte stream below the WebSocket.
#[derive(Debug)]
pub(crate) enum Stream {
    /// On this host.
    Unix(LocalStream),
    /// Over the network.
    Tls(Box<TlsStream<TcpStream>>),
}

/// Tries the addresses, each with a head start before the next; the first that leads to the gateway wins.
pub(crate) async fn open(access: &Access) -> Result<(Socket, Address), Error> {
    let mut tries = JoinSet::new();
    for (place, address) in access.addresses.iter().enumerate() {
        let (address, token, pin) = (address.clone(), access.token.clone(), access.fingerprint);
        tries.spawn(async move {
            tokio::time::sleep(HEAD_START * place as u32).await;
            let result = tokio::time::timeout(ADDRESS_LIMIT, reach(&address, token, pin)).await;
            (place, address, result.unwrap_or(Err(AttemptError::Timeout)))
        });
    }
    let mut failed = Vec::new();
    while let Some(joined) = tries.join_next().await {
        // Tasks are neither cancelled nor do they panic while the set lives.
        let Ok((place, address, result)) = joined else {
            continue;
        };
        match result {
            Ok(socket) => return Ok((socket, address)),
            Err(error) => failed.push((
                place,
                Attempt {
                    address: address.to_string(),
                    error,
                },
            )),
        }
    }
    failed.sort_by_key(|(place, _)| *place);
    let attempts = failed.into_iter().map(|(_, attempt)| attempt).collect();
    Err(Error::Unreachable {
        cluster: access.cluster.clone(),
        attempts,
    })
}

async fn reach(address: &Address, token: Secret, pin: [u8; 32]) -> Result<Socket, AttemptError> {
    let (stream, binding) = match address {
        Address::Unix(path) => {
            let stream = LocalStream::new(UnixStream::connect(path).await?)?;
            (Stream::Unix(stream), Vec::new())
        }
        Address::Tls { host, port } => tls(host, *port, pin).await?,
    };
    let mut socket = upgrade(stream).await?;
    prove(&mut socket, token, &binding).await?;
    Ok(socket)
}

async fn tls(host: &str, port: u16, pin: [u8; 32]) -> Result<(Stream, Vec<u8>), AttemptError> {
    let tcp = TcpStream::connect((host, port)).await?;
    tcp.set_nodelay(true)?;
    // The name is not what is checked: the certificate is pinned.
    let name = ServerName::try_from(host.to_owned())
        .unwrap_or_else(|_| ServerName::try_from("gateway").expect("a valid DNS name"));
    let connector = TlsConnector::from(Arc::new(pinned::client_config(pin).map_err(AttemptError::Tls)?));
    let stream = connector.connect(name, tcp).await.map_err(tls_error)?;
    let binding = stream
        .get_ref()
        .1
        .export_keying_material(vec![0; 32], EXPORTER_LABEL, None)
        .map_err(AttemptError::Tls)?;
    Ok((Stream::Tls(Box::new(stream)), binding))
}

fn tls_error(error: io::Error) -> AttemptError {
    match error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>())
    {
        Some(inner) if pinned::is_wrong_certificate(inner) => AttemptError::Fingerprint,
        Some(inner) => AttemptError::Tls(inner.clone()),
        None => AttemptError::Io(error),
    }
}

async fn upgrade(stream: Stream) -> Result<Socket, AttemptError> {
    // The read buffer is zeroed before each read: a large one costs small messages more than it saves large ones.
    let limits = WebSocketConfig::default()
        .read_buffer_size(32 * 1024)
        .max_message_size(Some(MAX_FRAME_LEN))
        .max_frame_size(Some(MAX_FRAME_LEN));
    let (socket, _) = tokio_tungstenite::client_async_with_config("ws://gateway/", stream, Some(limits))
        .await
        .map_err(websocket_error)?;
    Ok(socket)
}

fn websocket_error(error: tokio_tungstenite::tungstenite::Error) -> AttemptError {
    match error {
        tokio_tungstenite::tungstenite::Error::Io(error) => AttemptError::Io(error),
        other => AttemptError::WebSocket(Box::new(other)),
    }
}

async fn prove(socket: &mut Socket, token: Secret, binding: &[u8]) -> Result<(), AttemptError> {
    let mut nonce = [0; 32];
    getrandom::fill(&mut nonce).map_err(|error| io::Error::other(error.to_string()))?;
    let side = ClientSide::new(Role::Client, token, binding, nonce);
    send(socket, side.hello().to_vec()).await?;
    let (proof, _version) = side.on_server_hello(&receive(socket).await?)?;
    send(socket, proof.to_vec()).await?;
    Ok(side.on_verdict(&receive(socket).await?)?)
}

async fn send(socket: &mut Socket, bytes: Vec<u8>) -> Result<(), AttemptError> {
    socket
        .send(Message::Binary(bytes.into()))
        .await
        .map_err(websocket_error)
}

async fn receive(socket: &mut Socket) -> Result<Bytes, AttemptError> {
    loop {
        match socket.next().await {
            Some(Ok(Message::Binary(bytes))) => return Ok(bytes),
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
            Some(Ok(Message::Close(frame))) => return Err(AttemptError::closed(frame)),
            None => return Err(AttemptError::Closed),
            Some(Ok(Message::Text(_) | Message::Frame(_))) => {
                return Err(ipengine_protocol::handshake::HandshakeError::NotOurs.into());
            }
            Some(Err(error)) => return Err(websocket_error(error)),
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Unix(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
