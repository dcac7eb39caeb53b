//! A message: a head of one of the four conversation enums and its binary parts.

use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};

use crate::DecodeError;
use crate::codec;

/// A head with its blobs, not yet or no longer typed: what connections carry and the gateway passes on.
///
/// The head is kept encoded, so that one message for many engines is encoded once and cloned by reference count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The encoded head.
    pub head: Bytes,
    /// Binary parts in the order in which the head refers to them. Cloning shares their memory.
    pub blobs: Vec<Bytes>,
}

impl Message {
    /// Encodes `head`; the blobs are only referred to.
    pub fn new<T: Serialize>(head: &T, blobs: Vec<Bytes>) -> Self {
        Self {
            head: codec::encode(head).into(),
            blobs,
        }
    }

    /// A message without binary parts.
    pub fn bare<T: Serialize>(head: &T) -> Self {
        Self::new(head, Vec::new())
    }

    /// Reads the head as `T`.
    ///
    /// # Errors
    /// [`DecodeError::Head`] or [`DecodeError::Trailing`] when the bytes are not a `T`.
    pub fn decode<T: DeserializeOwned>(&self) -> Result<T, DecodeError> {
        codec::decode(&self.head)
    }

    /// Bytes of all binary parts together.
    #[must_use]
    pub fn blob_len(&self) -> u64 {
        self.blobs.iter().map(|blob| blob.len() as u64).sum()
    }

    /// Bytes of head and parts: what the message counts against credit.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.head.len() as u64 + self.blob_len()
    }

    /// Whether there is nothing in it at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
