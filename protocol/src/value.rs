//! Values: one tagged kind each, so that the Rust client can print, push and save without Python.

use serde::{Deserialize, Serialize};

use crate::PythonVersion;

/// What a value's blobs hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ValueKind {
    /// Python's `None`, or nothing. No blobs.
    Null,
    /// Pickle protocol 5: the stream, then its out-of-band buffers. Received buffers are handed to Python writable.
    Pickle {
        /// The interpreter that pickled it.
        python: PythonVersion,
        /// Whether the stream carries code objects, which only an equal minor version may load.
        by_value: bool,
    },
    /// One blob: JSON, UTF-8.
    Json,
    /// One blob: text, UTF-8.
    Text,
    /// One blob: bytes.
    Bytes,
    /// One blob: the source of a Python literal; the engine evaluates it with `ast.literal_eval`.
    Literal,
    /// One blob: the array's raw memory.
    Ndarray {
        /// numpy's `dtype.str`, or the JSON of `dtype.descr` for structured types.
        dtype: String,
        /// Lengths of the axes, in elements.
        shape: Vec<u64>,
        /// Whether the memory is in Fortran order.
        fortran_order: bool,
    },
    /// One blob: the bytes of a `.npy` file.
    Npy,
    /// One blob: JSON `{"data": {mime: …}, "metadata": {…}}`.
    Mime,
    /// One blob: JSON of Jupyter's `execute_reply` content with the displayed result as a bounded mime bundle.
    ExecuteReply,
}

/// A value's head: its kind and how many of the message's blobs, in order, are its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ValueHead {
    /// What the blobs hold.
    pub kind: ValueKind,
    /// Number of blobs that belong to this value.
    pub blobs: u32,
}

impl ValueHead {
    /// The value without content.
    #[must_use]
    pub fn null() -> Self {
        Self {
            kind: ValueKind::Null,
            blobs: 0,
        }
    }
}
