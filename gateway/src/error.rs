//! What can go wrong: for the gateway as a whole ([`enum@Error`]) and with one peer ([`Fault`]).

use std::io;
use std::path::PathBuf;

use ipengine_protocol::DecodeError;
use ipengine_protocol::handshake::HandshakeError;
use thiserror::Error;

/// Why the gateway cannot start or go on.
#[derive(Debug, Error)]
pub enum Error {
    /// A listening socket that was handed over cannot be used.
    #[error("listening socket cannot be used")]
    Listener(#[source] io::Error),
    /// No certificate could be made.
    #[error("certificate cannot be made")]
    Certificate(#[source] rcgen::Error),
    /// The certificate or key is not accepted.
    #[error("certificate cannot be used")]
    Tls(#[source] rustls::Error),
    /// A secret is not 64 hexadecimal digits.
    #[error("secret is not 64 hexadecimal digits")]
    Secret,
    /// The connection file cannot be written: no client could find this cluster.
    #[error("connection file {path} cannot be written")]
    AccessFile {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// What a peer did for which its connection is closed. The texts are what the peer is told.
#[derive(Debug, Error)]
pub enum Fault {
    /// It did not prove itself.
    #[error(transparent)]
    Handshake(#[from] HandshakeError),
    /// It was silent for too long before it had proved itself.
    #[error("handshake took too long")]
    Slow,
    /// Its bytes are not a message.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// The connection broke.
    #[error("connection broke")]
    Io(#[from] io::Error),
    /// The connection is not a WebSocket, or breaks its rules.
    #[error("not a WebSocket connection as expected")]
    WebSocket(#[from] Box<tokio_tungstenite::tungstenite::Error>),
    /// No randomness for the handshake.
    #[error("no random bytes from the system")]
    Random(#[source] getrandom::Error),
    /// The channel has no binding to prove the token with.
    #[error("TLS exporter is not available")]
    Binding(#[source] rustls::Error),
    /// Text where only binary messages are spoken.
    #[error("text message, but only binary ones are understood")]
    Text,
    /// The first message was not the one that opens the conversation.
    #[error("conversation does not begin with its opening message")]
    NotOpened,
    /// The opening message came a second time.
    #[error("opening message came twice")]
    OpenedTwice,
    /// Numbers must follow each other.
    #[error("number {found} where {expected} is due")]
    Gap {
        /// What was due.
        expected: u64,
        /// What came.
        found: u64,
    },
    /// More than was granted.
    #[error("more was sent than the credit allows")]
    Overdrawn,
    /// It acknowledges what was never sent.
    #[error("events were acknowledged that were never sent (up to {seen}, sent {sent})")]
    SeenUnsent {
        /// What it says.
        seen: u64,
        /// What is true.
        sent: u64,
    },
    /// It goes on with a session that is not known here: it would wait for ever for what nobody has.
    #[error("this gateway does not know the session (it was restarted, or the client was away too long)")]
    UnknownSession,
    /// As many clients as can be remembered.
    #[error("too many clients with unfetched results")]
    TooManyClients,
    /// An engine that does not belong to this world.
    #[error("engine {rank} of {size} does not belong to this world")]
    Stranger {
        /// Its rank.
        rank: u32,
        /// The size of its world.
        size: u32,
    },
    /// An engine that was declared lost came back; its instructions have their outcomes already.
    #[error("engine was declared lost")]
    DeclaredLost,
    /// Only one connection per client or engine: this one was replaced.
    #[error("replaced by a newer connection")]
    Replaced,
    /// No sign of life.
    #[error("no sign of life")]
    Silent,
}
