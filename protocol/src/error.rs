//! Why bytes were not a message.

use thiserror::Error;

/// A frame or message that is refused. Every case is the peer's fault; the connection it came on is closed.
#[derive(Debug, Error)]
pub enum DecodeError {
    /// The frame ended before what its own fields announce.
    #[error("frame is truncated: {needed} bytes announced, {present} present")]
    Truncated {
        /// Bytes that the fields read so far ask for.
        needed: u64,
        /// Bytes there.
        present: u64,
    },
    /// A length field is over its limit; refused before memory is taken for it.
    #[error("{what} of {length} bytes is over the limit of {limit}")]
    TooLong {
        /// Which field.
        what: &'static str,
        /// What it says.
        length: u64,
        /// What is allowed.
        limit: u64,
    },
    /// The first byte names no kind of frame.
    #[error("unknown frame kind {0}")]
    UnknownKind(u8),
    /// Bytes follow the end of the message.
    #[error("{0} bytes follow the end of the message")]
    Trailing(u64),
    /// A message refers to a transfer of which no chunk came, or whose chunks do not add up to its parts.
    #[error("transfer {transfer} carries {present} bytes, its message announces {needed}")]
    Transfer {
        /// The transfer's number.
        transfer: u32,
        /// Bytes announced by the message.
        needed: u64,
        /// Bytes that came in chunks.
        present: u64,
    },
    /// The head is not a message of the expected direction.
    #[error("message head cannot be read")]
    Head(#[source] bincode::error::DecodeError),
}
