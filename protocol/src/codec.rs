//! The one place that knows the serialisation of message heads (bincode 2, standard configuration).

use serde::{Serialize, de::DeserializeOwned};

use crate::DecodeError;

/// Heads carry names, code and small metadata; data travels in blobs. The limit also bounds what decoding allocates.
pub(crate) const MAX_HEAD_LEN: usize = 64 << 20;

fn config() -> impl bincode::config::Config {
    bincode::config::standard().with_limit::<MAX_HEAD_LEN>()
}

/// Serialises a head.
///
/// # Panics
/// Never for this crate's types: serialising them to memory has no failing case.
pub(crate) fn encode<T: Serialize>(head: &T) -> Vec<u8> {
    bincode::serde::encode_to_vec(head, bincode::config::standard()).expect("message heads always serialise")
}

/// Reads a head; all bytes must be used.
pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, DecodeError> {
    let (head, used) = bincode::serde::decode_from_slice(bytes, config()).map_err(DecodeError::Head)?;
    match bytes.len() - used {
        0 => Ok(head),
        rest => Err(DecodeError::Trailing(rest as u64)),
    }
}
