//! The handshake of `ipengine_protocol::handshake`, over a WebSocket or a raw stream. Nothing else of a peer is
//! looked at before it has proved itself.

use futures_util::{SinkExt, StreamExt};
use ipengine_protocol::handshake::{CLIENT_HELLO_LEN, PROOF_LEN, Role, Secret, ServerSide};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::{self, protocol::WebSocketConfig};

use crate::Fault;

/// Largest WebSocket message before the peer has proved itself.
const UNPROVED_MESSAGE: usize = 256;

/// Limits of a WebSocket whose peer has not proved itself.
pub(crate) fn unproved_limits() -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(4096)
        .max_message_size(Some(UNPROVED_MESSAGE))
        .max_frame_size(Some(UNPROVED_MESSAGE))
}

/// How the fixed messages of the handshake travel.
pub(crate) trait Carrier {
    async fn receive(&mut self, length: usize) -> Result<Vec<u8>, Fault>;
    async fn send(&mut self, bytes: &[u8]) -> Result<(), Fault>;
}

/// Each message as so many bytes of the stream.
pub(crate) struct Raw<'a, S>(pub(crate) &'a mut S);

impl<S: AsyncRead + AsyncWrite + Unpin> Carrier for Raw<'_, S> {
    async fn receive(&mut self, length: usize) -> Result<Vec<u8>, Fault> {
        let mut bytes = vec![0; length];
        self.0.read_exact(&mut bytes).await?;
        Ok(bytes)
    }

    async fn send(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        self.0.write_all(bytes).await?;
        Ok(self.0.flush().await?)
    }
}

/// Each message as one binary message.
pub(crate) struct Web<'a, S>(pub(crate) &'a mut WebSocketStream<S>);

impl<S: AsyncRead + AsyncWrite + Unpin> Carrier for Web<'_, S> {
    async fn receive(&mut self, _length: usize) -> Result<Vec<u8>, Fault> {
        loop {
            match self.0.next().await {
                Some(Ok(tungstenite::Message::Binary(bytes))) => return Ok(bytes.to_vec()),
                Some(Ok(tungstenite::Message::Ping(_) | tungstenite::Message::Pong(_))) => {}
                Some(Ok(tungstenite::Message::Text(_))) => return Err(Fault::Text),
                Some(Ok(tungstenite::Message::Close(_) | tungstenite::Message::Frame(_))) | None => {
                    return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into());
                }
                Some(Err(error)) => return Err(Box::new(error).into()),
            }
        }
    }

    async fn send(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        let message = tungstenite::Message::Binary(bytes.to_vec().into());
        self.0.send(message).await.map_err(|error| Box::new(error).into())
    }
}

/// Plays the server's side for one role.
pub(crate) async fn greet(
    carrier: &mut impl Carrier,
    role: Role,
    secret: &Secret,
    binding: &[u8],
) -> Result<(), Fault> {
    let mut nonce = [0; 32];
    getrandom::fill(&mut nonce).map_err(Fault::Random)?;
    let hello = carrier.receive(CLIENT_HELLO_LEN).await?;
    let secret_of = |asked| (asked == role).then(|| secret.clone());
    let server = match ServerSide::on_client_hello(&hello, secret_of, binding, nonce) {
        Ok(server) => server,
        Err(refusal) => {
            if let Some(answer) = refusal.answer {
                carrier.send(&answer).await?;
            }
            return Err(refusal.error.into());
        }
    };
    carrier.send(&server.answer()).await?;
    let proof = carrier.receive(PROOF_LEN).await?;
    match server.on_proof(&proof) {
        Ok(_) => carrier.send(&[1]).await,
        Err(error) => {
            carrier.send(&[0]).await?;
            Err(error.into())
        }
    }
}
