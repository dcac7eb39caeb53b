//! Between the protocol's values and the glue's tuples.

use bytes::Bytes;
use ipengine_protocol::{Outcome, PullFormat, PythonVersion, RemoteException, ValueHead, ValueKind};
use pyo3::buffer::PyBuffer;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyBytes, PyList, PyTuple};
use serde_json::{Value as Json, json};

/// What the glue calls a kind, and its header as JSON.
#[must_use]
pub fn to_glue(kind: &ValueKind) -> (&'static str, String) {
    match kind {
        ValueKind::Null => ("none", "{}".to_owned()),
        ValueKind::Pickle { python, by_value } => (
            "pickle",
            json!({"python": [python.0, python.1], "by_value": by_value}).to_string(),
        ),
        ValueKind::Json => ("json", "{}".to_owned()),
        ValueKind::Text => ("text", "{}".to_owned()),
        ValueKind::Bytes => ("bytes", "{}".to_owned()),
        ValueKind::Literal => ("literal", "{}".to_owned()),
        ValueKind::Ndarray {
            dtype,
            shape,
            fortran_order,
        } => {
            let order = if *fortran_order { "F" } else { "C" };
            (
                "ndarray",
                json!({"dtype": dtype, "shape": shape, "order": order}).to_string(),
            )
        }
        ValueKind::Npy => ("npy", "{}".to_owned()),
        ValueKind::Mime => ("mime", "{}".to_owned()),
        ValueKind::ExecuteReply => ("execute_reply", "{}".to_owned()),
    }
}

fn from_glue(kind: &str, meta: &str, python: PythonVersion) -> PyResult<ValueKind> {
    let flag = |name: &str| -> PyResult<bool> {
        let meta: Json = serde_json::from_str(meta).map_err(|e| PyValueError::new_err(e.to_string()))?;
        Ok(meta.get(name).and_then(Json::as_bool).unwrap_or(false))
    };
    Ok(match kind {
        "none" => ValueKind::Null,
        "pickle" => ValueKind::Pickle {
            python,
            by_value: flag("by_value")?,
        },
        "json" => ValueKind::Json,
        "text" => ValueKind::Text,
        "bytes" => ValueKind::Bytes,
        "npy" => ValueKind::Npy,
        "mime" => ValueKind::Mime,
        "execute_reply" => ValueKind::ExecuteReply,
        other => {
            return Err(PyValueError::new_err(format!(
                "the glue returned a value of kind {other}"
            )));
        }
    })
}

/// The glue's name of a format.
#[must_use]
pub fn format_name(format: PullFormat) -> &'static str {
    match format {
        PullFormat::Pickle => "pickle",
        PullFormat::Repr => "repr",
        PullFormat::Json => "json",
        PullFormat::Npy => "npy",
    }
}

/// Blobs as writable Python objects: what is unpickled from them owns them and may be changed in place.
pub fn writable<'py>(py: Python<'py>, blobs: &[Bytes]) -> PyResult<Bound<'py, PyList>> {
    PyList::new(py, blobs.iter().map(|blob| PyByteArray::new(py, blob)))
}

/// A blob as `bytes`.
#[must_use]
pub fn bytes<'py>(py: Python<'py>, blob: Option<&Bytes>) -> Bound<'py, PyBytes> {
    PyBytes::new(py, blob.map_or(&[], |blob| blob))
}

/// Reads the glue's answer `(status, kind, meta, buffers)`.
///
/// # Errors
/// Python's, if the answer is not of this form: a fault of the runtime, not of the user.
pub fn outcome(answer: &Bound<'_, PyAny>, python: PythonVersion) -> PyResult<(Outcome, Vec<Bytes>)> {
    let answer = answer.cast::<PyTuple>()?;
    let (status, kind) = (answer.get_item(0)?, answer.get_item(1)?);
    let (status, kind) = (status.extract::<&str>()?, kind.extract::<&str>()?);
    let meta = answer.get_item(2)?;
    let meta = meta.extract::<&str>()?;
    if status != "ok" {
        let exception: RemoteException = serde_json::from_str(meta)
            .map_err(|e| PyValueError::new_err(format!("unreadable exception: {e}")))?;
        let exception = Box::new(exception);
        let interrupted = status == "interrupted";
        return Ok((
            if interrupted {
                Outcome::Interrupted(exception)
            } else {
                Outcome::Raised(exception)
            },
            Vec::new(),
        ));
    }
    let blobs: Vec<Bytes> = answer
        .get_item(3)?
        .try_iter()?
        .map(|buffer| copy(&buffer?))
        .collect::<PyResult<_>>()?;
    let head = ValueHead {
        kind: from_glue(kind, meta, python)?,
        blobs: blobs.len() as u32,
    };
    Ok((Outcome::Done(head), blobs))
}

/// Copies a buffer: the control thread must be able to drop it without the GIL.
fn copy(buffer: &Bound<'_, PyAny>) -> PyResult<Bytes> {
    if let Ok(bytes) = buffer.cast::<PyBytes>() {
        return Ok(Bytes::copy_from_slice(bytes.as_bytes()));
    }
    let view = PyBuffer::<u8>::get(buffer)?;
    Ok(view.to_vec(buffer.py())?.into())
}
