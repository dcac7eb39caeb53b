//! Binary parts between Python and Rust.
//!
//! Out: `bytes` objects are shared, since nobody can change them; anything else is copied, since the caller may change
//! it as soon as `submit` has returned. In: one copy into a `bytearray`, so that Python owns what it gets and may
//! write to it.

use bytes::Bytes;
use pyo3::buffer::{PyBuffer, PyUntypedBuffer};
use pyo3::exceptions::PyBufferError;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::{PyByteArray, PyBytes, PyMemoryView};

/// The contents of a contiguous buffer.
pub(super) fn outgoing(object: &Bound<'_, PyAny>) -> PyResult<Bytes> {
    if let Ok(bytes) = object.cast::<PyBytes>() {
        return Ok(Bytes::from_owner(PyBackedBytes::from(bytes.clone())));
    }
    let py = object.py();
    let whole = PyUntypedBuffer::get(object)?;
    if !whole.is_c_contiguous() {
        return Err(PyBufferError::new_err("a part must be contiguous in memory"));
    }
    // What is empty cannot be cast.
    if whole.len_bytes() == 0 {
        return Ok(Bytes::new());
    }
    let flat = PyMemoryView::from(object)?.call_method1("cast", ("B",))?;
    Ok(PyBuffer::<u8>::get(&flat)?.to_vec(py)?.into())
}

/// A writable view of a copy that Python owns.
pub(super) fn incoming<'py>(py: Python<'py>, blob: &Bytes) -> PyResult<Bound<'py, PyMemoryView>> {
    PyMemoryView::from(PyByteArray::new(py, blob).as_any())
}
